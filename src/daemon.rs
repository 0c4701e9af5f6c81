//! The daemon: this machine's services behind sessions, local sockets that lead to peers' services, and the truth about both.
//!
//! ```no_run
//! # async fn example(endpoint: claviger::Endpoint, config: claviger::config::Config) -> claviger::Result<()> {
//! use claviger::daemon::Daemon;
//!
//! let machine = endpoint.identity().identifier.clone();
//! let daemon = Daemon::new(machine, config, "/var/lib/claviger".as_ref())?;
//! // The control socket answers from here on; the network begins below.
//! daemon.run(endpoint, async { tokio::signal::ctrl_c().await.unwrap_or_default() }).await
//! # }
//! ```

pub mod activation;
mod backend;
pub mod client;
pub mod connections;
mod control;
mod datagram;
mod forwards;
mod listeners;
mod metrics;
pub mod probe;
mod proxied;
mod relations;
mod reload;
pub mod sandbox;
mod services;
mod shared;
mod socks;
mod splice;
pub mod status;
pub mod systemd;

use crate::config::{Config, Level};
use crate::endpoint::{Endpoint, Listening};
use crate::error::Result;
use crate::identity::Identifier;
use crate::policy::Policy;
use crate::session::Why;
use crate::token::TokenHandle;
#[doc(hidden)]
pub use datagram::datagrams;
pub use forwards::{ForwardFailure, ForwardReport};
use sandbox::Confinement;
pub use services::{Failure, ServiceReport};
use shared::Shared;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use systemd::Hearts;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long it may take until every stream is cut, once all are told to be.
const CUTTING: Duration = Duration::from_secs(3);

/// What the daemon is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// It waits for the token, to open the store.
    WaitingForToken,
    /// It publishes its service and opens its sockets.
    Starting,
    /// It works.
    Running,
    /// It was told to end, and lets streams end.
    Stopping,
}

/// A daemon. Clones share it.
#[derive(Clone)]
pub struct Daemon {
    shared: Arc<Shared>,
    control: Arc<control::Guard>,
}

impl Daemon {
    /// Opens the control socket and the log of connections in `store_dir`, and answers on the socket from now on. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// Those of the control socket: another daemon has it, or its directory is not there.
    pub fn new(machine: Identifier, config: Config, store_dir: &Path) -> Result<Self> {
        let shared = Shared::new(machine, config, store_dir)?;
        systemd::start(&shared);
        let control = Arc::new(control::start(&shared)?);
        shared.set_control(&control);
        // Not before: the log is that of the one daemon that has the socket.
        shared.connections.begin()?;
        Ok(Self { shared, control })
    }

    /// Keeps in mind what this process gave up, for whoever asks, and for configurations that it is to take over.
    pub fn is_confined(&self, confinement: Confinement) {
        self.shared.set_confinement(confinement);
    }

    /// Tells of the token while it is waited for.
    pub fn waits_for(&self, token: &TokenHandle) {
        self.shared.set_token(token);
    }

    /// Works until `stop` is ready, or what it stands on is gone for good; then lets streams end and returns.
    ///
    /// # Errors
    /// Those of the sockets that it opens and of [`Endpoint::listen`].
    pub async fn run(&self, endpoint: Endpoint, stop: impl Future<Output = ()>) -> Result<()> {
        let shared = &self.shared;
        let mut tasks = JoinSet::new();
        {
            // A reload is before it or after it: of one in between it would open the former sockets, or the same ones twice.
            let _turn = shared.turn().await;
            shared.begin(endpoint.clone());
            forwards::start(shared, &mut tasks).await?;
        }
        tasks.spawn(follow(Arc::clone(shared)));
        metrics::start(shared, &mut tasks).await?;
        connections::start(shared, &mut tasks)?;
        relations::start(shared, &mut tasks);
        // Published last: whoever comes finds everything there.
        let listening = match shared.config().service.is_empty() {
            true => None,
            false => {
                let port = shared.config().transport.port;
                let listening = endpoint.listen(&endpoint.identity().onion_address, port).await?;
                shared.set_service(listening.state());
                Some(listening)
            }
        };
        probe::start(shared, &mut tasks);
        shared.enter(Phase::Running);
        let outcome = tokio::select! {
            () = accept(shared, listening) => Err(shared::service_ended()),
            () = shared.stopped() => Ok(()),
            () = stop => Ok(()),
        };
        self.end(tasks).await;
        self.control.remove();
        outcome
    }

