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
