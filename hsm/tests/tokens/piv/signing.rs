//! The digital signature key, 9C.

use std::cell::RefCell;
use std::time::Duration;

use claviger_hsm::sign::{Algorithm, Signature, SigningLocator, sign};
use claviger_hsm::{Error, ErrorKind, Operation, PinEntry, Stage};
use claviger_testkit::cards::{Options, isolated};

use super::raw::{Raw, tlv};
use super::{PivCard, SERIAL, YubiKey};
use crate::backend::{Backend as _, Coming as _, Given, Nobody, WRONG_PIN, soon};

const MESSAGE: &[u8] = b"claviger transcript 1\n{}";
const P256: u8 = 0x11;
const ED25519: u8 = 0xE0;

fn locator() -> SigningLocator {
    format!("piv:serial={SERIAL};slot=9c").parse().unwrap()
}

/// Makes a key in 9C; gives its public half. `policies`: fields AA and AB.
fn make(backend: &YubiKey, algorithm: u8, policies: &[u8]) -> Vec<u8> {
    let tdes = false;
    let answer = Raw::new(&backend.card).manage(tdes).ok(
        0x47,
        0x00,
        0x9C,
        &tlv(0xAC, &[tlv(0x80, &[algorithm]), policies.to_vec()].concat()),
    );
    backend.forget();
    answer[answer.len() - if algorithm == P256 { 65 } else { 32 }..].to_vec()
}

fn signed(people: &mut dyn PinEntry) -> Result<Signature, Error> {
    sign(&locator(), MESSAGE, &mut soon(people))
}

fn refused(people: &mut dyn PinEntry) -> ErrorKind {
    signed(people).unwrap_err().kind()
}

#[test]
fn the_pin_is_asked_for_each_time() {
    isolated(|| {
        let backend = YubiKey::new();
        for (byte, algorithm) in [(P256, Algorithm::EcdsaP256), (ED25519, Algorithm::Ed25519)] {
            let public = make(&backend, byte, &[]);
            let before = backend.card.operations();
            for _ in 0..2 {
                let mut people = Given::new(YubiKey::PIN);
                let signature = signed(&mut people).unwrap();
                assert_eq!((signature.algorithm, &signature.public_key), (algorithm, &public));
                assert!(signature.verifies(MESSAGE) && !signature.verifies(b"other"));
                assert_eq!(signature.device, format!("YubiKey {SERIAL}, PIV slot 9c"));
                assert_eq!(people.asked, 1);
            }
            assert_eq!(backend.card.operations(), before + 2);
        }
    });
}

#[test]
fn a_wrong_pin_costs_one_try() {
    isolated(|| {
        let backend = YubiKey::new();
        make(&backend, P256, &[]);
        assert_eq!(refused(&mut Nobody), ErrorKind::PinRequired);
        assert_eq!(refused(&mut Given::new("12345")), ErrorKind::PinRequired);
        assert_eq!(refused(&mut Given::new(WRONG_PIN)), ErrorKind::WrongPin);
        assert_eq!(refused(&mut Given::new(WRONG_PIN)), ErrorKind::WrongPin);
        // One try is left, and nobody agrees to spend it.
        assert_eq!(refused(&mut Given::new(YubiKey::PIN)), ErrorKind::PinLast);
        assert_eq!(refused(&mut Given::all(WRONG_PIN)), ErrorKind::WrongPin);
        assert_eq!(refused(&mut Given::all(YubiKey::PIN)), ErrorKind::PinLocked);
        assert_eq!(backend.card.operations(), 0);
    });
}

