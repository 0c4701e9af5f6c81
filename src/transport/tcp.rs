//! Plain TCP over loopback and private networks, for tests and machines on one wire. It never dials an onion address: a target without
//! a TCP address is refused, and no name is resolved.

use super::{Limited, Listener, Pipe, Service, ServiceState, Target, Transport};
use crate::error::{Error, ErrorKind, Result};
use futures::future::BoxFuture;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

/// Pause after an accept that failed for want of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Failures to accept that are told, of all listeners together: whoever connects without end can cause them.
static TOLD: Limited = Limited::new(1, Duration::from_secs(60));

/// The tcp transport.
pub struct Tcp {
    listen: SocketAddr,
}

impl Tcp {
    /// A transport that listens at `listen`, once asked to.
    pub fn new(listen: SocketAddr) -> Self {
        Self { listen }
    }
}

impl Transport for Tcp {
    fn name(&self) -> &'static str {
        "tcp"
    }

    fn addresses(&self) -> bool {
        false
    }

    fn is_tor(&self) -> bool {
        false
    }

    fn dial<'a>(&'a self, target: &'a Target, deadline: Instant) -> BoxFuture<'a, Result<Pipe>> {
        Box::pin(async move {
            let Some(address) = target.tcp else {
                return Err(Error::new(
                    ErrorKind::AddressRefused,
                    "The peer has no TCP address, and the tcp transport dials no onion address.",
                    "Add the peer under `peers` in [transport.tcp], or use `--transport arti`.",
                ));
            };
            check(address)?;
            let stream = timeout_at(deadline, TcpStream::connect(address)).await.map_err(|_| {
                Error::new(
                    ErrorKind::DialTimeout,
                    format!("{address} did not answer in time."),
                    "Check the address, and that no firewall drops the connection.",
                )
            })?;
            let stream = stream.map_err(|error| unreachable(address, error))?;
            Ok(Pipe::from(stream))
        })
    }

    fn listen(&self, _service: Service) -> BoxFuture<'_, Result<Box<dyn Listener>>> {
        Box::pin(async move {
            check(self.listen)?;
            let listener = bind(self.listen).await?;
            let address = listener.local_addr().map_err(|error| bind_failed(self.listen, error))?;
            tracing::info!(%address, state = ?ServiceState::Reachable, "service");
            let listener: Box<dyn Listener> =
                Box::new(TcpService { listener, state: watch::Sender::new(ServiceState::Reachable) });
            Ok(listener)
        })
    }
}

struct TcpService {
    listener: TcpListener,
    state: watch::Sender<ServiceState>,
}

impl Listener for TcpService {
    fn accept(&mut self) -> BoxFuture<'_, Result<Pipe>> {
        Box::pin(async { Ok(Pipe::from(accept(&self.listener).await)) })
    }

    fn status(&self) -> watch::Receiver<ServiceState> {
        self.state.subscribe()
    }
}

/// The next connection. Cancel-safe; failures are waited out: none of accept's errors on a listening socket lasts.
pub(super) async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                if let Some(untold) = TOLD.tell() {
                    let hint = "Raise LimitNOFILE= in the unit, or `ulimit -n`; those that come wait.";
                    tracing::warn!(target: "claviger::listener", hint, untold, "nothing can be accepted for now: {error}");
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Binds a listening socket.
pub(super) async fn bind(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| bind_failed(address, error))
}

fn check(address: SocketAddr) -> Result<()> {
    if is_local(address.ip()) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::AddressRefused,
        format!("The tcp transport does not use {address}: it is not a loopback, private or link-local address."),
        "Use such an address in [transport.tcp], or `--transport arti`, which needs no address.",
    ))
}

