//! The accepting side: knock first, token after.

use super::attempt::{Attempt, Direction};
use super::drive::{self, Deadlines};
use super::pending::Pending;
use super::{Endpoint, no_shared_suite, now_ms};
use crate::error::{Error, ErrorKind, Result};
use crate::identity::{Identifier, OnionAddress, StaticPublic};
use crate::noise::knock::Doorkeeper;
use crate::noise::{self, Protocol, Setup, Step};
use crate::session::Session;
use crate::store::Peer;
use crate::transport::{BoxPipe, Listener, Service, ServiceState};
use crate::wire::{self, Ends, KnockPacket, MAX_KNOCK_PACKET, Pattern};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

/// Finished sessions that wait to be accepted.
const BACKLOG: usize = 64;

/// A listening endpoint. Dropping it takes the service down; sessions already accepted live on.
pub struct Listening {
    sessions: mpsc::Receiver<Session>,
    state: watch::Receiver<ServiceState>,
    address: OnionAddress,
    port: u16,
    task: AbortHandle,
}

impl Listening {
    pub(super) async fn start(endpoint: Endpoint, port: u16) -> Result<Self> {
        let onion = endpoint.store().onion_secret()?;
        let address = endpoint.identity().onion_address;
        let incoming = endpoint.incoming(port)?;
        let listener = endpoint.0.transport.listen(Service { onion, address, port }).await?;
        let state = listener.status();
        let (sender, sessions) = mpsc::channel(BACKLOG);
        let task = tokio::spawn(accept_loop(listener, incoming, sender)).abort_handle();
        Ok(Self { sessions, state, address, port, task })
    }

    /// The next peer's session. `None` when the transport is gone for good; [`state`](Self::state) says why.
    pub async fn accept(&mut self) -> Option<Session> {
        self.sessions.recv().await
    }

    /// The state of the onion service, to watch.
    pub fn state(&self) -> watch::Receiver<ServiceState> {
        self.state.clone()
    }

    /// Where the service is reached.
    pub fn address(&self) -> &OnionAddress {
        &self.address
    }

    /// Its virtual port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept_loop(mut listener: Box<dyn Listener>, incoming: Incoming, sessions: mpsc::Sender<Session>) {
    let pending = Pending::new(incoming.endpoint.0.config.limits.pending as usize);
    let mut tasks = JoinSet::new(); // dropped with this loop, and every handshake under way with it
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = sessions.closed() => return,
            Some(_) = tasks.join_next() => continue,
        };
        let pipe = match accepted {
            Ok(pipe) => pipe,
            Err(error) => {
                tracing::error!(target: "claviger::listener", reason = error.kind().as_str(), hint = error.hint(), "{error}");
                return;
            }
        };
        let slot = pending.take();
        let number = slot.number();
        let (incoming, sessions) = (incoming.clone(), sessions.clone());
        let task = tasks.spawn(async move {
            // The slot goes with the knock: a caller that is let in is no longer in anybody's way.
            let Ok(session) = incoming.respond(pipe, None, move || drop(slot)).await else { return };
            let peer = session.peer().identifier.clone();
            let patience = incoming.endpoint.0.config.handshake.timeout;
            if sessions.send_timeout(session, patience).await.is_err() {
                tracing::warn!(target: "claviger::listener", %peer, "a session was dropped: nothing accepted it in time");
            }
        });
        pending.attach(number, task);
    }
}

/// What all incoming connections of an endpoint share: who may knock, which knocks were seen, how many handshakes each peer has under way.
#[derive(Clone)]
pub struct Incoming {
    endpoint: Endpoint,
    port: u16,
    door: Arc<Mutex<Door>>,
}

struct Door {
    keeper: Doorkeeper,
    peers: Vec<Peer>,
    /// The store's generation that `peers` is of.
    generation: u64,
    under_way: HashMap<Identifier, Arc<Semaphore>>,
}

/// A caller that was let in.
struct Caller {
    peer: Peer,
    pattern: Pattern,
    message: Vec<u8>,
    /// Its place among the peer's handshakes.
    permit: OwnedSemaphorePermit,
}

impl Incoming {
    pub(super) fn new(endpoint: Endpoint, port: u16) -> Result<Self> {
        let (generation, peers) = {
            let store = endpoint.store();
            (store.changed()?, store.peers()?)
        };
        let window = endpoint.0.config.handshake.knock_window.as_millis() as u64;
        let local = &endpoint.identity().static_public;
        let keeper = Doorkeeper::new(local, peers.iter().map(|peer| &peer.static_public), window, now_ms());
        let door = Door { keeper, peers, generation, under_way: HashMap::new() };
        Ok(Self { endpoint, port, door: Arc::new(Mutex::new(door)) })
    }

    /// Answers one connection. `knocked` is called when the caller was let in.
    pub(super) async fn respond(
        &self,
        pipe: BoxPipe,
        remote: Option<&StaticPublic>,
        knocked: impl FnOnce(),
    ) -> Result<Session> {
        let mut attempt = self.endpoint.attempt(Direction::Incoming, None);
        let result = self.answer(pipe, remote, knocked, &mut attempt).await;
        attempt.end(result.as_ref().err());
        result
    }

