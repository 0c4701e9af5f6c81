//! Local sockets: opened so that nobody else reaches them before they are guarded, and taken away when the daemon lets go of them.

use super::activation;
use crate::config::Local;
use crate::error::{Error, ErrorKind, Result};
use rustix::fs::{Mode, fchmod};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpSocket, UdpSocket, UnixDatagram, UnixListener, UnixSocket};

/// Connections that may wait to be accepted; the kernel may hold fewer (`net.core.somaxconn`).
const BACKLOG: u32 = 1024;

/// A socket that something local reaches.
pub(super) struct Listener {
    pub(super) socket: Socket,
    /// Its file, gone with it.
    _file: Option<File>,
}

/// A socket for datagrams.
pub(super) enum Datagrams {
    Udp(UdpSocket),
    Unix(UnixDatagram),
}

impl Datagrams {
    /// Calls `receive` whenever there may be something, until it has not to wait. Cancel-safe.
    pub(super) async fn receive<T>(&self, mut receive: impl FnMut(BorrowedFd<'_>) -> io::Result<T>) -> io::Result<T> {
        match self {
            Self::Udp(socket) => socket.async_io(Interest::READABLE, || receive(socket.as_fd())).await,
            Self::Unix(socket) => socket.async_io(Interest::READABLE, || receive(socket.as_fd())).await,
        }
    }
}

impl AsFd for Datagrams {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Udp(socket) => socket.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
        }
    }
}

/// Its kind.
pub(super) enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
    Datagrams(Datagrams),
}

impl Listener {
    /// A socket for datagrams, and what is to be kept as long as it is.
    pub(super) fn into_datagrams(self) -> (Option<Datagrams>, impl Sized) {
        let socket = match self.socket {
            Socket::Datagrams(socket) => Some(socket),
            Socket::Tcp(_) | Socket::Unix(_) => None,
        };
        (socket, self._file)
    }
}

impl From<Socket> for Listener {
    fn from(socket: Socket) -> Self {
        Self { socket, _file: None }
    }
}

/// Opens what a configuration names: one socket, or as many as the service manager gave by that name. Must be called in a tokio runtime.
///
/// # Errors
/// [`ErrorKind::PortInUse`] when somebody answers there; [`ErrorKind::ConfigInvalid`] when a socket's path is something else's, or the service manager gave none of that name;
/// [`ErrorKind::AddressRefused`]; [`ErrorKind::Io`].
pub(super) fn open(local: &Local) -> Result<Vec<Listener>> {
    let one = |socket: Socket| vec![Listener::from(socket)];
    match local {
        Local::Tcp(address) => {
            tcp(*address).map(|listener| one(Socket::Tcp(listener))).map_err(|e| inet(local, *address, e))
        }
        Local::Udp(address) => udp(*address)
            .map(|socket| one(Socket::Datagrams(Datagrams::Udp(socket))))
            .map_err(|e| inet(local, *address, e)),
        Local::Unix(path) => {
            let (socket, file) = place(local, path, UnixSocket::new_stream, 0o600)?;
            let listener = socket.listen(BACKLOG).map_err(|error| failed(local, error))?;
            Ok(vec![Listener { socket: Socket::Unix(listener), _file: Some(file) }])
        }
        Local::Unixgram(path) => {
            let (socket, file) = place(local, path, UnixSocket::new_datagram, 0o600)?;
            let socket = socket.datagram().map_err(|error| failed(local, error))?;
            Ok(vec![Listener { socket: Socket::Datagrams(Datagrams::Unix(socket)), _file: Some(file) }])
        }
        Local::Systemd(name) => activation::sockets(name),
    }
}

/// Refuses what other machines reach, unless somebody has said that this is meant. Addresses of the configuration were looked at when it was read; what the service
/// manager opened is known here.
///
/// # Errors
/// [`ErrorKind::AddressRefused`].
pub(super) fn guard(local: &Local, anywhere: bool) -> Result<()> {
    let Local::Systemd(name) = local else { return Ok(()) };
    match activation::addresses(name).find(|address| !address.ip().is_loopback()) {
        Some(address) if !anywhere => Err(Error::new(
            ErrorKind::AddressRefused,
            format!(
                "The service manager opened `{name}` at {address}, which is not on loopback: whoever reaches it is taken for this machine."
            ),
            "Write `ListenStream=127.0.0.1:PORT` in its .socket unit, or `unsafe-listen = true` beside `listen` if that is meant.",
        )),
        _ => Ok(()),
    }
}

