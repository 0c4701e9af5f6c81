//! Asking a daemon, through its control socket.
//!
//! ```no_run
//! use claviger::daemon::client::Client;
//!
//! let status = Client::connect("/run/claviger/control.sock".as_ref())?.status()?;
//! for trouble in &status.troubles {
//!     eprintln!("{} {}", trouble.what, trouble.hint);
//! }
//! # Ok::<(), claviger::Error>(())
//! ```

pub use super::control::{Answer, Content, Request, VERSION, control_path};

use super::status::Status;
use crate::error::{Error, ErrorKind, Result};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the daemon may take for an answer. A reload waits for sockets that it opens.
const PATIENCE: Duration = Duration::from_secs(30);

/// Longest answer that is read, in bytes.
const MAX_ANSWER: u64 = 64 * 1024 * 1024;

/// How long the daemon may take to accept a connection, when as many wait for that as can. One that hangs never does.
const QUEUED: Duration = Duration::from_secs(5);

/// As `UnixStream::connect`, which waits for ever for a place in a queue that is full.
fn connect(path: &Path) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new(path)?;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // socket(7): it holds for connecting, too.
    set_socket_timeout(&socket, Timeout::Send, Some(QUEUED))?;
    match retry_on_intr(|| rustix::net::connect(&socket, &address)) {
        Err(Errno::AGAIN) => return Err(io::ErrorKind::TimedOut.into()),
        outcome => outcome?,
    }
    Ok(socket.into())
}

/// A connection to a daemon. It blocks.
pub struct Client {
    stream: BufReader<UnixStream>,
    path: PathBuf,
}

impl Client {
    /// Connects to the daemon whose control socket is at `path`.
    ///
    /// # Errors
    /// [`ErrorKind::DaemonAbsent`] when none answers there; [`ErrorKind::DaemonRefused`] when this user may not.
    pub fn connect(path: &Path) -> Result<Self> {
        let connected = connect(path).and_then(|stream| {
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok(stream)
        });
        let stream = connected.map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => Error::new(
                ErrorKind::DaemonRefused,
                format!("The control socket {} may not be opened by this user.", path.display()),
                "Ask as the daemon's user or root, or add this user's number to `operators` under [daemon] and give it a path to the socket.",
            )
            .because(error),
            _ => Error::new(
                ErrorKind::DaemonAbsent,
                format!("No daemon answers at {}.", path.display()),
                "Start it with `claviger run` or `systemctl start claviger`, or name its socket with `--control PATH`.",
            )
            .because(error),
        })?;
        Ok(Self { stream: BufReader::new(stream), path: path.to_owned() })
    }

    /// How things stand.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub fn status(&mut self) -> Result<Status> {
        match self.ask(&Request::Status {})? {
            Content::Status(status) => Ok(*status),
            _ => Err(self.strange()),
        }
    }

    /// Asks, and gives the first answer.
    ///
    /// # Errors
    /// What the daemon says, or that it did not say anything: [`ErrorKind::DaemonAbsent`], [`ErrorKind::DaemonRefused`].
    pub fn ask(&mut self, request: &Request) -> Result<Content> {
        // Who was turned away has been told so already, and may find it closed.
        let sent = self.stream.get_mut().write_all(&request.line());
        match self.next() {
            Err(error) if error.kind() == ErrorKind::DaemonAbsent => Err(match sent {
                Err(source) => error.because(source),
                Ok(()) => error,
            }),
            answer => answer,
        }
    }

    /// The next answer, of who watches.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    #[expect(clippy::should_implement_trait, reason = "it does not end with `None`, but with an error that says how")]
    pub fn next(&mut self) -> Result<Content> {
        let mut line = Vec::new();
        let read = (&mut self.stream).take(MAX_ANSWER).read_until(b'\n', &mut line);
        if !line.ends_with(b"\n") {
            let error = Error::new(
                ErrorKind::DaemonAbsent,
                format!("The daemon at {} ended, or did not answer in {} s.", self.path.display(), PATIENCE.as_secs()),
                "Look at its log, for example with `journalctl -u claviger`.",
            );
            return Err(match read {
                Err(source) => error.because(source),
                Ok(_) => error,
            });
        }
        let answer: Answer = serde_json::from_slice(&line).map_err(|error| self.strange().because(error))?;
        answer.content.into_result()
    }

    fn strange(&self) -> Error {
        Error::new(
            ErrorKind::DaemonRefused,
            format!("What answers at {} is not understood.", self.path.display()),
            "Restart the daemon if it was upgraded, so that it is of the same release as this program.",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_hangs_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let hung = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        rustix::net::bind(&hung, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        rustix::net::listen(&hung, 0).unwrap();
        let (sender, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut waiting = Vec::new();
            let error = loop {
                match Client::connect(&path) {
                    Ok(client) => waiting.push(client),
                    Err(error) => break error,
                }
            };
            sender.send(error.kind())
        });
        assert_eq!(ended.recv_timeout(QUEUED * 4).expect("it ends"), ErrorKind::DaemonAbsent);
    }
}
