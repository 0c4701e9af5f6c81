//! Whether this machine's onion service is reached from outside, tried every so often.

use super::shared::Shared;
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::transport::ServiceState;
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// From the first news of the service's publication to the first probe: directories take a descriptor one after the other.
const FIRST: Duration = Duration::from_secs(3);
/// After a failed probe; doubles up to the configured interval.
const RETRY: Duration = Duration::from_secs(15);
/// How often the configuration is looked at while none are wanted.
const IDLE: Duration = Duration::from_secs(60);

/// What the probes have shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// The last one that arrived.
    pub success: Option<Success>,
    /// The last one that did not.
    pub failure: Option<Failure>,
    /// Those that did not since the last one that did.
    pub failures: u32,
}

/// A probe that arrived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Success {
    /// When, seconds since 1970.
    pub time: u64,
    /// How long it was on its way, building circuits included; milliseconds.
    pub took_ms: u64,
}

/// A probe that did not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Failure {
    /// When, seconds since 1970.
    pub time: u64,
    /// An [`ErrorKind`](crate::ErrorKind)'s text.
    pub reason: String,
    /// What happened.
    pub what: String,
    /// What to do.
    pub hint: String,
}

impl Report {
    /// Whether the last probe arrived; `None` before the first.
    pub fn is_reached(&self) -> Option<bool> {
        (self.success.is_some() || self.failure.is_some()).then_some(self.failures == 0)
    }
}

#[derive(Default)]
pub(super) struct Books(Mutex<Report>);

impl Books {
    /// What is known now.
    pub(super) fn report(&self) -> Report {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn arrived(&self, took: Duration) {
        let mut report = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        report.success = Some(Success { time: now(), took_ms: took.as_millis() as u64 });
        if std::mem::take(&mut report.failures) > 0 {
            tracing::info!(target: "claviger::service", took_ms = took.as_millis() as u64, "the onion service is reached from outside again");
        }
    }

    fn lost(&self, error: &Error) {
        let mut report = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (reason, what, hint) = (error.kind().as_str(), error.to_string(), error.hint());
        report.failure = Some(Failure { time: now(), reason: reason.into(), what, hint: hint.into() });
        report.failures = report.failures.saturating_add(1);
        if report.failures == 1 {
            tracing::warn!(target: "claviger::service", reason, hint, "the onion service is not reached from outside: {error}");
        }
    }
}

/// What the probes of this machine's service have shown.
pub(super) fn report(shared: &Shared) -> Report {
    shared.probes.report()
}

/// Probes for as long as the daemon is there, if it publishes a service.
pub(super) fn start(shared: &Arc<Shared>, tasks: &mut JoinSet<()>) {
    let (Some(state), Some(endpoint)) = (shared.service_states(), shared.endpoint()) else { return };
    tasks.spawn(probe(Arc::clone(shared), endpoint.clone(), state));
}

async fn probe(shared: Arc<Shared>, endpoint: Endpoint, mut state: watch::Receiver<ServiceState>) {
    let mut pause = RETRY;
    loop {
        // What is not published is not reached, and everybody knows.
        if state.wait_for(|state| *state == ServiceState::Reachable).await.is_err() {
            return;
        }
        let wanted = shared.config().daemon.probe;
        if wanted.is_zero() {
            sleep(IDLE).await;
            continue;
        }
        if shared.probes.report().is_reached() != Some(false) {
            sleep(FIRST).await;
        }
        let rest = match endpoint.probe().await {
            Ok(None) => return,
            Ok(Some(took)) => {
                shared.probes.arrived(took);
                pause = RETRY;
                wanted
            }
            Err(error) => {
                shared.probes.lost(&error);
                let rest = pause.min(wanted);
                pause = (pause * 2).min(wanted);
                rest
            }
        };
        tokio::select! {
            () = sleep(rest) => {}
            // Published again: tried again, but not at every flicker.
            () = async {
                sleep(RETRY).await;
                interrupted(&mut state).await;
            } => {}
        }
    }
}

/// Ready when the service is not published any more.
async fn interrupted(state: &mut watch::Receiver<ServiceState>) {
    if state.wait_for(|state| *state != ServiceState::Reachable).await.is_err() {
        std::future::pending().await
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn successes_and_failures_are_remembered_apart() {
        let books = Books::default();
        assert_eq!(books.report().is_reached(), None);
        let error = Error::new(ErrorKind::Unreachable, "Not there.", "Wait.");
        books.lost(&error);
        books.lost(&error);
        assert_eq!((books.report().is_reached(), books.report().failures), (Some(false), 2));
        books.arrived(Duration::from_millis(1500));
        let report = books.report();
        assert_eq!((report.is_reached(), report.failures), (Some(true), 0));
        assert_eq!(report.success.as_ref().map(|success| success.took_ms), Some(1500));
        assert_eq!(report.failure.as_ref().map(|failure| failure.reason.as_str()), Some("unreachable"));
        let json = serde_json::to_string(&report).unwrap();
        assert!(json.contains("\"took-ms\":1500"), "{json}");
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
    }
}
