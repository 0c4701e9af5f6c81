//! Every backend, on every curve, through the same tests; then what only PKCS#11 tokens can do wrong.
//!
//! Each test runs alone in a process of its own (`claviger_testkit::token::isolated`), so it may reset its module.

// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::time::{Duration, Instant};

use aws_lc_rs::agreement::{self, ECDH_P256, PrivateKey, UnparsedPublicKey, X25519};
use claviger_hsm::{
    Curve, Error, ErrorKind, Locator, Pin, PinEntry, PinRequest, Pkcs11Uri, PublicKey, Purpose, Result, Token,
    TokenKind, Tries, open, pkcs11, software,
};
use claviger_testkit::token::{Kryoptic, PIN, SO_PIN, SoftHsm, TestToken, isolated};
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;

/// Always the same answer, and a count of how often it was asked for.
struct Given {
    pin: String,
    asked: u32,
    tries: Option<Tries>,
    spend_last: bool,
}

impl Given {
    fn new(pin: &str) -> Self {
        Self { pin: pin.into(), asked: 0, tries: None, spend_last: false }
    }
}

impl PinEntry for Given {
    fn pin(&mut self, request: &PinRequest<'_>) -> Result<Pin> {
        self.asked += 1;
        self.tries = Some(request.tries_left);
        assert!(!request.what.is_empty());
        Pin::new(self.pin.clone())
    }

    fn confirm_last_try(&mut self, request: &PinRequest<'_>) -> bool {
        assert_eq!((request.tries_left, request.purpose), (Tries::Last, Purpose::UserPin));
        self.spend_last
    }
}

/// Nobody to ask.
struct Nobody;

impl PinEntry for Nobody {
    fn pin(&mut self, _: &PinRequest<'_>) -> Result<Pin> {
        Err(Error::pin_required("Nobody is here.", "Come back."))
    }
}

enum Backend {
    SoftHsm(TestToken),
    Kryoptic(TestToken),
    Software(tempfile::TempDir),
}

impl Backend {
    fn softhsm() -> Self {
        Self::SoftHsm(SoftHsm::new().init_token("cosigner", SO_PIN, PIN))
    }

    fn kryoptic() -> Self {
        Self::Kryoptic(Kryoptic::new().init_token("cosigner", SO_PIN, PIN))
    }

    fn software() -> Self {
        Self::Software(tempfile::tempdir().unwrap())
    }

    /// The PKCS#11 token.
    fn token(&self) -> &TestToken {
        match self {
            Self::SoftHsm(token) | Self::Kryoptic(token) => token,
            Self::Software(_) => panic!("a key file is no PKCS#11 token"),
        }
    }

    fn locator(&self, object: &str) -> Locator {
        match self {
            Self::Software(directory) => Locator::File(directory.path().join(format!("{object}.pem"))),
            _ => self.token().uri(object).parse().unwrap(),
        }
    }

