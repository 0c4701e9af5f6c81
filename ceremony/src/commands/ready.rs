//! `preflight`: whether this machine is ready; `rehearse`: whether the people are.

mod checklist;
mod compare;
mod host;
mod preflight;
mod rehearse;
mod token;

use std::time::{SystemTime, UNIX_EPOCH};

use claviger::error::Result;
use claviger::program::Terminal;

pub(crate) use rehearse::in_rehearsal;

use crate::cli::{Cli, Ready};

pub(super) fn run(cli: &Cli, command: &Ready, terminal: &Terminal) -> Result<()> {
    match command {
        Ready::Preflight(options) => preflight::preflight(cli, options, terminal),
        Ready::Rehearse(options) => rehearse::rehearse(options, terminal),
    }
}

/// Seconds since 1970 by this machine's clock; 0 when it stands before.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
