//! Yubico's statements: what their subject and extensions say.
//!
//! - PIV: <https://developers.yubico.com/PIV/Introduction/PIV_attestation.html>, extensions under 1.3.6.1.4.1.41482.3, bare bytes but for the serial number.
//! - OpenPGP: <https://developers.yubico.com/PGP/Attestation.html>, extensions under 1.3.6.1.4.1.41482.5, DER. Cardholder name, fingerprint and date there can
//!   be set by whoever knows the admin PIN; they are not read.

use x509_cert::TbsCertificate;
use x509_cert::der::asn1::OctetStringRef;
use x509_cert::der::{Decode, oid::ObjectIdentifier};

use super::path::{Path, common_name};
use super::{AGAIN, Format, Statement, Verdict, malformed, refused};
use crate::error::Result;
use crate::locator::PivSlot;
use crate::token::{PinPolicy, Touch};

const fn piv(text: &str) -> ObjectIdentifier {
    ObjectIdentifier::new_unwrap(text)
}

/// Three bytes.
const PIV_FIRMWARE: ObjectIdentifier = piv("1.3.6.1.4.1.41482.3.3");
/// INTEGER.
const PIV_SERIAL: ObjectIdentifier = piv("1.3.6.1.4.1.41482.3.7");
/// PIN policy and touch policy, a byte each.
const PIV_POLICIES: ObjectIdentifier = piv("1.3.6.1.4.1.41482.3.8");
/// One byte.
const PIV_FORM_FACTOR: ObjectIdentifier = piv("1.3.6.1.4.1.41482.3.9");
/// INTEGER: 1 for a key that the device made, 0 for one that was imported.
const OPENPGP_SOURCE: ObjectIdentifier = piv("1.3.6.1.4.1.41482.5.2");
/// OCTET STRING of three bytes.
const OPENPGP_FIRMWARE: ObjectIdentifier = piv("1.3.6.1.4.1.41482.5.3");
/// INTEGER.
const OPENPGP_SERIAL: ObjectIdentifier = piv("1.3.6.1.4.1.41482.5.7");
/// OCTET STRING of one byte: the User Interaction Flag.
const OPENPGP_TOUCH: ObjectIdentifier = piv("1.3.6.1.4.1.41482.5.8");
/// OCTET STRING of one byte.
const OPENPGP_FORM_FACTOR: ObjectIdentifier = piv("1.3.6.1.4.1.41482.5.9");

pub(super) fn statement(format: Format, path: &Path) -> Result<Statement> {
    let tbs = &path.leaf.tbs_certificate;
    let subject = common_name(&tbs.subject).ok_or_else(|| malformed("its subject"))?;
    let (place, agrees, device) = match format {
        Format::YubicoPiv => {
            let slot = subject.strip_prefix("YubiKey PIV Attestation ").and_then(slot);
            let slot = slot.ok_or_else(|| refused("its subject names no PIV slot", AGAIN))?;
            (format!("PIV slot {slot:02x}"), PivSlot::new(slot).is_some(), Device::piv(tbs)?)
        }
        Format::YubicoOpenPgp => {
            let key =
                subject.strip_prefix("YubiKey OPGP Attestation ").filter(|key| ["SIG", "DEC", "AUT"].contains(key));
            let key = key.ok_or_else(|| refused("its subject names no OpenPGP key", AGAIN))?;
            (format!("the OpenPGP key {key}"), key == "DEC", Device::openpgp(tbs)?)
        }
    };
    let Device { firmware: [major, minor, patch], serial, pin, touch, touch_fixed, form_factor } = device;
    let verdict = Verdict {
        maker: path.maker,
        root: path.root.clone(),
        serial,
        firmware: format!("{major}.{minor}.{patch}"),
        pin,
        touch,
        touch_fixed,
        form_factor: form_factor.and_then(shape),
    };
    Ok(Statement { key: path.key.clone(), place, agrees, verdict })
}

/// Two hexadecimal digits, in lower case as every YubiKey writes them.
fn slot(text: &str) -> Option<u8> {
    let number = u8::from_str_radix(text, 16).ok()?;
    (format!("{number:02x}") == text).then_some(number)
}

/// What the extensions say.
struct Device {
    firmware: [u8; 3],
    serial: Option<u32>,
    pin: Option<PinPolicy>,
    touch: Touch,
    touch_fixed: bool,
    form_factor: Option<u8>,
}

