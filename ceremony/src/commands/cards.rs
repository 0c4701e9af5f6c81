//! `export` and `import`: identity cards out and in.

mod confirm;

use std::path::PathBuf;

use claviger::ceremony::document::Document;
use claviger::ceremony::plan::Plan;
use claviger::ceremony::succession::Succession;
use claviger::error::{Error, ErrorKind, Result};
use claviger::identity::{Identifier, IdentityCard, Kem};
use claviger::store::{Added, Store};
use serde::Serialize;

use confirm::{Kind, confirm_of};
pub(super) use confirm::{Refusal, type_words, words_shown};
pub(crate) use confirm::{compare, confirm, two_of};

use super::life::import_succession;
use super::open;
use super::opened::{Opened, opened};
use crate::attestation::{Proven, demand, logged, roots, unproven};
use crate::cli::{Cli, Export, Import};
use crate::files::{Delivered, deliver, read_documents};
use crate::report::Print;
use claviger::program::Terminal;

/// `export --json`: `{"file", "outcome", "png", "svg", "fingerprint"}`, as [`Delivered`].
#[derive(Serialize)]
struct Exported {
    #[serde(flatten)]
    delivered: Delivered,
    fingerprint: Print,
}

pub(super) fn export(store: &Store, export: &Export, terminal: &Terminal) -> Result<()> {
    let card = store.machine()?.card;
    let (name, words) = (&card.identifier, card.fingerprint().words());
    let default = || PathBuf::from(format!("{name}.card"));
    let title = format!("Identity card of {name}: {words}");
    let delivered = deliver(&card.to_text(), &title, default, &export.output, terminal)?;
    if let Some(told) = delivered.told() {
        terminal.note(&format!("{told}. Carry it to the other machines; there, compare these words:\n  {words}"));
    } else if export.output.qr {
        terminal.note(&format!("On each machine that scanned it, compare these words:\n  {words}"));
    }
    if delivered.to_stdout() {
        return Ok(());
    }
    terminal.result(&delivered.text(), &Exported { delivered, fingerprint: card.fingerprint().into() })
}

/// `import --json`: `{"imported": [{"identifier", "outcome", "peer", "fingerprint", "attested", "backup_attested", "kem", "post_quantum"}]}`.
#[derive(Serialize)]
struct Imported {
    imported: Vec<Outcome>,
}

#[derive(Serialize)]
struct Outcome {
    identifier: String,
    /// `new` or `already-there`; `succeeded` for the next card of a machine that was recorded.
    outcome: &'static str,
    /// `false`: the plan does not join it to this machine, and its card is only held for the phrase.
    peer: bool,
    fingerprint: Print,
    /// What the card's attestation states; `null` when it carries none.
    attested: Option<String>,
    /// The same of its backup key; `null` when it has none.
    backup_attested: Option<String>,
    /// `ML-KEM-768`, or `null`.
    kem: Option<String>,
    /// Whether this machine's card offers the same one.
    post_quantum: bool,
}

/// A card that was read and found good, and what its attestations state.
struct Candidate {
    card: IdentityCard,
    proven: Proven,
    added: Added,
    kind: Kind,
    /// What this machine's own card offers.
    own: Option<Kem>,
    /// A pre-shared key is held with it.
    preshared: bool,
}

/// Everything is read, checked against store and plan, every attestation verified, and every fingerprint that was given compared, before the token is asked and
/// before the first card is recorded or asked about; each is then recorded for itself.
pub(super) fn import(cli: &Cli, import: &Import, terminal: &Terminal) -> Result<()> {
    import_read(cli, read_cards(&import.files)?, import, terminal)
}

/// As [`import`], of what was read.
pub(super) fn import_read(cli: &Cli, read: Sorted, import: &Import, terminal: &Terminal) -> Result<()> {
    let Sorted { cards, successions } = read;
    let store = open(cli)?;
    let candidates = checked(&store, cards.clone(), successions.len(), import)?;
    if successions.is_empty() && candidates.iter().all(|candidate| candidate.added == Added::AlreadyThere) {
        let imported = candidates.iter().map(|candidate| told(candidate, terminal)).collect();
        return terminal.result("", &Imported { imported });
    }
    drop(store);
    // Once more: policy, roots and plan were read before the seal was opened, and what counts is what is under it.
    import_into(opened(cli, terminal)?, Sorted { cards, successions }, import, terminal)
}

/// As [`import`] of what was read, into a store that is open.
pub(super) fn import_into(opened: Opened, read: Sorted, import: &Import, terminal: &Terminal) -> Result<()> {
    let candidates = checked(&opened.store, read.cards, read.successions.len(), import)?;
    record(opened, candidates, &read.successions, import, terminal)
}

/// What `import` takes, each once.
pub(super) struct Sorted {
    cards: Vec<IdentityCard>,
    successions: Vec<Succession>,
}

/// Reads what `import` takes. Other documents are for other commands, and one name is one machine's.
pub(super) fn read_cards(files: &[PathBuf]) -> Result<Sorted> {
    let (cards, successions) = sorted(read_documents(files)?)?;
    Ok(Sorted { cards, successions })
}

