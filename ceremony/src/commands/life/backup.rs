//! `backup add`: a second key for a machine that has met its peers already.

use claviger::error::{Error, ErrorKind, Result};
use claviger::identity::{IdentityCard, KeyPlace};
use claviger::program::Terminal;
use claviger::store::{NewIdentity, SealState};

use super::out::around;
use super::rotate::{refuse_key, refuse_present, told};
use super::vouch::{members, operations, times, unchanged, vouched};
use super::{locator_of, now};
use crate::attestation::roots;
use crate::cli::{BackupAdd, Cli, Output};
use crate::commands::fresh::Fresh;
use crate::commands::open;
use crate::commands::opened::opened;
use crate::commands::token::parse;

pub(super) fn add(cli: &Cli, command: &BackupAdd, terminal: &Terminal) -> Result<()> {
    let locator = parse(&command.token)?;
    let store = open(cli)?;
    let machine = store.machine()?;
    let refused = |what: String, hint: &str| Err(Error::new(ErrorKind::KeyExists, what, hint));
    if machine.card.backup.is_some() {
        let what = format!("{} has a backup token already; nothing was changed.", machine.card.identifier);
        return refused(
            what,
            "Replace both its tokens with `claviger-ceremony rotate --token LOCATOR --backup-token LOCATOR`.",
        );
    }
    if machine.former.is_some() {
        let what = format!("A rotation of {} is under way; nothing was changed.", machine.card.identifier);
        return refused(what, "End it first with `claviger-ceremony rotate --finish`.");
    }
    refuse_present(&locator.to_string(), &machine)?;
    let members = members(&store, &machine.card)?;
    drop(store);
    terminal.note(&format!(
        "Nobody is cut off: the primary key stays. The token in use vouches for the backup key, and is asked {}.",
        times(operations(&members))
    ));
    let (mut store, mut present) = opened(cli, terminal)?.with_token(terminal)?;
    unchanged(&store, &machine, &members)?;
    let roots = roots(&machine.attestation.roots, &[])?;
    let mut second = Fresh::open(&locator, KeyPlace::Backup, (!command.no_attestation).then_some(&roots), terminal)?;
    refuse_key(&second, &machine)?;
    // A store that is not sealed stays so.
    let mut keys = Vec::new();
    if store.seal_state()? != SealState::Unsealed {
        keys.extend([present.seal_key(machine.key(), terminal)?, second.seal_key(terminal)?]);
    }
    let card = IdentityCard { backup: Some(second.backup_key()), ..machine.card.clone() };
    if let Some(plan) = store.plan()? {
        plan.check_card(&card)?;
    }
    // Key, address and client-authorization key stay, so that nothing of the former card has to hold on.
    let until = now();
    let next = NewIdentity {
        card: card.clone(),
        token: machine.token.clone(),
        backup_token: Some(second.locator.clone()),
        onion: store.onion_secret()?,
        client_auth: store.client_auth_secret()?,
        until,
    };
    let succession = vouched(&machine.card, machine.active, card, until, &members, &mut present, terminal)?;
    let written = around(&succession, &command.output, terminal, || {
        store.rotate(&next, &keys)?;
        store.finish_rotation().map(|_| ())
    })?;
    terminal.note(
        "This machine has a backup token. Put it into the safe. After the loss of the first: \
         `claviger-ceremony switch backup`.",
    );
    told(&store, written, until, &members, terminal)
}

/// The succession of [`add`] again: it follows upon the card without a backup key, which is all that `add` changed.
pub(super) fn again(cli: &Cli, output: &Output, terminal: &Terminal) -> Result<()> {
    let store = open(cli)?;
    let machine = store.machine()?;
    locator_of(&machine, KeyPlace::Backup)?;
    if machine.active == KeyPlace::Backup {
        return Err(Error::new(
            ErrorKind::KeyMismatch,
            "The backup token is in use, and only the primary key can vouch for it.",
            "Where the primary token is there, `claviger-ceremony switch primary` first; else have the members import this machine's card anew.",
        ));
    }
    let members = members(&store, &machine.card)?;
    drop(store);
    let (store, mut present) = opened(cli, terminal)?.with_token(terminal)?;
    unchanged(&store, &machine, &members)?;
    let former = IdentityCard { backup: None, ..machine.card.clone() };
    let until = now();
    let card = machine.card.clone();
    let succession = vouched(&former, KeyPlace::Primary, card, until, &members, &mut present, terminal)?;
    let written = around(&succession, output, terminal, || Ok(()))?;
    told(&store, written, until, &members, terminal)
}
