//! A tor daemon that is a client of the private network, and may host onion services.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::config;
use super::{Error, Process};
use crate::support;

/// How long a daemon may take to bootstrap; on an idle machine it takes two seconds.
const BOOTSTRAP: Duration = Duration::from_secs(25);
/// Starts of a daemon until it is. One that asks in the second of the network's first consensus, before all relays have answers, waits for more
/// than a minute until it asks again; started anew, it asks at once.
const STARTS: u32 = 4;

/// How a daemon's control port lets a program in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Auth {
    /// With the cookie in [`TorProcess::cookie_path`].
    #[default]
    Cookie,
    /// With this password. It is shown to other users of the machine while tor hashes it: use one that is for tests.
    Password(String),
    /// At once.
    Null,
}

/// What a daemon offers. The default: a SOCKS port, and a control port with a cookie, in a temporary directory.
#[derive(Debug, Clone)]
pub struct TorDaemon {
    /// Open a SOCKS port, with tor's extended error codes.
    pub socks: bool,
    /// Open a control port.
    pub control: bool,
    /// How the control port authenticates.
    pub auth: Auth,
    /// The data directory, made when missing and left behind. Default: a temporary one, deleted with the process.
    pub dir: Option<PathBuf>,
    /// Further lines of its torrc, each with its end.
    pub more: String,
}

impl Default for TorDaemon {
    fn default() -> Self {
        Self { socks: true, control: true, auth: Auth::default(), dir: None, more: String::new() }
    }
}

/// A tor daemon on the private network. Dropping it ends the process by pid and waits until it is gone.
#[derive(Debug)]
pub struct TorProcess {
    // The process ends before its files go.
    process: Process,
    dir: PathBuf,
    head: String,
    socks: Option<SocketAddr>,
    control: Option<SocketAddr>,
    cookie: Option<PathBuf>,
    _temporary: Option<tempfile::TempDir>,
}

impl TorProcess {
    pub(super) fn start(network: &Path, daemon: &TorDaemon) -> Result<Self, Error> {
        let (dir, temporary) = match &daemon.dir {
            Some(dir) => (dir.clone(), None),
            None => {
                let temporary = tempfile::Builder::new().prefix("tor-").tempdir();
                let temporary = temporary.map_err(|e| Error::file("make a directory in", &std::env::temp_dir(), e))?;
                (temporary.path().to_owned(), Some(temporary))
            }
        };
        support::private_dir(&dir).map_err(|e| Error::file("make the directory", &dir, e))?;
        let dir = dir.canonicalize().map_err(|e| Error::file("resolve", &dir, e))?;

        let mut head = config::daemon(network, &dir, Some(std::process::id()));
        let mut cookie = None;
        if daemon.control {
            match &daemon.auth {
                Auth::Cookie => {
                    let path = dir.join("control_auth_cookie");
                    head += &format!("CookieAuthentication 1\nCookieAuthFile {}\n", config::quoted(&path));
                    cookie = Some(path);
                }
                Auth::Password(password) => {
                    head += &format!("HashedControlPassword {}\n", hash(password, &dir.join("hash.log"))?);
                }
                Auth::Null => {}
            }
        }
        head += &daemon.more;
        // tor chooses the ports itself and logs them: no moment in which another program could take them.
        let wanted = |on: bool| on.then_some("auto".to_owned());
        let (socks, control) = (wanted(daemon.socks), wanted(daemon.control));
        let process = spawn(&dir, &head, socks.clone(), control.clone())?;
        let mut tor = Self { process, dir, head, socks: None, control: None, cookie, _temporary: temporary };
        tor.await_bootstrap(socks, control)?;
        if daemon.socks {
            tor.socks = Some(tor.opened("Socks")?);
        }
        if daemon.control {
            tor.control = Some(tor.opened("Control")?);
        }
        Ok(tor)
    }

    /// The SOCKS port, if the daemon has one.
    pub fn socks_addr(&self) -> Option<SocketAddr> {
        self.socks
    }

    /// The control port, if the daemon has one.
    pub fn control_addr(&self) -> Option<SocketAddr> {
        self.control
    }

