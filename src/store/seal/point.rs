//! The point that a token agrees with to open a store.

use aws_lc_rs::digest::{SHA256, digest};

use crate::identity::{Curve, StaticPublic};

/// The point whose agreement with the private half of `key` opens a store: derived from `key` by hash-and-increment, so that nobody knows its discrete logarithm.
///
/// Candidates are `SHA-256("claviger seal point 1\n" || curve || ":" || key in hexadecimal || ":" || counter)` for counter 0, 1, 2… in decimal, and the
/// first that is a point is taken:
/// - X25519: a u-coordinate, little-endian, its top bit cleared, below 2^255 - 19 and not of low order. Half of all u-coordinates are on the curve and the
///   others on its twist; X25519 is defined on both (RFC 7748, section 5) and its twist is as hard (SafeCurves, "twist security"), so either will do;
/// - P-256: an x-coordinate, big-endian, of a point on the curve, with the even y (SEC 1, section 2.3.4).
///
/// The key is public, and so is the point: somebody else's discrete logarithm problem with the token's is all that protects the agreement.
pub fn seal_point(key: &StaticPublic) -> StaticPublic {
    let (curve, hex) = (key.curve(), key.to_hex());
    let mut counter = 0_u64;
    loop {
        let hash = digest(&SHA256, format!("claviger seal point 1\n{curve}:{hex}:{counter}").as_bytes());
        let point = match curve {
            Curve::X25519 => montgomery(hash.as_ref()),
            Curve::P256 => even(hash.as_ref()),
        };
        // Every other candidate is a point, so this ends after a handful.
        if let Some(point) = point {
            return point;
        }
        counter += 1;
    }
}

fn montgomery(hash: &[u8]) -> Option<StaticPublic> {
    let mut u: [u8; 32] = hash.try_into().ok()?;
    u[31] &= 0x7f;
    StaticPublic::new(Curve::X25519, &u).ok()
}

fn even(hash: &[u8]) -> Option<StaticPublic> {
    use p256::elliptic_curve::sec1::ToEncodedPoint as _;

    let compressed = [&[2], hash].concat();
    let point = p256::PublicKey::from_sec1_bytes(&compressed).ok()?;
    StaticPublic::new(Curve::P256, point.to_encoded_point(false).as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed by another program, in Python's integers, from the words above. The counters that were used are 0 for X25519, and 2, 1 and 3.
    const POINTS: [(Curve, &str, &str); 6] = [
        (
            Curve::X25519,
            "0100090909090909090909090909090909090909090909090909090909090909",
            "da2f0efecd2fbb2f76e9683b305c0f313e2495555a4a36e41e415891eb5a633a",
        ),
        (
            Curve::X25519,
            "0200090909090909090909090909090909090909090909090909090909090909",
            "e780a1714afcc4e990c5c7c57d86487808dc1740a70993a256ca6312db66805f",
        ),
        (
            Curve::X25519,
            "0300090909090909090909090909090909090909090909090909090909090909",
            "11e076a8e2e1667a6447b93cd767497155cae7b0df8e300c4455ef4d3ecd7567",
        ),
        (
            Curve::P256,
            "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c2964fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5",
            "045d75bd0ad15cf29f83e35981a11a7ae2228568b7f94522a2cc9d6967d7b220782de48440f67f929ec3a7376b70f2fe1ea04ec22ec508afab42a04e987c5f9b60",
        ),
        (
            Curve::P256,
            "047cf27b188d034f7e8a52380304b51ac3c08969e277f21b35a60b48fc4766997807775510db8ed040293d9ac69f7430dbba7dade63ce982299e04b79d227873d1",
            "0492d37b5483ff87ba9ce20eea0d9d88c9fb506efb1f92d96d89795f2945d2c1ccb8ab30778b74b1d7a2d0f822d9881796fabcb317fdd81f4f5f4553b11ea7adc4",
        ),
        (
            Curve::P256,
            "0451590b7a515140d2d784c85608668fdfef8c82fd1f5be52421554a0dc3d033ede0c17da8904a727d8ae1bf36bf8a79260d012f00d4d80888d1d0bb44fda16da4",
            "048561082bca377e834ba0fbae9da1a33fc907a4ea263be31a3ef715deed6ecd2b8af2f0d8a2bc5ee1be7b186273b8c87292d03ef6cff3cf963e11095e191a0692",
        ),
    ];

    #[test]
    fn points_are_those_computed_elsewhere() {
        for (curve, key, point) in POINTS {
            let key = StaticPublic::from_hex(curve, key).unwrap();
            assert_eq!(seal_point(&key).to_hex(), point, "{curve} {}", key.to_hex());
            assert_eq!(seal_point(&key).curve(), curve);
        }
    }
}
