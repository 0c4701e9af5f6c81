//! Where log events go: stderr, as lines for people or as JSON.

use crate::cli::{Cli, Command};
use claviger::program::LogWriter;
use std::io::IsTerminal as _;
use tracing_subscriber::EnvFilter;

/// Starts logging. A listener shows connection attempts and changes of its service from the start; `connect` only what went wrong.
pub(crate) fn start(cli: &Cli) {
    let directives = match (cli.verbose, &cli.command) {
        _ if cli.quiet => "warn,tor_netdir=error",
        // What the service does is told by notes, where there are any.
        (0, Command::Listen(_) | Command::Rollcall(_)) if cli.json => "warn,tor_netdir=error,claviger=info",
        (0, Command::Run(_)) => "warn,tor_netdir=error,claviger=info",
        (0, Command::Listen(_)) => "warn,tor_netdir=error,claviger::connection=info,claviger::token=info",
        // Each edge has a line of its own, and each failure its reason below the table.
        (0, Command::Rollcall(_)) => "warn,tor_netdir=error,claviger::connection=off",
        // The error itself is printed at the end.
        (0, _) if !cli.json => "warn,tor_netdir=error,claviger::connection=off",
        (0 | 1, _) => "warn,tor_netdir=error,claviger=info",
        (2, _) => "info,claviger=debug",
        _ => "debug,claviger=trace",
    };
    // Touches and PINs are shown as they are waited for, where there is somebody to see it.
    let waits = if cli.json { "" } else { ",claviger::token::notice=off" };
    // What it has to say is said by whoever asked through it.
    let waits = format!("{waits},pinentry=off");
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(format!("{directives}{waits}")))
        .with_writer(|| LogWriter)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none());
    // Only a second subscriber could make this fail.
    let _ = if cli.json { subscriber.json().flatten_event(true).try_init() } else { subscriber.try_init() };
}
