//! One file per group of commands.

pub(crate) mod attend;
mod cards;
mod fresh;
mod init;
mod life;
pub(crate) mod opened;
mod peers;
mod plan;
mod proof;
mod psk;
mod ready;
mod set;
mod token;
mod transcript;

pub(crate) use ready::in_rehearsal;

use clap::CommandFactory;
use claviger::error::Result;
use claviger::store::Store;

use crate::cli::{Cli, Command};
use claviger::program::{Terminal, completions, man, store_dir};

/// Runs the command.
pub(crate) fn run(cli: &Cli, terminal: &Terminal) -> Result<()> {
    match &cli.command {
        Command::Token(token) => token::run(cli.store.as_deref(), token, terminal),
        Command::Init(init) => init::init(&store_dir(cli.store.as_deref())?, init, terminal),
        Command::Export(export) => cards::export(&open(cli)?, export, terminal),
        Command::Import(import) => cards::import(cli, import, terminal),
        Command::Peers => peers::list(&open(cli)?, terminal),
        Command::Show { name } => peers::show(&open(cli)?, name.as_ref(), terminal),
        Command::Remove { name, confirm } => peers::remove(cli, name, confirm.as_ref(), terminal),
        Command::Log => peers::log(&open(cli)?, terminal),
        Command::Plan(command) => plan::run(cli, command, terminal),
        Command::Proof(command) => proof::run(cli, command, terminal),
        Command::Set(command) => set::run(cli, command, terminal),
        Command::Transcript(command) => transcript::run(cli, command, terminal),
        Command::Life(command) => life::run(cli, command, terminal),
        Command::Psk(command) => psk::run(cli, command, terminal),
        Command::Ready(command) => ready::run(cli, command, terminal),
        Command::Completions { shell } => completions(Cli::command(), *shell, terminal),
        Command::Man { dir } => man(Cli::command(), dir.as_deref(), terminal),
    }
}

fn open(cli: &Cli) -> Result<Store> {
    Store::open(&store_dir(cli.store.as_deref())?)
}
