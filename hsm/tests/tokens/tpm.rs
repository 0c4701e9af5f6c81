//! TPM 2.0: swtpm.

use claviger_hsm::{
    Curve, ErrorKind, KeepPin, Locator, NewKey, Operation, Pin, PinEntry, PinPolicy, PinRequest, Presence, Purpose,
    Result, TokenKind, Touch, Tries, tpm,
};
use claviger_testkit::cards::Swtpm;
use claviger_testkit::token::{self, isolated};

use crate::backend::{
    Backend, Coming, Counting, Given, Nobody, WRONG_PIN, agree, agrees, agrees_asking, kind, open, ready, soon,
};

const CURVE: Curve = Curve::P256;

/// A persistent key with a PIN.
pub(crate) struct Persistent(Swtpm);

/// A primary key of an owner hierarchy without authorization value.
pub(crate) struct Owner(Swtpm);

fn locator(swtpm: &Swtpm, key: &str) -> Locator {
    format!("tpm2:{key}?tcti={}", swtpm.tcti()).parse().unwrap()
}

macro_rules! tpm {
    ($backend:ident, $key:literal) => {
        impl Backend for $backend {
            const KIND: TokenKind = TokenKind::Tpm;
            const FORGETS: bool = true;

            fn new() -> Self {
                Self(Swtpm::start())
            }

            fn place(&self, _: Curve) -> Locator {
                locator(&self.0, $key)
            }
        }

        impl Coming for $backend {
            const GONE: ErrorKind = ErrorKind::ServiceAbsent;

            fn pull(&self) {
                self.0.stop();
            }

            fn insert(&self) {
                self.0.start_again();
            }
        }
    };
}

tpm!(Persistent, "0x81010042");
tpm!(Owner, "owner/cosigner");

impl Counting for Persistent {
    // libtpms: MAX_TRIES of the reference implementation.
    const TRIES: u8 = 3;
    const FORGIVES: bool = false;
}

#[test]
fn what_it_is_called() {
    isolated(|| {
        let (backend, locator, public) = ready::<Persistent>(CURVE);
        let token = open(&locator, None, &mut Given::new(token::PIN)).unwrap();
        let hints = token.hints().clone();
        assert_eq!(hints.label, "TPM \"IBM SW   TPM\", key 0x81010042");
        assert_eq!((hints.hardware, hints.touch, hints.pin), (false, Touch::Never, PinPolicy::Always));
        drop(token);
        let devices = tpm::list(Some(&backend.0.tcti())).unwrap();
        let [device] = &devices[..] else { panic!("{devices:?}") };
        assert_eq!((device.maker.as_str(), device.model.as_str(), device.hardware), ("IBM", "SW   TPM", false));
        assert_eq!((&device.curves[..], device.pin.unwrap().tries_left), (&[CURVE][..], Tries::Left(3)));
        let [key] = &device.keys[..] else { panic!("{devices:?}") };
        assert_eq!((&key.locator, &key.public_key), (&Some(locator), &Ok(public)));
        assert_eq!((key.place.as_str(), key.pin), ("0x81010042", Some(PinPolicy::Always)));
    });
}

#[test]
fn a_key_without_a_pin_asks_nobody() {
    isolated(|| {
        let swtpm = Swtpm::start();
        let place = locator(&swtpm, "0x81000100");
        let mut new = NewKey::new(CURVE);
        new.pin = Some(PinPolicy::Never);
        let (made, public) = claviger_hsm::generate(&place, &new, &mut soon(&mut Nobody)).unwrap();
        let mut token = open(&made, Some(&public), &mut Nobody).unwrap();
        assert_eq!(token.hints().pin, PinPolicy::Never);
        assert!(!token.pin_state().unwrap().set);
        agrees(token.as_mut());
        swtpm.restart();
        agrees(token.as_mut());
    });
}

#[test]
fn an_owner_key_is_the_same_at_every_start() {
    isolated(|| {
        let (backend, place, public) = ready::<Owner>(CURVE);
        for _ in 0..2 {
            agrees(open(&place, Some(&public), &mut Nobody).unwrap().as_mut());
            backend.0.restart();
        }
        let other = locator(&backend.0, "owner/watchtower");
        assert_eq!(kind(open(&other, Some(&public), &mut Nobody)), ErrorKind::KeyMismatch);
        assert_eq!(open(&other, None, &mut Nobody).unwrap().hints().pin, PinPolicy::Never);
    });
}

