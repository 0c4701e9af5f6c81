//! Tokens for claviger: one Diffie-Hellman operation with a private key that stays where it is.
//!
//! ```no_run
//! # fn main() -> Result<(), claviger_hsm::Error> {
//! # struct Prompt; impl claviger_hsm::PinEntry for Prompt {
//! #   fn pin(&mut self, _: &claviger_hsm::PinRequest<'_>) -> Result<claviger_hsm::Pin, claviger_hsm::Error> {
//! #     claviger_hsm::Pin::new("1234".into()) } }
//! # let peer = claviger_hsm::PublicKey::new(claviger_hsm::Curve::X25519, &[9; 32])?;
//! use claviger_hsm::{KeepPin, Operation};
//! use std::time::Duration;
//!
//! let locator = "pkcs11:token=cosigner;object=noise?module-path=/usr/lib/softhsm/libsofthsm2.so".parse()?;
//! let mut prompt = Prompt;
//! let mut operation = Operation::within(Duration::from_secs(20), &mut prompt);
//! let mut token = claviger_hsm::open(&locator, None, KeepPin::Once, &mut operation)?;
//! let secret = token.agree(&peer, &mut operation)?;
//! # let _ = secret; Ok(()) }
//! ```
//!
//! A [`Token`] is opened once by its [`Locator`] and kept. Behind it is a backend, one file and one cargo feature each:
//!
//! - `openpgp`: an OpenPGP card's decryption key, over PC/SC.
//! - `piv`: a PIV card's or YubiKey's key management key, over PC/SC.
//! - `tpm`: a persistent key of a TPM 2.0; needs tpm2-tss, so it is not in the default set.
//! - `pkcs11`: any PKCS#11 module, loaded at run time. The key is found by RFC 7512 URI.
//! - `software`: a key file, PKCS#8 encrypted under a passphrase. Its key *is* in this process's memory; it is called
//!   *software* wherever it is shown.
//!
//! What holds for every backend: a peer's key is a [`PublicKey`], so it was checked before any token sees it; a
//! [`SharedSecret`] is never all zero; opening proves once that the private key belongs to the public key it claims; a wrong
//! PIN is never sent twice. This crate knows devices. It knows nothing of Noise, Tor, or an async runtime: calls block.

// A build without a backend still has the words of this crate, and nothing that uses their inner side.
#![cfg_attr(not(all(feature = "pkcs11", feature = "software")), allow(dead_code))]

pub mod attestation;
mod curve;
mod device;
mod error;
mod files;
mod locator;
#[cfg(feature = "openpgp")]
pub mod openpgp;
mod operation;
mod pin;
#[cfg(feature = "piv")]
pub mod piv;
#[cfg(feature = "pkcs11")]
pub mod pkcs11;
mod secret;
pub mod sign;
#[cfg(feature = "smartcard")]
mod smartcard;
#[cfg(feature = "software")]
mod software;
mod token;
#[cfg(feature = "tpm")]
pub mod tpm;
mod uri;

pub use curve::{Curve, PublicKey};
pub use device::{Device, DeviceKey, PinState};
pub use error::{Error, ErrorKind, Result};
pub use locator::{CardId, FileLocator, Locator, OpenPgpLocator, PivLocator, PivSlot, TpmKey, TpmLocator};
pub use operation::{Operation, RefusedPin, Stage};
pub use pin::{KeepPin, PinEntry, PinRequest, Purpose, Tries};
pub use secret::{Pin, SharedSecret};
pub use token::{Hints, NewKey, PinPolicy, Presence, Token, TokenKind, Touch, generate, open, rehearse};
pub use uri::Pkcs11Uri;
