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

/// Longest [`LogEntry::detail`], in bytes. Longer text is cut.
pub const MAX_DETAIL_LEN: usize = 256;

macro_rules! events {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// What happened. Its [text](Self::as_str) is stored and shown, and never changes meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Event {
            $($(#[$doc])* $name,)*
        }

        impl Event {
            /// Every event.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The event, in kebab case.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

events! {
    /// The store was created; the subject is this machine.
    Created = "created",
    /// A peer was recorded.
    PeerAdded = "peer-added",
    /// A peer was removed.
    PeerRemoved = "peer-removed",
}

/// One line of the ceremony log. Public data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// 1, 2, 3…, without a gap.
    pub sequence: u64,
    /// Seconds since 1970-01-01 00:00:00 UTC, by this machine's clock. The clock may have been set back between entries.
    pub time: u64,
    /// What happened.
    pub event: Event,
    /// To which machine.
    pub subject: Identifier,
    /// Its fingerprint then, as [`Peer::fingerprint`](super::Peer::fingerprint) gives it.
    pub fingerprint: Fingerprint,
    /// How it was done: `words compared`, `fingerprint given`. At most [`MAX_DETAIL_LEN`] bytes, no control characters; may be empty.
    pub detail: String,
}

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
            shown(detail),
        ],
    )?;
    Ok(())
}

/// `detail` as it may be stored and shown: no control characters, bounded.
fn shown(detail: &str) -> String {
    let mut text = String::new();
    for c in detail.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if text.len() + c.len_utf8() > MAX_DETAIL_LEN {
            break;
        }
        text.push(c);
    }
    text
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
    if shown(&detail) != detail {
        return None;
    }
    let (sequence, time) = (sequence.try_into().ok()?, time.try_into().ok()?);
    Some(LogEntry { sequence, time, event, subject: subject.parse().ok()?, fingerprint, detail })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_are_bounded_and_plain() {
        assert_eq!(shown("a\n\u{1b}[2Jb"), "a  [2Jb");
        let long = "ä".repeat(MAX_DETAIL_LEN);
        assert_eq!(shown(&long).len(), MAX_DETAIL_LEN);
        assert_eq!(shown(&format!("x{long}")).len(), MAX_DETAIL_LEN - 1);
    }
}
