//! Virtual cards behind a real pcscd, and a TPM: a namespace for each test, so that its pcscd is the only one it can see.
//!
//! Wrap the test in [`isolated`]; in it, start [`Pcscd`] and put cards into its four reader slots:
//!
//! ```no_run
//! # use claviger_testkit::cards::{self, Card, Pcscd};
//! # use std::time::Duration;
//! cards::isolated(|| {
//!     let pcscd = Pcscd::start();
//!     let card = Card::yubikey(&pcscd, 12_345_678);
//!     card.touch_after(Duration::from_millis(300));
//!     // … a program that uses card.locator() …
//!     card.pull();
//! });
//! ```
//!
//! The cards are programs of the package `tests/cards`, built on first use. As they leave their factories: [`PIN`],
//! [`ADMIN_PIN`], and for PIV [`MANAGEMENT_KEY`]; no keys.

// The kit fails as the tests do that it serves: by a panic.
#![allow(clippy::expect_used)]

mod card;
mod namespace;
mod pcscd;
pub mod remote;
mod swtpm;

pub use card::{Card, Kind, Options};
pub use namespace::{isolated, isolated_main};
pub use pcscd::Pcscd;
pub use swtpm::Swtpm;

/// The PIN of a new card (OpenPGP's PW1).
pub const PIN: &str = "123456";
/// The PUK of a new PIV card and the admin PIN (PW3) of a new OpenPGP card.
pub const ADMIN_PIN: &str = "12345678";
/// The management key of a new PIV card: AES-192 in the YubiKey from firmware 5.7 on, else 3DES.
pub const MANAGEMENT_KEY: [u8; 24] = [1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8];
