//! Sessions that this machine begins: one peer's at a time, kept up where the configuration says so; and how it stands with each peer.

mod report;

pub use report::{PeerStatus, Relation, SessionStatus};
pub(super) use report::{Seen, reports};

use super::Phase;
use super::shared::{Shared, lock};
use crate::endpoint::{Endpoint, ReconnectOptions, ReconnectState, Reconnecting, Report};
use crate::error::{Error, ErrorKind, Result};
use crate::identity::{Identifier, ServiceName};
use crate::session::{BootInstant, Session, Stream};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

/// Between two looks at whether the machine was suspended.
const LOOK: Duration = Duration::from_secs(5);

/// A clock that goes on while the machine is suspended is ahead by so much of one that does not: it was.
const SUSPENDED: Duration = Duration::from_secs(3);

#[derive(Default)]
pub(super) struct Relations {
    held: Mutex<HashMap<Identifier, Held>>,
    /// What is remembered of peers since the start, though there be no session.
    seen: Mutex<HashMap<Identifier, Seen>>,
}

struct Held {
    sessions: Reconnecting,
    _task: AbortOnDropHandle<()>,
}

/// Begins the sessions that are kept, and goes on as peers, token and machine come and go.
pub(super) fn start(shared: &Arc<Shared>, tasks: &mut JoinSet<()>) {
    let Some(endpoint) = shared.endpoint().cloned() else { return };
    shared.relations.settle(shared);
    tasks.spawn(follow_store(Arc::clone(shared), endpoint.clone()));
    tasks.spawn(follow_token(Arc::clone(shared), endpoint));
    tasks.spawn(follow_time(Arc::clone(shared)));
}

/// Peers that come and go, and keys that change: what was given up for them may work now.
async fn follow_store(shared: Arc<Shared>, endpoint: Endpoint) {
    let mut changes = endpoint.changes();
    while changes.changed().await.is_ok() {
        shared.relations.settle(&shared);
        shared.relations.retry(|state| matches!(state, ReconnectState::Stopped(_)));
    }
}

async fn follow_token(shared: Arc<Shared>, endpoint: Endpoint) {
    let mut status = endpoint.token().watch();
    let mut was_lost = status.borrow_and_update().state.is_lost();
    while status.changed().await.is_ok() {
        let is_lost = status.borrow_and_update().state.is_lost();
        if was_lost && !is_lost {
            shared.relations.retry(|_| true);
        }
        was_lost = is_lost;
    }
}

/// After a suspension nothing of the network is as it was: pauses that were begun before it mean nothing.
async fn follow_time(shared: Arc<Shared>) {
    loop {
        let (boot, began) = (BootInstant::now(), Instant::now());
        sleep(LOOK).await;
        if boot.elapsed().saturating_sub(began.elapsed()) > SUSPENDED {
            tracing::info!(target: "claviger::daemon", "the machine was suspended: peers are tried again at once");
            shared.relations.retry(|_| true);
        }
        // Since when a relation is what it is comes from looking at it.
        let _ = reports(&shared);
    }
}

impl Relations {
    /// Opens a stream for a peer's service: on the session that this machine keeps with it, else on one that the peer began, else on one that is begun now. So peers can be
    /// asked that can only call.
    ///
    /// # Errors
    /// Those of [`Reconnecting::open`]; [`ErrorKind::NotReady`] before the store is open; [`ErrorKind::PeerUnknown`].
    pub(super) async fn open(&self, shared: &Arc<Shared>, peer: &Identifier, service: &ServiceName) -> Result<Stream> {
        let sessions = self.with(shared, peer)?;
        let own = matches!(sessions.state(), ReconnectState::Connected { .. });
        if let Some(theirs) = shared.session_of(peer).filter(|_| !own) {
            match theirs.open(service).await {
                Err(error) if error.kind() != ErrorKind::StreamLimit => {}
                opened => return opened,
            }
        }
        sessions.open(service).await
    }

