//! Records of a session, sealed and opened, beside the bare AEADs, snow and rustls on the same bytes: what the framing costs.

// A benchmark that cannot set up its keys ends, as a test does.
#![allow(clippy::unwrap_used, missing_docs)]

use claviger_bench::aead::{LENGTHS, Records, Who, batch};
use claviger_bench::tls::Cipher;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime};
use std::time::{Duration, Instant};

/// What is prepared between two batches is not measured.
fn measure(group: &mut BenchmarkGroup<'_, WallTime>, name: String, mut records: Box<dyn Records>) {
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|iterations| {
            let mut spent = Duration::ZERO;
            for _ in 0..iterations {
                records.prepare();
                let start = Instant::now();
                records.run();
                spent += start.elapsed();
            }
            spent
        });
    });
}

fn records(criterion: &mut Criterion) {
    for cipher in Cipher::ALL {
        for len in LENGTHS {
            for sealing in [true, false] {
                let verb = if sealing { "seal" } else { "open" };
                let mut group = criterion.benchmark_group(format!("{verb}/{} {len}", cipher.name()));
                group.throughput(Throughput::Bytes((batch(len) * len) as u64));
                for who in Who::ALL {
                    let records = if sealing { who.sealing(cipher, len) } else { who.opening(cipher, len) };
                    measure(&mut group, who.name(), records.unwrap());
                }
                group.finish();
            }
        }
    }
}

criterion_group!(benches, records);
criterion_main!(benches);
