//! `peers`, `show`, `remove`, `log`: what a store holds.

use claviger::ceremony::log::ROOT;
use claviger::ceremony::transcript::head_print;
use claviger::error::{Error, ErrorKind, Result};
use claviger::identity::Identifier;
use claviger::store::{Machine, Peer, Store};
use claviger::token::attestation::AttestationRoots;
use serde::Serialize;

use super::life::{confirmed, list as sentences, losses};
use super::open;
use super::opened::opened;
use crate::attestation::roots;
use crate::cli::Cli;
use crate::report::{Entry, Identity, Print, log_text, peers_text, wrapped};
use claviger::program::Terminal;

/// `peers --json`: each as `show` gives it.
#[derive(Serialize)]
struct Peers {
    peers: Vec<Identity>,
}

/// `remove --json`: the peer as `show` gave it.
#[derive(Serialize)]
struct Removed {
    removed: Identity,
}

/// `log --json`: oldest entry first. `head` is the last entry's hash, `{"hex", "words"}` its first 128 bits.
#[derive(Serialize)]
struct Log {
    log: Vec<Entry>,
    head: Print,
}

/// The roots that count in this store.
fn kept(machine: &Machine) -> Result<AttestationRoots> {
    roots(&machine.attestation.roots, &[])
}

pub(super) fn list(store: &Store, terminal: &Terminal) -> Result<()> {
    let peers = store.peers()?;
    if peers.is_empty() {
        terminal.note("No peer is recorded yet. Import a card with `claviger-ceremony import FILE`.");
    }
    let roots = kept(&store.machine()?)?;
    let held = store.held_preshared_keys()?;
    let peers: Vec<Identity> = peers.iter().map(|peer| Identity::of_peer(peer, &held, &roots)).collect();
    let text = if peers.is_empty() { String::new() } else { peers_text(&peers) };
    terminal.result(&text, &Peers { peers })
}

pub(super) fn show(store: &Store, name: Option<&Identifier>, terminal: &Terminal) -> Result<()> {
    let machine = store.machine()?;
    let roots = kept(&machine)?;
    let identity = match name {
        Some(name) if *name != machine.card.identifier => {
            Identity::of_peer(&known(store, name)?, &store.held_preshared_keys()?, &roots)
        }
        _ => Identity::of_store(store, &roots)?,
    };
    terminal.result(&identity.text(), &identity)
}

/// The peer of that name, or the member whose card is only held.
fn known(store: &Store, name: &Identifier) -> Result<Peer> {
    match store.peer(name) {
        Err(error) if error.kind() == ErrorKind::PeerUnknown => {
            let held = store.cards()?.into_iter().find(|card| card.identifier == *name);
            held.map(|card| Peer::from_card(&card)).ok_or(error)
        }
        peer => peer,
    }
}

pub(super) fn remove(cli: &Cli, name: &Identifier, given: Option<&Identifier>, terminal: &Terminal) -> Result<()> {
    let store = open(cli)?;
    let machine = store.machine()?;
    let roots = kept(&machine)?;
    if *name == machine.card.identifier {
        return Err(Error::new(
            ErrorKind::PeerUnknown,
            format!("\"{name}\" is this machine itself; nothing was removed."),
            "Remove it on the others. To begin anew here, move the store's directory away and run `claviger-ceremony init`.",
        ));
    }
    let peer = known(&store, name)?;
    // A card that is only held counts for the phrase alone.
    let held = store.peers()?.iter().all(|peer| peer.identifier != *name);
    let peer = Identity::of_peer(&peer, &store.held_preshared_keys()?, &roots);
    let losses = losses(&store, &machine.card.identifier, name)?;
    drop(store);
    let consequence = if held {
        "Its card is only held, for the phrase, which is shown no more until a card of its is imported again."
    } else {
        "Its handshakes will fail from now on."
    };
    let consequence = wrapped("", consequence);
    let text = format!("{}\n{}\n\n{}", peer.text(), sentences(&losses), consequence.trim_end());
    confirmed(&text, "remove it", name, given, terminal)?;
    let mut store = opened(cli, terminal)?.store;
    let removed = Identity::of(&store.remove_peer(name)?, &roots);
    terminal.note(&if held {
        format!("The card of \"{name}\" is removed.")
    } else {
        format!("Peer \"{name}\" is removed.")
    });
    // Without --json the note has said it all.
    terminal.result("", &Removed { removed })
}

pub(super) fn log(store: &Store, terminal: &Terminal) -> Result<()> {
    let log = store.log()?;
    let head = head_print(&log.last().map_or(ROOT, |entry| entry.hash));
    terminal.result(&log_text(&log, &head), &Log { log: log.iter().map(Entry::from).collect(), head: head.into() })
}
