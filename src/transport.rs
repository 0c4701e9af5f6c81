//! Byte pipes below Noise: through Tor by arti ([`arti`]), through Tor by a daemon ([`tor`]), or plain TCP ([`tcp`]).
//!
//! A transport authenticates nobody and protects nothing that is said; that is the handshake's work. What it promises: an onion
//! address is dialled through Tor only and never resolved; each peer's circuits are apart from the others'; every dial ends by its deadline.

use crate::config::{self, TransportKind};
use crate::error::{Error, ErrorKind, Result};
use crate::identity::OnionAddress;
use crate::secret::OnionSecretKey;
use futures::future::BoxFuture;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::Instant;

#[cfg(feature = "arti")]
pub mod arti;
mod pipe;
mod retry;
pub mod tcp;
pub mod tor;

pub use pipe::{Pipe, ReadPipe, WritePipe};

/// Where a peer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its onion service; needed by the Tor transports.
    pub onion: Option<OnionAddress>,
    /// Its service's virtual port.
    pub port: u16,
    /// Its TCP address; needed by the tcp transport, which ignores the rest.
    pub tcp: Option<SocketAddr>,
    /// A label: pipes with different labels never share a circuit. One per peer, so that no peer's guess about another is helped.
    pub isolation: String,
}

/// What to publish. The tcp transport ignores it and listens where its configuration says.
pub struct Service {
    /// The onion service's key. The transport keeps it in memory while it listens, to publish again.
    pub onion: OnionSecretKey,
    /// The address of that key; checked before anything is published.
    pub address: OnionAddress,
    /// Virtual port, the only one that is answered.
    pub port: u16,
}

/// A way to reach machines and to be reached.
pub trait Transport: Send + Sync {
    /// `arti`, `tor` or `tcp`.
    fn name(&self) -> &'static str;

    /// Whether each service has an address of its own, and one process may publish several; if not, one place is listened on for all.
    fn addresses(&self) -> bool {
        true
    }

    /// Opens a pipe to `target`. Passing troubles are tried again, with a growing pause, until `deadline`.
    ///
    /// # Errors
    /// `AddressRefused` when this transport does not dial such a target, `TransportUnavailable` when there is no Tor, `Unreachable`,
    /// `OnionAuth`, and `DialTimeout` when not even the first try ended by `deadline`. Of tries that failed, the last one's error is returned.
    fn dial<'a>(&'a self, target: &'a Target, deadline: Instant) -> BoxFuture<'a, Result<Pipe>>;

    /// Publishes `service` and returns once connections are taken in; [`Listener::status`] says when others can reach it.
    ///
    /// # Errors
    /// `IdentityInvalid` when the key is not the address's, `TransportUnavailable`, `ControlRefused`, `PortInUse`, `AddressRefused`.
    fn listen(&self, service: Service) -> BoxFuture<'_, Result<Box<dyn Listener>>>;
}

/// A published service. Dropping it ends the service; pipes that were accepted go on.
pub trait Listener: Send {
    /// The next pipe. Cancel-safe. Passing troubles are logged and waited out inside: an error is final.
    fn accept(&mut self) -> BoxFuture<'_, Result<Pipe>>;

    /// Whether others can reach the service, as it changes.
    fn status(&self) -> watch::Receiver<ServiceState>;
}

/// Whether others can reach a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceState {
    /// Tor is not ready yet.
    Starting,
    /// The service's descriptor is on its way to Tor's directories.
    Publishing,
    /// The transport believes that the service can be reached.
    Reachable,
    /// Not reachable at the moment, why (half a sentence), and it is being mended.
    Interrupted(String),
}

/// Opens the transport that `config` chooses. `store_dir` is where it may keep its state. Must be called within a tokio runtime.
///
/// # Errors
/// `ConfigInvalid` or `TransportUnavailable` when its own configuration or directories do not work. No network is touched: a Tor that is
/// not there is found by the first dial or listen.
pub async fn open(config: &config::Transport, store_dir: &Path) -> Result<Arc<dyn Transport>> {
    Ok(match config.kind {
        #[cfg(feature = "arti")]
        TransportKind::Arti => Arc::new(arti::Arti::open(&config.arti, store_dir).await?),
        #[cfg(not(feature = "arti"))]
        TransportKind::Arti => return Err(without_arti(store_dir)),
        TransportKind::Tor => Arc::new(tor::Tor::new(config.tor.clone())?),
        TransportKind::Tcp => Arc::new(tcp::Tcp::new(config.tcp.listen)),
    })
}

#[cfg(not(feature = "arti"))]
fn without_arti(_store_dir: &Path) -> Error {
    Error::new(
        ErrorKind::TransportUnavailable,
        "This program was built without arti, Tor in the same process.",
        "Use `--transport tor` with a tor daemon, or build it with the feature `arti`.",
    )
}

/// The onion address of a target of the Tor transports.
fn onion_of(target: &Target) -> Result<OnionAddress> {
    target.onion.ok_or_else(|| {
        Error::new(
            ErrorKind::AddressRefused,
            "The peer has no onion address, and only onion addresses are dialled through Tor.",
            "Use `--transport tcp` for a peer on loopback or a private network.",
        )
    })
}

/// The key is not the address's.
fn wrong_key(address: &OnionAddress) -> Error {
    Error::new(
        ErrorKind::IdentityInvalid,
        format!("The onion service's key is not that of {}.", address.redacted()),
        "The store was changed by hand: restore it from a backup.",
    )
}

/// Sets the state; whether it is another one than before.
fn set(state: &watch::Sender<ServiceState>, new: ServiceState) -> bool {
    state.send_if_modified(|old| {
        let changed = *old != new;
        *old = new;
        changed
    })
}
