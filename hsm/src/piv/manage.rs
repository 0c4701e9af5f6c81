//! What a ceremony needs beyond agreeing: looking at cards, and making keys.

use super::application::{self, Facts, SlotKey, Yubico, slot_key};
use super::management::{self, Managed, ManagementKey};
use super::pin::{self, Attempt, Status};
use super::{PivToken, certificate, find, named};
use crate::curve::{Curve, PublicKey, SoftKey};
use crate::device::{Device, DeviceKey, PinState};
use crate::error::{Error, ErrorKind, Result};
use crate::locator::{Locator, PivLocator, PivSlot};
use crate::operation::{Operation, Stage};
use crate::pin::{KeepPin, Keeper, PinRequest, Purpose, Tries};
use crate::smartcard::{self, Exchange, Fault, Link, Search};
use crate::token::{NewKey, PinPolicy, TokenKind, Touch};

/// The PIV cards that are there. Asks for no PIN.
///
/// Keys are those in slots 9D and 82 to 95, and 9D is there also when it is empty. A reader whose card another program holds for itself is listed as a
/// card that cannot be used, since nobody can tell what it is.
///
/// # Errors
/// `ServiceAbsent`.
pub fn list() -> Result<Vec<Device>> {
    let found = smartcard::find(|card| describe(card).map(Some))?;
    let mut devices = Vec::new();
    for (link, mut device) in found.cards {
        device.seen_at = link.reader();
        devices.push(device);
    }
    for reader in found.held {
        let mut device = unknown();
        device.unusable = Some("another program holds it for itself alone".into());
        device.seen_at = reader;
        devices.push(device);
    }
    Ok(devices)
}

fn unknown() -> Device {
    Device {
        kind: TokenKind::Piv,
        maker: String::new(),
        model: "smart card".into(),
        serial: String::new(),
        firmware: String::new(),
        hardware: true,
        seen_at: String::new(),
        curves: Vec::new(),
        pin: None,
        keys: Vec::new(),
        unusable: None,
    }
}

/// A card as it shows itself, without its reader.
pub(super) fn describe(card: &mut dyn Exchange) -> std::result::Result<Device, Fault> {
    let facts = Facts::read(card)?;
    let status = pin::status(card, &facts)?;
    let mut keys = Vec::new();
    for slot in PivSlot::all() {
        if let Some(key) = slot_key(card, &facts, slot)? {
            keys.push(device_key(&facts, slot, key));
        } else if slot == PivSlot::KEY_MANAGEMENT {
            let why = if facts.tells_keys() { "no key yet" } else { "no key, or none that the card tells of" };
            keys.push(DeviceKey::new(slot.to_string(), Err(why.into())));
        }
    }
    let blocked = status.tries == Tries::None && !status.verified;
    let nameless = facts
        .id()
        .is_none()
        .then(|| "it has neither a serial number nor a GUID: `ykman piv objects generate chuid`".into());
    Ok(Device {
        maker: if facts.yubico.is_some() { "Yubico".into() } else { String::new() },
        model: model(&facts),
        serial: match (facts.yubico.and_then(|yubico| yubico.serial), facts.guid) {
            (Some(serial), _) => serial.to_string(),
            (None, Some(guid)) => format!("{:032x}", u128::from_be_bytes(guid)),
            (None, None) => String::new(),
        },
        firmware: facts.yubico.map(|Yubico { firmware: [a, b, c], .. }| format!("{a}.{b}.{c}")).unwrap_or_default(),
        curves: facts.curves(),
        pin: Some(PinState::from(status)),
        keys,
        unusable: if blocked { Some("its PIN is blocked: `ykman piv access unblock-pin`".into()) } else { nameless },
        ..unknown()
    })
}

fn model(facts: &Facts) -> String {
    match (facts.yubico, &facts.label) {
        (Some(Yubico { firmware: [5, ..], .. }), _) => "YubiKey 5".into(),
        (Some(_), _) => "YubiKey".into(),
        (None, Some(label)) => label.clone(),
        (None, None) => "PIV card".into(),
    }
}

fn device_key(facts: &Facts, slot: PivSlot, key: SlotKey) -> DeviceKey {
    let mut shown = DeviceKey::new(slot.to_string(), key.public);
    shown.locator = locator(facts, slot).map(Locator::Piv);
    (shown.pin, shown.touch, shown.attestable) = (key.pin, key.touch, key.attestable);
    shown
}

fn locator(facts: &Facts, slot: PivSlot) -> Option<PivLocator> {
    Some(PivLocator { card: facts.id()?, slot, pin_source: None })
}

/// Whether the management key of the card is the factory's, with which everybody who holds the card can replace its keys. `None`: the card does not
/// tell (before YubiKey 5.3, and others). [`generate`](crate::generate) uses it then without asking, so ask this first and say it loudly.
///
/// # Errors
/// `TokenAbsent`, `TokenAmbiguous`, `ServiceAbsent`, `Busy`, `Device`.
pub fn management_key_is_default(locator: &PivLocator) -> Result<Option<bool>> {
    let (mut link, facts) = find(&mut Search::default(), locator.card)?;
    let managed = link.transact(|card| {
        application::select(card)?;
        Managed::read(card, &facts)
    });
    Ok(managed.map_err(|fault| fault.typed(&facts.name()))?.factory)
}

