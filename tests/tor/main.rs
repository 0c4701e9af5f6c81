//! Over a private Tor network on loopback, with real tor daemons and arti.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers fail the test")]
#![allow(clippy::print_stdout, reason = "what a failed test saw, and how long it took")]
#![allow(clippy::disallowed_methods, reason = "the status of another process is asked again and again")]

mod cards;
mod daemon;
mod endpoints;
mod life;
#[path = "../load.rs"]
#[allow(unreachable_pub, missing_docs)]
mod load;
mod net;
mod onion;
mod sessions;
#[path = "../support.rs"]
#[allow(dead_code, missing_docs, unreachable_pub)]
mod support;
mod transport;
