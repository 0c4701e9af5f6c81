//! x
/// PKCS#11 tokens: SoftHSM and kryoptic, each in a directory of its own.
pub mod token;
