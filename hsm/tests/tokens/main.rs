//! Every backend, on every curve, through the same tests; then what is special to each.
//!
//! | file | tests |
//! |---|---|
//! | `every.rs` | what holds for every token |
//! | `counting.rs` | tokens that count wrong PINs |
//! | `coming.rs` | tokens that go away and come back |
//! | `cards.rs` | cards that other programs use beside us |
//! | the others | one backend each: what it has of its own |
//!
//! A backend is a type with the traits of `backend.rs`, and a line at the end of the files above for each trait that it has.
//! Every test runs alone in a process of its own, those with cards in namespaces of their own too (`claviger_testkit`).

// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod backend;

mod cards;
mod coming;
mod counting;
mod every;

#[cfg(feature = "openpgp")]
mod openpgp;
mod piv;
mod pkcs11;
mod software;
#[cfg(feature = "tpm")]
mod tpm;
