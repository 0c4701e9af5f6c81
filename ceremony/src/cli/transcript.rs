//! The command line of `transcript`.

use clap::Subcommand;

#[derive(Subcommand)]
pub(crate) enum Transcript {}
