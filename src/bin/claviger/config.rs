//! `claviger config`: The configuration file.

use crate::cli::Cli;
use clap::Args;
use claviger::error::{Error, ErrorKind, Result};
use claviger::program::Terminal;

#[derive(Args)]
pub(crate) struct Config {}

pub(crate) fn run(_cli: &Cli, _options: &Config, _terminal: &Terminal) -> Result<()> {
    Err(Error::new(ErrorKind::Internal, "This is not there yet.", "Wait for it."))
}
