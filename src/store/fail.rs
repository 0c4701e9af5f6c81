//! What SQLite's failures mean for a store.

use std::path::Path;

use rusqlite::ffi::ErrorCode;

use crate::error::{Error, ErrorKind};

/// Maps an error of SQLite that came while the store was asked to `what`: a verb phrase.
pub(super) fn sql<'a>(dir: &'a Path, what: &'a str) -> impl Fn(rusqlite::Error) -> Error + 'a {
    move |error| typed(dir, what, error)
}

fn typed(dir: &Path, what: &str, error: rusqlite::Error) -> Error {
    let shown = dir.display();
    let (kind, why, hint) = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => (
            ErrorKind::StoreBusy,
            "another process held its lock for more than 5 seconds".to_owned(),
            "Let the other command finish, then run this one again; `fuser` shows which process holds `store.db`."
                .to_owned(),
        ),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            return corrupt(dir, &error.to_string()).because(error);
        }
        Some(ErrorCode::DiskFull) => (
            ErrorKind::StoreIo,
            "the disk is full".to_owned(),
            format!("Make room on the file system of {shown} and run the command again; what was there is unchanged."),
        ),
        Some(ErrorCode::ReadOnly) => (
            ErrorKind::StoreIo,
            "it is on a read-only file system or in a read-only file".to_owned(),
            format!("Make {shown} writable and run the command again; nothing was changed."),
        ),
        _ => (
            ErrorKind::StoreIo,
            format!("SQLite: {error}"),
            format!("Check the disk that holds {shown} and run the command again; what was there is unchanged."),
        ),
    };
    Error::new(kind, format!("Could not {what} in {shown}: {why}."), hint).because(error)
}

/// The content is not what this program writes. `why` is a clause.
pub(super) fn corrupt(dir: &Path, why: &str) -> Error {
    Error::new(
        ErrorKind::StoreCorrupt,
        format!("The store in {} is damaged or was changed by hand: {why}.", dir.display()),
        "Restore `store.db` from a backup, or move the directory away and hold the ceremony again with `claviger-ceremony init`.",
    )
}

/// A call of the operating system failed.
pub(super) fn io(path: &Path, call: &str, error: impl Into<std::io::Error>) -> Error {
    let error = error.into();
    Error::new(
        ErrorKind::StoreIo,
        format!("Could not {call} {}: {error}.", path.display()),
        "Check the path, its permissions and the room on its disk.",
    )
    .because(error)
}
