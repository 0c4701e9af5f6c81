//! The key derived format: a card that has it never sees the PIN, but an iterated and salted hash of it (OpenPGP card 3.4, section 4.3.2; RFC
//! 4880, section 3.7.1.3).

use aws_lc_rs::digest::{self, Algorithm};
use zeroize::Zeroizing;

use crate::secret::Pin;
use crate::smartcard::{Fault, tlv};

/// The most bytes that are hashed: the most that RFC 4880 can express. The card names the number, so it has to have an end.
const MAX_COUNT: u32 = 65_011_712;

/// How a card wants its PINs.
pub(super) enum Kdf {
    /// As they are.
    Plain,
    /// KDF_ITERSALTED_S2K.
    Salted(Salted),
}

/// What is hashed: salt and PIN, one after the other, until `count` bytes went in.
pub(super) struct Salted {
    hash: &'static Algorithm,
    count: u32,
    user: Vec<u8>,
    /// Of PW3; a card with one salt for all uses that of PW1.
    admin: Option<Vec<u8>>,
}

impl Kdf {
    /// Reads the object F9, with or without its own tag: 81 algorithm, 82 hash, 83 count, 84 to 86 salts.
    pub(super) fn parse(object: &[u8]) -> Result<Self, Fault> {
        let object = tlv(object, 0xf9).unwrap_or(object);
        let malformed = |why| Fault::Malformed("GET DATA F9 (KDF-DO)", why);
        match tlv(object, 0x81) {
            Some([0]) => return Ok(Self::Plain),
            Some([3]) => {}
            _ => return Err(malformed("the derivation of PINs is unknown")),
        }
        let hash = match tlv(object, 0x82) {
            Some([0x08]) => &digest::SHA256,
            Some([0x0a]) => &digest::SHA512,
            _ => return Err(malformed("the hash is neither SHA-256 nor SHA-512")),
        };
        let count = match tlv(object, 0x83) {
            Some(&[a, b, c, d]) => u32::from_be_bytes([a, b, c, d]),
            _ => return Err(malformed("it has no iteration count")),
        };
        if count > MAX_COUNT {
            return Err(malformed("the iteration count is beyond what RFC 4880 knows"));
        }
        let salt = |tag| tlv(object, tag).filter(|salt| (1..=64).contains(&salt.len())).map(<[u8]>::to_vec);
        let user = salt(0x84).ok_or_else(|| malformed("it has no salt"))?;
        Ok(Self::Salted(Salted { hash, count, user, admin: salt(0x86) }))
    }

    /// What the card is sent in place of `pin`.
    pub(super) fn derive(&self, pin: &Pin, admin: bool) -> Result<Zeroizing<Vec<u8>>, Fault> {
        let pin = pin.expose().as_bytes();
        let Self::Salted(Salted { hash, count, user, admin: of_admin }) = self else {
            return Ok(Zeroizing::new(pin.to_vec()));
        };
        let salt = of_admin.as_ref().filter(|_| admin).unwrap_or(user);
        let mut once = Zeroizing::new(Vec::with_capacity(salt.len() + pin.len()));
        once.extend_from_slice(salt);
        once.extend_from_slice(pin);
        // All of it goes in at least once (RFC 4880, section 3.7.1.3).
        let mut left = (*count as usize).max(once.len());
        let mut context = digest::Context::new(hash);
        while left > 0 {
            let part = &once[..left.min(once.len())];
            context.update(part);
            left -= part.len();
        }
        Ok(Zeroizing::new(context.finish().as_ref().to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::script::hex;
    use super::*;

    fn derived(object: &str, pin: &str, admin: bool) -> Vec<u8> {
        let kdf = Kdf::parse(&hex(object)).unwrap();
        kdf.derive(&Pin::new(pin.into()).unwrap(), admin).unwrap().to_vec()
    }

    /// The example of OpenPGP card 3.4.1, section 4.3.2: SHA-256, 100000 bytes.
    const EXAMPLE: &str = "8101038201088304000186a08408303132333435363786084142434445464748";

    #[test]
    fn the_specifications_example() {
        let user = "773784a602b6c81e3f092f4d7d00e17cc822d88f7360fcf2d2ef2d9d901f44b6";
        let admin = "2675d6164a0d4827d1d00c7eea620d015c00030a1cab38b4d0dd600b27dc9630";
        assert_eq!(derived(EXAMPLE, "123456", false), hex(user));
        assert_eq!(derived(EXAMPLE, "12345678", true), hex(admin));
        assert_eq!(derived(&format!("f920{EXAMPLE}"), "123456", false), hex(user));
        // One salt for all.
        assert_eq!(derived(&EXAMPLE[..EXAMPLE.len() - 20], "123456", true), hex(user));
    }

    #[test]
    fn no_derivation_leaves_the_pin() {
        assert_eq!(derived("810100", "123456", false), b"123456");
    }

    #[test]
    fn what_is_hashed_at_least_once() {
        let short = "81010382010883040000000184083031323334353637";
        let expected = digest::digest(&digest::SHA256, b"01234567123456");
        assert_eq!(derived(short, "123456", false), expected.as_ref());
    }

    #[test]
    fn what_is_unknown_or_endless_is_refused() {
        for object in [
            "",
            "810101",
            "810103",
            "8101038201028304000186a084083031323334353637",
            "81010382010884083031323334353637",
            "8101038201088304ffffffff84083031323334353637",
            "8101038201088304000186a0",
            "8101038201088304000186a08400",
        ] {
            assert!(matches!(Kdf::parse(&hex(object)), Err(Fault::Malformed(..))), "{object}");
        }
    }
}
