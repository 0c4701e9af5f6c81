//! `claviger`: listen for peers and connect to them, over Tor.

mod cli;
mod config;
mod daemon;
mod doctor;
mod log;
mod logging;
mod onion;
mod policy;
mod pump;
mod rollcall;
mod run;
mod status;

use clap::Parser as _;
use claviger::ExitCode;
use claviger::program::{Terminal, harden};
use cli::Cli;

fn main() -> std::process::ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return Terminal::usage("claviger", &error).into(),
    };
    let terminal = Terminal::new("claviger", cli.json, cli.quiet);
    logging::start(&cli);
    match harden().and_then(|()| run::run(&cli, &terminal)) {
        Ok(()) => ExitCode::Success.into(),
        Err(error) => {
            terminal.error(&error);
            ExitCode::from(error.kind()).into()
        }
    }
}
