//! Asking a daemon: its control socket, `claviger status`, reload.

use crate::cli::{Listener, PROGRAM, command, run, text};
use crate::support::{Machine, pin_file};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
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
        Self::of(Command::new(PROGRAM), store)
    }

    /// By a command that takes the program's arguments.
    pub(crate) fn of(mut command: Command, store: PathBuf) -> Self {
        let process = Listener::of(command.args(["--store", text(&store), "run"]));
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
        let end = Instant::now() + Duration::from_secs(60);
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

/// What differs from run to run is left out.
pub(crate) fn snapshot(name: &str, page: &str) {
    for line in page.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.set_snapshot_path("snapshots");
    settings.add_filter(r"process \d+", "process N");
    settings.add_filter(r"version [0-9.]+", "version V");
    settings.add_filter(r"\b(just now|\d+ s ago)", "just now");
    settings.add_filter(r"(?m)^(\S+ +(?:needed|known|operational|degraded|interrupted) +)\d+ s", "${1}N s");
    settings.add_filter(r" +\d+ s  ", "  N s  ");
    settings.add_filter(r"tried again in \d+ s", "tried again in N s");
    settings.add_filter(r"127\.0\.0\.1:\d+", "127.0.0.1:PORT");
    settings.add_filter(r" +\d+(\.\d+)? k?B", "  BYTES");
    settings.add_filter(r"/\S*/key\.pem", "DIR/key.pem");
    settings.bind(|| insta::assert_snapshot!(name, page));
}

fn machine_store(machine: &Machine) -> PathBuf {
    machine.dir.path().join("store")
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

#[test]
fn without_a_daemon() {
    let mut machine = Machine::software("cosigner");
    let store = machine.configure("");
    let mut pages = String::new();
    for (code, arguments) in [
        (1, &["status"][..]),
        (1, &["status", "--json"]),
        (1, &["reload"]),
        (1, &["status", "--control", "/nonexistent/control.sock"]),
        (2, &["status", "--watch", "--check"]),
        (2, &["reload", "now"]),
    ] {
        let output = run(&[&["--store", text(&store)], arguments].concat(), b"");
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(code), &b""[..]));
        let said = String::from_utf8(output.stderr).unwrap().replace(text(&store), "STORE");
        pages += &format!("$ claviger {}\n{said}exit {code}\n\n", arguments.join(" "));
    }
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.set_snapshot_path("snapshots");
    settings.bind(|| insta::assert_snapshot!("status-without-a-daemon", pages));
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
    // Places of connections before may not have been free yet.
    let silent = slow.into_iter().filter(|stream| all(stream.try_clone().unwrap()).is_empty()).count();
    assert!(silent >= 12, "{silent}");
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

/// A stream of `claviger connect`, which gives back what is said to it.
struct Connected(Child, ChildStdin, BufReader<ChildStdout>);

impl Connected {
    fn to(store: &Path, target: &str) -> Self {
        let mut child = command(&["--store", text(store), "-q", "connect", target])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut connected = Self(child, stdin, BufReader::new(stdout));
        connected.says("it works");
        connected
    }

    fn says(&mut self, line: &str) {
        let mut back = String::new();
        writeln!(self.1, "{line}").unwrap();
        self.2.read_line(&mut back).unwrap();
        assert_eq!(back.trim_end(), line);
    }

    /// It ends, though its stdin has not.
    fn ends(mut self) -> Option<i32> {
        let end = Instant::now() + Duration::from_secs(20);
        while Instant::now() < end {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("it goes on");
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The file with other services in it.
fn services(machine: &mut Machine, more: &str) {
    let pin = pin_file(machine);
    machine.configure(&format!("{pin}\n{more}"));
}

fn service(name: &str, allow: &str) -> String {
    format!("[service.{name}]\ncommand = [\"/bin/cat\"]\nallow = [{allow}]\n")
}

/// What stays allowed goes on; what does not ends at once; a file that is wrong changes nothing.
#[test]
fn reload() {
    let (mut wallet, mut cosigner) = (Machine::software("wallet"), Machine::software("cosigner"));
    wallet.introduce(&mut cosigner);
    let daemon = Running::start(&mut cosigner, &[service("one", "\"wallet\""), service("two", "\"*\"")].concat());
    let store = {
        let pin = pin_file(&wallet);
        wallet.configure(&pin)
    };
    let (mut one, two) = (Connected::to(&store, "cosigner/one"), Connected::to(&store, "cosigner/two"));

    services(
        &mut cosigner,
        &[service("one", "\"role:wallet\""), service("two", "\"tower\""), service("three", "")].concat(),
    );
    let (code, said, _) = daemon.asked(&["reload"]);
    assert_eq!(
        (code, said.as_str()),
        (Some(0), "Service `one` has changed.\nService `three` is new.\nService `two` has changed.\n")
    );
    assert_eq!(two.ends(), Some(11));
    one.says("still here");

    // Nothing of a file counts that is wrong, or that needs a restart.
    for (text, kind, code, what) in [
        ("[service.one]\ntarget = 1\n", "config-invalid", 3, "line 4"),
        (
            "[handshake]\npattern = \"xk\"\n[limits]\npending = 7\n",
            "restart-needed",
            3,
            "`handshake.pattern`, `limits.pending`",
        ),
    ] {
        services(&mut cosigner, text);
        let (exit, said, error) = daemon.asked(&["reload"]);
        assert_eq!((exit, said.as_str()), (Some(code), ""), "{error}");
        assert!(error.contains(what), "{error}");
        one.says("and still here");
        let status = daemon.status();
        let refused = &status["configuration"]["refused"];
        assert_eq!((refused["reason"].as_str(), &status["well"]), (Some(kind), &json!(false)), "{status:#}");
        assert_eq!(status["services"].as_array().unwrap().len(), 3);
        assert_eq!(
            daemon.asked(&["status", "--check", "-q"]),
            (Some(1), String::new(), "claviger: Not all is well with `cosigner`. Look at `claviger status`.\n".into())
        );
    }

    // How much is logged.
    let three = [service("one", "\"role:wallet\""), service("two", "\"tower\""), service("three", "")].concat();
    services(&mut cosigner, &format!("{three}[log]\nlevel = \"warn\"\n"));
    assert_eq!(daemon.asked(&["reload"]).1, "The level of the log has changed.\n");
    let _ = daemon.process.so_far().count();
    assert_eq!(daemon.asked(&["reload"]).1, "Nothing has changed.\n");
    assert_eq!(daemon.process.so_far().collect::<Vec<_>>(), Vec::<String>::new());

    // By the signal, too.
    services(&mut cosigner, &service("one", "\"wallet\""));
    daemon.process.signal(rustix::process::Signal::HUP);
    let is_taken = |status: &Value| status["services"].as_array().is_some_and(|services| services.len() == 1);
    assert!(daemon.until("it is taken over", is_taken)["configuration"]["refused"].is_null());
    one.says("here to the end");
    assert_eq!(daemon.asked(&["reload"]).1, "Nothing has changed.\n");
    services(&mut cosigner, "");
    assert_eq!(daemon.asked(&["reload", "--json"]).1, "{\"reloaded\":{\"changes\":[\"Service `one` is gone.\"]}}\n");
    assert_eq!(one.ends(), Some(11));
}

/// A session that is kept comes back: after its peer was away, after it was given up, and not at all when the peer is none any more.
#[test]
fn kept_sessions() {
    let (mut wallet, mut cosigner, mut tower) =
        (Machine::software("wallet"), Machine::software("cosigner"), Machine::software("tower"));
    wallet.introduce(&mut cosigner);
    tower.meet(&wallet);
    wallet.config.transport.tcp.peers.insert("tower".parse().unwrap(), tower.address());
    let kept = "[peer.cosigner]\nkeep = true\n[peer.tower]\nkeep = true\n";
    // Nobody listens at its port.
    services(&mut cosigner, "");
    let daemon = Running::start(&mut wallet, kept);
    let status = daemon.until("nobody is there", |status| !peer(status, "cosigner")["next-try"].is_null());
    let cosigners = peer(&status, "cosigner");
    assert_eq!(
        (&cosigners["relation"], &cosigners["last-error"]["reason"]),
        (&json!("needed"), &json!("unreachable")),
        "{status:#}"
    );
    assert_eq!(peer(&status, "tower")["last-error"]["reason"], "peer-unknown", "{status:#}");
    let (code, page, _) = daemon.asked(&["status"]);
    assert_eq!(code, Some(0));
    snapshot("status-troubled", &page);

    let first = Running::start(&mut cosigner, ECHO);
    daemon.until("it comes", |status| peer(status, "cosigner")["relation"] == "operational");
    first.process.stop();
    let status = daemon.until("it is missed", |status| peer(status, "cosigner")["relation"] == "interrupted");
    assert_eq!(status["well"], false);
    let mut second = Running::start(&mut cosigner, ECHO);
    daemon.until("it comes back", |status| peer(status, "cosigner")["relation"] == "operational");
    second.process.signal(rustix::process::Signal::KILL);
    daemon.until("it is missed again", |status| peer(status, "cosigner")["relation"] == "interrupted");
    second = Running::start(&mut cosigner, ECHO);
    let status = daemon.until("it comes back again", |status| peer(status, "cosigner")["relation"] == "operational");
    assert_eq!(peer(&status, "cosigner")["sessions"].as_array().unwrap().len(), 1);

    // A peer that was unknown is recorded, and begun with at once.
    let third = Running::start(&mut tower, "[service.echo]\ncommand = [\"/bin/cat\"]\n");
    wallet.meet(&tower);
    let status = daemon.until("the tower, too", |status| peer(status, "tower")["relation"] == "operational");
    assert_eq!(status["well"], true, "{status:#}");
    snapshot("status-well", &daemon.asked(&["status"]).1);
    wallet.store().remove_peer(&"tower".parse().unwrap()).unwrap();
    let status = daemon.until("it is removed", |status| peer(status, "tower")["role"].is_null());
    assert_eq!(peer(&status, "tower")["sessions"], json!([]));
    third.until("it hears of it", |status| peer(status, "wallet")["sessions"] == json!([]));

    // No longer kept: it goes on until it ends.
    services(&mut wallet, "");
    assert_eq!(
        daemon.asked(&["reload"]).1,
        "What is wanted of the peer `cosigner` is gone.\nWhat is wanted of the peer `tower` is gone.\n"
    );
    assert_eq!(peer(&daemon.status(), "cosigner")["relation"], "operational");
    second.process.stop();
    daemon.until("it is not missed", |status| peer(status, "cosigner")["relation"] == "known");
}

/// A daemon that ends begins no session anew, while a stream of another one has its time.
#[test]
fn a_kept_session_ends_with_the_daemon() {
    let [mut wallet, mut cosigner, mut tower] = ["wallet", "cosigner", "tower"].map(Machine::software);
    wallet.introduce(&mut cosigner);
    wallet.introduce(&mut tower);
    let (cosigner, _tower) = (Running::start(&mut cosigner, ECHO), Running::start(&mut tower, ECHO));
    let port = crate::support::free_port();
    let wallet = Running::start(
        &mut wallet,
        &format!(
            "[peer.cosigner]\nkeep = true\n[daemon]\nshutdown = 4\n[[forward]]\nlisten = \"tcp:127.0.0.1:{port}\"\nto = \"tower/echo\"\n"
        ),
    );
    wallet.until("the session that is kept", |status| peer(status, "cosigner")["relation"] == "operational");
    let mut held = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    held.write_all(b"x").unwrap();
    held.read_exact(&mut [0]).unwrap();
    let sessions = |status: &Value| peer(status, "wallet")["sessions"].as_array().unwrap().len();
    cosigner.until("it is there", |status| sessions(status) == 1);
    wallet.process.signal(rustix::process::Signal::TERM);
    cosigner.until("it ends", |status| sessions(status) == 0);
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        assert_eq!(sessions(&cosigner.status()), 0, "it was begun again");
        std::thread::sleep(Duration::from_millis(100));
    }
    held.write_all(b"y").unwrap();
    held.read_exact(&mut [0]).expect("a stream has its time");
}

/// Who is not the daemon's user.
#[test]
fn other_users() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let socket = dir.path().join("control.sock");
    let mut machine = Machine::software("cosigner");
    let store = machine_store(&machine);
    let mut configured = |operators: &str| {
        services(&mut machine, &format!("[daemon]\ncontrol = \"{}\"\noperators = [{operators}]\n", text(&socket)));
    };
    configured("");
    let _daemon = Listener::start(&["--store", text(&store), "run"]);
    let end = Instant::now() + Duration::from_secs(20);
    while !socket.exists() {
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(20));
    }
    let as_nobody = |request: Value| {
        let script = "import socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\ntry: s.sendall(sys.argv[2].encode() + b'\\n')\nexcept BrokenPipeError: pass\nprint(s.makefile().readline())";
        let output = std::process::Command::new("setpriv")
            .args([
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                "/usr/bin/python3",
                "-c",
                script,
                text(&socket),
                &request.to_string(),
            ])
            .output()
            .unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    let (status, reload) = (json!({ "version": 1, "command": "status" }), json!({ "version": 1, "command": "reload" }));
    assert!(as_nobody(status.clone()).contains("Permission denied"));
    configured("65534");
    assert_eq!(ask(&socket, &reload)["reloaded"]["changes"][0], "The users who may ask for the status are others.");
    let said = as_nobody(status.clone());
    assert!(said.contains("\"machine\":\"cosigner\""), "{said}");
    assert!(as_nobody(reload.clone()).contains("daemon-refused"));
    let script = "import socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\ns.sendall(b'{\"version\":1,\"command\":\"watch\"}\\n')\nfor line in s.makefile(): print(line, flush=True)";
    let mut watching = std::process::Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/python3", "-c", script, text(&socket)])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut seen = BufReader::new(watching.stdout.take().unwrap());
    let mut line = String::new();
    seen.read_line(&mut line).unwrap();
    assert!(line.contains("\"machine\":\"cosigner\""), "{line}");
    configured("65533");
    assert!(ask(&socket, &reload)["reloaded"].is_object());
    let end = Instant::now() + Duration::from_secs(10);
    while watching.try_wait().unwrap().is_none() {
        if Instant::now() >= end {
            watching.kill().unwrap();
            watching.wait().unwrap();
            panic!("who watches goes on, and may no more");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut rest = String::new();
    seen.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("does not do this for this user"), "{rest}");
    assert!(as_nobody(status).contains("does not do this for this user"), "the socket is open, and the door is not");
}
