//! Attestations of cards, verified by `claviger-hsm`.

use claviger_hsm::attestation::{Evidence, Format, Roots, Verdict, verify as verify_evidence};

use super::from_hsm;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::{Attestation, AttestationFormat, Curve, IdentityError, StaticPublic};

// What a card takes is what a token may give.
const _: () =
    assert!(Attestation::MAX_CHAIN == Evidence::MAX_CHAIN && Attestation::MAX_CERTIFICATE == Evidence::MAX_CERTIFICATE);

/// The roots that an attestation may lead to: the makers' that ship with this program, and those that were added.
pub struct AttestationRoots(Roots);

impl AttestationRoots {
    /// The makers' roots and those of `added`, PEM (RFC 7468), as a store keeps them.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn new(added: &[String]) -> Result<Self> {
        let mut roots = Self(Roots::makers());
        added.iter().try_for_each(|pem| roots.add(pem.as_bytes()))?;
        Ok(roots)
    }

    /// Adds the certificates of a PEM file.
    ///
    /// # Errors
    /// [`AttestationInvalid`](ErrorKind::AttestationInvalid): there is no certificate, one may not sign, or there are too many.
    pub fn add(&mut self, pem: &[u8]) -> Result<()> {
        self.0.with_pem(pem).map_err(from_hsm)
    }

    /// Checks that `attestation` is a maker's statement about `key`, and says what it states, in one line without a full stop: `Yubico, serial 12345678,
    /// firmware 5.7.1, PIN once, touch always, up to Yubico PIV Root CA Serial 263751`.
    ///
    /// # Errors
    /// [`AttestationInvalid`](ErrorKind::AttestationInvalid), with the reason.
    pub fn verify(&self, attestation: &Attestation, key: &StaticPublic) -> Result<Attested> {
        let curve = match key.curve() {
            Curve::X25519 => claviger_hsm::Curve::X25519,
            Curve::P256 => claviger_hsm::Curve::P256,
        };
        let key = claviger_hsm::PublicKey::new(curve, key.as_bytes()).map_err(from_hsm)?;
        let format = match attestation.format() {
            AttestationFormat::YubicoPiv => Format::YubicoPiv,
            AttestationFormat::YubicoOpenPgp => Format::YubicoOpenPgp,
        };
        let evidence = Evidence { format, chain: attestation.chain().to_vec() };
        verify_evidence(&evidence, &key, &self.0).map(Attested).map_err(from_hsm)
    }
}

/// What a verified attestation states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attested(Verdict);

impl Attested {
    /// The device's serial number, where it is stated.
    pub fn serial(&self) -> Option<u32> {
        self.0.serial
    }
}

impl std::fmt::Display for Attested {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(&self.0, f)
    }
}

/// A token's answer as a card carries it.
///
/// # Errors
/// [`AttestationInvalid`](ErrorKind::AttestationInvalid): a form that cards do not have yet, or certificates that do not fit.
pub fn to_card(evidence: Evidence) -> Result<Attestation> {
    let format = match evidence.format {
        Format::YubicoPiv => AttestationFormat::YubicoPiv,
        Format::YubicoOpenPgp => AttestationFormat::YubicoOpenPgp,
        other => {
            let what = format!("A card has no place for an attestation of the form {other}.");
            return Err(Error::new(ErrorKind::AttestationInvalid, what, "Use a newer release, or go on without one."));
        }
    };
    Attestation::new(format, evidence.chain).map_err(|error: IdentityError| {
        let hint = "Go on without an attestation: `claviger-ceremony init --no-attestation`.";
        Error::new(ErrorKind::AttestationInvalid, error.to_string(), hint)
    })
}
