//! What strangers, members gone bad and local programs do to a whole `claviger run`. What it holds and what it says stays bounded, and others notice nothing.

use crate::cli::{run as program, text};
use crate::daemon_services::{Caller, SOON};
use crate::daemon_soak::{Held, echo};
use crate::daemon_status::{Running, peer};
use crate::hostile::{DATA, Member, RST, SYN, WINDOW, data, frame};
use crate::lab::{ANY, name};
use crate::servers::free;
use crate::support::{Machine, run};
use claviger::endpoint::Resume;
use claviger::session::Why;
use claviger::wire::control::{Control, Reset};

use serde_json::Value;
use std::future::pending;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

/// A member that keeps calling, on a session and by handshakes of its own.
pub(crate) struct Honest {
    counted: Arc<Counted>,
    calling: JoinHandle<()>,
}

#[derive(Default)]
struct Counted {
    done: AtomicBool,
    calls: AtomicU64,
    /// In milliseconds.
    slowest: AtomicU64,
}

impl Honest {
    pub(crate) async fn new(machine: &mut Machine) -> Self {
        let (caller, counted) = (Caller::new(machine).await, Arc::<Counted>::default());
        let counts = Arc::clone(&counted);
        let calling = tokio::spawn(async move {
            while !counts.done.load(Ordering::Relaxed) {
                let began = Instant::now();
                assert_eq!(caller.ask("echo", b"are you there?").await, b"are you there?");
                if counts.calls.fetch_add(1, Ordering::Relaxed) % 10 == 5 {
                    let peer = name("cosigner");
                    let connected = caller.endpoint.connect_peer_with(&peer, ANY.resume(Resume::Never));
                    connected.await.expect("a handshake").end(Why::Done);
                }
                counts.slowest.fetch_max(began.elapsed().as_millis() as u64, Ordering::Relaxed);
                sleep(Duration::from_millis(50)).await;
            }
        });
        Self { counted, calling }
    }

    pub(crate) async fn noticed_nothing(self) {
        self.counted.done.store(true, Ordering::Relaxed);
        timeout(SOON, self.calling).await.expect("it is answered").expect("it is answered well");
        let [calls, slowest] = [&self.counted.calls, &self.counted.slowest].map(|n| n.load(Ordering::Relaxed));
        println!("{calls} calls, the slowest took {slowest} ms");
        assert!(calls > 5 && slowest < 5000, "{calls} calls, the slowest took {slowest} ms");
    }
}

/// The most that a process held since it was looked at first.
struct Watch {
    done: Arc<AtomicBool>,
    looking: std::thread::JoinHandle<Held>,
    before: Held,
}

impl Watch {
    fn of(daemon: &Running) -> Self {
        let (pid, done) = (daemon.process.pid(), Arc::new(AtomicBool::new(false)));
        let (before, over) = (Held::by(pid), Arc::clone(&done));
        let looking = std::thread::spawn(move || {
            let mut most = before;
            while !over.load(Ordering::Relaxed) {
                let held = Held::by(pid);
                most.resident = most.resident.max(held.resident);
                most.files = most.files.max(held.files);
                most.threads = most.threads.max(held.threads);
                std::thread::sleep(Duration::from_millis(20));
            }
            most
        });
        Self { done, looking, before }
    }

    /// No more than so many files beyond what it had, and no more than so many MiB.
    fn bounded(self, what: &str, files: u64, mib: u64) {
        self.done.store(true, Ordering::Relaxed);
        let (before, most) = (self.before, self.looking.join().unwrap());
        println!("{what}: {before:?} before, {most:?} at most");
        assert!(most.files <= before.files + files, "{what}: {before:?} before, {most:?} at most");
        assert!(most.resident <= before.resident + (mib << 10), "{what}: {before:?} before, {most:?} at most");
        // Of the pool for what blocks.
        assert!(most.threads <= before.threads + 8, "{what}: {before:?} before, {most:?} at most");
    }
}

