//! The Noise static public key and its curve.

use super::IdentityError;
use aws_lc_rs::agreement::{self, ParsedPublicKey, UnparsedPublicKey};

/// The curve of a static key. One per identity; two peers must share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Curve {
    /// X25519 (RFC 7748). Public keys are 32 bytes. Noise calls it `25519`.
    X25519,
    /// NIST P-256 (SEC 2, secp256r1). Public keys are 65 bytes, uncompressed SEC 1 points.
    P256,
}

impl Curve {
    /// Length of a public key in bytes: 32 or 65.
    pub const fn public_len(self) -> usize {
        match self {
            Self::X25519 => 32,
            Self::P256 => 65,
        }
    }

    /// The name in a Noise protocol name (Noise, section 8).
    pub const fn noise_name(self) -> &'static str {
        match self {
            Self::X25519 => "25519",
            Self::P256 => "P256",
        }
    }

    pub(crate) fn algorithm(self) -> &'static agreement::Algorithm {
        match self {
            Self::X25519 => &agreement::X25519,
            Self::P256 => &agreement::ECDH_P256,
        }
    }
}

impl std::fmt::Display for Curve {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::X25519 => "x25519",
            Self::P256 => "p256",
        })
    }
}

impl std::str::FromStr for Curve {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        match text {
            "x25519" => Ok(Self::X25519),
            "p256" => Ok(Self::P256),
            _ => Err(IdentityError::Curve(text.chars().take(32).collect())),
        }
    }
}

/// A checked static (or ephemeral) public key: right length, on the curve, not of low order.
///
/// Public data. P-256 keys are uncompressed SEC 1 points, `04 || X || Y`; X25519 keys are RFC 7748 u-coordinates.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct StaticPublic {
    curve: Curve,
    bytes: Box<[u8]>,
}

impl StaticPublic {
    /// Checks and takes a public key.
    ///
    /// # Errors
    /// [`IdentityError::PublicKey`] when the length is not [`Curve::public_len`], a P-256 point is compressed or off the curve,
    /// or an X25519 point has low order (any Diffie-Hellman with it would give zero; RFC 7748, section 6.1).
    pub fn new(curve: Curve, bytes: &[u8]) -> Result<Self, IdentityError> {
        if bytes.len() != curve.public_len() {
            return Err(IdentityError::PublicKey("has the wrong length for its curve"));
        }
        match curve {
            Curve::X25519 if !is_canonical(bytes) => return Err(IdentityError::PublicKey("is not in canonical form")),
            Curve::X25519 if LOW_ORDER.iter().any(|low| low == bytes) => {
                return Err(IdentityError::PublicKey("has low order"));
            }
            Curve::P256 if bytes[0] != 4 => {
                return Err(IdentityError::PublicKey("is not an uncompressed P-256 point"));
            }
            // Reading a point checks that it is on the curve (SEC 1, section 2.3.4), whose order is prime: no operation is needed. The point at infinity has another length.
            Curve::P256 if ParsedPublicKey::try_from(UnparsedPublicKey::new(curve.algorithm(), bytes)).is_err() => {
                return Err(IdentityError::PublicKey("is not on the curve"));
            }
            Curve::X25519 | Curve::P256 => {}
        }
        Ok(Self { curve, bytes: bytes.into() })
    }

    /// Its curve.
    pub fn curve(&self) -> Curve {
        self.curve
    }

    /// The 32 or 65 bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Lower-case hexadecimal, 64 or 130 digits.
    pub fn to_hex(&self) -> String {
        data_encoding::HEXLOWER.encode(&self.bytes)
    }

    /// Reads what [`to_hex`](Self::to_hex) writes, and nothing else.
    ///
    /// # Errors
    /// [`IdentityError::PublicKey`], also for upper-case digits.
    pub fn from_hex(curve: Curve, text: &str) -> Result<Self, IdentityError> {
        let bytes = data_encoding::HEXLOWER
            .decode(text.as_bytes())
            .map_err(|_| IdentityError::PublicKey("is not lower-case hexadecimal"))?;
        Self::new(curve, &bytes)
    }
}

