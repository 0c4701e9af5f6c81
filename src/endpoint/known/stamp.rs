//! Whether the store's file is another than before.

use crate::error::{Error, ErrorKind, Result};
use crate::store::{Contact, Store};
use std::os::unix::fs::MetadataExt as _;

/// What differs when the store was written to: the log's end, and what the file system says of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    sequence: u64,
    file: Option<[i64; 4]>,
}

impl Stamp {
    pub(super) fn of(store: &Store) -> Result<Self> {
        let file = std::fs::metadata(store.dir().join("store.db")).ok();
        let file = file.map(|meta| [meta.ino() as i64, meta.size() as i64, meta.ctime(), meta.ctime_nsec()]);
        Ok(Self { sequence: store.changed()?, file })
    }

    pub(super) fn inode(&self) -> Option<i64> {
        self.file.map(|[inode, ..]| inode)
    }
}

/// Writes a contact. Returns what the file was like before and after it, if nobody else has written meanwhile.
pub(super) fn write_alone(store: &mut Store, contact: &Contact) -> Result<Option<(Stamp, Stamp)>> {
    let (version, before) = (store.data_version()?, Stamp::of(store)?);
    store.note_contact(contact)?;
    let after = Stamp::of(store)?;
    Ok((store.data_version()? == version).then_some((before, after)))
}

/// The file that is open is not the one in the directory: what is changed there is not seen here.
pub(super) fn replaced(store: &Store) -> Error {
    let dir = store.dir().display();
    Error::new(
        ErrorKind::StoreTampered,
        format!(
            "The store in {dir} was removed, or another one was put in its place, while this program had it open: it goes on with the peers that it knew."
        ),
        "Put the store back, or start this program again with the one that is there now.",
    )
}
