//! The database's schema: how a connection is set up, and how a store of any release becomes one of this release.

use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use super::{BUSY_TIMEOUT, fail, log};
use crate::error::{Error, ErrorKind, Result};

/// `application_id` of the database header: "CLAV" in ASCII.
pub(super) const APPLICATION_ID: u32 = 0x434c_4156;

/// One step from a version to the next.
#[derive(Clone, Copy)]
pub(super) struct Migration {
    sql: &'static str,
    /// What SQL can not do, after it.
    then: Option<fn(&Connection, &Path) -> Result<()>>,
}

impl Migration {
    pub(super) const fn sql(sql: &'static str) -> Self {
        Self { sql, then: None }
    }

    fn run(&self, connection: &Connection, dir: &Path) -> Result<()> {
        connection.execute_batch(self.sql).map_err(fail::sql(dir, "write the store's schema"))?;
        self.then.map_or(Ok(()), |then| then(connection, dir))
    }
}

/// The way from an empty database to this release: entry `n` leads from version `n` to `n + 1`. Entries are never changed once
/// released, only added. `user_version` of the database header is the number of entries that were run.
pub(super) const MIGRATIONS: &[Migration] = &[
    Migration::sql(include_str!("schema/1.sql")),
    Migration::sql(include_str!("schema/2.sql")),
    Migration { sql: include_str!("schema/3.sql"), then: Some(log::chain_old) },
    Migration::sql(include_str!("schema/4.sql")),
];

/// How long to wait between two looks at a lock.
const LOOK: Duration = Duration::from_millis(1);

/// Connects to the file, which must be there, and sets the connection up. Neither reads nor writes the database yet.
pub(super) fn connect(path: &Path, dir: &Path) -> Result<Connection> {
    let failed = fail::sql(dir, "open the store");
    // Without SQLITE_OPEN_URI: a path that begins with `file:` is a path.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(&failed)?;
    connection.busy_handler(Some(wait)).map_err(&failed)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true).map_err(&failed)?;
    connection
        .execute_batch(
            "PRAGMA trusted_schema = OFF; PRAGMA foreign_keys = ON; PRAGMA recursive_triggers = ON;
             PRAGMA cell_size_check = ON; PRAGMA secure_delete = ON; PRAGMA temp_store = MEMORY;
             PRAGMA synchronous = EXTRA;",
        )
        .map_err(&failed)?;
    Ok(connection)
}

/// Waits a millisecond for another process's lock, `looks` times before. SQLite's own `busy_timeout` looks ever more seldom, in the end
/// every 100 ms, and misses the short gaps between the transactions of a process that writes without a pause.
#[allow(clippy::disallowed_methods)] // sleep: a file lock can only be polled.
fn wait(looks: i32) -> bool {
    std::thread::sleep(LOOK);
    u32::try_from(looks).is_ok_and(|looks| LOOK * looks < BUSY_TIMEOUT)
}

/// Refuses what is no store, and a store of a newer release, before anything in it is believed.
pub(super) fn check_identity(connection: &Connection, dir: &Path) -> Result<()> {
    let failed = fail::sql(dir, "open the store");
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    // The first read of the file: it also rolls back what a killed writer left, and may wait for a lock.
    if pragma("application_id").map_err(&failed)? != i64::from(APPLICATION_ID) {
        return Err(fail::corrupt(dir, "`store.db` is not a store of claviger"));
    }
    let version = pragma("user_version").map_err(&failed)?;
    if usize::try_from(version).is_ok_and(|version| version > MIGRATIONS.len()) {
        return Err(newer(dir, usize::try_from(version).unwrap_or(usize::MAX)));
    }
    if version < 1 {
        return Err(fail::corrupt(dir, "its version is not one that was ever written"));
    }
    Ok(())
}

fn newer(dir: &Path, version: usize) -> Error {
    Error::new(
        ErrorKind::StoreNewer,
        format!(
            "The store in {} has version {version}, written by a newer release; this one reads up to {}.",
            dir.display(),
            MIGRATIONS.len()
        ),
        "Install the newer release of claviger on this machine; nothing was changed.",
    )
}

