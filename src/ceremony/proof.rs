//! Proof of possession: the machine that imports a card learns that a token in the room holds its key.
//!
//! The verifier makes an ephemeral key and sends its public half in a [`Challenge`], one for all members of its curve. A prover's token agrees with it, once,
//! and sends a MAC under a key from that secret in a [`Proof`]. Only the token with the private key on the card, and the verifier, can make it.

use crate::error::Result;
use crate::identity::{Fingerprint, Identifier, IdentityCard, KeyPlace, StaticPublic};
use crate::secret::{EphemeralSecret, SharedSecret};

/// A question to the tokens in the room. Public data; names no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// 16 random bytes.
    pub id: [u8; 16],
    /// The fingerprint of the plan; `None` in a ceremony without one.
    pub plan: Option<Fingerprint>,
    /// Who asks.
    pub verifier: Identifier,
    /// The verifier's ephemeral public key, on its curve, for this challenge only.
    pub ephemeral: StaticPublic,
    /// When it was made and until when it holds, seconds since 1970, by the verifier's clock.
    pub issued: u64,
    /// See `issued`.
    pub expires: u64,
}

/// The answer of one token to one challenge. Public data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The challenge's [`id`](Challenge::id).
    pub challenge: [u8; 16],
    /// Whose token answered.
    pub prover: Identifier,
    /// Which of its keys.
    pub place: KeyPlace,
    /// HMAC-SHA-256 under a key from the shared secret.
    pub mac: [u8; 32],
}

impl Challenge {
    /// Makes a challenge and the secret by which its proofs are verified. The secret stays in the verifier's store.
    ///
    /// # Errors
    /// [`Internal`](crate::ErrorKind::Internal) when there is no randomness.
    pub fn new(
        verifier: &IdentityCard,
        plan: Option<Fingerprint>,
        issued: u64,
        expires: u64,
    ) -> Result<(Self, EphemeralSecret)> {
        let _ = (verifier, plan, issued, expires);
        unimplemented!()
    }

    /// Its text.
    pub fn to_text(&self) -> String {
        unimplemented!()
    }

    /// Reads exactly what [`to_text`](Self::to_text) writes.
    ///
    /// # Errors
    /// [`ProofInvalid`](crate::ErrorKind::ProofInvalid).
    pub fn from_text(text: &str) -> Result<Self> {
        let _ = text;
        unimplemented!()
    }
}

impl Proof {
    /// The proof by the key at `place` of `card`, whose token agreed with [`Challenge::ephemeral`] to `agreed`.
    pub fn new(challenge: &Challenge, card: &IdentityCard, place: KeyPlace, agreed: &SharedSecret) -> Self {
        let _ = (challenge, card, place, agreed);
        unimplemented!()
    }

    /// Whether the token of the key at [`place`](Self::place) of `card`, as this machine holds the card, made this proof. Constant time in the MAC. Who asks
    /// looks at the clock, and that no proof counts twice.
    ///
    /// # Errors
    /// [`ProofInvalid`](crate::ErrorKind::ProofInvalid): another challenge, another member, a key that the card has not, or a MAC that does not fit.
    pub fn verify(&self, challenge: &Challenge, secret: &EphemeralSecret, card: &IdentityCard) -> Result<()> {
        let _ = (challenge, secret, card);
        unimplemented!()
    }

    /// Its text.
    pub fn to_text(&self) -> String {
        unimplemented!()
    }

    /// Reads exactly what [`to_text`](Self::to_text) writes.
    ///
    /// # Errors
    /// [`ProofInvalid`](crate::ErrorKind::ProofInvalid).
    pub fn from_text(text: &str) -> Result<Self> {
        let _ = text;
        unimplemented!()
    }
}
