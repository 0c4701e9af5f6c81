//! The one adapter to `claviger-hsm`: outside this module (and locators in the configuration) nothing here names it.

mod error;

pub use error::from_hsm;
