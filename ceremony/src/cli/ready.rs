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
