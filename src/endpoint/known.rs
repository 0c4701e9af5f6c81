//! What this machine knows of its store while it runs: whose keys hold, and which sessions stand on them.
//!
//! Nothing that a caller sends makes the store work: it is looked at when something changed, and every [`WATCH`] whether something did.

use super::audience::Audience;
use super::clock::Clock;
use super::cut::{Held, guarded, revoked};
use super::own::Own;
use super::probe::Probes;
use super::reconnecting::BACKGROUND;
use super::report::Observer;
use super::resumption::Chains;
use super::sessions::{Entry, Pair, Place, Sessions};
use crate::ceremony::plan::Plan;
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::{ClientAuthPublic, Identifier, Kem, Role, StaticPublic, Suites};
use crate::secret::PresharedKey;
use crate::store::{Contact, FormerIdentity, Machine, Peer, PeerKey, SealKey, Store, seal_point};
use crate::token::{Reason, TokenHandle, Trouble};
use crate::transport::Pipe;
use std::collections::hash_map;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use subtle::ConstantTimeEq as _;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

mod stamp;
#[cfg(test)]
mod tests;

use stamp::{Stamp, replaced, write_alone};

/// How often the store is looked at for changed peers. Never by a caller's packet: a stranger must not make the store work, nor wait for it.
pub const WATCH: Duration = Duration::from_millis(250);

/// A pair of keys is noted as in use no more often than this.
const NOTED: Duration = Duration::from_secs(60);

/// After a token was asked in vain to open the seal, it, or whoever is to touch it or give its PIN, is left in peace for so long.
const ASKED: Duration = Duration::from_secs(30);

/// The peers of a moment. Looked up by hash: there may be thousands of them, and of their sessions.
pub(super) struct Known {
    pub(super) peers: Vec<Peer>,
    /// Their keys that hold, each once, most wanted first within a peer; whose, as a place in `peers`.
    pub(super) keys: Vec<(usize, PeerKey)>,
    /// By name: the place in `peers`, and those in `keys`.
    names: HashMap<Identifier, (usize, Range<usize>)>,
    /// By key: the place in `keys`.
    places: HashMap<StaticPublic, usize>,
    /// Beside the peers' keys, by name.
    preshared: Arc<HashMap<Identifier, PresharedKey>>,
    /// This machine's former key, and until when it holds.
    former: Option<(StaticPublic, u64)>,
    /// By which this machine finds its own service: of its card, and of its former one until when that holds.
    clients: Vec<(ClientAuthPublic, Option<u64>)>,
    pub(super) plan: Option<Arc<Plan>>,
    /// For when this was made, seconds since 1970: a clock that was put back is before it.
    since: u64,
    /// When something of this ends, seconds since 1970.
    until: u64,
}

/// What the store says of a moment.
#[derive(Default)]
struct Content {
    peers: Vec<Peer>,
    /// Beside the peers' keys, by name. Wiped when nobody knows them any more.
    preshared: Arc<HashMap<Identifier, PresharedKey>>,
    /// This machine's former key, and until when it holds.
    former: Option<(StaticPublic, u64)>,
    clients: Vec<(ClientAuthPublic, Option<u64>)>,
    plan: Option<Arc<Plan>>,
}

impl Content {
    fn of(store: &Store) -> Result<Self> {
        let machine = store.machine()?;
        let mut clients = vec![(machine.card.client_auth, None)];
        clients.extend(machine.former.as_ref().map(|former| (former.card.client_auth, Some(former.until))));
        Ok(Self {
            peers: store.peers()?,
            preshared: Arc::new(store.preshared_keys()?),
            former: machine.former.map(former),
            clients,
            plan: store.plan()?.map(Arc::new),
        })
    }
}

