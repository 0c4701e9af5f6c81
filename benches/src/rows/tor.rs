//! Over a private Tor network on this machine: a session, and a bare onion stream by the same transport in the same run.

use crate::link::{self, BoxStream};
use crate::measure::median;
use crate::report::{Report, Rounds, Target};
use crate::tls::Cipher;
use crate::{Options, Result, machines};
use claviger::Endpoint;
use claviger::config::{self, ControlAddress, TransportKind};
use claviger::identity::Kem;
use claviger::transport::{self, Listener, Service, ServiceState, Target as Place, Transport};
use claviger_testkit::tornet::{Network, TorDaemon, TorProcess};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

/// No step takes longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long the circuit is left alone after a stream: what ends it would delay the next.
const SETTLE: Duration = Duration::from_millis(300);

/// Echoes on each stream.
const ECHOES: u64 = 6;

const PORT: u16 = 4747;

/// Both ends' transports.
struct Transports {
    hosting: (config::Transport, Arc<dyn Transport>),
    dialling: (config::Transport, Arc<dyn Transport>),
}

async fn open(
    kind: TransportKind,
    network: &Network,
    tor: &TorProcess,
    dir: &Path,
) -> Result<(config::Transport, Arc<dyn Transport>)> {
    let mut whole = machines::config();
    let config = &mut whole.transport;
    config.kind = kind;
    config.arti = config::Arti { config: Some(network.arti_config()), state: Some(dir.join("arti")) };
    config.tor.socks = tor.socks_addr().ok_or("no SOCKS port")?;
    config.tor.control = ControlAddress::Tcp(tor.control_addr().ok_or("no control port")?);
    config.tor.cookie_file = tor.cookie_path().ok_or("no cookie")?.to_owned();
    let transport = transport::open(&whole, dir).await?;
    Ok((whole.transport, transport))
}

async fn reachable(mut state: tokio::sync::watch::Receiver<ServiceState>) -> Result<()> {
    timeout(PATIENCE, state.wait_for(|state| *state == ServiceState::Reachable)).await??;
    Ok(())
}

/// Takes in what comes by one onion address: bare streams or sessions, as `next` says, so that both use the same circuit.
async fn answer(mut listener: Box<dyn Listener>, endpoint: Endpoint, next: Arc<AtomicBool>) -> Result<()> {
    let incoming = endpoint.incoming(PORT)?;
    loop {
        let pipe = listener.accept().await?;
        if next.load(Ordering::SeqCst) {
            tokio::spawn(link::answer(Box::new(pipe)));
        } else {
            let (endpoint, incoming) = (endpoint.clone(), incoming.clone());
            tokio::spawn(async move {
                let session = endpoint.handshake_respond(pipe, &incoming, None).await?;
                link::take_all(session, link::answer);
                Ok::<_, crate::Error>(())
            });
        }
    }
}

