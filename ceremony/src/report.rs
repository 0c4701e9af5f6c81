//! What commands print: a JSON form with stable names, and a text form of the same.
//!
//! Names are never changed or removed within a major version; new ones may be added.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use claviger::error::Result;
use claviger::identity::{Fingerprint, IdentityCard, KeyPlace, StaticPublic, TokenKind};
use claviger::program::{self, COLUMNS};
use claviger::store::{FormerIdentity, HeldKey, LogEntry, Machine, Peer, SealState, Store};
use claviger::token::attestation::AttestationRoots;
use serde::Serialize;

use crate::attestation::Proof;

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
    /// The second key; `null` when the card carries none.
    backup: Option<BackupReport>,
    onion_address: Option<String>,
    client_auth_public_key: Option<String>,
    suites: Vec<String>,
    /// `ML-KEM-768`, or `null`: what it mixes into handshakes with machines that offer it, too.
    kem: Option<String>,
    /// What is held beside the static keys of the two; only for peers with which a key is held.
    #[serde(skip_serializing_if = "Option::is_none")]
    preshared_key: Option<PresharedReport>,
    pub(crate) fingerprint: Print,
    /// When it is a stranger again, in seconds since 1970; only for peers with a limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<u64>,
    /// The card before this one, while that holds, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    former: Option<FormerReport>,
    /// `primary` or `backup`: the token in use; only for this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    active: Option<String>,
    /// Only for this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    seal: Option<SealReport>,
    /// The ceremony's plan; only for a machine that has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<PlanReport>,
}

/// The backup key of an identity.
#[derive(Serialize)]
struct BackupReport {
    /// `hardware` or `software`, by the machine's own word.
    token: String,
    /// The locator of the token; only for this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    locator: Option<String>,
    attestation: Option<Proof>,
    static_public_key: String,
}

/// A pre-shared key, without the key: `{"check", "time"}`; `check` is its check value, `time` when it was recorded, in seconds since 1970.
#[derive(Serialize)]
pub(crate) struct PresharedReport {
    pub(crate) check: String,
    pub(crate) time: u64,
}

impl From<&HeldKey> for PresharedReport {
    fn from(held: &HeldKey) -> Self {
        Self { check: held.check.clone(), time: held.time }
    }
}

/// A card that holds for some time beside the one that followed it.
#[derive(Serialize)]
struct FormerReport {
    fingerprint: Print,
    onion_address: String,
    /// Seconds since 1970.
    until: u64,
}

impl FormerReport {
    fn new(card: &IdentityCard, until: u64) -> Self {
        Self { fingerprint: card.fingerprint().into(), onion_address: card.onion_address.to_string(), until }
    }
}

/// `{"name", "fingerprint"}`.
#[derive(Serialize)]
struct PlanReport {
    name: String,
    fingerprint: Print,
}

/// `{"state", "keys": [{"place", "fingerprint"}]}`; `state` is `sealed` or `unsealed`; `place` is `primary`, `backup`, or `null` for a key that is on the card no more.
#[derive(Serialize)]
pub(crate) struct SealReport {
    state: &'static str,
    keys: Vec<SealedTo>,
}

#[derive(Serialize)]
struct SealedTo {
    place: Option<String>,
    fingerprint: Print,
}

impl SealReport {
    pub(crate) fn new(state: &SealState, machine: &Machine) -> Self {
        let SealState::Sealed(keys) = state else { return Self { state: "unsealed", keys: Vec::new() } };
        let mut keys: Vec<SealedTo> = keys
            .iter()
            .map(|key| {
                let place =
                    [KeyPlace::Primary, KeyPlace::Backup].into_iter().find(|at| machine.card.key(*at) == Some(key));
                SealedTo { place: place.map(|place| place.to_string()), fingerprint: Fingerprint::of_key(key).into() }
            })
            .collect();
        keys.sort_by_key(|key| key.place.as_deref().map_or(2, |place| u8::from(place != "primary")));
        Self { state: "sealed", keys }
    }

    /// `the primary token and the backup token`, or `none`.
    pub(crate) fn text(&self) -> String {
        let one = |key: &SealedTo| match &key.place {
            Some(place) => format!("the {place} token"),
            None => format!("the token with the key {}", grouped(&key.fingerprint.hex)),
        };
        if self.keys.is_empty() {
            return "none: whoever can write to the store can change it unseen".into();
        }
        self.keys.iter().map(one).collect::<Vec<_>>().join(" and ")
    }
}

