//! `export` and `import`: identity cards out and in.

use std::path::{Path, PathBuf};

use claviger::error::{Error, ErrorKind, Result};
use claviger::identity::{Fingerprint, IdentityCard, WORDS};
use claviger::store::{Added, Peer, Store};
use claviger::token::attestation::AttestationRoots;
use serde::Serialize;

use crate::attestation::{demand, logged, roots, unproven};
use crate::cli::{Export, Import};
use crate::files::{Written, read_card, write_card};
use crate::report::{Print, before_confirming};
use claviger::program::Terminal;

/// How often a word that is on no list may be typed.
const TRIES: usize = 3;

/// `export --json`: `{"file", "outcome", "fingerprint"}`; `outcome` is `new` or `already-there`.
#[derive(Serialize)]
struct Exported {
    file: String,
    outcome: &'static str,
    fingerprint: Print,
}

pub(super) fn export(store: &Store, export: &Export, terminal: &Terminal) -> Result<()> {
    let card = store.machine()?.card;
    let file = export.file.clone().unwrap_or_else(|| PathBuf::from(format!("{}.card", card.identifier)));
    if file == Path::new("-") {
        return terminal.data(card.to_text().as_bytes());
    }
    let (outcome, told) = match write_card(&file, &card.to_text(), export.force)? {
        Written::New => ("new", "Wrote"),
        Written::AlreadyThere => ("already-there", "Unchanged:"),
    };
    terminal.note(&format!(
        "{told} {}. Carry it to the other machines; there, compare these words: {}",
        file.display(),
        card.fingerprint().words()
    ));
    let report = Exported { file: file.display().to_string(), outcome, fingerprint: card.fingerprint().into() };
    terminal.result(&format!("{}\n", report.file), &report)
}

/// `import --json`: `{"imported": [{"identifier", "outcome", "fingerprint", "attested"}]}`.
#[derive(Serialize)]
struct Imported {
    imported: Vec<Outcome>,
}

#[derive(Serialize)]
struct Outcome {
    identifier: String,
    /// `new` or `already-there`.
    outcome: &'static str,
    fingerprint: Print,
    /// What the card's attestation states; `null` when it carries none.
    attested: Option<String>,
}

/// All cards are read, all attestations verified, and all fingerprints that were given compared, before the first card is recorded or asked about; each is then
/// recorded for itself.
pub(super) fn import(store: &mut Store, import: &Import, terminal: &Terminal) -> Result<()> {
    let cards = import.files.iter().map(|file| read_card(file)).collect::<Result<Vec<_>>>()?;
    let machine = store.machine()?;
    let roots = roots(&machine.attestation.roots, &import.attestation_root)?;
    let required = machine.attestation.required || import.require_attestation;
    let mut proofs = Vec::new();
    for (at, card) in cards.iter().enumerate() {
        store.check_peer(&Peer::from_card(card))?;
        proofs.push(demand(card, &roots, required)?);
        import.fingerprint.get(at).map(|given| compare(card, given)).transpose()?;
    }
    let own = machine.card.fingerprint();
    let mut imported = Vec::new();
    for (card, proof) in cards.iter().zip(&proofs) {
        let name = &card.identifier;
        let peer = Peer::from_card(card);
        // Before anybody is asked to compare.
        let added = if store.check_peer(&peer)? == Added::AlreadyThere {
            Added::AlreadyThere
        } else {
            let how = if import.fingerprint.is_empty() {
                confirm(card, &own, &roots, terminal)?
            } else {
                "fingerprint given"
            };
            store.add_peer(&peer, &format!("{how}; {}", logged(proof.as_ref())))?
        };
        let (outcome, told) = match added {
            Added::New => ("new", "is recorded"),
            Added::AlreadyThere => ("already-there", "was recorded already, with the same values"),
        };
        terminal.note(&match proof {
            Some(attested) => format!("Peer \"{name}\" {told}. Attested: {attested}."),
            None if unproven(card) => {
                format!("Peer \"{name}\" {told}. Its card carries no attestation: only its own word says that its key is in a device.")
            }
            None => format!("Peer \"{name}\" {told}."),
        });
        imported.push(Outcome {
            identifier: name.to_string(),
            outcome,
            fingerprint: card.fingerprint().into(),
            attested: proof.as_ref().map(ToString::to_string),
        });
    }
    // Without --json the notes have said it all.
    terminal.result("", &Imported { imported })
}