impl Known {
    fn new(content: Content, now: u64) -> Self {
        let Content { peers, preshared, former, clients, plan } = content;
        let mut keys: Vec<(usize, PeerKey)> = Vec::with_capacity(peers.len());
        let (mut names, mut places) = (HashMap::with_capacity(peers.len()), HashMap::with_capacity(peers.len()));
        for (at, peer) in peers.iter().enumerate() {
            let first = keys.len();
            for key in peer.keys(now) {
                // A next card may keep the key at another address: those are two ways to call, and one to be called by.
                if let hash_map::Entry::Vacant(place) = places.entry(key.static_public.clone()) {
                    place.insert(keys.len());
                    keys.push((at, key));
                }
            }
            names.insert(peer.identifier.clone(), (at, first..keys.len()));
        }
        let ends = peers.iter().flat_map(|peer| [peer.expires, peer.former.as_ref().map(|former| former.until)]);
        let ends = ends.flatten().chain(former.as_ref().map(|(_, until)| *until));
        // The second itself, and the one after it: whichever of them is the first without.
        let until = ends.flat_map(|end| [end, end.saturating_add(1)]).filter(|end| *end > now).min();
        Self {
            peers,
            keys,
            names,
            places,
            preshared,
            former,
            clients,
            plan,
            since: now,
            until: until.unwrap_or(u64::MAX),
        }
    }

    fn content(&self) -> Content {
        Content {
            peers: self.peers.clone(),
            preshared: Arc::clone(&self.preshared),
            former: self.former.clone(),
            clients: self.clients.clone(),
            plan: self.plan.clone(),
        }
    }

    pub(super) fn peer(&self, identifier: &Identifier) -> Option<&Peer> {
        self.names.get(identifier).map(|(at, _)| &self.peers[*at])
    }

    pub(super) fn keys_of(&self, identifier: &Identifier) -> impl Iterator<Item = &PeerKey> {
        let keys = self.names.get(identifier).map(|(_, keys)| &self.keys[keys.clone()]);
        keys.into_iter().flatten().map(|(_, key)| key)
    }

    pub(super) fn by_key(&self, key: &StaticPublic) -> Option<(&Peer, &PeerKey)> {
        self.places.get(key).map(|place| &self.keys[*place]).map(|(at, held)| (&self.peers[*at], held))
    }

    /// The key that this machine and the peer hold beside their static keys.
    pub(super) fn preshared(&self, identifier: &Identifier) -> Option<&PresharedKey> {
        self.preshared.get(identifier)
    }

    /// The client-authorization keys that find this machine's service: the peers', and its own.
    pub(super) fn clients(&self) -> impl Iterator<Item = ClientAuthPublic> {
        let now = self.since;
        let own = self.clients.iter().filter(move |(_, until)| until.is_none_or(|until| now < until));
        let valid = self.peers.iter().filter(move |peer| peer.expires.is_none_or(|expires| now < expires));
        let theirs = valid.flat_map(move |peer| {
            let former = peer.former.as_ref().filter(|former| now < former.until);
            peer.client_auth.into_iter().chain(former.map(|former| former.card.client_auth))
        });
        own.map(|(key, _)| *key).chain(theirs)
    }

    fn has_same_preshared(&self, other: &Self, identifier: &Identifier) -> bool {
        match (self.preshared(identifier), other.preshared(identifier)) {
            (None, None) => true,
            (Some(one), Some(other)) => one.expose().ct_eq(other.expose()).into(),
            _ => false,
        }
    }

    /// Whether time alone has made it another one.
    fn is_past(&self, now: u64) -> bool {
        self.until <= now || now < self.since
    }

    /// Whether this machine may still be who it is by `own`.
    fn owns(&self, own: &StaticPublic, is_former: bool, now: u64) -> bool {
        !is_former || self.former.as_ref().is_some_and(|(key, until)| key == own && now < *until)
    }
}

/// Role, suites and KEM that go with a key: those of the card that it is on.
pub(super) fn facts<'a>(peer: &'a Peer, key: &PeerKey) -> (&'a Role, &'a Suites, Option<Kem>) {
    match &peer.former {
        Some(former) if key.former => (&former.card.role, &former.card.suites, former.card.kem),
        _ => (&peer.role, &peer.suites, peer.kem),
    }
}

