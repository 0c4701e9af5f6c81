//! The phrase: one line of words over the plan and every card, the same on every machine exactly when all hold the same.

use crate::identity::{Fingerprint, IdentityCard};

/// Words of the phrase: 12 words of the 2048-word BIP 39 English list, 132 bits.
///
/// Somebody who exchanges cards on the way to two machines may choose both machines' sets, and looks for two sets with one phrase: by the
/// birthday bound that costs 2^66 tries, not 2^132. A fingerprint of eight words is enough for one card, because there the honest card is fixed.
pub const PHRASE_WORDS: usize = 12;

/// The phrase over a plan and the cards of all its members, in whatever order they come; single spaces between the words.
///
/// `SHA-256("claviger ceremony phrase 1\n" || plan fingerprint (16 bytes, zero without a plan) || for each card, ordered by identifier: card digest (32 bytes))`,
/// its first 132 bits, 11 a word, most significant first.
pub fn phrase<'a>(plan: Option<&Fingerprint>, cards: impl Iterator<Item = &'a IdentityCard>) -> String {
    let _ = (plan, cards.count());
    unimplemented!()
}
