//! Several machines' transcripts side by side: whether they held the same ceremony.

use std::collections::BTreeMap;

use super::{HeldCard, Transcript};
use crate::ceremony::log::{Event, LogEntry, MOVED};
use crate::ceremony::plan::Plan;
use crate::identity::{Fingerprint, Identifier};

/// How far apart, in seconds, the machines' confirmations of one phrase may be before it is told: everybody is in the room when it is read aloud.
pub const CONFIRMED_WITHIN: u64 = 3600;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// What differs. Its [text](Self::as_str) never changes meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum DifferenceKind {
            $($(#[$doc])* $name,)*
        }

        impl DifferenceKind {
            /// The kind, in kebab case.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

kinds! {
    /// Two transcripts of one machine, the later of which has not all that the earlier one has.
    RolledBack = "rolled-back",
    /// Two machines of one name.
    SameName = "same-name",
    /// Another plan, or none.
    Plan = "plan",
    /// A machine that the plan does not have.
    Stranger = "stranger",
    /// A member's transcript is not here.
    TranscriptMissing = "transcript-missing",
    /// Another card of a member.
    Card = "card",
    /// No card of a member.
    CardMissing = "card-missing",
    /// The phrase was not confirmed.
    Unconfirmed = "unconfirmed",
    /// Another phrase was confirmed than by the others.
    Phrase = "phrase",
    /// The phrase that was confirmed is not that over the cards that are held.
    ChangedSince = "changed-since",
    /// A peer's token proved nothing here, and the plan demands it.
    ProofMissing = "proof-missing",
    /// A card's attestation does not hold, or is not there, and the plan demands one.
    Attestation = "attestation",
    /// A card has no backup key, and the plan demands one.
    BackupMissing = "backup-missing",
    /// A card was taken by a fingerprint that nobody spoke, and the plan demands spoken words.
    NotSpoken = "not-spoken",
    /// Fewer witnesses than the plan demands.
    Witnesses = "witnesses",
    /// Another release of claviger.
    Version = "version",
}

impl DifferenceKind {
    /// Something that was not done, rather than done otherwise.
    pub fn is_missing(self) -> bool {
        matches!(
            self,
            Self::TranscriptMissing
                | Self::CardMissing
                | Self::Unconfirmed
                | Self::ProofMissing
                | Self::Attestation
                | Self::BackupMissing
                | Self::NotSpoken
                | Self::Witnesses
        )
    }
}

/// One thing that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What.
    pub kind: DifferenceKind,
    /// On which machine; `None` for a transcript that is not here.
    pub machine: Option<Identifier>,
    /// Concerning which member.
    pub member: Option<Identifier>,
    /// For people: a sentence.
    pub text: String,
}

/// One machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Which.
    pub machine: Identifier,
    /// Entries of its log.
    pub entries: usize,
    /// The log's head.
    pub head: Fingerprint,
    /// Cards that it holds, its own included.
    pub cards: usize,
    /// Peers whose token proved that it holds the primary key of their card, and all peers.
    pub proven: (usize, usize),
    /// When it confirmed the phrase that stands, seconds since 1970.
    pub confirmed: Option<u64>,
    /// Those who watched.
    pub witnesses: usize,
    /// Whether its store is sealed.
    pub sealed: bool,
    /// Whether it is named in a difference.
    pub differs: bool,
}

/// What a comparison came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Comparison {
    /// A line for each machine, ordered by name.
    pub rows: Vec<Row>,
    /// What differs; empty when all held the same ceremony.
    pub differences: Vec<Difference>,
    /// What people should know, and may be as it should: sentences.
    pub warnings: Vec<String>,
}

/// Compares transcripts, each of which holds by itself. Of a machine with several, the latest counts, and must go on where the others end.
///
/// What most machines have is what the others are measured by; where that is even, a card by what its own machine shows.
pub fn compare(transcripts: &[Transcript]) -> Comparison {
    let mut found = Comparison::default();
    let machines = latest(transcripts, &mut found);
    let all: Vec<&Transcript> = machines.values().copied().collect();
    plans(&all, &mut found);
    let plan = most(all.iter().map(|one| one.plan.as_ref())).flatten();
    members(&all, plan, &mut found);
    cards(&all, plan, &mut found);
    phrases(&all, &mut found);
    all.iter().for_each(|one| rules(one, &mut found));
    versions(&all, &mut found);
    clocks(&all, &mut found);
    found.rows = all.iter().map(|one| row(one, &found.differences)).collect();
    found
}

