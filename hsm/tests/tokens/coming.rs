//! Tokens that go away and come back.

use claviger_hsm::Curve;

use crate::backend::{Coming, Given, agree, agrees, each, kind, open, ready};

/// Pulled and put back: the next agree finds it, and nobody is asked again.
pub(crate) fn a_pulled_token_is_a_state<B: Coming>(curve: Curve) {
    let (backend, locator, public) = ready::<B>(curve);
    let mut people = Given::new(B::PIN);
    let mut token = open(&locator, None, &mut people).unwrap();
    assert!(people.asked <= 1);
    for _ in 0..2 {
        backend.pull();
        for _ in 0..3 {
            assert_eq!(kind(agree(token.as_mut())), B::GONE);
        }
        assert_eq!(kind(token.look()), B::GONE);
        assert_eq!(kind(token.pin_state()), B::GONE);
        assert_eq!(kind(open(&locator, None, &mut people)), B::GONE);
        assert_eq!(token.public_key(), &public);
        backend.insert();
        agrees(token.as_mut());
        agrees(token.as_mut());
    }
}

/// It was away between two agrees, and nobody looked.
pub(crate) fn an_absence_that_nobody_saw_is_none<B: Coming>(curve: Curve) {
    let (backend, locator, _) = ready::<B>(curve);
    let mut token = open(&locator, None, &mut Given::new(B::PIN)).unwrap();
    for _ in 0..3 {
        backend.pull();
        backend.insert();
        agrees(token.as_mut());
    }
}

/// Looking finds it, too, and needs no PIN.
pub(crate) fn looking_finds_a_token_that_is_back<B: Coming>(curve: Curve) {
    let (backend, locator, _) = ready::<B>(curve);
    let mut token = open(&locator, None, &mut Given::new(B::PIN)).unwrap();
    backend.pull();
    assert_eq!(kind(token.look()), B::GONE);
    backend.insert();
    assert_eq!(token.look().unwrap(), claviger_hsm::Presence::Ready);
    agrees(token.as_mut());
}

each! {
    #[cfg(feature = "openpgp")]
    openpgp: crate::openpgp::OpenPgpCard [X25519 P256],
    softhsm: crate::pkcs11::SoftHsmToken [X25519 P256],
    kryoptic: crate::pkcs11::KryopticToken [X25519 P256],
    #[cfg(feature = "tpm")] tpm: crate::tpm::Persistent [P256],
    piv_card: crate::piv::PivCard [P256],
    yubikey: crate::piv::YubiKey [X25519 P256]
    => {
        a_pulled_token_is_a_state
        an_absence_that_nobody_saw_is_none
        looking_finds_a_token_that_is_back
    }
}
