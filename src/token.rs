//! The one adapter to `claviger-hsm`: outside this module (and locators in the configuration) nothing here names it.
//!
//! [`TokenHandle`] runs a token on a thread of its own:
//!
//! - a queue with a limit, in which peers take turns; a deadline for every operation, and no operation for a caller that has given up;
//! - a [`TokenState`], to read and to watch. A token that was pulled, reset or taken by another program, and a smart card service that was
//!   restarted, are states: the thread looks for the token and goes on when it is back;
//! - a [`Notice`] while somebody is to touch the token or give a PIN, with the peer it is for and the time that is left.
//!
//! Events go to the target `claviger::token`: WARN with `token`, `state`, `reason` and `hint` when it is lost, INFO when it is back. Waits for people
//! go to `claviger::token::notice`, INFO, with `token`, `what` (`touch`, `pin`), `peer`, `waits`, `left` (seconds) and `outcome`.

pub mod attestation;
#[cfg(feature = "net")]
mod desk;
mod error;
#[cfg(feature = "net")]
mod glance;
#[cfg(feature = "net")]
mod handle;
#[cfg(feature = "net")]
mod notice;
#[cfg(feature = "net")]
mod places;
#[cfg(feature = "net")]
mod queue;
#[cfg(feature = "net")]
mod state;
#[cfg(feature = "net")]
mod worker;

pub use claviger_hsm::{Error as PinError, Pin, PinEntry, PinRequest, Purpose, Tries};
pub use error::from_hsm;
#[cfg(feature = "net")]
pub use glance::{Glance, glance};
#[cfg(feature = "net")]
pub use handle::{Settings, TURN, TokenHandle};
#[cfg(feature = "net")]
pub use notice::{Notice, Notify, Outcome, Phase, Reason, What, Why};
#[cfg(feature = "net")]
pub use places::{Places, places};
#[cfg(feature = "net")]
pub use queue::{QUEUE, QUEUE_PER_PEER};
#[cfg(feature = "net")]
pub use state::{TokenState, TokenStatus, Trouble};
#[cfg(feature = "net")]
pub use worker::PinPrompt;
