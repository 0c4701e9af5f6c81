//! `claviger policy`: Who may open what.

use crate::cli::Cli;
use clap::Args;
use claviger::error::{Error, ErrorKind, Result};
use claviger::program::Terminal;

#[derive(Args)]
pub(crate) struct Policy {}

pub(crate) fn run(_cli: &Cli, _options: &Policy, _terminal: &Terminal) -> Result<()> {
    Err(Error::new(ErrorKind::Internal, "This is not there yet.", "Wait for it."))
}
