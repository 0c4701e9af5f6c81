//! Local sockets whose connections are streams to peers' services.
//!
//! Whoever reaches such a socket is this machine: a socket in the file system has mode 0600, an address is on loopback unless somebody wrote that more is meant, and then every local user may
//! come. A connection waits for a session as long as [`ReconnectOptions::patience`](crate::endpoint::ReconnectOptions), and is cut (a reset, not an end) when there is none, or the peer refuses.

mod datagrams;
mod front;
mod streams;

use super::Phase;
use super::listeners::{self, Listener, Socket};
use super::shared::Shared;
use crate::config::{Config, Local};
use crate::error::{Error, ErrorKind, Result};
pub use front::{ForwardFailure, ForwardReport};
use front::{Front, To};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

/// What listens, and what was counted of it.
#[derive(Default)]
pub(super) struct Books {
    open: Mutex<Vec<Open>>,
    tasks: Mutex<JoinSet<()>>,
}

/// Sockets of one name in the configuration.
struct Open {
    local: Local,
    /// One of its sockets is for datagrams.
    datagrams: bool,
    front: watch::Sender<Arc<Front>>,
    /// Its sockets are closed when this goes; the streams of connections that came before go on.
    _listening: DropGuard,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens the sockets.
pub(super) async fn start(shared: &Arc<Shared>, tasks: &mut JoinSet<()>) -> Result<()> {
    let prepared = prepare(shared, &shared.config())?;
    for line in commit(shared, prepared) {
        tracing::info!(target: "claviger::forward", "{line}");
    }
    let all = Everything(Arc::clone(shared));
    tasks.spawn(async move {
        let _all = all;
        std::future::pending().await
    });
    Ok(())
}

/// Ends every task of the forwards with the daemon.
struct Everything(Arc<Shared>);

impl Drop for Everything {
    fn drop(&mut self) {
        lock(&self.0.forwards.open).clear();
        lock(&self.0.forwards.tasks).abort_all();
    }
}

/// The sockets of another configuration, opened where the present one has not got them. Dropped without [`commit`], they are closed again.
pub(super) struct Prepared(Vec<Wanted>);

struct Wanted {
    local: Local,
    to: To,
    /// `None`: it is open already.
    sockets: Option<Vec<Listener>>,
}

/// First step of taking over another configuration's `[[forward]]` and `[socks]`: whatever can fail. Nothing that works is touched, and one reload at a time may be at it. Call it for every
/// part that can refuse; then set the configuration, and [`commit`].
///
/// # Errors
/// Those of [`listeners::open`] and [`listeners::guard`]; [`ErrorKind::ConfigInvalid`] when two listen at one place, or a SOCKS5 front has a socket for datagrams.
pub(super) fn prepare(shared: &Shared, config: &Config) -> Result<Prepared> {
    let forwards = config.forward.iter().map(|forward| (forward.listen.clone(), To::Service(forward.clone())));
    let socks = config.socks.listen.iter().map(|local| (local.clone(), To::Socks));
    let mut wanted: Vec<Wanted> = Vec::new();
    for (local, to) in forwards.chain(socks) {
        if wanted.iter().any(|other| other.local == local) {
            return Err(Error::new(
                ErrorKind::ConfigInvalid,
                format!("Two forwards, or one and [socks], listen on {local}."),
                "Give each a `listen` of its own.",
            ));
        }
        let anywhere = match &to {
            To::Service(forward) => forward.unsafe_listen,
            To::Socks => config.socks.unsafe_listen,
        };
        listeners::guard(&local, anywhere)?;
        let open = lock(&shared.forwards.open).iter().find(|open| open.local == local).map(|open| open.datagrams);
        let sockets = if open.is_some() { None } else { Some(listeners::open(&local)?) };
        if to == To::Socks && open.unwrap_or_else(|| has_datagrams(sockets.as_deref().unwrap_or_default())) {
            return Err(Error::new(
                ErrorKind::ConfigInvalid,
                format!("{local} is a socket for datagrams, and SOCKS5 needs connections."),
                "Write `ListenStream=` in its .socket unit.",
            ));
        }
        wanted.push(Wanted { local, to, sockets });
    }
    Ok(Prepared(wanted))
}

fn has_datagrams(sockets: &[Listener]) -> bool {
    sockets.iter().any(|listener| matches!(listener.socket, Socket::Datagrams(_)))
}

/// Second step: can not fail. New sockets are served, those that are not wanted any more are closed, and those that lead elsewhere do so for the connections that come from now on. Connections
/// that were accepted keep the stream that they have until it ends; flows of datagrams are cut where the socket goes or leads elsewhere. Says what has changed, a line each.
pub(super) fn commit(shared: &Arc<Shared>, Prepared(wanted): Prepared) -> Vec<String> {
    let mut told = Vec::new();
    let mut open = lock(&shared.forwards.open);
    open.retain(|open| {
        let stays = wanted.iter().any(|wanted| wanted.local == open.local);
        if !stays {
            told.push(format!("{} listens no more.", open.local));
        }
        stays
    });
    for Wanted { local, to, sockets } in wanted {
        if let Some(open) = open.iter().find(|open| open.local == local) {
            let present = Arc::clone(&open.front.borrow());
            if present.to != to {
                told.push(format!("{local} leads to {to}."));
                open.front.send_replace(Arc::new(Front::new(local, to, Some(&present))));
            }
            continue;
        }
        told.push(format!("{local} listens and leads to {to}."));
        let front = watch::Sender::new(Arc::new(Front::new(local.clone(), to, None)));
        let listening = CancellationToken::new();
        let mut tasks = lock(&shared.forwards.tasks);
        while tasks.try_join_next().is_some() {}
        let sockets = sockets.unwrap_or_default();
        let datagrams = has_datagrams(&sockets);
        for listener in sockets {
            tasks.spawn(serve(Arc::clone(shared), listener, front.subscribe(), listening.clone()));
        }
        open.push(Open { local, datagrams, front, _listening: listening.drop_guard() });
    }
    told
}

/// Serves one socket until it is closed, and what came by it until that has ended.
async fn serve(
    shared: Arc<Shared>,
    listener: Listener,
    front: watch::Receiver<Arc<Front>>,
    listening: CancellationToken,
) {
    match &listener.socket {
        Socket::Tcp(_) | Socket::Unix(_) => streams::serve(shared, listener, front, listening).await,
        Socket::Datagrams(_) => datagrams::serve(shared, listener, front, listening).await,
    }
}

/// Waits until the daemon ends.
async fn stopping(shared: &Shared) {
    let mut phase = shared.phase();
    // Its sender lives as long as `shared`.
    let _ = phase.wait_for(|phase| *phase == Phase::Stopping).await;
}

/// What each forward and the SOCKS5 front have done, in the configuration's order.
pub(super) fn reports(shared: &Shared) -> Vec<ForwardReport> {
    lock(&shared.forwards.open).iter().map(|open| open.front.borrow().report()).collect()
}

#[cfg(test)]
mod tests;
