//! The present key vouches for the next card, to each key of each member.

use claviger::ceremony::succession::{MAX_MACS, Succession};
use claviger::error::{Error, ErrorKind, Result};
use claviger::identity::{Identifier, IdentityCard, KeyPlace, StaticPublic};
use claviger::program::Terminal;
use claviger::store::{Machine, Store};

use super::now;
use crate::commands::opened::OpenToken;

/// Who can verify a succession, with which keys.
#[derive(PartialEq, Eq)]
pub(super) struct Member {
    pub(super) name: Identifier,
    keys: Vec<(KeyPlace, StaticPublic)>,
}

impl Member {
    fn new(name: &Identifier, primary: &StaticPublic, backup: Option<&StaticPublic>) -> Self {
        let mut keys = vec![(KeyPlace::Primary, primary.clone())];
        keys.extend(backup.map(|key| (KeyPlace::Backup, key.clone())));
        Self { name: name.clone(), keys }
    }
}

/// Everybody who holds this machine's card and whose key is on the curve of `own`: peers that have not expired, and members whose cards are only held. Ordered.
pub(super) fn members(store: &Store, own: &IdentityCard) -> Result<Vec<Member>> {
    let now = now();
    let peers = store.peers()?;
    let expired = |name: &Identifier| {
        peers.iter().any(|peer| peer.identifier == *name && peer.expires.is_some_and(|expires| expires <= now))
    };
    let mut members: Vec<Member> = peers
        .iter()
        .map(|peer| {
            Member::new(&peer.identifier, &peer.static_public, peer.backup.as_ref().map(|backup| &backup.static_public))
        })
        .collect();
    for card in store.cards()? {
        let known = members.iter().any(|member| member.name == card.identifier);
        if !known && card.identifier != own.identifier {
            members.push(Member::new(&card.identifier, &card.static_public, card.key(KeyPlace::Backup)));
        }
    }
    members.retain(|member| !expired(&member.name) && member.keys.iter().all(|(_, key)| key.curve() == own.curve()));
    members.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(members)
}

/// What people were told, and agreed to, was read before the seal was opened. Under it everything must read the same: else somebody changed the file for the
/// time of the question, and the token would vouch for what that one wrote.
pub(super) fn unchanged(store: &Store, machine: &Machine, shown: &[Member]) -> Result<()> {
    if store.machine()? == *machine && members(store, &machine.card)? == shown {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::StoreTampered,
        "The store's file was changed between the question and the opening of its seal; nothing was changed by this command.",
        "If another command ran meanwhile, run this one again. If none did, find out who else writes to that file.",
    ))
}

/// How often the token is asked.
pub(super) fn operations(members: &[Member]) -> usize {
    members.iter().map(|member| member.keys.len()).sum()
}

/// `once`, `twice`, `3 times`.
pub(super) fn times(number: usize) -> String {
    match number {
        1 => "once".into(),
        2 => "twice".into(),
        _ => format!("{number} times"),
    }
}

/// Has the key `by` of `former`, which is on `token`, vouch for `card`.
pub(super) fn vouched(
    former: &IdentityCard,
    by: KeyPlace,
    card: IdentityCard,
    until: u64,
    members: &[Member],
    token: &mut OpenToken,
    terminal: &Terminal,
) -> Result<Succession> {
    if operations(members) > MAX_MACS {
        return Err(Error::new(
            ErrorKind::SuccessionInvalid,
            format!(
                "The members have {} keys, and a succession is for {MAX_MACS} at most; no token was asked, and nothing was changed.",
                operations(members)
            ),
            "Set this machine up anew with `claviger-ceremony init`, and have its peers import that card.",
        ));
    }
    let mut succession = Succession::new(former, by, card, until);
    for member in members {
        for (place, key) in &member.keys {
            let agreed = token.agree(key, terminal)?;
            succession.vouch(&member.name, *place, &agreed)?;
        }
    }
    Ok(succession)
}
