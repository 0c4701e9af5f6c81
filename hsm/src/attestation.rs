//! Attestation: a maker's statement that a key was made in one of its devices and cannot leave it.
//!
//! [`verify`] checks such a statement from its bytes alone, so that whoever is handed a public key need not believe whoever hands it over. It says: a
//! device of the maker, with this serial number and these policies, made this key. It does not say who holds the device.
//!
//! Certificate paths are checked by webpki, as for TLS: signatures, names, `basicConstraints`, path lengths, unknown critical extensions (RFC 5280,
//! section 6). Added here: `keyUsage` of whoever signs, which webpki leaves out; the path length of the root; RSA keys that devices made badly; and what
//! the statement itself says. Left out: the `basicConstraints` of a certificate directly under one of the two roots that certify devices alone.
//!
//! **No clock.** The machines of a ceremony often have no clock worth the name, and a verdict that changes with time could not be read again
//! from a store. A path must have been valid at one moment, and that moment is where the statement's own validity begins: a device copies it from
//! its factory certificate. The makers' certificates run to 2046 or to the end of time, name no place for revocations, and a device that was found bad is
//! dealt with by removing the peer.

mod path;
mod roots;
#[cfg(test)]
mod tests;
mod weak;
mod yubico;

use std::fmt;
use std::str::FromStr;

use crate::curve::{Curve, PublicKey};
use crate::error::{Error, ErrorKind, Result};
use crate::token::{PinPolicy, Touch, words};

pub use roots::Roots;

/// What a device gave as proof: certificates, to be believed by nobody who has not verified them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// Who states what, in which form.
    pub format: Format,
    /// X.509 certificates in DER: the statement about the key first, then those that sign it, without the maker's root. At most
    /// [`Evidence::MAX_CHAIN`], each at most [`Evidence::MAX_CERTIFICATE`] bytes. Certificates that the maker publishes need not be there.
    pub chain: Vec<Vec<u8>>,
}

impl Evidence {
    /// The most certificates.
    pub const MAX_CHAIN: usize = 4;
    /// The most bytes of one certificate.
    pub const MAX_CERTIFICATE: usize = 3072;
}

/// Forms of attestation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// A YubiKey's PIV application: command ATTEST (F9), signed by the key in slot F9.
    YubicoPiv,
    /// A YubiKey's OpenPGP application: command GET ATTESTATION (FB), signed by its attestation key.
    YubicoOpenPgp,
}

words!(Format, "form of attestation": YubicoPiv = "yubico-piv", YubicoOpenPgp = "yubico-openpgp");

/// What a statement says, once it is verified. `Display` is one line:
/// `Yubico, serial 12345678, firmware 5.7.1, PIN once, touch always, up to Yubico PIV Root CA Serial 263751`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verdict {
    /// Whose root it leads to; `None` for a root that was added ([`Roots::with_pem`]).
    pub maker: Option<&'static str>,
    /// The root's common name: at most 128 characters, none of them a control character.
    pub root: String,
    /// The device's serial number. YubiKeys before 5.0 do not state it.
    pub serial: Option<u32>,
    /// The device's firmware: `5.7.1`.
    pub firmware: String,
    /// When the device wants the PIN for an operation with the key. OpenPGP attestations do not say.
    pub pin: Option<PinPolicy>,
    /// Whether an operation waits for a touch.
    pub touch: Touch,
    /// Whether the touch policy stays as long as the key. An OpenPGP card's may be one that its admin PIN can change.
    pub touch_fixed: bool,
    /// The device's shape: `USB-A keychain`.
    pub form_factor: Option<&'static str>,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.maker.unwrap_or("no known maker"))?;
        if let Some(serial) = self.serial {
            write!(f, ", serial {serial}")?;
        }
        write!(f, ", firmware {}", self.firmware)?;
        if let Some(pin) = self.pin {
            write!(f, ", PIN {pin}")?;
        }
        write!(f, ", touch {}", self.touch)?;
        if !self.touch_fixed && self.touch != Touch::Unknown {
            f.write_str(" (can be changed)")?;
        }
        write!(f, ", up to {}", self.root)
    }
}

/// Checks that `evidence` is a maker's statement about `key`, and leads to one of `roots`.
///
/// The key must be in a place whose keys can agree: PIV slot 9D or 82 to 95, the OpenPGP decryption key. OpenPGP keys that were imported are refused; PIV
/// states nothing about imported ones. Every signer must be marked as one (`basicConstraints`), but for the factory certificates of YubiKeys up to firmware
/// 5.2, which are not and stand directly under Yubico's PIV Root CA Serial 263751 or its OpenPGP Attestation CA.
///
/// # Errors
/// `Attestation`: a certificate is malformed or too long, a signature is wrong, no root signs the chain, or the statement is about another key.
pub fn verify(evidence: &Evidence, key: &PublicKey, roots: &Roots) -> Result<Verdict> {
    let statement = read(evidence, roots)?;
    if statement.key != subject_public_key_info(key) {
        let hint =
            "Take the attestation of the identity's own key; a card that carries another's is not to be recorded.";
        return Err(refused("it is about another key", hint));
    }
    if !statement.agrees {
        let why = format!("it is about {}, whose keys do not agree", statement.place);
        return Err(refused(
            &why,
            "Make the identity's key in PIV slot 9d or 82 to 95, or as the OpenPGP decryption key.",
        ));
    }
    Ok(statement.verdict)
}

/// A statement whose signatures are right, not yet compared with a key.
struct Statement {
    /// The SubjectPublicKeyInfo, DER.
    key: Vec<u8>,
    /// `PIV slot 9d`.
    place: String,
    /// Whether a key in that place is for Diffie-Hellman.
    agrees: bool,
    verdict: Verdict,
}

fn read(evidence: &Evidence, roots: &Roots) -> Result<Statement> {
    let length = evidence.chain.len();
    if !(1..=Evidence::MAX_CHAIN).contains(&length) {
        let why = format!("it has {length} certificates, and 1 to {} are taken", Evidence::MAX_CHAIN);
        return Err(refused(&why, AGAIN));
    }
    if let Some(long) = evidence.chain.iter().map(Vec::len).find(|&length| length > Evidence::MAX_CERTIFICATE) {
        let why = format!("one of its certificates has {long} bytes, and {} are taken", Evidence::MAX_CERTIFICATE);
        return Err(refused(&why, AGAIN));
    }
    let path = path::verify(evidence, roots)?;
    yubico::statement(evidence.format, &path)
}

/// The one DER encoding of a key: RFC 5480, section 2 (P-256, uncompressed), RFC 8410, section 4 (X25519).
fn subject_public_key_info(key: &PublicKey) -> Vec<u8> {
    let head: &[u8] = match key.curve() {
        // SEQUENCE { SEQUENCE { id-ecPublicKey, secp256r1 }, BIT STRING }
        Curve::P256 => {
            b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00"
        }
        // SEQUENCE { SEQUENCE { id-X25519 }, BIT STRING }
        Curve::X25519 => b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x6e\x03\x21\x00",
    };
    [head, key.as_bytes()].concat()
}

const AGAIN: &str = "Take the attestation from the device again, and carry it unchanged.";

/// `why` is a clause.
fn refused(why: &str, hint: &str) -> Error {
    Error::new(ErrorKind::Attestation, format!("The attestation is refused: {why}."), hint)
}

fn malformed(what: &str) -> Error {
    refused(&format!("{what} is malformed"), AGAIN)
}
