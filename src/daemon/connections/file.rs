//! The file of the log: how it is opened, appended to, pruned and verified.
//!
//! A write-ahead log: whoever reads never waits for the daemon, nor the daemon for whoever reads. With `synchronous=NORMAL` a commit costs no wait for the
//! disk: what was committed outlives the process, and a power cut may take the last commits, but never the order of those before.

use super::entry::Event;
use super::queue::Dated;
use crate::error::{Error, ErrorKind, Result};
use aws_lc_rs::digest::{Context, SHA256};
use rusqlite::config::DbConfig;
use rusqlite::ffi::ErrorCode;
use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior, params};
use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The file in the store's directory.
pub const FILE_NAME: &str = "connections.db";

/// `application_id` of the database header: "CLVC" in ASCII.
const APPLICATION_ID: i64 = 0x434c_5643;
const VERSION: i64 = 1;

/// Files that were set aside and are kept.
const KEPT: usize = 3;

const BUSY: Duration = Duration::from_secs(5);

/// All that is in it, by name.
const TABLES: [(&str, &str); 2] = [
    (
        "anchor",
        "CREATE TABLE anchor (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    sequence INTEGER NOT NULL,
    hash BLOB NOT NULL
) STRICT",
    ),
    (
        "entries",
        "CREATE TABLE entries (
    sequence INTEGER PRIMARY KEY,
    time INTEGER NOT NULL,
    entry TEXT NOT NULL,
    hash BLOB NOT NULL
) STRICT",
    ),
];

/// The end of a chain, or of what was taken off its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The number of the last entry; 0 in a log without entries.
    pub sequence: u64,
    /// Its hash: `SHA-256("claviger connection log 1\n" || hash before || sequence || time || entry)`, numbers as 8 bytes, big-endian; time in milliseconds since 1970.
    pub hash: [u8; 32],
}

impl Head {
    pub(super) fn then(&self, time: u64, entry: &str) -> Self {
        let sequence = self.sequence.saturating_add(1);
        let mut context = Context::new(&SHA256);
        context.update(b"claviger connection log 1\n");
        context.update(&self.hash);
        context.update(&sequence.to_be_bytes());
        context.update(&time.to_be_bytes());
        context.update(entry.as_bytes());
        let mut hash = [0; 32];
        hash.copy_from_slice(context.finish().as_ref());
        Self { sequence, hash }
    }
}

/// What a chain was found to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// The last entry that was pruned, or where the chain began.
    pub anchor: Head,
    /// The last entry that holds.
    pub head: Head,
    /// The number of the first entry that does not fit the one before, is missing or malformed, and how.
    pub flaw: Option<(u64, &'static str)>,
}

pub(super) struct File {
    connection: Connection,
    path: PathBuf,
    /// Of the file, to see that it is still the one in the directory.
    inode: u64,
    anchor: u64,
    pub(super) head: Head,
}

/// Why a file can not be gone on with.
enum Refused {
    /// It is set aside.
    Damaged(String),
    Failed(Error),
}

impl File {
    /// Opens the log in `dir`, or begins one. A damaged one is set aside, and the event says so: it is the first of the new chain.
    ///
    /// # Errors
    /// [`ErrorKind::StoreIo`], [`ErrorKind::StorePermissions`], [`ErrorKind::StoreNewer`], [`ErrorKind::StoreBusy`].
    pub(super) fn open(dir: &Path) -> Result<(Self, Option<Event>)> {
        let path = dir.join(FILE_NAME);
        match Self::existing(&path) {
            Ok(file) => Ok((file, None)),
            Err(Refused::Failed(error)) => Err(error),
            Err(Refused::Damaged(why)) => {
                let kept = set_aside(&path)?;
                let file = Self::existing(&path).map_err(|refused| match refused {
                    Refused::Failed(error) => error,
                    Refused::Damaged(why) => failed(&path, &why, None),
                })?;
                Ok((file, Some(Event::NewChain { why, kept: Some(kept) })))
            }
        }
    }

