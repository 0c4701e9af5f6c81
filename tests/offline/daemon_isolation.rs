//! The daemon closed in, and what it tells the service manager.

use crate::cli::{run, text};
use crate::support::{Machine, pin_file};
use claviger::identity::Curve;
use claviger_testkit::cards::{self, Card, Pcscd};
use claviger_testkit::token::{PIN, SO_PIN, SoftHsm, isolated};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_claviger");
const SOON: Duration = Duration::from_secs(20);

/// A service manager: what it is told, message by message.
struct Manager {
    path: PathBuf,
    socket: UnixDatagram,
}

impl Manager {
    fn new(dir: &Path) -> Self {
        let path = dir.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        Self { path, socket }
    }

    /// Waits for a message that begins like this; all that came until then.
    fn hears(&self, wanted: &str) -> Vec<String> {
        let (began, mut heard) = (Instant::now(), Vec::new());
        while !heard.iter().any(|message: &String| message.starts_with(wanted)) {
            let left = SOON.checked_sub(began.elapsed()).unwrap_or_else(|| panic!("no {wanted} in {heard:?}"));
            self.socket.set_read_timeout(Some(left)).unwrap();
            let mut buffer = [0; 4096];
            if let Ok(len) = self.socket.recv(&mut buffer) {
                heard.push(String::from_utf8_lossy(&buffer[..len]).into_owned());
            }
        }
        heard
    }
}

/// A running daemon; ended when dropped.
struct Daemon {
    child: Child,
    lines: Receiver<String>,
}

impl Daemon {
    fn start(store: &Path, environment: &[(&str, &Path)]) -> Self {
        let mut command = Command::new(PROGRAM);
        let command = command.args(["--store", text(store), "run"]).envs(environment.iter().copied());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines }
    }

    fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end; exit code and what it said.
    fn ends(mut self) -> (Option<i32>, Vec<String>) {
        let code = self.child.wait().unwrap().code();
        (code, self.lines.iter().collect())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A field of its /proc/PID/status.
fn field(daemon: &Daemon, name: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name} in {status}"));
    line.trim_start_matches(':').trim().to_owned()
}

#[test]
fn ready_when_it_is_published_and_closed_in() {
    isolated(|| {
        let hsm = SoftHsm::new();
        let locator = hsm.init_token("cosigner", SO_PIN, PIN).uri_with_pin("noise");
        let mut machine = Machine::new("cosigner", Some(locator), Curve::X25519, "ChaChaPoly_BLAKE2s");
        let tokens = std::env::var("SOFTHSM2_CONF").unwrap();
        let tokens = Path::new(&tokens).parent().unwrap();
        let more = format!(
            "[service.a]\ntarget = \"tcp:127.0.0.1:9\"\n[sandbox]\nrequire = true\nlock-memory = false\nwrite = [{:?}]",
            text(tokens)
        );
        let store = machine.configure(&more);
        let manager = Manager::new(machine.dir.path());
        let daemon =
            Daemon::start(&store, &[("NOTIFY_SOCKET", &manager.path), ("WATCHDOG_USEC", Path::new("2000000"))]);
        let heard = manager.hears("READY=1");
        assert!(heard.iter().any(|message| message.starts_with("EXTEND_TIMEOUT_USEC=")), "{heard:?}");
        manager.hears("WATCHDOG=1");
        manager.hears("WATCHDOG=1");
        assert_eq!(field(&daemon, "Seccomp"), "2");
        assert_eq!(field(&daemon, "NoNewPrivs"), "1");
        daemon.signal(rustix::process::Signal::TERM);
        manager.hears("STOPPING=1");
        let (code, said) = daemon.ends();
        assert_eq!(code, Some(0), "{said:?}");
    });
}

/// Whoever waits for a token has started, and is not ready.
#[test]
fn not_ready_without_its_token() {
    cards::isolated(|| {
        let pcscd = Pcscd::start();
        let card = Card::yubikey(&pcscd, 7_000_012);
        let mut machine = Machine::new("cosigner", Some(card.locator()), Curve::X25519, "ChaChaPoly_BLAKE2s");
        let store = machine.configure(&pin_file(&machine));
        card.pull();
        let manager = Manager::new(machine.dir.path());
        let daemon = Daemon::start(&store, &[("NOTIFY_SOCKET", &manager.path)]);
        let heard = manager.hears("STATUS=waiting for the token; token absent (");
        assert!(!heard.iter().any(|message| message.starts_with("READY=1")), "{heard:?}");
        card.insert();
        manager.hears("READY=1");
        // Pulled later it is a state, and one that is told.
        card.pull();
        manager.hears("STATUS=running; token absent (");
        daemon.signal(rustix::process::Signal::TERM);
        assert_eq!(daemon.ends().0, Some(0));
    });
}

