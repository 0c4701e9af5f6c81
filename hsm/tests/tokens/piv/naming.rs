//! Which card and which key: locators, where a public key comes from, and the list.

use std::ffi::CString;
use std::time::{Duration, Instant};

use claviger_hsm::attestation::Format;
use claviger_hsm::{
    CardId, Curve, ErrorKind, Locator, NewKey, PinPolicy, PivSlot, PublicKey, TokenKind, Touch, Tries, piv,
};
use claviger_testkit::cards::{Card, Options, Pcscd, isolated};
use pcsc::{Context, Disposition, Protocols, Scope, ShareMode};

use super::raw::Raw;
use super::{PivCard, SERIAL, YubiKey};
use crate::backend::{Backend as _, Given, Nobody, agrees, kind, open, ready, soon};

fn generate(locator: &Locator, curve: Curve) -> (Locator, PublicKey) {
    claviger_hsm::generate(locator, &NewKey::new(curve), &mut soon(&mut Given::new(YubiKey::PIN))).unwrap()
}

#[test]
fn a_card_is_found_among_others() {
    isolated(|| {
        let pcscd = Pcscd::start();
        let other = Card::yubikey(&pcscd, SERIAL + 1);
        let plain = Card::piv(&pcscd, 7);
        let one = Card::yubikey(&pcscd, SERIAL);
        let keys: Vec<_> =
            [&other, &plain, &one].map(|card| generate(&card.locator().parse().unwrap(), Curve::P256)).into();
        for (locator, public) in &keys {
            agrees(open(locator, Some(public), &mut Given::new(YubiKey::PIN)).unwrap().as_mut());
        }
        assert_eq!(kind(open(&keys[0].0, Some(&keys[2].1), &mut Nobody)), ErrorKind::KeyMismatch);
        let nowhere = format!("piv:serial={};slot=9d", SERIAL + 2).parse().unwrap();
        assert_eq!(kind(open(&nowhere, None, &mut Nobody)), ErrorKind::TokenAbsent);
        // The serial number that piv-authenticator makes up for all its cards names none.
        assert_eq!(
            kind(open(&"piv:serial=5437251;slot=9d".parse().unwrap(), None, &mut Nobody)),
            ErrorKind::TokenAbsent
        );
        let _twin = Card::piv(&pcscd, 7);
        assert_eq!(kind(open(&keys[1].0, None, &mut Nobody)), ErrorKind::TokenAmbiguous);
    });
}

/// A YubiKey is named by its serial number, and answers to its GUID.
#[test]
fn a_guid_names_a_yubikey_too() {
    isolated(|| {
        let (_backend, narrow, public) = ready::<YubiKey>(Curve::P256);
        let Locator::Piv(named) = &narrow else { panic!("{narrow}") };
        assert_eq!((named.card, named.slot), (CardId::Serial(SERIAL), PivSlot::KEY_MANAGEMENT));
        let by_guid: Locator = format!("piv:guid=c1a716e5000040008000000{SERIAL:09x};slot=9d").parse().unwrap();
        let mut token = open(&by_guid, Some(&public), &mut Given::new(YubiKey::PIN)).unwrap();
        assert_eq!(token.hints().label, format!("YubiKey {SERIAL}, PIV slot 9d"));
        agrees(token.as_mut());
    });
}

#[test]
fn every_slot_that_agrees() {
    isolated(|| {
        let backend = YubiKey::new();
        let keys: Vec<_> = [0x9d, 0x82, 0x83, 0x95]
            .into_iter()
            .zip([Curve::P256, Curve::X25519].into_iter().cycle())
            .map(|(slot, curve)| generate(&backend.card.locator_at(slot).parse().unwrap(), curve))
            .collect();
        for (locator, public) in &keys {
            agrees(open(locator, Some(public), &mut Given::new(YubiKey::PIN)).unwrap().as_mut());
        }
        let empty = backend.card.locator_at(0x90).parse().unwrap();
        assert_eq!(kind(open(&empty, None, &mut Nobody)), ErrorKind::KeyNotFound);
        // Where the card tells its keys, an expected one does not replace a missing one.
        assert_eq!(kind(open(&empty, Some(&keys[0].1), &mut Nobody)), ErrorKind::KeyNotFound);
    });
}

