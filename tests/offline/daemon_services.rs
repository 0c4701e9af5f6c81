//! Services of a whole `claviger run`: what a peer may open, what it meets there, and what becomes of it when something breaks.

use crate::cli::{Listener, text};
use crate::servers::Server;
use crate::support::{Machine, pin_file};
use aws_lc_rs::digest::{SHA256, digest};
use claviger::config::Pattern;
use claviger::session::{Reset, Session, Stream, error_of, reset_of};
use claviger::{Endpoint, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket, UnixDatagram, UnixListener};
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

impl Served {
    /// Gives the daemon other services.
    fn reload(&mut self, services: &str) {
        let more = format!("{}\n{services}", pin_file(&self.cosigner));
        let store = self.cosigner.configure(&more);
        let output = crate::cli::run(&["--store", text(&store), "reload"], b"");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
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
    pub(crate) endpoint: Endpoint,
}

impl Caller {
    pub(crate) async fn new(machine: &mut Machine) -> Self {
        let endpoint = machine.endpoint(Pattern::Kk1).await;
        let session = endpoint.connect_peer(&"cosigner".parse().unwrap(), None).await.unwrap();
        Self { session, endpoint }
    }

    pub(crate) async fn open(&self, service: &str) -> Stream {
        self.session.open(&service.parse().unwrap()).await.unwrap()
    }

