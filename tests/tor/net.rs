//! What the tests share: one private Tor network, and how they wait.

use std::future::Future;
use std::io::{BufRead as _, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use claviger::config::{self, Config, ControlAddress, TransportKind};
use claviger::identity::OnionAddress;
use claviger::transport::{self, Listener, Pipe, ServiceState, Target, Transport};
use claviger_testkit::tornet::{Network, Options, TorDaemon, TorProcess};
use data_encoding::HEXLOWER;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Runtime;
use tokio::time::{Instant, timeout};

/// Long enough for everything that is to succeed, on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(120);

/// The network, started by the first test that needs it, ended by the last one that holds it.
pub(crate) fn network() -> Arc<Network> {
    static SHARED: Mutex<Weak<Network>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let network = Arc::new(Network::start(&Options::default()).unwrap());
        *shared = Arc::downgrade(&network);
        network
    })
}

/// Runs a test to its end, and arti with it: its tasks would write to a directory that is deleted after the test. Waits for them no longer
/// than it must; a thread of arti's may never end.
pub(crate) fn run(test: impl Future<Output = ()>) {
    struct Running(Option<Runtime>);
    impl Drop for Running {
        fn drop(&mut self) {
            if let Some(runtime) = self.0.take() {
                runtime.shutdown_timeout(Duration::from_secs(5));
            }
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let running = Running(Some(runtime));
    running.0.as_ref().unwrap().block_on(test);
}

/// A transport by arti on the network, with its state below `dir`.
pub(crate) async fn arti(network: &Network, dir: &Path) -> Arc<dyn Transport> {
    let arti = config::Arti { config: Some(network.arti_config()), state: None };
    opened(config::Transport { arti, ..config::Transport::default() }, dir).await
}

/// The configuration for a daemon of the network.
pub(crate) fn daemon(tor: &TorProcess) -> config::Tor {
    let absent = || SocketAddr::from(([127, 0, 0, 1], 1));
    config::Tor {
        socks: tor.socks_addr().unwrap_or_else(absent),
        control: ControlAddress::Tcp(tor.control_addr().unwrap_or_else(absent)),
        cookie_file: tor.cookie_path().unwrap_or(Path::new("/nonexistent")).to_owned(),
        ..config::Tor::default()
    }
}

/// A transport by a tor daemon.
pub(crate) async fn tor(config: config::Tor) -> Arc<dyn Transport> {
    let config = config::Transport { kind: TransportKind::Tor, tor: config, ..config::Transport::default() };
    opened(config, Path::new("/nonexistent")).await
}

pub(crate) async fn opened(transport: config::Transport, dir: &Path) -> Arc<dyn Transport> {
    transport::open(&Config { transport, ..Config::default() }, dir).await.unwrap()
}

/// A daemon of the network.
pub(crate) fn start(network: &Network) -> TorProcess {
    network.start_tor(&TorDaemon::default()).unwrap()
}

/// What a daemon answers to one control command.
pub(crate) fn control(tor: &TorProcess, command: &str) -> Vec<String> {
    let cookie = HEXLOWER.encode(&std::fs::read(tor.cookie_path().unwrap()).unwrap());
    let mut stream = std::net::TcpStream::connect(tor.control_addr().unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(stream, "AUTHENTICATE {cookie}\r\n{command}\r\nQUIT\r\n").unwrap();
    let lines: Vec<String> = std::io::BufReader::new(stream).lines().map(Result::unwrap).collect();
    assert_eq!((lines[0].as_str(), lines[lines.len() - 1].as_str()), ("250 OK", "250 closing connection"));
    lines[1..lines.len() - 1].to_vec()
}

pub(crate) fn target(onion: OnionAddress, port: u16) -> Target {
    Target { onion: Some(onion), port, tcp: None, isolation: "peer".into(), client: None }
}

/// Waits until the service's state is what `wanted` says.
pub(crate) async fn until(listener: &dyn Listener, wanted: impl Fn(&ServiceState) -> bool) -> ServiceState {
    let mut status = listener.status();
    timeout(LONG, status.wait_for(wanted)).await.expect("state in time").expect("listener alive").clone()
}

pub(crate) async fn reachable(listener: &dyn Listener) {
    until(listener, |state| *state == ServiceState::Reachable).await;
}

/// Sends back what each pipe brings.
pub(crate) async fn echo(mut listener: Box<dyn Listener>) {
    loop {
        let pipe = listener.accept().await.unwrap();
        tokio::spawn(async move {
            let (mut reader, mut writer) = tokio::io::split(pipe);
            let mut buffer = vec![0; 8192];
            while let Ok(count @ 1..) = reader.read(&mut buffer).await {
                writer.write_all(&buffer[..count]).await.unwrap();
                writer.flush().await.unwrap();
            }
        });
    }
}

/// Dials, and sends 100 000 bytes to and fro.
pub(crate) async fn exchange(dialler: &dyn Transport, target: &Target) -> Duration {
    let begin = Instant::now();
    let pipe = dialler.dial(target, begin + LONG).await.unwrap_or_else(|error| panic!("{}: {error:?}", dialler.name()));
    let took = begin.elapsed();
    timeout(LONG, to_and_fro(pipe)).await.expect("echo in time");
    took
}

async fn to_and_fro(pipe: Pipe) {
    let sent: Vec<u8> = (0..100_000_u32).map(|i| i.to_le_bytes()[0]).collect();
    let mut got = vec![0; sent.len()];
    let (mut reader, mut writer) = tokio::io::split(pipe);
    let send = async {
        writer.write_all(&sent).await.unwrap();
        writer.flush().await.unwrap();
    };
    tokio::join!(send, async { reader.read_exact(&mut got).await.unwrap() });
    assert!(got == sent, "echo differs");
}
