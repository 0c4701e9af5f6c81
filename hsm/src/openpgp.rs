//! OpenPGP cards: Nitrokey, Gnuk, YubiKey, SmartPGP, opcard. The static key is the card's decryption key.
//!
//! Written to "Functional Specification of the OpenPGP application on ISO Smart Card Operating Systems", version 3.4, with raw commands and not
//! through the crate `openpgp-card`: that one selects the application whenever it connects, which costs other programs their PIN on some cards;
//! wants to own the connection; and writes answers, a shared secret among them, to the log.
//!
//! One agree is PSO: DECIPHER (section 7.2.11) with the peer's raw point, 32 or 65 bytes; its answer is the shared secret. PW1 is verified in mode
//! 82, and only where the card does not hold it as verified already, by us or by GnuPG. Cards from version 3.1 on are asked (VERIFY without data,
//! section 7.2.2); older ones, and YubiKeys, which do not answer that, are told by the outcome. A PIN goes through the card's key derivation (KDF-DO).
//!
//! The application is selected only where it is not: that clears PINs on some cards. On a YubiKey, PIV and OpenPGP used by turns cost each other
//! theirs; nothing can be done about that here.
//!
//! A card is found by maker and serial number, and its public key compared, before anything is sent to it that costs a try.

mod attest;
mod card;
mod fingerprint;
#[cfg(feature = "fuzzing")]
mod fuzz;
mod kdf;
mod key;
mod maker;
mod manage;
#[cfg(test)]
mod script;
mod sign;
mod view;

use crate::attestation::Evidence;
use crate::curve::{PublicKey, same_curve};
use crate::device::PinState;
use crate::error::{Error, ErrorKind, Result};
use crate::locator::OpenPgpLocator;
use crate::operation::{Operation, Stage};
use crate::pin::keeper::locked;
use crate::pin::{KeepPin, Keeper, PinRequest, Purpose, Tries};
use crate::secret::SharedSecret;
use crate::smartcard::{Exchange, Fault, Found, Link, Search, held};
use crate::token::{Hints, PinPolicy, Presence, Token, TokenKind, check_expected, prove};

pub(crate) use manage::generate;
pub use manage::list;
pub(crate) use sign::sign;

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub use fuzz::fuzz;

use card::{Answer, Outcome, Password};
use key::{Key, Sending, Step, Use};
use view::View;

/// Finds the key, and proves the pair: see [`crate::open`].
pub(crate) fn open(
    locator: &OpenPgpLocator,
    expected: Option<&PublicKey>,
    keep: KeepPin,
    operation: &mut Operation<'_>,
) -> Result<Box<dyn Token>> {
    operation.enter(Stage::Access);
    let mut search = Search::default();
    let (link, view) = locate(&mut search, locator, None)?;
    let label = view.label();
    let public = usable(&view, &label)?;
    check_expected(&public, expected, &label)?;
    let mut token = OpenPgpToken {
        locator: locator.clone(),
        key: Key::of(&view, label.clone()),
        keeper: Keeper::new(keep, locator.pin_source.as_deref()),
        hints: Hints {
            kind: TokenKind::OpenPgp,
            label: label.clone(),
            hardware: true,
            touch: view.touch,
            pin: PinPolicy::Once,
            latency: Default::default(),
        },
        public: public.clone(),
        link: Some(link),
        search,
    };
    prove(&public, &label, |peer| token.agree(peer, operation))?;
    // Without the time in which somebody was asked for the PIN.
    token.hints.latency = token.key.took;
    Ok(Box::new(token))
}

struct OpenPgpToken {
    locator: OpenPgpLocator,
    public: PublicKey,
    hints: Hints,
    keeper: Keeper,
    key: Key,
    /// `None` after the card was lost.
    link: Option<Link>,
    search: Search,
}

impl Token for OpenPgpToken {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn hints(&self) -> &Hints {
        &self.hints
    }

    fn agree(&mut self, peer: &PublicKey, operation: &mut Operation<'_>) -> Result<SharedSecret> {
        same_curve(self.public.curve(), peer)?;
        operation.before_deadline(&self.hints.label)?;
        let answer = self.with_card(operation, |token, link, operation| token.agree_on(link, peer, operation));
        self.hints.touch = self.key.touch;
        let secret = answer?;
        operation.before_deadline(&self.hints.label)?;
        Ok(secret)
    }

    fn look(&mut self) -> Result<Presence> {
        // Nobody is waited for where the answer is known without the card.
        if let Some(link) = &self.link {
            match link.look() {
                Ok(()) if self.key.believed => return Ok(self.presence(Some(true))),
                Ok(()) => {}
                Err(_) => self.key.believed = false,
            }
        }
        let state = self.pin_state()?;
        if state.tries_left == Tries::None && state.verified != Some(true) {
            return Err(locked(&self.hints.label));
        }
        Ok(self.presence(state.verified))
    }