    /// Says it all, and hears it all.
    pub(crate) async fn ask(&self, service: &str, question: &[u8]) -> Vec<u8> {
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
            command = ["/bin/sh", "-c", "echo 'un\\033[31mheard' >&2; env | grep -c ^CLAVIGER >&2; read -r x; echo \"$CLAVIGER_PEER $CLAVIGER_PEER_ROLE $CLAVIGER_SERVICE $x\""]
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
        let told = served.daemon.says("the command says: un");
        assert!(told.contains("heard") && !told.contains('\u{1b}'), "{told}");
        served.daemon.says("the command says: 3");
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

/// A direction that ends leaves the other open, and a stream that ends on both sides is not broken.
#[test]
fn half_close() {
    run(async {
        let (listener, address) = bound().await;
        let mut served = serve(&format!(
            r#"
            [service.web]
            target = "tcp:{address}"
            allow = ["wallet"]
            [service.cat]
            command = ["/bin/sh", "-c", "exec 2>/dev/null; cat; sleep 0.3; echo more"]
            allow = ["wallet"]
            [service.deaf]
            command = ["/bin/sh", "-c", "exec <&-; sleep 0.3; echo done"]
            allow = ["wallet"]
            "#
        ));
        let wallet = Caller::new(&mut served.wallet).await;
        // The caller is done first, and then hears.
        let mut stream = wallet.open("web").await;
        stream.write_all(b"question").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut local = accept(&listener).await;
        let mut heard = Vec::new();
        timeout(SOON, local.read_to_end(&mut heard)).await.expect("its end").unwrap();
        assert_eq!(heard, b"question");
        local.write_all(b"answer").await.unwrap();
        drop(local);
        let (heard, broken) = outcome(&mut stream).await;
        assert!(heard == b"answer" && broken.is_none(), "{broken:?}");
        // The target is done first.
        let mut stream = wallet.open("web").await;
        let mut local = accept(&listener).await;
        local.write_all(b"greeting").await.unwrap();
        local.shutdown().await.unwrap();
        let (heard, broken) = outcome(&mut stream).await;
        assert!(heard == b"greeting" && broken.is_none(), "{broken:?}");
        stream.write_all(b"still here").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut heard = Vec::new();
        timeout(SOON, local.read_to_end(&mut heard)).await.expect("its end").unwrap();
        assert_eq!(heard, b"still here");
        // Commands.
        assert_eq!(wallet.ask("cat", b"said ").await, b"said more\n");
        let stream = wallet.open("deaf").await;
        let (mut read, mut write) = tokio::io::split(stream);
        // More than goes into anything on the way: nobody reads it, and it keeps nobody.
        let saying = async { while write.write_all(&[0; 65_536]).await.is_ok() {} };
        let mut heard = Vec::new();
        let ((), n) =
            timeout(SOON, async { tokio::join!(saying, read.read_to_end(&mut heard)) }).await.expect("an end");
        n.unwrap();
        assert_eq!(heard, b"done\n");
    });
}

/// What breaks at one end is a break at the other, and never an end.
#[test]
fn breaks_are_breaks() {
    run(async {
        let (listener, address) = bound().await;
        let dir = tempfile::tempdir().unwrap();
        let [acted, late] = ["acted", "late"].map(|name| dir.path().join(name));
        let mut served = serve(&format!(
            r#"
            [service.web]
            target = "tcp:{address}"
            allow = ["wallet"]
            [service.act]
            command = ["/bin/sh", "-c", "sh -c 'cat; touch {}'; true"]
            allow = ["wallet"]
            [service.late]
            command = ["/bin/sh", "-c", "cat >/dev/null; sleep 2.5; touch {}"]
            allow = ["wallet"]
            [service.die]
            command = ["/bin/sh", "-c", "echo half; kill -9 $$"]
            allow = ["wallet"]
            "#,
            text(&acted),
            text(&late)
        ));
        let wallet = Caller::new(&mut served.wallet).await;
        let connected = async || {
            let mut stream = wallet.open("web").await;
            stream.write_all(b"half").await.unwrap();
            let mut local = accept(&listener).await;
            let mut heard = [0; 4];
            local.read_exact(&mut heard).await.unwrap();
            local.write_all(b"well").await.unwrap();
            stream.read_exact(&mut heard).await.unwrap();
            (stream, local)
        };
        let is_reset = async |mut local: TcpStream| {
            let read = timeout(SOON, local.read(&mut [0; 8])).await.expect("a break");
            assert_eq!(read.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
        };
        let (stream, local) = connected().await;
        stream.reset(Reset::Application(1));
        is_reset(local).await;
        let (stream, local) = connected().await;
        drop(stream);
        is_reset(local).await;
        // The target's reset.
        let (mut stream, local) = connected().await;
        local.set_zero_linger().unwrap();
        drop(local);
        let broken = outcome(&mut stream).await.1.expect("a break");
        assert_eq!(reset_of(&broken), Some(Reset::Dropped));
        // Said everything, and gone before the answer: the target has it all, and learns that nobody listens.
        let mut stream = wallet.open("web").await;
        stream.write_all(b"one way").await.unwrap();
        stream.shutdown().await.unwrap();
        drop(stream);
        let mut local = accept(&listener).await;
        let mut heard = Vec::new();
        timeout(SOON, local.read_to_end(&mut heard)).await.expect("its end").unwrap();
        assert_eq!(heard, b"one way");
        let mut stream = wallet.open("late").await;
        stream.write_all(b"all of it").await.unwrap();
        stream.shutdown().await.unwrap();
        drop(stream);
        // Commands: one that half of a request reached does not act on it, and one that died has not said everything.
        let mut stream = wallet.open("act").await;
        stream.write_all(b"half").await.unwrap();
        stream.read_exact(&mut [0; 4]).await.unwrap();
        drop(stream);
        let (heard, broken) = outcome(&mut wallet.open("die").await).await;
        assert_eq!((heard.as_slice(), reset_of(&broken.unwrap())), (b"half\n".as_slice(), Some(Reset::Dropped)));
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(!acted.exists(), "half a request was taken for a whole one");
        // One that has everything is left alone, though nobody waits for its answer.
        let began = Instant::now();
        while !late.exists() {
            assert!(began.elapsed() < SOON, "it was killed");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // The session's end is a break, too.
        let (stream, local) = connected().await;
        wallet.session.end(claviger::session::Why::Done);
        is_reset(local).await;
        drop(stream);
    });
}

/// A target's reset that is met by writing is one: the kernel tells it once, and whoever reads after that is told of an end.
#[test]
fn a_reset_while_the_peer_talks_is_a_break() {
    run(async {
        let (listener, address) = bound().await;
        let mut served = serve(&format!("[service.web]\ntarget = \"tcp:{address}\"\nallow = [\"wallet\"]\n"));
        let wallet = Caller::new(&mut served.wallet).await;
        let stream = wallet.open("web").await;
        let mut local = accept(&listener).await;
        let (mut read, mut write) = tokio::io::split(stream);
        let talking = tokio::spawn(async move { while write.write_all(&[0; 65_536]).await.is_ok() {} });
        local.write_all(b"half").await.unwrap();
        read.read_exact(&mut [0; 4]).await.unwrap();
        // Until the target's queue is full, and the daemon waits to write.
        tokio::time::sleep(Duration::from_secs(1)).await;
        local.set_zero_linger().unwrap();
        drop(local);
        let broken = timeout(SOON, read.read_to_end(&mut Vec::new())).await.expect("an end").map_err(error_of);
        talking.abort();
        assert_eq!(reset_of(&broken.expect_err("half of an answer was taken for all of it")), Some(Reset::Dropped));
    });
}

/// The daemon's end cuts what is left, also where what had arrived makes no way.
#[test]
fn the_daemons_end_is_a_break() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let acted = dir.path().join("acted");
        let mut served = serve(&format!(
            r#"
            [daemon]
            shutdown = 1
            [service.act]
            command = ["/bin/sh", "-c", "echo ready; sleep 5; cat > {0}.half; touch {0}"]
            allow = ["wallet"]
            "#,
            text(&acted)
        ));
        let wallet = Caller::new(&mut served.wallet).await;
        let mut stream = wallet.open("act").await;
        stream.read_exact(&mut [0; 6]).await.unwrap();
        let began = Instant::now();
        // More than the command's pipe takes.
        stream.write_all(&[b'x'; 200_000]).await.unwrap();
        let Served { daemon, .. } = served;
        assert_eq!(tokio::task::spawn_blocking(|| daemon.stop()).await.unwrap(), Some(0));
        assert!(began.elapsed() < Duration::from_secs(5), "the command is to meet the end in its sleep");
        tokio::time::sleep(Duration::from_secs(7).saturating_sub(began.elapsed())).await;
        assert!(!acted.exists(), "half a request was taken for a whole one");
    });
}

/// A flow that ends while the peer takes nothing ends behind a datagram, or is broken.
#[test]
fn a_flow_ends_between_datagrams() {
    run(async {
        let backend = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = backend.local_addr().unwrap();
        let mut served =
            serve(&format!("[service.udp]\ntarget = \"udp:{address}\"\nallow = [\"wallet\"]\ndatagram-idle = 1\n"));
        let wallet = Caller::new(&mut served.wallet).await;
        let mut stream = wallet.open("udp").await;
        stream.write_all(b"\0\x01?").await.unwrap();
        let (_, flow) = timeout(SOON, backend.recv_from(&mut [0; 8])).await.expect("a datagram").unwrap();
        for _ in 0..400 {
            backend.send_to(&[b'x'; 9_998], flow).await.unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // Its idle time, and what the end may take.
        tokio::time::sleep(Duration::from_secs(5)).await;
        let (heard, broken) = outcome(&mut stream).await;
        assert!(broken.is_some() || heard.len() % 10_000 == 0, "an end after {} bytes", heard.len());
    });
}

/// As many streams as there may be, of all peers; and a target that takes no connection.
#[test]
fn limits() {
    run(async {
        let (listener, address) = bound().await;
        let dir = tempfile::tempdir().unwrap();
        let full = dir.path().join("full");
        let queue =
            rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM, None).unwrap();
        rustix::net::bind(&queue, &rustix::net::SocketAddrUnix::new(&full).unwrap()).unwrap();
        rustix::net::listen(&queue, 0).unwrap();
        let mut served = serve(&format!(
            r#"
            [service.web]
            target = "tcp:{address}"
            allow = ["*"]
            streams = 3
            streams-per-peer = 2
            [service.full]
            target = "unix:{}"
            allow = ["*"]
            dial-timeout = 1
            "#,
            text(&full)
        ));
        let (wallet, tower) = (Caller::new(&mut served.wallet).await, Caller::new(&mut served.tower).await);
        let mut open = Vec::new();
        for caller in [&wallet, &wallet, &tower] {
            open.push((caller.open("web").await, accept(&listener).await));
            // Two of one peer's at most, and three in all.
            let limited = open.len() >= 2;
            assert!(!limited || caller.refused("web").await == Some(Reset::Limit));
        }
        drop(open.remove(0));
        let began = Instant::now();
        loop {
            let mut stream = tower.open("web").await;
            stream.write_all(b"x").await.unwrap();
            let Err(_) = timeout(Duration::from_millis(200), stream.read_u8()).await else { continue };
            break assert!(began.elapsed() < SOON, "a place stays taken");
        }
        // Its queue has room for one or two that nobody accepts.
        let [mut a, mut b, mut c] = [wallet.open("full").await, wallet.open("full").await, wallet.open("full").await];
        let (_, refused) = tokio::select! {
            outcome = outcome(&mut a) => outcome,
            outcome = outcome(&mut b) => outcome,
            outcome = outcome(&mut c) => outcome,
        };
        assert_eq!(reset_of(&refused.unwrap()), Some(Reset::Internal));
        let told = served.daemon.says("a stream failed here");
        assert!(told.contains("it did not take the connection in time"), "{told}");
        // Whoever goes on asking is told of once.
        for _ in 0..20 {
            assert_eq!(wallet.refused("unheard-of").await, Some(Reset::NotAllowed));
        }
        let told: Vec<String> = served.daemon.so_far().filter(|line| line.contains("a stream was refused")).collect();
        assert!(told.len() <= 2, "{told:?}");
    });
}

/// Names that a peer makes up do not fill the log of connections.
#[test]
fn unknown_names_are_one_entry() {
    run(async {
        let mut served = serve("[service.cat]\ncommand = [\"/bin/cat\"]\nallow = [\"tower\"]\n");
        let wallet = Caller::new(&mut served.wallet).await;
        for at in 0..50 {
            assert_eq!(wallet.refused(&format!("made-up-{at}")).await, Some(Reset::NotAllowed));
        }
        assert_eq!(wallet.refused("cat").await, Some(Reset::NotAllowed));
        let Served { daemon, cosigner, .. } = served;
        assert_eq!(tokio::task::spawn_blocking(|| daemon.stop()).await.unwrap(), Some(0));
        let store = cosigner.dir.path().join("store");
        let output = crate::cli::run(&["--json", "--store", text(&store), "log", "--limit", "0"], b"");
        let log = String::from_utf8(output.stdout).unwrap();
        let refused: Vec<serde_json::Value> = log
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .filter(|entry: &serde_json::Value| entry["event"] == "stream-refused")
            .collect();
        let of = |service: &str| {
            let counts = refused.iter().filter(|entry| entry["service"] == service);
            counts.map(|entry| entry["count"].as_u64().unwrap()).sum::<u64>()
        };
        assert_eq!((of("*"), of("cat")), (50, 1), "{log}");
        assert!(refused.len() <= 4, "{log}");
    });
}

/// What the configuration allows no more is cut at once; what it still allows goes on.
#[test]
fn permissions_that_are_taken_back() {
    run(async {
        let (listener, address) = bound().await;
        let service =
            |name: &str, allow: &str| format!("[service.{name}]\ntarget = \"tcp:{address}\"\nallow = {allow}\n");
        let mut served = serve(&format!("{}{}", service("web", "[\"*\"]"), service("other", "[\"*\"]")));
        let (wallet, tower) = (Caller::new(&mut served.wallet).await, Caller::new(&mut served.tower).await);
        let connected = async |caller: &Caller, service: &str| {
            let mut stream = caller.open(service).await;
            stream.write_all(b"x").await.unwrap();
            let mut local = accept(&listener).await;
            local.read_u8().await.unwrap();
            (stream, local)
        };
        let (mut kept, mut kept_local) = connected(&wallet, "web").await;
        let (mut other, _other_local) = connected(&tower, "other").await;
        let (mut forbidden, mut local) = connected(&tower, "web").await;
        served.reload(&format!("{}{}", service("web", "[\"wallet\"]"), service("other", "[\"*\"]")));
        let broken = outcome(&mut forbidden).await.1.unwrap();
        assert_eq!((broken.kind(), reset_of(&broken)), (ErrorKind::ServiceRefused, Some(Reset::NotAllowed)));
        let read = timeout(SOON, local.read_u8()).await.expect("a break");
        assert_eq!(read.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
        assert_eq!(tower.refused("web").await, Some(Reset::NotAllowed));
        served.reload(&service("web", "[\"wallet\"]"));
        let reason = reset_of(&outcome(&mut other).await.1.unwrap());
        assert!(matches!(reason, Some(Reset::NoSuchService | Reset::NotAllowed)), "{reason:?}");
        kept.write_all(b"y").await.unwrap();
        assert_eq!(timeout(SOON, kept_local.read_u8()).await.expect("it goes on").unwrap(), b'y');
    });
}

/// A role is the store's of now, and not the one that a session was begun with.
#[test]
fn a_role_that_is_taken_back() {
    run(async {
        let mut served = serve("[service.cat]\ncommand = [\"/bin/cat\"]\nallow = [\"role:wallet\"]\n");
        let wallet = Caller::new(&mut served.wallet).await;
        let mut stream = wallet.open("cat").await;
        stream.write_all(b"x").await.unwrap();
        stream.read_u8().await.unwrap();
        // Within less than the daemon takes to look again: its key held all the time.
        let mut store = served.cosigner.store();
        let mut peer = store.remove_peer(&"wallet".parse().unwrap()).unwrap();
        peer.role = "guest".parse().unwrap();
        store.add_peer(&peer, "test").unwrap();
        let broken = outcome(&mut stream).await.1.expect("it is cut");
        assert_eq!(reset_of(&broken), Some(Reset::NotAllowed), "{broken}");
        assert_eq!(wallet.refused("cat").await, Some(Reset::NotAllowed));
    });
}

/// The framing by the byte, and each flow with a socket of its own.
#[test]
fn datagrams() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let (udp, path) = (UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap(), dir.path().join("socket"));
        let address = udp.local_addr().unwrap();
        let unix = UnixDatagram::bind(&path).unwrap();
        let mut served = serve(&format!(
            r#"
            [service.dns]
            target = "udp:{address}"
            allow = ["wallet"]
            datagram-idle = 2
            [service.unix]
            target = "unixgram:{}"
            allow = ["wallet"]
            "#,
            text(&path)
        ));
        let wallet = Caller::new(&mut served.wallet).await;
        let mut buffer = vec![0; 70_000];
        let [mut one, mut two] = [wallet.open("dns").await, wallet.open("dns").await];
        one.write_all(b"\0\x05query\0\0").await.unwrap();
        let (len, first) = timeout(SOON, udp.recv_from(&mut buffer)).await.expect("a datagram").unwrap();
        assert_eq!(&buffer[..len], b"query");
        assert_eq!(udp.recv_from(&mut buffer).await.unwrap(), (0, first));
        two.write_all(b"\0\x01q").await.unwrap();
        let (_, second) = udp.recv_from(&mut buffer).await.unwrap();
        assert_ne!(first, second);
        udp.send_to(b"answer", first).await.unwrap();
        udp.send_to(b"", first).await.unwrap();
        udp.send_to(b"other", second).await.unwrap();
        let mut heard = [0; 10];
        one.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"\0\x06answer\0\0");
        two.read_exact(&mut heard[..7]).await.unwrap();
        assert_eq!(&heard[..7], b"\0\x05other");
        // The longest, there and back.
        let longest = vec![7; 65_507];
        one.write_all(&65_507u16.to_be_bytes()).await.unwrap();
        one.write_all(&longest).await.unwrap();
        let (len, _) = udp.recv_from(&mut buffer).await.unwrap();
        assert!(buffer[..len] == longest);
        udp.send_to(&longest, first).await.unwrap();
        assert_eq!(one.read_u16().await.unwrap(), 65_507);
        one.read_exact(&mut buffer[..65_507]).await.unwrap();
        assert!(buffer[..65_507] == longest);
        // Nothing for a while, and the flow ends; the one that has something to say stays.
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(3) {
            one.write_all(b"\0\x01.").await.unwrap();
            udp.recv_from(&mut buffer).await.unwrap();
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        assert_eq!(timeout(Duration::from_millis(500), two.read(&mut heard)).await.expect("its end").unwrap(), 0);
        two.shutdown().await.unwrap();
        // One that is longer than any is none; nor is half of one.
        let mut wrong = wallet.open("dns").await;
        wrong.write_all(&65_508u16.to_be_bytes()).await.unwrap();
        assert_eq!(reset_of(&outcome(&mut wrong).await.1.unwrap()), Some(Reset::Dropped));
        // A target that is gone is told of, and the flow goes on with the one that comes.
        drop(udp);
        one.write_all(b"\0\x01.").await.unwrap();
        one.write_all(b"\0\x01.").await.unwrap();
        let told = served.daemon.says("a stream failed here");
        assert!(told.contains("A datagram did not reach udp:127.0.0.1:"), "{told}");
        let udp = UdpSocket::bind(address).await.unwrap();
        one.write_all(b"\0\x05again").await.unwrap();
        // The one before may have been on its way still.
        while timeout(SOON, udp.recv_from(&mut buffer)).await.expect("a datagram").unwrap().0 < 5 {}
        assert_eq!(&buffer[..5], b"again");
        // The end of a flow is answered with one.
        one.shutdown().await.unwrap();
        assert_eq!(outcome(&mut one).await.1.map(|error| error.to_string()), None);

        let mut stream = wallet.open("unix").await;
        stream.write_all(b"\0\x05query").await.unwrap();
        let (len, from) = timeout(SOON, unix.recv_from(&mut buffer)).await.expect("a datagram").unwrap();
        assert_eq!(&buffer[..len], b"query");
        let from: std::os::unix::net::SocketAddr = from.into();
        let unix = unix.into_std().unwrap();
        unix.send_to_addr(&[0; 66_000], &from).unwrap();
        unix.send_to_addr(b"answer", &from).unwrap();
        stream.read_exact(&mut heard[..8]).await.unwrap();
        assert_eq!(&heard[..8], b"\0\x06answer");
        // Another program at the same place.
        drop(unix);
        std::fs::remove_file(&path).unwrap();
        stream.write_all(b"\0\x05query").await.unwrap();
        served.daemon.says("a stream failed here");
        let unix = UnixDatagram::bind(&path).unwrap();
        stream.write_all(b"\0\x05again").await.unwrap();
        let len = timeout(SOON, unix.recv(&mut buffer)).await.expect("a datagram").unwrap();
        assert_eq!(&buffer[..len], b"again");
    });
}