    fn existing(path: &Path) -> std::result::Result<Self, Refused> {
        let inode = private(path).map_err(Refused::Failed)?;
        let refused = |error: rusqlite::Error| match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Refused::Damaged(format!("SQLite: {error}")),
            _ => Refused::Failed(sql(path, error)),
        };
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(refused)?;
        let chain = Self::prepare(&connection).map_err(refused)?;
        let chain = chain.map_err(|version| {
            if version > VERSION {
                return Refused::Failed(Error::new(
                    ErrorKind::StoreNewer,
                    format!("The log of connections in {} was written by a newer release.", path.display()),
                    "Install the newer release of claviger, or move the file away.",
                ));
            }
            Refused::Damaged("it is no log of connections".to_owned())
        })?;
        if let Some((sequence, how)) = chain.flaw {
            return Err(Refused::Damaged(format!("entry {sequence} {how}")));
        }
        Ok(Self { connection, path: path.to_owned(), inode, anchor: chain.anchor.sequence, head: chain.head })
    }

    /// `Err`: a file of that version, or of another program.
    fn prepare(connection: &Connection) -> rusqlite::Result<std::result::Result<Chain, i64>> {
        connection.busy_timeout(BUSY)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        connection.execute_batch(
            "PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA temp_store = MEMORY; PRAGMA synchronous = NORMAL;",
        )?;
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
        connection.pragma_update_and_check(None, "journal_size_limit", 4 << 20, |_| Ok(()))?;
        let transaction = rusqlite::Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
        if let Err(version) = identity(&transaction)? {
            // Nobody has written to it.
            if version != 0 || !objects(&transaction)?.is_empty() {
                return Ok(Err(version));
            }
            // Where a chain begins, so that no two begin alike.
            let mut root = [0; 32];
            aws_lc_rs::rand::fill(&mut root).map_err(|_| rusqlite::Error::InvalidQuery)?;
            TABLES.iter().try_for_each(|(_, sql)| transaction.execute_batch(sql))?;
            transaction.execute("INSERT INTO anchor (id, sequence, hash) VALUES (1, 0, ?1)", params![root])?;
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
            transaction.pragma_update(None, "user_version", VERSION)?;
        }
        // No other tables, and no triggers.
        if objects(&transaction)? != TABLES.map(|(name, sql)| (name.to_owned(), Some(sql.to_owned()))) {
            return Ok(Err(VERSION));
        }
        let chain = verify(&transaction, None)?.0;
        transaction.commit()?;
        Ok(Ok(chain))
    }

    /// Whether the file in the directory is still this one.
    pub(super) fn is_there(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|meta| meta.ino() == self.inode)
    }

    /// Appends entries, in one transaction, and keeps at most `limit`: what is too many is taken off the beginning in one go, with a twentieth of those that are left.
    ///
    /// # Errors
    /// [`ErrorKind::StoreIo`], [`ErrorKind::StoreBusy`], [`ErrorKind::StoreCorrupt`]; then nothing was written.
    pub(super) fn append(&mut self, entries: &[Dated], limit: u64) -> Result<()> {
        let (head, anchor) = self.write(entries, limit).map_err(|error| sql(&self.path, error))?;
        (self.head, self.anchor) = (head, anchor);
        Ok(())
    }

    fn write(&mut self, entries: &[Dated], limit: u64) -> rusqlite::Result<(Head, u64)> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut head = self.head;
        {
            let mut insert = transaction
                .prepare_cached("INSERT INTO entries (sequence, time, entry, hash) VALUES (?1, ?2, ?3, ?4)")?;
            for (time, event) in entries {
                // Names, numbers and lists of them: they have no form that is no JSON.
                let text = serde_json::to_string(event).unwrap_or_default();
                head = head.then(*time, &text);
                insert.execute(params![integer(head.sequence), integer(*time), text, head.hash])?;
            }
        }
        let mut anchor = self.anchor;
        if head.sequence - anchor > limit {
            anchor = head.sequence - (limit - limit / 20);
            transaction.execute(
                "UPDATE anchor SET sequence = ?1, hash = (SELECT hash FROM entries WHERE sequence = ?1)",
                params![integer(anchor)],
            )?;
            transaction.execute("DELETE FROM entries WHERE sequence <= ?1", params![integer(anchor)])?;
        }
        transaction.commit()?;
        Ok((head, anchor))
    }
}

/// Names of tables, indices and triggers, and the SQL that made them.
fn objects(connection: &Connection) -> rusqlite::Result<Vec<(String, Option<String>)>> {
    let mut statement = connection.prepare("SELECT name, sql FROM sqlite_schema ORDER BY name")?;
    statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// `Err`: another program's, or a newer release's, of that version.
pub(super) fn identity(connection: &Connection) -> rusqlite::Result<std::result::Result<(), i64>> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let version = pragma("user_version")?;
    let is_ours = pragma("application_id")? == APPLICATION_ID;
    Ok(match (is_ours, version) {
        (true, VERSION) => Ok(()),
        (true, version) => Err(version.max(VERSION)),
        // It is nobody's file, or somebody else's.
        (false, version) => Err(version.min(VERSION)),
    })
}

