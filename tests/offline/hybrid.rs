//! ML-KEM-768 and the pre-shared key between whole endpoints: used exactly when both ends expect them, and impossible to take away on the wire.

use crate::support::{Machine, now, run, talk};
use claviger::ceremony::succession::Succession;
use claviger::config::Pattern;
use claviger::endpoint::{ConnectOptions, Connection, Resume, WATCH};
use claviger::identity::{Curve, Kem, KeyPlace};
use claviger::secret::PresharedKey;
use claviger::session::Session;
use claviger::transport::Pipe;
use claviger::{Endpoint, ErrorKind, Result};
use claviger_testkit::token::{PIN, SO_PIN, SoftHsm, isolated};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

const PATTERNS: [(Pattern, u64); 3] = [(Pattern::Kk, 2), (Pattern::Kk1, 1), (Pattern::Xk, 1)];

fn hybrid(name: &str) -> Machine {
    Machine::hybrid(name, None, Curve::X25519, "ChaChaPoly_BLAKE2s")
}

/// Records the other machine as it would be with a card that offers `kem`.
fn record(machine: &Machine, other: &Machine, kem: Option<Kem>) {
    let peer = claviger::store::Peer { kem, ..claviger::store::Peer::from_card(&other.card) };
    machine.store().add_peer(&peer, "test").unwrap();
}

/// A handshake on a pipe in memory, and what came of it at each end.
async fn meet(caller: &Endpoint, answerer: &Endpoint, to: &Machine) -> [Result<Session>; 2] {
    let (near, far) = duplex(64 * 1024);
    let incoming = answerer.incoming(4747).unwrap();
    let connection = Connection::new(Pipe::joined(near), to.card.onion_address, 4747);
    let calling = caller.handshake_initiate(connection, &to.card.static_public);
    let answering = answerer.handshake_respond(Pipe::joined(far), &incoming, None);
    let (called, answered) = tokio::join!(calling, answering);
    [called, answered]
}

/// Both ends' reasons, and the operations that the answering token was asked for.
async fn refusal(mut wallet: Machine, mut cosigner: Machine, pattern: Pattern) -> (ErrorKind, claviger::Error, u64) {
    let (caller, answerer) = (wallet.endpoint(pattern).await, cosigner.endpoint(pattern).await);
    let [called, answered] = meet(&caller, &answerer, &cosigner).await;
    let called = called.err().unwrap();
    assert!(called.hint().contains("KEM or pre-shared key"), "{}", called.hint());
    (called.kind(), answered.err().unwrap(), answerer.token().operations())
}

async fn every_pattern(mut wallet: Machine, mut cosigner: Machine) {
    wallet.introduce(&mut cosigner);
    let (caller, answerer) = (wallet.endpoint(Pattern::Kk).await, cosigner.endpoint(Pattern::Kk).await);
    let mut listening = answerer.listen(&cosigner.card.onion_address, 4747).await.unwrap();
    for (pattern, operations) in PATTERNS {
        let before = [caller.token().operations(), answerer.token().operations()];
        let (session, accepted) =
            tokio::join!(caller.connect_peer(&cosigner.card.identifier, Some(pattern.into())), listening.accept());
        let (session, accepted) = (session.unwrap(), accepted.unwrap());
        let after = [caller.token().operations(), answerer.token().operations()];
        assert_eq!([after[0] - before[0], after[1] - before[1]], [operations; 2], "token operations of {pattern:?}");
        for protocol in [session.peer().protocol, accepted.peer().protocol] {
            assert_eq!((protocol.kem, protocol.psk), (Some(Kem::MlKem768), false));
            assert!(protocol.name().contains("psk"), "{}", protocol.name());
        }
        for peer in [session.peer(), accepted.peer()] {
            assert_eq!((peer.kem, peer.psk), (Some(Kem::MlKem768), false));
            assert!(peer.to_string().ends_with(", ML-KEM-768"), "{peer}");
        }
        assert_eq!(session.handshake_hash(), accepted.handshake_hash());
        talk(&session, &accepted).await;
    }
}

