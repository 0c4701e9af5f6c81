//! OpenPGP cards that answer with anything at all: every use of one comes to an end, and none to a panic.

/// Reads `data` as a byte that says what is done with the card, then its answers, each after its length in a byte.
pub fn check(data: &[u8]) {
    claviger_hsm::openpgp::fuzz(data);
}
