//! Signatures by the key that a card has for signing: PIV's slot 9C, an OpenPGP card's signature key.
//!
//! Not on the network path, and no business of a [`Token`](crate::Token): that one only agrees, with another key. A signature is one call, which finds the card,
//! asks for the PIN, signs, and lets go. The public key is the card's own word; the signature is verified under it on the host before anybody gets it, so a
//! card that does not hold the private half is found. Whose key it is, is for people to know by its fingerprint.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey};

use crate::error::{Error, ErrorKind, Result};
use crate::locator::{CardId, OpenPgpLocator};
use crate::operation::Operation;
use crate::token::words;

/// How a message is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Algorithm {
    /// ECDSA on P-256 with SHA-256 (FIPS 186-5, section 6). The signature is a DER `Ecdsa-Sig-Value` (RFC 3279, section 2.2.3).
    EcdsaP256,
    /// Ed25519 (RFC 8032, section 5.1) of the message's SHA-256, 32 bytes, since cards take no long messages. The signature has 64 bytes.
    Ed25519,
}

words!(Algorithm, "signature algorithm": EcdsaP256 = "ecdsa-p256-sha256", Ed25519 = "ed25519-of-sha256");

/// A signature, and the key that made it. Public data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// How the message was signed.
    pub algorithm: Algorithm,
    /// P-256: the uncompressed point, 65 bytes. Ed25519: 32 bytes.
    pub public_key: Vec<u8>,
    /// In the algorithm's form.
    pub signature: Vec<u8>,
    /// The device, for people: `YubiKey 12345678, PIV slot 9c`.
    pub device: String,
}

impl Signature {
    /// Whether it is one of `message` by `public_key`. That says nothing of whose key that is, and nothing of `device`.
    pub fn verifies(&self, message: &[u8]) -> bool {
        let verified = match self.algorithm {
            Algorithm::EcdsaP256 => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.public_key).verify(message, &self.signature)
            }
            Algorithm::Ed25519 => UnparsedPublicKey::new(&ED25519, &self.public_key)
                .verify(digest(&SHA256, message).as_ref(), &self.signature),
        };
        verified.is_ok()
    }
}

/// Where a key that signs is.
///
/// | text | names |
/// |---|---|
/// | `piv:serial=12345678;slot=9c` | the digital signature key of a YubiKey, or of a PIV card by `guid=` (SP 800-73-4, part 1, table 4b) |
/// | `openpgp:0006:12345678` | the signature key of an OpenPGP card |
///
/// Both take `?pin-source=/path`, as a [`Locator`](crate::Locator) does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SigningLocator {
    /// The signature key of an OpenPGP card.
    OpenPgp(OpenPgpLocator),
    /// Slot 9C of a PIV card.
    Piv {
        /// Which card.
        card: CardId,
        /// The file that holds the PIN.
        pin_source: Option<PathBuf>,
    },
}

impl FromStr for SigningLocator {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (scheme, rest) = text.split_once(':').unwrap_or_default();
        match scheme {
            "openpgp" => OpenPgpLocator::parse(rest).map(Self::OpenPgp),
            "piv" => {
                let (card, slot, pin_source) = crate::locator::piv(rest)?;
                if slot == "9c" {
                    Ok(Self::Piv { card, pin_source })
                } else {
                    Err(refused("only slot 9c of a PIV card signs here"))
                }
            }
            _ => Err(refused("only the keys of cards sign here: its scheme is neither `piv:` nor `openpgp:`")),
        }
    }
}

impl fmt::Display for SigningLocator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OpenPgp(card) => card.fmt(f),
            Self::Piv { card, pin_source } => {
                write!(f, "piv:{card};slot=9c")?;
                crate::locator::write_query(f, pin_source.as_deref())
            }
        }
    }
}

fn refused(why: &str) -> Error {
    Error::new(
        ErrorKind::Locator,
        format!("The signing key's locator is refused: {why}."),
        "Write `piv:serial=12345678;slot=9c` or `openpgp:0006:12345678`; `claviger-ceremony token list` shows the cards that are there.",
    )
}

