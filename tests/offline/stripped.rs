//! Somebody who knows the public keys of two machines, and so can make the MAC of a knock, between them: each byte of key encapsulation and kind changed.

use crate::hostile::{now_ms, read_frame};
use crate::support::{Machine, run};
use claviger::config::Pattern;
use claviger::endpoint::{Connection, Incoming};
use claviger::identity::Curve;
use claviger::noise::knock;
use claviger::transport::Pipe;
use claviger::wire::{Kind, KnockPacket, Pattern as WirePattern, frame};
use claviger::{Endpoint, ErrorKind};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

const EK: usize = 1184;
const CT: usize = 1088;

/// How many of `len` places are tried: all of them, if `CLAVIGER_SOAK` is set.
fn places(len: usize) -> impl Iterator<Item = usize> {
    let step = if std::env::var_os("CLAVIGER_SOAK").is_some() { 1 } else { 97 };
    (0..len).step_by(step).chain([len - 1])
}

struct Pair {
    wallet: Machine,
    cosigner: Machine,
    caller: Endpoint,
    answerer: Endpoint,
    incoming: Incoming,
}

impl Pair {
    async fn new(pattern: Pattern) -> Self {
        let machine = |name| Machine::hybrid(name, None, Curve::X25519, "ChaChaPoly_BLAKE2s");
        let (mut wallet, mut cosigner) = (machine("wallet"), machine("cosigner"));
        wallet.introduce(&mut cosigner);
        for machine in [&mut wallet, &mut cosigner] {
            machine.config.limits.per_peer = 1000;
            machine.config.handshake.timeout = Duration::from_secs(5);
        }
        let (caller, answerer) = (wallet.endpoint(pattern).await, cosigner.endpoint(pattern).await);
        let incoming = answerer.incoming(4747).unwrap();
        Self { wallet, cosigner, caller, answerer, incoming }
    }

    /// The knock, made anew around a message, for a kind.
    fn knock(&self, kind: u8, message: &[u8]) -> Vec<u8> {
        let key = knock::key(&self.wallet.card.static_public, &self.cosigner.card.static_public);
        match Kind::from_byte(kind) {
            Ok(kind) => knock::packet(&key, kind, now_ms(), message),
            Err(_) => {
                let mut packet = knock::packet(&key, WirePattern::Kk.into(), now_ms(), message);
                packet[1] = kind;
                packet
            }
        }
    }

    /// A handshake whose first and second frames go through `out` and `back`; how it fails at either end.
    async fn between(
        &self,
        out: impl FnOnce(Vec<u8>) -> Vec<u8>,
        back: impl FnOnce(Vec<u8>) -> Vec<u8>,
    ) -> [Option<ErrorKind>; 2] {
        let (near, mut middle) = duplex(64 * 1024);
        let (mut onward, far) = duplex(64 * 1024);
        let connection = Connection::new(Pipe::joined(near), self.cosigner.card.onion_address, 4747);
        let calling = async {
            let called = self.caller.handshake_initiate(connection, &self.cosigner.card.static_public).await;
            // XK's caller has all it needs before it is answered for the last time: the session tells it.
            match called {
                Ok(session) => {
                    let ended = tokio::time::timeout(Duration::from_secs(2), session.ended()).await;
                    ended.ok().map(|error| error.kind())
                }
                Err(error) => Some(error.kind()),
            }
        };
        let answering = async {
            let answered = self.answerer.handshake_respond(Pipe::joined(far), &self.incoming, None).await;
            answered.err().map(|error| error.kind())
        };
        let relaying = async {
            let first = read_frame(&mut middle).await.unwrap();
            onward.write_all(&frame(&out(first)).unwrap()).await.unwrap();
            if let Ok(second) = read_frame(&mut onward).await {
                let _ = middle.write_all(&frame(&back(second)).unwrap()).await;
                let _ = tokio::io::copy_bidirectional(&mut middle, &mut onward).await;
            }
            drop((middle, onward));
        };
        let (called, answered, ()) = tokio::join!(calling, answering, relaying);
        [called, answered]
    }
}

fn flipped(mut bytes: Vec<u8>, at: usize) -> Vec<u8> {
    bytes[at] ^= 1 << (at % 8);
    bytes
}

