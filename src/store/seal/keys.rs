//! The keys of a seal: one random key per store, wrapped for each token, and what is derived from it.
//!
//! ```text
//! agreed = a token's agreement with its seal point
//! slot   = AEAD(HKDF(agreed, curve:hex), K)          one for each token, table `seal_keys`
//! K      = 32 random bytes, new at every seal
//! mac    = HMAC-SHA-256(HKDF(K, "mac"), manifest)     table `seal`
//! secret = AEAD(HKDF(K, "wrap"), secret)              tables `secrets` and `challenges`
//! ```
//!
//! HKDF is HKDF-SHA-256 with the salt [`DOMAIN`]; AEAD is ChaCha20-Poly1305 under a random nonce, which stands in front, with the purpose and the name
//! of what is wrapped as additional data. A key wraps a few dozen values in its life, far below where random nonces meet.

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{hkdf, hmac, rand};

use super::SealKey;
use crate::error::{Error, ErrorKind, Result};
use crate::secret::{SecretBytes, StoreKey};
use crate::store::row::key_text;

/// The salt of every derivation, and the first line of what is authenticated.
pub(super) const DOMAIN: &str = "claviger store seal 1";

/// How much longer a wrapped value is: its nonce and its tag.
pub(in crate::store) const WRAPPING: usize = NONCE_LEN + 16;

/// The key of an open seal.
pub(in crate::store) struct Keys {
    store: StoreKey,
    mac: hmac::Key,
    wrap: LessSafeKey,
}

impl Keys {
    /// A new key.
    pub(in crate::store) fn generate() -> Result<Self> {
        let mut bytes = [0; 32];
        rand::fill(&mut bytes).map_err(|_| internal("make a random key"))?;
        Self::new(StoreKey::take(&mut bytes))
    }

    fn new(store: StoreKey) -> Result<Self> {
        let mac = hmac::Key::new(hmac::HMAC_SHA256, derive(store.expose(), "mac")?.expose());
        let wrap = aead(&derive(store.expose(), "wrap")?)?;
        Ok(Self { store, mac, wrap })
    }

    /// The key in a token's slot; `None` when the slot is not under this answer.
    pub(super) fn open(key: &SealKey, slot: &[u8]) -> Result<Option<Self>> {
        let name = key_text(&key.key);
        let under = aead(&derive(key.agreed.expose(), &name)?)?;
        let Some(bytes) = open(&under, &format!("slot\n{name}"), slot) else { return Ok(None) };
        StoreKey::from_slice(&bytes).map(Self::new).transpose()
    }

    /// The key wrapped for a token.
    pub(super) fn slot(&self, key: &SealKey) -> Result<Vec<u8>> {
        let name = key_text(&key.key);
        let under = aead(&derive(key.agreed.expose(), &name)?)?;
        close(&under, &format!("slot\n{name}"), self.store.expose())
    }

    /// The MAC over a manifest.
    pub(super) fn mac(&self, manifest: &str) -> Vec<u8> {
        hmac::sign(&self.mac, authenticated(manifest).as_bytes()).as_ref().to_vec()
    }

    /// Whether the MAC is that of the manifest, in constant time.
    pub(super) fn fits(&self, manifest: &str, mac: &[u8]) -> bool {
        hmac::verify(&self.mac, authenticated(manifest).as_bytes(), mac).is_ok()
    }

    /// A secret of that name, as the file holds it.
    pub(in crate::store) fn wrap(&self, name: &str, secret: &[u8]) -> Result<Vec<u8>> {
        close(&self.wrap, &format!("secret\n{name}"), secret)
    }

    /// The secret of that name again; `None` when it was changed, or is another's.
    pub(in crate::store) fn unwrap(&self, name: &str, wrapped: &[u8]) -> Option<SecretBytes> {
        open(&self.wrap, &format!("secret\n{name}"), wrapped)
    }
}

fn authenticated(manifest: &str) -> String {
    format!("{DOMAIN}\n{manifest}")
}

/// HKDF-SHA-256, 32 bytes.
fn derive(secret: &[u8], info: &str) -> Result<StoreKey> {
    let mut bytes = [0; 32];
    hkdf::Salt::new(hkdf::HKDF_SHA256, DOMAIN.as_bytes())
        .extract(secret)
        .expand(&[info.as_bytes()], hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut bytes))
        .map_err(|_| internal("derive a key"))?;
    Ok(StoreKey::take(&mut bytes))
}

fn aead(key: &StoreKey) -> Result<LessSafeKey> {
    UnboundKey::new(&CHACHA20_POLY1305, key.expose()).map(LessSafeKey::new).map_err(|_| internal("use a key"))
}

fn additional(purpose: &str) -> Aad<String> {
    Aad::from(format!("{DOMAIN}\n{purpose}"))
}

fn close(key: &LessSafeKey, purpose: &str, plain: &[u8]) -> Result<Vec<u8>> {
    let mut nonce = [0; NONCE_LEN];
    rand::fill(&mut nonce).map_err(|_| internal("make a random nonce"))?;
    let mut sealed = nonce.to_vec();
    sealed.extend_from_slice(plain);
    let tag = key
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), additional(purpose), &mut sealed[NONCE_LEN..])
        .map_err(|_| internal("wrap a key"))?;
    sealed.extend_from_slice(tag.as_ref());
    Ok(sealed)
}

fn open(key: &LessSafeKey, purpose: &str, sealed: &[u8]) -> Option<SecretBytes> {
    let (nonce, rest) = sealed.split_at_checked(NONCE_LEN)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let mut plain = SecretBytes::new(rest.to_vec());
    let len = key.open_in_place(nonce, additional(purpose), &mut plain).ok()?.len();
    plain.truncate(len);
    Some(plain)
}

fn internal(what: &str) -> Error {
    Error::new(
        ErrorKind::Internal,
        format!("The cryptographic library could not {what}."),
        "Check that the operating system's random generator works, and try again.",
    )
}
