//! PIV cards (SP 800-73-4) and YubiKeys, over PC/SC: the key management key, 9D, and the retired ones, 82 to 95.
//!
//! P-256 on every card. X25519, Yubico's algorithm E1, on YubiKeys from firmware 5.7 on that are no FIPS ones: **never seen on real hardware here**, only
//! on an emulation that was written from the maker's documentation.
//!
//! One agree is GENERAL AUTHENTICATE (part 2, section 3.2.4, appendix A.5), `7C{82 '', 85 peer}` to `7C{82 secret}`, in one transaction with what it needs:
//!
//! - the application is selected, unless it is, which the discovery object tells without a side effect;
//! - the PIN's state is asked for by a VERIFY without data; the PIN is sent only where nobody has verified it, or the key's policy is *always*;
//! - the answer 6982 after that means that nobody touched the card: the same status would mean a missing PIN, and is never taken for one.
//!
//! The public key comes from GET METADATA (YubiKey 5.3), from the attestation of a key that was made in the card (YubiKey 4.3), or from the slot's
//! certificate; where the card tells none of these, from the caller, and the agree made at opening proves it. Policies are known from GET METADATA only;
//! without it a key is taken for one of PIN policy *once*, and a card that wants the PIN before each operation is given it then.

mod application;
mod certificate;
#[cfg(any(test, feature = "fuzzing"))]
mod fuzz;
mod key;
mod manage;
mod management;
mod pin;
mod sign;

use std::time::Duration;

use crate::attestation::{Evidence, Format};
use crate::curve::{PublicKey, same_curve};
use crate::device::PinState;
use crate::error::{Error, ErrorKind, Result};
use crate::locator::{CardId, PivLocator, PivSlot};
use crate::operation::{Operation, Stage};
use crate::pin::keeper::locked;
use crate::pin::{KeepPin, Keeper, PinRequest, Purpose, Tries};
use crate::secret::SharedSecret;
use crate::smartcard::{Exchange, Fault, Link, Search, held, tlv};
use crate::token::{Hints, PinPolicy, Presence, Token, TokenKind, Touch, check_expected, prove};

#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub use fuzz::fuzz;
pub(crate) use manage::generate;
pub use manage::{list, management_key_is_default};
pub(crate) use sign::sign;

use application::{Facts, SlotKey, if_there, slot_key};
use key::{Done, Key, Outcome, Work};
use pin::Attempt;

/// Finds the card and its key and proves the pair: see [`crate::open`].
pub(crate) fn open(
    locator: &PivLocator,
    expected: Option<&PublicKey>,
    keep: KeepPin,
    operation: &mut Operation<'_>,
) -> Result<Box<dyn Token>> {
    operation.enter(Stage::Access);
    let mut search = Search::default();
    let (mut link, facts) = find(&mut search, locator.card)?;
    let what = named(&facts, locator.slot);
    let found = read_key(&mut link, &facts, locator.slot, &what)?;
    let public = public_key(&facts, found.as_ref(), expected, &what)?;
    let mut token =
        PivToken::new(locator, link, facts, found, public, Keeper::new(keep, locator.pin_source.as_deref()));
    token.search = search;
    token.prove(operation)?;
    Ok(Box::new(token))
}

/// For people: `YubiKey 12345678, PIV slot 9d`.
fn named(facts: &Facts, slot: PivSlot) -> String {
    format!("{}, {}slot {slot}", facts.name(), if facts.yubico.is_some() { "PIV " } else { "" })
}

/// The card that answers to `id`, connected.
fn find(search: &mut Search, id: CardId) -> Result<(Link, Facts)> {
    let what = match id {
        CardId::Serial(serial) => format!("The YubiKey with serial number {serial}"),
        CardId::Guid(guid) => format!("The PIV card with GUID {:032x}", u128::from_be_bytes(guid)),
    };
    let mut found = search.run(|card| match Facts::read(card) {
        Ok(facts) => Ok(facts.is(id).then_some(facts)),
        // No such application (SP 800-73-4, part 2, section 3.1.1).
        Err(Fault::Status { status: 0x6a82, .. }) => Ok(None),
        Err(fault) => Err(fault),
    })?;
    match (found.cards.pop(), found.cards.len()) {
        (Some(card), 0) => Ok(card),
        (Some(_), others) => Err(Error::new(
            ErrorKind::TokenAmbiguous,
            format!("{what} is there {} times.", others + 1),
            "Pull the others, or give them names of their own: `ykman piv objects generate chuid`.",
        )),
        (None, _) if !found.held.is_empty() => Err(held(&what)),
        (None, _) => Err(Fault::Removed.typed(&what)),
    }
}

fn read_key(link: &mut Link, facts: &Facts, slot: PivSlot, what: &str) -> Result<Option<SlotKey>> {
    let read = link.transact(|card| {
        application::select(card)?;
        slot_key(card, facts, slot)
    });
    read.map_err(|fault| fault.typed(what))
}

