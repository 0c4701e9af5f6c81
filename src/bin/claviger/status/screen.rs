//! A status as a page of text.

use claviger::daemon::Phase;
use claviger::daemon::sandbox::State;
use claviger::daemon::status::{
    Applied, Failure, ForwardReport, Onion, OnionState, PeerStatus, Progress, Relation, ServiceReport, SessionStatus,
    Stage, Status,
};
use claviger::program::{Tint, one_line, wrapped};

/// How a page is laid out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Page {
    pub(crate) columns: usize,
    pub(crate) colours: bool,
    /// A page that may be cut off below has first what is to be mended; where it scrolls by, that stands last.
    pub(crate) is_cut: bool,
}

/// Width of a progress bar.
const BAR: usize = 20;

/// The column at which what is said of a word at the line's beginning begins.
const INDENT: usize = 11;

impl Page {
    pub(crate) fn of(self, status: &Status) -> String {
        let mut parts = vec![self.head(status)];
        if !status.peers.is_empty() {
            parts.push(self.peers(status));
        }
        if !status.services.is_empty() {
            parts.push(services(status));
        }
        if !status.forwards.is_empty() {
            parts.push(self.forwards(status));
        }
        if !status.troubles.is_empty() {
            let mut lines = vec![self.tinted(Tint::Bad, "To be mended:")];
            lines.extend(status.troubles.iter().flat_map(|failure| self.trouble(status, failure)));
            parts.insert(if self.is_cut { 1 } else { parts.len() }, lines);
        }
        let parts: Vec<String> = parts.iter().map(|lines| lines.join("\n")).collect();
        parts.join("\n\n") + "\n"
    }

    fn tinted(self, tint: Tint, text: &str) -> String {
        if self.colours { tint.paint(text) } else { text.to_owned() }
    }

    /// `word` and what is said of it. `state` has the tint, if it is on the first line.
    fn said(self, word: &str, tint: Tint, state: &str, more: &str) -> Vec<String> {
        let text = format!("{word:INDENT$}{}{}", one_line(state), one_line(more));
        let mut lines = wrapped(&text, INDENT, self.columns);
        if let Some(first) = lines.first_mut()
            && let Some(rest) = first.strip_prefix(&format!("{word:INDENT$}{state}"))
        {
            *first = format!("{word:INDENT$}{}{rest}", self.tinted(tint, state));
        }
        lines
    }

    fn head(self, status: &Status) -> Vec<String> {
        let Status { machine, version, process, at, .. } = status;
        let (tint, phase) = match status.phase {
            Phase::WaitingForToken => (Tint::Warning, "waits for its token"),
            Phase::Starting => (Tint::Warning, "starts"),
            Phase::Running if status.well => (Tint::Good, "runs, and all is well"),
            Phase::Running => (Tint::Warning, "runs"),
            Phase::Stopping => (Tint::Warning, "ends"),
        };
        let since = format!("; started {}, process {process}, version {version}", ago(*at, status.since));
        let mut lines = self.said(machine, tint, phase, &since);
        lines.extend(match &status.token {
            None => self.said("token", Tint::Warning, "not looked for yet", ""),
            Some(token) => {
                let tint = match token.state.as_str() {
                    "ready" => Tint::Good,
                    "waiting-for-touch" | "waiting-for-pin" | "locked" => Tint::Warning,
                    _ => Tint::Bad,
                };
                // The label of a software key says so.
                let more = format!("; {}", token.label);
                self.said("token", tint, &token.state.replace('-', " "), &more)
            }
        });
        let (tint, state) = match (&status.store.trouble, status.store.is_open) {
            (Some(_), _) => (Tint::Bad, "its changes are not taken over"),
            (None, true) => (Tint::Good, "open"),
            (None, false) => (Tint::Warning, "not open yet"),
        };
        let sealed = match status.store.is_sealed {
            Some(true) => ", sealed",
            Some(false) => ", not sealed: whoever can write to it can change it unseen",
            None => "",
        };
        lines.extend(self.said("store", tint, state, sealed));
        lines.extend(match &status.transport.progress {
            Some(progress) => self.progress(&status.transport.kind, progress),
            None => self.said("transport", Tint::Plain, &status.transport.kind, ""),
        });
        lines.extend(match &status.onion {
            Some(onion) => self.onion(status, onion),
            None => self.said("service", Tint::Plain, "none: this machine only calls others", ""),
        });
        let partly: Vec<String> =
            status.sandbox.iter().filter(|applied| applied.state != State::Applied).map(unapplied).collect();
        if !status.sandbox.is_empty() {
            lines.extend(match partly.is_empty() {
                true => self.said("sandbox", Tint::Good, "applied", ""),
                false => self.said("sandbox", Tint::Warning, "not wholly applied", &format!(": {}", partly.join("; "))),
            });
        }
        if status.strangers.count > 0 {
            let last =
                status.strangers.last.map_or_else(String::new, |last| format!(", the last one {}", ago(*at, last)));
            lines.extend(self.said("strangers", Tint::Plain, &format!("{} calls", status.strangers.count), &last));
        }
        lines
    }

