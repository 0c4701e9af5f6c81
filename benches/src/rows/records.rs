//! The record path in memory on one core.

use crate::aead::{LENGTHS, Records, Who, batch};
use crate::measure::{Subject, alternate, median, thread_time};
use crate::report::{Report, Rounds, Target};
use crate::tls::{Cipher, Provider};
use crate::{Options, Result, size};

/// Processor time of one measurement, in seconds.
const SLICE: f64 = 0.004;

/// Seals and opens for a while; gives GB/s.
fn rate(records: &mut dyn Records, len: usize) -> f64 {
    let (mut bytes, mut spent) = (0, 0.0);
    while spent < SLICE {
        records.prepare();
        let start = thread_time();
        records.run();
        spent += thread_time() - start;
        bytes += batch(len) * len;
    }
    bytes as f64 / spent / 1e9
}

pub(super) fn run(options: &Options, report: &mut Report) -> Result<()> {
    let rounds = options.rounds(31, 7);
    for cipher in Cipher::ALL {
        for len in LENGTHS {
            for verb in ["seal", "open"] {
                let case = format!("{verb} {}, {}", cipher.name(), size(len));
                options.progress("records", &case);
                let names: Vec<String> = Who::ALL.iter().map(|who| who.name()).collect();
                let mut subjects = Vec::new();
                for who in Who::ALL {
                    let sealing = verb == "seal";
                    let mut records = if sealing { who.sealing(cipher, len)? } else { who.opening(cipher, len)? };
                    subjects.push(Subject::new(who.name(), move || Ok(rate(&mut *records, len))));
                }
                let values = alternate(&mut subjects, rounds)?;
                report.note("records", &case, "GB/s", &names, &values);
                if len == 16 * 1024 {
                    let place = |who| Who::ALL.iter().position(|other| *other == who).unwrap_or(0);
                    let raw = Provider::ALL.map(|provider| place(Who::Raw(provider)));
                    let best = if median(&values[raw[0]]) > median(&values[raw[1]]) { raw[0] } else { raw[1] };
                    let bound = if cipher == Cipher::ChaCha { 0.95 } else { 0.90 };
                    let theirs = Rounds { name: &format!("{} raw", names[best]), values: &values[best] };
                    report.compare("records", &case, "GB/s", &values[0], &theirs, Some(Target::Ratio(bound)));
                }
            }
        }
    }
    Ok(())
}
