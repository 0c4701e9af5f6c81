//! `claviger onion`: files for those who administer tor themselves. They hold secrets, so the token opens the store's seal first.

use crate::cli::Cli;
use crate::run::{self, Opener};
use clap::{Args, Subcommand};
use claviger::config::Config;
use claviger::error::{Error, ErrorKind, Result};
use claviger::identity::{ClientAuthPublic, IdentityCard};
use claviger::program::{Terminal, prompts_are_over, shown};
use claviger::secret::OnionSecretKey;
use claviger::store::{Peer, Store};
use claviger::transport::tor::{AUTHORIZED, ClientAuthFile, ServiceFiles};
use claviger::{config, endpoint};
use serde::Serialize;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

#[derive(Args)]
pub(crate) struct Onion {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write a HiddenServiceDir, so that tor publishes this machine's onion service by itself
    #[command(after_help = "\
Examples:
  claviger onion service /var/lib/tor/claviger
  claviger onion service DIR --former      the address of before a rotation, while its overlap lasts

For tor without a control port. Set in claviger.toml:
  [transport]
  kind = \"tor\"
  [transport.tor]
  service = \"torrc\"
  listen = \"unix:/run/claviger/onion.sock\"

DIR gets hs_ed25519_secret_key, hs_ed25519_public_key, hostname, and authorized_clients with a file for each peer that may find the service. The lines \
for torrc are printed. tor reads the files as its own user, and only when it starts or is reloaded: write them again whenever a peer was recorded or \
removed. Whoever reads them can publish this address, and still can not pass for this machine.")]
    Service {
        /// The directory, made when it is missing; files of another address are not overwritten
        dir: PathBuf,
        /// The address of before the rotation
        #[arg(long)]
        former: bool,
    },
    /// Write a ClientOnionAuthDir, so that tor finds peers' onion services by itself
    #[command(after_help = "\
Examples:
  claviger onion client-auth /var/lib/tor/claviger-auth

For tor without a control port: `control = \"none\"` in [transport.tor]. DIR gets PEER.auth_private for each peer. The line for torrc is printed. tor reads \
the files as its own user, and only when it starts or is reloaded: write them again whenever a peer was recorded. Whoever reads them can find \
the peers' services, and still can not pass for this machine.")]
    ClientAuth {
        /// The directory, made when it is missing
        dir: PathBuf,
    },
}

/// `--json`.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Done {
    directory: String,
    /// Relative to it, in no order.
    written: Vec<String>,
    /// What let somebody in who is a peer no more.
    removed: Vec<String>,
    /// Lines for it, each with its end.
    torrc: String,
}

pub(crate) fn run(cli: &Cli, options: &Onion, terminal: &Terminal) -> Result<()> {
    let (store_dir, config) = run::configuration(cli)?;
    let listen = match options.command {
        Command::Service { .. } => Some(listen(&config)?),
        Command::ClientAuth { .. } => None,
    };
    let store = opened(cli, &store_dir, &config, terminal)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    match &options.command {
        Command::Service { dir, former } => {
            let dir = std::path::absolute(dir).map_err(|error| failed(dir, error))?;
            let (card, secret) = own(&store, *former)?;
            check(&dir, &card)?;
            let clients = config.onion.restricted.then(|| clients(&store, now)).transpose()?;
            let files = ServiceFiles::new((&card.onion_address, &secret), config.transport.port, clients.as_deref());
            make(&dir)?;
            let mut removed = Vec::new();
            let authorized = dir.join(AUTHORIZED);
            if files.is_restricted() {
                make(&authorized)?;
            }
            for (name, content) in &files.files {
                write(&dir.join(name), content)?;
            }
            // After the others, so that nobody is let in for want of files: without any, tor lets everybody find the service.
            for old in strangers(&authorized, &files)? {
                fs::remove_file(authorized.join(&old)).map_err(|error| failed(&authorized, error))?;
                removed.push(format!("{AUTHORIZED}/{old}"));
            }
            let torrc = listen.map_or_else(String::new, |listen| files.torrc(&dir, &listen, &config.onion));
            let written = files.files.iter().map(|(name, _)| name.display().to_string()).collect();
            finish(&dir, Done { directory: shown(&dir), written, removed, torrc }, terminal)
        }
        Command::ClientAuth { dir } => {
            let dir = std::path::absolute(dir).map_err(|error| failed(dir, error))?;
            let secret = store.client_auth_secret()?;
            let peers = store.peers()?;
            let files = peers.iter().filter_map(|peer| {
                peer.onion_address.map(|onion| ClientAuthFile::new(&peer.identifier, &onion, &secret))
            });
            let files: Vec<_> = files.collect();
            make(&dir)?;
            for file in &files {
                write(&dir.join(&file.name), &file.content)?;
            }
            let torrc = format!("ClientOnionAuthDir \"{}\"\n", dir.display());
            let written = files.into_iter().map(|file| file.name).collect();
            finish(&dir, Done { directory: shown(&dir), written, removed: Vec::new(), torrc }, terminal)
        }
    }
}