impl Device {
    fn piv(tbs: &TbsCertificate) -> Result<Self> {
        let firmware = extension(tbs, PIV_FIRMWARE)?.ok_or_else(|| missing("firmware"))?;
        let policies = extension(tbs, PIV_POLICIES)?.ok_or_else(|| missing("policies"))?;
        let &[pin, touch] = policies else { return Err(malformed("the policy in it")) };
        Ok(Self {
            firmware: firmware.try_into().map_err(|_| malformed("the firmware in it"))?,
            serial: integer(tbs, PIV_SERIAL)?,
            // 4 and 5: a fingerprint instead of the PIN, on a YubiKey Bio.
            pin: match pin {
                1 => Some(PinPolicy::Never),
                2 | 4 => Some(PinPolicy::Once),
                3 | 5 => Some(PinPolicy::Always),
                _ => None,
            },
            touch: match touch {
                1 => Touch::Never,
                2 => Touch::Always,
                3 => Touch::Cached,
                _ => Touch::Unknown,
            },
            touch_fixed: true,
            form_factor: match extension(tbs, PIV_FORM_FACTOR)? {
                None => None,
                Some(&[form]) => Some(form),
                Some(_) => return Err(malformed("the form factor in it")),
            },
        })
    }

    fn openpgp(tbs: &TbsCertificate) -> Result<Self> {
        match integer(tbs, OPENPGP_SOURCE)? {
            Some(1) => {}
            Some(0) => {
                let hint = "Make a new key on the device; a key that was imported was elsewhere before.";
                return Err(refused("the key was imported into the device", hint));
            }
            _ => return Err(missing("origin")),
        }
        let firmware = octets(tbs, OPENPGP_FIRMWARE)?.ok_or_else(|| missing("firmware"))?;
        let byte = |oid, what: &str| match octets(tbs, oid)? {
            None => Ok(None),
            Some(&[byte]) => Ok(Some(byte)),
            Some(_) => Err(malformed(&format!("the {what} in it"))),
        };
        let touch = byte(OPENPGP_TOUCH, "touch policy")?;
        Ok(Self {
            firmware: firmware.try_into().map_err(|_| malformed("the firmware in it"))?,
            serial: integer(tbs, OPENPGP_SERIAL)?,
            pin: None,
            touch: match touch {
                Some(0) => Touch::Never,
                Some(1 | 2) => Touch::Always,
                Some(3 | 4) => Touch::Cached,
                _ => Touch::Unknown,
            },
            touch_fixed: matches!(touch, Some(2 | 4)),
            form_factor: byte(OPENPGP_FORM_FACTOR, "form factor")?,
        })
    }
}

fn missing(what: &str) -> crate::error::Error {
    refused(&format!("it does not tell the key's {what}"), AGAIN)
}

/// The value of the extension with this identifier. One that stands twice is refused (RFC 5280, section 4.2).
fn extension(tbs: &TbsCertificate, oid: ObjectIdentifier) -> Result<Option<&[u8]>> {
    let mut found = tbs.extensions.iter().flatten().filter(|extension| extension.extn_id == oid);
    let first = found.next().map(|extension| extension.extn_value.as_bytes());
    if found.next().is_some() {
        return Err(refused("an extension in it stands twice", AGAIN));
    }
    Ok(first)
}

fn integer(tbs: &TbsCertificate, oid: ObjectIdentifier) -> Result<Option<u32>> {
    let value = extension(tbs, oid)?;
    value.map(|der| u32::from_der(der).map_err(|_| malformed("a number in it"))).transpose()
}

fn octets(tbs: &TbsCertificate, oid: ObjectIdentifier) -> Result<Option<&[u8]>> {
    let value = extension(tbs, oid)?;
    let read = |der| OctetStringRef::from_der(der).map(|octets: OctetStringRef<'_>| octets.as_bytes());
    value.map(|der| read(der).map_err(|_| malformed("a value in it"))).transpose()
}

/// <https://developers.yubico.com/yubikey-manager/Config_Reference.html>. The highest bit says that the device is a FIPS model.
fn shape(form: u8) -> Option<&'static str> {
    Some(match form & 0x7f {
        1 => "USB-A keychain",
        2 => "USB-A nano",
        3 => "USB-C keychain",
        4 => "USB-C nano",
        5 => "USB-C and Lightning",
        6 => "USB-A with fingerprint reader",
        7 => "USB-C with fingerprint reader",
        _ => return None,
    })
}
