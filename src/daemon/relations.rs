//! Sessions that this machine begins: one peer's at a time, kept up where the configuration says so.

use super::shared::Shared;
use crate::endpoint::{ReconnectOptions, ReconnectState, Reconnecting};
use crate::error::{Error, ErrorKind, Result};
use crate::identity::{Identifier, ServiceName};
use crate::session::Stream;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

#[derive(Default)]
pub(super) struct Relations(Mutex<HashMap<Identifier, Relation>>);

struct Relation {
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
        let mut relations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let relation = relations.entry(peer.clone()).or_insert_with(|| {
            let wanted = shared.config().peer.get(peer).cloned().unwrap_or_default();
            let mut options = ReconnectOptions::default();
            options.pattern = wanted.pattern.map(Into::into);
            let sessions = endpoint.reconnecting(peer, options);
            let task = tokio::spawn(serve(Arc::clone(shared), sessions.clone()));
            Relation { sessions, _task: AbortOnDropHandle::new(task) }
        });
        Ok(relation.sessions.clone())
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
