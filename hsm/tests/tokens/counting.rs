//! Tokens that count wrong PINs, tell the number, and lock.

use claviger_hsm::{Curve, ErrorKind, Tries};

use crate::backend::{Counting, Given, Nobody, WRONG_PIN, each, kind, open, ready};

fn the_tries_left_are_always_shown<B: Counting>(curve: Curve) {
    let (_backend, locator, _) = ready::<B>(curve);
    let mut wrong = Given::new(WRONG_PIN);
    for left in (2..=B::TRIES).rev() {
        let error = open(&locator, None, &mut wrong).err().unwrap();
        assert_eq!((error.kind(), wrong.tries), (ErrorKind::WrongPin, Some(Tries::Left(left))));
        assert!(error.to_string().contains(&Tries::counted(left - 1).to_string()), "{error}");
    }
}

fn the_last_try_needs_a_yes<B: Counting>(curve: Curve) {
    let (_backend, locator, _) = ready::<B>(curve);
    let mut wrong = Given::new(WRONG_PIN);
    (1..B::TRIES).for_each(|_| assert_eq!(kind(open(&locator, None, &mut wrong)), ErrorKind::WrongPin));
    // However often: nobody is asked for the PIN, and nothing is sent.
    for _ in 0..3 {
        assert_eq!(kind(open(&locator, None, &mut wrong)), ErrorKind::PinLast);
    }
    assert_eq!(wrong.asked, u32::from(B::TRIES) - 1);
    let mut token = open(&locator, None, &mut Given::all(B::PIN)).unwrap();
    let left = if B::FORGIVES { Tries::counted(B::TRIES) } else { Tries::Last };
    let state = token.pin_state().unwrap();
    // A PIV card without Yubico's extensions tells of a verified PIN that it is verified, and no number.
    let untold = state.tries_left == Tries::Unknown && state.verified == Some(true);
    assert!(untold || state.tries_left == left, "{state:?}");
}

fn a_locked_pin_is_a_state<B: Counting>(curve: Curve) {
    let (_backend, locator, _) = ready::<B>(curve);
    let mut wrong = Given::all(WRONG_PIN);
    for _ in 0..B::TRIES {
        let kind = kind(open(&locator, None, &mut wrong));
        assert!(matches!(kind, ErrorKind::WrongPin | ErrorKind::PinLocked), "{kind:?}");
    }
    assert_eq!(wrong.asked, u32::from(B::TRIES));
    for _ in 0..3 {
        assert_eq!(kind(open(&locator, None, &mut Given::all(B::PIN))), ErrorKind::PinLocked);
        assert_eq!(kind(open(&locator, None, &mut Nobody)), ErrorKind::PinLocked);
    }
}

each! {
    #[cfg(feature = "openpgp")]
    openpgp: crate::openpgp::OpenPgpCard [X25519 P256],
    #[cfg(feature = "tpm")] tpm: crate::tpm::Persistent [P256],
    piv_card: crate::piv::PivCard [P256],
    yubikey: crate::piv::YubiKey [X25519 P256]
    => {
        the_tries_left_are_always_shown
        the_last_try_needs_a_yes
        a_locked_pin_is_a_state
    }
}
