//! Resumption: a broken session is taken up again by secrets that the handshake left in memory, and without the token.
//!
//! ```text
//! C_0     = HKDF-SHA256(salt = handshake hash, ikm = first split key || second split key, info = "claviger resumption 1")        32 bytes
//! id_i    = HKDF-SHA256(no salt, ikm = C_i, info = "claviger resumption id 1")                                                     16
//! psk_i   = HKDF-SHA256(no salt, ikm = C_i, info = "claviger resumption psk 1")                                                    32
//! C_{i+1} = HKDF-SHA256(no salt, ikm = C_i, info = "claviger resumption next 1")                                                   32
//! ```
//!
//! Each link is used once, by the end that began the session: it goes on to the next link before it sends `id_i` and the first message of `NNpsk0` under `psk_i`.
//! The other end looks for `id_i` among its next [`WINDOW`] links, and goes on behind it as soon as the message opens. Whoever learns a link learns those after it
//! and none before it; a resumed session's keys also come of fresh ephemerals, and begin a chain of their own.

use super::{Established, NoiseError};
use crate::identity::StaticPublic;
use crate::secret::{CipherKey, NoisePsk, ResumptionSecret, SecretBytes};
use crate::wire::RESUMPTION_ID;
use aws_lc_rs::hkdf::{self, HKDF_SHA256, KeyType, Salt};

/// Links of a chain that the end that is called tries: so many tries of the other end may get lost on their way, one after the other.
pub const WINDOW: usize = 8;

/// A link of the chain, `C_i`. Secret; kept in memory by both ends, and wiped when it is let go.
pub struct Link(ResumptionSecret);

impl Link {
    /// `C_0` of a finished handshake. `is_initiator`: whether this end began it.
    ///
    /// # Errors
    /// [`NoiseError::Internal`] when HKDF fails.
    pub fn first(established: &Established, is_initiator: bool) -> Result<Self, NoiseError> {
        let Established { send, receive, handshake_hash, .. } = established;
        let (first, second) = if is_initiator { (send, receive) } else { (receive, send) };
        Self::of(handshake_hash, first, second)
    }

    /// `C_0` of a handshake's hash and split keys.
    pub(crate) fn of(handshake_hash: &[u8; 32], first: &CipherKey, second: &CipherKey) -> Result<Self, NoiseError> {
        let keys = SecretBytes::new([*first.expose(), *second.expose()].concat());
        derive(handshake_hash, &keys, "claviger resumption 1").map(|mut link| Self(ResumptionSecret::take(&mut link)))
    }

    /// `id_i`: public, and without a meaning to whoever does not hold the link.
    ///
    /// # Errors
    /// As [`first`](Self::first), here and below.
    pub fn id(&self) -> Result<[u8; RESUMPTION_ID], NoiseError> {
        derive(b"", self.0.expose(), "claviger resumption id 1")
    }

    /// `psk_i`, for one handshake.
    ///
    /// # Errors
    /// As [`first`](Self::first).
    pub fn psk(&self) -> Result<NoisePsk, NoiseError> {
        derive(b"", self.0.expose(), "claviger resumption psk 1").map(|mut psk| NoisePsk::take(&mut psk))
    }

    /// `C_{i+1}`.
    ///
    /// # Errors
    /// As [`first`](Self::first).
    pub fn next(&self) -> Result<Self, NoiseError> {
        derive(b"", self.0.expose(), "claviger resumption next 1")
            .map(|mut next| Self(ResumptionSecret::take(&mut next)))
    }

    /// The link that `id` names, among this one and those after it, [`WINDOW`] in all.
    ///
    /// # Errors
    /// As [`first`](Self::first).
    pub fn find(&self, id: &[u8; RESUMPTION_ID]) -> Result<Option<Self>, NoiseError> {
        let mut link = Self(ResumptionSecret::new(*self.0.expose()));
        for _ in 0..WINDOW {
            // Public: it was sent in the clear.
            if link.id()? == *id {
                return Ok(Some(link));
            }
            link = link.next()?;
        }
        Ok(None)
    }
}

/// The full handshake that a chain comes from: what a resumed session stands on, however often it was resumed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Its handshake hash.
    pub handshake_hash: [u8; 32],
    /// Its kind byte.
    pub kind: u8,
    /// The time in its knock, milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// The static public key of the end that began it.
    pub initiator: StaticPublic,
    /// And that of the other end.
    pub responder: StaticPublic,
}

