//! A whole handshake, both ends on one core with keys in memory, beside the same protocol by snow with its own primitives.
//!
//! What the delegation of the static key costs, and what other primitives gain. A token's own time comes on top: `agree` in `hsm/benches`.

// A benchmark that cannot set up its keys ends, as a test does.
#![allow(clippy::unwrap_used, missing_docs)]

use claviger::identity::{Curve, Suite};
use claviger::noise::Protocol;
use claviger::wire::Pattern;
use claviger_bench::keys::{Key, PROLOGUE, handshake};
use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;

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
            group.bench_function("claviger", |bencher| bencher.iter(|| handshake(black_box(protocol), &keys)));
            group.bench_function("snow alone", |bencher| bencher.iter(|| snow(black_box(protocol), &keys)));
            group.finish();
        }
    }
}

criterion_group!(benches, handshakes);
criterion_main!(benches);
