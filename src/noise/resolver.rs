//! snow's primitives: aws-lc-rs for X25519, P-256, AES-GCM, ChaCha20-Poly1305 and SHA-256, the `blake2` crate for BLAKE2s;
//! and the static key as a table of answers.
//!
//! snow asks its `Dh` for `s` synchronously and in the middle of a message. Every input of those operations is known before,
//! so the handshake fills an [`Answers`] table first, and the [`Slot`] that snow holds for `s` only looks up. A miss is an
//! error, never a call to a token.

use crate::identity::Curve;
use crate::secret::SharedSecret;
use aws_lc_rs::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey};
use aws_lc_rs::digest;
use blake2::{Blake2s256, Digest};
use snow::Error;
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::CryptoResolver;
use snow::types::{Cipher, Dh, Hash, Random};
use std::sync::{Arc, Mutex, PoisonError};

/// What the [`Slot`] of `s` is given as its "private key": it has none.
pub(super) const TOKEN_HANDLE: &[u8] = b"the static key is on the token";

/// Shared secrets with the static key, by peer point. At most three a handshake.
#[derive(Clone, Default)]
pub(super) struct Answers(Arc<Mutex<Vec<Answer>>>);

struct Answer {
    point: Box<[u8]>,
    secret: SharedSecret,
}

impl Answers {
    pub(super) fn put(&self, point: &[u8], secret: SharedSecret) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Answer { point: point.into(), secret });
    }

    fn copy_to(&self, point: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = answers.iter().find(|answer| *answer.point == *point).ok_or(Error::Dh)?;
        out.get_mut(..SharedSecret::LEN).ok_or(Error::Dh)?.copy_from_slice(answer.secret.expose());
        Ok(())
    }
}

/// The resolver of one handshake.
pub(super) struct Resolver {
    pub(super) curve: Curve,
    /// Our static public key.
    pub(super) public: Box<[u8]>,
    pub(super) answers: Answers,
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Rng))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        match (choice, self.curve) {
            (DHChoice::Curve25519, Curve::X25519) | (DHChoice::P256, Curve::P256) => {}
            _ => return None,
        }
        Some(Box::new(Slot {
            curve: self.curve,
            key: Key::None,
            public: [0; 65],
            token_public: self.public.clone(),
            answers: self.answers.clone(),
        }))
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        match choice {
            HashChoice::SHA256 => Some(Box::new(Sha256(digest::Context::new(&digest::SHA256)))),
            HashChoice::Blake2s => Some(Box::new(Blake2s(Blake2s256::new()))),
            _ => fallback().and_then(|other| other.resolve_hash(choice)),
        }
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        match choice {
            CipherChoice::ChaChaPoly => Some(Box::new(Aead { aes: false, key: None })),
            CipherChoice::AESGCM => Some(Box::new(Aead { aes: true, key: None })),
            #[allow(unreachable_patterns)] // with features that only the vectors switch on
            _ => fallback().and_then(|other| other.resolve_cipher(choice)),
        }
    }
}

/// The published vectors also use hashes and ciphers that no card can offer; for those, in tests, snow's own.
#[cfg(test)]
fn fallback() -> Option<snow::resolvers::DefaultResolver> {
    Some(snow::resolvers::DefaultResolver)
}

#[cfg(not(test))]
fn fallback() -> Option<Resolver> {
    None
}

struct Rng;

impl Random for Rng {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Error> {
        aws_lc_rs::rand::fill(dest).map_err(|_| Error::Rng)
    }
}

enum Key {
    None,
    /// `e`: a software key pair, wiped by aws-lc when dropped.
    Ephemeral(PrivateKey),
    /// `s`: answered from the table.
    Token,
}

/// What snow holds for `s` and for `e`; `set` and `generate` decide which it is.
struct Slot {
    curve: Curve,
    key: Key,
    public: [u8; 65],
    token_public: Box<[u8]>,
    answers: Answers,
}

impl Slot {
    fn take(&mut self, key: PrivateKey) -> Result<(), Error> {
        let public = key.compute_public_key().map_err(|_| Error::Dh)?;
        self.public[..self.curve.public_len()].copy_from_slice(public.as_ref());
        self.key = Key::Ephemeral(key);
        Ok(())
    }
}

