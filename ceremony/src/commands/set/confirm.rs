//! `confirm` and `witness`.

use claviger::ceremony::phrase::{PHRASE_WORDS, matches};
use claviger::error::{Error, ErrorKind, Result};
use claviger::identity::Fingerprint;
use claviger::program::Terminal;
use claviger::store::{Event, LogEntry};
use serde::Serialize;

use super::rules::missing;
use super::{Whole, groups, incomplete};
use crate::cli::{Cli, Confirm};
use crate::commands::cards::two_of;
use crate::commands::opened::opened;
use crate::report::{Print, wrapped};

/// How often a word that is on no list may be typed.
const TRIES: usize = 3;

/// `confirm --json`: `{"phrase", "by", "witnesses", "fingerprint"}`; the fingerprint is the plan's, or of this machine's card in a ceremony without one.
#[derive(Serialize)]
struct Confirmed<'a> {
    phrase: &'a str,
    by: &'a str,
    witnesses: &'a [String],
    fingerprint: Print,
}

/// `witness --json`: `{"witness", "outcome"}`; `outcome` is `new` or `already-there`.
#[derive(Serialize)]
struct Witnessed<'a> {
    witness: &'a str,
    outcome: &'static str,
}

pub(super) fn confirm(cli: &Cli, command: &Confirm, terminal: &Terminal) -> Result<()> {
    let mut store = opened(cli, terminal)?.store;
    let (whole, mut lacking) = Whole::of(&store)?;
    let mut witnesses: Vec<String> = Vec::new();
    for name in &command.witness {
        if *name == command.by {
            terminal.note(&format!("Left out as a witness: {name}, who confirms."));
        } else if !witnesses.contains(name) {
            witnesses.push(name.clone());
        }
    }
    lacking.extend(missing(&whole, &store, witnesses.len())?);
    if !lacking.is_empty() {
        return Err(incomplete(
            &lacking,
            "Do what is missing, and confirm again: cards by `import`, proofs by `challenge` and `verify-proof`, witnesses by `--witness NAME`.",
        ));
    }
    let phrase = whole.phrase();
    match &command.phrase {
        Some(_) if whole.plan.as_ref().is_some_and(|plan| plan.rules.words_spoken) => {
            return Err(Error::new(
                ErrorKind::PlanMismatch,
                "The plan demands that words are spoken, and `--phrase` gives them on the command line; nothing was recorded.",
                "Confirm on a terminal, without `--phrase`, as somebody at another machine reads its phrase aloud.",
            ));
        }
        Some(given) if matches(&phrase, given)? => {}
        Some(_) => return Err(mismatch()),
        None => heard(&whole, &phrase, &command.by, &witnesses, terminal)?,
    }
    let (own, fingerprint) = (&whole.own.identifier, whole.fingerprint());
    store.note(Event::Confirmed, own, fingerprint, &format!("{phrase}; by {}", command.by))?;
    for name in &witnesses {
        store.note(Event::Witnessed, own, fingerprint, name)?;
    }
    terminal.note(&format!("Confirmed by {}, for {}, {}", command.by, whole.name(), witnessed(&witnesses)));
    let confirmed =
        Confirmed { phrase: &phrase, by: &command.by, witnesses: &witnesses, fingerprint: fingerprint.into() };
    // Without --json the note has said it all.
    terminal.result("", &confirmed)
}

fn witnessed(witnesses: &[String]) -> String {
    if witnesses.is_empty() { "with no witness.".into() } else { format!("witnessed by {}.", witnesses.join(", ")) }
}

fn mismatch() -> Error {
    Error::new(
        ErrorKind::FingerprintMismatch,
        "The phrase is not that of this machine; nothing was recorded.",
        "Run `claviger-ceremony phrase` on both machines and read the plan's and every member's words aloud: the first that differ name the plan or card that is not the same.",
    )
}

/// Shows the phrase without two of its words, which differ from machine to machine, and has these typed as they are heard.
fn heard(whole: &Whole, phrase: &str, by: &str, witnesses: &[String], terminal: &Terminal) -> Result<()> {
    let words: Vec<&str> = phrase.split(' ').collect();
    let hidden = two_of(PHRASE_WORDS, &whole.own.fingerprint(), &Fingerprint::from_bytes([0; 16]));
    let mut shown = words.clone();
    for &at in &hidden {
        shown[at] = "······";
    }
    let consequence = format!(
        "You confirm as {by}, for {}, that all machines hold the same plan and cards. It is recorded in this machine's log, {}",
        whole.name(),
        witnessed(witnesses),
    );
    let mut text = format!(
        "{}\n\
         Somebody at another machine runs `claviger-ceremony phrase` and reads aloud:\n\n{}\n\
         Compare; then type the two words that are left out here.\n",
        wrapped("", &consequence),
        groups(&shown),
    );
    let otherwise = "Run it on a terminal, or give the phrase that another machine shows with `--phrase`.";
    for at in hidden {
        let mut tries = 0;
        loop {
            let answer = terminal.ask(&format!("{text}Word {}: ", at + 1), otherwise)?;
            text.clear();
            tries += 1;
            let mut typed = words.clone();
            typed[at] = &answer;
            match matches(phrase, &typed.join(" ")) {
                Ok(true) => break,
                Ok(false) => return Err(mismatch()),
                Err(_) if answer.is_empty() || tries == TRIES => {
                    return Err(Error::new(
                        ErrorKind::Declined,
                        "The phrase was not confirmed; nothing was recorded.",
                        "Run `claviger-ceremony confirm` again when somebody reads it aloud.",
                    ));
                }
                Err(_) => text = "That is not a word of the list. Type it again, or nothing to stop.\n".into(),
            }
        }
    }
    Ok(())
}

pub(super) fn witness(cli: &Cli, name: &str, terminal: &Terminal) -> Result<()> {
    let mut store = opened(cli, terminal)?.store;
    let own = store.machine()?.card.identifier;
    let log = store.log()?;
    let Some(confirmed) = log.iter().rposition(|entry| entry.event == Event::Confirmed) else {
        return Err(incomplete(
            &["a confirmation that somebody could have watched".into()],
            "Confirm first, with `claviger-ceremony confirm --by NAME`.",
        ));
    };
    let there = |entry: &LogEntry| entry.event == Event::Witnessed && entry.detail == name;
    let (outcome, told) = if log[confirmed..].iter().any(there) {
        ("already-there", "was recorded already as a witness")
    } else {
        store.note(Event::Witnessed, &own, log[confirmed].fingerprint, name)?;
        ("new", "is recorded as a witness")
    };
    terminal.note(&format!("{name} {told} of the confirmation in entry {} of the log.", log[confirmed].sequence));
    terminal.result("", &Witnessed { witness: name, outcome })
}
