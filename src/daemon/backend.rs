//! What a service is on this machine: a connection, or a process.

use super::datagram::{Datagrams, Unixgram};
use super::splice::Local;
use crate::config::{Backend, Service};
use crate::error::{Error, ErrorKind, Result};
use crate::identity::ServiceName;
use crate::session::Peer;
use rustix::process::{Pid, Signal, kill_process_group};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::pin::Pin;
use std::process::{ExitStatus, Stdio};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream, UdpSocket, UnixStream};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::time::{sleep, timeout};
use tokio_util::bytes::Bytes;

/// What a process keeps of the daemon's environment. The rest is the daemon's own: credentials, sockets of the service manager.
const KEPT: [&str; 9] = ["HOME", "LANG", "LC_ALL", "LC_CTYPE", "LOGNAME", "PATH", "TMPDIR", "TZ", "USER"];

/// How long it is waited for a place in the queue of a unix socket, at first.
const QUEUE: Duration = Duration::from_millis(10);

/// Connects to a TCP backend.
///
/// # Errors
/// [`ErrorKind::Io`].
pub(super) async fn tcp(service: &Service, address: SocketAddr) -> Result<TcpStream> {
    let connecting = async {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // A process that is killed from here on leaves no connection that ends well.
        let _ = socket.set_zero_linger();
        socket.connect(address).await
    };
    let connected = timed(&service.backend, service.dial_timeout, connecting).await?;
    // What a stream brings has waited long enough. It may be gone again already.
    let _ = connected.set_nodelay(true);
    Ok(connected)
}

/// Connects to a backend's unix socket.
///
/// # Errors
/// [`ErrorKind::Io`].
pub(super) async fn unix(service: &Service, path: &Path) -> Result<UnixStream> {
    let connecting = async {
        let mut pause = QUEUE;
        loop {
            match UnixStream::connect(path).await {
                // Its queue is full: unlike TCP, nothing waits for a place in it.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(pause).await,
                outcome => return outcome,
            }
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    };
    timed(&service.backend, service.dial_timeout, connecting).await
}

/// Makes a socket for one flow of datagrams to a backend.
///
/// # Errors
/// [`ErrorKind::Io`]. A UDP backend that is not there is found by the datagrams.
pub(super) async fn datagrams(service: &Service) -> Result<DatagramSocket> {
    let connecting = async {
        match &service.backend {
            Backend::Udp(address) => {
                // Nobody else's datagrams may be in its queue before it is connected.
                let own: IpAddr = match address.ip() {
                    IpAddr::V4(ip) if ip.is_loopback() => Ipv4Addr::LOCALHOST.into(),
                    IpAddr::V6(ip) if ip.is_loopback() => Ipv6Addr::LOCALHOST.into(),
                    IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                    IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
                };
                let socket = UdpSocket::bind((own, 0)).await?;
                socket.connect(address).await?;
                Ok(DatagramSocket::Udp(socket))
            }
            Backend::Unixgram(path) => Unixgram::connect(path.clone()).map(DatagramSocket::Unix),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    };
    timed(&service.backend, service.dial_timeout, connecting).await
}

/// A socket for datagrams, connected to a backend.
pub(super) enum DatagramSocket {
    Udp(UdpSocket),
    Unix(Unixgram),
}

impl Datagrams for DatagramSocket {
    async fn receive(&self) -> io::Result<Option<Bytes>> {
        match self {
            Self::Udp(socket) => socket.receive().await,
            Self::Unix(socket) => socket.receive().await,
        }
    }

    async fn send(&self, datagram: &[u8]) -> io::Result<()> {
        match self {
            Self::Udp(socket) => Datagrams::send(socket, datagram).await,
            Self::Unix(socket) => socket.send(datagram).await,
        }
    }
}

/// # Errors
/// [`ErrorKind::Io`], with what is to be done about it.
pub(super) async fn timed<T>(
    target: &Backend,
    patience: Duration,
    connecting: impl Future<Output = io::Result<T>>,
) -> Result<T> {
    let outcome = timeout(patience, connecting).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    outcome.map_err(|error| {
        let (what, hint) = match error.kind() {
            io::ErrorKind::ConnectionRefused => (
                "nothing listens there",
                "Start the program behind the service, or mend `target` in the configuration file.",
            ),
            io::ErrorKind::NotFound => (
                "there is no such socket",
                "Start the program behind the service, or mend `target` in the configuration file.",
            ),
            io::ErrorKind::PermissionDenied => (
                "this user may not connect to it",
                "Let the daemon's user connect: by the socket's group and mode, or by what confines the daemon.",
            ),
            io::ErrorKind::TimedOut => (
                "it did not take the connection in time",
                "Look whether the program behind the service hangs; `dial-timeout` of the service is the time.",
            ),
            _ => match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
                Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE) => (
                    "there are as many open files as there may be",
                    "Raise the limit on open files (`LimitNOFILE` of the unit), or lower `streams`.",
                ),
                _ => ("the system refused it", "Look at the program behind the service and at its address."),
            },
        };
        Error::new(ErrorKind::Io, format!("{target} can not be reached: {what}."), hint).because(error)
    })
}

