//! The decryption key between transactions: what is believed of its PIN, and what one attempt to use it comes to. No PC/SC here.

use std::time::{Duration, Instant};

use super::card::{self, Aid, Answer, Outcome, Password, Verified};
use super::view::{self, View};
use crate::curve::PublicKey;
use crate::error::{Error, ErrorKind, Result};
use crate::operation::Stage;
use crate::pin::Tries;
use crate::pin::keeper::{locked, still};
use crate::secret::{Pin, SharedSecret};
use crate::smartcard::{Exchange, Fault};
use crate::token::Touch;

/// Longer than any card takes to look whether a PIN is verified, shorter than any waits for a touch.
const WAITED: Duration = Duration::from_secs(2);

/// The key of one card.
pub(super) struct Key {
    aid: Aid,
    /// For people.
    what: String,
    pub(super) touch: Touch,
    /// Whether the card tells if a PIN is verified.
    tells: bool,
    /// Whether the card may want PINs derived.
    derives: bool,
    /// Of a card that does not tell: whether the last thing seen of the PIN was that it is verified. Cleared by whatever may have changed it.
    pub(super) believed: bool,
    /// How long the last agree took in the card.
    pub(super) took: Duration,
}

/// How an attempt treats the PIN.
#[derive(Clone, Copy)]
pub(super) enum Use {
    /// Goes on where the card holds the PIN as verified, whoever sent it.
    AsItIs,
    /// Wants the PIN sent first, whatever the card holds.
    AfterPin,
    /// It was sent just now. With `forget`, the card forgets it afterwards.
    Unlocked { forget: bool },
}

/// What one attempt came to.
pub(super) enum Step {
    Agreed(SharedSecret),
    /// The PIN has to be sent. `verified`: whether the card held it as verified, where it tells.
    Pin {
        tries: Tries,
        verified: Option<bool>,
    },
}

/// One PIN on its way to the card, which may take several transactions when other programs reset the card.
pub(super) struct Sending<'a> {
    pin: &'a Pin,
    /// The tries that the people were told of.
    told: Tries,
    sent: bool,
}

impl<'a> Sending<'a> {
    pub(super) fn new(pin: &'a Pin, told: Tries) -> Self {
        Self { pin, told, sent: false }
    }
}

impl Key {
    /// `what` is the card, for people.
    pub(super) fn of(view: &View, what: String) -> Self {
        let View { aid, touch, derives, .. } = *view;
        Self { aid, what, touch, tells: aid.tells_status(), derives, believed: false, took: Duration::ZERO }
    }

    pub(super) fn aid(&self) -> &Aid {
        &self.aid
    }

    /// The application selected; the PIN is no longer verified where that was needed.
    ///
    /// # Errors
    /// `Removed`: this is not the card, or not any more.
    pub(super) fn select(&mut self, card: &mut dyn Exchange) -> Answer<()> {
        let (aid, selected) = card::select(card)?.ok_or(Fault::Removed)?;
        if (aid.manufacturer, aid.serial) != (self.aid.manufacturer, self.aid.serial) {
            return Err(Fault::Removed);
        }
        self.believed &= !selected;
        Ok(())
    }

    /// Whether the PIN is verified; `None`: the card does not tell.
    pub(super) fn status(&mut self, card: &mut dyn Exchange, password: Password) -> Answer<Option<bool>> {
        if !self.tells {
            return Ok(None);
        }
        let status = card::status(card, password)?;
        self.tells = status.is_some();
        Ok(status)
    }

    /// Agrees, if it may without a PIN. `before` is called right before the card computes, and may refuse.
    pub(super) fn attempt(
        &mut self,
        card: &mut dyn Exchange,
        peer: &PublicKey,
        how: Use,
        before: &mut dyn FnMut(Stage) -> Result<()>,
    ) -> Answer<Step> {
        self.select(card)?;
        let verified = self.status(card, Password::User)?;
        if verified == Some(false) || matches!(how, Use::AfterPin) {
            return self.wants_pin(card, verified);
        }
        let step = self.operate(card, peer, how, verified, before);
        // Whatever it came to; a card that is lost has forgotten.
        if matches!(how, Use::Unlocked { forget: true }) && !step.as_ref().is_err_and(Fault::is_lost) {
            card::forget(card, Password::User)?;
            self.believed = false;
        }
        step
    }

