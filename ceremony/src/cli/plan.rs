//! The command line of `plan` and `add`.

use clap::Subcommand;

#[derive(Subcommand)]
pub(crate) enum Plan {}
