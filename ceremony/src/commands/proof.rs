//! `proof`.

use claviger::error::Result;
use claviger::program::Terminal;

use crate::cli::{Cli, Proof};

pub(super) fn run(cli: &Cli, command: &Proof, terminal: &Terminal) -> Result<()> {
    let _ = (cli, terminal);
    match *command {}
}
