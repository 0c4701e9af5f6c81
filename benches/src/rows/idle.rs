//! The memory of sessions that wait: 10 000 of them, both ends in a process of their own.

use crate::child::{Worker, resident};
use crate::link::{self, Kind};
use crate::report::{Report, Target, Verdict};
use crate::tls::{Cipher, Provider};
use crate::{Options, Result};
use std::time::Duration;

/// KiB a connection, at the end that listens and at the one that dials.
fn measure(kind: Kind, dir: &str, count: usize) -> Result<[f64; 2]> {
    let address = link::free_port()?.to_string();
    let listening = Worker::start(&["answer", kind.argument(), dir, &address])?;
    // One stream is open when it has started: what a process needs once is not counted.
    let mut dialling = Worker::start(&["hold", kind.argument(), dir, &address, &count.to_string()])?;
    let both = || Ok::<_, crate::Error>([resident(listening.pid())?, resident(dialling.pid())?]);
    let before = both()?;
    dialling.go_on()?;
    dialling.line()?;
    #[allow(clippy::disallowed_methods, reason = "what was said last is still being answered")]
    std::thread::sleep(Duration::from_secs(1));
    let after = [resident(listening.pid())?, resident(dialling.pid())?];
    Ok([0, 1].map(|end| (after[end] - before[end]) / (count - 1) as f64))
}

pub(super) fn run(options: &Options, report: &mut Report) -> Result<()> {
    let dir = tempfile::tempdir()?;
    link::make(dir.path())?;
    let path = dir.path().to_str().ok_or("a directory that is not text")?;
    let count = if options.quick { 1_000 } else { 10_000 };
    let mut found = Vec::new();
    for kind in [Kind::Session(Cipher::ChaCha), Kind::Tls(Provider::AwsLc, Cipher::ChaCha), Kind::Tcp] {
        options.progress("idle", &format!("{count} of {}", kind.name()));
        let ends = measure(kind, path, count)?;
        for (end, value) in ["listening", "dialling"].into_iter().zip(ends) {
            report.note("idle", end, "KiB", &[kind.name()], &[vec![value]]);
        }
        found.push((kind, ends));
    }
    let [(_, ours), (tls, theirs), _] = &found[..] else { return Ok(()) };
    for (at, end) in ["listening", "dialling"].into_iter().enumerate() {
        report.verdicts.push(Verdict {
            row: "idle".into(),
            what: format!("a session of {count}, {end}"),
            ours: ours[at],
            theirs: Some(theirs[at]),
            against: tls.name(),
            unit: "KiB".into(),
            ratio: Some(ours[at] / theirs[at]),
            target: Some(Target::Below(6.0)),
        });
    }
    Ok(())
}
