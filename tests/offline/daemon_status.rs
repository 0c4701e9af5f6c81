//! Asking a daemon: its control socket, `claviger status`, reload.

use crate::cli::{Listener, run, text};
use crate::support::{Machine, pin_file};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A daemon in a store's directory.
pub(crate) struct Running {
    pub(crate) process: Listener,
    pub(crate) store: PathBuf,
}

impl Running {
    pub(crate) fn start(machine: &mut Machine, more: &str) -> Self {
        let pin = pin_file(machine);
        let store = machine.configure(&format!("{pin}\n{more}"));
        let process = Listener::start(&["--store", text(&store), "run"]);
        let running = Self { process, store };
        running.until("it runs", |status| status["phase"] == "running");
        running
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.store.join("control.sock")
    }

    pub(crate) fn asked(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let output = run(&[&["--store", text(&self.store)], arguments].concat(), b"");
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    pub(crate) fn status(&self) -> Value {
        ask(&self.socket(), &json!({ "version": 1, "command": "status" }))["status"].clone()
    }

    /// Waits until the status is as wanted.
    pub(crate) fn until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + Duration::from_secs(30);
        let mut last = Value::Null;
        while Instant::now() < end {
            if self.socket().exists() && UnixStream::connect(self.socket()).is_ok() {
                last = self.status();
                if wanted(&last) {
                    return last;
                }
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("never: {what}; last {last:#}");
    }
}

/// The first answer to a request.
pub(crate) fn ask(socket: &Path, request: &Value) -> Value {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    writeln!(stream, "{request}").unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap()
}

/// Of the peer of that name.
pub(crate) fn peer<'a>(status: &'a Value, name: &str) -> &'a Value {
    status["peers"].as_array().unwrap().iter().find(|peer| peer["name"] == name).unwrap()
}

const ECHO: &str = "[service.echo]\ncommand = [\"/bin/cat\"]\nallow = [\"*\"]\n";

#[test]
fn a_daemon_tells_of_itself() {
    let (mut wallet, mut cosigner) = (Machine::software("wallet"), Machine::software("cosigner"));
    wallet.introduce(&mut cosigner);
    let cosigner = Running::start(&mut cosigner, ECHO);
    let (code, json, _) = cosigner.asked(&["status", "--json"]);
    let status: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(code, Some(0));
    assert_eq!((&status["machine"], &status["well"]), (&json!("cosigner"), &json!(true)), "{json}");
    assert_eq!(peer(&status, "wallet")["relation"], "known");

    let wallet = Running::start(&mut wallet, "[peer.cosigner]\nkeep = true\n");
    let status = wallet.until("a session", |status| peer(status, "cosigner")["relation"] == "operational");
    assert_eq!(peer(&status, "cosigner")["sessions"][0]["direction"], "outgoing", "{status:#}");
    cosigner.until("a session", |status| peer(status, "wallet")["relation"] == "operational");
    // The socket goes with its daemon.
    let socket = wallet.socket();
    assert_eq!(wallet.process.stop(), Some(0));
    assert!(!socket.exists());
}

/// What programs that mean no good, or do not know better, send.
#[test]
fn the_control_socket_bears_much() {
    let mut machine = Machine::software("cosigner");
    let daemon = Running::start(&mut machine, "");
    let socket = daemon.socket();
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let connect = || UnixStream::connect(&socket).unwrap();
    let all = |mut stream: UnixStream| {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        said
    };

    // Garbage gets an answer, and may go on.
    let mut stream = connect();
    stream
        .write_all(b"GET / HTTP/1.1\n\n{\"version\":1,\"command\":\"dance\"}\n{\"version\":1,\"command\":\"status\"}\n")
        .unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let said = all(stream);
    let answers: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), 4, "{said}");
    assert!(answers[..3].iter().all(|answer| answer["error"]["kind"] == "daemon-refused"), "{said}");
    assert_eq!(answers[3]["status"]["machine"], "cosigner");

    // A line without an end is not collected for ever.
    let mut stream = connect();
    let _ = stream.write_all(&vec![b'x'; 1 << 20]);
    let mut line = String::new();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let _ = BufReader::new(stream).read_line(&mut line);
    assert!(line.contains("longer than 4096 bytes"), "{line}");

    // Sixteen that say nothing; the next is told, and they are let go.
    let slow: Vec<UnixStream> = (0..16).map(|_| connect()).collect();
    let end = Instant::now() + Duration::from_secs(20);
    while !all(connect()).contains("connected to the control socket already") {
        assert!(Instant::now() < end);
    }
    for stream in slow {
        assert_eq!(all(stream), "");
    }
    assert_eq!(daemon.status()["well"], true);

    // Who watches and does not read holds nothing up.
    let mut deaf = connect();
    deaf.write_all(b"{\"version\":1,\"command\":\"watch\"}\n").unwrap();
    assert_eq!(daemon.status()["well"], true);

    // Another daemon does not take its place.
    let (code, _, said) = daemon.asked(&["run"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("Another daemon, process") && said.contains("has the control socket"), "{said}");
    assert_eq!(daemon.process.stop(), Some(0));
}