/// The key that was found, or the one expected where the card does not tell.
fn public_key(facts: &Facts, found: Option<&SlotKey>, expected: Option<&PublicKey>, what: &str) -> Result<PublicKey> {
    match (found.map(|key| &key.public), expected) {
        (Some(Ok(public)), expected) => check_expected(public, expected, what).map(|()| public.clone()),
        (Some(Err(why)), _) => Err(Error::new(
            ErrorKind::KeyNotFound,
            format!("The key of {what} cannot be used: {why}."),
            "Choose another slot; `claviger-ceremony token list` shows them.",
        )),
        (None, Some(expected)) if !facts.has_metadata() => Ok(expected.clone()),
        (None, _) => Err(key::missing(what)),
    }
}

struct PivToken {
    locator: PivLocator,
    /// `None` when the card has gone.
    link: Option<Link>,
    search: Search,
    facts: Facts,
    public: PublicKey,
    hints: Hints,
    keeper: Keeper,
    /// What the last agree took.
    took: Duration,
}

impl PivToken {
    fn new(
        locator: &PivLocator,
        link: Link,
        facts: Facts,
        found: Option<SlotKey>,
        public: PublicKey,
        keeper: Keeper,
    ) -> Self {
        let hints = Hints {
            kind: TokenKind::Piv,
            label: named(&facts, locator.slot),
            hardware: true,
            touch: found.as_ref().map_or(Touch::Unknown, |key| key.touch),
            pin: found.and_then(|key| key.pin).unwrap_or(PinPolicy::Once),
            latency: Duration::ZERO,
        };
        Self {
            locator: locator.clone(),
            link: Some(link),
            search: Search::default(),
            facts,
            public,
            hints,
            keeper,
            took: Duration::ZERO,
        }
    }

    fn prove(&mut self, operation: &mut Operation<'_>) -> Result<()> {
        let (public, what) = (self.public.clone(), self.hints.label.clone());
        prove(&public, &what, |peer| self.agree(peer, operation))?;
        self.hints.latency = self.took;
        Ok(())
    }

    /// Looks for the card again if it has gone. It must hold the same key, where it tells its keys.
    fn find_again(&mut self) -> Result<()> {
        if self.link.is_none() {
            let (mut link, facts) = find(&mut self.search, self.locator.card)?;
            let found = read_key(&mut link, &facts, self.locator.slot, &self.hints.label)?;
            public_key(&facts, found.as_ref(), Some(&self.public), &self.hints.label)?;
            (self.link, self.facts) = (Some(link), facts);
        }
        Ok(())
    }

    /// Runs `work` in a transaction, on a card that is looked for again, once, if it turns out to have gone.
    fn with_card<T>(&mut self, work: impl Fn(&mut dyn Exchange, &Facts) -> std::result::Result<T, Fault>) -> Result<T> {
        let was_there = self.link.is_some();
        let mut outcome = self.once_with_card(&work);
        if was_there && self.link.is_none() {
            outcome = self.once_with_card(&work);
        }
        outcome
    }

    fn once_with_card<T>(
        &mut self,
        work: impl Fn(&mut dyn Exchange, &Facts) -> std::result::Result<T, Fault>,
    ) -> Result<T> {
        self.find_again()?;
        let Self { link, facts, hints, .. } = self;
        let outcome = match link {
            Some(link) => link.transact(|card| {
                application::select(card)?;
                work(card, facts)
            }),
            None => Err(Fault::Removed),
        };
        outcome.map_err(|fault| {
            if fault.is_lost() {
                *link = None;
            }
            fault.typed(&hints.label)
        })
    }

    /// One try, on the card that is connected or is found now. Forgets the connection when the card turns out to have gone.
    fn attempt(
        &mut self,
        peer: &PublicKey,
        operation: &mut Operation<'_>,
    ) -> std::result::Result<Done<SharedSecret>, Failed> {
        operation.enter(Stage::Access);
        self.find_again().map_err(Failed::for_good)?;
        let Self { locator, link: connected, facts, hints, keeper, .. } = self;
        let what = hints.label.as_str();
        let Some(link) = connected else { return Err(Failed::for_good(Fault::Removed.typed(what))) };
        let key = Key { what, facts, pin: hints.pin, touch: hints.touch, keep: keeper.policy() };
        let agree = |card: &mut dyn Exchange| application::agree(card, locator.slot, peer);
        let Used { outcome, lost, asked } = used(&key, link, keeper, &agree, operation);
        if lost {
            *connected = None;
        }
        // Nobody is asked twice for one call.
        outcome.map_err(|error| Failed { error, again: lost && (!asked || keeper.is_held()) })
    }
}

/// What [`used`] came to.
struct Used<T> {
    outcome: Result<Done<T>>,
    /// The card turned out to have gone.
    lost: bool,
    /// The PIN was wanted.
    asked: bool,
}