fn finish(dir: &Path, done: Done, terminal: &Terminal) -> Result<()> {
    let count = done.written.len();
    terminal.note(&format!("Wrote {count} {} to {}.", if count == 1 { "file" } else { "files" }, shown(dir)));
    for name in &done.removed {
        terminal.note(&format!("Removed {name}: no peer that may find the service has that name and key any more."));
    }
    terminal.note(&format!(
        "Give them to tor's user with `chown -R debian-tor: {}`, add these lines to /etc/tor/torrc, and run `systemctl reload tor`.",
        shown(dir)
    ));
    terminal.result(&done.torrc.clone(), &done)
}

/// Where callers are led to.
fn listen(config: &Config) -> Result<config::Local> {
    config.transport.tor.listen.clone().ok_or_else(|| {
        Error::new(
            ErrorKind::ConfigInvalid,
            "The configuration does not say where tor leads its callers to.",
            "Set `service = \"torrc\"` and `listen = \"unix:/run/claviger/onion.sock\"` in [transport.tor].",
        )
    })
}

/// The store, its seal opened.
fn opened(cli: &Cli, dir: &Path, config: &Config, terminal: &Terminal) -> Result<Store> {
    let mut store = Store::open(dir)?;
    let machine = store.machine()?;
    if endpoint::is_sealed(&store, config)? {
        let token =
            Opener::new(terminal, config, &machine).token(machine.locator(), machine.key(), cli.waits_for_token())?;
        let runtime = run::runtime()?;
        let outcome = runtime.block_on(run::open_seal(&mut store, &token, cli.waits_for_token(), terminal));
        prompts_are_over();
        token.close(config.token.timeout);
        outcome?;
    }
    Ok(store)
}

fn own(store: &Store, former: bool) -> Result<(IdentityCard, OnionSecretKey)> {
    let machine = store.machine()?;
    if !former {
        return Ok((machine.card, store.onion_secret()?));
    }
    machine.former.map(|former| former.card).zip(store.former_onion_secret()?).ok_or_else(|| {
        Error::new(
            ErrorKind::KeyMismatch,
            "No rotation is under way, so there is no former address.",
            "Leave `--former` out.",
        )
    })
}

/// Who may find the service, by the name of a file. Identifiers have no dots.
fn clients(store: &Store, now: u64) -> Result<Vec<(String, ClientAuthPublic)>> {
    let machine = store.machine()?;
    let own = &machine.card.identifier;
    let mut clients = vec![(own.to_string(), machine.card.client_auth)];
    clients.extend(machine.former.map(|former| (format!("former.{own}"), former.card.client_auth)));
    for Peer { identifier, client_auth, former, expires, .. } in store.peers()? {
        if expires.is_some_and(|expires| now >= expires) {
            continue;
        }
        clients.extend(client_auth.map(|key| (identifier.to_string(), key)));
        let former = former.filter(|former| now < former.until);
        clients.extend(former.map(|former| (format!("former.{identifier}"), former.card.client_auth)));
    }
    Ok(clients)
}

/// Refuses a directory that is another service's.
fn check(dir: &Path, card: &IdentityCard) -> Result<()> {
    match fs::read_to_string(dir.join("hostname")) {
        Ok(text) if text.trim_end() == card.onion_address.to_string() => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !dir.join("hs_ed25519_secret_key").exists() => Ok(()),
        Ok(_) | Err(_) => Err(Error::new(
            ErrorKind::Io,
            format!("{} holds another onion service; nothing was written.", shown(dir)),
            "Name another directory.",
        )),
    }
}

/// The files in `authorized_clients` that let somebody in and are not among `files`.
fn strangers(authorized: &Path, files: &ServiceFiles) -> Result<Vec<String>> {
    let entries = match fs::read_dir(authorized) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(authorized, error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry.map_err(|error| failed(authorized, error))?.file_name().to_string_lossy().into_owned();
        let is_ours = files.files.iter().any(|(path, _)| *path == Path::new(AUTHORIZED).join(&name));
        if name.ends_with(".auth") && !is_ours {
            found.push(name);
        }
    }
    found.sort();
    Ok(found)
}

fn make(dir: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        Err(error) => Err(failed(dir, error)),
    }
}

/// Writes a file, mode 0600, whole or not at all.
fn write(path: &Path, content: &[u8]) -> Result<()> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    let new = path.with_file_name(name);
    // What a run left there that was killed.
    let _ = fs::remove_file(&new);
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    });
    written.map_err(|error| {
        let _ = fs::remove_file(&new);
        failed(path, error)
    })
}

fn failed(path: &Path, error: io::Error) -> Error {
    let what = format!("{} can not be written: {error}.", shown(path));
    Error::new(ErrorKind::Io, what, "Check the path, its permissions and the room on its disk.").because(error)
}
