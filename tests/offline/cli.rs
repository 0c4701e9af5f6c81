//! The `claviger` program as people and scripts meet it, over plain TCP on loopback.

use crate::support::Machine;
use claviger::identity::Curve;
use claviger_testkit::token::{PIN, SO_PIN, SoftHsm, isolated};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_claviger");

/// The program without a terminal, as a script runs it.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new("setsid");
    command
        .args(["--wait", PROGRAM])
        .args(arguments)
        .env_remove("XDG_DATA_HOME")
        .env_remove("COLUMNS")
        .env("HOME", "/nonexistent");
    command
}

pub(crate) fn run(arguments: &[&str], stdin: &[u8]) -> Output {
    let mut child =
        command(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(stdin);
    child.wait_with_output().unwrap()
}

/// A running listener; ended when dropped.
pub(crate) struct Listener {
    child: Child,
    lines: Receiver<String>,
}

impl Listener {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::of(Command::new(PROGRAM).args(arguments))
    }

    /// The same by a command of one's own.
    pub(crate) fn of(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines }
    }

    /// Waits for a line on stderr.
    pub(crate) fn says(&self, wanted: &str) -> String {
        loop {
            let line =
                self.lines.recv_timeout(Duration::from_secs(20)).unwrap_or_else(|_| panic!("never said {wanted:?}"));
            if line.contains(wanted) {
                return line;
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGHUP.
    pub(crate) fn hang_up(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    }

    /// What it has said on stderr, and nobody has waited for.
    pub(crate) fn so_far(&self) -> impl Iterator<Item = String> {
        self.lines.try_iter()
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }

    /// SIGTERM; the exit code.
    pub(crate) fn stop(mut self) -> Option<i32> {
        self.signal(rustix::process::Signal::TERM);
        self.child.wait().unwrap().code()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two machines that know each other, with their keys on SoftHSM tokens and the PINs in files.
fn pair() -> (SoftHsm, Machine, Machine) {
    let hsm = SoftHsm::new();
    // Both tokens before the module is loaded: SoftHSM looks for tokens once.
    let locators = ["wallet", "cosigner"].map(|name| (name, hsm.init_token(name, SO_PIN, PIN).uri_with_pin("noise")));
    let [mut wallet, mut cosigner] =
        locators.map(|(name, locator)| Machine::hybrid(name, Some(locator), Curve::X25519, "ChaChaPoly_BLAKE2s"));
    wallet.introduce(&mut cosigner);
    (hsm, wallet, cosigner)
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A question in a window ends with the program that asks it.
#[test]
fn no_pinentry_program_stays_behind() {
    let mut machine = Machine::software("cosigner");
    let (script, pid) = (machine.dir.path().join("pinentry"), machine.dir.path().join("pid"));
    // Agrees to everything, and then waits for somebody who does not come.
    let text_of = format!(
        "#!/bin/sh\necho OK\nwhile read -r command _; do\n  if [ \"$command\" = GETPIN ]; then echo $$ >'{0}.new'; mv '{0}.new' '{0}'; exec sleep 60; fi\n  echo OK\ndone\n",
        text(&pid)
    );
    std::fs::write(&script, text_of).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).unwrap();
    let store = machine.configure(&format!("[token]\npinentry = \"{}\"", text(&script)));
    let mut child = Command::new(PROGRAM)
        .args(["--store", text(&store), "listen", "--echo"])
        .env("DISPLAY", ":99")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let started = std::time::Instant::now();
    while !pid.exists() {
        assert!(started.elapsed() < Duration::from_secs(20), "nobody is asked");
        std::thread::yield_now();
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM).unwrap();
    let mut said = String::new();
    // The pipe's end: it is gone, and so is everything that it started.
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(started.elapsed() < Duration::from_secs(30), "it was waited for");
    assert_eq!(child.wait().unwrap().code(), Some(130), "{said}");
    assert!(said.contains("Interrupted."), "{said}");
}

#[test]
fn echo_exec_and_stdio() {
    isolated(|| {
        let (_hsm, mut wallet, mut cosigner) = pair();
        let (wallet, cosigner) = (wallet.configure(""), cosigner.configure(""));
        let (wallet, cosigner) = (text(&wallet), text(&cosigner));

        let listener = Listener::start(&["--store", cosigner, "listen", "--echo"]);
        listener.says("cosigner is reachable.");
        let long: Vec<u8> = (0..300_000u32).map(|i| i as u8).collect();
        for pattern in ["kk", "kk1", "xk"] {
            let output = run(&["--store", wallet, "connect", "cosigner", "--pattern", pattern], &long);
            assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
            assert!(output.stdout == long, "{pattern}: the echo differs");
            listener.says("wallet has left.");
        }
        assert_eq!(listener.stop(), Some(0));

        let asked = "read -r x; echo \"$CLAVIGER_PEER ($CLAVIGER_PEER_ROLE) says $x\"";
        let listener = Listener::start(&["--store", cosigner, "listen", "--once", "--exec", asked]);
        listener.says("cosigner is reachable.");
        // The command answers after one line, though more was sent.
        let output = run(&["-q", "--store", wallet, "connect", "cosigner"], &[b"hello\n".to_vec(), long].concat());
        assert_eq!(output.stdout, b"wallet (wallet) says hello\n");
        assert_eq!(output.status.code(), Some(0));
        // With -q only what must be known is said.
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(
            said.starts_with("Warning: The identity of `wallet` is a software key") && said.lines().count() == 1,
            "{said}"
        );
        drop(listener);

        let mut listener = Listener::start(&["--store", cosigner, "listen"]);
        listener.says("cosigner is reachable.");
        assert_eq!(run(&["--store", wallet, "connect", "cosigner"], b"one way").status.code(), Some(0));
        let mut heard = Vec::new();
        listener.child.stdout.take().unwrap().read_to_end(&mut heard).unwrap();
        assert_eq!((heard, listener.child.wait().unwrap().code()), (b"one way".to_vec(), Some(0)));
    });
}

/// Whoever reads its stdout must not take half of what the peer says for all of it.
#[test]
fn a_listener_that_is_ended_in_the_middle() {
    isolated(|| {
        let (_hsm, mut wallet, mut cosigner) = pair();
        let (wallet, cosigner) = (wallet.configure(""), cosigner.configure(""));
        let (wallet, cosigner) = (text(&wallet), text(&cosigner));
        let mut listener = Listener::start(&["--store", cosigner, "listen"]);
        listener.says("cosigner is reachable.");
        let mut caller = Command::new(PROGRAM);
        let caller =
            caller.args(["--store", wallet, "connect", "cosigner"]).stdin(Stdio::piped()).stderr(Stdio::null());
        let mut caller = caller.spawn().unwrap();
        let mut said = caller.stdin.take().unwrap();
        said.write_all(b"half of it").unwrap();
        let mut heard = [0; 10];
        let mut stdout = listener.child.stdout.take().unwrap();
        stdout.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"half of it");
        let pid = rustix::process::Pid::from_child(&listener.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        listener.says("What the stream carried is incomplete: the session with `wallet` was closed by this machine");
        assert_eq!(listener.child.wait().unwrap().code(), Some(11));
        // The peer is told, though nothing more was to come: not all of its stdin was taken.
        assert_eq!(caller.wait().unwrap().code(), Some(11));
        drop(said);
        // Before anybody came there is nothing to be cut.
        let listener = Listener::start(&["--store", cosigner, "listen"]);
        listener.says("cosigner is reachable.");
        assert_eq!(listener.stop(), Some(0));
    });
}

/// What a command of --exec can do wrong, and a peer that is cut off.
#[test]
fn exec_at_its_edges() {
    isolated(|| {
        let (_hsm, mut wallet, mut cosigner) = pair();
        let dir = cosigner.dir.path().to_owned();
        let (wallet, cosigner) = (wallet.configure(""), cosigner.configure(""));
        let (wallet, cosigner) = (text(&wallet), text(&cosigner));
        let out = dir.join("out");

        // stdout closed, and reading on: everything arrives, and it ends.
        let command = format!("exec >&-; cat > {}", out.display());
        let listener = Listener::start(&["--store", cosigner, "listen", "--exec", &command]);
        listener.says("cosigner is reachable.");
        let long = vec![7; 300_000];
        assert_eq!(run(&["--store", wallet, "connect", "cosigner"], &long).status.code(), Some(0));
        listener.says("wallet has left.");
        assert_eq!(std::fs::read(&out).unwrap().len(), long.len());
        drop(listener);

        // A caller that is cut off in the middle: the command never sees an end, and does not act.
        let acted = dir.join("acted");
        let command = format!("sh -c 'cat >/dev/null; touch {}'; true", acted.display());
        let listener = Listener::start(&["--store", cosigner, "listen", "--exec", &command]);
        listener.says("cosigner is reachable.");
        let mut caller = Command::new(PROGRAM);
        let caller =
            caller.args(["--store", wallet, "connect", "cosigner"]).stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut caller = caller.spawn().unwrap();
        caller.stdin.as_mut().unwrap().write_all(b"half of a request").unwrap();
        listener.says("wallet is here: Noise_");
        std::thread::sleep(Duration::from_millis(300));
        caller.kill().unwrap();
        caller.wait().unwrap();
        listener.says("The session of wallet ended");
        std::thread::sleep(Duration::from_millis(500));
        assert!(!acted.exists(), "half a request was taken for a whole one");
        drop(listener);

        // A stdin that can not be read is no end of input.
        let listener = Listener::start(&["--store", cosigner, "listen", "--exec", &command]);
        listener.says("cosigner is reachable.");
        let directory = std::fs::File::open(&dir).unwrap();
        let output = command_with(&["--store", wallet, "connect", "cosigner"], directory);
        assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
        listener.says("The stream of wallet for stdio ended: `wallet` gave the stream up before it had ended.");
        std::thread::sleep(Duration::from_millis(500));
        assert!(!acted.exists());
    });
}

fn command_with(arguments: &[&str], stdin: std::fs::File) -> Output {
    command(arguments).stdin(stdin).output().unwrap()
}

/// One event an attempt, with every field that was promised.
#[test]
fn json_events() {
    isolated(|| {
        let (_hsm, mut wallet, mut cosigner) = pair();
        let (wallet, cosigner) = (wallet.configure(""), cosigner.configure(""));
        let listener = Listener::start(&["--store", text(&cosigner), "--json", "listen", "--echo"]);
        listener.says("Reachable");
        let output = run(&["--store", text(&wallet), "--json", "connect", "cosigner", "--pattern", "kk1"], b"x");
        let outgoing: Vec<Value> = String::from_utf8(output.stderr)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).expect("only JSON on stderr"))
            .filter(|event: &Value| event["target"] == "claviger::connection")
            .collect();
        assert_eq!(outgoing.len(), 1);
        let incoming: Value = serde_json::from_str(&listener.says("claviger::connection")).unwrap();
        for (event, direction, peer) in [(&outgoing[0], "outgoing", "cosigner"), (&incoming, "incoming", "wallet")] {
            assert_eq!(event["direction"], direction);
            assert_eq!(event["peer"], peer);
            assert_eq!(event["transport"], "tcp");
            assert_eq!(event["pattern"], "KK1");
            assert_eq!([&event["kem"], &event["psk"]], [&Value::from("ML-KEM-768"), &Value::from(false)]);
            assert_eq!(event["token_operations"], 1);
            assert_eq!(event["outcome"], "established");
            for field in ["dial_ms", "token_ms", "handshake_ms"] {
                assert!(event[field].is_u64(), "{field} of {event}");
            }
            let line = event.to_string();
            assert!(!line.contains(".onion") && !line.contains(PIN), "{line}");
        }
    });
}

/// What a person sees of a command that fails, for a snapshot.
pub(crate) fn shown(code: i32, arguments: &[&str], hide: &[(&str, &str)]) -> String {
    let output = run(arguments, b"");
    let mut text = format!("$ claviger {}\n", arguments.join(" "));
    for (stream, bytes) in [("out", &output.stdout), ("err", &output.stderr)] {
        for line in String::from_utf8_lossy(bytes).lines() {
            text += &format!("{stream}| {line}\n");
        }
    }
    text += &format!("exit {}\n\n", output.status.code().unwrap());
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(output.stdout.is_empty(), "{text}");
    hide.iter().fold(text, |text, (secret, name)| text.replace(secret, name))
}

pub(crate) fn snapshot(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.set_snapshot_path("snapshots");
    settings.add_filter(r"127\.0\.0\.1:\d+", "127.0.0.1:[PORT]");
    settings.add_filter(r"Here are: .*\.so[0-9.]*\.", "Here are: [MODULES].");
    settings.add_filter(r"sport = \d+", "sport = [PORT]");
    settings.add_filter(r"/usr/lib/[a-z0-9_-]+/softhsm/", "/usr/lib/softhsm/");
    settings.add_filter(r"serial=[0-9a-f]+", "serial=[SERIAL]");
    settings.add_filter(r"[a-z2-7]{4}…\.onion", "[ONION]");
    settings.bind(|| insta::assert_snapshot!(name, text));
}

/// Where a passphrase comes from when nobody is there: a credential, a file, a pinentry program. Each is refused when others may read it,
/// and what is found first is not passed over when it is wrong.
#[test]
fn pin_sources() {
    let (mut wallet, mut cosigner) = (Machine::software("wallet"), Machine::software("cosigner"));
    wallet.introduce(&mut cosigner);
    let dir = wallet.dir.path().to_owned();
    let credentials = dir.join("credentials");
    std::fs::create_dir(&credentials).unwrap();
    let write = |path: &Path, text: &str, mode: u32| {
        let _ = std::fs::remove_file(path);
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let (credential, file, pinentry) = (credentials.join("claviger-pin"), dir.join("pin"), dir.join("pinentry"));
    let store = wallet.configure("[token]\npin-file = \"../pin\"\npin-timeout = 2\n");
    // Whoever gets past the token is told that nobody listens: 9.
    cosigner.configure("");
    let outcome = |display: bool| {
        let mut command = command(&["connect", "cosigner", "--store", text(&store)]);
        command.env_remove("GPG_TTY").env_remove("WAYLAND_DISPLAY").env_remove("DISPLAY");
        if display {
            command.env("DISPLAY", ":0");
        }
        let output = command.env("CREDENTIALS_DIRECTORY", &credentials).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    write(&credential, PIN, 0o400);
    assert_eq!(outcome(false).0, 9, "a credential");
    write(&credential, "wrong", 0o400);
    write(&file, PIN, 0o600);
    assert_eq!(outcome(false).0, 7, "a wrong credential is not passed over");
    write(&credential, PIN, 0o444);
    assert!(outcome(false).1.contains("others may use it (mode 0444)"));
    std::fs::remove_file(&credential).unwrap();
    assert_eq!(outcome(false).0, 9, "a file");
    write(&file, PIN, 0o640);
    assert!(outcome(false).1.contains("others may use it (mode 0640)"));

    let script = format!("[token]\npinentry = \"{}\"\npin-timeout = 2\n", pinentry.display());
    let store_file = store.join("claviger.toml");
    let old = std::fs::read_to_string(&store_file).unwrap();
    let rest = &old[old.find("[transport]").unwrap()..];
    std::fs::write(&store_file, format!("{script}{rest}")).unwrap();
    // What it was asked is kept in a file beside it.
    let speaks = |answer: &str| {
        let answers = format!(
            "#!/bin/sh\necho 'OK Pleased to meet you'\nwhile read -r line; do echo \"$line\" >>\"$0.log\"\n\
             case $line in GETPIN) {answer};; BYE) echo OK; exit;; *) echo OK;; esac; done\n"
        );
        write(&pinentry, &answers, 0o700);
    };
    speaks(&format!("echo 'D {PIN}'; echo OK"));
    assert_eq!(outcome(false).0, 7, "there is nothing it could show itself on");
    assert_eq!(outcome(true).0, 9, "a pinentry program");
    let asked = std::fs::read_to_string(dir.join("pinentry.log")).unwrap();
    assert!(asked.contains("SETDESC wallet wants to open its token.%0APassphrase of software key file"), "{asked}");
    assert!(asked.contains("SETTIMEOUT 2"), "{asked}");
    speaks("echo 'ERR 83886179 Operation cancelled <Pinentry>'");
    assert!(outcome(true).1.contains("Nobody gave the PIN or passphrase."));
    // One that never answers is not waited for.
    speaks("exec 2>/dev/null; while kill -0 $PPID; do sleep 0.2; done; exit");
    let start = std::time::Instant::now();
    assert_eq!(outcome(true).0, 7);
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
}

#[test]
fn misuse() {
    let text: String = [
        &["connect"][..],
        &["connect", "Cosigner"],
        &["connect", "cosigner", "--pattern", "ik"],
        &["connect", "cosigner", "--transport", "clearnet"],
        &["listen", "--echo", "--exec", "cat"],
        &["listen", "--port", "0"],
        &["--json", "dial"],
    ]
    .iter()
    .map(|arguments| shown(2, arguments, &[]))
    .collect();
    snapshot("misuse", &text);
}

#[test]
fn failures() {
    isolated(|| {
        let (hsm, mut wallet, mut cosigner) = pair();
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let nobody = { TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap() };
        let other = Machine::software("other");
        wallet.store().add_peer(&claviger::store::Peer::from_card(&other.card), "test").unwrap();
        let (dir, _) = (wallet.configure(""), cosigner.configure(""));
        let store = text(&dir);
        let home = wallet.dir.path().to_str().unwrap().to_owned();
        let tokens = hsm.env().1.parent().unwrap().to_str().unwrap().to_owned();
        let hide = [(home.as_str(), "[HOME]"), (tokens.as_str(), "[SOFTHSM]")];
        let config = |name: &str, content: &str| {
            let path = wallet.dir.path().join(name);
            std::fs::write(&path, content).unwrap();
            text(&path).to_owned()
        };
        let mut seen = String::new();
        let mut fails = |code: i32, arguments: &[&str]| seen += &shown(code, arguments, &hide);

        fails(5, &["connect", "cosigner", "--store", &format!("{home}/nothing")]);
        fails(12, &["connect", "cosinger", "--store", store]);
        fails(9, &["connect", "cosigner", "--store", store]);
        fails(9, &["connect", "other", "--store", store]);

        let unknown = config("unknown.toml", "[transport]\nkind = \"tcp\"\nprot = 4747\n");
        fails(3, &["connect", "cosigner", "--store", store, "--config", &unknown]);
        fails(3, &["connect", "cosigner", "--store", store, "--config", &format!("{home}/absent.toml")]);
        let public = config(
            "public.toml",
            "[transport]\nkind = \"tcp\"\n[transport.tcp]\npeers = { cosigner = \"192.0.2.1:1\" }\n",
        );
        fails(9, &["connect", "cosigner", "--store", store, "--config", &public]);
        let busy = config(
            "busy.toml",
            &format!("[transport]\nkind = \"tcp\"\n[transport.tcp]\nlisten = \"{}\"\n", taken.local_addr().unwrap()),
        );
        fails(8, &["listen", "--echo", "--store", store, "--config", &busy]);
        let no_tor = config(
            "tor.toml",
            &format!(
                "[transport]\nkind = \"tor\"\ndial-timeout = 2\n[transport.tor]\nsocks = \"{nobody}\"\ncontrol = \"{nobody}\"\n"
            ),
        );
        fails(8, &["connect", "cosigner", "--store", store, "--config", &no_tor]);
        fails(8, &["listen", "--echo", "--store", store, "--config", &no_tor]);
        fails(8, &["--json", "listen", "--echo", "--store", store, "--config", &no_tor]);
        snapshot("failures", &seen);
    });
}

/// The token's side of things: each failure before anything is dialled.
#[test]
fn token_failures() {
    isolated(|| {
        let hsm = SoftHsm::new();
        let token = hsm.init_token("wallet", SO_PIN, PIN);
        let mut wallet = Machine::new("wallet", Some(token.uri_with_pin("noise")), Curve::X25519, "ChaChaPoly_BLAKE2s");
        let cosigner = Machine::software("cosigner");
        wallet.meet(&cosigner);
        let dir = wallet.configure("");
        let arguments = ["connect", "cosigner", "--store", text(&dir)];
        let tokens = hsm.env().1.parent().unwrap().to_str().unwrap().to_owned();
        let home = wallet.dir.path().to_str().unwrap().to_owned();
        let hide = [(tokens.as_str(), "[SOFTHSM]"), (home.as_str(), "[HOME]")];
        let pin_file = |pin: &str, mode: u32| {
            std::fs::write(token.pin_file(), pin).unwrap();
            std::fs::set_permissions(token.pin_file(), std::fs::Permissions::from_mode(mode)).unwrap();
        };
        let mut seen = String::new();
        pin_file("000000", 0o600);
        seen += &shown(7, &arguments, &hide);
        pin_file(PIN, 0o644);
        seen += &shown(6, &arguments, &hide);
        pin_file(PIN, 0o600);

        // The key goes, as when another token of the same name is plugged in.
        let conf = hsm.env().1;
        let tool = |arguments: &[&str]| {
            let done = Command::new("softhsm2-util").args(arguments).env("SOFTHSM2_CONF", &conf).output().unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        };
        tool(&["--delete-token", "--token", "wallet"]);
        seen += &shown(6, &arguments, &hide);
        tool(&["--init-token", "--free", "--label", "wallet", "--so-pin", SO_PIN, "--pin", PIN]);
        seen += &shown(6, &arguments, &hide);
        let key = wallet.dir.path().join("p256.pem");
        let made = Command::new("openssl")
            .args(["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", text(&key)])
            .output();
        assert!(made.unwrap().status.success());
        tool(&["--import", text(&key), "--token", "wallet", "--label", "noise", "--id", "01", "--pin", PIN]);
        seen += &shown(6, &arguments, &hide);
        snapshot("token-failures", &seen);
    });
}

/// A software key without anybody to ask for its passphrase.
#[test]
fn nobody_to_ask() {
    let mut wallet = Machine::software("wallet");
    wallet.meet(&Machine::software("cosigner"));
    let dir = wallet.configure("");
    let home = wallet.dir.path().to_str().unwrap().to_owned();
    let seen = shown(7, &["connect", "cosigner", "--store", text(&dir)], &[(home.as_str(), "[HOME]")]);
    snapshot("nobody-to-ask", &seen);
}

/// A caller who is no peer, and a session that breaks.
#[test]
fn refused_and_broken() {
    isolated(|| {
        let (_hsm, mut wallet, mut cosigner) = pair();
        let listener_dir = cosigner.configure("");
        let listener = Listener::start(&["--store", text(&listener_dir), "listen", "--echo"]);
        listener.says("cosigner is reachable.");

        let dir = wallet.configure("");
        let mut caller = command(&["-v", "--store", text(&dir), "connect", "cosigner"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = caller.stdin.take().unwrap();
        stdin.write_all(b"hello").unwrap();
        let mut echoed = [0; 5];
        caller.stdout.as_mut().unwrap().read_exact(&mut echoed).unwrap();
        drop(listener);
        let output = caller.wait_with_output().unwrap();
        drop(stdin);
        assert_eq!(output.status.code(), Some(11), "{}", String::from_utf8_lossy(&output.stderr));

        cosigner.store().remove_peer(&wallet.card.identifier).unwrap();
        let listener = Listener::start(&["--store", text(&listener_dir), "--json", "listen", "--echo"]);
        listener.says("Reachable");
        let seen = shown(10, &["--store", text(&dir), "connect", "cosigner"], &[(text(&dir), "[STORE]")]);
        let event: Value = serde_json::from_str(&listener.says("claviger::connection")).unwrap();
        assert_eq!([&event["peer"], &event["reason"]], ["unknown", "knock-unknown"]);
        assert_eq!(event["token_operations"], 0);
        snapshot("refused", &seen);
    });
}

#[test]
fn help_completions_and_manual() {
    for arguments in [&["--help"][..], &["listen", "--help"], &["connect", "--help"], &["--version"], &["man"]] {
        let output = run(arguments, b"");
        assert!(output.status.success() && output.stderr.is_empty() && !output.stdout.is_empty(), "{arguments:?}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = String::from_utf8(run(&["completions", shell], b"").stdout).unwrap();
        assert!(script.contains("transport") && script.contains("listen"), "{shell}");
    }
    let dir = tempfile::tempdir().unwrap();
    assert!(run(&["man", text(dir.path())], b"").status.success());
    assert!(dir.path().join("claviger-connect.1").exists());
}