/// Everything that a daemon does, done inside: its token, its sockets, its store, its log, and another configuration.
#[test]
fn it_works_inside() {
    isolated(|| {
        let hsm = SoftHsm::new();
        let locators = ["wallet", "cosigner"].map(|name| hsm.init_token(name, SO_PIN, PIN).uri_with_pin("noise"));
        let [mut wallet, mut cosigner] = [("wallet", &locators[0]), ("cosigner", &locators[1])]
            .map(|(name, locator)| Machine::hybrid(name, Some(locator.clone()), Curve::X25519, "ChaChaPoly_BLAKE2s"));
        wallet.introduce(&mut cosigner);
        let dir = cosigner.dir.path().to_owned();
        let sockets = dir.join("sockets");
        std::fs::create_dir(&sockets).unwrap();
        let conf = PathBuf::from(std::env::var("SOFTHSM2_CONF").unwrap());
        let inside =
            format!("[sandbox]\nrequire = true\nlock-memory = false\nwrite = [{:?}]\n", text(conf.parent().unwrap()));
        let backend = UnixListener::bind(dir.join("backend")).unwrap();
        std::thread::spawn(move || {
            for connection in backend.incoming() {
                let mut connection = connection.unwrap();
                let mut said = Vec::new();
                connection.read_to_end(&mut said).unwrap();
                said.reverse();
                connection.write_all(&said).unwrap();
            }
        });
        let service = |allow: &str| {
            format!("{inside}[service.echo]\ntarget = \"unix:{}\"\nallow = {allow}\n", text(&dir.join("backend")))
        };
        let served = cosigner.configure(&service("[\"wallet\"]"));
        let answerer = Daemon::start(&served, &[]);
        let (tcp, unix) = (free(), sockets.join("forward"));
        let forwards = format!(
            "{inside}[metrics]\nlisten = \"unix:{}\"\n[[forward]]\nlisten = \"tcp:127.0.0.1:{tcp}\"\nto = \"cosigner/echo\"\n[[forward]]\nlisten = \"unix:{}\"\nto = \"cosigner/echo\"\n",
            text(&sockets.join("metrics")),
            text(&unix)
        );
        let called = wallet.configure(&forwards);
        let caller = Daemon::start(&called, &[]);
        until("the caller listens", || unix.exists() && TcpStream::connect(("127.0.0.1", tcp)).is_ok());
        until("the answerer listens", || TcpStream::connect(cosigner.address()).is_ok());
        for daemon in [&answerer, &caller] {
            assert_eq!((field(daemon, "Seccomp"), field(daemon, "NoNewPrivs")), ("2".into(), "1".into()));
        }
        let ask = |mut connection: UnixStream| {
            connection.write_all(b"abc").unwrap();
            connection.shutdown(Shutdown::Write).unwrap();
            let mut answer = String::new();
            connection.read_to_string(&mut answer).map(|_| answer)
        };
        assert_eq!(ask(UnixStream::connect(&unix).unwrap()).unwrap(), "cba");
        let mut connection = TcpStream::connect(("127.0.0.1", tcp)).unwrap();
        connection.write_all(b"xyz").unwrap();
        connection.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "zyx");

        // Another configuration, read from another file in the old one's place; and one that needs what was given up.
        let cli = |store: &Path, arguments: &[&str]| run(&[&["--store", text(store)], arguments].concat(), b"");
        cosigner.configure(&service("[]"));
        assert!(cli(&served, &["reload"]).status.success());
        until("nobody is served", || {
            ask(UnixStream::connect(&unix).unwrap()).is_ok_and(|answer| answer.is_empty())
                || ask(UnixStream::connect(&unix).unwrap()).is_err()
        });
        cosigner.configure(&format!("{}[service.b]\ntarget = \"tcp:127.0.0.1:9\"\n", service("[\"wallet\"]")));
        let refused = cli(&served, &["reload"]);
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(3), "{told}");
        assert!(told.contains("gave up when it started: to connect to TCP port 9."), "{told}");
        cosigner.configure(&service("[\"wallet\"]"));
        assert!(cli(&served, &["reload"]).status.success());
        assert_eq!(ask(UnixStream::connect(&unix).unwrap()).unwrap(), "cba");

        // The store, changed by the ceremony meanwhile; and the log that the daemon writes.
        let tower = Machine::software("tower");
        cosigner.meet(&tower);
        until("the new peer is seen", || {
            String::from_utf8_lossy(&cli(&served, &["status", "--json"]).stdout).contains("\"tower\"")
        });
        let status: serde_json::Value = serde_json::from_slice(&cli(&served, &["status", "--json"]).stdout).unwrap();
        let states: Vec<_> =
            status["sandbox"].as_array().unwrap().iter().map(|applied| applied["state"].as_str().unwrap()).collect();
        assert_eq!(states, ["applied"; 3], "{status}");
        // It is written once a second.
        let written = || String::from_utf8_lossy(&cli(&served, &["log"]).stdout).contains("wallet");
        let until = Instant::now() + Duration::from_secs(20);
        while !written() {
            assert!(Instant::now() < until, "the log has nothing of the wallet");
            std::thread::sleep(Duration::from_millis(100));
        }
        for daemon in [caller, answerer] {
            daemon.signal(rustix::process::Signal::TERM);
            let (code, said) = daemon.ends();
            assert_eq!(code, Some(0), "{said:?}");
        }
    });
}

fn free() -> u16 {
    crate::support::free_port()
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < SOON, "never: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