    /// Makes a key and returns the locator that names it most narrowly.
    fn generate(&self, object: &str, curve: Curve) -> (Locator, PublicKey) {
        let made = match self.locator(object) {
            Locator::File(path) => {
                software::generate(&path, curve, &mut Given::new(PIN)).map(|key| (Locator::File(path), key))
            }
            Locator::Pkcs11(uri) => {
                pkcs11::generate(&uri, curve, &mut Given::new(PIN)).map(|(uri, key)| (Locator::Pkcs11(uri), key))
            }
        };
        made.unwrap()
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn kind<T>(result: Result<T>) -> ErrorKind {
    let error = result.err().expect("an error");
    assert!(error.to_string().ends_with('.') && !error.hint().is_empty(), "{error:?}");
    assert!(!format!("{error:?}").contains(PIN), "{error:?}");
    error.kind()
}

/// A fresh key in software, independent of the crate under test.
fn peer(curve: Curve) -> (PrivateKey, PublicKey) {
    let algorithm = if curve == Curve::X25519 { &X25519 } else { &ECDH_P256 };
    let key = PrivateKey::generate(algorithm).unwrap();
    let public = PublicKey::new(curve, key.compute_public_key().unwrap().as_ref()).unwrap();
    (key, public)
}

/// One agree, both sides compared.
fn agrees(token: &mut dyn Token) {
    let (key, public) = peer(token.curve());
    let own = UnparsedPublicKey::new(key.algorithm(), token.public_key().as_bytes());
    let expected = agreement::agree(&key, own, (), |secret| Ok(secret.to_vec())).unwrap();
    assert_eq!(token.agree(&public, soon()).unwrap().as_bytes()[..], expected);
}

fn other(curve: Curve) -> Curve {
    if curve == Curve::X25519 { Curve::P256 } else { Curve::X25519 }
}

/// Generate, open again by either name, agree.
fn a_generated_key_agrees(backend: &Backend, curve: Curve) {
    let (narrow, public) = backend.generate("noise", curve);
    assert_eq!(public.curve(), curve);
    for locator in [&narrow, &backend.locator("noise"), &narrow.to_string().parse().unwrap()] {
        let mut pins = Given::new(PIN);
        let mut token = open(locator, Some(&public), &mut pins).unwrap();
        assert_eq!((token.public_key(), token.curve(), pins.asked), (&public, curve, 1));
        for _ in 0..5 {
            agrees(token.as_mut());
        }
        let hints = token.hints();
        assert!(!hints.touch && hints.latency < Duration::from_secs(1), "{hints:?}");
        match backend {
            Backend::Software(_) => {
                assert_eq!(hints.kind, TokenKind::Software);
                assert!(hints.label.starts_with("software key"), "{}", hints.label);
            }
            Backend::SoftHsm(..) => assert_eq!(hints.label, "SoftHSM v2 token \"cosigner\", object \"noise\""),
            Backend::Kryoptic(..) => assert_eq!(hints.label, "v1 token \"cosigner\", object \"noise\""),
        }
    }
}

fn another_key_and_another_curve_are_refused(backend: &Backend, curve: Curve) {
    let (locator, _) = backend.generate("noise", curve);
    let open = |expected: &PublicKey| open(&locator, Some(expected), &mut Given::new(PIN));
    assert_eq!(kind(open(&peer(curve).1)), ErrorKind::KeyMismatch);
    assert_eq!(kind(open(&peer(other(curve)).1)), ErrorKind::WrongCurve);
    let mut token = claviger_hsm::open(&locator, None, &mut Given::new(PIN)).unwrap();
    assert_eq!(kind(token.agree(&peer(other(curve)).1, soon())), ErrorKind::WrongCurve);
    agrees(token.as_mut());
}

fn a_wrong_pin_is_sent_once(backend: &Backend, curve: Curve) {
    let (locator, public) = backend.generate("noise", curve);
    let mut pins = Given::new("314159");
    assert_eq!(kind(open(&locator, Some(&public), &mut pins)), ErrorKind::WrongPin);
    assert_eq!(pins.asked, 1);
    assert_eq!(kind(open(&locator, None, &mut Nobody)), ErrorKind::PinRequired);
    agrees(open(&locator, Some(&public), &mut Given::new(PIN)).unwrap().as_mut());
}

fn a_missing_key_is_named(backend: &Backend, curve: Curve) {
    backend.generate("noise", curve);
    let expected = if matches!(backend, Backend::Software(_)) { ErrorKind::Io } else { ErrorKind::KeyNotFound };
    let error = open(&backend.locator("nosie"), None, &mut Given::new(PIN)).err().unwrap();
    assert_eq!(error.kind(), expected);
    if expected == ErrorKind::KeyNotFound {
        assert!(error.to_string().contains("it holds \"noise\""), "{error}");
    }
}

fn nothing_is_overwritten(backend: &Backend, curve: Curve) {
    let (_, public) = backend.generate("noise", curve);
    let again = match backend.locator("noise") {
        Locator::File(path) => software::generate(&path, curve, &mut Given::new("other")),
        Locator::Pkcs11(uri) => pkcs11::generate(&uri, other(curve), &mut Given::new(PIN)).map(|(_, key)| key),
    };
    assert_eq!(kind(again), ErrorKind::KeyExists);
    agrees(open(&backend.locator("noise"), Some(&public), &mut Given::new(PIN)).unwrap().as_mut());
}

fn a_deadline_that_passed_stops_the_token(backend: &Backend, curve: Curve) {
    let (locator, _) = backend.generate("noise", curve);
    let mut token = open(&locator, None, &mut Given::new(PIN)).unwrap();
    assert_eq!(kind(token.agree(&peer(curve).1, Instant::now())), ErrorKind::Deadline);
    agrees(token.as_mut());
}

/// The tests, for each of the named backends, on both curves.
macro_rules! each {
    ($($backend:ident),* => $tests:tt) => { $( mod $backend { each!(@ $backend x25519 X25519 $tests); each!(@ $backend p256 P256 $tests); } )* };
    (@ $backend:ident $module:ident $curve:ident { $($test:ident)* }) => {
        mod $module {
            use crate::{Backend, Curve, isolated};
            $( #[test] fn $test() { isolated(|| crate::$test(&Backend::$backend(), Curve::$curve)); } )*
        }
    };
}

mod every {
    each!(softhsm, kryoptic, software => {
        a_generated_key_agrees
        another_key_and_another_curve_are_refused
        a_wrong_pin_is_sent_once
        a_missing_key_is_named
        nothing_is_overwritten
        a_deadline_that_passed_stops_the_token
    });
}

mod modules {
    each!(softhsm, kryoptic => {
        a_stale_session_is_opened_again
        a_pulled_token_is_a_state
        a_pin_that_failed_is_not_resent
        a_new_key_never_leaves
        the_public_half_must_be_there_and_fit
        two_keys_of_one_name_are_ambiguous
        tokens_are_listed
        a_pin_file_must_be_closed
    });
}

/// A second view of the module that the crate under test has loaded: for the process they are one.
fn second_view(token: &TestToken) -> Pkcs11 {
    let context = Pkcs11::new(token.module()).unwrap();
    let _ = context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK));
    context
}

fn log_in(context: &Pkcs11, token: &TestToken) -> Session {
    let slots = context.get_slots_with_initialized_token().unwrap();
    let slot =
        slots.into_iter().find(|slot| context.get_token_info(*slot).unwrap().label().trim_end() == token.label());
    let session = context.open_rw_session(slot.unwrap()).unwrap();
    let _ = session.login(UserType::User, Some(&AuthPin::new(token.pin().into())));
    session
}

/// As when the token is pulled and put back: every session, login and handle is gone.
fn reset(token: &TestToken) {
    second_view(token).finalize().unwrap();
    second_view(token);
}

fn objects(session: &Session, class: ObjectClass, label: &str) -> Vec<ObjectHandle> {
    session.find_objects(&[Attribute::Class(class), Attribute::Label(label.into())]).unwrap()
}

fn a_stale_session_is_opened_again(backend: &Backend, curve: Curve) {
    let (locator, _) = backend.generate("noise", curve);
    let mut pins = Given::new(PIN);
    let mut token = open(&locator, None, &mut pins).unwrap();
    for _ in 0..3 {
        reset(backend.token());
        agrees(token.as_mut());
        let _ = log_in(&second_view(backend.token()), backend.token()).logout();
        agrees(token.as_mut());
    }
    assert_eq!(pins.asked, 1);

    // While it was away the key was taken off it: said so, every time, and the token works again when the key is back.
    let session = log_in(&second_view(backend.token()), backend.token());
    let private = objects(&session, ObjectClass::PRIVATE_KEY, "noise")[0];
    session.update_attributes(private, &[Attribute::Label(b"away".to_vec())]).unwrap();
    drop(session);
    reset(backend.token());
    for _ in 0..2 {
        assert_eq!(kind(token.agree(&peer(curve).1, soon())), ErrorKind::KeyNotFound);
    }
    let session = log_in(&second_view(backend.token()), backend.token());
    let private = objects(&session, ObjectClass::PRIVATE_KEY, "away")[0];
    session.update_attributes(private, &[Attribute::Label(b"noise".to_vec())]).unwrap();
    drop(session);
    agrees(token.as_mut());
}

fn a_pulled_token_is_a_state(backend: &Backend, curve: Curve) {
    let (locator, public) = backend.generate("noise", curve);
    let mut pins = Given::new(PIN);
    let mut token = open(&locator, None, &mut pins).unwrap();
    for _ in 0..2 {
        second_view(backend.token()).finalize().unwrap();
        backend.token().pull();
        for _ in 0..3 {
            assert_eq!(kind(token.agree(&peer(curve).1, soon())), ErrorKind::TokenAbsent);
        }
        assert_eq!(token.public_key(), &public);
        second_view(backend.token()).finalize().unwrap();
        backend.token().put_back();
        agrees(token.as_mut());
    }
    assert_eq!(pins.asked, 1);

    // Another token of the same name, with another key of the same name, is not taken for it.
    let Locator::Pkcs11(uri) = backend.locator("noise") else { panic!("{locator} is no URI") };
    let mut by_name = open(&Locator::Pkcs11(uri), None, &mut pins).unwrap();
    let session = log_in(&second_view(backend.token()), backend.token());
    for class in [ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY] {
        session.destroy_object(objects(&session, class, "noise")[0]).unwrap();
    }
    drop(session);
    backend.generate("noise", curve);
    reset(backend.token());
    assert_eq!(kind(by_name.agree(&peer(curve).1, soon())), ErrorKind::KeyMismatch);
}

fn a_pin_that_failed_is_not_resent(backend: &Backend, curve: Curve) {
    let (locator, _) = backend.generate("noise", curve);
    let mut token = open(&locator, None, &mut Given::new(PIN)).unwrap();
    let session = log_in(&second_view(backend.token()), backend.token());
    session.set_pin(&AuthPin::new(PIN.into()), &AuthPin::new("161803".into())).unwrap();
    drop(session);
    reset(backend.token());
    // kryoptic locks after ten: fifteen that were sent would show.
    for _ in 0..15 {
        assert_eq!(kind(token.agree(&peer(curve).1, soon())), ErrorKind::WrongPin);
    }
    agrees(open(&locator, None, &mut Given::new("161803")).unwrap().as_mut());
    assert_eq!(kind(token.agree(&peer(curve).1, soon())), ErrorKind::WrongPin);
}

fn a_new_key_never_leaves(backend: &Backend, curve: Curve) {
    backend.generate("noise", curve);
    let session = log_in(&second_view(backend.token()), backend.token());
    let private = objects(&session, ObjectClass::PRIVATE_KEY, "noise")[0];
    let wanted = [
        (AttributeType::Token, Attribute::Token(true)),
        (AttributeType::Private, Attribute::Private(true)),
        (AttributeType::Sensitive, Attribute::Sensitive(true)),
        (AttributeType::AlwaysSensitive, Attribute::AlwaysSensitive(true)),
        (AttributeType::Extractable, Attribute::Extractable(false)),
        (AttributeType::NeverExtractable, Attribute::NeverExtractable(true)),
        (AttributeType::Derive, Attribute::Derive(true)),
    ];
    for (name, value) in wanted {
        assert_eq!(session.get_attributes(private, &[name]).unwrap(), [value]);
    }
    let value = session.get_attributes(private, &[AttributeType::Value]);
    assert!(value.is_err() || value.unwrap().is_empty());
}

fn the_public_half_must_be_there_and_fit(backend: &Backend, curve: Curve) {
    let (locator, _) = backend.generate("noise", curve);
    backend.generate("stray", curve);
    let Locator::Pkcs11(uri) = &locator else { panic!("{locator} is no URI") };
    let id = uri.id().unwrap();
    let session = log_in(&second_view(backend.token()), backend.token());
    session.destroy_object(objects(&session, ObjectClass::PUBLIC_KEY, "noise")[0]).unwrap();
    let error = open(&locator, None, &mut Given::new(PIN)).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::KeyNotFound);
    assert!(error.to_string().contains("public key object is missing"), "{error}");

