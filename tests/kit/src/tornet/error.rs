//! What can go wrong with the private network.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support;

/// A failure of the private network or of a tor daemon on it. `Display` says what happened, then what to do, then
/// quotes the last lines of the log it came from.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    what: String,
    log: Option<(PathBuf, String)>,
    source: Option<io::Error>,
}

/// The cause of an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// `tor` or `tor-gencert` is not installed.
    Missing,
    /// A file, directory or port of ours could not be used.
    Io,
    /// `tor-gencert` or `tor` made no keys.
    Keys,
    /// A tor daemon ended by itself.
    Died,
    /// A tor daemon found one of its ports taken.
    PortTaken,
    /// A deadline passed.
    Timeout,
    /// The directory already holds a running network.
    AlreadyUp,
}

impl Error {
    /// The cause.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What happened, without the advice.
    pub(super) fn what(&self) -> &str {
        &self.what
    }

    fn new(kind: ErrorKind, what: String) -> Self {
        Self { kind, what, log: None, source: None }
    }

    /// The file operation `what` on `path` failed.
    pub(super) fn file(what: &str, path: &Path, source: io::Error) -> Self {
        let what = format!("could not {what} {}", path.display());
        Self { source: Some(source), ..Self::new(ErrorKind::Io, what) }
    }

    /// No free port could be had on loopback.
    pub(super) fn port(source: io::Error) -> Self {
        Self { source: Some(source), ..Self::new(ErrorKind::Io, "could not bind a port of 127.0.0.1".into()) }
    }

    /// Starting `program` failed.
    pub(super) fn spawn(program: &str, source: io::Error) -> Self {
        let kind = if source.kind() == io::ErrorKind::NotFound { ErrorKind::Missing } else { ErrorKind::Io };
        Self { source: Some(source), ..Self::new(kind, format!("could not start {program}")) }
    }

    /// The state of the process `name` could not be learned.
    pub(super) fn watch(name: &str, source: io::Error) -> Self {
        Self { source: Some(source), ..Self::new(ErrorKind::Io, format!("could not watch tor daemon {name}")) }
    }

    /// `what` gave no usable keys; `log` holds the program's output.
    pub(super) fn keys(what: String, log: &Path) -> Self {
        Self::new(ErrorKind::Keys, what).quoting(log)
    }

    /// The daemon `name` ended by itself with `status`.
    pub(super) fn died(name: &str, status: std::process::ExitStatus, log: &Path, start: u64) -> Self {
        let taken = support::read_from(log, start).contains("Address already in use");
        let kind = if taken { ErrorKind::PortTaken } else { ErrorKind::Died };
        Self::new(kind, format!("tor daemon {name} ended by itself ({status})")).quoting(log)
    }

    /// `what` had not happened after `limit`.
    pub(super) fn timeout(what: &str, limit: Duration, log: &Path) -> Self {
        Self::new(ErrorKind::Timeout, format!("{what} within {} s", limit.as_secs())).quoting(log)
    }

    /// A network runs in `dir`, or is being started or ended there.
    pub(super) fn already_up(dir: &Path) -> Self {
        Self::new(ErrorKind::AlreadyUp, format!("{} already holds a network", dir.display()))
    }

    fn quoting(mut self, log: &Path) -> Self {
        self.log = Some((log.to_owned(), support::tail(log)));
        self
    }

    fn hint(&self) -> &'static str {
        match self.kind {
            ErrorKind::Missing => "Install tor, which brings tor-gencert: `apt-get install tor`.",
            ErrorKind::Io => "Check that the directory is yours, writable and not full.",
            ErrorKind::Keys => "Delete the cache directory of the network and start it again.",
            ErrorKind::Died => "Read the log below; `tor --verify-config -f TORRC` checks the configuration alone.",
            ErrorKind::PortTaken => "Start it again: free ports are chosen anew.",
            ErrorKind::Timeout => "A machine under heavy load can be too slow for it: start it again.",
            ErrorKind::AlreadyUp => "End that one first: `scripts/tornet down DIR`.",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if let Some(source) = &self.source {
            write!(f, ": {source}")?;
        }
        write!(f, ". {}", self.hint())?;
        if let Some((path, tail)) = &self.log {
            write!(f, "\nThe end of {}:\n{tail}", path.display())?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|e| e as _)
    }
}
