//! The service manager (sd_notify(3)): ready when peers can reach this machine, and a watchdog that is pinged while the daemon works.
//!
//! READY=1 comes when the onion service is published, not when the process runs; until then the time to start is extended, since a token, a PIN or Tor may take as
//! long as they like. STATUS= is one line of truth. The watchdog is pinged only when everything that has to go round did so since the last ping: the loop that accepts
//! sessions, the one that watches for changes of peers, and the look at the store. Where nobody listens (no `NOTIFY_SOCKET`) all this is silent.

use super::Phase;
use super::shared::Shared;
use crate::endpoint::Endpoint;
use crate::token::{TokenHandle, TokenState};
use crate::transport::ServiceState;
use sd_notify::NotifyState;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// How often everything is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// How long the start may take from now on, told again and again.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often that is told.
const TOLD: Duration = Duration::from_secs(15);
/// Longest STATUS=, in bytes.
const MAX_STATUS: usize = 200;

/// Goes round, and says so. What has never beaten is not expected to.
#[derive(Debug, Default)]
pub(super) struct Heart(AtomicU64);

impl Heart {
    /// How often one beats.
    pub(super) const EVERY: Duration = Duration::from_secs(1);

    pub(super) fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn beats(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Loops without which the daemon is none.
#[derive(Debug, Default)]
pub(super) struct Hearts {
    /// Accepts sessions.
    pub(super) accept: Heart,
    /// Follows changes of peers and plan.
    pub(super) follow: Heart,
    /// Answers on the control socket.
    pub(super) control: Heart,
    /// Whether the service manager was told that the daemon is ready.
    is_ready: AtomicBool,
}

impl Hearts {
    /// A tick to beat at, in a loop that may wait for long.
    pub(super) fn ticks() -> tokio::time::Interval {
        let mut ticks = interval(Heart::EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    }

    fn beats(&self, endpoint: Option<&Endpoint>) -> [u64; 4] {
        let [accept, follow, control] = [&self.accept, &self.follow, &self.control].map(Heart::beats);
        [accept, follow, control, endpoint.map_or(0, Endpoint::looks)]
    }
}

/// What was beating and stands still.
fn stopped(before: [u64; 4], now: [u64; 4]) -> Option<&'static str> {
    let names = [
        "the loop that accepts sessions",
        "the loop that follows changes",
        "the control socket",
        "the look at the store",
    ];
    let pairs = names.into_iter().zip(before.into_iter().zip(now));
    pairs.into_iter().find_map(|(name, (before, now))| (before != 0 && before == now).then_some(name))
}

/// Tells from now on, until the daemon ends.
pub(super) fn start(shared: &Arc<Shared>) {
    if std::env::var_os("NOTIFY_SOCKET").is_some() {
        tokio::spawn(tell(Arc::clone(shared)));
    }
}

async fn tell(shared: Arc<Shared>) {
    let watchdog = sd_notify::watchdog_enabled();
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = String::new();
    let (mut patience, mut pinged) = (None::<Instant>, (Instant::now(), shared.hearts.beats(None)));
    let mut stands_still = None;
    loop {
        look.tick().await;
        let (phase, service) = (*shared.phase().borrow(), shared.service());
        let status = status(phase, shared.token(), service.as_ref());
        if status != told {
            send(&[NotifyState::Status(&status)]);
            told = status;
        }
        let mut is_ready = shared.hearts.is_ready.load(Ordering::Relaxed);
        if !is_ready && is_published(phase, service.as_ref()) {
            is_ready = true;
            shared.hearts.is_ready.store(true, Ordering::Relaxed);
            send(&[NotifyState::Ready]);
        }
        if !is_ready && phase != Phase::Stopping && patience.is_none_or(|at| at.elapsed() >= TOLD) {
            patience = Some(Instant::now());
            send(&[NotifyState::ExtendTimeoutUsec(u32::try_from(PATIENCE.as_micros()).unwrap_or(u32::MAX))]);
        }
        let Some(period) = watchdog.filter(|period| pinged.0.elapsed() >= *period / 2) else { continue };
        let beats = shared.hearts.beats(shared.endpoint());
        match stopped(pinged.1, beats) {
            // It may go on yet: it is looked at again soon, and the service manager waits as long again.
            Some(what) => {
                if stands_still.replace(what) != Some(what) {
                    tracing::error!(target: "claviger::daemon", what, watchdog = ?period, "stands still");
                }
            }
            None => {
                send(&[NotifyState::Watchdog]);
                (pinged, stands_still) = ((Instant::now(), beats), None);
            }
        }
    }
}

/// Whether peers can come: without services of its own a machine has nothing to publish.
fn is_published(phase: Phase, service: Option<&ServiceState>) -> bool {
    phase == Phase::Running && service.is_none_or(|service| *service == ServiceState::Reachable)
}

/// One line for `systemctl status`.
fn status(phase: Phase, token: Option<&TokenHandle>, service: Option<&ServiceState>) -> String {
    let token = token.map(|token| (token.state().state, token.label().to_owned()));
    let token = match token {
        Some((TokenState::Ready, _)) => String::new(),
        Some((state, label)) => format!("; token {state} ({label})"),
        None => "; token not opened yet".into(),
    };
    let service = match service {
        None => String::new(),
        Some(ServiceState::Starting) => "; connecting to the Tor network".into(),
        Some(ServiceState::Publishing) => "; publishing the onion service".into(),
        Some(ServiceState::Reachable) => "; reachable".into(),
        Some(ServiceState::Interrupted(why)) => format!("; not reachable: {why}"),
    };
    let phase = match phase {
        Phase::WaitingForToken => "waiting for the token",
        Phase::Starting => "starting",
        Phase::Running => "running",
        Phase::Stopping => "stopping: streams may end",
    };
    let mut line: String = format!("{phase}{token}{service}").chars().filter(|c| !c.is_control()).collect();
    line.truncate(line.floor_char_boundary(MAX_STATUS));
    line
}

/// Between it and its end the daemon takes over another configuration.
pub(super) struct Reloading {
    is_told: bool,
}

/// Tells that another configuration is being taken over (`Type=notify-reload`).
pub(super) fn reloading(hearts: &Hearts) -> Reloading {
    // Whoever is not ready yet would be by the end of this.
    let now = NotifyState::monotonic_usec_now().ok().filter(|_| hearts.is_ready.load(Ordering::Relaxed));
    let is_told = now.is_some();
    if let Some(now) = now {
        send(&[NotifyState::Reloading, now]);
    }
    Reloading { is_told }
}

impl Drop for Reloading {
    fn drop(&mut self) {
        if self.is_told {
            send(&[NotifyState::Ready]);
        }
    }
}

/// Tells that it ends, and how long that may take.
pub(super) fn stopping() {
    send(&[NotifyState::Stopping]);
}

/// To the service manager; nothing where there is none.
fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(target: "claviger::daemon", %error, "the service manager was not told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_peers_can_come() {
        let interrupted = ServiceState::Interrupted("tor is away".into());
        for (phase, service, is_ready) in [
            (Phase::Running, None, true),
            (Phase::Running, Some(ServiceState::Reachable), true),
            (Phase::Running, Some(ServiceState::Publishing), false),
            (Phase::Running, Some(interrupted.clone()), false),
            (Phase::Starting, None, false),
            (Phase::WaitingForToken, None, false),
            (Phase::Stopping, Some(ServiceState::Reachable), false),
        ] {
            assert_eq!(is_published(phase, service.as_ref()), is_ready, "{phase:?} {service:?}");
        }
        let line = status(Phase::Running, None, Some(&interrupted));
        assert_eq!(line, "running; token not opened yet; not reachable: tor is away");
        let long = ServiceState::Interrupted("\u{e9}\n".repeat(MAX_STATUS));
        assert!(status(Phase::Running, None, Some(&long)).len() <= MAX_STATUS);
    }

    #[test]
    fn what_stands_still() {
        assert_eq!(stopped([1, 1, 0, 7], [2, 2, 0, 8]), None);
        assert_eq!(stopped([1, 1, 0, 7], [2, 2, 1, 7]), Some("the look at the store"));
        assert_eq!(stopped([5, 1, 1, 7], [5, 2, 2, 8]), Some("the loop that accepts sessions"));
    }
}
