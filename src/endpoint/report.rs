//! What became of each attempt to connect, for whoever counts or writes it down.

use super::Direction;
use crate::error::ErrorKind;
use crate::identity::{Identifier, Kem};
use crate::wire::Pattern;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// One attempt to connect, when it is over. Holds neither secrets nor addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Who dialled.
    pub direction: Direction,
    /// `arti`, `tor` or `tcp`.
    pub transport: &'static str,
    /// The peer, as far as it is known: a caller that knocked by no peer's key is nobody.
    pub peer: Option<Identifier>,
    /// The handshake, once that is clear. `NN` is a resumption.
    pub pattern: Option<Pattern>,
    /// What is mixed in besides; of a resumption, into the full handshake that it goes back to.
    pub kem: Option<Kem>,
    /// Whether a pre-shared key is, too.
    pub psk: bool,
    /// The peer's key and this machine's: `primary`, `backup`, `former-primary`, `former-backup`; empty before that is clear.
    pub keys: [&'static str; 2],
    /// How long dialling took.
    pub dial: Duration,
    /// How long the token was waited for.
    pub token: Duration,
    /// How long the handshake took.
    pub handshake: Duration,
    /// How often the token was asked.
    pub token_operations: u32,
    /// Whether a broken session was to be resumed.
    pub resumed: bool,
    /// How long ago the token was last asked for this session, or for the one that it resumes.
    pub token_age: Duration,
    /// `None`: a session was established.
    pub failure: Option<ErrorKind>,
}

type Callback = Arc<dyn Fn(&Report) + Send + Sync>;

/// Whoever wants to know.
#[derive(Clone, Default)]
pub(super) struct Observer(Arc<RwLock<Vec<Callback>>>);

impl Observer {
    pub(super) fn add(&self, callback: Callback) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).push(callback);
    }

    pub(super) fn tell(&self, report: &Report) {
        let callbacks = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        callbacks.iter().for_each(|callback| callback(report));
    }
}
