//! Sessions over the private Tor network: many peers with many streams, and circuits that are destroyed under them.

use crate::load::{Act, Job, Random, carry};
use crate::net::{LONG, control, network, run, start};
use crate::support::Machine;
use claviger::config::{Pattern, TransportKind};
use claviger::endpoint::{ConnectOptions, ReconnectOptions, Reconnecting, Resume};
use claviger::session::{Stream, error_of};
use claviger::store::Peer;
use claviger::transport::{ServiceState, Transport};
use claviger::{Endpoint, ErrorKind, Session};
use claviger_testkit::tornet::{Network, TorProcess};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

const PEERS: usize = 20;
const STREAMS: usize = 20;

/// The machine's endpoint, on a transport that others use, too.
fn endpoint(machine: &Machine, transport: &Arc<dyn Transport>) -> Endpoint {
    let mut config = machine.config.clone();
    config.handshake.pattern = Pattern::Kk1;
    Endpoint::new(machine.store(), machine.token(), Arc::clone(transport), config).unwrap()
}

/// Machines whose making waits for the disk and for their passphrases.
fn machines(names: Vec<String>) -> Vec<Machine> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = names.iter().map(|name| scope.spawn(move || Machine::software(name))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

async fn open(kind: TransportKind, network: &Network, tor: &TorProcess, dir: &std::path::Path) -> Arc<dyn Transport> {
    match kind {
        TransportKind::Arti => crate::net::arti(network, dir).await,
        _ => crate::net::tor(crate::net::daemon(tor)).await,
    }
}

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim_end_matches(" kB").trim().parse::<usize>().unwrap() >> 10
}

/// All callers with all their streams at once; then all sessions are closed. Bytes carried.
async fn round(callers: &[Endpoint], answerers: &[Endpoint], number: u64) -> u64 {
    let mut listening = Vec::new();
    for answerer in answerers {
        let listens = answerer.listen(&answerer.identity().onion_address, 4747).await.unwrap();
        let mut state = listens.state();
        let reachable = state.wait_for(|state| *state == ServiceState::Reachable);
        timeout(LONG, reachable).await.expect("reachable in time").unwrap();
        listening.push(listens);
    }
    let begun = Instant::now();
    let mut calling = JoinSet::new();
    for (at, caller) in callers.iter().enumerate() {
        let (caller, name) = (caller.clone(), answerers[at % answerers.len()].identity().identifier.clone());
        calling.spawn(async move {
            let options =
                ConnectOptions::DEFAULT.resume(if number.is_multiple_of(2) { Resume::Never } else { Resume::IfBroken });
            let session = caller.connect_peer_with(&name, options).await;
            (caller.identity().identifier.to_string(), session.unwrap_or_else(|error| panic!("{name}: {error}")))
        });
    }
    let mut accepted: HashMap<String, Session> = HashMap::new();
    for at in 0..callers.len() {
        let listening = &mut listening[at % answerers.len()];
        let session = timeout(LONG, listening.accept()).await.expect("they come").unwrap();
        accepted.insert(session.peer().identifier.to_string(), session);
    }
    let mut work = JoinSet::new();
    while let Some(called) = calling.join_next().await {
        let (name, session) = called.unwrap();
        let accepted = accepted.remove(&name).unwrap();
        let mut random = Random(number << 32 | u64::from(session.handshake_hash()[0]) << 8 | 1);
        let mut jobs = || -> Vec<Job> { (0..STREAMS / 2 - 1).map(|_| Job::random(&mut random, 1 << 15)).collect() };
        let (mine, theirs) = (jobs(), jobs());
        work.spawn(async move {
            tokio::join!(carry(&session, mine, STREAMS / 2 - 1), carry(&accepted, theirs, STREAMS / 2 - 1));
            let (closed, also) = tokio::join!(session.close(), accepted.close());
            closed.and(also).unwrap();
            session.status().received + session.status().sent
        });
    }
    println!("{} sessions after {:.1?}", callers.len(), begun.elapsed());
    let mut bytes = 0;
    while let Some(done) = work.join_next().await {
        bytes += done.unwrap();
    }
    bytes
}

