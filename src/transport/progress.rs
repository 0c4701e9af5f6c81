//! How far Tor is, and what keeps it from going on.

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// How far the Tor below a transport is. It may go back: the network goes, tor is restarted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Progress {
    /// Where it stands.
    pub stage: Stage,
    /// Of connecting to the Tor network, 0 to 100.
    pub percent: u8,
    /// What it is at, half a sentence.
    pub summary: String,
    /// What keeps it from going on.
    pub blocked: Option<Blocked>,
}

/// Where Tor stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Nobody has asked for anything yet.
    Idle,
    /// It connects.
    Connecting,
    /// It works.
    Ready,
    /// This machine has no network.
    Offline,
    /// This machine's clock is wrong by so much that Tor's directory can not be used.
    ClockWrong,
    /// There is a network, and Tor is not reached through it.
    Filtered,
    /// tor is not running, or does not let us in.
    Unavailable,
}

impl Stage {
    /// The name in `--json` output and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Connecting => "connecting",
            Self::Ready => "ready",
            Self::Offline => "offline",
            Self::ClockWrong => "clock-wrong",
            Self::Filtered => "filtered",
            Self::Unavailable => "unavailable",
        }
    }
}

/// What keeps Tor from going on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Blocked {
    /// What it is: a sentence.
    pub what: String,
    /// What to do: a sentence.
    pub hint: String,
}

impl Progress {
    /// Of a transport that needs no Tor, or none that could be asked.
    pub fn ready() -> Self {
        Self { stage: Stage::Ready, percent: 100, summary: "ready".into(), blocked: None }
    }

    pub(super) fn idle() -> Self {
        Self { stage: Stage::Idle, percent: 0, summary: "not asked for anything yet".into(), blocked: None }
    }

    /// What hinders, by its stage.
    pub(super) fn blocked(stage: Stage, percent: u8, summary: String, what: &str) -> Self {
        let hint = match stage {
            Stage::ClockWrong => {
                "Set this machine's clock: `timedatectl set-ntp true`, or by hand with `timedatectl set-time`."
            }
            Stage::Offline => "See whether this machine is online: `ip route`, and a firewall that lets nothing out.",
            Stage::Filtered => {
                "Ask whether this network lets Tor through; behind a censor, set bridges (docs/transports.md)."
            }
            _ => "See Tor's log: that of `-v` for arti, `journalctl -u tor@default` for a daemon.",
        };
        let what = format!("{}.", what.trim_end_matches('.'));
        Self { stage, percent, summary, blocked: Some(Blocked { what, hint: hint.into() }) }
    }
}

/// Sets it; tells in the log when the stage has changed.
pub(super) fn set(sender: &watch::Sender<Progress>, new: Progress) {
    sender.send_if_modified(|old| {
        if *old == new {
            return false;
        }
        let step = |progress: &Progress| (progress.stage, progress.percent / 10);
        match &new.blocked {
            Some(blocked) if old.stage != new.stage => {
                tracing::warn!(target: "claviger::transport", stage = new.stage.as_str(), hint = blocked.hint, "{}", blocked.what);
            }
            None if step(old) != step(&new) => {
                tracing::info!(target: "claviger::transport", stage = new.stage.as_str(), percent = new.percent, "Tor: {}", new.summary);
            }
            _ => {}
        }
        *old = new;
        true
    });
}
