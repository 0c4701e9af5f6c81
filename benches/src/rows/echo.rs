//! How long 1 KiB takes to and fro.

use super::stream::{Answering, runtime};
use crate::link::{self, Kind};
use crate::measure::quantile;
use crate::report::{Report, Rounds, Target};
use crate::tls::Cipher;
use crate::{Options, Result};

/// Echoes of one measurement.
const BATCH: u64 = 1000;

pub(super) fn run(options: &Options, report: &mut Report) -> Result<()> {
    let dir = tempfile::tempdir()?;
    link::make(dir.path())?;
    let path = dir.path().to_str().ok_or("a directory that is not text")?;
    let runtime = runtime()?;
    for cipher in Cipher::ALL {
        let kinds = Kind::with(cipher);
        options.progress("echo", cipher.name());
        let mut ends = Vec::new();
        for kind in &kinds {
            ends.push(Answering::start(&runtime, *kind, path, 1)?);
        }
        // Of each round both: the middle one, and the one that a hundredth is above.
        let mut values = [vec![Vec::new(); kinds.len()], vec![Vec::new(); kinds.len()]];
        for round in 0..=options.rounds(25, 5) {
            for step in 0..kinds.len() {
                let at = (round + step) % kinds.len();
                let times = runtime.block_on(link::echo(&mut ends[at].streams[0], BATCH))?;
                if round == 0 {
                    continue;
                }
                let times: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e6).collect();
                values[0][at].push(quantile(&times, 0.5));
                values[1][at].push(quantile(&times, 0.99));
            }
        }
        let names: Vec<String> = kinds.iter().map(|kind| kind.name()).collect();
        let position = |kind: Kind| kinds.iter().position(|other| *other == kind).ok_or("no such kind");
        let (ours, tcp) = (position(Kind::Session(cipher))?, position(Kind::Tcp)?);
        for (part, values) in ["p50", "p99"].into_iter().zip(&values) {
            let case = format!("{}, {part}", cipher.name());
            report.note("echo", &case, "µs", &names, values);
            let theirs = Rounds { name: &names[tcp], values: &values[tcp] };
            report.compare("echo", &case, "µs", &values[ours], &theirs, Some(Target::RatioBelow(1.2)));
        }
    }
    Ok(())
}
