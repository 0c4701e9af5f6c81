//! What holds for every token.

use std::process::{Command, Stdio};
use std::time::Duration;
use std::{env, fs};

use claviger_hsm::{Curve, ErrorKind, KeepPin, Locator, NewKey, PinPolicy, Presence, PublicKey};

use crate::backend::{
    Backend, Given, Nobody, WRONG_PIN, agrees, agrees_asking, each, kind, open, other, peer, ready, soon,
};

/// Generate, open again, agree.
pub(crate) fn a_generated_key_agrees<B: Backend>(curve: Curve) {
    let (backend, narrow, public) = ready::<B>(curve);
    assert_eq!(public.curve(), curve);
    for locator in [&narrow, &backend.place(curve), &narrow.to_string().parse().unwrap()] {
        let mut people = Given::new(B::PIN);
        let mut token = open(locator, Some(&public), &mut people).unwrap();
        assert_eq!((token.public_key(), token.curve()), (&public, curve));
        assert!(people.asked <= 1);
        let hints = token.hints().clone();
        assert_eq!(hints.kind, B::KIND);
        assert!(hints.latency < Duration::from_secs(1) && !hints.label.is_empty(), "{hints:?}");
        for _ in 0..5 {
            agrees(token.as_mut());
        }
    }
}

pub(crate) fn another_key_and_another_curve_are_refused<B: Backend>(curve: Curve) {
    let (_backend, locator, _) = ready::<B>(curve);
    let refused = |expected: &PublicKey| kind(open(&locator, Some(expected), &mut Given::new(B::PIN)));
    assert_eq!(refused(&peer(curve).1), ErrorKind::KeyMismatch);
    assert_eq!(refused(&peer(other(curve)).1), ErrorKind::WrongCurve);
    let mut token = open(&locator, None, &mut Given::new(B::PIN)).unwrap();
    assert_eq!(kind(token.agree(&peer(other(curve)).1, &mut soon(&mut Nobody))), ErrorKind::WrongCurve);
    agrees(token.as_mut());
}

pub(crate) fn a_wrong_pin_is_sent_once<B: Backend>(curve: Curve) {
    let (_backend, locator, public) = ready::<B>(curve);
    let mut people = Given::new(WRONG_PIN);
    assert_eq!(kind(open(&locator, Some(&public), &mut people)), ErrorKind::WrongPin);
    assert_eq!(people.asked, 1);
    assert_eq!(kind(open(&locator, None, &mut Nobody)), ErrorKind::PinRequired);
    agrees(open(&locator, Some(&public), &mut Given::new(B::PIN)).unwrap().as_mut());
}

pub(crate) fn nothing_is_overwritten<B: Backend>(curve: Curve) {
    let (backend, locator, public) = ready::<B>(curve);
    let again = |replace: Option<PublicKey>| {
        let mut new = NewKey::new(curve);
        new.replace = replace;
        claviger_hsm::generate(&backend.place(curve), &new, &mut soon(&mut Given::new(B::PIN)))
    };
    assert_eq!(kind(again(None)), ErrorKind::KeyExists);
    assert_eq!(kind(again(Some(peer(curve).1))), ErrorKind::KeyExists);
    agrees(open(&locator, Some(&public), &mut Given::new(B::PIN)).unwrap().as_mut());
}

pub(crate) fn a_deadline_that_passed_stops_the_token<B: Backend>(curve: Curve) {
    let (_backend, locator, _) = ready::<B>(curve);
    let mut token = open(&locator, None, &mut Given::new(B::PIN)).unwrap();
    let mut nobody = Nobody;
    let mut late = claviger_hsm::Operation::within(Duration::ZERO, &mut nobody);
    assert_eq!(kind(token.agree(&peer(curve).1, &mut late)), ErrorKind::Deadline);
    agrees(token.as_mut());
}

pub(crate) fn looking_changes_nothing<B: Backend>(curve: Curve) {
    let (_backend, locator, _) = ready::<B>(curve);
    let mut token = open(&locator, None, &mut Given::new(B::PIN)).unwrap();
    let state = token.pin_state().unwrap();
    assert!(state.set || token.hints().pin == PinPolicy::Never);
    for _ in 0..5 {
        assert_eq!(token.look().unwrap(), Presence::Ready);
        assert_eq!(token.pin_state().unwrap(), state);
        agrees(token.as_mut());
    }
}

/// Who is asked how often, by policy. A token that needs no PIN, or none after it was opened, asks nobody.
pub(crate) fn a_pin_is_kept_as_the_policy_says<B: Backend>(curve: Curve) {
    let (backend, locator, _) = ready::<B>(curve);
    for keep in [KeepPin::Once, KeepPin::Never, KeepPin::Always] {
        backend.forget();
        let mut people = Given::new(B::PIN);
        let mut token = claviger_hsm::open(&locator, None, keep, &mut soon(&mut people)).unwrap();
        // A module's login is the process's: here generate made it.
        assert!(people.asked <= 1, "{keep}");
        let asks = token.hints().pin != PinPolicy::Never
            && (keep == KeepPin::Always || (keep == KeepPin::Never && B::FORGETS));
        for agreed in 1..=3 {
            let ready = if asks { Presence::Locked } else { Presence::Ready };
            assert_eq!(token.look().unwrap(), ready, "{keep}");
            let mut people = Given::new(B::PIN);
            agrees_asking(token.as_mut(), &mut people);
            assert_eq!(people.asked, u32::from(asks), "{keep}, agree {agreed}");
        }
    }
}

