//! `card-yubikey`: the PIV application of a YubiKey 5.7, as far as a Diffie-Hellman client meets it.
//!
//! Written from NIST SP 800-73-4 and Yubico's pages on its PIV extensions and on PIV attestation. Keys: P-256, X25519 and Ed25519, generated
//! or imported, with PIN and touch policies. Not there: RSA, P-384, moving and deleting keys, biometrics, and every
//! other application of a YubiKey. Where the maker's pages leave a choice, the card is the stricter one: SELECT ends a PIN's
//! validity, and with the policy *always* no other command may stand between VERIFY and the operation.

mod attestation;
mod keys;
mod management;
mod pin;
mod piv;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use claviger_cards::{Control, options};
use lexopt::ValueExt as _;

/// What a YubiKey 5 with a contact reader of its own answers.
const ATR: [u8; 23] = *b"\x3B\xFD\x13\x00\x00\x81\x31\xFE\x15\x80\x73\xC0\x21\xC0\x57YubiKey\x40";

const USAGE: &str = "\
Usage: card-yubikey --port PORT --serial NUMBER [OPTIONS]
  --firmware X.Y.Z              [default: 5.7.1]; below 5.7 there is no X25519, below 5.3 no GET METADATA
  --fips                        a YubiKey FIPS: no X25519
  --management-key aes192|tdes  algorithm of the factory's key [default: aes192 from 5.7 on, tdes before]
  --guid HEX                    GUID of the CHUID, 32 digits [default: made of the serial number]
  --attestation-root-out FILE   write the root certificate of attestations here, PEM
  --touch-timeout-ms MS         [default: 15000]
  --garbage-seed NUMBER         [default: the serial number]";

/// What kind of YubiKey it is.
struct Model {
    serial: u32,
    firmware: [u8; 3],
    fips: bool,
    management: management::Algorithm,
    guid: [u8; 16],
    touch_timeout: std::time::Duration,
}

fn main() -> ExitCode {
    options::report("card-yubikey", USAGE, start())
}

fn start() -> Result<(), Box<dyn Error>> {
    let (mut firmware, mut fips, mut guid, mut management, mut root_out) = ([5, 7, 1], false, None, None, None);
    let common = options::read(|name, parser| {
        match name {
            "firmware" => firmware = parser.value()?.parse_with(version)?,
            "fips" => fips = true,
            "guid" => guid = Some(options::hex(parser.value()?)?),
            "management-key" => management = Some(parser.value()?.parse_with(management::Algorithm::named)?),
            "attestation-root-out" => root_out = Some(PathBuf::from(parser.value()?)),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let factory = if firmware >= [5, 7, 0] { management::Algorithm::Aes192 } else { management::Algorithm::Tdes };
    let model = Model {
        serial: common.serial,
        firmware,
        fips,
        management: management.unwrap_or(factory),
        guid: guid.unwrap_or_else(|| guid_of(common.serial)),
        touch_timeout: common.touch_timeout,
    };
    let attestation = attestation::Attestation::new(&model)?;
    if let Some(path) = root_out {
        std::fs::write(&path, attestation.root_pem())
            .map_err(|e| format!("could not write {}: {e}", path.display()))?;
    }
    let control = Control::new();
    let mut card = piv::Piv::new(model, attestation, &control);
    claviger_cards::run(&common, &ATR, &control, &mut card);
    Ok(())
}

/// A UUID of version 4 in form, whose last bytes are the serial number.
fn guid_of(serial: u32) -> [u8; 16] {
    let mut guid = *b"\xC1\xA7\x16\xE5\x00\x00\x40\x00\x80\x00\x00\x00\x00\x00\x00\x00";
    guid[12..].copy_from_slice(&serial.to_be_bytes());
    guid
}

fn version(text: &str) -> Result<[u8; 3], String> {
    let parts: Result<Vec<u8>, _> = text.split('.').map(str::parse).collect();
    parts.ok().and_then(|parts| parts.try_into().ok()).ok_or_else(|| format!("{text} is no version such as 5.7.1"))
}