    /// Only for peers of the store: names that come from elsewhere leave nothing here.
    fn with(&self, shared: &Arc<Shared>, peer: &Identifier) -> Result<Reconnecting> {
        let endpoint = shared.endpoint().ok_or_else(|| {
            Error::new(
                ErrorKind::NotReady,
                "The daemon has not started yet.",
                "See `claviger status` for what it waits for.",
            )
        })?;
        let mut held = lock(&self.held);
        // Under the lock: what is begun later is not seen by `end`.
        if *shared.phase().borrow() == Phase::Stopping {
            return Err(Error::new(ErrorKind::NotReady, "The daemon ends.", "Ask again when it runs again."));
        }
        if let Some(held) = held.get(peer) {
            return Ok(held.sessions.clone());
        }
        if endpoint.peer(peer).is_none() {
            return Err(unknown(peer));
        }
        let sessions = endpoint.reconnecting(peer, ReconnectOptions::default());
        sessions.set_pattern(shared.config().peer.get(peer).and_then(|wanted| wanted.pattern).map(Into::into));
        let task = AbortOnDropHandle::new(tokio::spawn(serve(Arc::clone(shared), sessions.clone())));
        held.insert(peer.clone(), Held { sessions: sessions.clone(), _task: task });
        Ok(sessions)
    }

    /// Follows store and configuration: what is to be kept is, and of peers that are gone nothing is left.
    pub(super) fn settle(&self, shared: &Arc<Shared>) {
        let (Some(endpoint), config) = (shared.endpoint(), shared.config()) else { return };
        let is_peer = |name: &Identifier| endpoint.peer(name).is_some();
        lock(&self.held).retain(|name, held| {
            let stays = is_peer(name);
            if !stays {
                let sessions = held.sessions.clone();
                // Its session has been ended by whoever took it from the store's peers.
                tokio::spawn(async move { sessions.close().await });
            }
            stays
        });
        lock(&self.seen).retain(|name, _| is_peer(name));
        for (peer, wanted) in &config.peer {
            // Nothing is begun for those of whom nothing is wanted but how.
            if wanted.keep {
                let _ = self.with(shared, peer);
            }
        }
        for (name, held) in &*lock(&self.held) {
            let wanted = config.peer.get(name);
            held.sessions.set_pattern(wanted.and_then(|wanted| wanted.pattern).map(Into::into));
            held.sessions.keep(wanted.is_some_and(|wanted| wanted.keep));
        }
    }

    /// Begins no more sessions. Those that are there go on until their streams have ended.
    pub(super) fn end(&self) {
        let held = std::mem::take(&mut *lock(&self.held));
        drop(held);
    }

    fn retry(&self, which: impl Fn(&ReconnectState) -> bool) {
        lock(&self.held).values().filter(|held| which(&held.sessions.state())).for_each(|held| held.sessions.retry());
    }

    fn state(&self, peer: &Identifier) -> Option<ReconnectState> {
        lock(&self.held).get(peer).map(|held| held.sessions.state())
    }

    /// A session has begun, whoever began it.
    pub(super) fn met(&self, session: &Session) {
        lock(&self.seen).entry(session.peer().identifier.clone()).or_default().meets();
    }

    /// It has ended.
    pub(super) fn parted(&self, peer: &Identifier, ended: &Error) {
        // Of one that is no peer any more nothing is kept.
        if let Some(seen) = lock(&self.seen).get_mut(peer) {
            seen.parts(peer, ended);
        }
    }

    /// An attempt to connect has come to its end.
    pub(super) fn observe(&self, report: &Report) {
        if let (Some(peer), Some(failure)) = (&report.peer, report.failure) {
            lock(&self.seen).entry(peer.clone()).or_default().fails(peer, report.direction, failure);
        }
    }
}

pub(super) fn unknown(peer: &Identifier) -> Error {
    Error::new(
        ErrorKind::PeerUnknown,
        format!("No peer `{peer}` is recorded on this machine."),
        "See the names with `claviger-ceremony peers`; a new peer comes by its card, with `claviger-ceremony import`.",
    )
}

/// The peer may open streams in the sessions that this machine began, too.
async fn serve(shared: Arc<Shared>, sessions: Reconnecting) {
    let mut state = sessions.watch();
    let mut served = None;
    loop {
        if matches!(*state.borrow_and_update(), ReconnectState::Connected { .. })
            && let Ok(session) = sessions.session().await
            && served != Some(*session.handshake_hash())
        {
            served = Some(*session.handshake_hash());
            shared.serve(session);
        }
        if state.changed().await.is_err() {
            return;
        }
    }
}
