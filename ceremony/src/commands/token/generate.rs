//! `token generate`.

use std::path::Path;

use claviger::error::{Error, ErrorKind, Result};
use claviger::identity::{Curve, Fingerprint, StaticPublic};
use claviger::program::{Terminal, store_dir};
use claviger::store::Store;
use claviger::token::from_hsm;
use claviger_hsm::{Locator, NewKey, PinPolicy, PivSlot, Touch};

use super::{kind, look, parse, static_public};
use crate::cli::Generate;
use crate::commands::attend::{self, attend, name};
use crate::report::Key;

/// How a key that is there is overwritten without a terminal.
const REPLACE: &str =
    "Choose another place; or, if it is to be lost for ever, run it again with `--replace FINGERPRINT`.";

pub(super) fn generate(store: Option<&Path>, generate: &Generate, terminal: &Terminal) -> Result<()> {
    let locator = match generate.slot {
        Some(slot) => parse(&in_slot(&generate.locator, slot)?)?,
        None => parse(&generate.locator)?,
    };
    let mut new = NewKey::new(match generate.curve {
        Curve::X25519 => claviger_hsm::Curve::X25519,
        Curve::P256 => claviger_hsm::Curve::P256,
    });
    (new.pin, new.touch) = (generate.pin_policy, generate.touch_policy);
    if let Locator::File(_) = locator {
        terminal.warn(
            "this makes a SOFTWARE key: it is in this computer's memory when used, and whoever copies the file and learns its passphrase has it.",
        );
    }
    agree_to_replace(&locator, &mut new, store, generate, terminal)?;
    warn_of_the_factory_key(&locator, terminal)?;
    let make = |operation: &mut claviger_hsm::Operation<'_>| claviger_hsm::generate(&locator, &new, operation);
    let (made, public) = attend(terminal, &name(&locator), make)?.answer;
    let hardware = attend::look(terminal, || is_hardware(&made))?;
    let key = Key::new(made.to_string(), kind(hardware), &static_public(&public)?);
    say_what_it_means(&made, &new, terminal);
    terminal.note(&format!(
        "Made a {}, with the fingerprint\n  {}\nIts locator, for `claviger-ceremony init --token`:",
        key.kind_on_curve(),
        key.grouped()
    ));
    terminal.result(&format!("{}\n", key.locator), &key)
}

/// A `piv:` locator with that slot, in place of the one that it names, if any.
fn in_slot(locator: &str, slot: PivSlot) -> Result<String> {
    let Some(rest) = locator.strip_prefix("piv:") else {
        return Err(Error::new(
            ErrorKind::LocatorInvalid,
            "Only a PIV card has slots, and the locator names something else.",
            "Leave out `--slot`, or name a PIV card: `piv:serial=12345678`.",
        ));
    };
    let (card, query) = rest.split_once('?').map_or((rest, None), |(card, query)| (card, Some(query)));
    let card: Vec<&str> = card.split(';').filter(|part| !part.starts_with("slot=")).collect();
    let query = query.map_or_else(String::new, |query| format!("?{query}"));
    Ok(format!("piv:{};slot={slot}{query}", card.join(";")))
}

fn is_hardware(locator: &Locator) -> Result<bool> {
    match locator {
        Locator::Pkcs11(uri) => claviger_hsm::pkcs11::is_hardware(uri).map_err(from_hsm),
        Locator::File(_) => Ok(false),
        other => Ok(look::of(other).map_err(from_hsm)?.iter().all(|device| device.hardware)),
    }
}

