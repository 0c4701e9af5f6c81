//! Attestation: certificates that say a key was generated on this card, signed by the key in F9.
//!
//! The leaf is as Yubico's page "PIV attestation" describes it. The certificate of F9 stands under a root that is made
//! at start, so a program that trusts only the maker's roots must refuse it.

use std::str::FromStr as _;

use rand_core::{OsRng, RngCore as _};
use x509_cert::certificate::{Certificate, TbsCertificate, Version};
use x509_cert::der::asn1::{BitString, ObjectIdentifier, OctetString, UtcTime};
use x509_cert::der::pem::LineEnding;
use x509_cert::der::{self, DateTime, Encode as _, EncodePem as _};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, KeyUsages};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::AlgorithmIdentifierOwned;
use x509_cert::time::{Time, Validity};

use crate::Model;
use crate::keys::{Curve, Key, PinPolicy, TouchPolicy};

const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");
/// Three bytes.
const FIRMWARE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.41482.3.3");
/// A DER INTEGER.
const SERIAL: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.41482.3.7");
/// PIN policy and touch policy, a byte each.
const POLICIES: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.41482.3.8");
/// One byte: 1 is a USB-A keychain, with the highest bit for FIPS.
const FORM_FACTOR: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.41482.3.9");

/// The key in F9, its certificate and what every leaf says of the card.
pub(crate) struct Attestation {
    key: Key,
    certificate: Certificate,
    root_pem: String,
    of_card: Vec<Extension>,
    firmware: [u8; 3],
}

/// A P-256 key that signs certificates, and the name it has in them.
struct Issuer<'a> {
    name: &'a Name,
    key: &'a Key,
}

impl Attestation {
    /// Makes the root, the key in F9 and its certificate.
    pub(crate) fn new(model: &Model) -> der::Result<Self> {
        let [root_key, key] = [(); 2].map(|()| Key::generate(Curve::P256, (PinPolicy::Never, TouchPolicy::Never)));
        let root_name = Name::from_str("CN=Claviger Test PIV Root CA")?;
        let issuer = Issuer { name: &root_name, key: &root_key };
        let root = issue(&issuer, &root_name, &root_key, vec![ca(1)?, certificate_signing()?])?;
        let firmware = extension(FIRMWARE, &model.firmware)?;
        let name = Name::from_str("CN=Yubico PIV Attestation")?;
        let certificate = issue(&issuer, &name, &key, vec![ca(0)?, firmware.clone()])?;
        let form_factor = if model.fips { 0x81 } else { 0x01 };
        let of_card =
            vec![firmware, extension(SERIAL, &model.serial.to_der()?)?, extension(FORM_FACTOR, &[form_factor])?];
        let root_pem = root.to_pem(LineEnding::LF)?;
        Ok(Self { key, certificate, root_pem, of_card, firmware: model.firmware })
    }

    /// The root certificate, PEM.
    pub(crate) fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// The certificate of F9, DER.
    pub(crate) fn certificate(&self) -> der::Result<Vec<u8>> {
        self.certificate.to_der()
    }

    /// The key in F9.
    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    /// The certificate for `key` in `slot`, DER.
    pub(crate) fn attest(&self, slot: u8, key: &Key) -> der::Result<Vec<u8>> {
        let subject = Name::from_str(&format!("CN=YubiKey PIV Attestation {slot:02x}"))?;
        let issuer = Issuer { name: &self.certificate.tbs_certificate.subject, key: &self.key };
        let mut extensions = self.of_card.clone();
        // The serial number is in attestations from firmware 5.0 on.
        extensions.retain(|extension| extension.extn_id != SERIAL || self.firmware >= [5, 0, 0]);
        extensions.push(extension(POLICIES, &[key.pin as u8, key.touch as u8])?);
        issue(&issuer, &subject, key, extensions)?.to_der()
    }
}

fn issue(issuer: &Issuer<'_>, subject: &Name, key: &Key, extensions: Vec<Extension>) -> der::Result<Certificate> {
    let mut serial = [0; 16];
    OsRng.fill_bytes(&mut serial);
    // Positive, and of 16 bytes whatever the dice say.
    serial[0] = serial[0] & 0x7F | 0x40;
    let algorithm = AlgorithmIdentifierOwned { oid: ECDSA_WITH_SHA256, parameters: None };
    let tbs_certificate = TbsCertificate {
        version: Version::V3,
        serial_number: SerialNumber::new(&serial)?,
        signature: algorithm.clone(),
        issuer: issuer.name.clone(),
        // All alike: a leaf has the dates of its issuer.
        validity: Validity { not_before: date(2020)?, not_after: date(2049)? },
        subject: subject.clone(),
        subject_public_key_info: key.public_info()?,
        issuer_unique_id: None,
        subject_unique_id: None,
        extensions: Some(extensions),
    };
    let signature = issuer.key.sign_message(&tbs_certificate.to_der()?).ok_or(der::ErrorKind::Failed)?;
    let signature = BitString::from_bytes(&signature)?;
    Ok(Certificate { tbs_certificate, signature_algorithm: algorithm, signature })
}

fn date(year: u16) -> der::Result<Time> {
    Ok(Time::UtcTime(UtcTime::from_date_time(DateTime::new(year, 1, 1, 0, 0, 0)?)?))
}

fn extension(extn_id: ObjectIdentifier, value: &[u8]) -> der::Result<Extension> {
    Ok(Extension { extn_id, critical: false, extn_value: OctetString::new(value)? })
}

fn ca(certificates_below: u8) -> der::Result<Extension> {
    let value = BasicConstraints { ca: true, path_len_constraint: Some(certificates_below) }.to_der()?;
    Ok(Extension { critical: true, ..extension(BASIC_CONSTRAINTS, &value)? })
}

fn certificate_signing() -> der::Result<Extension> {
    let value = KeyUsage(KeyUsages::KeyCertSign | KeyUsages::CRLSign).to_der()?;
    Ok(Extension { critical: true, ..extension(KEY_USAGE, &value)? })
}
