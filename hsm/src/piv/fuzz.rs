//! A card that answers with anything at all.

use std::time::Duration;

use zeroize::Zeroizing;

use super::application::{self, Facts, slot_key};
use super::key::Key;
use super::management::{self, Managed, ManagementKey};
use super::pin::Attempt;
use super::{chain, manage, public_key, sign};
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
        let _ = public_key(&facts, found.as_ref(), None, "It");
    }
    let rest = opened.0;
    let _ = chain(&mut Answers(rest), &facts, slot);
    let _ = sign::signing_key(&mut Answers(rest), &facts);
    let _ = application::sign(&mut Answers(rest), PivSlot::SIGNATURE, 0x11, &[7; 32]);
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
            let key = Key { what: "It", facts: &facts, pin, touch, keep: KeepPin::Always };
            let agree = |card: &mut dyn Exchange| application::agree(card, slot, peer.public());
            let _ = key.run(&mut Answers(rest), &agree, &operation);
            let mut attempt = Attempt::new("It", b"123456\xff\xff", Tries::Left(3));
            let _ = key.run_with(&mut Answers(rest), &mut attempt, &agree, &operation);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smartcard::put;

    /// SplitMix64, for answers that are always the same.
    struct Random(u64);

    impl Random {
        fn below(&mut self, limit: usize) -> usize {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            (mixed ^ (mixed >> 31)) as usize % limit
        }
    }

    /// Right answers, wrong ones, and right ones with a byte changed or the end cut, in any order.
    #[test]
    fn any_answers_are_survived() {
        let mut random = Random(7);
        let key = SoftKey::generate(Curve::P256).unwrap();
        let right = [
            put(0x7e, &put(0x4f, &[0xa0, 0, 0, 3, 8])).to_vec(),
            put(0x53, &put(0x34, &[7; 16])).to_vec(),
            vec![5, 7, 1],
            vec![0, 0, 0, 7],
            [&put(1, &[0x11])[..], &put(2, &[2, 3]), &put(3, &[1]), &put(4, &put(0x86, key.public().as_bytes()))]
                .concat(),
            [&put(1, &[0xff])[..], &put(5, &[1]), &put(6, &[3, 2])].concat(),
            put(0x7c, &put(0x82, &[9; 32])).to_vec(),
            put(0x7c, &put(0x80, &[9; 16])).to_vec(),
            put(0x7f49, &put(0x86, key.public().as_bytes())).to_vec(),
            put(0x53, &crate::piv::certificate::unsigned(key.public())[..200]).to_vec(),
            Vec::new(),
        ];
        let statuses: [&[u8]; 8] =
            [&[0x90, 0], &[0x90, 0], &[0x90, 0], &[0x69, 0x82], &[0x63, 0xc3], &[0x6a, 0x82], &[0x61, 0], &[]];
        for _ in 0..2000 {
            let mut answers = Vec::new();
            for _ in 0..random.below(40) {
                let mut answer = right[random.below(right.len())].clone();
                match random.below(4) {
                    0 if !answer.is_empty() => {
                        let at = random.below(answer.len());
                        answer[at] = random.below(256) as u8;
                    }
                    1 => answer.truncate(random.below(answer.len() + 1)),
                    _ => {}
                }
                answer.extend_from_slice(statuses[random.below(statuses.len())]);
                answers.push(answer.len().min(255) as u8);
                answers.extend_from_slice(&answer[..answer.len().min(255)]);
            }
            fuzz(&answers);
        }
    }
}
