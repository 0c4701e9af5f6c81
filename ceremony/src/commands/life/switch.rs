//! `switch`: on with the other token.

use claviger::error::{Error, ErrorKind, Result};
use claviger::identity::{Identifier, KeyPlace, StaticPublic};
use claviger::program::Terminal;
use claviger::store::{Event, Machine, SealState, Store};
use serde::Serialize;

use super::losses::names;
use super::{locator_of, other};
use crate::cli::Cli;
use crate::commands::open;
use crate::commands::opened::OpenToken;

/// `switch --json`: `{"active", "outcome"}`; `outcome` is `switched` or `already-there`.
#[derive(Serialize)]
struct Switched {
    active: String,
    outcome: &'static str,
}

pub(super) fn switch(cli: &Cli, place: KeyPlace, terminal: &Terminal) -> Result<()> {
    let mut store = open(cli)?;
    let machine = store.machine()?;
    let locator = locator_of(&machine, place)?;
    let active = place.to_string();
    if machine.active == place {
        terminal.note(&format!("The {place} token is in use already."));
        return terminal.result("", &Switched { active, outcome: "already-there" });
    }
    let key = machine.card.key(place).ok_or_else(|| {
        let what = format!("The card of this machine has no {place} key.");
        Error::new(ErrorKind::KeyNotFound, what, "Add one with `claviger-ceremony backup add --token LOCATOR`.")
    })?;
    let sealed = store.seal_state()?;
    if let SealState::Sealed(keys) = &sealed
        && !keys.contains(key)
    {
        return Err(Error::new(
            ErrorKind::KeyMismatch,
            format!(
                "The store is not sealed to the {place} token, which could not open it; it goes on with the {} token.",
                machine.active
            ),
            "Seal it to both with `claviger-ceremony reseal --backup`; where the token in use is lost, restore a copy of the store from before it was sealed to it alone.",
        ));
    }
    let unsure = unsure(&store, &machine, key)?;
    if !unsure.is_empty() {
        terminal.warn(&format!(
            "who has not imported this machine's last succession does not know the {place} key, and can not connect until it has. Not seen \
             by that key: {}.",
            names(&unsure)
        ));
    }
    let mut token = OpenToken::open(locator, Some(key), terminal).map_err(|error| {
        let what = format!("{error} The {} token stays in use.", machine.active);
        Error::new(error.kind(), what, error.hint().to_owned())
    })?;
    if sealed == SealState::Unsealed {
        terminal.warn("the store is not sealed: whoever can write to it can change it unseen. Look at `claviger-ceremony peers` first; then seal it with `claviger-ceremony seal`.");
    } else {
        store.unlock(&token.seal_key(key, terminal)?)?;
    }
    store.activate(place)?;
    let left = other(place);
    let peers = if unsure.is_empty() {
        "Peers need to do nothing: they recorded both keys, and the next attempt of either side finds the one that answers."
    } else {
        "Who has imported this machine's last succession needs to do nothing: the next attempt of either side finds the key that answers."
    };
    terminal.note(&format!("The {place} token is in use. {peers} Restart a daemon that is running."));
    terminal.note(&format!(
        "If the {left} token is lost: seal the store without it (`claviger-ceremony reseal`), and rotate to a new one soon \
         (`claviger-ceremony rotate --token LOCATOR`), for until then it is a key to this machine for whoever has it and its PIN."
    ));
    terminal.result("", &Switched { active, outcome: "switched" })
}

/// Peers of which nothing says that they know `key`: it came by a succession, and they were not seen by it.
fn unsure(store: &Store, machine: &Machine, key: &StaticPublic) -> Result<Vec<Identifier>> {
    let own = &machine.card.identifier;
    if !store.log()?.iter().any(|entry| entry.event == Event::Rotated && entry.subject == *own) {
        return Ok(Vec::new());
    }
    let contacts = store.contacts()?;
    let seen = |peer: &Identifier| contacts.iter().any(|contact| contact.peer == *peer && contact.own == *key);
    Ok(store.peers()?.into_iter().map(|peer| peer.identifier).filter(|peer| !seen(peer)).collect())
}
