//! Who breaks connections, keeps packets back, or knows public keys and proves nothing: what it gets, and what it keeps others from.

use crate::lab::{ANY, Lab, SOON, Wire, listen, name};
use crate::support::{Machine, now, run, talk};
use claviger::ErrorKind;
use claviger::ceremony::succession::Succession;
use claviger::config::Pattern;
use claviger::endpoint::Resume;
use claviger::identity::{Curve, Kem, KeyPlace, Suite};
use claviger::noise::{self, Protocol, Setup, Step, knock};
use claviger::wire::{self, Ends, Pattern as WirePattern, frame};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// Both present cards offer ML-KEM-768, and who cuts one connection must not get a session without it.
#[test]
fn kem_is_not_cut_away_in_an_overlap() {
    run(async {
        let mut vault = Machine::software("vault");
        let mut told = Machine::hybrid("told", None, Curve::X25519, "ChaChaPoly_BLAKE2s");
        vault.introduce(&mut told);
        let (former, until) = (vault.card.clone(), now() + 3600);
        vault.rotate_to(Some(Kem::MlKem768), until);
        let succession = Succession::new(&former, KeyPlace::Primary, vault.card.clone(), until);
        told.store().succeed_card(&succession, "test").unwrap();
        let endpoint = vault.endpoint(Pattern::Kk).await;
        let mut listening = listen(&endpoint).await;
        let wire = Wire::between(&mut told, &vault).await;
        let caller = told.endpoint(Pattern::Kk).await;
        let options = ANY.resume(Resume::Never);
        for reached_before in [false, true] {
            // One that was stripped as long as nothing better was seen to work does not stay so.
            if reached_before {
                let peer = name("vault");
                let (session, _accepted) = tokio::join!(caller.connect_peer_with(&peer, options), listening.accept());
                assert_eq!(session.unwrap().peer().protocol.kem, Some(Kem::MlKem768));
            }
            wire.hold(1);
            let peer = name("vault");
            let meeting = async {
                tokio::join!(
                    caller.connect_peer_with(&peer, options),
                    timeout(Duration::from_secs(3), listening.accept())
                )
            };
            let (session, _accepted) = timeout(SOON, meeting).await.unwrap();
            let kem = session.as_ref().map_or(Some(Kem::MlKem768), |session| session.peer().protocol.kem);
            if reached_before {
                assert_eq!(kem, Some(Kem::MlKem768), "it was stripped");
            }
        }
    });
}

/// XK's first message in wallet's name, by whoever knows both public keys.
fn forged(wallet: &Machine, cosigner: &Machine) -> Vec<u8> {
    let protocol = Protocol {
        pattern: WirePattern::Xk,
        kem: None,
        psk: false,
        curve: Curve::X25519,
        suite: Suite::ChaChaPolyBlake2s,
    };
    let ends = Ends {
        initiator: &wallet.card.identifier,
        initiator_role: &wallet.card.role,
        responder: &cosigner.card.identifier,
        responder_role: &cosigner.card.role,
        onion_address: &cosigner.card.onion_address,
        port: 4747,
    };
    let prologue = wire::prologue(protocol.kind(), &ends);
    let setup = Setup::new(protocol, &wallet.card.static_public, &cosigner.card.static_public, &prologue);
    let Step::Send(send) = noise::initiator(setup).unwrap() else { panic!() };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let key = knock::key(&wallet.card.static_public, &cosigner.card.static_public);
    frame(&knock::packet(&key, protocol.kind(), now, send.message())).unwrap()
}

async fn knock_on(cosigner: &Machine, knock: &[u8]) -> TcpStream {
    let mut pipe = TcpStream::connect(cosigner.address()).await.unwrap();
    pipe.write_all(knock).await.unwrap();
    pipe
}

/// Two such callers, who then say nothing more, must not keep the named peer's from the token.
#[test]
fn a_turn_is_not_held_by_who_is_silent() {
    run(async {
        let (mut wallet, mut cosigner) = (Machine::software("wallet"), Machine::software("cosigner"));
        wallet.config.handshake.timeout = Duration::from_secs(3);
        cosigner.config.handshake.timeout = Duration::from_secs(3);
        let mut lab = Lab::with(wallet, cosigner, Pattern::Kk).await;
        let knock = forged(&lab.wallet, &lab.cosigner);
        let mut first = knock_on(&lab.cosigner, &knock).await;
        assert_eq!(first.read_u16().await.unwrap(), 48, "it is answered: it authenticates");
        let second = knock_on(&lab.cosigner, &forged(&lab.wallet, &lab.cosigner)).await;
        sleep(Duration::from_millis(300)).await;
        let peer = name("cosigner");
        let meeting = async {
            tokio::join!(lab.caller.connect_peer(&peer, None), timeout(Duration::from_secs(4), lab.listening.accept()))
        };
        let (session, _accepted) = timeout(SOON, meeting).await.unwrap();
        drop((first, second));
        session.unwrap();
    });
}

/// Eight of them must not keep a session from being resumed, which asks nothing of the token.
#[test]
fn silent_callers_do_not_keep_a_session_from_being_resumed() {
    run(async {
        let mut lab = Lab::new(Pattern::Kk).await;
        lab.broken().await;
        let mut silent = Vec::new();
        for _ in 0..8 {
            silent.push(knock_on(&lab.cosigner, &forged(&lab.wallet, &lab.cosigner)).await);
        }
        sleep(Duration::from_millis(300)).await;
        let (session, _) = lab.meet(ANY.resume(Resume::Only)).await;
        assert!(session.peer().resumed);
    });
}