    let stray = objects(&session, ObjectClass::PUBLIC_KEY, "stray")[0];
    session.update_attributes(stray, &[Attribute::Id(id.to_vec())]).unwrap();
    let error = open(&locator, None, &mut Given::new(PIN)).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::KeyMismatch);
    assert!(error.to_string().contains("does not belong"), "{error}");
}

fn two_keys_of_one_name_are_ambiguous(backend: &Backend, curve: Curve) {
    let (first, public) = backend.generate("noise", curve);
    backend.generate("noise2", curve);
    let session = log_in(&second_view(backend.token()), backend.token());
    for class in [ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY] {
        let object = objects(&session, class, "noise2")[0];
        session.update_attributes(object, &[Attribute::Label(b"noise".to_vec())]).unwrap();
    }
    assert_eq!(kind(open(&backend.locator("noise"), None, &mut Given::new(PIN))), ErrorKind::KeyAmbiguous);
    agrees(open(&first, Some(&public), &mut Given::new(PIN)).unwrap().as_mut());
}

fn tokens_are_listed(backend: &Backend, curve: Curve) {
    let (locator, public) = backend.generate("noise", curve);
    let Locator::Pkcs11(uri) = &locator else { panic!("{locator} is no URI") };
    let tokens = pkcs11::list(backend.token().module()).unwrap();
    let token = tokens.iter().find(|token| token.label == "cosigner").unwrap();
    assert_eq!(uri.serial(), Some(token.serial.as_str()));
    assert!(token.initialized && token.pin.set && !token.pin.pad && token.unusable.is_none(), "{token:?}");
    assert_eq!((&token.curves[..], token.pin.tries_left), (&[Curve::X25519, Curve::P256][..], Tries::Unknown));
    assert_eq!(token.keys.len(), 1);
    let key = &token.keys[0];
    assert_eq!((key.label.as_str(), Some(&key.id[..]), &key.public_key), ("noise", uri.id(), &Ok(public)));
}