/// `CLAVIGER_SOAK`: for so many seconds, instead of once.
#[test]
fn twenty_peers_with_twenty_streams() {
    let seconds = std::env::var("CLAVIGER_SOAK").ok().map_or(0, |seconds| seconds.parse().unwrap());
    let network = network();
    let (host, client) = (start(&network), start(&network));
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let mut all = machines(
            ["cosigner", "tower"]
                .map(String::from)
                .into_iter()
                .chain((0..PEERS).map(|at| format!("wallet-{at}")))
                .collect(),
        );
        let (hosts, wallets) = all.split_at_mut(2);
        for host in hosts.iter_mut() {
            let mut store = host.store();
            for wallet in wallets.iter_mut() {
                store.add_peer(&Peer::from_card(&wallet.card), "test").unwrap();
                wallet.meet(host);
            }
        }
        for machine in hosts.iter_mut().chain(wallets.iter_mut()) {
            machine.config.transport.dial_timeout = LONG;
            machine.config.handshake.timeout = Duration::from_secs(60);
            machine.config.token.timeout = Duration::from_secs(60);
        }
        let kinds = [TransportKind::Arti, TransportKind::Tor];
        let (mut answerers, mut callers) = (Vec::new(), Vec::new());
        for (at, kind) in kinds.into_iter().enumerate() {
            let hosting = open(kind, &network, &host, &dir.path().join("host")).await;
            answerers.push(endpoint(&hosts[at], &hosting));
        }
        let dialling = [
            open(kinds[0], &network, &client, &dir.path().join("client")).await,
            open(kinds[1], &network, &client, &dir.path().join("client")).await,
        ];
        for (at, wallet) in wallets.iter().enumerate() {
            // Each kind calls each kind.
            callers.push(endpoint(wallet, &dialling[at / 2 % 2]));
        }
        let (begun, mut seen) = (Instant::now(), Vec::new());
        for number in 0.. {
            let this = Instant::now();
            let bytes = round(&callers, &answerers, number).await;
            println!(
                "round {number}: {PEERS} × {STREAMS} streams, {} KiB in {:.1?}, {} MiB",
                bytes >> 10,
                this.elapsed(),
                resident()
            );
            seen.push(resident());
            if begun.elapsed() >= Duration::from_secs(seconds) {
                break;
            }
        }
        // arti's own memory among it.
        let (first, last) = (seen[1.min(seen.len() - 1)], seen[seen.len() - 1]);
        assert!(last <= first + 48, "{first} MiB have become {last} MiB");
    });
}

/// Destroys the client's circuits to the service; how many.
fn destroy(client: &TorProcess) -> usize {
    let status = control(client, "GETINFO circuit-status");
    let circuits = status.iter().filter(|line| line.contains("PURPOSE=HS_CLIENT_REND") && line.contains(" BUILT "));
    let ids = circuits.map(|line| line.trim_start_matches("250+circuit-status=").split(' ').next().unwrap());
    ids.map(|id| control(client, &format!("CLOSECIRCUIT {id}")))
        .filter(|answer| answer[0].starts_with("250 OK"))
        .count()
}

