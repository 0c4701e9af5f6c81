//! Touch and PIN policies, and what is told apart: not touched, a wrong PIN, a PIN that was lost.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use claviger_hsm::{Curve, ErrorKind, KeepPin, Locator, NewKey, Operation, PinPolicy, Presence, Stage, Touch, Tries};
use claviger_testkit::cards::{Options, isolated};

use super::raw::Raw;
use super::{PivCard, YubiKey};
use crate::backend::{Backend as _, Given, Nobody, agree, agrees, agrees_asking, kind, open, peer, ready, soon};

/// A YubiKey that waits half a second for a touch.
fn impatient() -> YubiKey {
    YubiKey::with(&Options { touch_timeout: Some(Duration::from_millis(500)), ..Options::default() })
}

fn make(backend: &YubiKey, curve: Curve, pin: Option<PinPolicy>, touch: Option<Touch>) -> Locator {
    let mut new = NewKey::new(curve);
    (new.pin, new.touch) = (pin, touch);
    let (locator, _) =
        claviger_hsm::generate(&backend.place(curve), &new, &mut soon(&mut Given::new(YubiKey::PIN))).unwrap();
    backend.forget();
    locator
}

#[test]
fn a_touch_is_waited_for_and_told() {
    isolated(|| {
        let backend = impatient();
        let locator = make(&backend, Curve::X25519, None, Some(Touch::Always));
        backend.card.touch_after(Duration::from_millis(200));
        let mut token = open(&locator, None, &mut Given::new(YubiKey::PIN)).unwrap();
        assert_eq!((token.hints().touch, token.hints().pin), (Touch::Always, PinPolicy::Once));
        assert!(token.hints().latency >= Duration::from_millis(200));
        let stages = RefCell::new(Vec::new());
        let (mut nobody, observer) = (Nobody, |stage| stages.borrow_mut().push(stage));
        let mut operation = Operation::within(Duration::from_secs(20), &mut nobody).observed(&observer);
        let start = Instant::now();
        token.agree(&peer(Curve::X25519).1, &mut operation).unwrap();
        assert!(start.elapsed() >= Duration::from_millis(200));
        assert_eq!(*stages.borrow(), [Stage::Access, Stage::Touch]);
    });
}

/// Never taken for a wrong or missing PIN, and no PIN is sent because of it.
#[test]
fn nobody_touches() {
    isolated(|| {
        let backend = impatient();
        for policy in [PinPolicy::Never, PinPolicy::Once, PinPolicy::Always] {
            let mut new = NewKey::new(Curve::P256);
            (new.pin, new.touch) = (Some(policy), Some(Touch::Always));
            let place = backend.card.locator_at(0x82 + policy as u8).parse().unwrap();
            backend.card.touch_now();
            let mut people = Given::new(YubiKey::PIN);
            let (locator, public) = claviger_hsm::generate(&place, &new, &mut soon(&mut people)).unwrap();
            backend.forget();
            for keep in [KeepPin::Once, KeepPin::Always] {
                backend.card.touch_never();
                let mut people = Given::new(YubiKey::PIN);
                let error = claviger_hsm::open(&locator, None, keep, &mut soon(&mut people)).err().unwrap();
                assert_eq!(error.kind(), ErrorKind::NotTouched, "{policy}: {error:?}");
                assert!(people.asked <= 1);
                backend.card.touch_now();
                let mut people = Given::new(YubiKey::PIN);
                let mut token = claviger_hsm::open(&locator, Some(&public), keep, &mut soon(&mut people)).unwrap();
                backend.card.touch_never();
                for _ in 0..2 {
                    let mut people = Given::new(YubiKey::PIN);
                    let error = token.agree(&peer(Curve::P256).1, &mut soon(&mut people)).err().unwrap();
                    assert_eq!(error.kind(), ErrorKind::NotTouched, "{policy}, {keep}: {error:?}");
                    assert_eq!(token.pin_state().unwrap().tries_left, Tries::Left(3));
                    // The PIN is lost, and nobody touches either.
                    backend.forget();
                }
                backend.card.touch_now();
                agrees_asking(token.as_mut(), &mut Given::new(YubiKey::PIN));
            }
        }
    });
}

#[test]
fn a_touch_counts_for_a_while() {
    isolated(|| {
        let backend = impatient();
        let locator = make(&backend, Curve::P256, None, Some(Touch::Cached));
        let mut token = open(&locator, None, &mut Given::new(YubiKey::PIN)).unwrap();
        assert_eq!(token.hints().touch, Touch::Cached);
        backend.card.touch_never();
        agrees(token.as_mut());
        // A reset ends it.
        backend.forget();
        assert_eq!(kind(agree(token.as_mut())), ErrorKind::NotTouched);
        backend.card.touch_now();
        agrees(token.as_mut());
    });
}

