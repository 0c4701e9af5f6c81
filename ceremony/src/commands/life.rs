//! `seal`, `unseal`, `reseal`, `switch`, `revoke`, `expire`, `rotate`, `backup`: life after the ceremony.
//!
//! Each says first who could then no longer connect, and has a name typed before anybody is cut off. That is said from what the store holds before it is unlocked:
//! nobody is asked for a PIN for something that is then declined. A store in which it was falsified is refused when the seal is opened.

mod backup;
mod expire;
mod losses;
mod out;
mod revoke;
mod rotate;
mod seal;
mod status;
mod succeed;
mod switch;
mod vouch;

use std::time::{SystemTime, UNIX_EPOCH};

use claviger::error::{Error, ErrorKind, Result};
use claviger::identity::{Identifier, KeyPlace};
use claviger::program::Terminal;
use claviger::store::Machine;

use crate::cli::{Backup, Cli, Life};

pub(super) use losses::{list, losses};
pub(crate) use succeed::import_succession;

pub(super) fn run(cli: &Cli, command: &Life, terminal: &Terminal) -> Result<()> {
    match command {
        Life::Seal(command) if command.check => seal::check(cli, terminal),
        Life::Seal(command) => seal::seal(cli, command, terminal),
        Life::Unseal { confirm } => seal::unseal(cli, confirm.as_ref(), terminal),
        Life::Reseal(command) => seal::reseal(cli, command, terminal),
        Life::Switch { token } => switch::switch(cli, (*token).into(), terminal),
        Life::Revoke { name, reason, confirm } => revoke::revoke(cli, name, reason, confirm.as_ref(), terminal),
        Life::Expire(command) => expire::expire(cli, command, terminal),
        Life::Rotate(command) if command.status => status::status(cli, terminal),
        Life::Rotate(command) if command.finish => status::finish(cli, command.confirm.as_ref(), terminal),
        Life::Rotate(command) if command.again => rotate::again(cli, command, terminal),
        Life::Rotate(command) => rotate::rotate(cli, command, terminal),
        Life::Backup(Backup::Add(command)) => backup::add(cli, command, terminal),
        Life::Backup(Backup::Again { output }) => backup::again(cli, output, terminal),
    }
}

/// Seconds since 1970 by this machine's clock; one before 1970 is 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Says what `action` brings about, and has `name` typed, unless `--confirm` gave it.
pub(super) fn confirmed(
    consequence: &str,
    action: &str,
    name: &Identifier,
    given: Option<&Identifier>,
    terminal: &Terminal,
) -> Result<()> {
    let answer = if let Some(given) = given {
        terminal.request(consequence);
        given.to_string()
    } else {
        let otherwise = format!("Run it on a terminal, or confirm it with `--confirm {name}`.");
        terminal.ask(&format!("{consequence}\n\nType {name} to {action}: "), &otherwise).inspect_err(|_| {
            terminal.request(consequence);
        })?
    };
    if answer == name.as_str() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Declined,
        format!("What was typed is not {name}; nothing was changed."),
        format!("Run it again and type {name} to {action}."),
    ))
}

/// The place that is not in use.
fn other(place: KeyPlace) -> KeyPlace {
    match place {
        KeyPlace::Primary => KeyPlace::Backup,
        KeyPlace::Backup => KeyPlace::Primary,
    }
}

/// The locator of the token of that place.
fn locator_of(machine: &Machine, place: KeyPlace) -> Result<&str> {
    match place {
        KeyPlace::Primary => Some(machine.token.as_str()),
        KeyPlace::Backup => machine.backup_token.as_deref(),
    }
    .ok_or_else(|| {
        Error::new(
            ErrorKind::KeyNotFound,
            format!("{} has no backup token.", machine.card.identifier),
            "Add one with `claviger-ceremony backup add --token LOCATOR`.",
        )
    })
}
