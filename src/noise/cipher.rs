//! The two ciphers of a session: records are Noise transport messages (Noise, section 5.1), sealed and opened in place.

use super::NoiseError;
use super::resolver::{aead_key, nonce};
use crate::identity::Suite;
use crate::secret::CipherKey;
use crate::wire::{FRAME_HEADER, MAX_RECORD_PLAINTEXT, TAG};
use aws_lc_rs::aead::{Aad, LessSafeKey};

struct Counter {
    key: LessSafeKey,
    aes: bool,
    next: u64,
}

impl Counter {
    fn new(suite: Suite, key: &CipherKey) -> Result<Self, NoiseError> {
        let aes = suite == Suite::AesGcmSha256;
        let key = aead_key(aes, key.expose()).ok_or(NoiseError::Internal("session key"))?;
        Ok(Self { key, aes, next: 0 })
    }

    /// The nonce 2^64 - 1 is reserved (Noise, section 5.1), so a key seals 2^64 - 1 records.
    fn take(&mut self) -> Result<aws_lc_rs::aead::Nonce, NoiseError> {
        if self.next == u64::MAX {
            return Err(NoiseError::NonceExhausted);
        }
        let taken = nonce(self.aes, self.next);
        self.next += 1;
        Ok(taken)
    }
}

/// Seals the records that this end sends.
pub struct Sealer(Counter);

impl Sealer {
    /// From the sending key of an [`Established`](super::Established) handshake.
    ///
    /// # Errors
    /// [`NoiseError::Internal`] when the AEAD refuses its key.
    pub fn new(suite: Suite, key: &CipherKey) -> Result<Self, NoiseError> {
        Counter::new(suite, key).map(Self)
    }

    /// Appends one framed record to `out`: big-endian `u16` length, ciphertext, 16-byte tag.
    ///
    /// # Errors
    /// [`NoiseError::RecordTooLong`] over [`MAX_RECORD_PLAINTEXT`] bytes, [`NoiseError::NonceExhausted`].
    pub fn seal(&mut self, plaintext: &[u8], out: &mut Vec<u8>) -> Result<(), NoiseError> {
        if plaintext.len() > MAX_RECORD_PLAINTEXT {
            return Err(NoiseError::RecordTooLong);
        }
        let nonce = self.0.take()?;
        let len = (plaintext.len() + TAG) as u16; // at most MAX_RECORD, 65535
        out.reserve(FRAME_HEADER + usize::from(len));
        out.extend_from_slice(&len.to_be_bytes());
        let start = out.len();
        out.extend_from_slice(plaintext);
        let sealed = self.0.key.seal_in_place_separate_tag(nonce, Aad::empty(), &mut out[start..]);
        match sealed {
            Ok(tag) => out.extend_from_slice(tag.as_ref()),
            Err(_) => {
                out.truncate(start - FRAME_HEADER);
                return Err(NoiseError::Internal("seal"));
            }
        }
        Ok(())
    }
}

/// Opens the records that this end receives.
pub struct Opener(Counter);

impl Opener {
    /// From the receiving key of an [`Established`](super::Established) handshake.
    ///
    /// # Errors
    /// [`NoiseError::Internal`] when the AEAD refuses its key.
    pub fn new(suite: Suite, key: &CipherKey) -> Result<Self, NoiseError> {
        Counter::new(suite, key).map(Self)
    }

    /// Opens one record (without its frame header) in place and returns the plaintext. After an error the session must end.
    ///
    /// # Errors
    /// [`NoiseError::Decrypt`] for a record that was changed, repeated, left out or reordered; [`NoiseError::NonceExhausted`].
    pub fn open<'a>(&mut self, record: &'a mut [u8]) -> Result<&'a mut [u8], NoiseError> {
        let nonce = self.0.take()?;
        self.0.key.open_in_place(nonce, Aad::empty(), record).map_err(|_| NoiseError::Decrypt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_changed_bit_is_found_and_order_matters() {
        for suite in Suite::ALL {
            let key = CipherKey::new([5; 32]);
            let mut records = Vec::new();
            let mut sealer = Sealer::new(suite, &key).unwrap();
            sealer.seal(b"one", &mut records).unwrap();
            let first = records[2..].to_vec();
            for bit in 0..first.len() * 8 {
                let mut bad = first.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                let mut opener = Opener::new(suite, &key).unwrap();
                assert_eq!(opener.open(&mut bad), Err(NoiseError::Decrypt), "bit {bit}");
            }
            let mut opener = Opener::new(suite, &key).unwrap();
            assert_eq!(opener.open(&mut first.clone()).unwrap(), b"one");
            assert_eq!(opener.open(&mut first.clone()), Err(NoiseError::Decrypt), "a repeated record");
        }
    }

    #[test]
    fn limits() {
        let key = CipherKey::new([5; 32]);
        let mut sealer = Sealer::new(Suite::ChaChaPolyBlake2s, &key).unwrap();
        let mut out = Vec::new();
        sealer.seal(&vec![0; MAX_RECORD_PLAINTEXT], &mut out).unwrap();
        assert_eq!((out.len(), &out[..2]), (2 + 65535, &[0xff, 0xff][..]));
        assert_eq!(sealer.seal(&vec![0; MAX_RECORD_PLAINTEXT + 1], &mut out), Err(NoiseError::RecordTooLong));
        sealer.0.next = u64::MAX;
        assert_eq!(sealer.seal(b"", &mut out), Err(NoiseError::NonceExhausted));
    }
}
