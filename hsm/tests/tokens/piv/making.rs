//! Making keys: what a card can, the management key, and what is replaced.

use claviger_hsm::{
    Curve, ErrorKind, Locator, NewKey, Pin, PinEntry, PinPolicy, PinRequest, Purpose, Result, Touch, Tries, piv,
};
use claviger_testkit::cards::{Options, isolated};

use super::raw::{Raw, tlv};
use super::{PivCard, YubiKey};
use crate::backend::{Backend as _, Given, Nobody, agrees, kind, open, peer, ready, soon};

/// A management key that no factory gives.
const OTHER_KEY: [u8; 24] = [0x5A; 24];

/// Gives the PIN and this management key.
struct Manager(String, u32);

impl PinEntry for Manager {
    fn pin(&mut self, request: &PinRequest<'_>) -> Result<Pin> {
        if request.purpose != Purpose::ManagementKey {
            return Pin::new(YubiKey::PIN.into());
        }
        assert_eq!(request.tries_left, Tries::Unlimited);
        self.1 += 1;
        Pin::new(self.0.clone())
    }
}

fn manager(key: &[u8]) -> Manager {
    Manager(key.iter().map(|byte| format!("{byte:02X}")).collect(), 0)
}

fn piv(locator: &Locator) -> &claviger_hsm::PivLocator {
    let Locator::Piv(locator) = locator else { panic!("{locator}") };
    locator
}

#[test]
fn x25519_came_with_firmware_5_7() {
    isolated(|| {
        for (options, named) in [
            (Options { firmware: Some("5.4.3".into()), ..Options::default() }, "5.4.3"),
            (Options { fips: true, ..Options::default() }, "FIPS"),
        ] {
            let backend = YubiKey::with(&options);
            let place = backend.place(Curve::X25519);
            let mut people = Given::new(YubiKey::PIN);
            let error =
                claviger_hsm::generate(&place, &NewKey::new(Curve::X25519), &mut soon(&mut people)).unwrap_err();
            assert!(error.kind() == ErrorKind::Unsupported && error.to_string().contains(named), "{error:?}");
            let (locator, public) =
                claviger_hsm::generate(&place, &NewKey::new(Curve::P256), &mut soon(&mut people)).unwrap();
            agrees(open(&locator, Some(&public), &mut Given::new(YubiKey::PIN)).unwrap().as_mut());
        }
        {
            let backend = PivCard::new();
            let refused = |new: &NewKey| {
                let error = claviger_hsm::generate(&backend.place(new.curve), new, &mut soon(&mut Nobody)).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
            };
            refused(&NewKey::new(Curve::X25519));
            let mut new = NewKey::new(Curve::P256);
            new.touch = Some(Touch::Always);
            refused(&new);
            (new.touch, new.pin) = (None, Some(PinPolicy::Always));
            refused(&new);
        }
    });
}

#[test]
fn only_the_key_that_is_named_is_replaced() {
    isolated(|| {
        let (backend, locator, public) = ready::<YubiKey>(Curve::X25519);
        let mut new = NewKey::new(Curve::P256);
        let again = |new: &NewKey| claviger_hsm::generate(&locator, new, &mut soon(&mut Given::new(YubiKey::PIN)));
        for replace in [None, Some(peer(Curve::X25519).1), Some(peer(Curve::P256).1)] {
            new.replace = replace;
            assert_eq!(kind(again(&new)), ErrorKind::KeyExists);
        }
        agrees(open(&locator, Some(&public), &mut Given::new(YubiKey::PIN)).unwrap().as_mut());
        new.replace = Some(public.clone());
        let (_, replaced) = again(&new).unwrap();
        assert_eq!(replaced.curve(), Curve::P256);
        assert_eq!(kind(open(&locator, Some(&public), &mut Nobody)), ErrorKind::WrongCurve);
        agrees(open(&locator, Some(&replaced), &mut Given::new(YubiKey::PIN)).unwrap().as_mut());
        drop(backend);
    });
}

