//! Asking for a PIN: what the asker is told, what it answers, and how long the answer is kept.

pub(crate) mod keeper;

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};
use crate::secret::Pin;
use crate::token::words;

#[allow(unused_imports)] // Used by backends that a build may leave out.
pub(crate) use keeper::Keeper;

/// Where PINs and passphrases come from: a terminal, a file, a test.
///
/// Called at most once for each call into a token, so a wrong PIN costs one try. A PIN that a token refused is not sent again, also when it is
/// given again.
pub trait PinEntry {
    /// A PIN that needs nobody, asked for before the locator's `pin-source` is read: a credential of the service manager.
    ///
    /// # Errors
    /// When there is one and it cannot be used; the PIN is then not looked for elsewhere.
    fn credential(&mut self, request: &PinRequest<'_>) -> Result<Option<Pin>> {
        let _ = request;
        Ok(None)
    }

    /// Gives the PIN or passphrase that `request` describes.
    ///
    /// # Errors
    /// Of kind `PinRequired` ([`Error::pin_required`](crate::Error::pin_required)) when nobody is there to ask.
    fn pin(&mut self, request: &PinRequest<'_>) -> Result<Pin>;

    /// Asked before anything is sent when one try is left, also where a file holds the PIN: may that try be spent?
    /// Without an explicit yes the token is left alone and the caller gets `PinLast`.
    fn confirm_last_try(&mut self, request: &PinRequest<'_>) -> bool {
        let _ = request;
        false
    }
}

/// What the person who is asked should see.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct PinRequest<'a> {
    /// The token or key file, for people: `SoftHSM v2 token "cosigner"`, `software key file "/etc/claviger/key.pem"`.
    pub what: &'a str,
    /// Which secret is asked for.
    pub purpose: Purpose,
    /// How many tries are left.
    pub tries_left: Tries,
    /// The file that the locator names as holding it; read by this crate, after [`PinEntry::credential`].
    pub source: Option<&'a Path>,
}

impl<'a> PinRequest<'a> {
    pub(crate) fn new(what: &'a str, purpose: Purpose, tries_left: Tries) -> Self {
        Self { what, purpose, tries_left, source: None }
    }

    #[allow(dead_code)] // Used by backends that a build may leave out.
    pub(crate) fn with_source(mut self, source: Option<&'a Path>) -> Self {
        self.source = source;
        self
    }
}

/// Which secret a [`PinRequest`] asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Purpose {
    /// The user PIN of a token. OpenPGP: PW1. TPM: the key's authorization value.
    UserPin,
    /// The admin PIN of an OpenPGP card (PW3), for making keys.
    AdminPin,
    /// The management key of a PIV card, for making keys: 32, 48 or 64 hexadecimal digits.
    ManagementKey,
    /// The authorization value of the TPM's owner hierarchy, for making keys.
    OwnerAuth,
    /// The user PIN for a key that is about to be made (TPM): ask twice.
    NewPin,
    /// The passphrase of an existing key file.
    Passphrase,
    /// The passphrase for a key file that is about to be made: ask twice.
    NewPassphrase,
}

/// How long a PIN stays in this process's memory after a token has taken it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KeepPin {
    /// As long as the token is open: asked once.
    #[default]
    Once,
    /// Not at all, and the token forgets it, too, after the operation: asked for each.
    Always,
    /// Not at all; the token itself remembers that it was right, until it is reset or loses power. Then it is asked again.
    Never,
}

words!(KeepPin, "policy for keeping the PIN": Once = "once", Always = "always", Never = "never-keep");

/// Tries left before a PIN locks, as far as the token tells. PKCS#11 gives flags and no number (version 3.0, section 3.2,
/// `CK_TOKEN_INFO`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Tries {
    /// A key file: nothing counts.
    Unlimited,
    /// The token raises no warning and gives no number.
    Unknown,
    /// That many, two or more. [`Tries::counted`] makes it.
    Left(u8),
    /// The token warns that wrong PINs were entered, and gives no number.
    Low,
    /// The next wrong PIN locks the token.
    Last,
    /// Locked.
    None,
}

impl Tries {
    /// From a token's counter.
    pub fn counted(left: u8) -> Self {
        match left {
            0 => Self::None,
            1 => Self::Last,
            left => Self::Left(left),
        }
    }

    /// Whether tries were used up since `then`, as far as numbers tell.
    #[allow(dead_code)] // Used by backends that a build may leave out.
    pub(crate) fn fewer_than(self, then: Self) -> bool {
        let count = |tries| match tries {
            Self::None => 0,
            Self::Last => 1,
            Self::Left(left) => left,
            _ => u8::MAX,
        };
        count(self) < count(then)
    }
}

impl fmt::Display for Tries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unlimited => "unlimited tries",
            Self::Unknown => "the token does not tell how many tries are left",
            Self::Left(left) => return write!(f, "{left} tries left"),
            Self::Low => "the token warns that tries are used up, and gives no number",
            Self::Last => "ONE try left before the token locks",
            Self::None => "no try left: the PIN is locked",
        })
    }
}
