//! `phrase`, `confirm`, `witness`: the whole set, read aloud and recorded.

mod confirm;
mod phrase;
mod rules;

use claviger::ceremony::phrase::PHRASE_WORDS;
use claviger::ceremony::plan::Plan;
use claviger::error::{Error, ErrorKind, Result};
use claviger::identity::{Fingerprint, Identifier, IdentityCard};
use claviger::program::Terminal;
use claviger::store::Store;

use crate::cli::{Cli, Set};

pub(super) use phrase::spoken;

pub(super) fn run(cli: &Cli, command: &Set, terminal: &Terminal) -> Result<()> {
    match command {
        Set::Phrase => phrase::phrase(cli, terminal),
        Set::Confirm(confirm) => confirm::confirm(cli, confirm, terminal),
        Set::Witness { name } => confirm::witness(cli, name, terminal),
    }
}

/// The plan and every card of the set.
#[derive(PartialEq, Eq)]
pub(super) struct Whole {
    plan: Option<Plan>,
    cards: Vec<IdentityCard>,
    own: IdentityCard,
}

impl Whole {
    /// Reads it. What is missing of the set, if anything is: the second value.
    pub(super) fn of(store: &Store) -> Result<(Self, Vec<String>)> {
        let (plan, cards, own) = (store.plan()?, store.cards()?, store.machine()?.card);
        let missing = match &plan {
            Some(plan) => {
                let held = |name: &Identifier| cards.iter().any(|card| card.identifier == *name);
                let revoked = store.revoked()?;
                let names = plan.members.iter().map(|member| &member.identifier).filter(|name| !held(name));
                names
                    .map(|name| match revoked.iter().any(|revoked| revoked.identifier == *name) {
                        true => format!("a card of \"{name}\", which was {REVOKED}"),
                        false => format!("the card of \"{name}\""),
                    })
                    .collect()
            }
            None if cards.len() < 2 => vec!["the card of a peer".to_owned()],
            None => {
                let peers = store.peers()?;
                let bare = peers.iter().filter(|peer| peer.card().is_none());
                bare.map(|peer| format!("the card of \"{}\", of which only the key is recorded", peer.identifier))
                    .collect()
            }
        };
        Ok((Self { plan, cards, own }, missing))
    }

    pub(super) fn plan(&self) -> Option<&Plan> {
        self.plan.as_ref()
    }

    /// All that are held, this machine's own among them.
    pub(super) fn cards(&self) -> &[IdentityCard] {
        &self.cards
    }

    pub(super) fn phrase(&self) -> String {
        claviger::ceremony::phrase::phrase(self.plan.as_ref(), self.cards.iter())
    }

    /// What the log names a confirmation by.
    fn fingerprint(&self) -> Fingerprint {
        self.plan.as_ref().map_or_else(|| self.own.fingerprint(), Plan::fingerprint)
    }

    /// `the plan "vault-2026"`.
    fn name(&self) -> String {
        self.plan
            .as_ref()
            .map_or_else(|| "a ceremony without a plan".into(), |plan| format!("the plan \"{}\"", plan.name))
    }
}

fn incomplete(missing: &[String], hint: &str) -> Error {
    Error::new(
        ErrorKind::CeremonyIncomplete,
        format!("The ceremony is not complete. Missing: {}.", missing.join("; ")),
        hint,
    )
}

const REVOKED: &str = "revoked here";

/// What to do about what [`Whole::of`] misses.
fn complete(missing: &[String]) -> &'static str {
    if missing.iter().any(|what| what.ends_with(REVOKED)) {
        "Who was revoked leaves the plan, with `claviger-ceremony plan record FILE` on every machine, or is set up anew; what else is missing, import with `claviger-ceremony import FILE`."
    } else {
        "Import what is missing with `claviger-ceremony import FILE`."
    }
}

/// A phrase's words in three numbered groups of four.
pub(super) fn groups(words: &[&str]) -> String {
    let group = |at: usize| {
        let words: String = words[at..at + 4].iter().map(|word| format!("  {word:<8}")).collect();
        format!("  {:<4}{}\n", format!("{}-{}", at + 1, at + 4), words.trim_end())
    };
    (0..PHRASE_WORDS).step_by(4).map(group).collect()
}
