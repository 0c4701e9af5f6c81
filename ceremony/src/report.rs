//! What commands print: a JSON form with stable names, and a text form of the same.
//!
//! Names are never changed or removed within a major version; new ones may be added.

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use claviger::identity::{Fingerprint, StaticPublic, TokenKind};
use claviger::store::{LogEntry, Machine, Peer};
use claviger::token::attestation::AttestationRoots;
use serde::Serialize;

use crate::attestation::Proof;

/// What a terminal, and a sheet of paper, has.
const COLUMNS: usize = 80;

/// `{"hex", "words"}`: 32 hexadecimal digits, and eight words.
#[derive(Serialize)]
pub(crate) struct Print {
    hex: String,
    pub(crate) words: String,
}

impl Print {
    /// The digits in groups of four.
    pub(crate) fn grouped(&self) -> String {
        grouped(&self.hex)
    }
}

impl From<Fingerprint> for Print {
    fn from(print: Fingerprint) -> Self {
        Self { hex: print.to_string().replace(' ', ""), words: print.words() }
    }
}

/// An identity: this machine's (with `locator`) or a peer's. Absent values are `null`.
#[derive(Serialize)]
pub(crate) struct Identity {
    pub(crate) identifier: String,
    role: String,
    /// `hardware` or `software`, by the machine's own word.
    token: Option<String>,
    /// The locator of the token; only for this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    locator: Option<String>,
    /// The proof that the key is in a device; `null` when the card carries none.
    attestation: Option<Proof>,
    /// Whether cards without a proof are refused; only for this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    require_attestation: Option<bool>,
    curve: String,
    static_public_key: String,
    onion_address: Option<String>,
    client_auth_public_key: Option<String>,
    suites: Vec<String>,
    pub(crate) fingerprint: Print,
}

impl Identity {
    pub(crate) fn of(peer: &Peer, roots: &AttestationRoots) -> Self {
        Self {
            identifier: peer.identifier.to_string(),
            role: peer.role.to_string(),
            token: peer.token.map(|kind| kind.to_string()),
            locator: None,
            attestation: peer.attestation.as_ref().map(|proof| Proof::of(proof, &peer.static_public, roots)),
            require_attestation: None,
            curve: peer.static_public.curve().to_string(),
            static_public_key: peer.static_public.to_hex(),
            onion_address: peer.onion_address.map(|address| address.to_string()),
            client_auth_public_key: peer.client_auth.map(|key| key.to_string()),
            suites: peer.suites.as_slice().iter().map(ToString::to_string).collect(),
            fingerprint: peer.fingerprint().into(),
        }
    }

    pub(crate) fn of_machine(machine: &Machine, roots: &AttestationRoots) -> Self {
        Self {
            locator: Some(machine.token.clone()),
            require_attestation: Some(machine.attestation.required),
            ..Self::of(&Peer::from_card(&machine.card), roots)
        }
    }

    /// A block of lines. The full onion address is shown: whoever may read the store may know it.
    pub(crate) fn text(&self) -> String {
        let none = || "none recorded".to_owned();
        let token = match (&self.token, &self.locator) {
            (Some(kind), Some(locator)) => format!("{kind}, {locator}"),
            (Some(kind), None) if self.attestation.as_ref().is_some_and(Proof::holds) => kind.clone(),
            (Some(kind), None) => format!("{kind}, by its own word"),
            (None, _) => none(),
        };
        let attestation = self.attestation.as_ref().map_or_else(|| "none".into(), Proof::text);
        let mut text = format!("{}\n", self.identifier);
        for (name, value) in [
            ("role", self.role.clone()),
            ("token", token),
            ("attestation", attestation),
            ("curve", self.curve.clone()),
            ("public key", self.static_public_key.clone()),
            ("onion address", self.onion_address.clone().unwrap_or_else(none)),
            ("client auth", self.client_auth_public_key.clone().unwrap_or_else(none)),
            ("suites", self.suites.join(" ")),
            ("fingerprint", grouped(&self.fingerprint.hex)),
            ("words", self.fingerprint.words.clone()),
        ] {
            let _ = writeln!(text, "  {name:<14} {value}");
        }
        if self.require_attestation == Some(true) {
            let _ = writeln!(text, "  {:<14} only cards whose attestation holds", "imports");
        }
        text
    }
}

fn grouped(hex: &str) -> String {
    let groups: Vec<&str> = (0..hex.len()).step_by(4).map(|at| &hex[at..(at + 4).min(hex.len())]).collect();
    groups.join(" ")
}

/// The recorded peers, a line each.
pub(crate) fn peers_text(peers: &[Identity]) -> String {
    table(
        ["NAME", "ROLE", "TOKEN", "ATTESTED", "CURVE", "FINGERPRINT"],
        peers.iter().map(|peer| {
            [
                peer.identifier.clone(),
                peer.role.clone(),
                peer.token.clone().unwrap_or_else(|| "-".into()),
                peer.attestation.as_ref().map_or_else(|| "no".into(), Proof::short),
                peer.curve.clone(),
                grouped(&peer.fingerprint.hex),
            ]
        }),
    )
}

