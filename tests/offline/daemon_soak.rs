//! Two daemons that carry connections of every size, are asked how they are, and read their files again: what they hold stays what it was.
//!
//! `CLAVIGER_SOAK`: for so many seconds.

use crate::cli::{Listener, run, text};
use crate::load::Random;
use crate::support::Machine;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Connections at once.
const CALLERS: u64 = 8;

/// What a process holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Held {
    /// In KiB.
    pub(crate) resident: u64,
    pub(crate) files: u64,
    pub(crate) threads: u64,
}

impl Held {
    pub(crate) fn by(pid: u32) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let number = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
            line.trim().trim_end_matches(" kB").parse().unwrap()
        };
        let files = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() as u64;
        Self { resident: number("VmRSS:"), files, threads: number("Threads:") }
    }
}

fn free_port() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, crate::support::free_port()).into()
}

/// Sends back what each connection brings, until the process ends.
pub(crate) fn echo() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let (mut read, mut write) = (stream.try_clone().unwrap(), stream);
                // One that was given up is cut.
                let _ = std::io::copy(&mut read, &mut write);
                let _ = write.shutdown(Shutdown::Write);
            });
        }
    });
    address
}

/// Everything comes back; one in eight connections is given up on its way.
fn call(forward: SocketAddr, random: &mut Random) -> u64 {
    let most = 1 << (6 + random.below(14));
    let size = random.below(most) as usize;
    let mut stream = TcpStream::connect(forward).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let sent: Vec<u8> = (0..size).map(|at| (at * 31 + size) as u8).collect();
    if random.below(8) == 0 {
        let _ = stream.write_all(&sent);
        return 0;
    }
    let mut write = stream.try_clone().unwrap();
    let bytes = sent.clone();
    let writing = std::thread::spawn(move || {
        write.write_all(&bytes).unwrap();
        write.shutdown(Shutdown::Write).unwrap();
    });
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    writing.join().unwrap();
    assert!(got == sent, "{} bytes came back of {size}", got.len());
    2 * size as u64
}

fn status(store: &Path) -> Value {
    let output = run(&["--store", text(store), "--json", "status"], b"");
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

/// Waits until it works.
pub(crate) fn running(store: &Path) {
    let began = Instant::now();
    while status(store)["phase"] != "running" {
        assert!(began.elapsed() < Duration::from_secs(60), "it never ran: {}", status(store));
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn daemons_hold_no_more_than_they_did() {
    let seconds = std::env::var("CLAVIGER_SOAK").ok().map_or(120, |seconds| seconds.parse().unwrap());
    let (mut wallet, mut cosigner) = (Machine::software("wallet"), Machine::software("cosigner"));
    wallet.introduce(&mut cosigner);
    let (backend, forward) = (echo(), free_port());
    let service = format!("[service.echo]\ntarget = \"tcp:{backend}\"\nallow = [\"wallet\"]\n");
    let pins = [&wallet, &cosigner].map(crate::support::pin_file);
    let cosigner_store = cosigner.configure(&format!("{service}{}", pins[1]));
    let wallet_store = wallet.configure(&format!(
        "[[forward]]\nlisten = \"tcp:{forward}\"\nto = \"cosigner/echo\"\n[peer.cosigner]\nkeep = true\n{}",
        pins[0]
    ));
    let stores = [wallet_store, cosigner_store];
    let daemons = [&stores[0], &stores[1]].map(|store| Listener::start(&["--store", text(store), "run"]));
    stores.iter().for_each(|store| running(store));

    let until = Instant::now() + Duration::from_secs(seconds);
    let (carried, calls) = (AtomicU64::new(0), AtomicU64::new(0));
    let done = AtomicBool::new(false);
    let mut samples: Vec<[Held; 2]> = Vec::new();
    std::thread::scope(|scope| {
        for number in 0..CALLERS {
            let (carried, calls, done) = (&carried, &calls, &done);
            scope.spawn(move || {
                let mut random = Random(number + 1);
                while !done.load(Ordering::Relaxed) {
                    carried.fetch_add(call(forward, &mut random), Ordering::Relaxed);
                    calls.fetch_add(1, Ordering::Relaxed);
                    // The other tests want the processors, too.
                    std::thread::sleep(Duration::from_millis(random.below(20)));
                }
            });
        }
        let mut round = 0_u64;
        while Instant::now() < until {
            std::thread::sleep(Duration::from_secs(1));
            samples.push([0, 1].map(|at| Held::by(daemons[at].pid())));
            round += 1;
            if round.is_multiple_of(5) {
                stores.iter().for_each(|store| assert_eq!(status(store)["phase"], "running"));
            }
            if round.is_multiple_of(10) {
                daemons.iter().for_each(Listener::hang_up);
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    println!("{} connections, {} MiB", calls.load(Ordering::Relaxed), carried.load(Ordering::Relaxed) >> 20);
    let third = samples.len() / 3;
    for (at, name) in ["wallet", "cosigner"].into_iter().enumerate() {
        let most =
            |samples: &[[Held; 2]], of: fn(&Held) -> u64| samples.iter().map(|held| of(&held[at])).max().unwrap();
        for (what, of, slack) in [
            ("KiB", (|held| held.resident) as fn(&Held) -> u64, 12 * 1024),
            ("files", |held| held.files, 2 * CALLERS),
            ("threads", |held| held.threads, 8),
        ] {
            let (first, last) = (most(&samples[..third], of), most(&samples[samples.len() - third..], of));
            println!("{name}: {first} {what} at first, {last} at last");
            assert!(last <= first + first / 8 + slack, "{name} holds {last} {what}, and held {first}");
        }
    }
    // With nothing to do it has no connection's file open any more.
    std::thread::sleep(Duration::from_secs(2));
    let idle = daemons.each_ref().map(|daemon| Held::by(daemon.pid()).files);
    let busy = [0, 1].map(|at| samples.iter().map(|held| held[at].files).max().unwrap());
    println!("files when idle: {idle:?}, busy: {busy:?}");
    for daemon in daemons {
        assert_eq!(daemon.stop(), Some(0));
    }
}
