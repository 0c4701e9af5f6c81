//! `revoke`: a peer that is never taken again.

use claviger::error::{Error, ErrorKind, Result};
use claviger::identity::{Identifier, IdentityCard};
use claviger::program::Terminal;
use claviger::store::Store;
use serde::Serialize;

use super::confirmed;
use super::losses::{list, losses, names, wrapped};
use crate::attestation::roots;
use crate::cli::Cli;
use crate::commands::open;
use crate::commands::opened::opened;
use crate::report::Identity;

/// `revoke --json`: the identity as `show` gave it, and who else has to revoke it for itself.
#[derive(Serialize)]
struct Revoked {
    revoked: Identity,
    reason: String,
    elsewhere: Vec<String>,
}

pub(super) fn revoke(
    cli: &Cli,
    name: &Identifier,
    reason: &str,
    given: Option<&Identifier>,
    terminal: &Terminal,
) -> Result<()> {
    let store = open(cli)?;
    let machine = store.machine()?;
    let own = &machine.card.identifier;
    if own == name {
        return Err(Error::new(
            ErrorKind::CardIsOwn,
            format!("{name} is this machine itself; nothing was changed."),
            "Revoke it on the others; to replace its key, `claviger-ceremony rotate --token LOCATOR`.",
        ));
    }
    let card = held(&store, name)?;
    let elsewhere = elsewhere(&store, own, name)?;
    let mut consequence = format!(
        "Revoke {name} ({}), whose fingerprint has the words\n  {}\n\n{}\n",
        card.role,
        card.fingerprint().words(),
        list(&losses(&store, own, name)?)
    );
    consequence += "\nIts keys, address and client-authorization key are never recorded here again.";
    if !elsewhere.is_empty() {
        consequence.push('\n');
        consequence += &wrapped(&format!("It has to be revoked on {}, too.", names(&elsewhere)), "", "");
    }
    drop(store);
    confirmed(&consequence, "revoke it", name, given, terminal)?;
    let mut store = opened(cli, terminal)?.store;
    let peer = store.revoke(name, reason)?;
    let machine = store.machine()?;
    terminal.note(&format!("{name} is revoked. A daemon that runs with this store's token drops it now; one that was started before a rotation or a switch has to be restarted."));
    if !elsewhere.is_empty() {
        terminal.note(&format!("Revoke it on {}, too.", names(&elsewhere)));
    }
    let revoked = Identity::of(&peer, &roots(&machine.attestation.roots, &[])?);
    terminal.result("", &Revoked { revoked, reason: reason.to_owned(), elsewhere })
}

/// The card that is recorded under that name.
fn held(store: &Store, name: &Identifier) -> Result<IdentityCard> {
    match store.cards()?.into_iter().find(|card| card.identifier == *name) {
        Some(card) => Ok(card),
        // One that was entered without a card, or nobody.
        None => store.peer(name)?.card().ok_or_else(|| {
            Error::new(
                ErrorKind::PeerUnknown,
                format!("{name} was entered without a card, and is not revoked; nothing was changed."),
                format!("Forget it with `claviger-ceremony remove {name}`."),
            )
        }),
    }
}

/// The other machines that have an edge to it, or all that hold its card where there is no plan.
fn elsewhere(store: &Store, own: &Identifier, name: &Identifier) -> Result<Vec<String>> {
    let plan = store.plan()?;
    let others = store.cards()?.into_iter().map(|card| card.identifier).filter(|other| other != own && other != name);
    Ok(others
        .filter(|other| plan.as_ref().is_none_or(|plan| plan.joins(other, name)))
        .map(|other| other.to_string())
        .collect())
}
