//! The connecting side: which of its keys a peer is tried by, as which of its own this machine comes.

use super::attempt::{Attempt, Direction};
use super::drive::{self, Initiation};
use super::known::now;
use super::own::Own;
use super::protocol::{Terms, protocol};
use super::resumption::{self, Arrival, ConnectOptions, Family, Resume, Taken, is_refusal};
use super::sessions::{Entry, Pair};
use super::{Endpoint, Inner, expired};
use crate::error::{Error, ErrorKind, Result};
use crate::identity::{Identifier, OnionAddress, StaticPublic};
use crate::noise::Protocol;
use crate::session::Session;
use crate::store::{Peer, PeerKey};
use crate::transport::{Pipe, Target};
use crate::wire::Pattern;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A dialled pipe that is not yet authenticated: what [`Endpoint::connect`] gives and [`Endpoint::handshake_initiate`] takes.
pub struct Connection {
    pipe: Pipe,
    onion_address: OnionAddress,
    port: u16,
    dialled: Duration,
}

impl Connection {
    /// A pipe that was opened some other way, to the service of `onion_address` and `port`: both are bound by the handshake.
    pub fn new(pipe: Pipe, onion_address: OnionAddress, port: u16) -> Self {
        Self { pipe, onion_address, port, dialled: Duration::ZERO }
    }
}

/// One way to reach a peer: as whom, by which of its keys, where.
pub(super) struct Way {
    pub(super) own: Arc<Own>,
    pub(super) key: PeerKey,
    pub(super) onion_address: OnionAddress,
}

