//! What travels: identity cards, challenges, proofs, successions. Texts that begin with a title line `claviger … N` and end with a `checksum:` line; several may
//! stand one after the other in one file or QR code.

use super::proof::{Challenge, Proof};
use super::succession::Succession;
use crate::error::Result;
use crate::identity::IdentityCard;

/// Longest text that is read at once, in bytes: every card of a full plan without attestations, or some thirty with.
pub const MAX_BUNDLE_LEN: usize = 1024 * 1024;

/// One text that travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// An identity card.
    Card(IdentityCard),
    /// A challenge.
    Challenge(Challenge),
    /// A proof.
    Proof(Proof),
    /// A succession.
    Succession(Succession),
}

impl Document {
    /// Reads every document of a text.
    ///
    /// # Errors
    /// [`CardInvalid`](crate::ErrorKind::CardInvalid) for text that is none of them, and those of each one's reader.
    pub fn read_all(text: &str) -> Result<Vec<Self>> {
        let _ = text;
        unimplemented!()
    }

    /// Its text.
    pub fn to_text(&self) -> String {
        unimplemented!()
    }

    /// What people call it: `identity card`, `challenge`, `proof`, `succession`.
    pub fn what(&self) -> &'static str {
        match self {
            Self::Card(_) => "identity card",
            Self::Challenge(_) => "challenge",
            Self::Proof(_) => "proof",
            Self::Succession(_) => "succession",
        }
    }
}