/// What an endpoint, its listeners and its sessions share.
pub(super) struct Shared {
    pub(super) clock: Clock,
    pub(super) observer: Observer,
    pub(super) audience: Audience,
    pub(super) probes: Probes,
    /// How often what is known became another.
    pub(super) changes: watch::Sender<u64>,
    store: Mutex<Store>,
    /// Of the present identity: it opens the seal.
    token: TokenHandle,
    state: Mutex<State>,
    pub(super) sessions: Sessions,
    pub(super) chains: Arc<Chains>,
    /// Turns of tries that nobody waits for.
    pub(super) background: Semaphore,
    /// The pair of keys by which a peer was reached last: this machine's, the peer's.
    worked: Mutex<HashMap<Identifier, (StaticPublic, StaticPublic)>>,
    /// Peers with which a full handshake had the KEM, so that they are known to know this machine's present card, and to be who their own says.
    with_kem: Mutex<HashSet<Identifier>>,
    /// It was told that the machine goes on with another key.
    differs: AtomicBool,
    noted: Mutex<HashMap<(StaticPublic, StaticPublic), Instant>>,
    /// The store's file as it was opened: its inode.
    file: Option<i64>,
    /// One look at a time; how many were begun, and which of them was the last that was finished.
    looking: tokio::sync::Mutex<()>,
    begun: AtomicU64,
    finished: AtomicU64,
    trouble: watch::Sender<Option<Trouble>>,
    watch: Mutex<Option<AbortOnDropHandle<()>>>,
}

struct State {
    known: Arc<Known>,
    stamp: Stamp,
    /// The store as it was refused for good, not to be verified again and again; and why.
    refused: Option<(Stamp, Trouble)>,
    /// When the token was last asked in vain to open the seal.
    asked: Option<Instant>,
}

/// What lives as long as a session's pipe: the watch over the store, and the session's place.
struct Kept {
    _shared: Arc<Shared>,
    _place: Arc<Place>,
}

impl Shared {
    pub(super) fn new(store: Store, token: TokenHandle, config: &Config) -> Result<Arc<Self>> {
        let stamp = Stamp::of(&store)?;
        let known = Arc::new(Known::new(Content::of(&store)?, now()));
        let file = stamp.inode();
        Ok(Arc::new(Self {
            clock: Clock::default(),
            observer: Observer::default(),
            audience: Audience::new(config.onion.restricted, &known),
            probes: Probes::default(),
            changes: watch::Sender::new(0),
            store: Mutex::new(store),
            token,
            state: Mutex::new(State { known, stamp, refused: None, asked: None }),
            sessions: Sessions::new(config),
            chains: Arc::new(Chains::new(config)),
            background: Semaphore::new(BACKGROUND),
            worked: Mutex::default(),
            with_kem: Mutex::default(),
            differs: AtomicBool::new(false),
            noted: Mutex::default(),
            file,
            looking: tokio::sync::Mutex::default(),
            begun: AtomicU64::new(0),
            finished: AtomicU64::new(0),
            trouble: watch::Sender::new(None),
            watch: Mutex::default(),
        }))
    }

