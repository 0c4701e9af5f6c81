//! Records of a session, sealed and opened, beside aws-lc's AEAD on the same bytes: what the framing costs.

// A benchmark that cannot set up its keys ends, as a test does.
#![allow(clippy::unwrap_used, missing_docs)]

use aws_lc_rs::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use claviger::identity::Suite;
use claviger::noise::{Opener, Sealer};
use claviger::secret::CipherKey;
use claviger::wire::{FRAME_HEADER, MAX_RECORD_PLAINTEXT};
use criterion::{
    BatchSize, BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime,
};
use std::hint::black_box;

const KEY: [u8; 32] = [5; 32];

/// Bytes of a page of memory.
const PAGE: usize = 4096;

/// Records in memory at once: few enough for the cache.
const BATCH: BatchSize = BatchSize::NumIterations(16);

fn raw_key(suite: Suite) -> LessSafeKey {
    let algorithm = if suite == Suite::AesGcmSha256 { &AES_256_GCM } else { &CHACHA20_POLY1305 };
    LessSafeKey::new(UnboundKey::new(algorithm, &KEY).unwrap())
}

/// One nonce for all: the raw AEAD's time does not depend on it.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

fn seal(group: &mut BenchmarkGroup<'_, WallTime>, suite: Suite, plaintext: &[u8]) {
    let mut sealer = Sealer::new(suite, &CipherKey::new(KEY)).unwrap();
    let mut out = Vec::with_capacity(plaintext.len() + 64);
    let record = out.as_ptr() as usize + FRAME_HEADER;
    // Sealing copies first, and where a copy goes a few bytes past its source, modulo a page, the processor takes loads for dependent on
    // stores: both sides of that, since an application's buffers lie where they will.
    for (name, behind) in [("seal", PAGE / 2), ("seal, copied 2 bytes past a page", FRAME_HEADER)] {
        let mut source = vec![0; plaintext.len() + PAGE];
        let start = (record + PAGE - behind).wrapping_sub(source.as_ptr() as usize) % PAGE;
        let source = &mut source[start..start + plaintext.len()];
        source.copy_from_slice(plaintext);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                out.clear();
                sealer.seal(black_box(source), &mut out).unwrap();
            });
        });
    }
    let (key, mut buffer) = (raw_key(suite), plaintext.to_vec());
    group.bench_function("seal, raw", |bencher| {
        bencher.iter(|| key.seal_in_place_separate_tag(nonce(), Aad::empty(), black_box(&mut buffer)).unwrap());
    });
}

fn open(group: &mut BenchmarkGroup<'_, WallTime>, suite: Suite, plaintext: &[u8]) {
    let mut sealer = Sealer::new(suite, &CipherKey::new(KEY)).unwrap();
    let mut opener = Opener::new(suite, &CipherKey::new(KEY)).unwrap();
    group.bench_function("open", |bencher| {
        let record = || {
            let mut out = Vec::new();
            sealer.seal(plaintext, &mut out).unwrap();
            out
        };
        let open = |mut record: Vec<u8>| {
            black_box(opener.open(&mut record[FRAME_HEADER..]).unwrap());
            record
        };
        bencher.iter_batched(record, open, BATCH);
    });
    let key = raw_key(suite);
    let mut sealed = plaintext.to_vec();
    key.seal_in_place_append_tag(nonce(), Aad::empty(), &mut sealed).unwrap();
    // The frame header's room is kept, so that both open at the same alignment.
    let sealed = [&[0; FRAME_HEADER], sealed.as_slice()].concat();
    group.bench_function("open, raw", |bencher| {
        let open = |mut sealed: Vec<u8>| {
            black_box(key.open_in_place(nonce(), Aad::empty(), &mut sealed[FRAME_HEADER..]).unwrap());
            sealed
        };
        bencher.iter_batched(|| sealed.clone(), open, BATCH);
    });
}

fn records(criterion: &mut Criterion) {
    for suite in Suite::ALL {
        for len in [1024, 16 * 1024, MAX_RECORD_PLAINTEXT] {
            let mut group = criterion.benchmark_group(format!("records/{suite} {len}"));
            group.throughput(Throughput::Bytes(len as u64));
            let plaintext = vec![7; len];
            seal(&mut group, suite, &plaintext);
            open(&mut group, suite, &plaintext);
            group.finish();
        }
    }
}

criterion_group!(benches, records);
criterion_main!(benches);
