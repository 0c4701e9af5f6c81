//! `tornet`: brings a private Tor network on loopback up and down. Run as `scripts/tornet`.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use claviger_testkit::tornet::detached::{self, Status};
use claviger_testkit::tornet::{Error, Timings};

/// A private Tor network on loopback, for demos and for work by hand.
///
/// Four tor daemons, each a directory authority and a relay, on free ports of 127.0.0.1. Needs Debian's package `tor`.
#[derive(Parser)]
#[command(
    name = "tornet",
    after_help = "\
Examples:
  scripts/tornet up                 bring it up in target/tornet, in about 10 s
  scripts/tornet up /tmp/net        the same elsewhere
  scripts/tornet up --json          for scripts: one object on standard output
  scripts/tornet status && echo up
  scripts/tornet down

Exit status: 0 done, or up; 1 failed; 2 wrong usage; 3 not up (status only)."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Bring the network up and leave it running; print the files that put a client on it
    Up(Target),
    /// End the network by its process ids
    Down(Target),
    /// Say whether the network is up
    Status(Target),
}

#[derive(Args)]
struct Target {
    /// Directory of the network [default: target/tornet]
    dir: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Exit status of `status` for a network that is not up.
const NOT_UP: u8 = 3;

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(message) => {
            let _ = writeln!(io::stderr(), "tornet: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode, String> {
    let (Command::Up(target) | Command::Down(target) | Command::Status(target)) = &command;
    let dir = target.dir.clone().unwrap_or_else(detached::default_dir);
    let failed = |e: Error| e.to_string();
    let (text, code) = match command {
        Command::Up(_) => {
            let mut progress = |step: &str| drop(writeln!(io::stderr(), "tornet: {step}"));
            let (status, timings) = detached::up(&dir, &mut progress).map_err(failed)?;
            let text = if target.json { json(&status, Some(timings)) } else { usage(&status, &dir) };
            (text, ExitCode::SUCCESS)
        }
        Command::Down(_) => {
            let ended = detached::down(&dir).map_err(failed)?;
            let text = if target.json {
                serde_json::json!({ "ended": ended }).to_string()
            } else if ended == 0 {
                format!("No network was up in {}.", dir.display())
            } else {
                format!("Ended {ended} tor daemons.")
            };
            (text, ExitCode::SUCCESS)
        }
        Command::Status(_) => {
            let status = detached::status(&dir).map_err(failed)?;
            let text = match (target.json, status.up) {
                (true, _) => json(&status, None),
                (false, true) => usage(&status, &dir),
                (false, false) => format!("Not up in {} ({} daemons run).", dir.display(), status.pids.len()),
            };
            (text, if status.up { ExitCode::SUCCESS } else { ExitCode::from(NOT_UP) })
        }
    };
    writeln!(io::stdout(), "{text}")
        .map_err(|e| format!("could not write to standard output: {e}. Check where it goes."))?;
    Ok(code)
}

fn json(status: &Status, timings: Option<Timings>) -> String {
    let Status { up, pids, arti_config, torrc } = status;
    let mut object = serde_json::json!({ "up": up, "pids": pids, "arti_config": arti_config, "torrc": torrc });
    if let Some(t) = timings {
        object["keys_seconds"] = t.keys.as_secs_f64().into();
        object["keys_cached"] = t.cached.into();
        object["consensus_seconds"] = t.consensus.as_secs_f64().into();
    }
    object.to_string()
}

fn usage(status: &Status, dir: &std::path::Path) -> String {
    format!(
        "The private Tor network is up.\n\
         arti:  {arti}\n       \
         add it to the configuration files of an arti client; give each client its own [storage] directories\n\
         tor:   {torrc}\n       \
         tor --defaults-torrc /dev/null -f TORRC, where TORRC says: %include \"{torrc}\"\n\
         End it with: scripts/tornet down {dir}",
        arti = status.arti_config.display(),
        torrc = status.torrc.display(),
        dir = dir.display(),
    )
}
