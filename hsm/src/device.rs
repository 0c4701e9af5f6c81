//! Devices as they show themselves without a PIN: what `claviger-ceremony token list` prints.

use crate::curve::{Curve, PublicKey};
use crate::locator::Locator;
use crate::pin::Tries;
use crate::token::{PinPolicy, TokenKind, Touch};

/// A device that holds, or could hold, a key.
///
/// Texts come from the device: escape them before a terminal sees them.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Device {
    /// The backend.
    pub kind: TokenKind,
    /// The maker, as far as it tells.
    pub maker: String,
    /// The model; for PKCS#11 with the token's label.
    pub model: String,
    /// The serial number, as the maker prints it; empty where there is none.
    pub serial: String,
    /// Firmware version; empty where it does not tell.
    pub firmware: String,
    /// Whether it is a device by its own word; what is in software can be copied.
    pub hardware: bool,
    /// Where it was seen: a reader's name, a module's path. For people; never part of a locator but for the module.
    pub seen_at: String,
    /// Curves on which it can make a key and agree.
    pub curves: Vec<Curve>,
    /// Its user PIN; `None` where it could not be read.
    pub pin: Option<PinState>,
    /// The keys, and places for keys that are empty where the family has a fixed set that people choose from.
    pub keys: Vec<DeviceKey>,
    /// Why it cannot be used, if it cannot: a clause for people.
    pub unusable: Option<String>,
}

/// The state of a user PIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PinState {
    /// A user PIN has been set.
    pub set: bool,
    /// The PIN is entered on the device itself.
    pub pad: bool,
    /// Tries left, as far as the device tells.
    pub tries_left: Tries,
    /// Whether the device holds the PIN as verified just now, for every program; `None` where it does not tell.
    pub verified: Option<bool>,
}

impl PinState {
    /// A PIN that was set, is typed on this computer, and of which the device does not tell whether it is verified.
    pub fn new(tries_left: Tries) -> Self {
        Self { set: true, pad: false, tries_left, verified: None }
    }
}

/// A key in a device.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DeviceKey {
    /// Its place or name on the device: `9d`, `decryption`, a `CKA_LABEL`.
    pub place: String,
    /// What names it.
    pub locator: Option<Locator>,
    /// The public key, or why there is none that can be used: a clause for people.
    pub public_key: Result<PublicKey, String>,
    /// When the device wants the PIN for it; `None` where it does not tell.
    pub pin: Option<PinPolicy>,
    /// When it wants a touch.
    pub touch: Touch,
    /// Whether the device can attest it.
    pub attestable: bool,
}

impl DeviceKey {
    /// A key of which nothing but its place is known yet.
    pub fn new(place: impl Into<String>, public_key: Result<PublicKey, String>) -> Self {
        Self { place: place.into(), locator: None, public_key, pin: None, touch: Touch::Unknown, attestable: false }
    }
}
