//! `claviger doctor`: walks everything that a session stands on.

mod alone;
mod asked;
mod step;

use crate::cli::Cli;
use crate::run::{self, Sources};
use crate::status::Control;
use clap::Args;
use claviger::config::Config;
use claviger::daemon::client::Client;
use claviger::endpoint;
use claviger::error::{Error, ErrorKind, Result};
use claviger::program::Terminal;
use claviger::store::{Machine, Store};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use step::{Report, Step};

#[derive(Args)]
#[command(after_help = "\
Examples:
  claviger doctor                 what fails, and the command that mends it
  claviger doctor --token         opens the token, too: asks for its PIN, and may want a touch
  claviger doctor --dial          the same, and has a handshake with every peer
  claviger doctor --json | jq -r '.steps[] | select(.outcome == \"failed\") | .hint'

A running daemon is asked what it knows; without one things are looked at from here. Nothing is changed, and without --token and --dial nobody is asked for a PIN \
or a touch. Ends with 1 when something fails.")]
pub(crate) struct Doctor {
    #[command(flatten)]
    control: Control,

    /// Open the token and the store's seal, which a daemon must not have at the time
    #[arg(long)]
    token: bool,

    /// Have a handshake with every peer, one after the other; with the token, as --token
    #[arg(long)]
    dial: bool,
}

pub(crate) fn run(cli: &Cli, options: &Doctor, terminal: &Terminal) -> Result<()> {
    let report = examine(cli, options, terminal);
    terminal.result(&report.page(terminal.columns().min(120)), &report)?;
    match report.failed() {
        0 => Ok(()),
        failed => Err(Error::new(
            ErrorKind::NotWell,
            if failed == 1 { "1 step fails.".to_owned() } else { format!("{failed} steps fail.") },
            "Mend the first of them, and run `claviger doctor` again.",
        )),
    }
}

fn examine(cli: &Cli, options: &Doctor, terminal: &Terminal) -> Report {
    let mut report = Report::default();
    let Some((dir, config)) = configuration(cli, &mut report) else {
        for about in ["store", "token", "daemon", "transport", "peers"] {
            report.push(Step::skipped(about, "not looked at without a configuration"));
        }
        return report;
    };
    let store = store(&dir, &config, &mut report);
    clock(store.as_ref().map(|(store, _)| store), &mut report);
    limits(&config, &mut report);
    let daemon = daemon(cli, options, &config, &mut report);
    let runs = daemon.is_some();
    match daemon {
        Some(status) => asked::steps(&status, &mut report),
        None => alone::steps(&dir, &config, store.as_ref().map(|(_, machine)| machine), &mut report),
    }
    if let Some((store, _)) = &store {
        peers(store, &mut report);
    }
    if options.token || options.dial {
        if runs {
            report
                .push(Step::skipped("handshakes", "the daemon has the token; what it knows of each peer stands above"));
        } else if report.failed() > 0 {
            report.push(Step::skipped("handshakes", "not tried while something fails"));
        } else {
            alone::dial(cli, options.dial, terminal, &mut report);
        }
    }
    report
}

fn configuration(cli: &Cli, report: &mut Report) -> Option<(PathBuf, Config)> {
    let file = Sources::of(cli).file();
    match run::configuration(cli) {
        Ok(loaded) => {
            let from = match file {
                Ok(Some(path)) => format!("{} is read", path.display()),
                _ => "no file; defaults count".to_owned(),
            };
            report.push(Step::ok("configuration", from));
            Some(loaded)
        }
        Err(error) => {
            report.push(Step::failed("configuration", &error));
            None
        }
    }
}