impl Origin {
    /// The prologue of a resumption: `usual`, as [`wire::prologue`](crate::wire::prologue) makes it, and behind it:
    ///
    /// ```text
    /// handshake hash of the full handshake     32 bytes
    /// its kind byte                            1
    /// the time in its knock                    8, big-endian
    /// initiator's static public key            32 or 65
    /// responder's static public key            as long
    /// ```
    pub fn prologue(&self, mut usual: Vec<u8>) -> Vec<u8> {
        usual.extend_from_slice(&self.handshake_hash);
        usual.push(self.kind);
        usual.extend_from_slice(&self.time_ms.to_be_bytes());
        usual.extend_from_slice(self.initiator.as_bytes());
        usual.extend_from_slice(self.responder.as_bytes());
        usual
    }
}

struct Len(usize);

impl KeyType for Len {
    fn len(&self) -> usize {
        self.0
    }
}

fn derive<const N: usize>(salt: &[u8], secret: &[u8], info: &str) -> Result<[u8; N], NoiseError> {
    let mut out = [0; N];
    expand(&Salt::new(HKDF_SHA256, salt).extract(secret), info, &mut out)
        .map_err(|_| NoiseError::Internal("resumption secret"))?;
    Ok(out)
}

fn expand(prk: &hkdf::Prk, info: &str, out: &mut [u8]) -> Result<(), aws_lc_rs::error::Unspecified> {
    prk.expand(&[info.as_bytes()], Len(out.len()))?.fill(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Curve;
    use data_encoding::HEXLOWER;

    fn link() -> Link {
        let hash = std::array::from_fn(|at| at as u8);
        Link::of(&hash, &CipherKey::new([1; 32]), &CipherKey::new([2; 32])).unwrap()
    }

    fn hex(link: &Link) -> [String; 2] {
        [HEXLOWER.encode(&link.id().unwrap()), HEXLOWER.encode(link.psk().unwrap().expose())]
    }

    /// The values are those of Python's `hmac`.
    #[test]
    fn a_chain() {
        let mut at = link();
        let first =
            ["dc142ca20757a7e759b5a6a96aecbe16", "3993ba66122762718f2e5f0fe08a16c8f2ee1d10e08d8946b40509c2b5fd90f3"];
        assert_eq!(hex(&at), first);
        for _ in 0..7 {
            at = at.next().unwrap();
        }
        let last =
            ["181173b867e6012eab42d7cbf1f40146", "25b6d7624291fd37377e444fc5c5c7bc1de83ba2de42e0b55061985943f18d68"];
        assert_eq!(hex(&at), last);
        assert_eq!(hex(&link().find(&at.id().unwrap()).unwrap().unwrap()), last, "the eighth is still found");
        let ninth = at.next().unwrap().id().unwrap();
        assert_eq!(HEXLOWER.encode(&ninth), "8b12d44bc26eabf661916558559a642e");
        assert!(link().find(&ninth).unwrap().is_none());
        assert!(at.find(&link().id().unwrap()).unwrap().is_none(), "what was passed by is gone");
    }

    #[test]
    fn both_keys_and_the_hash_count() {
        let (hash, one, two) = ([7; 32], CipherKey::new([1; 32]), CipherKey::new([2; 32]));
        let id = |hash: &[u8; 32], first, second| Link::of(hash, first, second).unwrap().id().unwrap();
        let base = id(&hash, &one, &two);
        for other in [id(&hash, &two, &one), id(&hash, &one, &one), id(&[8; 32], &one, &two)] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn a_prologue_binds_all_of_the_origin() {
        let public = |first| {
            let mut bytes = [9; 32];
            bytes[0] = first;
            StaticPublic::new(Curve::X25519, &bytes).unwrap()
        };
        let origin =
            Origin { handshake_hash: [1; 32], kind: 0x11, time_ms: 5, initiator: public(1), responder: public(2) };
        let bytes = origin.prologue(b"usual".to_vec());
        assert_eq!((bytes.len(), &bytes[..5], bytes[37]), (5 + 32 + 1 + 8 + 64, &b"usual"[..], 0x11));
        let others = [
            Origin { handshake_hash: [2; 32], ..origin.clone() },
            Origin { kind: 1, ..origin.clone() },
            Origin { time_ms: 6, ..origin.clone() },
            Origin { initiator: public(2), responder: public(1), ..origin.clone() },
        ];
        assert!(others.iter().all(|other| other.prologue(b"usual".to_vec()) != bytes));
    }
}