/// An entry of the ceremony log; `time` in seconds since 1970, `version` empty where it was not recorded, `hash` 64 hexadecimal digits.
#[derive(Serialize)]
pub(crate) struct Entry {
    sequence: u64,
    time: u64,
    event: &'static str,
    subject: String,
    fingerprint: Print,
    version: String,
    detail: String,
    hash: String,
}

impl From<&LogEntry> for Entry {
    fn from(entry: &LogEntry) -> Self {
        Self {
            sequence: entry.sequence,
            time: entry.time,
            event: entry.event.as_str(),
            subject: entry.subject.to_string(),
            fingerprint: entry.fingerprint.into(),
            version: entry.version.clone(),
            detail: entry.detail.clone(),
            hash: data_encoding::HEXLOWER.encode(&entry.hash),
        }
    }
}

/// The log, oldest entry first, and its head: what stands for all of it, to be written on paper.
pub(crate) fn log_text(log: &[LogEntry], head: &Fingerprint) -> String {
    let entries: String = log.iter().map(entry_text).collect();
    format!("{entries}\nThe log's head:\n      {head}\n      {}\n", head.words())
}

/// An entry, on two lines or more, its time in UTC.
pub(crate) fn entry_text(entry: &LogEntry) -> String {
    let LogEntry { sequence, event, subject, fingerprint, version, .. } = entry;
    let version = if version.is_empty() { String::new() } else { format!("  claviger {version}") };
    let mut text = format!(
        "{sequence:>4}  {}  {:<17}  {subject}\n      {fingerprint}{version}\n",
        utc(entry.time),
        event.as_str()
    );
    if !entry.detail.is_empty() {
        text += &wrapped("      ", &entry.detail);
    }
    text
}

/// `text` on lines of 80 columns, broken between words; `first` stands before it, and as much room before each further line.
pub(crate) fn wrapped(first: &str, text: &str) -> String {
    let indent = first.chars().count();
    let (mut lines, mut line, mut width) = (String::new(), first.to_owned(), indent);
    let mut words = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if words > 0 && width + 1 + length > COLUMNS {
            let _ = writeln!(lines, "{line}");
            (line, width, words) = (" ".repeat(indent), indent, 0);
        }
        if words > 0 {
            line.push(' ');
            width += 1;
        }
        line.push_str(word);
        (width, words) = (width + length, words + 1);
    }
    let _ = writeln!(lines, "{}", line.trim_end());
    lines
}

/// `2026-01-31T12:00:00Z` (RFC 3339).
pub(crate) fn utc(time: u64) -> String {
    // Beyond the year 9999 there is no such form; the store refuses what it did not write, but a clock can be anything.
    let last = 253_402_300_799;
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(time.min(last))).to_string()
}

pub(crate) fn table<const N: usize>(head: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let rows: Vec<[String; N]> = std::iter::once(head.map(str::to_owned)).chain(rows).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
            let _ = write!(line, "{cell:<width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A key that was made: `{"locator", "token", "curve", "static_public_key", "fingerprint"}`. The fingerprint is the key's, not a card's.
#[derive(Serialize)]
pub(crate) struct Key {
    pub(crate) locator: String,
    token: String,
    curve: String,
    pub(crate) static_public_key: String,
    fingerprint: Print,
}

impl Key {
    pub(crate) fn new(locator: String, kind: TokenKind, public: &StaticPublic) -> Self {
        Self {
            locator,
            token: kind.to_string(),
            curve: public.curve().to_string(),
            static_public_key: public.to_hex(),
            fingerprint: Fingerprint::of_key(public).into(),
        }
    }

    /// `key on x25519`, `software key on p256`.
    pub(crate) fn kind_on_curve(&self) -> String {
        let kind = if self.token == "software" { "software key" } else { "key" };
        format!("{kind} on {}", self.curve)
    }

    /// The fingerprint's digits in groups of four.
    pub(crate) fn grouped(&self) -> String {
        grouped(&self.fingerprint.hex)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_broken_between_words() {
        let words = ["abstract"; 20].join(" ");
        let text = wrapped("  words  ", &words);
        assert!(text.lines().all(|line| line.len() <= COLUMNS), "{text}");
        assert_eq!(text.lines().count(), 3);
        assert!(text.lines().skip(1).all(|line| line.starts_with("         abstract")), "{text}");
        assert_eq!(text.split_whitespace().skip(1).collect::<Vec<_>>().join(" "), words);
        assert_eq!(wrapped("  ", &"x".repeat(100)), format!("  {}\n", "x".repeat(100)));
        assert_eq!(wrapped("a  ", ""), "a\n");
    }

    #[test]
    fn times() {
        for (time, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_229_250, "2026-11-21T02:47:30Z"),
            (4_102_444_800, "2100-01-01T00:00:00Z"),
            (u64::MAX, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(utc(time), text);
        }
    }
}