impl Comparison {
    fn differs(&mut self, kind: DifferenceKind, on: &Transcript, member: Option<&Identifier>, text: String) {
        let machine = Some(on.machine.clone());
        self.differences.push(Difference { kind, machine, member: member.cloned(), text });
    }
}

/// The most frequent value, of equally frequent ones the first.
fn most<T: PartialEq>(values: impl Iterator<Item = T>) -> Option<T> {
    let mut counted: Vec<(T, usize)> = Vec::new();
    for value in values {
        match counted.iter_mut().find(|(known, _)| *known == value) {
            Some((_, count)) => *count += 1,
            None => counted.push((value, 1)),
        }
    }
    // Of equal ones `max_by_key` gives the last.
    counted.into_iter().rev().max_by_key(|(_, count)| *count).map(|(value, _)| value)
}

/// `the others do`, or what the other one does, by its name.
fn others(all: &[&Transcript], but: &Transcript) -> String {
    match all {
        [one, other] => format!("{} does", if one.machine == but.machine { &other.machine } else { &one.machine }),
        _ => "the others do".into(),
    }
}

/// The latest transcript of each machine, once it is known to go on where the earlier ones end.
fn latest<'a>(transcripts: &'a [Transcript], found: &mut Comparison) -> BTreeMap<&'a Identifier, &'a Transcript> {
    let mut ordered: Vec<&Transcript> = transcripts.iter().collect();
    ordered.sort_by_key(|one| (one.exported, one.log.len()));
    let mut latest: BTreeMap<&Identifier, &Transcript> = BTreeMap::new();
    for later in ordered {
        if let Some(earlier) = latest.insert(&later.machine, later) {
            extends(earlier, later, found);
        }
    }
    latest
}

fn extends(earlier: &Transcript, later: &Transcript, found: &mut Comparison) {
    let name = &later.machine;
    let same = earlier.log.iter().zip(&later.log).take_while(|(one, other)| one.hash == other.hash).count();
    if same == 0 {
        let text = format!("There are two machines of the name {name}: their logs have nothing in common.");
        found.differs(DifferenceKind::SameName, later, None, text);
    } else if same < earlier.log.len() {
        let text = format!(
            "The later transcript of {name} goes back behind entry {}: an older store was restored.",
            earlier.log[same].sequence
        );
        found.differs(DifferenceKind::RolledBack, later, None, text);
    }
}

fn plans(all: &[&Transcript], found: &mut Comparison) {
    // In full: two plans of one fingerprint could be made by who writes the plan.
    let Some(usual) = most(all.iter().map(|one| one.plan.as_ref())) else { return };
    for one in all.iter().filter(|one| one.plan.as_ref() != usual) {
        let what = if one.plan.is_some() { "goes by another plan than" } else { "goes by no plan;" };
        let text = format!("{} {what} {}.", one.machine, others(all, one));
        found.differs(DifferenceKind::Plan, one, None, text);
    }
}

fn members(all: &[&Transcript], plan: Option<&Plan>, found: &mut Comparison) {
    let Some(plan) = plan else { return };
    for one in all.iter().filter(|one| plan.member(&one.machine).is_none()) {
        let text = format!("{} is not a member of the plan {}.", one.machine, plan.name);
        found.differs(DifferenceKind::Stranger, one, None, text);
    }
    for one in all {
        for card in
            one.cards.iter().filter(|card| plan.member(&card.identifier).is_none() && card.identifier != one.machine)
        {
            let stranger = &card.identifier;
            let text =
                format!("{} holds a card of {stranger}, who is not a member of the plan {}.", one.machine, plan.name);
            found.differs(DifferenceKind::Stranger, one, Some(stranger), text);
        }
    }
    // One machine alone is looked at by itself.
    let compared = if all.len() > 1 { plan.members.as_slice() } else { &[] };
    for member in compared {
        if !all.iter().any(|one| one.machine == member.identifier) {
            found.differences.push(Difference {
                kind: DifferenceKind::TranscriptMissing,
                machine: None,
                member: Some(member.identifier.clone()),
                text: format!("There is no transcript of {}.", member.identifier),
            });
        }
    }
}

