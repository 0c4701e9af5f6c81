//! The rows of the table of targets.

mod echo;
mod forward;
mod handshake;
mod idle;
mod knock;
mod records;
mod stream;
mod tor;

pub use stream::load;

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
    Row::new("records", "records sealed and opened in memory, beside bare AEADs, snow and rustls", records::run),
    Row::new("stream", "one stream over loopback TCP and 32 at once, beside TCP and tokio-rustls", stream::run),
    Row::new("forward", "a TCP connection through a pair of forwarders, beside stunnel, spiped and ssh", forward::run),
    Row::new("echo", "1 KiB to and fro over loopback TCP, beside TCP and tokio-rustls", echo::run),
    Row::new("handshake", "handshakes in memory, beside rustls with certificates at both ends", handshake::run),
    Row::new("idle", "memory of 10 000 idle sessions, beside tokio-rustls", idle::run),
    Row::new("knock", "the caller found among up to 10 000 peers", knock::run),
    Row::new("tor", "over a private Tor network, beside a bare onion stream", tor::run),
];

impl Row {
    const fn new(name: &'static str, about: &'static str, run: fn(&Options, &mut Report) -> Result<()>) -> Self {
        Self { name, about, run }
    }

    /// Measures it. What can not be measured here is noted as skipped.
    pub fn run(&self, options: &Options, report: &mut Report) {
        if let Err(error) = (self.run)(options, report) {
            options.progress(self.name, &format!("not measured: {error}"));
            report.skipped.push((self.name.into(), error.to_string()));
        }
    }
}
