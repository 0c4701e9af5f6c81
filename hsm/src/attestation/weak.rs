//! RSA keys that some devices made badly, and whose private half can be computed (CVE-2017-15361, "ROCA").
//!
//! YubiKeys 4 before firmware 4.3.5 make them. Where such a key is a device's attestation key, a signature by it says nothing: whoever has paid for the
//! factoring states what he likes about any key.
//!
//! The primes of these keys are powers of 65537 modulo a product of small primes, and so is the modulus (M. Nemec et al., *The Return of Coppersmith's
//! Attack*, CCS 2017, section 2.3). Another key passes for one of them with a probability of about 2^-28.

use x509_cert::der::Decode;
use x509_cert::der::asn1::UintRef;
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::spki::SubjectPublicKeyInfoOwned;

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

/// Those primes up to 167 of whose residues 65537 generates some and not all.
const PRIMES: &[u64] = &[11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157];

/// Whether this is an RSA key of that kind. What can not be read as an RSA key verifies no signature either.
pub(super) fn is_weak(key: &SubjectPublicKeyInfoOwned) -> bool {
    key.algorithm.oid == RSA
        && key.subject_public_key.as_bytes().and_then(modulus).is_some_and(|modulus| is_weak_modulus(&modulus))
}

/// RSAPublicKey ::= SEQUENCE { modulus INTEGER, publicExponent INTEGER } (RFC 8017, appendix A.1.1).
fn modulus(der: &[u8]) -> Option<Vec<u8>> {
    let mut reader = x509_cert::der::SliceReader::new(der).ok()?;
    x509_cert::der::Reader::sequence(&mut reader, |fields| {
        let modulus = UintRef::decode(fields)?;
        UintRef::decode(fields)?;
        Ok(modulus.as_bytes().to_vec())
    })
    .ok()
}

/// Big endian.
fn is_weak_modulus(modulus: &[u8]) -> bool {
    PRIMES.iter().all(|&prime| {
        let rest = modulus.iter().fold(0, |rest, &byte| (rest * 256 + u64::from(byte)) % prime);
        let mut power = 1;
        (0..prime).any(|_| {
            power = power * 65537 % prime;
            power == rest
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;

    /// A published key of that kind, of 512 bits (crocs-muni/roca).
    const KNOWN: &str = "944e13208a280c37efc31c3114485e590192adbb8e11c87cad60cdef0037ce99278330d3f471a2538fa667802ed2a3c44a8b7dea826e888d0aa341fd664f7fa7";

    #[test]
    fn a_known_one_is_found() {
        let byte = |at: usize| u8::from_str_radix(&KNOWN[2 * at..2 * at + 2], 16).unwrap();
        let mut known: Vec<u8> = (0..64).map(byte).collect();
        assert!(is_weak_modulus(&known));
        known[63] ^= 2;
        assert!(!is_weak_modulus(&known));
    }

    #[test]
    fn keys_of_real_devices_are_others() {
        for pem in [
            include_str!("../../tests/data/attestation/piv-5.2.4-slot-93-p384.pem"),
            include_str!("../../tests/data/attestation/piv-4.3.7-slot-9a-p256.pem"),
            include_str!("../../tests/data/attestation/piv-5.4.3-slot-9a-p256.pem"),
            include_str!("../../roots/yubico-piv-root-ca-serial-263751.pem"),
        ] {
            let signer = CertificateDer::pem_slice_iter(pem.as_bytes()).last().unwrap().unwrap();
            let signer = x509_cert::Certificate::from_der(&signer).unwrap();
            let key = &signer.tbs_certificate.subject_public_key_info;
            assert!(key.subject_public_key.as_bytes().and_then(modulus).is_some_and(|modulus| modulus.len() == 256));
            assert!(!is_weak(key));
        }
    }
}
