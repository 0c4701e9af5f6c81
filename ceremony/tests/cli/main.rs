//! The ceremony's command line as people and scripts meet it: every command's success, misuse and failure, and that a failure leaves
//! everything as it was.

// Helpers fail as the tests do that they serve: by a panic.
#![allow(clippy::unwrap_used)]

mod attacks;
mod attestations;
mod backup;
mod devices;
mod lab;
mod life;
mod plan;
mod prompts;
mod proofs;
mod psk;
mod qr;
mod ready;
mod refusals;
mod rehearse;
mod seal;
mod session;
mod set;
mod tokens;
mod transcripts;