/// What it has said since it was last listened to; no more than so many lines.
pub(crate) fn said(daemon: &Running, lines: usize) -> String {
    let said: Vec<String> = daemon.process.so_far().collect();
    let all = said.join("\n");
    assert!(said.len() <= lines, "{} lines, such as: {}", said.len(), &all[..all.len().min(3000)]);
    all
}

/// The log of connections, as soon as what has happened is in it.
pub(crate) fn logged(store: &Path, event: &str) -> Vec<Value> {
    let output = program(&["--store", text(store), "--json", "log", "--limit", "0"], b"");
    let lines = String::from_utf8(output.stdout).unwrap();
    let entries = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    entries.filter(|entry| entry["event"] == event).collect()
}

/// A cosigner's daemon, a wallet that is well-behaved, and mallory.
pub(crate) fn scene(more: &str) -> (Running, [Machine; 3]) {
    let [mut wallet, mut mallory, mut cosigner] = ["wallet", "mallory", "cosigner"].map(Machine::software);
    for machine in [&mut wallet, &mut mallory] {
        machine.introduce(&mut cosigner);
    }
    let service = format!("[service.echo]\ntarget = \"tcp:{}\"\nallow = [\"wallet\"]\n", echo());
    let daemon = Running::start(&mut cosigner, &format!("{service}{more}"));
    (daemon, [wallet, mallory, cosigner])
}

/// The page of numbers.
fn scraped(metrics: SocketAddr) -> String {
    let mut stream = std::net::TcpStream::connect(metrics).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    page
}

fn number(page: &str, of: &str) -> u64 {
    let line = page.lines().find_map(|line| line.strip_prefix(of)).unwrap_or_else(|| panic!("no {of} in {page}"));
    line.trim().parse().unwrap()
}

/// So many connections, as fast as they come about, each of which does something.
pub(crate) async fn strangers<F: Future<Output = ()> + Send + 'static>(
    address: SocketAddr,
    count: usize,
    act: impl Fn(TcpStream) -> F,
) -> JoinSet<()> {
    let mut connections = JoinSet::new();
    for _ in 0..count {
        // One that was pushed out before it was begun.
        let Ok(Ok(stream)) = timeout(SOON, TcpStream::connect(address)).await else { continue };
        connections.spawn(act(stream));
    }
    connections
}

