//! The command line of `preflight` and `rehearse`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use claviger::identity::Identifier;

use super::parsed;

#[derive(Subcommand)]
pub(crate) enum Ready {
    /// Say whether this machine is ready: token, plan, store, clock, disk, and whether the others fit
    #[command(after_help = "\
Examples:
  claviger-ceremony preflight --plan plan.toml --name cosigner-1 \\
      --token 'piv:serial=12345678;slot=9d'                     before `init`
  claviger-ceremony preflight                                   after `init`
  claviger-ceremony preflight --json > cosigner-1.json
  claviger-ceremony preflight cosigner-1.json watchtower.json   with the others

A line for each check: ok, warn, or FAIL with what to do. The token is opened, which may ask for its PIN and for touches; \
nothing is changed. Ends with 4 when a check failed.

FILEs are what other machines gave with --json: versions and plans must be equal, clocks within two minutes, names and keys \
different, and every member of the plan there.")]
    Preflight(Preflight),
    /// Play the whole ceremony of a plan with throw-away tokens, and show what each mistake looks like
    #[command(after_help = "\
Examples:
  claviger-ceremony rehearse plan.toml | less
  claviger-ceremony rehearse plan.toml --dir rehearsal
  claviger-ceremony rehearse plan.toml --json | jq '.mistakes[] | {what, message, hint}'

Every command of the runbook is run, several machines side by side, each with a home directory, a store and software keys of its own, in a directory that \
is removed afterwards. Nothing of this machine is touched: no token, no store. What a rehearsal can not do (attest a key, speak) is left out, and said.

Then mistakes are made, one after the other, and what is shown is what the program said. A mistake that is not caught ends it with 4: hold no ceremony then.")]
    Rehearse(Rehearse),
}

#[derive(Args)]
pub(crate) struct Preflight {
    /// What other machines' preflights gave with --json; - is stdin
    #[arg(value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// The plan; after `init` it must be the one that is recorded
    #[arg(long, value_name = "FILE")]
    pub(crate) plan: Option<PathBuf>,
    /// Before `init`: the name that this machine will have
    #[arg(long, value_parser = parsed::<Identifier>)]
    pub(crate) name: Option<Identifier>,
    /// Before `init`: where this machine's key is
    #[arg(long, value_name = "LOCATOR")]
    pub(crate) token: Option<String>,
    /// Before `init`: where its backup key is
    #[arg(long, value_name = "LOCATOR")]
    pub(crate) backup_token: Option<String>,
    /// Leave the tokens alone; the seal can then not be verified
    #[arg(long, conflicts_with_all = ["token", "backup_token"])]
    pub(crate) no_token: bool,
}

#[derive(Args)]
pub(crate) struct Rehearse {
    /// The plan
    #[arg(value_name = "PLAN")]
    pub(crate) plan: PathBuf,
    /// Play it there, and leave everything there: a directory that is empty or not there yet
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Make no mistakes: only the ceremony
    #[arg(long)]
    pub(crate) fast: bool,
}
