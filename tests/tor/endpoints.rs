//! Whole conversations over the private Tor network: token, knock, handshake and session, on every pair of transports.

use crate::net::{LONG, daemon, network, run, start};
use crate::support::{Machine, talk};
use claviger::config::{Arti, Pattern, TransportKind};
use claviger::transport::ServiceState;
use claviger_testkit::tornet::{Network, TorProcess};
use tokio::time::{Instant, timeout};

pub(crate) const PATTERNS: [(Pattern, u64); 3] = [(Pattern::Kk, 2), (Pattern::Kk1, 1), (Pattern::Xk, 1)];
const KINDS: [TransportKind; 2] = [TransportKind::Arti, TransportKind::Tor];

/// Has the machine use the network by arti, or by a daemon.
pub(crate) fn through(machine: &mut Machine, kind: TransportKind, network: &Network, tor: &TorProcess) {
    machine.config.transport.kind = kind;
    machine.config.transport.dial_timeout = LONG;
    machine.config.transport.arti = Arti { config: Some(network.arti_config()), state: None };
    machine.config.transport.tor = daemon(tor);
}

#[test]
fn every_pattern_on_every_pair_of_transports() {
    let network = network();
    let (host, client) = (start(&network), start(&network));
    run(async {
        for hosted in KINDS {
            let mut cosigner = Machine::software("cosigner");
            through(&mut cosigner, hosted, &network, &host);
            for dialled in KINDS {
                // A wallet each: arti's directory belongs to one process, and each should build its own circuits.
                let mut wallet = Machine::software(&format!("wallet-{}", dialled.as_str()));
                through(&mut wallet, dialled, &network, &client);
                wallet.introduce(&mut cosigner);
                let answerer = cosigner.endpoint(Pattern::Kk).await;
                let caller = wallet.endpoint(Pattern::Kk).await;
                let address = cosigner.card.onion_address;
                let mut listening = answerer.listen(&address, 4747).await.unwrap();
                for (pattern, operations) in PATTERNS {
                    let before = [caller.token().operations(), answerer.token().operations()];
                    let begin = Instant::now();
                    let conversation = async {
                        let name = &cosigner.card.identifier;
                        let calling = caller.connect_peer(name, Some(pattern.into()));
                        let (session, accepted) = tokio::join!(calling, listening.accept());
                        let (session, accepted) = (session.unwrap(), accepted.unwrap());
                        assert_eq!(session.handshake_hash(), accepted.handshake_hash());
                        assert_eq!(accepted.peer().identifier, wallet.card.identifier);
                        talk(&session, &accepted).await;
                    };
                    timeout(LONG, conversation).await.expect("in time");
                    let after = [caller.token().operations(), answerer.token().operations()];
                    assert_eq!([after[0] - before[0], after[1] - before[1]], [operations; 2], "{pattern:?}");
                    let (from, to) = (dialled.as_str(), hosted.as_str());
                    println!("{from} to {to}: {} in {:.2?}", pattern.as_str(), begin.elapsed());
                }
                cosigner.store().remove_peer(&wallet.card.identifier).unwrap();
            }
        }
    });
}

/// tor is killed and started again under a listener: it is reached at the same address, and sessions that broke say so.
#[test]
fn a_listener_survives_its_tor() {
    let network = network();
    let (mut host, client) = (start(&network), start(&network));
    run(async {
        let (mut wallet, mut cosigner) = (Machine::software("wallet"), Machine::software("cosigner"));
        wallet.introduce(&mut cosigner);
        through(&mut cosigner, TransportKind::Tor, &network, &host);
        through(&mut wallet, TransportKind::Tor, &network, &client);
        let (caller, answerer) = (wallet.endpoint(Pattern::Xk).await, cosigner.endpoint(Pattern::Kk).await);
        let mut listening = answerer.listen(&cosigner.card.onion_address, 4747).await.unwrap();
        let mut state = listening.state();
        let name = cosigner.card.identifier.clone();
        let (session, accepted) = tokio::join!(caller.connect_peer(&name, None), listening.accept());
        talk(&session.unwrap(), &accepted.unwrap()).await;

        host.kill();
        let interrupted = |state: &ServiceState| matches!(state, ServiceState::Interrupted(_));
        timeout(LONG, state.wait_for(interrupted)).await.expect("noticed").unwrap();
        host.restart().unwrap();
        let reachable = |state: &ServiceState| *state == ServiceState::Reachable;
        timeout(LONG, state.wait_for(reachable)).await.expect("published again").unwrap();
        let begin = Instant::now();
        let (session, accepted) = tokio::join!(caller.connect_peer(&name, None), listening.accept());
        talk(&session.unwrap(), &accepted.unwrap()).await;
        println!("reached again after {:.2?}", begin.elapsed());
    });
}