/// Without GET METADATA, the attestation of a key tells it; before that, and on other cards, the certificate.
#[test]
fn older_yubikeys_tell_their_keys_in_other_ways() {
    isolated(|| {
        for (firmware, writes) in [("5.2.4", false), ("4.3.5", false), ("4.2.6", true)] {
            let backend = YubiKey::firmware(firmware);
            let by_guid = format!("piv:guid=c1a716e5000040008000000{SERIAL:09x};slot=9d").parse().unwrap();
            let (locator, public) = generate(&by_guid, Curve::P256);
            assert_eq!(Raw::new(&backend.card).has_data(&[0x5F, 0xC1, 0x0B]), writes, "{firmware}");
            let mut token = open(&locator, None, &mut Given::new(YubiKey::PIN)).unwrap();
            assert_eq!((token.public_key(), token.hints().touch), (&public, Touch::Unknown));
            agrees(token.as_mut());
        }
    });
}

/// The caller's key is taken where the card tells none, and proved.
#[test]
fn a_card_without_a_certificate() {
    isolated(|| {
        let (backend, locator, public) = ready::<PivCard>(Curve::P256);
        Raw::new(&backend.card).manage(true).put_data(&[0x5F, 0xC1, 0x0B], &[]);
        assert_eq!(kind(open(&locator, None, &mut Given::new(PivCard::PIN))), ErrorKind::KeyNotFound);
        agrees(open(&locator, Some(&public), &mut Given::new(PivCard::PIN)).unwrap().as_mut());
        let other = crate::backend::peer(Curve::P256).1;
        assert_eq!(kind(open(&locator, Some(&other), &mut Given::new(PivCard::PIN))), ErrorKind::KeyMismatch);
        // And nobody makes a key over one that the card does not tell of.
        let mut new = NewKey::new(Curve::P256);
        let again = |new: &NewKey| claviger_hsm::generate(&locator, new, &mut soon(&mut Given::new(PivCard::PIN)));
        assert_eq!(kind(again(&new)), ErrorKind::KeyExists);
        new.replace = Some(other);
        assert_eq!(kind(again(&new)), ErrorKind::KeyExists);
        new.replace = Some(public.clone());
        let (_, replaced) = again(&new).unwrap();
        assert_ne!(replaced, public);
        agrees(open(&locator, None, &mut Given::new(PivCard::PIN)).unwrap().as_mut());
    });
}

#[test]
fn cards_are_listed() {
    isolated(|| {
        let pcscd = Pcscd::start();
        let yubikey = Card::yubikey(&pcscd, SERIAL);
        let plain = Card::piv(&pcscd, 7);
        let _openpgp = Card::openpgp(&pcscd, 9);
        let mut new = NewKey::new(Curve::X25519);
        (new.pin, new.touch) = (Some(PinPolicy::Always), Some(Touch::Cached));
        let place = yubikey.locator_at(0x82).parse().unwrap();
        let (locator, public) = claviger_hsm::generate(&place, &new, &mut soon(&mut Given::new(YubiKey::PIN))).unwrap();
        let devices = piv::list().unwrap();
        assert_eq!(devices.len(), 2, "{devices:?}");
        let device = devices.iter().find(|device| device.maker == "Yubico").unwrap();
        assert_eq!((device.kind, device.hardware, &device.unusable), (TokenKind::Piv, true, &None));
        assert_eq!((device.serial.as_str(), device.firmware.as_str()), ("20904105", "5.7.1"));
        assert_eq!((device.model.as_str(), device.seen_at.as_str()), ("YubiKey 5", yubikey.reader()));
        assert_eq!(device.curves, [Curve::X25519, Curve::P256]);
        assert_eq!(device.pin.unwrap().tries_left, Tries::Left(3));
        let [empty, key] = &device.keys[..] else { panic!("{device:?}") };
        assert_eq!((empty.place.as_str(), empty.public_key.is_err(), &empty.locator), ("9d", true, &None));
        assert_eq!((key.place.as_str(), &key.public_key), ("82", &Ok(public)));
        assert_eq!((key.pin, key.touch, key.attestable), (Some(PinPolicy::Always), Touch::Cached, true));
        assert_eq!(key.locator, Some(locator));
        let device = devices.iter().find(|device| device.maker != "Yubico").unwrap();
        assert_eq!((device.seen_at.as_str(), device.firmware.as_str()), (plain.reader(), ""));
        assert_eq!((device.serial.len(), &device.curves), (32, &vec![Curve::P256]));
        assert_eq!((device.keys.len(), device.pin.unwrap().tries_left), (1, Tries::Left(3)));
        // A blocked PIN, and somebody who keeps a card for himself.
        (0..3).for_each(|_| drop(Raw::new(&yubikey).send(0x20, 0, 0x80, b"314159\xFF\xFF")));
        let reader = std::ffi::CString::new(plain.reader()).unwrap();
        let holder = Context::establish(Scope::User).unwrap().connect(&reader, ShareMode::Exclusive, Protocols::ANY);
        let reasons: Vec<_> = piv::list().unwrap().into_iter().map(|device| device.unusable.unwrap()).collect();
        assert!(reasons[0].contains("blocked") && reasons[1].contains("for itself"), "{reasons:?}");
        drop(holder);
    });
}