fn store(dir: &Path, config: &Config, report: &mut Report) -> Option<(Store, Machine)> {
    let opened = Store::open(dir).and_then(|store| {
        let machine = store.machine()?;
        Ok((store, machine))
    });
    let (store, machine) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            report.push(Step::failed("store", &error));
            report.push(Step::skipped("seal", "there is no store to look at"));
            return None;
        }
    };
    report.push(Step::ok("store", format!("of `{}`, in {}", machine.card.identifier, dir.display())));
    match endpoint::is_sealed(&store, config) {
        Ok(true) => report.push(Step::ok("seal", "there; whether it holds is seen when the token is asked")),
        Ok(false) => report.push(Step::warning(
            "seal",
            "The store is not sealed: whoever can write to it can change it unseen.",
            "Look at `claviger-ceremony peers`; then seal it with `claviger-ceremony seal`.",
        )),
        Err(error) => report.push(Step::failed("seal", &error)),
    }
    Some((store, machine))
}

/// What this machine wrote down is not after now.
fn clock(store: Option<&Store>, report: &mut Report) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let last = store.and_then(|store| store.log().ok()?.last().map(|entry| entry.time));
    match last {
        // Clocks are set by seconds, now and then.
        Some(last) if last > now.saturating_add(300) => report.push(Step::failed(
            "clock",
            &Error::new(
                ErrorKind::NotWell,
                format!("The clock is {} min before the last entry of the ceremony log.", (last - now) / 60),
                "Set it: `timedatectl set-ntp true`, or by hand with `timedatectl set-time`.",
            ),
        )),
        Some(_) => report.push(Step::ok("clock", "after everything that was written here; Tor tells more")),
        None => report.push(Step::skipped("clock", "there is nothing to compare it with")),
    }
}

fn limits(config: &Config, report: &mut Report) {
    // As many as this process may have is what a daemon of this user may.
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let wanted = u64::from(config.limits.sessions) + u64::from(config.limits.pending) + 64;
    match files {
        Some(files) if files < wanted => report.push(Step::warning(
            "limits",
            format!("This user may open {files} files, and the sessions that [limits] allows may need {wanted}."),
            "Raise `LimitNOFILE=` in the unit, or `nofile` in /etc/security/limits.conf.",
        )),
        Some(files) => report.push(Step::ok("limits", format!("{files} files may be open"))),
        None => report.push(Step::ok("limits", "any number of files may be open")),
    }
}

fn daemon(
    cli: &Cli,
    options: &Doctor,
    config: &Config,
    report: &mut Report,
) -> Option<claviger::daemon::status::Status> {
    let asked =
        options.control.path(cli).and_then(|path| Client::connect(&path)).and_then(|mut client| client.status());
    match asked {
        Ok(status) => {
            let phase = serde_json::to_value(status.phase).ok();
            let phase = phase.as_ref().and_then(|phase| phase.as_str()).unwrap_or_default();
            report.push(Step::ok("daemon", format!("process {}, {}", status.process, phase.replace('-', " "))));
            Some(status)
        }
        Err(error) if error.kind() == ErrorKind::DaemonAbsent => {
            let serves = !config.service.is_empty() || !config.forward.is_empty() || config.socks.listen.is_some();
            report.push(match serves {
                true => Step::warning("daemon", error.to_string(), error.hint()),
                false => Step::skipped("daemon", "none runs, and the configuration has nothing for it to do"),
            });
            None
        }
        Err(error) => {
            report.push(Step::failed("daemon", &error));
            None
        }
    }
}

fn peers(store: &Store, report: &mut Report) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    match store.peers() {
        Ok(peers) if peers.is_empty() => report.push(Step::warning(
            "peers",
            "The store has no peers.",
            "Hold a ceremony: `claviger-ceremony --help` says how it goes.",
        )),
        Ok(peers) => {
            let expired: Vec<_> = peers.iter().filter(|peer| peer.expires.is_some_and(|end| end <= now)).collect();
            for peer in &expired {
                let name = &peer.identifier;
                report.push(Step::warning(
                    format!("peer {name}"),
                    "Its time has passed: it is a stranger.",
                    format!("If it may go on, run `claviger-ceremony expire {name} --never`, or give it another day."),
                ));
            }
            report.push(Step::ok("peers", format!("{} recorded, {} expired", peers.len(), expired.len())));
        }
        Err(error) => report.push(Step::failed("peers", &error)),
    }
}
