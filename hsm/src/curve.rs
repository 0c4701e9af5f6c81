//! The two curves, and public keys that have been checked.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use aws_lc_rs::agreement::{self, ECDH_P256, ParsedPublicKey, PrivateKey, UnparsedPublicKey, X25519};

use crate::error::{Error, ErrorKind, Result};
use crate::secret::SharedSecret;

/// The curve of a static key. Written `x25519` and `p256`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Curve {
    /// Curve25519 for Diffie-Hellman: RFC 7748, section 5.
    X25519,
    /// NIST P-256, also secp256r1: SEC 2, section 2.4.2.
    P256,
}

impl Curve {
    /// Bytes of a public key: 32 for X25519, 65 for P-256.
    pub const fn public_len(self) -> usize {
        match self {
            Self::X25519 => 32,
            Self::P256 => 65,
        }
    }

    pub(crate) fn algorithm(self) -> &'static agreement::Algorithm {
        match self {
            Self::X25519 => &X25519,
            Self::P256 => &ECDH_P256,
        }
    }
}

impl fmt::Display for Curve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::X25519 => "x25519",
            Self::P256 => "p256",
        })
    }
}

impl FromStr for Curve {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "x25519" => Ok(Self::X25519),
            "p256" => Ok(Self::P256),
            _ => Err(Error::new(
                ErrorKind::WrongCurve,
                "The curve is neither x25519 nor p256.",
                "Write `x25519`, or `p256` where the token has no X25519.",
            )),
        }
    }
}

/// A public key that is safe to agree with: the right length, on the curve, and not of low order.
///
/// X25519: the 32 bytes of RFC 7748, section 5, such that eight times the point is not the neutral element.
/// P-256: the 65 bytes `04 || X || Y` of SEC 1, section 2.3.3 (uncompressed), on the curve. The group has prime order.
///
/// The check costs one software Diffie-Hellman, some tens of microseconds, and is made here, so that no token is ever
/// trusted with it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PublicKey {
    curve: Curve,
    /// The first `curve.public_len()` bytes; the rest is zero.
    bytes: [u8; 65],
}

impl PublicKey {
    /// Checks `bytes` as a public key on `curve`.
    ///
    /// # Errors
    /// `BadPoint`: the length is wrong, the encoding is not the uncompressed one, or the point is off the curve or of low order.
    pub fn new(curve: Curve, bytes: &[u8]) -> Result<Self> {
        let refused = |why: String| {
            Error::new(
                ErrorKind::BadPoint,
                format!("The {curve} public key is refused: {why}."),
                "Take the key again from its owner; nothing was sent to a token.",
            )
        };
        if bytes.len() != curve.public_len() {
            return Err(refused(format!("it has {} bytes instead of {}", bytes.len(), curve.public_len())));
        }
        if curve == Curve::P256 && bytes[0] != 4 {
            return Err(refused("it is not in the uncompressed form 04 || X || Y".into()));
        }
        let unchecked = UnparsedPublicKey::new(curve.algorithm(), bytes);
        match curve {
            // A Diffie-Hellman with any clamped X25519 scalar is a multiple of 8P, and aws-lc refuses the all-zero result.
            Curve::X25519 => agreement::agree(throw_away()?, unchecked, (), |_| Ok(()))
                .map_err(|()| refused("the point has low order".into()))?,
            // Parsing refuses every point that does not fulfil the curve's equation; P-256 has no cofactor. It takes a tenth of a Diffie-Hellman.
            Curve::P256 => ParsedPublicKey::try_from(&unchecked)
                .map(drop)
                .map_err(|_| refused("the point is not on the curve".into()))?,
        }
        let mut held = [0; 65];
        held[..bytes.len()].copy_from_slice(bytes);
        Ok(Self { curve, bytes: held })
    }

    /// The curve it is on.
    pub fn curve(&self) -> Curve {
        self.curve
    }

    /// Its bytes: 32 for X25519, 65 for P-256.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.curve.public_len()]
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.curve)?;
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The scalar that X25519 points are checked with. It protects nothing, and is fixed so that a check always gives the same answer.
fn throw_away() -> Result<&'static PrivateKey> {
    static KEY: OnceLock<Option<PrivateKey>> = OnceLock::new();
    KEY.get_or_init(|| PrivateKey::from_private_key(&X25519, &[0x41; 32]).ok())
        .as_ref()
        .ok_or_else(|| library_failed("PrivateKey::from_private_key"))
}

/// A private key in this process's memory: the ephemeral of the check made at opening, or a *software* key.
/// aws-lc wipes it when it is dropped.
pub(crate) struct SoftKey {
    key: PrivateKey,
    public: PublicKey,
}

