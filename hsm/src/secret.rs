//! The two secrets that cross this crate's border: what a token agreed, and what opens it.

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::error::{Error, ErrorKind, Result};

/// What an agree gives: 32 bytes, the X25519 output or the X coordinate of the P-256 point. Wiped on drop, never printed.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct SharedSecret([u8; 32]);

impl SharedSecret {
    /// Takes the 32 bytes of a Diffie-Hellman result.
    ///
    /// # Errors
    /// `ZeroSecret`: all bytes are zero (RFC 7748, section 6.1), which no honest pair of keys gives.
    pub fn new(bytes: [u8; 32]) -> Result<Self> {
        let secret = Self(bytes);
        if secret.0.iter().fold(0, |any, byte| any | byte) == 0 {
            return Err(Error::new(
                ErrorKind::ZeroSecret,
                "The Diffie-Hellman result is all zero.",
                "The peer's key or the token is broken; do not use this pair, and repeat the ceremony with a new key.",
            ));
        }
        Ok(secret)
    }

    /// The 32 bytes, for a key derivation and nothing else.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// A PIN, or the passphrase of a key file: 1 to 255 bytes of UTF-8 without NUL. Wiped on drop, never printed.
pub struct Pin(Zeroizing<String>);

impl Pin {
    /// The most bytes a PIN may have.
    pub const MAX_LEN: usize = 255;

    /// Takes what a person or a file gave.
    ///
    /// # Errors
    /// `PinRequired`: it is empty, longer than [`Pin::MAX_LEN`] bytes, or holds a NUL.
    pub fn new(text: String) -> Result<Self> {
        let pin = Self(Zeroizing::new(text));
        if pin.0.is_empty() || pin.0.len() > Self::MAX_LEN || pin.0.contains('\0') {
            return Err(Error::new(
                ErrorKind::PinRequired,
                "What was given cannot be a PIN or passphrase: it is empty, longer than 255 bytes, or holds a NUL.",
                "Give 1 to 255 bytes of text.",
            ));
        }
        Ok(pin)
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// Whether the two are the same. Both belong to the one who asks, so the time it takes tells nobody anything.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl zeroize::ZeroizeOnDrop for Pin {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_no_secret() {
        assert_eq!(SharedSecret::new([0; 32]).err().unwrap().kind(), ErrorKind::ZeroSecret);
        let mut one_bit = [0; 32];
        one_bit[31] = 0x80;
        assert_eq!(SharedSecret::new(one_bit).unwrap().as_bytes(), &one_bit);
    }

    #[test]
    fn pins_have_bounds() {
        assert_eq!(Pin::new("x".repeat(255)).unwrap().expose().len(), 255);
        for bad in [String::new(), "x".repeat(256), "12\x0034".into()] {
            assert_eq!(Pin::new(bad).err().unwrap().kind(), ErrorKind::PinRequired);
        }
    }
}
