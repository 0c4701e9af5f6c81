//! `rotate --status` and `rotate --finish`: who still uses the former key.

use claviger::error::Result;
use claviger::identity::{Identifier, IdentityCard, KeyPlace, StaticPublic};
use claviger::program::Terminal;
use claviger::store::{Contact, FormerIdentity, Machine, Store};
use serde::Serialize;

use super::losses::{list, wrapped};
use super::rotate::not_under_way;
use super::{confirmed, now};
use crate::cli::Cli;
use crate::commands::open;
use crate::commands::opened::opened;
use crate::report::{table, utc};

/// `rotate --status --json`: `{"until", "peers": [{"identifier", "new", "former"}]}`; times of the last session by this machine's new key and by its former one, in seconds
/// since 1970, or `null`.
#[derive(Serialize)]
struct Status {
    until: u64,
    peers: Vec<Seen>,
}

#[derive(Serialize)]
struct Seen {
    identifier: String,
    new: Option<u64>,
    former: Option<u64>,
}

impl Status {
    fn of(store: &Store, machine: &Machine, former: &FormerIdentity) -> Result<Self> {
        let contacts = store.contacts()?;
        let now = now();
        let peers = store
            .peers()?
            .into_iter()
            .filter(|peer| peer.expires.is_none_or(|expires| expires > now))
            .map(|peer| Seen {
                new: last(&contacts, &peer.identifier, &machine.card),
                former: last(&contacts, &peer.identifier, &former.card),
                identifier: peer.identifier.to_string(),
            })
            .collect();
        Ok(Self { until: former.until, peers })
    }

    fn text(&self) -> String {
        let when = |time: Option<u64>| time.map_or_else(|| "never".into(), utc);
        table(
            ["PEER", "BY THE NEW KEY", "BY THE FORMER KEY"],
            self.peers.iter().map(|seen| [seen.identifier.clone(), when(seen.new), when(seen.former)]),
        )
    }
}

/// The last session with a peer by a key of `card`.
fn last(contacts: &[Contact], peer: &Identifier, card: &IdentityCard) -> Option<u64> {
    let is_own = |key: &StaticPublic| {
        [KeyPlace::Primary, KeyPlace::Backup].into_iter().any(|place| card.key(place) == Some(key))
    };
    let mine = contacts.iter().filter(|contact| contact.peer == *peer && is_own(&contact.own));
    mine.map(|contact| contact.time).max()
}

pub(super) fn status(cli: &Cli, terminal: &Terminal) -> Result<()> {
    let store = open(cli)?;
    let machine = store.machine()?;
    let Some(former) = &machine.former else { return Err(not_under_way()) };
    let status = Status::of(&store, &machine, former)?;
    let holds = if former.until > now() { "holds until" } else { "held until" };
    terminal
        .note(&format!("The former key {holds} {}. Sessions, as this machine's daemon noted them:", utc(former.until)));
    terminal.result(&status.text(), &status)
}

/// `rotate --finish --json`: who had not been seen by the new key.
#[derive(Serialize)]
struct Finished {
    finished: bool,
    unseen: Vec<String>,
}

pub(super) fn finish(cli: &Cli, given: Option<&Identifier>, terminal: &Terminal) -> Result<()> {
    let store = open(cli)?;
    let machine = store.machine()?;
    let Some(former) = &machine.former else { return Err(not_under_way()) };
    let status = Status::of(&store, &machine, former)?;
    drop(store);
    // Always: who was seen is not under the seal, and somebody else may have noted it.
    let name = &machine.card.identifier;
    confirmed(&consequence(&status, name, former.until), "forget them", name, given, terminal)?;
    let mut store = opened(cli, terminal)?.store;
    let finished = store.finish_rotation()?;
    terminal.note("The former key, address and client-authorization key are forgotten.");
    let unseen = status.peers.into_iter().filter(|seen| seen.new.is_none()).map(|seen| seen.identifier).collect();
    terminal.result("", &Finished { finished, unseen })
}

/// What ends, and for whom.
fn consequence(status: &Status, name: &Identifier, until: u64) -> String {
    let open = until > now();
    let end = if open { "end now, not" } else { "ended" };
    let mut text = wrapped(&format!("The former key and address of {name} {end} at {}.", utc(until)), "", "");
    let (seen, unseen): (Vec<&Seen>, Vec<&Seen>) = status.peers.iter().partition(|seen| seen.new.is_some());
    if !seen.is_empty() {
        let each: Vec<String> =
            seen.iter().map(|seen| format!("{}, at {}", seen.identifier, utc(seen.new.unwrap_or_default()))).collect();
        text += "\nSeen by the new key, as the daemon noted it, which is not under the seal:\n";
        text += &list(&each);
    }
    if !unseen.is_empty() {
        let each: Vec<String> = unseen
            .iter()
            .map(|seen| match seen.former {
                Some(time) => format!("{}, last by the former key at {}", seen.identifier, utc(time)),
                None => format!("{}, never seen", seen.identifier),
            })
            .collect();
        let cut = if open { "cut off now" } else { "cut off" };
        text += &format!("\nNot seen by the new key, and {cut} unless they imported the succession:\n");
        text += &list(&each);
    }
    if status.peers.is_empty() {
        text += "\nNobody is cut off: no peer is recorded.";
    }
    text
}
