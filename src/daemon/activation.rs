//! Sockets that the service manager opened for the daemon: sd_listen_fds(3), by name.

use super::listeners::{Datagrams, Listener, Socket};
use crate::error::{Error, ErrorKind, Result};
use listenfd::ListenFd;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::sync::OnceLock;

/// The name of a socket to which the service manager gave none.
const UNNAMED: &str = "unknown";

/// As they came; the daemon listens on duplicates, so that one that a reload closes can be opened by the next.
static GIVEN: OnceLock<Vec<(String, Given)>> = OnceLock::new();

enum Given {
    Tcp(TcpListener),
    Unix(UnixListener),
    Udp(UdpSocket),
    Unixgram(UnixDatagram),
    /// No socket, or of a kind that is not listened on.
    Other,
}

/// Takes over the sockets that this process was given, out of the environment: what it starts itself is not told of them. To be called once, before there are other threads.
pub fn take() {
    // listenfd removes the variables that it reads; this is not one of them.
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':').map(|name| if name.is_empty() { UNNAMED } else { name });
    let mut fds = ListenFd::from_env();
    let given = (0..fds.len()).map(|at| (names.next().unwrap_or(UNNAMED).to_owned(), Given::take(&mut fds, at)));
    let _ = GIVEN.set(given.collect());
}

impl Given {
    fn take(fds: &mut ListenFd, at: usize) -> Self {
        let tcp = fds.take_tcp_listener(at).ok().flatten().map(Self::Tcp);
        let taken = tcp
            .or_else(|| fds.take_unix_listener(at).ok().flatten().map(Self::Unix))
            .or_else(|| fds.take_udp_socket(at).ok().flatten().map(Self::Udp))
            .or_else(|| fds.take_unix_datagram(at).ok().flatten().map(Self::Unixgram));
        taken.unwrap_or(Self::Other)
    }

    fn open(&self) -> io::Result<Socket> {
        Ok(match self {
            Self::Tcp(listener) => {
                let listener = listener.try_clone()?;
                listener.set_nonblocking(true)?;
                Socket::Tcp(tokio::net::TcpListener::from_std(listener)?)
            }
            Self::Unix(listener) => {
                let listener = listener.try_clone()?;
                listener.set_nonblocking(true)?;
                Socket::Unix(tokio::net::UnixListener::from_std(listener)?)
            }
            Self::Udp(socket) => {
                let socket = socket.try_clone()?;
                socket.set_nonblocking(true)?;
                Socket::Datagrams(Datagrams::Udp(tokio::net::UdpSocket::from_std(socket)?))
            }
            Self::Unixgram(socket) => {
                let socket = socket.try_clone()?;
                socket.set_nonblocking(true)?;
                Socket::Datagrams(Datagrams::Unix(tokio::net::UnixDatagram::from_std(socket)?))
            }
            Self::Other => return Err(io::Error::other("it is no socket of TCP, UDP or the file system")),
        })
    }
}

/// The addresses of those that have one.
pub(super) fn addresses(name: &str) -> impl Iterator<Item = SocketAddr> {
    let given = GIVEN.get().map_or(&[][..], Vec::as_slice).iter().filter(move |(given, _)| given == name);
    given.filter_map(|(_, given)| match given {
        Given::Tcp(socket) => socket.local_addr().ok(),
        Given::Udp(socket) => socket.local_addr().ok(),
        Given::Unix(_) | Given::Unixgram(_) | Given::Other => None,
    })
}

/// The sockets of a name. There may be several: a unit's every `ListenStream=` has its `FileDescriptorName=`.
pub(super) fn sockets(name: &str) -> Result<Vec<Listener>> {
    let given = GIVEN.get().map_or(&[][..], Vec::as_slice);
    let mut found = given.iter().filter(|(given, _)| given == name).peekable();
    if found.peek().is_none() {
        let mut names: Vec<&str> = given.iter().map(|(name, _)| name.as_str()).collect();
        names.dedup();
        let what = format!("The service manager gave no socket named `{name}`.");
        let hint = match names.is_empty() {
            true => format!(
                "It gave none at all: write `FileDescriptorName={name}` in a .socket unit and start that, or listen on an address."
            ),
            false => format!(
                "Those that it gave are {}; `FileDescriptorName=` in the .socket unit says so.",
                names.join(", ")
            ),
        };
        return Err(Error::new(ErrorKind::ConfigInvalid, what, hint));
    }
    let open = |(_, given): &(String, Given)| given.open().map(Listener::from);
    found.map(open).collect::<io::Result<_>>().map_err(|error| {
        let hint = "Write ListenStream= or ListenDatagram= with an address or a path in the .socket unit.";
        Error::new(ErrorKind::Io, format!("The socket `{name}` of the service manager can not be used."), hint)
            .because(error)
    })
}
