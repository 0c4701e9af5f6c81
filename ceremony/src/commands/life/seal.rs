//! `seal`, `unseal`, `reseal`.

mod contents;

use claviger::error::{Error, ErrorKind, Result};
use claviger::identity::{Fingerprint, Identifier, KeyPlace, StaticPublic};
use claviger::program::Terminal;
use claviger::store::{Machine, SealKey, SealState, Store};
use serde::Serialize;

use self::contents::Contents;
use super::losses::{names, wrapped};
use super::{confirmed, locator_of, other};
use crate::cli::{Cli, Reseal, Seal};
use crate::commands::open;
use crate::commands::opened::{OpenToken, opened};
use crate::commands::token::parse;
use crate::report::{SealReport, utc};

/// `seal --json`, `reseal --json`, `unseal --json`, `seal --check --json`: `{"seal", "changes", "last", "preshared_keys"}`; `seal` as `show --json` gives it, `changes`
/// the entries of the log, `last` the time of the last one in seconds since 1970, `preshared_keys` the peers with which one is held.
#[derive(Serialize)]
struct State {
    seal: SealReport,
    changes: u64,
    last: Option<u64>,
    preshared_keys: Vec<String>,
}

impl State {
    fn of(store: &Store) -> Result<Self> {
        let machine = store.machine()?;
        let log = store.log()?;
        let last = log.last();
        Ok(Self {
            seal: SealReport::new(&store.seal_state()?, &machine),
            changes: last.map_or(0, |entry| entry.sequence),
            last: last.map(|entry| entry.time),
            preshared_keys: store.held_preshared_keys()?.iter().map(|held| held.peer.to_string()).collect(),
        })
    }

    fn text(&self) -> String {
        let mut text = format!("seal     {}\n", self.seal.text());
        text += &format!("changes  {}\n", self.changes);
        text += &format!("last     {}\n", self.last.map_or_else(|| "never".into(), utc));
        if !self.preshared_keys.is_empty() {
            text += &format!("{}\n", wrapped(&self.preshared_keys.join(", "), "psk      with ", "         "));
        }
        text
    }
}

pub(super) fn seal(cli: &Cli, command: &Seal, terminal: &Terminal) -> Result<()> {
    let store = open(cli)?;
    let state = State::of(&store)?;
    if store.seal_state()? != SealState::Unsealed {
        terminal.note(&format!(
            "The store is sealed already, to {}. Make another seal with `claviger-ceremony reseal`.",
            state.seal.text()
        ));
        return terminal.result("", &state);
    }
    let machine = store.machine()?;
    let name = &machine.card.identifier;
    let both = command.backup;
    if both {
        locator_of(&machine, other(machine.active))?;
    }
    let contents = Contents::of(&store)?;
    drop(store);
    confirmed(&contents.consequence(), "seal it in", name, command.confirm.as_ref(), terminal)?;
    let mut token = OpenToken::open(machine.locator(), Some(machine.key()), terminal)?;
    let keys = asked(&machine, &mut token, both, terminal)?;
    let mut store = open(cli)?;
    contents.unchanged(&store)?;
    store.seal(&keys)?;
    let state = State::of(&store)?;
    terminal.note(&format!("The store is sealed to {}.", state.seal.text()));
    if !both && machine.card.key(other(machine.active)).is_some() {
        terminal.warn(&format!(
            "the {} token does not open it: if the {} token is lost, so is what is in it. Seal to both with `claviger-ceremony reseal --backup`.",
            other(machine.active),
            machine.active
        ));
    }
    terminal.note("Copies of the file from before hold its secrets in the clear: destroy them.");
    terminal.result("", &state)
}

/// The token in use, and the other one where `both`.
fn asked(machine: &Machine, token: &mut OpenToken, both: bool, terminal: &Terminal) -> Result<Vec<SealKey>> {
    let mut keys = vec![token.seal_key(machine.key(), terminal)?];
    if both {
        let place = other(machine.active);
        let locator = parse(locator_of(machine, place)?)?;
        let key = machine.card.key(place).ok_or_else(|| no_key(place))?;
        let mut second = OpenToken::open_in_turn(&locator, Some(key), &format!("the {place} token"), terminal)?;
        keys.push(second.seal_key(key, terminal)?);
    }
    Ok(keys)
}

