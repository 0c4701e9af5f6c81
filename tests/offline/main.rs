//! Everything that needs no Tor: handshakes on every token, tampering, strangers, other people's Noise.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]

mod handshakes;
mod interop;
mod strangers;
mod support;
mod tamper;
