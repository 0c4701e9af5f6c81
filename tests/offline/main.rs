//! Everything that needs no Tor: handshakes on every token, tampering, strangers, other people's Noise.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]
#![allow(clippy::print_stdout, reason = "what a failed test saw, and how long it took")]
#![allow(clippy::disallowed_methods, reason = "sleeping is how a test waits for what must not happen")]

mod cli;
mod cuts;
mod daemon_abuse;
mod daemon_config;
mod daemon_doctor;
mod daemon_faults;
mod daemon_forwards;
mod daemon_isolation;
mod daemon_log;
mod daemon_metrics;
mod daemon_programs;
mod daemon_services;
mod daemon_soak;
mod daemon_status;
mod foreign;
mod handshakes;
mod hostile;
mod hybrid;
mod interop;
mod lab;
mod life;
#[path = "../load.rs"]
mod load;
mod onion;
mod reconnecting;
mod resumption;
mod rollcall;
mod seal;
mod servers;
mod soak;
mod storms;
mod strangers;
mod stripped;
#[path = "../support.rs"]
mod support;
mod tamper;
mod tokens;
mod unproved;
