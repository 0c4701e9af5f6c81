//! Attestations as a YubiKey and its maker write them, under roots that are made here: for what no certificate of a real device shows.

#![allow(clippy::unwrap_used)] // A test that cannot make its certificates is over.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::certificate::{Certificate, TbsCertificate, Version};
use x509_cert::der::asn1::{Any, BitString, ObjectIdentifier, OctetString, SetOfVec, UtcTime};
use x509_cert::der::pem::LineEnding;
use x509_cert::der::{DateTime, Decode, Encode, EncodePem, Tag};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, KeyUsages};
use x509_cert::name::{Name, RdnSequence, RelativeDistinguishedName};
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::time::{Time, Validity};

/// The SubjectPublicKeyInfo of a P-256 point of 65 bytes, or an X25519 key of 32.
pub fn subject_public_key_info(key: &[u8]) -> Vec<u8> {
    let head: &[u8] = match key.len() {
        65 => &[
            0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
            0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
        ],
        _ => &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x6e, 0x03, 0x21, 0x00],
    };
    [head, key].concat()
}

/// A certificate that is to be signed.
#[derive(Clone)]
pub struct Template {
    /// Its only name, a common name.
    pub subject: String,
    /// SubjectPublicKeyInfo, DER.
    pub key: Vec<u8>,
    /// Identifier, critical, value.
    pub extensions: Vec<(&'static str, bool, Vec<u8>)>,
    /// The years in which it is valid.
    pub years: (u16, u16),
}

impl Template {
    /// A certificate without extensions, valid from 2020 to 2049.
    pub fn new(subject: &str, key: Vec<u8>) -> Self {
        Self { subject: subject.into(), key, extensions: Vec::new(), years: (2020, 2049) }
    }

    /// What a YubiKey 5.7.1 with serial number 12345678 writes of a key in a PIV slot: PIN once, touch always.
    pub fn piv(slot: u8, key: &[u8]) -> Self {
        let mut template = Self::new(&format!("YubiKey PIV Attestation {slot:02x}"), subject_public_key_info(key));
        template.extensions = vec![
            ("1.3.6.1.4.1.41482.3.3", false, vec![5, 7, 1]),
            ("1.3.6.1.4.1.41482.3.7", false, 12_345_678u32.to_der().unwrap()),
            ("1.3.6.1.4.1.41482.3.8", false, vec![2, 2]),
            ("1.3.6.1.4.1.41482.3.9", false, vec![1]),
        ];
        template
    }

    /// What the same YubiKey writes of an OpenPGP key (`SIG`, `DEC`, `AUT`) that it made: touch as `uif` says.
    pub fn openpgp(which: &str, key: &[u8], uif: u8) -> Self {
        let mut template = Self::new(&format!("YubiKey OPGP Attestation {which}"), subject_public_key_info(key));
        template.extensions = vec![
            ("1.3.6.1.4.1.41482.5.3", false, vec![4, 3, 5, 7, 1]),
            ("1.3.6.1.4.1.41482.5.7", false, 12_345_678u32.to_der().unwrap()),
            ("1.3.6.1.4.1.41482.5.8", false, vec![4, 1, uif]),
            ("1.3.6.1.4.1.41482.5.9", false, vec![4, 1, 3]),
            ("1.3.6.1.4.1.41482.5.2", false, vec![2, 1, 1]),
        ];
        template
    }

    /// Replaces the value of an extension, or adds it.
    #[must_use]
    pub fn with(mut self, oid: &'static str, value: &[u8]) -> Self {
        self.extensions.retain(|(had, ..)| *had != oid);
        self.extensions.push((oid, false, value.to_vec()));
        self
    }

