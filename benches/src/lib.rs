//! What claviger costs, beside what people use otherwise: everything that is compared runs in alternation, in one run, on one machine.
//!
//! `scripts/bench` runs it; `docs/performance.md` says what was found and what limits each row. The criterion benchmarks below `benches/`
//! are for whoever works on one of the parts.

// A benchmark that cannot set up its keys ends, as a test does.
#![allow(clippy::unwrap_used)]

pub mod about;
pub mod aead;
pub mod child;
pub mod keys;
pub mod link;
pub mod machines;
pub mod measure;
pub mod pairs;
pub mod plot;
pub mod report;
pub mod rows;
pub mod tls;
pub mod worker;

use std::io::Write as _;

/// What went wrong, to be told and nothing else.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// A result whose error is only told.
pub type Result<T> = std::result::Result<T, Error>;

/// How much is measured.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Short runs: to see that everything works, and roughly how fast.
    pub quick: bool,
}

impl Options {
    /// How many rounds: in a whole run, and in a quick one.
    pub fn rounds(&self, whole: usize, quick: usize) -> usize {
        if self.quick { quick } else { whole }
    }

    /// Says what is being measured.
    pub fn progress(&self, row: &str, what: &str) {
        // Whoever closed stderr does not want to know.
        let _ = writeln!(std::io::stderr(), "{row}: {what}");
    }
}

/// A length as people say it.
pub fn size(bytes: usize) -> String {
    match bytes {
        ..1024 => format!("{bytes} B"),
        bytes if bytes % 1024 == 0 => format!("{} KiB", bytes / 1024),
        // The largest record, which is 81 bytes short of a round number.
        bytes => format!("{} KiB", bytes.div_ceil(1024)),
    }
}