#[test]
fn both_cards_offer_it() {
    isolated(|| {
        let hsm = SoftHsm::new();
        let tokens = [hsm.init_token("wallet", SO_PIN, PIN), hsm.init_token("cosigner", SO_PIN, PIN)];
        for (curve, suites) in [(Curve::X25519, "ChaChaPoly_BLAKE2s"), (Curve::P256, "AESGCM_SHA256")] {
            let at = |token: usize| Some(tokens[token].uri(&curve.to_string()));
            let wallet = Machine::hybrid("wallet", at(0), curve, suites);
            run(every_pattern(wallet, Machine::hybrid("cosigner", at(1), curve, suites)));
        }
    });
}

/// Without both offers there is nothing to expect.
#[test]
fn one_card_offers_it() {
    run(async {
        let pairs =
            [(hybrid("wallet"), Machine::software("cosigner")), (Machine::software("wallet"), hybrid("cosigner"))];
        for (mut wallet, mut cosigner) in pairs {
            wallet.introduce(&mut cosigner);
            let (caller, answerer) = (wallet.endpoint(Pattern::Kk).await, cosigner.endpoint(Pattern::Kk).await);
            for session in meet(&caller, &answerer, &cosigner).await {
                assert_eq!(session.unwrap().peer().protocol.kem, None);
            }
        }
    });
}

/// A member whose card offers it and whose handshake does not, and the other way round: refused before the token is asked.
#[test]
fn an_offer_that_is_not_kept() {
    run(async {
        for (pattern, _) in PATTERNS {
            let (wallet, cosigner) = (hybrid("wallet"), hybrid("cosigner"));
            record(&wallet, &cosigner, None);
            record(&cosigner, &wallet, wallet.card.kem);
            let (called, answered, operations) = refusal(wallet, cosigner, pattern).await;
            assert_eq!((called, answered.kind()), (ErrorKind::HandshakeRefused, ErrorKind::KemMismatch));
            assert_eq!(
                answered.to_string(),
                "`wallet` called without ML-KEM-768, which its card and this machine's offer."
            );
            assert!(answered.hint().contains("`wallet` has an older card"), "{}", answered.hint());
            assert_eq!(operations, 0);

            let (wallet, cosigner) = (hybrid("wallet"), hybrid("cosigner"));
            record(&wallet, &cosigner, cosigner.card.kem);
            record(&cosigner, &wallet, None);
            let (called, answered, operations) = refusal(wallet, cosigner, pattern).await;
            assert_eq!((called, answered.kind()), (ErrorKind::HandshakeRefused, ErrorKind::KemMismatch));
            assert!(answered.hint().contains("Import the present card of `wallet` here"), "{}", answered.hint());
            assert_eq!(operations, 0);
        }
    });
}

/// Who sits between two machines can not make the first packet ask for less: its MAC covers the kind, and so does the prologue.
#[test]
fn stripped_on_the_wire() {
    run(async {
        let (mut wallet, mut cosigner) = (hybrid("wallet"), hybrid("cosigner"));
        wallet.introduce(&mut cosigner);
        cosigner.config.handshake.timeout = Duration::from_secs(2);
        let (caller, answerer) = (wallet.endpoint(Pattern::Kk).await, cosigner.endpoint(Pattern::Kk).await);
        // With the length of what is asked for then, and with its own.
        for len in [26 + 48, 26 + 48 + 1184] {
            let (near, mut middle) = duplex(64 * 1024);
            let (mut onward, far) = duplex(64 * 1024);
            let between = async {
                let mut packet = vec![0; usize::from(middle.read_u16().await.unwrap())];
                middle.read_exact(&mut packet).await.unwrap();
                assert_eq!(packet[..2], [2, 0x11]);
                packet[1] = 0x01;
                packet.truncate(len);
                onward.write_all(&claviger::wire::frame(&packet).unwrap()).await.unwrap();
                let mut answer = Vec::new();
                let _ = onward.read_to_end(&mut answer).await;
                assert!(answer.is_empty());
                drop(middle);
            };
            let incoming = answerer.incoming(4747).unwrap();
            let connection = Connection::new(Pipe::joined(near), cosigner.card.onion_address, 4747);
            let calling = caller.handshake_initiate(connection, &cosigner.card.static_public);
            let answering = answerer.handshake_respond(Pipe::joined(far), &incoming, None);
            let (called, answered, ()) = tokio::join!(calling, answering, between);
            let answered = answered.err().unwrap().kind();
            let expected = if len == 26 + 48 { ErrorKind::KnockUnknown } else { ErrorKind::PacketInvalid };
            assert_eq!((called.err().unwrap().kind(), answered), (ErrorKind::HandshakeRefused, expected));
        }
        assert_eq!(answerer.token().operations(), 0);
    });
}