fn a_pin_file_must_be_closed(backend: &Backend, curve: Curve) {
    use std::os::unix::fs::PermissionsExt;
    backend.generate("noise", curve);
    let token = backend.token();
    let locator = token.uri_with_pin("noise").parse().unwrap();
    agrees(open(&locator, None, &mut Nobody).unwrap().as_mut());
    for mode in [0o640, 0o604, 0o610, 0o602] {
        std::fs::set_permissions(token.pin_file(), PermissionsExt::from_mode(mode)).unwrap();
        assert_eq!(kind(open(&locator, None, &mut Nobody)), ErrorKind::LoosePermissions);
    }
    std::fs::set_permissions(token.pin_file(), PermissionsExt::from_mode(0o400)).unwrap();
    agrees(open(&locator, None, &mut Nobody).unwrap().as_mut());
    std::fs::remove_file(token.pin_file()).unwrap();
    assert_eq!(kind(open(&locator, None, &mut Nobody)), ErrorKind::Io);
    std::fs::create_dir(token.pin_file()).unwrap();
    assert_eq!(kind(open(&locator, None, &mut Nobody)), ErrorKind::LoosePermissions);
}

/// A spare with the same label is plugged in instead: it loses no try to the other's PIN, and the right one works when it is back.
#[test]
fn a_pin_goes_to_no_other_token_of_the_same_name() {
    isolated(|| {
        let hsm = SoftHsm::new();
        let first = hsm.init_token("cosigner", SO_PIN, PIN);
        first.pull();
        let spare = hsm.init_token("cosigner", SO_PIN, "161803");
        spare.pull();
        first.put_back();
        let backend = Backend::SoftHsm(first);
        let (_, public) = backend.generate("noise", Curve::X25519);
        let mut token = open(&backend.locator("noise"), Some(&public), &mut Given::new(PIN)).unwrap();
        let swap = |out: &TestToken, into: &TestToken| {
            second_view(out).finalize().unwrap();
            out.pull();
            into.put_back();
        };
        swap(backend.token(), &spare);
        for _ in 0..3 {
            assert_eq!(kind(token.agree(&peer(Curve::X25519).1, soon())), ErrorKind::TokenAbsent);
        }
        let listed = pkcs11::list(spare.module()).unwrap();
        let there = listed.iter().find(|token| token.label == "cosigner").unwrap();
        assert_eq!(there.pin.tries_left, Tries::Unknown, "a PIN was sent to it");
        swap(&spare, backend.token());
        agrees(token.as_mut());
    });
}