    /// The file with the control port's cookie (32 bytes), if it authenticates so.
    pub fn cookie_path(&self) -> Option<&Path> {
        self.cookie.as_deref()
    }

    /// The data directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What the daemon has logged since it was last started, at level notice.
    pub fn log(&self) -> String {
        self.process.logged()
    }

    /// The process id; `None` after [`TorProcess::kill`].
    pub fn pid(&self) -> Option<u32> {
        self.process.pid()
    }

    /// Ends the daemon as a crash would (SIGKILL) and waits until it is gone. Its data stay for
    /// [`TorProcess::restart`]; so do its ports, unless another program takes them meanwhile.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts the daemon again, ending it first if it runs, on the same ports and data, and waits until it is
    /// bootstrapped.
    ///
    /// # Errors
    /// As [`super::Network::start_tor`]. [`super::ErrorKind::PortTaken`] when another program has taken a port.
    pub fn restart(&mut self) -> Result<(), Error> {
        self.process.end();
        let fixed = |address: Option<SocketAddr>| address.map(|a| a.to_string());
        let (socks, control) = (fixed(self.socks), fixed(self.control));
        self.process = spawn(&self.dir, &self.head, socks.clone(), control.clone())?;
        self.await_bootstrap(socks, control)
    }

    /// Waits; starts it again with these ports when it takes too long.
    fn await_bootstrap(&mut self, socks: Option<String>, control: Option<String>) -> Result<(), Error> {
        for start in 1.. {
            let process = &mut self.process;
            let done = support::poll(BOOTSTRAP, || match process.check() {
                Err(e) => Some(Err(e)),
                Ok(()) => process.logged().contains("Bootstrapped 100%").then_some(Ok(())),
            });
            match done {
                Some(done) => return done,
                None if start == STARTS => break,
                None => {
                    self.process.end();
                    self.process = spawn(&self.dir, &self.head, socks.clone(), control.clone())?;
                }
            }
        }
        Err(Error::timeout("tor did not bootstrap", BOOTSTRAP * STARTS, self.process.log()))
    }

    /// The address in "Opened KIND listener connection (ready) on 127.0.0.1:PORT".
    fn opened(&self, kind: &str) -> Result<SocketAddr, Error> {
        let logged = self.process.logged();
        let mark = format!("Opened {kind} listener connection (ready) on ");
        let address = logged.lines().find_map(|line| line.split_once(&mark)?.1.trim().parse().ok());
        address.ok_or_else(|| Error::timeout(&format!("tor opened no {kind} port"), BOOTSTRAP, self.process.log()))
    }
}

fn spawn(dir: &Path, head: &str, socks: Option<String>, control: Option<String>) -> Result<Process, Error> {
    let mut text = head.to_owned();
    text += &socks.map_or("SocksPort 0\n".into(), |port| format!("SocksPort {port} ExtendedErrors\n"));
    text += &control.map_or("ControlPort 0\n".into(), |port| format!("ControlPort {port}\n"));
    let torrc = dir.join("torrc");
    support::write_atomically(&torrc, &text).map_err(|e| Error::file("write", &torrc, e))?;
    Process::spawn("tor", &torrc, &dir.join("notice.log"), false)
}

/// tor's salted hash of `password`, the last line it prints.
fn hash(password: &str, log: &Path) -> Result<String, Error> {
    let mut command = Command::new("tor");
    command.args(["--quiet", "--hash-password"]).arg(password);
    let limit = Duration::from_secs(30);
    let start = std::fs::metadata(log).map_or(0, |m| m.len());
    let status = support::run(&mut command, "", log, limit).map_err(|e| Error::spawn("tor", e))?;
    let text = support::read_from(log, start);
    let hashed = text.lines().rev().find(|line| line.starts_with("16:")).map(str::to_owned);
    match status {
        None => Err(Error::timeout("tor hashed no password", limit, log)),
        Some(_) => hashed.ok_or_else(|| Error::keys("tor gave no hash of the password".into(), log)),
    }
}
