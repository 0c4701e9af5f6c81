//! The two ciphers of a session: records are Noise transport messages (Noise, section 5.1), sealed and opened in place.
//!
//! Each direction's key is replaced by Noise's `REKEY` (section 4.2) after every [`REKEY_AFTER`] records, at both ends without a word, and the
//! nonce counts on. Whoever takes a key out of memory opens nothing that was sealed under the ones before it; and no AES-GCM key seals more
//! than 4 GiB, where RFC 8446 (section 5.5) asks for a new one after some 390.
//!
//! Nonces can not run out: at a thousand million records a second 2^64 - 1 of them last 584 years. The check is there all the same.

mod key;

use super::NoiseError;
use crate::identity::Suite;
use crate::secret::{CipherKey, wipe};
use crate::wire::{FRAME_HEADER, MAX_RECORD_PLAINTEXT, TAG};
use key::{Key, Provider};

/// Records of one direction that are sealed under one key, empty ones included.
pub const REKEY_AFTER: u64 = 1 << 16;

struct Counter {
    key: Key,
    aes: bool,
    next: u64,
}

impl Counter {
    fn new(suite: Suite, key: &CipherKey) -> Result<Self, NoiseError> {
        Self::with(Provider::fastest(suite), suite, key)
    }

    fn with(provider: Provider, suite: Suite, key: &CipherKey) -> Result<Self, NoiseError> {
        let aes = suite == Suite::AesGcmSha256;
        let key = Key::new(provider, aes, key.expose()).ok_or(NoiseError::Internal("session key"))?;
        Ok(Self { key, aes, next: 0 })
    }

    /// The nonce 2^64 - 1 is reserved (Noise, section 5.1), so a direction has 2^64 - 1 records.
    fn nonce(&self) -> Result<[u8; 12], NoiseError> {
        if self.next == u64::MAX { Err(NoiseError::NonceExhausted) } else { Ok(nonce(self.aes, self.next)) }
    }

    /// After a record.
    fn count(&mut self) -> Result<(), NoiseError> {
        self.next += 1;
        if self.next.is_multiple_of(REKEY_AFTER) { self.rekey() } else { Ok(()) }
    }

    /// `REKEY(k)`: the first 32 bytes of `ENCRYPT(k, 2^64 - 1, zerolen, zeros)` (Noise, section 4.2).
    #[cold]
    fn rekey(&mut self) -> Result<(), NoiseError> {
        let mut key = [0; CipherKey::LEN];
        self.key.seal(nonce(self.aes, u64::MAX), &mut key).ok_or(NoiseError::Internal("rekey"))?;
        let next = Key::new(self.key.provider(), self.aes, &key);
        wipe(&mut key);
        self.key = next.ok_or(NoiseError::Internal("session key"))?;
        Ok(())
    }
}

