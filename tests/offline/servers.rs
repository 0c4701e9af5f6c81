//! Other people's servers, each an instance of its own in a temporary directory.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);

/// A server that runs until this is dropped.
pub(crate) struct Server {
    pub(crate) name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Writes `NAME.conf` into `dir` and starts the program with it: the path is its last argument.
    pub(crate) fn start(name: &'static str, dir: &Path, config: &str, arguments: &[&str]) -> Self {
        let file = dir.join(format!("{name}.conf"));
        std::fs::write(&file, config).unwrap();
        let mut command = program(name);
        command.args(arguments).arg(file);
        Self::run(name, dir, command)
    }

    /// Starts a command that goes on.
    pub(crate) fn run(name: &'static str, dir: &Path, mut command: Command) -> Self {
        let log = dir.join(format!("{name}.log"));
        let file = File::create(&log).unwrap();
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        Self { name, child: command.spawn().unwrap_or_else(|error| panic!("{name}: {error}")), log }
    }

    /// Waits until it takes connections at a unix socket.
    pub(crate) fn listens(&mut self, path: &Path) {
        self.wait(|| std::os::unix::net::UnixStream::connect(path).is_ok());
    }

    /// The same at a port of loopback.
    pub(crate) fn listens_at(&mut self, address: SocketAddr) {
        self.wait(|| std::net::TcpStream::connect(address).is_ok());
    }

    fn wait(&mut self, ready: impl Fn() -> bool) {
        let began = Instant::now();
        while !ready() {
            let ended = self.child.try_wait().unwrap();
            assert!(
                ended.is_none() && began.elapsed() < SOON,
                "{} does not serve ({ended:?}): {}",
                self.name,
                self.said()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What it has said.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Servers with workers end them.
        let _ =
            rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), rustix::process::Signal::TERM);
        let began = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if began.elapsed() > Duration::from_secs(5) {
                let _ = self.child.kill();
                let _ = self.child.wait();
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A program of Debian's, also one of those that lie where only root looks.
pub(crate) fn program(name: &str) -> Command {
    let place = ["/usr/sbin", "/usr/bin"].map(|dir| Path::new(dir).join(name)).into_iter().find(|path| path.exists());
    Command::new(place.unwrap_or_else(|| panic!("{name} is not installed: run scripts/setup")))
}

/// A port of loopback that nobody has at the moment.
pub(crate) fn free() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, crate::support::free_port()).into()
}