    fn pin_state(&mut self) -> Result<PinState> {
        if let Some(mut link) = self.link.take() {
            match self.read_pin_state(&mut link) {
                Err(fault) if fault.is_lost() => self.key.believed = false,
                answer => {
                    self.link = Some(link);
                    return answer.map_err(|fault| fault.typed(&self.hints.label));
                }
            }
        }
        let mut link = self.reopen()?;
        let answer = self.read_pin_state(&mut link).map_err(|fault| fault.typed(&self.hints.label));
        self.link = Some(link);
        answer
    }

    fn attest(&mut self, operation: &mut Operation<'_>) -> Result<Evidence> {
        operation.before_deadline(&self.hints.label)?;
        self.with_card(operation, |token, link, operation| token.attested(link, operation))
    }
}

impl OpenPgpToken {
    /// Runs `work` with the card; once more, found anew, when it turns out to be lost.
    fn with_card<T>(
        &mut self,
        operation: &mut Operation<'_>,
        mut work: impl FnMut(&mut Self, &mut Link, &mut Operation<'_>) -> Answer<T>,
    ) -> Result<T> {
        operation.enter(Stage::Access);
        if let Some(mut link) = self.link.take() {
            match work(self, &mut link, operation) {
                Err(fault) if fault.is_lost() => self.key.believed = false,
                answer => {
                    self.link = Some(link);
                    return answer.map_err(|fault| fault.typed(&self.hints.label));
                }
            }
            operation.before_deadline(&self.hints.label)?;
            operation.enter(Stage::Access);
        }
        let mut link = self.reopen()?;
        let answer = work(self, &mut link, operation);
        if !answer.as_ref().is_err_and(Fault::is_lost) {
            self.link = Some(link);
        }
        answer.map_err(|fault| fault.typed(&self.hints.label))
    }

    /// Agrees, with the PIN where the card wants it.
    fn agree_on(&mut self, link: &mut Link, peer: &PublicKey, operation: &mut Operation<'_>) -> Answer<SharedSecret> {
        // A reset that a transaction is begun with shows nowhere else.
        if link.look().is_err() {
            self.key.believed = false;
        }
        let always = self.keeper.policy() == KeepPin::Always;
        let how = if always { Use::AfterPin } else { Use::AsItIs };
        let Self { key, hints, .. } = self;
        let step = link.transact(|card| key.attempt(card, peer, how, &mut |stage| begin(operation, hints, stage)))?;
        let (tries, verified) = match step {
            Step::Agreed(secret) => return Ok(secret),
            Step::Pin { tries, verified } => (tries, verified),
        };
        operation.before_deadline(&hints.label)?;
        let how = Use::Unlocked { forget: always && verified != Some(true) };
        let step = self.unlocked(link, Password::User, tries, operation, |key, card, operation, hints| {
            key.attempt(card, peer, how, &mut |stage| begin(operation, hints, stage))
        })?;
        match step {
            Step::Agreed(secret) => Ok(secret),
            Step::Pin { .. } => Err(Fault::Malformed("VERIFY", "the card took the PIN, and wants it again")),
        }
    }

    /// The attestation, with the PIN: a YubiKey does not tell whether it is verified for signing.
    fn attested(&mut self, link: &mut Link, operation: &mut Operation<'_>) -> Answer<Evidence> {
        let key = &mut self.key;
        let what = &self.hints.label;
        let (tries, stage) = link.transact(|card| {
            key.select(card)?;
            attest::check(card, key.aid(), what)?;
            Ok((card::tries_left(card, Password::Sign)?, attest::stage(card)?))
        })?;
        operation.before_deadline(what)?;
        let always = self.keeper.policy() == KeepPin::Always;
        self.unlocked(link, Password::Sign, tries, operation, |key, card, operation, hints| {
            let outcome =
                begin(operation, hints, stage).map_err(Fault::from).and_then(|()| attest::attest(card, key.aid()));
            if always && !outcome.as_ref().is_err_and(Fault::is_lost) {
                card::forget(card, Password::Sign)?;
            }
            match outcome? {
                Outcome::Done(evidence) => Ok(evidence),
                Outcome::Refused(_) if stage == Stage::Touch => Err(key.not_touched().into()),
                Outcome::Refused(status) => Err(Fault::Status { command: "GET ATTESTATION", status }),
            }
        })
    }

    /// See [`unlocked`].
    fn unlocked<T>(
        &mut self,
        link: &mut Link,
        password: Password,
        tries: Tries,
        operation: &mut Operation<'_>,
        work: impl FnMut(&mut Key, &mut dyn Exchange, &Operation<'_>, &Hints) -> Answer<T>,
    ) -> Answer<T> {
        let Self { key, keeper, hints, .. } = self;
        unlocked(key, keeper, hints, link, password, tries, operation, work)
    }

    fn read_pin_state(&mut self, link: &mut Link) -> Answer<PinState> {
        let key = &mut self.key;
        link.transact(|card| {
            key.select(card)?;
            let verified = key.status(card, Password::User)?;
            Ok(PinState { verified, ..PinState::new(card::tries_left(card, Password::User)?) })
        })
    }

    fn presence(&self, verified: Option<bool>) -> Presence {
        let ready = match self.keeper.policy() {
            KeepPin::Always => false,
            KeepPin::Once | KeepPin::Never => self.keeper.asks_nobody() || verified == Some(true),
        };
        if ready { Presence::Ready } else { Presence::Locked }
    }

    /// The card that was opened, found anew.
    fn reopen(&mut self) -> Result<Link> {
        let (link, view) = locate(&mut self.search, &self.locator, Some(&self.public))?;
        check_expected(&usable(&view, &self.hints.label)?, Some(&self.public), &self.hints.label)?;
        self.hints.touch = view.touch;
        self.key = Key::of(&view, self.hints.label.clone());
        Ok(link)
    }
}

/// Sends the PIN and does `work`, in one transaction: nobody else uses the PIN in between, and after a reset both are done again.
#[allow(clippy::too_many_arguments)] // One token's parts, and one call's.
fn unlocked<T>(
    key: &mut Key,
    keeper: &mut Keeper,
    hints: &Hints,
    link: &mut Link,
    password: Password,
    tries: Tries,
    operation: &mut Operation<'_>,
    mut work: impl FnMut(&mut Key, &mut dyn Exchange, &Operation<'_>, &Hints) -> Answer<T>,
) -> Answer<T> {
    let (mut lost, mut worked) = (None, None);
    let request = PinRequest::new(&hints.label, Purpose::UserPin, tries);
    let sent = keeper.unlock_for(request, operation, |pin, operation| {
        operation.enter(Stage::Access);
        let mut sending = Sending::new(pin, tries);
        let mut taken = false;
        let answer = link.transact(|card| {
            taken = false;
            key.verify(card, password, &mut sending, &mut || operation.before_deadline(&hints.label))?;
            taken = true;
            work(key, card, operation, hints)
        });
        match answer {
            Err(fault) if fault.is_lost() => {
                lost = Some(fault);
                Err(Fault::Removed.typed(&hints.label))
            }
            Err(fault) if !taken => Err(fault.typed(&hints.label)),
            // Whatever became of the work, the PIN is right.
            answer => {
                worked = Some(answer);
                Ok(())
            }
        }
    });
    match (sent, worked, lost) {
        (_, Some(answer), _) => answer,
        // Found anew at once only where nobody has to be asked a second time.
        (Err(_), None, Some(fault)) if keeper.is_held() => Err(fault),
        (Err(_), None, Some(fault)) => Err(Fault::Typed(fault.typed(&hints.label))),
        (Err(error), None, None) => Err(Fault::Typed(error)),
        (Ok(()), None, _) => Err(Fault::Malformed("VERIFY", "the PIN was not sent")),
    }
}

/// Right before the card computes: not for a caller that gave up.
fn begin(operation: &Operation<'_>, hints: &Hints, stage: Stage) -> Result<()> {
    operation.before_deadline(&hints.label)?;
    operation.enter(stage);
    Ok(())
}

/// The public key of a card that can be used.
fn usable(view: &View, what: &str) -> Result<PublicKey> {
    view.public.clone().map_err(|why| {
        Error::new(
            ErrorKind::KeyNotFound,
            format!("{what} has no key to agree with: {why}."),
            "Make one with `claviger-ceremony token generate`, or correct the locator.",
        )
    })
}

/// The card at `locator`. With `known`, cards are no longer looked at once the one with that key is found, so that no application is selected on them.
///
/// # Errors
/// `ServiceAbsent`, `TokenAbsent`, `TokenAmbiguous`, `Busy`, `Device`.
fn locate(search: &mut Search, locator: &OpenPgpLocator, known: Option<&PublicKey>) -> Result<(Link, View)> {
    let what = view::label(locator.manufacturer, locator.serial);
    let mut there = false;
    let Found { cards, held: others } = search.run(|card| {
        if there {
            return Ok(None);
        }
        let Some((aid, _)) = card::select(card)? else { return Ok(None) };
        if (aid.manufacturer, aid.serial) != (locator.manufacturer, locator.serial) {
            return Ok(None);
        }
        match View::read(card, aid) {
            Err(fault) if fault.is_lost() => Err(fault),
            view => {
                there = known.is_some_and(|known| view.as_ref().is_ok_and(|view| view.public.as_ref() == Ok(known)));
                Ok(Some(view))
            }
        }
    })?;
    let mut cards = cards.into_iter().rev().take(if there { 1 } else { usize::MAX });
    match (cards.next(), cards.next()) {
        (Some((link, view)), None) => Ok((link, view.map_err(|fault| fault.typed(&what))?)),
        (None, _) if !others.is_empty() => Err(held(&what)),
        (None, _) => Err(Fault::Removed.typed(&what)),
        (Some(_), Some(_)) => Err(Error::new(
            ErrorKind::TokenAmbiguous,
            format!("Several cards say that they are {what}."),
            "Unplug all but the right one; cards without a serial number of their own cannot be told apart.",
        )),
    }
}
