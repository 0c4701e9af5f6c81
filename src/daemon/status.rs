//! What the daemon says of itself: whether it works, and if not, what to do.
//!
//! Times are seconds since 1970, spans are seconds. Onion addresses and secrets are in none of it.

use super::Phase;
use super::forwards;
use super::probe;
use super::relations;
use super::services;
use super::shared::Shared;
use crate::error::{Error, ErrorKind};
use crate::token::TokenState;
use crate::transport::ServiceState;
use serde::{Deserialize, Serialize};
use std::time::{SystemTime, UNIX_EPOCH};

pub use super::connections::Report as LogReport;
pub use super::forwards::{ForwardFailure, ForwardReport};
pub use super::probe::Report as ProbeReport;
pub use super::relations::{PeerStatus, Relation, SessionStatus};
pub use super::sandbox::Applied;
pub use super::services::{Failure as ServiceFailure, ServiceReport};
pub use crate::transport::{Blocked, Progress, Stage};

/// So long after a target failed its service is not well, in seconds.
const RECENT: u64 = 300;

/// Everything, at a moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Status {
    /// When it was taken.
    pub at: u64,
    /// This machine's name.
    pub machine: String,
    /// The program's version.
    pub version: String,
    /// The number of the daemon's process.
    pub process: u32,
    /// What it is at.
    pub phase: Phase,
    /// When it was started.
    pub since: u64,
    /// Whether it runs, and `troubles` is empty.
    pub well: bool,
    /// What is wrong, the worst first, each with its remedy.
    pub troubles: Vec<Failure>,
    /// The configuration in force.
    pub configuration: Configuration,
    /// This machine's token; `None` before it was looked for.
    pub token: Option<Token>,
    /// Its store.
    pub store: Store,
    /// How bytes reach other machines.
    pub transport: Transport,
    /// How other machines reach this one; `None` when it serves nothing.
    pub onion: Option<Onion>,
    /// The peers of the store, and those that the configuration names besides, by name.
    pub peers: Vec<PeerStatus>,
    /// What peers may open streams to, by name.
    pub services: Vec<ServiceReport>,
    /// Streams that peers asked for by names that nothing is served by.
    pub unknown_services: u64,
    /// Local sockets that lead to peers' services, in the configuration's order; the front for SOCKS5 is one of them.
    pub forwards: Vec<ForwardReport>,
    /// The log of connections.
    pub log: LogReport,
    /// What this process has given up.
    pub sandbox: Vec<Applied>,
    /// Calls by nobody that the store knows.
    pub strangers: Strangers,
}

/// Something that went wrong, and its remedy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Failure {
    /// What it is about: `token`, `store`, `configuration`, `transport`, `onion`, `peer NAME`, `service NAME`, `forward SOCKET`, `log`.
    pub about: String,
    /// An [`ErrorKind`]'s text; a [`Stage`]'s for the transport; `degraded` for a peer.
    pub reason: String,
    /// What happened.
    pub what: String,
    /// What to do.
    pub hint: String,
    /// When, as far as it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<u64>,
}

impl Failure {
    pub(super) fn new(about: impl Into<String>, trouble: &crate::token::Trouble, at: Option<u64>) -> Self {
        let crate::token::Trouble { kind, what, hint, .. } = trouble;
        Self { about: about.into(), reason: kind.as_str().into(), what: what.clone(), hint: hint.clone(), at }
    }

    pub(super) fn of(about: impl Into<String>, error: &Error, at: Option<u64>) -> Self {
        Self::new(about, &error.into(), at)
    }
}

/// The configuration in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Configuration {
    /// When it was taken over.
    pub since: u64,
    /// Why a newer file was refused.
    pub refused: Option<Failure>,
}

