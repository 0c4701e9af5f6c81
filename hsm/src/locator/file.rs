//! *Software* key files.

use std::ffi::OsString;
use std::fmt::{self, Write as _};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use super::query;
use super::refused;
use crate::error::Result;
use crate::uri;

/// A *software* key file: `file:/etc/claviger/key.pem`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FileLocator {
    /// Where it is, absolute or relative to the working directory.
    pub path: PathBuf,
    /// The file that holds the passphrase.
    pub pin_source: Option<PathBuf>,
}

impl From<PathBuf> for FileLocator {
    /// The key file of that path; somebody is asked for its passphrase.
    fn from(path: PathBuf) -> Self {
        Self { path, pin_source: None }
    }
}

impl FileLocator {
    pub(super) fn parse(rest: &str) -> Result<Self> {
        if rest.split_once('?').is_some_and(|(_, query)| !query.starts_with("pin-source=")) {
            return Err(refused(
                "after the `?` of a `file:` locator comes only `pin-source=`; in a file's name `?` is written `%3F`",
            ));
        }
        let (path, query) = query::split(rest, false)?;
        let path = path.strip_prefix("//").filter(|rest| rest.starts_with('/')).unwrap_or(path);
        if path.starts_with("//") {
            return Err(refused("a `file:` locator names no host"));
        }
        let path = uri::unescaped(path).ok_or_else(|| {
            refused("a `%` in a file's name is written `%25`, and there is one without two hexadecimal digits")
        })?;
        if path.is_empty() || path.contains(&0) {
            return Err(refused("a file's name is not empty, and has no NUL"));
        }
        Ok(Self { path: OsString::from_vec(path).into(), pin_source: query.pin_source })
    }
}

impl fmt::Display for FileLocator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut path = self.path.as_os_str().as_bytes();
        f.write_str("file:")?;
        // Two slashes begin a host.
        if let Some(rest) = path.strip_prefix(b"//") {
            f.write_str("/%2F")?;
            path = rest;
        }
        for chunk in path.utf8_chunks() {
            for c in chunk.valid().chars() {
                if matches!(c, '%' | '?') || c.is_control() {
                    escape(f, c.encode_utf8(&mut [0; 4]).as_bytes())?;
                } else {
                    f.write_char(c)?;
                }
            }
            escape(f, chunk.invalid())?;
        }
        query::write(f, None, self.pin_source.as_deref())
    }
}

fn escape(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "%{byte:02X}"))
}
