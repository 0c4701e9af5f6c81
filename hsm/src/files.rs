//! Files that hold a secret: read bounded, and only where nobody else can read or write them; written whole or not at all.

use std::fs::File;
use std::io::Read;
#[cfg(feature = "software")]
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind, Result};

/// Whose files are read, besides those of the user this process runs as. Nobody else may have any permission for them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Nobody's.
    User,
    /// Root's.
    Root,
    /// Root's, also where the group's bits let read: so `stat` shows the access list by which systemd gives a credential to the service's user
    /// (systemd.exec(5), "Credentials"; acl(5), "Correspondence between ACL entries and file permission bits").
    ServiceManager,
}

/// Reads at most `limit` bytes of `path`, which `what` describes to people (`PIN file`). The file must belong to the user this
/// process runs as, or to whom `owner` says.
///
/// Symbolic links are followed; the checks are made on the open file, so nothing can be exchanged in between.
///
/// # Errors
/// `LoosePermissions`: not a regular file, another owner, or any permission for group or others.
/// `KeyFile`: longer than `limit`. `Io`: cannot be opened or read.
pub(crate) fn read_secret(path: &Path, what: &str, owner: Owner, limit: usize) -> Result<Zeroizing<Vec<u8>>> {
    let shown = path.display();
    let io = |call: &str, error: &dyn std::fmt::Display| {
        Error::new(
            ErrorKind::Io,
            format!("The {what} \"{shown}\" cannot be read: {call}: {error}."),
            format!("Check the path and its permissions: `ls -l '{shown}'`."),
        )
    };
    // NONBLOCK: a FIFO must not hang the open.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty()).map_err(|error| io("open", &error))?);
    let meta = file.metadata().map_err(|error| io("fstat", &error))?;
    let loose = |why: &str, hint: String| {
        Error::new(ErrorKind::LoosePermissions, format!("The {what} \"{shown}\" is refused: {why}."), hint)
    };
    if !meta.is_file() {
        return Err(loose("it is not a regular file", "Name a regular file.".into()));
    }
    let us = rustix::process::geteuid().as_raw();
    if meta.uid() != us && !(owner != Owner::User && meta.uid() == 0) {
        return Err(loose(
            &format!("it belongs to user {}, not to {us}, who runs this", meta.uid()),
            format!("Give it to the right user: `chown {us} '{shown}'`."),
        ));
    }
    let others = if owner == Owner::ServiceManager && meta.uid() == 0 { 0o037 } else { 0o077 };
    if meta.mode() & others != 0 {
        return Err(loose(
            &format!("others may use it (mode {:04o})", meta.mode() & 0o7777),
            format!("Close it: `chmod 600 '{shown}'`. If others could read it, change the secret in it too."),
        ));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(limit + 1));
    let bound = u64::try_from(limit + 1).unwrap_or(u64::MAX);
    file.take(bound).read_to_end(&mut bytes).map_err(|error| io("read", &error))?;
    if bytes.len() > limit {
        return Err(Error::new(
            ErrorKind::KeyFile,
            format!("The {what} \"{shown}\" is longer than {limit} bytes."),
            "Check that the right file is named.",
        ));
    }
    Ok(bytes)
}

/// Writes `bytes` to a new file `path` of mode 0600: under another name first, synced, then linked into place.
///
/// # Errors
/// `KeyExists`: something is there already. `Io`. In both cases nothing is left behind.
#[cfg(feature = "software")]
pub(crate) fn write_new(path: &Path, what: &str, bytes: &[u8]) -> Result<()> {
    let shown = path.display();
    let failed = |call: &str, error: &dyn std::fmt::Display| {
        Error::new(
            ErrorKind::Io,
            format!("The {what} \"{shown}\" cannot be written: {call}: {error}."),
            "See that its directory exists, may be written to and has room.",
        )
    };
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut random = [0; 8];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| crate::curve::library_failed("rand::fill"))?;
    let unfinished = Unfinished(directory.join(format!(".claviger-{:016x}", u64::from_be_bytes(random))));
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mut file = File::from(
        rustix::fs::open(&unfinished.0, flags, Mode::RUSR | Mode::WUSR).map_err(|error| failed("open", &error))?,
    );
    file.write_all(bytes).map_err(|error| failed("write", &error))?;
    file.sync_all().map_err(|error| failed("fsync", &error))?;
    rustix::fs::link(&unfinished.0, path).map_err(|error| match error {
        rustix::io::Errno::EXIST => Error::new(
            ErrorKind::KeyExists,
            format!("The {what} \"{shown}\" is there already; nothing was written."),
            "Choose another path.",
        ),
        error => failed("link", &error),
    })?;
    drop(unfinished);
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(|error| failed("fsync", &error))
}

/// A file under its temporary name, which is removed on drop.
#[cfg(feature = "software")]
struct Unfinished(std::path::PathBuf);

#[cfg(feature = "software")]
impl Drop for Unfinished {
    fn drop(&mut self) {
        // Nobody is left to tell, and the name is random: a leftover harms nothing.
        let _ = std::fs::remove_file(&self.0);
    }
}