    async fn answer(
        &self,
        mut pipe: BoxPipe,
        remote: Option<&StaticPublic>,
        knocked: impl FnOnce(),
        attempt: &mut Attempt,
    ) -> Result<Session> {
        let token = &self.endpoint.0.token;
        let deadlines = Deadlines::of(&self.endpoint.0.config, token);
        let packet = drive::read_frame(&mut pipe, KnockPacket::HEADER, MAX_KNOCK_PACKET, deadlines.message).await?;
        attempt.handshake_started = Some(Instant::now());
        let Caller { peer, pattern, message, permit } = self.admit(&packet, attempt)?;
        knocked();
        drive::check_remote(&peer, remote)?;
        let protocol = self.protocol(&peer, pattern)?;
        let Step::Receive(receive) = self.begin(&peer, protocol)? else {
            return Err(drive::internal("a responder does not begin by receiving"));
        };
        if message.len() != receive.expected_len() {
            return Err(drive::wire_error(&wire::WireError::TooShort));
        }
        let next = receive.received(&message).map_err(|error| drive::noise_error(&error, Some(&peer)))?;
        let established = drive::run(next, &mut pipe, token, deadlines, attempt).await?;
        drop(permit);
        drive::finish(pipe, drive::session_peer(&peer, true, protocol), &established)
    }

    /// Hashing only: no token, no answer.
    fn admit(&self, packet: &[u8], attempt: &mut Attempt) -> Result<Caller> {
        let mut door = self.door.lock().unwrap_or_else(PoisonError::into_inner);
        let door = &mut *door;
        self.refresh(door)?;
        let refused = |refused| drive::knock_error(refused, |at| door.peers[at].identifier.to_string());
        let admitted = door.keeper.admit(packet, now_ms());
        attempt.peer = match admitted {
            Ok(noise::knock::Admitted { peer, .. })
            | Err(
                noise::knock::Refused::Stale { peer, .. }
                | noise::knock::Refused::Replayed { peer }
                | noise::knock::Refused::TooMany { peer },
            ) => Some(door.peers[peer].identifier.clone()),
            Err(_) => None,
        };
        let admitted = admitted.map_err(refused)?;
        attempt.pattern = Some(admitted.pattern);
        let peer = door.peers[admitted.peer].clone();
        let config = &self.endpoint.0.config;
        if !config.handshake.allow.iter().any(|allowed| Pattern::from(*allowed) == admitted.pattern) {
            return Err(Error::new(
                ErrorKind::PatternRefused,
                format!("`{}` asked for {}, which is not allowed here.", peer.identifier, admitted.pattern),
                "Add it to `allow` under [handshake], or have the peer connect with another pattern.",
            ));
        }
        let limit = config.limits.per_peer as usize;
        let under_way =
            door.under_way.entry(peer.identifier.clone()).or_insert_with(|| Arc::new(Semaphore::new(limit)));
        let permit = Arc::clone(under_way).try_acquire_owned().map_err(|_| {
            Error::new(
                ErrorKind::RateLimited,
                format!("`{}` has {limit} handshakes under way already.", peer.identifier),
                "Look for a client that connects in a loop on that machine, or raise `per-peer` under [limits].",
            )
        })?;
        Ok(Caller { peer, pattern: admitted.pattern, message: admitted.message.to_vec(), permit })
    }

    /// Takes over peers that were added or removed since, by this process or another.
    fn refresh(&self, door: &mut Door) -> Result<()> {
        let store = self.endpoint.store();
        let generation = store.changed()?;
        if generation != door.generation {
            door.peers = store.peers()?;
            door.generation = generation;
            let keys = door.peers.iter().map(|peer| &peer.static_public);
            door.keeper.set_peers(&self.endpoint.identity().static_public, keys);
            let peers = &door.peers;
            door.under_way.retain(|name, _| peers.iter().any(|peer| peer.identifier == *name));
        }
        Ok(())
    }

    fn protocol(&self, peer: &Peer, pattern: Pattern) -> Result<Protocol> {
        let own = self.endpoint.identity();
        let suite = own.suites.with_initiator(&peer.suites).ok_or_else(|| no_shared_suite(&peer.identifier))?;
        Ok(Protocol { pattern, curve: own.curve(), suite })
    }

    fn begin(&self, peer: &Peer, protocol: Protocol) -> Result<Step> {
        let own = self.endpoint.identity();
        let ends = Ends {
            initiator: &peer.identifier,
            initiator_role: &peer.role,
            responder: &own.identifier,
            responder_role: &own.role,
            onion_address: &own.onion_address,
            port: self.port,
        };
        let prologue = wire::prologue(protocol.pattern, &ends);
        let setup = Setup::new(protocol, &own.static_public, &peer.static_public, &prologue);
        noise::responder(setup).map_err(|error| drive::noise_error(&error, Some(peer)))
    }
}