/// A machine whose next card offers it is, to who knows only the former one, who it was before: without.
#[test]
fn a_rotation_that_brings_the_offer() {
    run(async {
        let mut vault = Machine::software("vault");
        let (mut told, mut untold) = (hybrid("told"), hybrid("untold"));
        vault.introduce(&mut told);
        vault.introduce(&mut untold);
        let (former, until) = (vault.card.clone(), now() + 3600);
        vault.rotate_to(Some(Kem::MlKem768), until);
        let succession = Succession::new(&former, KeyPlace::Primary, vault.card.clone(), until);
        told.store().succeed_card(&succession, "test").unwrap();

        let endpoint = vault.endpoint(Pattern::Kk).await;
        let mut listening = endpoint.listen(&vault.card.onion_address, 4747).await.unwrap();
        for (mut machine, kem) in [(told, Some(Kem::MlKem768)), (untold, None)] {
            let other = machine.endpoint(Pattern::Kk).await;
            let mut there = other.listen(&machine.card.onion_address, 4747).await.unwrap();
            let (session, accepted) =
                tokio::join!(other.connect_peer(&vault.card.identifier, None), listening.accept());
            let as_former = kem.is_none();
            let (session, accepted) = (session.unwrap(), accepted.unwrap());
            assert_eq!((accepted.peer().as_former, accepted.peer().protocol.kem), (as_former, kem));
            assert_eq!(session.peer().protocol.kem, kem);
            // And the other way round: the first way that is tried may be refused.
            let (session, accepted) =
                tokio::join!(endpoint.connect_peer(&machine.card.identifier, None), there.accept());
            let (session, accepted) = (session.unwrap(), accepted.unwrap());
            assert_eq!((session.peer().as_former, session.peer().protocol.kem), (as_former, kem));
            assert_eq!(accepted.peer().protocol.kem, kem);
        }
    });
}

/// A pre-shared key for `peer` in the machine's store: 32 times `byte`.
fn share(machine: &Machine, peer: &Machine, byte: u8) {
    let key = PresharedKey::new([byte; 32]);
    machine.store().set_preshared_key(&peer.card.identifier, &key, "test").unwrap();
}

/// With ML-KEM-768 and without, by every pattern; and it is found while the endpoints run.
#[test]
fn a_preshared_key() {
    run(async {
        for kem in [None, Some(Kem::MlKem768)] {
            let machine = |name| if kem.is_some() { hybrid(name) } else { Machine::software(name) };
            let (mut wallet, mut cosigner) = (machine("wallet"), machine("cosigner"));
            wallet.introduce(&mut cosigner);
            let (caller, answerer) = (wallet.endpoint(Pattern::Kk).await, cosigner.endpoint(Pattern::Kk).await);
            let mut listening = answerer.listen(&cosigner.card.onion_address, 4747).await.unwrap();
            share(&wallet, &cosigner, 1);
            share(&cosigner, &wallet, 1);
            tokio::time::sleep(WATCH * 3).await;
            for (pattern, operations) in PATTERNS {
                let options =
                    ConnectOptions::default().pattern(claviger::wire::Pattern::from(pattern)).resume(Resume::Never);
                let calling = caller.connect_peer_with(&cosigner.card.identifier, options);
                let (session, accepted) = tokio::join!(calling, listening.accept());
                let (session, accepted) = (session.unwrap(), accepted.unwrap());
                for peer in [session.peer(), accepted.peer()] {
                    assert_eq!((peer.protocol.kem, peer.protocol.psk), (kem, true));
                    assert_eq!(u64::from(peer.operations), operations);
                }
                talk(&session, &accepted).await;
            }
        }
    });
}

