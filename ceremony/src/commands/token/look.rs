//! Which devices are there, by every way to them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use claviger_hsm::{CardId, Device, DeviceKey, Error, Locator, OpenPgpLocator, PivLocator, Pkcs11Uri, TokenKind};

/// Where distributions put PKCS#11 modules.
const USUAL_PLACES: [&str; 10] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/opensc-pkcs11.so",
    "/usr/lib/aarch64-linux-gnu/opensc-pkcs11.so",
    "/usr/lib64/pkcs11/opensc-pkcs11.so",
    "/usr/lib/x86_64-linux-gnu/libykcs11.so",
    "/usr/lib/aarch64-linux-gnu/libykcs11.so",
    "/usr/lib/x86_64-linux-gnu/libykcs11.so.2",
    "/usr/lib/aarch64-linux-gnu/libykcs11.so.2",
    "/usr/lib64/libykcs11.so.2",
];

/// The PKCS#11 modules that are installed, each once.
pub(super) fn modules() -> Vec<PathBuf> {
    let mut seen = BTreeSet::new();
    let new = |place: &&str| Path::new(place).canonicalize().is_ok_and(|path| seen.insert(path));
    USUAL_PLACES.iter().copied().filter(new).map(PathBuf::from).collect()
}

/// The cards of a family. `TokenKind::Pkcs11` and `Software` have no devices that are found without a name.
pub(super) fn cards(kind: TokenKind) -> Result<Vec<Device>, Error> {
    match kind {
        TokenKind::OpenPgp => claviger_hsm::openpgp::list(),
        TokenKind::Piv => claviger_hsm::piv::list(),
        _ => Ok(Vec::new()),
    }
}

/// Cards that another program holds for itself: nobody can tell of which family they are. The `piv` backend lists them.
pub(super) fn held() -> Result<Vec<Device>, Error> {
    Ok(cards(TokenKind::Piv)?.into_iter().filter(is_held).collect())
}

pub(super) fn is_held(device: &Device) -> bool {
    device.kind == TokenKind::Piv && device.maker.is_empty() && device.serial.is_empty() && device.curves.is_empty()
}

/// The TPM behind `tcti`, or this machine's, if it has one.
#[cfg(feature = "tpm")]
pub(super) fn tpms(tcti: Option<&str>) -> Result<Vec<Device>, Error> {
    // Without it tpm2-tss fills the terminal with what it tried.
    if tcti.is_none() && !Path::new("/dev/tpmrm0").exists() {
        return Ok(Vec::new());
    }
    claviger_hsm::tpm::list(tcti)
}

/// The devices that `locator` could mean.
pub(super) fn of(locator: &Locator) -> Result<Vec<Device>, Error> {
    let devices = match locator {
        Locator::Pkcs11(uri) => match uri.module_path() {
            Some(module) => claviger_hsm::pkcs11::list(module)?,
            None => Vec::new(),
        },
        Locator::OpenPgp(_) => cards(TokenKind::OpenPgp)?,
        Locator::Piv(_) => cards(TokenKind::Piv)?,
        #[cfg(feature = "tpm")]
        Locator::Tpm(tpm) => tpms(tpm.tcti.as_deref())?,
        _ => Vec::new(),
    };
    Ok(devices.into_iter().filter(|device| is_device_of(locator, device)).collect())
}

/// The key at `locator`, as its device shows it. `None`: no such place is shown.
pub(super) fn key_at(locator: &Locator) -> Result<Option<(Device, DeviceKey)>, Error> {
    let mut devices = of(locator)?;
    let Some(device) = devices.pop() else { return Ok(None) };
    if !devices.is_empty() {
        return Ok(None);
    }
    let key = device.keys.iter().find(|key| key.locator.as_ref().is_some_and(|there| means(locator, there)));
    Ok(key.cloned().map(|key| (device, key)))
}

/// Whether the key `there`, named as narrowly as can be, is the one that `given` names.
fn means(given: &Locator, there: &Locator) -> bool {
    match (given, there) {
        (Locator::Pkcs11(given), Locator::Pkcs11(there)) => {
            on_token(given, there)
                && given.object().is_none_or(|object| there.object() == Some(object))
                && given.id().is_none_or(|id| there.id() == Some(id))
        }
        (Locator::Piv(given), Locator::Piv(there)) => given.card == there.card && given.slot == there.slot,
        (Locator::Tpm(given), Locator::Tpm(there)) => given.key == there.key,
        (given, there) => is_same_device(given, there),
    }
}

fn is_device_of(locator: &Locator, device: &Device) -> bool {
    let by_key =
        || device.keys.iter().any(|key| key.locator.as_ref().is_some_and(|there| is_same_device(locator, there)));
    match locator {
        // A token without keys has no locator to compare with.
        Locator::Pkcs11(uri) => {
            uri.token().is_none_or(|token| device.model.ends_with(&format!(" token \"{token}\"")))
                && uri.serial().is_none_or(|serial| device.serial == serial)
        }
        Locator::Piv(piv) => {
            by_key()
                || device.serial
                    == match piv.card {
                        CardId::Serial(serial) => serial.to_string(),
                        CardId::Guid(guid) => format!("{:032x}", u128::from_be_bytes(guid)),
                    }
        }
        _ => by_key(),
    }
}

fn is_same_device(given: &Locator, there: &Locator) -> bool {
    match (given, there) {
        (Locator::Pkcs11(given), Locator::Pkcs11(there)) => on_token(given, there),
        (Locator::OpenPgp(OpenPgpLocator { manufacturer, serial, .. }), Locator::OpenPgp(there)) => {
            (*manufacturer, *serial) == (there.manufacturer, there.serial)
        }
        (Locator::Piv(PivLocator { card, .. }), Locator::Piv(there)) => *card == there.card,
        (Locator::Tpm(_), Locator::Tpm(_)) => true,
        _ => false,
    }
}

fn on_token(given: &Pkcs11Uri, there: &Pkcs11Uri) -> bool {
    given.token().is_none_or(|token| there.token() == Some(token))
        && given.serial().is_none_or(|serial| there.serial() == Some(serial))
}

/// What is looked for, for people, where looking failed.
pub(super) fn family(kind: TokenKind) -> &'static str {
    match kind {
        TokenKind::OpenPgp => "OpenPGP card",
        TokenKind::Piv => "PIV card",
        TokenKind::Tpm => "TPM 2.0",
        TokenKind::Pkcs11 => "PKCS#11 token",
        _ => "software key",
    }
}