    /// Takes an extension out.
    #[must_use]
    pub fn without(mut self, oid: &str) -> Self {
        self.extensions.retain(|(had, ..)| *had != oid);
        self
    }
}

/// A P-256 key that signs certificates, and its own certificate.
pub struct Signer {
    key: EcdsaKeyPair,
    /// The certificate, DER.
    pub der: Vec<u8>,
}

impl Signer {
    /// A root of that name.
    pub fn root(name: &str) -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let template = Self::authority(name, &key, None);
        let der = sign(&template, &common_name(name), &key);
        Self { key, der }
    }

    /// A signer below this one, under which `path_len` more may stand.
    pub fn below(&self, name: &str, path_len: Option<u8>) -> Self {
        self.below_as(|key| Self::authority(name, key, path_len))
    }

    /// A signer below this one with a certificate of any kind; `template` is given the signer's key.
    pub fn below_as(&self, template: impl FnOnce(&EcdsaKeyPair) -> Template) -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let der = self.sign(&template(&key));
        Self { key, der }
    }

    /// The usual certificate of a signer.
    pub fn authority(name: &str, key: &EcdsaKeyPair, path_len: Option<u8>) -> Template {
        let constraints = BasicConstraints { ca: true, path_len_constraint: path_len }.to_der().unwrap();
        let usage = KeyUsage(KeyUsages::KeyCertSign | KeyUsages::CRLSign).to_der().unwrap();
        let mut template = Template::new(name, subject_public_key_info(key.public_key().as_ref()));
        template.extensions = vec![("2.5.29.19", true, constraints), ("2.5.29.15", true, usage)];
        template
    }

    /// Signs a certificate. DER.
    pub fn sign(&self, template: &Template) -> Vec<u8> {
        sign(template, &Certificate::from_der(&self.der).unwrap().tbs_certificate.subject, &self.key)
    }

    /// The certificate, PEM.
    pub fn pem(&self) -> String {
        Certificate::from_der(&self.der).unwrap().to_pem(LineEnding::LF).unwrap()
    }
}

/// A name of that one common name, whatever characters it has.
fn common_name(name: &str) -> Name {
    let value = Any::new(Tag::Utf8String, name.as_bytes()).unwrap();
    let oid = ObjectIdentifier::new_unwrap("2.5.4.3");
    let set = SetOfVec::try_from(vec![AttributeTypeAndValue { oid, value }]).unwrap();
    RdnSequence(vec![RelativeDistinguishedName(set)])
}

fn sign(template: &Template, issuer: &Name, key: &EcdsaKeyPair) -> Vec<u8> {
    let algorithm =
        AlgorithmIdentifierOwned { oid: ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2"), parameters: None };
    let mut serial = [0; 16];
    aws_lc_rs::rand::fill(&mut serial).unwrap();
    serial[0] = serial[0] & 0x7f | 0x40;
    let date = |year| Time::UtcTime(UtcTime::from_date_time(DateTime::new(year, 1, 1, 0, 0, 0).unwrap()).unwrap());
    let extensions = template.extensions.iter().map(|(oid, critical, value)| Extension {
        extn_id: ObjectIdentifier::new_unwrap(oid),
        critical: *critical,
        extn_value: OctetString::new(value.as_slice()).unwrap(),
    });
    let extensions: Vec<_> = extensions.collect();
    let tbs_certificate = TbsCertificate {
        version: Version::V3,
        serial_number: SerialNumber::new(&serial).unwrap(),
        signature: algorithm.clone(),
        issuer: issuer.clone(),
        validity: Validity { not_before: date(template.years.0), not_after: date(template.years.1) },
        subject: common_name(&template.subject),
        subject_public_key_info: SubjectPublicKeyInfoOwned::from_der(&template.key).unwrap(),
        issuer_unique_id: None,
        subject_unique_id: None,
        extensions: (!extensions.is_empty()).then_some(extensions),
    };
    let signature = key.sign(&SystemRandom::new(), &tbs_certificate.to_der().unwrap()).unwrap();
    let signature = BitString::from_bytes(signature.as_ref()).unwrap();
    Certificate { tbs_certificate, signature_algorithm: algorithm, signature }.to_der().unwrap()
}
