//! `set`.

use claviger::error::Result;
use claviger::program::Terminal;

use crate::cli::{Cli, Set};

pub(super) fn run(cli: &Cli, command: &Set, terminal: &Terminal) -> Result<()> {
    let _ = (cli, terminal);
    match *command {}
}
