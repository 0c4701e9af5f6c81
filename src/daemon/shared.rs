//! What the parts of a daemon share.

use super::relations::Relations;
use super::sandbox::Confinement;
use super::status::{Configuration, Failure, Strangers, now};
use super::systemd::Hearts;
use super::{Phase, connections, control, forwards, metrics, policy, probe, reload, services, systemd};
use crate::config::{Config, Level};
use crate::endpoint::{Endpoint, Report};
use crate::error::{Error, ErrorKind, Result};
use crate::identity::{Identifier, Role};
use crate::policy::Policy;
use crate::session::{Peer, Session, WeakSession};
use crate::token::TokenHandle;
use crate::transport::{Progress, ServiceState};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::SystemTime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Reads the configuration.
pub(super) type Source = Arc<dyn Fn() -> Result<Config> + Send + Sync>;

/// Sets how much is logged.
pub(super) type SetLevel = Arc<dyn Fn(Level) + Send + Sync>;

/// What is in force. Both at once: a service is never opened by the rules of another configuration than the one that says what it is.
#[derive(Clone)]
pub(super) struct Force {
    pub(super) config: Arc<Config>,
    /// Who may open what.
    pub(super) policy: Arc<Policy>,
}

pub(super) struct Shared {
    /// This machine's name.
    pub(super) machine: Identifier,
    pub(super) store_dir: PathBuf,
    /// When it was started.
    pub(super) began: SystemTime,
    force: watch::Sender<Force>,
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
    pub(super) probes: probe::Books,
    pub(super) metrics: metrics::Books,
    sessions: Mutex<Vec<WeakSession>>,
    /// What carries streams, of services and of forwards: a process that ends before they are dropped closes what is local, and does not cut it.
    pub(super) carriers: TaskTracker,
    /// Cuts the streams of services.
    cut: CancellationToken,
    strangers: Mutex<Strangers>,
    configuration: Mutex<Configuration>,
    is_sealed: OnceLock<bool>,
    /// How far the Tor below the transport is.
    progress: OnceLock<watch::Receiver<Progress>>,
    control: OnceLock<Weak<control::Guard>>,
    source: Mutex<Option<Source>>,
    /// Sets how much is logged.
    level: Mutex<Option<SetLevel>>,
    reloading: tokio::sync::Mutex<()>,
    stop: CancellationToken,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(machine: Identifier, config: Config, store_dir: &Path) -> Result<Arc<Self>> {
        let policy = policy(&config, &machine, None);
        Ok(Arc::new(Self {
            machine,
            store_dir: store_dir.to_owned(),
            began: SystemTime::now(),
            connections: connections::Books::new(&config, store_dir),
            force: watch::Sender::new(Force { config: Arc::new(config), policy: Arc::new(policy) }),
            phase: watch::Sender::new(Phase::WaitingForToken),
            endpoint: OnceLock::new(),
            token: OnceLock::new(),
            service: OnceLock::new(),
            confinement: OnceLock::new(),
            hearts: Hearts::default(),
            relations: Relations::default(),
            probes: probe::Books::default(),
            services: services::Books::default(),
            forwards: forwards::Books::default(),
            metrics: metrics::Books::default(),
            sessions: Mutex::default(),
            carriers: TaskTracker::new(),
            cut: CancellationToken::new(),
            strangers: Mutex::default(),
            configuration: Mutex::new(Configuration { since: now(), refused: None }),
            is_sealed: OnceLock::new(),
            progress: OnceLock::new(),
            control: OnceLock::new(),
            source: Mutex::default(),
            level: Mutex::default(),
            reloading: tokio::sync::Mutex::default(),
            stop: CancellationToken::new(),
        }))
    }

    /// The configuration of now.
    pub(super) fn config(&self) -> Arc<Config> {
        Arc::clone(&self.force.borrow().config)
    }

    /// The same, and who may open what, to watch: streams and sessions that it allows no more end.
    pub(super) fn force(&self) -> watch::Receiver<Force> {
        self.force.subscribe()
    }

    /// Follows the store's plan.
    pub(super) fn renew_policy(&self) {
        self.force.send_if_modified(|force| {
            let policy = self.policy_of(&force.config);
            let changed = *force.policy != policy;
            force.policy = Arc::new(policy);
            changed
        });
    }

    /// Another configuration, and its policy.
    pub(super) fn set_config(&self, config: Config) {
        self.force.send_modify(|force| {
            let policy = Arc::new(self.policy_of(&config));
            *force = Force { config: Arc::new(config), policy };
        });
    }

    fn policy_of(&self, config: &Config) -> Policy {
        let plan = self.endpoint().and_then(Endpoint::plan);
        policy(config, &self.machine, plan.as_deref())
    }

