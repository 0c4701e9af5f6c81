//! The OpenPGP fingerprint of a key, by which GnuPG knows what is on a card.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use super::view::{ECDH, oid};
use crate::curve::{Curve, PublicKey};

/// The fingerprint of the version 4 public key packet (RFC 4880, section 12.2; RFC 6637, section 9) of an ECDH key made at `time`: SHA-1, 20
/// bytes. The parameters in it are GnuPG's for these curves: KDF SHA-256, key wrap AES-128. It names the key and protects nothing.
pub(super) fn fingerprint(public: &PublicKey, time: [u8; 4]) -> [u8; 20] {
    let point = match public.curve() {
        // Native points are marked with 40.
        Curve::X25519 => [&[0x40], public.as_bytes()].concat(),
        Curve::P256 => public.as_bytes().to_vec(),
    };
    let first = point.first().copied().unwrap_or_default();
    let bits = (point.len() * 8) as u16 - first.leading_zeros() as u16;
    let oid = oid(public.curve());
    let mut packet = vec![4];
    packet.extend_from_slice(&time);
    packet.extend_from_slice(&[ECDH, oid.len() as u8]);
    packet.extend_from_slice(oid);
    packet.extend_from_slice(&bits.to_be_bytes());
    packet.extend_from_slice(&point);
    packet.extend_from_slice(&[3, 1, 8, 7]);
    let hashed = [&[0x99], &(packet.len() as u16).to_be_bytes()[..], &packet].concat();
    let mut fingerprint = [0; 20];
    fingerprint.copy_from_slice(digest(&SHA1_FOR_LEGACY_USE_ONLY, &hashed).as_ref());
    fingerprint
}
