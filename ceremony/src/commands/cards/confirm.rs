//! The question before a card is recorded: whether its fingerprint is what the other machine shows.

use std::fmt::Write as _;

use claviger::error::{Error, ErrorKind, Result};
use claviger::identity::{Attestation, Fingerprint, IdentityCard, StaticPublic, TokenKind, WORDS};
use claviger::token::attestation::AttestationRoots;

use crate::attestation::Proof;
use crate::report::{row, wrapped};
use claviger::program::Terminal;

/// How often a word that is on no list may be typed.
const TRIES: usize = 3;

/// Where values begin.
const INDENT: usize = 17;

/// Compares a fingerprint that was given in full.
pub(crate) fn compare(card: &IdentityCard, given: &str) -> Result<()> {
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

/// As [`confirm_of`], for a peer's one card.
pub(crate) fn confirm(
    card: &IdentityCard,
    own: &Fingerprint,
    roots: &AttestationRoots,
    terminal: &Terminal,
) -> Result<&'static str> {
    confirm_of(card, Kind::Peer, (1, 1), own, roots, terminal)
}

/// What a card makes of a machine.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Peer,
    /// The plan joins it to nobody here; it counts for the phrase.
    Held,
}

/// Shows the card, the `number.0`th of `number.1`, and has two words of its fingerprint typed from the other machine's screen.
///
/// The person sees six words to compare by eye; this screen does not show the two others, however often the command is run, so the
/// answer says that somebody looked at the other one. Which two differs from card to card and from machine to machine.
pub(super) fn confirm_of(
    card: &IdentityCard,
    kind: Kind,
    number: (usize, usize),
    own: &Fingerprint,
    roots: &AttestationRoots,
    terminal: &Terminal,
) -> Result<&'static str> {
    let otherwise = "Run it on a terminal, or give the fingerprint that the other machine shows with `--fingerprint`.";
    let refused = |refusal| match refusal {
        Refusal::Mismatch => mismatch(card),
        Refusal::Declined => Error::new(
            ErrorKind::Declined,
            format!("The fingerprint of \"{}\" was not confirmed; this card was not recorded.", card.identifier),
            "Look at `claviger-ceremony show` on the other machine and import the card again.",
        ),
    };
    let screen = |words: &[&str]| screen(card, kind, words, number, roots);
    type_words(&card.fingerprint(), own, screen, refused, otherwise, terminal)?;
    Ok("words compared")
}

/// Why words that were asked for were not taken.
pub(in crate::commands) enum Refusal {
    /// Another word of the list was typed.
    Mismatch,
    /// None was typed.
    Declined,
}

/// Has two words of a fingerprint typed, which `screen`, given the words, does not show; `otherwise` says how to do without a terminal.
pub(in crate::commands) fn type_words(
    print: &Fingerprint,
    own: &Fingerprint,
    screen: impl FnOnce(&[&str]) -> String,
    refused: impl Fn(Refusal) -> Error,
    otherwise: &str,
    terminal: &Terminal,
) -> Result<()> {
    let (words, hidden) = (print.words(), two_of(WORDS, print, own));
    let words: Vec<&str> = words.split(' ').collect();
    let mut left = words.clone();
    for &at in &hidden {
        left[at] = "······";
    }
    let mut text = screen(&left);
    for at in hidden {
        ask_word(print, &words, at, &mut text, &refused, otherwise, terminal)?;
    }
    Ok(())
}

/// The words of a fingerprint in two rows, as `screen` of [`type_words`] is given them.
pub(in crate::commands) fn words_shown(words: &[&str]) -> String {
    let (first, second) = words.split_at(WORDS / 2);
    let row = |words: &[&str]| words.iter().map(|word| format!("{word:<10}")).collect::<String>().trim_end().to_owned();
    format!("  {:<14} {}\n{:INDENT$}{}\n", "words", row(first), "", row(second))
}

/// All that is asked about, on a screen of 24 lines with the question.
fn screen(
    card: &IdentityCard,
    kind: Kind,
    words: &[&str],
    (number, all): (usize, usize),
    roots: &AttestationRoots,
) -> String {
    let mut text = String::new();
    let of = if all > 1 { format!(", card {number} of {all}") } else { String::new() };
    let _ = writeln!(text, "{}{of}", card.identifier);
    let token = |kind, attestation, key| kept(kind, attestation, key, roots);
    let backup = card.backup.as_ref();
    for (name, value) in [
        ("role", card.role.to_string()),
        ("curve", card.curve().to_string()),
        ("token", token(card.token, card.attestation.as_ref(), &card.static_public)),
        (
            "backup token",
            backup.map_or_else(
                || "none".into(),
                |backup| token(backup.token, backup.attestation.as_ref(), &backup.static_public),
            ),
        ),
        ("onion address", card.onion_address.to_string()),
        ("suites", card.suites.to_string()),
        ("fingerprint", card.fingerprint().to_string()),
    ] {
        text += &row(name, &value);
    }
    let _ = writeln!(text, "{}", words_shown(words));
    let name = &card.identifier;
    let consequence = match kind {
        Kind::Peer => format!("Recorded, \"{name}\" is a peer: this machine connects with whoever holds these keys."),
        Kind::Held => format!("Recorded, \"{name}\" counts for the phrase; the plan joins it to nobody here."),
    };
    let question = "`claviger-ceremony show` on the other machine shows this fingerprint. Compare; then type the two words that are left out here.";
    text + &wrapped("", &consequence) + &wrapped("", question)
}

/// Where a key is, and how far that is proven.
fn kept(kind: TokenKind, attestation: Option<&Attestation>, key: &StaticPublic, roots: &AttestationRoots) -> String {
    match (kind, attestation) {
        (TokenKind::Software, _) => "software: a file, which can be copied".into(),
        (TokenKind::Hardware, None) => "hardware, by its own word: no attestation".into(),
        (TokenKind::Hardware, Some(attestation)) => format!("hardware; {}", Proof::of(attestation, key, roots).text()),
    }
}

fn ask_word(
    print: &Fingerprint,
    words: &[&str],
    at: usize,
    text: &mut String,
    refused: &impl Fn(Refusal) -> Error,
    otherwise: &str,
    terminal: &Terminal,
) -> Result<()> {
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
            Ok(false) => return Err(refused(Refusal::Mismatch)),
            Err(_) => *text = "That is not a word of the list. Type it again, or nothing to stop.\n".into(),
        }
    }
    Err(refused(Refusal::Declined))
}

/// Two different numbers below `n`, in order: the same for this card on this machine every time, others elsewhere.
pub(crate) fn two_of(n: usize, print: &Fingerprint, own: &Fingerprint) -> [usize; 2] {
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