/// Every machine holds a card of every member, and the same one.
fn cards(all: &[&Transcript], plan: Option<&Plan>, found: &mut Comparison) {
    let planned = plan.iter().flat_map(|plan| plan.members.iter().map(|member| &member.identifier));
    let mut members: Vec<&Identifier> =
        all.iter().flat_map(|one| one.cards.iter().map(|card| &card.identifier)).chain(planned).collect();
    members.sort_unstable();
    members.dedup();
    for member in members {
        let own = all.iter().find(|one| one.machine == *member).and_then(|one| one.card(member));
        let held = all.iter().filter_map(|one| one.card(member));
        // Its own word first: of equally frequent ones that counts.
        let usual =
            most(own.into_iter().chain(held.filter(|card| own.is_none_or(|own| !std::ptr::eq(own, *card)))).map(told));
        for one in all {
            match one.card(member) {
                None => missing(one, member, plan, found),
                Some(card) if Some(told(card)) != usual => {
                    let text = if one.machine == *member {
                        format!("{member} shows another card of itself than the others hold.")
                    } else {
                        format!("{} holds another card of {member} than {}.", one.machine, others(all, one))
                    };
                    found.differs(DifferenceKind::Card, one, Some(member), text);
                }
                Some(card) if recorded(one, card).is_none() => {
                    let text = format!("{} holds a card of {member} that its log does not tell of.", one.machine);
                    found.differs(DifferenceKind::Card, one, Some(member), text);
                }
                Some(_) => {}
            }
        }
    }
}

/// All that a transcript tells of a card, so that one is found of which something was edited beside the digest. What the attestation is worth depends on the
/// machine's roots.
fn told(card: &HeldCard) -> impl PartialEq {
    let HeldCard { identifier, role, token, digest, fingerprint, primary, backup, attestation: _ } = card.clone();
    (identifier, role, token, digest, fingerprint, primary, backup)
}

fn missing(one: &Transcript, member: &Identifier, plan: Option<&Plan>, found: &mut Comparison) {
    // A machine that the plan does not have is told of once.
    if plan.is_some_and(|plan| plan.member(&one.machine).is_none() || plan.member(member).is_none()) {
        return;
    }
    let text = match one.revoked.iter().rev().find(|revoked| revoked.identifier == *member) {
        Some(revoked) => format!("{} has revoked {member}: {}.", one.machine, revoked.reason.trim_end_matches('.')),
        None => format!("{} holds no card of {member}.", one.machine),
    };
    found.differs(DifferenceKind::CardMissing, one, Some(member), text);
}

fn phrases(all: &[&Transcript], found: &mut Comparison) {
    let usual = most(all.iter().filter_map(|one| Some(one.confirmation()?.phrase)));
    for one in all {
        match one.confirmation() {
            None => {
                let text = format!("{} has not confirmed the phrase.", one.machine);
                found.differs(DifferenceKind::Unconfirmed, one, None, text);
            }
            Some(confirmed) if Some(confirmed.phrase) != usual => {
                let text = format!("{} confirmed another phrase than most machines did.", one.machine);
                found.differs(DifferenceKind::Phrase, one, None, text);
            }
            Some(confirmed) if confirmed.phrase != one.phrase() => {
                let text = format!(
                    "{} confirmed a phrase that is not the one over the cards it holds now: confirm again.",
                    one.machine
                );
                found.differs(DifferenceKind::ChangedSince, one, None, text);
            }
            Some(_) => {}
        }
    }
}

/// The cards of those whom an edge joins to the machine; without a plan, of all others.
fn peers(one: &Transcript) -> impl Iterator<Item = &HeldCard> {
    one.cards.iter().filter(|card| {
        card.identifier != one.machine
            && one.plan.as_ref().is_none_or(|plan| plan.joins(&one.machine, &card.identifier))
    })
}

