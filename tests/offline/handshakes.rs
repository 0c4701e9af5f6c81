//! All of {KK, KK1, XK} × {X25519, P-256} × {SoftHSM, kryoptic, software}, both ends on tokens, with the token operations counted.

use crate::support::{Machine, run, stream, talk};
use claviger::ErrorKind;
use claviger::config::Pattern;
use claviger::endpoint::WATCH;
use claviger::identity::{Curve, Suite};
use claviger::session::error_of;
use claviger_testkit::token::{Kryoptic, PIN, SO_PIN, SoftHsm, isolated};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PATTERNS: [(Pattern, u64); 3] = [(Pattern::Kk, 2), (Pattern::Kk1, 1), (Pattern::Xk, 1)];

async fn every_pattern(mut wallet: Machine, mut cosigner: Machine, suite: Suite) {
    wallet.introduce(&mut cosigner);
    let (caller, answerer) = (wallet.endpoint(Pattern::Kk).await, cosigner.endpoint(Pattern::Kk).await);
    let mut listening = answerer.listen(&cosigner.card.onion_address, 4747).await.unwrap();
    for (pattern, operations) in PATTERNS {
        let before = [caller.token().operations(), answerer.token().operations()];
        let (session, accepted) =
            tokio::join!(caller.connect_peer(&cosigner.card.identifier, Some(pattern.into())), listening.accept());
        let (session, accepted) = (session.unwrap(), accepted.unwrap());
        let after = [caller.token().operations(), answerer.token().operations()];
        let spent = [after[0] - before[0], after[1] - before[1]];
        assert_eq!(spent, [operations; 2], "token operations of {pattern:?}");
        assert_eq!(u64::from(session.peer().operations), operations);
        assert_eq!(session.peer().protocol.suite, suite);
        assert_eq!(session.handshake_hash(), accepted.handshake_hash());
        assert_eq!(session.peer().identifier, cosigner.card.identifier);
        assert_eq!(accepted.peer().identifier, wallet.card.identifier);
        assert_eq!(accepted.peer().role, wallet.card.role);
        assert!(accepted.peer().is_initiator && !session.peer().is_initiator);
        talk(&session, &accepted).await;
    }
}

/// Both curves; the default suite on one, AES-GCM on the other, so that both are seen on every backend.
fn on(locators: impl Fn(&str) -> [Option<String>; 2]) {
    for (curve, suites, suite) in [
        (Curve::X25519, "ChaChaPoly_BLAKE2s", Suite::ChaChaPolyBlake2s),
        (Curve::P256, "AESGCM_SHA256 ChaChaPoly_BLAKE2s", Suite::AesGcmSha256),
    ] {
        let [first, second] = locators(&curve.to_string());
        let wallet = Machine::new("wallet", first, curve, suites);
        let cosigner = Machine::new("cosigner", second, curve, suites);
        run(every_pattern(wallet, cosigner, suite));
    }
}

#[test]
fn softhsm() {
    isolated(|| {
        let hsm = SoftHsm::new();
        let tokens = [hsm.init_token("wallet", SO_PIN, PIN), hsm.init_token("cosigner", SO_PIN, PIN)];
        on(|object| [Some(tokens[0].uri(object)), Some(tokens[1].uri(object))]);
    });
}

#[test]
fn kryoptic() {
    isolated(|| {
        let hsm = Kryoptic::new();
        let tokens = [hsm.init_token("wallet", SO_PIN, PIN), hsm.init_token("cosigner", SO_PIN, PIN)];
        on(|object| [Some(tokens[0].uri(object)), Some(tokens[1].uri(object))]);
    });
}

#[test]
fn software() {
    on(|_| [None, None]);
}

/// The seed's calls, one after the other: connect, then handshake_initiate; listen answers.
#[test]
fn step_by_step() {
    run(async {
        let (mut wallet, mut cosigner) = (Machine::software("wallet"), Machine::software("cosigner"));
        wallet.introduce(&mut cosigner);
        let (caller, answerer) = (wallet.endpoint(Pattern::Xk).await, cosigner.endpoint(Pattern::Kk).await);
        let address = cosigner.card.onion_address;
        let mut listening = answerer.listen(&address, 4747).await.unwrap();
        let connection = caller.connect(&address, 4747).await.unwrap();
        let key = cosigner.card.static_public.clone();
        let (session, accepted) = tokio::join!(caller.handshake_initiate(connection, &key), listening.accept());
        talk(&session.unwrap(), &accepted.unwrap()).await;

        let other = answerer.listen(&wallet.card.onion_address, 4747).await.err().unwrap();
        assert_eq!(other.kind(), ErrorKind::AddressRefused);
    });
}

