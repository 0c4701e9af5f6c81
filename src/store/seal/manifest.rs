//! What a seal covers: one line for each row that is protected, and what a difference means in words.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use aws_lc_rs::digest::{Context, SHA256};
use data_encoding::HEXLOWER;
use rusqlite::Connection;

use crate::store::log::{self, Flaw};
use crate::store::row::{self, CARD, MACHINE, PEER};

/// How many differences are named.
const NAMED: usize = 8;

/// What each line is about: the line's first word, and the rows. The first column names the row, the others are hashed; a kind without names has one row at most.
/// `contacts` is not here: a daemon writes it without the token.
fn tables() -> [(&'static str, String); 8] {
    [
        ("machine", format!("SELECT '', {MACHINE} FROM machine")),
        ("plan", "SELECT '', text FROM plan".into()),
        ("peer", format!("SELECT identifier, {PEER} FROM peers ORDER BY identifier")),
        ("card", format!("SELECT identifier, {CARD} FROM cards ORDER BY identifier")),
        (
            "revoked",
            "SELECT identifier || '#' || number, number, identifier, curve, static_public, backup_public, onion_address,
                 client_auth, time, reason FROM revoked ORDER BY number"
                .into(),
        ),
        ("challenge", "SELECT id, id, text, secret, expires FROM challenges ORDER BY id".into()),
        ("spent", "SELECT challenge || '/' || key, challenge, key FROM spent ORDER BY challenge, key".into()),
        ("secret", "SELECT name, value FROM secrets ORDER BY name".into()),
    ]
}

/// Tables of which one line tells all rows.
const WHOLE: [(&str, &str); 2] = [
    ("roots", "SELECT pem FROM attestation_roots ORDER BY pem"),
    ("keys", "SELECT curve, static_public, wrapped FROM seal_keys ORDER BY curve, static_public"),
];

/// The lines: `KIND NAME HASH` each, or `KIND HASH`, the hash as 64 lower-case hexadecimal digits; `log COUNT HASH` is the log's length and last hash.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::store) struct Manifest {
    lines: BTreeMap<(String, String), String>,
    pub(super) entries: u64,
}

impl Manifest {
    /// What the file holds now.
    pub(super) fn of(connection: &Connection) -> rusqlite::Result<Self> {
        let mut manifest = Self::lines(connection, &tables(), &WHOLE)?;
        let head = log::head(connection)?;
        manifest.lines.insert(("log".to_owned(), head.sequence.to_string()), HEXLOWER.encode(&head.hash));
        Ok(Self { entries: head.sequence, ..manifest })
    }

    /// The lines of this machine alone, and of its roots.
    pub(super) fn of_machine(connection: &Connection) -> rusqlite::Result<Self> {
        Self::lines(connection, &tables()[..1], &WHOLE[..1])
    }

