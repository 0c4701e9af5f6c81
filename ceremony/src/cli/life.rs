//! The command line of what happens after a ceremony: `seal`, `switch`, `revoke`, `expire`, `rotate`.

use clap::Subcommand;

#[derive(Subcommand)]
pub(crate) enum Life {}