/// Makes a key in the slot that `locator` names, and proves it by an agree.
///
/// X25519 only on YubiKeys from firmware 5.7 on, and never seen on a real one here; policies only on YubiKeys. The PIN is asked for first, so that no key
/// is made that could not be used then, and only where the key or the card wants it. The management key: a factory's key that the card itself calls so is
/// used without asking ([`management_key_is_default`]); one that Yubico's tools keep behind the PIN is fetched; else it is asked for.
///
/// On a card that does not tell its public keys the slot's certificate object gets an unsigned certificate (RFC 9925) about the new one; there a key
/// without a certificate is found by an agree. No other object is written.
///
/// # Errors
/// `KeyExists`, `Unsupported` (curve, policy), `WrongPin` (also for the management key, of which no tries are counted), and those of
/// [`open`](crate::open). When the key was made and proving it failed, the error says so.
pub(crate) fn generate(
    locator: &PivLocator,
    new: &NewKey,
    operation: &mut Operation<'_>,
) -> Result<(PivLocator, PublicKey)> {
    operation.enter(Stage::Access);
    let (mut link, facts) = find(&mut Search::default(), locator.card)?;
    let what = named(&facts, locator.slot);
    refuse_unsupported(&facts, new, &what)?;
    let place = Place { slot: locator.slot, facts: &facts, what: &what };
    let read = link.transact(|card| {
        application::select(card)?;
        place.refuse_taken(card, new)?;
        Ok((Managed::read(card, &facts)?, pin::status(card, &facts)?))
    });
    let (managed, status) = read.map_err(|fault| fault.typed(&what))?;
    let mut keeper = Keeper::new(KeepPin::Once, locator.pin_source.as_deref());
    if new.pin != Some(PinPolicy::Never) || managed.behind_pin || !facts.tells_keys() {
        place.verify(&mut link, &mut keeper, status, operation)?;
        operation.enter(Stage::Access);
        place.refuse_untold(&mut link, new)?;
    }
    let public = place.make(&mut link, &managed, new, operation)?;
    let card = facts.id().unwrap_or(locator.card);
    let named = PivLocator { card, slot: locator.slot, pin_source: locator.pin_source.clone() };
    prove(&named, link, facts, public.clone(), keeper, operation)?;
    Ok((named, public))
}

fn refuse_unsupported(facts: &Facts, new: &NewKey, what: &str) -> Result<()> {
    let refused = |why: &str, hint: &str| {
        Err(Error::new(ErrorKind::Unsupported, format!("{what} {why}; no key was made."), hint))
    };
    if !facts.curves().contains(&new.curve) {
        let why = match facts.yubico {
            Some(Yubico { firmware: [a, b, c], .. }) => &format!("has firmware {a}.{b}.{c}, and X25519 came with 5.7"),
            None => "is no YubiKey, and X25519 is Yubico's extension of PIV",
        };
        return refused(why, "Ask for `--curve p256`.");
    }
    if (new.pin.is_some() || new.touch.is_some()) && facts.yubico.is_none() {
        return refused(
            "has no PIN or touch policy of its own for a key",
            "Leave out `--pin-policy` and `--touch-policy`, or use a YubiKey.",
        );
    }
    if new.touch == Some(Touch::Unknown) {
        return refused("knows no such touch policy", "Write one of `never`, `cached`, `always`.");
    }
    Ok(())
}

/// Where a key is to be made.
struct Place<'a> {
    slot: PivSlot,
    facts: &'a Facts,
    what: &'a str,
}

