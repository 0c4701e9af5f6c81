//! Successions: a machine's next card, vouched for by its present key.
//!
//! A token can not sign, it can only agree. So each peer gets a MAC of its own, under a key from the agreement of the machine's present static key with that
//! peer's: only those two can make it, and the peer knows that it did not.

use crate::error::Result;
use crate::identity::{Identifier, IdentityCard, KeyPlace};
use crate::secret::SharedSecret;

/// A next card, and a MAC for each peer. Public data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Succession {
    /// The digest of the card that is succeeded.
    pub former: [u8; 32],
    /// Which key of the former card vouches.
    pub by: KeyPlace,
    /// Until when the former card holds too, seconds since 1970.
    pub until: u64,
    /// The next card; the identifier stays.
    pub card: IdentityCard,
    /// A MAC for each key of each peer, ordered.
    pub macs: Vec<SuccessionMac>,
}

/// The MAC for one key of one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SuccessionMac {
    /// Who can verify it.
    pub peer: Identifier,
    /// With which of its keys.
    pub place: KeyPlace,
    /// HMAC-SHA-256.
    pub mac: [u8; 32],
}

impl Succession {
    /// A succession that nobody can verify yet.
    pub fn new(former: &IdentityCard, by: KeyPlace, card: IdentityCard, until: u64) -> Self {
        let _ = (former, by, card, until);
        unimplemented!()
    }

    /// Adds the MAC for a peer's key. `agreed`: the present static key with that key.
    pub fn vouch(&mut self, peer: &Identifier, place: KeyPlace, agreed: &SharedSecret) {
        let _ = (peer, place, agreed);
        unimplemented!()
    }

    /// Whether it succeeds `former` as this machine holds it. `own`: this machine's name and the key that agreed with the
    /// key [`by`](Self::by) of `former` to `agreed`. Constant time in the MAC.
    ///
    /// # Errors
    /// [`SuccessionInvalid`](crate::ErrorKind::SuccessionInvalid): of another card, not for this machine, or a MAC that does not fit.
    pub fn verify(&self, former: &IdentityCard, own: (&Identifier, KeyPlace), agreed: &SharedSecret) -> Result<()> {
        let _ = (former, own, agreed);
        unimplemented!()
    }

    /// Its text.
    pub fn to_text(&self) -> String {
        unimplemented!()
    }

    /// Reads exactly what [`to_text`](Self::to_text) writes.
    ///
    /// # Errors
    /// [`SuccessionInvalid`](crate::ErrorKind::SuccessionInvalid).
    pub fn from_text(text: &str) -> Result<Self> {
        let _ = text;
        unimplemented!()
    }
}
