//! `prove`.

use std::path::{Path, PathBuf};

use claviger::ceremony::document::Document;
use claviger::ceremony::plan::Plan;
use claviger::ceremony::proof::{Challenge, Proof};
use claviger::error::{Error, ErrorKind, Result};
use claviger::identity::{IdentityCard, KeyPlace};
use claviger::program::Terminal;
use claviger::store::{Event, Machine, Store, seal_point};
use data_encoding::HEXLOWER;
use serde::Serialize;

use super::{now, places, read};
use crate::cli::{Cli, Prove};
use crate::commands::opened::{OpenToken, Opened, opened};
use crate::files::{Delivered, deliver};
use crate::report::utc;

/// Why a challenge is left out.
const OWN: &str = "It is this machine's own.";

/// How far the challenger's clock may be ahead before it is told, in seconds.
const SKEW: u64 = 120;

/// `prove --json`: `{"proofs": [{"challenge", "verifier", "key"}], "left_out": [{"verifier", "why"}]}` and where they went. `key` is `primary` or `backup`.
#[derive(Serialize)]
struct Proven {
    proofs: Vec<Given>,
    left_out: Vec<LeftOut>,
    #[serde(flatten)]
    delivered: Delivered,
}

#[derive(Serialize)]
struct Given {
    challenge: String,
    verifier: String,
    key: String,
}

#[derive(Serialize)]
struct LeftOut {
    verifier: String,
    why: &'static str,
}

pub(super) fn prove(cli: &Cli, command: &Prove, terminal: &Terminal) -> Result<()> {
    let challenges = read(&command.files, "challenge", |document| match document {
        Document::Challenge(challenge) => Some(challenge.clone()),
        _ => None,
    })?;
    let opened = opened(cli, terminal)?;
    let machine = opened.store.machine()?;
    let plan = opened.store.plan()?;
    let own = machine.card.identifier.clone();
    let place = if command.backup { KeyPlace::Backup } else { machine.active };
    let Sorted { asked, left_out } = sort(challenges, &machine.card, plan.as_ref(), &opened.store, terminal)?;
    for left_out in &left_out {
        terminal.note(&format!("Left out: the challenge of \"{}\". {}", left_out.verifier, left_out.why));
    }
    if asked.is_empty() {
        terminal.note("Nothing to answer, and nothing was written: no edge of the plan joins this machine to those that ask. Go on with the next step.");
        let stdout = |place: &Option<PathBuf>| place.as_deref() == Some(Path::new("-"));
        if [&command.out, &command.png, &command.svg].into_iter().any(stdout) {
            return Ok(());
        }
        let proven = Proven { proofs: Vec::new(), left_out, delivered: Delivered::default() };
        return terminal.result("", &proven);
    }
    let file = if command.backup { format!("{own}.backup.proofs") } else { format!("{own}.proofs") };
    // What will be written is not known yet; what is there and is not proofs of this machine is not overwritten.
    let default = PathBuf::from(file);
    let output = places(
        command.output(),
        default.clone(),
        "",
        |there, own| there.iter().all(|there| matches!(there, Document::Proof(older) if older.prover == *own)),
        &own,
    )?;
    let (mut store, mut token) = token(opened, &machine, place, terminal)?;
    let ceremony = plan.as_ref().map_or_else(|| "no plan".into(), |plan| format!("the plan \"{}\"", plan.name));
    let (mut text, mut proofs) = (String::new(), Vec::new());
    for (challenge, _) in &asked {
        terminal.note(&format!(
            "\"{}\" asks for the {place} key, under {ceremony}, until {}.",
            challenge.verifier,
            utc(challenge.expires)
        ));
        let agreed = token.agree(&challenge.ephemeral, terminal)?;
        text += &Proof::new(challenge, &machine.card, place, &agreed)?.to_text();
        proofs.push(Given {
            challenge: HEXLOWER.encode(&challenge.id),
            verifier: challenge.verifier.to_string(),
            key: place.to_string(),
        });
    }
    for (challenge, card) in &asked {
        let detail = format!("{place} key; challenge {}", HEXLOWER.encode(&challenge.id[..4]));
        store.note(Event::ProofGiven, &challenge.verifier, card.fingerprint(), &detail)?;
    }
    let delivered = deliver(&text, &format!("{own}: proofs"), || default, &output, terminal)?;
    let told = delivered.told().map_or_else(String::new, |told| format!("{told}. "));
    let many = if asked.len() == 1 { "the machine that asked" } else { "the machines that asked" };
    terminal
        .note(&format!("{told}Carry the proofs to {many}; there, verify them with `claviger-ceremony verify-proof`."));
    if delivered.to_stdout() {
        return Ok(());
    }
    let proven = Proven { proofs, left_out, delivered };
    terminal.result(&proven.delivered.text(), &proven)
}

/// The token with the key of `place`; the one that opened the store is closed where it is another.
fn token(opened: Opened, machine: &Machine, place: KeyPlace, terminal: &Terminal) -> Result<(Store, OpenToken)> {
    if place == machine.active {
        return opened.with_token(terminal);
    }
    let Opened { store, token } = opened;
    drop(token);
    let (Some(locator), Some(key)) = (&machine.backup_token, machine.card.key(place)) else {
        return Err(Error::new(
            ErrorKind::KeyNotFound,
            format!("\"{}\" has no backup token.", machine.card.identifier),
            "Prove without `--backup`, or add one with `claviger-ceremony backup add --token LOCATOR`.",
        ));
    };
    terminal.note("Now the backup token.");
    Ok((store, OpenToken::open(locator, Some(key), terminal)?))
}

/// Challenges after they were looked at.
#[derive(Default)]
struct Sorted {
    /// To answer, each with the card of who asks.
    asked: Vec<(Challenge, IdentityCard)>,
    left_out: Vec<LeftOut>,
}

