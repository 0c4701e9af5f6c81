//! A card that answers with anything at all.

use std::time::Duration;

use zeroize::Zeroizing;

use super::application::{self, Facts, slot_key};
use super::key::Key;
use super::management::{self, Managed, ManagementKey};
use super::pin::Attempt;
use super::{chain, manage, public_key};
use crate::curve::{Curve, SoftKey};
use crate::error::{Error, Result};
use crate::locator::PivSlot;
use crate::operation::Operation;
use crate::pin::{KeepPin, PinEntry, PinRequest, Tries};
use crate::secret::Pin;
use crate::smartcard::{Exchange, Fault};
use crate::token::{PinPolicy, Touch};

/// Answers of one length byte each, and that many bytes; then the card is gone.
struct Answers<'a>(&'a [u8]);

impl Exchange for Answers<'_> {
    fn transmit(&mut self, _: &[u8]) -> std::result::Result<Zeroizing<Vec<u8>>, Fault> {
        let (&length, rest) = self.0.split_first().ok_or(Fault::Removed)?;
        let (answer, rest) = rest.split_at(rest.len().min(length.into()));
        self.0 = rest;
        Ok(Zeroizing::new(answer.to_vec()))
    }
}

struct Nobody;

impl PinEntry for Nobody {
    fn pin(&mut self, _: &PinRequest<'_>) -> Result<Pin> {
        Err(Error::pin_required("Nobody is here.", "Come back."))
    }
}

/// Runs all that is read from a card, each over the same answers.
pub fn fuzz(answers: &[u8]) {
    let card = || Answers(answers);
    let _ = manage::describe(&mut card());
    let mut opened = card();
    let Ok(facts) = Facts::read(&mut opened) else { return };
    let slot = PivSlot::KEY_MANAGEMENT;
    if let Ok(found) = slot_key(&mut opened, &facts, slot) {
        let _ = public_key(found.as_ref(), None, "It");
    }
    let rest = opened.0;
    let _ = chain(&mut Answers(rest), &facts, slot);
    if let Ok(managed) = Managed::read(&mut Answers(rest), &facts) {
        let _ = management::authenticate(&mut Answers(rest), &managed, &ManagementKey::factory(), "It");
    }
    let _ = management::behind_pin(&mut Answers(rest));
    let mut nobody = Nobody;
    let operation = Operation::within(Duration::from_secs(60), &mut nobody);
    for curve in [Curve::P256, Curve::X25519] {
        let Ok(peer) = SoftKey::generate(curve) else { return };
        let _ = application::generate(&mut Answers(rest), slot, curve, None, None);
        for (pin, touch) in
            [(PinPolicy::Never, Touch::Never), (PinPolicy::Once, Touch::Unknown), (PinPolicy::Always, Touch::Always)]
        {
            let key = Key { what: "It", facts: &facts, slot, pin, touch, keep: KeepPin::Always };
            let _ = key.agree(&mut Answers(rest), peer.public(), &operation);
            let mut attempt = Attempt::new("It", b"123456\xff\xff", Tries::Left(3));
            let _ = key.agree_with(&mut Answers(rest), &mut attempt, peer.public(), &operation);
        }
    }
}
