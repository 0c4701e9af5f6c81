//! `rehearse`: a whole ceremony and every mistake, and that nothing is left of it.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::lab::{Lab, PROGRAM, snapshot};

const PLAN: &str = "\
plan = 1
name = \"pair\"
curve = \"p256\"

[rules]
attestation = true
proof-of-possession = true
words-spoken = true
witnesses = 1

[[member]]
name = \"wallet\"
role = \"wallet\"

[[member]]
name = \"cosigner\"
role = \"cosigner\"

[[edge]]
from = \"wallet\"
to = \"cosigner\"
service = \"sign\"
";

impl Lab {
    /// `rehearse` with a place for temporary files of its own.
    fn rehearse(&self, arguments: &[&str]) -> Command {
        let temporary = self.path("temporary");
        fs::create_dir_all(&temporary).unwrap();
        let mut command = self.command("setsid", &[&["--wait", PROGRAM, "rehearse"], arguments].concat());
        command.env("TMPDIR", &temporary).env_remove("XDG_RUNTIME_DIR").stdin(Stdio::null());
        command
    }

    fn nothing_is_left(&self) {
        let left: Vec<_> = fs::read_dir(self.path("temporary")).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
        let running = running_in(&self.path("temporary"));
        assert!(running.is_empty(), "{running:?}");
    }
}

/// The processes that work somewhere in a directory.
fn running_in(directory: &Path) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let inside =
        |process: &fs::DirEntry| fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(directory));
    processes.filter(inside).map(|process| process.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn every_mistake_is_caught() {
    let lab = Lab::new();
    lab.write("plan.toml", PLAN);
    let output = lab.rehearse(&["plan.toml", "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stderr, b"", "JSON is all there is");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or("-").to_owned();
    let mut table = format!("without {}\n\n", report["without"]);
    for step in report["steps"].as_array().unwrap() {
        table += &format!("{} ({})\n", text(&step["step"]), step["machines"]);
        for command in step["commands"].as_array().unwrap() {
            table += &format!("  {}\n", text(command));
        }
    }
    for seen in report["mistakes"].as_array().unwrap() {
        let fields = ["mistake", "step", "machine", "kind"].map(|name| text(&seen[name]));
        table += &format!("\n{}: {}\n  {}\n", fields.join(", "), seen["caught"], text(&seen["what"]));
    }
    snapshot("rehearsal", &table);
    assert_eq!(text(&report["phrase"]).split(' ').count(), 12);
    lab.nothing_is_left();
    assert!(!lab.path(".local").exists(), "this machine's own store is not touched");
}

#[test]
fn it_can_be_kept() {
    let lab = Lab::new();
    lab.write("plan.toml", PLAN);
    let output = lab.rehearse(&["plan.toml", "--fast", "--dir", "kept"]).output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(shown.contains("No mistake was made") && shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
    for file in ["stick/wallet.card", "stick/cosigner.transcript.json", "wallet/.local/share/claviger/store.db"] {
        assert!(lab.path("kept").join(file).is_file(), "{file}");
    }
    lab.nothing_is_left();
    // Not over it.
    assert!(lab.fails(1, &["rehearse", "plan.toml", "--dir", "kept"]).contains("something in it already"));
}

#[test]
fn what_can_not_be_rehearsed() {
    let lab = Lab::new();
    lab.write("bad.toml", "plan = 1\nname = \"pair\"\n");
    snapshot(
        "rehearsal-refused",
        &[
            lab.fails(4, &["rehearse", "bad.toml"]),
            lab.fails(1, &["rehearse", "none.toml"]),
            lab.fails(2, &["rehearse"]),
        ]
        .concat(),
    );
}

/// In the middle of a command.
#[test]
#[allow(clippy::disallowed_methods)] // sleep: only the process table tells that a command runs; a deadline bounds it.
fn an_interrupt_leaves_nothing() {
    let lab = Lab::new();
    lab.write("plan.toml", PLAN);
    for signal in ["INT", "TERM"] {
        let mut command = lab.rehearse(&[]);
        // Without `setsid` between: the signal is for the program itself.
        let mut rehearsal = Command::new(PROGRAM);
        rehearsal.args(["rehearse", "plan.toml"]).current_dir(lab.path("")).stdin(Stdio::null());
        rehearsal.stdout(Stdio::null()).stderr(Stdio::piped());
        for (name, value) in command.env("HOME", lab.path("")).get_envs() {
            match value {
                Some(value) => rehearsal.env(name, value),
                None => rehearsal.env_remove(name),
            };
        }
        let child = rehearsal.spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while running_in(&lab.path("temporary")).is_empty() {
            assert!(Instant::now() < deadline, "no command was run");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(
            Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status().unwrap().success()
        );
        let output = child.wait_with_output().unwrap();
        let shown = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(130), "{shown}");
        assert!(shown.contains("The rehearsal was interrupted."), "{shown}");
        lab.nothing_is_left();
    }
}
