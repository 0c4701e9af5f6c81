//! Fingerprints: what people compare, by eye as hexadecimal or by voice as words.

use super::{IdentityCard, IdentityError, StaticPublic, words};
use aws_lc_rs::digest::{Context, SHA256};

/// Words in a fingerprint. Eight words of the 2048-word BIP 39 English list are 88 bits: a second card with the same words costs
/// 2^88 tries, out of reach, and eight words can still be read aloud.
pub const WORDS: usize = 8;

/// The first 128 bits of a SHA-256 over an identity card or a public key. Public data.
///
/// Shown as 8 groups of 4 hexadecimal digits (all 128 bits) and as [`WORDS`] words (the first 88 bits, most significant first).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 16]);

impl Fingerprint {
    /// Over everything on the card: `SHA-256("claviger card fingerprint 1\n" || text without the checksum line)`.
    pub fn of_card(card: &IdentityCard) -> Self {
        Self::hash(b"claviger card fingerprint 1\n", card.body().as_bytes())
    }

    /// Over a static public key alone: `SHA-256("claviger key fingerprint 1\n" || curve || ":" || hex)`.
    pub fn of_key(key: &StaticPublic) -> Self {
        Self::hash(b"claviger key fingerprint 1\n", format!("{}:{}", key.curve(), key.to_hex()).as_bytes())
    }

    fn hash(domain: &[u8], data: &[u8]) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(domain);
        context.update(data);
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&context.finish().as_ref()[..16]);
        Self(bytes)
    }

    /// A fingerprint that was recorded.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Eight words, separated by spaces.
    pub fn words(&self) -> String {
        words::of(&self.0, WORDS)
    }

    /// Whether `typed` names this fingerprint: its words or all its digits, whatever the case, with spaces, hyphens or colons between.
    ///
    /// # Errors
    /// [`IdentityError::Fingerprint`] when the text is neither form; `Ok(false)` when it is another's.
    pub fn matches(&self, typed: &str) -> Result<bool, IdentityError> {
        if typed.len() > 256 {
            return Err(IdentityError::Fingerprint(typed.chars().take(32).collect()));
        }
        let parts = words::typed(typed);
        let digits = parts.concat();
        if digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(digits == data_encoding::HEXLOWER.encode(&self.0));
        }
        if parts.len() == WORDS && parts.iter().all(|word| words::is_listed(word)) {
            return Ok(parts.join(" ") == self.words());
        }
        Err(IdentityError::Fingerprint(typed.into()))
    }
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, pair) in self.0.chunks(2).enumerate() {
            write!(f, "{}{:02x}{:02x}", if at == 0 { "" } else { " " }, pair[0], pair[1])?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_the_leading_bits() {
        let zero = Fingerprint([0; 16]);
        assert_eq!(zero.words(), ["abandon"; 8].join(" "));
        let ones = Fingerprint([0xff; 16]);
        assert_eq!(ones.words(), ["zoo"; 8].join(" "));
        let mut second = [0; 16];
        second[2] = 0b0000_0100; // bit 21: the last bit of the second word
        assert_eq!(Fingerprint(second).words().split(' ').nth(1), Some("ability"));
    }

    #[test]
    fn both_forms_are_read() {
        let print = Fingerprint(*b"0123456789abcdef");
        for good in [print.words(), print.to_string(), print.to_string().replace(' ', ""), print.words().to_uppercase()]
        {
            assert_eq!(print.matches(&good), Ok(true), "{good}");
        }
        assert_eq!(print.matches(&Fingerprint([1; 16]).words()), Ok(false));
        assert_eq!(print.matches(&Fingerprint([1; 16]).to_string()), Ok(false));
        for bad in ["", "abandon", "3031", &print.to_string()[1..], &"a".repeat(300)] {
            assert!(print.matches(bad).is_err(), "{bad:?}");
        }
    }
}