/// As `tpm2_changeauth --object-context=owner` does.
fn set_owner_auth(swtpm: &Swtpm, auth: &str) {
    use tss_esapi::handles::AuthHandle;
    use tss_esapi::interface_types::session_handles::AuthSession;
    let mut context = tss_esapi::Context::new(swtpm.tcti().parse().unwrap()).unwrap();
    context.set_sessions((Some(AuthSession::Password), None, None));
    context.hierarchy_change_auth(AuthHandle::Owner, auth.as_bytes().try_into().unwrap()).unwrap();
}

/// Tells the owner's authorization from the PIN of a key.
struct Ceremony {
    owner: &'static str,
    asked: Vec<Purpose>,
}

impl PinEntry for Ceremony {
    fn pin(&mut self, request: &PinRequest<'_>) -> Result<Pin> {
        self.asked.push(request.purpose);
        Pin::new(if request.purpose == Purpose::OwnerAuth { self.owner.into() } else { token::PIN.into() })
    }
}

#[test]
fn the_owners_authorization_makes_keys() {
    isolated(|| {
        let swtpm = Swtpm::start();
        set_owner_auth(&swtpm, "0wner");
        let place = locator(&swtpm, "0x81010042");
        let generate = |people: &mut Ceremony| claviger_hsm::generate(&place, &NewKey::new(CURVE), &mut soon(people));
        let mut wrong = Ceremony { owner: "owner", asked: Vec::new() };
        assert_eq!(kind(generate(&mut wrong)), ErrorKind::WrongPin);
        assert!(tpm::list(Some(&swtpm.tcti())).unwrap()[0].keys.is_empty());
        let mut right = Ceremony { owner: "0wner", asked: Vec::new() };
        let (made, public) = generate(&mut right).unwrap();
        assert_eq!(right.asked, [Purpose::NewPin, Purpose::OwnerAuth]);
        agrees(open(&made, Some(&public), &mut Given::new(token::PIN)).unwrap().as_mut());

        // It is the PIN of owner keys.
        let place = locator(&swtpm, "owner/cosigner");
        assert_eq!(kind(open(&place, None, &mut Given::new(WRONG_PIN))), ErrorKind::WrongPin);
        assert_eq!(kind(open(&place, None, &mut Nobody)), ErrorKind::PinRequired);
        for (keep, asks) in [(KeepPin::Once, 0), (KeepPin::Never, 0), (KeepPin::Always, 1)] {
            let mut people = Given::new("0wner");
            let mut token = claviger_hsm::open(&place, None, keep, &mut soon(&mut people)).unwrap();
            assert_eq!((people.asked, token.hints().pin), (1, PinPolicy::Always));
            let ready = if asks == 0 { Presence::Ready } else { Presence::Locked };
            for _ in 0..2 {
                assert_eq!(token.look().unwrap(), ready, "{keep}");
                let mut people = Given::new("0wner");
                agrees_asking(token.as_mut(), &mut people);
                assert_eq!(people.asked, asks, "{keep}");
            }
            swtpm.restart();
            let mut people = Given::new("0wner");
            agrees_asking(token.as_mut(), &mut people);
            assert_eq!(people.asked, u32::from(keep != KeepPin::Once), "{keep}");
        }
    });
}

#[test]
fn a_pin_that_was_changed_is_not_resent() {
    isolated(|| {
        let (backend, place, public) = ready::<Persistent>(CURVE);
        let mut token = open(&place, Some(&public), &mut Given::new(token::PIN)).unwrap();
        // Another key, with another PIN, is put in its place: the old PIN is not sent to it.
        backend.0.stop();
        assert_eq!(kind(agree(token.as_mut())), ErrorKind::ServiceAbsent);
        backend.0.start_again();
        let mut new = NewKey::new(CURVE);
        new.replace = Some(public.clone());
        let mut people = Given::new("161803");
        let (_, other) = claviger_hsm::generate(&place, &new, &mut soon(&mut people)).unwrap();
        assert_ne!(public, other);
        for _ in 0..5 {
            assert_eq!(kind(agree(token.as_mut())), ErrorKind::KeyMismatch);
            assert_eq!(kind(token.look()), ErrorKind::KeyMismatch);
        }
        drop(token);
        assert_eq!(tpm::list(Some(&backend.0.tcti())).unwrap()[0].pin.unwrap().tries_left, Tries::Left(3));
        agrees(open(&place, Some(&other), &mut Given::new("161803")).unwrap().as_mut());
    });
}