const LOCATOR: &str = "CLAVIGER_TEST_LOCATOR";
const SECRET: &str = "CLAVIGER_TEST_PIN";

pub(crate) fn two_programs_at_once<B: Backend>(curve: Curve) {
    let (_backend, locator, _) = ready::<B>(curve);
    let mut token = open(&locator, None, &mut Given::new(B::PIN)).unwrap();
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["every::another_program", "--exact", "--ignored", "--nocapture"]).env(SECRET, B::PIN);
    let child = command.env(LOCATOR, locator.to_string()).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    for _ in 0..100 {
        agrees(token.as_mut());
    }
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    agrees(token.as_mut());
}

/// Not a test: the other program of `two_programs_at_once`.
#[test]
#[ignore = "started by two_programs_at_once"]
fn another_program() {
    let (Ok(locator), Ok(pin)) = (env::var(LOCATOR), env::var(SECRET)) else { return };
    let locator: Locator = locator.parse().unwrap();
    for _ in 0..5 {
        let mut token = open(&locator, None, &mut Given::new(&pin)).unwrap();
        (0..20).for_each(|_| agrees(token.as_mut()));
    }
}

/// Open file descriptors, and resident memory in KiB (proc(5), `VmRSS`).
fn used() -> (usize, u64) {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let memory = line.trim().trim_end_matches(" kB").parse().unwrap();
    (fs::read_dir("/proc/self/fd").unwrap().count(), memory)
}

pub(crate) fn a_thousand_operations_leave_nothing_behind<B: Backend>(curve: Curve) {
    let (_backend, locator, _) = ready::<B>(curve);
    let mut token = open(&locator, None, &mut Given::new(B::PIN)).unwrap();
    // What is allocated once is there after these.
    (0..200).for_each(|_| agrees(token.as_mut()));
    let (files, memory) = used();
    (0..1000).for_each(|_| agrees(token.as_mut()));
    // One page for each operation would be 4000 KiB.
    let grown = used().1.saturating_sub(memory);
    assert!(grown < 1024, "{grown} KiB more after a thousand operations");
    assert_eq!(used().0, files);
    drop(token);
    let open = || drop(open(&locator, None, &mut Given::new(B::PIN)).unwrap());
    open();
    let files = used().0;
    for _ in 0..10 {
        open();
        assert_eq!(used().0, files);
    }
}

/// All X25519 inputs of low order (RFC 7748 masks the top bit, so each counts twice), and P-256 points off the curve.
#[test]
fn bad_points_reach_no_token() {
    let low_order = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ];
    for text in low_order {
        let mut point: Vec<u8> = (0..32).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect();
        for _ in 0..2 {
            assert_eq!(kind(PublicKey::new(Curve::X25519, &point)), ErrorKind::BadPoint, "{text}");
            point[31] ^= 0x80;
        }
    }
    let good = peer(Curve::P256).1;
    for byte in 1..65 {
        let mut point = good.as_bytes().to_vec();
        point[byte] ^= 1;
        assert_eq!(kind(PublicKey::new(Curve::P256, &point)), ErrorKind::BadPoint, "byte {byte}");
    }
    let mut neutral = [0; 65];
    neutral[0] = 4;
    assert_eq!(kind(PublicKey::new(Curve::P256, &neutral)), ErrorKind::BadPoint);
    // X and Y not below the field's prime.
    assert_eq!(kind(PublicKey::new(Curve::P256, &[[4].as_slice(), &[0xff; 64]].concat())), ErrorKind::BadPoint);
}

each! {
    #[cfg(feature = "openpgp")]
    openpgp: crate::openpgp::OpenPgpCard [X25519 P256],
    softhsm: crate::pkcs11::SoftHsmToken [X25519 P256],
    kryoptic: crate::pkcs11::KryopticToken [X25519 P256],
    piv_card: crate::piv::PivCard [P256],
    software: crate::software::KeyFile [X25519 P256],
    #[cfg(feature = "tpm")] tpm: crate::tpm::Persistent [P256],
    yubikey: crate::piv::YubiKey [X25519 P256]
    => {
        a_generated_key_agrees
        another_key_and_another_curve_are_refused
        a_wrong_pin_is_sent_once
        nothing_is_overwritten
        a_deadline_that_passed_stops_the_token
        looking_changes_nothing
        a_pin_is_kept_as_the_policy_says
        two_programs_at_once
        a_thousand_operations_leave_nothing_behind
    }
}
