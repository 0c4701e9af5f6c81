//! `transcript`: what was done here, written down, signed, checked and compared.

mod export;
mod text;
mod verify;

use claviger::error::Result;
use claviger::program::Terminal;

use crate::cli::{Cli, Transcript, Verb};

pub(super) fn run(cli: &Cli, command: &Transcript, terminal: &Terminal) -> Result<()> {
    let Transcript::Transcript(export) = command;
    match &export.verb {
        None => export::export(cli, export, terminal),
        Some(Verb::Verify(verify)) => verify::verify(verify, terminal),
    }
}
