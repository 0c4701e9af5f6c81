//! What became of each attempt to connect, for whoever counts or writes it down.

use super::Direction;
use crate::error::ErrorKind;
use crate::identity::{Identifier, Kem};
use crate::transport::{Each, Limited};
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

/// Attempts of all strangers, and like ones of one peer, that the log tells in a minute.
const OF_STRANGERS: u32 = 10;
const OF_A_PEER: u32 = 20;
const MINUTE: Duration = Duration::from_secs(60);

type Callback = Arc<dyn Fn(&Report) + Send + Sync>;

/// Whoever wants to know.
#[derive(Clone)]
pub(super) struct Observer {
    callbacks: Arc<RwLock<Vec<Callback>>>,
    told: Arc<Told>,
}

/// What the log tells of attempts: of some that came without end it says how many.
struct Told {
    strangers: Limited,
    /// By peer and direction; failures are told apart from what succeeded.
    peers: Each<(Identifier, &'static str, bool)>,
}

impl Default for Observer {
    fn default() -> Self {
        let told = Told { strangers: Limited::new(OF_STRANGERS, MINUTE), peers: Each::new(OF_A_PEER, MINUTE) };
        Self { callbacks: Arc::default(), told: Arc::new(told) }
    }
}

impl Observer {
    /// Whether the log tells of an attempt, and how many like it before were not told.
    pub(super) fn logged(&self, report: &Report) -> Option<u64> {
        match &report.peer {
            None => self.told.strangers.tell(),
            Some(peer) => self.told.peers.tell((peer.clone(), report.direction.as_str(), report.failure.is_some())),
        }
    }

    pub(super) fn add(&self, callback: Callback) {
        self.callbacks.write().unwrap_or_else(PoisonError::into_inner).push(callback);
    }

    pub(super) fn tell(&self, report: &Report) {
        let callbacks = self.callbacks.read().unwrap_or_else(PoisonError::into_inner).clone();
        callbacks.iter().for_each(|callback| callback(report));
    }
}