    fn operate(
        &mut self,
        card: &mut dyn Exchange,
        peer: &PublicKey,
        how: Use,
        verified: Option<bool>,
        before: &mut dyn FnMut(Stage) -> Result<()>,
    ) -> Answer<Step> {
        before(if self.wants_touch() { Stage::Touch } else { Stage::Device })?;
        let start = Instant::now();
        let outcome = card::decipher(card, peer);
        self.took = start.elapsed();
        match outcome? {
            Outcome::Done(secret) => {
                self.believed = true;
                Ok(Step::Agreed(secret))
            }
            Outcome::Refused(status) => {
                // A belief explains a refusal only where a missing touch does, too: other programs may have ended the PIN's validity, by a wrong
                // PIN of theirs or on purpose.
                let believed = matches!(how, Use::Unlocked { .. }) || (self.believed && self.wants_touch());
                self.refused(card, status, verified.unwrap_or(believed))
            }
        }
    }

    /// Why the card refused. `sure`: as far as is known, the PIN was verified before.
    fn refused(&mut self, card: &mut dyn Exchange, status: u16, sure: bool) -> Answer<Step> {
        // A refusal for want of a PIN comes at once; who let this much time pass waited for a finger, and had its PIN.
        let waited = self.wants_touch() && self.took >= WAITED;
        let verified = self.status(card, Password::User)?.unwrap_or(sure || waited);
        if status == 0x6982 && !verified {
            return self.wants_pin(card, Some(false).filter(|_| self.tells));
        }
        // If the belief was wrong, the next call sends the PIN.
        self.believed = waited;
        // Somebody may have set the touch policy since it was read.
        self.touch = view::touch_policy(card)?.unwrap_or(self.touch);
        // 6600 is the specification's word for a touch that did not come (section 7.1); 6982 and 6985 are said by some cards.
        if status == 0x6600 || self.wants_touch() {
            return Err(self.not_touched().into());
        }
        Err(Fault::Status { command: "PSO: DECIPHER", status })
    }

    fn wants_pin(&mut self, card: &mut dyn Exchange, verified: Option<bool>) -> Answer<Step> {
        self.believed = false;
        Ok(Step::Pin { tries: card::tries_left(card, Password::User)?, verified })
    }

    /// Sends a PIN. `before` is called right before that, and may refuse.
    ///
    /// Not when tries were used up since people were told of them: by this PIN, its answer lost with a reset, or by another program.
    pub(super) fn verify(
        &mut self,
        card: &mut dyn Exchange,
        password: Password,
        sending: &mut Sending<'_>,
        before: &mut dyn FnMut() -> Result<()>,
    ) -> Answer<()> {
        self.select(card)?;
        let now = card::tries_left(card, password)?;
        if sending.sent && now.fewer_than(sending.told) {
            return Err(self.wrong(password, now).into());
        }
        still(&self.what, sending.told, now)?;
        before()?;
        sending.sent = true;
        let verified = card::verify(card, password, sending.pin, self.derives)?;
        if password == Password::User {
            self.believed = verified == Verified::Yes;
        }
        match verified {
            Verified::Yes => Ok(()),
            Verified::Locked => Err(locked(&self.what).into()),
            Verified::Wrong => {
                let tries = card::tries_left(card, password)?;
                Err(self.wrong(password, tries).into())
            }
        }
    }

    fn wrong(&self, password: Password, tries: Tries) -> Error {
        let which = if password == Password::Admin { "admin PIN" } else { "PIN" };
        Error::new(
            ErrorKind::WrongPin,
            format!("{} refuses the {which} (VERIFY); {tries}.", self.what),
            "Try again with the right PIN; it is not resent by itself.",
        )
    }

    fn wants_touch(&self) -> bool {
        matches!(self.touch, Touch::Always | Touch::Cached)
    }

