//! The accepting side: knock first, token after.

use super::attempt::{Attempt, Direction};
use super::drive;
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
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

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
    let pending = Pending::new(places(&incoming.endpoint.0.config));
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

/// As many silent callers as configured, but no more than half of the files that this process may open: the other half is for those who
/// knock, the store, and the token's module.
fn places(config: &crate::config::Config) -> usize {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let half = files.map_or(usize::MAX, |files| usize::try_from(files / 2).unwrap_or(usize::MAX));
    (config.limits.pending as usize).min(half)
}

/// What all incoming connections of an endpoint share: who may knock, which knocks were seen, what each peer has under way.
///
/// Peers that are recorded or removed, by this process or another, count within [`WATCH`].
#[derive(Clone)]
pub struct Incoming {
    endpoint: Endpoint,
    port: u16,
    door: Arc<Mutex<Door>>,
    _watch: Arc<AbortOnDropHandle<()>>,
}

/// How often the store is looked at for changed peers. Never by a caller's packet: a stranger must not make the store work, nor wait for it.
pub const WATCH: Duration = Duration::from_millis(250);

struct Door {
    keeper: Doorkeeper,
    peers: Vec<Peer>,
    /// The store's generation that `peers` is of.
    generation: u64,
    shares: HashMap<Identifier, Share>,
}

/// A peer's share of this machine.
#[derive(Clone)]
struct Share {
    /// Its handshakes under way.
    handshakes: Arc<Semaphore>,
    /// Its turn at the token: one handshake of a peer at a time, so that many of one peer's stand behind one of each other's.
    turn: Arc<Semaphore>,
}

/// A caller that was let in.
struct Caller {
    peer: Peer,
    pattern: Pattern,
    message: Vec<u8>,
    /// Its place among the peer's handshakes.
    permit: OwnedSemaphorePermit,
    turn: Arc<Semaphore>,
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
        let door = Arc::new(Mutex::new(Door { keeper, peers, generation, shares: HashMap::new() }));
        let watch = tokio::spawn(watch_store(endpoint.clone(), Arc::clone(&door)));
        Ok(Self { endpoint, port, door, _watch: Arc::new(AbortOnDropHandle::new(watch)) })
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
        let patience = self.endpoint.0.config.handshake.timeout;
        let packet = drive::read_frame(&mut pipe, KnockPacket::HEADER, MAX_KNOCK_PACKET, patience);
        let packet = packet.await.map_err(|error| match error.kind() {
            ErrorKind::HandshakeRefused => Error::new(
                ErrorKind::PacketInvalid,
                "A caller left before it had knocked.",
                "Nothing needs mending here: it was a stranger, or its connection broke.",
            ),
            _ => error,
        })?;
        attempt.handshake_started = Some(Instant::now());
        let Caller { peer, pattern, message, permit, turn } = self.admit(&packet, attempt)?;
        knocked();
        drive::check_remote(&peer, remote)?;
        let protocol = self.protocol(&peer, pattern)?;
        let Step::Receive(receive) = self.begin(&peer, protocol)? else {
            return Err(drive::internal("a responder does not begin by receiving"));
        };
        let next = receive.received(&message).map_err(|error| drive::noise_error(&error, Some(&peer)))?;
        let turn = tokio::time::timeout(patience, turn.acquire_owned()).await.map_err(|_| {
            Error::new(
                ErrorKind::RateLimited,
                format!("`{}` has too many handshakes before this one.", peer.identifier),
                "Look for a client that connects in a loop on that machine.",
            )
        })?;
        let established = drive::run(next, &mut pipe, token, patience, attempt).await?;
        drop(turn);
        let session = drive::finish(pipe, drive::session_peer(&peer, true, protocol), &established, patience).await;
        drop(permit);
        session
    }

    /// Hashing only: no token, no store, no answer.
    fn admit(&self, packet: &[u8], attempt: &mut Attempt) -> Result<Caller> {
        let mut door = self.door.lock().unwrap_or_else(PoisonError::into_inner);
        let door = &mut *door;
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
        let share = door.shares.entry(peer.identifier.clone()).or_insert_with(|| Share {
            handshakes: Arc::new(Semaphore::new(limit)),
            turn: Arc::new(Semaphore::new(1)),
        });
        let permit = Arc::clone(&share.handshakes).try_acquire_owned().map_err(|_| {
            Error::new(
                ErrorKind::RateLimited,
                format!("`{}` has {limit} handshakes under way already.", peer.identifier),
                "Look for a client that connects in a loop on that machine, or raise `per-peer` under [limits].",
            )
        })?;
        let (message, turn) = (admitted.message.to_vec(), Arc::clone(&share.turn));
        Ok(Caller { peer, pattern: admitted.pattern, message, permit, turn })
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

/// Takes over peers that were added or removed, by this process or another. A store that can not be read now leaves the list as it was.
async fn watch_store(endpoint: Endpoint, door: Arc<Mutex<Door>>) {
    let mut failing = false;
    loop {
        tokio::time::sleep(WATCH).await;
        let (endpoint, door) = (endpoint.clone(), Arc::clone(&door));
        // SQLite waits for other processes by blocking.
        let looked = tokio::task::spawn_blocking(move || refresh(&endpoint, &door)).await;
        match looked {
            Ok(Ok(())) => failing = false,
            Ok(Err(error)) if !failing => {
                failing = true;
                tracing::warn!(target: "claviger::listener", reason = error.kind().as_str(), "the store could not be looked at for changed peers: {error}");
            }
            Ok(Err(_)) => {}
            Err(_) => return,
        }
    }
}

fn refresh(endpoint: &Endpoint, door: &Mutex<Door>) -> Result<()> {
    let lock = || door.lock().unwrap_or_else(PoisonError::into_inner);
    let (generation, peers) = {
        let store = endpoint.store();
        let generation = store.changed()?;
        if generation == lock().generation {
            return Ok(());
        }
        (generation, store.peers()?)
    };
    let door = &mut *lock();
    let keys = peers.iter().map(|peer| &peer.static_public);
    door.keeper.set_peers(&endpoint.identity().static_public, keys);
    let names: HashSet<&Identifier> = peers.iter().map(|peer| &peer.identifier).collect();
    door.shares.retain(|name, _| names.contains(name));
    door.generation = generation;
    door.peers = peers;
    Ok(())
}
