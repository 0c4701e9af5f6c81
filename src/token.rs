//! The one adapter to `claviger-hsm`: outside this module (and locators in the configuration) nothing here names it.
//!
//! [`TokenHandle`] runs a token on a thread of its own: a queue with a limit, a deadline for every operation, and no operation for a caller
//! that has given up.

pub mod attestation;
mod error;
#[cfg(feature = "net")]
mod worker;

pub use claviger_hsm::{Error as PinError, Pin, PinEntry, PinRequest, Purpose, Tries};
pub use error::from_hsm;
#[cfg(feature = "net")]
pub use worker::{QUEUE, TURN, TokenHandle};
