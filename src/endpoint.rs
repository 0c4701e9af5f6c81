//! The endpoint: the only place where store, token, transport, handshake and session meet.
//!
//! ```no_run
//! # async fn example(endpoint: claviger::Endpoint) -> claviger::Result<()> {
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! let session = endpoint.connect_peer(&"cosigner".parse()?, None).await?;
//! let mut stream = session.open(&"cosign".parse()?).await?;
//! stream.write_all(b"sign this").await.map_err(claviger::session::error_of)?;
//! stream.shutdown().await.map_err(claviger::session::error_of)?;
//! let mut answer = Vec::new();
//! stream.read_to_end(&mut answer).await.map_err(claviger::session::error_of)?;
//! drop(stream);
//! session.close().await?;
//! # Ok(()) }
//! ```

mod attempt;
mod audience;
mod ceremony;
mod clock;
mod connecting;
mod cut;
mod drive;
mod known;
mod listening;
mod own;
mod pending;
mod probe;
mod protocol;
mod reconnecting;
mod report;
mod resumption;
pub mod rollcall;
mod sessions;

pub use attempt::Direction;
pub use ceremony::CeremonyInput;
pub use connecting::Connection;
pub use known::WATCH;
pub use listening::{Incoming, Listening};
pub use own::{is_sealed, unlock};
pub use reconnecting::{ReconnectOptions, ReconnectState, Reconnecting};
pub use report::Report;
pub use resumption::{ConnectOptions, Resume};

use crate::ceremony::plan::Plan;
use crate::config::{Config, Limits};
use crate::error::{Error, ErrorKind, Result};
use crate::identity::{Identifier, IdentityCard, OnionAddress, StaticPublic};
use crate::session::{self, Session};
use crate::store::{Peer, SealState, Store};
use crate::token::{TokenHandle, Trouble};
use crate::transport::{Pipe, Transport};
use crate::wire::Pattern;
use attempt::Attempt;
use known::Shared;
use own::Own;
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

/// This machine on the network: its store, its token and one transport. Clones share them.
///
/// The store is looked at every [`WATCH`] while the endpoint listens, connects or has sessions. A peer that was removed, revoked, or whose time has
/// passed is a stranger from then on, and its sessions end with [`ErrorKind::SessionRevoked`].
#[derive(Clone)]
pub struct Endpoint(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    own: Arc<Own>,
    /// Who it was before a rotation whose overlap lasts, with that key's token.
    former: Option<Arc<Own>>,
    transport: Arc<dyn Transport>,
    config: Config,
}

impl Endpoint {
    /// Ties the parts together. A sealed store is [unlocked](unlock) before.
    ///
    /// # Errors
    /// [`ErrorKind::KeyMismatch`] when the token's key is not the one that this machine uses, [`ErrorKind::StoreLocked`], [`ErrorKind::StoreUnsealed`] unless the
    /// configuration allows it, and the store's errors.
    pub fn new(store: Store, token: TokenHandle, transport: Arc<dyn Transport>, config: Config) -> Result<Self> {
        own::check_seal(&store, &config)?;
        let own = Arc::new(Own::present(&store, token.clone())?);
        let shared = Shared::new(store, token, &config)?;
        Ok(Self(Arc::new(Inner { shared, own, former: None, transport, config })))
    }

    /// The same, which is also who this machine was before its rotation, until the overlap ends: it listens at the former address, too, and connects as
    /// its former self to peers that have not imported the succession. `token` holds the former key.
    ///
    /// # Errors
    /// [`ErrorKind::KeyMismatch`] when the token does not hold it, or no rotation is under way; and the store's errors.
    pub fn with_former(&self, token: TokenHandle) -> Result<Self> {
        let (former, client_auth) = {
            let store = self.store();
            (store.machine()?.former, store.former_client_auth_secret()?)
        };
        let (former, client_auth) = former.zip(client_auth).ok_or_else(|| {
            Error::new(
                ErrorKind::KeyMismatch,
                "No rotation is under way, so there is no former key.",
                "Use the machine's present token alone.",
            )
        })?;
        let Inner { shared, own, transport, config, .. } = &*self.0;
        let former = Arc::new(Own::former(former, client_auth, token)?);
        // A next card that only adds a backup key: whoever knows the former one finds the present one by it.
        if former.key == own.key && former.card.onion_address == own.card.onion_address {
            return Ok(self.clone());
        }
        Ok(Self(Arc::new(Inner {
            shared: Arc::clone(shared),
            own: Arc::clone(own),
            former: Some(former),
            transport: Arc::clone(transport),
            config: config.clone(),
        })))
    }

    /// This machine's identity.
    pub fn identity(&self) -> &IdentityCard {
        &self.0.own.card
    }

    /// This machine's token.
    pub fn token(&self) -> &TokenHandle {
        &self.0.own.token
    }