    pub(super) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn known(&self) -> Arc<Known> {
        Arc::clone(&self.state().known)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What keeps the store from being believed or read, to watch.
    pub(super) fn trouble(&self) -> watch::Receiver<Option<Trouble>> {
        self.trouble.subscribe()
    }

    /// Whether this machine may still be who it is by `own`.
    pub(super) fn owns(&self, own: &Own) -> bool {
        self.known().owns(&own.key, own.is_former(), now())
    }

    /// Begins to watch the store, if that is still to be done, or was done in a runtime that is gone. Must be called in a tokio runtime.
    pub(super) fn watch(self: &Arc<Self>) {
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        if watch.as_ref().is_none_or(|watch| watch.is_finished()) {
            *watch = Some(AbortOnDropHandle::new(tokio::spawn(watch_store(Arc::downgrade(self)))));
        }
    }

    /// Runs `work` on the store where blocking harms nobody: SQLite waits for other processes by blocking.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] when it panicked.
    pub(super) async fn with_store<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&mut Store) -> T + Send + 'static,
    ) -> Result<T> {
        let shared = Arc::clone(self);
        let worked = tokio::task::spawn_blocking(move || work(&mut shared.store()));
        worked.await.map_err(|error| super::drive::internal("the store's reader ended early").because(error))
    }

    /// Looks at the store now. What goes wrong is told as by the watch.
    pub(super) async fn look(self: &Arc<Self>) {
        let before = self.begun.load(Ordering::Relaxed);
        // One at a time: what was seen last is told last, and a token that opens the seal is asked once.
        let _turn = self.looking.lock().await;
        // One that began after this was called saw what this one would see.
        if self.finished.load(Ordering::Relaxed) <= before {
            let number = self.begun.fetch_add(1, Ordering::Relaxed) + 1;
            self.look_now().await;
            self.finished.store(number, Ordering::Relaxed);
        }
    }

    /// How many of them have ended.
    pub(super) fn looks(&self) -> u64 {
        self.finished.load(Ordering::Relaxed)
    }

    async fn look_now(self: &Arc<Self>) {
        let refresh = || {
            let shared = Arc::clone(self);
            tokio::task::spawn_blocking(move || shared.refresh())
        };
        let Ok(mut looked) = refresh().await else { return };
        if looked.as_ref().is_err_and(|error| error.kind() == ErrorKind::StoreLocked) && !self.is_refused() {
            if self.state().asked.is_some_and(|at| at.elapsed() < ASKED) {
                // What came of it is told already.
                return;
            }
            looked = match self.unlock().await {
                Ok(()) => refresh().await.unwrap_or(Ok(())),
                Err(error) => Err(error),
            };
        }
        self.tell(looked.err());
    }

    fn is_refused(&self) -> bool {
        self.state().refused.is_some()
    }

    /// Has the pipe cut when the peer's key, or this machine's own, holds no more; and numbers the session that comes of it.
    ///
    /// # Errors
    /// [`ErrorKind::SessionRevoked`] when that is so already; [`ErrorKind::SessionLimit`].
    pub(super) fn guard(self: &Arc<Self>, pair: &Pair, entry: Entry, pipe: Pipe) -> Result<(Pipe, u64)> {
        let place = Arc::new(self.sessions.place(&pair.peer, entry)?);
        let held = Arc::new(Held::new(pipe));
        let number = self.sessions.enter(pair.clone(), &held, &place);
        // In this order: whoever changes what is known looks at the sessions after it.
        if let Some(why) = ended(pair, &self.known(), now()) {
            return Err(revoked(&why));
        }
        Ok((guarded(&held, &Arc::new(Kept { _shared: Arc::clone(self), _place: place })), number))
    }

    /// Whether a full handshake with a peer had the KEM since this program began.
    pub(super) fn met_with_kem(&self, peer: &Identifier) -> bool {
        self.with_kem.lock().unwrap_or_else(PoisonError::into_inner).contains(peer)
    }

    pub(super) fn meets_with_kem(&self, peer: &Identifier) {
        self.with_kem.lock().unwrap_or_else(PoisonError::into_inner).insert(peer.clone());
    }

    /// The pair of keys to try first.
    pub(super) fn worked(&self, peer: &Identifier) -> Option<(StaticPublic, StaticPublic)> {
        self.worked.lock().unwrap_or_else(PoisonError::into_inner).get(peer).cloned()
    }

    /// A session that this machine began by these keys was established.
    pub(super) fn reached(&self, peer: &Identifier, own: &StaticPublic, theirs: &StaticPublic) {
        let mut worked = self.worked.lock().unwrap_or_else(PoisonError::into_inner);
        worked.insert(peer.clone(), (own.clone(), theirs.clone()));
    }

    /// Notes which keys are in use. Never waited for; a failure is only told.
    pub(super) fn note_contact(self: &Arc<Self>, peer: &Identifier, own: &StaticPublic, theirs: &StaticPublic) {
        {
            let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
            noted.retain(|_, at| at.elapsed() < NOTED);
            if noted.contains_key(&(own.clone(), theirs.clone())) {
                return;
            }
            noted.insert((own.clone(), theirs.clone()), Instant::now());
        }
        let contact = Contact { peer: peer.clone(), own: own.clone(), theirs: theirs.clone(), time: now() };
        let shared = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = shared.write_contact(&contact) {
                tracing::warn!(target: "claviger::store", peer = %contact.peer, reason = error.kind().as_str(), "a contact could not be noted: {error}");
            }
        });
    }

    /// Writes a contact, and takes the file as it is then for the one that was read: this change is this program's own, and no reason to verify everything.
    fn write_contact(&self, contact: &Contact) -> Result<()> {
        let mut store = self.store();
        if let Some((before, after)) = write_alone(&mut store, contact)? {
            let mut state = self.state();
            let State { stamp, refused, .. } = &mut *state;
            for stamp in [Some(stamp), refused.as_mut().map(|(stamp, _)| stamp)].into_iter().flatten() {
                if *stamp == before {
                    *stamp = after;
                }
            }
        }
        Ok(())
    }

    /// Takes over what changed: in the store, and by the clock. A store that can not be read or believed leaves the peers as they were.
    fn refresh(&self) -> Result<()> {
        // Held to the end, so that nobody's older reading replaces a newer one.
        let store = self.store();
        let (read, outcome) = match self.read(&store) {
            Ok(read) => (read, Ok(())),
            Err(error) => (None, Err(error)),
        };
        let (now, old) = (now(), self.known());
        let (known, stamp) = match read {
            Some((stamp, content)) => (Known::new(content, now), Some(stamp)),
            // Time passes in a store that is not believed, too.
            None if old.is_past(now) => (Known::new(old.content(), now), None),
            None => return outcome,
        };
        let known = Arc::new(known);
        {
            let mut state = self.state();
            if let Some(stamp) = stamp {
                (state.stamp, state.refused, state.asked) = (stamp, None, None);
            }
            state.known = Arc::clone(&known);
        }
        self.audience.follow(&known);
        self.chains.changed(|family| {
            let peer = &family.pair.peer;
            ended(&family.pair, &known, now).is_none()
                && old.peer(peer) == known.peer(peer)
                && old.has_same_preshared(&known, peer)
        });
        for (held, peer, why) in self.sessions.sweep(|pair| ended(pair, &known, now)) {
            tracing::warn!(target: "claviger::connection", %peer, reason = ErrorKind::SessionRevoked.as_str(), "a session was ended: {why}");
            held.cut(why);
        }
        self.changes.send_modify(|changes| *changes += 1);
        outcome
    }

    /// The store's content if it is another than before, verified.
    fn read(&self, store: &Store) -> Result<Option<(Stamp, Content)>> {
        let stamp = Stamp::of(store)?;
        if stamp.inode() != self.file {
            return Err(replaced(store));
        }
        {
            let state = self.state();
            if let Some((refused, trouble)) = &state.refused
                && *refused == stamp
            {
                return Err(Error::new(trouble.kind, trouble.what.clone(), trouble.hint.clone()));
            }
            if state.stamp == stamp {
                return Ok(None);
            }
        }
        let read = store.verify().and_then(|()| {
            self.compare(&store.machine()?);
            Ok(Some((stamp, Content::of(store)?)))
        });
        read.map_err(|error| self.refused(stamp, error))
    }

    /// Remembers a failure that only another change of the store ends. What passes, like another process's lock, is none.
    fn refused(&self, stamp: Stamp, error: Error) -> Error {
        if matches!(error.kind(), ErrorKind::StoreTampered | ErrorKind::StoreUnsealed | ErrorKind::StoreCorrupt) {
            self.state().refused = Some((stamp, Trouble::from(&error)));
        }
        error
    }

    /// Tells when the machine goes on with another key than this program, which can not: it has the token that it began with.
    fn compare(&self, machine: &Machine) {
        let differs = machine.key() != self.token.public();
        if differs {
            // Nothing stands on a key that is not this machine's any more.
            self.chains.changed(|_| false);
        }
        if differs && !self.differs.swap(true, Ordering::Relaxed) {
            tracing::warn!(target: "claviger::store", reason = ErrorKind::KeyMismatch.as_str(), "this machine goes on with another key: start this program again, with that key's token");
        } else if !differs {
            self.differs.store(false, Ordering::Relaxed);
        }
    }

    /// Opens the seal again: another process sealed the store anew. What it is not sealed to is not asked a second time, and people not at once.
    async fn unlock(self: &Arc<Self>) -> Result<()> {
        let key = self.token.public().clone();
        let agreed = self.token.agree(&seal_point(&key), &Reason::UNLOCKING).await.inspect_err(|error| {
            // A token that is away asks nobody; when it is back, it is asked at once.
            if !matches!(error.kind(), ErrorKind::TokenAbsent | ErrorKind::TokenBusy) {
                self.state().asked = Some(Instant::now());
            }
        })?;
        let shared = Arc::clone(self);
        self.with_store(move |store| {
            let stamp = Stamp::of(store)?;
            store.unlock(&SealKey { key, agreed }).map_err(|error| {
                let told = match error.kind() {
                    ErrorKind::KeyMismatch => Error::new(
                        ErrorKind::StoreLocked,
                        "The store is sealed to other tokens than the one in use here: this machine was rotated or its token replaced.",
                        "Start this program again, with the new token.",
                    ),
                    _ => return shared.refused(stamp, error),
                };
                shared.state().refused = Some((stamp, Trouble::from(&told)));
                told
            })
        })
        .await?
    }

    /// Tells of a failure when it begins, and when it is over.
    fn tell(&self, failure: Option<Error>) {
        let trouble = failure.as_ref().map(Trouble::from);
        let changed = self.trouble.send_if_modified(|old| {
            let changed = *old != trouble;
            *old = trouble;
            changed
        });
        match failure {
            _ if !changed => {}
            Some(error) if error.kind() == ErrorKind::StoreTampered => {
                tracing::error!(target: "claviger::store", reason = error.kind().as_str(), hint = error.hint(), "{error}");
            }
            Some(error) => {
                tracing::warn!(target: "claviger::store", reason = error.kind().as_str(), hint = error.hint(), "the store could not be looked at for changed peers: {error}");
            }
            None => tracing::info!(target: "claviger::store", "the store can be read again"),
        }
    }
}

/// Looks at the store until nobody uses what it says.
async fn watch_store(shared: Weak<Shared>) {
    loop {
        tokio::time::sleep(WATCH).await;
        let Some(shared) = shared.upgrade() else { return };
        shared.look().await;
        shared.chains.expire(shared.clock.now());
    }
}

/// Why a session may not go on; half of it is about the peer, half about this machine.
fn ended(pair: &Pair, known: &Known, now: u64) -> Option<String> {
    let name = &pair.peer;
    if !known.keys_of(name).any(|key| key.static_public == pair.theirs) {
        return Some(match known.peer(name) {
            None => format!("`{name}` was removed or revoked on this machine."),
            Some(peer) if peer.expires.is_some_and(|end| end <= now) => format!("The time of `{name}` has passed."),
            Some(_) => format!("The key that `{name}` used holds no more on this machine."),
        });
    }
    let owns = known.owns(&pair.own, pair.as_former, now);
    (!owns).then(|| "The former key of this machine holds no more.".to_owned())
}

fn former(former: FormerIdentity) -> (StaticPublic, u64) {
    let key = former.card.key(former.active).unwrap_or(&former.card.static_public);
    (key.clone(), former.until)
}

/// Seconds since 1970; 0 for a clock before.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