#[test]
fn a_management_key_of_the_factory_needs_nobody() {
    isolated(|| {
        for (tdes, firmware) in [(false, None), (true, None), (true, Some("5.3.1".into()))] {
            let backend = YubiKey::with(&Options { management_tdes: tdes, firmware, ..Options::default() });
            let place = backend.place(Curve::P256);
            assert_eq!(piv::management_key_is_default(piv(&place)).unwrap(), Some(true));
            let mut people = manager(&[0; 24]);
            claviger_hsm::generate(&place, &NewKey::new(Curve::P256), &mut soon(&mut people)).unwrap();
            assert_eq!(people.1, 0);
        }
        {
            // Another card does not tell, so it is asked for, also when it is the factory's.
            let backend = PivCard::new();
            let place = backend.place(Curve::P256);
            assert_eq!(piv::management_key_is_default(piv(&place)).unwrap(), None);
            let mut people = manager(&OTHER_KEY);
            let refused = claviger_hsm::generate(&place, &NewKey::new(Curve::P256), &mut soon(&mut people));
            assert_eq!((kind(refused), people.1), (ErrorKind::WrongPin, 1));
            let mut people = manager(&claviger_testkit::cards::MANAGEMENT_KEY);
            claviger_hsm::generate(&place, &NewKey::new(Curve::P256), &mut soon(&mut people)).unwrap();
            assert_eq!(people.1, 1);
        }
    });
}

#[test]
fn a_management_key_of_ones_own_is_asked_for() {
    isolated(|| {
        let backend = YubiKey::new();
        let place = backend.place(Curve::X25519);
        Raw::new(&backend.card).manage(false).set_management_key(&OTHER_KEY);
        assert_eq!(piv::management_key_is_default(piv(&place)).unwrap(), Some(false));
        let make =
            |people: &mut Manager| claviger_hsm::generate(&place, &NewKey::new(Curve::X25519), &mut soon(people));
        for (key, refusal) in [
            (&[1; 24][..], ErrorKind::WrongPin),
            // Of another algorithm: not even tried.
            (&[1; 32], ErrorKind::WrongPin),
            (&[1; 23], ErrorKind::PinRequired),
        ] {
            let mut people = manager(key);
            let error = make(&mut people).unwrap_err();
            assert_eq!((error.kind(), people.1), (refusal, 1), "{error:?}");
            assert_eq!(kind(open(&place, None, &mut Nobody)), ErrorKind::KeyNotFound);
        }
        let (locator, _) = make(&mut manager(&OTHER_KEY)).unwrap();
        agrees(open(&locator, None, &mut Given::new(YubiKey::PIN)).unwrap().as_mut());
    });
}

/// `ykman piv access change-management-key --protect`: in the printed information, behind the PIN.
#[test]
fn a_management_key_behind_the_pin_is_fetched() {
    isolated(|| {
        let backend = YubiKey::new();
        let raw = Raw::new(&backend.card);
        raw.manage(false).put_data(&[0x5F, 0xFF, 0x00], &tlv(0x80, &tlv(0x81, &[0x02])));
        raw.put_data(&[0x5F, 0xC1, 0x09], &tlv(0x88, &tlv(0x89, &OTHER_KEY)));
        raw.set_management_key(&OTHER_KEY);
        drop(raw);
        let mut people = manager(&[0; 24]);
        let mut new = NewKey::new(Curve::P256);
        new.pin = Some(PinPolicy::Never);
        claviger_hsm::generate(&backend.place(Curve::P256), &new, &mut soon(&mut people)).unwrap();
        assert_eq!(people.1, 0);
    });
}

/// Without the PIN no key is made: it could not be used.
#[test]
fn the_pin_comes_first() {
    isolated(|| {
        let backend = YubiKey::new();
        let place = backend.place(Curve::P256);
        let make =
            |pin: &str| claviger_hsm::generate(&place, &NewKey::new(Curve::P256), &mut soon(&mut Given::new(pin)));
        assert_eq!(kind(make(crate::backend::WRONG_PIN)), ErrorKind::WrongPin);
        assert_eq!(kind(make("odd")), ErrorKind::PinRequired);
        assert_eq!(kind(open(&place, None, &mut Nobody)), ErrorKind::KeyNotFound);
    });
}

/// A key that nobody touched is there all the same, and the error says so.
#[test]
fn a_key_that_could_not_be_proved() {
    isolated(|| {
        let timeout = Some(std::time::Duration::from_millis(300));
        let backend = YubiKey::with(&Options { touch_timeout: timeout, ..Options::default() });
        backend.card.touch_never();
        let mut new = NewKey::new(Curve::P256);
        new.touch = Some(Touch::Always);
        let made = claviger_hsm::generate(&backend.place(Curve::P256), &new, &mut soon(&mut Given::new(YubiKey::PIN)));
        let error = made.unwrap_err();
        assert!(error.kind() == ErrorKind::NotTouched && error.to_string().contains("was made"), "{error:?}");
        backend.card.touch_now();
        agrees(open(&backend.place(Curve::P256), None, &mut Given::new(YubiKey::PIN)).unwrap().as_mut());
    });
}
