//! Claviger: a small, known set of machines reach each other over Tor onion services, authenticated by keys that never leave a
//! hardware token.

pub mod config;
pub mod error;
pub mod identity;
pub mod secret;
#[cfg(feature = "net")]
pub mod transport;

pub use error::{Error, ErrorKind, Result};
