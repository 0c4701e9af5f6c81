//! The texts of a ceremony: what is planned, carried between machines, read aloud, and kept.
//!
//! - [`plan`]: who takes part, who may connect to whom, and by which rules;
//! - [`document`]: what travels as file or QR code, one or several in one text;
//! - [`parts`]: a text cut for QR codes, and put together again;
//! - [`proof`]: a challenge, and the proof that a token in the room holds the key on a card;
//! - [`succession`]: a machine's next card, vouched for by its present key;
//! - [`preshared`]: a key that two machines hold beside their tokens: the one text that is secret;
//! - [`phrase`]: one phrase over the plan and all cards;
//! - [`log`]: the hash-chained ceremony log; [`transcript`]: its export, and the comparison of several.
//!
//! No file, no clock, no token: times are given, and shared secrets come from whoever holds the token.

pub mod document;
pub mod log;
pub mod parts;
pub mod phrase;
pub mod plan;
pub mod preshared;
pub mod proof;
pub mod succession;
mod text;
pub mod transcript;
#[cfg(test)]
mod vectors;
