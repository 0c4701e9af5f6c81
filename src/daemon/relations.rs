//! Sessions that this machine begins: one peer's at a time, kept up where the configuration says so; and how it stands with each peer.

mod report;

pub use report::{PeerStatus, Relation, SessionStatus};
pub(super) use report::{Seen, reports};

use super::shared::{Shared, lock};
use crate::endpoint::{ReconnectOptions, ReconnectState, Reconnecting, Report};
use crate::error::{Error, ErrorKind, Result};
use crate::identity::{Identifier, ServiceName};
use crate::session::{Session, Stream};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

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

/// Begins the sessions that are kept.
pub(super) fn start(shared: &Arc<Shared>, _tasks: &mut JoinSet<()>) {
    for (peer, wanted) in &shared.config().peer {
        if wanted.keep
            && let Ok(sessions) = shared.relations.with(shared, peer)
        {
            tokio::spawn(async move {
                let _ = sessions.session().await;
            });
        }
    }
}

impl Relations {
    /// Opens a stream for a peer's service, on the session that is there or on the next one.
    ///
    /// # Errors
    /// Those of [`Reconnecting::open`]; [`ErrorKind::NotReady`] before the store is open.
    pub(super) async fn open(&self, shared: &Arc<Shared>, peer: &Identifier, service: &ServiceName) -> Result<Stream> {
        self.with(shared, peer)?.open(service).await
    }

    fn with(&self, shared: &Arc<Shared>, peer: &Identifier) -> Result<Reconnecting> {
        let endpoint = shared.endpoint().ok_or_else(|| {
            Error::new(
                ErrorKind::NotReady,
                "The daemon has not started yet.",
                "See `claviger status` for what it waits for.",
            )
        })?;
        let mut held = lock(&self.held);
        let relation = held.entry(peer.clone()).or_insert_with(|| {
            let wanted = shared.config().peer.get(peer).cloned().unwrap_or_default();
            let mut options = ReconnectOptions::default();
            options.pattern = wanted.pattern.map(Into::into);
            let sessions = endpoint.reconnecting(peer, options);
            let task = tokio::spawn(serve(Arc::clone(shared), sessions.clone()));
            Held { sessions, _task: AbortOnDropHandle::new(task) }
        });
        Ok(relation.sessions.clone())
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
        lock(&self.seen).entry(peer.clone()).or_default().parts(peer, ended);
    }

    /// An attempt to connect has come to its end.
    pub(super) fn observe(&self, report: &Report) {
        if let (Some(peer), Some(failure)) = (&report.peer, report.failure) {
            lock(&self.seen).entry(peer.clone()).or_default().fails(peer, report.direction, failure);
        }
    }
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
