//! The accepting side: knock first, token after.

use super::attempt::{Attempt, Direction};
use super::drive;
use super::known::{Known, Shared, WATCH, facts};
use super::own::Own;
use super::pending::Pending;
use super::protocol::{Terms, expect, protocol};
use super::resumption::{Arrival, Family};
use super::sessions::{Entry, Pair};
use super::{Endpoint, Inner, now_ms};
use crate::error::{Error, ErrorKind, Result};
use crate::identity::{Identifier, OnionAddress, StaticPublic};
use crate::noise::knock::{Admitted, Doorkeeper, Refused};
use crate::noise::{self, Protocol, Step};
use crate::session::Session;
use crate::store::{Peer, PeerKey};
use crate::transport::{Listener, Pipe, Service, ServiceState};
use crate::wire::{self, Ends, Kind, KnockPacket, MAX_KNOCK_PACKET, Pattern};
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
    former_state: Option<watch::Receiver<ServiceState>>,
    address: OnionAddress,
    port: u16,
    task: AbortHandle,
}

impl Listening {
    pub(super) async fn start(endpoint: Endpoint, port: u16) -> Result<Self> {
        let incoming = endpoint.incoming(port)?;
        let Inner { shared, own, former, transport, config } = &*endpoint.0;
        let address = own.card.onion_address;
        let onion = shared.with_store(|store| store.onion_secret()).await??;
        let listener = transport.listen(Service { onion, address, port, audience: shared.audience.watch() }).await?;
        shared.audience.tell(&shared.known());
        let state = listener.status();
        let former = match former
            .as_ref()
            .filter(|former| former.card.onion_address != address && transport.addresses() && shared.owns(former))
        {
            Some(own) => listen_as_former(&endpoint, own, port).await,
            None => None,
        };
        let former_state = former.as_ref().map(|(_, listener)| listener.status());
        let (sender, sessions) = mpsc::channel(BACKLOG);
        let pending = Pending::new(places(config));
        let (shared, own) = (Arc::clone(shared), Arc::clone(own));
        let task = async move {
            let present = accept_loop(listener, own, incoming.clone(), sender.clone(), pending.clone());
            let overlap = async {
                if let Some((own, listener)) = former {
                    tokio::select! {
                        () = accept_loop(listener, Arc::clone(&own), incoming, sender, pending) => {}
                        () = over(&shared, &own) => {
                            tracing::info!(target: "claviger::listener", "the overlap of the rotation is over: the former address is given up");
                        }
                    }
                }
                std::future::pending().await
            };
            tokio::select! {
                () = present => {}
                () = overlap => {}
            }
        };
        let task = tokio::spawn(task).abort_handle();
        Ok(Self { sessions, state, former_state, address, port, task })
    }

    /// The next peer's session. `None` when the transport is gone for good; [`state`](Self::state) says why.
    pub async fn accept(&mut self) -> Option<Session> {
        self.sessions.recv().await
    }

    /// The state of the onion service, to watch.
    pub fn state(&self) -> watch::Receiver<ServiceState> {
        self.state.clone()
    }

