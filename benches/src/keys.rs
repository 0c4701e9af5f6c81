//! Static keys in memory, where a machine has a token, and handshakes with them.

use aws_lc_rs::agreement::{self, Algorithm, PrivateKey, UnparsedPublicKey};
use aws_lc_rs::encoding::{AsBigEndian, Curve25519SeedBin, EcPrivateKeyBin};
use claviger::identity::{Curve, StaticPublic};
use claviger::noise::{Established, Protocol, Setup, Step, initiator, responder};
use claviger::secret::SharedSecret;

/// What every handshake here is bound to.
pub const PROLOGUE: &[u8] = b"claviger benchmark";

fn algorithm(curve: Curve) -> &'static Algorithm {
    match curve {
        Curve::X25519 => &agreement::X25519,
        Curve::P256 => &agreement::ECDH_P256,
    }
}

/// A static key.
pub struct Key {
    private: PrivateKey,
    /// The private half, as snow takes it.
    pub bytes: Vec<u8>,
    /// The public half.
    pub public: StaticPublic,
}

impl Key {
    /// A new one.
    pub fn new(curve: Curve) -> Self {
        let private = PrivateKey::generate(algorithm(curve)).unwrap();
        let bytes = match curve {
            Curve::X25519 => AsBigEndian::<Curve25519SeedBin<'_>>::as_be_bytes(&private).unwrap().as_ref().to_vec(),
            Curve::P256 => AsBigEndian::<EcPrivateKeyBin<'_>>::as_be_bytes(&private).unwrap().as_ref().to_vec(),
        };
        Self::from_bytes(curve, &bytes)
    }

    /// One that was kept.
    pub fn from_bytes(curve: Curve, bytes: &[u8]) -> Self {
        let private = PrivateKey::from_private_key(algorithm(curve), bytes).unwrap();
        let public = StaticPublic::new(curve, private.compute_public_key().unwrap().as_ref()).unwrap();
        Self { private, bytes: bytes.to_vec(), public }
    }

    fn agree(&self, point: &StaticPublic) -> SharedSecret {
        let point = UnparsedPublicKey::new(algorithm(point.curve()), point.as_bytes());
        agreement::agree(&self.private, point, (), |secret| SharedSecret::from_slice(secret).ok_or(())).unwrap()
    }

    /// Answers steps until the other end is needed.
    pub fn answer(&self, mut step: Step) -> Step {
        while let Step::Agree(agree) = step {
            let secret = self.agree(agree.public());
            step = agree.resume(secret).unwrap();
        }
        step
    }
}

/// A whole handshake, both ends: the one that dials first.
pub fn handshake(protocol: Protocol, keys: &[Key; 2]) -> [Box<Established>; 2] {
    let [dialling, listening] = keys;
    let setup = Setup::new(protocol, &dialling.public, &listening.public, PROLOGUE);
    let mut sender = (dialling, dialling.answer(initiator(setup).unwrap()));
    let setup = Setup::new(protocol, &listening.public, &dialling.public, PROLOGUE);
    let mut receiver = (listening, listening.answer(responder(setup).unwrap()));
    loop {
        match (sender.1, receiver.1) {
            (Step::Send(send), Step::Receive(receive)) => {
                let received = receive.received(send.message()).unwrap();
                let sent = (sender.0, sender.0.answer(send.sent().unwrap()));
                sender = (receiver.0, receiver.0.answer(received));
                receiver = sent;
            }
            (Step::Finished(one), Step::Finished(other)) => {
                return if std::ptr::eq(sender.0, dialling) { [one, other] } else { [other, one] };
            }
            _ => panic!("the two ends do not wait for each other"),
        }
    }
}
