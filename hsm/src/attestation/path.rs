//! The way from a statement to a root: webpki's verdict, and what it leaves out.

use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use webpki::aws_lc_rs as algorithms;
use webpki::{EndEntityCert, Error as Webpki, ExtendedKeyUsageValidator, KeyPurposeIdIter, anchor_from_trusted_cert};
use x509_cert::Certificate;
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::der::asn1::{PrintableStringRef, Utf8StringRef};
use x509_cert::der::oid::{AssociatedOid, ObjectIdentifier};
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage};
use x509_cert::name::Name;

use super::roots::Root;
use super::{AGAIN, Evidence, Format, Roots, malformed, refused, weak};
use crate::error::{Error, Result};

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// RSA PKCS#1 v1.5 of 2048 to 8192 bits, ECDSA on P-256 and P-384: what devices and their makers sign with.
const ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[
    algorithms::RSA_PKCS1_2048_8192_SHA256,
    algorithms::RSA_PKCS1_2048_8192_SHA384,
    algorithms::RSA_PKCS1_2048_8192_SHA512,
    algorithms::ECDSA_P256_SHA256,
    algorithms::ECDSA_P256_SHA384,
    algorithms::ECDSA_P384_SHA256,
    algorithms::ECDSA_P384_SHA384,
];

/// A statement that leads to a root.
pub(super) struct Path {
    pub(super) leaf: Certificate,
    /// Of the leaf, DER.
    pub(super) key: Vec<u8>,
    pub(super) maker: Option<&'static str>,
    pub(super) root: String,
}

/// The purposes of TLS have no place here: a root is in the list for attestations and nothing else.
struct AnyPurpose;

impl ExtendedKeyUsageValidator for AnyPurpose {
    fn validate(&self, _: KeyPurposeIdIter<'_, '_>) -> std::result::Result<(), Webpki> {
        Ok(())
    }
}

pub(super) fn verify(evidence: &Evidence, roots: &Roots) -> Result<Path> {
    let (first, signers) = evidence.chain.split_first().ok_or_else(|| malformed("the chain"))?;
    let leaf = Certificate::from_der(first).map_err(|_| malformed("its first certificate"))?;
    let moment = UnixTime::since_unix_epoch(leaf.tbs_certificate.validity.not_before.to_unix_duration());

    let roots_of = roots.of(evidence.format)?;
    let mut anchors = Vec::new();
    for root in &roots_of {
        anchors.push(anchor_from_trusted_cert(&root.der).map_err(|_| malformed("a root"))?);
    }
    let mut between: Vec<CertificateDer<'_>> = signers.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
    between.extend(roots.between(evidence.format)?);

    let der = CertificateDer::from(first.as_slice());
    let (anchor, used) = match walk(&der, &anchors, &between, moment) {
        Err(Webpki::EndEntityUsedAsCa) => unmarked(&der, signers, &roots_of, &anchors, moment)?,
        path => path.map_err(failed)?,
    };
    let root = roots_of.get(anchor).ok_or_else(|| refused("no root that is trusted here signs it", OWN_ROOT))?;
    let mut parsed = Vec::new();
    for signer in &used {
        parsed.push(Certificate::from_der(signer).map_err(|_| malformed("a certificate in it"))?);
    }
    check_signers(&parsed, root, evidence.format)?;
    let key = leaf.tbs_certificate.subject_public_key_info.to_der().map_err(|_| malformed("its public key"))?;
    Ok(Path { key, maker: root.maker, root: root.name.clone(), leaf })
}

