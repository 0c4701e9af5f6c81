//! The sessions of an endpoint, and the handshakes that become some: how many there may be, and which of them makes room.

use super::cut::Held;
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::{Identifier, StaticPublic};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

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
    limit: usize,
    per_peer: usize,
    open: Arc<AtomicUsize>,
    registry: Mutex<Registry>,
}

#[derive(Default)]
struct Registry {
    last: u64,
    peers: HashMap<Identifier, Vec<Live>>,
}

/// A session, or a handshake under way.
struct Live {
    number: u64,
    pair: Pair,
    held: Weak<Held>,
    /// Whether the handshake is over.
    stands: bool,
}

/// A session's place among all; given back when dropped.
pub(super) struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Sessions {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            limit: config.limits.sessions as usize,
            per_peer: config.limits.sessions_per_peer as usize,
            open: Arc::default(),
            registry: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more.
    ///
    /// # Errors
    /// [`ErrorKind::SessionLimit`] when there are as many as there may be, and a peer asks. What this machine begins is not refused.
    pub(super) fn place(&self, peer: &Identifier, entry: Entry) -> Result<Place> {
        let mut limit = self.limit;
        match entry {
            Entry::Outgoing => limit = usize::MAX,
            Entry::Instead(number) if self.is_live(peer, number) => limit = limit.saturating_add(1),
            Entry::Incoming | Entry::Instead(_) => {}
        }
        let taken =
            self.open.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |open| (open < limit).then_some(open + 1));
        taken.map(|_| Place(Arc::clone(&self.open))).map_err(|_| {
            Error::new(
                ErrorKind::SessionLimit,
                format!("`{peer}` was turned away: there are {} sessions already.", self.limit),
                "Close some, or raise `sessions` under [limits].",
            )
        })
    }

    /// Takes up a pipe, and gives it a number.
    pub(super) fn enter(&self, pair: Pair, held: &Arc<Held>) -> u64 {
        let mut registry = self.lock();
        registry.last += 1;
        let number = registry.last;
        let live = registry.peers.entry(pair.peer.clone()).or_default();
        live.retain(|live| live.held.strong_count() > 0);
        live.push(Live { number, pair, held: Arc::downgrade(held), stands: false });
        number
    }

    pub(super) fn is_live(&self, peer: &Identifier, number: u64) -> bool {
        self.held(peer, number).is_some()
    }

    pub(super) fn held(&self, peer: &Identifier, number: u64) -> Option<Arc<Held>> {
        self.lock().peers.get(peer)?.iter().find(|live| live.number == number)?.held.upgrade()
    }

    /// The handshake of `number` is over: it is a session, the peer's youngest. Gives the peer's oldest when there is one too many.
    pub(super) fn stands(&self, peer: &Identifier, number: u64) -> Vec<Arc<Held>> {
        let mut registry = self.lock();
        let Some(live) = registry.peers.get_mut(peer) else { return Vec::new() };
        live.retain(|live| live.held.strong_count() > 0);
        let Some(at) = live.iter().position(|live| live.number == number) else { return Vec::new() };
        let mut young = live.remove(at);
        young.stands = true;
        live.push(young);
        let standing = live.iter().filter(|live| live.stands).count();
        let mut over = standing.saturating_sub(self.per_peer);
        let mut evicted = Vec::new();
        live.retain(|live| {
            let goes = live.stands && over > 0;
            if goes {
                over -= 1;
                evicted.extend(live.held.upgrade());
            }
            !goes
        });
        evicted
    }

    /// Takes out those that may not go on, with the reason.
    pub(super) fn sweep(&self, over: impl Fn(&Pair) -> Option<String>) -> Vec<(Arc<Held>, Identifier, String)> {
        let mut ended = Vec::new();
        self.lock().peers.retain(|_, live| {
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

    fn sessions(limit: u32, per_peer: u32) -> Sessions {
        let mut config = Config::default();
        (config.limits.sessions, config.limits.sessions_per_peer) = (limit, per_peer);
        Sessions::new(&config)
    }

    #[test]
    fn who_comes_when_all_places_are_taken_is_turned_away() {
        let sessions = sessions(2, 8);
        let peer = pair("wallet").peer;
        let first = sessions.place(&peer, Entry::Incoming).unwrap();
        let live = held();
        let number = sessions.enter(pair("wallet"), &live);
        let _own = sessions.place(&peer, Entry::Outgoing).unwrap();
        assert_eq!(sessions.place(&peer, Entry::Incoming).err().unwrap().kind(), ErrorKind::SessionLimit);
        // What it takes the place of is still there, and will go.
        let resumed = sessions.place(&peer, Entry::Instead(number)).unwrap();
        let called = sessions.place(&peer, Entry::Outgoing).unwrap();
        drop((live, first, resumed, called));
        assert!(sessions.place(&peer, Entry::Instead(number)).is_ok());
        assert!(sessions.place(&peer, Entry::Incoming).is_ok());
    }

    #[test]
    fn a_peers_oldest_makes_room() {
        let sessions = sessions(100, 2);
        let pipes: Vec<_> = (0..4).map(|_| held()).collect();
        let numbers: Vec<u64> = pipes.iter().map(|held| sessions.enter(pair("wallet"), held)).collect();
        let other = held();
        let others = sessions.enter(pair("tower"), &other);
        let stands = |at: usize| sessions.stands(&pair("wallet").peer, numbers[at]);
        // In the order in which they were finished, not begun.
        assert!(stands(1).is_empty() && stands(0).is_empty());
        assert!(sessions.stands(&pair("tower").peer, others).is_empty());
        let evicted = stands(2);
        assert!(evicted.len() == 1 && Arc::ptr_eq(&evicted[0], &pipes[1]));
        assert!(!sessions.is_live(&pair("wallet").peer, numbers[1]));
        let evicted = stands(3);
        assert!(evicted.len() == 1 && Arc::ptr_eq(&evicted[0], &pipes[0]));
        drop(pipes);
        assert!(!sessions.is_live(&pair("wallet").peer, numbers[3]));
        assert!(sessions.is_live(&pair("tower").peer, others));
        assert_eq!(sessions.sweep(|_| Some("It is so.".into())).len(), 1);
    }
}
