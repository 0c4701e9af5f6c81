//! How it stands with each peer.

use super::super::shared::{Shared, lock};
use super::super::status::{Failure, now};
use super::unknown;
use crate::config::Config;
use crate::endpoint::{Direction, ReconnectState};
use crate::error::{Error, ErrorKind};
use crate::identity::Identifier;
use crate::session;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;
use tokio::time::Instant;

/// How it stands with a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Relation {
    /// The configuration has a session with it kept up, or forwards to it, and there was none since the start.
    Needed,
    /// It is recorded, there is no session with it, and none is wanted now.
    Known,
    /// There is a session, and the peer was heard of in it.
    Operational,
    /// There is a session, and something is wrong with it, or about to be.
    Degraded,
    /// There was a session; it was lost, and another one is tried for.
    Interrupted,
}

impl Relation {
    /// The state in tables and in `--json` output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Needed => "needed",
            Self::Known => "known",
            Self::Operational => "operational",
            Self::Degraded => "degraded",
            Self::Interrupted => "interrupted",
        }
    }
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A peer, and how it stands with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PeerStatus {
    /// Its name.
    pub name: String,
    /// Its role; `None` for one that the configuration names and the store does not.
    pub role: Option<String>,
    /// How it stands with it.
    pub relation: Relation,
    /// Since when, as far as it was looked at.
    pub since: u64,
    /// What is wrong, for a degraded relation: half sentences.
    pub why: Vec<String>,
    /// Whether the configuration has a session with it kept up.
    pub is_kept: bool,
    /// Its sessions, the youngest first.
    pub sessions: Vec<SessionStatus>,
    /// When the last session began.
    pub last_session: Option<u64>,
    /// The last attempt or session that came to a bad end.
    pub last_error: Option<Failure>,
    /// When it is a stranger again.
    pub expires: Option<u64>,
    /// When it is tried again.
    pub next_try: Option<u64>,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SessionStatus {
    /// `outgoing` when this machine began it, else `incoming`.
    pub direction: String,
    /// How long it has lasted.
    pub age: u64,
    /// How long nothing was heard of the peer.
    pub silent: u64,
    /// Streams that have not ended.
    pub streams: usize,
    /// Bytes sent, records' headers and tags included.
    pub sent: u64,
    /// Bytes received.
    pub received: u64,
    /// Whether it was begun without the token.
    pub is_resumed: bool,
    /// How long ago this machine's token was asked for it.
    pub token_age: u64,
    /// The Noise protocol of its handshake.
    pub protocol: String,
    /// Whether a key of before a rotation is at one of its ends.
    pub is_former: bool,
    /// Whether it takes on no new streams.
    pub is_draining: bool,
}

impl SessionStatus {
    fn of(status: &session::Status) -> Self {
        let peer = &status.peer;
        Self {
            direction: if peer.is_initiator { "incoming" } else { "outgoing" }.into(),
            age: status.age.as_secs(),
            silent: status.silent.as_secs(),
            streams: status.streams,
            sent: status.sent,
            received: status.received,
            is_resumed: peer.resumed,
            token_age: peer.token_seen.elapsed().as_secs(),
            protocol: peer.protocol.name().to_string(),
            is_former: peer.by_former || peer.as_former,
            is_draining: status.is_draining,
        }
    }
}

impl PeerStatus {
    /// What of it is to be told first, with its remedy.
    pub(in crate::daemon) fn trouble(&self) -> Option<Failure> {
        let about = format!("peer {}", self.name);
        match self.relation {
            Relation::Operational | Relation::Known => None,
            Relation::Degraded => Some(Failure {
                about,
                reason: "degraded".into(),
                what: format!("The session with `{}` works, but: {}.", self.name, self.why.join("; ")),
                hint: "Mend it before the session ends: another one may not come about.".into(),
                at: None,
            }),
            Relation::Needed | Relation::Interrupted => self.last_error.clone().map(|error| Failure { about, ..error }),
        }
    }
}

/// What is remembered of a peer since the start.
#[derive(Debug, Clone, Default)]
pub(in crate::daemon) struct Seen {
    last_session: Option<u64>,
    last_error: Option<Failure>,
    relation: Option<(Relation, u64)>,
}

impl Seen {
    pub(super) fn meets(&mut self) {
        self.last_session = Some(now());
    }

    pub(super) fn parts(&mut self, peer: &Identifier, ended: &Error) {
        // These are how sessions end.
        let usual =
            [ErrorKind::SessionClosed, ErrorKind::SessionIdle, ErrorKind::SessionAged, ErrorKind::SessionReplaced];
        if !usual.contains(&ended.kind()) {
            self.last_error = Some(Failure::of(format!("peer {peer}"), ended, Some(now())));
        }
    }

    /// An attempt came to nothing. Those of this machine are told by their own words, when there are some.
    pub(super) fn fails(&mut self, peer: &Identifier, direction: Direction, failure: ErrorKind) {
        let what = match direction {
            Direction::Incoming => format!("`{peer}` called, and no session came of it: {failure}."),
            Direction::Outgoing => format!("`{peer}` was called, and no session came of it: {failure}."),
        };
        self.last_error = Some(Failure {
            about: format!("peer {peer}"),
            reason: failure.as_str().into(),
            what,
            hint: format!("`claviger log --peer {peer}` has the attempts one by one."),
            at: Some(now()),
        });
    }
}

/// What the rules about a relation look at.
#[derive(Debug, Clone, Default)]
struct Facts {
    /// A session is kept up, or something here forwards to the peer.
    wanted: bool,
    kept: bool,
    had_session: bool,
    sessions: Vec<SessionStatus>,
    /// A session is being tried for.
    trying: bool,
    token_lost: bool,
    /// Of the configuration.
    keepalive: Duration,
    max_age: Duration,
    resume_for: Duration,
}

/// The relation, and what is wrong with one that works.
fn relation(facts: &Facts) -> (Relation, Vec<String>) {
    if facts.sessions.is_empty() {
        let none = match (facts.wanted, facts.had_session) {
            (true, false) => Relation::Needed,
            (_, true) if facts.kept || facts.trying => Relation::Interrupted,
            _ => Relation::Known,
        };
        return (none, Vec::new());
    }
    let mut why = Vec::new();
    // The keepalive's answer may take a while, too.
    let silent = (facts.keepalive + facts.keepalive / 2).as_secs();
    if let Some(least) = facts.sessions.iter().map(|session| session.silent).min().filter(|least| *least > silent) {
        why.push(format!("nothing was heard of it for {least} s"));
    }
    if facts.sessions.iter().all(|session| session.is_draining) {
        why.push("it takes on no new streams".into());
    }
    if facts.sessions.iter().all(|session| session.is_former) {
        why.push("one end still has the key of before a rotation".into());
    }
    let youngest = facts.sessions.iter().map(|session| session.token_age).min().unwrap_or_default();
    if facts.token_lost {
        let left = facts.resume_for.as_secs().saturating_sub(youngest);
        why.push(match left {
            0 => "the token is away: if it breaks, it can not be resumed".into(),
            left => format!("the token is away: if it breaks, it can be resumed for {} min more", left.div_ceil(60)),
        });
    }
    // A tenth of its age, at most 5 minutes, before its end it is renewed: later than that, something keeps it from that.
    let margin = (facts.max_age / 10).min(Duration::from_secs(300)) / 2;
    if facts.kept && youngest > facts.max_age.saturating_sub(margin).as_secs() {
        why.push("it was not renewed, and its time is nearly over".into());
    }
    let relation = if why.is_empty() { Relation::Operational } else { Relation::Degraded };
    (relation, why)
}

/// Whether anything here leads to the peer.
fn is_wanted(config: &Config, peer: &Identifier) -> (bool, bool) {
    let kept = config.peer.get(peer).is_some_and(|wanted| wanted.keep);
    (kept || config.forward.iter().any(|forward| forward.peer == *peer), kept)
}

/// Of every peer, by name.
pub(in crate::daemon) fn reports(shared: &Shared) -> Vec<PeerStatus> {
    let config = shared.config();
    let Some(endpoint) = shared.endpoint() else { return Vec::new() };
    // Role and expiry; none for those that only the configuration names.
    let mut peers: BTreeMap<Identifier, Option<(String, Option<u64>)>> = BTreeMap::new();
    peers.extend(config.peer.keys().map(|name| (name.clone(), None)));
    peers.extend(config.forward.iter().map(|forward| (forward.peer.clone(), None)));
    peers.extend(
        endpoint.peers().into_iter().map(|peer| (peer.identifier, Some((peer.role.to_string(), peer.expires)))),
    );
    let mut sessions: BTreeMap<Identifier, Vec<SessionStatus>> = BTreeMap::new();
    for status in endpoint.sessions().iter().filter(|status| !status.has_ended) {
        sessions.entry(status.peer.identifier.clone()).or_default().push(SessionStatus::of(status));
    }
    let token_lost = endpoint.token().state().state.is_lost();
    let session = &config.session;
    peers
        .into_iter()
        .map(|(name, recorded)| {
            let (wanted, kept) = is_wanted(&config, &name);
            let state = shared.relations.state(&name);
            let mut sessions = sessions.remove(&name).unwrap_or_default();
            sessions.sort_by_key(|session| session.age);
            let mut seen = lock(&shared.relations.seen);
            // Of peers that nothing was heard of nothing is kept.
            let mut none = Seen::default();
            let seen = seen.get_mut(&name).unwrap_or(&mut none);
            let facts = Facts {
                wanted,
                kept,
                had_session: seen.last_session.is_some(),
                trying: state.as_ref().is_some_and(is_trying),
                sessions,
                token_lost,
                keepalive: session.keepalive,
                max_age: session.max_age,
                resume_for: session.resume_for,
            };
            let (relation, why) = relation(&facts);
            let since = match seen.relation {
                Some((before, since)) if before == relation => since,
                _ => now(),
            };
            seen.relation = Some((relation, since));
            let trouble = match &state {
                Some(ReconnectState::Waiting { trouble, .. } | ReconnectState::Stopped(trouble)) => Some(trouble),
                _ => None,
            };
            let at = seen.last_error.as_ref().and_then(|error| error.at);
            let about = || format!("peer {name}");
            let told = match recorded {
                None => Some(Failure::of(about(), &unknown(&name), None)),
                Some(_) => trouble.map(|trouble| Failure::new(about(), trouble, at)),
            };
            let (role, expires) = recorded.unzip();
            PeerStatus {
                name: name.to_string(),
                role,
                relation,
                since,
                why,
                is_kept: kept,
                sessions: facts.sessions,
                last_session: seen.last_session,
                last_error: told.or_else(|| seen.last_error.clone()),
                expires: expires.flatten(),
                next_try: state.and_then(next_try),
            }
        })
        .collect()
}

fn is_trying(state: &ReconnectState) -> bool {
    matches!(state, ReconnectState::Connecting | ReconnectState::Waiting { .. } | ReconnectState::Stopped(_))
}

fn next_try(state: ReconnectState) -> Option<u64> {
    match state {
        ReconnectState::Waiting { until, .. } => {
            Some(now() + until.saturating_duration_since(Instant::now()).as_secs())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> SessionStatus {
        SessionStatus {
            direction: "outgoing".into(),
            age: 60,
            silent: 5,
            streams: 1,
            sent: 100,
            received: 100,
            is_resumed: false,
            token_age: 60,
            protocol: "Noise_KK_25519_ChaChaPoly_BLAKE2s".into(),
            is_former: false,
            is_draining: false,
        }
    }

    fn facts(sessions: Vec<SessionStatus>) -> Facts {
        let config = crate::config::Session::default();
        Facts {
            sessions,
            keepalive: config.keepalive,
            max_age: config.max_age,
            resume_for: config.resume_for,
            ..Facts::default()
        }
    }

    #[test]
    fn without_a_session() {
        let of = |wanted, kept, had_session, trying| {
            relation(&Facts { wanted, kept, had_session, trying, ..facts(Vec::new()) })
        };
        for (wanted, kept, had_session, trying, expected) in [
            (false, false, false, false, Relation::Known),
            // A stream is asked for by the front for SOCKS5.
            (false, false, false, true, Relation::Known),
            (true, false, false, false, Relation::Needed),
            (true, true, false, true, Relation::Needed),
            // It was closed, and nobody wants another one now.
            (true, false, true, false, Relation::Known),
            (false, false, true, false, Relation::Known),
            (true, false, true, true, Relation::Interrupted),
            (false, false, true, true, Relation::Interrupted),
            (true, true, true, false, Relation::Interrupted),
        ] {
            assert_eq!(
                of(wanted, kept, had_session, trying),
                (expected, vec![]),
                "{wanted} {kept} {had_session} {trying}"
            );
        }
    }

    #[test]
    fn with_a_session() {
        assert_eq!(relation(&facts(vec![session()])), (Relation::Operational, vec![]));
        let resumed = SessionStatus { is_resumed: true, ..session() };
        assert_eq!(relation(&facts(vec![resumed])).0, Relation::Operational, "it is there, and the token too");

        let degraded = |facts: Facts, what: &str| {
            let (relation, why) = relation(&facts);
            assert_eq!(relation, Relation::Degraded, "{what}");
            assert!(why.len() == 1 && why[0].contains(what), "{why:?}");
        };
        degraded(facts(vec![SessionStatus { silent: 91, ..session() }]), "nothing was heard of it for 91 s");
        degraded(facts(vec![SessionStatus { is_draining: true, ..session() }]), "no new streams");
        degraded(facts(vec![SessionStatus { is_former: true, ..session() }]), "before a rotation");
        let lost = |token_age| Facts { token_lost: true, ..facts(vec![SessionStatus { token_age, ..session() }]) };
        degraded(lost(60), "it can be resumed for 14 min more");
        degraded(lost(901), "it can not be resumed");
        let old = SessionStatus { token_age: 86_400 - 149, ..session() };
        degraded(Facts { kept: true, ..facts(vec![old.clone()]) }, "it was not renewed");
        assert_eq!(relation(&facts(vec![old])).0, Relation::Operational, "it ends, and nobody minds");

        // One that is well is enough.
        let bad = SessionStatus { silent: 500, is_draining: true, is_former: true, ..session() };
        assert_eq!(relation(&facts(vec![bad, session()])).0, Relation::Operational);
    }

    #[test]
    fn what_is_remembered() {
        let peer: Identifier = "tower".parse().unwrap();
        let ended = |kind| Error::new(kind, "It ended.", "Look.");
        let mut seen = Seen::default();
        seen.meets();
        for kind in
            [ErrorKind::SessionClosed, ErrorKind::SessionIdle, ErrorKind::SessionAged, ErrorKind::SessionReplaced]
        {
            seen.parts(&peer, &ended(kind));
            assert_eq!(seen.last_error, None, "{kind}");
        }
        seen.parts(&peer, &ended(ErrorKind::SessionTruncated));
        assert_eq!(seen.last_error.as_ref().unwrap().reason, "session-truncated");
        seen.fails(&peer, Direction::Incoming, ErrorKind::RateLimited);
        let error = seen.last_error.unwrap();
        assert!(error.reason == "rate-limited" && error.what.starts_with("`tower` called"), "{error:?}");
    }
}
