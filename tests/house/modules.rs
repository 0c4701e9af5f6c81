//! Which module may use which.

use crate::source::{self, Named};
use std::collections::HashMap;
use std::path::Path;

struct Module {
    name: &'static str,
    never: &'static [&'static str],
}

const fn module(name: &'static str, never: &'static [&'static str]) -> Module {
    Module { name, never }
}

/// The modules of `src/`, low to high: a module may use only those above it, less the bans.
const TABLE: &[Module] = &[
    module("secret", &[]),
    module("identity", &[]),
    module("error", &[]),
    // The texts of a ceremony: pure, so that the store and the network can both read them.
    module("ceremony", &["std::net", "std::fs", "clock", "async", "hsm"]),
    module("store", &["transport", "noise", "hsm"]),
    module("policy", &[]),
    module("config", &[]),
    module("wire", &["std::net", "std::fs", "clock", "async"]),
    module("noise", &["std::net", "std::fs", "clock", "async", "hsm", "store"]),
    module("token", &["transport", "noise"]),
    // Terminal and PIN questions, for the ceremony too.
    module("program", &["std::net", "async", "hsm", "noise"]),
    module("transport", &["noise", "hsm", "store"]),
    module("session", &["hsm", "store"]),
    module("endpoint", &[]),
    module("daemon", &["noise", "hsm", "transport internals"]),
];

/// The modules that may name `claviger_hsm`: the one adapter, and the locator types of the configuration.
const HSM: &[&str] = &["token", "config"];

/// The only home of `zeroize`.
const ZEROIZE: &str = "secret";

/// Whether `path` is what the word of the table forbids. Paths of this crate begin with `crate`.
fn offends(word: &str, path: &[String]) -> bool {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let starts = |prefix: &[&str]| {
        let same = path.iter().zip(prefix).all(|(part, wanted)| part == wanted || *part == "*");
        same && (path.len() >= prefix.len() || path.last() == Some(&"*"))
    };
    let any = |prefixes: &[&[&str]]| prefixes.iter().any(|prefix| starts(prefix));
    match word {
        "std::net" => any(&[&["std", "net"], &["std", "os", "unix", "net"], &["tokio", "net"], &["rustix", "net"]]),
        "std::fs" => any(&[&["std", "fs"], &["std", "os", "unix", "fs"], &["tokio", "fs"], &["rustix", "fs"]]),
        "clock" => {
            any(&[&["std", "time", "SystemTime"], &["std", "time", "Instant"], &["std", "time", "UNIX_EPOCH"]])
                || any(&[&["tokio", "time"], &["rustix", "time"]])
        }
        "async" => {
            matches!(path[0], "async" | "await" | "tokio" | "tokio_util" | "futures") || path.contains(&"Future")
        }
        "hsm" => path[0] == "claviger_hsm",
        // `transport::open` is its face; `transport::arti::Client` is not.
        "transport internals" => {
            path.len() > 3 && path[..2] == ["crate", "transport"] && path[2].starts_with(char::is_lowercase)
        }
        module => path.len() > 1 && path[0] == "crate" && (path[1] == module || path[1] == "*"),
    }
}

/// What in `text`, the source of `module`, the table forbids: one line each. `exported`: where the names at the crate's root come from.
fn violations(module: &[&str], text: &str, exported: &HashMap<String, String>) -> Vec<String> {
    let mut found = Vec::new();
    let is_program = module.first() == Some(&"bin");
    let names = source::paths(text, module).into_iter().map(|mut named| {
        if is_program && named.path[0] == "claviger" {
            named.path[0] = "crate".into();
        }
        if let Some(home) = named.path.get(1).filter(|_| named.path[0] == "crate").and_then(|name| exported.get(name)) {
            named.path.insert(1, home.clone());
        }
        named
    });
    let own = module.first().filter(|_| !is_program);
    let rule = own.map(|own| (*own, TABLE.iter().position(|module| module.name == *own)));
    if let Some((own, None)) = rule {
        found.push(format!("`{own}` is not in the table of modules"));
    }
    for Named { line, path } in names {
        let mut forbid = |why: &str| found.push(format!("line {line}: `{}` {why}", path.join("::")));
        if offends("hsm", &path) && !own.is_some_and(|own| HSM.contains(own)) {
            forbid(&format!("is named outside {}", HSM.join(" and ")));
        }
        if path[0] == "zeroize" && own != Some(&ZEROIZE) {
            forbid(&format!("is used outside `{ZEROIZE}`"));
        }
        let Some((own, Some(level))) = rule else { continue };
        for word in TABLE[level].never.iter().filter(|word| offends(word, &path)) {
            forbid(&format!("is {word}, which `{own}` never uses"));
        }
        if path[0] != "crate" || path.get(1).is_some_and(|used| used == own) {
            continue;
        }
        match path.get(1).map(|used| (used, TABLE.iter().position(|module| module.name == used))) {
            Some((_, Some(used))) if used < level => {}
            Some((used, Some(_))) => forbid(&format!("points down: `{used}` is built on `{own}`, or could be")),
            _ => forbid("is in no module of the table"),
        }
    }
    found.sort();
    found.dedup();
    found
}

/// `src/noise/knock.rs` as a module: `["noise", "knock"]`; the crate's root as none.
pub(crate) fn module_of(file: &Path) -> Vec<&str> {
    let stem = file.with_extension("");
    let parts: Vec<&str> = file.iter().take(stem.iter().count() - 1).filter_map(|part| part.to_str()).collect();
    let last = file.file_stem().and_then(|stem| stem.to_str()).filter(|stem| *stem != "lib");
    parts.into_iter().chain(last).collect()
}

/// The source files of the library that are part of a build: those without `#[cfg(test)]` on their module, and without `gate` on it.
pub(crate) fn sources_without(folder: &str, gates: &[&str]) -> Vec<(std::path::PathBuf, String)> {
    let all = crate::sources(folder);
    let mut left_out: Vec<Vec<String>> = Vec::new();
    for (file, text) in &all {
        for gate in gates {
            left_out.extend(source::gated(text, gate).into_iter().map(|name| {
                module_of(file).into_iter().filter(|part| *part != "main").chain([name]).map(Into::into).collect()
            }));
        }
    }
    let mut kept = all;
    kept.retain(|(file, _)| {
        let module = module_of(file);
        !left_out.iter().any(|out| module.starts_with(&out.iter().map(String::as_str).collect::<Vec<_>>()))
    });
    kept
}

#[test]
fn modules_use_only_those_above_them() {
    let exported = source::reexports(&std::fs::read_to_string(crate::root().join("src/lib.rs")).unwrap());
    let mut found = Vec::new();
    for (file, text) in sources_without("src", &["#[cfg(test)]"]) {
        let module = module_of(&file);
        found.extend(
            violations(&module, &text, &exported).into_iter().map(|what| format!("src/{}: {what}", file.display())),
        );
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_planted_violation_is_found() {
    let exported = source::reexports("pub use endpoint::Endpoint;\npub use crate::error::{Error, Result as R};");
    let planted: &[(&[&str], &str, &str)] = &[
        (&["noise", "knock"], "use crate::store::Store;", "`crate::store::Store` is store, which `noise` never uses"),
        (&["store"], "fn f() { crate::wire::frame(b\"\"); }", "`crate::wire::frame` points down"),
        (&["identity", "card"], "use super::super::error::Error;", "`crate::error::Error` points down"),
        (&["identity"], "mod a { mod b { use super::super::super::noise; } }", "`crate::noise` points down"),
        (&["identity"], "use crate::{name, noise::{self as n}};", "`crate::name` is in no module"),
        (&["store"], "type E = crate::Endpoint;", "`crate::endpoint::Endpoint` points down"),
        (&["store"], "use crate::*;", "is in no module"),
        (&["wire"], "use std::{fmt, fs::File as F};", "`std::fs::File` is std::fs, which `wire` never uses"),
        (&["wire"], "use std::time;\nfn f() { time::Instant::now(); }", "line 2: `std::time::Instant::now` is clock"),
        (&["wire"], "fn f() { std::os::unix::net::UnixStream::pair(); }", "is std::net"),
        (&["noise"], "async fn f() {}", "`async` is async, which `noise` never uses"),
        (&["noise"], "fn f() { let x = r#\"/*\"#; tokio::spawn(g()); }", "`tokio::spawn` is async"),
        (&["transport", "arti"], "use claviger_hsm::Token;", "is hsm, which `transport` never uses"),
        (&["endpoint"], "fn f(e: claviger_hsm::Error) {}", "is named outside token and config"),
        (&[], "pub use claviger_hsm::Token;", "is named outside token and config"),
        (&["bin", "claviger"], "use claviger_hsm as hsm;", "is named outside token and config"),
        (&["store"], "use zeroize::Zeroizing;", "is used outside `secret`"),
        (&["token"], "use crate::noise::NoiseError;", "is noise, which `token` never uses"),
        (&["daemon"], "use crate::transport;\nfn f() { transport::arti::Client::new(); }", "is transport internals"),
        (&["cellar"], "", "`cellar` is not in the table"),
        (&["wire"], "#[cfg(not(test))]\nuse std::fs;", "is std::fs"),
    ];
    for (module, text, expected) in planted {
        let found = violations(module, text, &exported);
        assert!(found.iter().any(|what| what.contains(expected)), "{module:?} {text}: {found:?}, not {expected:?}");
    }
    let allowed: &[(&[&str], &str)] = &[
        (
            &["noise", "knock"],
            "//! use crate::store::Store;\n/* std::fs /* */ tokio::x */ use crate::wire::{self, Pattern};",
        ),
        (
            &["noise"],
            "#[cfg(test)]\nmod tests { use std::fs; use crate::store::Store; }\nuse crate::secret::CipherKey;",
        ),
        (
            &["noise"],
            "#[cfg(test)]\n#[allow(x)]\nfn f<A, B>(a: [u8; 2]) -> A { std::fs::read(\"\") }\nuse super::identity::Curve;",
        ),
        (
            &["wire"],
            "const A: &str = \"std::fs::read \\\" crate::store::X\"; const B: char = '\"'; use std::time::Duration;",
        ),
        (&["wire"], "fn f<'a>(x: &'a str) -> Option<&'a str> { b'\\''; let c = 'x'; None }"),
        (&["store"], "use crate::{Error, R};"),
        (&["config"], "use claviger_hsm::Locator;"),
        (&["daemon"], "use crate::transport;\nfn f() { transport::open(); }"),
        (&[], "pub mod store;\npub use endpoint::Endpoint;"),
        (&["bin", "claviger"], "use claviger::endpoint::Endpoint; use claviger::Error;"),
    ];
    for (module, text) in allowed {
        let found = violations(module, text, &exported);
        assert!(found.is_empty(), "{module:?} {text}: {found:?}");
    }
}
