//! One stream over loopback TCP, and 32 at once.

use crate::child::Worker;
use crate::link::{self, BoxStream, Dialler, Kind};
use crate::measure::{Subject, alternate, median};
use crate::report::{Report, Rounds, Target};
use crate::tls::Cipher;
use crate::{Options, Result};
use std::io::Write as _;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// A runtime of one thread: each end is a process that may use one core.
pub(super) fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// A process that answers, and streams to it.
pub(super) struct Answering {
    /// Kept as long as its streams are used.
    _worker: Worker,
    pub(super) streams: Vec<BoxStream>,
}

impl Answering {
    pub(super) fn start(runtime: &Runtime, kind: Kind, dir: &str, streams: usize) -> Result<Self> {
        let address = link::free_port()?;
        let worker = Worker::start(&["answer", kind.argument(), dir, &address.to_string()])?;
        let streams = runtime.block_on(async {
            let dialler = Dialler::new(kind, dir.as_ref(), address).await?;
            let mut opened = Vec::new();
            for _ in 0..streams {
                opened.push(dialler.dial().await?);
            }
            Ok::<_, crate::Error>(opened)
        })?;
        Ok(Self { _worker: worker, streams })
    }

    /// Sends so many bytes, a part on each stream; gives GB/s.
    fn rate(&mut self, runtime: &Runtime, bytes: u64) -> Result<f64> {
        let part = bytes / self.streams.len() as u64;
        let start = Instant::now();
        runtime.block_on(async {
            let mut sending = tokio::task::JoinSet::new();
            for mut stream in self.streams.drain(..) {
                sending.spawn(async move { link::send(&mut stream, part).await.map(|()| stream) });
            }
            while let Some(sent) = sending.join_next().await {
                self.streams.push(sent??);
            }
            Ok::<_, crate::Error>(())
        })?;
        Ok(bytes as f64 / start.elapsed().as_secs_f64() / 1e9)
    }
}

/// One stream, for so many seconds; prints GB/s of each second.
///
/// # Errors
/// Those of setting it up.
pub fn load(kind: Kind, seconds: u64) -> Result<()> {
    let dir = tempfile::tempdir()?;
    link::make(dir.path())?;
    let runtime = runtime()?;
    let mut answering = Answering::start(&runtime, kind, dir.path().to_str().ok_or("not text")?, 1)?;
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        let rate = answering.rate(&runtime, 1 << 30)?;
        writeln!(std::io::stdout(), "{rate:.3}")?;
    }
    Ok(())
}

pub(super) fn run(options: &Options, report: &mut Report) -> Result<()> {
    let dir = tempfile::tempdir()?;
    link::make(dir.path())?;
    let path = dir.path().to_str().ok_or("a directory that is not text")?;
    let runtime = runtime()?;
    let bytes = if options.quick { 64 << 20 } else { 256 << 20 };
    for cipher in Cipher::ALL {
        let kinds = Kind::with(cipher);
        for streams in [1, 32] {
            let plural = if streams == 1 { "" } else { "s" };
            let case = format!("{}, {streams} stream{plural}", cipher.name());
            options.progress("stream", &case);
            let mut subjects = Vec::new();
            for kind in &kinds {
                let mut answering = Answering::start(&runtime, *kind, path, streams)?;
                let runtime = &runtime;
                subjects.push(Subject::new(kind.name(), move || answering.rate(runtime, bytes)));
            }
            let values = alternate(&mut subjects, options.rounds(15, 5))?;
            let names: Vec<String> = kinds.iter().map(|kind| kind.name()).collect();
            report.note("stream", &case, "GB/s", &names, &values);
            let at = |kind: Kind| kinds.iter().position(|other| *other == kind);
            let tls: Vec<usize> = (0..kinds.len()).filter(|at| matches!(kinds[*at], Kind::Tls(..))).collect();
            let best = tls.into_iter().max_by(|a, b| median(&values[*a]).total_cmp(&median(&values[*b])));
            let mut against = |kind: Option<usize>, target| {
                let (Some(ours), Some(theirs)) = (at(Kind::Session(cipher)), kind) else { return };
                let theirs = Rounds { name: &names[theirs], values: &values[theirs] };
                report.compare("stream", &case, "GB/s", &values[ours], &theirs, Some(target));
            };
            against(best, Target::Ratio(1.4));
            against(at(Kind::Tcp), Target::Ratio(0.6));
            against(at(Kind::Records(cipher)), Target::Ratio(0.9));
        }
    }
    Ok(())
}