/// Brings an older store to the end of `migrations`, in one transaction.
pub(super) fn upgrade(connection: &mut Connection, migrations: &[Migration], dir: &Path) -> Result<()> {
    let failed = fail::sql(dir, "bring the store to this release's version");
    // A file that somebody switched to a write-ahead log stays so until told otherwise.
    connection.pragma_update_and_check(None, "journal_mode", "DELETE", |_| Ok(())).map_err(&failed)?;
    if version(connection).map_err(&failed)? == migrations.len() {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(&failed)?;
    migrate(&transaction, migrations, dir)?;
    transaction.commit().map_err(&failed)
}

/// Runs the migrations that are missing. The version is read inside the transaction, where nobody changes it any more.
pub(super) fn migrate(transaction: &Transaction<'_>, migrations: &[Migration], dir: &Path) -> Result<()> {
    let failed = fail::sql(dir, "write the store's schema");
    let from = version(transaction).map_err(&failed)?;
    // Another process may have been first, one of a newer release, too.
    if from == migrations.len() {
        return Ok(());
    }
    if from > migrations.len() {
        return Err(newer(dir, from));
    }
    for migration in migrations.iter().skip(from) {
        migration.run(transaction, dir)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(&failed)?;
    let to = i64::try_from(migrations.len()).unwrap_or(i64::MAX);
    transaction.pragma_update(None, "user_version", to).map_err(&failed)
}

/// A version below 0 was never written; it counts as beyond every migration, so that nothing is run on it.
fn version(connection: &Connection) -> rusqlite::Result<usize> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    Ok(usize::try_from(version).unwrap_or(usize::MAX))
}

/// `integrity_check` over the file, indices too: nothing is looked up by one that does not fit its table, and a schema that is what the migrations make: the same tables, constraints and triggers, and no others.
pub(super) fn check_structure(connection: &Connection, dir: &Path) -> Result<()> {
    let failed = fail::sql(dir, "check the store");
    let verdict: String = connection.pragma_query_value(None, "integrity_check", |row| row.get(0)).map_err(&failed)?;
    if verdict != "ok" {
        return Err(fail::corrupt(dir, &format!("SQLite's integrity_check says {verdict:?}")));
    }
    if is_expected(connection, dir)? {
        Ok(())
    } else {
        Err(fail::corrupt(dir, "its tables or triggers are not those of its version"))
    }
}

/// Whether the schema is what the migrations make. One that is not may do more than it is asked: a trigger changes what is sealed next.
pub(super) fn is_expected(connection: &Connection, dir: &Path) -> Result<bool> {
    Ok(schema(connection).map_err(fail::sql(dir, "check the store"))? == *expected(dir)?)
}

/// A table, index or trigger: what it is, its name, its table, and the SQL that made it. But for the tables of `ANALYZE` none is left out: a name that begins
/// with `sqlite_` is reserved, but whoever writes to the file can give it to a trigger, which then runs.
type Object = (String, String, String, Option<String>);

/// What the migrations make.
fn expected(dir: &Path) -> Result<&'static Vec<Object>> {
    static EXPECTED: OnceLock<Vec<Object>> = OnceLock::new();
    if let Some(known) = EXPECTED.get() {
        return Ok(known);
    }
    let failed = fail::sql(dir, "check the store");
    let fresh = Connection::open_in_memory().map_err(&failed)?;
    for migration in MIGRATIONS {
        migration.run(&fresh, dir)?;
    }
    let objects = schema(&fresh).map_err(&failed)?;
    Ok(EXPECTED.get_or_init(|| objects))
}

fn schema(connection: &Connection) -> rusqlite::Result<Vec<Object>> {
    connection
        .prepare(
            "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE sql IS NULL OR sql NOT IN
                 ('CREATE TABLE sqlite_stat1(tbl,idx,stat)', 'CREATE TABLE sqlite_stat4(tbl,idx,neq,nlt,ndlt,sample)')
             ORDER BY name, type",
        )?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
        .collect()
}
