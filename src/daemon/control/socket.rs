//! The control socket's file.

use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind as bind_to, listen, socket_with};
use std::fs::{File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use tokio::net::UnixListener;
use tokio_util::task::AbortOnDropHandle;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 64;

/// Where a daemon with that configuration and store has its control socket.
pub fn control_path(config: &Config, store_dir: &Path) -> PathBuf {
    if let Some(path) = &config.daemon.control {
        return path.clone();
    }
    // The service manager's directories, of which there may be several.
    let runtime = std::env::var("RUNTIME_DIRECTORY").ok();
    let runtime = runtime.as_deref().and_then(|all| all.split(':').next()).filter(|first| first.starts_with('/'));
    runtime.map_or(store_dir, Path::new).join("control.sock")
}

/// The socket is there as long as this is.
pub(in crate::daemon) struct Guard {
    path: PathBuf,
    inode: u64,
    open: Mutex<Option<Open>>,
}

struct Open {
    _lock: File,
    _task: Option<AbortOnDropHandle<()>>,
}

impl Guard {
    pub(super) fn serving(self, task: AbortOnDropHandle<()>) -> Self {
        if let Some(open) = &mut *super::super::shared::lock(&self.open) {
            open._task = Some(task);
        }
        self
    }

    /// Answers no more, and takes the socket away.
    pub(in crate::daemon) fn remove(&self) {
        let Some(open) = super::super::shared::lock(&self.open).take() else { return };
        // Somebody may have put something else there.
        if std::fs::symlink_metadata(&self.path).is_ok_and(|meta| meta.ino() == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
        drop(open);
    }

    /// Who may open it follows the configuration.
    pub(in crate::daemon) fn set_open_to_all(&self, all: bool) -> Result<()> {
        set_mode(&self.path, self.inode, all)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Makes the socket. One that a dead daemon left is taken over; the lock file beside it says whether its daemon lives.
pub(super) fn bind(path: &Path, open_to_all: bool) -> Result<(UnixListener, Guard)> {
    let failed = |what: &'static str, path: &Path| {
        let path = path.display().to_string();
        move |error: io::Error| {
            Error::new(
                ErrorKind::Io,
                format!("The control socket {path} can not be {what}: {error}."),
                "Check that its directory is there and may be written to, or name another path as `control` under [daemon].",
            )
            .because(error)
        }
    };
    let address = SocketAddrUnix::new(path).map_err(|_| {
        Error::new(
            ErrorKind::ConfigInvalid,
            format!("{} is too long for the path of a socket: 107 bytes are the most.", path.display()),
            "Name a shorter path as `control` under [daemon].",
        )
    })?;
    let lock = lock(path, failed("locked", path))?;
    match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.file_type().is_socket() => std::fs::remove_file(path).map_err(failed("taken over", path))?,
        Ok(_) => {
            return Err(Error::new(
                ErrorKind::ConfigInvalid,
                format!("{} is there and is no socket.", path.display()),
                "Remove it, or name another path as `control` under [daemon].",
            ));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("looked at", path)(error)),
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let made = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).and_then(|socket| {
        // Linux makes the file with the mode of the socket: nobody else finds it open, not for a moment.
        rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
        bind_to(&socket, &address)?;
        listen(&socket, BACKLOG)?;
        Ok(socket)
    });
    let listener = std::os::unix::net::UnixListener::from(made.map_err(io::Error::from).map_err(failed("made", path))?);
    let listener = UnixListener::from_std(listener).map_err(failed("made", path))?;
    let inode = std::fs::symlink_metadata(path).map_err(failed("looked at", path))?.ino();
    let guard = Guard { path: path.to_owned(), inode, open: Mutex::new(Some(Open { _lock: lock, _task: None })) };
    set_mode(path, inode, open_to_all)?;
    Ok((listener, guard))
}

/// Who is let in decides the daemon, by who asks; the mode only keeps others from asking where nobody may.
fn set_mode(path: &Path, inode: u64, open_to_all: bool) -> Result<()> {
    let mode = if open_to_all { 0o666 } else { 0o600 };
    let set = || -> io::Result<()> {
        // By what is open: somebody may have put a link to another file there.
        let file = rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        if rustix::fs::fstat(&file)?.st_ino != inode {
            return Err(io::Error::other("something else is there now"));
        }
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
    };
    set().map_err(|error| {
        Error::new(
            ErrorKind::Io,
            format!("The mode of the control socket {} can not be set: {error}.", path.display()),
            "Check what file system it is on; restart the daemon if the socket was removed.",
        )
        .because(error)
    })
}

/// The lock that a living daemon holds. Its file stays: taking it away would let two daemons lock two files of one name.
fn lock(path: &Path, failed: impl Fn(io::Error) -> Error) -> Result<File> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.custom_flags(OFlags::NOFOLLOW.bits() as i32);
    let mut file = options.open(&name).map_err(&failed)?;
    match file.try_lock() {
        Ok(()) => {
            file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(failed)?;
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.take(20).read_to_string(&mut holder);
            let holder =
                holder.trim().parse::<u32>().map_or_else(|_| String::new(), |process| format!(", process {process},"));
            Err(Error::new(
                ErrorKind::DaemonRunning,
                format!("Another daemon{holder} has the control socket {}.", path.display()),
                "Ask it with `claviger status`; end it first if this one is to take its place.",
            ))
        }
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn one_daemon_has_it_and_a_dead_ones_is_taken_over() {
        let (dir, runtime) = (tempfile::tempdir().unwrap(), runtime());
        let _in = runtime.enter();
        let path = dir.path().join("control.sock");
        let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        let (listener, guard) = bind(&path, false).unwrap();
        assert_eq!(mode(), 0o600);
        assert!(UnixStream::connect(&path).is_ok());
        let second = bind(&path, false).err().unwrap();
        assert_eq!(second.kind(), ErrorKind::DaemonRunning);
        assert!(second.to_string().contains(&format!("process {}", std::process::id())), "{second}");
        drop((listener, guard));
        assert!(!path.exists(), "it is removed at the end");

        // Killed: the file is there, and nobody holds the lock.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let (_listener, guard) = bind(&path, true).unwrap();
        assert_eq!(mode(), 0o666);
        guard.set_open_to_all(false).unwrap();
        assert_eq!(mode(), 0o600);
    }

    #[test]
    fn nothing_else_is_opened_to_all() {
        let (dir, runtime) = (tempfile::tempdir().unwrap(), runtime());
        let _in = runtime.enter();
        let (path, secret) = (dir.path().join("control.sock"), dir.path().join("pin"));
        File::options().write(true).create(true).truncate(false).mode(0o600).open(&secret).unwrap();
        let (_listener, guard) = bind(&path, false).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&secret, &path).unwrap();
        assert!(guard.set_open_to_all(true).is_err());
        assert_eq!(std::fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn nothing_else_is_removed() {
        let (dir, runtime) = (tempfile::tempdir().unwrap(), runtime());
        let _in = runtime.enter();
        let path = dir.path().join("control.sock");
        std::fs::write(&path, "mine").unwrap();
        assert_eq!(bind(&path, false).err().unwrap().kind(), ErrorKind::ConfigInvalid);
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
        std::fs::remove_file(&path).unwrap();
        let (_listener, guard) = bind(&path, false).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "mine").unwrap();
        drop(guard);
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");

        let long = dir.path().join("x".repeat(120));
        assert_eq!(bind(&long, false).err().unwrap().kind(), ErrorKind::ConfigInvalid);
        let nowhere = dir.path().join("nowhere/control.sock");
        assert_eq!(bind(&nowhere, false).err().unwrap().kind(), ErrorKind::Io);
    }
}
