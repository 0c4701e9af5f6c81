//! Sessions over pipes in memory and TCP.

use super::*;
use crate::identity::{Curve, StaticPublic, Suite};
use crate::noise::{self, Setup, Step};
use crate::secret::NoisePsk;
use crate::transport::Pipe;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
use tokio::time::timeout;

mod full;
mod life;
mod rules;
mod times;

/// Both ends of a handshake: the initiator's first. A resumption's needs no token.
fn established(suite: Suite) -> [Established; 2] {
    let key = StaticPublic::new(Curve::X25519, &[7; 32]).unwrap();
    let psk = NoisePsk::new([9; 32]);
    let setup = || Setup::resumption(Protocol::resumption(Curve::X25519, suite), &key, b"test", &psk);
    let (Step::Send(first), Step::Receive(second)) =
        (noise::initiator(setup()).unwrap(), noise::responder(setup()).unwrap())
    else {
        panic!("not how a handshake begins");
    };
    let Step::Send(answer) = second.received(first.message()).unwrap() else { panic!("no answer") };
    let Step::Receive(receive) = first.sent().unwrap() else { panic!("no answer is waited for") };
    let Step::Finished(initiator) = receive.received(answer.message()).unwrap() else { panic!("not finished") };
    let Step::Finished(responder) = answer.sent().unwrap() else { panic!("not finished") };
    [*initiator, *responder]
}

fn peer(name: &str, is_initiator: bool) -> Peer {
    Peer {
        identifier: name.parse().unwrap(),
        role: name.parse().unwrap(),
        key: KeyPlace::Primary,
        by_former: false,
        as_former: false,
        is_initiator,
        protocol: Protocol::resumption(Curve::X25519, Suite::ChaChaPolyBlake2s),
        kem: None,
        psk: false,
        operations: 0,
        resumed: true,
        token_seen: BootInstant::now(),
    }
}

fn settings() -> Settings {
    Settings::new(&crate::config::Session::default(), None, PeerLimits::new(256, 128 << 20, Arc::default()))
}

/// `wallet`, the initiator, and `cosigner`, by each other's sessions.
async fn pair_on(pipes: [Pipe; 2], change: impl Fn(&mut Settings)) -> [Session; 2] {
    let [initiator, responder] = established(Suite::ChaChaPolyBlake2s);
    let [one, other] = pipes;
    let settings = || {
        let mut settings = settings();
        change(&mut settings);
        settings
    };
    let one = Session::begin(one, peer("cosigner", false), &initiator, settings()).await.unwrap();
    let other = Session::begin(other, peer("wallet", true), &responder, settings()).await.unwrap();
    [one, other]
}

async fn pair() -> [Session; 2] {
    let (one, other) = duplex(1 << 16);
    pair_on([Pipe::joined(one), Pipe::joined(other)], |_| {}).await
}

fn service(name: &str) -> ServiceName {
    name.parse().unwrap()
}

/// A stream and the other end of it.
async fn stream(from: &Session, to: &Session) -> [Stream; 2] {
    let opened = from.open(&service("echo")).await.unwrap();
    let accepted = soon(to.accept()).await.unwrap();
    assert_eq!((opened.id(), opened.service()), (accepted.id(), accepted.service()));
    [opened, accepted]
}

/// Nothing here waits for long.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(30), what).await.expect("in time")
}

fn kind<T: std::fmt::Debug>(result: io::Result<T>) -> ErrorKind {
    error_of(result.unwrap_err()).kind()
}

#[test]
fn a_peer_says_what_its_keys_come_of() {
    let mut peer = peer("wallet", true);
    assert_eq!(peer.to_string(), "resumed, token last seen just now");
    (peer.kem, peer.psk) = (Some(Kem::MlKem768), true);
    assert_eq!(peer.to_string(), "resumed, token last seen just now, ML-KEM-768, pre-shared key");
    (peer.resumed, peer.psk, peer.operations) = (false, false, 1);
    peer.protocol = Protocol { pattern: crate::wire::Pattern::Kk1, kem: peer.kem, ..peer.protocol };
    assert_eq!(peer.to_string(), "Noise_KK1psk2_25519_ChaChaPoly_BLAKE2s, 1 token operation, ML-KEM-768");
}
