//! The house as the design draws it, read from its own files: which module may use which, how long a file may grow, what every crate
//! declares, and that nothing in the ceremony can reach a network.

#![allow(clippy::unwrap_used, missing_docs)]

#[path = "house/modules.rs"]
mod modules;
#[path = "house/offline.rs"]
mod offline;
#[path = "house/source.rs"]
mod source;

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The longest source file, in lines. Past it, split.
const MAX_LINES: usize = 600;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs a program at the root of the house and returns what it prints. `otherwise`: what to do when it fails.
fn output(command: &mut Command, otherwise: &str) -> String {
    let output = command.current_dir(root()).output();
    let output = output.unwrap_or_else(|error| panic!("{command:?} does not run: {error}. {otherwise}"));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}. {otherwise}\n{complaint}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// Cargo, with the lock file as it is and without a registry.
fn cargo(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO"));
    output(command.args(arguments).args(["--locked", "--offline"]), "`cargo fetch --locked` brings what it lacks.")
}

/// Every file that is committed or could be, relative to the root.
fn files() -> Vec<PathBuf> {
    let mut git = Command::new("git");
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let listed = output(&mut git, "These tests read the files of a git checkout.");
    let files: Vec<PathBuf> = listed.split_terminator('\0').map(PathBuf::from).collect();
    // A file deleted and not yet committed is still listed.
    files.into_iter().filter(|file| root().join(file).is_file()).collect()
}

/// The Rust files under `folder` with their text, path relative to `folder`.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let rust = |file: PathBuf| {
        Some(file.strip_prefix(folder).ok()?.to_owned()).filter(|file| file.extension() == Some("rs".as_ref()))
    };
    let read = |file: PathBuf| (file.clone(), std::fs::read_to_string(root().join(folder).join(file)).unwrap());
    let found: Vec<_> = files().into_iter().filter_map(rust).map(read).collect();
    assert!(!found.is_empty(), "no Rust file in {folder}");
    found
}

/// `cargo metadata` of the packages of the workspace.
fn packages() -> Vec<Value> {
    let metadata: Value = serde_json::from_str(&cargo(&["metadata", "--no-deps", "--format-version", "1"])).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

#[test]
fn no_file_is_too_long_and_none_is_mod_rs() {
    for folder in ["src", "hsm/src", "ceremony/src"] {
        for (file, text) in sources(folder) {
            let lines = text.lines().count();
            assert!(lines <= MAX_LINES, "{folder}/{}: {lines} lines; past {MAX_LINES}, split", file.display());
        }
    }
    let named: Vec<_> = files().into_iter().filter(|file| file.ends_with("mod.rs")).collect();
    assert!(named.is_empty(), "`foo.rs` and `foo/`, not {named:?}");
}

#[test]
fn every_crate_has_a_licence_and_the_lints_of_the_house() {
    let packages = packages();
    assert!(packages.len() >= 4, "the workspace has {} crates", packages.len());
    for package in packages {
        let manifest = package["manifest_path"].as_str().unwrap();
        assert_eq!(package["license"], "MIT OR Apache-2.0", "{manifest}");
        assert_eq!(package["edition"], "2024", "{manifest}");
        assert!(package["rust_version"].is_string(), "{manifest}: no rust-version");
        let table: toml::Table = std::fs::read_to_string(manifest).unwrap().parse().unwrap();
        let lints = table.get("lints").and_then(|lints| lints.get("workspace"));
        assert_eq!(lints, Some(&toml::Value::Boolean(true)), "{manifest}: no `[lints] workspace = true`");
    }
    for file in ["LICENSE-MIT", "LICENSE-APACHE"] {
        assert!(root().join(file).is_file(), "{file}");
    }
}

#[test]
fn the_test_script_runs_every_test() {
    let script = std::fs::read_to_string(root().join("scripts/test")).unwrap();
    let words: Vec<&str> = script.split(|c: char| c.is_whitespace() || "()\"';".contains(c)).collect();
    for package in packages() {
        for target in package["targets"].as_array().unwrap() {
            let name = target["name"].as_str().unwrap();
            let is_test = target["kind"].as_array().unwrap().contains(&"test".into());
            // The ceremony is tested as a whole, by itself.
            let named = words.windows(2).any(|pair| pair == ["--test", name]);
            assert!(!is_test || package["name"] == "claviger-ceremony" || named, "scripts/test has no `--test {name}`");
        }
    }
}

#[test]
fn decisions_are_numbered_without_a_gap() {
    let mut numbers: Vec<String> = files()
        .iter()
        .filter_map(|file| file.strip_prefix("docs/decisions").ok())
        .map(|file| file.to_str().unwrap().chars().take(5).collect())
        .collect();
    numbers.sort();
    let expected: Vec<String> = (1..=numbers.len()).map(|number| format!("{number:04}-")).collect();
    assert_eq!(numbers, expected, "docs/decisions holds NNNN-title.md, from 0001 on");
}

#[test]
fn no_path_of_one_machine_is_committed() {
    let foreign = foreign();
    let mut found = Vec::new();
    for file in files() {
        let Ok(text) = std::fs::read_to_string(root().join(&file)) else { continue };
        for (at, line) in text.lines().enumerate() {
            if foreign.iter().any(|path| starts_a_path(line, path)) {
                found.push(format!("{}:{}: {}", file.display(), at + 1, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Folders that only the machine has where this was written. Put together here, so that this file does not hold them.
fn foreign() -> [String; 2] {
    ["work", "root"].map(|folder| format!("/{folder}/"))
}

/// Whether `line` names something under `path`, and not something under a folder or address that only ends like it.
fn starts_a_path(line: &str, path: &str) -> bool {
    let before = |at: usize| line[..at].chars().next_back();
    line.match_indices(path)
        .any(|(at, _)| !before(at).is_some_and(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '}' | '~')))
}

#[test]
fn a_planted_path_is_found() {
    for path in foreign() {
        for (line, found) in [("cd #x", true), ("\"file://#y\"", true), ("src#x", false), ("../..#", false)] {
            assert_eq!(starts_a_path(&line.replace('#', &path), &path), found, "{line}");
        }
    }
}
