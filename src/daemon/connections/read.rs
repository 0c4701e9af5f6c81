//! The log, read by another process than the daemon, whether or not that runs.

use super::entry::Event;
use super::file::{Chain, FILE_NAME, Head, identity, integer, sql, verify};
use crate::error::{Error, ErrorKind, Result};
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

const BUSY: Duration = Duration::from_secs(5);

/// Longest entry that is read, in bytes.
const MAX_ENTRY: usize = 64 * 1024;

/// The log of connections in a store's directory, opened to be read.
pub struct Log {
    connection: Connection,
    path: PathBuf,
}

/// An entry as it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// Its number, from 1.
    pub sequence: u64,
    /// When, in milliseconds since 1970, by this machine's clock.
    pub time: u64,
    /// The same, as `2026-01-31T12:00:00.000Z` (RFC 3339).
    pub date: String,
    /// Its JSON, as it was written.
    pub text: String,
    /// What happened; `None` when a newer release wrote it.
    pub event: Option<Event>,
    /// Its hash.
    pub hash: [u8; 32],
}

/// Which entries are wanted.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// After the entry of that number.
    pub after: u64,
    /// Not before that, in milliseconds since 1970.
    pub since: u64,
    /// About that peer.
    pub peer: Option<String>,
    /// Of what went wrong.
    pub failed: bool,
    /// So many, the newest.
    pub limit: usize,
}

impl Log {
    /// Opens the log in the store's directory `dir`. Writes nothing.
    ///
    /// # Errors
    /// [`ErrorKind::StoreAbsent`] when there is none, [`ErrorKind::StoreNewer`], [`ErrorKind::StoreCorrupt`] for another file, [`ErrorKind::StoreIo`].
    pub fn open(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE_NAME);
        if !path.exists() {
            return Err(Error::new(
                ErrorKind::StoreAbsent,
                format!("There is no log of connections in {}.", dir.display()),
                "It is begun by `claviger run`, unless `connections` under [log] is 0; name another directory with `--store DIR`.",
            ));
        }
        let connection = connect(&path).map_err(|error| sql(&path, error))?;
        match identity(&connection).map_err(|error| sql(&path, error))? {
            Ok(()) => Ok(Self { connection, path }),
            Err(version) if version > 1 => Err(Error::new(
                ErrorKind::StoreNewer,
                format!("The log of connections {} was written by a newer release.", path.display()),
                "Install the newer release of claviger on this machine.",
            )),
            Err(_) => Err(Error::new(
                ErrorKind::StoreCorrupt,
                format!("{} is no log of connections.", path.display()),
                "Start the daemon: it keeps the file beside a new one.",
            )),
        }
    }

    /// The entries that `filter` wants, oldest first.
    ///
    /// # Errors
    /// [`ErrorKind::StoreIo`], [`ErrorKind::StoreCorrupt`].
    pub fn entries(&self, filter: &Filter) -> Result<Vec<Entry>> {
        self.read(filter).map_err(|error| sql(&self.path, error))
    }

    fn read(&self, filter: &Filter) -> rusqlite::Result<Vec<Entry>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT sequence, time, strftime('%Y-%m-%dT%H:%M:%fZ', time / 1000.0, 'unixepoch'), entry, hash FROM entries
             WHERE sequence > ?1 AND time >= ?2 AND length(entry) <= ?3 ORDER BY sequence DESC",
        )?;
        let limits = params![integer(filter.after), integer(filter.since), integer(MAX_ENTRY as u64)];
        let mut rows = statement.query(limits)?;
        let mut entries = Vec::new();
        while entries.len() < filter.limit
            && let Some(row) = rows.next()?
        {
            let text: String = row.get(3)?;
            let event: Option<Event> = serde_json::from_str(&text).ok();
            let wanted = |event: &Event| {
                filter.peer.as_deref().is_none_or(|peer| event.peer() == Some(peer))
                    && (!filter.failed || event.is_failure())
            };
            // What is not known here is about nobody who is looked for.
            if !event.as_ref().map_or(filter.peer.is_none() && !filter.failed, wanted) {
                continue;
            }
            entries.push(Entry {
                sequence: row.get::<_, i64>(0)?.unsigned_abs(),
                time: row.get::<_, i64>(1)?.unsigned_abs(),
                date: row.get::<_, Option<String>>(2)?.unwrap_or_default(),
                text,
                event,
                hash: row.get(4)?,
            });
        }
        entries.reverse();
        Ok(entries)
    }

    /// Walks the whole chain. `noted`: whether that head, noted earlier, is one of its own; `None` when it was pruned, or is still to come.
    ///
    /// # Errors
    /// [`ErrorKind::StoreIo`], [`ErrorKind::StoreCorrupt`].
    pub fn verify(&self, noted: Option<Head>) -> Result<(Chain, Option<bool>)> {
        verify(&self.connection, noted).map_err(|error| sql(&self.path, error))
    }

    /// Whether the log goes on from that head, or is another one. `true` also when that entry was pruned meanwhile.
    ///
    /// # Errors
    /// [`ErrorKind::StoreIo`], [`ErrorKind::StoreCorrupt`].
    pub fn goes_on_from(&self, head: &Head) -> Result<bool> {
        let hash = "SELECT hash FROM entries WHERE sequence = ?1";
        let hash = self.connection.query_row(hash, params![integer(head.sequence)], |row| row.get::<_, [u8; 32]>(0));
        let hash = hash.optional().map_err(|error| sql(&self.path, error))?;
        Ok(hash.map_or(self.head()?.sequence >= head.sequence, |hash| hash == head.hash))
    }

    /// The last entry's number and hash, as the file has them.
    ///
    /// # Errors
    /// [`ErrorKind::StoreIo`], [`ErrorKind::StoreCorrupt`].
    pub fn head(&self) -> Result<Head> {
        let last = |table: &str| {
            let last = format!("SELECT sequence, hash FROM {table} ORDER BY sequence DESC LIMIT 1");
            let head = |row: &rusqlite::Row<'_>| {
                Ok(Head { sequence: row.get::<_, i64>(0)?.unsigned_abs(), hash: row.get(1)? })
            };
            self.connection.query_row(&last, [], head).optional().map_err(|error| sql(&self.path, error))
        };
        let head = match last("entries")? {
            None => last("anchor")?,
            head => head,
        };
        head.ok_or_else(|| {
            Error::new(
                ErrorKind::StoreCorrupt,
                "The log of connections has no beginning.",
                "Start the daemon: it keeps the damaged file beside a new one.",
            )
        })
    }
}

/// A reader of a write-ahead log needs its index beside it, or to make one. Where that can not be made nobody writes either.
fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let usual = open(|| Connection::open_with_flags(path, flags));
    match usual {
        Ok(connection) => Ok(connection),
        Err(error) => {
            let path: String = path.as_os_str().as_bytes().iter().map(|byte| format!("%{byte:02X}")).collect();
            let uri = format!("file:{path}?immutable=1");
            let read_only = error.sqlite_error_code() == Some(rusqlite::ffi::ErrorCode::CannotOpen)
                || error.sqlite_error_code() == Some(rusqlite::ffi::ErrorCode::ReadOnly);
            if !read_only {
                return Err(error);
            }
            open(|| Connection::open_with_flags(&uri, flags | OpenFlags::SQLITE_OPEN_URI))
        }
    }
}

fn open(connect: impl Fn() -> rusqlite::Result<Connection>) -> rusqlite::Result<Connection> {
    let connection = connect()?;
    connection.busy_timeout(BUSY)?;
    connection.execute_batch("PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA query_only = ON;")?;
    // The first look at the file itself.
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    Ok(connection)
}