async fn measure(transports: Transports, dir: &Path, options: &Options, report: &mut Report) -> Result<()> {
    let Transports { hosting, dialling } = transports;
    let name = hosting.1.name();
    let end = |name: &str, (transport, handle): &(config::Transport, Arc<dyn Transport>)| {
        let config = config::Config { transport: transport.clone(), ..machines::config() };
        machines::open_with(&dir.join(name), config, Arc::clone(handle))
    };
    let (listening, dialler) = (end(machines::LISTENER, &hosting)?, end(machines::DIALLER, &dialling)?);
    let address = listening.identity().onion_address;
    let onion = machines::onion_secret(&dir.join(machines::LISTENER))?;
    let listener = hosting.1.listen(Service { onion, address, port: PORT, audience: transport::everyone() }).await?;
    reachable(listener.status()).await?;
    let next_is_bare = Arc::new(AtomicBool::new(true));
    tokio::spawn(answer(listener, listening, Arc::clone(&next_is_bare)));
    let place =
        Place { onion: Some(address), port: PORT, tcp: None, isolation: machines::LISTENER.into(), client: None };
    let dial_bare = async || {
        next_is_bare.store(true, Ordering::SeqCst);
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let stream: BoxStream = Box::new(dialling.1.dial(&place, deadline).await?);
        Ok::<_, crate::Error>(stream)
    };
    let peer = machines::LISTENER.parse()?;
    let dial_session = async || {
        next_is_bare.store(false, Ordering::SeqCst);
        Ok::<_, crate::Error>(timeout(PATIENCE, dialler.connect_peer(&peer, None)).await??)
    };

    // Time to ready, on the same circuit: it is built in the first round, which is not counted. A round trip is the first of a stream, of about
    // the length of a hybrid handshake's messages: tor delays what is longer than a cell until the stream has warmed up.
    let milliseconds = |start: Instant| start.elapsed().as_secs_f64() * 1e3;
    let (mut ready, mut round_trips) = (vec![Vec::new(); 3], vec![Vec::new(); 4]);
    for round in 0..=options.rounds(15, 4) {
        options.progress("tor", &format!("{name}, ready, round {round}"));
        let start = Instant::now();
        let mut stream = dial_bare().await?;
        let to_bare = milliseconds(start);
        let bare_times = timeout(PATIENCE, link::echo(&mut stream, ECHOES)).await??;
        drop(stream);
        sleep(SETTLE).await;
        let start = Instant::now();
        let session = dial_session().await?;
        let to_session = milliseconds(start);
        let mut stream = link::stream_of(&session).await?;
        let session_times = timeout(PATIENCE, link::echo(&mut stream, ECHOES)).await??;
        drop((stream, session));
        sleep(SETTLE).await;
        if round == 0 {
            continue;
        }
        let times = |times: &[Duration]| times.iter().map(|time| time.as_secs_f64() * 1e3).collect::<Vec<f64>>();
        let (bare_times, session_times) = (times(&bare_times), times(&session_times));
        ready[0].push(to_session);
        ready[1].push(to_bare);
        ready[2].push(to_bare + bare_times[0]);
        for (at, times) in [session_times, bare_times].iter().enumerate() {
            round_trips[at].push(times[0]);
            round_trips[2 + at].push(median(&times[1..]));
        }
    }
    let case = format!("{name}, ready");
    let names = ["claviger", "bare onion stream", "and a round trip"].map(String::from);
    report.note("tor", &case, "ms", &names, &ready);
    report.note("tor", &format!("{name}, first echo of 1 KiB"), "ms", &names[..2], &round_trips[..2]);
    report.note("tor", &format!("{name}, later ones"), "ms", &names[..2], &round_trips[2..]);
    let theirs = Rounds { name: "bare and a round trip", values: &ready[2] };
    report.compare("tor", &case, "ms", &ready[0], &theirs, Some(Target::RatioBelow(1.0)));

    let bytes: u64 = if options.quick { 2 << 20 } else { 12 << 20 };
    let mut ends = [link::stream_of(&dial_session().await?).await?, dial_bare().await?];
    let mut rates = vec![Vec::new(); 2];
    for round in 0..=options.rounds(9, 3) {
        options.progress("tor", &format!("{name}, throughput, round {round}"));
        for step in 0..2 {
            let at = (round + step) % 2;
            let start = Instant::now();
            timeout(PATIENCE, link::send(&mut ends[at], bytes)).await??;
            if round > 0 {
                rates[at].push(bytes as f64 / start.elapsed().as_secs_f64() / 1e6);
            }
        }
    }
    let case = format!("{name}, throughput");
    report.note("tor", &case, "MB/s", &names[..2], &rates);
    let theirs = Rounds { name: &names[1], values: &rates[1] };
    report.compare("tor", &case, "MB/s", &rates[0], &theirs, Some(Target::Ratio(0.95)));
    Ok(())
}

pub(super) fn run(options: &Options, report: &mut Report) -> Result<()> {
    options.progress("tor", "starting a network of four relays, and two daemons");
    let network = Network::start(&claviger_testkit::tornet::Options::default())?;
    let (host, client) = (network.start_tor(&TorDaemon::default())?, network.start_tor(&TorDaemon::default())?);
    for kind in [TransportKind::Tor, TransportKind::Arti] {
        options.progress("tor", kind.as_str());
        let dir = tempfile::tempdir()?;
        machines::make(dir.path(), Cipher::ChaCha.suite(), Some(Kem::MlKem768))?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let done = runtime.block_on(async {
            let [hosting, dialling] = ["hosting", "dialling"].map(|end| dir.path().join(end));
            let transports = Transports {
                hosting: open(kind, &network, &host, &hosting).await?,
                dialling: open(kind, &network, &client, &dialling).await?,
            };
            measure(transports, dir.path(), options, report).await
        });
        // arti's tasks write to its directory until they end.
        runtime.shutdown_timeout(Duration::from_secs(5));
        if let Err(error) = done {
            report.skipped.push((format!("tor, {}", kind.as_str()), error.to_string()));
        }
    }
    Ok(())
}