    fn lines(connection: &Connection, tables: &[(&str, String)], whole: &[(&str, &str)]) -> rusqlite::Result<Self> {
        let mut lines = BTreeMap::new();
        for (kind, sql) in tables {
            let mut statement = connection.prepare_cached(sql)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let name = row.get_ref(0)?.as_str().unwrap_or("?").escape_default().to_string();
                lines.insert(((*kind).to_owned(), name), HEXLOWER.encode(&row::hash(row, 1)?));
            }
        }
        for (kind, sql) in whole {
            let mut context = Context::new(&SHA256);
            let mut statement = connection.prepare_cached(sql)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                context.update(&row::hash(row, 0)?);
            }
            lines.insert(((*kind).to_owned(), String::new()), HEXLOWER.encode(context.finish().as_ref()));
        }
        Ok(Self { lines, entries: 0 })
    }

    /// Whether the lines of this machine are those of `part`.
    pub(super) fn same_machine(&self, part: &Self) -> bool {
        ["machine", "roots"].into_iter().all(|kind| {
            let key = (kind.to_owned(), String::new());
            self.lines.get(&key).is_some_and(|hash| part.lines.get(&key) == Some(hash))
        })
    }

    pub(super) fn to_text(&self) -> String {
        let mut text = String::with_capacity(self.lines.len() * 100);
        for ((kind, name), hash) in &self.lines {
            let space = if name.is_empty() { "" } else { " " };
            // A String takes everything.
            let _ = writeln!(text, "{kind}{space}{name} {hash}");
        }
        text
    }

    /// Reads what [`to_text`](Self::to_text) wrote; only ever called on text whose MAC fits.
    pub(super) fn from_text(text: &str) -> Option<Self> {
        let mut lines = BTreeMap::new();
        for line in text.lines() {
            let (rest, hash) = line.rsplit_once(' ')?;
            let (kind, name) = rest.split_once(' ').unwrap_or((rest, ""));
            lines.insert((kind.to_owned(), name.to_owned()), hash.to_owned());
        }
        let (_, entries) = lines.keys().find(|(kind, _)| kind == "log")?;
        let entries = entries.parse().ok()?;
        Some(Self { lines, entries })
    }

    /// Whether a row is as it was sealed. `None`: it is not there.
    pub(in crate::store) fn fits(&self, kind: &str, name: &str, hash: Option<&[u8; 32]>) -> bool {
        self.lines.get(&(kind.to_owned(), name.to_owned())).cloned() == hash.map(|hash| HEXLOWER.encode(hash))
    }

    /// How many rows of a kind were sealed.
    pub(in crate::store) fn count(&self, kind: &str) -> usize {
        self.lines.keys().filter(|(of, _)| of == kind).count()
    }

    /// What differs in `now`, in words: clauses. Empty when nothing does.
    pub(super) fn differences(&self, now: &Self, flaw: Option<Flaw>) -> Vec<String> {
        let mut found = Vec::new();
        for ((kind, name), hash) in self.lines.iter().filter(|((kind, _), _)| kind != "log") {
            match now.lines.get(&(kind.clone(), name.clone())) {
                Some(there) if there == hash => {}
                Some(_) => found.push(format!("{} changed", what(kind, name))),
                None => found.push(format!("{} removed", what(kind, name))),
            }
        }
        for (kind, name) in now.lines.keys().filter(|key| key.0 != "log" && !self.lines.contains_key(*key)) {
            found.push(format!("{} added", what(kind, name)));
        }
        found.extend(self.log(now, flaw));
        found
    }

    fn log(&self, now: &Self, flaw: Option<Flaw>) -> Option<String> {
        let head =
            |manifest: &Self| manifest.lines.iter().find(|((kind, _), _)| kind == "log").map(|(_, hash)| hash.clone());
        Some(match flaw {
            Some(Flaw::Unchained(sequence)) => format!("entry {sequence} of the log was changed"),
            Some(Flaw::Malformed(sequence)) if sequence <= self.entries => {
                format!("entry {sequence} of the log was removed or changed")
            }
            Some(Flaw::Malformed(sequence)) => format!("entry {sequence} of the log was added"),
            None if now.entries < self.entries && now.entries + 1 == self.entries => {
                format!("entry {} of the log was removed", self.entries)
            }
            None if now.entries < self.entries => {
                format!("entries {} to {} of the log were removed", now.entries + 1, self.entries)
            }
            None if now.entries > self.entries => format!("entry {} of the log was added", self.entries + 1),
            None if head(self) != head(now) => "the log was written anew".into(),
            None => return None,
        })
    }
}

/// What a line is about, and the verb: `peer "watchtower" was`.
fn what(kind: &str, name: &str) -> String {
    let name: String = name.chars().take(64).collect();
    match kind {
        "machine" => "the token's locator or this machine's own card was".into(),
        "roots" => "the list of added attestation roots was".into(),
        "keys" => "the list of tokens that open the seal was".into(),
        "plan" => "the plan was".into(),
        "peer" => format!("peer \"{name}\" was"),
        "card" => format!("the card of \"{name}\" was"),
        "revoked" => format!("the revocation of \"{}\" was", name.split('#').next().unwrap_or_default()),
        "challenge" => format!("challenge {name} was"),
        "spent" => format!("the record of a proof for challenge {} was", name.split('/').next().unwrap_or_default()),
        "secret" => match name.as_str() {
            "onion" => "the onion service's secret key was".into(),
            "client-auth" => "the client-authorization secret was".into(),
            "former-onion" => "the former onion service's secret key was".into(),
            "former-client-auth" => "the former client-authorization secret was".into(),
            _ => format!("secret \"{name}\" was"),
        },
        _ => format!("{kind} \"{name}\" was"),
    }
}

/// At most eight of them in one sentence's middle.
pub(super) fn listed(found: &[String]) -> String {
    let named = found.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join("; ");
    match found.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named}; and {more} more"),
    }
}
