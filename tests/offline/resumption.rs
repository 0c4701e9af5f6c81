//! Sessions that broke are resumed without the token, for a while.

use crate::support::{Machine, run, talk};
use claviger::config::Pattern;
use claviger::endpoint::{ConnectOptions, Listening, Resume};
use claviger::identity::{Curve, Identifier};
use claviger::{Endpoint, ErrorKind, Session};
use std::time::Duration;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(15);

fn name(text: &str) -> Identifier {
    text.parse().unwrap()
}

async fn listen(endpoint: &Endpoint) -> Listening {
    endpoint.listen(&endpoint.identity().onion_address, 4747).await.unwrap()
}

/// Connects; the caller's and the listener's session.
async fn meet(caller: &Endpoint, listening: &mut Listening, options: ConnectOptions) -> (Session, Session) {
    let peer = name("cosigner");
    let meeting = async { tokio::join!(caller.connect_peer_with(&peer, &options), listening.accept()) };
    let (session, accepted) = timeout(SOON, meeting).await.expect("they meet");
    (session.unwrap(), accepted.unwrap())
}

/// Token operations of both.
/// Ends a session, and waits until neither end takes it for one any more.
async fn part(session: &Session, accepted: &Session) {
    let _ = timeout(SOON, async { tokio::join!(session.close(), accepted.close()) }).await.expect("they part");
}

fn operations(ends: [&Endpoint; 2]) -> [u64; 2] {
    ends.map(|end| end.token().operations())
}

#[test]
fn a_broken_session_is_resumed_without_the_token() {
    run(async {
        for (curve, suite, pattern) in [
            (Curve::X25519, "ChaChaPoly_BLAKE2s", Pattern::Kk),
            (Curve::P256, "AESGCM_SHA256", Pattern::Kk1),
            (Curve::X25519, "AESGCM_SHA256", Pattern::Xk),
        ] {
            let mut wallet = Machine::new("wallet", None, curve, suite);
            let mut cosigner = Machine::new("cosigner", None, curve, suite);
            wallet.introduce(&mut cosigner);
            let (caller, answerer) = (wallet.endpoint(pattern).await, cosigner.endpoint(pattern).await);
            let mut listening = listen(&answerer).await;
            let (session, accepted) = meet(&caller, &mut listening, ConnectOptions::default()).await;
            assert!(!session.peer().resumed && !accepted.peer().resumed);
            let spent = operations([&caller, &answerer]);
            let mut hash = *session.handshake_hash();
            part(&session, &accepted).await;
            for _ in 0..3 {
                let (session, accepted) = meet(&caller, &mut listening, ConnectOptions::default()).await;
                assert!(session.peer().resumed && accepted.peer().resumed);
                assert!(session.peer().to_string().starts_with("resumed, token last seen "), "{}", session.peer());
                assert_eq!((session.peer().operations, accepted.peer().operations), (0, 0));
                assert_eq!(session.handshake_hash(), accepted.handshake_hash());
                assert_ne!(std::mem::replace(&mut hash, *session.handshake_hash()), *session.handshake_hash());
                talk(&session, &accepted).await;
                part(&session, &accepted).await;
            }
            assert_eq!(operations([&caller, &answerer]), spent);
            let (session, _) = meet(&caller, &mut listening, ConnectOptions::default().resume(Resume::Never)).await;
            assert!(!session.peer().resumed);
            assert!(operations([&caller, &answerer]) > spent);
        }
    });
}

#[test]
fn the_time_is_never_extended() {
    run(async {
        let (mut wallet, mut cosigner) = (Machine::software("wallet"), Machine::software("cosigner"));
        wallet.introduce(&mut cosigner);
        let (caller, answerer) = (wallet.endpoint(Pattern::Kk1).await, cosigner.endpoint(Pattern::Kk1).await);
        let mut listening = listen(&answerer).await;
        let (session, accepted) = meet(&caller, &mut listening, ConnectOptions::default()).await;
        part(&session, &accepted).await;
        // Fifteen minutes, by default.
        for minutes in [7, 7] {
            for end in [&caller, &answerer] {
                end.pass(Duration::from_secs(60 * minutes));
            }
            let (session, accepted) = meet(&caller, &mut listening, ConnectOptions::default()).await;
            assert!(session.peer().resumed);
            part(&session, &accepted).await;
        }
        assert_eq!(operations([&caller, &answerer]), [1, 1]);
        // Each end counts by itself: the caller would still, the other does not.
        answerer.pass(Duration::from_secs(60));
        let refused =
            caller.connect_peer_with(&name("cosigner"), &ConnectOptions::default().resume(Resume::Only)).await;
        assert_eq!(refused.err().unwrap().kind(), ErrorKind::HandshakeRefused);
        assert_eq!(operations([&caller, &answerer]), [1, 1]);
        let (session, _) = meet(&caller, &mut listening, ConnectOptions::default()).await;
        assert!(!session.peer().resumed);
        assert_eq!(operations([&caller, &answerer]), [2, 2]);
    });
}
