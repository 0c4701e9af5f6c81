//! What a store that is not sealed holds: shown before it is sealed in, whoever wrote it.

use claviger::error::{Error, ErrorKind, Result};
use claviger::identity::Identifier;
use claviger::store::{HeldKey, Machine, Peer, Revoked, Store};

use super::super::losses::{names, wrapped};
use super::super::now;
use crate::commands::set::{Whole, groups, spoken};
use crate::report::utc;

/// All that the seal would vouch for and that lets somebody in, or keeps somebody out.
#[derive(PartialEq, Eq)]
pub(super) struct Contents {
    machine: Machine,
    whole: Whole,
    /// What is missing of the set.
    missing: Vec<String>,
    peers: Vec<Peer>,
    revoked: Vec<Revoked>,
    preshared: Vec<HeldKey>,
}

impl Contents {
    pub(super) fn of(store: &Store) -> Result<Self> {
        let (whole, missing) = Whole::of(store)?;
        let (peers, revoked) = (store.peers()?, store.revoked()?);
        Ok(Self { machine: store.machine()?, whole, missing, peers, revoked, preshared: store.held_preshared_keys()? })
    }

    /// What is shown was read before the token was asked: it must still be what the store holds.
    pub(super) fn unchanged(&self, store: &Store) -> Result<()> {
        if Self::of(store)? == *self {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::StoreTampered,
            "The store's file was changed between the question and the seal; it was not sealed.",
            "If another command ran meanwhile, run this one again. If none did, find out who else writes to that file.",
        ))
    }

    /// What is sealed in and what that means, in lines of at most 80 columns: the words of this machine and of its peers, or, where the cards of a plan are all
    /// there, the phrase that stands for them.
    pub(super) fn consequence(&self) -> String {
        let own = &self.machine.card;
        let phrase = self.whole.plan().is_some() && self.missing.is_empty();
        let mut rows = vec![(own.identifier.to_string(), own.fingerprint().words())];
        rows.extend(self.whole.plan().map(|plan| (format!("plan {}", plan.name), plan.fingerprint().words())));
        if !phrase {
            let others = self.whole.cards().iter().filter(|card| card.identifier != own.identifier);
            rows.extend(others.map(|card| (card.identifier.to_string(), card.fingerprint().words())));
        }
        // No card stands for these.
        let bare = self.peers.iter().filter(|peer| peer.card().is_none());
        rows.extend(bare.map(|peer| (peer.identifier.to_string(), peer.fingerprint().words())));
        let mut text = paragraph(
            "The seal vouches for what is in the store now, whoever wrote it. While it was not sealed, whoever can write to its file could \
             exchange a key in it, make a stranger a peer, or take a revocation back, unseen. It holds:",
        );
        text += &format!("\n{}", spoken(rows));
        if phrase {
            text += &format!(
                "\nThe phrase over the plan and all {} cards:\n{}",
                self.whole.cards().len(),
                groups(&self.whole.phrase().split(' ').collect::<Vec<_>>())
            );
        }
        text += "\n";
        text += &self.besides();
        let compare = if phrase {
            "Compare the phrase with `claviger-ceremony phrase` on another machine"
        } else {
            "Compare the words with `claviger-ceremony show` on each machine"
        };
        text += &format!("\n{}", paragraph(&format!("{compare}. If they differ, do not seal it.")));
        text.truncate(text.trim_end().len());
        text
    }

    /// What neither the words nor the phrase say.
    fn besides(&self) -> String {
        let now = now();
        let peers: Vec<&Identifier> = self.peers.iter().map(|peer| &peer.identifier).collect();
        let mut text = paragraph(&format!("Peers: {}.", names(&peers)));
        for peer in &self.peers {
            let name = &peer.identifier;
            if let Some(expires) = peer.expires {
                text += &paragraph(&format!("{name} expires at {}.", utc(expires)));
            }
            if let Some(former) = peer.former.as_ref().filter(|former| former.until > now) {
                text += &paragraph(&format!("A former card of {name} holds until {}, too:", utc(former.until)));
                text += &spoken(vec![(name.to_string(), former.card.fingerprint().words())]);
            }
        }
        for HeldKey { peer, check, .. } in &self.preshared {
            text += &paragraph(&format!("A pre-shared key with {peer}, whose check value there must be the same:"));
            text += &format!("  {check}\n");
        }
        if let Some(former) = &self.machine.former {
            text += &paragraph(&format!("The former key of this machine holds until {}, too.", utc(former.until)));
        }
        let mut revoked: Vec<&Identifier> = self.revoked.iter().map(|revoked| &revoked.identifier).collect();
        revoked.dedup();
        text += &paragraph(&format!("Revoked: {}.", names(&revoked)));
        if self.whole.plan().is_some() && !self.missing.is_empty() {
            text += &paragraph(&format!("Missing: {}.", self.missing.join("; ")));
        }
        text
    }
}

fn paragraph(text: &str) -> String {
    wrapped(text, "", "") + "\n"
}
