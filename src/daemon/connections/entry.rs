//! What stands in the log of connections.

use crate::endpoint::Report;
use crate::identity::Kem;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Something that happened. Names of peers and services, numbers, and typed reasons ([`ErrorKind`](crate::ErrorKind)'s texts): neither secrets nor addresses.
///
/// The JSON of it, as it was written, is what the chain of hashes binds; fields are only ever added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case", rename_all_fields = "kebab-case")]
#[non_exhaustive]
pub enum Event {
    /// An attempt to connect is over.
    Attempt(Attempt),
    /// A session is over.
    SessionEnded(Ended),
    /// Attempts of one peer that were too many to be written one by one.
    Repeated {
        /// Whose.
        peer: String,
        /// `incoming` or `outgoing`.
        direction: String,
        /// What became of them: `established`, or why they failed.
        outcome: String,
        /// How many since the entry before of this kind.
        count: u64,
    },
    /// Callers who were let in by no peer's key.
    Strangers {
        /// How many since the entry before of this kind.
        count: u64,
        /// Of them, by what they were dropped for.
        reasons: BTreeMap<String, u64>,
    },
    /// Streams that were refused to a peer.
    StreamRefused {
        /// Whose.
        peer: String,
        /// What it asked for; `*` for every name that this machine serves nothing by.
        service: String,
        /// Why: `not-allowed`, `no-such-service`, `limit`, `backend`.
        reason: String,
        /// How many since the entry before of this kind.
        count: u64,
    },
    /// The daemon began.
    Started {
        /// Its release.
        version: String,
    },
    /// The daemon ended in good order.
    Stopped {},
    /// Another configuration was taken over.
    Reloaded {
        /// What changed, for people.
        changes: Vec<String>,
    },
    /// Another configuration was refused, and nothing changed.
    ReloadRefused {
        /// Why.
        reason: String,
    },
    /// The token can not be used.
    TokenLost {
        /// Its state.
        state: String,
        /// Why, if that is known.
        reason: Option<String>,
    },
    /// The token can be used again.
    TokenBack {},
    /// Entries that found no room, while many things happened at once or the disk took nothing.
    Dropped {
        /// How many.
        count: u64,
    },
    /// What was written before can not be believed or not be found: a new chain begins.
    NewChain {
        /// What was wrong with the old one.
        why: String,
        /// The file that it was kept in, beside this one.
        kept: Option<String>,
    },
}

/// An attempt to connect.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Attempt {
    /// The peer.
    pub peer: String,
    /// `incoming` or `outgoing`.
    pub direction: String,
    /// `arti`, `tor` or `tcp`.
    pub transport: String,
    /// The handshake's pattern; `NN` is a resumption. Empty: it did not come so far.
    pub pattern: String,
    /// The key encapsulation mechanism that is mixed in.
    pub kem: Option<String>,
    /// Whether a pre-shared key is.
    pub psk: bool,
    /// The peer's key and this machine's: `primary`, `backup`, `former-primary`, `former-backup`, or empty.
    pub keys: [String; 2],
    /// How long dialling took, in milliseconds.
    pub dial_ms: u64,
    /// How long the token was waited for, in milliseconds.
    pub token_ms: u64,
    /// How long the handshake took, in milliseconds.
    pub handshake_ms: u64,
    /// How often the token was asked.
    pub token_operations: u32,
    /// Whether a broken session was to be resumed.
    pub resumed: bool,
    /// How long ago the token was last asked for this session or the one that it resumes, in seconds.
    pub token_age_s: u64,
    /// Why it failed; `None`: a session was established.
    pub reason: Option<String>,
}