#[test]
fn every_byte_of_the_encapsulation() {
    run(async {
        for pattern in [Pattern::Kk, Pattern::Kk1, Pattern::Xk] {
            let pair = Pair::new(pattern).await;
            let kind = Kind { pattern: pattern.into(), kem: true, psk: false }.byte();
            let len = KnockPacket::HEADER + 32 + EK + 16;
            let before = pair.answerer.token().operations();
            for at in places(len) {
                // As it is, and with a MAC that fits.
                if at != 1 {
                    let [called, answered] = pair.between(|first| flipped(first, at), |second| second).await;
                    assert_eq!(called, Some(ErrorKind::HandshakeRefused), "{pattern:?} byte {at}");
                    assert!(
                        matches!(answered, Some(ErrorKind::KnockUnknown | ErrorKind::VersionUnsupported)),
                        "{pattern:?} byte {at}: {answered:?}"
                    );
                }
            }
            assert_eq!(pair.answerer.token().operations(), before, "the token was asked for a wrong MAC");
            for at in places(32 + EK + 16) {
                let again = |first: Vec<u8>| pair.knock(kind, &flipped(first[KnockPacket::HEADER..].to_vec(), at));
                let [called, answered] = pair.between(again, |second| second).await;
                assert!(called.is_some(), "{pattern:?} message 1 byte {at}");
                // A changed KK1 ephemeral is another one, which only the other end can tell.
                let unheard = pattern == Pattern::Kk1;
                assert!(
                    matches!(answered, Some(ErrorKind::HandshakeFailed | ErrorKind::BadPoint))
                        || (unheard && answered == Some(ErrorKind::HandshakeTimeout)),
                    "{pattern:?} message 1 byte {at}: {answered:?}"
                );
            }
            // CT stands in front of the Noise message, or is its payload.
            let second = 32 + CT + 16;
            for at in places(second) {
                let [called, answered] = pair.between(|first| first, |second| flipped(second, at)).await;
                assert!(
                    matches!(called, Some(ErrorKind::HandshakeFailed | ErrorKind::BadPoint)),
                    "{pattern:?} message 2 byte {at}: {called:?}"
                );
                assert!(answered.is_some(), "{pattern:?} message 2 byte {at}: a session with nobody");
            }
            let whole = pair.between(|first| first, |second| second);
            let [called, answered] = tokio::time::timeout(Duration::from_secs(10), whole).await.unwrap();
            assert!(
                answered.is_none() && !matches!(called, Some(ErrorKind::HandshakeFailed)),
                "{called:?} {answered:?}"
            );
        }
    });
}

/// Every other kind, with a correct MAC and the length that goes with it: refused before the token is asked.
#[test]
fn every_other_kind() {
    run(async {
        let pair = Pair::new(Pattern::Kk).await;
        let asked = pair.answerer.token().operations();
        for kind in (0..=u8::MAX).filter(|kind| *kind & 0xf0 != 0x10 || !(1..=3).contains(&(kind & 0xf))) {
            let lens = [32, 48, 64, 32 + EK + 16];
            for len in lens {
                let (mut near, far) = duplex(64 * 1024);
                let packet = pair.knock(kind, &vec![9; len]);
                near.write_all(&frame(&packet).unwrap()).await.unwrap();
                let answered = pair.answerer.handshake_respond(Pipe::joined(far), &pair.incoming, None).await;
                let refused = answered.err().unwrap_or_else(|| panic!("kind {kind:#04x} was let in")).kind();
                let expected: &[ErrorKind] = match kind {
                    0x04 => &[ErrorKind::ResumptionRefused, ErrorKind::PacketInvalid],
                    0x01..=0x03 => &[ErrorKind::KemMismatch, ErrorKind::PacketInvalid],
                    0x21..=0x23 => &[ErrorKind::KemMismatch, ErrorKind::PresharedKeyMismatch, ErrorKind::PacketInvalid],
                    0x31..=0x33 => &[ErrorKind::PresharedKeyMismatch, ErrorKind::PacketInvalid],
                    _ => &[ErrorKind::PacketInvalid],
                };
                assert!(expected.contains(&refused), "kind {kind:#04x}, {len} bytes: {refused:?}");
                let mut answer = Vec::new();
                near.read_to_end(&mut answer).await.unwrap();
                assert!(answer.is_empty(), "kind {kind:#04x} was answered");
            }
        }
        assert_eq!(pair.answerer.token().operations(), asked);
    });
}
