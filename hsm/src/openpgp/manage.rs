//! What a ceremony needs beyond agreeing: looking at cards, and making keys.

use std::time::{SystemTime, UNIX_EPOCH};

use super::card::{self, Aid, Answer, Password};
use super::fingerprint::fingerprint;
use super::key::{Key, Sending};
use super::view::{self, View};
use super::{locate, open};
use crate::curve::{Curve, PublicKey};
use crate::device::Device;
use crate::error::{Error, ErrorKind, Result};
use crate::locator::OpenPgpLocator;
use crate::operation::{Operation, Stage};
use crate::pin::keeper::locked;
use crate::pin::{KeepPin, Keeper, PinRequest, Purpose, Tries};
use crate::smartcard::{Exchange, Fault, Search, find};
use crate::token::{NewKey, PinPolicy, Touch};

/// The cards that are plugged in. Asks for no PIN. Selects the OpenPGP application of each; waits for programs that are in the middle of
/// something. Cards that another program holds for itself are not among them.
///
/// # Errors
/// `ServiceAbsent`.
pub fn list() -> Result<Vec<Device>> {
    let found = find(|card| {
        let Some((aid, _)) = card::select(card)? else { return Ok(None) };
        match describe(card, aid) {
            Err(fault) if fault.is_lost() => Err(fault),
            device => Ok(Some(device.unwrap_or_else(|fault| broken(aid, fault)))),
        }
    })?;
    Ok(found.cards.into_iter().map(|(link, device)| Device { seen_at: link.reader(), ..device }).collect())
}

/// What is listed of one card.
pub(super) fn describe(card: &mut dyn Exchange, aid: Aid) -> Answer<Device> {
    View::read(card, aid)?.device(card)
}

fn broken(aid: Aid, fault: Fault) -> Device {
    let why = fault.typed(&view::label(aid.manufacturer, aid.serial)).to_string();
    Device { unusable: Some(why.trim_end_matches('.').to_owned()), ..view::device(&aid) }
}

/// Makes a decryption key, with the admin PIN, and proves it, with the user PIN: see [`crate::generate`].
///
/// The card also gets the key's OpenPGP fingerprint and the time, so that GnuPG shows it as a key.
pub(crate) fn generate(
    locator: &OpenPgpLocator,
    new: &NewKey,
    operation: &mut Operation<'_>,
) -> Result<(OpenPgpLocator, PublicKey)> {
    operation.enter(Stage::Access);
    let (mut link, view) = locate(&mut Search::default(), locator, None)?;
    let what = view.label();
    let (offers, tries) = link
        .transact(|card| {
            card::select(card)?.ok_or(Fault::Removed)?;
            Ok((view.offers(card)?, card::tries_left(card, Password::Admin)?))
        })
        .map_err(|fault| fault.typed(&what))?;
    let plan = Plan::check(&view, offers.as_deref(), new)?;
    if view.user_tries == Tries::None {
        // The key could not be proved.
        return Err(locked(&what));
    }
    operation.before_deadline(&what)?;
    let mut key = Key::of(&view, what.clone());
    let mut made = None;
    // An admin PIN is never kept, and its source is not the locator's file: that holds the user PIN.
    let mut keeper = Keeper::new(KeepPin::Never, None);
    keeper.unlock_for(PinRequest::new(&what, Purpose::AdminPin, tries), operation, |pin, operation| {
        operation.enter(Stage::Access);
        let mut sending = Sending::new(pin, tries);
        let mut in_time = || operation.before_deadline(&what);
        let object = link.transact(|card| plan.carry_out(card, &mut key, &mut sending, &mut in_time));
        made = Some(object.map_err(|fault| fault.typed(&what))?);
        Ok(())
    })?;
    let public = made.ok_or_else(|| Fault::Removed.typed(&what))?;
    drop(link);
    prove(locator, &public, &what, operation)?;
    Ok((locator.clone(), public))
}

/// Opens the new key, which agrees once. Its PIN is not left verified.
fn prove(locator: &OpenPgpLocator, public: &PublicKey, what: &str, operation: &mut Operation<'_>) -> Result<()> {
    open(locator, Some(public), KeepPin::Always, operation).map(drop).map_err(|error| {
        Error::new(
            error.kind(),
            format!("{what} made a key that is not proved yet. {error}"),
            format!("{} Then make it anew, or try it with `claviger-ceremony token test`.", error.hint()),
        )
    })
}

