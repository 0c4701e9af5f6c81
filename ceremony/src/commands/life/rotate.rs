//! `rotate`: the next key, onion address and client-authorization key, vouched for by the present key.

use claviger::error::{Error, ErrorKind, Result};
use claviger::identity::{ClientAuthKeys, IdentityCard, KeyPlace, OnionKeys};
use claviger::program::Terminal;
use claviger::store::{FormerIdentity, Machine, NewIdentity, SealState, Store};
use serde::Serialize;

use super::losses::{list, wrapped};
use super::out::{Written, around, carry};
use super::vouch::{Member, members, operations, times, unchanged, vouched};
use super::{confirmed, now};
use crate::attestation::roots;
use crate::cli::{Cli, OVERLAP, Rotate};
use crate::commands::fresh::{Fresh, check_curve, keyed};
use crate::commands::open;
use crate::commands::opened::{OpenToken, opened};
use crate::commands::token::parse;
use crate::report::{Identity, utc};

/// `rotate --json`, `rotate --again --json`, `backup add --json`: `{"identity", "file", "outcome", "png", "svg", "until", "members"}`; `identity` as `show --json` gives it now,
/// `until` in seconds since 1970, `members` who can verify the succession.
#[derive(Serialize)]
struct Rotated {
    identity: Identity,
    #[serde(flatten)]
    written: Written,
    until: u64,
    members: Vec<String>,
}

pub(super) fn rotate(cli: &Cli, command: &Rotate, terminal: &Terminal) -> Result<()> {
    // clap has seen that it is given.
    let locator = parse(command.token.as_deref().unwrap_or_default())?;
    let backup = command.backup_token.as_deref().map(parse).transpose()?;
    let store = open(cli)?;
    let machine = store.machine()?;
    let name = machine.card.identifier.clone();
    if let Some(former) = &machine.former {
        return Err(under_way(&machine, former));
    }
    refuse_present(&locator.to_string(), &machine)?;
    let plan = store.plan()?;
    if plan.as_ref().is_some_and(|plan| plan.rules.backup_token) && backup.is_none() {
        return Err(Error::new(
            ErrorKind::PlanMismatch,
            "The plan demands a backup token, and none is given for the next key; nothing was changed.",
            "Give one with `--backup-token LOCATOR`.",
        ));
    }
    let until = now().saturating_add(command.overlap.unwrap_or(OVERLAP).as_secs());
    let members = members(&store, &machine.card)?;
    drop(store);
    confirmed(&consequence(&machine, &members, command, until), "rotate", &name, command.confirm.as_ref(), terminal)?;

    let (mut store, mut present) = opened(cli, terminal)?.with_token(terminal)?;
    unchanged(&store, &machine, &members)?;
    let roots = roots(&machine.attestation.roots, &[])?;
    let attest = (!command.no_attestation).then_some(&roots);
    let mut first = Fresh::open(&locator, KeyPlace::Primary, attest, terminal)?;
    refuse_key(&first, &machine)?;
    // A store that is not sealed stays so.
    let sealed = store.seal_state()? != SealState::Unsealed;
    let mut keys = Vec::new();
    if sealed {
        keys.push(first.seal_key(terminal)?);
    }
    let mut second = backup.map(|backup| Fresh::open(&backup, KeyPlace::Backup, attest, terminal)).transpose()?;
    if let Some(second) = &mut second {
        second.check_beside(&first, terminal)?;
        // The present backup key may stay: who has lost the primary token needs one new token, not two.
        if second.key == machine.card.static_public {
            return Err(same_key());
        }
        if sealed {
            keys.push(second.seal_key(terminal)?);
        }
    }
    let (onion, client_auth) = (OnionKeys::generate()?, ClientAuthKeys::generate()?);
    let card = IdentityCard {
        onion_address: onion.address,
        client_auth: client_auth.public,
        kem: command.kem.unwrap_or_default().into(),
        ..keyed(machine.card.clone(), &first, second.as_ref())
    };
    if let Some(plan) = &plan {
        plan.check_card(&card)?;
    }
    let next = NewIdentity {
        card: card.clone(),
        token: first.locator.clone(),
        backup_token: second.as_ref().map(|second| second.locator.clone()),
        onion: onion.secret,
        client_auth: client_auth.secret,
        until,
    };
    let succession = vouched(&machine.card, machine.active, card, until, &members, &mut present, terminal)?;
    let written = around(&succession, &command.output, terminal, || store.rotate(&next, &keys))?;
    terminal.note(&if until <= now() {
        "This machine has its next key; the former one does not work any more. Restart a daemon that is running: it still goes by the former one.".to_owned()
    } else {
        format!(
            "This machine has its next key. The former one works until {}, if its token stays plugged in beside the new one and the daemon \
             is restarted; `claviger-ceremony rotate --status` tells who still needs it.",
            utc(until)
        )
    });
    told(&store, written, until, &members, terminal)
}

