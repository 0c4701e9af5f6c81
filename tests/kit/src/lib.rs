//! What claviger's tests and demo stand on: tokens, a private Tor network, third-party Noise peers.

mod support;
pub mod tornet;