fn tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = std::net::UdpSocket::bind(address)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

/// Gives a socket a place in the file system. Its mode is set before it has one: there is no moment at which others could connect.
fn place(
    local: &Local,
    path: &Path,
    new: impl FnOnce() -> io::Result<UnixSocket>,
    mode: u32,
) -> Result<(UnixSocket, File)> {
    clear(local, path)?;
    let placed = (|| {
        let socket = new()?;
        // Linux makes the file with the socket's own mode, less the umask.
        fchmod(&socket, Mode::from_raw_mode(mode))?;
        socket.bind(path)?;
        Ok((socket, File::of(path)?))
    })();
    placed.map_err(|error| failed(local, error))
}

/// Removes a socket that a program which is gone has left. Nothing else is ever removed.
fn clear(local: &Local, path: &Path) -> Result<()> {
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(local, error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(Error::new(
                ErrorKind::ConfigInvalid,
                format!("{} is there already, and is no socket.", path.display()),
                "Choose another path for `listen`, or move that file away.",
            ));
        }
        Ok(_) => {}
    }
    let datagrams = matches!(local, Local::Unixgram(_));
    let answered = match datagrams {
        true => std::os::unix::net::UnixDatagram::unbound().and_then(|socket| socket.connect(path)),
        // As any client would, but without waiting where many wait already; whoever listens sees a connection that ends at once.
        false => knock(path),
    };
    match answered {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(|error| failed(local, error))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        _ => Err(Error::new(
            ErrorKind::PortInUse,
            format!("{} is in use by another program.", path.display()),
            format!(
                "End that program (`ss -xlp src {}` shows it), or choose another path for `listen`.",
                path.display()
            ),
        )),
    }
}

fn knock(path: &Path) -> io::Result<()> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    Ok(rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?)
}

/// The file of a socket. Removed when it is dropped, if it is still this one.
struct File {
    path: PathBuf,
    /// Device and inode.
    id: (u64, u64),
}

impl File {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), id: id(path)? })
    }
}

fn id(path: &Path) -> io::Result<(u64, u64)> {
    path.symlink_metadata().map(|metadata| (metadata.dev(), metadata.ino()))
}

