//! A YubiKey's attestation of its decryption key ("OpenPGP Attestation", developers.yubico.com; the commands as Yubico's own library yubikit
//! sends them). Seen on no real YubiKey and no emulated one: tested against a script of the documented answers.
//!
//! GET ATTESTATION signs a certificate about the key with the attestation key and leaves it as the key's cardholder certificate (DO 7F21), in place
//! of what was there. The certificate of the attestation key is DO FC.

use super::card::{self, Aid, Answer, Outcome};
use super::maker;
use crate::attestation::{Evidence, Format};
use crate::error::{Error, ErrorKind};
use crate::operation::Stage;
use crate::smartcard::{Command, Exchange, Fault, send};

/// Cardholder certificate (section 4.4.1).
const CERTIFICATE: u16 = 0x7f21;
/// The attestation key's certificate.
const SIGNER: u16 = 0xfc;
/// The attestation key's user interaction flag.
const INTERACTION: u16 = 0xd9;
/// Which cardholder certificate is the decryption key's; the authentication key's is 0, and is the one that a SELECT leaves selected.
const DECRYPTION: u8 = 1;
const AUTHENTICATION: u8 = 0;
/// 1.3.6.1.4.1.41482.5, Yubico's arc for OpenPGP attestations, as it stands in its certificates.
const STATEMENT: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0xc4, 0x0a, 0x05];

/// Whether the card attests, and that nothing is lost by it.
pub(super) fn check(card: &mut dyn Exchange, aid: &Aid, what: &str) -> Answer<()> {
    let unsupported =
        |why: &str, hint: &str| Fault::Typed(Error::new(ErrorKind::Unsupported, format!("{what} {why}."), hint));
    match maker::yubikey_firmware(card, aid)? {
        Some(version) if version >= maker::ATTESTS => {}
        _ => {
            return Err(unsupported(
                "makes no attestation",
                "Only YubiKeys from firmware 5.2 on attest their OpenPGP keys; go on without, the card says so.",
            ));
        }
    }
    select_certificate(card, aid, DECRYPTION)?;
    let there = card::find(card, CERTIFICATE);
    deselect_certificate(card, aid)?;
    let there = there?.unwrap_or_default();
    if !there.is_empty() && !there.windows(STATEMENT.len()).any(|window| window == STATEMENT) {
        return Err(unsupported(
            "holds a certificate for its decryption key, which an attestation would overwrite",
            "Take it off with `ykman openpgp certificates delete dec` if nobody needs it.",
        ));
    }
    Ok(())
}

/// The stage that the signature waits in.
pub(super) fn stage(card: &mut dyn Exchange) -> Answer<Stage> {
    let flag = card::find(card, INTERACTION)?;
    Ok(if flag.is_some_and(|flag| flag.first() != Some(&0)) { Stage::Touch } else { Stage::Device })
}

/// Makes the statement and reads both certificates. PW1 has to be verified in the mode for signing.
pub(super) fn attest(card: &mut dyn Exchange, aid: &Aid) -> Answer<Outcome<Evidence>> {
    // Class 80, GET ATTESTATION, key 2 (decryption).
    let mut answer = card.transmit(&[0x80, 0xfb, 0x02, 0x00, 0x00])?;
    let status = match (answer.pop(), answer.pop()) {
        (Some(low), Some(high)) => u16::from_be_bytes([high, low]),
        _ => return Err(Fault::Malformed("GET ATTESTATION", "the answer has no status word")),
    };
    let attested = if status == 0x9000 { Ok(()) } else { Err(Fault::Status { command: "GET ATTESTATION", status }) };
    if let Outcome::Refused(status) = Outcome::of(attested)? {
        return Ok(Outcome::Refused(status));
    }
    select_certificate(card, aid, DECRYPTION)?;
    let statement = card::get(card, CERTIFICATE);
    deselect_certificate(card, aid)?;
    let chain = vec![statement?.to_vec(), card::get(card, SIGNER)?.to_vec()];
    if chain.iter().any(|certificate| certificate.is_empty() || certificate.len() > Evidence::MAX_CERTIFICATE) {
        return Err(Fault::Malformed("GET DATA", "an attestation certificate is empty or too long"));
    }
    Ok(Outcome::Done(Evidence { format: Format::YubicoOpenPgp, chain }))
}