    /// The role that a peer has by the store of now: a session knows the one that it had when it was begun. `None`: it is no peer any more.
    pub(super) fn role_of(&self, peer: &Peer) -> Option<Role> {
        match self.endpoint() {
            Some(endpoint) => endpoint.peer(&peer.identifier).map(|known| known.role),
            None => Some(peer.role.clone()),
        }
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

    pub(super) fn begin(self: &Arc<Self>, endpoint: Endpoint) {
        self.set_token(endpoint.token());
        // Another configuration may have been taken over since it was made.
        endpoint.set_limits(&self.config().limits);
        let _ = self.progress.set(endpoint.progress());
        if let Ok(is_sealed) = endpoint.is_sealed() {
            let _ = self.is_sealed.set(is_sealed);
        }
        // The endpoint is held by this, and must not hold it.
        let shared = Arc::downgrade(self);
        endpoint.observe(move |report| {
            if let Some(shared) = shared.upgrade() {
                shared.observed(report);
            }
        });
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

    /// The same, to watch.
    pub(super) fn service_states(&self) -> Option<watch::Receiver<ServiceState>> {
        self.service.get().cloned()
    }

    pub(super) fn set_service(&self, state: watch::Receiver<ServiceState>) {
        let _ = self.service.set(state);
    }

    /// Whether the store is; `None` before it is open.
    pub(super) fn is_sealed(&self) -> Option<bool> {
        self.is_sealed.get().copied()
    }

    /// How far the Tor below the transport is; `None` before the store is open.
    pub(super) fn progress(&self) -> Option<Progress> {
        self.progress.get().map(|progress| progress.borrow().clone())
    }

    /// An attempt to connect is over.
    fn observed(&self, report: &Report) {
        if report.peer.is_none() && report.failure.is_some() {
            let mut strangers = lock(&self.strangers);
            strangers.count += 1;
            strangers.last = Some(now());
        }
        self.connections.attempt(report);
        self.metrics.attempt(report);
        self.relations.observe(report);
    }

    /// Calls by nobody.
    pub(super) fn strangers(&self) -> Strangers {
        lock(&self.strangers).clone()
    }

    /// Which configuration is in force, and why a newer one is not.
    pub(super) fn configuration(&self) -> Configuration {
        lock(&self.configuration).clone()
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
        self.connections.follow(&session);
        self.relations.met(&session);
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            let served = services::serve(Arc::clone(&shared), session.clone());
            if shared.cut.run_until_cancelled(served).await.is_none() {
                return;
            }
            let ended = session.ended().await;
            shared.relations.parted(&session.peer().identifier, &ended);
        });
    }

    /// The sessions that have not ended.
    pub(super) fn sessions(&self) -> Vec<Session> {
        lock(&self.sessions).iter().filter_map(WeakSession::upgrade).collect()
    }

    /// Cuts the streams of services that are left.
    pub(super) fn cut(&self) {
        self.cut.cancel();
    }

    /// Ends the daemon.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    pub(super) async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    pub(super) fn set_source(&self, source: Source) {
        *lock(&self.source) = Some(source);
    }

    pub(super) fn set_level(&self, set: SetLevel) {
        *lock(&self.level) = Some(set);
    }

    pub(super) fn log_at(&self, level: Level) {
        if let Some(set) = &*lock(&self.level) {
            set(level);
        }
    }

    /// As long as the answer is kept no configuration is taken over.
    pub(super) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.reloading.lock().await
    }

    /// Reads the configuration again and takes it over. One at a time.
    pub(super) async fn reload_from_source(self: &Arc<Self>) -> Result<Vec<String>> {
        let _turn = self.turn().await;
        let _told = systemd::reloading(&self.hearts);
        let source = lock(&self.source).clone();
        let outcome = match source {
            None => Err(no_source()),
            Some(source) => match tokio::task::spawn_blocking(move || source()).await {
                Ok(Ok(config)) => reload::take_over(self, config).await,
                Ok(Err(error)) => Err(error),
                Err(error) => Err(no_source().because(error)),
            },
        };
        match &outcome {
            Ok(changes) => {
                *lock(&self.configuration) = Configuration { since: now(), refused: None };
                self.connections.note(connections::Event::reloaded(changes));
                tracing::info!(target: "claviger::daemon", changes = changes.len(), "the configuration was read again");
                for change in changes {
                    tracing::info!(target: "claviger::daemon", "{change}");
                }
            }
            Err(error) => {
                self.connections.note(connections::Event::ReloadRefused { reason: error.kind().as_str().to_owned() });
                lock(&self.configuration).refused = Some(Failure::of("configuration", error, Some(now())));
                tracing::error!(target: "claviger::daemon", reason = error.kind().as_str(), hint = error.hint(), "the configuration was not taken over: {error}");
            }
        }
        outcome
    }

    pub(super) fn set_control(&self, control: &Arc<control::Guard>) {
        let _ = self.control.set(Arc::downgrade(control));
    }

    /// Lets those open the control socket who may ask something by another configuration.
    pub(super) fn set_operators(&self, config: &Config) -> Result<()> {
        match self.control.get().and_then(Weak::upgrade) {
            Some(control) if self.config().daemon.operators.is_empty() != config.daemon.operators.is_empty() => {
                control.set_open_to_all(!config.daemon.operators.is_empty())
            }
            _ => Ok(()),
        }
    }

    /// The youngest session that a peer began and that takes on streams.
    pub(super) fn session_of(&self, peer: &Identifier) -> Option<Session> {
        let theirs = |session: &Session| {
            let status = session.status();
            status.peer.is_initiator && status.peer.identifier == *peer && !status.is_draining && !status.has_ended
        };
        self.sessions().into_iter().filter(theirs).last()
    }
}

fn no_source() -> Error {
    Error::new(
        ErrorKind::DaemonRefused,
        "This daemon does not know where its configuration comes from.",
        "Start it again with the new one.",
    )
}

/// What was listened on is gone for good.
pub(super) fn service_ended() -> Error {
    Error::new(
        ErrorKind::TransportUnavailable,
        "The onion service has ended.",
        "Look at the messages above and start it again.",
    )
}