/// One operation with a key of a connected card, with the PIN where it wants it.
fn used<T>(
    key: &Key<'_>,
    link: &mut Link,
    keeper: &mut Keeper,
    work: Work<'_, T>,
    operation: &mut Operation<'_>,
) -> Used<T> {
    let (what, facts) = (key.what, key.facts);
    let mut lost = false;
    let mut typed = |fault: Fault| {
        lost |= fault.is_lost();
        fault.typed(what)
    };
    let mut asked = false;
    let outcome = match link.transact(|card| key.run(card, work, operation)) {
        Ok(Outcome::Done(done)) => Ok(done),
        Err(fault) => Err(typed(fault)),
        Ok(Outcome::NeedsPin(status)) => {
            asked = true;
            let mut outcome = None;
            let request = PinRequest::new(what, Purpose::UserPin, status.tries);
            let unlocked = keeper.unlock_for(request, operation, |pin, operation| {
                let Some(padded) = pin::padded(pin, facts) else {
                    // For the keeper it is a wrong one, so that it is not kept.
                    outcome = Some(Err(pin::odd(what, status.tries)));
                    return Err(Error::new(ErrorKind::WrongPin, "That is no PIN.", "Give another."));
                };
                operation.enter(Stage::Access);
                let mut attempt = Attempt::new(what, &padded, status.tries);
                let done = link.transact(|card| key.run_with(card, &mut attempt, work, operation));
                outcome = Some(Ok(done.map_err(&mut typed)?));
                Ok(())
            });
            match (outcome, unlocked) {
                (Some(outcome), _) => outcome,
                (None, unlocked) => Err(unlocked.err().unwrap_or_else(|| Fault::Removed.typed(what))),
            }
        }
    };
    Used { outcome, lost, asked }
}

/// Why an attempt failed, and whether another one, on the card looked for anew, may go better.
struct Failed {
    error: Error,
    again: bool,
}

impl Failed {
    fn for_good(error: Error) -> Self {
        Self { error, again: false }
    }
}

impl Token for PivToken {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn hints(&self) -> &Hints {
        &self.hints
    }

    fn agree(&mut self, peer: &PublicKey, operation: &mut Operation<'_>) -> Result<SharedSecret> {
        same_curve(self.public.curve(), peer)?;
        operation.before_deadline(&self.hints.label)?;
        let mut outcome = self.attempt(peer, operation);
        if outcome.as_ref().is_err_and(|failed| failed.again) {
            operation.before_deadline(&self.hints.label)?;
            outcome = self.attempt(peer, operation);
        }
        let Done { answer, took } = outcome.map_err(|failed| failed.error)?;
        operation.before_deadline(&self.hints.label)?;
        self.took = took;
        Ok(answer)
    }

    fn look(&mut self) -> Result<Presence> {
        match self.link.as_ref().map(Link::look) {
            None | Some(Ok(()) | Err(Fault::Reset)) => {}
            Some(Err(fault)) if fault.is_lost() => self.link = None,
            Some(Err(fault)) => return Err(fault.typed(&self.hints.label)),
        }
        self.find_again()?;
        // Whether the card holds the PIN as verified matters only where it could not be verified again.
        if self.hints.pin == PinPolicy::Never || self.keeper.asks_nobody() {
            return Ok(Presence::Ready);
        }
        let status = self.with_card(pin::status)?;
        if status.tries == Tries::None && !status.verified {
            return Err(locked(&self.hints.label));
        }
        let enough = status.verified && self.hints.pin != PinPolicy::Always && self.keeper.policy() != KeepPin::Always;
        Ok(if enough { Presence::Ready } else { Presence::Locked })
    }

    fn pin_state(&mut self) -> Result<PinState> {
        self.with_card(pin::status).map(PinState::from)
    }

    fn attest(&mut self, operation: &mut Operation<'_>) -> Result<Evidence> {
        operation.before_deadline(&self.hints.label)?;
        operation.enter(Stage::Access);
        let slot = self.locator.slot;
        let chain = self.with_card(|card, facts| chain(card, facts, slot))?;
        let Some(chain) = chain else {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("{} makes no attestation of this key.", self.hints.label),
                "Only a YubiKey attests, and only keys that were made in it; go on without an attestation, the card says so.",
            ));
        };
        if let Some(long) = chain.iter().find(|certificate| certificate.len() > Evidence::MAX_CERTIFICATE) {
            return Err(Error::new(
                ErrorKind::Attestation,
                format!("A certificate of {} has {} bytes.", self.hints.label, long.len()),
                "Go on without an attestation; the card says so.",
            ));
        }
        Ok(Evidence { format: Format::YubicoPiv, chain })
    }
}

/// The attestation of the key in `slot`, and the certificate of the key in slot F9 that signs it.
fn chain(card: &mut dyn Exchange, facts: &Facts, slot: PivSlot) -> std::result::Result<Option<Vec<Vec<u8>>>, Fault> {
    if !facts.tells_keys() {
        return Ok(None);
    }
    let Some(leaf) = if_there(application::attest(card, slot))? else { return Ok(None) };
    let object = application::get_data(card, application::ATTESTATION)?;
    let signer = tlv(&object, 0x53).and_then(|fields| tlv(fields, 0x70));
    let signer = signer.ok_or(Fault::Malformed("GET DATA", "object 5FFF01 holds no certificate"))?;
    Ok(Some(vec![leaf.to_vec(), signer.to_vec()]))
}
