//! The command line of `preflight` and `rehearse`.

use clap::Subcommand;

#[derive(Subcommand)]
pub(crate) enum Ready {}
