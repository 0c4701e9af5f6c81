//! The examples: on pipes in this process, and as programs between two machines that a ceremony has set up.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod machines;
mod pipes;
