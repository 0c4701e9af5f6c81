//! A whole handshake, both ends on one core with keys in memory, beside the same protocol by snow with its own primitives.
//!
//! What the delegation of the static key costs, and what other primitives gain. A token's own time comes on top: `agree` in `hsm/benches`.

// A benchmark that cannot set up its keys ends, as a test does.
#![allow(clippy::unwrap_used, missing_docs)]

use aws_lc_rs::agreement::{self, Algorithm, PrivateKey, UnparsedPublicKey};
use aws_lc_rs::encoding::{AsBigEndian, Curve25519SeedBin, EcPrivateKeyBin};
use claviger::identity::{Curve, StaticPublic, Suite};
use claviger::noise::{Established, Protocol, Setup, Step, initiator, responder};
use claviger::secret::SharedSecret;
use claviger::wire::Pattern;
use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;

const PROLOGUE: &[u8] = b"claviger handshake benchmark";

fn algorithm(curve: Curve) -> &'static Algorithm {
    match curve {
        Curve::X25519 => &agreement::X25519,
        Curve::P256 => &agreement::ECDH_P256,
    }
}

/// A static key in memory, where a machine has a token.
struct Key {
    private: PrivateKey,
    bytes: Vec<u8>,
    public: StaticPublic,
}

impl Key {
    fn new(curve: Curve) -> Self {
        let private = PrivateKey::generate(algorithm(curve)).unwrap();
        let bytes = match curve {
            Curve::X25519 => AsBigEndian::<Curve25519SeedBin<'_>>::as_be_bytes(&private).unwrap().as_ref().to_vec(),
            Curve::P256 => AsBigEndian::<EcPrivateKeyBin<'_>>::as_be_bytes(&private).unwrap().as_ref().to_vec(),
        };
        let public = StaticPublic::new(curve, private.compute_public_key().unwrap().as_ref()).unwrap();
        Self { private, bytes, public }
    }

    fn agree(&self, point: &StaticPublic) -> SharedSecret {
        let point = UnparsedPublicKey::new(algorithm(point.curve()), point.as_bytes());
        agreement::agree(&self.private, point, (), |secret| SharedSecret::from_slice(secret).ok_or(())).unwrap()
    }

    /// Answers steps until the other end is needed.
    fn answer(&self, mut step: Step) -> Step {
        while let Step::Agree(agree) = step {
            let secret = self.agree(agree.public());
            step = agree.resume(secret).unwrap();
        }
        step
    }
}

fn claviger(protocol: Protocol, keys: &[Key; 2]) -> [Box<Established>; 2] {
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
            (Step::Finished(one), Step::Finished(other)) => return [one, other],
            _ => panic!("the two ends do not wait for each other"),
        }
    }
}

fn builder<'a>(params: &snow::params::NoiseParams, own: &'a Key) -> snow::Builder<'a> {
    let builder = snow::Builder::new(params.clone()).prologue(PROLOGUE).unwrap();
    builder.local_private_key(&own.bytes).unwrap()
}

fn snow(protocol: Protocol, keys: &[Key; 2]) -> [snow::TransportState; 2] {
    let params: snow::params::NoiseParams = protocol.name().parse().unwrap();
    let [dialling, listening] = keys;
    let dialler = builder(&params, dialling).remote_public_key(listening.public.as_bytes()).unwrap();
    let listener = match protocol.pattern {
        Pattern::Xk => builder(&params, listening),
        _ => builder(&params, listening).remote_public_key(dialling.public.as_bytes()).unwrap(),
    };
    let mut ends = [dialler.build_initiator().unwrap(), listener.build_responder().unwrap()];
    let (mut message, mut payload) = ([0; 256], [0; 256]);
    while !ends[0].is_handshake_finished() || !ends[1].is_handshake_finished() {
        let (first, second) = ends.split_at_mut(1);
        let (sender, receiver) =
            if first[0].is_my_turn() { (&mut first[0], &mut second[0]) } else { (&mut second[0], &mut first[0]) };
        let len = sender.write_message(&[], &mut message).unwrap();
        receiver.read_message(&message[..len], &mut payload).unwrap();
    }
    ends.map(|end| end.into_transport_mode().unwrap())
}

fn handshakes(criterion: &mut Criterion) {
    for curve in [Curve::X25519, Curve::P256] {
        let keys = [Key::new(curve), Key::new(curve)];
        for pattern in Pattern::ALL {
            let protocol = Protocol { pattern, kem: None, psk: false, curve, suite: Suite::ChaChaPolyBlake2s };
            let mut group = criterion.benchmark_group(format!("handshake/{pattern} {curve}"));
            group.bench_function("claviger", |bencher| bencher.iter(|| claviger(black_box(protocol), &keys)));
            group.bench_function("snow alone", |bencher| bencher.iter(|| snow(black_box(protocol), &keys)));
            group.finish();
        }
    }
}

criterion_group!(benches, handshakes);
criterion_main!(benches);
