//! Secret values: the only home of `zeroize` in this crate.
//!
//! Every type here is wiped when dropped and has neither `Debug` nor `Display` nor `Clone`. A type per role of a key,
//! so that one can not be passed for another:
//!
//! ```compile_fail
//! let secret = claviger::secret::SharedSecret::new([7; 32]);
//! println!("{secret:?}"); // no Debug: a secret can not reach a log
//! ```

use zeroize::{Zeroize, Zeroizing};

macro_rules! secret {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        pub struct $name(Box<Zeroizing<[u8; $len]>>);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// Takes the bytes over. The caller wipes its own copy, if it kept one.
            pub fn new(bytes: [u8; $len]) -> Self {
                Self(Box::new(Zeroizing::new(bytes)))
            }

            /// Takes the bytes over and wipes the place they were in.
            pub fn take(bytes: &mut [u8; $len]) -> Self {
                let taken = Self::new(*bytes);
                bytes.zeroize();
                taken
            }

            /// Copies from a slice; `None` when it is not exactly [`Self::LEN`] bytes long.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                Some(Self::new(bytes.try_into().ok()?))
            }

            /// The bytes. Borrow them for one operation; do not keep a copy.
            pub fn expose(&self) -> &[u8; $len] {
                &self.0
            }
        }
    };
}

secret! {
    /// The 32-byte result of one Diffie-Hellman operation: X25519's output (RFC 7748, section 5), or the x coordinate for P-256
    /// (SEC 1, section 3.3.1). Never all zero.
    SharedSecret, 32
}

secret! {
    /// The 32-byte key of the knock's MAC between one initiator and one responder. Known to ceremony members only.
    KnockKey, 32
}

secret! {
    /// A 32-byte key of one direction of a session's cipher, as Noise's `Split()` returns it (Noise, section 5.2).
    CipherKey, 32
}

secret! {
    /// A 32-byte key that two machines hold beside their static keys, exchanged in the ceremony on a medium that both trust. Mixed into every full handshake between them.
    PresharedKey, 32
}

secret! {
    /// A 32-byte link of the chain by which a broken session is resumed: see `docs/wire-format.md`, section 6. Memory only.
    ResumptionSecret, 32
}

secret! {
    /// The 32-byte shared secret of one encapsulation by ML-KEM-768 (FIPS 203, section 6).
    KemSecret, 32
}

secret! {
    /// The `psk` of a Noise handshake, 32 bytes (Noise, section 9).
    NoisePsk, 32
}

secret! {
    /// An onion service's secret key: the 64-byte expanded Ed25519 key (clamped scalar, then hash prefix; RFC 8032, section 5.1.5),
    /// the form that both tor's `ADD_ONION ED25519-V3` and arti take.
    OnionSecretKey, 64
}

secret! {
    /// The X25519 secret of the onion client authorization key, 32 bytes (Tor rend-spec-v3, appendix G).
    ClientAuthSecret, 32
}

secret! {
    /// The private half of an ephemeral key, 32 bytes: of a challenge; of a Noise handshake only in tests and published vectors, which choose one.
    EphemeralSecret, 32
}

secret! {
    /// The 32-byte key of a store's seal, from which its MAC key and the key that wraps its secrets are derived. In the file only under a
    /// token's answer.
    StoreKey, 32
}

/// Overwrites plaintext in a buffer that is used again, by the block and not by the byte as [`Zeroize`] does: 128 KiB take 3 µs.
pub(crate) fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    zeroize::optimization_barrier(bytes);
}

/// A wiped-on-drop byte buffer for plaintext or secret text on its way.
pub type SecretBytes = Zeroizing<Vec<u8>>;

/// A wiped-on-drop string, for a password read from a file or the terminal.
pub type SecretString = Zeroizing<String>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_slice_wants_the_exact_length() {
        assert!(SharedSecret::from_slice(&[1; 31]).is_none());
        assert!(SharedSecret::from_slice(&[1; 33]).is_none());
        assert_eq!(SharedSecret::from_slice(&[1; 32]).map(|s| *s.expose()), Some([1; 32]));
    }
}