    pub(super) fn not_touched(&self) -> Error {
        Error::new(
            ErrorKind::NotTouched,
            format!("{} waited for a touch and was not touched.", self.what),
            "Run it again and touch the token when it blinks; the PIN was right, no try is lost.",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::script::Script;
    use super::*;
    use crate::curve::Curve;

    const AID: &str = "d27600012401030400060000004200009000";
    const SECRET: &str = "11111111111111111111111111111111111111111111111111111111111111119000";

    fn key(version: u16, touch: Touch) -> Key {
        let aid = Aid { version, manufacturer: 6, serial: 0x42 };
        Key::of(&View { touch, ..view::tests::empty(aid) }, "It".into())
    }

    fn attempt(key: &mut Key, how: Use, answers: &[&str]) -> (Answer<Step>, Vec<Stage>) {
        let peer = PublicKey::new(Curve::X25519, &[9; 32]).unwrap();
        let mut card = Script::any(answers);
        let mut stages = Vec::new();
        let step = key.attempt(&mut card, &peer, how, &mut |stage| {
            stages.push(stage);
            Ok(())
        });
        assert!(card.is_over());
        (step, stages)
    }

    fn kind(step: Answer<Step>) -> ErrorKind {
        step.err().expect("a fault").typed("It").kind()
    }

    #[test]
    fn a_verified_card_agrees_without_a_pin() {
        let (step, stages) = attempt(&mut key(0x304, Touch::Never), Use::AsItIs, &[AID, "9000", SECRET]);
        assert!(matches!(step, Ok(Step::Agreed(_))));
        assert_eq!(stages, [Stage::Device]);
        // Nothing is asked of a card whose specification does not know the question.
        let (step, _) = attempt(&mut key(0x201, Touch::Never), Use::AsItIs, &[AID, SECRET]);
        assert!(matches!(step, Ok(Step::Agreed(_))));
    }

    #[test]
    fn a_pin_is_wanted_before_the_card_is_made_to_work() {
        let tries = "ff7f7f7f0300039000";
        let (step, stages) = attempt(&mut key(0x304, Touch::Always), Use::AsItIs, &[AID, "63c3", tries]);
        assert!(matches!(step, Ok(Step::Pin { tries: Tries::Left(3), verified: Some(false) })));
        assert!(stages.is_empty());
        let (step, stages) = attempt(&mut key(0x304, Touch::Always), Use::AfterPin, &[AID, "9000", tries]);
        assert!(matches!(step, Ok(Step::Pin { verified: Some(true), .. })));
        assert!(stages.is_empty());
        // A YubiKey does not tell: it says so by refusing.
        let mut yubikey = key(0x304, Touch::Never);
        let (step, _) = attempt(&mut yubikey, Use::AsItIs, &[AID, "6a80", "6982", tries]);
        assert!(matches!(step, Ok(Step::Pin { verified: None, .. })));
        let (step, _) = attempt(&mut yubikey, Use::Unlocked { forget: true }, &[AID, SECRET, "9000"]);
        assert!(matches!(step, Ok(Step::Agreed(_))));
        assert!(!yubikey.believed);
    }

    #[test]
    fn no_touch_is_no_wrong_pin() {
        let (on, off) = ("01209000", "00209000");
        for status in ["6600", "6985", "6982"] {
            let mut key = key(0x304, Touch::Always);
            let (step, stages) = attempt(&mut key, Use::AsItIs, &[AID, "9000", status, "9000", on]);
            assert_eq!((kind(step), stages), (ErrorKind::NotTouched, vec![Stage::Touch]));
        }
        // The policy was set meanwhile.
        let mut meanwhile = key(0x304, Touch::Never);
        let (step, _) = attempt(&mut meanwhile, Use::AsItIs, &[AID, "9000", "6982", "9000", on]);
        assert_eq!((kind(step), meanwhile.touch), (ErrorKind::NotTouched, Touch::Always));
        // Where the card does not tell, the belief does; and it is believed only once.
        let mut old = key(0x201, Touch::Always);
        let (step, _) = attempt(&mut old, Use::Unlocked { forget: false }, &[AID, "6982", "6a88"]);
        assert_eq!(kind(step), ErrorKind::NotTouched);
        let (step, _) = attempt(&mut old, Use::AsItIs, &[AID, "6982", "ff7f7f7f0300039000"]);
        assert!(matches!(step, Ok(Step::Pin { .. })));
        // Time tells, too: however often nobody comes, no PIN is sent for it.
        old.took = WAITED;
        for _ in 0..3 {
            let step = old.refused(&mut Script::any(&["6a88"]), 0x6982, false);
            assert_eq!((kind(step), old.believed), (ErrorKind::NotTouched, true));
        }
        // A key without touch policy fails otherwise.
        let (step, _) = attempt(&mut key(0x304, Touch::Never), Use::AsItIs, &[AID, "9000", "6985", "9000", off]);
        assert_eq!(kind(step), ErrorKind::Device);
    }

    #[test]
    fn a_pin_is_sent_only_for_the_tries_that_people_were_told_of() {
        let (three, two, one) = ("ff7f7f7f0300039000", "ff7f7f7f0200039000", "ff7f7f7f0100039000");
        let pin = Pin::new("123456".into()).unwrap();
        let mut key = key(0x304, Touch::Never);
        let mut sending = Sending::new(&pin, Tries::Left(3));
        let verify = |key: &mut Key, answers: &[&str], sending: &mut Sending<'_>| {
            let mut card = Script::any(answers);
            let verified = key.verify(&mut card, Password::User, sending, &mut || Ok(()));
            assert!(card.is_over());
            verified.map_err(|fault| fault.typed("It").kind())
        };
        assert_eq!(verify(&mut key, &[AID, three, "6a88", "9000"], &mut sending), Ok(()));
        // It was sent, the card was reset, and a try is gone: it was wrong.
        assert_eq!(verify(&mut key, &[AID, two], &mut sending), Err(ErrorKind::WrongPin));
        // Others used up tries while somebody was asked.
        assert_eq!(verify(&mut key, &[AID, one], &mut Sending::new(&pin, Tries::Left(3))), Err(ErrorKind::PinLast));
        let answers = [AID, two, "6a88", "9000"];
        assert_eq!(verify(&mut key, &answers, &mut Sending::new(&pin, Tries::Left(3))), Ok(()));
        // Somebody agreed to that.
        assert_eq!(verify(&mut key, &[AID, one, "6a88", "9000"], &mut Sending::new(&pin, Tries::Last)), Ok(()));
    }

    #[test]
    fn a_pin_that_others_ended_is_sent_again() {
        let mut key = key(0x201, Touch::Never);
        key.believed = true;
        let (step, _) = attempt(&mut key, Use::AsItIs, &[AID, "6982", "ff7f7f7f0300039000"]);
        assert!(matches!(step, Ok(Step::Pin { .. })));
        // Not so right after it was sent: the card means something else.
        let (step, _) = attempt(&mut key, Use::Unlocked { forget: false }, &[AID, "6982", "6a88"]);
        assert_eq!(kind(step), ErrorKind::Device);
    }

    #[test]
    fn what_is_to_be_forgotten_is_forgotten_after_failures() {
        let how = Use::Unlocked { forget: true };
        // `attempt` sees to it that the last answer, that to the forgetting, is asked for.
        let (step, _) = attempt(&mut key(0x304, Touch::Never), how, &[AID, "9000", "6f00", "9000"]);
        assert_eq!(kind(step), ErrorKind::Device);
        let mut card = Script::new(&[("00ca004f00", AID), ("00200082", "9000"), ("0020ff82", "9000")]);
        let peer = PublicKey::new(Curve::X25519, &[9; 32]).unwrap();
        let late = || Error::new(ErrorKind::Deadline, "It is late.", "Be early.");
        let step = key(0x304, Touch::Never).attempt(&mut card, &peer, how, &mut |_| Err(late()));
        assert_eq!(kind(step), ErrorKind::Deadline);
        assert!(card.is_over());
    }

    #[test]
    fn another_card_is_not_ours() {
        let other = "d27600012401030400060000004300009000";
        let (step, _) = attempt(&mut key(0x304, Touch::Never), Use::AsItIs, &[other]);
        assert_eq!(kind(step), ErrorKind::TokenAbsent);
    }

    #[test]
    fn selecting_ends_the_belief() {
        let mut old = key(0x201, Touch::Always);
        old.believed = true;
        let (step, _) = attempt(&mut old, Use::AsItIs, &["6d00", "9000", AID, "6982", "ff7f7f7f0300039000"]);
        assert!(matches!(step, Ok(Step::Pin { .. })));
    }
}