impl Identity {
    pub(crate) fn of(peer: &Peer, roots: &AttestationRoots) -> Self {
        let attested = |proof: &Option<_>, key: &StaticPublic| proof.as_ref().map(|proof| Proof::of(proof, key, roots));
        Self {
            identifier: peer.identifier.to_string(),
            role: peer.role.to_string(),
            token: peer.token.map(|kind| kind.to_string()),
            locator: None,
            attestation: attested(&peer.attestation, &peer.static_public),
            require_attestation: None,
            curve: peer.static_public.curve().to_string(),
            static_public_key: peer.static_public.to_hex(),
            backup: peer.backup.as_ref().map(|backup| BackupReport {
                token: backup.token.to_string(),
                locator: None,
                attestation: attested(&backup.attestation, &backup.static_public),
                static_public_key: backup.static_public.to_hex(),
            }),
            onion_address: peer.onion_address.map(|address| address.to_string()),
            client_auth_public_key: peer.client_auth.map(|key| key.to_string()),
            suites: peer.suites.as_slice().iter().map(ToString::to_string).collect(),
            kem: peer.kem.map(|kem| kem.to_string()),
            preshared_key: None,
            fingerprint: peer.fingerprint().into(),
            expires: peer.expires,
            former: peer
                .former
                .as_ref()
                .filter(|former| UNIX_EPOCH + Duration::from_secs(former.until) > SystemTime::now())
                .map(|former| FormerReport::new(&former.card, former.until)),
            active: None,
            seal: None,
            plan: None,
        }
    }

    /// A peer's, with the pre-shared key that is held with it.
    pub(crate) fn of_peer(peer: &Peer, held: &[HeldKey], roots: &AttestationRoots) -> Self {
        let key = held.iter().find(|held| held.peer == peer.identifier);
        Self { preshared_key: key.map(PresharedReport::from), ..Self::of(peer, roots) }
    }

    /// This machine's, by its row alone.
    pub(crate) fn of_machine(machine: &Machine, roots: &AttestationRoots) -> Self {
        let mut identity = Self::of(&Peer::from_card(&machine.card), roots);
        if let Some(backup) = &mut identity.backup {
            backup.locator.clone_from(&machine.backup_token);
            identity.active = Some(machine.active.to_string());
        }
        Self {
            locator: Some(machine.token.clone()),
            require_attestation: Some(machine.attestation.required),
            former: machine.former.as_ref().map(|FormerIdentity { card, until, .. }| FormerReport::new(card, *until)),
            ..identity
        }
    }

    /// This machine's, with the state of its store.
    pub(crate) fn of_store(store: &Store, roots: &AttestationRoots) -> Result<Self> {
        let machine = store.machine()?;
        let plan = store.plan()?;
        Ok(Self {
            seal: Some(SealReport::new(&store.seal_state()?, &machine)),
            plan: plan.map(|plan| PlanReport { name: plan.name.to_string(), fingerprint: plan.fingerprint().into() }),
            ..Self::of_machine(&machine, roots)
        })
    }

    /// A block of lines. The full onion address is shown: whoever may read the store may know it.
    pub(crate) fn text(&self) -> String {
        let none = || "none recorded".to_owned();
        let mut rows = vec![
            ("role", self.role.clone()),
            ("token", kind_and_place(self.token.as_ref(), self.locator.as_ref(), self.attestation.as_ref())),
            ("attestation", self.attestation.as_ref().map_or_else(|| "none".into(), Proof::text)),
            ("curve", self.curve.clone()),
            ("public key", self.static_public_key.clone()),
        ];
        if let Some(backup) = &self.backup {
            rows.push((
                "backup token",
                kind_and_place(Some(&backup.token), backup.locator.as_ref(), backup.attestation.as_ref()),
            ));
            rows.push(("  attestation", backup.attestation.as_ref().map_or_else(|| "none".into(), Proof::text)));
            rows.push(("  public key", backup.static_public_key.clone()));
        }
        if let Some(active) = &self.active {
            rows.push(("in use", format!("the {active} token")));
        }
        rows.push(("onion address", self.onion_address.clone().unwrap_or_else(none)));
        rows.push(("client auth", self.client_auth_public_key.clone().unwrap_or_else(none)));
        rows.push(("suites", self.suites.join(" ")));
        rows.push(("kem", self.kem.clone().unwrap_or_else(|| "none".into())));
        if let Some(key) = &self.preshared_key {
            rows.push(("pre-shared key", format!("check value {}", key.check)));
        }
        if let Some(plan) = &self.plan {
            rows.push(("plan", format!("{}, {}", plan.name, grouped(&plan.fingerprint.hex))));
        }
        if let Some(seal) = &self.seal {
            rows.push(("sealed to", seal.text()));
        }
        if let Some(expires) = self.expires {
            rows.push(("expires", utc(expires)));
        }
        if let Some(former) = &self.former {
            rows.push(("former card", grouped(&former.fingerprint.hex)));
            rows.push(("  until", utc(former.until)));
        }
        rows.push(("fingerprint", grouped(&self.fingerprint.hex)));
        rows.push(("words", self.fingerprint.words.clone()));
        if self.require_attestation == Some(true) {
            rows.push(("imports", "only cards whose attestation holds".into()));
        }
        let mut text = format!("{}\n", self.identifier);
        for (name, value) in rows {
            text += &row(name, &value);
        }
        text
    }
}

