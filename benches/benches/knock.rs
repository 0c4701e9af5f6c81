//! What a first packet costs the door, by number of peers: from a stranger, and from the peer tried last.

// A benchmark that cannot set up its keys ends, as a test does.
#![allow(clippy::unwrap_used, missing_docs)]

use claviger::identity::{Curve, StaticPublic};
use claviger::noise::knock::{Doorkeeper, key, packet};
use claviger::wire::Pattern;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use std::hint::black_box;

const BEGIN: u64 = 1_800_000_000_000;
const WINDOW: u64 = 120_000;

fn public(number: u32) -> StaticPublic {
    let mut bytes = [9; 32];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    StaticPublic::new(Curve::X25519, &bytes).unwrap()
}

fn admit(criterion: &mut Criterion) {
    let (local, stranger) = (public(1), public(2));
    // XK's first message: an ephemeral key and a tag.
    let message = [7; 48];
    for count in [10, 1_000, 10_000] {
        let peers: Vec<StaticPublic> = (3..3 + count).map(public).collect();
        let mut door = Doorkeeper::new(&local, &peers, WINDOW, BEGIN - WINDOW);
        let mut group = criterion.benchmark_group(format!("admit/{count} peers"));

        let unknown = packet(&key(&stranger, &local), Pattern::Xk.into(), BEGIN, &message);
        group.bench_function("stranger", |bencher| {
            bencher.iter(|| door.admit(black_box(&unknown), BEGIN).unwrap_err());
        });

        // A knock is good once: each is new, a second after the one before.
        let last = key(peers.last().unwrap(), &local);
        let mut now = BEGIN;
        group.bench_function("last peer", |bencher| {
            let knock = || {
                now += 1_000;
                (packet(&last, Pattern::Xk.into(), now, &message), now)
            };
            bencher.iter_batched(
                knock,
                |(packet, now)| {
                    black_box(door.admit(black_box(&packet), now).unwrap().peer);
                    packet
                },
                BatchSize::SmallInput,
            );
        });
        group.finish();
    }
}

criterion_group!(benches, admit);
criterion_main!(benches);
