//! The seal: the store's content bound to this machine's tokens, and its secrets wrapped by them (design: one token, one PRF).

use super::Store;
use crate::error::Result;
use crate::identity::StaticPublic;
use crate::secret::SharedSecret;

/// The point whose agreement with the private half of `key` opens a store: derived from `key` by hash-and-increment, so that nobody knows its discrete logarithm.
pub fn seal_point(key: &StaticPublic) -> StaticPublic {
    let _ = key;
    unimplemented!()
}

/// What a token answered to its [`seal_point`].
pub struct SealKey {
    /// The token's static public key.
    pub key: StaticPublic,
    /// The agreement of its private half with `seal_point(&key)`.
    pub agreed: SharedSecret,
}

/// Whether a store is sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SealState {
    /// Not sealed: whoever can write to it can change it unseen, and its secrets are in the clear.
    Unsealed,
    /// Sealed to the tokens with these keys; any one opens it.
    Sealed(Vec<StaticPublic>),
}

impl Store {
    /// Whether it is sealed, and to which keys. Reads, and believes, what is in the file.
    ///
    /// # Errors
    /// As [`machine`](Self::machine).
    pub fn seal_state(&self) -> Result<SealState> {
        unimplemented!()
    }

    /// Opens the seal with a token's answer and verifies everything under it. From here on reads verify what they return, secrets can be read, and changes
    /// are sealed in the transaction that makes them. Does nothing to a store that is not sealed.
    ///
    /// # Errors
    /// [`StoreTampered`](crate::ErrorKind::StoreTampered) names what was changed outside the tool; [`KeyMismatch`](crate::ErrorKind::KeyMismatch) when the
    /// store is sealed to other keys. And as [`machine`](Self::machine).
    pub fn unlock(&mut self, key: &SealKey) -> Result<()> {
        let _ = key;
        unimplemented!()
    }

    /// Whether changes can be made and secrets read: it was [unlocked](Self::unlock), or is not sealed.
    pub fn is_unlocked(&self) -> bool {
        unimplemented!()
    }

    /// Verifies everything under the seal again.
    ///
    /// # Errors
    /// As [`unlock`](Self::unlock); [`StoreLocked`](crate::ErrorKind::StoreLocked).
    pub fn verify(&self) -> Result<()> {
        unimplemented!()
    }

    /// Seals it to exactly these tokens, under a new key: an unsealed store, or an unlocked one whose tokens were replaced.
    ///
    /// # Errors
    /// [`StoreLocked`](crate::ErrorKind::StoreLocked); and as [`machine`](Self::machine).
    pub fn seal(&mut self, keys: &[SealKey]) -> Result<()> {
        let _ = keys;
        unimplemented!()
    }

    /// Takes the seal off and writes the secrets in the clear.
    ///
    /// # Errors
    /// [`StoreLocked`](crate::ErrorKind::StoreLocked); and as [`machine`](Self::machine).
    pub fn unseal(&mut self) -> Result<()> {
        unimplemented!()
    }
}
