//! The command line of `phrase`, `confirm` and `witness`.

use clap::Subcommand;

#[derive(Subcommand)]
pub(crate) enum Set {}