/// What the machine's own plan demands.
fn rules(one: &Transcript, found: &mut Comparison) {
    let Some(rules) = one.plan.as_ref().map(|plan| &plan.rules) else { return };
    let name = &one.machine;
    if rules.proof_of_possession {
        for card in peers(one) {
            let member = &card.identifier;
            let keys = [("key", Some(&card.primary)), ("backup key", card.backup.as_ref())];
            for (which, key) in keys {
                if key.is_some_and(|key| !one.is_proven(member, key)) {
                    let text = format!("{name} has no proof that a token holds the {which} of {member}.");
                    found.differs(DifferenceKind::ProofMissing, one, Some(member), text);
                }
            }
        }
    }
    for card in &one.cards {
        let member = &card.identifier;
        if rules.attestation {
            let text = match &card.attestation {
                Some(attested) if attested.holds => None,
                Some(attested) => Some(format!(
                    "The attestation of {member} does not hold on {name}: {}.",
                    attested.verdict.trim_end_matches('.')
                )),
                None => Some(format!("The card of {member} on {name} carries no attestation.")),
            };
            if let Some(text) = text {
                found.differs(DifferenceKind::Attestation, one, Some(member), text);
            }
        }
        if rules.backup_token && card.backup.is_none() {
            let text = format!("The card of {member} on {name} has no backup key.");
            found.differs(DifferenceKind::BackupMissing, one, Some(member), text);
        }
        if rules.words_spoken && recorded(one, card).is_some_and(|entry| entry.detail.starts_with("fingerprint given"))
        {
            let text = format!("{name} took the card of {member} by a fingerprint that nobody spoke.");
            found.differs(DifferenceKind::NotSpoken, one, Some(member), text);
        }
    }
    let (there, demanded) = (one.witnesses().len(), usize::from(rules.witnesses));
    if there < demanded {
        let text = format!("{name} names {there} of {demanded} witnesses.");
        found.differs(DifferenceKind::Witnesses, one, None, text);
    }
}

/// The entry by which a card came, or this machine's own. Releases that wrote no version told of cards by the fingerprints that these had then.
fn recorded<'a>(one: &'a Transcript, card: &HeldCard) -> Option<&'a LogEntry> {
    one.log.iter().rev().find(|entry| {
        matches!(
            entry.event,
            Event::PeerAdded | Event::CardAdded | Event::CardSucceeded | Event::Created | Event::Rotated
        ) && entry.detail != MOVED
            && entry.subject == card.identifier
            && (entry.fingerprint == card.fingerprint || entry.version.is_empty())
    })
}

fn versions(all: &[&Transcript], found: &mut Comparison) {
    let Some(usual) = most(all.iter().map(|one| one.version.as_str())) else { return };
    for one in all.iter().filter(|one| one.version != usual) {
        let text = format!("{} runs claviger {}, and others {usual}.", one.machine, one.version);
        found.differs(DifferenceKind::Version, one, None, text);
    }
}

fn clocks(all: &[&Transcript], found: &mut Comparison) {
    let confirmed = || all.iter().filter_map(|one| Some((one.confirmation()?.time, &one.machine)));
    if let (Some(first), Some(last)) = (confirmed().min(), confirmed().max())
        && last.0 - first.0 > CONFIRMED_WITHIN
    {
        let apart = (last.0 - first.0) / 60;
        found.warnings.push(format!(
            "By their clocks, {} confirmed {} h {} min after {}: set the clocks right, or ask who confirmed so late.",
            last.1,
            apart / 60,
            apart % 60,
            first.1
        ));
    }
    for one in all {
        let back = one.log.windows(2).find(|pair| pair[1].time < pair[0].time).map(|pair| pair[1].sequence);
        if let Some(sequence) = back {
            found.warnings.push(format!("The clock of {} was set back before entry {sequence}.", one.machine));
        }
    }
    let open: Vec<&str> = all.iter().filter(|one| one.sealed.is_none()).map(|one| one.machine.as_str()).collect();
    if !open.is_empty() {
        found.warnings.push(format!(
            "Not sealed: the store of {}. Whoever can write to it could change its log and make the hashes anew.",
            open.join(", ")
        ));
    }
}

fn row(one: &Transcript, differences: &[Difference]) -> Row {
    let (proven, all) = peers(one).fold((0, 0), |(proven, all), card| {
        (proven + usize::from(one.is_proven(&card.identifier, &card.primary)), all + 1)
    });
    Row {
        machine: one.machine.clone(),
        entries: one.log.len(),
        head: one.head_print(),
        cards: one.cards.len(),
        proven: (proven, all),
        confirmed: one.confirmation().map(|confirmed| confirmed.time),
        witnesses: one.witnesses().len(),
        sealed: one.sealed.is_some(),
        differs: differences.iter().any(|difference| difference.machine.as_ref() == Some(&one.machine)),
    }
}
