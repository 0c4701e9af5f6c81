//! Records of a session, sealed and opened where they are, beside every AEAD that could do it: what the record layer costs, and which of
//! the two implementations is the faster on this processor.

// A benchmark that cannot set up its keys ends, as a test does.
#![allow(clippy::unwrap_used, missing_docs)]

use aws_lc_rs::aead as aws;
use claviger::identity::Suite;
use claviger::noise::{Opener, Sealer};
use claviger::secret::CipherKey;
use claviger::wire::{FRAME_HEADER, TAG};
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime};
use ring::aead as other;
use std::hint::black_box;
use std::time::{Duration, Instant};

const KEY: [u8; 32] = [5; 32];

/// Plaintext lengths; the largest that a record has.
const LENGTHS: [usize; 5] = [256, 1024, 4096, 16 * 1024, 64 * 1024 - 1 - TAG];

/// Records in memory at once: few enough for the cache.
const BATCH: usize = 8;

fn aws_key(aes: bool) -> aws::LessSafeKey {
    let algorithm = if aes { &aws::AES_256_GCM } else { &aws::CHACHA20_POLY1305 };
    aws::LessSafeKey::new(aws::UnboundKey::new(algorithm, &KEY).unwrap())
}

fn ring_key(aes: bool) -> other::LessSafeKey {
    let algorithm = if aes { &other::AES_256_GCM } else { &other::CHACHA20_POLY1305 };
    other::LessSafeKey::new(other::UnboundKey::new(algorithm, &KEY).unwrap())
}

fn nonce(counter: u64) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&counter.to_le_bytes());
    bytes
}

/// snow's own cipher for a name of its protocols, by its default resolver.
fn snow_key(aes: bool) -> Box<dyn snow::types::Cipher> {
    use snow::resolvers::{CryptoResolver, DefaultResolver};
    let choice = if aes { snow::params::CipherChoice::AESGCM } else { snow::params::CipherChoice::ChaChaPoly };
    let mut cipher = DefaultResolver.resolve_cipher(&choice).unwrap();
    cipher.set(&KEY);
    cipher
}

/// Times `open` of records that `seal` makes outside the measured time. All of a batch are there before the first is opened.
fn opening(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    frame: usize,
    mut seal: impl FnMut(&mut [u8]),
    mut open: impl FnMut(&mut [u8]),
) {
    let mut batch = vec![vec![7; frame]; BATCH];
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|iterations| {
            let mut took = Duration::ZERO;
            let mut left = iterations as usize;
            while left > 0 {
                let records = &mut batch[..left.min(BATCH)];
                records.iter_mut().for_each(|record| seal(record));
                let started = Instant::now();
                records.iter_mut().for_each(|record| open(black_box(record)));
                took += started.elapsed();
                left -= records.len();
            }
            took
        });
    });
}

fn seal(group: &mut BenchmarkGroup<'_, WallTime>, suite: Suite, len: usize) {
    let aes = suite == Suite::AesGcmSha256;
    let mut frame = vec![7; FRAME_HEADER + len + TAG];
    let mut sealer = Sealer::new(suite, &CipherKey::new(KEY)).unwrap();
    group.bench_function("seal", |bencher| bencher.iter(|| sealer.seal_in_place(black_box(&mut frame)).unwrap()));
    let (key, mut counter) = (aws_key(aes), 0);
    let text = &mut frame[FRAME_HEADER..FRAME_HEADER + len];
    group.bench_function("seal, aws-lc", |bencher| {
        bencher.iter(|| {
            counter += 1;
            let nonce = aws::Nonce::assume_unique_for_key(nonce(counter));
            key.seal_in_place_separate_tag(nonce, aws::Aad::empty(), black_box(text)).unwrap()
        });
    });
    let key = ring_key(aes);
    group.bench_function("seal, ring", |bencher| {
        bencher.iter(|| {
            counter += 1;
            let nonce = other::Nonce::assume_unique_for_key(nonce(counter));
            key.seal_in_place_separate_tag(nonce, other::Aad::empty(), black_box(text)).unwrap()
        });
    });
    let (key, text, mut out) = (snow_key(aes), text.to_vec(), vec![0; len + TAG]);
    group.bench_function("seal, snow", |bencher| {
        bencher.iter(|| {
            counter += 1;
            key.encrypt(counter, &[], black_box(&text), &mut out)
        });
    });
}

fn open(group: &mut BenchmarkGroup<'_, WallTime>, suite: Suite, len: usize) {
    let aes = suite == Suite::AesGcmSha256;
    let frame = FRAME_HEADER + len + TAG;
    let mut sealer = Sealer::new(suite, &CipherKey::new(KEY)).unwrap();
    let mut opener = Opener::new(suite, &CipherKey::new(KEY)).unwrap();
    let seal = |record: &mut [u8]| sealer.seal_in_place(record).unwrap();
    opening(group, "open", frame, seal, |record| {
        black_box(opener.open(&mut record[FRAME_HEADER..]).unwrap());
    });
    // One nonce for all of theirs: the time does not depend on it. The header's room is kept, so that all lie alike.
    let key = aws_key(aes);
    let seal = |record: &mut [u8]| {
        let (text, tag) = record[FRAME_HEADER..].split_last_chunk_mut::<TAG>().unwrap();
        let nonce = aws::Nonce::assume_unique_for_key(nonce(0));
        tag.copy_from_slice(key.seal_in_place_separate_tag(nonce, aws::Aad::empty(), text).unwrap().as_ref());
    };
    opening(group, "open, aws-lc", frame, seal, |record| {
        let nonce = aws::Nonce::assume_unique_for_key(nonce(0));
        black_box(key.open_in_place(nonce, aws::Aad::empty(), &mut record[FRAME_HEADER..]).unwrap());
    });
    let theirs = ring_key(aes);
    opening(group, "open, ring", frame, seal, |record| {
        let nonce = other::Nonce::assume_unique_for_key(nonce(0));
        black_box(theirs.open_in_place(nonce, other::Aad::empty(), &mut record[FRAME_HEADER..]).unwrap());
    });
    let (theirs, mut out) = (snow_key(aes), vec![0; len]);
    opening(group, "open, snow", frame, seal, |record| {
        black_box(theirs.decrypt(0, &[], &record[FRAME_HEADER..], &mut out).unwrap());
    });
}

fn records(criterion: &mut Criterion) {
    for suite in Suite::ALL {
        for len in LENGTHS {
            let mut group = criterion.benchmark_group(format!("records/{suite} {len}"));
            group.throughput(Throughput::Bytes(len as u64));
            seal(&mut group, suite, len);
            open(&mut group, suite, len);
            group.finish();
        }
    }
}

criterion_group!(benches, records);
criterion_main!(benches);