/// Waits until it holds no more than so many files.
async fn lets_go(daemon: &Running, files: u64) {
    let began = Instant::now();
    while Held::by(daemon.process.pid()).files > files {
        assert!(began.elapsed() < SOON, "it keeps them: {:?}", Held::by(daemon.process.pid()));
        sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn strangers_are_nobody() {
    run(async {
        let metrics = free();
        let (daemon, [mut wallet, _mallory, cosigner]) =
            scene(&format!("[limits]\npending = 200\n[metrics]\nlisten = \"tcp:{metrics}\"\n"));
        let address = cosigner.address();
        let honest = Honest::new(&mut wallet).await;
        said(&daemon, 20);
        let watch = Watch::of(&daemon);
        let silent = strangers(address, 1200, |stream: TcpStream| async move {
            let _stream = stream;
            pending().await
        });
        let garbage = strangers(address, 800, |mut stream: TcpStream| async move {
            let _ = stream.write_all(&[b'G'; 400]).await;
            let _ = stream.read(&mut [0; 8]).await;
        });
        let halves = strangers(address, 400, |mut stream: TcpStream| async move {
            let _ = stream.write_all(&[0, 120, 1, 2, 3]).await;
            let _ = stream.read(&mut [0; 8]).await;
        });
        let trickles = strangers(address, 200, |mut stream: TcpStream| async move {
            for byte in [0, 120].into_iter().chain(std::iter::repeat(7)) {
                if stream.write_all(&[byte]).await.is_err() {
                    break;
                }
                sleep(Duration::from_millis(100)).await;
            }
        });
        let kept = tokio::join!(silent, garbage, halves, trickles);
        sleep(Duration::from_secs(1)).await;
        // As many as wait, those just accepted, and whatever else it is at.
        watch.bounded("strangers", 200 + 64, 24);
        let status = daemon.status();
        assert!(status["strangers"]["count"].as_u64().unwrap() >= 2000, "{status:#}");
        assert_eq!(status["well"], true, "{status:#}");
        let counted = number(&scraped(metrics), "claviger_strangers_total ");
        assert!(counted >= status["strangers"]["count"].as_u64().unwrap(), "{counted}");
        drop(kept);
        lets_go(&daemon, 60).await;
        honest.noticed_nothing().await;
        let said = said(&daemon, 60);
        assert!(said.contains("outcome=\"failed\"") && said.contains("peer=\"unknown\""), "{said}");
        let store = daemon.store.clone();
        assert_eq!(daemon.process.stop(), Some(0));
        let entries = logged(&store, "strangers");
        let count: u64 = entries.iter().map(|entry| entry["count"].as_u64().unwrap()).sum();
        assert!(entries.len() <= 3 && count >= 2600, "{entries:?}");
    });
}

/// What a member opens in a session of its own, by hand; nothing that it is told is looked at.
struct Rogue {
    member: crate::hostile::Says,
    _deaf: Option<crate::hostile::Hears>,
    next: u32,
}

impl Rogue {
    /// `reads`: it takes what it is told.
    async fn new(own: &Machine, victim: &Machine, reads: bool) -> Self {
        let token = own.token();
        let Member { mut hears, says } = Member::call(own, &token, victim).await;
        let deaf = match reads {
            true => {
                tokio::spawn(async move {
                    while tokio::io::copy(&mut hears.pipe, &mut tokio::io::sink()).await.is_ok_and(|n| n > 0) {}
                });
                None
            }
            false => Some(hears),
        };
        Self { member: says, _deaf: deaf, next: 1 }
    }

    /// Opens a stream, whose number is given.
    async fn opens(&mut self, service: &str, first: &[u8]) -> std::io::Result<u32> {
        let stream = self.next;
        self.next += 2;
        self.member.control(&[Control::Open { stream, service: service.parse().unwrap() }]).await?;
        self.member.frames(first).await?;
        Ok(stream)
    }

    /// For so long, or until it is thrown out; how often.
    async fn goes_on(&mut self, time: Duration, mut act: impl AsyncFnMut(&mut Self) -> std::io::Result<()>) -> u64 {
        let (began, mut times) = (Instant::now(), 0);
        while began.elapsed() < time && matches!(timeout(time, act(self)).await, Ok(Ok(()))) {
            times += 1;
        }
        times
    }
}

/// Says something to each connection as long as it listens, and never listens itself.
pub(crate) fn endless() -> SocketAddr {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || while stream.write_all(&[7; 16_384]).is_ok() {});
        }
    });
    address
}

type Flooding<'a> = std::pin::Pin<Box<dyn Future<Output = std::io::Result<()>> + 'a>>;

/// What it is, whether it reads what it is told, and what it does once.
type Flood = (&'static str, bool, fn(&mut Rogue) -> Flooding<'_>);

const FLOOD: Duration = Duration::from_millis(500);