    fn progress(self, kind: &str, progress: &Progress) -> Vec<String> {
        let Progress { percent, summary, blocked, stage, .. } = progress;
        if *stage == Stage::Ready && blocked.is_none() {
            return self.said("transport", Tint::Good, kind, ", ready");
        }
        let filled = usize::from(*percent).min(100) * BAR / 100;
        let bar = format!("{kind} [{}{}] {percent} %", "#".repeat(filled), ".".repeat(BAR - filled));
        let tint = if blocked.is_some() { Tint::Bad } else { Tint::Warning };
        self.said("transport", tint, &bar, &format!(", {}: {summary}", stage.as_str().replace('-', " ")))
    }

    fn onion(self, status: &Status, onion: &Onion) -> Vec<String> {
        let (tint, state) = match onion.state {
            OnionState::Starting => (Tint::Warning, "not reachable yet: the transport starts"),
            OnionState::Publishing => (Tint::Warning, "not reachable yet: it is being published"),
            OnionState::Reachable if onion.probe.failures > 0 => (Tint::Warning, "published"),
            OnionState::Reachable => (Tint::Good, "reachable"),
            OnionState::Interrupted => (Tint::Bad, "not reachable"),
        };
        let mut more = onion.why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
        if onion.restricted && status.transport.kind != "tcp" {
            more.push_str(", for peers only");
        }
        if let Some(success) = &onion.probe.success {
            more.push_str(&format!("; reached from outside {}", ago(status.at, success.time)));
        }
        if let Some(failure) = onion.probe.failure.as_ref().filter(|_| onion.probe.failures > 0) {
            more.push_str(&format!("; not reached from outside {}", ago(status.at, failure.time)));
        }
        self.said("service", tint, state, &more)
    }

    fn peers(self, status: &Status) -> Vec<String> {
        let names = status.peers.iter().map(|peer| peer.name.len()).max().unwrap_or_default().clamp(4, 24);
        let head = format!(
            "{:names$}  {:11}  {:>9}  {:>7}  {:>9}  {:>9}",
            "peer", "relation", "for", "streams", "sent", "received"
        );
        let mut lines = vec![head];
        for peer in &status.peers {
            let sum = |of: fn(&SessionStatus) -> u64| peer.sessions.iter().map(of).sum::<u64>();
            let (streams, sent, received) = match peer.sessions.is_empty() {
                true => ["-"; 3].map(str::to_owned).into(),
                false => (
                    sum(|session| session.streams as u64).to_string(),
                    bytes(sum(|session| session.sent)),
                    bytes(sum(|session| session.received)),
                ),
            };
            let tint = match peer.relation {
                Relation::Operational => Tint::Good,
                Relation::Known => Tint::Plain,
                Relation::Needed | Relation::Degraded => Tint::Warning,
                Relation::Interrupted => Tint::Bad,
            };
            let relation = self.tinted(tint, &format!("{:11}", peer.relation));
            let since = lasting(status.at.saturating_sub(peer.since));
            let name = shortened(&peer.name, names);
            lines.push(format!("{name:names$}  {relation}  {since:>9}  {streams:>7}  {sent:>9}  {received:>9}"));
            lines.extend(
                details(status, peer)
                    .into_iter()
                    .flat_map(|text| wrapped(&format!("  {}", one_line(&text)), 2, self.columns)),
            );
        }
        lines
    }

    fn forwards(self, status: &Status) -> Vec<String> {
        let to = |forward: &ForwardReport| match (&forward.peer, &forward.service) {
            (Some(peer), Some(service)) => format!("{peer}/{service}"),
            _ => "by SOCKS5".into(),
        };
        let mut lines =
            vec![format!("{:30}  {:11}  {:>9}  {:>9}  {:>9}", "forward", "streams now", "in all", "sent", "received")];
        for forward in &status.forwards {
            let ForwardReport { open, opened, sent, received, .. } = forward;
            let (sent, received) = (bytes(*sent), bytes(*received));
            let to = shortened(&to(forward), 30);
            lines.push(format!("{to:30}  {open:>11}  {opened:>9}  {sent:>9}  {received:>9}"));
            let waiting = match forward.waiting {
                0 => String::new(),
                waiting => format!("; {waiting} wait for a stream"),
            };
            let cut = match forward.failures.values().sum::<u64>() {
                0 => String::new(),
                cut => format!("; {cut} cut"),
            };
            lines.extend(wrapped(&format!("  at {}{waiting}{cut}", one_line(&forward.listen)), 2, self.columns));
        }
        lines
    }