/// nginx and haproxy take the header for what it is, and tell callers apart by it.
#[test]
fn proxy_protocol() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let home = text(dir.path());
        let mut nginx = Server::start(
            "nginx",
            dir.path(),
            &format!(
                "daemon off; pid {home}/nginx.pid; error_log stderr; worker_processes 1; events {{}}\n\
                 http {{ access_log off; client_body_temp_path {home}; proxy_temp_path {home}; fastcgi_temp_path {home};\n\
                 uwsgi_temp_path {home}; scgi_temp_path {home};\n\
                 server {{ listen unix:{home}/nginx.sock proxy_protocol; return 200 \"$proxy_protocol_addr\\n\"; }} }}"
            ),
            &["-e", "stderr", "-c"],
        );
        let mut haproxy = Server::start(
            "haproxy",
            dir.path(),
            &format!(
                "defaults\n mode http\n timeout client 10s\n timeout connect 10s\n timeout server 10s\nfrontend f\n bind unix@{home}/haproxy.sock accept-proxy\n \
                 http-request return status 200 content-type text/plain lf-string \"%[fc_pp_authority] %[src]\\n\"\n"
            ),
            &["-db", "-f"],
        );
        let services = ["nginx", "haproxy"].map(|name| {
            format!("[service.{name}]\ntarget = \"unix:{home}/{name}.sock\"\nallow = [\"*\"]\nproxy-protocol = true\n")
        });
        for server in [&mut nginx, &mut haproxy] {
            server.listens(&dir.path().join(format!("{}.sock", server.name)));
        }
        let mut served = serve(&services.concat());
        let callers =
            [(Caller::new(&mut served.wallet).await, "wallet"), (Caller::new(&mut served.tower).await, "tower")];
        for (caller, name) in &callers {
            let of_name = digest(&SHA256, name.as_bytes());
            let octets: [u8; 16] = [b"\xfdclavi", &of_name.as_ref()[..10]].concat().try_into().unwrap();
            let address = std::net::Ipv6Addr::from(octets);
            let request = b"GET / HTTP/1.0\r\n\r\n";
            for (service, expected) in [("nginx", format!("{address}\n")), ("haproxy", format!("{name} {address}\n"))] {
                let answer = String::from_utf8(caller.ask(service, request).await).unwrap();
                assert!(answer.ends_with(&format!("\r\n\r\n{expected}")), "{service}: {answer}");
            }
        }
    });
}
