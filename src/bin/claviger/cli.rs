//! The command line.

use crate::config::Config as ConfigCommand;
use crate::daemon::Run;
use crate::doctor::Doctor;
use crate::log::Log;
use crate::onion::Onion;
use crate::policy::Policy;
use crate::status::{Reload, Status};
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use claviger::config;
use claviger::identity::{Identifier, IdentityError, ServiceName};
use std::path::PathBuf;
use std::time::Duration;

const EXAMPLE: &str = "\
Two machines that have exchanged identity cards (see claviger-ceremony):
  cosigner$ claviger listen --exec 'sign-psbt --policy /etc/policy'
  wallet$   claviger connect cosigner < unsigned.psbt > signed.psbt
After a ceremony, on all machines at the same time, with people on the phone:
  claviger rollcall";

const EXIT_CODES: &str = "\
Exit codes:
    0  done
    1  a local file, process or this machine failed
    2  the command line is wrong
    3  the configuration is wrong
    4  an identity is malformed, or the machines share no curve or suite
    5  the store is absent, newer, busy, damaged, or open to others
    6  the token or its key is absent, another, in use, or failed
    7  the PIN or passphrase is wrong, missing or locked
    8  tor, arti or the local port is not available
    9  the peer's onion service can not be reached
   10  the handshake failed or was refused
   11  the session broke
   12  no peer of that name is recorded
  130  interrupted";

/// Talk to a peer over Tor, authenticated by the keys on both machines' tokens.
///
/// A connection succeeds only if both ends hold the token whose key the other recorded in the ceremony. stdin and stdout carry the session's
/// bytes; everything for people goes to stderr.
#[derive(Parser)]
#[command(
    name = "claviger",
    version,
    max_term_width = 120,
    after_help = EXAMPLE,
    after_long_help = format!("{EXAMPLE}\n\n{EXIT_CODES}")
)]
pub(crate) struct Cli {
    /// The store's directory [default: $XDG_DATA_HOME/claviger or ~/.local/share/claviger]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) store: Option<PathBuf>,

    /// The configuration file [default: claviger.toml in the store's directory, if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// How bytes reach other machines: Tor in this process, a tor daemon, or plain TCP on private networks
    #[arg(long, global = true)]
    pub(crate) transport: Option<TransportKind>,

    /// The onion service's virtual port; part of what a handshake binds, the same on all machines
    #[arg(long, global = true, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Option<u16>,

    /// Write events and errors to stderr as lines of JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Say more on stderr; twice for what the transports do, three times for all
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,

    /// Print no notes on stderr; warnings, errors and questions remain
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// Whether the token may come later.
    pub(crate) fn waits_for_token(&self) -> bool {
        matches!(self.command, Command::Run(_) | Command::Listen(Listen { wait_for_token: true, .. }))
    }
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Publish this machine's onion service and answer peers
    #[command(after_help = "\
Examples:
  claviger listen                          one peer, with stdin and stdout; ends with the session
  claviger listen --echo                   gives every peer its own bytes back, until interrupted
  claviger listen --exec 'tee -a inbox'    one process a stream, until interrupted
  claviger listen --transport tor --echo   through the tor daemon of this machine

The process of --exec finds the peer's name and role in CLAVIGER_PEER and CLAVIGER_PEER_ROLE, and the service that the peer asked for in CLAVIGER_SERVICE. Strangers are dropped without an answer and
without a token operation.")]
    Listen(Listen),
    /// Connect to a peer, with stdin and stdout
    #[command(after_help = "\
Examples:
  echo hello | claviger connect cosigner
  claviger connect cosigner/cosign < request > answer
  claviger connect cosigner --transport tor --pattern xk < request > answer
  ssh -o ProxyCommand='claviger connect %h' cosigner      (where cosigner runs `claviger listen --exec 'nc 127.0.0.1 22'`)")]
    Connect(Connect),
    /// Serve this machine's services to peers, and bring peers' services here: the daemon
    #[command(after_help = "\
Examples:
  claviger run --config /etc/claviger/claviger.toml
  claviger config example > claviger.toml        a file with every key and what it means

It goes on until SIGTERM or SIGINT; SIGHUP makes it read its file again.")]
    Run(Run),
    /// Ask the daemon how things stand
    Status(Status),
    /// Have the daemon read its configuration file again
    Reload(Reload),
    /// Walk everything that a session stands on, and say what fails and how to mend it
    Doctor(Doctor),
    /// Show the log of connections
    Log(Log),
    /// Check the configuration file, or print one
    Config(ConfigCommand),
    /// Ask who may open what, and why
    Policy(Policy),
    /// For those who administer tor themselves: write what tor needs to publish this machine's onion service, or to reach peers'
    Onion(Onion),
    /// Try every edge of the plan once, with both ends' tokens, and say the same words at both
    #[command(after_help = "\
Examples:
  claviger rollcall                       every edge that begins or ends here
  claviger rollcall --only watchtower-2   those with one machine
  claviger rollcall --timeout 30m         time to go from machine to machine
  claviger rollcall --json | jq .outcome

Run it on all machines at the same time, after the ceremony, where they will stand. Servers listen, clients dial and try again until the time is up. On \
each edge both tokens are asked, and both ends show the same four words: say them on the phone. Each edge's outcome is a line of the ceremony log. Without \
a plan every peer is dialled, and every peer is expected to call. Ends with 11 when an edge failed.")]
    Rollcall(Rollcall),
    /// Print the completion script of a shell
    #[command(
        after_help = "Example:\n  claviger completions bash > ~/.local/share/bash-completion/completions/claviger"
    )]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page, or write one page per command into a directory
    #[command(after_help = "Examples:\n  claviger man | man -l -\n  claviger man target/man")]
    Man {
        /// The directory, which must be there
        dir: Option<PathBuf>,
    },
}

