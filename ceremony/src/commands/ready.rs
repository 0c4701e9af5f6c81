//! `ready`.

use claviger::error::Result;
use claviger::program::Terminal;

use crate::cli::{Cli, Ready};

pub(super) fn run(cli: &Cli, command: &Ready, terminal: &Terminal) -> Result<()> {
    let _ = (cli, terminal);
    match *command {}
}
