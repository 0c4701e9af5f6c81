//! Noise peers written by others: the Python libraries noiseprotocol and dissononce, each in a process of its own on
//! loopback. Curve 25519 only; KK and XK in both, KK1 in dissononce. And a whole machine by the first of them: see [`PyPeer::machine`].
//!
//! The wire of the others is Noise's alone: each message, of the handshake and after it, is its length (2 bytes, big-endian) and the
//! message (at most 65535 bytes); handshake payloads are empty but for what ML-KEM-768 puts there. After the handshake the initiator sends payloads of
//! [`PAYLOADS`] bytes, one at a time, and the responder sends each back; byte `i` of a payload is `i * 7 mod 256`.
//!
//! The libraries are installed by pip, by name and pinned version, into a virtual environment that is kept in cargo's
//! target directory. Needs `python3` with `venv` (Debian: `python3 python3-venv`) and, the first time, a package index.

use std::fmt;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use data_encoding::HEXLOWER;

use crate::support;

/// Lengths in bytes of the payloads that the initiator sends after the handshake.
pub const PAYLOADS: [usize; 3] = [100, 1, 60_000];

/// The libraries and all they need, with versions.
const REQUIREMENTS: &str = include_str!("../python/requirements.txt");
/// How long making the environment, installing into it, or waiting for another test that does, may take.
const INSTALL: Duration = Duration::from_secs(300);
/// How long a peer may take to its next line of output. Its own socket operations end after 30 s.
const ANSWER: Duration = Duration::from_secs(45);

/// A library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Library {
    /// PyPI `noiseprotocol`.
    NoiseProtocol,
    /// PyPI `dissononce`.
    Dissononce,
}

/// The peer's part in the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Sends the first message.
    Initiator,
    /// Receives it.
    Responder,
}

/// What a peer is to do. Keys are of tests: the private key reaches the process by its standard input.
pub struct PySpec<'a> {
    /// The library that speaks.
    pub library: Library,
    /// Its part in the handshake.
    pub role: Role,
    /// `Noise_KK_25519_ChaChaPoly_BLAKE2s`, `Noise_KKpsk2_…`…
    pub protocol_name: &'a str,
    /// What is mixed in, as Claviger's kind byte (section 3 of its wire format) says it; its other bits are the pattern's.
    pub kind: u8,
    /// The pre-shared key that the kind asks for; with NN the `psk` itself.
    pub secret: Option<&'a [u8; 32]>,
    /// The prologue.
    pub prologue: &'a [u8],
    /// The peer's own static private key, X25519.
    pub static_private: &'a [u8; 32],
    /// The other's static public key, where the pattern has it known beforehand.
    pub remote_public: Option<&'a [u8; 32]>,
    /// The port of 127.0.0.1 to connect to, in either role. Without it the peer listens on a free one for one
    /// connection.
    pub connect: Option<u16>,
}

/// A running peer. Dropping it ends the process and waits until it is gone.
#[derive(Debug)]
pub struct PyPeer {
    child: Child,
    lines: Receiver<String>,
    log: tempfile::NamedTempFile,
    address: SocketAddr,
}

impl PyPeer {
    /// Starts a peer, installing the libraries when they are not there, and waits until it listens or is about to
    /// connect.
    ///
    /// # Errors
    /// [`ErrorKind::Missing`] without Python or its `venv`, [`ErrorKind::Install`] when pip fails, [`ErrorKind::Io`] for
    /// files of ours, [`ErrorKind::Peer`] when the peer refuses its arguments, [`ErrorKind::Timeout`].
    pub fn spawn(spec: &PySpec<'_>) -> Result<Self, Error> {
        let script = match spec.library {
            Library::NoiseProtocol => "peer_noiseprotocol.py",
            Library::Dissononce => "peer_dissononce.py",
        };
        let role = match spec.role {
            Role::Initiator => "initiator",
            Role::Responder => "responder",
        };
        let mut arguments = vec![role.to_owned(), spec.protocol_name.to_owned()];
        arguments.extend(["--prologue".to_owned(), HEXLOWER.encode(spec.prologue)]);
        if let Some(key) = spec.remote_public {
            arguments.extend(["--remote-public".to_owned(), HEXLOWER.encode(key)]);
        }
        arguments.extend(["--kind".to_owned(), spec.kind.to_string()]);
        if let Some(secret) = spec.secret {
            arguments.extend(["--secret".to_owned(), HEXLOWER.encode(secret)]);
        }
        if let Some(port) = spec.connect {
            arguments.extend(["--connect".to_owned(), port.to_string()]);
        }
        Self::start(script, &arguments, &HEXLOWER.encode(spec.static_private), spec.connect)
    }