#[test]
fn the_last_try_needs_a_yes() {
    isolated(|| {
        let backend = Backend::kryoptic();
        let (locator, _) = backend.generate("noise", Curve::X25519);
        let tries = || pkcs11::list(backend.token().module()).unwrap()[0].pin.tries_left;
        let mut wrong = Given::new("314159");
        while tries() != Tries::Last {
            assert_eq!(kind(open(&locator, None, &mut wrong)), ErrorKind::WrongPin);
            assert!(wrong.asked < 10);
        }
        assert_eq!(wrong.tries, Some(Tries::Low));
        // Nothing is asked for and nothing is sent, however often, PIN file or not.
        let with_pin = backend.token().uri_with_pin("noise").parse().unwrap();
        for _ in 0..3 {
            let asked = wrong.asked;
            assert_eq!(kind(open(&locator, None, &mut wrong)), ErrorKind::PinLast);
            assert_eq!(kind(open(&with_pin, None, &mut Nobody)), ErrorKind::PinLast);
            assert_eq!((wrong.asked, tries()), (asked, Tries::Last));
        }
        // With a yes the right PIN opens it, and the wrong one locks it.
        agrees(open(&locator, None, &mut Given { spend_last: true, ..Given::new(PIN) }).unwrap().as_mut());
        assert_eq!(tries(), Tries::Unknown);
        wrong.spend_last = true;
        while tries() != Tries::None {
            kind(open(&locator, None, &mut wrong));
            assert!(wrong.asked < 30);
        }
        assert_eq!(kind(open(&locator, None, &mut Given::new(PIN))), ErrorKind::PinLocked);
        assert!(pkcs11::list(backend.token().module()).unwrap()[0].unusable.as_ref().unwrap().contains("locked"));
    });
}