fn compare(card: &IdentityCard, given: &str) -> Result<()> {
    if card.fingerprint().matches(given)? { Ok(()) } else { Err(mismatch(card)) }
}

fn mismatch(card: &IdentityCard) -> Error {
    Error::new(
        ErrorKind::FingerprintMismatch,
        format!("The fingerprint is not that of this card of \"{}\"; this card was not recorded.", card.identifier),
        "Look at `claviger-ceremony show` on the other machine again; if it still differs, the card was exchanged on its way: \
         export and carry it anew.",
    )
}

/// Shows the card and has two words of its fingerprint typed from the other machine's screen.
///
/// The person sees six words to compare by eye; this screen does not show the two others, however often the command is run, so the
/// answer says that somebody looked at the other one. Which two differs from card to card and from machine to machine.
fn confirm(
    card: &IdentityCard,
    own: &Fingerprint,
    roots: &AttestationRoots,
    terminal: &Terminal,
) -> Result<&'static str> {
    let print = card.fingerprint();
    let (words, hidden) = (print.words(), two_of(WORDS, &print, own));
    let words: Vec<&str> = words.split(' ').collect();
    let mut shown = words.clone();
    for &at in &hidden {
        shown[at] = "······";
    }
    let mut text = format!(
        "{}  words          {}\n\n`claviger-ceremony show` on the other machine shows this fingerprint. Compare; then type the two words that are left out here.\n",
        before_confirming(card, roots),
        shown.join(" ")
    );
    for at in hidden {
        ask_word(&print, &words, at, &mut text, card, terminal)?;
    }
    Ok("words compared")
}

fn ask_word(
    print: &Fingerprint,
    words: &[&str],
    at: usize,
    text: &mut String,
    card: &IdentityCard,
    terminal: &Terminal,
) -> Result<()> {
    let otherwise = "Run it on a terminal, or give the fingerprint that the other machine shows with `--fingerprint`.";
    for _ in 0..TRIES {
        let answer = terminal.ask(&format!("{text}Word {}: ", at + 1), otherwise)?;
        text.clear();
        if answer.is_empty() {
            break;
        }
        let mut typed = words.to_vec();
        typed[at] = &answer;
        match print.matches(&typed.join(" ")) {
            Ok(true) => return Ok(()),
            Ok(false) => return Err(mismatch(card)),
            Err(_) => *text = "That is not a word of the list. Type it again, or nothing to stop.\n".into(),
        }
    }
    Err(Error::new(
        ErrorKind::Declined,
        format!("The fingerprint of \"{}\" was not confirmed; this card was not recorded.", card.identifier),
        "Look at `claviger-ceremony show` on the other machine and import the card again.",
    ))
}

/// Two different numbers below `n`, in order: the same for this card on this machine every time, others elsewhere.
fn two_of(n: usize, print: &Fingerprint, own: &Fingerprint) -> [usize; 2] {
    // The last 40 bits, which are in no word. One of n * (n - 1) pairs; 2^40 is so much larger that the remainder's bias does not matter.
    let bits = u128::from_be_bytes(*print.as_bytes()) ^ u128::from_be_bytes(*own.as_bytes());
    let draw = (bits & 0xff_ffff_ffff) as usize;
    let (first, second) = (draw % n, draw / n % (n - 1));
    let second = if second >= first { second + 1 } else { second };
    [first.min(second), first.max(second)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_of_words_is_drawn() {
        let own = Fingerprint::from_bytes([7; 16]);
        let mut seen = std::collections::BTreeSet::new();
        for number in 0..2000u128 {
            let print = Fingerprint::from_bytes((number * 0x9e37_79b9).to_be_bytes());
            let [a, b] = two_of(WORDS, &print, &own);
            assert!(a < b && b < WORDS);
            assert_eq!(two_of(WORDS, &print, &own), [a, b]);
            seen.insert((a, b));
        }
        assert_eq!(seen.len(), 28);
    }
}