impl From<&Report> for Attempt {
    fn from(report: &Report) -> Self {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self {
            peer: report.peer.as_ref().map_or("", |peer| peer.as_str()).to_owned(),
            direction: report.direction.as_str().to_owned(),
            transport: report.transport.to_owned(),
            pattern: report.pattern.map_or("", |pattern| pattern.noise_name()).to_owned(),
            kem: report.kem.map(|kem| Kem::as_str(kem).to_owned()),
            psk: report.psk,
            keys: report.keys.map(str::to_owned),
            dial_ms: ms(report.dial),
            token_ms: ms(report.token),
            handshake_ms: ms(report.handshake),
            token_operations: report.token_operations,
            resumed: report.resumed,
            token_age_s: report.token_age.as_secs(),
            reason: report.failure.map(|kind| kind.as_str().to_owned()),
        }
    }
}

/// The end of a session.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Ended {
    /// The peer.
    pub peer: String,
    /// `incoming` when the peer had dialled, else `outgoing`.
    pub direction: String,
    /// Why.
    pub reason: String,
    /// Whether one of the ends closed it; else it broke.
    pub closed: bool,
    /// How long it lasted, in seconds.
    pub age_s: u64,
    /// Bytes that came, records' headers and tags included.
    pub received: u64,
    /// Bytes that went.
    pub sent: u64,
    /// Streams that were opened in it, by either end.
    pub streams: u64,
}

/// Changes of a configuration that are written, and characters of each.
const CHANGES: (usize, usize) = (32, 200);

impl Event {
    pub(in crate::daemon) fn reloaded(changes: &[String]) -> Self {
        let changes = changes.iter().take(CHANGES.0).map(|change| change.chars().take(CHANGES.1).collect());
        Self::Reloaded { changes: changes.collect() }
    }

    /// The peer that it is about.
    pub fn peer(&self) -> Option<&str> {
        match self {
            Self::Attempt(Attempt { peer, .. })
            | Self::SessionEnded(Ended { peer, .. })
            | Self::Repeated { peer, .. }
            | Self::StreamRefused { peer, .. } => Some(peer),
            _ => None,
        }
    }

    /// Whether something went wrong.
    pub fn is_failure(&self) -> bool {
        match self {
            Self::Attempt(attempt) => attempt.reason.is_some(),
            Self::SessionEnded(ended) => !ended.closed,
            Self::Repeated { outcome, .. } => outcome != ESTABLISHED,
            Self::Started { .. } | Self::Stopped {} | Self::Reloaded { .. } | Self::TokenBack {} => false,
            _ => true,
        }
    }
}

pub(super) const ESTABLISHED: &str = "established";

impl fmt::Display for Event {
    /// A line for people, without a full stop.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attempt(attempt) => attempt.fmt(f),
            Self::SessionEnded(ended) => ended.fmt(f),
            Self::Repeated { peer, direction, outcome, count } => {
                write!(f, "{}: {count} more, {outcome}", Whose(peer, direction))
            }
            Self::Strangers { count, reasons } => {
                let reasons: Vec<_> = reasons.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
                write!(f, "{} dropped: {}", counted(*count, "stranger"), reasons.join(", "))
            }
            Self::StreamRefused { peer, service, reason, count } => {
                write!(f, "{peer} asked for {service}: {} refused, {reason}", counted(*count, "stream"))
            }
            Self::Started { version } => write!(f, "the daemon started, release {version}"),
            Self::Stopped {} => f.write_str("the daemon stopped"),
            Self::Reloaded { changes } if changes.is_empty() => f.write_str("the configuration was read: no change"),
            Self::Reloaded { changes } => write!(f, "the configuration was read: {}", changes.join(" ")),
            Self::ReloadRefused { reason } => write!(f, "another configuration was refused: {reason}"),
            Self::TokenLost { state, reason: Some(reason) } => write!(f, "the token is lost: {state}, {reason}"),
            Self::TokenLost { state, reason: None } => write!(f, "the token is lost: {state}"),
            Self::TokenBack {} => f.write_str("the token is back"),
            Self::Dropped { count } => write!(f, "{count} entries found no room and are missing here"),
            Self::NewChain { why, kept: Some(kept) } => {
                write!(f, "a new log began, the old one is kept in {kept}: {why}")
            }
            Self::NewChain { why, kept: None } => write!(f, "a new log began: {why}"),
        }
    }
}

