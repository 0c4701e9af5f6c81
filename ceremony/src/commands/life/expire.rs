//! `expire`: a peer's time.

use claviger::error::{Error, Result};
use claviger::program::Terminal;
use serde::Serialize;

use super::losses::{list, losses};
use super::{confirmed, now};
use crate::attestation::roots;
use crate::cli::{Cli, Expire};
use crate::commands::open;
use crate::commands::opened::opened;
use crate::report::{Identity, utc};

/// `expire --json`: the peer as `show` gives it now.
#[derive(Serialize)]
struct Limited {
    peer: Identity,
}

pub(super) fn expire(cli: &Cli, command: &Expire, terminal: &Terminal) -> Result<()> {
    let name = &command.name;
    let store = open(cli)?;
    let own = store.machine()?.card.identifier;
    let before = match store.peer(name) {
        Err(error) if store.cards()?.iter().any(|card| card.identifier == *name) => {
            return Err(Error::new(
                error.kind(),
                format!("\"{name}\" is no peer of this machine, which holds its card alone; nothing was changed."),
                "Only a peer has a time that can be limited.",
            ));
        }
        peer => peer?.expires,
    };
    let expires = command.at.or_else(|| command.r#in.map(|time| now().saturating_add(time.as_secs())));
    if let Some(at) = expires {
        let sooner = before.is_none_or(|before| at < before);
        let text = format!("From {} on, by this machine's clock:\n{}", utc(at), list(&losses(&store, &own, name)?));
        drop(store);
        if sooner {
            confirmed(&text, "limit its time", name, command.confirm.as_ref(), terminal)?;
        } else {
            terminal.note(&text);
        }
    }
    let mut store = opened(cli, terminal)?.store;
    let peer = store.set_expiry(name, expires)?;
    terminal.note(&match (expires, before) {
        (Some(at), _) => format!("{name} expires at {}.", utc(at)),
        (None, Some(before)) => format!("{name} does not expire any more; it would have at {}.", utc(before)),
        (None, None) => format!("{name} does not expire, and did not before."),
    });
    let roots = roots(&store.machine()?.attestation.roots, &[])?;
    terminal.result("", &Limited { peer: Identity::of_peer(&peer, &store.held_preshared_keys()?, &roots) })
}
