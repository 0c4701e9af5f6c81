//! Who finds an onion service, on every pair of transports: peers; not who knows the address; those who are recorded while it is published.

use crate::endpoints::through;
use crate::net::{LONG, network, run, start};
use crate::support::{Machine, pin_file, talk};
use claviger::ErrorKind;
use claviger::config::{ControlAddress, Local, Pattern, TorService, TransportKind};
use claviger::endpoint::Report;
use claviger::transport::{self, ServiceState, Stage, Target};
use claviger_testkit::tornet::TorDaemon;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, sleep, timeout};

const KINDS: [TransportKind; 2] = [TransportKind::Arti, TransportKind::Tor];

/// arti uploads a descriptor no more than once a minute, so that is how long those wait who are recorded just after it was.
#[test]
fn only_peers_find_the_service_by_arti() {
    only_peers_find_the_service(TransportKind::Arti);
}

#[test]
fn only_peers_find_the_service_by_tor() {
    only_peers_find_the_service(TransportKind::Tor);
}

fn only_peers_find_the_service(hosted: TransportKind) {
    let network = network();
    // What a daemon was told for one machine opens descriptors for every program that uses it.
    let (host, client, another) = (start(&network), start(&network), start(&network));
    run(async {
        let mut cosigner = Machine::software("cosigner");
        through(&mut cosigner, hosted, &network, &host);
        let mut wallet = Machine::software("wallet");
        through(&mut wallet, TransportKind::Tor, &network, &client);
        wallet.introduce(&mut cosigner);
        let (answerer, caller) = (cosigner.endpoint(Pattern::Kk).await, wallet.endpoint(Pattern::Kk).await);
        let seen: Arc<Mutex<Vec<Report>>> = Arc::default();
        let reports = Arc::clone(&seen);
        answerer.observe(move |report| reports.lock().unwrap().push(report.clone()));
        let mut listening = answerer.listen(&cosigner.card.onion_address, 4747).await.unwrap();
        let mut state = listening.state();
        let reachable = state.wait_for(|state| *state == ServiceState::Reachable);
        timeout(LONG, reachable).await.expect("reachable in time").unwrap();
        let name = cosigner.card.identifier.clone();
        let (session, accepted) = tokio::join!(caller.connect_peer(&name, None), listening.accept());
        let (session, accepted) = (session.unwrap(), accepted.unwrap());

        // Know the address, and everything else that is on the card.
        let mut late = KINDS.map(|kind| Machine::software(&format!("late-{}", kind.as_str())));
        let mut callers = Vec::new();
        for (machine, dialled) in late.iter_mut().zip(KINDS) {
            through(machine, dialled, &network, &another);
            machine.meet(&cosigner);
            let caller = machine.endpoint(Pattern::Kk).await;
            let error = caller.connect_peer(&name, None).await.map(drop).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::OnionAuth, "{} to {}: {error:?}", dialled.as_str(), hosted.as_str());
            println!("{error} {}", error.hint());
            callers.push(caller);
        }

        // Are recorded while the service is published.
        for machine in &late {
            cosigner.meet(machine);
        }
        let begin = Instant::now();
        for (caller, dialled) in callers.iter().zip(KINDS) {
            let found = async {
                loop {
                    match caller.connect_peer(&name, None).await {
                        Ok(session) => break session,
                        Err(error) => assert_eq!(error.kind(), ErrorKind::OnionAuth, "{error:?}"),
                    }
                    sleep(Duration::from_millis(500)).await;
                }
            };
            let _session = timeout(LONG, found).await.expect("found in time");
            println!("{} finds {} after {:.1?}", dialled.as_str(), hosted.as_str(), begin.elapsed());
        }
        // Nobody was thrown out for it.
        talk(&session, &accepted).await;
        let reports = seen.lock().unwrap();
        // A circuit may break before its caller has knocked.
        let broken = [None, Some(ErrorKind::PacketInvalid)];
        assert!(reports.iter().all(|report| broken.contains(&report.failure)), "{reports:?}");
    });
}