/// What will be written; decided before anything is.
pub(super) struct Plan<'a> {
    what: String,
    aid: Aid,
    new: &'a NewKey,
    /// Whether the algorithm attributes are to change.
    attributes: bool,
    /// The first byte of the user interaction flag, where it is to change.
    interaction: Option<u8>,
}

impl<'a> Plan<'a> {
    /// `offers`: the curves that the card says it has.
    ///
    /// # Errors
    /// `KeyExists`, `Unsupported`.
    pub(super) fn check(view: &View, offers: Option<&[Curve]>, new: &'a NewKey) -> Result<Self> {
        let what = view.label();
        may_overwrite(view, new, &what)?;
        let unsupported = |why: &str| Err(unsupported(&what, why));
        if new.pin.is_some_and(|policy| policy != PinPolicy::Once) {
            return unsupported("wants the PIN once until it is reset, and knows no other PIN policy");
        }
        let attributes = view.curve() != Some(new.curve);
        if attributes && (!view.changeable || offers.is_some_and(|curves| !curves.contains(&new.curve))) {
            return unsupported(&format!("makes no decryption keys on {}", new.curve));
        }
        let interaction = match new.touch {
            None => None,
            Some(wanted) if wanted == view.touch => None,
            Some(_) if view.touch_fixed => return unsupported("has its touch policy set for ever"),
            Some(_) if !view.touch_settable => return unsupported("has no touch policy to set"),
            Some(Touch::Never) => Some(0),
            Some(Touch::Always) => Some(1),
            Some(Touch::Cached) => Some(3),
            Some(Touch::Unknown) => return unsupported("has no touch policy `unknown`"),
        };
        Ok(Self { what, aid: view.aid, new, attributes, interaction })
    }

    /// Writes it all in one transaction, the admin PIN verified for that long.
    pub(super) fn carry_out(
        &self,
        card: &mut dyn Exchange,
        key: &mut Key,
        pin: &mut Sending<'_>,
        before: &mut dyn FnMut() -> Result<()>,
    ) -> Answer<PublicKey> {
        key.verify(card, Password::Admin, pin, before)?;
        let made = self.write(card);
        let forgotten = card::forget(card, Password::Admin);
        let made = made?;
        forgotten.map(|()| made)
    }

    fn write(&self, card: &mut dyn Exchange) -> Answer<PublicKey> {
        // Looked at again: other programs had the card while the admin PIN was asked for.
        may_overwrite(&View::read(card, self.aid)?, self.new, &self.what)?;
        let attributes = [&[view::ECDH], view::oid(self.new.curve)].concat();
        // The touch policy first: a card that refuses it has not lost its key yet.
        if let Some(state) = self.interaction {
            // The second byte says what the card has: 20, a button.
            self.refusable(card::set(card, card::INTERACTION, &[state, 0x20]), "that touch policy")?;
        }
        if self.attributes {
            self.refusable(card::set(card, card::ATTRIBUTES, &attributes), "decryption keys on that curve")?;
        }
        let object = card::make_key(card)?;
        let public = view::public_key(&attributes, &object).map_err(|_| {
            Fault::Malformed("GENERATE ASYMMETRIC KEY PAIR", "the key made is not on the curve asked for")
        })?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let time = u32::try_from(now).unwrap_or(u32::MAX).to_be_bytes();
        card::set(card, card::GENERATED_AT, &time)?;
        card::set(card, card::FINGERPRINT, &fingerprint(&public, time))?;
        Ok(public)
    }

    /// An answer whose status may say that the card has no such thing.
    fn refusable(&self, answer: Answer<()>, thing: &str) -> Answer<()> {
        match answer {
            Err(Fault::Status { command, status: status @ (0x6985 | 0x6a80..=0x6a8f | 0x6b00) }) => {
                let why = format!("refuses {thing} ({command}: status {status:04X})");
                Err(Fault::Typed(unsupported(&self.what, &why)))
            }
            answer => answer,
        }
    }
}