/// Who called whom.
struct Whose<'a>(&'a str, &'a str);

impl fmt::Display for Whose<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.1 == "incoming" { write!(f, "{} called", self.0) } else { write!(f, "called {}", self.0) }
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let took = Duration::from_millis(self.dial_ms.saturating_add(self.handshake_ms));
        write!(f, "{}: ", Whose(&self.peer, &self.direction))?;
        match &self.reason {
            Some(reason) => write!(f, "failed after {}, {reason}", span(took)),
            None if self.resumed => {
                let ago = span(Duration::from_secs(self.token_age_s));
                write!(f, "session resumed in {}, token asked {ago} ago", span(took))
            }
            None => {
                write!(f, "session by {}", self.pattern)?;
                if let Some(kem) = &self.kem {
                    write!(f, " with {kem}")?;
                }
                if self.psk {
                    f.write_str(" and a pre-shared key")?;
                }
                let operations = counted(self.token_operations.into(), "token operation");
                write!(f, " in {}, {operations}", span(took))
            }
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.closed { "ended" } else { "broke" };
        write!(
            f,
            "{}: session {how} after {}, {}; {}, {} in, {} out",
            self.peer,
            span(Duration::from_secs(self.age_s)),
            self.reason,
            counted(self.streams, "stream"),
            bytes(self.received),
            bytes(self.sent)
        )
    }
}

fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// `0.3 s`, `40 s`, `4 min`, `3 h`, `2 days`.
fn span(time: Duration) -> String {
    match time.as_secs() {
        ..10 => format!("{:.1} s", time.as_secs_f64()),
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ ..7200 => format!("{} min", seconds / 60),
        seconds @ ..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

/// `512 B`, `1.2 kB`, `40 MB`.
fn bytes(count: u64) -> String {
    let mut value = count as f64;
    let mut units = ["B", "kB", "MB", "GB", "TB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    while value >= 999.5
        && let Some(next) = units.next()
    {
        (value, unit) = (value / 1000.0, next);
    }
    let digits = usize::from(value < 9.95 && unit != "B");
    format!("{value:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_read() {
        assert_eq!(
            [0, 999, 1000, 1234, 45_678, 999_950, 12_000_000].map(bytes),
            ["0 B", "999 B", "1.0 kB", "1.2 kB", "46 kB", "1.0 MB", "12 MB"]
        );
        let mut attempt = Attempt {
            peer: "wallet".into(),
            direction: "incoming".into(),
            pattern: "KK".into(),
            kem: Some("ML-KEM-768".into()),
            handshake_ms: 312,
            token_operations: 2,
            ..Attempt::default()
        };
        assert_eq!(attempt.to_string(), "wallet called: session by KK with ML-KEM-768 in 0.3 s, 2 token operations");
        attempt.resumed = true;
        attempt.token_age_s = 250;
        assert_eq!(attempt.to_string(), "wallet called: session resumed in 0.3 s, token asked 4 min ago");
        attempt.direction = "outgoing".into();
        attempt.reason = Some("handshake-timeout".into());
        assert_eq!(attempt.to_string(), "called wallet: failed after 0.3 s, handshake-timeout");
    }

    #[test]
    fn entries_of_before_are_read() {
        let event = Event::Strangers { count: 3, reasons: [("knock-unknown".to_owned(), 3)].into() };
        let text = serde_json::to_string(&event).unwrap();
        assert_eq!(text, r#"{"event":"strangers","count":3,"reasons":{"knock-unknown":3}}"#);
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
        let old = r#"{"event":"session-ended","peer":"wallet","closed":true}"#;
        assert_eq!(serde_json::from_str::<Event>(old).unwrap().peer(), Some("wallet"));
    }
}
