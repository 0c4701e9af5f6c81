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

#[cfg(test)]
mod tests {
    use super::super::script::hex;
    use super::*;

    /// Two subkeys that GnuPG 2.2.40 made at 1795241988 seconds, and the fingerprints that it gives them.
    #[test]
    fn gnupgs_own_fingerprints() {
        let time = 1_795_241_988_u32.to_be_bytes();
        for (curve, point, expected) in [
            (
                Curve::X25519,
                "FB7FE3A61BC89618BB5FA7A0DE38CDB4C2F973B3F133AE4A7E6C06C63B830C56",
                "E9145D3F6A20E955AF3E7E1A847408FDAD39235C",
            ),
            (
                Curve::P256,
                "043EDD2A5BD0F9B3DE3256D5FD5909242DB2EC293F7EE7498ED6B6E4A332D578FE\
                 599AFD3F0077D7B213A48DF2D2FCA88864031494D57425766A2ADB2A738A695F",
                "ACE078278EEC6A73340B6AA1819467157E7AFA81",
            ),
        ] {
            let public = PublicKey::new(curve, &hex(point)).unwrap();
            assert_eq!(fingerprint(&public, time)[..], hex(expected), "{curve}");
        }
    }
}