impl Place<'_> {
    /// Refuses a key that is there, as far as the card tells, unless it is the one to replace.
    fn refuse_taken(&self, card: &mut dyn Exchange, new: &NewKey) -> std::result::Result<(), Fault> {
        match slot_key(card, self.facts, self.slot)? {
            None => Ok(()),
            Some(SlotKey { public: Ok(public), .. }) if new.replace.as_ref() == Some(&public) => Ok(()),
            Some(SlotKey { public: Ok(_), .. }) => Err(self.taken("holds another key").into()),
            Some(SlotKey { public: Err(why), .. }) => Err(self.taken(&format!("is taken: {why}")).into()),
        }
    }

    fn taken(&self, how: &str) -> Error {
        Error::new(
            ErrorKind::KeyExists,
            format!("{} {how}; nothing was made.", self.what),
            "Choose another slot, 9d or 82 to 95; or name the key to replace by its fingerprint.",
        )
    }

    /// Refuses a key that the card does not tell of: it agrees. The PIN must be verified.
    fn refuse_untold(&self, link: &mut Link, new: &NewKey) -> Result<()> {
        if self.facts.tells_keys() {
            return Ok(());
        }
        let probe = SoftKey::generate(Curve::P256)?;
        let agreed = link.transact(|card| {
            application::select(card)?;
            application::if_there(application::agree(card, self.slot, probe.public()))
        });
        let Some(agreed) = agreed.map_err(|fault| fault.typed(self.what))? else { return Ok(()) };
        // The same key agrees to the same secret; it is compared with itself only.
        let replaced = match &new.replace {
            Some(replace) if replace.curve() == Curve::P256 => probe.agree(replace)?.as_bytes() == agreed.as_bytes(),
            _ => false,
        };
        if replaced { Ok(()) } else { Err(self.taken("holds another key, of which it tells nothing")) }
    }

    fn verify(
        &self,
        link: &mut Link,
        keeper: &mut Keeper,
        status: Status,
        operation: &mut Operation<'_>,
    ) -> Result<()> {
        if status.verified {
            return Ok(());
        }
        let mut odd = None;
        let request = PinRequest::new(self.what, Purpose::UserPin, status.tries);
        let unlocked = keeper.unlock_for(request, operation, |pin, operation| {
            let Some(padded) = pin::padded(pin, self.facts) else {
                odd = Some(pin::odd(self.what, status.tries));
                return Err(Error::new(ErrorKind::WrongPin, "That is no PIN.", "Give another."));
            };
            operation.enter(Stage::Access);
            let mut attempt = Attempt::new(self.what, &padded, status.tries);
            let verified = link.transact(|card| {
                application::select(card)?;
                let now = pin::status(card, self.facts)?;
                operation.before_deadline(self.what)?;
                attempt.verify(card, now)
            });
            verified.map_err(|fault| fault.typed(self.what))
        });
        odd.map_or(unlocked, Err)
    }

    /// Shows the management key and makes the key, in one transaction with a last look at what is there.
    fn make(
        &self,
        link: &mut Link,
        managed: &Managed,
        new: &NewKey,
        operation: &mut Operation<'_>,
    ) -> Result<PublicKey> {
        let mut make = |given: Option<&ManagementKey>, operation: &Operation<'_>| {
            operation.enter(Stage::Access);
            let made = link.transact(|card| {
                application::select(card)?;
                self.refuse_taken(card, new)?;
                operation.before_deadline(self.what)?;
                operation.enter(if managed.touch { Stage::Touch } else { Stage::Device });
                let fetched;
                let key = match given {
                    Some(key) => key,
                    None => {
                        fetched = management::behind_pin(card)?;
                        &fetched
                    }
                };
                management::authenticate(card, managed, key, self.what)?;
                let public = application::generate(card, self.slot, new.curve, new.pin, new.touch);
                let public = public.map_err(|fault| self.explain(fault, new))?;
                if !self.facts.tells_keys() {
                    application::put_data(card, &certificate::object(self.slot), &certificate::unsigned(&public))?;
                }
                Ok(public)
            });
            made.map_err(|fault| fault.typed(self.what))
        };
        if managed.factory == Some(true) {
            return make(Some(&ManagementKey::factory()), operation);
        }
        if managed.behind_pin {
            return make(None, operation);
        }
        let mut made = None;
        let request = PinRequest::new(self.what, Purpose::ManagementKey, Tries::Unlimited);
        Keeper::new(KeepPin::Never, None).unlock_for(request, operation, |text, operation| {
            made = Some(make(Some(&ManagementKey::parse(text)?), operation)?);
            Ok(())
        })?;
        made.ok_or_else(|| Fault::Removed.typed(self.what))
    }

    fn explain(&self, fault: Fault, new: &NewKey) -> Fault {
        match (fault.status(), new.curve) {
            (Some(0x6a80 | 0x6a81 | 0x6a86), Curve::X25519) => Fault::Typed(Error::new(
                ErrorKind::Unsupported,
                format!("{} refuses to make a key on x25519: a FIPS YubiKey has none.", self.what),
                "Ask for `--curve p256`.",
            )),
            (Some(0x6a80 | 0x6a81 | 0x6a86), _) if new.pin.is_some() || new.touch.is_some() => {
                Fault::Typed(Error::new(
                    ErrorKind::Unsupported,
                    format!("{} refuses to make a key with these policies; none was made.", self.what),
                    "Leave out `--pin-policy` or `--touch-policy`: YubiKeys before 4.3 cache no touch, FIPS ones want the PIN.",
                ))
            }
            _ => fault,
        }
    }
}

/// Reads the new key back as `open` would, and agrees with it.
fn prove(
    locator: &PivLocator,
    mut link: Link,
    facts: Facts,
    public: PublicKey,
    keeper: Keeper,
    operation: &mut Operation<'_>,
) -> Result<()> {
    let what = named(&facts, locator.slot);
    let mut proved = || {
        let found = super::read_key(&mut link, &facts, locator.slot, &what)?;
        super::public_key(&facts, found.as_ref(), Some(&public), &what)?;
        Ok(found)
    };
    let outcome =
        proved().and_then(|found| PivToken::new(locator, link, facts, found, public, keeper).prove(operation));
    outcome.map_err(|error: Error| {
        Error::new(
            error.kind(),
            format!("The key was made, and could not be proved: {error}"),
            format!("{} Then prove it with `claviger-ceremony token test`.", error.hint()),
        )
    })
}