/// Whoever has a peer's client authorization and not its key is a stranger, too: dropped after its knock.
#[test]
fn finding_the_service_opens_nothing() {
    let network = network();
    let host = start(&network);
    run(async {
        let mut cosigner = Machine::software("cosigner");
        through(&mut cosigner, TransportKind::Tor, &network, &host);
        let mut wallet = Machine::software("wallet");
        through(&mut wallet, TransportKind::Arti, &network, &host);
        wallet.introduce(&mut cosigner);
        let answerer = cosigner.endpoint(Pattern::Kk).await;
        let _listening = answerer.listen(&cosigner.card.onion_address, 4747).await.unwrap();
        let before = answerer.token().operations();
        let transport = transport::open(&wallet.config, Path::new(wallet.dir.path())).await.unwrap();
        let target = Target {
            onion: Some(cosigner.card.onion_address),
            port: 4747,
            tcp: None,
            isolation: "stranger".into(),
            client: Some(Arc::new(wallet.store().client_auth_secret().unwrap())),
        };
        let mut pipe = transport.dial(&target, Instant::now() + LONG).await.unwrap();
        let mut knock = vec![1; 2 + 74];
        knock[..2].copy_from_slice(&74u16.to_be_bytes());
        pipe.write_all(&knock).await.unwrap();
        pipe.flush().await.unwrap();
        let mut answer = Vec::new();
        let ended = timeout(LONG, pipe.read_to_end(&mut answer)).await.expect("dropped in time");
        println!("{ended:?}");
        assert!(answer.is_empty());
        assert_eq!(answerer.token().operations(), before);
    });
}

/// Through circuits of its own, dropped as a stranger and counted as none; and told when tor is gone.
#[test]
fn the_own_service_is_probed_from_outside() {
    let network = network();
    let mut host = start(&network);
    run(async {
        for kind in KINDS {
            let mut machine = Machine::software("cosigner");
            through(&mut machine, kind, &network, &host);
            machine.config.transport.dial_timeout = Duration::from_secs(60);
            let endpoint = machine.endpoint(Pattern::Kk).await;
            let seen: Arc<Mutex<Vec<Report>>> = Arc::default();
            let reports = Arc::clone(&seen);
            endpoint.observe(move |report| reports.lock().unwrap().push(report.clone()));
            let mut progress = endpoint.progress();
            let listening = endpoint.listen(&machine.card.onion_address, 4747).await.unwrap();
            let mut state = listening.state();
            let reachable = state.wait_for(|state| *state == ServiceState::Reachable);
            timeout(LONG, reachable).await.expect("reachable in time").unwrap();
            let ready = progress.wait_for(|progress| progress.stage == Stage::Ready && progress.percent == 100);
            timeout(LONG, ready).await.expect("ready in time").unwrap();
            for _ in 0..2 {
                let took = endpoint.probe().await.unwrap().expect("there is an outside");
                println!("{}: probed in {took:.1?}", kind.as_str());
            }
            let reports = seen.lock().unwrap().clone();
            let broken = |report: &Report| report.failure == Some(ErrorKind::PacketInvalid);
            assert!(reports.iter().all(broken), "{reports:?}");
            assert_eq!(endpoint.token().operations(), 0);
            if kind == TransportKind::Tor {
                host.kill();
                let gone = progress.wait_for(|progress| progress.stage == Stage::Unavailable);
                let gone = timeout(Duration::from_secs(5), gone).await.expect("told at once").unwrap().clone();
                let blocked = gone.blocked.unwrap();
                println!("{} {}", blocked.what, blocked.hint);
                assert!(blocked.hint.contains("systemctl start tor"), "{}", blocked.hint);
                assert!(endpoint.probe().await.is_err());
                // Its data are gone, too: guards, descriptors, the state.
                for entry in std::fs::read_dir(host.dir()).unwrap() {
                    let path = entry.unwrap().path();
                    match path.file_name().and_then(|name| name.to_str()) {
                        _ if path.is_dir() => std::fs::remove_dir_all(path).unwrap(),
                        Some("torrc" | "notice.log") => {}
                        _ => std::fs::remove_file(path).unwrap(),
                    }
                }
                tokio::task::block_in_place(|| host.restart()).unwrap();
                let back = state.wait_for(|state| *state == ServiceState::Reachable);
                timeout(LONG, back).await.expect("published again").unwrap();
                let ready = progress.wait_for(|progress| progress.stage == Stage::Ready);
                timeout(LONG, ready).await.expect("ready in time").unwrap();
            } else {
                // What arti has on disk goes while it runs.
                std::fs::remove_dir_all(machine.dir.path().join("arti")).unwrap();
            }
            println!("{}: probed again in {:.1?}", kind.as_str(), endpoint.probe().await.unwrap());
        }
    });
}

