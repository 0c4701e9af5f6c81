//! What claviger's tests and demo stand on: tokens, a private Tor network, third-party Noise peers.

pub mod pynoise;
mod support;
/// PKCS#11 tokens: SoftHSM and kryoptic, each in a directory of its own.
pub mod token;
pub mod tornet;