#[test]
fn two_tokens_and_two_modules_in_one_process() {
    isolated(|| {
        let (softhsm, kryoptic) = (SoftHsm::new(), Kryoptic::new());
        let made = [
            softhsm.init_token("one", SO_PIN, "1111"),
            softhsm.init_token("two", SO_PIN, "2222"),
            kryoptic.init_token("three", SO_PIN, "3333"),
            kryoptic.init_token("four", SO_PIN, "4444"),
        ];
        let mut tokens = Vec::new();
        for (token, object) in made.iter().flat_map(|token| [(token, "a"), (token, "b")]) {
            let uri: Pkcs11Uri = token.uri_with_pin(object).parse().unwrap();
            let curve = if object == "a" { Curve::X25519 } else { Curve::P256 };
            let (uri, public) = pkcs11::generate(&uri, curve, &mut Nobody).unwrap();
            tokens.push(open(&Locator::Pkcs11(uri), Some(&public), &mut Nobody).unwrap());
        }
        // From a thread each, all at once.
        std::thread::scope(|scope| {
            for token in &mut tokens {
                scope.spawn(|| (0..50).for_each(|_| agrees(token.as_mut())));
            }
        });
        // A URI that fits several tokens names none.
        let uri = format!("pkcs11:object=a?module-path={}", softhsm.module().display());
        assert_eq!(kind(open(&uri.parse().unwrap(), None, &mut Nobody)), ErrorKind::TokenAmbiguous);
        let uri = format!("pkcs11:token=five;object=a?module-path={}", softhsm.module().display());
        let error = open(&uri.parse().unwrap(), None, &mut Nobody).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::TokenAbsent);
        assert!(error.to_string().contains("\"one\"") && error.to_string().contains("\"two\""), "{error}");
    });
}

