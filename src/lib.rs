//! Claviger: a small, known set of machines reach each other over Tor onion services, authenticated by keys that never leave a
//! hardware token.

pub mod config;
pub mod error;
pub mod identity;
pub mod noise;
pub mod secret;
pub mod store;
pub mod token;
pub mod wire;

pub use error::{Error, ErrorKind, Result};