/// Walks the whole chain. `noted`: whether that head is one of its own, as far as that is still to be seen.
pub(super) fn verify(connection: &Connection, noted: Option<Head>) -> rusqlite::Result<(Chain, Option<bool>)> {
    let head_of =
        |sequence: i64, hash: Option<[u8; 32]>| Some(Head { sequence: u64::try_from(sequence).ok()?, hash: hash? });
    let anchor = connection
        .query_row("SELECT sequence, hash FROM anchor WHERE id = 1", [], |row| {
            Ok(head_of(row.get(0)?, row.get_ref(1)?.as_blob().ok().and_then(|hash| hash.try_into().ok())))
        })
        .optional()?
        .flatten();
    let Some(anchor) = anchor else {
        let none = Head { sequence: 0, hash: [0; 32] };
        return Ok((Chain { anchor: none, head: none, flaw: Some((0, "is not there")) }, None));
    };
    let mut chain = Chain { anchor, head: anchor, flaw: None };
    let mut seen = noted.and_then(|noted| (noted.sequence == anchor.sequence).then_some(noted == anchor));
    let mut statement = connection.prepare("SELECT sequence, time, entry, hash FROM entries ORDER BY sequence")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let next = chain.head.sequence + 1;
        if row.get_ref(0)?.as_i64().ok() != Some(integer(next)) {
            chain.flaw = Some((next, "is missing"));
            break;
        }
        let (time, text) = (row.get_ref(1)?.as_i64().ok(), row.get_ref(2)?.as_str().ok());
        let (Some(time), Some(text)) = (time.and_then(|time| u64::try_from(time).ok()), text) else {
            chain.flaw = Some((next, "is malformed"));
            break;
        };
        let head = chain.head.then(time, text);
        if row.get_ref(3)?.as_blob().ok() != Some(head.hash.as_slice()) {
            chain.flaw = Some((next, "does not fit the one before it"));
            break;
        }
        if noted.is_some_and(|noted| noted.sequence == next) {
            seen = Some(noted == Some(head));
        }
        chain.head = head;
    }
    Ok((chain, seen))
}

pub(super) fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Sees to it that the file is there, this user's, and closed to others. Its inode.
fn private(path: &Path) -> Result<u64> {
    let io = |what: &str, error: std::io::Error| failed(path, &format!("{what}: {error}"), Some(error));
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        // What lies beside a file that is gone is not this one's.
        Ok(_) => ["-wal", "-shm"].iter().for_each(|suffix| drop(fs::remove_file(with(path, suffix)))),
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(io("could not be made", error)),
        Err(_) => {}
    }
    let meta = fs::symlink_metadata(path).map_err(|error| io("could not be looked at", error))?;
    let us = rustix::process::geteuid().as_raw();
    if !meta.is_file() || meta.uid() != us {
        return Err(Error::new(
            ErrorKind::StorePermissions,
            format!("The log of connections {} is not a file of this user.", path.display()),
            format!("Give it to this user with `chown {us} '{}'`, or move it away.", path.display()),
        ));
    }
    if meta.mode() & 0o077 != 0 {
        fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(|error| io("could not be closed", error))?;
        tracing::warn!(target: "claviger::daemon", mode = format!("{:04o}", meta.mode() & 0o7777), "the log of connections was open to other users, and is closed now");
    }
    Ok(meta.ino())
}

fn with(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Gives a damaged log another name, and the last of those before it to nobody.
fn set_aside(path: &Path) -> Result<String> {
    let io = |error: std::io::Error| failed(path, &format!("could not be set aside: {error}"), Some(error));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let prefix = format!("{FILE_NAME}.damaged-");
    let kept = format!("{prefix}{now}");
    let to = path.with_file_name(&kept);
    fs::rename(path, &to).map_err(io)?;
    // What was written last is in there. Without it the file is as old as it was.
    let _ = fs::rename(with(path, "-wal"), with(&to, "-wal"));
    let _ = fs::remove_file(with(path, "-shm"));
    let dir = path.parent().unwrap_or(path);
    let names = fs::read_dir(dir).map_err(io)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut old: Vec<_> =
        names.filter(|name| name.starts_with(&prefix) && !name.ends_with("-wal") && !name.ends_with("-shm")).collect();
    old.sort();
    for name in &old[..old.len().saturating_sub(KEPT)] {
        for suffix in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(dir.join(format!("{name}{suffix}")));
        }
    }
    Ok(kept)
}

fn failed(path: &Path, why: &str, error: Option<std::io::Error>) -> Error {
    let failure = Error::new(
        ErrorKind::StoreIo,
        format!("The log of connections {} {why}.", path.display()),
        "Check the directory, its permissions and the room on its disk; it is tried again meanwhile.",
    );
    match error {
        Some(error) => failure.because(error),
        None => failure,
    }
}

/// What SQLite's failures mean for the log.
pub(super) fn sql(path: &Path, error: rusqlite::Error) -> Error {
    let shown = path.display();
    let (kind, why, hint) = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => (
            ErrorKind::StoreBusy,
            "another process holds its lock".to_owned(),
            format!("See which one with `fuser {shown}`, and end it."),
        ),
        Some(ErrorCode::DiskFull) => (
            ErrorKind::StoreIo,
            "the disk is full".to_owned(),
            "Make room on its file system; nothing else of the daemon depends on it.".to_owned(),
        ),
        Some(ErrorCode::ReadOnly) => (
            ErrorKind::StoreIo,
            "it is read-only".to_owned(),
            "Make the file, its directory and its file system writable for the daemon's user.".to_owned(),
        ),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => (
            ErrorKind::StoreCorrupt,
            "it is damaged".to_owned(),
            "Start the daemon: it keeps the damaged file beside a new one.".to_owned(),
        ),
        _ => (
            ErrorKind::StoreIo,
            format!("SQLite: {error}"),
            "Check the disk that holds it and the permissions of its directory.".to_owned(),
        ),
    };
    Error::new(kind, format!("The log of connections {shown} fails: {why}."), hint).because(error)
}