/// A machine's token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Token {
    /// What it is called; its locator until it was open.
    pub label: String,
    /// Whether its key can be copied.
    pub is_software: bool,
    /// A [`TokenState`]'s text.
    pub state: String,
    /// Since when.
    pub since: u64,
    /// Operations since the start.
    pub operations: u64,
    /// The last failure, until an operation succeeds or the token is back.
    pub trouble: Option<Failure>,
}

/// A machine's store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Store {
    /// Whether it was opened with the token, and is believed.
    pub is_open: bool,
    /// Whether it is sealed; `None` before it is open.
    pub is_sealed: Option<bool>,
    /// What keeps changes of it from being taken over.
    pub trouble: Option<Failure>,
}

/// How bytes reach other machines.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Transport {
    /// `arti`, `tor` or `tcp`.
    pub kind: String,
    /// How far the Tor below it is; `None` before the store is open.
    pub progress: Option<Progress>,
}

/// How other machines reach this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Onion {
    /// What the transport says.
    pub state: OnionState,
    /// Why it is interrupted: half a sentence.
    pub why: Option<String>,
    /// Whether only peers find it.
    pub restricted: bool,
    /// Whether it was reached from outside. Nothing of it where the transport has no outside.
    pub probe: probe::Report,
}

/// Whether others can reach a service, as far as the transport knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnionState {
    /// Tor is not ready yet.
    Starting,
    /// The service's descriptor is on its way to Tor's directories.
    Publishing,
    /// The transport believes that it can be reached.
    Reachable,
    /// It can not be reached at the moment, and that is being mended.
    Interrupted,
}

/// Calls by nobody that the store knows. They were dropped without an answer and without a token operation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Strangers {
    /// How many since the start.
    pub count: u64,
    /// When the last one came.
    pub last: Option<u64>,
}

impl Status {
    /// Whether both say the same, but for what time alone changes.
    pub fn is_same(&self, other: &Self) -> bool {
        let still = |status: &Self| {
            let mut still = Self { at: 0, ..status.clone() };
            for session in still.peers.iter_mut().flat_map(|peer| &mut peer.sessions) {
                (session.age, session.silent, session.token_age) = (0, 0, 0);
            }
            still
        };
        still(self) == still(other)
    }

    pub(super) fn of(shared: &Shared) -> Self {
        let config = shared.config();
        let token = shared.token().map(Token::of);
        let store = Store::of(shared);
        let onion = shared.service().map(|state| Onion::of(state, config.onion.restricted, probe::report(shared)));
        let transport = Transport { kind: config.transport.kind.as_str().into(), progress: shared.progress() };
        let peers = relations::reports(shared);
        let configuration = shared.configuration();
        let phase = *shared.phase().borrow();
        let mut troubles: Vec<Failure> = Vec::new();
        troubles.extend(token.as_ref().and_then(|token| token.trouble.clone()));
        troubles.extend(store.trouble.clone());
        troubles.extend(transport.trouble());
        troubles.extend(onion.as_ref().and_then(Onion::trouble));
        troubles.extend(configuration.refused.clone());
        troubles.extend(peers.iter().filter_map(PeerStatus::trouble));
        let services = services::reports(shared);
        troubles.extend(services.iter().filter_map(service_trouble));
        let forwards = forwards::reports(shared);
        troubles.extend(forwards.iter().filter_map(forward_trouble));
        let log = shared.connections.report();
        troubles.extend(log.trouble.as_ref().map(|trouble| Failure {
            about: "log".into(),
            reason: trouble.reason.clone(),
            what: trouble.what.clone(),
            hint: trouble.hint.clone(),
            at: None,
        }));
        Self {
            at: now(),
            machine: shared.machine.to_string(),
            version: env!("CARGO_PKG_VERSION").into(),
            process: std::process::id(),
            phase,
            since: seconds(shared.began),
            well: phase == Phase::Running && troubles.is_empty(),
            troubles,
            configuration,
            token,
            store,
            transport,
            onion,
            peers,
            services,
            unknown_services: services::unknown(shared),
            forwards,
            log,
            sandbox: shared.confinement().map(|confinement| confinement.applied().to_vec()).unwrap_or_default(),
            strangers: shared.strangers(),
        }
    }
}