#[test]
fn a_pin_before_each_operation() {
    isolated(|| {
        let backend = impatient();
        let locator = make(&backend, Curve::X25519, Some(PinPolicy::Always), None);
        let mut people = Given::new(YubiKey::PIN);
        let mut token = open(&locator, None, &mut people).unwrap();
        assert_eq!((token.hints().pin, people.asked), (PinPolicy::Always, 1));
        for _ in 0..3 {
            assert_eq!(token.look().unwrap(), Presence::Ready);
            agrees(token.as_mut());
        }
        drop(token);
        for keep in [KeepPin::Never, KeepPin::Always] {
            let mut people = Given::new(YubiKey::PIN);
            let mut token = claviger_hsm::open(&locator, None, keep, &mut soon(&mut people)).unwrap();
            for asked in 2..5 {
                assert_eq!(token.look().unwrap(), Presence::Locked);
                agrees_asking(token.as_mut(), &mut people);
                assert_eq!((people.asked, people.tries), (asked, Some(Tries::Left(3))));
            }
            assert_eq!(kind(agree(token.as_mut())), ErrorKind::PinRequired);
        }
    });
}

#[test]
fn no_pin_at_all() {
    isolated(|| {
        let backend = impatient();
        let mut new = NewKey::new(Curve::P256);
        new.pin = Some(PinPolicy::Never);
        // The management key is the factory's, so nobody is needed at all.
        let (locator, _) = claviger_hsm::generate(&backend.place(Curve::P256), &new, &mut soon(&mut Nobody)).unwrap();
        let mut token = open(&locator, None, &mut Nobody).unwrap();
        assert_eq!((token.hints().pin, token.look().unwrap()), (PinPolicy::Never, Presence::Ready));
        agrees(token.as_mut());
    });
}

/// The PIN is sent again from memory, once, and is never taken for a wrong one.
#[test]
fn a_pin_that_another_program_took_away() {
    isolated(|| {
        let (backend, locator, _) = ready::<YubiKey>(Curve::X25519);
        let mut token = open(&locator, None, &mut Given::new(YubiKey::PIN)).unwrap();
        for _ in 0..3 {
            // Un-verified, as by SP 800-73-4, part 2, section 3.2.1.
            Raw::new(&backend.card).ok(0x20, 0xFF, 0x80, &[]);
            assert_eq!(token.pin_state().unwrap().verified, Some(false));
            agrees(token.as_mut());
            assert_eq!(token.pin_state().unwrap().verified, Some(true));
        }
        // With nothing kept, somebody is asked.
        let mut token =
            claviger_hsm::open(&locator, None, KeepPin::Never, &mut soon(&mut Given::new(YubiKey::PIN))).unwrap();
        agrees(token.as_mut());
        backend.forget();
        assert_eq!(token.look().unwrap(), Presence::Locked);
        assert_eq!(kind(agree(token.as_mut())), ErrorKind::PinRequired);
        agrees_asking(token.as_mut(), &mut Given::new(YubiKey::PIN));
    });
}

/// Somebody changes the PIN: the one in memory costs one try, and is asked for anew.
#[test]
fn a_pin_that_was_changed_meanwhile() {
    isolated(|| {
        let (backend, locator, _) = ready::<YubiKey>(Curve::P256);
        let mut token = open(&locator, None, &mut Given::new(YubiKey::PIN)).unwrap();
        Raw::new(&backend.card).ok(0x24, 0x00, 0x80, b"123456\xFF\xFF271828\xFF\xFF");
        backend.forget();
        assert_eq!(kind(agree(token.as_mut())), ErrorKind::WrongPin);
        assert_eq!(kind(agree(token.as_mut())), ErrorKind::PinRequired);
        let mut people = Given::new("271828");
        agrees_asking(token.as_mut(), &mut people);
        assert_eq!((people.asked, people.tries), (1, Some(Tries::Left(2))));
        backend.forget();
        agrees(token.as_mut());
    });
}

#[test]
fn what_is_no_pin_is_not_sent() {
    isolated(|| {
        {
            let (_backend, locator, _) = ready::<YubiKey>(Curve::P256);
            for odd in ["12345", "314159265", "31415\n"] {
                assert_eq!(kind(open(&locator, None, &mut Given::new(odd))), ErrorKind::PinRequired, "{odd:?}");
            }
            // Nor is it kept.
            let mut token =
                claviger_hsm::open(&locator, None, KeepPin::Once, &mut soon(&mut Given::new(YubiKey::PIN))).unwrap();
            assert_eq!(token.pin_state().unwrap().tries_left, Tries::Left(3));
            _backend.forget();
            agrees(token.as_mut());
        }
        {
            let (_backend, locator, _) = ready::<PivCard>(Curve::P256);
            assert_eq!(kind(open(&locator, None, &mut Given::new("letters"))), ErrorKind::PinRequired);
            agrees(open(&locator, None, &mut Given::new(PivCard::PIN)).unwrap().as_mut());
        }
    });
}
