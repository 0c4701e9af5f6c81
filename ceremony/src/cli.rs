//! The command line.

mod cards;
mod life;
mod plan;
mod proof;
mod psk;
mod ready;
mod set;
mod token;
mod transcript;

use std::path::PathBuf;
use std::str::FromStr;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use claviger::identity::{Identifier, IdentityError, Kem, Role, Suites};

pub(crate) use cards::{Export, Import, Output};
pub(crate) use life::{Backup, BackupAdd, Expire, Life, OVERLAP, Reseal, Rotate, Seal};
pub(crate) use plan::{Add, Example, Format, New, Plan, PlanFile, Print, Record};
pub(crate) use proof::{Challenge, Proof, Prove, VerifyProof};
pub(crate) use psk::{NewKey, Psk, RecordKey};
pub(crate) use ready::{Preflight, Ready, Rehearse};
pub(crate) use set::{Confirm, Set};
pub(crate) use token::{Attest, Backend, Explain, Generate, List, Test, Token};
pub(crate) use transcript::{Export as ExportTranscript, Transcript, Verb, Verify};

const EXAMPLE: &str = "\
A ceremony, on each machine:
  claviger-ceremony token list
  claviger-ceremony token generate --curve x25519 \\
      'pkcs11:token=cosigner;object=noise?module-path=/usr/lib/softhsm/libsofthsm2.so'
  claviger-ceremony init --name cosigner --role cosigner --token 'pkcs11:…'
  claviger-ceremony export
  claviger-ceremony import wallet.card";

const EXIT_CODES: &str = "\
Exit codes:
    0  done
    1  a local file, process or this machine failed
    2  the command line is wrong
    3  the configuration is wrong
    4  a card or a step of the ceremony was refused (malformed, mismatch, conflict, declined),
       or something is missing for it
    5  the store is absent, there already, newer, busy, damaged, open to others, not sealed,
       sealed to other keys, or was changed outside this tool
    6  the token or its key is absent, another, in use, or failed
    7  the PIN or passphrase is wrong, missing or locked
   12  no peer of that name is recorded
  130  interrupted";

/// The heading of what every command takes, so that it does not stand between a command's own options.
const EVERYWHERE: &str = "Options of every command";

/// Both sentences of why a value is refused.
fn parsed<T: FromStr<Err = IdentityError>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: IdentityError| format!("{error} {}", error.hint()))
}

/// The ceremony: machines get their identity from a token, and record each other's identity cards.
///
/// The machines of a group meet once, in person or on trusted screens. Each makes a key on its token, sets its store up, and exports its
/// identity card; each imports the others' cards, and people compare fingerprints. This program has no network code: cards travel as files.
#[derive(Parser)]
#[command(
    name = "claviger-ceremony",
    version,
    max_term_width = 120,
    after_help = EXAMPLE,
    after_long_help = format!("{EXAMPLE}\n\n{EXIT_CODES}")
)]
pub(crate) struct Cli {
    /// The store's directory [default: $XDG_DATA_HOME/claviger or ~/.local/share/claviger]
    #[arg(long, global = true, value_name = "DIR", help_heading = EVERYWHERE)]
    pub(crate) store: Option<PathBuf>,

    /// Print one line of JSON on stdout; on stderr, {"error":{"kind","message","hint"}}, {"warning":{"message"}} and {"request":{"message"}}
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    pub(crate) json: bool,

    /// Print no notes on stderr; errors, warnings and questions remain
    #[arg(short, long, global = true, help_heading = EVERYWHERE)]
    pub(crate) quiet: bool,