    /// Lets streams end, as long as the configuration gives them; cuts what is left.
    async fn end(&self, mut tasks: JoinSet<()>) {
        let shared = &self.shared;
        shared.enter(Phase::Stopping);
        systemd::stopping();
        // Else a session that is kept would be begun again as soon as it has ended.
        shared.relations.end();
        let patience = shared.config().daemon.shutdown;
        for session in shared.sessions() {
            session.drain(Why::ShuttingDown);
        }
        // Of a session that has ended something may still be on its way into what is local.
        shared.carriers.close();
        let all = async {
            for session in shared.sessions() {
                session.ended().await;
            }
            shared.carriers.wait().await;
        };
        if timeout(patience, all).await.is_err() {
            let left: Vec<_> = shared.sessions();
            tracing::warn!(target: "claviger::daemon", sessions = left.len(), "sessions are cut: their streams did not end in time");
            left.iter().for_each(|session| session.end(Why::ShuttingDown));
            let _ = timeout(CUTTING, async {
                for session in left {
                    session.ended().await;
                }
            })
            .await;
        }
        tasks.shutdown().await;
        // Cut here, and not closed by the process's end: nobody takes half of what was said for all of it.
        shared.cut();
        let _ = timeout(CUTTING, shared.carriers.wait()).await;
        let log = shared.connections.clone();
        let _ = tokio::task::spawn_blocking(move || log.end()).await;
    }

    /// Where the configuration comes from when it is to be read again: through the control socket, or by [`reload`](Self::reload).
    pub fn reads(&self, source: impl Fn() -> Result<Config> + Send + Sync + 'static) {
        self.shared.set_source(Arc::new(source));
    }

    /// What sets how much is logged, when another configuration says so.
    pub fn logs(&self, set: impl Fn(Level) + Send + Sync + 'static) {
        self.shared.set_level(Arc::new(set));
    }

    /// Reads the configuration again, and takes over what another one says: services, policy, peers, forwards, limits. Sessions and streams that stay allowed go on.
    /// Gives what has changed, a sentence each.
    ///
    /// # Errors
    /// What keeps it from being taken over; then nothing has changed, and the status tells it, too. [`ErrorKind::ConfigInvalid`] for a file that is none,
    /// [`ErrorKind::RestartNeeded`] for what can not change while the daemon runs.
    ///
    /// [`ErrorKind::ConfigInvalid`]: crate::ErrorKind::ConfigInvalid
    /// [`ErrorKind::RestartNeeded`]: crate::ErrorKind::RestartNeeded
    pub async fn reload(&self) -> Result<Vec<String>> {
        self.shared.reload_from_source().await
    }
}

/// Serves each session that peers begin.
async fn accept(shared: &Arc<Shared>, listening: Option<Listening>) {
    let Some(mut listening) = listening else { return std::future::pending().await };
    let mut ticks = Hearts::ticks();
    loop {
        tokio::select! {
            session = listening.accept() => match session {
                Some(session) => shared.serve(session),
                None => return,
            },
            _ = ticks.tick() => shared.hearts.accept.beat(),
        }
    }
}

/// Makes the policy anew whenever the store's plan or peers change.
async fn follow(shared: Arc<Shared>) {
    let Some(endpoint) = shared.endpoint() else { return };
    let (mut changes, mut ticks) = (endpoint.changes(), Hearts::ticks());
    // What has changed before this looked.
    shared.renew_policy();
    loop {
        tokio::select! {
            changed = changes.changed() => match changed {
                Ok(()) => shared.renew_policy(),
                Err(_) => return,
            },
            _ = ticks.tick() => shared.hearts.follow.beat(),
        }
    }
}

/// The policy of a configuration on this machine.
pub fn policy(config: &Config, machine: &Identifier, plan: Option<&crate::ceremony::plan::Plan>) -> Policy {
    let edges = plan.filter(|_| config.policy.plan).map(|plan| crate::policy::edges_to(plan, machine));
    Policy::new(config.rules(), &edges.unwrap_or_default())
}