    /// The state of the onion service at the former address; `None` when this machine has none, or the transport has one place for all.
    pub fn former_state(&self) -> Option<watch::Receiver<ServiceState>> {
        self.former_state.clone()
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

/// The listener at the former address. Without it the machine is still reached at the present one.
async fn listen_as_former(endpoint: &Endpoint, own: &Arc<Own>, port: u16) -> Option<(Arc<Own>, Box<dyn Listener>)> {
    let listening = async {
        let secret = endpoint.0.shared.with_store(|store| store.former_onion_secret()).await??;
        let onion = secret.ok_or_else(|| {
            Error::new(
                ErrorKind::StoreCorrupt,
                "The store has no secret of the former address.",
                "End the overlap with `claviger-ceremony rotate --finish`.",
            )
        })?;
        let audience = endpoint.0.shared.audience.watch();
        endpoint.0.transport.listen(Service { onion, address: own.card.onion_address, port, audience }).await
    };
    match listening.await {
        Ok(listener) => Some((Arc::clone(own), listener)),
        Err(error) => {
            tracing::warn!(target: "claviger::listener", reason = error.kind().as_str(), hint = error.hint(), "the former address is not published: {error}");
            None
        }
    }
}

/// Ready when this machine may no longer be who it was.
async fn over(shared: &Shared, own: &Own) {
    while shared.owns(own) {
        tokio::time::sleep(WATCH).await;
    }
}

async fn accept_loop(
    mut listener: Box<dyn Listener>,
    own: Arc<Own>,
    incoming: Incoming,
    sessions: mpsc::Sender<Session>,
    pending: Pending,
) {
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
        let (own, incoming, sessions) = (Arc::clone(&own), incoming.clone(), sessions.clone());
        let task = tasks.spawn(async move {
            // The slot goes with the knock: a caller that is let in is no longer in anybody's way.
            let Ok(session) = incoming.respond(pipe, &own, None, move || drop(slot)).await else { return };
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
    pub(super) endpoint: Endpoint,
    port: u16,
    door: Arc<Mutex<Door>>,
}

struct Door {
    /// To whom the present identity opens.
    keeper: Doorkeeper,
    /// And the former one.
    former: Option<(Arc<Own>, Doorkeeper)>,
    /// What peers are numbered by.
    known: Arc<Known>,
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
pub(super) struct Caller {
    /// Whom it called.
    pub(super) own: Arc<Own>,
    pub(super) peer: Peer,
    /// The key that it knocked with.
    pub(super) key: PeerKey,
    kind: Kind,
    /// Of its knock.
    time_ms: u64,
    pub(super) message: Vec<u8>,
    /// Its place among the peer's handshakes. A resumption has none: it waits for nobody, and whoever else knocks in the peer's name must not be in its way.
    permit: Option<OwnedSemaphorePermit>,
    turn: Arc<Semaphore>,
}

impl Incoming {
    pub(super) fn new(endpoint: Endpoint, port: u16) -> Self {
        let Inner { shared, own, former, config, .. } = &*endpoint.0;
        shared.watch();
        let known = shared.known();
        let window = config.handshake.knock_window.as_millis() as u64;
        let keeper = |own: &Own| Doorkeeper::new(&own.key, keys(&known), window, now_ms());
        let (keeper, former) = (keeper(own), former.as_ref().map(|own| (Arc::clone(own), keeper(own))));
        let door = Arc::new(Mutex::new(Door { keeper, former, known, shares: HashMap::new() }));
        Self { endpoint, port, door }
    }

    /// Answers one connection to the address of `called`. `knocked` is called when the caller was let in.
    pub(super) async fn respond(
        &self,
        pipe: Pipe,
        called: &Arc<Own>,
        remote: Option<&StaticPublic>,
        knocked: impl FnOnce(),
    ) -> Result<Session> {
        let mut attempt = self.endpoint.attempt(Direction::Incoming, None);
        let result = self.answer(pipe, called, remote, knocked, &mut attempt).await;
        attempt.end(result.as_ref().err());
        result
    }

    async fn answer(
        &self,
        mut pipe: Pipe,
        called: &Arc<Own>,
        remote: Option<&StaticPublic>,
        knocked: impl FnOnce(),
        attempt: &mut Attempt,
    ) -> Result<Session> {
        let Inner { shared, config, .. } = &*self.endpoint.0;
        let patience = config.handshake.timeout;
        let packet = drive::read_frame(&mut pipe, KnockPacket::HEADER, MAX_KNOCK_PACKET, patience);
        let packet = packet.await.map_err(|error| match error.kind() {
            ErrorKind::HandshakeRefused => Error::new(
                ErrorKind::PacketInvalid,
                "A caller left before it had knocked.",
                "Nothing needs mending here: it was a stranger, or its connection broke.",
            ),
            _ => error,
        })?;
        if shared.probes.arrived(&packet) {
            attempt.dismiss();
            return Err(Error::new(
                ErrorKind::KnockUnknown,
                "This machine has called itself, to see whether it is reached.",
                "Nothing needs mending.",
            ));
        }
        attempt.handshake_started = Some(Instant::now());
        // Before anything of what is known is used.
        let age = shared.chains.age();
        let caller = self.admit(&packet, called, remote, attempt)?;
        knocked();
        if caller.kind.pattern == Pattern::Nn {
            return self.answer_resumption(caller, pipe, age, attempt).await;
        }
        let Caller { own, peer, key, kind, time_ms, message, permit, turn } = caller;
        let known = shared.known();
        let protocol = protocol(&known, &own, &peer, &key, kind.pattern, false)?;
        expect(&protocol, kind, &own, &peer)?;
        let pair = Pair::new(&own, &peer, &key);
        let (mut pipe, number) = shared.guard(&pair, Entry::Incoming, pipe)?;
        let terms = Terms { protocol, preshared: known.preshared(&peer.identifier) };
        let Step::Receive(receive) = self.begin(&own, &peer, &key, terms)? else {
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
        // All operations of a responder come before its message. The turn is not kept while the caller is waited for, who has proved nothing yet.
        let next = drive::agree(next, &own.token, attempt).await?;
        drop(turn);
        let established = drive::run(next, &mut pipe, &own.token, patience, attempt).await?;
        let session_peer = drive::session_peer(&peer, &key, &own, true, protocol, attempt);
        let ends = self.ends(&own, &peer, &key);
        let family = Family::new(pair, true, &ends, time_ms, &established, attempt.token_seen());
        let arrival = Arrival { number, age, family: Arc::new(family), resumes: None };
        let session = drive::finish(shared, config, pipe, session_peer, &established, arrival).await;
        drop(permit);
        if session.is_ok() {
            shared.note_contact(&peer.identifier, &own.key, &key.static_public);
        }
        session
    }

    /// Hashing only: no token, no store, no answer.
    fn admit(
        &self,
        packet: &[u8],
        called: &Arc<Own>,
        remote: Option<&StaticPublic>,
        attempt: &mut Attempt,
    ) -> Result<Caller> {
        let Inner { shared, own, config, .. } = &*self.endpoint.0;
        let mut door = self.door.lock().unwrap_or_else(PoisonError::into_inner);
        let door = &mut *door;
        door.follow(own, shared);
        let known = Arc::clone(&door.known);
        let peer_of = |at: usize| &known.peers[known.keys[at].0];
        let (own, admitted) = door.admit(own, packet);
        // A rotation may keep the key and change the address: then the address tells which of the two was called.
        let own = if own.key == called.key { Arc::clone(called) } else { own };
        attempt.peer = match admitted {
            Ok(Admitted { peer, .. })
            | Err(Refused::Stale { peer, .. } | Refused::Replayed { peer } | Refused::TooMany { peer }) => {
                attempt.by(&own, &known.keys[peer].1);
                Some(peer_of(peer).identifier.clone())
            }
            Err(_) => None,
        };
        let admitted =
            admitted.map_err(|refused| drive::knock_error(refused, |at| peer_of(at).identifier.to_string()))?;
        (attempt.pattern, attempt.kind) = (Some(admitted.kind.pattern), Some(admitted.kind));
        let (peer, key) = (peer_of(admitted.peer).clone(), known.keys[admitted.peer].1.clone());
        let allows = |pattern| config.handshake.allow.iter().any(|allowed| Pattern::from(*allowed) == pattern);
        // What is resumed was begun by one of them: that is looked at later.
        if admitted.kind.pattern != Pattern::Nn && !allows(admitted.kind.pattern) {
            return Err(Error::new(
                ErrorKind::PatternRefused,
                format!("`{}` asked for {}, which is not allowed here.", peer.identifier, admitted.kind.pattern),
                "Add it to `allow` under [handshake], or have the peer connect with another pattern.",
            ));
        }
        if remote.is_some_and(|remote| !known.keys_of(&peer.identifier).any(|key| key.static_public == *remote)) {
            return Err(Error::new(
                ErrorKind::KnockUnknown,
                format!("`{}` called, and another peer was expected.", peer.identifier),
                "Answer with `None` as the remote key to let any peer in.",
            ));
        }
        let limit = config.limits.per_peer as usize;
        let share = door.shares.entry(peer.identifier.clone()).or_insert_with(|| Share {
            handshakes: Arc::new(Semaphore::new(limit)),
            turn: Arc::new(Semaphore::new(1)),
        });
        let permit = (admitted.kind.pattern != Pattern::Nn).then(|| Arc::clone(&share.handshakes).try_acquire_owned());
        let permit = permit.transpose().map_err(|_| {
            Error::new(
                ErrorKind::RateLimited,
                format!("`{}` has {limit} handshakes under way already.", peer.identifier),
                "Look for a client that connects in a loop on that machine, or raise `per-peer` under [limits].",
            )
        })?;
        let (message, turn) = (admitted.message.to_vec(), Arc::clone(&share.turn));
        let time_ms = KnockPacket::parse(packet).map_err(|error| drive::wire_error(&error))?.time_ms;
        Ok(Caller { own, peer, key, kind: admitted.kind, time_ms, message, permit, turn })
    }

    fn begin(&self, own: &Own, peer: &Peer, key: &PeerKey, terms: Terms<'_>) -> Result<Step> {
        let prologue = wire::prologue(terms.protocol.kind(), &self.ends(own, peer, key));
        let setup = terms.setup(&own.key, &key.static_public, &prologue);
        noise::responder(setup).map_err(|error| drive::noise_error(&error, Some(peer)))
    }

    /// The ends of a handshake that `peer` begins.
    pub(super) fn ends<'a>(&self, own: &'a Own, peer: &'a Peer, key: &PeerKey) -> Ends<'a> {
        Ends {
            initiator: &peer.identifier,
            initiator_role: facts(peer, key).0,
            responder: &own.card.identifier,
            responder_role: &own.card.role,
            onion_address: &own.card.onion_address,
            port: self.port,
        }
    }

    /// What is spoken with a peer, by the two cards.
    pub(super) fn protocol(&self, own: &Own, peer: &Peer, key: &PeerKey, pattern: Pattern) -> Result<Protocol> {
        protocol(&self.endpoint.0.shared.known(), own, peer, key, pattern, false)
    }
}

impl Door {
    /// Takes over peers and identities that are others than before.
    fn follow(&mut self, own: &Own, shared: &Shared) {
        let known = shared.known();
        if Arc::ptr_eq(&known, &self.known) {
            return;
        }
        let now = now_ms();
        self.keeper.set_peers(&own.key, keys(&known), now);
        self.former = self.former.take().filter(|(own, _)| shared.owns(own));
        if let Some((own, keeper)) = &mut self.former {
            keeper.set_peers(&own.key, keys(&known), now);
        }
        self.shares.retain(|name, _| known.peer(name).is_some());
        self.known = known;
    }

    /// Both identities look at the packet, so the time taken does not say which the caller knows. A knock fits one of them at most.
    fn admit<'a>(
        &mut self,
        own: &Arc<Own>,
        packet: &'a [u8],
    ) -> (Arc<Own>, std::result::Result<Admitted<'a>, Refused>) {
        let now = now_ms();
        let admitted = self.keeper.admit(packet, now);
        let former = self.former.as_mut().map(|(own, keeper)| (Arc::clone(own), keeper.admit(packet, now)));
        match (admitted, former) {
            (Err(Refused::Unknown), Some(former)) => former,
            (admitted, _) => (Arc::clone(own), admitted),
        }
    }
}

/// The keys that may knock, in the order by which they are numbered.
fn keys(known: &Known) -> impl Iterator<Item = &StaticPublic> {
    known.keys.iter().map(|(_, key)| &key.static_public)
}
