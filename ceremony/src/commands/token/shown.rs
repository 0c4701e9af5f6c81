//! A device and its keys as they are printed: a JSON form with stable names, and a text form of the same.

use std::fmt::Write as _;

use claviger::program::one_line;
use claviger_hsm::{Device, DeviceKey, Locator, PinState, Pkcs11Uri, TokenKind, Touch, TpmKey, TpmLocator, Tries};
use serde::Serialize;

use super::{kind, look, static_public};
use crate::report::Key;

#[derive(Serialize)]
pub(super) struct TokenReport {
    /// `openpgp`, `piv`, `pkcs11`, `tpm`.
    pub(super) backend: String,
    /// The PKCS#11 module; `null` for others.
    module: Option<String>,
    /// The label that a PKCS#11 token was given; empty for others.
    label: String,
    manufacturer: String,
    model: String,
    serial: String,
    firmware: String,
    /// The reader, module or TPM: where it is just now.
    seen_at: String,
    /// Whether it is a device; a token in software can be copied.
    pub(super) hardware: bool,
    curves: Vec<String>,
    /// The state of the PIN, for people.
    pin: String,
    /// The same for programs; `null` when it could not be read.
    pin_state: Option<PinReport>,
    keys: Vec<KeyReport>,
    /// A locator for `token generate`, with SLOT, NAME or HANDLE where one is to be chosen; `null` where there is no room or no need.
    new_key: Option<String>,
    /// Why it can not be used; `null` when it can.
    unusable: Option<String>,
    #[serde(skip)]
    kind: TokenKind,
    #[serde(skip)]
    held: bool,
}

#[derive(Serialize, PartialEq, Eq)]
pub(super) struct PinReport {
    set: bool,
    /// It is entered on the device.
    pad: bool,
    /// Tries left; `null` where the device gives no number.
    tries_left: Option<u8>,
    /// The device holds it as verified just now; `null` where it does not tell.
    verified: Option<bool>,
}

#[derive(Serialize)]
struct KeyReport {
    /// The key's place or name on the device: `9d`, `decryption`, a `CKA_LABEL`.
    label: String,
    /// `CKA_ID`, hexadecimal; empty for others than PKCS#11.
    id: String,
    /// Absent when it can not be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<Key>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unusable: Option<String>,
    /// What names the place, also where there is no key yet.
    locator: Option<String>,
    /// `never`, `once`, `always`; `null` where the device does not tell.
    pin_policy: Option<String>,
    /// `never`, `cached`, `always`, `unknown`.
    touch_policy: String,
    attestable: bool,
}

impl TokenReport {
    pub(super) fn new(device: &Device) -> Self {
        let pkcs11 = device.kind == TokenKind::Pkcs11;
        // A PKCS#11 token is called `MODEL token "LABEL"` by its backend.
        let (model, label) = match device.model.split_once(" token \"") {
            Some((model, label)) if pkcs11 => (model, label.strip_suffix('"').unwrap_or(label)),
            _ => (device.model.as_str(), ""),
        };
        let mut keys: Vec<KeyReport> = device.keys.iter().map(|key| KeyReport::new(key, device.hardware)).collect();
        if pkcs11 {
            // Modules list objects in an order of their own, which changes.
            keys.sort_by(|a, b| (&a.label, &a.id).cmp(&(&b.label, &b.id)));
        }
        Self {
            backend: device.kind.to_string(),
            module: pkcs11.then(|| device.seen_at.clone()),
            label: label.to_owned(),
            manufacturer: device.maker.clone(),
            model: model.to_owned(),
            serial: device.serial.clone(),
            firmware: device.firmware.clone(),
            seen_at: device.seen_at.clone(),
            hardware: device.hardware,
            curves: device.curves.iter().map(ToString::to_string).collect(),
            pin: device.pin.map_or_else(|| "could not be read".to_owned(), pin_text),
            pin_state: device.pin.map(PinReport::from),
            keys,
            new_key: new_key(device, label),
            unusable: unusable(device),
            kind: device.kind,
            held: look::is_held(device),
        }
    }

    /// Whether one of its keys has that public key, in hexadecimal.
    pub(super) fn holds(&self, public: &str) -> bool {
        self.keys.iter().filter_map(|key| key.key.as_ref()).any(|key| key.static_public_key == public)
    }

    /// A block of lines.
    pub(super) fn text(&self) -> String {
        let or = |value: &str, otherwise: &str| if value.is_empty() { otherwise.to_owned() } else { one_line(value) };
        let name = if self.kind == TokenKind::Pkcs11 {
            format!("{} \"{}\"", one_line(&self.model), one_line(&self.label))
        } else {
            one_line(&self.model)
        };
        let software = if self.hardware { "" } else { ", in software: its keys can be copied" };
        let family = look::family(self.kind);
        // Some models are called by their family; of a card that another program holds it is not known.
        let family = if name.starts_with(family) || self.held { String::new() } else { format!(" ({family})") };
        let mut text = format!("{name}{family}{software}\n");
        let seen_at = ("seen at", one_line(&self.seen_at));
        let rest = [
            ("maker", or(&self.manufacturer, "not told")),
            ("serial", or(&self.serial, "not told")),
            ("firmware", or(&self.firmware, "not told")),
            ("curves", or(&self.curves.join(" "), "none")),
            ("PIN", self.pin.clone()),
        ];
        for (name, value) in std::iter::once(seen_at).chain(rest.into_iter().filter(|_| !self.held)) {
            let _ = writeln!(text, "  {name:<9} {value}");
        }
        if let Some(place) = &self.new_key {
            let _ = writeln!(text, "  new key   {place}");
        }
        if let Some(why) = &self.unusable {
            let _ = writeln!(text, "  can not be used: {}", one_line(why));
        }
        for key in &self.keys {
            text += &key.text();
        }
        text
    }
}