/// A name and its value on a line, or on lines of 80 columns. Below the name stands a value with a word that is too long to stand beside it, and whatever comes
/// after a line feed.
pub(crate) fn row(name: &str, value: &str) -> String {
    if let Some((value, below)) = value.split_once('\n') {
        return row(name, value) + &wrapped("      ", below);
    }
    let first = format!("  {name:<14} ");
    let room = COLUMNS - first.chars().count();
    if value.split(' ').any(|word| word.chars().count() > room) {
        return format!("{}\n{}", first.trim_end(), wrapped("      ", value));
    }
    wrapped(&first, value)
}

/// What is known of where a key is; the locator on a line of its own.
fn kind_and_place(kind: Option<&String>, locator: Option<&String>, attestation: Option<&Proof>) -> String {
    match (kind, locator) {
        (Some(kind), Some(locator)) => format!("{kind}\n{locator}"),
        (Some(kind), None) if attestation.is_some_and(Proof::holds) => kind.clone(),
        (Some(kind), None) => format!("{kind}, by its own word"),
        (None, _) => "none recorded".into(),
    }
}

fn grouped(hex: &str) -> String {
    let groups: Vec<&str> = (0..hex.len()).step_by(4).map(|at| &hex[at..(at + 4).min(hex.len())]).collect();
    groups.join(" ")
}

/// The recorded peers, a line each.
pub(crate) fn peers_text(peers: &[Identity]) -> String {
    let mut text = table(
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
    );
    for peer in peers {
        if peer.backup.is_some() {
            let _ = writeln!(text, "{} has a backup token.", peer.identifier);
        }
        if peer.kem.is_none() {
            let _ = writeln!(text, "{} offers no key encapsulation mechanism.", peer.identifier);
        }
        if let Some(key) = &peer.preshared_key {
            let _ = writeln!(text, "{} has a pre-shared key with this machine, check {}.", peer.identifier, key.check);
        }
        if let Some(expires) = peer.expires {
            let _ = writeln!(text, "{} expires at {}.", peer.identifier, utc(expires));
        }
        if let Some(former) = &peer.former {
            let _ =
                writeln!(text, "{} was succeeded; its former card holds until {}.", peer.identifier, utc(former.until));
        }
    }
    text
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

/// A phrase on two lines, as it is read aloud.
pub(crate) fn halves(phrase: &str) -> [String; 2] {
    let words: Vec<&str> = phrase.split_whitespace().collect();
    let (first, second) = words.split_at(words.len().div_ceil(2));
    [first.join(" "), second.join(" ")]
}

/// `text` on lines of 80 columns, broken between words; `first` stands before it, and as much room before each further line.
pub(crate) fn wrapped(first: &str, text: &str) -> String {
    let indent = first.chars().count();
    program::wrapped(&format!("{first}{text}"), indent, COLUMNS).join("\n") + "\n"
}

/// `2026-01-31T12:00:00Z` (RFC 3339).
pub(crate) fn utc(time: u64) -> String {
    // Beyond the year 9999 there is no such form; the store refuses what it did not write, but a clock can be anything.
    let last = 253_402_300_799;
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(time.min(last))).to_string()
}

/// Columns as wide as their widest cell.
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
