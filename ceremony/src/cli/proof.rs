//! The command line of `challenge`, `prove` and `verify-proof`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use claviger::ceremony::proof::MAX_VALID;

use super::Output;

#[derive(Subcommand)]
pub(crate) enum Proof {
    /// Make a challenge: ask the tokens in the room whether they hold the keys on their cards
    #[command(after_help = "\
Examples:
  claviger-ceremony challenge                    NAME.challenge in the working directory
  claviger-ceremony challenge --valid 20min /media/stick/wallet.challenge
  claviger-ceremony challenge --qr

One challenge is for all members. It holds for this ceremony and this machine, until it expires by this machine's clock; each key counts once. \
An older challenge of this machine in the same file is replaced, and stays open until it expires.")]
    Challenge(Challenge),
    /// Answer challenges with this machine's token: one operation of the token for each
    #[command(after_help = "\
Examples:
  claviger-ceremony prove wallet.challenge
  claviger-ceremony prove *.challenge --out /media/stick/cosigner.proofs
  claviger-ceremony prove *.challenge --backup
  claviger-ceremony prove screen.jpg --qr

All are read and checked before the token is asked. Challenges of this machine itself, and of members whom no edge of the plan joins to it, are left \
out. A proof shows only its challenger that this token holds this machine's key; it says nothing to anybody else.")]
    Prove(Prove),
    /// Verify the proofs that answer this machine's challenges, and say whose are missing
    #[command(after_help = "\
Examples:
  claviger-ceremony verify-proof cosigner.proofs watchtower.proofs
  claviger-ceremony verify-proof *.proofs --json | jq .lacking

All are read and checked before the first is recorded; one that does not hold, and nothing is. Proofs for other machines' challenges are left out.")]
    VerifyProof(VerifyProof),
}

#[derive(Args)]
pub(crate) struct Challenge {
    #[command(flatten)]
    pub(crate) output: Output,
    /// For how long it holds: 20min, 1h, at most 7days
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = valid)]
    pub(crate) valid: Duration,
}

#[derive(Args)]
pub(crate) struct Prove {
    /// Challenges, as text, or as PNG or JPEG pictures of their QR codes; - is stdin
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// The file to write [default: NAME.proofs, with --backup NAME.backup.proofs, unless --qr, --png or --svg is given]; - is stdout
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Answer with the backup token. The token in use opens the store first
    #[arg(long)]
    pub(crate) backup: bool,
    /// Show the proofs as QR codes, one a screen
    #[arg(long)]
    pub(crate) qr: bool,
    /// Draw their QR codes there, all in one PNG; - is stdout
    #[arg(long, value_name = "FILE")]
    pub(crate) png: Option<PathBuf>,
    /// Draw their QR codes there, all in one SVG; - is stdout
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// Overwrite files that hold something else
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Args)]
pub(crate) struct VerifyProof {
    /// Proofs, as text, or as PNG or JPEG pictures of their QR codes; - is stdin
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
}

impl Prove {
    /// Where the proofs go.
    pub(crate) fn output(&self) -> Output {
        Output { file: self.out.clone(), qr: self.qr, png: self.png.clone(), svg: self.svg.clone(), force: self.force }
    }
}

impl Proof {
    /// What clap can not say.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        match self {
            Self::Challenge(challenge) => challenge.output.check(),
            Self::Prove(prove) => prove.output().check(),
            Self::VerifyProof(_) => Ok(()),
        }
    }
}

fn valid(text: &str) -> Result<Duration, String> {
    let valid = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let bounds = Duration::from_secs(1)..=Duration::from_secs(MAX_VALID);
    if bounds.contains(&valid) { Ok(valid) } else { Err("a challenge holds for one second to seven days".into()) }
}