/// The canonical u-coordinates, little-endian, of the points of order 1, 2, 4 and 8 of Curve25519 and its twist: 0, 1, two of order 8, and p - 1. No others give zero with a
/// scalar that is clamped, a multiple of 8 (RFC 7748, section 6.1; <https://cr.yp.to/ecdh.html>).
const LOW_ORDER: [[u8; 32]; 5] = [
    [0; 32],
    {
        let mut one = [0; 32];
        one[0] = 1;
        one
    },
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda, 0x09,
        0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
    ],
    [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b, 0x04, 0x44,
        0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57,
    ],
    {
        let mut minus_one = [0xff; 32];
        minus_one[0] = 0xec;
        minus_one[31] = 0x7f;
        minus_one
    },
];

/// Whether a little-endian u-coordinate is less than 2^255 - 19. RFC 7748 (section 5) takes others, too; refusing them here leaves each point
/// one spelling, so that no key is recorded twice under two names.
fn is_canonical(u: &[u8]) -> bool {
    let Some((top, rest)) = u.split_last() else { return false };
    *top < 0x7f || (*top == 0x7f && (rest[0] < 0xed || rest[1..].iter().any(|byte| *byte != 0xff)))
}

impl std::fmt::Debug for StaticPublic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StaticPublic({}:{})", self.curve, self.to_hex())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::agreement::PrivateKey;

    /// The small-order u-coordinates of Curve25519 and its twist, with their non-canonical encodings
    /// (cr.yp.to/ecdh.html, "How do I validate Curve25519 public keys?").
    const ALL_LOW_ORDER: [&str; 7] = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ];

    #[test]
    fn low_order_points_are_refused() {
        for hex in ALL_LOW_ORDER {
            let refused = StaticPublic::from_hex(Curve::X25519, hex);
            assert!(matches!(refused, Err(IdentityError::PublicKey(_))), "{hex}");
        }
        // Bit 255 is ignored (RFC 7748, section 5), so these are the same points with the top bit set.
        for hex in ALL_LOW_ORDER {
            let mut bytes = data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap();
            bytes[31] |= 0x80;
            assert!(StaticPublic::new(Curve::X25519, &bytes).is_err(), "{hex} with the top bit");
        }
    }

    /// What the list says is what an operation says: zero for these points, and for no small multiple of what they are near to.
    #[test]
    fn the_points_of_low_order_are_those_that_give_zero() {
        let mut scalar = [0x55; 32];
        for last in 0..8 {
            scalar[0] = last;
            let key = PrivateKey::from_private_key(&agreement::X25519, &scalar).unwrap();
            let gives_zero = |u: &[u8; 32]| {
                let point = UnparsedPublicKey::new(&agreement::X25519, u);
                agreement::agree(&key, point, (), |secret| if secret == [0; 32] { Err(()) } else { Ok(()) }).is_err()
            };
            for low in &LOW_ORDER {
                assert!(gives_zero(low), "{low:?}");
                let mut near = *low;
                near[1] ^= 2;
                assert!(!gives_zero(&near) && StaticPublic::new(Curve::X25519, &near).is_ok(), "{near:?}");
            }
        }
    }

    #[test]
    fn one_spelling_a_point() {
        let mut u = [0xff; 32];
        u[31] = 0x7f;
        for low in 0xed..=0xff {
            u[0] = low;
            assert!(StaticPublic::new(Curve::X25519, &u).is_err(), "p + {}", low - 0xed);
        }
        u[0] = 0xeb; // p - 2
        assert!(StaticPublic::new(Curve::X25519, &u).is_ok());
        let mut nine = [0; 32];
        nine[0] = 9;
        assert!(StaticPublic::new(Curve::X25519, &nine).is_ok());
        nine[31] = 0x80;
        assert!(StaticPublic::new(Curve::X25519, &nine).is_err());
    }

    #[test]
    fn off_curve_and_misshapen_points_are_refused() {
        let generator = "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296\
                         4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5";
        let good = StaticPublic::from_hex(Curve::P256, generator).unwrap();
        for at in 0..65 {
            let mut bad = good.as_bytes().to_vec();
            bad[at] ^= 1;
            assert!(StaticPublic::new(Curve::P256, &bad).is_err(), "byte {at} changed");
        }
        assert!(StaticPublic::new(Curve::P256, &[0; 65]).is_err());
        assert!(StaticPublic::new(Curve::P256, &good.as_bytes()[..33]).is_err());
        assert!(StaticPublic::new(Curve::X25519, good.as_bytes()).is_err());
        assert!(StaticPublic::from_hex(Curve::P256, &generator.to_uppercase()).is_err());
    }
}
