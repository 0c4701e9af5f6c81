//! `transcript`.

use claviger::error::Result;
use claviger::program::Terminal;

use crate::cli::{Cli, Transcript};

pub(super) fn run(cli: &Cli, command: &Transcript, terminal: &Terminal) -> Result<()> {
    let _ = (cli, terminal);
    match *command {}
}
