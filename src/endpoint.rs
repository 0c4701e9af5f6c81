//! The endpoint: the only place where store, token, transport, handshake and session meet.
//!
//! ```no_run
//! # async fn example(endpoint: claviger::Endpoint) -> claviger::Result<()> {
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! let mut session = endpoint.connect_peer(&"cosigner".parse()?, None).await?;
//! session.write_all(b"sign this").await.map_err(claviger::session::error_of)?;
//! session.shutdown().await.map_err(claviger::session::error_of)?;
//! let mut answer = Vec::new();
//! session.read_to_end(&mut answer).await.map_err(claviger::session::error_of)?;
//! # Ok(()) }
//! ```

mod attempt;
mod ceremony;
mod drive;
mod listening;
mod pending;

pub use attempt::Direction;
pub use ceremony::CeremonyInput;
pub use listening::{Incoming, Listening, WATCH};

use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::{Identifier, IdentityCard, OnionAddress, StaticPublic};
use crate::noise::Protocol;
use crate::session::Session;
use crate::store::{Peer, Store};
use crate::token::TokenHandle;
use crate::transport::{BoxPipe, Target, Transport};
use crate::wire::Pattern;
use attempt::Attempt;
use drive::Initiation;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// This machine on the network: its store, its token and one transport. Clones share them.
#[derive(Clone)]
pub struct Endpoint(Arc<Inner>);

struct Inner {
    store: Mutex<Store>,
    card: IdentityCard,
    token: TokenHandle,
    transport: Arc<dyn Transport>,
    config: Config,
}

/// A dialled pipe that is not yet authenticated: what [`Endpoint::connect`] gives and [`Endpoint::handshake_initiate`] takes.
pub struct Connection {
    pipe: BoxPipe,
    onion_address: OnionAddress,
    port: u16,
    dialled: Duration,
}

impl Connection {
    /// A pipe that was opened some other way, to the service of `onion_address` and `port`: both are bound by the handshake.
    pub fn new(pipe: BoxPipe, onion_address: OnionAddress, port: u16) -> Self {
        Self { pipe, onion_address, port, dialled: Duration::ZERO }
    }
}

impl Endpoint {
    /// Ties the parts together.
    ///
    /// # Errors
    /// [`ErrorKind::KeyMismatch`] when the token's key is not this machine's, and the store's errors.
    pub fn new(store: Store, token: TokenHandle, transport: Arc<dyn Transport>, config: Config) -> Result<Self> {
        let card = store.machine()?.card;
        if *token.public() != card.static_public {
            return Err(Error::new(
                ErrorKind::KeyMismatch,
                format!("{} does not hold the key of `{}`.", token.label(), card.identifier),
                "Plug in this machine's token.",
            ));
        }
        Ok(Self(Arc::new(Inner { store: Mutex::new(store), card, token, transport, config })))
    }

    /// This machine's identity.
    pub fn identity(&self) -> &IdentityCard {
        &self.0.card
    }

    /// This machine's token.
    pub fn token(&self) -> &TokenHandle {
        &self.0.token
    }

