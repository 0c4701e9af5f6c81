//! OpenPGP cards: the Nitrokey's applet behind a real pcscd, and what these cards have of their own.

use claviger_hsm::{Curve, Locator, TokenKind};
use claviger_testkit::cards::{self, Card, Pcscd};

use crate::backend::{Backend, Coming, Counting, SmartCard};

/// A new card in a reader.
pub(crate) struct OpenPgpCard {
    card: Card,
    pcscd: Pcscd,
}

impl Backend for OpenPgpCard {
    const KIND: TokenKind = TokenKind::OpenPgp;
    const PIN: &str = cards::PIN;

    fn alone<F: FnOnce()>(body: F) {
        cards::isolated(body);
    }

    fn new() -> Self {
        let pcscd = Pcscd::start();
        Self { card: Card::openpgp(&pcscd, 0x1234), pcscd }
    }

    fn place(&self, _: Curve) -> Locator {
        self.card.locator().parse().unwrap()
    }

    fn forget(&self) {
        self.card.reset();
    }
}

impl Counting for OpenPgpCard {
    const TRIES: u8 = 3;
}

impl Coming for OpenPgpCard {
    fn pull(&self) {
        self.card.pull();
    }

    fn insert(&self) {
        self.card.insert();
    }
}

impl SmartCard for OpenPgpCard {
    const AID: &[u8] = &[0xD2, 0x76, 0x00, 0x01, 0x24, 0x01];
    const PIN_REFERENCE: u8 = 0x82;

    fn card(&self) -> &Card {
        &self.card
    }

    fn pcscd(&self) -> &Pcscd {
        &self.pcscd
    }
}
