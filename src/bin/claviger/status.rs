//! `claviger status`: What the daemon says of itself.

use crate::cli::Cli;
use clap::Args;
use claviger::error::{Error, ErrorKind, Result};
use claviger::program::Terminal;

#[derive(Args)]
pub(crate) struct Status {}

pub(crate) fn run(_cli: &Cli, _options: &Status, _terminal: &Terminal) -> Result<()> {
    Err(Error::new(ErrorKind::Internal, "This is not there yet.", "Wait for it."))
}

pub(crate) fn reload(_cli: &Cli, _terminal: &Terminal) -> Result<()> {
    Err(Error::new(ErrorKind::Internal, "This is not there yet.", "Wait for it."))
}
