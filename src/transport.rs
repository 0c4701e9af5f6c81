//! Byte pipes below Noise: through Tor by arti ([`arti`]), through Tor by a daemon ([`tor`]), or plain TCP ([`tcp`]).
//!
//! A transport authenticates nobody and protects nothing that is said; that is the handshake's work. What it promises: an onion
//! address is dialled through Tor only and never resolved; each peer's circuits are apart from the others'; every dial ends by its deadline.

use crate::config::{Config, TransportKind};
use crate::error::{Error, ErrorKind, Result};
use crate::identity::{ClientAuthPublic, OnionAddress};
use crate::secret::{ClientAuthSecret, OnionSecretKey};
use futures::future::BoxFuture;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::Instant;

#[cfg(feature = "arti")]
pub mod arti;
mod limited;
mod pipe;
mod progress;
mod retry;
pub mod tcp;
pub mod tor;

pub(crate) use limited::{Each, Limited};
pub use pipe::{Pipe, ReadPipe, WritePipe};
pub use progress::{Blocked, Progress, Stage};

/// Where a peer is.
#[derive(Clone)]
pub struct Target {
    /// Its onion service; needed by the Tor transports.
    pub onion: Option<OnionAddress>,
    /// Its service's virtual port.
    pub port: u16,
    /// Its TCP address; needed by the tcp transport, which ignores the rest.
    pub tcp: Option<SocketAddr>,
    /// A label: pipes with different labels never share a circuit. One per peer, so that no peer's guess about another is helped.
    pub isolation: String,
    /// This machine's client-authorization secret: it opens the descriptor of a service that only some find. `None`: services that everyone finds.
    pub client: Option<Arc<ClientAuthSecret>>,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { onion, port, tcp, isolation, client: _ } = self;
        let mut shown = f.debug_struct("Target");
        shown.field("onion", onion).field("port", port).field("tcp", tcp).field("isolation", isolation);
        shown.finish_non_exhaustive()
    }
}

/// Who finds a service: the client-authorization keys to which its descriptor is encrypted (Tor rend-spec-v3, appendix G). `None`: everyone.
/// Never empty: this machine finds its own.
pub type Audience = Option<Arc<BTreeSet<ClientAuthPublic>>>;

/// An audience of everyone, for ever.
pub fn everyone() -> watch::Receiver<Audience> {
    watch::channel(None).1
}

/// Ready when `audience` is another one; never when nobody changes it any more.
async fn changed(audience: &mut watch::Receiver<Audience>) {
    if audience.changed().await.is_err() {
        std::future::pending().await
    }
}

/// An audience that has changed may change again at once: it is waited for so long.
const SETTLED: std::time::Duration = std::time::Duration::from_millis(300);

/// The most keys of an [`Audience`]. A descriptor has at most 50 000 bytes, of which each key takes about 94 (arti recommends no more, either).
pub const MAX_AUDIENCE: usize = 160;

/// What to publish. The tcp transport ignores it and listens where its configuration says.
pub struct Service {
    /// The onion service's key. The transport keeps it in memory while it listens, to publish again.
    pub onion: OnionSecretKey,
    /// The address of that key; checked before anything is published.
    pub address: OnionAddress,
    /// Virtual port, the only one that is answered.
    pub port: u16,
    /// Who finds it. Followed while it is published: a change is in Tor's directories within seconds, and what was connected stays so.
    pub audience: watch::Receiver<Audience>,
}

/// A way to reach machines and to be reached.
pub trait Transport: Send + Sync {
    /// `arti`, `tor` or `tcp`.
    fn name(&self) -> &'static str;

    /// Whether each service has an address of its own, and one process may publish several; if not, one place is listened on for all.
    fn addresses(&self) -> bool {
        true
    }

    /// Whether it goes through Tor, so that even this machine's own service is outside.
    fn is_tor(&self) -> bool {
        true
    }

    /// How far the Tor below it is, to watch. Must be called in a tokio runtime.
    fn progress(&self) -> watch::Receiver<Progress> {
        watch::channel(Progress::ready()).1
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

/// Opens the transport that `config` chooses, with what its `[onion]` says of services. `store_dir` is where it may keep its state. Must be called within a tokio runtime.
///
/// # Errors
/// `ConfigInvalid` or `TransportUnavailable` when its own configuration or directories do not work. No network is touched: a Tor that is
/// not there is found by the first dial or listen.
pub async fn open(config: &Config, store_dir: &Path) -> Result<Arc<dyn Transport>> {
    let Config { transport, onion, .. } = config;
    Ok(match transport.kind {
        #[cfg(feature = "arti")]
        TransportKind::Arti => Arc::new(arti::Arti::open(&transport.arti, onion, store_dir).await?),
        #[cfg(not(feature = "arti"))]
        TransportKind::Arti => return Err(without_arti(store_dir)),
        TransportKind::Tor => Arc::new(tor::Tor::new(transport.tor.clone(), onion.clone())?),
        TransportKind::Tcp => Arc::new(tcp::Tcp::new(transport.tcp.listen)),
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

/// What to do when a descriptor is not for this machine.
const NOT_FOR_US: &str =
    "Import this machine's card on the peer, and look there with `claviger-ceremony peers` whether it has expired.";

/// More may find the service than its descriptor has room for.
fn crowded(audience: &Audience) -> Option<Error> {
    let count = audience.as_ref().map_or(0, |keys| keys.len());
    (count > MAX_AUDIENCE).then(|| {
        Error::new(
            ErrorKind::ConfigInvalid,
            format!("{count} machines are to find the onion service, and its descriptor has room for {MAX_AUDIENCE}."),
            "Set `restricted = false` under [onion]: then whoever knows the address finds it, and still needs a recorded key.",
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
