//! Noise (revision 34) handshakes whose static key stays on a token, and the ciphers of the session that follows.
//!
//! This module receives bytes, times and shared secrets; it fetches none of them. A handshake is a chain of [`Step`]s: each step
//! says what it needs from outside and is consumed by the answer, so a slow touch or a PIN prompt happens outside the protocol.
//!
//! ```text
//! Agree(point)  ── token.agree(point) ──▶ resume(secret) ──▶ next step
//! Send(message) ── write it ────────────▶ sent()         ──▶ next step
//! Receive       ── read one message ────▶ received(msg)  ──▶ next step
//! Finished(established)
//! ```
//!
//! Token operations are exactly these, in this order:
//!
//! | pattern | initiator | responder |
//! |---|---|---|
//! | KK  | `ss` before message 1, `se` at message 2 | `es`, `ss` at message 1 |
//! | KK1 | `se` at message 2 | `es` before message 2 |
//! | XK  | `se` before message 3 | `es` at message 1 |
//! | NN  | none | none |
//!
//! ML-KEM-768 and a pre-shared key, when the [`Protocol`] has them, are mixed in by Noise's `psk` modifier and change nothing of that. The `psk` of either is kept
//! by snow in plain memory, like the handshake's other secrets: a state lives for one handshake, and no longer.

mod cipher;
mod handshake;
mod kem;
pub mod knock;
mod resolver;
pub mod resumption;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;

pub use cipher::{Opener, REKEY_AFTER, Sealer};
pub use handshake::{Agree, Established, Receive, Send, Setup, Step, initiator, responder};

use crate::identity::{Curve, IdentityError, Kem, Suite};
use crate::wire::{Kind, Pattern};

/// Which Noise protocol: pattern and what is mixed in, curve, cipher and hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Protocol {
    /// The handshake pattern.
    pub pattern: Pattern,
    /// The key encapsulation mechanism that is mixed in: the one that both cards offer.
    pub kem: Option<Kem>,
    /// Whether the pre-shared key of the two machines is mixed in.
    pub psk: bool,
    /// The curve of both static keys and both ephemerals.
    pub curve: Curve,
    /// Cipher and hash.
    pub suite: Suite,
}

impl Protocol {
    /// The protocol of a resumption.
    pub fn resumption(curve: Curve, suite: Suite) -> Self {
        Self { pattern: Pattern::Nn, kem: None, psk: false, curve, suite }
    }

    /// What knock and prologue say of it.
    pub fn kind(&self) -> Kind {
        Kind { pattern: self.pattern, kem: self.kem.is_some(), psk: self.psk }
    }

    /// The protocol name of Noise, section 8: `Noise_KK_25519_ChaChaPoly_BLAKE2s`; `Noise_KKpsk2_…` with a KEM or a pre-shared key.
    pub fn name(&self) -> String {
        let (pattern, curve, suite) = (self.pattern.noise_name(), self.curve.noise_name(), self.suite.noise_name());
        if self.kind().is_modified() {
            format!("Noise_{pattern}psk{}_{curve}_{suite}", self.psk_place())
        } else {
            format!("Noise_{pattern}_{curve}_{suite}")
        }
    }

    /// The number behind `psk` in the name: after which message it is mixed in (Noise, section 9.4).
    fn psk_place(&self) -> u8 {
        match self.pattern {
            Pattern::Kk | Pattern::Kk1 => 2,
            Pattern::Xk => 3,
            Pattern::Nn => 0,
        }
    }
}

/// Why a handshake or a session's cipher stopped. After any of these the state is gone; begin anew.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NoiseError {
    /// A key of another curve than the protocol's.
    Curve,
    /// The ephemeral or static key that the peer sent is not one that an honest machine sends.
    Point(IdentityError),
    /// A message of another length than [`Receive::expected_len`].
    Length,
    /// The encapsulation key that the peer sent fails the check of FIPS 203, section 7.2.
    EncapsulationKey,
    /// A message that does not authenticate: another key, another prologue, or changed on the way.
    Decrypt,
    /// XK's initiator showed another static key than the one its knock was made with.
    OtherStatic,
    /// All 2^64 - 1 nonces of a key are used (Noise, section 5.1).
    NonceExhausted,
    /// The record is longer than a Noise transport message may be.
    RecordTooLong,
    /// snow refused what this module gave it, which is a bug here.
    Internal(&'static str),
}

impl std::fmt::Display for NoiseError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Curve => f.write_str("the keys are on another curve than the protocol's"),
            Self::Point(error) => write!(f, "the peer sent a bad public key: {error}"),
            Self::Length => f.write_str("a handshake message has an impossible length"),
            Self::EncapsulationKey => f.write_str("the peer sent a bad encapsulation key"),
            Self::Decrypt => f.write_str("a message did not authenticate"),
            Self::OtherStatic => f.write_str("the peer showed another static key than the one it knocked with"),
            Self::NonceExhausted => f.write_str("the session's nonces are used up"),
            Self::RecordTooLong => f.write_str("a record is longer than a Noise message may be"),
            Self::Internal(what) => write!(f, "internal error in the handshake ({what})"),
        }
    }
}

impl std::error::Error for NoiseError {}
