//! PKCS#11 modules: what only they can do wrong.

use std::path::Path;

use claviger_hsm::{Curve, ErrorKind, KeepPin, Locator, NewKey, Pkcs11Uri, PublicKey, TokenKind, Tries, pkcs11};
use claviger_testkit::token::{Kryoptic, PIN, SO_PIN, SoftHsm, TestToken, isolated};
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, SessionState, UserType};
use cryptoki::types::AuthPin;

use crate::backend::{
    Backend, Coming, Given, Nobody, WRONG_PIN, agree, agrees, agrees_asking, each, kind, open, peer, soon,
};

pub(crate) struct SoftHsmToken(TestToken);

pub(crate) struct KryopticToken(TestToken);

/// A token behind a module of this process.
trait Module: Coming {
    /// What hints call the token of the tests.
    const LABEL: &str;

    fn token(&self) -> &TestToken;

    fn locator(&self, object: &str) -> Locator {
        self.token().uri(object).parse().unwrap()
    }

    /// Makes a key called `object`.
    fn named(&self, object: &str, curve: Curve) -> (Locator, PublicKey) {
        let mut people = Given::new(PIN);
        claviger_hsm::generate(&self.locator(object), &NewKey::new(curve), &mut soon(&mut people)).unwrap()
    }
}

macro_rules! module {
    ($backend:ident, $installation:ident, $label:literal) => {
        impl Module for $backend {
            const LABEL: &str = $label;

            fn token(&self) -> &TestToken {
                &self.0
            }
        }

        impl Backend for $backend {
            const KIND: TokenKind = TokenKind::Pkcs11;

            fn new() -> Self {
                Self($installation::new().init_token("cosigner", SO_PIN, PIN))
            }

            fn place(&self, _: Curve) -> Locator {
                self.locator("noise")
            }

            fn forget(&self) {
                reset(&self.0);
            }
        }

        impl Coming for $backend {
            fn pull(&self) {
                second_view(&self.0).finalize().unwrap();
                self.0.pull();
            }

            fn insert(&self) {
                second_view(&self.0).finalize().unwrap();
                self.0.put_back();
            }
        }
    };
}

module!(SoftHsmToken, SoftHsm, "SoftHSM v2 token \"cosigner\", object \"noise\"");
module!(KryopticToken, Kryoptic, "v1 token \"cosigner\", object \"noise\"");

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

fn what_it_is_called<B: Module>(curve: Curve) {
    let backend = B::new();
    let (locator, _) = backend.named("noise", curve);
    let token = open(&locator, None, &mut Given::new(PIN)).unwrap();
    assert_eq!((token.hints().label.as_str(), token.hints().hardware), (B::LABEL, false));
}

fn a_missing_key_is_named<B: Module>(curve: Curve) {
    let backend = B::new();
    backend.named("noise", curve);
    let error = open(&backend.locator("nosie"), None, &mut Given::new(PIN)).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::KeyNotFound);
    assert!(error.to_string().contains("it holds \"noise\""), "{error}");
}

fn a_stale_session_is_opened_again<B: Module>(curve: Curve) {
    let backend = B::new();
    let (locator, _) = backend.named("noise", curve);
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
    let rename = |from: &str, to: &str| {
        let session = log_in(&second_view(backend.token()), backend.token());
        for class in [ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY] {
            let object = objects(&session, class, from)[0];
            session.update_attributes(object, &[Attribute::Label(to.into())]).unwrap();
        }
    };
    rename("noise", "away");
    reset(backend.token());
    for _ in 0..2 {
        assert_eq!(kind(agree(token.as_mut())), ErrorKind::KeyNotFound);
    }
    rename("away", "noise");
    agrees(token.as_mut());
}

fn another_key_of_the_same_name_is_not_taken_for_it<B: Module>(curve: Curve) {
    let backend = B::new();
    backend.named("noise", curve);
    let mut by_name = open(&backend.locator("noise"), None, &mut Given::new(PIN)).unwrap();
    let session = log_in(&second_view(backend.token()), backend.token());
    for class in [ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY] {
        session.destroy_object(objects(&session, class, "noise")[0]).unwrap();
    }
    drop(session);
    backend.named("noise", curve);
    reset(backend.token());
    assert_eq!(kind(agree(by_name.as_mut())), ErrorKind::KeyMismatch);
    assert_eq!(kind(by_name.look()), ErrorKind::KeyMismatch);
}

