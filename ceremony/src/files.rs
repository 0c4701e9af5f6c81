//! Cards as files.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use claviger::error::{Error, ErrorKind, Result};
use claviger::identity::{IdentityCard, IdentityError, MAX_CARD_LEN};
use rustix::rand::{GetRandomFlags, getrandom};

use claviger::program::shown;

/// Reads a card; `-` is stdin. Nothing longer than a card is read.
pub(crate) fn read_card(path: &Path) -> Result<IdentityCard> {
    let bytes = if path == Path::new("-") { read(io::stdin().lock()) } else { File::open(path).and_then(read) };
    let bytes = bytes.map_err(|error| failed(path, "read", error))?;
    IdentityCard::from_bytes(&bytes).map_err(|refused| {
        let why = match &refused {
            // How long it is was not read.
            IdentityError::CardSize(_) => format!("It is longer than {MAX_CARD_LEN} bytes, and no card is."),
            other => other.to_string(),
        };
        let error = Error::from(refused);
        Error::new(error.kind(), format!("{} is refused. {why}", shown(path)), error.hint())
    })
}

fn read(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One byte more than a card has, so that a longer file is seen to be one.
    from.take(MAX_CARD_LEN as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What [`write_card`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    New,
    /// The file holds exactly this card already.
    AlreadyThere,
}

/// Writes a card, mode 0600, whole or not at all. A file that holds something else is replaced only by `force`.
pub(crate) fn write_card(path: &Path, text: &str, force: bool) -> Result<Written> {
    let refused = |why: &str, hint: &str| {
        let what = format!("{} {why}; it was not overwritten.", path.display());
        Error::new(ErrorKind::Io, what, hint)
    };
    // A directory, a FIFO on which reading would wait, a device that root could replace.
    if fs::metadata(path).is_ok_and(|meta| !meta.is_file()) {
        return Err(refused("is not a regular file", "Name a file, or write to standard output with `-`."));
    }
    match File::open(path).and_then(read) {
        Ok(there) if there == text.as_bytes() => return Ok(Written::AlreadyThere),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Ok(_) | Err(_) if force => {}
        Ok(_) => return Err(refused("holds something else", "Name another file, or overwrite it with `--force`.")),
        Err(error) => return Err(failed(path, "read", error)),
    }
    let Some(name) = path.file_name() else {
        return Err(failed(path, "write", io::ErrorKind::InvalidInput.into()));
    };
    let mut random = [0; 8];
    getrandom(&mut random, GetRandomFlags::empty())
        .map_err(|error| failed(path, "name a new file beside", error.into()))?;
    let mut new = std::ffi::OsString::from(".");
    new.push(name);
    new.push(format!(".{:016x}", u64::from_le_bytes(random)));
    let new = path.with_file_name(new);
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)
    });
    if let Err(error) = written {
        // Best effort: the error that is reported is the first one.
        let _ = fs::remove_file(&new);
        return Err(failed(path, "write", error));
    }
    // Best effort: the directory of a USB stick's file system can not always be synced.
    let _ = path
        .parent()
        .and_then(|dir| File::open(if dir.as_os_str().is_empty() { Path::new(".") } else { dir }).ok())
        .map(|dir| dir.sync_all());
    Ok(Written::New)
}

/// A call on a file failed.
pub(crate) fn failed(path: &Path, call: &str, error: io::Error) -> Error {
    let what = format!("Could not {call} {}: {error}.", shown(path));
    Error::new(ErrorKind::Io, what, "Check the path, its permissions and the room on its disk.").because(error)
}