impl Drop for File {
    fn drop(&mut self) {
        if id(&self.path).is_ok_and(|id| id == self.id) {
            // Whoever starts next removes it otherwise.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn inet(local: &Local, address: SocketAddr, error: io::Error) -> Error {
    let port = address.port();
    let tool = if matches!(local, Local::Udp(_)) { "ss -lunp" } else { "ss -ltnp" };
    let (kind, what, hint) = match error.kind() {
        io::ErrorKind::AddrInUse => (
            ErrorKind::PortInUse,
            format!("{local} is in use by another program."),
            format!("End that program (`{tool} 'sport = {port}'` shows it), or choose another port for `listen`."),
        ),
        io::ErrorKind::AddrNotAvailable => (
            ErrorKind::AddressRefused,
            format!("This machine has no address {}.", address.ip()),
            "Choose an address of this machine for `listen`; `ip address` lists them.".into(),
        ),
        io::ErrorKind::PermissionDenied => (
            ErrorKind::AddressRefused,
            format!("The system does not let this program listen on {local}."),
            "Choose a port of 1024 or more, or have the service manager open it: `listen = \"systemd:NAME\"`.".into(),
        ),
        _ => return failed(local, error),
    };
    Error::new(kind, what, hint).because(error)
}

fn failed(local: &Local, error: io::Error) -> Error {
    let hint = match (local, error.kind()) {
        (Local::Unix(path) | Local::Unixgram(path), io::ErrorKind::NotFound) => {
            format!("Make its directory: `mkdir -p {}`.", path.parent().unwrap_or(Path::new("/")).display())
        }
        (Local::Unix(_) | Local::Unixgram(_), io::ErrorKind::InvalidInput) => {
            "Choose a shorter path for `listen`: a socket's has 107 bytes at most.".into()
        }
        (Local::Unix(_) | Local::Unixgram(_), io::ErrorKind::PermissionDenied) => {
            "Choose a directory for `listen` in which this user may make files.".into()
        }
        _ => "Check the limits on files (`ulimit -n`), and see the cause.".into(),
    };
    Error::new(ErrorKind::Io, format!("Can not listen on {local}."), hint).because(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::net::UnixListener as StdListener;

    fn at(path: &Path) -> Result<Vec<Listener>> {
        open(&Local::Unix(path.to_owned()))
    }

    #[tokio::test]
    async fn a_dead_socket_makes_room_and_nothing_else_does() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        drop(StdListener::bind(&path).unwrap());
        let ours = at(&path).expect("nobody answered there");
        assert_eq!(path.symlink_metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let refused = at(&path).err().expect("somebody answers");
        assert_eq!(refused.kind(), ErrorKind::PortInUse);
        drop(ours);
        assert!(!path.exists(), "it is taken away");

        std::fs::write(&path, "precious").unwrap();
        assert_eq!(at(&path).err().unwrap().kind(), ErrorKind::ConfigInvalid);
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        std::fs::remove_file(&path).unwrap();
        // Not even a link to a dead one: what it points at may be somebody's.
        drop(StdListener::bind(dir.path().join("dead")).unwrap());
        std::os::unix::fs::symlink(dir.path().join("dead"), &path).unwrap();
        assert_eq!(at(&path).err().unwrap().kind(), ErrorKind::ConfigInvalid);
        assert!(dir.path().join("dead").exists());
    }

    /// Whose queue is full is not waited for: a reload would hang with it.
    #[test]
    fn a_socket_that_nobody_serves_is_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let address = SocketAddrUnix::new(&path).unwrap();
        let hung = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        rustix::net::bind(&hung, &address).unwrap();
        rustix::net::listen(&hung, 0).unwrap();
        let mut waiting = Vec::new();
        while let (socket, Ok(())) = {
            let flags = SocketFlags::NONBLOCK;
            let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
            let connected = rustix::net::connect(&socket, &address);
            (socket, connected)
        } {
            waiting.push(socket);
        }
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let _in = runtime.enter();
            let _ = sender.send(at(&path).err().map(|error| error.kind()));
        });
        let opened = receiver.recv_timeout(std::time::Duration::from_secs(5)).expect("it is not waited for");
        assert_eq!(opened, Some(ErrorKind::PortInUse));
    }

    #[tokio::test]
    async fn a_file_that_took_its_place_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let ours = at(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let next = StdListener::bind(&path).unwrap();
        drop(ours);
        assert!(path.exists());
        drop(next);
    }

    #[tokio::test]
    async fn datagram_sockets_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let local = Local::Unixgram(path.clone());
        drop(std::os::unix::net::UnixDatagram::bind(&path).unwrap());
        let ours = open(&local).unwrap();
        assert_eq!(open(&local).err().unwrap().kind(), ErrorKind::PortInUse);
        drop(ours);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn errors_say_what_to_do() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = open(&Local::Tcp(address)).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::PortInUse);
        assert!(error.hint().contains(&format!("sport = {}", address.port())));
        let error = at(Path::new("/nonexistent/claviger/socket")).err().unwrap();
        assert!(error.hint().contains("mkdir -p /nonexistent/claviger"), "{}", error.hint());
        let error = at(&PathBuf::from(format!("/tmp/{}", "x".repeat(200)))).err().unwrap();
        assert!(error.hint().contains("107 bytes"), "{}", error.hint());
        let error = open(&Local::Tcp("192.0.2.1:1".parse().unwrap())).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::AddressRefused);
        assert_eq!(open(&Local::Systemd("no-such".into())).err().unwrap().kind(), ErrorKind::ConfigInvalid);
    }
}