    /// The configuration it was made with.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// `arti`, `tor` or `tcp`.
    pub fn transport_name(&self) -> &'static str {
        self.0.transport.name()
    }

    /// Publishes this machine's onion service and answers peers' handshakes, many at once.
    ///
    /// `onion_address` must be this machine's own: the store holds the key of no other.
    ///
    /// # Errors
    /// [`ErrorKind::AddressRefused`] for another machine's address, and the transport's errors.
    pub async fn listen(&self, onion_address: &OnionAddress, port: u16) -> Result<Listening> {
        let own = &self.0.card;
        if *onion_address != own.onion_address {
            return Err(Error::new(
                ErrorKind::AddressRefused,
                format!("{} is not the address of `{}`.", onion_address.redacted(), own.identifier),
                "Listen on this machine's own address, as `claviger-ceremony show` prints it.",
            ));
        }
        Listening::start(self.clone(), port).await
    }

    /// Dials an onion service. The pipe is not authenticated: go on with [`handshake_initiate`](Self::handshake_initiate).
    ///
    /// With the `tcp` transport the address only names the peer; the host and port are those of the configuration.
    ///
    /// # Errors
    /// The transport's errors; [`ErrorKind::PeerUnknown`] with `tcp` when no peer has that address.
    pub async fn connect(&self, onion_address: &OnionAddress, port: u16) -> Result<Connection> {
        let started = Instant::now();
        let peer = self.peers()?.into_iter().find(|peer| peer.onion_address == Some(*onion_address));
        let identifier = peer.as_ref().map(|peer| &peer.identifier);
        let dialled = self.dial(identifier, onion_address, port).await;
        let pipe = match dialled {
            Ok(pipe) => pipe,
            Err(error) => {
                let mut attempt = self.attempt(Direction::Outgoing, identifier);
                attempt.dial = started.elapsed();
                attempt.end(Some(&error));
                return Err(error);
            }
        };
        Ok(Connection { pipe, onion_address: *onion_address, port, dialled: started.elapsed() })
    }

    /// Runs the handshake on a dialled pipe, as initiator, with the peer whose static key is `remote`; it must be in the store.
    ///
    /// # Errors
    /// [`ErrorKind::PeerUnknown`], the token's errors, [`ErrorKind::HandshakeRefused`] when the other end closes without an answer,
    /// [`ErrorKind::HandshakeFailed`] when its answer does not authenticate, [`ErrorKind::HandshakeTimeout`].
    pub async fn handshake_initiate(&self, connection: Connection, remote: &StaticPublic) -> Result<Session> {
        let mut attempt = self.attempt(Direction::Outgoing, None);
        attempt.dial = connection.dialled;
        let result = async {
            let peer = self.peer_by_key(remote)?;
            attempt.peer = Some(peer.identifier.clone());
            let pattern = Pattern::from(self.0.config.handshake.pattern);
            attempt.pattern = Some(pattern);
            let mut initiation = self.initiation(&peer, &connection.onion_address, connection.port, pattern)?;
            initiation.agree(&self.0.token, &mut attempt).await?;
            initiation.run(connection.pipe, &self.0.token, &mut attempt).await
        }
        .await;
        attempt.end(result.as_ref().err());
        result
    }

    /// Runs the handshake on an incoming pipe, as responder. `remote`: only this peer is let in; `None`: any peer of the store.
    ///
    /// [`listen`](Self::listen) does this for every connection; use it for pipes that came another way. Replays are found only among the
    /// connections of one [`Incoming`].
    ///
    /// # Errors
    /// [`ErrorKind::KnockUnknown`] and its like for a caller that is dropped without a token operation, the token's errors,
    /// [`ErrorKind::HandshakeFailed`], [`ErrorKind::HandshakeTimeout`].
    pub async fn handshake_respond(
        &self,
        pipe: BoxPipe,
        incoming: &Incoming,
        remote: Option<&StaticPublic>,
    ) -> Result<Session> {
        incoming.respond(pipe, remote, || {}).await
    }

    /// The state that [`handshake_respond`](Self::handshake_respond) shares between connections: the peers' knock keys and the knocks seen.
    ///
    /// Must be called in a tokio runtime.
    ///
    /// # Errors
    /// The store's errors.
    pub fn incoming(&self, port: u16) -> Result<Incoming> {
        Incoming::new(self.clone(), port)
    }

    /// Dials a peer by name and runs the handshake. KK's static-static operation runs while the circuit is built.
    ///
    /// `pattern`: `None` takes the configured one.
    ///
    /// # Errors
    /// Those of [`connect`](Self::connect) and [`handshake_initiate`](Self::handshake_initiate); [`ErrorKind::AddressRefused`] when
    /// the peer was recorded without an onion address.
    pub async fn connect_peer(&self, identifier: &Identifier, pattern: Option<Pattern>) -> Result<Session> {
        let pattern = pattern.unwrap_or_else(|| self.0.config.handshake.pattern.into());
        let mut attempt = self.attempt(Direction::Outgoing, Some(identifier));
        attempt.pattern = Some(pattern);
        let result = self.dial_and_initiate(identifier, pattern, &mut attempt).await;
        attempt.end(result.as_ref().err());
        result
    }

    async fn dial_and_initiate(
        &self,
        identifier: &Identifier,
        pattern: Pattern,
        attempt: &mut Attempt,
    ) -> Result<Session> {
        let peer = self.store().peer(identifier)?;
        let onion_address = peer.onion_address.ok_or_else(|| {
            Error::new(
                ErrorKind::AddressRefused,
                format!("`{identifier}` is recorded without an onion address, so it can not be dialled."),
                "Import its identity card with `claviger-ceremony import`.",
            )
        })?;
        let port = self.0.config.transport.port;
        let mut initiation = self.initiation(&peer, &onion_address, port, pattern)?;
        let started = Instant::now();
        let dialling = async {
            let pipe = self.dial(Some(identifier), &onion_address, port).await?;
            Ok((pipe, started.elapsed()))
        };
        // The circuit and the token's answer are waited for together; whichever fails first ends both.
        let joined = tokio::try_join!(dialling, initiation.agree(&self.0.token, attempt));
        attempt.dial = joined.as_ref().map_or_else(|_| started.elapsed(), |((_, dialled), ())| *dialled);
        let ((pipe, _), ()) = joined?;
        initiation.run(pipe, &self.0.token, attempt).await
    }

    async fn dial(&self, peer: Option<&Identifier>, onion_address: &OnionAddress, port: u16) -> Result<BoxPipe> {
        let deadline = Instant::now() + self.0.config.transport.dial_timeout;
        let target = Target {
            onion: Some(*onion_address),
            port,
            tcp: peer.and_then(|peer| self.tcp_address(peer)),
            isolation: peer.map_or_else(|| onion_address.label(), ToString::to_string),
        };
        self.0.transport.dial(&target, deadline).await
    }

    fn tcp_address(&self, peer: &Identifier) -> Option<SocketAddr> {
        self.0.config.transport.tcp.peers.get(peer).copied()
    }

    fn initiation(&self, peer: &Peer, onion_address: &OnionAddress, port: u16, pattern: Pattern) -> Result<Initiation> {
        let own = &self.0.card;
        // The responder's list decides; both ends hold both cards.
        let suite = peer.suites.with_initiator(&own.suites).ok_or_else(|| no_shared_suite(&peer.identifier))?;
        let protocol = Protocol { pattern, curve: own.curve(), suite };
        Initiation::new(own, peer, onion_address, port, protocol, &self.0.config)
    }

    fn attempt(&self, direction: Direction, peer: Option<&Identifier>) -> Attempt {
        Attempt::new(direction, self.0.transport.name(), peer.cloned())
    }

    fn peer_by_key(&self, key: &StaticPublic) -> Result<Peer> {
        self.store().peer_by_key(key)?.ok_or_else(|| {
            Error::new(
                ErrorKind::PeerUnknown,
                "No peer with that static public key is in the store.",
                "Import its identity card with `claviger-ceremony import`.",
            )
        })
    }

    fn peers(&self) -> Result<Vec<Peer>> {
        self.store().peers()
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.0.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn no_shared_suite(peer: &Identifier) -> Error {
    Error::new(
        ErrorKind::NoSharedSuite,
        format!("This machine and `{peer}` offer no suite in common."),
        "Set up one of them again with the other's suites and exchange cards again.",
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
