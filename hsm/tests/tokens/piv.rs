//! PIV: the YubiKey's emulation, and piv-authenticator as a card that is none.

mod making;
mod naming;
mod policies;
mod raw;
mod signing;

use claviger_hsm::{Curve, Locator, TokenKind};
use claviger_testkit::cards::{self, Card, Kind, Options, Pcscd};

use crate::backend::{Backend, Coming, Counting, SmartCard};

/// The application's identifier, without its version.
const AID: &[u8] = &[0xA0, 0x00, 0x00, 0x03, 0x08, 0x00, 0x00, 0x10, 0x00];
/// None that looks like a PIN.
const SERIAL: u32 = 20_904_105;

/// A YubiKey 5.7.
pub(crate) struct YubiKey {
    card: Card,
    pcscd: Pcscd,
}

/// A card without Yubico's extensions.
pub(crate) struct PivCard {
    card: Card,
    pcscd: Pcscd,
}

macro_rules! piv {
    ($type:ident, $new:path) => {
        impl Backend for $type {
            const KIND: TokenKind = TokenKind::Piv;
            const PIN: &str = cards::PIN;

            fn alone<F: FnOnce()>(body: F) {
                cards::isolated::<F>(body);
            }

            fn new() -> Self {
                let pcscd = Pcscd::start();
                Self { card: $new(&pcscd, SERIAL), pcscd }
            }

            fn place(&self, _: Curve) -> Locator {
                self.card.locator().parse().unwrap()
            }

            fn forget(&self) {
                self.card.reset();
            }
        }

        impl Counting for $type {
            const TRIES: u8 = 3;
        }

        impl Coming for $type {
            fn pull(&self) {
                self.card.pull();
            }

            fn insert(&self) {
                self.card.insert();
            }
        }

        impl SmartCard for $type {
            const AID: &[u8] = AID;
            const PIN_REFERENCE: u8 = 0x80;

            fn card(&self) -> &Card {
                &self.card
            }

            fn pcscd(&self) -> &Pcscd {
                &self.pcscd
            }

            fn pin_block() -> Vec<u8> {
                [cards::PIN.as_bytes(), &[0xFF; 2]].concat()
            }
        }
    };
}

piv!(YubiKey, Card::yubikey);
piv!(PivCard, Card::piv);

impl YubiKey {
    fn with(options: &Options) -> Self {
        let pcscd = Pcscd::start();
        Self { card: Card::with(&pcscd, Kind::YubiKey, SERIAL, options), pcscd }
    }

    fn firmware(version: &str) -> Self {
        Self::with(&Options { firmware: Some(version.into()), ..Options::default() })
    }
}