/// What can be said of cards before the plan is recorded that lets them in: whether they are according to it, and to the fingerprints that were given.
pub(super) fn check_by(plan: &Plan, read: &Sorted, own: &IdentityCard, import: &Import) -> Result<()> {
    let cards = compared(read.cards.clone(), read.successions.len(), own, import)?;
    cards.iter().try_for_each(|card| plan.check_card(card))
}

/// The cards without this machine's own, which `*.card` names, too; and compared with the fingerprints that were given, of which those of the successions, so
/// many, come last.
fn compared(
    mut cards: Vec<IdentityCard>,
    successions: usize,
    own: &IdentityCard,
    import: &Import,
) -> Result<Vec<IdentityCard>> {
    // Alone it is refused, as its own.
    if cards.iter().any(|card| card != own) {
        cards.retain(|card| card != own);
    }
    let count = cards.len() + successions;
    if !import.fingerprint.is_empty() && import.fingerprint.len() != count {
        let what = format!("The cards are {count}, and --fingerprint is given for {}.", import.fingerprint.len());
        let hint = "Give --fingerprint once for each card but this machine's own, in the order of the cards, those of successions last; or not at all.";
        return Err(Error::new(ErrorKind::FingerprintInvalid, what, hint));
    }
    cards.iter().zip(&import.fingerprint).try_for_each(|(card, given)| compare(card, given))?;
    Ok(cards)
}

/// Records what was [`checked`], asking about each where no fingerprint was given.
fn record(
    mut opened: Opened,
    candidates: Vec<Candidate>,
    successions: &[Succession],
    import: &Import,
    terminal: &Terminal,
) -> Result<()> {
    let machine = opened.store.machine()?;
    let roots = roots(&machine.attestation.roots, &import.attestation_root)?;
    let own = machine.card.fingerprint();
    let new = candidates.iter().filter(|candidate| candidate.added == Added::New).count();
    let count = candidates.len();
    let (mut asked, mut imported) = (0, Vec::new());
    for candidate in candidates {
        if candidate.added == Added::New {
            asked += 1;
            let how = if import.fingerprint.is_empty() {
                confirm_of(&candidate.card, candidate.kind, (asked, new), &own, &roots, terminal)?
            } else {
                "fingerprint given"
            };
            opened.store.add_card(&candidate.card, &format!("{how}; {}", logged(&candidate.proven)))?;
        }
        imported.push(told(&candidate, terminal));
    }
    if !successions.is_empty() {
        let fingerprints = import.fingerprint.get(count..).unwrap_or_default();
        imported.extend(succeed(opened, successions, fingerprints, import, terminal)?);
    }
    // Without --json the notes have said it all.
    terminal.result("", &Imported { imported })
}

/// Cards and successions.
fn sorted(documents: Vec<(String, Document)>) -> Result<(Vec<IdentityCard>, Vec<Succession>)> {
    let (mut cards, mut successions) = (Vec::<IdentityCard>::new(), Vec::new());
    let other = |from: &str, what: &str, command: &str| {
        let what = format!("{from} holds a {what}, and `import` records identity cards.");
        Err(Error::new(ErrorKind::CardInvalid, what, format!("Give it to `claviger-ceremony {command} {from}`.")))
    };
    for (from, document) in documents {
        match document {
            Document::Challenge(_) => return other(&from, "challenge", "prove"),
            Document::Proof(_) => return other(&from, "proof", "verify-proof"),
            Document::Succession(succession) if successions.contains(&succession) => {}
            Document::Succession(succession) => successions.push(succession),
            Document::Card(card) if cards.contains(&card) => {}
            Document::Card(card) => match cards.iter().find(|other| other.identifier == card.identifier) {
                Some(other) => return Err(two_of_one_name(&card.identifier, other, &card)),
                None => cards.push(card),
            },
        }
    }
    Ok((cards, successions))
}

pub(super) fn two_of_one_name(name: &Identifier, one: &IdentityCard, other: &IdentityCard) -> Error {
    let what = format!(
        "Two different cards are of \"{name}\": with the fingerprints {} and {}; nothing was recorded.",
        one.fingerprint(),
        other.fingerprint()
    );
    let hint = format!("Import the one whose fingerprint `claviger-ceremony show` has on \"{name}\".");
    Error::new(ErrorKind::PeerConflict, what, hint)
}