#[test]
fn a_member_gone_bad_harms_nobody_else() {
    run(async {
        let nobody = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let (daemon, [mut wallet, mut mallory, cosigner]) = scene(&format!(
            "[service.endless]\ntarget = \"tcp:{}\"\nallow = [\"mallory\"]\n[service.datagrams]\ntarget = \"udp:{}\"\nallow = [\"mallory\"]\n\
             [limits]\nper-peer = 4\nsessions-per-peer = 4\nstreams-per-peer = 64\nbuffer-per-peer = 32\n[daemon]\nshutdown = 1\n",
            endless(),
            nobody.local_addr().unwrap(),
        ));
        let honest = Honest::new(&mut wallet).await;
        said(&daemon, 20);

        let watch = Watch::of(&daemon);
        let caller = Caller::new(&mut mallory).await;
        let mut calling = JoinSet::new();
        for _ in 0..12 {
            let endpoint = caller.endpoint.clone();
            calling.spawn(async move {
                let (mut sessions, mut refused) = (Vec::new(), 0);
                // Of all together fewer than its knocks are remembered: it would lock itself out.
                for _ in 0..30 {
                    match endpoint.connect_peer_with(&name("cosigner"), ANY.resume(Resume::Never)).await {
                        Ok(session) => sessions.push(session),
                        Err(_) => refused += 1,
                    }
                }
                (sessions, refused)
            });
        }
        let outcomes = calling.join_all().await;
        let (begun, refused) =
            outcomes.iter().fold((0, 0), |(begun, all), (sessions, n)| (begun + sessions.len(), all + n));
        println!("{begun} handshakes, and {refused} that were refused");
        assert!(begun > 10 && refused > 0);
        daemon.until("no more sessions than it may have", |status| {
            peer(status, "mallory")["sessions"].as_array().unwrap().len() <= 4
        });
        watch.bounded("handshakes", 40, 24);
        said(&daemon, 80);
        drop((outcomes, caller));

        let floods: [Flood; 5] = [
            ("streams that it may not open", true, |rogue| {
                Box::pin(async {
                    let first = data(SYN, rogue.next, b"hello");
                    rogue.opens("echo", &first).await.map(drop)
                })
            }),
            ("streams of a service that is none", true, |rogue| {
                Box::pin(async {
                    let (service, first) = (format!("service-{}", rogue.next), data(SYN, rogue.next, b"hello"));
                    rogue.opens(&service, &first).await.map(drop)
                })
            }),
            ("streams that are reset at once", true, |rogue| {
                Box::pin(async {
                    let first = data(SYN, rogue.next, b"hello");
                    let stream = rogue.opens("endless", &first).await?;
                    rogue.member.control(&[Control::Reset { stream, reason: Reset::Dropped }]).await?;
                    rogue.member.frames(&data(RST, stream, b"")).await
                })
            }),
            ("a byte a frame", true, |rogue| {
                Box::pin(async {
                    if rogue.next < 100 {
                        let first = data(SYN, rogue.next, b"x");
                        rogue.opens("endless", &first).await?;
                    }
                    rogue.member.frames(&frame(DATA, 0, 1, 1, b"x").repeat(4000)).await
                })
            }),
            ("downloads that it never reads", false, |rogue| {
                Box::pin(async {
                    if rogue.next < 128 {
                        let first = frame(WINDOW, SYN, rogue.next, 0xffff_0000 - 256 * 1024, b"");
                        rogue.opens("endless", &first).await?;
                    }
                    sleep(Duration::from_millis(5)).await;
                    Ok(())
                })
            }),
        ];
        for (what, reads, act) in floods {
            let watch = Watch::of(&daemon);
            let mut rogue = Rogue::new(&mallory, &cosigner, reads).await;
            let times = rogue.goes_on(FLOOD, async |rogue| act(rogue).await).await;
            println!("{what}: {times} times");
            assert!(times > 10, "{what}: {times} times");
            watch.bounded(what, 2 * 64 + 20, 96);
            said(&daemon, 12);
        }

        let watch = Watch::of(&daemon);
        let caller = Caller::new(&mut mallory).await;
        let mut stream = caller.open("datagrams").await;
        let datagrams = [&1000_u16.to_be_bytes()[..], &[7; 1000]].concat().repeat(30);
        let (began, mut sent) = (Instant::now(), 0);
        while began.elapsed() < FLOOD {
            stream.write_all(&datagrams).await.unwrap();
            sent += 30;
        }
        println!("{sent} datagrams");
        watch.bounded("datagrams", 20, 32);
        said(&daemon, 12);

        honest.noticed_nothing().await;
        let status = daemon.status();
        let of = |name: &str| {
            status["services"].as_array().unwrap().iter().find(|service| service["name"] == name).unwrap().clone()
        };
        assert!(of("echo")["not-allowed"].as_u64().unwrap() > 50, "{status:#}");
        let store = daemon.store.clone();
        assert_eq!(daemon.process.stop(), Some(0));
        let refused = logged(&store, "stream-refused");
        let of_echo: Vec<&Value> = refused.iter().filter(|entry| entry["service"] == "echo").collect();
        assert!(
            (1..4).contains(&of_echo.len()) && of_echo.iter().all(|entry| entry["peer"] == "mallory"),
            "{refused:?}"
        );
        assert!(refused.len() < 600, "{} entries", refused.len());
    });
}