#[test]
fn keys_are_attested() {
    isolated(|| {
        {
            let (_backend, locator, public) = ready::<YubiKey>(Curve::X25519);
            let mut token = open(&locator, None, &mut Given::new(YubiKey::PIN)).unwrap();
            let evidence = token.attest(&mut soon(&mut Nobody)).unwrap();
            assert_eq!((evidence.format, evidence.chain.len()), (Format::YubicoPiv, 2));
            let about = |certificate: &[u8]| certificate.windows(32).any(|bytes| bytes == public.as_bytes());
            assert!(about(&evidence.chain[0]) && !about(&evidence.chain[1]));
            assert!(evidence.chain.iter().all(|certificate| certificate.starts_with(&[0x30, 0x82])));
        }
        {
            let (_backend, locator, _) = ready::<PivCard>(Curve::P256);
            let mut token = open(&locator, None, &mut Given::new(PivCard::PIN)).unwrap();
            assert_eq!(kind(token.attest(&mut soon(&mut Nobody))), ErrorKind::Unsupported);
        }
        {
            // Imported: P-256, PKCS#11's favourite scalar.
            let backend = YubiKey::with(&Options::default());
            let raw = Raw::new(&backend.card);
            raw.manage(false).ok(0xFE, 0x11, 0x9D, &super::raw::tlv(0x06, &[0x42; 32]));
            drop(raw);
            let mut token = open(&backend.place(Curve::P256), None, &mut Given::new(YubiKey::PIN)).unwrap();
            agrees(token.as_mut());
            assert_eq!(kind(token.attest(&mut soon(&mut Nobody))), ErrorKind::Unsupported);
            assert!(!piv::list().unwrap()[0].keys[0].attestable);
        }
    });
}

/// Looking for a PIV application on a card that has none leaves a PIN of that card's as it is.
#[test]
fn cards_of_another_kind_are_left_alone() {
    isolated(|| {
        let pcscd = Pcscd::start();
        let openpgp = Card::openpgp(&pcscd, 9);
        let raw = Raw::connect(&openpgp);
        raw.ok(0xA4, 0x04, 0x00, &[0xD2, 0x76, 0x00, 0x01, 0x24, 0x01]);
        raw.ok(0x20, 0x00, 0x82, YubiKey::PIN.as_bytes());
        assert!(piv::list().unwrap().is_empty());
        let nowhere = format!("piv:serial={SERIAL};slot=9d").parse().unwrap();
        assert_eq!(kind(open(&nowhere, None, &mut Nobody)), ErrorKind::TokenAbsent);
        assert_eq!(raw.send(0x20, 0x00, 0x82, &[]).1, 0x9000);
    });
}

/// A card that is another one is not touched again while ours is away, and so is not waited for.
#[test]
fn others_are_left_alone_while_ours_is_away() {
    isolated(|| {
        let (backend, locator, _) = ready::<YubiKey>(Curve::P256);
        let other = Card::yubikey(&backend.pcscd, SERIAL + 1);
        let mut token = open(&locator, None, &mut Given::new(YubiKey::PIN)).unwrap();
        let reader = CString::new(other.reader()).unwrap();
        let context = Context::establish(Scope::User).unwrap();
        let mut busy = context.connect(&reader, ShareMode::Shared, Protocols::ANY).unwrap();
        let transaction = busy.transaction().unwrap();
        backend.card.pull();
        for _ in 0..3 {
            let start = Instant::now();
            assert_eq!(kind(crate::backend::agree(token.as_mut())), ErrorKind::TokenAbsent);
            assert!(start.elapsed() < Duration::from_secs(5), "it waited for the other card");
        }
        backend.card.insert();
        agrees(token.as_mut());
        transaction.end(Disposition::LeaveCard).map_err(|(_, error)| error).unwrap();
        busy.disconnect(Disposition::LeaveCard).map_err(|(_, error)| error).unwrap();
    });
}
