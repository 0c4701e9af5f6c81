//! OpenSC's module over the cards of this house (Debian package `opensc-pkcs11`). It makes no keys for us: they are made by the backend of the
//! card. A process that has loaded the module keeps what it read of a card until that is pulled, so a key must be there first.

use std::path::Path;

use claviger_hsm::{Curve, ErrorKind, Locator, PublicKey, TokenKind, Tries, pkcs11};
use claviger_testkit::cards::{self, Card, Pcscd};

use crate::backend::{Backend, Coming, Given, SmartCard, WRONG_PIN, agree, agrees, kind, open, ready};

const MODULE: &str = "/usr/lib/x86_64-linux-gnu/opensc-pkcs11.so";

macro_rules! opensc {
    ($backend:ident, $maker:ty) => {
        pub(crate) struct $backend($maker);

        impl Backend for $backend {
            const KIND: TokenKind = TokenKind::Pkcs11;
            const PIN: &str = cards::PIN;
            // OpenSC 0.23 loses 3.2 KiB with every C_DeriveKey, whatever becomes of its object.
            const GROWTH: u64 = 4096;

            fn alone<F: FnOnce()>(body: F) {
                cards::isolated::<F>(body);
            }

            fn new() -> Self {
                Self(<$maker>::new())
            }

            /// Once the key is there.
            fn place(&self, _: Curve) -> Locator {
                let devices = pkcs11::list(Path::new(MODULE)).unwrap();
                devices.into_iter().flat_map(|device| device.keys).find_map(|key| key.locator).unwrap()
            }

            fn make(&self, curve: Curve) -> (Locator, PublicKey) {
                let (_, public) = self.0.make(curve);
                self.forget();
                (self.place(curve), public)
            }

            fn forget(&self) {
                self.0.forget();
            }
        }

        impl Coming for $backend {
            fn pull(&self) {
                self.0.pull();
            }

            fn insert(&self) {
                self.0.insert();
            }
        }

        impl SmartCard for $backend {
            const AID: &[u8] = <$maker>::AID;
            const PIN_REFERENCE: u8 = <$maker>::PIN_REFERENCE;

            fn card(&self) -> &Card {
                self.0.card()
            }

            fn pcscd(&self) -> &Pcscd {
                self.0.pcscd()
            }

            fn pin_block() -> Vec<u8> {
                <$maker>::pin_block()
            }
        }
    };
}

opensc!(OpenPgp, crate::openpgp::OpenPgpCard);
opensc!(Piv, crate::piv::PivCard);

/// What holds for every token, coming and going, and beside other programs.
mod shared {
    use crate::backend::each;
    use crate::cards::{reset_by_another_program, the_application_is_selected_again};
    use crate::coming::*;
    use crate::every::*;

    each! {
        openpgp: crate::opensc::OpenPgp [X25519 P256],
        piv: crate::opensc::Piv [P256]
        => {
            a_generated_key_agrees
            another_key_and_another_curve_are_refused
            a_wrong_pin_is_sent_once
            a_deadline_that_passed_stops_the_token
            looking_changes_nothing
            a_pin_is_kept_as_the_policy_says
            two_programs_at_once
            a_thousand_operations_leave_nothing_behind
            a_pulled_token_is_a_state
            an_absence_that_nobody_saw_is_none
            looking_finds_a_token_that_is_back
            reset_by_another_program
            the_application_is_selected_again
        }
    }
}

/// OpenSC's PIV driver has no logout, and does not come back from a card that answers nonsense.
mod openpgp {
    use crate::backend::each;
    use crate::cards::{
        a_card_that_answers_anything_is_a_failure, a_pin_that_is_always_asked_is_forgotten_by_the_card,
    };

    each! {
        card: crate::opensc::OpenPgp [P256]
        => {
            a_card_that_answers_anything_is_a_failure
            a_pin_that_is_always_asked_is_forgotten_by_the_card
        }
    }
}

/// The module does not tell why there is no token: pcscd may be gone, or another program may have the card for itself.
#[test]
fn whatever_takes_the_card_away_it_comes_back() {
    cards::isolated(|| {
        let (backend, locator, _) = ready::<OpenPgp>(Curve::X25519);
        let mut token = open(&locator, None, &mut Given::new(cards::PIN)).unwrap();
        for _ in 0..2 {
            backend.card().pull_during();
            // Until pcscd has seen it the module has only a general error for it.
            let pulled = kind(agree(token.as_mut()));
            assert!(matches!(pulled, ErrorKind::Device | ErrorKind::TokenAbsent), "{pulled:?}");
            backend.insert();
            agrees(token.as_mut());
            backend.pcscd().stop();
            assert_eq!(kind(agree(token.as_mut())), ErrorKind::TokenAbsent);
            backend.pcscd().start_again();
            agrees(token.as_mut());
        }
    });
}

/// OpenSC gives no number, and raises the flag for the last try only.
#[test]
fn the_last_try_is_not_spent() {
    cards::isolated(|| {
        let (_backend, locator, _) = ready::<OpenPgp>(Curve::P256);
        let mut wrong = Given::new(WRONG_PIN);
        for _ in 0..2 {
            assert_eq!(kind(open(&locator, None, &mut wrong)), ErrorKind::WrongPin);
            assert_eq!(wrong.tries, Some(Tries::Unknown));
        }
        for _ in 0..2 {
            assert_eq!(kind(open(&locator, None, &mut wrong)), ErrorKind::PinLast);
        }
        assert_eq!(wrong.asked, 2);
        agrees(open(&locator, None, &mut Given::all(cards::PIN)).unwrap().as_mut());
    });
}
