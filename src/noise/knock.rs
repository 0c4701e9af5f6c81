//! The knock: how a responder knows, by hashing alone, that the first packet comes from a recorded peer and was not seen before.
//!
//! ```text
//! key    = BLAKE2s-256("claviger knock key 1" || curve || initiator's static public key || responder's static public key)
//! digest = BLAKE2s-256("claviger knock 1" || version || kind || time || Noise message)
//! mac    = BLAKE2s-128 keyed with `key` over `digest`
//! ```
//!
//! Both public keys are known to ceremony members only, so a stranger can not make a knock. The packet is hashed once, and each
//! peer costs one keyed compression after that. A knock proves no more than membership: the handshake behind it proves who it is.

use crate::identity::{Curve, StaticPublic};
use crate::secret::KnockKey;
use crate::wire::{KNOCK_MAC, Kind, KnockPacket, WireError};
use blake2::digest::{FixedOutput, KeyInit, Update, consts::U16};
use blake2::{Blake2s256, Blake2sMac, Digest};
use std::collections::{HashMap, VecDeque};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

/// Knocks of one peer remembered at a time. A peer that knocks more often within the window is refused until it passes.
pub const MAX_SEEN: usize = 1024;

/// The key of the knocks from `initiator` to `responder`. The other direction has another key.
pub fn key(initiator: &StaticPublic, responder: &StaticPublic) -> KnockKey {
    let mut hash = Blake2s256::new();
    Digest::update(&mut hash, b"claviger knock key 1");
    Digest::update(&mut hash, initiator.curve().noise_name().as_bytes());
    Digest::update(&mut hash, initiator.as_bytes());
    Digest::update(&mut hash, responder.as_bytes());
    KnockKey::new(hash.finalize().into())
}

fn digest(header: [u8; 10], message: &[u8]) -> [u8; 32] {
    let mut hash = Blake2s256::new();
    Digest::update(&mut hash, b"claviger knock 1");
    Digest::update(&mut hash, header);
    Digest::update(&mut hash, message);
    hash.finalize().into()
}

type Mac = Blake2sMac<U16>;

fn keyed(key: &KnockKey) -> Mac {
    // A 32-byte key is BLAKE2s's own maximum and never refused; the zero key of the other arm would match nothing anyone sends.
    Mac::new_from_slice(key.expose()).unwrap_or_else(|_| Mac::new(&Default::default()))
}

fn mac(mut keyed: Mac, digest: &[u8; 32]) -> [u8; KNOCK_MAC] {
    Update::update(&mut keyed, digest);
    keyed.finalize_fixed().into()
}

/// The first packet of a handshake: the knock around Noise's first message.
pub fn packet(key: &KnockKey, kind: Kind, time_ms: u64, message: &[u8]) -> Vec<u8> {
    let mut packet = KnockPacket { kind, time_ms, mac: [0; KNOCK_MAC], message };
    packet.mac = mac(keyed(key), &digest(packet.authenticated_header(), message));
    packet.to_bytes()
}

/// Why a first packet is dropped without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refused {
    /// Not a packet of this protocol.
    Wire(WireError),
    /// No peer's key fits: a stranger, or a peer that holds another key than the one recorded here.
    Unknown,
    /// The peer's clock and ours are too far apart, or the knock is older than this listener.
    Stale {
        /// Which peer, as numbered by [`Doorkeeper::new`].
        peer: usize,
        /// The peer's clock minus ours, in milliseconds.
        ahead_ms: i64,
    },
    /// Seen before.
    Replayed {
        /// Which peer.
        peer: usize,
    },
    /// More than [`MAX_SEEN`] knocks within the window.
    TooMany {
        /// Which peer.
        peer: usize,
    },
}

/// A knock that was let in.
#[derive(Debug, PartialEq, Eq)]
pub struct Admitted<'a> {
    /// Which peer, as numbered by [`Doorkeeper::new`].
    pub peer: usize,
    /// The kind of handshake asked for.
    pub kind: Kind,
    /// Its first message, of exactly [its length](Kind::first_message_len).
    pub message: &'a [u8],
}

struct Entry {
    public: StaticPublic,
    mac: Mac,
    /// Knocks let in, by the time they were made, oldest arrival first.
    seen: VecDeque<(u64, [u8; KNOCK_MAC])>,
}

/// Finds the caller among the peers, and drops strangers and replays. Holds a responder's side of every pair.
pub struct Doorkeeper {
    curve: Curve,
    peers: Vec<Entry>,
    /// Those that were taken away and have knocked lately: they may come back, and their knocks with them.
    gone: HashMap<StaticPublic, Entry>,
    window_ms: u64,
    not_before_ms: u64,
}

