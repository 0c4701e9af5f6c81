//! What claviger's tests and demo stand on: tokens, virtual cards, a private Tor network, third-party Noise peers.

pub mod attestation;
pub mod cards;
pub mod pynoise;
mod support;
pub mod token;
pub mod tornet;
