//! One file per group of commands.

mod cards;
mod init;
mod peers;
mod token;

use std::path::PathBuf;

use clap::CommandFactory;
use claviger::error::{Error, ErrorKind, Result};
use claviger::store::{Store, default_dir};

use crate::cli::{Cli, Command, Token};
use crate::files::failed;
use crate::terminal::Terminal;

/// Runs the command.
pub(crate) fn run(cli: &Cli, terminal: &Terminal) -> Result<()> {
    match &cli.command {
        Command::Token(Token::List(list)) => token::list(list, terminal),
        Command::Token(Token::Generate(generate)) => token::generate(generate, terminal),
        Command::Init(init) => init::init(&store_dir(cli)?, init, terminal),
        Command::Export(export) => cards::export(&open(cli)?, export, terminal),
        Command::Import(import) => cards::import(&mut open(cli)?, import, terminal),
        Command::Peers => peers::list(&open(cli)?, terminal),
        Command::Show { name } => peers::show(&open(cli)?, name.as_ref(), terminal),
        Command::Remove { name, yes } => peers::remove(&mut open(cli)?, name, *yes, terminal),
        Command::Log => peers::log(&open(cli)?, terminal),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "claviger-ceremony", &mut script);
            terminal.data(&script)
        }
        Command::Man { dir: None } => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command())
                .render(&mut page)
                .map_err(|error| failed("the manual page".as_ref(), "render", error))?;
            terminal.data(&page)
        }
        Command::Man { dir: Some(dir) } => {
            clap_mangen::generate_to(Cli::command(), dir)
                .map_err(|error| failed(dir, "write manual pages into", error))?;
            terminal.note(&format!("Wrote the manual pages into {}.", dir.display()));
            Ok(())
        }
    }
}

fn store_dir(cli: &Cli) -> Result<PathBuf> {
    cli.store.clone().or_else(default_dir).ok_or_else(|| {
        Error::new(
            ErrorKind::ConfigInvalid,
            "There is no place for the store: neither XDG_DATA_HOME nor HOME names an absolute path.",
            "Name the directory with `--store DIR`.",
        )
    })
}

fn open(cli: &Cli) -> Result<Store> {
    Store::open(&store_dir(cli)?)
}
