//! The door: a knock opens it once, within its window, and nothing that differs from a knock by as much as a bit ever does.

use claviger::identity::{Curve, StaticPublic};
use claviger::noise::knock::{Admitted, Doorkeeper, Refused, key, packet};
use claviger::wire::{Kind, KnockPacket};
use std::sync::LazyLock;

const NOW: u64 = 1_800_000_000_000;
const WINDOW: u64 = 120_000;
/// The listener is this old, in milliseconds: younger than the window.
const AGE: u64 = 60_000;

/// The listening machine, its peers, and a stranger.
static KEYS: LazyLock<[StaticPublic; 5]> = LazyLock::new(|| {
    [2, 3, 4, 5, 6].map(|n| StaticPublic::new(Curve::X25519, &[n; 32]).expect("points of high order"))
});

/// The first three are the patterns alone.
const KINDS: [u8; 13] = [1, 2, 3, 4, 0x11, 0x12, 0x13, 0x21, 0x22, 0x23, 0x31, 0x32, 0x33];

/// What the input says, from its front: who knocks, for which kind of handshake, when, the length of the message, the message, and then changes
/// to the packet, three bytes each: what to do, where, with which value.
///
/// ```text
/// 0  1  sender in the low half, kind in the high half: a place in `KINDS`
/// 1  4  the sender's clock minus ours in milliseconds, big-endian, signed
/// 5  1  bytes of message
/// 6  …  message, then changes
/// ```
pub fn check(data: &[u8]) {
    let [local, peers @ .., stranger] = &*KEYS;
    let mut door = Doorkeeper::new(local, peers, WINDOW, NOW - AGE);
    let _ = admit(&mut door, data);

    let Some(([head, a, b, c, d, len], rest)) = data.split_first_chunk() else { return };
    let ahead = i64::from(i32::from_be_bytes([*a, *b, *c, *d]));
    let time = NOW.saturating_add_signed(ahead);
    let (message, changes) = rest.split_at(rest.len().min(usize::from(*len)));
    let kind = Kind::from_byte(KINDS[usize::from(head >> 4) % KINDS.len()]).expect("a kind");
    let sender = usize::from(head & 0x0f) % 4;
    let public = peers.get(sender).unwrap_or(stranger);
    // Another length than the kind's is refused before it is looked at.
    let mut message = message.to_vec();
    message.resize(kind.first_message_len(local.curve()), 0);
    let message = &message[..];
    let valid = packet(&key(public, local), kind, time, message);

    let mut changed = valid.clone();
    for change in changes.chunks_exact(3) {
        apply(&mut changed, [change[0], change[1], change[2]]);
    }
    if changed != valid {
        let _ = admit(&mut door, &changed);
    }
    // The other direction's key, and the key to another machine, are not this door's.
    for wrong in [key(local, public), key(public, stranger)] {
        assert_eq!(door.admit(&packet(&wrong, kind, time, message), NOW), Err(Refused::Unknown));
    }

    let answer = admit(&mut door, &valid);
    if sender >= peers.len() {
        assert_eq!(answer, Err(Refused::Unknown));
    } else if ahead.unsigned_abs() > WINDOW || ahead < -(AGE as i64) {
        assert_eq!(answer, Err(Refused::Stale { peer: sender, ahead_ms: ahead }));
    } else {
        assert_eq!(answer, Ok(Admitted { peer: sender, kind, message }));
        assert_eq!(door.admit(&valid, NOW), Err(Refused::Replayed { peer: sender }));
        // As long as its time is acceptable it is remembered, and after that its time is not.
        let last = time + WINDOW;
        assert_eq!(door.admit(&valid, last), Err(Refused::Replayed { peer: sender }));
        assert!(matches!(door.admit(&valid, last + 1), Err(Refused::Stale { .. })));
    }
}

/// Whoever the door recognizes made exactly these bytes. (A fuzzer that watches comparisons does find whole knocks of this check's keys,
/// so it can not be asked to find none.)
fn admit<'a>(door: &mut Doorkeeper, bytes: &'a [u8]) -> Result<Admitted<'a>, Refused> {
    let answer = door.admit(bytes, NOW);
    let recognized = match &answer {
        Ok(Admitted { peer, .. })
        | Err(Refused::Stale { peer, .. } | Refused::Replayed { peer } | Refused::TooMany { peer }) => Some(*peer),
        Err(_) => None,
    };
    if let Some(peer) = recognized {
        let header = KnockPacket::parse(bytes).expect("what was recognized was read");
        let made = packet(&key(&KEYS[1 + peer], &KEYS[0]), header.kind, header.time_ms, header.message);
        assert!(made == bytes, "taken for a knock of peer {peer}: {answer:?}");
    }
    answer
}

fn apply(packet: &mut Vec<u8>, [what, at, value]: [u8; 3]) {
    let at = usize::from(at) % packet.len().max(1);
    match what % 6 {
        _ if packet.is_empty() => packet.push(value),
        0 => packet[at] = value,
        1 => packet[at] ^= 1 << (value % 8),
        2 => packet.insert(at, value),
        3 => drop(packet.remove(at)),
        4 => packet.truncate(at),
        _ => packet.extend(std::iter::repeat_n(value, at)),
    }
}