impl Doorkeeper {
    /// For the machine with static key `local`. `window_ms`: how far a peer's clock may be from ours, either way. `now_ms`: knocks made
    /// before this moment are refused, since a replay of one let in by an earlier process could not be told apart. (One that was let in
    /// then and dated in the future can still be replayed until that time is past the window; it costs token operations and leads to no session.)
    pub fn new<'a>(
        local: &StaticPublic,
        peers: impl IntoIterator<Item = &'a StaticPublic>,
        window_ms: u64,
        now_ms: u64,
    ) -> Self {
        let peers = peers.into_iter().map(|public| Entry::new(public, local)).collect();
        Self { curve: local.curve(), peers, gone: HashMap::new(), window_ms, not_before_ms: now_ms }
    }

    /// Takes a changed list of peers, at time `now_ms`. What was seen is kept, also of those that leave, for as long as it could be replayed.
    pub fn set_peers<'a>(
        &mut self,
        local: &StaticPublic,
        peers: impl IntoIterator<Item = &'a StaticPublic>,
        now_ms: u64,
    ) {
        let mut old = std::mem::take(&mut self.gone);
        old.extend(std::mem::take(&mut self.peers).into_iter().map(|entry| (entry.public.clone(), entry)));
        self.peers =
            peers.into_iter().map(|public| old.remove(public).unwrap_or_else(|| Entry::new(public, local))).collect();
        let oldest = now_ms.saturating_sub(self.window_ms);
        old.retain(|_, entry| entry.seen.iter().any(|(time, _)| *time >= oldest));
        self.gone = old;
    }

    /// Decides about a first packet at time `now_ms` (Unix, milliseconds). Costs one hash, and one compression a peer, whoever it is from.
    ///
    /// # Errors
    /// [`Refused`]: drop the connection and answer nothing.
    pub fn admit<'a>(&mut self, packet: &'a [u8], now_ms: u64) -> Result<Admitted<'a>, Refused> {
        let packet = KnockPacket::parse(packet).map_err(Refused::Wire)?;
        // What can not become a handshake is not remembered, either.
        if packet.message.len() != packet.kind.first_message_len(self.curve) {
            return Err(Refused::Wire(WireError::Length));
        }
        let digest = digest(packet.authenticated_header(), packet.message);
        // All peers are tried, so the time taken says nothing about who knocks.
        let mut found = Choice::from(0);
        let mut peer = 0u64;
        for (at, entry) in self.peers.iter().enumerate() {
            let fits = mac(entry.mac.clone(), &digest).ct_eq(&packet.mac);
            peer.conditional_assign(&(at as u64), fits);
            found |= fits;
        }
        if !bool::from(found) {
            return Err(Refused::Unknown);
        }
        let peer = peer as usize;
        let ahead_ms = (packet.time_ms as i64).wrapping_sub(now_ms as i64);
        if packet.time_ms.abs_diff(now_ms) > self.window_ms || packet.time_ms < self.not_before_ms {
            return Err(Refused::Stale { peer, ahead_ms });
        }
        let seen = &mut self.peers[peer].seen;
        let oldest = now_ms.saturating_sub(self.window_ms);
        // A knock outside the window is refused by its time and need not be remembered.
        seen.retain(|(time, _)| *time >= oldest);
        if seen.iter().any(|(_, mac)| bool::from(mac.ct_eq(&packet.mac))) {
            return Err(Refused::Replayed { peer });
        }
        if seen.len() >= MAX_SEEN {
            return Err(Refused::TooMany { peer });
        }
        seen.push_back((packet.time_ms, packet.mac));
        Ok(Admitted { peer, kind: packet.kind, message: packet.message })
    }
}

