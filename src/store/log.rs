//! The ceremony log: what was recorded when, and how it was compared. Append-only, and each entry bound to all before it.
//!
//! Triggers of the schema refuse to change or remove an entry, whoever asks through SQL, and the chain of hashes shows an entry that was changed
//! all the same. Neither is a defence against somebody who can write to the file and computes the chain anew: that is what the seal is for, and
//! the transcripts on paper.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension, params};

use super::{fail, row};
use crate::ceremony::log::{Event, LogEntry, ROOT, chained, plain};
use crate::error::Result;
use crate::identity::{Fingerprint, Identifier};

/// Longest version of a release, in bytes.
const MAX_VERSION_LEN: usize = 32;

/// The last entry's number and hash; 0 and [`ROOT`] in a log without entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) sequence: u64,
    pub(super) hash: [u8; 32],
}

/// What is wrong with a log: the number of the first entry that is missing, malformed, or does not fit the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    Malformed(u64),
    Unchained(u64),
}

/// Seconds since 1970. A clock before 1970 is recorded as 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Appends an entry to the transaction that changes what it tells of.
pub(super) fn append(
    connection: &Connection,
    event: Event,
    subject: &Identifier,
    fingerprint: Fingerprint,
    detail: &str,
) -> rusqlite::Result<()> {
    let head = head(connection)?;
    let mut entry = LogEntry {
        sequence: head.sequence + 1,
        time: now(),
        event,
        subject: subject.clone(),
        fingerprint,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        detail: plain(detail),
        hash: ROOT,
    };
    entry.hash = chained(&head.hash, &entry);
    insert(connection, &entry)
}

fn insert(connection: &Connection, entry: &LogEntry) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO log (sequence, time, event, subject, fingerprint, version, detail, hash)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            row::integer(entry.sequence),
            row::integer(entry.time),
            entry.event.as_str(),
            entry.subject.as_str(),
            data_encoding::HEXLOWER.encode(entry.fingerprint.as_bytes()),
            entry.version,
            entry.detail,
            entry.hash,
        ])?;
    Ok(())
}

/// The last sequence number.
pub(super) fn last(connection: &Connection) -> rusqlite::Result<u64> {
    let last: i64 = connection.query_row("SELECT coalesce(max(sequence), 0) FROM log", [], |row| row.get(0))?;
    Ok(last.unsigned_abs())
}

/// The end of the chain, as the file has it.
pub(super) fn head(connection: &Connection) -> rusqlite::Result<Head> {
    let last = connection
        .query_row("SELECT sequence, hash FROM log ORDER BY sequence DESC LIMIT 1", [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get_ref(1)?.as_blob().ok().and_then(|hash| hash.try_into().ok())))
        })
        .optional()?;
    // A hash of another length fits nothing, and the chain's check says so.
    Ok(last.map_or(Head { sequence: 0, hash: ROOT }, |(sequence, hash)| Head {
        sequence: sequence.unsigned_abs(),
        hash: hash.unwrap_or(ROOT),
    }))
}

/// Every entry, and what is wrong with the first one that is wrong, if one is.
pub(super) fn entries(connection: &Connection) -> rusqlite::Result<(Vec<LogEntry>, Option<Flaw>)> {
    let mut statement = connection.prepare_cached(
        "SELECT sequence, time, event, subject, fingerprint, version, detail, hash FROM log ORDER BY sequence",
    )?;
    let mut rows = statement.query([])?;
    let mut entries: Vec<LogEntry> = Vec::new();
    let mut before = ROOT;
    while let Some(row) = rows.next()? {
        let expected = entries.len() as u64 + 1;
        let read = || -> rusqlite::Result<Option<LogEntry>> {
            let text = |column| row.get::<_, String>(column);
            let hash = row.get_ref(7)?.as_blob().ok().and_then(|hash| hash.try_into().ok());
            let told = Told { event: &text(2)?, subject: &text(3)?, fingerprint: &text(4)? };
            Ok(entry(row.get(0)?, row.get(1)?, &told, text(5)?, text(6)?)
                .zip(hash)
                .map(|(entry, hash)| LogEntry { hash, ..entry }))
        };
        let Some(entry) = read().ok().flatten().filter(|entry| entry.sequence == expected) else {
            return Ok((entries, Some(Flaw::Malformed(expected))));
        };
        if chained(&before, &entry) != entry.hash {
            return Ok((entries, Some(Flaw::Unchained(expected))));
        }
        before = entry.hash;
        entries.push(entry);
    }
    Ok((entries, None))
}

pub(super) fn read(connection: &Connection, dir: &Path) -> Result<Vec<LogEntry>> {
    match entries(connection).map_err(|error| row::unreadable(dir, "log", error))? {
        (entries, None) => Ok(entries),
        (_, Some(Flaw::Malformed(sequence))) => {
            Err(fail::corrupt(dir, &format!("row {sequence} of table `log` is missing or malformed")))
        }
        (_, Some(Flaw::Unchained(sequence))) => {
            Err(fail::corrupt(dir, &format!("entry {sequence} of the log was changed: it does not fit its hash")))
        }
    }
}

/// The second half of the migration to version 3: the entries of `log_2`, chained, into `log`.
pub(super) fn chain_old(connection: &Connection, dir: &Path) -> Result<()> {
    let failed = fail::sql(dir, "chain the ceremony log");
    let old = || -> rusqlite::Result<Vec<Option<LogEntry>>> {
        connection
            .prepare("SELECT sequence, time, event, subject, fingerprint, detail FROM log_2 ORDER BY sequence")?
            .query_map([], |row| {
                let text = |column| row.get::<_, String>(column);
                let told = Told { event: &text(2)?, subject: &text(3)?, fingerprint: &text(4)? };
                Ok(entry(row.get(0)?, row.get(1)?, &told, String::new(), text(5)?))
            })?
            .collect()
    };
    let mut before = ROOT;
    for (sequence, entry) in (1..).zip(old().map_err(|error| row::unreadable(dir, "log", error))?) {
        let mut entry = entry
            .filter(|entry| entry.sequence == sequence)
            .ok_or_else(|| fail::corrupt(dir, &format!("row {sequence} of table `log` is missing or malformed")))?;
        entry.hash = chained(&before, &entry);
        before = entry.hash;
        insert(connection, &entry).map_err(&failed)?;
    }
    connection.execute_batch("DROP TABLE log_2").map_err(&failed)
}

/// An entry's text columns, before they are believed.
struct Told<'a> {
    event: &'a str,
    subject: &'a str,
    fingerprint: &'a str,
}

fn entry(sequence: i64, time: i64, told: &Told<'_>, version: String, detail: String) -> Option<LogEntry> {
    let event = Event::ALL.iter().copied().find(|known| known.as_str() == told.event)?;
    let print = data_encoding::HEXLOWER.decode(told.fingerprint.as_bytes()).ok()?;
    let fingerprint = Fingerprint::from_bytes(print.try_into().ok()?);
    let release = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'+');
    if plain(&detail) != detail || version.len() > MAX_VERSION_LEN || !version.bytes().all(release) {
        return None;
    }
    let (sequence, time) = (sequence.try_into().ok()?, time.try_into().ok()?);
    Some(LogEntry {
        sequence,
        time,
        event,
        subject: told.subject.parse().ok()?,
        fingerprint,
        version,
        detail,
        hash: ROOT,
    })
}
