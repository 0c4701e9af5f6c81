//! What a seal covers: one line for each row that is protected, and what a difference means in words.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{Context, SHA256};
use data_encoding::HEXLOWER;
use rusqlite::Connection;

use crate::ceremony::log::ROOT;
use crate::store::log::{self, Flaw, Head};
use crate::store::row::{self, CARD, MACHINE, PEER};

/// How many differences are named.
const NAMED: usize = 8;

/// What each line is about: the line's first word, and the rows. The first column names the row, the others are hashed; a kind without names has one row at most.
/// `contacts` is not here: a daemon writes it without the token.
fn tables() -> [(&'static str, String); 9] {
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
        ("psk", "SELECT peer, peer, check_value, time, value FROM preshared_keys ORDER BY peer".into()),
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
    /// By `KIND NAME`, or `KIND`; without the log's.
    lines: BTreeMap<String, [u8; 32]>,
    log: Option<Head>,
}

impl Manifest {
    /// What the file holds now.
    pub(in crate::store) fn of(connection: &Connection) -> rusqlite::Result<Self> {
        let manifest = Self::lines(connection, &tables(), &WHOLE)?;
        Ok(Self { log: Some(log::head(connection)?), ..manifest })
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
                let mut line = line(kind, row.get_ref(0)?.as_str().unwrap_or("?"));
                // A file that was written by hand can have two rows of one key. None may stand for the other.
                while lines.contains_key(&line) {
                    line.push_str(" again");
                }
                lines.insert(line, row::hash(row, 1)?);
            }
        }
        for (kind, sql) in whole {
            let mut context = Context::new(&SHA256);
            let mut statement = connection.prepare_cached(sql)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                context.update(&row::hash(row, 0)?);
            }
            let mut hash = [0; 32];
            hash.copy_from_slice(context.finish().as_ref());
            lines.insert(line(kind, ""), hash);
        }
        Ok(Self { lines, log: None })
    }

    /// Whether the lines of this machine are those of `part`.
    pub(super) fn same_machine(&self, part: &Self) -> bool {
        let known = ["machine", "roots"];
        part.lines.len() == known.len()
            && known
                .into_iter()
                .all(|line| self.lines.contains_key(line) && self.lines.get(line) == part.lines.get(line))
    }

    pub(super) fn to_text(&self) -> String {
        let mut text = String::with_capacity(self.lines.len() * 96);
        let mut put = |line: &str, hash: &[u8; 32]| {
            text.push_str(line);
            text.push(' ');
            HEXLOWER.encode_append(hash, &mut text);
            text.push('\n');
        };
        for (line, hash) in &self.lines {
            put(line, hash);
        }
        if let Some(head) = &self.log {
            put(&line("log", &head.sequence.to_string()), &head.hash);
        }
        text
    }

    /// Reads what [`to_text`](Self::to_text) wrote; only ever called on text whose MAC fits.
    pub(super) fn from_text(text: &str) -> Option<Self> {
        let mut manifest = Self::default();
        for line in text.lines() {
            let (line, hash) = line.rsplit_once(' ')?;
            let hash = HEXLOWER.decode(hash.as_bytes()).ok()?.try_into().ok()?;
            match line.strip_prefix("log ") {
                Some(sequence) => manifest.log = Some(Head { sequence: sequence.parse().ok()?, hash }),
                None => drop(manifest.lines.insert(line.to_owned(), hash)),
            }
        }
        manifest.log.is_some().then_some(manifest)
    }

    /// Where the log ends.
    pub(super) fn head(&self) -> Head {
        self.log.unwrap_or(Head { sequence: 0, hash: ROOT })
    }

    /// Whether a row is as it was sealed. `None`: it is not there.
    pub(in crate::store) fn fits(&self, kind: &str, name: &str, hash: Option<&[u8; 32]>) -> bool {
        self.lines.get(&line(kind, name)) == hash
    }

    /// Whether the log ends with this entry.
    pub(in crate::store) fn ends(&self, head: Head) -> bool {
        self.log == Some(head)
    }

    /// How many rows of a kind that has names were sealed.
    pub(in crate::store) fn count(&self, kind: &str) -> usize {
        self.lines.range(format!("{kind} ")..format!("{kind}!")).count()
    }

    /// What differs in `now`, in words: clauses. Empty when nothing does.
    pub(super) fn differences(&self, now: &Self, flaw: Option<Flaw>) -> Vec<String> {
        let mut found = Vec::new();
        for (line, hash) in &self.lines {
            match now.lines.get(line) {
                Some(there) if there == hash => {}
                Some(_) => found.push(format!("{} changed", what(line))),
                None => found.push(format!("{} removed", what(line))),
            }
        }
        let added = now.lines.keys().filter(|line| !self.lines.contains_key(*line));
        found.extend(added.map(|line| format!("{} added", what(line))));
        found.extend(self.log(now, flaw));
        found
    }

    fn log(&self, now: &Self, flaw: Option<Flaw>) -> Option<String> {
        let (sealed, there) = (self.head().sequence, now.head().sequence);
        Some(match flaw {
            Some(Flaw::Unchained(sequence)) => format!("entry {sequence} of the log was changed"),
            Some(Flaw::Malformed(sequence)) if sequence <= sealed => {
                format!("entry {sequence} of the log was removed or changed")
            }
            Some(Flaw::Malformed(sequence)) => format!("entry {sequence} of the log was added"),
            None if there + 1 == sealed => format!("entry {sealed} of the log was removed"),
            None if there < sealed => format!("entries {} to {sealed} of the log were removed", there + 1),
            None if there > sealed => format!("entry {} of the log was added", sealed + 1),
            None if self.log != now.log => "the log was written anew".into(),
            None => return None,
        })
    }
}

/// A line without its hash. What the tool writes has names of letters, digits and a few signs; a name that somebody else wrote can not break a line.
fn line(kind: &str, name: &str) -> String {
    match name {
        "" => kind.to_owned(),
        _ if name.bytes().all(|byte| byte.is_ascii_graphic()) => format!("{kind} {name}"),
        _ => format!("{kind} {}", name.escape_default()),
    }
}

/// What a line is about, and the verb: `peer "watchtower" was`.
fn what(line: &str) -> String {
    let (kind, name) = line.split_once(' ').unwrap_or((line, ""));
    let name: String = name.chars().take(64).collect();
    match kind {
        "machine" => "the token's locator or this machine's own card was".into(),
        "roots" => "the list of added attestation roots was".into(),
        "keys" => "the list of tokens that open the seal was".into(),
        "plan" => "the plan was".into(),
        "peer" => format!("peer \"{name}\" was"),
        "card" => format!("the card of \"{name}\" was"),
        "revoked" => format!("the revocation of \"{}\" was", name.split('#').next().unwrap_or_default()),
        "psk" => format!("the pre-shared key with \"{name}\" was"),
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
