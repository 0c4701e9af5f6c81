//! The sessions of an endpoint, and the handshakes that become some: how many there may be, and which of them makes room.

use super::cut::Held;
use crate::config::{Config, Limits};
use crate::error::{Error, ErrorKind, Result};
use crate::identity::{Identifier, StaticPublic};
use crate::session::{PeerLimits, Session, Status, Told, Watched, Why};
use crate::transport::Each;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Duration;

/// Which machines are at the ends of a session, and by which keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) peer: Identifier,
    /// This machine's key, and whether it is that of its former self.
    pub(super) own: StaticPublic,
    pub(super) as_former: bool,
    pub(super) theirs: StaticPublic,
}

/// How a session begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// This machine dialled.
    Outgoing,
    /// The peer did.
    Incoming,
    /// The peer did, to resume that session, in whose place it comes.
    Instead(u64),
}

/// All of them, by peer.
pub(super) struct Sessions {
    limits: RwLock<Limits>,
    open: Arc<AtomicUsize>,
    registry: Mutex<Registry>,
    /// What the log tells of each peer, also when it has no session.
    told: Mutex<HashMap<Identifier, Arc<Told>>>,
    replaced: Each<Identifier>,
}

#[derive(Default)]
struct Registry {
    last: u64,
    peers: HashMap<Identifier, OfPeer>,
}

struct OfPeer {
    limits: Arc<PeerLimits>,
    live: Vec<Live>,
}

/// A session, or a handshake under way.
struct Live {
    number: u64,
    pair: Pair,
    held: Weak<Held>,
    place: Weak<Place>,
    /// When the handshake is over.
    session: Option<Watched>,
}

impl Live {
    fn is_over(&self) -> bool {
        self.held.strong_count() == 0 || self.has_ended()
    }

    fn has_ended(&self) -> bool {
        self.session.as_ref().is_some_and(Watched::has_ended)
    }

    fn release_ended(&self) {
        if self.has_ended()
            && let Some(place) = self.place.upgrade()
        {
            place.release();
        }
    }
}

/// A session's place among all; given back when dropped.
pub(super) struct Place {
    open: Arc<AtomicUsize>,
    /// [`WAITS`], [`COUNTS`] or [`TAKEN`].
    state: AtomicU8,
}

/// Of a caller that has not proved that it is there: it takes nobody's place.
const WAITS: u8 = 0;

const COUNTS: u8 = 1;

/// Another session has taken it over, or its own is over.
const TAKEN: u8 = 2;

impl Place {
    fn new(open: &Arc<AtomicUsize>, state: u8) -> Self {
        Self { open: Arc::clone(open), state: AtomicU8::new(state) }
    }

    fn counts(&self) -> bool {
        self.state.load(Ordering::SeqCst) == COUNTS
    }