/// A key is overwritten only by its name.
fn may_overwrite(view: &View, new: &NewKey, what: &str) -> Result<()> {
    if !view.occupied || (new.replace.is_some() && view.public.as_ref().ok() == new.replace.as_ref()) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::KeyExists,
        format!("{what} already has a decryption key; nothing was overwritten."),
        "Use that key, or another card; to lose it for good, name it as the key to replace.",
    ))
}

fn unsupported(what: &str, why: &str) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!("{what} {why}; no key was made."),
        "See what it can do with `claviger-ceremony token list`.",
    )
}

#[cfg(test)]
mod tests {
    use super::super::script::Script;
    use super::*;
    use crate::secret::Pin;

    const AID: Aid = Aid { version: 0x0304, manufacturer: 6, serial: 0x42 };

    fn empty() -> View {
        view::tests::empty(AID)
    }

    fn refused(view: &View, offers: Option<&[Curve]>, new: &NewKey) -> Option<ErrorKind> {
        Plan::check(view, offers, new).err().map(|error| error.kind())
    }

    #[test]
    fn a_key_of_whatever_kind_is_overwritten_by_its_name_alone() {
        let mut new = NewKey::new(Curve::X25519);
        assert_eq!(refused(&empty(), None, &new), None);
        let rsa = View { occupied: true, public: Err("its decryption key is an RSA key".into()), ..empty() };
        assert_eq!(refused(&rsa, None, &new), Some(ErrorKind::KeyExists));
        new.replace = Some(PublicKey::new(Curve::X25519, &[9; 32]).unwrap());
        assert_eq!(refused(&rsa, None, &new), Some(ErrorKind::KeyExists));
        let named = View { occupied: true, public: Ok(new.replace.clone().unwrap()), ..empty() };
        assert_eq!(refused(&named, None, &new), None);
        // Nothing is there to replace; what was meant is not there either, and nothing is lost.
        assert_eq!(refused(&empty(), None, &new), None);
    }

    #[test]
    fn what_a_card_has_not_is_refused() {
        let new = NewKey::new(Curve::X25519);
        let unsupported = Some(ErrorKind::Unsupported);
        assert_eq!(refused(&empty(), Some(&[Curve::P256]), &new), unsupported);
        assert_eq!(refused(&View { changeable: false, ..empty() }, None, &new), unsupported);
        let touch = |view: &View, wanted| {
            let mut new = new.clone();
            new.touch = Some(wanted);
            refused(view, None, &new)
        };
        let fixed = View { touch: Touch::Always, touch_fixed: true, ..empty() };
        assert_eq!(touch(&fixed, Touch::Never), unsupported);
        assert_eq!(touch(&fixed, Touch::Always), None);
        let none = View { touch_settable: false, ..empty() };
        assert_eq!(touch(&none, Touch::Always), unsupported);
        assert_eq!(touch(&none, Touch::Never), None);
        assert_eq!(touch(&empty(), Touch::Cached), None);
    }

    #[test]
    fn a_card_that_refuses_has_lost_nothing() {
        let mut new = NewKey::new(Curve::P256);
        new.touch = Some(Touch::Cached);
        let plan = Plan::check(&empty(), None, &new).unwrap();
        let pin = Pin::new("12345678".into()).unwrap();
        let identifier = ("00ca004f00", "d27600012401030400060000004200009000");
        let mut card = Script::new(&[
            identifier,
            ("00ca00c400", "ff7f7f7f0300039000"),
            ("00ca00f900", "6a88"),
            ("00200083083132333435363738", "9000"),
            // No keys.
            ("00ca006e00", "6e08de060100020003009000"),
            ("00ca00d700", "00209000"),
            ("00da00d7020320", "6a80"),
            // The admin PIN is forgotten all the same.
            ("0020ff83", "9000"),
        ]);
        let mut key = Key::of(&empty(), "It".into());
        let mut sending = Sending::new(&pin, Tries::Left(3));
        let fault = plan.carry_out(&mut card, &mut key, &mut sending, &mut || Ok(())).unwrap_err();
        assert_eq!(fault.typed("It").kind(), ErrorKind::Unsupported);
        assert!(card.is_over());
    }
}
