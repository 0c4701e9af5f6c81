//! A look at a token that costs nothing: no PIN, no touch, no operation.

use super::from_hsm;
use super::handle::point;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::StaticPublic;
use claviger_hsm::{Device, Locator, Tries};
use std::fs;
use std::io;

/// What was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Glance {
    /// What the token is called, for people. The device said it.
    pub label: String,
    /// Whether the key was seen there; `false` where a token shows no public keys before its PIN.
    pub has_key: bool,
    /// How many tries its PIN has, when that is worth saying: few, or none.
    pub tries: Option<String>,
}

/// Looks for the token at `locator`, and on it for the key `expected`. Blocks, as long as a device may.
///
/// # Errors
/// [`ErrorKind::LocatorInvalid`]; [`ErrorKind::TokenAbsent`]; [`ErrorKind::TokenModule`]; [`ErrorKind::KeyNotFound`] when tokens of the kind are there and each shows other keys;
/// [`ErrorKind::PinLocked`]; [`ErrorKind::TokenFailed`].
pub fn glance(locator: &str, expected: &StaticPublic) -> Result<Glance> {
    let parsed: Locator = locator.parse().map_err(from_hsm)?;
    let devices = match &parsed {
        Locator::File(file) => return file_at(&file.path),
        Locator::Pkcs11(uri) => match uri.module_path() {
            Some(module) => claviger_hsm::pkcs11::list(module),
            None => Ok(Vec::new()),
        },
        Locator::OpenPgp(_) => claviger_hsm::openpgp::list(),
        Locator::Piv(_) => claviger_hsm::piv::list(),
        #[cfg(feature = "tpm")]
        Locator::Tpm(tpm) => claviger_hsm::tpm::list(tpm.tcti.as_deref()),
        _ => Ok(Vec::new()),
    };
    let devices = devices.map_err(from_hsm)?;
    let expected = point(expected)?;
    let holds = |device: &&Device| device.keys.iter().any(|key| key.public_key.as_ref() == Ok(&expected));
    // Of PKCS#11 modules some show no key before their PIN.
    let hides = |device: &&Device| match &parsed {
        Locator::Pkcs11(uri) => uri.serial().is_some_and(|serial| device.serial == serial) || uri.serial().is_none(),
        _ => false,
    };
    let found = devices.iter().find(holds).map(|device| (device, true));
    let Some((device, has_key)) = found.or_else(|| devices.iter().find(hides).map(|device| (device, false))) else {
        return Err(match devices.is_empty() {
            true => Error::new(
                ErrorKind::TokenAbsent,
                "This machine's token is not there.",
                "Plug it in, and see that pcscd runs (`systemctl status pcscd`); `claviger-ceremony token list` shows what is there.",
            ),
            false => Error::new(
                ErrorKind::KeyNotFound,
                "No token that is plugged in shows this machine's key.",
                "Plug in the right one; `claviger-ceremony token list` shows those that are there.",
            ),
        });
    };
    if let Some(why) = &device.unusable {
        return Err(Error::new(
            ErrorKind::TokenFailed,
            format!("The token can not be used: {why}."),
            "Look at it with `claviger-ceremony token list`.",
        ));
    }
    let tries = match device.pin.map(|pin| pin.tries_left) {
        Some(Tries::None) => {
            return Err(Error::new(
                ErrorKind::PinLocked,
                "The token's PIN is locked: no try is left.",
                "Unlock it with its maker's tool; `claviger-ceremony token list` shows it.",
            ));
        }
        Some(Tries::Last) => Some("one try of its PIN is left".to_owned()),
        Some(Tries::Low) => Some("wrong PINs were entered".to_owned()),
        Some(Tries::Left(tries)) if tries < 3 => Some(format!("{tries} tries of its PIN are left")),
        _ => None,
    };
    let label = [device.maker.as_str(), device.model.as_str(), device.serial.as_str()];
    let label: Vec<_> = label.into_iter().filter(|part| !part.is_empty()).collect();
    Ok(Glance { label: label.join(" "), has_key, tries })
}

fn file_at(path: &std::path::Path) -> Result<Glance> {
    let shown = path.display();
    match fs::File::open(path).and_then(|file| file.metadata()) {
        Ok(meta) if meta.is_file() => {
            Ok(Glance { label: format!("software key file {shown}"), has_key: false, tries: None })
        }
        Ok(_) => {
            Err(Error::new(ErrorKind::TokenFailed, format!("{shown} is no key file."), "Restore it from its backup."))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::new(
            ErrorKind::TokenAbsent,
            format!("There is no key file {shown}."),
            "Restore it from its backup, or mount the disk that it is on.",
        )),
        Err(error) => Err(Error::new(
            ErrorKind::TokenFailed,
            format!("The key file {shown} can not be read: {error}."),
            "Give it to this user, with mode 0600.",
        )
        .because(error)),
    }
}