#[test]
fn what_a_tpm_has_not_is_refused() {
    isolated(|| {
        let swtpm = Swtpm::start();
        let generate = |key: &str, new: &NewKey| {
            claviger_hsm::generate(&locator(&swtpm, key), new, &mut soon(&mut Given::new(token::PIN)))
        };
        assert_eq!(kind(generate("0x81010042", &NewKey::new(Curve::X25519))), ErrorKind::Unsupported);
        let mut touch = NewKey::new(CURVE);
        touch.touch = Some(Touch::Always);
        assert_eq!(kind(generate("0x81010042", &touch)), ErrorKind::Unsupported);
        let mut pin = NewKey::new(CURVE);
        pin.pin = Some(PinPolicy::Never);
        assert_eq!(kind(generate("owner/cosigner", &pin)), ErrorKind::Unsupported);
        let error = open(&locator(&swtpm, "0x81010042"), None, &mut Nobody).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::KeyNotFound);
        assert!(error.to_string().contains("holds no persistent key"), "{error}");
        let long = "1".repeat(33);
        let made = claviger_hsm::generate(
            &locator(&swtpm, "0x81010042"),
            &NewKey::new(CURVE),
            &mut soon(&mut Given::new(&long)),
        );
        assert_eq!(kind(made), ErrorKind::PinRequired);
        assert!(tpm::list(Some(&swtpm.tcti())).unwrap()[0].keys.is_empty());
    });
}

/// What is made on the way is flushed, whatever becomes of the key: swtpm has room for three transient objects.
#[test]
fn nothing_transient_is_left() {
    isolated(|| {
        let (backend, place, _) = ready::<Persistent>(CURVE);
        for _ in 0..5 {
            let mut given = Given::new(token::PIN);
            assert_eq!(
                kind(claviger_hsm::generate(&place, &NewKey::new(CURVE), &mut soon(&mut given))),
                ErrorKind::KeyExists
            );
            drop(open(&place, None, &mut Given::new(token::PIN)).unwrap());
            drop(open(&locator(&backend.0, "owner/a"), None, &mut Nobody).unwrap());
        }
        use tss_esapi::constants::CapabilityType;
        let mut context = tss_esapi::Context::new(backend.0.tcti().parse().unwrap()).unwrap();
        for first in [0x8000_0000, 0x0200_0000, 0x0300_0000] {
            let (there, _) = context.get_capability(CapabilityType::Handles, first, 8).unwrap();
            let tss_esapi::structures::CapabilityData::Handles(there) = there else { panic!("no handles") };
            assert!(there.into_inner().is_empty(), "{first:#x}");
        }
    });
}

/// A TPM that lost its power counts that as a wrong PIN: part 1, section 19.8.6.
#[test]
fn a_power_failure_costs_a_try() {
    isolated(|| {
        let (backend, place, _) = ready::<Persistent>(CURVE);
        let mut token = open(&place, None, &mut Given::new(token::PIN)).unwrap();
        backend.0.cut();
        backend.0.start_again();
        agrees(token.as_mut());
        assert_eq!(token.pin_state().unwrap().tries_left, Tries::Left(2));
        backend.0.restart();
        agrees(token.as_mut());
        assert_eq!(token.pin_state().unwrap().tries_left, Tries::Left(2));
    });
}

