//! Who is believed. The makers' certificates are in `hsm/roots`, whose README names the source of each.

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage};

use super::{Format, path};
use crate::error::{Error, ErrorKind, Result};

macro_rules! shipped {
    ($($file:literal),* $(,)?) => {
        &[$(include_bytes!(concat!("../../roots/", $file)).as_slice()),*]
    };
}

const PIV_ROOTS: &[&[u8]] = shipped!["yubico-piv-root-ca-serial-263751.pem", "yubico-attestation-root-1.pem"];
const OPENPGP_ROOTS: &[&[u8]] = shipped!["yubico-openpgp-attestation-ca.pem", "yubico-attestation-root-1.pem"];
/// Roots of which the maker has certified devices and nothing else: each certificate directly under one is that of a device's attestation key.
const ONLY_DEVICES: &[&str] = &["Yubico PIV Root CA Serial 263751", "Yubico OpenPGP Attestation CA"];
/// What stands between a device of firmware 5.7.4 or later and Attestation Root 1. Devices do not carry these.
const PIV_BETWEEN: &[&[u8]] = shipped![
    "yubico-attestation-intermediate-a-1.pem",
    "yubico-attestation-intermediate-b-1.pem",
    "yubico-piv-attestation-a-1.pem",
    "yubico-piv-attestation-b-1.pem",
    "yubico-piv-attestation-b2-1.pem",
];
const OPENPGP_BETWEEN: &[&[u8]] = shipped![
    "yubico-attestation-intermediate-a-1.pem",
    "yubico-attestation-intermediate-b-1.pem",
    "yubico-opgp-attestation-a-1.pem",
    "yubico-opgp-attestation-b-1.pem",
    "yubico-opgp-attestation-b2-1.pem",
];

/// The roots that an attestation may lead to.
#[derive(Clone, Debug, Default)]
pub struct Roots {
    makers: bool,
    added: Vec<CertificateDer<'static>>,
}

impl Roots {
    /// The most certificates that may be added.
    pub const MAX_ADDED: usize = 16;
    /// The most bytes of PEM that are read at once.
    pub const MAX_PEM: usize = 128 * 1024;

    /// The makers' roots, which ship with this crate: Yubico's.
    pub fn makers() -> Self {
        Self { makers: true, added: Vec::new() }
    }

    /// Adds every `CERTIFICATE` of `pem` (RFC 7468): the root of an organisation that loads attestation keys of its own into its devices. What such
    /// a root signs is only as good as the care with which that was done, and the verdict names no maker.
    ///
    /// # Errors
    /// `Attestation`: there is no certificate, one is malformed or may not sign certificates, or there are too many. Nothing is added then.
    pub fn with_pem(&mut self, pem: &[u8]) -> Result<()> {
        let hint = "Give the root certificate, PEM, under which the device's attestation key was certified.";
        let refused =
            |why: &str| Error::new(ErrorKind::Attestation, format!("The attestation root is refused: {why}."), hint);
        if pem.len() > Self::MAX_PEM {
            return Err(refused("the file is longer than 128 KiB"));
        }
        let mut new = Vec::new();
        for section in CertificateDer::pem_slice_iter(pem).take(Self::MAX_ADDED + 1) {
            let der = section.map_err(|_| refused("it is not PEM (RFC 7468)"))?;
            Root::parse(der.clone(), None).map_err(|why| refused(&format!("a certificate in it {why}")))?;
            new.push(der);
        }
        if new.is_empty() {
            return Err(refused("there is no certificate in it"));
        }
        if self.added.len() + new.len() > Self::MAX_ADDED {
            return Err(refused("there are more than 16"));
        }
        self.added.append(&mut new);
        Ok(())
    }

    /// The roots for this form of attestation, the makers' first.
    pub(super) fn of(&self, format: Format) -> Result<Vec<Root>> {
        let (shipped, _) = Self::shipped(format);
        let makers =
            shipped.iter().filter(|_| self.makers).map(|pem| (CertificateDer::from_pem_slice(pem), Some("Yubico")));
        let added = self.added.iter().map(|der| (Ok(der.clone()), None));
        makers
            .chain(added)
            .map(|(der, maker)| {
                let der = der.map_err(|_| broken())?;
                Root::parse(der, maker).map_err(|_| broken())
            })
            .collect()
    }

    /// Certificates that the maker publishes and devices do not carry.
    pub(super) fn between(&self, format: Format) -> Result<Vec<CertificateDer<'static>>> {
        let (_, between) = Self::shipped(format);
        let used = between.iter().filter(|_| self.makers);
        used.map(|pem| CertificateDer::from_pem_slice(pem).map_err(|_| broken())).collect()
    }

    fn shipped(format: Format) -> (&'static [&'static [u8]], &'static [&'static [u8]]) {
        match format {
            Format::YubicoPiv => (PIV_ROOTS, PIV_BETWEEN),
            Format::YubicoOpenPgp => (OPENPGP_ROOTS, OPENPGP_BETWEEN),
        }
    }
}

/// Only a build with another file in `roots` gets here, and the tests find it.
fn broken() -> Error {
    let hint = "Install claviger again from a release.";
    Error::new(ErrorKind::Attestation, "A maker's root that ships with this program is malformed.", hint)
}

/// A root, parsed as far as it is needed.
pub(super) struct Root {
    pub(super) der: CertificateDer<'static>,
    pub(super) maker: Option<&'static str>,
    pub(super) name: String,
    /// How many certificates may stand between it and the statement.
    pub(super) path_len: Option<u8>,
    /// What stands directly under it is a device's attestation key, marked as a signer's or not.
    pub(super) only_devices: bool,
}

impl Root {
    /// The error is a predicate.
    fn parse(der: CertificateDer<'static>, maker: Option<&'static str>) -> std::result::Result<Self, &'static str> {
        let certificate = Certificate::from_der(&der).map_err(|_| "is malformed")?;
        let tbs = &certificate.tbs_certificate;
        let constraints = tbs.get::<BasicConstraints>().map_err(|_| "is malformed")?;
        let usage = tbs.get::<KeyUsage>().map_err(|_| "is malformed")?;
        let (Some((_, BasicConstraints { ca: true, path_len_constraint: path_len })), true) =
            (constraints, usage.is_none_or(|(_, usage)| usage.key_cert_sign()))
        else {
            return Err("may not sign certificates");
        };
        let name = path::shown_name(&tbs.subject);
        let only_devices = maker.is_some() && ONLY_DEVICES.contains(&name.as_str());
        Ok(Self { name, path_len, der, maker, only_devices })
    }
}