    /// Starts a whole machine that speaks Claviger's wire format, by `python/claviger_session.py` and the library noiseprotocol. `told` is what
    /// `main` in `python/peer_session.py` says. With a number at `connect` it is the initiator, else it listens.
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn).
    pub fn machine(told: &serde_json::Value) -> Result<Self, Error> {
        let connect = told["connect"].as_u64().and_then(|port| u16::try_from(port).ok());
        Self::start("peer_session.py", &[], &told.to_string(), connect)
    }

    /// Starts a script, gives it a line on its standard input, and waits until it listens unless it connects.
    fn start(script: &str, arguments: &[String], line: &str, connect: Option<u16>) -> Result<Self, Error> {
        let python = environment(&support::target_dir())?;
        let failed = |what: &str| {
            let what = format!("could not {what} {script}");
            move |e| Error::io(what, e)
        };
        let log = tempfile::NamedTempFile::new().map_err(failed("make a log for"))?;
        let errors = log.reopen().map_err(failed("open the log of"))?;

        let mut command = Command::new(python);
        // -B: leave no compiled files beside the sources. -E, -s: no settings or packages of the user's.
        command.args(["-B", "-E", "-s"]).arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(script));
        let command = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors);
        let mut child = command.spawn().map_err(failed("start"))?;
        let (sender, lines) = channel();
        if let Some(output) = child.stdout.take() {
            std::thread::spawn(move || {
                BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
            });
        }
        let pipe = child.stdin.take();
        let mut peer = Self { child, lines, log, address: (Ipv4Addr::LOCALHOST, connect.unwrap_or(0)).into() };
        if let Some(mut pipe) = pipe {
            // A peer that refused its arguments is gone already, and says why below.
            let _ = writeln!(pipe, "{line}");
        }
        if connect.is_none() {
            let port = peer.says("listening ")?.parse().map_err(|_| peer.failure("printed no port"))?;
            peer.address.set_port(port);
        }
        Ok(peer)
    }

    /// Where the peer listens, or what it connects to.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Waits until the peer has completed the handshake and exchanged all payloads; its handshake hash (32 bytes).
    ///
    /// # Errors
    /// [`ErrorKind::Peer`] when its library refused a message, the connection closed early or a payload came wrong;
    /// [`ErrorKind::Timeout`] when nothing happened for 45 s.
    pub fn finish(mut self) -> Result<[u8; 32], Error> {
        let hash = self.says("handshake ")?;
        self.says("done")?;
        let hash = HEXLOWER.decode(hash.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
        hash.ok_or_else(|| self.failure("printed no handshake hash of 32 bytes"))
    }

    /// The rest of the next line, which must begin with `start`.
    ///
    /// # Errors
    /// Those of [`finish`](Self::finish).
    pub fn says(&mut self, start: &str) -> Result<String, Error> {
        match self.lines.recv_timeout(ANSWER) {
            Ok(line) => match line.strip_prefix(start) {
                Some(rest) => Ok(rest.to_owned()),
                None => Err(self.failure(&format!("printed {line:?} in place of {start:?}"))),
            },
            Err(RecvTimeoutError::Disconnected) => Err(self.failure("failed")),
            Err(RecvTimeoutError::Timeout) => {
                let what = format!("the Python peer did not come to {start:?} within {} s", ANSWER.as_secs());
                Err(Error::new(ErrorKind::Timeout, what).quoting(self.log.path()))
            }
        }
    }

    fn failure(&mut self, what: &str) -> Error {
        // Its last words are in the log once it is gone.
        let _ = support::wait(&mut self.child, Duration::from_secs(5));
        Error::new(ErrorKind::Peer, format!("the Python peer {what}")).quoting(self.log.path())
    }
}