#[test]
fn local_programs_are_bounded() {
    run(async {
        let [mut wallet, mut cosigner] = ["wallet", "cosigner"].map(Machine::software);
        wallet.introduce(&mut cosigner);
        let service =
            format!("[service.echo]\ntarget = \"tcp:{}\"\nallow = [\"wallet\"]\nstreams-per-peer = 200\n", echo());
        let _cosigner = Running::start(&mut cosigner, &service);
        let [flooded, other, socks, metrics] = [(); 4].map(|()| free());
        let wallet = Running::start(
            &mut wallet,
            &format!(
                "[[forward]]\nlisten = \"tcp:{flooded}\"\nto = \"cosigner/echo\"\nstreams = 64\n\
                 [[forward]]\nlisten = \"tcp:{other}\"\nto = \"cosigner/echo\"\n[socks]\nlisten = \"tcp:{socks}\"\n[metrics]\nlisten = \"tcp:{metrics}\"\n[peer.cosigner]\nkeep = true\n"
            ),
        );
        wallet.until("a session", |status| peer(status, "cosigner")["relation"] == "operational");
        let works = || {
            let began = Instant::now();
            let mut stream = std::net::TcpStream::connect(other).unwrap();
            stream.set_read_timeout(Some(SOON)).unwrap();
            stream.write_all(b"hello").unwrap();
            let mut heard = [0; 5];
            let answered = stream.read_exact(&mut heard);
            assert!(answered.is_ok(), "{answered:?}: {:?}", said(&wallet, usize::MAX));
            assert!(&heard == b"hello" && began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        };
        works();
        said(&wallet, 20);
        let (control, calm) = (wallet.socket(), Held::by(wallet.process.pid()).files);
        for (what, files) in
            [("connections", 64 + 30), ("half greetings", 256 + 30), ("questions", 32 + 30), ("half scrapes", 16 + 30)]
        {
            let watch = Watch::of(&wallet);
            let mut kept = JoinSet::new();
            for _ in 0..600 {
                match what {
                    "questions" => {
                        let Ok(mut stream) = tokio::net::UnixStream::connect(&control).await else { continue };
                        kept.spawn(async move {
                            let _ = stream.write_all(b"{\"version\":1,").await;
                            let _ = stream.read(&mut [0; 8]).await;
                            pending::<()>().await;
                        });
                    }
                    _ => {
                        let address = match what {
                            "connections" => flooded,
                            "half greetings" => socks,
                            _ => metrics,
                        };
                        let mut stream = TcpStream::connect(address).await.unwrap();
                        kept.spawn(async move {
                            let _ = stream.write_all(&[5]).await;
                            pending::<()>().await;
                        });
                    }
                }
            }
            sleep(Duration::from_millis(500)).await;
            tokio::task::block_in_place(works);
            watch.bounded(what, files, 32);
            drop(kept);
            // Those that waited in the queue are accepted, and found gone.
            lets_go(&wallet, calm + 8).await;
            tokio::task::block_in_place(works);
            said(&wallet, 12);
        }
        assert!(tokio::task::block_in_place(|| scraped(metrics)).starts_with("HTTP/1.1 200"));
        wallet.until("it answers again", |status| status["phase"] == "running");
        assert_eq!(wallet.process.stop(), Some(0));
    });
}
