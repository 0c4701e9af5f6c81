//! Everything that needs no Tor: handshakes on every token, tampering, strangers, other people's Noise.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]

mod cli;
mod handshakes;
mod interop;
mod strangers;
#[path = "../support.rs"]
mod support;
mod tamper;
