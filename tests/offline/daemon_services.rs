//! Services of a whole `claviger run`: what a peer may open, what it meets there, and what becomes of it when something breaks.

use crate::cli::{Listener, text};
use crate::support::{Machine, pin_file};
use claviger::Endpoint;
use claviger::config::Pattern;
use claviger::session::{Reset, Session, Stream, error_of, reset_of};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::time::timeout;

pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A cosigner's daemon, and a wallet and a tower that may ask it for something.
pub(crate) struct Served {
    pub(crate) wallet: Machine,
    pub(crate) tower: Machine,
    pub(crate) cosigner: Machine,
    pub(crate) daemon: Listener,
}

/// Starts the daemon with these services; `verbose` also says what becomes of each stream.
pub(crate) fn serve(services: &str) -> Served {
    let [mut wallet, mut tower, mut cosigner] = ["wallet", "tower", "cosigner"].map(Machine::software);
    for machine in [&mut wallet, &mut tower] {
        machine.introduce(&mut cosigner);
    }
    let more = format!("{}\n{services}", pin_file(&cosigner));
    let daemon = start(&mut cosigner, &more);
    Served { wallet, tower, cosigner, daemon }
}

/// A machine's daemon, once it listens.
pub(crate) fn start(machine: &mut Machine, more: &str) -> Listener {
    let store = machine.configure(more);
    let daemon = Listener::start(&["--store", text(&store), "run"]);
    let began = Instant::now();
    while std::net::TcpStream::connect(machine.address()).is_err() {
        assert!(began.elapsed() < SOON, "the daemon does not listen");
        std::thread::sleep(Duration::from_millis(50));
    }
    daemon
}

/// The other end of a session with the cosigner's daemon.
pub(crate) struct Caller {
    pub(crate) session: Session,
    _endpoint: Endpoint,
}

impl Caller {
    pub(crate) async fn new(machine: &mut Machine) -> Self {
        let endpoint = machine.endpoint(Pattern::Kk1).await;
        let session = endpoint.connect_peer(&"cosigner".parse().unwrap(), None).await.unwrap();
        Self { session, _endpoint: endpoint }
    }

    pub(crate) async fn open(&self, service: &str) -> Stream {
        self.session.open(&service.parse().unwrap()).await.unwrap()
    }

    /// Says it all, and hears it all.
    async fn ask(&self, service: &str, question: &[u8]) -> Vec<u8> {
        let mut stream = self.open(service).await;
        stream.write_all(question).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        timeout(SOON, stream.read_to_end(&mut answer)).await.expect("an answer").unwrap();
        answer
    }

    async fn refused(&self, service: &str) -> Option<Reset> {
        let mut stream = self.open(service).await;
        outcome(&mut stream).await.1.and_then(|error| reset_of(&error))
    }
}

/// What else comes on a stream, and how it breaks if it does.
async fn outcome(stream: &mut Stream) -> (Vec<u8>, Option<claviger::Error>) {
    let mut heard = Vec::new();
    let read = timeout(SOON, stream.read_to_end(&mut heard)).await.expect("an end");
    (heard, read.err().map(error_of))
}

fn run(test: impl Future<Output = ()>) {
    crate::support::run(test);
}

async fn bound() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn accept(listener: &TcpListener) -> TcpStream {
    timeout(SOON, listener.accept()).await.expect("a connection").unwrap().0
}

/// Each kind of target; who may not open it does not learn whether it is there.
#[test]
fn targets_and_policy() {
    run(async {
        let (listener, address) = bound().await;
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let unix = UnixListener::bind(&socket).unwrap();
        let mut served = serve(&format!(
            r#"
            [service.web]
            target = "tcp:{address}"
            allow = ["role:wallet"]
            [service.unix]
            target = "unix:{}"
            allow = ["*"]
            deny = ["tower"]
            [service.who]
            command = ["/bin/sh", "-c", "read -r x; echo \"$CLAVIGER_PEER $CLAVIGER_PEER_ROLE $CLAVIGER_SERVICE $x\""]
            allow = ["*"]
            [service.nothing]
            target = "unix:{}/absent"
            allow = ["wallet"]
            "#,
            text(&socket),
            text(dir.path()),
        ));
        let wallet = Caller::new(&mut served.wallet).await;
        let tower = Caller::new(&mut served.tower).await;
        let long: Vec<u8> = (0..3_000_000u32).map(|i| (i / 7) as u8).collect();
        let echo = async {
            for _ in 0..2 {
                let mut local = accept(&listener).await;
                let (mut read, mut write) = local.split();
                tokio::io::copy(&mut read, &mut write).await.unwrap();
            }
            let (mut local, _) = unix.accept().await.unwrap();
            let (mut read, mut write) = local.split();
            tokio::io::copy(&mut read, &mut write).await.unwrap();
        };
        let asking = async {
            assert_eq!(wallet.ask("web", b"hello").await, b"hello");
            let stream = wallet.open("web").await;
            let (mut read, mut write) = tokio::io::split(stream);
            let mut heard = Vec::new();
            let saying = async {
                write.write_all(&long).await.unwrap();
                write.shutdown().await.unwrap();
            };
            let ((), n) = tokio::join!(saying, read.read_to_end(&mut heard));
            n.unwrap();
            assert!(heard == long, "an echo differs");
            assert_eq!(wallet.ask("unix", b"hello").await, b"hello");
        };
        tokio::join!(echo, asking);
        assert_eq!(wallet.ask("who", b"you?\n").await, b"wallet wallet who you?\n");
        assert_eq!(tower.ask("who", b"you?\n").await, b"tower tower who you?\n");

        for service in ["web", "unix", "nothing", "unheard-of"] {
            assert_eq!(tower.refused(service).await, Some(Reset::NotAllowed), "{service}");
        }
        assert_eq!(wallet.refused("unheard-of").await, Some(Reset::NotAllowed));
        served.daemon.says("a stream was refused");
        assert_eq!(wallet.refused("nothing").await, Some(Reset::Internal));
        let told = served.daemon.says("a stream failed here");
        assert!(told.contains("there is no such socket") && told.contains("Start the program behind"), "{told}");
    });
}
