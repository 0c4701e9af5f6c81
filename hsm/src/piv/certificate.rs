//! Certificates in slots, as the place where a card keeps a public key. Nothing else in them is looked at, and no signature is checked: that the
//! private key belongs to the public one is proved by an agree.

use spki::der::asn1::AnyRef;
use spki::der::{self, Decode, Reader, SliceReader, Tag, Tagged as _};
use spki::{ObjectIdentifier, SubjectPublicKeyInfoRef};

use crate::curve::{Curve, PublicKey};
use crate::locator::PivSlot;
use crate::sign::Algorithm;
use crate::smartcard::{put, tlv};

/// RFC 5480, section 2.1.1, and RFC 8410, section 3.
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const X25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.110");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// The data object of the slot's certificate (SP 800-73-4, part 1, table 3).
pub(super) fn object(slot: PivSlot) -> [u8; 3] {
    match slot.reference() {
        retired @ 0x82..=0x95 => [0x5f, 0xc1, 0x0d + (retired - 0x82)],
        0x9c => [0x5f, 0xc1, 0x0a],
        _ => [0x5f, 0xc1, 0x0b],
    }
}

/// The certificate in a data object, DER (part 1, appendix A). `None`: there is none.
pub(super) fn in_object(object: &[u8]) -> Option<Result<&[u8], String>> {
    let fields = tlv(object, 0x53)?;
    let certificate = tlv(fields, 0x70).filter(|certificate| !certificate.is_empty())?;
    let compressed = tlv(fields, 0x71).is_some_and(|info| info.first().is_some_and(|info| info & 1 != 0));
    Some(if compressed { Err("its certificate is compressed".into()) } else { Ok(certificate) })
}

/// What a data object holds that has `certificate`.
fn content(certificate: &[u8]) -> Vec<u8> {
    [&put(0x70, certificate)[..], &put(0x71, &[0]), &put(0xfe, &[])].concat()
}

/// The public key that `certificate` is about, or why it cannot be used: a clause.
pub(super) fn public_key(certificate: impl AsRef<[u8]>) -> Result<PublicKey, String> {
    let info =
        public_key_info(certificate.as_ref()).map_err(|error| format!("its certificate is malformed: {error}"))?;
    let parameters = info.algorithm.parameters.and_then(|parameters| parameters.decode_as::<ObjectIdentifier>().ok());
    let curve = match (info.algorithm.oid, parameters) {
        (EC, Some(P256)) => Curve::P256,
        (X25519, None) => Curve::X25519,
        _ => return Err("its certificate is about a key that is neither on P-256 nor X25519".into()),
    };
    let bytes = info.subject_public_key.as_bytes().unwrap_or_default();
    PublicKey::new(curve, bytes).map_err(|error| error.to_string())
}

/// The same of a key that signs: its algorithm and its 65 or 32 bytes.
pub(super) fn signing_key(certificate: &[u8]) -> Result<(Algorithm, Vec<u8>), String> {
    let info = public_key_info(certificate).map_err(|error| format!("its certificate is malformed: {error}"))?;
    let parameters = info.algorithm.parameters.and_then(|parameters| parameters.decode_as::<ObjectIdentifier>().ok());
    let algorithm = match (info.algorithm.oid, parameters) {
        (EC, Some(P256)) => Algorithm::EcdsaP256,
        (ED25519, None) => Algorithm::Ed25519,
        _ => return Err("its certificate is about a key that is neither on P-256 nor Ed25519".into()),
    };
    Ok((algorithm, info.subject_public_key.as_bytes().unwrap_or_default().to_vec()))
}

/// RFC 5280, section 4.1. Only the way to the `SubjectPublicKeyInfo` is read, so that what is odd elsewhere hides no key.
fn public_key_info(certificate: &[u8]) -> der::Result<SubjectPublicKeyInfoRef<'_>> {
    let sequence = |reader: &mut SliceReader<'_>| -> der::Result<()> { reader.decode::<AnyRef<'_>>().map(drop) };
    let inside = |reader| -> der::Result<SliceReader<'_>> {
        let any = AnyRef::decode(reader)?;
        any.tag().assert_eq(Tag::Sequence)?;
        SliceReader::new(any.value())
    };
    let mut tbs = inside(&mut inside(&mut SliceReader::new(certificate)?)?)?;
    if tbs.peek_tag()?.is_context_specific() {
        sequence(&mut tbs)?; // version
    }
    for _ in ["serialNumber", "signature", "issuer", "validity", "subject"] {
        sequence(&mut tbs)?;
    }
    SubjectPublicKeyInfoRef::decode(&mut tbs)
}

/// The content of a data object for a card that does not tell its public keys: an unsigned certificate (RFC 9925) about a key on P-256, since a key that
/// only agrees can sign none.
pub(super) fn unsigned(public: &PublicKey) -> Vec<u8> {
    const OID: u16 = 0x06;
    const SEQUENCE: u16 = 0x30;
    // id-alg-unsigned, 1.3.6.1.5.5.7.6.36, without parameters.
    let algorithm = put(SEQUENCE, &put(OID, &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x06, 0x24]));
    let name = |attribute: &[u8], text: &str| {
        let attribute = [&put(OID, attribute)[..], &put(0x0c, text.as_bytes())].concat();
        put(SEQUENCE, &put(0x31, &put(SEQUENCE, &attribute)))
    };
    let key_algorithm = [&put(OID, EC.as_bytes())[..], &put(OID, P256.as_bytes())].concat();
    let key = [&[0][..], public.as_bytes()].concat();
    let tbs = [
        &put(0xa0, &put(0x02, &[2]))[..],
        &put(0x02, &[1]),
        &algorithm,
        // id-rdna-unsigned, 1.3.6.1.5.5.7.25.1, the issuer where there is none; then commonName.
        &name(&[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x19, 0x01], ""),
        &put(SEQUENCE, &[&put(0x17, b"000101000000Z")[..], &put(0x18, b"99991231235959Z")].concat()),
        &name(&[0x55, 0x04, 0x03], "Claviger"),
        &put(SEQUENCE, &[&put(SEQUENCE, &key_algorithm)[..], &put(0x03, &key)].concat()),
    ]
    .concat();
    content(&put(SEQUENCE, &[&put(SEQUENCE, &tbs)[..], &algorithm, &put(0x03, &[0])].concat()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::curve::SoftKey;

    #[test]
    fn objects_are_where_the_standard_has_them() {
        let at = |reference| object(PivSlot::new(reference).unwrap());
        assert_eq!([at(0x9d), at(0x82), at(0x95)], [[0x5f, 0xc1, 0x0b], [0x5f, 0xc1, 0x0d], [0x5f, 0xc1, 0x20]]);
    }

    #[test]
    fn an_unsigned_certificate_is_read_back() {
        let key = SoftKey::generate(Curve::P256).unwrap();
        let object = put(0x53, &unsigned(key.public()));
        let certificate = in_object(&object).unwrap().unwrap();
        assert_eq!(public_key(certificate).unwrap(), *key.public());
        for cut in 0..certificate.len() {
            // No cut panics; one behind the key still shows it.
            let _ = public_key(&certificate[..cut]);
        }
    }

    #[test]
    fn what_is_no_certificate_is_named() {
        assert!(in_object(&put(0x53, &put(0x70, &[]))).is_none());
        assert!(in_object(&[0x53]).is_none());
        let compressed = [&put(0x70, &[1, 2])[..], &put(0x71, &[1])].concat();
        assert!(in_object(&put(0x53, &compressed)).unwrap().is_err());
        assert!(public_key([0x30, 0x80]).is_err());
    }
}
