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

mod cipher;
mod handshake;
pub mod knock;
mod resolver;
#[cfg(test)]
mod vectors;

pub use cipher::{Opener, REKEY_AFTER, Sealer};
pub use handshake::{Agree, Established, Receive, Send, Setup, Step, initiator, responder};

use crate::identity::{Curve, IdentityError, Suite};
use crate::wire::Pattern;

/// Which Noise protocol: pattern, curve, cipher and hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protocol {
    /// The handshake pattern.
    pub pattern: Pattern,
    /// The curve of both static keys and both ephemerals.
    pub curve: Curve,
    /// Cipher and hash.
    pub suite: Suite,
}

impl Protocol {
    /// The protocol name of Noise, section 8: `Noise_KK_25519_ChaChaPoly_BLAKE2s`.
    pub fn name(&self) -> String {
        format!("Noise_{}_{}_{}", self.pattern.noise_name(), self.curve.noise_name(), self.suite.noise_name())
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
    /// A message of impossible length.
    Length,
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
            Self::Decrypt => f.write_str("a message did not authenticate"),
            Self::OtherStatic => f.write_str("the peer showed another static key than the one it knocked with"),
            Self::NonceExhausted => f.write_str("the session's nonces are used up"),
            Self::RecordTooLong => f.write_str("a record is longer than a Noise message may be"),
            Self::Internal(what) => write!(f, "internal error in the handshake ({what})"),
        }
    }
}

impl std::error::Error for NoiseError {}