/// What a session left stands on the key that was mixed in, and goes with it: also when another one is in its place at once.
#[test]
fn a_preshared_key_that_is_exchanged() {
    run(async {
        let (mut wallet, mut cosigner) = (hybrid("wallet"), hybrid("cosigner"));
        wallet.introduce(&mut cosigner);
        share(&wallet, &cosigner, 1);
        share(&cosigner, &wallet, 1);
        let (caller, answerer) = (wallet.endpoint(Pattern::Kk).await, cosigner.endpoint(Pattern::Kk).await);
        let mut listening = answerer.listen(&cosigner.card.onion_address, 4747).await.unwrap();
        let only = ConnectOptions::default().resume(Resume::Only);
        let peer = &cosigner.card.identifier;
        // They are kept: a session that was closed leaves nothing to resume.
        let _first = tokio::join!(caller.connect_peer(peer, None), listening.accept());
        let (session, accepted) = tokio::join!(caller.connect_peer_with(peer, only), listening.accept());
        let (session, accepted) = (session.unwrap(), accepted.unwrap());
        for peer in [session.peer(), accepted.peer()] {
            assert!(peer.resumed);
            assert_eq!((peer.kem, peer.psk), (Some(Kem::MlKem768), true), "its keys come of the first handshake's");
            assert!(peer.to_string().ends_with(", ML-KEM-768, pre-shared key"), "{peer}");
        }
        for (machine, other) in [(&wallet, &cosigner), (&cosigner, &wallet)] {
            // In one look of the endpoint's, or in two: either way it is over.
            machine.store().remove_preshared_key(&other.card.identifier).unwrap();
            share(machine, other, 2);
        }
        tokio::time::sleep(WATCH * 3).await;
        let error = caller.connect_peer_with(peer, only).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::ResumptionRefused);
        let (session, accepted) = tokio::join!(caller.connect_peer(peer, None), listening.accept());
        assert!(session.unwrap().peer().protocol.psk && !accepted.unwrap().peer().resumed);
    });
}

#[test]
fn preshared_keys_that_differ() {
    run(async {
        for (pattern, _) in PATTERNS {
            let (mut wallet, mut cosigner) = (hybrid("wallet"), hybrid("cosigner"));
            wallet.introduce(&mut cosigner);
            share(&wallet, &cosigner, 1);
            share(&cosigner, &wallet, 2);
            let (caller, answerer) = (wallet.endpoint(pattern).await, cosigner.endpoint(pattern).await);
            let [called, answered] = meet(&caller, &answerer, &cosigner).await;
            // With XK it is the responder who reads the message that it is mixed into. Its caller has a session with nobody.
            let failed = if pattern == Pattern::Xk { answered.err().unwrap() } else { called.err().unwrap() };
            assert_eq!(failed.kind(), ErrorKind::HandshakeFailed, "{pattern:?}");
            assert!(failed.hint().contains("`claviger-ceremony psk record`"), "{}", failed.hint());
        }
    });
}

/// One end has one: refused before the token is asked, with what to do at which end.
#[test]
fn a_preshared_key_at_one_end() {
    run(async {
        for (pattern, _) in PATTERNS {
            let (mut wallet, mut cosigner) = (hybrid("wallet"), hybrid("cosigner"));
            wallet.introduce(&mut cosigner);
            share(&wallet, &cosigner, 1);
            let (called, answered, operations) = refusal(wallet, cosigner, pattern).await;
            assert_eq!((called, answered.kind()), (ErrorKind::HandshakeRefused, ErrorKind::PresharedKeyMismatch));
            assert!(answered.hint().contains("claviger-ceremony psk record wallet FILE"), "{}", answered.hint());
            assert_eq!(operations, 0);

            let (mut wallet, mut cosigner) = (hybrid("wallet"), hybrid("cosigner"));
            wallet.introduce(&mut cosigner);
            share(&cosigner, &wallet, 1);
            let (called, answered, operations) = refusal(wallet, cosigner, pattern).await;
            assert_eq!((called, answered.kind()), (ErrorKind::HandshakeRefused, ErrorKind::PresharedKeyMismatch));
            assert!(answered.hint().contains("claviger-ceremony psk record cosigner FILE"), "{}", answered.hint());
            assert_eq!(operations, 0);
        }
    });
}