/// Signs `message` with the key at `locator`. The PIN is asked for where the key wants it, and always on an OpenPGP card; a touch is waited for.
///
/// # Errors
/// `Unsupported`: the key there is neither on P-256 nor Ed25519, or this build has not the backend. `KeyNotFound`: there is none. `KeyMismatch`: what the card
/// signed does not verify under the public key that it tells. `NotTouched`, and those of PINs, cards and [`open`](crate::open).
pub fn sign(locator: &SigningLocator, message: &[u8], operation: &mut Operation<'_>) -> Result<Signature> {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, message).as_ref());
    let signed = on_card(locator, &hash, operation)?;
    if !signed.verifies(message) {
        return Err(Error::new(
            ErrorKind::KeyMismatch,
            format!("{} gave a signature that does not verify under the public key it tells.", signed.device),
            "Its certificate or public key is another key's: make the signing key and its certificate anew.",
        ));
    }
    Ok(signed)
}

fn on_card(locator: &SigningLocator, hash: &[u8; 32], operation: &mut Operation<'_>) -> Result<Signature> {
    match locator {
        #[cfg(feature = "openpgp")]
        SigningLocator::OpenPgp(card) => crate::openpgp::sign(card, hash, operation),
        #[cfg(feature = "piv")]
        SigningLocator::Piv { card, pin_source } => crate::piv::sign(*card, pin_source.as_deref(), hash, operation),
        #[allow(unreachable_patterns)] // In a build with both backends.
        _ => {
            let _ = (hash, operation);
            Err(Error::new(
                ErrorKind::Unsupported,
                "This build cannot use such cards.",
                "Build claviger-hsm with the features `piv` and `openpgp`.",
            ))
        }
    }
}

/// A key that signs in no way known here. `why` is a clause.
#[allow(dead_code)] // Used by backends that a build may leave out.
pub(crate) fn unsupported(what: &str, why: &str) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!("{what} cannot sign here: {why}."),
        "Make a signing key on P-256 or Ed25519, or go without a signature.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locators_are_read_as_they_are_written() {
        for text in [
            "piv:serial=12345678;slot=9c",
            "piv:guid=00112233445566778899aabbccddeeff;slot=9c?pin-source=file:/run/pin",
            "openpgp:0006:12345678",
        ] {
            assert_eq!(text.parse::<SigningLocator>().unwrap().to_string(), text);
        }
        for text in
            ["piv:serial=1;slot=9d", "piv:serial=1", "piv:slot=9c", "file:/key", "9c", "pkcs11:token=a;object=b"]
        {
            let error = text.parse::<SigningLocator>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Locator, "{text}");
        }
    }

    #[test]
    fn only_the_right_message_verifies() {
        use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
        let ecdsa = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let random = aws_lc_rs::rand::SystemRandom::new();
        let edwards = Ed25519KeyPair::generate().unwrap();
        let signature = |algorithm, public_key: &[u8], signature: &[u8]| Signature {
            algorithm,
            public_key: public_key.to_vec(),
            signature: signature.to_vec(),
            device: "It".into(),
        };
        let signed = [
            signature(Algorithm::EcdsaP256, ecdsa.public_key().as_ref(), ecdsa.sign(&random, b"it").unwrap().as_ref()),
            signature(
                Algorithm::Ed25519,
                edwards.public_key().as_ref(),
                edwards.sign(digest(&SHA256, b"it").as_ref()).as_ref(),
            ),
        ];
        for one in &signed {
            assert!(one.verifies(b"it") && !one.verifies(b"other"));
            for at in 0..one.signature.len() {
                let mut changed = one.clone();
                changed.signature[at] ^= 1;
                assert!(!changed.verifies(b"it"), "{at}");
            }
        }
        assert!(!Signature { public_key: signed[1].public_key.clone(), ..signed[0].clone() }.verifies(b"it"));
        assert!(!Signature { public_key: Vec::new(), ..signed[1].clone() }.verifies(b"it"));
    }
}
