//! Makers of OpenPGP cards, and what is one maker's own.

use super::card::{Aid, Answer};
use crate::smartcard::{Command, Exchange, Fault, send};

/// Yubico's number.
pub(super) const YUBICO: u16 = 0x0006;

/// The first YubiKey firmware that attests OpenPGP keys ("OpenPGP Attestation", developers.yubico.com).
pub(super) const ATTESTS: [u8; 3] = [5, 2, 0];

/// A maker's name, from the list that GnuPG keeps for the specification's authors; empty where there is none: from FF00 on numbers are for
/// tests and for cards that were numbered at random.
pub(super) fn name(manufacturer: u16) -> &'static str {
    match manufacturer {
        0x0001 => "PPC Card Systems",
        0x0002 => "Prism",
        0x0003 => "OpenFortress",
        0x0004 => "Wewid",
        0x0005 => "ZeitControl",
        YUBICO => "Yubico",
        0x0007 => "OpenKMS",
        0x0008 => "LogoEmail",
        0x0009 => "Fidesmo",
        0x000a => "VivoKey",
        0x000b => "Feitian",
        0x000d => "Dangerous Things",
        0x000e => "Excelsecu",
        0x000f => "Nitrokey",
        0x002a => "Magrathea",
        0x0042 => "GnuPG e.V.",
        0x1337 => "Warsaw Hackerspace",
        0x2342 => "warpzone",
        0x4354 => "Confidential Technologies",
        0x5443 => "TIF-IT",
        0x63af => "Trustica",
        0xba53 => "c-base",
        0xbd0e => "Paranoidlabs",
        0xca05 => "Atos CardOS",
        0xf1d0 => "CanoKeys",
        0xf517 => "FSIJ",
        0xf5ec => "F-Secure",
        _ => "",
    }
}

/// The firmware of a YubiKey, by its own command GET VERSION (F1); `None` for other cards.
pub(super) fn yubikey_firmware(card: &mut dyn Exchange, aid: &Aid) -> Answer<Option<[u8; 3]>> {
    if aid.manufacturer != YUBICO {
        return Ok(None);
    }
    match send(card, Command::new("GET VERSION", 0xf1, 0x00, 0x00, &[])) {
        Ok(answer) => Ok(<[u8; 3]>::try_from(answer.as_slice()).ok().map(|version| version.map(decimal))),
        Err(Fault::Status { .. }) => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// Two decimal digits in one byte, as YubiKeys write their version.
fn decimal(digits: u8) -> u8 {
    (digits >> 4) * 10 + (digits & 0x0f)
}

#[cfg(test)]
mod tests {
    use super::super::script::Script;
    use super::*;

    #[test]
    fn a_yubikey_tells_its_firmware() {
        let yubikey = Aid { version: 0x0304, manufacturer: YUBICO, serial: 1 };
        let firmware = |answer| yubikey_firmware(&mut Script::new(&[("00f1000000", answer)]), &yubikey).unwrap();
        assert_eq!(firmware("0507119000"), Some([5, 7, 11]));
        assert_eq!(firmware("05079000"), None);
        assert_eq!(firmware("6d00"), None);
        let other = Aid { manufacturer: 0x000f, ..yubikey };
        assert_eq!(yubikey_firmware(&mut Script::any(&[]), &other).unwrap(), None);
    }
}