impl Drop for PyPeer {
    fn drop(&mut self) {
        // The pid stays the child's until it is reaped here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The interpreter of the virtual environment under `target`, made when it is not there or holds other versions.
fn environment(target: &Path) -> Result<PathBuf, Error> {
    let failed = |what: &str, path: &Path| {
        let what = format!("could not {what} {}", path.display());
        move |e| Error::io(what, e)
    };
    let dir = target.join("pynoise-venv");
    let (python, installed) = (dir.join("bin/python"), dir.join("installed"));
    let path = target.join("pynoise-venv.lock");
    let lock = support::lock(&path, INSTALL).map_err(failed("lock", &path))?;
    let Some(_lock) = lock else {
        let what = format!("another test still installs Python packages after {} s", INSTALL.as_secs());
        return Err(Error::new(ErrorKind::Timeout, what));
    };
    if python.is_file() && fs::read_to_string(&installed).is_ok_and(|text| text == REQUIREMENTS) {
        return Ok(python);
    }
    let log = target.join("pynoise-venv.log");
    match fs::remove_dir_all(&dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed("delete", &dir)(e)),
        _ => run(Command::new("python3").args(["-m", "venv"]).arg(&dir), "python3 -m venv", ErrorKind::Missing, &log)?,
    }
    let requirements = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/requirements.txt");
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--no-input", "--requirement"]).arg(requirements);
    run(&mut pip, "pip install", ErrorKind::Install, &log)?;
    support::write_atomically(&installed, REQUIREMENTS).map_err(failed("write", &installed))?;
    Ok(python)
}

/// Runs `command` to its end; a failure is one of `kind`.
fn run(command: &mut Command, name: &str, kind: ErrorKind, log: &Path) -> Result<(), Error> {
    match support::run(command, "", log, INSTALL) {
        Ok(Some(status)) if status.success() => Ok(()),
        Ok(Some(status)) => Err(Error::new(kind, format!("{name} failed ({status})")).quoting(log)),
        Ok(None) => {
            let what = format!("{name} did not end within {} s", INSTALL.as_secs());
            Err(Error::new(ErrorKind::Timeout, what).quoting(log))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            Err(Error { source: Some(e), ..Error::new(ErrorKind::Missing, format!("could not start {name}")) })
        }
        Err(e) => Err(Error::io(format!("could not start {name}"), e)),
    }
}

/// A failure of a Python peer. `Display` says what happened, then what to do, then quotes what Python said.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    what: String,
    log: Option<String>,
    source: Option<io::Error>,
}

/// The cause of an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Python 3 or its `venv` is not installed.
    Missing,
    /// The libraries could not be installed.
    Install,
    /// A file or process of ours could not be used.
    Io,
    /// The peer failed.
    Peer,
    /// A deadline passed.
    Timeout,
}

impl Error {
    /// The cause.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    fn new(kind: ErrorKind, what: String) -> Self {
        Self { kind, what, log: None, source: None }
    }

    fn io(what: String, source: io::Error) -> Self {
        Self { source: Some(source), ..Self::new(ErrorKind::Io, what) }
    }

    fn quoting(mut self, log: &Path) -> Self {
        self.log = Some(support::tail(log));
        self
    }

    fn hint(&self) -> &'static str {
        match self.kind {
            ErrorKind::Missing => {
                "Install Python with its virtual environments: `apt-get install python3 python3-venv`."
            }
            ErrorKind::Install => "Check that pip reaches its package index: `pip download noiseprotocol==0.3.1`.",
            ErrorKind::Io => "Check that cargo's target directory is yours, writable and not full.",
            ErrorKind::Peer => "Read its traceback below: it names the message or the payload.",
            ErrorKind::Timeout => "See whether the other end waits too; under heavy load, run it again.",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if let Some(source) = &self.source {
            write!(f, ": {source}")?;
        }
        write!(f, ". {}", self.hint())?;
        self.log.as_ref().map_or(Ok(()), |log| write!(f, "\n{log}"))
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|e| e as _)
    }
}
