//! `claviger-ceremony`: from tokens to peer key stores. Contains no network code.

mod attestation;
mod cli;
mod commands;
mod files;
mod qr;
mod report;

use claviger::ExitCode;
use claviger::program::{Terminal, harden};

use crate::cli::Cli;

fn main() -> std::process::ExitCode {
    let cli = match Cli::read() {
        Ok(cli) => cli,
        Err(error) => return Terminal::usage("claviger-ceremony", &error).into(),
    };
    let terminal = Terminal::new("claviger-ceremony", cli.json, cli.quiet);
    let leave = || if cli.in_rehearsal { commands::in_rehearsal() } else { Ok(()) };
    match harden().and_then(|()| leave()).and_then(|()| commands::run(&cli, &terminal)) {
        Ok(()) => ExitCode::Success.into(),
        Err(error) => {
            terminal.error(&error);
            ExitCode::from(error.kind()).into()
        }
    }
}