    fn turn(&self, from: u8, to: u8) -> bool {
        self.state.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Counts no more, whether or not its pipe is gone.
    fn release(&self) {
        if self.turn(COUNTS, TAKEN) {
            self.open.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.release();
    }
}

impl Sessions {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            limits: RwLock::new(config.limits.clone()),
            open: Arc::default(),
            registry: Mutex::default(),
            told: Mutex::default(),
            replaced: Each::new(1, Duration::from_secs(60)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For sessions that begin from now on. A peer that has some keeps its number of streams and its buffer until they have ended.
    pub(super) fn set_limits(&self, limits: &Limits) {
        *self.limits.write().unwrap_or_else(PoisonError::into_inner) = limits.clone();
    }

    fn bounds(&self) -> Limits {
        self.limits.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn peer_limits(&self, peer: &Identifier) -> Arc<PeerLimits> {
        let told =
            Arc::clone(self.told.lock().unwrap_or_else(PoisonError::into_inner).entry(peer.clone()).or_default());
        let Limits { streams_per_peer, buffer_per_peer, .. } = self.bounds();
        PeerLimits::new(streams_per_peer as usize, (buffer_per_peer as usize) << 20, told)
    }

    /// A place for one more; for one that comes in, and has not proved who it is, the prospect of one: see [`claim`](Self::claim).
    ///
    /// # Errors
    /// [`ErrorKind::SessionLimit`] when there are as many as there may be, and a peer asks. What this machine begins is not refused.
    pub(super) fn place(&self, peer: &Identifier, entry: Entry) -> Result<Place> {
        match entry {
            Entry::Outgoing => {
                self.open.fetch_add(1, Ordering::SeqCst);
            }
            Entry::Instead(number) if self.place_of(peer, number).is_some_and(|old| old.counts()) => {
                return Ok(Place::new(&self.open, WAITS));
            }
            Entry::Incoming | Entry::Instead(_) => {
                // There is room, and it is left to others.
                self.take(peer)?;
                self.open.fetch_sub(1, Ordering::SeqCst);
                return Ok(Place::new(&self.open, WAITS));
            }
        }
        Ok(Place::new(&self.open, COUNTS))
    }

    /// The caller of `number` has proved who it is: from now on it has a place, that of the session that it resumes or another, if there is still one.
    ///
    /// # Errors
    /// [`ErrorKind::SessionLimit`].
    pub(super) fn claim(&self, peer: &Identifier, number: u64, resumes: Option<u64>) -> Result<()> {
        let place = self.place_of(peer, number);
        if let Some(place) = place.filter(|place| place.state.load(Ordering::SeqCst) == WAITS) {
            let old = resumes.and_then(|old| self.place_of(peer, old));
            if !old.is_some_and(|old| old.turn(COUNTS, TAKEN)) {
                self.take(peer)?;
            }
            place.state.store(COUNTS, Ordering::SeqCst);
        }
        Ok(())
    }

    fn place_of(&self, peer: &Identifier, number: u64) -> Option<Arc<Place>> {
        self.find(peer, number, |live| live.place.upgrade()).flatten()
    }

    fn take(&self, peer: &Identifier) -> Result<()> {
        let limit = self.bounds().sessions as usize;
        let room = |open| (open < limit).then_some(open + 1);
        let take = || self.open.fetch_update(Ordering::SeqCst, Ordering::SeqCst, room);
        let taken = take().or_else(|_| {
            // Those that have ended, and whose peers do not say so, take nobody's place.
            self.lock().peers.values().flat_map(|of_peer| &of_peer.live).for_each(Live::release_ended);
            take()
        });
        taken.map(drop).map_err(|_| {
            Error::new(
                ErrorKind::SessionLimit,
                format!("`{peer}` was turned away: there are {limit} sessions already."),
                "Close some, or raise `sessions` under [limits].",
            )
        })
    }

    /// Takes up a pipe, and gives it a number.
    pub(super) fn enter(&self, pair: Pair, held: &Arc<Held>, place: &Arc<Place>) -> u64 {
        let mut registry = self.lock();
        registry.last += 1;
        let number = registry.last;
        let of_peer = registry
            .peers
            .entry(pair.peer.clone())
            .or_insert_with(|| OfPeer { limits: self.peer_limits(&pair.peer), live: Vec::new() });
        of_peer.live.retain(|live| live.held.strong_count() > 0);
        let (held, place) = (Arc::downgrade(held), Arc::downgrade(place));
        of_peer.live.push(Live { number, pair, held, place, session: None });
        number
    }

    /// What all sessions of a peer share.
    pub(super) fn limits(&self, peer: &Identifier) -> Arc<PeerLimits> {
        let shared = self.lock().peers.get(peer).map(|of_peer| Arc::clone(&of_peer.limits));
        shared.unwrap_or_else(|| self.peer_limits(peer))
    }

    fn find<T>(&self, peer: &Identifier, number: u64, look: impl FnOnce(&Live) -> T) -> Option<T> {
        self.lock().peers.get(peer)?.live.iter().find(|live| live.number == number).map(look)
    }

    /// Whether a session goes on, for all that this end knows.
    pub(super) fn is_live(&self, peer: &Identifier, number: u64) -> bool {
        self.find(peer, number, |live| !live.is_over()).unwrap_or(false)
    }

    /// Ends a session.
    pub(super) fn end(&self, peer: &Identifier, number: u64, why: Why) {
        self.find(peer, number, |live| live.session.iter().for_each(|session| session.end(why)));
    }

    /// The handshake of `number` is over: it is a session, the peer's youngest. The peer's oldest ends when there is one too many.
    pub(super) fn stands(&self, peer: &Identifier, number: u64, session: &Session) {
        let per_peer = self.bounds().sessions_per_peer as usize;
        let mut registry = self.lock();
        let Some(OfPeer { live, .. }) = registry.peers.get_mut(peer) else { return };
        let Some(at) = live.iter().position(|live| live.number == number) else { return };
        let mut young = live.remove(at);
        young.session = Some(session.watched());
        live.push(young);
        let standing = live.iter().filter(|live| live.session.is_some() && !live.is_over());
        let over = standing.clone().count().saturating_sub(per_peer);
        for oldest in standing.take(over).filter_map(|live| live.session.as_ref()) {
            if let Some(untold) = self.replaced.tell(peer.clone()) {
                tracing::warn!(target: "claviger::connection", %peer, reason = ErrorKind::SessionLimit.as_str(), untold, "the oldest session of a peer was ended: there are as many as there may be");
            }
            oldest.end(Why::Limit);
        }
        // A peer that does not acknowledge their end would keep all of them in their places.
        let closing: Vec<_> =
            live.iter().filter(|live| live.is_over()).filter_map(|live| live.held.upgrade()).collect();
        let beyond = closing.len().saturating_sub(per_peer);
        drop(registry);
        closing.iter().take(beyond).for_each(|held| held.drop_pipe());
    }

    /// The sessions that have not ended.
    pub(super) fn status(&self) -> Vec<Status> {
        let registry = self.lock();
        let live = registry.peers.values().flat_map(|of_peer| &of_peer.live);
        live.filter_map(|live| live.session.as_ref()?.status()).collect()
    }

    /// Takes out those that may not go on, with the reason.
    pub(super) fn sweep(&self, over: impl Fn(&Pair) -> Option<String>) -> Vec<(Arc<Held>, Identifier, String)> {
        let mut ended = Vec::new();
        self.lock().peers.retain(|_, OfPeer { live, .. }| {
            live.retain(|live| {
                let Some(why) = over(&live.pair) else { return live.held.strong_count() > 0 };
                ended.extend(live.held.upgrade().map(|held| (held, live.pair.peer.clone(), why)));
                false
            });
            !live.is_empty()
        });
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Curve;
    use crate::transport::Pipe;

    fn pair(peer: &str) -> Pair {
        let key = StaticPublic::new(Curve::X25519, &[9; 32]).unwrap();
        Pair { peer: peer.parse().unwrap(), own: key.clone(), as_former: false, theirs: key }
    }

    fn held() -> Arc<Held> {
        Arc::new(Held::new(Pipe::joined(tokio::io::duplex(1).0)))
    }

    fn sessions(limit: u32) -> Sessions {
        let mut config = Config::default();
        config.limits.sessions = limit;
        Sessions::new(&config)
    }

    /// Of a handshake that came to its end.
    fn place(sessions: &Sessions, entry: Entry) -> Result<Arc<Place>> {
        let place = sessions.place(&pair("wallet").peer, entry).map(Arc::new)?;
        if place.turn(WAITS, COUNTS) {
            sessions.take(&pair("wallet").peer)?;
        }
        Ok(place)
    }

    #[test]
    fn who_has_proved_nothing_takes_no_place() {
        let sessions = sessions(1);
        let peer = pair("wallet").peer;
        let both = [(); 2].map(|()| Arc::new(sessions.place(&peer, Entry::Incoming).unwrap()));
        let pipes = [held(), held()];
        let [one, other] = [0, 1].map(|at| sessions.enter(pair("wallet"), &pipes[at], &both[at]));
        sessions.claim(&peer, one, None).unwrap();
        sessions.claim(&peer, one, None).unwrap();
        assert_eq!(sessions.open.load(Ordering::SeqCst), 1, "once");
        assert_eq!(sessions.claim(&peer, other, None).err().unwrap().kind(), ErrorKind::SessionLimit);
        assert_eq!(place(&sessions, Entry::Incoming).err().unwrap().kind(), ErrorKind::SessionLimit);
        drop(both);
        assert_eq!(sessions.open.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn who_comes_when_all_places_are_taken_is_turned_away() {
        let sessions = sessions(2);
        let _first = place(&sessions, Entry::Incoming).unwrap();
        let own = place(&sessions, Entry::Outgoing).unwrap();
        assert_eq!(place(&sessions, Entry::Incoming).err().unwrap().kind(), ErrorKind::SessionLimit);
        assert_eq!(place(&sessions, Entry::Instead(7)).err().unwrap().kind(), ErrorKind::SessionLimit);
        let beyond = place(&sessions, Entry::Outgoing).unwrap();
        drop((own, beyond));
        assert!(place(&sessions, Entry::Incoming).is_ok());
    }

    /// Everybody's sessions broke and nobody has noticed; all are resumed at once.
    #[test]
    fn what_is_resumed_takes_over_a_place() {
        let sessions = sessions(3);
        let peer = pair("wallet").peer;
        let enter = |entry| {
            let (held, place) = (held(), Arc::new(sessions.place(&peer, entry).unwrap()));
            (sessions.enter(pair("wallet"), &held, &place), held, place)
        };
        let open = || sessions.open.load(Ordering::SeqCst);
        let broken: Vec<_> = (0..3).map(|_| enter(Entry::Incoming)).collect();
        broken.iter().for_each(|(number, ..)| sessions.claim(&peer, *number, None).unwrap());
        // Of whom nobody is there, again and again: the session that goes on keeps its place.
        let phantoms: Vec<_> = broken.iter().map(|(number, ..)| enter(Entry::Instead(*number))).collect();
        assert_eq!(open(), 3);
        drop(phantoms);
        assert_eq!(open(), 3);
        let resumed: Vec<_> = broken.iter().map(|(number, ..)| enter(Entry::Instead(*number))).collect();
        for ((old, ..), (new, ..)) in broken.iter().zip(&resumed) {
            sessions.claim(&peer, *new, Some(*old)).unwrap();
        }
        let again = sessions.place(&peer, Entry::Instead(broken[0].0));
        assert_eq!(again.err().unwrap().kind(), ErrorKind::SessionLimit, "a place is taken over once");
        drop(broken);
        assert_eq!(open(), 3);
        drop(resumed);
        assert_eq!(open(), 0);
    }

    #[test]
    fn what_may_not_go_on_is_taken_out() {
        let sessions = sessions(9);
        let (one, other, place) = (held(), held(), place(&sessions, Entry::Incoming).unwrap());
        let (lost, kept) =
            (sessions.enter(pair("tower"), &one, &place), sessions.enter(pair("wallet"), &other, &place));
        let limits = sessions.limits(&pair("wallet").peer);
        let swept = sessions.sweep(|pair| (pair.peer.as_str() == "tower").then(|| "It was revoked.".into()));
        assert!(swept.len() == 1 && Arc::ptr_eq(&swept[0].0, &one));
        assert!(!sessions.is_live(&pair("tower").peer, lost) && sessions.is_live(&pair("wallet").peer, kept));
        assert!(Arc::ptr_eq(&limits, &sessions.limits(&pair("wallet").peer)), "all its sessions share them");
        drop(other);
        assert!(!sessions.is_live(&pair("wallet").peer, kept));
        assert!(sessions.sweep(|_| None).is_empty() && sessions.lock().peers.is_empty());
    }
}
