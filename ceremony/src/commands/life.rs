//! `life`.

use claviger::error::Result;
use claviger::program::Terminal;

use crate::cli::{Cli, Life};

pub(super) fn run(cli: &Cli, command: &Life, terminal: &Terminal) -> Result<()> {
    let _ = (cli, terminal);
    match *command {}
}
