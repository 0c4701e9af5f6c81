//! `claviger status`: what the daemon says of itself; and `claviger reload`.

mod screen;

use crate::cli::Cli;
use crate::run;
use clap::Args;
use claviger::config::Config;
use claviger::daemon::client::{Client, Content, Request, control_path};
use claviger::error::{Error, ErrorKind, Result};
use claviger::program::{Terminal, store_dir};
use screen::Page;
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
#[command(after_help = "\
Examples:
  claviger status                     what works, what does not, and what to do about it
  claviger status --watch             the same, kept up to date until ^C
  claviger status --json | jq .peers  for programs; with --watch a line whenever something has changed
  claviger status --check -q          for scripts: ends with 1 when not all is well

A peer is
  needed        the configuration keeps a session with it or forwards to it, and there was none since the start
  known         recorded, there is no session with it, and none is wanted now
  operational   there is a session, and the peer was heard of in it
  degraded      there is a session, and something is wrong with it, or about to be
  interrupted   there was a session; it was lost, and another one is tried for

Ends with 0 when the daemon answers, whatever it says.")]
pub(crate) struct Status {
    #[command(flatten)]
    control: Control,

    /// Show it anew whenever something has changed, until interrupted
    #[arg(long)]
    watch: bool,

    /// End with 1 when not all is well
    #[arg(long, conflicts_with = "watch")]
    check: bool,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  claviger reload          says what has changed
  systemctl reload claviger

All or nothing: when the file is wrong, or has what only a restart can change, nothing changes, and the reason is told here, in the log and in the status. \
Sessions and streams that stay allowed go on; those that do not end at once.")]
pub(crate) struct Reload {
    #[command(flatten)]
    control: Control,
}

impl Control {
    pub(crate) fn path(&self, cli: &Cli) -> Result<PathBuf> {
        if let Some(path) = &self.control {
            return Ok(path.clone());
        }
        // Root in a script, and a program of the system, may have no home, and so no store of their own.
        let packaged = Path::new(PACKAGED);
        if cli.config.is_none() && store_dir(cli.store.as_deref()).is_err() && packaged.exists() {
            return Ok(packaged.to_owned());
        }
        let sources = run::Sources::of(cli);
        let (dir, config, wrong) = match sources.load() {
            Ok((dir, config)) => (dir, config, None),
            // The daemon works by the file as it was: it says itself what is wrong with the new one.
            Err(error) => {
                let config = sources.file()?.map(|file| Config::where_to_ask(&file)).unwrap_or_default();
                (sources.dir(&config)?, config, Some(error))
            }
        };
        let path = control_path(&config, &dir);
        if let Some(error) = wrong.filter(|_| !path.exists()) {
            return Err(error);
        }
        // The socket that is there, unless the configuration names one.
        let takes_packaged = config.daemon.control.is_none() && !path.exists() && packaged.exists();
        Ok(if takes_packaged { packaged.to_owned() } else { path })
    }

    pub(crate) fn client(&self, cli: &Cli) -> Result<Client> {
        Client::connect(&self.path(cli)?)
    }
}

pub(crate) fn run(cli: &Cli, options: &Status, terminal: &Terminal) -> Result<()> {
    let mut client = options.control.client(cli)?;
    if options.watch {
        return watch(&mut client, terminal);
    }
    let status = client.status()?;
    let page = Page { columns: terminal.columns(), colours: terminal.has_colours(), is_cut: false };
    if terminal.is_json() {
        terminal.result("", &status)?;
    } else if !(options.check && cli.quiet) {
        terminal.data(page.of(&status).as_bytes())?;
    }
    if options.check && !status.well {
        return Err(Error::new(
            ErrorKind::NotWell,
            format!("Not all is well with `{}`.", status.machine),
            "Look at `claviger status`.",
        ));
    }
    Ok(())
}

/// Ends with the daemon, or with ^C: nothing of the terminal was changed that would have to be mended.
fn watch(client: &mut Client, terminal: &Terminal) -> Result<()> {
    let mut answer = client.ask(&Request::Watch {})?;
    loop {
        if let Content::Status(status) = &answer {
            if terminal.is_json() {
                terminal.result("", status)?;
            } else {
                // It may have been resized.
                let page = Page { columns: terminal.columns(), colours: terminal.has_colours(), is_cut: true };
                terminal.redraw(&page.of(status))?;
            }
        }
        answer = client.next()?;
    }
}

pub(crate) fn reload(cli: &Cli, options: &Reload, terminal: &Terminal) -> Result<()> {
    let answer = options.control.client(cli)?.ask(&Request::Reload {})?;
    let changes = match &answer {
        Content::Reloaded { changes } if !changes.is_empty() => changes.join("\n"),
        _ => "Nothing has changed.".into(),
    };
    terminal.result(&format!("{changes}\n"), &answer)
}