/// `always` logs out what it logged in, and no other.
fn a_pin_that_is_always_asked_leaves_no_login<B: Module>(curve: Curve) {
    let backend = B::new();
    let (locator, _) = backend.named("noise", curve);
    reset(backend.token());
    let mut always = claviger_hsm::open(&locator, None, KeepPin::Always, &mut soon(&mut Given::new(PIN))).unwrap();
    let context = second_view(backend.token());
    let logged_in = || {
        let slots = context.get_slots_with_initialized_token().unwrap();
        let session = context.open_ro_session(slots[0]).unwrap();
        session.get_session_info().unwrap().session_state() == SessionState::RoUser
    };
    assert!(!logged_in());
    agrees_asking(always.as_mut(), &mut Given::new(PIN));
    assert!(!logged_in());
    // The login of another that keeps it stays.
    let mut once = open(&locator, None, &mut Given::new(PIN)).unwrap();
    agrees_asking(always.as_mut(), &mut Given::new(PIN));
    assert!(logged_in());
    agrees(once.as_mut());
}

fn a_pin_that_failed_is_not_resent<B: Module>(curve: Curve) {
    let backend = B::new();
    let (locator, _) = backend.named("noise", curve);
    let mut token = open(&locator, None, &mut Given::new(PIN)).unwrap();
    let session = log_in(&second_view(backend.token()), backend.token());
    session.set_pin(&AuthPin::new(PIN.into()), &AuthPin::new("161803".into())).unwrap();
    drop(session);
    reset(backend.token());
    assert_eq!(kind(agree(token.as_mut())), ErrorKind::WrongPin);
    // kryoptic locks after ten: fifteen that were sent would show.
    let mut people = Given::new(PIN);
    for _ in 0..15 {
        assert_eq!(kind(token.agree(&peer(curve).1, &mut soon(&mut people))), ErrorKind::WrongPin);
    }
    assert_eq!(people.asked, 15);
    agrees(open(&locator, None, &mut Given::new("161803")).unwrap().as_mut());
    agrees_asking(token.as_mut(), &mut Given::new("161803"));
    agrees(token.as_mut());
}

fn a_new_key_never_leaves<B: Module>(curve: Curve) {
    let backend = B::new();
    backend.named("noise", curve);
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

fn the_public_half_must_be_there_and_fit<B: Module>(curve: Curve) {
    let backend = B::new();
    let (locator, _) = backend.named("noise", curve);
    backend.named("stray", curve);
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

fn two_keys_of_one_name_are_ambiguous<B: Module>(curve: Curve) {
    let backend = B::new();
    let (first, public) = backend.named("noise", curve);
    backend.named("noise2", curve);
    let session = log_in(&second_view(backend.token()), backend.token());
    for class in [ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY] {
        let object = objects(&session, class, "noise2")[0];
        session.update_attributes(object, &[Attribute::Label(b"noise".to_vec())]).unwrap();
    }
    assert_eq!(kind(open(&backend.locator("noise"), None, &mut Given::new(PIN))), ErrorKind::KeyAmbiguous);
    agrees(open(&first, Some(&public), &mut Given::new(PIN)).unwrap().as_mut());
}

fn tokens_are_listed<B: Module>(curve: Curve) {
    let backend = B::new();
    let (locator, public) = backend.named("noise", curve);
    let Locator::Pkcs11(uri) = &locator else { panic!("{locator} is no URI") };
    let devices = pkcs11::list(backend.token().module()).unwrap();
    let device = devices.iter().find(|device| Some(device.serial.as_str()) == uri.serial()).unwrap();
    assert_eq!(device.kind, TokenKind::Pkcs11);
    assert!(device.model.contains("\"cosigner\"") && device.unusable.is_none() && !device.hardware, "{device:?}");
    let pin = device.pin.unwrap();
    assert!(pin.set && !pin.pad && pin.tries_left == Tries::Unknown, "{pin:?}");
    assert_eq!(device.curves, [Curve::X25519, Curve::P256]);
    assert_eq!(device.keys.len(), 1);
    let key = &device.keys[0];
    assert_eq!((key.place.as_str(), &key.locator, &key.public_key), ("noise", &Some(locator.clone()), &Ok(public)));
}

fn a_pin_file_must_be_closed<B: Module>(curve: Curve) {
    use std::os::unix::fs::PermissionsExt;
    let backend = B::new();
    backend.named("noise", curve);
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
        let backend = SoftHsmToken(first);
        let (_, public) = backend.named("noise", Curve::X25519);
        let mut token = open(&backend.locator("noise"), Some(&public), &mut Given::new(PIN)).unwrap();
        let swap = |out: &TestToken, into: &TestToken| {
            second_view(out).finalize().unwrap();
            out.pull();
            into.put_back();
        };
        swap(backend.token(), &spare);
        for _ in 0..3 {
            assert_eq!(kind(agree(token.as_mut())), ErrorKind::TokenAbsent);
        }
        let listed = pkcs11::list(spare.module()).unwrap();
        let there = listed.iter().find(|device| device.model.contains("\"cosigner\"")).unwrap();
        assert_eq!(there.pin.unwrap().tries_left, Tries::Unknown, "a PIN was sent to it");
        swap(&spare, backend.token());
        agrees(token.as_mut());
    });
}

