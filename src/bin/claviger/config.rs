//! `claviger config`: the configuration file, checked, shown, described.

mod warnings;

use crate::cli::Cli;
use crate::run::Sources;
use clap::{Args, Subcommand};
use claviger::config::{self, Config as File};
use claviger::error::{Error, ErrorKind, Result};
use claviger::program::{Terminal, shown};
use serde::Serialize;
use std::path::{Path, PathBuf};
use warnings::Warning;

#[derive(Args)]
pub(crate) struct Config {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Say what is wrong with the file, and what is probably not meant
    #[command(after_help = "\
Examples:
  claviger config check /etc/claviger/claviger.toml && systemctl reload claviger
  claviger config check - < claviger.toml
  claviger config check --json | jq '.problems[]'

Peers that are named are looked for in the store, which needs no token. Ends with 3 when something is wrong, and with 0 when there are only warnings.")]
    Check {
        /// The file; - is stdin [default: that of --config, else claviger.toml in the store's directory]
        file: Option<PathBuf>,
    },
    /// Print a file with every key, its meaning and its default
    #[command(after_help = "Example:\n  claviger config example > claviger.toml")]
    Example,
    /// Print the JSON Schema of the file, for editors
    #[command(after_help = "Example:\n  claviger config schema > claviger.schema.json")]
    Schema,
}

#[derive(Serialize)]
struct Problem {
    message: String,
    hint: String,
}

#[derive(Serialize)]
struct Checked {
    file: String,
    problems: Vec<Problem>,
    warnings: Vec<Warning>,
}

pub(crate) fn run(cli: &Cli, options: &Config, terminal: &Terminal) -> Result<()> {
    match &options.command {
        Command::Check { file } => check(cli, file.clone(), terminal),
        Command::Example => terminal.data(config::EXAMPLE.as_bytes()),
        Command::Schema => {
            let schema = config::schema();
            let pretty = serde_json::to_string_pretty(&schema).unwrap_or_default();
            terminal.data(format!("{pretty}\n").as_bytes())
        }
    }
}

fn check(cli: &Cli, file: Option<PathBuf>, terminal: &Terminal) -> Result<()> {
    let mut sources = Sources::of(cli);
    if file.is_some() {
        sources.name(file);
    }
    let path = sources.file()?.ok_or_else(|| {
        Error::new(
            ErrorKind::ConfigInvalid,
            "There is no claviger.toml in the store's directory, and none was named: the defaults are in force.",
            "Name a file, or begin one with `claviger config example`.",
        )
    })?;
    let text = config::read(&path)?;
    let name = shown(&path);
    let problems = File::problems(&text, Path::new(&name));
    let warnings = match problems.is_empty() {
        true => warnings::of(&File::parse(&text, &path)?, &path, &sources),
        false => Vec::new(),
    };
    let mut page = String::new();
    for problem in &problems {
        page.push_str(&format!("{problem} {}\n", problem.hint()));
    }
    for Warning { about, message, hint } in &warnings {
        page.push_str(&format!("Warning: {about}: {message} {hint}\n"));
    }
    match (problems.len(), warnings.len()) {
        (0, 0) => page.push_str(&format!("{name} is right.\n")),
        (0, _) => page.push_str(&format!("{name} can be used.\n")),
        _ => {}
    }
    let told = problems.iter().map(|error| Problem { message: error.to_string(), hint: error.hint().to_owned() });
    let checked = Checked { file: name.clone(), problems: told.collect(), warnings };
    terminal.result(&page, &checked)?;
    match problems.len() {
        0 => Ok(()),
        1 => Err(wrong(format!("{name} is wrong in one place."))),
        places => Err(wrong(format!("{name} is wrong in {places} places."))),
    }
}

fn wrong(what: String) -> Error {
    Error::new(ErrorKind::ConfigInvalid, what, "Correct it; `claviger config example` has every key with its meaning.")
}
