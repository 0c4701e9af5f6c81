//! Local sockets of the daemon that lead to peers' services, in whole processes over plain TCP.

use crate::cli::{Listener, text};
use crate::support::{Machine, pin_file};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

/// A wallet whose daemon is tested, and a cosigner.
struct Two {
    wallet: Machine,
    cosigner: Machine,
    /// The cosigner's store.
    away: PathBuf,
}

impl Two {
    fn new() -> Self {
        let (mut wallet, mut cosigner) = (Machine::software("wallet"), Machine::software("cosigner"));
        wallet.introduce(&mut cosigner);
        let pin = pin_file(&cosigner);
        let away = cosigner.configure(&pin);
        Self { wallet, cosigner, away }
    }

    /// Gives peers their own bytes back, whatever service they ask for.
    fn echo(&self) -> Listener {
        let listener = Listener::start(&["--store", text(&self.away), "listen", "--echo"]);
        listener.says("cosigner is reachable.");
        listener
    }

    /// The wallet's daemon.
    fn daemon(&mut self, forwards: &str) -> (Listener, PathBuf) {
        let pin = pin_file(&self.wallet);
        let store = self.wallet.configure(&format!("{pin}\n{forwards}"));
        let daemon = Listener::start(&["--store", text(&store), "run"]);
        (daemon, store)
    }
}

/// A port that nobody has at the moment.
fn free() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Something that is connected.
trait Connection: Read + Write + Sized {
    fn end(&self);
    fn patient(self) -> Self;
}

impl Connection for TcpStream {
    fn end(&self) {
        self.shutdown(Shutdown::Write).unwrap();
    }

    fn patient(self) -> Self {
        self.set_read_timeout(Some(SOON)).unwrap();
        self
    }
}

impl Connection for UnixStream {
    fn end(&self) {
        self.shutdown(Shutdown::Write).unwrap();
    }

    fn patient(self) -> Self {
        self.set_read_timeout(Some(SOON)).unwrap();
        self
    }
}

/// Says something, and then that this was all; the echo has both.
fn echoes(mut connection: impl Connection, said: &[u8]) {
    connection.write_all(said).unwrap();
    connection.end();
    let mut heard = Vec::new();
    connection.read_to_end(&mut heard).unwrap();
    assert!(heard == said, "{} of {} bytes came back", heard.len(), said.len());
}

fn tcp(port: u16) -> TcpStream {
    TcpStream::connect(("127.0.0.1", port)).unwrap().patient()
}

fn unix(path: &Path) -> UnixStream {
    UnixStream::connect(path).unwrap().patient()
}

#[test]
fn tcp_and_unix_lead_to_a_peers_service() {
    let mut two = Two::new();
    let (port, path) = (free(), two.wallet.dir.path().join("socket"));
    // What a daemon that was killed has left.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let (daemon, _) = two.daemon(&format!(
        "[[forward]]\nlisten = \"tcp:127.0.0.1:{port}\"\nto = \"cosigner/ssh\"\n[[forward]]\nlisten = \"unix:{}\"\nto = \"cosigner/watch\"\n",
        path.display()
    ));
    daemon.says("listens and leads to cosigner/watch");
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);

    // The peer is away at first: whoever comes waits.
    let mut early = tcp(port);
    early.write_all(b"early").unwrap();
    let listener = two.echo();
    early.end();
    let mut heard = Vec::new();
    early.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, b"early");
    let long: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    std::thread::scope(|scope| {
        let halves = scope.spawn(|| {
            let mut connection = tcp(port);
            let mut writing = connection.try_clone().unwrap();
            let long = &long;
            let saying = scope.spawn(move || {
                writing.write_all(long).unwrap();
                writing.shutdown(Shutdown::Write).unwrap();
            });
            let mut heard = Vec::new();
            connection.read_to_end(&mut heard).unwrap();
            saying.join().unwrap();
            assert!(heard == *long);
        });
        echoes(unix(&path), b"over a unix socket");
        halves.join().unwrap();
    });
    drop(listener);
    drop(two.cosigner);
    assert_eq!(daemon.stop(), Some(0));
    assert!(!path.exists(), "its socket is taken away");
}