/// Why it can not be used. A card that has no key, or another's, can still get one.
fn unusable(device: &Device) -> Option<String> {
    let about_a_key =
        |why: &String| device.keys.iter().any(|key| key.public_key.as_ref().is_err_and(|reason| reason == why));
    device.unusable.clone().filter(|why| device.curves.is_empty() || !about_a_key(why))
}

/// Where a new key could be made.
fn new_key(device: &Device, label: &str) -> Option<String> {
    if unusable(device).is_some() || device.curves.is_empty() {
        return None;
    }
    match device.kind {
        TokenKind::Piv if device.serial.is_empty() => None,
        // A GUID has 32 digits, a serial number at most ten.
        TokenKind::Piv if device.serial.len() == 32 => Some(format!("piv:guid={};slot=SLOT", device.serial)),
        TokenKind::Piv => Some(format!("piv:serial={};slot=SLOT", device.serial)),
        // Cards behind OpenSC are better used directly, and it makes keys on few of them.
        TokenKind::Pkcs11 if label.is_empty() || device.seen_at.contains("opensc-pkcs11") => None,
        TokenKind::Pkcs11 => {
            let uri = Pkcs11Uri::for_key(device.seen_at.as_ref(), label, "NAME").ok()?;
            Some(Locator::Pkcs11(uri).to_string())
        }
        TokenKind::Tpm => {
            let tcti = Some(device.seen_at.clone()).filter(|tcti| tcti != "device:/dev/tpmrm0");
            let place = TpmLocator { key: TpmKey::Persistent(0x8101_0000), tcti, pin_source: None };
            Some(place.to_string().replace("0x81010000", "HANDLE"))
        }
        // The one place that there is.
        TokenKind::OpenPgp => {
            device.keys.iter().find(|key| key.public_key.is_err())?.locator.as_ref().map(Locator::to_string)
        }
        _ => None,
    }
}

impl KeyReport {
    fn new(key: &DeviceKey, hardware: bool) -> Self {
        let id = match &key.locator {
            Some(Locator::Pkcs11(uri)) => {
                uri.id().unwrap_or_default().iter().map(|byte| format!("{byte:02x}")).collect()
            }
            _ => String::new(),
        };
        let locator = key.locator.as_ref().map(ToString::to_string);
        let report = key.public_key.as_ref().map_err(Clone::clone).and_then(|public| {
            let public = static_public(public).map_err(|error| error.to_string())?;
            let locator = locator.clone().ok_or("no locator can name it: its names are too long or not text")?;
            Ok(Key::new(locator, kind(hardware), &public))
        });
        let (report, unusable) = match report {
            Ok(report) => (Some(report), None),
            Err(why) => (None, Some(why)),
        };
        Self {
            label: key.place.clone(),
            id,
            key: report,
            unusable,
            locator,
            pin_policy: key.pin.map(|policy| policy.to_string()),
            touch_policy: key.touch.to_string(),
            attestable: key.attestable,
        }
    }

    fn text(&self) -> String {
        let label = one_line(&self.label);
        let Some(key) = &self.key else {
            let why = self.unusable.as_deref().unwrap_or_default();
            // A place for a key that is free.
            if why.contains("no key") || why.contains("no decryption key") {
                return format!("  key \"{label}\": {}\n", one_line(why));
            }
            return format!("  key \"{label}\": can not be used: {}\n", one_line(why));
        };
        let mut what = key.kind_on_curve();
        if let Some(policy) = &self.pin_policy {
            what += &format!(", PIN {policy}");
        }
        if self.touch_policy != Touch::Unknown.to_string() {
            what += &format!(", touch {}", self.touch_policy);
        }
        if self.attestable {
            what += ", can be attested";
        }
        format!("  key \"{label}\": {what}\n    fingerprint {}\n    {}\n", key.grouped(), key.locator)
    }
}

pub(super) fn key_file_text(key: &Key) -> String {
    format!("{}\n  fingerprint {}\n  {}\n", key.kind_on_curve(), key.grouped(), key.locator)
}

/// `set; 3 tries left; verified just now`: until the card is reset or loses power, and for every program.
pub(super) fn pin_text(pin: PinState) -> String {
    if !pin.set {
        return "not set".to_owned();
    }
    let pad = if pin.pad { ", entered on the token" } else { "" };
    let verified = if pin.verified == Some(true) { "; verified just now" } else { "" };
    format!("set{pad}; {}{verified}", pin.tries_left)
}

impl From<PinState> for PinReport {
    fn from(pin: PinState) -> Self {
        let tries_left = match pin.tries_left {
            Tries::Left(left) => Some(left),
            Tries::Last => Some(1),
            Tries::None => Some(0),
            _ => None,
        };
        Self { set: pin.set, pad: pin.pad, tries_left, verified: pin.verified }
    }
}
