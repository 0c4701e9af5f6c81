//! What a local socket leads to, and what was counted of it.

use super::lock;
use crate::config::{Forward, Local};
use crate::daemon::splice::Traffic;
use crate::error::Error;
use crate::identity::{Identifier, ServiceName};
use crate::transport::Limited;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::Semaphore;

/// Connections of the SOCKS5 front at once; more wait to be accepted.
const SOCKS_CONNECTIONS: u32 = 256;

const MINUTE: Duration = Duration::from_secs(60);

/// Where connections go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum To {
    Service(Forward),
    /// The caller says where.
    Socks,
}

impl std::fmt::Display for To {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Service(forward) => write!(f, "{}/{}", forward.peer, forward.service),
            Self::Socks => f.write_str("SERVICE.PEER.claviger, by SOCKS5"),
        }
    }
}

/// A local socket as it is configured.
pub(super) struct Front {
    pub(super) local: Local,
    pub(super) to: To,
    most: u32,
    /// For a connection, from when it is accepted until its stream has ended.
    pub(super) places: Arc<Semaphore>,
    pub(super) counts: Arc<Counts>,
    told: Limited,
    accepts_told: Limited,
}

/// What came of connections, or of flows of datagrams.
#[derive(Default)]
pub(super) struct Counts {
    /// They wait for a stream.
    pub(super) waiting: AtomicU32,
    /// They have one.
    pub(super) open: AtomicU32,
    opened: AtomicU64,
    pub(super) traffic: Traffic,
    failures: Mutex<Failures>,
}

#[derive(Default)]
struct Failures {
    /// By the kind's text.
    counts: BTreeMap<&'static str, u64>,
    last: Option<ForwardFailure>,
}

/// A local socket at a moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct ForwardReport {
    /// Where it listens, as in the configuration.
    pub listen: String,
    /// The peer; `None` for the SOCKS5 front, whose callers say it.
    pub peer: Option<String>,
    /// The service; likewise.
    pub service: Option<String>,
    /// Streams, or flows of datagrams, that it may have at once.
    pub streams: u32,
    /// Streams that it has.
    pub open: u32,
    /// Connections that wait for one: for the session, above all.
    pub waiting: u32,
    /// Streams that were opened in all.
    pub opened: u64,
    /// Bytes from the peer.
    pub received: u64,
    /// Bytes to the peer.
    pub sent: u64,
    /// Datagrams that were dropped: too long, or for a flow that takes no more at the moment.
    pub dropped: u64,
    /// Connections that were cut, by the typed reason.
    pub failures: BTreeMap<String, u64>,
    /// The last one of them.
    pub last_failure: Option<ForwardFailure>,
}

/// Why a connection was cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct ForwardFailure {
    /// When, in seconds since 1970.
    pub at: u64,
    /// The typed reason.
    pub reason: String,
    /// What happened.
    pub what: String,
    /// What to do.
    pub hint: String,
}

impl Front {
    /// `former`: what was there before, whose counts go on if it led to the same service. Its connections keep their places and take none of these.
    pub(super) fn new(local: Local, to: To, former: Option<&Self>) -> Self {
        let most = match &to {
            To::Service(forward) => forward.streams,
            To::Socks => SOCKS_CONNECTIONS,
        };
        let same = former.filter(|former| former.to.to_string() == to.to_string());
        let counts = same.map(|former| Arc::clone(&former.counts)).unwrap_or_default();
        Self {
            local,
            to,
            most,
            places: Arc::new(Semaphore::new(most as usize)),
            counts,
            told: Limited::new(5, MINUTE),
            accepts_told: Limited::new(1, MINUTE),
        }
    }

    /// Tells why a connection was cut, or a stream that it had broke. `None`: it did not come to say where it leads.
    pub(super) fn failed(&self, to: Option<(&Identifier, &ServiceName)>, error: &Error) {
        self.counts.fails(error);
        if let Some(untold) = self.told.tell() {
            let (peer, service) = to.unzip();
            tracing::warn!(
                target: "claviger::forward", listen = %self.local, peer = peer.map(Identifier::as_str), service = service.map(ServiceName::as_str),
                reason = error.kind().as_str(), hint = error.hint(), untold, "a connection was cut: {error}"
            );
        }
    }

    /// Streams at once.
    pub(super) fn most(&self) -> usize {
        self.most as usize
    }

    /// A datagram was lost here.
    pub(super) fn drops(&self) {
        self.counts.traffic.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Nothing can be accepted or received at the moment.
    pub(super) fn stalls(&self, error: &io::Error) {
        if let Some(untold) = self.accepts_told.tell() {
            tracing::warn!(
                target: "claviger::forward", listen = %self.local, hint = "Raise LimitNOFILE= in the unit, or `ulimit -n`; those that come wait.", untold,
                "nothing can be accepted here for now: {error}"
            );
        }
    }

    pub(super) fn report(&self) -> ForwardReport {
        let forward = match &self.to {
            To::Service(forward) => Some(forward),
            To::Socks => None,
        };
        let counts = &self.counts;
        let failures = lock(&counts.failures);
        ForwardReport {
            listen: self.local.to_string(),
            peer: forward.map(|forward| forward.peer.to_string()),
            service: forward.map(|forward| forward.service.to_string()),
            streams: self.most,
            open: counts.open.load(Ordering::Relaxed),
            waiting: counts.waiting.load(Ordering::Relaxed),
            opened: counts.opened.load(Ordering::Relaxed),
            received: counts.traffic.received.load(Ordering::Relaxed),
            sent: counts.traffic.sent.load(Ordering::Relaxed),
            dropped: counts.traffic.dropped.load(Ordering::Relaxed),
            failures: failures.counts.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect(),
            last_failure: failures.last.clone(),
        }
    }
}

impl Counts {
    /// One waits for a stream, as long as the answer is kept.
    pub(super) fn waits(self: &Arc<Self>) -> Stage {
        Stage::of(self, |counts| &counts.waiting)
    }

    /// One has a stream, as long as the answer is kept.
    pub(super) fn opens(self: &Arc<Self>) -> Stage {
        self.opened.fetch_add(1, Ordering::Relaxed);
        Stage::of(self, |counts| &counts.open)
    }

    pub(super) fn fails(&self, error: &Error) {
        let mut failures = lock(&self.failures);
        *failures.counts.entry(error.kind().as_str()).or_default() += 1;
        failures.last = Some(ForwardFailure {
            at: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            reason: error.kind().as_str().to_owned(),
            what: error.to_string(),
            hint: error.hint().to_owned(),
        });
    }
}

/// Counted in one of the numbers of now.
pub(super) struct Stage {
    counts: Arc<Counts>,
    number: fn(&Counts) -> &AtomicU32,
}

impl Stage {
    fn of(counts: &Arc<Counts>, number: fn(&Counts) -> &AtomicU32) -> Self {
        number(counts).fetch_add(1, Ordering::Relaxed);
        Self { counts: Arc::clone(counts), number }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        (self.number)(&self.counts).fetch_sub(1, Ordering::Relaxed);
    }
}