/// Runs the program on a machine's store with these lines of a configuration; what it writes to stdout.
fn program(machine: &mut Machine, more: &str, arguments: &[&str]) -> String {
    let store = machine.configure(&format!("{}\n{more}", pin_file(machine)));
    let mut command = std::process::Command::new("setsid");
    command.args(["--wait", env!("CARGO_BIN_EXE_claviger")]).args(arguments).arg("--store").arg(store);
    let output = command.stdin(std::process::Stdio::null()).output().unwrap();
    println!("{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// Both ends by a tor that takes no orders: the service by the files of a `HiddenServiceDir`, dialled by those of a `ClientOnionAuthDir`.
#[test]
fn tor_without_a_control_port() {
    let network = network();
    let dir = tempfile::tempdir().unwrap();
    let (mut cosigner, mut wallet) = (Machine::software("cosigner"), Machine::software("wallet"));
    wallet.introduce(&mut cosigner);
    let socket = dir.path().join("onion.sock");
    let torrc = format!("[transport.tor]\nservice = \"torrc\"\nlisten = \"unix:{}\"", socket.display());
    let service = dir.path().join("service");
    let lines = program(&mut cosigner, &torrc, &["onion", "service", service.to_str().unwrap()]);
    println!("{lines}");
    let daemon = |more| TorDaemon { control: false, more, ..TorDaemon::default() };
    let _host = network.start_tor(&daemon(lines)).unwrap();
    let auth = dir.path().join("auth");
    let lines = program(&mut wallet, "", &["onion", "client-auth", auth.to_str().unwrap()]);
    let (client, stranger) =
        (network.start_tor(&daemon(lines)).unwrap(), network.start_tor(&daemon(String::new())).unwrap());
    run(async {
        for machine in [&mut cosigner, &mut wallet] {
            machine.config.transport.kind = TransportKind::Tor;
            machine.config.transport.dial_timeout = LONG;
            machine.config.transport.tor.control = ControlAddress::None;
        }
        cosigner.config.transport.tor.service = TorService::Torrc;
        cosigner.config.transport.tor.listen = Some(Local::Unix(socket.clone()));
        let answerer = cosigner.endpoint(Pattern::Kk).await;
        let address = cosigner.card.onion_address;
        let mut listening = answerer.listen(&address, 4747).await.unwrap();
        assert_eq!(*listening.state().borrow(), ServiceState::Reachable);

        let name = cosigner.card.identifier.clone();
        wallet.config.transport.tor.socks = client.socks_addr().unwrap();
        let caller = wallet.endpoint(Pattern::Kk).await;
        let meeting = async { tokio::join!(caller.connect_peer(&name, None), listening.accept()) };
        let (session, accepted) = timeout(LONG, meeting).await.expect("in time");
        talk(&session.unwrap(), &accepted.unwrap()).await;
        let error = caller.listen(&wallet.card.onion_address, 4747).await.err().unwrap();
        println!("{error} {}", error.hint());
        assert_eq!(error.kind(), ErrorKind::ConfigInvalid);

        wallet.config.transport.tor.socks = stranger.socks_addr().unwrap();
        let error = wallet.endpoint(Pattern::Kk).await.connect_peer(&name, None).await.err().unwrap();
        println!("{error} {}", error.hint());
        assert_eq!(error.kind(), ErrorKind::OnionAuth);
        assert!(error.hint().contains("claviger onion client-auth"), "{}", error.hint());
    });
}

/// Neither arti nor tor touches the network but by the bridge, which is spoken to in obfs4: without it the connection is gone.
#[test]
fn bridges() {
    const PLUGIN: &str = "/usr/bin/obfs4proxy";
    let network = network();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let relay = format!(
        "ORPort 127.0.0.1:auto IPv4Only\nAddress 127.0.0.1\nBridgeRelay 1\nPublishServerDescriptor 0\nAssumeReachable 1\nExitPolicy reject *:*\nNumCPUs 1\n\
         ExtORPort auto\nServerTransportPlugin obfs4 exec {PLUGIN}\nServerTransportListenAddr obfs4 {free}\n"
    );
    let relay = TorDaemon { socks: false, control: false, more: relay, ..TorDaemon::default() };
    let (mut bridge, host) = (network.start_tor(&relay).unwrap(), start(&network));
    let log = bridge.log();
    let address =
        log.lines().find_map(|line| line.split_once("Registered server transport 'obfs4' at '")?.1.split_once('\''));
    let (address, _) = address.unwrap_or_else(|| panic!("no obfs4: {log}"));
    let read = |file: &str| std::fs::read_to_string(bridge.dir().join(file)).unwrap();
    let (fingerprint, form) = (read("fingerprint"), read("pt_state/obfs4_bridgeline.txt"));
    let certificate = form.split_once(" cert=").unwrap().1.trim_end();
    let line = format!("obfs4 {address} {} cert={certificate}", fingerprint.split_whitespace().nth(1).unwrap());
    let more = format!("UseBridges 1\nBridge {line}\nClientTransportPlugin obfs4 exec {PLUGIN}\n");
    let tor = network.start_tor(&TorDaemon { more, ..TorDaemon::default() }).unwrap();
    run(async {
        let mut cosigner = Machine::software("cosigner");
        through(&mut cosigner, TransportKind::Tor, &network, &host);
        let name = cosigner.card.identifier.clone();
        let mut wallets = KINDS.map(|kind| Machine::software(&format!("wallet-{}", kind.as_str())));
        for (wallet, kind) in wallets.iter_mut().zip(KINDS) {
            through(wallet, kind, &network, &tor);
            wallet.introduce(&mut cosigner);
            let file = wallet.dir.path().join("arti.toml");
            let text = std::fs::read_to_string(network.arti_config()).unwrap();
            let bridges = format!("[bridges]\nenabled = true\nbridges = [\"{line}\"]\n");
            let plugin = format!("[[bridges.transports]]\nprotocols = [\"obfs4\"]\npath = \"{PLUGIN}\"\n");
            std::fs::write(&file, format!("{text}\n{bridges}{plugin}")).unwrap();
            wallet.config.transport.arti.config = Some(file);
        }
        let answerer = cosigner.endpoint(Pattern::Kk).await;
        let mut listening = answerer.listen(&cosigner.card.onion_address, 4747).await.unwrap();
        let mut sessions = Vec::new();
        for wallet in &mut wallets {
            let caller = wallet.endpoint(Pattern::Kk).await;
            let begin = Instant::now();
            let meeting = async { tokio::join!(caller.connect_peer(&name, None), listening.accept()) };
            let (session, accepted) = timeout(LONG, meeting).await.expect("in time");
            let (session, accepted) = (session.unwrap(), accepted.unwrap());
            talk(&session, &accepted).await;
            println!("{} by a bridge in {:.1?}", caller.transport_name(), begin.elapsed());
            sessions.push((caller, session, accepted));
        }
        bridge.kill();
        for (_, session, _) in &sessions {
            timeout(LONG, session.ended()).await.expect("broken with the bridge");
        }
    });
}

/// On both transports, where they can; where not it is refused and not left out.
#[test]
fn proof_of_work() {
    let network = network();
    let host = start(&network);
    run(async {
        for kind in KINDS {
            let mut machine = Machine::software("cosigner");
            through(&mut machine, kind, &network, &host);
            machine.config.onion.proof_of_work = true;
            if kind == TransportKind::Arti && cfg!(not(feature = "pow")) {
                let error = transport::open(&machine.config, Path::new(machine.dir.path())).await.err().unwrap();
                println!("{error} {}", error.hint());
                assert_eq!(error.kind(), ErrorKind::ConfigInvalid);
                continue;
            }
            let endpoint = machine.endpoint(Pattern::Kk).await;
            let listening = endpoint.listen(&machine.card.onion_address, 4747).await.unwrap();
            let mut state = listening.state();
            let reachable = state.wait_for(|state| *state == ServiceState::Reachable);
            timeout(LONG, reachable).await.expect("reachable in time").unwrap();
            println!("{}: probed in {:.1?}", kind.as_str(), endpoint.probe().await.unwrap());
        }
    });
}
