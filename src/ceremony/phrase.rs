//! The phrase: one line of words over the plan and every card, the same on every machine exactly when all hold the same.

use aws_lc_rs::digest::{Context, SHA256, digest};

use super::plan::Plan;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::{Identifier, IdentityCard, words};

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

pub(super) fn over<'a>(plan: Option<&str>, cards: impl Iterator<Item = &'a IdentityCard>) -> String {
    over_digests(plan, cards.map(|card| (&card.identifier, card.digest())).collect())
}

/// The same for whoever has the digests of the cards, and not the cards.
pub(super) fn over_digests(plan: Option<&str>, mut cards: Vec<(&Identifier, [u8; 32])>) -> String {
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

#[cfg(test)]
mod tests {
    use super::super::vectors::Vector;
    use super::*;
    use crate::identity::{BackupKey, ClientAuthKeys, Curve, OnionKeys, StaticPublic, TokenKind};
    use proptest::prelude::*;

    /// Cards of so many machines, all different.
    fn cards(count: usize) -> Vec<IdentityCard> {
        let [vector, _] = Vector::all();
        let key = |number: usize| StaticPublic::new(Curve::X25519, &[number as u8 + 2; 32]).unwrap();
        (0..count)
            .map(|number| IdentityCard {
                identifier: format!("machine-{number}").parse().unwrap(),
                static_public: key(number),
                onion_address: OnionKeys::generate().unwrap().address,
                ..vector.wallet.clone()
            })
            .collect()
    }

    proptest! {
        #[test]
        fn the_order_does_not_matter(
            (cards, shuffled) in (1usize..12).prop_map(cards).prop_flat_map(|cards| (Just(cards.clone()), Just(cards).prop_shuffle())),
            plan in proptest::option::of(".{0,40}"),
        ) {
            prop_assert_eq!(over(plan.as_deref(), cards.iter()), over(plan.as_deref(), shuffled.iter()));
        }

        #[test]
        fn one_card_anywhere_changes_it(count in 2usize..10, at in any::<prop::sample::Index>(), field in 0usize..8) {
            let [vector, _] = Vector::all();
            let cards = cards(count);
            let mut other = cards.clone();
            let card = &mut other[at.index(count)];
            match field {
                0 => card.identifier = "machine-x".parse().unwrap(),
                1 => card.role = "other".parse().unwrap(),
                2 => card.token = TokenKind::Software,
                3 => card.static_public = StaticPublic::new(Curve::X25519, &[99; 32]).unwrap(),
                4 => card.onion_address = OnionKeys::generate().unwrap().address,
                5 => card.client_auth = ClientAuthKeys::generate().unwrap().public,
                6 => card.suites = "AESGCM_SHA256".parse().unwrap(),
                _ => card.backup = Some(BackupKey {
                    static_public: vector.cosigner.static_public.clone(),
                    token: TokenKind::Hardware,
                    attestation: None,
                }),
            }
            prop_assert_ne!(over(None, cards.iter()), over(None, other.iter()));
            // So do one that is missing, one more, and two that changed places.
            prop_assert_ne!(over(None, cards.iter()), over(None, cards.iter().skip(1)));
            let mut swapped = cards.clone();
            let first = swapped[0].static_public.clone();
            swapped[0].static_public = std::mem::replace(&mut swapped[1].static_public, first);
            prop_assert_ne!(over(None, cards.iter()), over(None, swapped.iter()));
        }

        #[test]
        fn the_plan_changes_it(one in ".{0,40}", other in ".{0,40}") {
            let cards = cards(3);
            let phrase = |plan: Option<&str>| over(plan, cards.iter());
            prop_assert_eq!(phrase(Some(&one)) == phrase(Some(&other)), one == other);
            prop_assert_ne!(phrase(None), phrase(Some(&one)));
        }
    }

    #[test]
    fn it_is_read_as_it_is_typed() {
        let phrase = over(None, cards(3).iter());
        assert_eq!(phrase.split(' ').count(), PHRASE_WORDS);
        let typed = format!("  {} ", phrase.to_uppercase().replace(' ', " - \n"));
        assert!(matches(&phrase, &typed).unwrap());
        assert!(!matches(&phrase, &["zoo"; 12].join(" ")).unwrap());
        for bad in
            ["", "zoo", &["zoo"; 11].join(" "), &["zoo"; 13].join(" "), &["zzz"; 12].join(" "), &"a".repeat(9999)]
        {
            assert_eq!(matches(&phrase, bad).unwrap_err().kind(), ErrorKind::FingerprintInvalid);
        }
    }

    #[test]
    fn what_is_spoken_is_the_beginning() {
        let hash = *b"0123456789abcdef0123456789abcdef";
        assert_eq!(spoken(&hash, 4).split(' ').count(), 4);
        assert!(spoken(&hash, 12).starts_with(&spoken(&hash, 4)));
        let mut other = hash;
        other[5] ^= 0b0001_0000; // bit 43, the last of four words
        assert_ne!(spoken(&other, 4), spoken(&hash, 4));
        other = hash;
        other[5] ^= 0b0000_1000; // bit 44
        assert_eq!(spoken(&other, 4), spoken(&hash, 4));
    }
}