/// Nor take the places of other peers' sessions.
#[test]
fn who_has_proved_nothing_takes_no_place() {
    run(async {
        let (mut cosigner, mut tower) = (Machine::software("cosigner"), Machine::software("tower"));
        cosigner.config.limits.sessions = 8;
        cosigner.introduce(&mut tower);
        let lab = Lab::with(Machine::software("wallet"), cosigner, Pattern::Kk1).await;
        let towers = tower.endpoint(Pattern::Kk1).await;
        let mut silent = Vec::new();
        for _ in 0..8 {
            silent.push(knock_on(&lab.cosigner, &forged(&lab.wallet, &lab.cosigner)).await);
        }
        sleep(Duration::from_millis(300)).await;
        assert_eq!(lab.answerer.sessions().len(), 0);
        towers.connect_peer(&name("cosigner"), None).await.unwrap();
    });
}

/// The age of a session goes on by the clock that counts suspended time.
#[test]
fn a_session_comes_to_its_age_in_suspend() {
    run(async {
        let (mut wallet, mut cosigner) = (Machine::software("wallet"), Machine::software("cosigner"));
        for machine in [&mut wallet, &mut cosigner] {
            machine.config.session.keepalive = Duration::from_secs(1);
        }
        let mut lab = Lab::with(wallet, cosigner, Pattern::Kk1).await;
        let sessions = lab.meet(ANY).await;
        talk(&sessions.0, &sessions.1).await;
        lab.answerer.pass(Duration::from_secs(86_400));
        let ended = timeout(Duration::from_secs(5), sessions.0.ended()).await.expect("it ends");
        assert_eq!(ended.kind(), ErrorKind::SessionAged);
    });
}

/// A resumption that was held back and comes later, when its caller has gone on by a full handshake.
#[test]
fn a_resumption_that_was_held_back_is_no_session() {
    run(async {
        let mut lab = Lab::new(Pattern::Kk1).await;
        lab.broken().await;
        lab.wire.hold(1);
        let live = lab.meet(ANY).await;
        assert!(!live.0.peer().resumed);
        let held = {
            let knocks = lab.wire.carried.knocks.lock().unwrap();
            knocks[knocks.len() - 2].clone()
        };
        let _attacker = knock_on(&lab.cosigner, &held).await;
        let phantom = timeout(Duration::from_secs(2), lab.listening.accept()).await;
        assert!(phantom.is_err(), "a session with nobody: {:?}", phantom.unwrap().unwrap().peer());
        talk(&live.0, &live.1).await;
        assert_eq!(lab.answerer.sessions().len(), 1);
        // Nor has it done anything to what the present session leaves.
        lab.breaks(live).await;
        assert!(lab.meet(ANY.resume(Resume::Only)).await.0.peer().resumed);
        assert_eq!(lab.spent(), [2, 2]);
    });
}

/// One that was to take the place of a session, with as many as there may be: that goes on, and is resumed by the next link when it breaks.
#[test]
fn a_resumption_that_was_held_back_ends_no_session() {
    run(async {
        let mut cosigner = Machine::software("cosigner");
        (cosigner.config.limits.sessions, cosigner.config.limits.sessions_per_peer) = (1, 1);
        let mut lab = Lab::with(Machine::software("wallet"), cosigner, Pattern::Kk1).await;
        let live = lab.meet(ANY).await;
        let only = ANY.resume(Resume::Only);
        for _ in 0..3 {
            lab.wire.hold(1);
            assert_eq!(lab.refused(only).await, ErrorKind::HandshakeRefused);
            let held = lab.wire.carried.knocks.lock().unwrap().last().unwrap().clone();
            let mut attacker = knock_on(&lab.cosigner, &held).await;
            assert_eq!(attacker.read_u16().await.unwrap(), 48, "it is answered: it authenticates");
            talk(&live.0, &live.1).await;
            drop(attacker);
            // And once more.
            let mut attacker = knock_on(&lab.cosigner, &held).await;
            assert_eq!(attacker.read(&mut [0; 1]).await.unwrap(), 0, "it is not answered");
            talk(&live.0, &live.1).await;
            assert_eq!(lab.answerer.sessions().len(), 1);
        }
        lab.breaks(live).await;
        let sessions = lab.meet(only).await;
        assert!(sessions.0.peer().resumed);
        talk(&sessions.0, &sessions.1).await;
        assert_eq!(lab.spent(), [1, 1]);
    });
}

/// Each session leaves a chain; what a lost answer leaves must not push out the one by which it is tried again.
#[test]
fn a_lost_answer_with_one_session_a_peer() {
    run(async {
        let mut cosigner = Machine::software("cosigner");
        cosigner.config.limits.sessions_per_peer = 1;
        let mut lab = Lab::with(Machine::software("wallet"), cosigner, Pattern::Kk1).await;
        lab.broken().await;
        lab.wire.lose(1);
        let only = ANY.resume(Resume::Only);
        assert_eq!(lab.refused(only).await, ErrorKind::HandshakeRefused);
        lab.meet(only).await;
    });
}