/// Loopback, private (RFC 1918, RFC 4193) or link-local.
fn is_local(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

fn bind_failed(address: SocketAddr, error: io::Error) -> Error {
    let failed = match error.kind() {
        io::ErrorKind::AddrInUse => Error::new(
            ErrorKind::PortInUse,
            format!("{address} is in use by another program."),
            format!(
                "End that program (`ss -ltnp 'sport = {}'` shows it), or choose another port for `listen`.",
                address.port()
            ),
        ),
        io::ErrorKind::AddrNotAvailable => Error::new(
            ErrorKind::AddressRefused,
            format!("This machine has no address {}.", address.ip()),
            "Set `listen` in [transport.tcp] to an address of this machine; `ip address` lists them.",
        ),
        io::ErrorKind::PermissionDenied => Error::new(
            ErrorKind::AddressRefused,
            format!("The system does not let this program listen on {address}."),
            "Choose a port of 1024 or more.",
        ),
        _ => Error::new(ErrorKind::Io, format!("Can not listen on {address}."), "See the cause, and try again."),
    };
    failed.because(error)
}

fn unreachable(address: SocketAddr, error: io::Error) -> Error {
    let (what, hint) = match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            (format!("Nothing listens on {address}."), "Start `claviger listen --transport tcp` on the peer's machine.")
        }
        _ => (format!("{address} can not be reached."), "Check the address and the network between the machines."),
    };
    Error::new(ErrorKind::Unreachable, what, hint).because(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::OnionKeys;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    fn target(tcp: Option<&str>) -> Target {
        let onion = Some(OnionKeys::generate().unwrap().address);
        Target {
            onion,
            port: 4747,
            tcp: tcp.map(|address| address.parse().unwrap()),
            isolation: "peer".into(),
            client: None,
        }
    }

    fn service() -> Service {
        let keys = OnionKeys::generate().unwrap();
        Service { onion: keys.secret, address: keys.address, port: 4747, audience: crate::transport::everyone() }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    async fn refused(transport: &Tcp, tcp: Option<&str>) -> ErrorKind {
        transport.dial(&target(tcp), soon()).await.err().unwrap().kind()
    }

    #[tokio::test]
    async fn only_local_addresses_are_dialled_and_listened_on() {
        let tcp = Tcp::new("127.0.0.1:0".parse().unwrap());
        for address in ["192.0.2.1:1", "8.8.8.8:53", "[2001:db8::1]:1", "[::ffff:8.8.8.8]:1", "0.0.0.0:1", "[::]:1"] {
            assert_eq!(refused(&tcp, Some(address)).await, ErrorKind::AddressRefused, "{address}");
            let everywhere = Tcp::new(address.parse().unwrap());
            assert_eq!(
                everywhere.listen(service()).await.err().unwrap().kind(),
                ErrorKind::AddressRefused,
                "{address}"
            );
        }
        assert_eq!(refused(&tcp, None).await, ErrorKind::AddressRefused);
        for address in
            ["10.1.2.3", "172.31.0.1", "192.168.0.1", "169.254.1.1", "fe80::1", "fd00::1", "::1", "::ffff:127.0.0.1"]
        {
            assert!(is_local(address.parse().unwrap()), "{address}");
        }
    }

    #[tokio::test]
    async fn bytes_cross_and_a_taken_port_is_named() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let tcp = Tcp::new(free);
        assert_eq!(refused(&tcp, Some(&free.to_string())).await, ErrorKind::Unreachable);
        let mut listener = tcp.listen(service()).await.unwrap();
        assert_eq!(*listener.status().borrow(), ServiceState::Reachable);
        let again = tcp.listen(service()).await.err().unwrap();
        assert_eq!(again.kind(), ErrorKind::PortInUse);

        let target = target(Some(&free.to_string()));
        let (dialled, accepted) = tokio::join!(tcp.dial(&target, soon()), listener.accept());
        let (mut dialled, mut accepted) = (dialled.unwrap(), accepted.unwrap());
        dialled.write_all(b"claviger").await.unwrap();
        drop(dialled);
        let mut got = Vec::new();
        accepted.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"claviger");
    }
}
