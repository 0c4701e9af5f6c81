//! For the fuzz target: everything that is done with a card, on a card that answers with anything at all.

use zeroize::Zeroizing;

use super::attest;
use super::card::{self, Aid, Password};
use super::key::{Key, Sending, Use};
use super::manage::{Plan, describe};
use super::sign;
use super::view::{Origin, View};
use crate::curve::{Curve, PublicKey};
use crate::pin::Tries;
use crate::secret::Pin;
use crate::smartcard::{Exchange, Fault};
use crate::token::{NewKey, Touch};

/// Each answer is a length byte and as many bytes; after the last one the card is gone.
struct Answers<'a>(&'a [u8]);

impl Exchange for Answers<'_> {
    fn transmit(&mut self, _: &[u8]) -> Result<Zeroizing<Vec<u8>>, Fault> {
        let (&length, rest) = self.0.split_first().ok_or(Fault::Removed)?;
        let (answer, rest) = rest.split_at(rest.len().min(length.into()));
        self.0 = rest;
        Ok(Zeroizing::new(answer.to_vec()))
    }
}

/// Lists, agrees, makes a key, attests and signs. `answers` begins with a byte that says where to begin, so that each is reached at once.
pub fn fuzz(answers: &[u8]) {
    let Some((&first, answers)) = answers.split_first() else { return };
    let mut card = Answers(answers);
    let old = Aid { version: 0x0201, manufacturer: 0x000f, serial: 1 };
    let aid = match first & 0x10 {
        0 => Aid { version: 0x0304, manufacturer: 0x0006, serial: 1 },
        _ => old,
    };
    let (Ok(peer), Ok(pin)) = (PublicKey::new(Curve::X25519, &[9; 32]), Pin::new("123456".into())) else { return };
    let view = View {
        aid,
        attributes: Vec::new(),
        changeable: true,
        derives: true,
        origin: Origin::Unknown,
        public: Err(String::new()),
        occupied: false,
        user_tries: Tries::Unknown,
        touch: Touch::Always,
        touch_fixed: false,
        touch_settable: true,
    };
    let mut key = Key::of(&view, "It".into());
    let mut before = |_| Ok(());
    let mut sending = Sending::new(&pin, Tries::Left(3));
    // What each comes to is nothing to this: it must come to something.
    match first & 0x0f {
        0 => drop(card::select(&mut card)),
        1 => drop(describe(&mut card, aid)),
        2 => drop(key.attempt(&mut card, &peer, Use::AsItIs, &mut before)),
        3 => drop(key.attempt(&mut card, &peer, Use::Unlocked { forget: true }, &mut before)),
        4 => drop(key.verify(&mut card, Password::User, &mut sending, &mut || Ok(()))),
        5 => drop(attest::check(&mut card, &aid, "It")),
        6 => drop(attest::attest(&mut card, &aid)),
        7 => drop(sign::tried(&mut card)),
        _ => {
            let Ok(view) = View::read(&mut card, aid) else { return };
            let new =
                NewKey { touch: Some(Touch::Cached), replace: view.public.clone().ok(), ..NewKey::new(Curve::P256) };
            let Ok(offers) = view.offers(&mut card) else { return };
            if let Ok(plan) = Plan::check(&view, offers.as_deref(), &new) {
                drop(plan.carry_out(&mut card, &mut key, &mut sending, &mut || Ok(())));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_comes_to_an_end() {
        let mut state = 1_u32;
        for round in 0..20_000_u32 {
            let bytes: Vec<u8> = (0..round % 700)
                .map(|_| {
                    // A linear congruential generator: the test is the same each time.
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 24) as u8
                })
                .collect();
            fuzz(&bytes);
        }
    }
}