#[derive(Args)]
pub(crate) struct Listen {
    /// Give every peer its own bytes back
    #[arg(long, conflicts_with = "exec")]
    pub(crate) echo: bool,

    /// Run CMD by `sh -c` for every stream of every session, with its stdin and stdout
    #[arg(long, value_name = "CMD")]
    pub(crate) exec: Option<String>,

    /// End after the first session, also with --echo and --exec
    #[arg(long)]
    pub(crate) once: bool,

    /// Start also when the token is not there yet or another program holds it, and open it and the store when it comes. Nothing is published until then
    #[arg(long)]
    pub(crate) wait_for_token: bool,
}

#[derive(Args)]
pub(crate) struct Rollcall {
    /// Give up after so long: 90s, 10m, 2h
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = duration)]
    pub(crate) timeout: Duration,

    /// Only the edges with this peer
    #[arg(long, value_name = "NAME")]
    pub(crate) only: Option<Identifier>,
}

/// A time from a second to a day.
fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let unit = match unit {
        "s" | "" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        _ => 0,
    };
    let seconds = number.parse::<u64>().unwrap_or(0).saturating_mul(unit);
    let known = (1..=86_400).contains(&seconds);
    known
        .then(|| Duration::from_secs(seconds))
        .ok_or_else(|| "a time is from 1s to 24h, as in 90s, 10m or 2h".to_owned())
}

/// A peer, and a service of its.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) name: Identifier,
    pub(crate) service: ServiceName,
}

impl std::str::FromStr for Target {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let (name, service) = text.split_once('/').unwrap_or((text, "stdio"));
        Ok(Self { name: name.parse()?, service: service.parse()? })
    }
}

#[derive(Args)]
pub(crate) struct Connect {
    /// The peer's name in this machine's store, and the service that is asked for [default: stdio]
    #[arg(value_name = "PEER[/SERVICE]")]
    pub(crate) peer: Target,

    /// The handshake: kk (two token operations at each end), kk1 (one), xk (one; the caller's key travels encrypted) [default: as configured, kk]
    #[arg(long)]
    pub(crate) pattern: Option<Pattern>,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum TransportKind {
    Arti,
    Tor,
    Tcp,
}

impl From<TransportKind> for config::TransportKind {
    fn from(kind: TransportKind) -> Self {
        match kind {
            TransportKind::Arti => Self::Arti,
            TransportKind::Tor => Self::Tor,
            TransportKind::Tcp => Self::Tcp,
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Pattern {
    Kk,
    Kk1,
    Xk,
}

impl From<Pattern> for config::Pattern {
    fn from(pattern: Pattern) -> Self {
        match pattern {
            Pattern::Kk => Self::Kk,
            Pattern::Kk1 => Self::Kk1,
            Pattern::Xk => Self::Xk,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn targets() {
        let target: Target = "cosigner/cosign".parse().unwrap();
        assert_eq!((target.name.as_str(), target.service.as_str()), ("cosigner", "cosign"));
        assert_eq!("cosigner".parse::<Target>().unwrap().service.as_str(), "stdio");
        for wrong in ["", "/", "a/", "/a", "a/b/c", "A", "a/B"] {
            assert!(wrong.parse::<Target>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn times() {
        assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(duration("90"), duration("90s"));
        for wrong in ["", "m", "0s", "25h", "1d", "-1s", "1.5m", "99999999999999999999h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    /// Every exit code that a program of the house can give stands in `--help`.
    #[test]
    fn exit_codes_are_documented() {
        for kind in claviger::ErrorKind::ALL {
            let code = claviger::ExitCode::from(*kind).code();
            assert!(EXIT_CODES.lines().any(|line| line.trim_start().starts_with(&format!("{code}  "))), "{code}");
        }
    }
}