/// Where a key is there already: it is overwritten only by somebody who names it. PKCS#11 tokens and files never overwrite one.
fn agree_to_replace(
    locator: &Locator,
    new: &mut NewKey,
    store: Option<&Path>,
    generate: &Generate,
    terminal: &Terminal,
) -> Result<()> {
    let there = match locator {
        Locator::Pkcs11(_) | Locator::File(_) if generate.replace.is_none() => return Ok(()),
        Locator::Pkcs11(_) | Locator::File(_) => {
            return Err(Error::new(
                ErrorKind::KeyExists,
                "Keys behind PKCS#11 and in files are not overwritten; nothing was made.",
                "Choose another name, without `--replace`; the old key is removed with its maker's tool.",
            ));
        }
        cards => {
            attend::look(terminal, || look::key_at(cards)).map_err(from_hsm)?.and_then(|(_, key)| key.public_key.ok())
        }
    };
    let Some(there) = there else {
        return match generate.replace {
            None => Ok(()),
            Some(_) => Err(Error::new(
                ErrorKind::KeyNotFound,
                "There is no key at this locator that `--replace` could mean; nothing was made.",
                "See what is there with `claviger-ceremony token list`, then leave `--replace` out.",
            )),
        };
    };
    let public = static_public(&there)?;
    let print = Fingerprint::of_key(&public);
    let typed = match &generate.replace {
        Some(typed) => typed.clone(),
        None => {
            let identity = whose(&public, store).map_or_else(String::new, |name| {
                format!("It is the identity of this machine, \"{name}\": its peers would no longer know it.\n")
            });
            let text = format!(
                "There is a key at {locator}:\n  on {}, fingerprint {print}\n{identity}It can not be brought back.\n\
                 Type its fingerprint to overwrite it, all digits: ",
                public.curve()
            );
            terminal.ask(&text, REPLACE).map_err(|_| {
                let what = format!("There is a key at {locator} already, fingerprint {print}, and nobody said that it may be overwritten.");
                Error::new(ErrorKind::Declined, what, REPLACE)
            })?
        }
    };
    let same = print.matches(&typed).map_err(|_| {
        Error::new(
            ErrorKind::FingerprintInvalid,
            format!("The key at {locator} was not overwritten: what was given is no fingerprint."),
            "Give all 32 digits, as `claviger-ceremony token list` shows them; or choose another place.",
        )
    });
    if typed.is_empty() || !same? {
        return Err(Error::new(
            ErrorKind::FingerprintMismatch,
            format!("The key at {locator} was not overwritten: that is not its fingerprint."),
            "Look at it with `claviger-ceremony token list`, or choose another place.",
        ));
    }
    new.replace = Some(there);
    Ok(())
}

/// The machine whose store is here, if this key is its identity.
fn whose(public: &StaticPublic, store: Option<&Path>) -> Option<String> {
    let machine = Store::open(&store_dir(store).ok()?).ok()?.machine().ok()?;
    (machine.card.static_public == *public).then(|| machine.card.identifier.to_string())
}

/// A PIV card's management key that everybody knows is used without a question, so it is told.
fn warn_of_the_factory_key(locator: &Locator, terminal: &Terminal) -> Result<()> {
    if let Locator::Piv(piv) = locator
        && attend::look(terminal, || claviger_hsm::piv::management_key_is_default(piv)).map_err(from_hsm)? == Some(true)
    {
        terminal.warn(
            "the card's management key is the factory's, which everybody knows: whoever has the card for a minute can overwrite its keys. Change it with `ykman piv access change-management-key --protect --generate`.",
        );
    }
    Ok(())
}

fn say_what_it_means(locator: &Locator, new: &NewKey, terminal: &Terminal) {
    if new.pin == Some(PinPolicy::Always) {
        terminal.warn("the PIN policy is `always`: every connection of a daemon needs somebody to type the PIN, or a PIN kept in memory.");
    }
    if new.touch == Some(Touch::Always) {
        terminal.warn(
            "the touch policy is `always`: every operation, two for a KK handshake, needs somebody to touch the token.",
        );
    }
    if matches!(locator, Locator::Piv(_)) && new.curve == claviger_hsm::Curve::X25519 {
        terminal.note(
            "X25519 on PIV was tested with an emulated YubiKey only. Run `claviger-ceremony token test` on this key before you rely on it.",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_put_into_the_locator() {
        let slot: PivSlot = "82".parse().unwrap();
        for (given, with) in [
            ("piv:serial=7", "piv:serial=7;slot=82"),
            ("piv:slot=9d;serial=7", "piv:serial=7;slot=82"),
            ("piv:serial=7;slot=9d?pin-source=/p", "piv:serial=7;slot=82?pin-source=/p"),
        ] {
            assert_eq!(in_slot(given, slot).unwrap(), with);
        }
        assert_eq!(in_slot("openpgp:0006:12345678", slot).unwrap_err().kind(), ErrorKind::LocatorInvalid);
    }
}