impl Token {
    fn of(token: &crate::token::TokenHandle) -> Self {
        let status = token.state();
        let trouble = status.trouble.as_ref().filter(|_| status.state.is_lost() || status.state == TokenState::Locked);
        Self {
            label: token.label().to_owned(),
            is_software: token.is_software(),
            state: status.state.as_str().into(),
            since: seconds(status.since),
            operations: token.operations(),
            trouble: trouble.map(|trouble| Failure::new("token", trouble, Some(seconds(status.since)))),
        }
    }
}

impl Store {
    fn of(shared: &Shared) -> Self {
        let Some(endpoint) = shared.endpoint() else { return Self::default() };
        let trouble = endpoint.store_trouble().borrow().clone();
        Self {
            is_open: true,
            is_sealed: shared.is_sealed(),
            trouble: trouble.map(|trouble| Failure::new("store", &trouble, None)),
        }
    }
}

impl Onion {
    fn of(state: ServiceState, restricted: bool, probe: probe::Report) -> Self {
        let (state, why) = match state {
            ServiceState::Starting => (OnionState::Starting, None),
            ServiceState::Publishing => (OnionState::Publishing, None),
            ServiceState::Reachable => (OnionState::Reachable, None),
            ServiceState::Interrupted(why) => (OnionState::Interrupted, Some(why)),
        };
        Self { state, why, restricted, probe }
    }

    fn trouble(&self) -> Option<Failure> {
        if self.state == OnionState::Interrupted {
            let why = self.why.as_deref().unwrap_or("the transport does not say why");
            return Some(Failure {
                about: "onion".into(),
                reason: ErrorKind::TransportUnavailable.as_str().into(),
                what: format!("Peers can not reach this machine: {why}."),
                hint: "It is tried again by itself; `claviger doctor` says what it stands on.".into(),
                at: None,
            });
        }
        let failure = self.probe.failure.as_ref().filter(|_| self.probe.failures > 0)?;
        Some(Failure {
            about: "onion".into(),
            reason: failure.reason.clone(),
            what: format!("This machine's onion service was not reached from outside. {}", failure.what),
            hint: failure.hint.clone(),
            at: Some(failure.time),
        })
    }
}

impl Transport {
    fn trouble(&self) -> Option<Failure> {
        let progress = self.progress.as_ref()?;
        let blocked = progress.blocked.as_ref()?;
        Some(Failure {
            about: "transport".into(),
            reason: progress.stage.as_str().into(),
            what: blocked.what.clone(),
            hint: blocked.hint.clone(),
            at: None,
        })
    }
}

/// Of a service whose target failed not long ago.
fn service_trouble(report: &ServiceReport) -> Option<Failure> {
    let failure = report.last_failure.as_ref().filter(|failure| now().saturating_sub(failure.at) < RECENT)?;
    Some(Failure {
        about: format!("service {}", report.name),
        reason: ErrorKind::Io.as_str().into(),
        what: failure.what.clone(),
        hint: failure.hint.clone(),
        at: Some(failure.at),
    })
}

/// Of a socket that cut a connection not long ago. What a peer refused or is not there for is told of the peer, too; whatever programs ask the SOCKS5 front for is theirs.
fn forward_trouble(report: &ForwardReport) -> Option<Failure> {
    report.peer.as_ref()?;
    let failure = report.last_failure.as_ref().filter(|failure| now().saturating_sub(failure.at) < RECENT)?;
    Some(Failure {
        about: format!("forward {}", report.listen),
        reason: failure.reason.clone(),
        what: failure.what.clone(),
        hint: failure.hint.clone(),
        at: Some(failure.at),
    })
}

/// Seconds since 1970; 0 before.
pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

pub(super) fn now() -> u64 {
    seconds(SystemTime::now())
}