/// SELECT DATA (section 7.2.5), for the `occurrence` of the cardholder certificate. YubiKeys up to 5.4.3 want a length before it.
fn select_certificate(card: &mut dyn Exchange, aid: &Aid, occurrence: u8) -> Answer<()> {
    const DATA: &[u8] = &[0x06, 0x60, 0x04, 0x5c, 0x02, 0x7f, 0x21];
    let old = maker::yubikey_firmware(card, aid)?.is_some_and(|version| version <= [5, 4, 3]);
    let data = if old { DATA } else { &DATA[1..] };
    send(card, Command::new("SELECT DATA", 0xa5, occurrence, 0x04, data)).map(drop)
}

/// The certificate is selected again that a SELECT leaves selected. What a card refuses here, it does itself at the next SELECT.
fn deselect_certificate(card: &mut dyn Exchange, aid: &Aid) -> Answer<()> {
    match select_certificate(card, aid, AUTHENTICATION) {
        Err(Fault::Status { .. }) => Ok(()),
        answer => answer,
    }
}

#[cfg(test)]
mod tests {
    use super::super::script::Script;
    use super::*;

    const YUBIKEY: Aid = Aid { version: 0x0304, manufacturer: maker::YUBICO, serial: 1 };

    #[test]
    fn a_statement_and_its_signer_are_read() {
        for (firmware, select) in [("0504039000", "07066004"), ("0507019000", "066004")] {
            let of = |occurrence| format!("00a5{occurrence}04{select}5c027f2100");
            let mut card = Script::new(&[
                ("80fb020000", "9000"),
                ("00f1000000", firmware),
                (&of("01"), "9000"),
                ("00ca7f2100", "30019000"),
                ("00f1000000", firmware),
                (&of("00"), "6a88"),
                ("00ca00fc00", "30029000"),
            ]);
            let Ok(Outcome::Done(evidence)) = attest(&mut card, &YUBIKEY) else { panic!("no evidence") };
            assert_eq!(evidence.chain, [[0x30, 1], [0x30, 2]]);
            assert_eq!(evidence.format, Format::YubicoOpenPgp);
            assert!(card.is_over());
        }
    }

    #[test]
    fn no_touch_and_no_pin_are_told() {
        for (answer, status) in [("6982", 0x6982), ("6600", 0x6600)] {
            let outcome = attest(&mut Script::new(&[("80fb020000", answer)]), &YUBIKEY);
            assert!(matches!(outcome, Ok(Outcome::Refused(found)) if found == status));
        }
        assert!(matches!(attest(&mut Script::any(&["6a80"]), &YUBIKEY), Err(Fault::Status { .. })));
        assert!(matches!(attest(&mut Script::any(&["90"]), &YUBIKEY), Err(Fault::Malformed(..))));
    }

    #[test]
    fn a_certificate_of_somebodys_is_not_overwritten() {
        let check = |certificate: &str| {
            let mut card =
                Script::any(&["0507019000", "0507019000", "9000", &format!("{certificate}9000"), "0507019000", "9000"]);
            check(&mut card, &YUBIKEY, "It").map_err(|fault| fault.typed("It").kind())
        };
        assert_eq!(check(""), Ok(()));
        assert_eq!(check("30822b0601040182c40a0501"), Ok(()));
        assert_eq!(check("30820100"), Err(ErrorKind::Unsupported));
        let old = super::check(&mut Script::any(&["0404059000"]), &YUBIKEY, "It");
        assert_eq!(old.map_err(|fault| fault.typed("It").kind()), Err(ErrorKind::Unsupported));
        let other = Aid { manufacturer: 15, ..YUBIKEY };
        assert!(super::check(&mut Script::any(&[]), &other, "It").is_err());
    }
}