#[test]
fn the_last_try_needs_a_yes() {
    isolated(|| {
        let backend = KryopticToken::new();
        let (locator, _) = backend.named("noise", Curve::X25519);
        let tries = || pkcs11::list(backend.token().module()).unwrap()[0].pin.unwrap().tries_left;
        let mut wrong = Given::new(WRONG_PIN);
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
        agrees(open(&locator, None, &mut Given::all(PIN)).unwrap().as_mut());
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
            let place = Locator::Pkcs11(uri);
            let made = claviger_hsm::generate(&place, &NewKey::new(curve), &mut soon(&mut Nobody));
            let (locator, public) = made.unwrap();
            tokens.push(open(&locator, Some(&public), &mut Nobody).unwrap());
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
        let backend = SoftHsmToken::new();
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
        let keys = &tokens.iter().find(|device| device.model.contains("\"cosigner\"")).unwrap().keys;
        assert!(keys.len() == 3 && keys.iter().all(|key| key.public_key.is_err()), "{keys:?}");
    });
}

/// Nobody is asked for a PIN before every handshake: such keys are for signatures.
#[test]
fn a_key_that_always_wants_its_pin_is_refused() {
    isolated(|| {
        let backend = SoftHsmToken::new();
        let session = log_in(&second_view(backend.token()), backend.token());
        let p256 = Attribute::EcParams(vec![0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07]);
        let both = [Attribute::Token(true), Attribute::Label(b"noise".to_vec()), Attribute::Id(vec![1])];
        let private = [&both[..], &[Attribute::Derive(true), Attribute::AlwaysAuthenticate(true)]].concat();
        session.generate_key_pair(&Mechanism::EccKeyPairGen, &[&both[..], &[p256]].concat(), &private).unwrap();
        let error = open(&backend.locator("noise"), None, &mut Given::new(PIN)).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("CKA_ALWAYS_AUTHENTICATE"), "{error}");
    });
}

/// The halves of OpenSC's keys of PIV cards: one ID, two labels.
#[test]
fn a_label_may_be_that_of_the_public_half() {
    isolated(|| {
        let backend = SoftHsmToken::new();
        let (narrow, public) = backend.named("noise", Curve::P256);
        let session = log_in(&second_view(backend.token()), backend.token());
        let private = objects(&session, ObjectClass::PRIVATE_KEY, "noise")[0];
        session.update_attributes(private, &[Attribute::Label(b"secret noise".to_vec())]).unwrap();
        for locator in [&narrow, &backend.locator("noise"), &backend.locator("secret%20noise")] {
            agrees(open(locator, Some(&public), &mut Given::new(PIN)).unwrap().as_mut());
        }
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

each! {
    softhsm: crate::pkcs11::SoftHsmToken [X25519 P256],
    kryoptic: crate::pkcs11::KryopticToken [X25519 P256]
    => {
        what_it_is_called
        a_missing_key_is_named
        a_stale_session_is_opened_again
        another_key_of_the_same_name_is_not_taken_for_it
        a_pin_that_failed_is_not_resent
        a_pin_that_is_always_asked_leaves_no_login
        a_new_key_never_leaves
        the_public_half_must_be_there_and_fit
        two_keys_of_one_name_are_ambiguous
        tokens_are_listed
        a_pin_file_must_be_closed
    }
}