/// A process whose stdin and stdout are one thing to talk to. Its whole group is killed unless it has ended, before its stdin is closed: nobody takes half of what was said
/// for all of it.
pub(super) struct Process {
    // Dropped in this order.
    group: Group,
    ended: Pin<Box<dyn Future<Output = io::Result<ExitStatus>> + Send>>,
    status: Option<io::Result<ExitStatus>>,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
}

struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // It may have ended by itself.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Process {
    /// Starts it for a stream. What it says on stderr is the caller's.
    ///
    /// # Errors
    /// [`ErrorKind::Io`].
    pub(super) fn start(command: &[String], peer: &Peer, service: &ServiceName) -> Result<(Self, ChildStderr)> {
        let Some((program, arguments)) = command.split_first() else { return Err(no_pipes()) };
        let kept = KEPT.iter().filter_map(|name| std::env::var_os(name).map(|value| (name, value)));
        let mut child = Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(kept)
            .env("CLAVIGER_PEER", peer.identifier.as_str())
            .env("CLAVIGER_PEER_ROLE", peer.role.as_str())
            .env("CLAVIGER_SERVICE", service.as_str())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| {
                let hint = match error.kind() {
                    io::ErrorKind::NotFound => "Install it, or mend `command` in the configuration file.",
                    io::ErrorKind::PermissionDenied => {
                        "Let the daemon's user run it: by its mode, or by what confines the daemon."
                    }
                    _ => "Check the limits on processes and open files.",
                };
                Error::new(ErrorKind::Io, format!("{program} can not be started: {error}."), hint).because(error)
            })?;
        let group = Group(child.id().and_then(|id| Pid::from_raw(id as i32)));
        let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(no_pipes());
        };
        let ended = Box::pin(async move { child.wait().await });
        Ok((Self { group, ended, status: None, stdin: Some(stdin), stdout }, stderr))
    }

    fn poll_status(&mut self, cx: &mut Context<'_>) -> Poll<&io::Result<ExitStatus>> {
        if self.status.is_none()
            && let Poll::Ready(status) = self.ended.as_mut().poll(cx)
        {
            self.status = Some(status);
        }
        self.status.as_ref().map_or(Poll::Pending, Poll::Ready)
    }
}

fn no_pipes() -> Error {
    Error::new(ErrorKind::Internal, "A service's command has no program or no pipes.", "Please report this.")
}

impl AsyncRead for Process {
    /// Ends when the process has: one that closes its stdout may still be at work on what it was told. One that a signal ended has not said everything.
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = out.filled().len();
        ready!(Pin::new(&mut self.stdout).poll_read(cx, out))?;
        if out.filled().len() > before || out.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let outcome = match ready!(self.poll_status(cx)) {
            Ok(status) => {
                status.signal().map_or(Ok(()), |_| Err(io::Error::other(format!("the command ended by {status}"))))
            }
            Err(error) => Err(io::Error::other(format!("the command could not be waited for: {error}"))),
        };
        self.group.0 = None;
        Poll::Ready(outcome)
    }
}

impl AsyncWrite for Process {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stdin {
            Some(stdin) => Pin::new(stdin).poll_write(cx, data),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stdin.as_mut().map_or(Poll::Ready(Ok(())), |stdin| Pin::new(stdin).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stdin = None;
        Poll::Ready(Ok(()))
    }
}

impl Local for Process {
    fn cut(&mut self) {
        drop(std::mem::replace(&mut self.group, Group(None)));
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_status(cx).map(drop)
    }
}
