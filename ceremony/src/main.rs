//! `claviger-ceremony`: from tokens to peer key stores. Contains no network code.

mod cli;
mod commands;
mod files;
mod pins;
mod report;
mod terminal;

use claviger::error::{Error, ErrorKind, ExitCode, Result};
use rustix::fs::Mode;
use rustix::process::{DumpableBehavior, Resource, Rlimit};

use crate::cli::Cli;
use crate::terminal::Terminal;

fn main() -> std::process::ExitCode {
    let (terminal, outcome) = match Cli::read() {
        Ok(cli) => {
            let terminal = Terminal::new(cli.json, cli.quiet);
            let outcome = harden().and_then(|()| commands::run(&cli, &terminal));
            (terminal, outcome)
        }
        Err(error) => return Terminal::usage(&error).into(),
    };
    match outcome {
        Ok(()) => ExitCode::Success.into(),
        Err(error) => {
            terminal.error(&error);
            ExitCode::from(error.kind()).into()
        }
    }
}

/// No core dumps, no debugger or `/proc/PID/mem` of the same user, and no file that others can read.
fn harden() -> Result<()> {
    let failed = |call: &str, error: rustix::io::Errno| {
        Error::new(
            ErrorKind::Internal,
            format!("This process could not be closed to others: {call}: {error}."),
            "Run it outside the sandbox that forbids this call.",
        )
        .because(error)
    };
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(Resource::Core, none).map_err(|error| failed("setrlimit", error))?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|error| failed("prctl", error))?;
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    Ok(())
}