    /// `rehearse` started this
    #[arg(long, global = true, hide = true)]
    pub(crate) in_rehearsal: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Look at tokens, and make keys on them
    #[command(subcommand)]
    Token(Token),
    /// Set this machine up: its identity, its onion address, its store
    #[command(after_help = "\
Examples:
  claviger-ceremony init --plan plan.toml --name cosigner \\
      --token 'piv:serial=12345678;slot=9d' --backup-token openpgp:0006:87654321
  claviger-ceremony init --name cosigner --role cosigner \\
      --token 'pkcs11:token=cosigner;object=noise?module-path=/usr/lib/softhsm/libsofthsm2.so'

Each token is opened in turn, which may ask for its PIN and for touches; where there is one place to plug them in, the second is \
asked for. The onion service's key is made here, so the address is known before anything runs. The store is sealed to the tokens.

The card offers ML-KEM-768 (FIPS 203). What two machines that offer it say to each other, and somebody records, can not be read later with a quantum computer; with \
--kem none it can, unless the two hold a pre-shared key.

A YubiKey attests the keys that it made. The card then carries the proof, which each importing machine verifies up to the maker's root.")]
    Init(Init),
    /// Write this machine's identity card, or show it as QR codes
    #[command(after_help = "\
Examples:
  claviger-ceremony export                       NAME.card in the working directory
  claviger-ceremony export /media/stick/a.card
  claviger-ceremony export --qr                  on this screen, for another machine's camera
  claviger-ceremony export --svg card.svg        to print

A card is public. A file that holds anything else is not overwritten without --force. A QR code holds the card's text as it is; a card that is \
too long for one is cut into numbered parts. On a terminal of 80 by 24 parts are small, and many when the card carries attestations.")]
    Export(Export),
    /// Record other machines by their identity cards, after comparing fingerprints
    #[command(after_help = "\
Examples:
  claviger-ceremony import cosigner.card watchtower.card
  claviger-ceremony import /media/camera/*.jpg
  claviger-ceremony import cosigner.card --fingerprint '0f1e 2d3c 4b5a 6978 8796 a5b4 c3d2 e1f0'

A file may hold several cards, a picture several QR codes; the parts of a long card may come from several pictures, in any order. All are read \
and checked, against the plan if there is one, before the first question.

`claviger-ceremony show` on the other machine shows its fingerprint. Here two of its eight words, others for each card, are left \
out; type them from the other machine's screen. --fingerprint compares in full and asks nothing.

An attestation on a card is verified, and the card refused when it does not hold. A card without one has only its own word for where its keys are.")]
    Import(Import),
    /// List the recorded peers
    #[command(after_help = "Example:\n  claviger-ceremony peers --json | jq -r '.peers[].identifier'")]
    Peers,
    /// Show this machine's identity, or a peer's, in full
    #[command(after_help = "Examples:\n  claviger-ceremony show\n  claviger-ceremony show cosigner --json")]
    Show {
        /// The peer; without it, this machine
        #[arg(value_parser = parsed::<Identifier>)]
        name: Option<Identifier>,
    },
    /// Remove a peer: from now on neither side's handshakes succeed
    #[command(
        after_help = "Examples:\n  claviger-ceremony remove cosigner\n  claviger-ceremony remove cosigner --confirm cosigner"
    )]
    Remove {
        /// The peer
        #[arg(value_parser = parsed::<Identifier>)]
        name: Identifier,
        /// Its name again: do not ask to type it
        #[arg(long, value_name = "NAME", value_parser = parsed::<Identifier>)]
        confirm: Option<Identifier>,
    },
    #[command(flatten)]
    Plan(Plan),
    #[command(flatten)]
    Proof(Proof),
    #[command(flatten)]
    Set(Set),
    #[command(flatten)]
    Transcript(Transcript),
    #[command(flatten)]
    Life(Life),
    /// Keys that two machines hold beside their tokens, against quantum computers and broken curves
    #[command(subcommand)]
    Psk(Psk),
    #[command(flatten)]
    Ready(Ready),
    /// Show the ceremony log, oldest entry first
    #[command(
        after_help = "Example:\n  claviger-ceremony log --json | jq '.log[] | select(.event == \"peer-removed\")'"
    )]
    Log,
    /// Print the completion script of a shell
    #[command(after_help = "\
Example:
  claviger-ceremony completions bash > ~/.local/share/bash-completion/completions/claviger-ceremony")]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page, or write one page per command into a directory
    #[command(after_help = "Examples:\n  claviger-ceremony man | man -l -\n  claviger-ceremony man target/man")]
    Man {
        /// The directory, which must be there
        dir: Option<PathBuf>,
    },
}

#[derive(Args)]
pub(crate) struct Init {
    /// This machine's name, unique in the group: a-z, 0-9 and hyphens
    #[arg(long, value_parser = parsed::<Identifier>)]
    pub(crate) name: Identifier,
    /// What it is for: wallet, cosigner, watchtower, or a word of your own; a plan says it
    #[arg(long, value_parser = parsed::<Role>, required_unless_present = "plan")]
    pub(crate) role: Option<Role>,
    /// Where its key is: openpgp:…, piv:…, tpm2:…, pkcs11:… or file:PATH
    #[arg(long, value_name = "LOCATOR")]
    pub(crate) token: String,
    /// Where a second key is, with which it goes on when the first token is lost; a plan can demand it
    #[arg(long, value_name = "LOCATOR")]
    pub(crate) backup_token: Option<String>,
    /// The ceremony's plan: this machine, and every card that it records, is checked against it
    #[arg(long, value_name = "FILE")]
    pub(crate) plan: Option<PathBuf>,
    /// The suites it offers, most wanted first, separated by one space: ChaChaPoly_BLAKE2s, AESGCM_SHA256
    #[arg(long, default_value_t, value_parser = parsed::<Suites>)]
    pub(crate) suites: Suites,
    /// The key encapsulation mechanism it offers: handshakes with machines that offer it, too, are post-quantum
    #[arg(long, value_enum, value_name = "KEM", default_value = "ml-kem-768")]
    pub(crate) kem: OfferedKem,
    /// Leave the token's attestation out of the card: it tells every peer the device's serial number
    #[arg(long)]
    pub(crate) no_attestation: bool,
    /// Record no card, ever, that does not prove that its key is in a device
    #[arg(long)]
    pub(crate) require_attestation: bool,
    /// A root certificate, PEM, to believe beside the makers', in every import; may be repeated
    #[arg(long, value_name = "FILE")]
    pub(crate) attestation_root: Vec<PathBuf>,
    /// Do not seal the store, for a token that can not be asked whenever a daemon starts: whoever can write to the store's file can
    /// then change it unseen, and its secrets are in it in the clear
    #[arg(long)]
    pub(crate) unsealed: bool,
}

/// What a card offers against quantum computers. The values have no help of their own, which would take a screen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum OfferedKem {
    #[default]
    #[value(name = "ml-kem-768")]
    MlKem768,
    None,
}

impl From<OfferedKem> for Option<Kem> {
    fn from(offered: OfferedKem) -> Self {
        match offered {
            OfferedKem::MlKem768 => Some(Kem::MlKem768),
            OfferedKem::None => None,
        }
    }
}

impl Cli {
    /// Parses the process's arguments, and checks what clap can not say.
    pub(crate) fn read() -> Result<Self, clap::Error> {
        let cli = Self::try_parse()?;
        let checked = match &cli.command {
            Command::Export(export) => export.output.check(),
            Command::Proof(proof) => proof.check(),
            Command::Life(life) => life.check(),
            Command::Transcript(transcript) => transcript.check(cli.json),
            _ => Ok(()),
        };
        checked.map_err(|text| Self::command().error(ErrorKind::ArgumentConflict, text))?;
        Ok(cli)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Every command that does something has an example of itself in its help.
    #[test]
    fn every_command_has_an_example() {
        fn check(command: &clap::Command, path: &str) {
            for command in command.get_subcommands().filter(|command| command.get_name() != "help") {
                let path = format!("{path} {}", command.get_name());
                check(command, &path);
                if command.is_subcommand_required_set() {
                    continue;
                }
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("Example") && help.contains(&format!("  {path}")), "{path}");
            }
        }
        check(&Cli::command(), "claviger-ceremony");
    }

    /// What messages and documents tell people to type is there: commands, and their options.
    #[test]
    fn commands_that_are_named_are_there() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mut files = vec![root.join("README.md")];
        let mut directories = ["docs", "src", "ceremony/src"].map(|name| root.join(name)).to_vec();
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                let ends = |end| path.extension().is_some_and(|extension| extension == end);
                if path.is_dir() {
                    directories.push(path);
                } else if ends("rs") || ends("md") {
                    files.push(path);
                }
            }
        }
        let mut all = Cli::command();
        all.build();
        let (mut seen, mut wrong) = (0, Vec::new());
        for file in files {
            for command in commands(&std::fs::read_to_string(&file).unwrap()) {
                seen += 1;
                if let Err(what) = known(&all, &command) {
                    wrong.push(format!("{}: {what}: {command}", file.display()));
                }
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert!(seen > 100, "{seen}");
    }

    /// What stands in backticks, and what a prompt or an example shows.
    fn commands(text: &str) -> Vec<String> {
        const NAME: &str = "claviger-ceremony ";
        // A string, or a shell's command, that goes on in the next line.
        let lines: Vec<&str> = text.lines().collect();
        let mut whole = String::new();
        for line in lines {
            let line = line.trim_end();
            match line.strip_suffix('\\') {
                Some(begun) => whole += &format!("{} ", begun.trim_end_matches('\\').trim()),
                None => whole += &format!("{}\n", line.trim_start()),
            }
        }
        let mut found = Vec::new();
        for (at, _) in whole.match_indices(NAME) {
            let before = whole[..at].chars().next_back();
            let end = match before {
                Some('`') => '`',
                Some(' ' | '\n') if whole[..at].ends_with("$ ") || whole[..at].ends_with('\n') => '\n',
                _ => continue,
            };
            let command = whole[at + NAME.len()..].split(end).next().unwrap_or_default();
            // What a shell does with it, and what is said about it.
            let command = command.split(" | ").next().unwrap_or_default().split("    ").next().unwrap_or_default();
            found.push(command.replace("\\n", " "));
        }
        found
    }

    fn known(all: &clap::Command, command: &str) -> Result<(), String> {
        let mut at = all;
        let mut positional = false;
        for word in command.split_whitespace() {
            let word = word.trim_end_matches(['.', ',', ';', '"', ')']);
            if let Some(option) = word.strip_prefix("--") {
                let option = option.split('=').next().unwrap_or_default();
                let is = |argument: &clap::Arg| argument.get_long() == Some(option);
                if !option.is_empty() && !["help", "version"].contains(&option) && !at.get_arguments().any(is) {
                    return Err(format!("no option --{option}"));
                }
            } else if let Some(next) = at.find_subcommand(word).filter(|_| !positional) {
                at = next;
            } else if at.is_subcommand_required_set() && !word.starts_with(['{', '-']) {
                return Err(format!("no command {word}"));
            } else {
                positional = true;
            }
        }
        Ok(())
    }

    /// Every exit code that this program can give stands in `--help`.
    #[test]
    fn exit_codes_are_documented() {
        let codes = claviger::ErrorKind::ALL.iter().map(|kind| claviger::error::ExitCode::from(*kind).code());
        for code in codes.filter(|code| !(8..=11).contains(code)) {
            assert!(EXIT_CODES.lines().any(|line| line.trim_start().starts_with(&format!("{code}  "))), "{code}");
        }
    }
}