#[test]
fn keys_of_other_kinds_are_refused() {
    isolated(|| {
        let backend = Backend::softhsm();
        let session = log_in(&second_view(backend.token()), backend.token());
        let p384 = Attribute::EcParams(vec![0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22]);
        let ed25519 = Attribute::EcParams(vec![0x06, 0x03, 0x2b, 0x65, 0x70]);
        let rsa = [Attribute::ModulusBits(2048.into()), Attribute::PublicExponent(vec![1, 0, 1])];
        let kinds = [
            ("p384", Mechanism::EccKeyPairGen, vec![p384]),
            ("ed25519", Mechanism::EccEdwardsKeyPairGen, vec![ed25519]),
            ("rsa", Mechanism::RsaPkcsKeyPairGen, rsa.to_vec()),
        ];
        for (label, mechanism, parameters) in kinds {
            let both = [Attribute::Token(true), Attribute::Label(label.into()), Attribute::Id(label.into())];
            let public = [&both[..], &parameters].concat();
            session.generate_key_pair(&mechanism, &public, &both).unwrap();
            assert_eq!(
                kind(open(&backend.locator(label), None, &mut Given::new(PIN))),
                ErrorKind::WrongCurve,
                "{label}"
            );
        }
        let tokens = pkcs11::list(backend.token().module()).unwrap();
        let keys = &tokens.iter().find(|token| token.label == "cosigner").unwrap().keys;
        assert!(keys.len() == 3 && keys.iter().all(|key| key.public_key.is_err()), "{keys:?}");
    });
}

#[test]
fn modules_that_are_none() {
    let open = |uri: &str| open(&uri.parse().unwrap(), None, &mut Nobody);
    assert_eq!(kind(open("pkcs11:token=a;object=b")), ErrorKind::ModuleMissing);
    assert_eq!(kind(open("pkcs11:token=a?module-path=/nonexistent/module.so")), ErrorKind::ModuleMissing);
    let directory = tempfile::tempdir().unwrap();
    let text = directory.path().join("module.so");
    std::fs::write(&text, "no shared object").unwrap();
    assert_eq!(kind(open(&format!("pkcs11:token=a?module-path={}", text.display()))), ErrorKind::ModuleMissing);
    let libm = ["/lib/x86_64-linux-gnu/libm.so.6", "/lib/aarch64-linux-gnu/libm.so.6"];
    let libm = libm.into_iter().find(|path| Path::new(path).exists()).unwrap();
    let error = open(&format!("pkcs11:token=a?module-path={libm}")).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::ModuleMissing);
    assert!(error.to_string().contains("is no PKCS#11 module"), "{error}");
}

#[test]
fn a_module_that_cannot_start_is_not_a_missing_one() {
    isolated(|| {
        // No SoftHsm::new(): its configuration file is not there.
        let uri = "pkcs11:token=a?module-path=/usr/lib/softhsm/libsofthsm2.so".parse().unwrap();
        assert_eq!(kind(open(&uri, None, &mut Nobody)), ErrorKind::ModuleFailed);
    });
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