#[test]
fn policies_are_kept() {
    isolated(|| {
        let options = Options { touch_timeout: Some(Duration::from_millis(500)), ..Options::default() };
        let backend = YubiKey::with(&options);
        // Never a PIN; then once, which another program has shown.
        make(&backend, P256, &[0xAA, 1, 1]);
        signed(&mut Nobody).unwrap();
        make(&backend, P256, &[0xAA, 1, 2]);
        assert_eq!(refused(&mut Nobody), ErrorKind::PinRequired);
        let other = Raw::new(&backend.card);
        other.ok(0x20, 0x00, 0x80, b"123456\xff\xff");
        signed(&mut Nobody).unwrap();
        assert_eq!(other.send(0x20, 0x00, 0x80, &[]).1, 0x9000, "what others verified stays");
        drop(other);

        make(&backend, ED25519, &[0xAA, 1, 3, 0xAB, 1, 2]);
        backend.card.touch_never();
        let mut people = Given::new(YubiKey::PIN);
        assert_eq!((refused(&mut people), people.asked), (ErrorKind::NotTouched, 1));
        backend.card.touch_after(Duration::from_millis(100));
        let stages = RefCell::new(Vec::new());
        let (mut people, observer) = (Given::new(YubiKey::PIN), |stage| stages.borrow_mut().push(stage));
        let mut operation = Operation::within(Duration::from_secs(20), &mut people).observed(&observer);
        sign(&locator(), MESSAGE, &mut operation).unwrap();
        assert_eq!(stages.borrow().last(), Some(&Stage::Touch));
    });
}

#[test]
fn what_cannot_sign_is_named() {
    isolated(|| {
        let backend = YubiKey::new();
        assert_eq!(refused(&mut Nobody), ErrorKind::KeyNotFound);
        make(&backend, 0xE1, &[]);
        let error = signed(&mut Nobody).unwrap_err();
        assert!(error.kind() == ErrorKind::Unsupported && error.to_string().contains("algorithm E1"), "{error:?}");
        backend.pull();
        assert_eq!(refused(&mut Nobody), ErrorKind::TokenAbsent);
        backend.insert();
        backend.card.garbage(true);
        for _ in 0..20 {
            assert!(signed(&mut Given::all(YubiKey::PIN)).is_err());
        }
    });
}

/// From before GET METADATA: the attestation tells the key.
#[test]
fn an_older_yubikey_signs() {
    isolated(|| {
        let backend = YubiKey::with(&Options { firmware: Some("5.2.4".into()), ..Options::default() });
        Raw::new(&backend.card).manage(true).ok(0x47, 0x00, 0x9C, &tlv(0xAC, &tlv(0x80, &[P256])));
        backend.forget();
        let mut people = Given::new(YubiKey::PIN);
        assert!(signed(&mut people).unwrap().verifies(MESSAGE) && people.asked == 1);
    });
}

/// A certificate as far as it is looked at.
fn certificate(point: &[u8]) -> Vec<u8> {
    const ALGORITHM: &[u8] = b"\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
    let key = tlv(0x30, &[ALGORITHM, &tlv(0x03, &[&[0], point].concat())].concat());
    let five = [&[0x02, 1, 1][..], &[0x30, 0], &[0x30, 0], &[0x30, 0], &[0x30, 0]].concat();
    let tbs = tlv(0x30, &[tlv(0xA0, &[2, 1, 2]), five, key].concat());
    [tlv(0x70, &tlv(0x30, &tbs)), vec![0x71, 1, 0, 0xFE, 0]].concat()
}

/// The certificate tells it, and may lie.
#[test]
fn another_card_signs() {
    isolated(|| {
        let backend = PivCard::new();
        let locator: SigningLocator = backend.card.locator().replace("slot=9d", "slot=9c").parse().unwrap();
        let signed = || sign(&locator, MESSAGE, &mut soon(&mut Given::new(PivCard::PIN)));
        let make = || {
            let raw = Raw::new(&backend.card);
            let answer = raw.manage(true).ok(0x47, 0x00, 0x9C, &tlv(0xAC, &tlv(0x80, &[P256])));
            answer[answer.len() - 65..].to_vec()
        };
        let first = make();
        assert_eq!(signed().unwrap_err().kind(), ErrorKind::KeyNotFound, "nobody tells the key");
        Raw::new(&backend.card).manage(true).put_data(&[0x5F, 0xC1, 0x0A], &certificate(&first));
        let signature = signed().unwrap();
        assert!(signature.public_key == first && signature.verifies(MESSAGE));
        make();
        assert_eq!(signed().unwrap_err().kind(), ErrorKind::KeyMismatch);
    });
}
