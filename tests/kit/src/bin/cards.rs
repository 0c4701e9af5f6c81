//! `cards`: a command beside virtual cards, and the hand that holds them. Run as `scripts/cards`.

use std::env;
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::{self, ExitCode};

use clap::{Parser, Subcommand};
use claviger_testkit::cards::{ADMIN_PIN, PIN, remote};

/// Virtual cards for work by hand: an OpenPGP card, a PIV card and a YubiKey behind a pcscd of their own.
///
/// The command and all it starts see these cards and no others, and no network but loopback. PIN 123456, admin PIN and PUK
/// 12345678, the factory's management key; no keys. Needs root, or a kernel that lets users make namespaces.
#[derive(Parser)]
#[command(
    name = "cards",
    after_help = "\
Examples:
  scripts/cards run                              a shell with the cards
  scripts/cards run -- gpg --card-status
  scripts/cards run -- opensc-tool --list-readers

In another terminal, while that runs:
  scripts/cards status
  scripts/cards pull yubikey
  scripts/cards insert yubikey
  scripts/cards touch yubikey                    when it asks for it; nobody else touches it

Exit status of run: the command's; else 0 done, 1 failed, 2 wrong usage."
)]
struct Cli {
    /// Directory of the socket by which terminals meet [default: target/cards-run]
    #[arg(long, global = true)]
    dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a command, or a shell, with one card of each kind; end the cards with it
    Run {
        /// The command [default: $SHELL]
        #[arg(last = true)]
        command: Vec<OsString>,
    },
    /// Say which cards there are, by locator
    Status,
    /// Pull a card out of its reader
    Pull {
        #[arg(value_parser = remote::NAMES)]
        card: String,
    },
    /// Put a card back
    Insert {
        #[arg(value_parser = remote::NAMES)]
        card: String,
    },
    /// Touch a card that asks for it
    Touch {
        #[arg(value_parser = remote::NAMES)]
        card: String,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let dir = cli.dir.unwrap_or_else(remote::default_dir);
    let request = match cli.command {
        Command::Run { command } => {
            return remote::isolated(|| {
                let _ = writeln!(io::stderr(), "cards: PIN {PIN}, admin PIN and PUK {ADMIN_PIN}");
                remote::run(&dir, command_of(command)).unwrap_or_else(|message| failed(&message))
            });
        }
        Command::Status => "status".to_owned(),
        Command::Pull { card } => format!("pull {card}"),
        Command::Insert { card } => format!("insert {card}"),
        Command::Touch { card } => format!("touch {card}"),
    };
    match remote::ask(&dir, &request) {
        Ok(text) => match write!(io::stdout(), "{text}") {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => failed(&format!("could not write to standard output: {e}. Check where it goes.")),
        },
        Err(message) => failed(&message),
    }
}

fn command_of(words: Vec<OsString>) -> process::Command {
    let mut words = words.into_iter();
    let program = words.next().or_else(|| env::var_os("SHELL")).unwrap_or_else(|| "sh".into());
    let mut command = process::Command::new(program);
    command.args(words);
    command
}

fn failed(message: &str) -> ExitCode {
    let _ = writeln!(io::stderr(), "cards: {message}");
    ExitCode::FAILURE
}
