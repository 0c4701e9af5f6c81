//! The command line of `challenge`, `prove` and `verify-proof`.

use clap::Subcommand;

#[derive(Subcommand)]
pub(crate) enum Proof {}