/// Four zero bytes, then the counter: little-endian for ChaChaPoly, big-endian for AESGCM (Noise, sections 12.3 and 12.4).
fn nonce(aes: bool, counter: u64) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&if aes { counter.to_be_bytes() } else { counter.to_le_bytes() });
    bytes
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

    /// Seals one record where it is. `frame` is room for its header ([`FRAME_HEADER`] bytes: big-endian length), the plaintext, and room for its
    /// tag ([`TAG`] bytes). After an error the session must end.
    ///
    /// # Errors
    /// [`NoiseError::RecordTooLong`] over [`MAX_RECORD_PLAINTEXT`] bytes of plaintext, [`NoiseError::NonceExhausted`].
    pub fn seal_in_place(&mut self, frame: &mut [u8]) -> Result<(), NoiseError> {
        let (header, body) = frame.split_first_chunk_mut().ok_or(NoiseError::Internal("frame"))?;
        let len: [u8; FRAME_HEADER] = u16::try_from(body.len()).map_err(|_| NoiseError::RecordTooLong)?.to_be_bytes();
        let (text, tag) = body.split_last_chunk_mut::<TAG>().ok_or(NoiseError::Internal("frame"))?;
        *tag = self.0.key.seal(self.0.nonce()?, text).ok_or(NoiseError::Internal("seal"))?;
        *header = len;
        self.0.count()
    }

    /// Appends one framed record to `out`: big-endian `u16` length, ciphertext, 16-byte tag.
    ///
    /// # Errors
    /// Those of [`seal_in_place`](Self::seal_in_place).
    pub fn seal(&mut self, plaintext: &[u8], out: &mut Vec<u8>) -> Result<(), NoiseError> {
        if plaintext.len() > MAX_RECORD_PLAINTEXT {
            return Err(NoiseError::RecordTooLong);
        }
        let start = out.len();
        out.reserve(FRAME_HEADER + plaintext.len() + TAG);
        out.extend_from_slice(&[0; FRAME_HEADER]);
        out.extend_from_slice(plaintext);
        out.extend_from_slice(&[0; TAG]);
        let sealed = self.seal_in_place(&mut out[start..]);
        if sealed.is_err() {
            wipe(&mut out[start..]);
            out.truncate(start);
        }
        sealed
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
        let len = self.0.key.open(self.0.nonce()?, record).ok_or(NoiseError::Decrypt)?;
        self.0.count()?;
        Ok(&mut record[..len])
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

    /// Two ends of snow's own, by its own cipher, for the keys that they split into.
    fn snow(suite: Suite) -> ([snow::StatelessTransportState; 2], CipherKey) {
        let name = format!("Noise_NN_25519_{}", suite.noise_name());
        let ends = [true, false].map(|initiator| {
            let builder = snow::Builder::new(name.parse().unwrap());
            let fixed = [if initiator { 1 } else { 2 }; 32];
            let builder = builder.fixed_ephemeral_key_for_testing_only(&fixed);
            if initiator { builder.build_initiator().unwrap() } else { builder.build_responder().unwrap() }
        });
        let [mut initiator, mut responder] = ends;
        let (mut message, mut payload) = ([0; 100], [0; 100]);
        let len = initiator.write_message(&[], &mut message).unwrap();
        responder.read_message(&message[..len], &mut payload).unwrap();
        let len = responder.write_message(&[], &mut message).unwrap();
        initiator.read_message(&message[..len], &mut payload).unwrap();
        let key = CipherKey::new(initiator.dangerously_get_raw_split().0);
        ([initiator, responder].map(|end| end.into_stateless_transport_mode().unwrap()), key)
    }

    #[test]
    fn keys_are_replaced_as_noise_says() {
        for suite in Suite::ALL {
            let ([mut initiator, mut responder], key) = snow(suite);
            let (mut sealer, mut opener) = (Sealer::new(suite, &key).unwrap(), Opener::new(suite, &key).unwrap());
            let (mut theirs, mut plain) = ([0; 100], [0; 100]);
            for rekeyed in 1..=3 {
                // The records between are passed over at both ends.
                let first = rekeyed * REKEY_AFTER - 2;
                (sealer.0.next, opener.0.next) = (first, first);
                for nonce in first..first + 4 {
                    if nonce == rekeyed * REKEY_AFTER {
                        initiator.rekey_outgoing();
                        responder.rekey_incoming();
                    }
                    let len = initiator.write_message(nonce, b"record", &mut theirs).unwrap();
                    let mut ours = Vec::new();
                    sealer.seal(b"record", &mut ours).unwrap();
                    assert_eq!(&ours[FRAME_HEADER..], &theirs[..len], "{suite}, record {nonce}");
                    assert_eq!(responder.read_message(nonce, &theirs[..len], &mut plain), Ok(6));
                    assert_eq!(opener.open(&mut theirs[..len]).unwrap(), b"record");
                }
            }
        }
    }

    #[test]
    fn each_record_counts_empty_ones_too() {
        let suite = Suite::ChaChaPolyBlake2s;
        let key = CipherKey::new([5; 32]);
        let (mut sealer, mut opener) = (Sealer::new(suite, &key).unwrap(), Opener::new(suite, &key).unwrap());
        let mut record = Vec::new();
        for number in 0..3 * REKEY_AFTER + 2 {
            record.clear();
            sealer.seal(if number % 2 == 0 { b"" } else { b"x" }, &mut record).unwrap();
            opener.open(&mut record[FRAME_HEADER..]).unwrap();
        }
        assert_eq!((sealer.0.next, opener.0.next), (3 * REKEY_AFTER + 2, 3 * REKEY_AFTER + 2));
    }

    #[test]
    fn a_key_that_was_replaced_opens_nothing_more() {
        let key = CipherKey::new([5; 32]);
        let mut sealer = Sealer::new(Suite::AesGcmSha256, &key).unwrap();
        sealer.0.next = REKEY_AFTER - 1;
        let mut wire = Vec::new();
        sealer.seal(b"", &mut wire).unwrap();
        wire.clear();
        sealer.seal(b"new", &mut wire).unwrap();
        let mut opener = Opener::new(Suite::AesGcmSha256, &key).unwrap();
        opener.0.next = REKEY_AFTER;
        assert_eq!(opener.open(&mut wire[FRAME_HEADER..]), Err(NoiseError::Decrypt));
    }
}
