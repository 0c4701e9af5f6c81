//! Identities: who a machine is, in public data only.
//!
//! [`StaticPublic`] is the Noise static public key, [`OnionAddress`] the v3 onion address, [`ClientAuthPublic`] the key by which
//! a machine is let into another's onion descriptor. An [`IdentityCard`] carries them in a ceremony, and its [`Fingerprint`] is what people compare.

pub(crate) mod attestation;
mod card;
mod fingerprint;
mod key;
pub(crate) mod lines;
mod name;
mod onion;
mod suite;
pub(crate) mod words;

pub use attestation::{Attestation, AttestationFormat};
pub use card::{BackupKey, IdentityCard, KeyPlace, MAX_CARD_LEN, TokenKind};
use card::{VERSION, VERSION_WITHOUT_KEM};
pub use fingerprint::{Fingerprint, WORDS};
pub use key::{Curve, StaticPublic};
pub use name::{Identifier, MAX_NAME_LEN, Role, ServiceName};
pub use onion::{ClientAuthKeys, ClientAuthPublic, OnionAddress, OnionKeys};
pub use suite::{Kem, Suite, Suites};

/// Why text or bytes were not taken as a part of an identity. Two sentences: what is wrong ([`Display`](std::fmt::Display)), what to do ([`hint`](Self::hint)).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum IdentityError {
    /// An identifier or role outside the grammar of [`Identifier`].
    Name(String),
    /// A curve other than `x25519` and `p256`.
    Curve(String),
    /// A public key of the wrong length, not on the curve, or of low order.
    PublicKey(&'static str),
    /// Not a v3 onion address, or its checksum is wrong.
    Onion(&'static str),
    /// Not a client-authorization public key.
    ClientAuth(&'static str),
    /// An attestation of the wrong form, or on the card of a software key.
    Attestation(&'static str),
    /// A suite that this version does not know, a list that is empty, or one that names a suite twice.
    Suite(String),
    /// A key encapsulation mechanism that this version does not know.
    Kem(String),
    /// A fingerprint that is neither 32 hexadecimal digits nor the right number of words of the list.
    Fingerprint(String),
    /// A card whose text is not exactly what [`IdentityCard::to_text`] writes.
    Card {
        /// Line number, from 1.
        line: usize,
        /// What was expected there.
        expected: String,
    },
    /// A card whose checksum is not that of its text: changed by hand, or damaged on the way.
    CardChecksum,
    /// A card whose line ends were changed on the way: it has carriage returns.
    CardLineEnds,
    /// A card of a format version that this program does not read.
    CardVersion(String),
    /// A card longer than [`MAX_CARD_LEN`], or not UTF-8 text.
    CardSize(usize),
    /// The operating system or cryptographic module gave no random key.
    KeyGeneration,
}

impl std::fmt::Display for IdentityError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => write!(f, "{name:?} is not a name."),
            Self::Curve(name) => write!(f, "{name:?} is not a curve of this version."),
            Self::PublicKey(why) => write!(f, "The static public key {why}."),
            Self::Onion(why) => write!(f, "The onion address {why}."),
            Self::ClientAuth(why) => write!(f, "The onion client-authorization key {why}."),
            Self::Attestation(why) => write!(f, "The attestation {why}."),
            Self::Suite(text) => write!(f, "The suites {text:?} are not suites of this version."),
            Self::Kem(text) => write!(f, "{text:?} is not a key encapsulation mechanism of this version."),
            Self::Fingerprint(text) => write!(f, "{text:?} is not a fingerprint."),
            Self::Card { line, expected } => write!(f, "Line {line} of the identity card is not {expected}."),
            Self::CardChecksum => write!(f, "The identity card's checksum does not match its text."),
            Self::CardLineEnds => write!(f, "The identity card's line ends were changed on the way."),
            Self::CardVersion(version) => {
                write!(
                    f,
                    "The identity card has format version {version:?}, and this program reads {VERSION_WITHOUT_KEM} and {VERSION}."
                )
            }
            Self::CardSize(len) => {
                write!(f, "The identity card is {len} bytes of text, and a card is at most {MAX_CARD_LEN}.")
            }
            Self::KeyGeneration => write!(f, "No random key could be made."),
        }
    }
}

impl IdentityError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Name(_) => format!(
                "Use 1 to {MAX_NAME_LEN} lower-case letters, digits and hyphens, beginning with a letter and not ending with a hyphen."
            ),
            Self::Curve(_) => "Use x25519 or p256.".into(),
            Self::Suite(_) => "Use ChaChaPoly_BLAKE2s, AESGCM_SHA256, or both separated by one space.".into(),
            Self::Kem(_) => "Use ML-KEM-768, the one that there is; a card that offers none has no such line.".into(),
            Self::Fingerprint(_) => format!("Give the 32 hexadecimal digits or the {WORDS} words that the other machine shows."),
            Self::PublicKey(_) | Self::Onion(_) | Self::ClientAuth(_) | Self::Attestation(_) => {
                "Export the card again on its machine with `claviger-ceremony export`.".into()
            }
            Self::Card { .. } | Self::CardChecksum | Self::CardSize(_) => {
                "Do not edit cards: export it again on its machine with `claviger-ceremony export` and carry the file unchanged.".into()
            }
            Self::CardLineEnds => "Carry the file unchanged: not as text in a mail, and not through a program that converts it.".into(),
            Self::CardVersion(_) => {
                "Use the same release of claviger on both machines, and export the card again with `claviger-ceremony export`.".into()
            },
            Self::KeyGeneration => "Check that the operating system's random generator works, and try again.".into(),
        }
    }
}

impl std::error::Error for IdentityError {}
