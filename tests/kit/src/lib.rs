//! What claviger's tests and demo stand on: tokens, a private Tor network, third-party Noise peers.

pub mod attestation;
pub mod pynoise;
mod support;
pub mod token;
pub mod tornet;
