//! What the parts of a daemon share.

use super::relations::Relations;
use super::sandbox::Confinement;
use super::systemd::Hearts;
use super::{Phase, connections, forwards, policy, services};
use crate::config::Config;
use crate::endpoint::Endpoint;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::Identifier;
use crate::policy::Policy;
use crate::session::{Session, WeakSession};
use crate::token::TokenHandle;
use crate::transport::ServiceState;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub(super) struct Shared {
    /// This machine's name.
    pub(super) machine: Identifier,
    pub(super) store_dir: PathBuf,
    /// When it was started.
    pub(super) began: SystemTime,
    config: watch::Sender<Arc<Config>>,
    policy: watch::Sender<Arc<Policy>>,
    phase: watch::Sender<Phase>,
    endpoint: OnceLock<Endpoint>,
    token: OnceLock<TokenHandle>,
    /// Of this machine's own onion service, when there is one.
    service: OnceLock<watch::Receiver<ServiceState>>,
    /// What this process gave up, once it has.
    confinement: OnceLock<Confinement>,
    pub(super) hearts: Hearts,
    pub(super) relations: Relations,
    /// What was counted of services and forwards.
    pub(super) services: services::Books,
    pub(super) forwards: forwards::Books,
    pub(super) connections: connections::Books,
    sessions: Mutex<Vec<WeakSession>>,
    stop: CancellationToken,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(machine: Identifier, config: Config, store_dir: &Path) -> Result<Arc<Self>> {
        let policy = policy(&config, &machine, None);
        Ok(Arc::new(Self {
            machine,
            store_dir: store_dir.to_owned(),
            began: SystemTime::now(),
            connections: connections::Books::open(&config, store_dir)?,
            config: watch::Sender::new(Arc::new(config)),
            policy: watch::Sender::new(Arc::new(policy)),
            phase: watch::Sender::new(Phase::WaitingForToken),
            endpoint: OnceLock::new(),
            token: OnceLock::new(),
            service: OnceLock::new(),
            confinement: OnceLock::new(),
            hearts: Hearts::default(),
            relations: Relations::default(),
            services: services::Books::default(),
            forwards: forwards::Books::default(),
            sessions: Mutex::default(),
            stop: CancellationToken::new(),
        }))
    }

    /// The configuration of now.
    pub(super) fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.borrow())
    }

    /// The same, to watch.
    pub(super) fn configs(&self) -> watch::Receiver<Arc<Config>> {
        self.config.subscribe()
    }

    /// Who may open what, now.
    pub(super) fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy.borrow())
    }

    /// The same, to watch: streams and sessions that it allows no more end.
    pub(super) fn policies(&self) -> watch::Receiver<Arc<Policy>> {
        self.policy.subscribe()
    }

    pub(super) fn renew_policy(&self) {
        let plan = self.endpoint().and_then(Endpoint::plan);
        let policy = policy(&self.config(), &self.machine, plan.as_deref());
        self.policy.send_if_modified(|old| {
            let changed = **old != policy;
            *old = Arc::new(policy);
            changed
        });
    }

    pub(super) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// Once the store is open.
    pub(super) fn endpoint(&self) -> Option<&Endpoint> {
        self.endpoint.get()
    }

    pub(super) fn begin(&self, endpoint: Endpoint) {
        self.set_token(endpoint.token());
        // Once only: a second run is the first one's.
        let _ = self.endpoint.set(endpoint);
        self.renew_policy();
        self.enter(Phase::Starting);
    }

    pub(super) fn token(&self) -> Option<&TokenHandle> {
        self.token.get()
    }

    pub(super) fn set_token(&self, token: &TokenHandle) {
        let _ = self.token.set(token.clone());
    }

    pub(super) fn service(&self) -> Option<ServiceState> {
        self.service.get().map(|state| state.borrow().clone())
    }

    pub(super) fn set_service(&self, state: watch::Receiver<ServiceState>) {
        let _ = self.service.set(state);
    }

    pub(super) fn confinement(&self) -> Option<&Confinement> {
        self.confinement.get()
    }

    pub(super) fn set_confinement(&self, confinement: Confinement) {
        let _ = self.confinement.set(confinement);
    }

    /// Serves the streams that a peer opens in a session, whoever began it.
    pub(super) fn serve(self: &Arc<Self>, session: Session) {
        {
            let mut sessions = lock(&self.sessions);
            sessions.retain(|session| session.upgrade().is_some());
            sessions.push(session.downgrade());
        }
        tokio::spawn(services::serve(Arc::clone(self), session));
    }

    /// The sessions that have not ended.
    pub(super) fn sessions(&self) -> Vec<Session> {
        lock(&self.sessions).iter().filter_map(WeakSession::upgrade).collect()
    }

    /// Ends the daemon.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    pub(super) async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// Takes over another configuration. What can not change while it runs is named in the error.
    pub(super) async fn reload(self: &Arc<Self>, config: Config) -> Result<Vec<String>> {
        self.confinement().map_or(Ok(()), |confinement| confinement.admits(&config))?;
        self.config.send_replace(Arc::new(config));
        self.renew_policy();
        Ok(Vec::new())
    }
}

/// What was listened on is gone for good.
pub(super) fn service_ended() -> Error {
    Error::new(
        ErrorKind::TransportUnavailable,
        "The onion service has ended.",
        "Look at the messages above and start it again.",
    )
}
