//! A hundred peers with a hundred streams each.
//!
//! `CLAVIGER_SOAK`: for so many seconds, instead of once.

use crate::load::{Job, Random, carry};
use crate::support::Machine;
use claviger::config::Pattern;
use claviger::endpoint::{ConnectOptions, Listening, Resume};
use claviger::identity::{Curve, Identifier};
use claviger::store::Peer;
use claviger::{Endpoint, Session};
use claviger_testkit::token::{PIN, SO_PIN, SoftHsm, TestToken, isolated};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// What this process has in memory, in MiB.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim_end_matches(" kB").trim().parse::<usize>().unwrap() >> 10
}

const PEERS: usize = 100;

/// All of them at once, and then all sessions are closed.
async fn round(callers: &[Endpoint], listening: &mut Listening, round: u64, streams: usize) -> u64 {
    let cosigner: Identifier = "cosigner".parse().unwrap();
    let mut ends: JoinSet<(String, Session)> = JoinSet::new();
    // A token's queue is 64 operations long, and who comes when it is full is turned away.
    let turns = Arc::new(Semaphore::new(40));
    for (number, caller) in callers.iter().enumerate() {
        let (caller, cosigner, turns) = (caller.clone(), cosigner.clone(), Arc::clone(&turns));
        let resume = if (number as u64 + round).is_multiple_of(2) { Resume::IfBroken } else { Resume::Never };
        ends.spawn(async move {
            let options = ConnectOptions::DEFAULT.resume(resume);
            let _turn = turns.acquire().await.unwrap();
            let session = caller.connect_peer_with(&cosigner, options).await;
            let session = session.unwrap_or_else(|error| panic!("{number}: {error} {:?}", error.cause()));
            (caller.identity().identifier.to_string(), session)
        });
    }
    let mut sessions = HashMap::new();
    for _ in callers {
        let accepted = listening.accept().await.unwrap();
        sessions.insert(accepted.peer().identifier.to_string(), accepted);
    }
    let mut work = JoinSet::new();
    while let Some(end) = ends.join_next().await {
        let (name, session) = end.unwrap();
        let accepted = sessions.remove(&name).unwrap();
        let mut random = Random(round << 32 | u64::from(session.handshake_hash()[0]) << 8 | 1);
        let mut jobs = || -> Vec<Job> { (0..streams / 2 - 1).map(|_| Job::random(&mut random, 1 << 16)).collect() };
        let (mine, theirs) = (jobs(), jobs());
        work.spawn(async move {
            tokio::join!(carry(&session, mine, streams / 2 - 1), carry(&accepted, theirs, streams / 2 - 1));
            let bytes = session.status().received + session.status().sent;
            let (closed, also) = tokio::join!(session.close(), accepted.close());
            closed.and(also).unwrap();
            let weak = [session.downgrade(), accepted.downgrade()];
            drop((session, accepted));
            assert!(weak.iter().all(|session| session.upgrade().is_none()));
            bytes
        });
    }
    let mut bytes = 0;
    while let Some(done) = work.join_next().await {
        bytes += done.unwrap();
    }
    bytes
}

async fn soak(time: Duration) {
    let hsm = SoftHsm::new();
    let begun = Instant::now();
    // Most of that is waiting for the disk. A token each: SoftHSM's files are not made for many writers.
    let tokens: Vec<_> = (0..6).map(|number| hsm.init_token(&format!("soak-{number}"), SO_PIN, PIN)).collect();
    let machine =
        |token: &TestToken, name: &str| Machine::new(name, Some(token.uri(name)), Curve::X25519, "ChaChaPoly_BLAKE2s");
    let mut cosigner = machine(&tokens[0], "cosigner");
    let mut wallets: Vec<Machine> = std::thread::scope(|scope| {
        let make = |(first, token)| {
            let numbers = (first..PEERS).step_by(tokens.len());
            scope.spawn(move || numbers.map(|number| machine(token, &format!("wallet-{number}"))).collect::<Vec<_>>())
        };
        let threads: Vec<_> = tokens.iter().enumerate().map(make).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    {
        let mut store = cosigner.store();
        for wallet in &mut wallets {
            store.add_peer(&Peer::from_card(&wallet.card), "test").unwrap();
            wallet.meet(&cosigner);
            for config in [&mut wallet.config, &mut cosigner.config] {
                config.handshake.timeout = Duration::from_secs(60);
                config.token.timeout = Duration::from_secs(60);
            }
        }
    }
    let answerer = cosigner.endpoint(Pattern::Kk1).await;
    let mut callers = Vec::new();
    for wallet in &mut wallets {
        callers.push(wallet.endpoint(Pattern::Kk1).await);
    }
    println!("{PEERS} machines in {:.1?}, {} MiB", begun.elapsed(), resident());
    let mut listening = answerer.listen(&cosigner.card.onion_address, 4747).await.unwrap();
    let (begun, mut seen) = (Instant::now(), Vec::new());
    for number in 0.. {
        // The first warms up, and is not measured.
        let streams = if number == 0 { 40 } else { 100 };
        let this = Instant::now();
        let bytes = timeout(Duration::from_secs(300), round(&callers, &mut listening, number, streams)).await;
        let bytes = bytes.expect("a round hangs");
        println!(
            "round {number}: {PEERS} × {streams} streams, {} MiB in {:.1?}, {} MiB",
            bytes >> 20,
            this.elapsed(),
            resident()
        );
        assert!(callers.iter().chain([&answerer]).all(|end| end.sessions().is_empty()), "a session is left");
        seen.push(resident());
        if number > 1 && begun.elapsed() >= time {
            break;
        }
    }
    // Flat: what the first rounds have taken, after the warm-up, is all that the others take, but for how much happens at once on a busy machine.
    let (last, earlier) = seen.split_last().unwrap();
    let most = earlier[1..].iter().take(10).max().unwrap();
    assert!(*last <= most + most / 4 + 16, "{most} MiB have become {last} MiB");
}

#[test]
fn a_hundred_peers_with_a_hundred_streams() {
    isolated(|| {
        let seconds = std::env::var("CLAVIGER_SOAK").ok().map_or(0, |seconds| seconds.parse().unwrap());
        // Why one end closed is in the other's log.
        let log = tracing_subscriber::fmt().with_env_filter("claviger=warn").with_ansi(false);
        log.with_writer(std::io::stderr).init();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(soak(Duration::from_secs(seconds)));
        runtime.shutdown_background();
    });
}
