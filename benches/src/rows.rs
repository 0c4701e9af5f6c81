//! The rows of the table of targets.

mod handshake;
mod knock;
mod records;

use crate::report::Report;
use crate::{Options, Result};

/// A row: its name on the command line, what it says in a line, and what measures it.
pub struct Row {
    /// `records`.
    pub name: &'static str,
    /// For `--list`.
    pub about: &'static str,
    run: fn(&Options, &mut Report) -> Result<()>,
}

/// Every row, in the order of the table.
pub const ROWS: &[Row] = &[
    Row {
        name: "records",
        about: "records sealed and opened in memory, beside bare AEADs, snow and rustls",
        run: records::run,
    },
    Row {
        name: "handshake",
        about: "handshakes in memory, beside rustls with certificates at both ends",
        run: handshake::run,
    },
    Row { name: "knock", about: "the caller found among up to 10 000 peers", run: knock::run },
];

impl Row {
    /// Measures it. What can not be measured here is noted as skipped.
    pub fn run(&self, options: &Options, report: &mut Report) {
        if let Err(error) = (self.run)(options, report) {
            options.progress(self.name, &format!("not measured: {error}"));
            report.skipped.push((self.name.into(), error.to_string()));
        }
    }
}