/// Keys of other programs: what cannot agree, or could leave the TPM.
#[test]
fn keys_that_are_not_ours() {
    use tss_esapi::attributes::ObjectAttributesBuilder;
    use tss_esapi::handles::{ObjectHandle, PersistentTpmHandle};
    use tss_esapi::interface_types::algorithm::{HashingAlgorithm, PublicAlgorithm};
    use tss_esapi::interface_types::dynamic_handles::Persistent;
    use tss_esapi::interface_types::ecc::EccCurve;
    use tss_esapi::interface_types::resource_handles::{Hierarchy, Provision};
    use tss_esapi::interface_types::session_handles::AuthSession;
    use tss_esapi::structures::{
        EccPoint, EccScheme, HashScheme, KeyDerivationFunctionScheme, PublicBuilder, PublicEccParametersBuilder,
    };
    isolated(|| {
        let swtpm = Swtpm::start();
        let put = |handle: u32, fixed: bool, signs: bool, curve: EccCurve| {
            let mut context = tss_esapi::Context::new(swtpm.tcti().parse().unwrap()).unwrap();
            context.set_sessions((Some(AuthSession::Password), None, None));
            let attributes = ObjectAttributesBuilder::new()
                .with_fixed_tpm(fixed)
                .with_fixed_parent(fixed)
                .with_sensitive_data_origin(true)
                .with_user_with_auth(true)
                .with_no_da(true)
                .with_decrypt(!signs)
                .with_sign_encrypt(signs);
            let hash = HashScheme::new(HashingAlgorithm::Sha256);
            let parameters = PublicEccParametersBuilder::new()
                .with_ecc_scheme(if signs { EccScheme::EcDsa(hash) } else { EccScheme::EcDh(hash) })
                .with_curve(curve)
                .with_is_signing_key(signs)
                .with_is_decryption_key(!signs)
                .with_key_derivation_function_scheme(KeyDerivationFunctionScheme::Null);
            let public = PublicBuilder::new()
                .with_public_algorithm(PublicAlgorithm::Ecc)
                .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
                .with_object_attributes(attributes.build().unwrap())
                .with_ecc_parameters(parameters.build().unwrap())
                .with_ecc_unique_identifier(EccPoint::default())
                .build()
                .unwrap();
            let key = context.create_primary(Hierarchy::Owner, public, None, None, None, None).unwrap().key_handle;
            let place = Persistent::Persistent(PersistentTpmHandle::new(handle).unwrap());
            context.evict_control(Provision::Owner, ObjectHandle::from(key), place).unwrap();
        };
        put(0x8100_0001, true, true, EccCurve::NistP256);
        put(0x8100_0002, true, false, EccCurve::NistP384);
        put(0x8100_0003, false, false, EccCurve::NistP256);
        put(0x8100_0004, true, false, EccCurve::NistP256);
        let refused = |handle: &str| kind(open(&locator(&swtpm, handle), None, &mut Nobody));
        assert_eq!(refused("0x81000001"), ErrorKind::Unsupported);
        assert_eq!(refused("0x81000002"), ErrorKind::WrongCurve);
        assert_eq!(refused("0x81000003"), ErrorKind::KeyExposed);
        // Made elsewhere, and good.
        agrees(open(&locator(&swtpm, "0x81000004"), None, &mut Nobody).unwrap().as_mut());
        let listed = tpm::list(Some(&swtpm.tcti())).unwrap().remove(0).keys;
        assert_eq!(listed.len(), 2);
        assert!(listed[0].public_key.is_err() && listed[1].public_key.is_ok(), "{listed:?}");
    });
}

#[test]
fn a_tpm_that_is_back_is_in_time() {
    isolated(|| {
        let (backend, place, _) = ready::<Persistent>(CURVE);
        let mut token = open(&place, None, &mut Given::new(token::PIN)).unwrap();
        backend.0.restart();
        let mut nobody = Nobody;
        let mut late = Operation::within(std::time::Duration::ZERO, &mut nobody);
        assert_eq!(kind(token.agree(&crate::backend::peer(CURVE).1, &mut late)), ErrorKind::Deadline);
        agrees(token.as_mut());
    });
}

/// What holds for every token, but for a PIN of its own and for being made once. Two programs at once would need a resource manager.
mod owner {
    use crate::backend::each;
    use crate::coming::{
        a_pulled_token_is_a_state, an_absence_that_nobody_saw_is_none, looking_finds_a_token_that_is_back,
    };
    use crate::every::{
        a_deadline_that_passed_stops_the_token, a_generated_key_agrees, a_pin_is_kept_as_the_policy_says,
        a_thousand_operations_leave_nothing_behind, another_key_and_another_curve_are_refused, looking_changes_nothing,
    };

    each! {
        owner_key: crate::tpm::Owner [P256]
        => {
            a_deadline_that_passed_stops_the_token
            a_generated_key_agrees
            a_pin_is_kept_as_the_policy_says
            a_pulled_token_is_a_state
            a_thousand_operations_leave_nothing_behind
            an_absence_that_nobody_saw_is_none
            another_key_and_another_curve_are_refused
            looking_changes_nothing
            looking_finds_a_token_that_is_back
        }
    }
}
