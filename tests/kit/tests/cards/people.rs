//! `scripts/cards`, as a person uses it from two terminals.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn cards(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cards"));
    command.arg("--dir").arg(dir).args(arguments);
    command
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_person_handles_the_cards_from_another_terminal() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    let other = |arguments: &[&str]| cards(dir, arguments).output().unwrap();
    assert!(said(&other(&["status"])).contains("scripts/cards run"));

    // Says when it runs, and then waits for the end of its input.
    let script = "echo running; cat; opensc-tool --list-readers; exit 7";
    let mut run = cards(dir, &["run", "--", "sh", "-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(run.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "running\n");

    let status = said(&other(&["status"]));
    for locator in ["openpgp:FFFE:00000007", "piv:guid=C1A716E5000040008000000100000008;slot=9d", "piv:serial=12345678"]
    {
        assert!(status.contains(locator), "{status}");
    }
    assert!(said(&other(&["run", "--", "true"])).contains("--dir"));
    assert!(other(&["pull", "piv"]).status.success());
    assert!(said(&other(&["touch", "yubikey"])).contains("asks for no touch"));
    assert_eq!(other(&["pull", "nothing"]).status.code(), Some(2));

    drop(run.stdin.take());
    let mut readers = String::new();
    stdout.read_to_string(&mut readers).unwrap();
    let present = readers.lines().filter(|line| line.contains(" Yes ")).count();
    assert_eq!(present, 2, "{readers}");
    assert_eq!(run.wait().unwrap().code(), Some(7));
    assert_eq!(std::fs::read_dir(dir).unwrap().count(), 0);
}