    /// The configuration it was made with.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// `arti`, `tor` or `tcp`.
    pub fn transport_name(&self) -> &'static str {
        self.0.transport.name()
    }

    /// How far the Tor below the transport is, to watch. Must be called in a tokio runtime.
    pub fn progress(&self) -> watch::Receiver<crate::transport::Progress> {
        self.0.transport.progress()
    }

    /// What keeps changes of the store from being taken over, to watch: it was changed outside the tool, or can not be read. The peers stay as they
    /// were until then. `None`: nothing does.
    pub fn store_trouble(&self) -> watch::Receiver<Option<Trouble>> {
        self.0.shared.trouble()
    }

    /// Publishes this machine's onion service and answers peers' handshakes, many at once; the former one, too, while a rotation's overlap lasts.
    ///
    /// `onion_address` must be this machine's own: the store holds the key of no other.
    ///
    /// # Errors
    /// [`ErrorKind::AddressRefused`] for another machine's address, and the transport's errors.
    pub async fn listen(&self, onion_address: &OnionAddress, port: u16) -> Result<Listening> {
        let own = self.identity();
        if *onion_address != own.onion_address {
            return Err(Error::new(
                ErrorKind::AddressRefused,
                format!("{} is not the address of `{}`.", onion_address.redacted(), own.identifier),
                "Listen on this machine's own address, as `claviger-ceremony show` prints it.",
            ));
        }
        Listening::start(self.clone(), port).await
    }

    /// Runs the handshake on an incoming pipe, as responder. `remote`: only the peer that holds this key is let in; `None`: any peer of the store.
    ///
    /// [`listen`](Self::listen) does this for every connection; use it for pipes that came another way. Replays are found only among the
    /// connections of one [`Incoming`].
    ///
    /// # Errors
    /// [`ErrorKind::KnockUnknown`] and its like for a caller that is dropped without a token operation, the token's errors,
    /// [`ErrorKind::HandshakeFailed`], [`ErrorKind::HandshakeTimeout`].
    pub async fn handshake_respond(
        &self,
        pipe: Pipe,
        incoming: &Incoming,
        remote: Option<&StaticPublic>,
    ) -> Result<Session> {
        incoming.respond(pipe, &self.0.own, remote, || {}).await
    }

    /// The state that [`handshake_respond`](Self::handshake_respond) shares between connections: the peers' knock keys and the knocks seen.
    ///
    /// Must be called in a tokio runtime.
    ///
    /// # Errors
    /// None yet.
    pub fn incoming(&self, port: u16) -> Result<Incoming> {
        Ok(Incoming::new(self.clone(), port))
    }

    /// The sessions of this endpoint that have not ended, in no order.
    pub fn sessions(&self) -> Vec<session::Status> {
        self.0.shared.sessions.status()
    }

    /// Whether the store is sealed.
    ///
    /// # Errors
    /// The store's.
    pub fn is_sealed(&self) -> Result<bool> {
        Ok(self.store().seal_state()? != SealState::Unsealed)
    }

    /// Has `callback` called with what became of each attempt to connect, from now on, beside those that are called already. It must not block.
    pub fn observe(&self, callback: impl Fn(&Report) + Send + Sync + 'static) {
        self.0.shared.observer.add(Arc::new(callback));
    }

    /// The peers of the store, by name, as they were last read.
    pub fn peers(&self) -> Vec<Peer> {
        self.0.shared.known().peers.clone()
    }

    /// A peer of the store, as it was last read.
    pub fn peer(&self, identifier: &Identifier) -> Option<Peer> {
        self.0.shared.known().peer(identifier).cloned()
    }

    /// Other limits, for what begins from now on: `sessions`, `sessions_per_peer`, and, for peers that have no session now, `streams_per_peer` and `buffer_per_peer`.
    /// The others stay as they were.
    pub fn set_limits(&self, limits: &Limits) {
        self.0.shared.sessions.set_limits(limits);
        self.0.shared.chains.set_limit(limits.sessions_per_peer as usize);
    }

    /// The plan of the ceremony, as it was last read; `None` when there was none.
    pub fn plan(&self) -> Option<Arc<Plan>> {
        self.0.shared.known().plan.clone()
    }

    /// Changes when peers, plan or keys are others than before. Watches the store from now on; must be called in a tokio runtime.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.shared.watch();
        self.0.shared.changes.subscribe()
    }

    /// How often the store has been looked at for changes: it grows while it is watched.
    pub fn looks(&self) -> u64 {
        self.0.shared.looks()
    }

    /// For tests: as if so much more time had passed since the token was asked, for sessions and for what is left of them.
    #[doc(hidden)]
    pub fn pass(&self, time: Duration) {
        self.0.shared.clock.pass(time);
    }

    fn attempt(&self, direction: Direction, peer: Option<&Identifier>) -> Attempt {
        let Shared { clock, observer, .. } = &*self.0.shared;
        Attempt::new(direction, self.0.transport.name(), peer.cloned(), clock.clone(), observer.clone())
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.0.shared.store()
    }
}

fn no_shared_suite(peer: &Identifier) -> Error {
    Error::new(
        ErrorKind::NoSharedSuite,
        format!("This machine and `{peer}` offer no suite in common."),
        "Set up one of them again with the other's suites and exchange cards again.",
    )
}

fn expired(peer: &Peer) -> Error {
    Error::new(
        ErrorKind::PeerExpired,
        format!("The time of `{}` has passed on this machine.", peer.identifier),
        format!("If it may go on, run `claviger-ceremony expire {} --never`, or give it another day.", peer.identifier),
    )
}

impl From<crate::config::Pattern> for Pattern {
    fn from(pattern: crate::config::Pattern) -> Self {
        match pattern {
            crate::config::Pattern::Kk => Self::Kk,
            crate::config::Pattern::Kk1 => Self::Kk1,
            crate::config::Pattern::Xk => Self::Xk,
        }
    }
}

/// Unix time in milliseconds; 0 for a clock before 1970.
fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