fn no_key(place: KeyPlace) -> Error {
    let what = format!("The card of this machine has no {place} key.");
    Error::new(ErrorKind::KeyNotFound, what, "Add one with `claviger-ceremony backup add --token LOCATOR`.")
}

pub(super) fn unseal(cli: &Cli, given: Option<&Identifier>, terminal: &Terminal) -> Result<()> {
    let store = open(cli)?;
    let machine = store.machine()?;
    if store.seal_state()? == SealState::Unsealed {
        terminal.note("The store is not sealed.");
        return terminal.result("", &State::of(&store)?);
    }
    drop(store);
    let name = &machine.card.identifier;
    let consequence = wrapped(
        "Without the seal this machine's secrets, by which its onion address can be taken over, are in the store's file in the clear; whoever can write to the file \
         can make a stranger a peer, unseen; and a daemon refuses the store unless its configuration allows it. Nobody is cut off.",
        "",
        "",
    );
    confirmed(&consequence, "take the seal off", name, given, terminal)?;
    let mut store = opened(cli, terminal)?.store;
    store.unseal()?;
    terminal.note("The store is not sealed any more. Seal it again with `claviger-ceremony seal`, which shows first what it holds.");
    terminal.result("", &State::of(&store)?)
}

pub(super) fn reseal(cli: &Cli, command: &Reseal, terminal: &Terminal) -> Result<()> {
    let store = open(cli)?;
    let machine = store.machine()?;
    let SealState::Sealed(keys) = store.seal_state()? else {
        return Err(unsealed());
    };
    drop(store);
    let wanted: Vec<&StaticPublic> =
        [Some(machine.key()), machine.card.key(other(machine.active)).filter(|_| command.backup)]
            .into_iter()
            .flatten()
            .collect();
    if command.backup {
        locator_of(&machine, other(machine.active))?;
    }
    let gone: Vec<String> =
        keys.iter().filter(|key| !wanted.contains(key)).map(|key| described(key, &machine)).collect();
    if !gone.is_empty() {
        let consequence = wrapped(
            &format!(
                "From now on this store is not opened any more by {}. If the {} token is lost then, so is this machine: its peers have to record a new one. \
                 Older copies of the file stay as they are.",
                names(&gone),
                machine.active
            ),
            "",
            "",
        );
        confirmed(&consequence, "seal without it", &machine.card.identifier, command.confirm.as_ref(), terminal)?;
    }
    let (mut store, mut token) = opened(cli, terminal)?.with_token(terminal)?;
    let keys = asked(&machine, &mut token, command.backup, terminal)?;
    store.seal(&keys)?;
    let state = State::of(&store)?;
    terminal.note(&format!("The store is sealed to {}, under a new key.", state.seal.text()));
    if !gone.is_empty() {
        terminal.note(&format!(
            "It is not opened any more by {}. Replace or destroy older copies of the file.",
            names(&gone)
        ));
    }
    terminal.result("", &state)
}

/// A key of the seal, for people.
fn described(key: &StaticPublic, machine: &Machine) -> String {
    match [KeyPlace::Primary, KeyPlace::Backup].into_iter().find(|place| machine.card.key(*place) == Some(key)) {
        Some(place) => format!("the {place} token"),
        None => format!("the token with the key {}", Fingerprint::of_key(key)),
    }
}

fn unsealed() -> Error {
    Error::new(
        ErrorKind::StoreUnsealed,
        "The store is not sealed: there is nothing that could be verified, and whoever can write to it can change it unseen.",
        "Look through it first with `claviger-ceremony peers`, `show` and `log`; then seal it with `claviger-ceremony seal`.",
    )
}

pub(super) fn check(cli: &Cli, terminal: &Terminal) -> Result<()> {
    if open(cli)?.seal_state()? == SealState::Unsealed {
        return Err(unsealed());
    }
    let store = opened(cli, terminal)?.store;
    store.verify()?;
    let state = State::of(&store)?;
    terminal.note(
        "Everything under the seal is as this tool left it. An older copy of the store would be, too: compare the number of changes \
         with the last transcript.",
    );
    terminal.result(&state.text(), &state)
}