/// `more`: successions, which take their fingerprints after the cards.
fn checked(store: &Store, cards: Vec<IdentityCard>, more: usize, import: &Import) -> Result<Vec<Candidate>> {
    let (machine, plan) = (store.machine()?, store.plan()?);
    if !import.fingerprint.is_empty() && plan.as_ref().is_some_and(|plan| plan.rules.words_spoken) {
        return Err(Error::new(
            ErrorKind::CeremonyIncomplete,
            "The plan demands that words are spoken, and `--fingerprint` gives them on the command line; nothing was recorded.",
            "Import on a terminal, without `--fingerprint`, as somebody at the other machine reads its words aloud.",
        ));
    }
    let cards = compared(cards, more, &machine.card, import)?;
    let roots = roots(&machine.attestation.roots, &import.attestation_root)?;
    let required = machine.attestation.required
        || import.require_attestation
        || plan.as_ref().is_some_and(|plan| plan.rules.attestation);
    let held = store.held_preshared_keys()?;
    let mut candidates = Vec::new();
    for card in cards {
        let added = store.check_card(&card)?;
        let proven = demand(&card, &roots, required)?;
        let joined = plan.as_ref().is_none_or(|plan| plan.joins(&machine.card.identifier, &card.identifier));
        let kind = if joined { Kind::Peer } else { Kind::Held };
        let preshared = held.iter().any(|held| held.peer == card.identifier);
        candidates.push(Candidate { card, proven, added, kind, own: machine.card.kem, preshared });
    }
    Ok(candidates)
}

/// Says what became of a card.
fn told(candidate: &Candidate, terminal: &Terminal) -> Outcome {
    let Candidate { card, proven, added, kind, .. } = candidate;
    let name = &card.identifier;
    let (outcome, verb) = match added {
        Added::New => ("new", "is recorded"),
        Added::AlreadyThere => ("already-there", "was recorded already, with the same values"),
    };
    let mut text = match kind {
        Kind::Peer => format!("Peer \"{name}\" {verb}."),
        Kind::Held => format!("\"{name}\" {verb}, for the phrase; the plan joins it to nobody here."),
    };
    match &proven.primary {
        Some(attested) => text += &format!(" Attested: {attested}."),
        None if unproven(card) => {
            text += " Its card carries no attestation: only its own word says that its key is in a device.";
        }
        None => {}
    }
    match &proven.backup {
        Some(Some(attested)) => text += &format!(" Backup key: {attested}."),
        Some(None) => text += " It has a backup key, without an attestation.",
        None => {}
    }
    if let Some(why) = not_post_quantum(candidate) {
        text += &format!(" {why}");
    }
    terminal.note(&text);
    self::outcome(candidate, outcome)
}

/// Why sessions with a peer are not post-quantum: a sentence.
fn not_post_quantum(candidate: &Candidate) -> Option<String> {
    let Candidate { card, kind: Kind::Peer, own, preshared: false, .. } = candidate else { return None };
    let name = &card.identifier;
    let (whose, way) = match (own, card.kem) {
        (Some(_), Some(_)) => return None,
        (Some(_), None) => (format!("the card of \"{name}\" offers"), "rotate that machine"),
        (None, Some(_)) => ("this machine's card offers".to_owned(), "rotate this machine"),
        (None, None) => ("neither card offers".to_owned(), "rotate both machines"),
    };
    let none = if way == "rotate both machines" { "a" } else { "no" };
    Some(format!(
        "Sessions of the two are not post-quantum: {whose} {none} key encapsulation mechanism. To change that, {way}, or record a pre-shared key on both with \
         `claviger-ceremony psk record`."
    ))
}

fn outcome(candidate: &Candidate, outcome: &'static str) -> Outcome {
    let Candidate { card, proven, kind, own, .. } = candidate;
    Outcome {
        identifier: card.identifier.to_string(),
        outcome,
        peer: *kind == Kind::Peer,
        fingerprint: card.fingerprint().into(),
        attested: proven.primary.as_ref().map(ToString::to_string),
        backup_attested: proven.backup.as_ref().and_then(|of| of.as_ref().map(ToString::to_string)),
        kem: card.kem.map(|kem| kem.to_string()),
        post_quantum: card.kem.is_some() && card.kem == *own,
    }
}

/// Records next cards, each vouched for by its machine's present key; `fingerprints` as they were given, or none.
fn succeed(
    opened: Opened,
    successions: &[Succession],
    fingerprints: &[String],
    import: &Import,
    terminal: &Terminal,
) -> Result<Vec<Outcome>> {
    let (mut store, mut token) = opened.with_token(terminal)?;
    let IdentityCard { identifier: own, kem, .. } = store.machine()?.card;
    let mut outcomes = Vec::new();
    for (at, succession) in successions.iter().enumerate() {
        let given = fingerprints.get(at).map(String::as_str);
        let done = import_succession(&mut store, &mut token, succession, given, &import.attestation_root, terminal)?;
        let card = &succession.card;
        let joined = store.plan()?.is_none_or(|plan| plan.joins(&own, &card.identifier));
        let candidate = Candidate {
            card: card.clone(),
            proven: done.proven,
            added: done.added,
            kind: if joined { Kind::Peer } else { Kind::Held },
            own: kem,
            preshared: store.held_preshared_keys()?.iter().any(|held| held.peer == card.identifier),
        };
        if let Some(why) = not_post_quantum(&candidate) {
            terminal.note(&why);
        }
        outcomes.push(outcome(&candidate, if done.added == Added::New { "succeeded" } else { "already-there" }));
    }
    Ok(outcomes)
}