/// Refuses every challenge that is not to be answered, and leaves out those that need not be.
fn sort(
    challenges: Vec<Challenge>,
    own: &IdentityCard,
    plan: Option<&Plan>,
    store: &Store,
    terminal: &Terminal,
) -> Result<Sorted> {
    let (now, cards) = (now(), store.cards()?);
    let mut sorted = Sorted::default();
    for challenge in challenges {
        let name = challenge.verifier.clone();
        let leave = |why| LeftOut { verifier: name.to_string(), why };
        if name == own.identifier {
            sorted.left_out.push(leave(OWN));
            continue;
        }
        same_ceremony(&challenge, plan)?;
        in_time(&challenge, now, terminal)?;
        let Some(card) = cards.iter().find(|card| card.identifier == name) else {
            return Err(Error::new(
                ErrorKind::PeerUnknown,
                format!("The challenge is by \"{name}\", whose card is not held here; no token was asked."),
                format!(
                    "Import its card first, with `claviger-ceremony import {name}.card`, and compare fingerprints."
                ),
            ));
        };
        if plan.is_some_and(|plan| !plan.joins(&name, &own.identifier)) {
            sorted.left_out.push(leave("No edge of the plan joins it to this machine."));
            continue;
        }
        honest(&challenge, own, &cards)?;
        if sorted.asked.iter().any(|(other, _)| other.id == challenge.id) {
            let what = format!("Two challenges of \"{name}\" have one identifier: one of them was forged.");
            return Err(Error::new(ErrorKind::ProofInvalid, what, another(&name)));
        }
        sorted.asked.push((challenge, card.clone()));
    }
    // A member whom no edge joins to those that ask has done its step.
    if sorted.left_out.iter().all(|left_out| left_out.why == OWN) && sorted.asked.is_empty() {
        return Err(Error::new(
            ErrorKind::ProofInvalid,
            "There is no challenge to answer: this machine's own alone was given.",
            "Give the challenges of this machine's peers.",
        ));
    }
    Ok(sorted)
}

fn another(name: impl std::fmt::Display) -> String {
    format!("Have another one made on \"{name}\" with `claviger-ceremony challenge`.")
}

fn same_ceremony(challenge: &Challenge, plan: Option<&Plan>) -> Result<()> {
    let name = &challenge.verifier;
    let other = match (&challenge.plan, plan) {
        (None, None) => return Ok(()),
        (Some(theirs), Some(plan)) if *theirs == plan.fingerprint() => return Ok(()),
        (Some(theirs), Some(plan)) => format!(
            "The challenge of \"{name}\" is from another ceremony: under the plan \"{}\", and here the plan is \"{}\".",
            theirs.words(),
            plan.fingerprint().words()
        ),
        (Some(theirs), None) => {
            format!(
                "The challenge of \"{name}\" is from another ceremony: under the plan \"{}\", and here is none.",
                theirs.words()
            )
        }
        (None, Some(plan)) => format!(
            "The challenge of \"{name}\" is from another ceremony: without a plan, and here it is \"{}\".",
            plan.fingerprint().words()
        ),
    };
    Err(Error::new(
        ErrorKind::ProofInvalid,
        format!("{other} No token was asked."),
        "Compare what `claviger-ceremony plan show` says on both machines; record the right plan there, and have the challenge made again.",
    ))
}

fn in_time(challenge: &Challenge, now: u64, terminal: &Terminal) -> Result<()> {
    let name = &challenge.verifier;
    if now >= challenge.expires {
        return Err(Error::new(
            ErrorKind::ProofExpired,
            format!(
                "The challenge of \"{name}\" held until {}, and this machine's clock says {}; no token was asked.",
                utc(challenge.expires),
                utc(now)
            ),
            format!(
                "If both clocks are right, have another one made on \"{name}\" with `claviger-ceremony challenge`; if not, set the one that is wrong."
            ),
        ));
    }
    if now.saturating_add(SKEW) < challenge.issued {
        terminal.warn(&format!(
            "\"{name}\" made its challenge at {}, and this machine's clock says {}: one of the two clocks is wrong.",
            utc(challenge.issued),
            utc(now)
        ));
    }
    Ok(())
}

/// Whether the ephemeral key can be one: of this machine's curve, and not the key or the seal's point of anybody known. A MAC under a key from such an agreement would
/// tell nothing (`docs/wire-format.md`, "Texts of the ceremony"); but who asks for it is up to something.
fn honest(challenge: &Challenge, own: &IdentityCard, cards: &[IdentityCard]) -> Result<()> {
    let name = &challenge.verifier;
    if challenge.ephemeral.curve() != own.curve() {
        return Err(Error::new(
            ErrorKind::NoSharedCurve,
            format!(
                "The challenge of \"{name}\" is on {}, and this machine's key is on {}.",
                challenge.ephemeral.curve(),
                own.curve()
            ),
            format!("Compare the card of \"{name}\" with the plan: peers share a curve."),
        ));
    }
    let places = [KeyPlace::Primary, KeyPlace::Backup];
    let keys = |card| places.into_iter().filter_map(move |place| IdentityCard::key(card, place));
    let asks_for = if keys(own).any(|key| seal_point(key) == challenge.ephemeral) {
        "what opens this machine's store"
    } else if cards.iter().flat_map(keys).any(|key| *key == challenge.ephemeral) {
        "an agreement with a machine's own key"
    } else {
        return Ok(());
    };
    Err(Error::new(
        ErrorKind::ProofInvalid,
        format!("The challenge in the name of \"{name}\" was forged: it asks for {asks_for}. No token was asked."),
        format!("Find out who made it, and carry the next one from \"{name}\" yourself."),
    ))
}
