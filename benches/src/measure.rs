//! Alternating runs: every thing that is compared is run once a round, so that a loaded or throttled machine slows all of them alike.

use crate::Result;
use rustix::time::{ClockId, clock_gettime};

/// One thing that is measured: a name, and what gives one value of it.
pub struct Subject<'a> {
    /// As it is printed.
    pub name: String,
    /// One run, and what it gave.
    pub run: Box<dyn FnMut() -> Result<f64> + 'a>,
}

impl<'a> Subject<'a> {
    /// Names what `run` measures.
    pub fn new(name: impl Into<String>, run: impl FnMut() -> Result<f64> + 'a) -> Self {
        Self { name: name.into(), run: Box::new(run) }
    }
}

/// The values of every subject, one a round. A round before the first is not counted; each round begins with another subject, so that each
/// comes after each.
///
/// # Errors
/// The first of a run.
pub fn alternate(subjects: &mut [Subject<'_>], rounds: usize) -> Result<Vec<Vec<f64>>> {
    let mut values = vec![Vec::with_capacity(rounds); subjects.len()];
    for round in 0..=rounds {
        for step in 0..subjects.len() {
            let at = (round + step) % subjects.len();
            let subject = &mut subjects[at];
            let value = (subject.run)().map_err(|error| format!("{}: {error}", subject.name))?;
            if round > 0 {
                values[at].push(value);
            }
        }
    }
    Ok(values)
}

/// The value below which a part `q` (0 to 1) of `values` lies. NaN for none.
pub fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (sorted.len().saturating_sub(1) as f64 * q).round() as usize;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

/// The value in the middle.
pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The middle one of the rounds' ratios.
pub fn ratio(ours: &[f64], theirs: &[f64]) -> f64 {
    let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
    median(&ratios)
}

/// Processor time that this thread has used, in seconds: what other programs do does not count.
pub fn thread_time() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