    fn trouble(self, status: &Status, failure: &Failure) -> Vec<String> {
        let Failure { about, what, hint, at, .. } = failure;
        let when = at.map_or_else(String::new, |at| format!(" ({})", ago(status.at, at)));
        let text = format!("- {}{when}: {} {}", one_line(about), one_line(what), one_line(hint));
        wrapped(&text, 2, self.columns)
    }
}

fn unapplied(applied: &Applied) -> String {
    let how = if applied.state == State::Partly { "partly" } else { "not" };
    let why = applied.why.as_ref().map_or_else(String::new, |why| format!(" ({why})"));
    format!("{} {how}{why}", applied.what)
}

fn services(status: &Status) -> Vec<String> {
    let names = status.services.iter().map(|service| service.name.len()).max().unwrap_or_default().clamp(7, 24);
    let mut lines = vec![format!(
        "{:names$}  {:>11}  {:>9}  {:>7}  {:>9}  {:>9}",
        "service", "streams now", "in all", "refused", "sent", "received"
    )];
    lines.extend(status.services.iter().map(|service| {
        let ServiceReport { open, total, not_allowed, limit, sent, received, .. } = service;
        let (refused, sent, received) = (not_allowed + limit, bytes(*sent), bytes(*received));
        let name = shortened(&service.name, names);
        format!("{name:names$}  {open:>11}  {total:>9}  {refused:>7}  {sent:>9}  {received:>9}")
    }));
    lines
}

/// What there is to say of a peer beside its line.
fn details(status: &Status, peer: &PeerStatus) -> Vec<String> {
    let mut details = Vec::new();
    if peer.role.is_none() {
        details.push("not in the store".to_owned());
    }
    if peer.sessions.len() > 1 {
        details.push(format!("{} sessions", peer.sessions.len()));
    }
    if let Some(youngest) = peer.sessions.first() {
        if youngest.is_resumed {
            details.push(format!("resumed, token last seen {}", ago(youngest.token_age, 0)));
        }
        if youngest.is_draining {
            details.push("about to be closed".into());
        }
    }
    if let Some(expires) = peer.expires {
        details.push(match expires.checked_sub(status.at) {
            None | Some(0) => "its time has passed".into(),
            Some(left) => format!("a stranger again in {}", lasting(left)),
        });
    }
    if let Some(next) = peer.next_try {
        details.push(format!("tried again in {}", lasting(next.saturating_sub(status.at))));
    }
    if details.is_empty() { details } else { vec![details.join("; ")] }
}

fn shortened(text: &str, most: usize) -> String {
    if text.len() <= most { text.to_owned() } else { format!("{}~", text.chars().take(most - 1).collect::<String>()) }
}

/// `just now`, `40 s ago`, `4 min ago`.
pub(crate) fn ago(now: u64, then: u64) -> String {
    match now.saturating_sub(then) {
        0 => "just now".into(),
        seconds => format!("{} ago", lasting(seconds)),
    }
}

/// `40 s`, `4 min`, `3 h`, `2 days`.
pub(crate) fn lasting(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// `900 B`, `1.2 kB`, `34 MB`: at most 7 characters.
pub(crate) fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["B", "kB", "MB", "GB", "TB"] {
        if value < 999.5 {
            let digits = usize::from(unit != "B" && value < 9.95);
            return format!("{value:.digits$} {unit}");
        }
        value /= 1000.0;
    }
    format!("{value:.0} PB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!(
            [0, 999, 1000, 9949, 9950, 999_499, 999_500, 1_234_567_890].map(bytes),
            ["0 B", "999 B", "1.0 kB", "9.9 kB", "10 kB", "999 kB", "1.0 MB", "1.2 GB"]
        );
        assert_eq!([0, 119, 120, 7200, 172_800].map(lasting), ["0 s", "119 s", "2 min", "2 h", "2 days"]);
        assert_eq!((ago(5, 5), ago(70, 5)), ("just now".into(), "65 s ago".into()));
    }
}