/// What is to be done with the succession, and the result.
pub(super) fn told(store: &Store, written: Written, until: u64, members: &[Member], terminal: &Terminal) -> Result<()> {
    let members: Vec<String> = members.iter().map(|member| member.name.to_string()).collect();
    let machine = store.machine()?;
    carry(&written, &members, &machine.card.fingerprint(), terminal);
    if written.to_stdout() {
        return Ok(());
    }
    let identity = Identity::of_store(store, &roots(&machine.attestation.roots, &[])?)?;
    terminal.result(&written.text(), &Rotated { identity, written, until, members })
}

fn consequence(machine: &Machine, members: &[Member], command: &Rotate, until: u64) -> String {
    let name = &machine.card.identifier;
    let number = operations(members);
    let mut text = wrapped(
        &format!(
            "Rotate {name}: a new key, a new onion address and a new client-authorization key, together. The {} token in use vouches for them \
             to each key of each member: it is asked {}, and wants a touch each time if its key wants one.",
            machine.active,
            times(number)
        ),
        "",
        "",
    );
    if machine.card.backup.is_some() && command.backup_token.is_none() {
        text += "\n\n";
        text += &wrapped("The next identity has no backup token: none is given with --backup-token.", "", "");
    }
    if machine.active == KeyPlace::Backup && until > now() {
        // Both keys of the former card hold until then, and who goes on with the backup token has often lost the other.
        text += "\n\n";
        text += &wrapped(
            &format!(
                "Until {} peers take the key of the primary token, too. If that token is lost, give `--overlap 0s`: whoever found it is shut out by each \
                 peer when that imports the file.",
                utc(until)
            ),
            "",
            "",
        );
    }
    text += "\n\n";
    if members.is_empty() {
        return text + "Nobody is cut off: no peer is recorded.";
    }
    let each: Vec<String> = members.iter().map(|member| member.name.to_string()).collect();
    text += &if until <= now() {
        "The present key ends now. Until they have imported the file, cut off are:\n".into()
    } else {
        format!("Until {} the present key works, too. Who has not imported\nthe file by then is cut off:\n", utc(until))
    };
    text + &list(&each)
}

fn under_way(machine: &Machine, former: &FormerIdentity) -> Error {
    Error::new(
        ErrorKind::PeerConflict,
        format!(
            "A rotation of {} is under way, until {}; nothing was changed.",
            machine.card.identifier,
            utc(former.until)
        ),
        "See who still uses the former key with `claviger-ceremony rotate --status`, and end it with `claviger-ceremony rotate --finish`.",
    )
}

/// The next key is at none of the present places.
pub(super) fn refuse_present(locator: &str, machine: &Machine) -> Result<()> {
    if machine.token == locator || machine.backup_token.as_deref() == Some(locator) {
        return Err(same_key());
    }
    Ok(())
}

fn same_key() -> Error {
    Error::new(
        ErrorKind::KeyMismatch,
        "This is a token of the present identity, with its present key; nothing was changed.",
        "Give the locator of another key; make one with `claviger-ceremony token generate`.",
    )
}

/// The key is not one that this machine has, and is on its curve.
pub(super) fn refuse_key(fresh: &Fresh, machine: &Machine) -> Result<()> {
    let places = [KeyPlace::Primary, KeyPlace::Backup];
    if places.into_iter().any(|place| machine.card.key(place) == Some(&fresh.key)) {
        return Err(same_key());
    }
    check_curve(machine.card.curve(), fresh.key.curve(), "the present one")
}

pub(super) fn again(cli: &Cli, command: &Rotate, terminal: &Terminal) -> Result<()> {
    let (store, _) = opened(cli, terminal)?.with_token(terminal)?;
    let machine = store.machine()?;
    let Some(former) = &machine.former else { return Err(not_under_way()) };
    let members = members(&store, &former.card)?;
    terminal.note(&format!("The former token is asked {}.", times(operations(&members))));
    let key = former.card.key(former.active);
    let mut token = OpenToken::open_in_turn(&parse(&former.token)?, key, "the former token", terminal)?;
    let card = machine.card.clone();
    let succession = vouched(&former.card, former.active, card, former.until, &members, &mut token, terminal)?;
    let written = around(&succession, &command.output, terminal, || Ok(()))?;
    told(&store, written, former.until, &members, terminal)
}

pub(super) fn not_under_way() -> Error {
    Error::new(
        ErrorKind::KeyNotFound,
        "No rotation is under way here: there is no former key.",
        "Begin one with `claviger-ceremony rotate --token LOCATOR`.",
    )
}
