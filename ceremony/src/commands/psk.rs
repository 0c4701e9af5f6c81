//! `psk`: keys that two machines hold beside their tokens.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use claviger::ceremony::preshared::{MAX_PRESHARED_KEY_LEN, check_value, from_text, generate, to_text};
use claviger::error::{Error, ErrorKind, Result};
use claviger::identity::Identifier;
use claviger::program::{Terminal, shown};
use claviger::secret::{PresharedKey, SecretBytes};
use claviger::store::{Added, HeldKey, Store};
use serde::Serialize;

use super::life::confirmed;
use super::open;
use super::opened::opened;
use crate::cli::{Cli, NewKey, Psk, RecordKey};
use crate::files::{failed, write_file};
use crate::report::{table, utc, wrapped};

/// `psk new --json`: `{"file", "check"}`.
#[derive(Serialize)]
struct Made {
    file: String,
    check: String,
}

/// `psk record --json`: `{"peer", "outcome", "check"}`; `outcome` is `new` or `already-there`.
#[derive(Serialize)]
struct Recorded {
    peer: String,
    outcome: &'static str,
    check: String,
}

/// `psk remove --json`: `{"peer", "removed"}`; `removed` is the check value.
#[derive(Serialize)]
struct Removed {
    peer: String,
    removed: String,
}

/// `psk list --json`: `{"preshared_keys": [{"peer", "check", "time", "joined"}]}`; `time` in seconds since 1970; `joined` is `false` where the plan joins the two no
/// more, and the key waits for one that does.
#[derive(Serialize)]
struct List {
    preshared_keys: Vec<Held>,
}

#[derive(Serialize)]
struct Held {
    peer: String,
    check: String,
    time: u64,
    joined: bool,
}

pub(super) fn run(cli: &Cli, command: &Psk, terminal: &Terminal) -> Result<()> {
    match command {
        Psk::New(command) => new(command, terminal),
        Psk::Record(command) => record(cli, command, terminal),
        Psk::Remove { name, confirm } => remove(cli, name, confirm.as_ref(), terminal),
        Psk::List => list(&open(cli)?, terminal),
    }
}

fn new(command: &NewKey, terminal: &Terminal) -> Result<()> {
    let key = generate()?;
    let (text, check) = (to_text(&key), check_value(&key));
    if command.file == Path::new("-") {
        terminal.note(&format!("The check value of this pre-shared key is {check}."));
        return terminal.data(text.as_bytes());
    }
    write_file(&command.file, text.as_bytes(), command.force)?;
    let file = command.file.display().to_string();
    terminal.note(&format!(
        "Wrote {file}, check value {check}. It is secret: record it on both machines with `claviger-ceremony psk record PEER {file}`, then destroy the medium."
    ));
    terminal.result(&format!("{file}\n"), &Made { file, check })
}

fn record(cli: &Cli, command: &RecordKey, terminal: &Terminal) -> Result<()> {
    let (name, key) = (&command.name, read(&command.file, terminal)?);
    // Before the token is asked.
    let peer = peer(&open(cli)?, name)?;
    let check = check_value(&key);
    let mut store = opened(cli, terminal)?.store;
    let added =
        store.set_preshared_key(&peer, &key, if command.file == Path::new("-") { "by stdin" } else { "by file" })?;
    let (outcome, verb) = match added {
        Added::New => ("new", "is recorded"),
        Added::AlreadyThere => ("already-there", "was recorded already"),
    };
    terminal.note(&format!(
        "The pre-shared key with \"{name}\" {verb}. Its check value is {check}, and must be the same there: until \"{name}\" has recorded the same key, the two can \
         not connect. Then destroy the medium that it came on."
    ));
    terminal.result("", &Recorded { peer: name.to_string(), outcome, check })
}

/// The name, if it is a peer's.
fn peer(store: &Store, name: &Identifier) -> Result<Identifier> {
    let own = store.machine()?.card.identifier;
    if *name == own {
        return Err(Error::new(
            ErrorKind::CardIsOwn,
            format!("{name} is this machine itself; nothing was changed."),
            "Name the other machine, and record the key there with this machine's name.",
        ));
    }
    match store.peer(name) {
        Err(error) if store.cards()?.iter().any(|card| card.identifier == *name) => Err(Error::new(
            error.kind(),
            format!("\"{name}\" is no peer of this machine, which holds its card alone; nothing was changed."),
            "A pre-shared key is for two machines that connect with each other.",
        )),
        peer => Ok(peer?.identifier),
    }
}

