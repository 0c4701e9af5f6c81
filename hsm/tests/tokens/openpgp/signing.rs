//! The signature key.

use std::time::Duration;

use claviger_hsm::sign::{Algorithm, Signature, SigningLocator, sign};
use claviger_hsm::{Error, ErrorKind, PinEntry};
use claviger_testkit::cards::{self, Options, isolated};

use super::{Card, Kind, OpenPgpCard, Pcscd, Raw};
use crate::backend::{Backend as _, Coming as _, Given, Nobody, SmartCard as _, WRONG_PIN, soon};

const MESSAGE: &[u8] = b"claviger transcript 1\n{}";
const P256: &[u8] = &[19, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const ED25519: &[u8] = &[22, 0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x0f, 0x01];

fn make(card: &Card, attributes: &[u8]) {
    let raw = Raw::to(card);
    raw.verify_admin();
    raw.done([0x00, 0xDA, 0x00, 0xC1], attributes);
    let made = raw.send([0x00, 0x47, 0x80, 0x00], &[0xB6, 0x00]);
    assert!(made == 0x9000 || made >> 8 == 0x61, "{made:04X}");
    drop(raw);
    card.reset();
}

fn signed(card: &Card, people: &mut dyn PinEntry) -> Result<Signature, Error> {
    let locator: SigningLocator = card.locator().parse().unwrap();
    sign(&locator, MESSAGE, &mut soon(people))
}

#[test]
fn the_pin_is_asked_for_each_time() {
    isolated(|| {
        let backend = OpenPgpCard::new();
        let card = backend.card();
        assert_eq!(signed(card, &mut Nobody).unwrap_err().kind(), ErrorKind::KeyNotFound);
        for (attributes, algorithm, length) in [(P256, Algorithm::EcdsaP256, 65), (ED25519, Algorithm::Ed25519, 32)] {
            make(card, attributes);
            for _ in 0..20 {
                let mut people = Given::new(OpenPgpCard::PIN);
                let signature = signed(card, &mut people).unwrap();
                assert_eq!((signature.algorithm, signature.public_key.len()), (algorithm, length));
                assert!(signature.verifies(MESSAGE) && !signature.verifies(b"other"));
                assert!(signature.device.ends_with("signature key"), "{}", signature.device);
                assert_eq!(people.asked, 1);
            }
        }
        backend.pull();
        assert_eq!(signed(card, &mut Nobody).unwrap_err().kind(), ErrorKind::TokenAbsent);
    });
}

#[test]
fn a_wrong_pin_costs_one_try() {
    isolated(|| {
        let backend = OpenPgpCard::new();
        let card = backend.card();
        make(card, P256);
        let refused = |people: &mut dyn PinEntry| signed(card, people).unwrap_err().kind();
        assert_eq!(refused(&mut Nobody), ErrorKind::PinRequired);
        assert_eq!(refused(&mut Given::new(WRONG_PIN)), ErrorKind::WrongPin);
        assert_eq!(refused(&mut Given::new(WRONG_PIN)), ErrorKind::WrongPin);
        assert_eq!(refused(&mut Given::new(OpenPgpCard::PIN)), ErrorKind::PinLast);
        signed(card, &mut Given::all(OpenPgpCard::PIN)).unwrap();
    });
}

/// Also where the card lets one PIN hold for many signatures: we leave nothing open.
#[test]
fn the_card_forgets_the_pin() {
    isolated(|| {
        let backend = OpenPgpCard::new();
        let card = backend.card();
        make(card, ED25519);
        let raw = Raw::to(card);
        raw.verify_admin();
        raw.done([0x00, 0xDA, 0x00, 0xC4], &[1]);
        drop(raw);
        signed(card, &mut Given::new(OpenPgpCard::PIN)).unwrap();
        assert_ne!(Raw::to(card).send([0x00, 0x20, 0x00, 0x81], &[]), 0x9000);
        // What another program has verified stays.
        Raw::to(card).done([0x00, 0x20, 0x00, 0x81], cards::PIN.as_bytes());
        signed(card, &mut Given::new(OpenPgpCard::PIN)).unwrap();
        Raw::to(card).done([0x00, 0x20, 0x00, 0x81], &[]);
    });
}

#[test]
fn a_touch_is_waited_for() {
    isolated(|| {
        let pcscd = Pcscd::start();
        let options = Options { touch_timeout: Some(Duration::from_secs(1)), ..Options::default() };
        let card = Card::with(&pcscd, Kind::OpenPgp, 0x77, &options);
        make(&card, P256);
        let raw = Raw::to(&card);
        raw.verify_admin();
        raw.done([0x00, 0xDA, 0x00, 0xD6], &[1, 0x20]);
        drop(raw);
        card.touch_never();
        let mut people = Given::new(OpenPgpCard::PIN);
        assert_eq!(signed(&card, &mut people).unwrap_err().kind(), ErrorKind::NotTouched);
        card.touch_after(Duration::from_millis(100));
        assert!(signed(&card, &mut people).unwrap().verifies(MESSAGE));
    });
}