impl SoftKey {
    pub(crate) fn generate(curve: Curve) -> Result<Self> {
        let key = PrivateKey::generate(curve.algorithm()).map_err(|_| library_failed("PrivateKey::generate"))?;
        Self::with(curve, key)
    }

    /// From the 32 bytes of a scalar: little-endian for X25519 (RFC 7748), big-endian for P-256 (SEC 1, section 2.3.7).
    #[cfg(feature = "software")]
    pub(crate) fn from_scalar(curve: Curve, scalar: &[u8; 32]) -> Result<Self> {
        let key = PrivateKey::from_private_key(curve.algorithm(), scalar)
            .map_err(|_| library_failed("PrivateKey::from_private_key"))?;
        Self::with(curve, key)
    }

    fn with(curve: Curve, key: PrivateKey) -> Result<Self> {
        let public = key.compute_public_key().map_err(|_| library_failed("PrivateKey::compute_public_key"))?;
        Ok(Self { public: PublicKey::new(curve, public.as_ref())?, key })
    }

    pub(crate) fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The X25519 output, or the X coordinate of the P-256 point: 32 bytes.
    pub(crate) fn agree(&self, peer: &PublicKey) -> Result<SharedSecret> {
        same_curve(self.public.curve, peer)?;
        let peer = UnparsedPublicKey::new(peer.curve.algorithm(), peer.as_bytes());
        agreement::agree(&self.key, peer, library_failed("agreement::agree"), |secret| {
            let secret = secret.try_into().map_err(|_| library_failed("agreement::agree"))?;
            SharedSecret::new(secret)
        })
    }
}

/// A token is never sent a point of another curve.
pub(crate) fn same_curve(own: Curve, peer: &PublicKey) -> Result<()> {
    if peer.curve == own {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::WrongCurve,
        format!("The peer's key is on {}, the token's on {own}.", peer.curve),
        "Both ends of a pair need keys on one curve; repeat the ceremony with a key on the right one.",
    ))
}

pub(crate) fn library_failed(call: &str) -> Error {
    Error::new(ErrorKind::Device, format!("aws-lc failed in {call}."), "Run it again; if it stays, report it.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curve_text_round_trips() {
        for curve in [Curve::X25519, Curve::P256] {
            assert_eq!(curve.to_string().parse::<Curve>().unwrap(), curve);
        }
        assert_eq!("P256".parse::<Curve>().unwrap_err().kind(), ErrorKind::WrongCurve);
    }

    /// RFC 7748, section 6.1.
    #[test]
    #[cfg(feature = "software")]
    fn x25519_known_answer() {
        let hex = |text: &str| -> [u8; 32] {
            std::array::from_fn(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
        };
        let alice = hex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
        let bob = hex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f");
        let shared = hex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
        let alice = SoftKey::from_scalar(Curve::X25519, &alice).unwrap();
        assert_eq!(alice.public().as_bytes(), hex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"));
        let bob = PublicKey::new(Curve::X25519, &bob).unwrap();
        assert_eq!(alice.agree(&bob).unwrap().as_bytes(), &shared);
    }

    #[test]
    fn points_off_the_curve_are_refused() {
        let key = SoftKey::generate(Curve::P256).unwrap();
        for at in 1..65 {
            let mut bytes = key.public().as_bytes().to_vec();
            bytes[at] ^= 1;
            assert_eq!(PublicKey::new(Curve::P256, &bytes).unwrap_err().kind(), ErrorKind::BadPoint, "byte {at}");
        }
        // The coordinates of no point: (0, 0), and ones that are not reduced.
        for fill in [0, 0xff] {
            let mut bytes = [fill; 65];
            bytes[0] = 4;
            assert_eq!(PublicKey::new(Curve::P256, &bytes).unwrap_err().kind(), ErrorKind::BadPoint);
        }
    }

    #[test]
    fn other_lengths_and_forms_are_refused() {
        let key = SoftKey::generate(Curve::P256).unwrap();
        let point = key.public().as_bytes();
        let mut compressed = [0; 33];
        compressed[0] = 2 + (point[64] & 1);
        compressed[1..].copy_from_slice(&point[1..33]);
        let mut hybrid = point.to_vec();
        hybrid[0] = 6 + (point[64] & 1);
        let long = [point, &[0]].concat();
        for bad in [&[][..], &point[..64], &long, &compressed, &hybrid, &[0; 65], &[0]] {
            assert_eq!(PublicKey::new(Curve::P256, bad).unwrap_err().kind(), ErrorKind::BadPoint);
        }
        for length in [0, 31, 33, 34, 65] {
            assert_eq!(PublicKey::new(Curve::X25519, &vec![9; length]).unwrap_err().kind(), ErrorKind::BadPoint);
        }
    }
}