impl Endpoint {
    /// Dials an onion service. The pipe is not authenticated: go on with [`handshake_initiate`](Self::handshake_initiate).
    ///
    /// With the `tcp` transport the address only names the peer; the host and port are those of the configuration.
    ///
    /// # Errors
    /// The transport's errors; [`ErrorKind::AddressRefused`] with `tcp` when no peer has that address.
    pub async fn connect(&self, onion_address: &OnionAddress, port: u16) -> Result<Connection> {
        let started = Instant::now();
        self.look().await;
        let known = self.0.shared.known();
        let listens = |peer: &&Peer| peer.keys(now()).iter().any(|key| key.onion_address == Some(*onion_address));
        let identifier = known.peers.iter().find(listens).map(|peer| &peer.identifier);
        let dialled = self.dial(identifier, &self.0.own, onion_address, port).await;
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

    /// Runs the handshake on a dialled pipe, as initiator, with the peer that holds the static key `remote`; it must be in the store.
    ///
    /// # Errors
    /// [`ErrorKind::PeerUnknown`], the token's errors, [`ErrorKind::HandshakeRefused`] when the other end closes without an answer,
    /// [`ErrorKind::HandshakeFailed`] when its answer does not authenticate, [`ErrorKind::HandshakeTimeout`].
    pub async fn handshake_initiate(&self, connection: Connection, remote: &StaticPublic) -> Result<Session> {
        let mut attempt = self.attempt(Direction::Outgoing, None);
        attempt.dial = connection.dialled;
        let result = async {
            self.look().await;
            let (age, known) = (self.0.shared.chains.age(), self.0.shared.known());
            let (peer, key) = known.by_key(remote).ok_or_else(|| {
                Error::new(
                    ErrorKind::PeerUnknown,
                    "No peer holds that static public key.",
                    "Import its identity card with `claviger-ceremony import`.",
                )
            })?;
            attempt.peer = Some(peer.identifier.clone());
            let pattern = Pattern::from(self.0.config.handshake.pattern);
            attempt.pattern = Some(pattern);
            let Connection { pipe, onion_address, port, .. } = connection;
            let way = Way { own: Arc::clone(&self.0.own), key: key.clone(), onion_address };
            attempt.by(&way.own, &way.key);
            let mut initiation = self.initiation(peer, &way, port, pattern)?;
            attempt.kind = Some(initiation.kind);
            initiation.agree(&way.own.token, &mut attempt).await?;
            self.initiate(initiation, age, peer, &way, port, pipe, &mut attempt).await
        }
        .await;
        attempt.end(result.as_ref().err());
        result
    }

    /// Dials a peer by name and runs the handshake. KK's static-static operation runs while the circuit is built.
    ///
    /// A peer that goes on by its backup key, or by the keys of a next card that it or this machine has and the other does not know yet, is found: its keys are tried one
    /// after the other, first the one by which it was reached last, then as this machine's former self. `pattern`: `None` takes the configured one.
    ///
    /// A session with it that broke is resumed first, while `resume-for` under `[session]` lasts: see [`connect_peer_with`](Self::connect_peer_with).
    ///
    /// # Errors
    /// The transport's; those of [`handshake_initiate`](Self::handshake_initiate); [`ErrorKind::PeerExpired`]; [`ErrorKind::AddressRefused`] when
    /// the peer was recorded without an onion address.
    pub async fn connect_peer(&self, identifier: &Identifier, pattern: Option<Pattern>) -> Result<Session> {
        self.connect_peer_with(identifier, ConnectOptions::DEFAULT.pattern(pattern)).await
    }

    /// The same, by other rules about [resumption](Resume).
    ///
    /// Resuming takes a dial and one message each way, and nothing of the token. When the peer refuses it (it was restarted, or something has changed that
    /// the session stood on), a full handshake is made on a fresh pipe.
    ///
    /// # Errors
    /// Those of [`connect_peer`](Self::connect_peer); with [`Resume::Only`] also [`ErrorKind::ResumptionRefused`] when nothing is left to resume, and
    /// [`ErrorKind::HandshakeRefused`] when nothing is left at the peer.
    pub async fn connect_peer_with(&self, identifier: &Identifier, options: ConnectOptions) -> Result<Session> {
        let pattern = options.pattern.unwrap_or_else(|| self.0.config.handshake.pattern.into());
        let mut attempt = self.attempt(Direction::Outgoing, Some(identifier));
        attempt.pattern = Some(pattern);
        self.look().await;
        let age = self.0.shared.chains.age();
        let (peer, ways) = match self.ways(identifier).await {
            Ok(found) => found,
            Err(error) => {
                attempt.end(Some(&error));
                return Err(error);
            }
        };
        let (mut silent, mut failure): (Silent, Option<Error>) = (Silent::default(), None);
        let mut attempt = Some(attempt);
        // Kept until a full handshake succeeds, and given back if none does.
        let mut refused: Option<Taken> = None;
        if let Some((mut left, way)) = self.left(&peer, &ways, options) {
            let mut attempt = attempt.take().unwrap_or_else(|| self.attempt(Direction::Outgoing, Some(identifier)));
            let resumed = self.resume(&peer, way, &mut left, &mut attempt).await;
            attempt.end(resumed.as_ref().err());
            match resumed {
                Ok(session) => {
                    left.done();
                    return Ok(session);
                }
                Err(error) if options.resume == Resume::IfBroken && silent.note(way, error.kind()) => {
                    failure = Some(error);
                }
                Err(error) if options.resume == Resume::IfBroken && is_refusal(error.kind()) => refused = Some(left),
                Err(error) => return Err(error),
            }
        } else if options.resume == Resume::Only {
            let error = resumption::nothing_here(identifier);
            attempt.take().into_iter().for_each(|attempt| attempt.end(Some(&error)));
            return Err(error);
        }
        for way in ways {
            if silent.holds(&way) {
                continue;
            }
            let mut attempt = attempt.take().unwrap_or_else(|| self.attempt(Direction::Outgoing, Some(identifier)));
            attempt.pattern = Some(pattern);
            attempt.by(&way.own, &way.key);
            let result = self.dial_and_initiate(&peer, &way, age, pattern, &mut attempt).await;
            attempt.end(result.as_ref().err());
            let error = match result {
                Ok(session) => {
                    refused.into_iter().for_each(Taken::done);
                    self.0.shared.reached(identifier, &way.own.key, &way.key.static_public);
                    return Ok(session);
                }
                Err(error) => error,
            };
            match error.kind() {
                ErrorKind::HandshakeRefused => {}
                kind if silent.note(&way, kind) => {}
                // Whatever the former token lacks, it is not why the present one was refused.
                _ if way.own.is_former() => {}
                _ => return Err(error),
            }
            // A refusal says more than an address at which nobody is any more.
            if failure.as_ref().is_none_or(|old| {
                old.kind() != ErrorKind::HandshakeRefused && error.kind() == ErrorKind::HandshakeRefused
            }) {
                failure = Some(error);
            }
        }
        Err(failure.unwrap_or_else(|| super::drive::internal("a peer without a way to it")))
    }

    /// A peer by name, and every way to it, the best first.
    async fn ways(&self, identifier: &Identifier) -> Result<(Peer, Vec<Way>)> {
        let known = self.0.shared.known();
        let Some(peer) = known.peer(identifier) else {
            // It names those that are near. A peer that it does know is not believed yet.
            let name = identifier.clone();
            let recorded = self.0.shared.with_store(move |store| store.peer(&name)).await?;
            return Err(recorded.err().unwrap_or_else(|| {
                Error::new(
                    ErrorKind::PeerUnknown,
                    format!("`{identifier}` was recorded, but the store can not be believed."),
                    "Look at the messages about the store.",
                )
            }));
        };
        if peer.expires.is_some_and(|end| end <= now()) {
            return Err(expired(peer));
        }
        let Inner { shared, own, former, .. } = &*self.0;
        let former = former.iter().filter(|former| former.key != own.key && shared.owns(former));
        let keys = peer.keys(now());
        let mut ways: Vec<Way> = std::iter::once(own)
            .chain(former)
            .flat_map(|own| keys.iter().map(move |key| (own, key)))
            .filter_map(|(own, key)| {
                Some(Way { own: Arc::clone(own), key: key.clone(), onion_address: key.onion_address? })
            })
            .collect();
        if ways.is_empty() {
            return Err(Error::new(
                ErrorKind::AddressRefused,
                format!("`{identifier}` is recorded without an onion address, so it can not be dialled."),
                "Import its identity card with `claviger-ceremony import`.",
            ));
        }
        let offers = |way: &Way| self.protocol(peer, way, Pattern::Kk).is_ok_and(|protocol| protocol.kem.is_some());
        let worked = self.0.shared.worked(identifier);
        let has_worked = |way: &Way| {
            worked.as_ref().is_some_and(|(own, theirs)| way.own.key == *own && way.key.static_public == *theirs)
        };
        // Stable: the others stay in their order. Former cards may be without the KEM that the present ones offer; whoever breaks connections must not have
        // a say in it, so a way without is taken only as long as none with it was seen to work.
        ways.sort_by_key(|way| (!offers(way), !has_worked(way)));
        if self.0.shared.met_with_kem(identifier) && ways.iter().any(offers) {
            ways.retain(offers);
        }
        Ok((peer.clone(), ways))
    }

    async fn dial_and_initiate(
        &self,
        peer: &Peer,
        way: &Way,
        age: u64,
        pattern: Pattern,
        attempt: &mut Attempt,
    ) -> Result<Session> {
        let port = self.0.config.transport.port;
        let mut initiation = self.initiation(peer, way, port, pattern)?;
        attempt.kind = Some(initiation.kind);
        let started = Instant::now();
        let dialling = async {
            let pipe = self.dial(Some(&peer.identifier), &way.own, &way.onion_address, port).await?;
            Ok((pipe, started.elapsed()))
        };
        // The circuit and the token's answer are waited for together; whichever fails first ends both.
        let joined = tokio::try_join!(dialling, initiation.agree(&way.own.token, attempt));
        attempt.dial = joined.as_ref().map_or_else(|_| started.elapsed(), |((_, dialled), ())| *dialled);
        let ((pipe, _), ()) = joined?;
        self.initiate(initiation, age, peer, way, port, pipe, attempt).await
    }

    #[allow(clippy::too_many_arguments, reason = "what a full handshake stands on")]
    async fn initiate(
        &self,
        mut initiation: Initiation,
        age: u64,
        peer: &Peer,
        way: &Way,
        port: u16,
        pipe: Pipe,
        attempt: &mut Attempt,
    ) -> Result<Session> {
        let Inner { shared, config, .. } = &*self.0;
        let pair = Pair::new(&way.own, peer, &way.key);
        let (mut pipe, number) = shared.guard(&pair, Entry::Outgoing, pipe)?;
        let established = initiation.run(&mut pipe, &way.own.token, attempt).await?;
        let session_peer = drive::session_peer(peer, &way.key, &way.own, false, established.protocol, attempt);
        let ends = drive::ends_calling(&way.own, peer, &way.key, &way.onion_address, port);
        let family = Family::new(pair, false, &ends, initiation.time_ms, &established, attempt.token_seen());
        let arrival = Arrival { number, age, family: Arc::new(family), resumes: None };
        let session = drive::finish(shared, config, pipe, session_peer, &established, arrival).await?;
        shared.note_contact(&peer.identifier, &way.own.key, &way.key.static_public);
        Ok(session)
    }

    pub(super) async fn dial(
        &self,
        peer: Option<&Identifier>,
        own: &Own,
        onion_address: &OnionAddress,
        port: u16,
    ) -> Result<Pipe> {
        let deadline = Instant::now() + self.0.config.transport.dial_timeout;
        let target = Target {
            onion: Some(*onion_address),
            port,
            tcp: peer.and_then(|peer| self.tcp_address(peer)),
            isolation: peer.map_or_else(|| onion_address.label(), ToString::to_string),
            client: Some(Arc::clone(&own.client_auth)),
        };
        self.0.transport.dial(&target, deadline).await
    }

    fn tcp_address(&self, peer: &Identifier) -> Option<SocketAddr> {
        self.0.config.transport.tcp.peers.get(peer).copied()
    }

    fn initiation(&self, peer: &Peer, way: &Way, port: u16, pattern: Pattern) -> Result<Initiation> {
        let known = self.0.shared.known();
        let protocol = protocol(&known, &way.own, peer, &way.key, pattern, true)?;
        let terms = Terms { protocol, preshared: known.preshared(&peer.identifier) };
        Initiation::new(&way.own, peer, &way.key, &way.onion_address, port, terms, &self.0.config)
    }

    /// What is spoken with a peer, by the two cards.
    pub(super) fn protocol(&self, peer: &Peer, way: &Way, pattern: Pattern) -> Result<Protocol> {
        protocol(&self.0.shared.known(), &way.own, peer, &way.key, pattern, true)
    }

    /// Takes over what changed in the store, and sees to it that it is watched from now on.
    async fn look(&self) {
        self.0.shared.watch();
        self.0.shared.look().await;
    }
}

/// Addresses at which nobody is, as far as can be seen from here; or from who this machine is by one of its keys.
#[derive(Default)]
struct Silent {
    to_all: Vec<OnionAddress>,
    to: Vec<(OnionAddress, StaticPublic)>,
}

impl Silent {
    /// Whether the failure says so, and it is remembered.
    fn note(&mut self, way: &Way, kind: ErrorKind) -> bool {
        match kind {
            ErrorKind::Unreachable | ErrorKind::DialTimeout => self.to_all.push(way.onion_address),
            // The peer may have recorded the former card alone.
            ErrorKind::OnionAuth => self.to.push((way.onion_address, way.own.key.clone())),
            _ => return false,
        }
        true
    }

    fn holds(&self, way: &Way) -> bool {
        self.to_all.contains(&way.onion_address)
            || self.to.iter().any(|(address, own)| *address == way.onion_address && *own == way.own.key)
    }
}