/// The way from `end` to one of `anchors`: its place among them, and the signers between, DER.
fn walk(
    end: &CertificateDer<'_>,
    anchors: &[TrustAnchor<'_>],
    between: &[CertificateDer<'_>],
    moment: UnixTime,
) -> std::result::Result<(usize, Vec<Vec<u8>>), Webpki> {
    let end = EndEntityCert::try_from(end)?;
    let path = end.verify_for_usage(ALGORITHMS, anchors, between, moment, AnyPurpose, None, None)?;
    let anchor = anchors.iter().position(|anchor| anchor == path.anchor()).ok_or(Webpki::UnknownIssuer)?;
    Ok((anchor, path.intermediate_certificates().map(|signer| signer.der().to_vec()).collect()))
}

/// The same for a device whose factory certificate has no `basicConstraints` at all, as those of firmware up to 5.2 have none, although it signs
/// statements. Version 3 and RFC 5280, section 6.1.4 (k), would have it refused; it is taken where that loses nothing:
///
/// - it stands directly under a root whose only certificates are those of devices' attestation keys, and nobody but the maker holds that root. What the
///   extension would say, the root says;
/// - it signs the statement itself and nothing between. No key that an owner makes or imports can stand there: those are a level below, where a
///   certificate signs nothing.
///
/// One that has the extension, and says there that it is no authority, stays refused.
fn unmarked(
    end: &CertificateDer<'_>,
    signers: &[Vec<u8>],
    roots: &[Root],
    anchors: &[TrustAnchor<'_>],
    moment: UnixTime,
) -> Result<(usize, Vec<Vec<u8>>)> {
    let [signer] = signers else { return Err(failed(Webpki::EndEntityUsedAsCa)) };
    let parsed = Certificate::from_der(signer).map_err(|_| malformed("a certificate in it"))?;
    if has_constraints(&parsed) {
        return Err(failed(Webpki::EndEntityUsedAsCa));
    }
    let signer = CertificateDer::from(signer.as_slice());
    // As an end entity it is held to everything else: signature, names, the time, critical extensions.
    let (anchor, between) = walk(&signer, anchors, &[], moment).map_err(failed)?;
    if !between.is_empty() || !roots.get(anchor).is_some_and(|root| root.only_devices) {
        return Err(failed(Webpki::EndEntityUsedAsCa));
    }
    let below = anchor_from_trusted_cert(&signer).map_err(failed)?;
    walk(end, &[below], &[], moment).map_err(failed)?;
    Ok((anchor, vec![signer.to_vec()]))
}

fn has_constraints(certificate: &Certificate) -> bool {
    let extensions = certificate.tbs_certificate.extensions.as_deref().unwrap_or_default();
    extensions.iter().any(|extension| extension.extn_id == BasicConstraints::OID)
}

/// What webpki leaves out: it does not look at `keyUsage` (RFC 5280, section 6.1.4 (n)), nor at anything in a root but name and key.
fn check_signers(signers: &[Certificate], root: &Root, format: Format) -> Result<()> {
    for signer in signers {
        let usage = signer.tbs_certificate.get::<KeyUsage>().map_err(|_| malformed("a certificate in it"))?;
        if usage.is_some_and(|(_, usage)| !usage.key_cert_sign()) {
            return Err(refused(MAY_NOT, AGAIN));
        }
        if weak::is_weak(&signer.tbs_certificate.subject_public_key_info) {
            let hint = "The device's firmware made RSA keys that can be factored (CVE-2017-15361, YubiKey 4 before 4.3.5): use a newer one, or go on \
                        without an attestation.";
            return Err(refused("a key that signs it is weak, and others may have it", hint));
        }
    }
    if root.path_len.is_some_and(|most| signers.len() > usize::from(most)) {
        return Err(refused(MAY_NOT, AGAIN));
    }
    // Attestation Root 1 also stands above the maker's FIDO keys, secure domains and HSMs, whose statements mean other things.
    let application = match format {
        Format::YubicoPiv => "Yubico PIV Attestation",
        Format::YubicoOpenPgp => "Yubico OPGP Attestation",
    };
    let is_right = |signer: &Certificate| {
        common_name(&signer.tbs_certificate.subject).is_some_and(|name| name.starts_with(application))
    };
    if root.maker.is_some() && root.name == "Yubico Attestation Root 1" && !signers.iter().any(is_right) {
        return Err(refused("the maker made this chain for another application of the device", AGAIN));
    }
    Ok(())
}

/// The name of a subject that is one common name and nothing else.
pub(super) fn common_name(name: &Name) -> Option<String> {
    let [only] = name.0.as_slice() else { return None };
    let [AttributeTypeAndValue { oid: COMMON_NAME, value }] = only.0.as_slice() else { return None };
    let utf8 = value.decode_as::<Utf8StringRef<'_>>().map(|text| text.as_str().to_owned());
    utf8.or_else(|_| value.decode_as::<PrintableStringRef<'_>>().map(|text| text.as_str().to_owned())).ok()
}

/// A name for people: bounded, and nothing that a terminal acts on.
pub(super) fn shown_name(name: &Name) -> String {
    let text = common_name(name).unwrap_or_else(|| name.to_string());
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(128).collect()
}

const OWN_ROOT: &str = "Only keys made in a device of a known maker are attested; where an organisation loads attestation keys of its own, name \
                        their root with `--attestation-root FILE`.";
const MAY_NOT: &str = "a certificate in it signs another, and may not";

fn failed(error: Webpki) -> Error {
    match error {
        Webpki::UnknownIssuer => refused("no root that is trusted here signs it", OWN_ROOT),
        Webpki::InvalidSignatureForPublicKey | Webpki::SignatureAlgorithmMismatch => {
            refused("a signature in it is wrong", AGAIN)
        }
        Webpki::CertExpired { .. } | Webpki::CertNotValidYet { .. } | Webpki::InvalidCertValidity => {
            refused("its certificates were never valid at the same time", AGAIN)
        }
        Webpki::EndEntityUsedAsCa => {
            refused("a certificate in it signs another, and is not marked as a signer's", AGAIN)
        }
        Webpki::PathLenConstraintViolated | Webpki::NameConstraintViolation => refused(MAY_NOT, AGAIN),
        Webpki::CaUsedAsEndEntity => refused("its first certificate is that of a signer, not about a key", AGAIN),
        Webpki::UnsupportedCriticalExtension => {
            refused("a certificate in it has a critical extension that is not known here", AGAIN)
        }
        Webpki::MaximumPathBuildCallsExceeded
        | Webpki::MaximumPathDepthExceeded
        | Webpki::MaximumSignatureChecksExceeded => refused("its chain is too long or too tangled", AGAIN),
        // UnsupportedSignatureAlgorithm and its contexts, and everything about DER.
        _ => refused("a certificate in it is malformed, or signed in a way that is not known here", AGAIN),
    }
}
