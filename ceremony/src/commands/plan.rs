//! `plan`.

use claviger::error::Result;
use claviger::program::Terminal;

use crate::cli::{Cli, Plan};

pub(super) fn run(cli: &Cli, command: &Plan, terminal: &Terminal) -> Result<()> {
    let _ = (cli, terminal);
    match *command {}
}
