//! The phrase: one line of words over the plan and every card, the same on every machine exactly when all hold the same.

use aws_lc_rs::digest::{Context, SHA256, digest};

use super::plan::Plan;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::{IdentityCard, words};

/// Words of the phrase: 12 words of the 2048-word BIP 39 English list, 132 bits.
///
/// Somebody who exchanges cards on the way to two machines may choose both machines' sets, and looks for two sets with one phrase: by the
/// birthday bound that costs 2^66 tries, not 2^132. A fingerprint of eight words is enough for one card, because there the honest card is fixed.
pub const PHRASE_WORDS: usize = 12;

/// The phrase over a plan and the cards of all its members, in whatever order they come; single spaces between the words.
///
/// `SHA-256("claviger ceremony phrase 1\n" || plan digest (32 bytes, zero without a plan) || for each card, ordered by identifier: card digest (32 bytes))`,
/// its first 132 bits, 11 a word, most significant first. The plan's digest is `SHA-256("claviger plan 1\n" || its canonical text)`, of which its fingerprint is
/// the first half: two plans with one fingerprint cost 2^64 tries, less than the phrase is to cost.
pub fn phrase<'a>(plan: Option<&Plan>, cards: impl Iterator<Item = &'a IdentityCard>) -> String {
    over(plan.map(Plan::to_toml).as_deref(), cards)
}

fn over<'a>(plan: Option<&str>, cards: impl Iterator<Item = &'a IdentityCard>) -> String {
    let mut cards: Vec<_> = cards.map(|card| (&card.identifier, card.digest())).collect();
    cards.sort_unstable();
    let mut context = Context::new(&SHA256);
    context.update(b"claviger ceremony phrase 1\n");
    match plan {
        Some(text) => context.update(digest(&SHA256, format!("claviger plan 1\n{text}").as_bytes()).as_ref()),
        None => context.update(&[0; 32]),
    }
    cards.iter().for_each(|(_, digest)| context.update(digest));
    words::of(context.finish().as_ref(), PHRASE_WORDS)
}

/// Whether `typed` is `phrase`, whatever the case, with spaces, hyphens or colons between the words.
///
/// # Errors
/// [`FingerprintInvalid`](crate::ErrorKind::FingerprintInvalid) for text that is not [`PHRASE_WORDS`] words of the list; `Ok(false)` when it is another phrase.
pub fn matches(phrase: &str, typed: &str) -> Result<bool> {
    let parts = words::typed(typed);
    if parts.len() == PHRASE_WORDS && parts.iter().all(|word| words::is_listed(word)) {
        return Ok(parts.join(" ") == phrase);
    }
    let typed: String = typed.chars().take(160).collect();
    Err(Error::new(
        ErrorKind::FingerprintInvalid,
        format!("{typed:?} is not a phrase of {PHRASE_WORDS} words of the list."),
        "Give all its words in order, as `claviger-ceremony phrase` shows them on another machine.",
    ))
}

/// The first `count` words, at most 23, of a hash: what two ends of a session say to each other.
pub fn spoken(hash: &[u8; 32], count: usize) -> String {
    words::of(hash, count)
}
