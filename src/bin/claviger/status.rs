//! `claviger status`: what the daemon says of itself; and `claviger reload`.

use crate::cli::Cli;
use crate::run;
use clap::Args;
use claviger::daemon::client::{Client, Content, Request, control_path};
use claviger::error::Result;
use claviger::program::Terminal;
use std::path::{Path, PathBuf};

/// Where the service manager's daemon has its socket, as packaged.
const PACKAGED: &str = "/run/claviger/control.sock";

/// Which daemon.
#[derive(Args)]
pub(crate) struct Control {
    /// The daemon's control socket [default: as the configuration says, else control.sock in the store's directory, else /run/claviger/control.sock]
    #[arg(long, value_name = "PATH")]
    pub(crate) control: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Status {
    #[command(flatten)]
    control: Control,
}

#[derive(Args)]
pub(crate) struct Reload {
    #[command(flatten)]
    control: Control,
}

impl Control {
    pub(crate) fn path(&self, cli: &Cli) -> Result<PathBuf> {
        if let Some(path) = &self.control {
            return Ok(path.clone());
        }
        let (dir, config) = run::configuration(cli)?;
        let path = control_path(&config, &dir);
        // The socket that is there, unless the configuration names one.
        let packaged = Path::new(PACKAGED);
        let takes_packaged = config.daemon.control.is_none() && !path.exists() && packaged.exists();
        Ok(if takes_packaged { packaged.to_owned() } else { path })
    }

    pub(crate) fn client(&self, cli: &Cli) -> Result<Client> {
        Client::connect(&self.path(cli)?)
    }
}

pub(crate) fn run(cli: &Cli, options: &Status, terminal: &Terminal) -> Result<()> {
    let status = options.control.client(cli)?.status()?;
    terminal.result(&format!("{status:#?}\n"), &status)
}

pub(crate) fn reload(cli: &Cli, options: &Reload, terminal: &Terminal) -> Result<()> {
    let answer = options.control.client(cli)?.ask(&Request::Reload {})?;
    let changes = match &answer {
        Content::Reloaded { changes } if !changes.is_empty() => changes.join("\n"),
        _ => "Nothing has changed.".into(),
    };
    terminal.result(&format!("{changes}\n"), &answer)
}
