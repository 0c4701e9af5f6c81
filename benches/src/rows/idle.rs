//! The memory of sessions that wait: 10 000 of them, both ends in a process of their own.

use crate::child::{Worker, resident};
use crate::link::{self, Kind};
use crate::report::{Report, Target, Verdict};
use crate::tls::{Cipher, Provider};
use crate::{Options, Result};
use std::time::Duration;

/// What is idle.
struct Case {
    name: &'static str,
    kind: Kind,
    /// Sessions without a stream.
    bare: bool,
    count: usize,
}

const CASES: [Case; 4] = [
    Case { name: "claviger", kind: Kind::Session(Cipher::ChaCha), bare: true, count: 10_000 },
    // As many streams as one peer may have at most.
    Case { name: "with a stream", kind: Kind::Session(Cipher::ChaCha), bare: false, count: 4_000 },
    Case { name: "rustls", kind: Kind::Tls(Provider::AwsLc, Cipher::ChaCha), bare: false, count: 10_000 },
    Case { name: "TCP", kind: Kind::Tcp, bare: false, count: 10_000 },
];

/// KiB a connection, at the end that listens and at the one that dials.
fn measure(case: &Case, dir: &str, count: usize) -> Result<[f64; 2]> {
    let address = link::free_port()?.to_string();
    let listening = Worker::start(&["answer", case.kind.argument(), dir, &address])?;
    // One is open when it has started: what a process needs once is not counted.
    let count_text = count.to_string();
    let mut arguments = vec!["hold", case.kind.argument(), dir, &address, &count_text];
    if case.bare {
        arguments.push("--bare");
    }
    let mut dialling = Worker::start(&arguments)?;
    let pids = [listening.pid(), dialling.pid()];
    let both = || Ok::<_, crate::Error>([resident(pids[0])?, resident(pids[1])?]);
    let before = both()?;
    dialling.go_on()?;
    dialling.line()?;
    #[allow(clippy::disallowed_methods, reason = "what was said last is still being answered")]
    std::thread::sleep(Duration::from_secs(1));
    let after = both()?;
    Ok([0, 1].map(|end| (after[end] - before[end]) / (count - 1) as f64))
}

pub(super) fn run(options: &Options, report: &mut Report) -> Result<()> {
    let dir = tempfile::tempdir()?;
    link::make(dir.path())?;
    let path = dir.path().to_str().ok_or("a directory that is not text")?;
    let mut found = Vec::new();
    for case in CASES {
        let count = if options.quick { case.count / 10 } else { case.count };
        options.progress("idle", &format!("{count} of {}", case.name));
        let ends = measure(&case, path, count)?;
        for (end, value) in ["listening", "dialling"].into_iter().zip(ends) {
            report.note("idle", end, "KiB", &[case.name.into()], &[vec![value]]);
        }
        found.push(ends);
    }
    let [ours, _, theirs, _] = found[..] else { return Ok(()) };
    for (at, end) in ["listening", "dialling"].into_iter().enumerate() {
        report.verdicts.push(Verdict {
            row: "idle".into(),
            what: format!("a session, {end}"),
            ours: ours[at],
            theirs: Some(theirs[at]),
            against: "rustls".into(),
            unit: "KiB".into(),
            ratio: Some(ours[at] / theirs[at]),
            target: Some(Target::Below(6.0)),
        });
    }
    Ok(())
}