/// Reads a key's text, and nothing longer.
fn read(path: &Path, terminal: &Terminal) -> Result<PresharedKey> {
    let mut bytes = SecretBytes::new(Vec::with_capacity(MAX_PRESHARED_KEY_LEN + 1));
    let mut bounded = |from: &mut dyn Read| -> io::Result<()> {
        let mut from = from.take(MAX_PRESHARED_KEY_LEN as u64 + 1);
        // Without `read_to_end`, which grows the buffer and leaves copies behind.
        let mut chunk = SecretBytes::new(vec![0; MAX_PRESHARED_KEY_LEN + 1]);
        loop {
            match from.read(&mut chunk) {
                Ok(0) => return Ok(()),
                Ok(n) => bytes.extend_from_slice(&chunk[..n]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    };
    let read = if path == Path::new("-") {
        bounded(&mut io::stdin().lock())
    } else {
        File::open(path).and_then(|mut file| {
            if file.metadata()?.permissions().mode() & 0o077 != 0 {
                terminal.warn(&format!("others on this machine can read {}.", shown(path)));
            }
            bounded(&mut file)
        })
    };
    read.map_err(|error| failed(path, "read", error))?;
    if bytes.len() > MAX_PRESHARED_KEY_LEN {
        return Err(Error::new(
            ErrorKind::PresharedKeyInvalid,
            format!("{} is longer than {MAX_PRESHARED_KEY_LEN} bytes, and no pre-shared key is.", shown(path)),
            "Give a file as `claviger-ceremony psk new` wrote it.",
        ));
    }
    // What is no text is no key either: its reader says so without showing any of it.
    let key = from_text(std::str::from_utf8(&bytes).unwrap_or_default());
    key.map_err(|error| Error::new(error.kind(), format!("{} is refused. {error}", shown(path)), error.hint()))
}

fn remove(cli: &Cli, name: &Identifier, given: Option<&Identifier>, terminal: &Terminal) -> Result<()> {
    let held = held(&open(cli)?, name)?;
    // The check value on a line of its own: broken over two, nobody compares it.
    let consequence = format!(
        "This machine will forget its pre-shared key with {name}, check value\n  {}\n{}",
        held.check,
        wrapped(
            "",
            &format!(
                "Until {name} forgets it, too, the two can not connect; then their sessions are as safe as the curve, and ML-KEM where both cards offer it."
            ),
        )
    );
    confirmed(consequence.trim_end(), "forget it", name, given, terminal)?;
    let mut store = opened(cli, terminal)?.store;
    if self::held(&store, name)? != held || !store.remove_preshared_key(name)? {
        return Err(Error::new(
            ErrorKind::StoreTampered,
            "The store's file was changed between the question and the opening of its seal; nothing was removed.",
            "If another command ran meanwhile, run this one again. If none did, find out who else writes to that file.",
        ));
    }
    terminal.note(&format!("The pre-shared key with \"{name}\" is removed. Remove it on \"{name}\", too."));
    terminal.result("", &Removed { peer: name.to_string(), removed: held.check })
}

/// The key that is held with that name.
fn held(store: &Store, name: &Identifier) -> Result<HeldKey> {
    let held = store.held_preshared_keys()?.into_iter().find(|held| held.peer == *name);
    match held {
        Some(held) => Ok(held),
        None => {
            store.peer(name)?;
            Err(Error::new(
                ErrorKind::KeyNotFound,
                format!("No pre-shared key with \"{name}\" is held."),
                "See which are with `claviger-ceremony psk list`.",
            ))
        }
    }
}

fn list(store: &Store, terminal: &Terminal) -> Result<()> {
    let peers = store.peers()?;
    let held = store.held_preshared_keys()?.into_iter().map(|HeldKey { peer, check, time }| Held {
        joined: peers.iter().any(|other| other.identifier == peer),
        peer: peer.to_string(),
        check,
        time,
    });
    let held: Vec<Held> = held.collect();
    if held.is_empty() {
        terminal.note("No pre-shared key is held. Make one with `claviger-ceremony psk new FILE`.");
        return terminal.result("", &List { preshared_keys: held });
    }
    let row = |held: &Held| [held.peer.clone(), held.check.clone(), utc(held.time)];
    let mut text = table(["PEER", "CHECK VALUE", "RECORDED"], held.iter().map(row));
    for held in held.iter().filter(|held| !held.joined) {
        text += &wrapped(
            "",
            &format!("{} is no peer at present: its key waits for a plan that joins it again.", held.peer),
        );
    }
    terminal.result(&text, &List { preshared_keys: held })
}
