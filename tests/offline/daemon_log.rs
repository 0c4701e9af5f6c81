//! The log of connections: written by the daemon, read by `claviger log`.

use crate::cli::{Listener, run, shown, snapshot, text};
use crate::support::Machine;
use claviger_testkit::token::PIN;
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const SERVES: &str = "[token]\npin-file = \"../pin\"\n[daemon]\nshutdown = 2\n[service.ssh]\ntarget = \"tcp:127.0.0.1:9\"\n[handshake]\ntimeout = 2\n";

/// With the passphrase of its key in a file.
pub(crate) fn configured(machine: &mut Machine, more: &str) -> PathBuf {
    let pin = machine.dir.path().join("pin");
    std::fs::write(&pin, PIN).unwrap();
    std::fs::set_permissions(&pin, std::fs::Permissions::from_mode(0o600)).unwrap();
    machine.configure(more)
}

fn entries(store: &Path) -> Vec<Value> {
    let output = run(&["--json", "--store", text(store), "log", "--limit", "0"], b"");
    String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Until there is one.
fn entry(store: &Path, wanted: impl Fn(&Value) -> bool) -> Value {
    let began = Instant::now();
    loop {
        let found = entries(store);
        if let Some(entry) = found.iter().rev().find(|entry| wanted(entry)) {
            return entry.clone();
        }
        assert!(began.elapsed() < Duration::from_secs(30), "not there: {found:#?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn stdout(arguments: &[&str]) -> String {
    let output = run(arguments, b"");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Nobody whom the machine knows.
fn knock(machine: &Machine) {
    let began = Instant::now();
    let mut stream = loop {
        match TcpStream::connect(machine.address()) {
            Ok(stream) => break stream,
            Err(error) => assert!(began.elapsed() < Duration::from_secs(30), "{error}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let _ = stream.write_all(&[0x55; 200]);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let _ = stream.read_to_end(&mut Vec::new());
}

#[test]
fn what_happened_is_written_down() {
    let (mut wallet, mut cosigner) = (Machine::software("wallet"), Machine::software("cosigner"));
    wallet.introduce(&mut cosigner);
    let (at_wallet, at_cosigner) = (configured(&mut wallet, SERVES), configured(&mut cosigner, SERVES));
    let store = text(&at_cosigner);

    let daemon = Listener::start(&["--store", store, "run"]);
    (0..20).for_each(|_| knock(&cosigner));
    let strangers = entry(&at_cosigner, |entry| entry["event"] == "strangers");
    assert!(strangers["count"].as_u64().unwrap() <= 20 && strangers["reasons"].is_object(), "{strangers}");

    let refused = run(&["--store", text(&at_wallet), "connect", "cosigner/ssh"], b"hello");
    assert_eq!(refused.status.code(), Some(11), "{}", String::from_utf8_lossy(&refused.stderr));
    let attempt = entry(&at_cosigner, |entry| entry["event"] == "attempt");
    for (field, expected) in [("peer", "wallet"), ("direction", "incoming"), ("transport", "tcp"), ("pattern", "KK")] {
        assert_eq!(attempt[field], expected, "{attempt}");
    }
    assert_eq!((&attempt["token-operations"], &attempt["reason"]), (&2.into(), &Value::Null));
    let ended = entry(&at_cosigner, |entry| entry["event"] == "session-ended");
    assert_eq!((&ended["peer"], &ended["closed"], &ended["streams"]), (&"wallet".into(), &true.into(), &1.into()));
    assert!(ended["received"].as_u64().unwrap() > 0 && ended["sent"].as_u64().unwrap() > 0, "{ended}");

    let refused = entry(&at_cosigner, |entry| entry["event"] == "stream-refused");
    for (field, expected) in [("peer", "wallet"), ("service", "ssh"), ("reason", "not-allowed")] {
        assert_eq!(refused[field], expected, "{refused}");
    }

    // What was a second ago is in the file, whatever becomes of the process.
    drop(daemon);
    let noted = stdout(&["--store", store, "log", "--head"]);
    let noted = noted.lines().next().unwrap();
    let last = entries(&at_cosigner).last().unwrap()["sequence"].to_string();
    assert_eq!(noted.split(':').next().unwrap(), last);
    let daemon = Listener::start(&["--store", store, "run"]);
    let again = |entry: &Value| entry["event"] == "started" && entry["sequence"].as_u64() > ended["sequence"].as_u64();
    entry(&at_cosigner, again);
    // The oldest and the newest are the same file: a daemon that writes is in no reader's way.
    assert!(stdout(&["--store", store, "log", "--verify", "--noted", noted]).contains("is the one that was noted."));
    assert_eq!(daemon.stop(), Some(0));
    assert_eq!(entries(&at_cosigner).last().unwrap()["event"], "stopped");

    let lines = stdout(&["--store", store, "log"]);
    assert!(lines.lines().all(|line| line.chars().count() <= 80), "{lines}");
    assert!(!lines.contains(".onion") && !lines.contains("127.0.0.1"), "{lines}");
    for wanted in [
        "  the daemon started, release ",
        "  wallet called: session by KK in ",
        "  wallet: session ended after ",
        "  the daemon stopped",
    ] {
        assert!(lines.contains(wanted), "{wanted:?} in {lines}");
    }
    let only = stdout(&["--store", store, "log", "--peer", "wallet", "--since", "1h", "--limit", "1"]);
    assert!(only.lines().next().unwrap().contains("wallet") && !only.contains("daemon"), "{only}");
    assert!(!stdout(&["--store", store, "log", "--failed"]).contains("the daemon"));
}

/// However the test ends.
struct Ended(std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn whoever_follows_sees_what_comes() {
    let mut machine = Machine::software("cosigner");
    let store = configured(&mut machine, SERVES);
    let daemon = Listener::start(&["--store", text(&store), "run"]);
    entry(&store, |entry| entry["event"] == "started");
    let mut following = std::process::Command::new(env!("CARGO_BIN_EXE_claviger"));
    following.args(["--json", "--store", text(&store), "log", "--follow"]);
    let mut following = Ended(following.stdout(std::process::Stdio::piped()).spawn().unwrap());
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(following.0.stdout.take().unwrap()));
    let mut said = |wanted: &str| {
        let line = lines.next().unwrap().unwrap();
        assert!(line.contains(wanted), "{line}");
    };
    said(r#""event":"started""#);
    knock(&machine);
    said(r#""event":"strangers""#);
    // One that comes in place of the first is followed, too.
    std::fs::remove_file(store.join("connections.db")).unwrap();
    assert_eq!(daemon.stop(), Some(0));
    said(r#""event":"new-chain""#);
    said(r#""event":"stopped""#);
}

#[test]
fn what_can_not_be_believed_is_named() {
    let mut machine = Machine::software("cosigner");
    let store = configured(&mut machine, SERVES);
    let home = text(machine.dir.path()).to_owned();
    let hide = [(home.as_str(), "[HOME]")];
    let mut seen = shown(5, &["--store", text(&store), "log"], &hide);
    for _ in 0..2 {
        let daemon = Listener::start(&["--store", text(&store), "run"]);
        knock(&machine);
        assert_eq!(daemon.stop(), Some(0));
    }
    let head = stdout(&["--store", text(&store), "log", "--head"]);
    let hash = head.lines().next().unwrap().split_once(':').unwrap().1.to_owned();
    seen += &shown(5, &["--store", text(&store), "log", "--verify", "--noted", &format!("3:{hash}")], &hide);
    seen += &shown(5, &["--store", text(&store), "log", "--verify", "--noted", &format!("99:{hash}")], &hide);
    seen += &shown(2, &["--store", text(&store), "log", "--since", "yesterday"], &hide);
    seen += &shown(2, &["--store", text(&store), "log", "--noted", "3:00"], &hide);
    seen += &shown(2, &["--store", text(&store), "log", "--head", "--peer", "wallet"], &hide);
    let database = rusqlite::Connection::open(store.join("connections.db")).unwrap();
    database.execute("DELETE FROM entries WHERE sequence = 2", []).unwrap();
    drop(database);
    seen += &shown(5, &["--store", text(&store), "log", "--verify"], &hide);
    // One that begins after what was noted can be anybody's.
    let database = rusqlite::Connection::open(store.join("connections.db")).unwrap();
    database.execute_batch("DELETE FROM entries; UPDATE anchor SET sequence = 500, hash = randomblob(32)").unwrap();
    drop(database);
    seen += &shown(1, &["--store", text(&store), "log", "--verify", "--noted", &format!("3:{hash}")], &hide);
    std::fs::write(store.join("connections.db"), "no database at all, but for its name").unwrap();
    seen += &shown(5, &["--store", text(&store), "log"], &hide);
    snapshot("log", &seen.replace(&hash, "[HASH]"));
    let daemon = Listener::start(&["--store", text(&store), "run"]);
    daemon.says("a new log began, the old one is kept in connections.db.damaged-");
    assert_eq!(daemon.stop(), Some(0));
}