/// Serves what `Job`s open, for as long as the session lasts; a stream that breaks does so by a typed error.
async fn serve(session: Session, broken: Arc<AtomicUsize>) {
    while let Ok(stream) = session.accept().await {
        let broken = Arc::clone(&broken);
        tokio::spawn(async move {
            if let Err(error) = echo(stream).await {
                let kind = error_of(error).kind();
                let expected = [ErrorKind::SessionInterrupted, ErrorKind::SessionReplaced, ErrorKind::StreamReset];
                assert!(expected.contains(&kind), "{kind:?}");
                broken.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
}

async fn echo(mut stream: Stream) -> std::io::Result<()> {
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).await?;
    stream.write_all(&heard).await?;
    stream.shutdown().await
}

/// One question, asked again until it is answered: how often it was.
async fn ask(kept: &Reconnecting, job: Job) -> usize {
    for asked in 1.. {
        let stream = kept.open(&"load".parse().unwrap()).await.unwrap_or_else(|error| panic!("{error}"));
        let (mut read, mut write) = tokio::io::split(stream);
        let saying = async {
            job.say(&mut write, job.len).await?;
            write.shutdown().await
        };
        let (said, (n, error)) = tokio::join!(saying, job.hear(&mut read));
        match error {
            None => {
                assert!(said.is_ok() && n == job.len, "{job:?}: {n} bytes pass for all");
                return asked;
            }
            Some(error) => {
                let expected = [ErrorKind::SessionInterrupted, ErrorKind::SessionReplaced, ErrorKind::SessionDraining];
                assert!(expected.contains(&error.kind()), "{error}: {:?}", error.kind());
            }
        }
    }
    unreachable!()
}

#[test]
fn circuits_are_destroyed_under_load() {
    let network = network();
    let (host, client) = (start(&network), start(&network));
    run(async {
        let (mut wallet, mut cosigner) = (Machine::software("wallet"), Machine::software("cosigner"));
        wallet.introduce(&mut cosigner);
        crate::endpoints::through(&mut cosigner, TransportKind::Tor, &network, &host);
        crate::endpoints::through(&mut wallet, TransportKind::Tor, &network, &client);
        for machine in [&mut wallet, &mut cosigner] {
            machine.config.session.keepalive = Duration::from_secs(5);
            machine.config.session.keepalive_timeout = Duration::from_secs(5);
        }
        let (caller, answerer) = (wallet.endpoint(Pattern::Kk).await, cosigner.endpoint(Pattern::Kk).await);
        let mut listening = answerer.listen(&cosigner.card.onion_address, 4747).await.unwrap();
        let mut state = listening.state();
        timeout(LONG, state.wait_for(|state| *state == ServiceState::Reachable)).await.expect("in time").unwrap();
        let (broken, sessions) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (seen, met) = (Arc::clone(&broken), Arc::clone(&sessions));
        let serving = tokio::spawn(async move {
            while let Some(session) = listening.accept().await {
                if met.fetch_add(1, Ordering::SeqCst) > 0 {
                    assert!(session.peer().resumed || session.peer().operations > 0);
                }
                tokio::spawn(serve(session, Arc::clone(&seen)));
            }
        });
        let options = ReconnectOptions::default();
        let kept = caller.reconnecting(&cosigner.card.identifier, options);
        let first = timeout(LONG, kept.session()).await.expect("in time").unwrap();
        assert!(!first.peer().resumed);
        drop(first);
        let spent = [caller.token().operations(), answerer.token().operations()];
        assert_eq!(spent, [2, 2]);

        // Eight that ask without a pause, while three times everything breaks.
        let running = Arc::new(std::sync::atomic::AtomicBool::new(true));
        let mut asking = JoinSet::new();
        for number in 0..8_u64 {
            let (kept, running) = (kept.clone(), Arc::clone(&running));
            asking.spawn(async move {
                let (mut random, mut answered, mut asked) = (Random(number + 1), 0, 0);
                while running.load(Ordering::SeqCst) {
                    let job = Job { act: Act::Echo, len: random.below(200_000), seed: random.below(1 << 31) as u32 };
                    asked += timeout(LONG, ask(&kept, job)).await.expect("an answer");
                    answered += 1;
                }
                (answered, asked)
            });
        }
        for time in 1..=3 {
            sleep(Duration::from_secs(2)).await;
            let before = sessions.load(Ordering::SeqCst);
            let begun = Instant::now();
            let destroyed = tokio::task::block_in_place(|| destroy(&client));
            assert!(destroyed > 0, "no circuit to destroy");
            let resumed = async {
                while sessions.load(Ordering::SeqCst) == before {
                    sleep(Duration::from_millis(10)).await;
                }
            };
            timeout(Duration::from_secs(30), resumed).await.expect("resumed within seconds");
            println!("time {time}: {destroyed} circuits destroyed, resumed after {:.2?}", begun.elapsed());
        }
        sleep(Duration::from_secs(1)).await;
        running.store(false, Ordering::SeqCst);
        let (mut answered, mut asked) = (0, 0);
        while let Some(one) = asking.join_next().await {
            let one = one.unwrap();
            (answered, asked) = (answered + one.0, asked + one.1);
        }
        println!("{answered} answers for {asked} questions, {} streams broke", broken.load(Ordering::SeqCst));
        assert!(asked > answered, "nothing was under way when the circuits went");
        assert!(kept.session().await.unwrap().peer().resumed);
        assert_eq!([caller.token().operations(), answerer.token().operations()], spent, "the token was asked");

        // Its time is over at both ends: the next break costs a handshake, and operations.
        for end in [&caller, &answerer] {
            end.pass(caller.config().session.resume_for + Duration::from_secs(1));
        }
        let destroyed = tokio::task::block_in_place(|| destroy(&client));
        assert!(destroyed > 0);
        let again = async {
            loop {
                if let Ok(session) = kept.session().await
                    && !session.peer().resumed
                {
                    break;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(LONG, again).await.expect("a new session");
        assert_eq!([caller.token().operations(), answerer.token().operations()], spent.map(|spent| spent + 2));
        let job = Job { act: Act::Echo, len: 50_000, seed: 1 };
        timeout(LONG, ask(&kept, job)).await.expect("an answer");
        serving.abort();
    });
}
