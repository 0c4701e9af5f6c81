//! The ceremony log: what was recorded when, and how it was compared. Append-only.
//!
//! Triggers of the schema refuse to change or remove an entry, whoever asks through SQL. They are no defence against somebody who can
//! write to the file and means to deceive.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, params};

use super::{fail, row};
use crate::error::Result;
use crate::identity::{Fingerprint, Identifier};

use crate::ceremony::log::{Event, LogEntry, plain};

/// Appends an entry to the transaction that changes what it tells of.
pub(super) fn append(
    connection: &Connection,
    event: Event,
    subject: &Identifier,
    fingerprint: Fingerprint,
    detail: &str,
) -> rusqlite::Result<()> {
    // A clock before 1970 is recorded as 1970.
    let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    connection.execute(
        "INSERT INTO log (time, event, subject, fingerprint, detail) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![
            i64::try_from(time).unwrap_or(i64::MAX),
            event.as_str(),
            subject.as_str(),
            data_encoding::HEXLOWER.encode(fingerprint.as_bytes()),
            plain(detail),
        ],
    )?;
    Ok(())
}

/// The last sequence number.
pub(super) fn last(connection: &Connection) -> rusqlite::Result<u64> {
    let last: i64 = connection.query_row("SELECT coalesce(max(sequence), 0) FROM log", [], |row| row.get(0))?;
    Ok(last.unsigned_abs())
}

pub(super) fn read(connection: &Connection, dir: &Path) -> Result<Vec<LogEntry>> {
    let entries = || -> rusqlite::Result<Vec<Option<LogEntry>>> {
        connection
            .prepare("SELECT sequence, time, event, subject, fingerprint, detail FROM log ORDER BY sequence")?
            .query_map([], |row| {
                let text = |column| row.get::<_, String>(column);
                Ok(entry(row.get(0)?, row.get(1)?, &text(2)?, &text(3)?, &text(4)?, text(5)?))
            })?
            .collect()
    };
    let entries = entries().map_err(|error| row::unreadable(dir, "log", error))?;
    (1..)
        .zip(entries)
        .map(|(sequence, entry)| {
            entry
                .filter(|entry| entry.sequence == sequence)
                .ok_or_else(|| fail::corrupt(dir, &format!("row {sequence} of table `log` is missing or malformed")))
        })
        .collect()
}

fn entry(sequence: i64, time: i64, event: &str, subject: &str, print: &str, detail: String) -> Option<LogEntry> {
    let event = Event::ALL.iter().copied().find(|known| known.as_str() == event)?;
    let print = data_encoding::HEXLOWER.decode(print.as_bytes()).ok()?;
    let fingerprint = Fingerprint::from_bytes(print.try_into().ok()?);
    if plain(&detail) != detail {
        return None;
    }
    let (sequence, time) = (sequence.try_into().ok()?, time.try_into().ok()?);
    Some(LogEntry {
        sequence,
        time,
        event,
        subject: subject.parse().ok()?,
        fingerprint,
        version: String::new(),
        detail,
        hash: [0; 32],
    })
}