/// What the two ends must agree on, and what happens when they do not: nothing is said, no operation is spent by the responder.
#[test]
fn disagreements() {
    run(async {
        let (mut wallet, mut cosigner) = (Machine::software("wallet"), Machine::software("cosigner"));
        wallet.introduce(&mut cosigner);
        let (caller, answerer) = (wallet.endpoint(Pattern::Kk).await, cosigner.endpoint(Pattern::Kk).await);
        let address = cosigner.card.onion_address;
        let _listening = answerer.listen(&address, 4747).await.unwrap();

        // Another port is another prologue: the knock fits, the handshake does not.
        for pattern in [Pattern::Kk, Pattern::Kk1, Pattern::Xk] {
            let mut config = wallet.config.clone();
            config.transport.port = 4748;
            config.handshake.pattern = pattern;
            let transport = claviger::transport::open(&config, wallet.dir.path()).await.unwrap();
            let mistaken = claviger::Endpoint::new(wallet.store(), wallet.token(), transport, config).unwrap();
            let outcome = mistaken.connect_peer(&cosigner.card.identifier, None).await;
            let error = outcome.err().unwrap();
            let expected = match pattern {
                // KK1's first message is not encrypted, so it is the caller who finds out.
                Pattern::Kk1 => ErrorKind::HandshakeFailed,
                _ => ErrorKind::HandshakeRefused,
            };
            assert_eq!(error.kind(), expected, "{pattern:?}");
        }

        // A peer that was removed while the listener runs is soon a stranger.
        cosigner.store().remove_peer(&wallet.card.identifier).unwrap();
        tokio::time::sleep(WATCH * 3).await;
        let spent = answerer.token().operations();
        let error = caller.connect_peer(&cosigner.card.identifier, None).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::HandshakeRefused);
        assert_eq!(answerer.token().operations(), spent);

        // Recorded again through the library, it is let in again.
        let input = answerer.ceremony_input(wallet.card.static_public.clone(), wallet.card.identifier.clone());
        input.role(wallet.card.role.clone()).record().unwrap();
        tokio::time::sleep(WATCH * 3).await;
        assert!(caller.connect_peer(&cosigner.card.identifier, None).await.is_ok());

        let nobody = caller.connect_peer(&"nobody".parse().unwrap(), None).await.err().unwrap();
        assert_eq!(nobody.kind(), ErrorKind::PeerUnknown);
    });
}

/// A pattern that the listener does not allow costs it nothing.
#[test]
fn a_pattern_that_is_not_allowed() {
    run(async {
        let (mut wallet, mut cosigner) = (Machine::software("wallet"), Machine::software("cosigner"));
        wallet.introduce(&mut cosigner);
        cosigner.config.handshake.allow = vec![Pattern::Xk];
        let (caller, answerer) = (wallet.endpoint(Pattern::Kk).await, cosigner.endpoint(Pattern::Kk).await);
        let mut listening = answerer.listen(&cosigner.card.onion_address, 4747).await.unwrap();
        assert!(caller.connect_peer(&cosigner.card.identifier, None).await.is_err());
        assert_eq!(answerer.token().operations(), 0);
        let xk = caller.connect_peer(&cosigner.card.identifier, Some(Pattern::Xk.into()));
        let (session, accepted) = tokio::join!(xk, listening.accept());
        assert!(session.is_ok() && accepted.is_some());
    });
}

/// A stream that is dropped before its end says so; it is not the end of what was said.
#[test]
fn a_stream_that_is_given_up_is_no_end() {
    run(async {
        let (mut wallet, mut cosigner) = (Machine::software("wallet"), Machine::software("cosigner"));
        wallet.introduce(&mut cosigner);
        let (caller, answerer) = (wallet.endpoint(Pattern::Kk).await, cosigner.endpoint(Pattern::Kk).await);
        let mut listening = answerer.listen(&cosigner.card.onion_address, 4747).await.unwrap();
        let (session, accepted) =
            tokio::join!(caller.connect_peer(&cosigner.card.identifier, None), listening.accept());
        let (session, accepted) = (session.unwrap(), accepted.unwrap());
        let (mut said, mut hearing) = stream(&session, &accepted).await;
        said.write_all(b"half of it").await.unwrap();
        // The session is closed in the background.
        drop((said, session));
        let mut heard = Vec::new();
        let error = error_of(hearing.read_to_end(&mut heard).await.unwrap_err());
        assert_eq!((error.kind(), &heard[..]), (ErrorKind::StreamReset, &b"half of it"[..]));
        assert_eq!(accepted.ended().await.kind(), ErrorKind::SessionClosed);
    });
}