impl Dh for Slot {
    fn name(&self) -> &'static str {
        self.curve.noise_name()
    }

    fn pub_len(&self) -> usize {
        self.curve.public_len()
    }

    fn priv_len(&self) -> usize {
        32
    }

    // P-256's result is 32 bytes, its public key 65: snow's default would take the latter.
    fn dh_len(&self) -> usize {
        SharedSecret::LEN
    }

    fn set(&mut self, private: &[u8]) {
        if private == TOKEN_HANDLE {
            self.public[..self.token_public.len()].copy_from_slice(&self.token_public);
            self.key = Key::Token;
        } else if let Ok(key) = PrivateKey::from_private_key(self.curve.algorithm(), private) {
            // Only a fixed ephemeral of a test gets here. A bad scalar leaves Key::None, and dh() fails.
            let _ = self.take(key);
        }
    }

    fn generate(&mut self, _rng: &mut dyn Random) -> Result<(), Error> {
        match self.key {
            Key::Token => Err(Error::Dh), // snow generates `e` only
            _ => self.take(PrivateKey::generate(self.curve.algorithm()).map_err(|_| Error::Rng)?),
        }
    }

    fn pubkey(&self) -> &[u8] {
        &self.public[..self.curve.public_len()]
    }

    fn privkey(&self) -> &[u8] {
        &[]
    }

    fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), Error> {
        // snow hands over its whole buffer, longer than any key.
        let public = public.get(..self.curve.public_len()).ok_or(Error::Dh)?;
        match &self.key {
            Key::None => Err(Error::Dh),
            Key::Token => self.answers.copy_to(public, out),
            Key::Ephemeral(key) => {
                let public = UnparsedPublicKey::new(self.curve.algorithm(), public);
                agreement::agree(key, public, Error::Dh, |secret| {
                    if secret.iter().all(|byte| *byte == 0) {
                        return Err(Error::Dh);
                    }
                    out.get_mut(..secret.len()).ok_or(Error::Dh)?.copy_from_slice(secret);
                    Ok(())
                })
            }
        }
    }
}

struct Sha256(digest::Context);

impl Hash for Sha256 {
    fn name(&self) -> &'static str {
        "SHA256"
    }

    fn block_len(&self) -> usize {
        64
    }

    fn hash_len(&self) -> usize {
        32
    }

    fn reset(&mut self) {
        self.0 = digest::Context::new(&digest::SHA256);
    }

    fn input(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn result(&mut self, out: &mut [u8]) {
        let done = std::mem::replace(&mut self.0, digest::Context::new(&digest::SHA256));
        out[..32].copy_from_slice(done.finish().as_ref());
    }
}

struct Blake2s(Blake2s256);

impl Hash for Blake2s {
    fn name(&self) -> &'static str {
        "BLAKE2s"
    }

    fn block_len(&self) -> usize {
        64
    }

    fn hash_len(&self) -> usize {
        32
    }

    fn reset(&mut self) {
        self.0 = Blake2s256::new();
    }

    fn input(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn result(&mut self, out: &mut [u8]) {
        out[..32].copy_from_slice(&std::mem::take(&mut self.0).finalize());
    }
}

struct Aead {
    aes: bool,
    key: Option<LessSafeKey>,
}

/// The AEAD key of a Noise cipher.
pub(super) fn aead_key(aes: bool, key: &[u8; 32]) -> Option<LessSafeKey> {
    UnboundKey::new(if aes { &AES_256_GCM } else { &CHACHA20_POLY1305 }, key).ok().map(LessSafeKey::new)
}

/// Four zero bytes, then the counter: little-endian for ChaChaPoly, big-endian for AESGCM (Noise, sections 12.3 and 12.4).
pub(super) fn nonce(aes: bool, counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&if aes { counter.to_be_bytes() } else { counter.to_le_bytes() });
    Nonce::assume_unique_for_key(bytes)
}

impl Cipher for Aead {
    fn name(&self) -> &'static str {
        if self.aes { "AESGCM" } else { "ChaChaPoly" }
    }

    fn set(&mut self, key: &[u8; 32]) {
        self.key = aead_key(self.aes, key);
    }

    // snow's trait leaves no way to fail here. What it cannot report becomes a message of zeros with a zero tag, which never
    // authenticates and holds no plaintext.
    fn encrypt(&self, counter: u64, ad: &[u8], plaintext: &[u8], out: &mut [u8]) -> usize {
        let len = plaintext.len();
        let total = len + super::handshake::TAG;
        out[..len].copy_from_slice(plaintext);
        let (body, tag_out) = out[..total].split_at_mut(len);
        let sealed = self
            .key
            .as_ref()
            .and_then(|key| key.seal_in_place_separate_tag(nonce(self.aes, counter), Aad::from(ad), body).ok());
        match sealed {
            Some(tag) => tag_out.copy_from_slice(tag.as_ref()),
            None => out[..total].fill(0),
        }
        total
    }

    fn decrypt(&self, counter: u64, ad: &[u8], ciphertext: &[u8], out: &mut [u8]) -> Result<usize, Error> {
        let key = self.key.as_ref().ok_or(Error::Decrypt)?;
        let len = ciphertext.len().checked_sub(super::handshake::TAG).ok_or(Error::Decrypt)?;
        let (body, tag) = ciphertext.split_at(len);
        let out = out.get_mut(..len).ok_or(Error::Input)?;
        key.open_separate_gather(nonce(self.aes, counter), Aad::from(ad), body, tag, out)
            .map_err(|_| Error::Decrypt)?;
        Ok(len)
    }
}
