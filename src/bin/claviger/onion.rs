//! `claviger onion`: The onion service, for those who administer tor themselves.

use crate::cli::Cli;
use clap::Args;
use claviger::error::{Error, ErrorKind, Result};
use claviger::program::Terminal;

#[derive(Args)]
pub(crate) struct Onion {}

pub(crate) fn run(_cli: &Cli, _options: &Onion, _terminal: &Terminal) -> Result<()> {
    Err(Error::new(ErrorKind::Internal, "This is not there yet.", "Wait for it."))
}