impl Entry {
    fn new(public: &StaticPublic, local: &StaticPublic) -> Self {
        Self { public: public.clone(), mac: keyed(&key(public, local)), seen: VecDeque::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Pattern;

    fn public(n: u16) -> StaticPublic {
        let mut bytes = [9; 32];
        bytes[..2].copy_from_slice(&n.to_le_bytes());
        StaticPublic::new(Curve::X25519, &bytes).unwrap()
    }

    const NOW: u64 = 1_800_000_000_000;
    const WINDOW: u64 = 120_000;

    fn doorkeeper(local: &StaticPublic, peers: &[StaticPublic]) -> Doorkeeper {
        Doorkeeper::new(local, peers, WINDOW, NOW - WINDOW)
    }

    #[test]
    fn the_peer_is_found_once_and_only_in_its_window() {
        let (local, peers) = (public(1), [public(2), public(3), public(4)]);
        let mut door = doorkeeper(&local, &peers);
        let knock = |time| packet(&key(&peers[1], &local), Pattern::Xk.into(), time, &[8; 48]);
        let first = knock(NOW);
        assert_eq!(door.admit(&first, NOW), Ok(Admitted { peer: 1, kind: Pattern::Xk.into(), message: &[8; 48] }));
        assert_eq!(door.admit(&first, NOW + 5), Err(Refused::Replayed { peer: 1 }));
        assert_eq!(door.admit(&first, NOW + WINDOW), Err(Refused::Replayed { peer: 1 }));
        assert!(matches!(door.admit(&first, NOW + WINDOW + 1), Err(Refused::Stale { peer: 1, ahead_ms: -120_001 })));
        assert!(door.admit(&knock(NOW + WINDOW), NOW).is_ok());
        assert!(matches!(door.admit(&knock(NOW + WINDOW + 1), NOW), Err(Refused::Stale { .. })));
        assert!(matches!(door.admit(&knock(u64::MAX), NOW), Err(Refused::Stale { .. })));
        assert!(matches!(door.admit(&knock(0), NOW), Err(Refused::Stale { .. })));
        // Made before this listener was: perhaps let in by the one before it.
        let mut later = Doorkeeper::new(&local, &peers, WINDOW, NOW);
        assert!(matches!(later.admit(&knock(NOW - 1), NOW), Err(Refused::Stale { .. })));
    }

    #[test]
    fn strangers_and_every_changed_byte_are_unknown() {
        let (local, peers) = (public(1), [public(2), public(3)]);
        let mut door = doorkeeper(&local, &peers);
        let good = packet(&key(&peers[0], &local), Pattern::Kk.into(), NOW, &[7; 48]);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(matches!(door.admit(&bad, NOW), Err(Refused::Unknown | Refused::Wire(_))), "byte {at}");
        }
        for wrong in [key(&local, &peers[0]), key(&peers[0], &peers[1]), key(&public(9), &local)] {
            assert_eq!(door.admit(&packet(&wrong, Pattern::Kk.into(), NOW, &[7; 48]), NOW), Err(Refused::Unknown));
        }
        assert!(door.admit(&good, NOW).is_ok(), "what went before changed nothing");
    }

    #[test]
    fn one_peer_can_not_fill_the_memory() {
        let (local, peers) = (public(1), [public(2), public(3)]);
        let mut door = doorkeeper(&local, &peers);
        let knock = |peer: usize, n: u64| {
            let mut message = [0; 48];
            message[..8].copy_from_slice(&n.to_be_bytes());
            packet(&key(&peers[peer], &local), Pattern::Kk.into(), NOW, &message)
        };
        for n in 0..MAX_SEEN as u64 {
            assert!(door.admit(&knock(0, n), NOW).is_ok());
        }
        assert_eq!(door.admit(&knock(0, 1 << 32), NOW), Err(Refused::TooMany { peer: 0 }));
        assert!(door.admit(&knock(1, 0), NOW).is_ok(), "another peer is not held up");
        let later = packet(&key(&peers[0], &local), Pattern::Kk.into(), NOW + WINDOW + 1, &[1; 48]);
        assert!(door.admit(&later, NOW + WINDOW + 1).is_ok(), "the window passes");
    }

    #[test]
    fn a_changed_list_keeps_what_was_seen() {
        let (local, peers) = (public(1), [public(2), public(3)]);
        let mut door = doorkeeper(&local, &peers);
        let knock = packet(&key(&peers[1], &local), Pattern::Kk.into(), NOW, &[2; 48]);
        assert!(door.admit(&knock, NOW).is_ok());
        door.set_peers(&local, [&peers[1]], NOW);
        assert_eq!(door.admit(&knock, NOW), Err(Refused::Replayed { peer: 0 }));
        door.set_peers(&local, [&peers[0]], NOW);
        assert_eq!(door.admit(&knock, NOW), Err(Refused::Unknown));
        // It comes back within the window: its time was given back to it, say.
        door.set_peers(&local, [&peers[0]], NOW + 1);
        door.set_peers(&local, [&peers[0], &peers[1]], NOW + WINDOW);
        assert_eq!(door.admit(&knock, NOW + WINDOW), Err(Refused::Replayed { peer: 1 }));
        door.set_peers(&local, [&peers[0]], NOW + WINDOW + 1);
        assert!(door.gone.is_empty(), "nothing is remembered that could not be replayed");
    }
}
