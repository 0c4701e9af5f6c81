//! One structured log event for each connection attempt.

use super::clock::Clock;
use super::own::Own;
use super::report::{Observer, Report};
use super::resumption::Family;
use crate::error::{Error, ErrorKind};
use crate::identity::{Identifier, Kem, KeyPlace};
use crate::session::BootInstant;
use crate::store::PeerKey;
use crate::token::{Reason, Why};
use crate::wire::{Kind, Pattern};
use std::time::Duration;
use tokio::time::Instant;

/// Who dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// This machine.
    Outgoing,
    /// The peer.
    Incoming,
}

/// What is known of an attempt so far. [`end`](Self::end) writes the event:
///
/// target `claviger::connection`; fields `peer` (or `unknown`), `direction`, `transport`, `pattern`, `kem` (`ML-KEM-768` or empty) and `psk` (of the full handshake, when that is resumed), `key` and `own_key` (of the peer's and this machine's: `primary`,
/// `backup`, `former-primary`, `former-backup`), `dial_ms`, `token_ms`, `handshake_ms`, `token_operations`, `resumed`, `token_age_s` (since the token was
/// last asked for this session, or for the one that it resumes), `outcome` (`established` or `failed`) and `reason` (an [`ErrorKind`](crate::ErrorKind)'s text). Level INFO when
/// established or unknown, WARN when a known peer's attempt failed; DEBUG when there were too many like it in a minute, and then the next one that is told has their number as `untold`.
/// Neither secrets nor addresses.
pub(super) struct Attempt {
    direction: Direction,
    transport: &'static str,
    pub(super) peer: Option<Identifier>,
    pub(super) pattern: Option<Pattern>,
    /// What is mixed in, once that is clear.
    pub(super) kind: Option<Kind>,
    /// The full handshake that is resumed: its keys are in those of the session.
    full: Option<Kind>,
    key: &'static str,
    own_key: &'static str,
    pub(super) dial: Duration,
    pub(super) token: Duration,
    pub(super) operations: u32,
    clock: Clock,
    observer: Observer,
    /// Whether a broken session is resumed.
    pub(super) resumed: bool,
    /// When the token was last asked for this session, or for the one that it resumes.
    pub(super) token_seen: Option<BootInstant>,
    /// When the first byte of the handshake could be sent or came in.
    pub(super) handshake_started: Option<Instant>,
    ended: bool,
}

impl Attempt {
    pub(super) fn new(
        direction: Direction,
        transport: &'static str,
        peer: Option<Identifier>,
        clock: Clock,
        observer: Observer,
    ) -> Self {
        Self {
            direction,
            transport,
            peer,
            pattern: None,
            kind: None,
            full: None,
            key: "",
            own_key: "",
            dial: Duration::ZERO,
            token: Duration::ZERO,
            operations: 0,
            clock,
            observer,
            resumed: false,
            token_seen: None,
            handshake_started: None,
            ended: false,
        }
    }

    /// Which keys the two ends use.
    pub(super) fn by(&mut self, own: &Own, key: &PeerKey) {
        self.key = named(key.place, key.former);
        self.own_key = named(own.place, own.is_former());
    }

    /// What the token is asked for: a handshake with the peer, in this direction.
    pub(super) fn reason(&self) -> Reason {
        let why = match self.direction {
            Direction::Outgoing => Why::Calling,
            Direction::Incoming => Why::Answering,
        };
        Reason { peer: self.peer.clone(), why }
    }

    /// The token was asked.
    pub(super) fn asked(&mut self) {
        self.operations += 1;
        self.token_seen = Some(self.clock.now());
    }

    /// A broken session is resumed, of this full handshake.
    pub(super) fn resumes(&mut self, full: &Family) {
        (self.resumed, self.token_seen, self.full) = (true, Some(full.token_seen), Some(full.protocol.kind()));
    }

    /// What the session's keys come of.
    pub(super) fn mixed(&self) -> Option<Kind> {
        self.full.or(self.kind)
    }

    /// When the token was last asked for what comes of this.
    pub(super) fn token_seen(&self) -> BootInstant {
        self.token_seen.unwrap_or_else(|| self.clock.now())
    }

    fn report(&self, failure: Option<ErrorKind>) -> Report {
        Report {
            direction: self.direction,
            transport: self.transport,
            peer: self.peer.clone(),
            pattern: self.pattern,
            kem: self.mixed().is_some_and(|kind| kind.kem).then_some(Kem::MlKem768),
            psk: self.mixed().is_some_and(|kind| kind.psk),
            keys: [self.key, self.own_key],
            dial: self.dial,
            token: self.token,
            handshake: self.handshake_started.map_or(Duration::ZERO, |start| start.elapsed()),
            token_operations: self.operations,
            resumed: self.resumed,
            token_age: self.token_seen.map_or(Duration::ZERO, |seen| self.clock.now().since(seen)),
            failure,
        }
    }

    /// Writes the event. `None`: a session was established.
    pub(super) fn end(mut self, error: Option<&Error>) {
        if !self.ended {
            self.write(error.map(Error::kind));
        }
    }

    /// It is none: nothing is told of it.
    pub(super) fn dismiss(&mut self) {
        self.ended = true;
    }

    fn write(&mut self, failure: Option<ErrorKind>) {
        self.ended = true;
        let report = self.report(failure);
        self.observer.tell(&report);
        let (outcome, reason) = failure.map_or(("established", ""), |kind| ("failed", kind.as_str()));
        macro_rules! event {
            ($level:ident, $untold:expr) => {
                tracing::$level!(
                    target: "claviger::connection",
                    peer = report.peer.as_ref().map_or("unknown", |peer| peer.as_str()),
                    direction = report.direction.as_str(),
                    transport = report.transport,
                    pattern = report.pattern.map_or("", |pattern| pattern.noise_name()),
                    kem = report.kem.map_or("", Kem::as_str),
                    psk = report.psk,
                    key = report.keys[0],
                    own_key = report.keys[1],
                    dial_ms = report.dial.as_millis() as u64,
                    token_ms = report.token.as_millis() as u64,
                    handshake_ms = report.handshake.as_millis() as u64,
                    token_operations = report.token_operations,
                    resumed = report.resumed,
                    token_age_s = report.token_age.as_secs(),
                    outcome,
                    reason,
                    untold = $untold,
                    "connection"
                )
            };
        }
        match (self.observer.logged(&report), failure.is_some() && self.peer.is_some()) {
            (None, _) => event!(debug, 0_u64),
            (Some(untold), true) => event!(warn, untold),
            (Some(untold), false) => event!(info, untold),
        }
    }
}

impl Direction {
    /// `outgoing` or `incoming`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Outgoing => "outgoing",
            Self::Incoming => "incoming",
        }
    }
}

fn named(place: KeyPlace, former: bool) -> &'static str {
    match (place, former) {
        (KeyPlace::Primary, false) => "primary",
        (KeyPlace::Backup, false) => "backup",
        (KeyPlace::Primary, true) => "former-primary",
        (KeyPlace::Backup, true) => "former-backup",
    }
}

impl Drop for Attempt {
    /// An attempt whose future was dropped: shut down, or pushed out by newer callers.
    fn drop(&mut self) {
        if !self.ended {
            self.write(Some(ErrorKind::Interrupted));
        }
    }
}
