//! Asking for a PIN: what the asker is told, and what it answers.

use std::fmt;

use crate::error::Result;
use crate::secret::Pin;

/// Where PINs and passphrases come from: a terminal, a file, a test.
///
/// Called at most once for each [`open`](crate::open) or generation, so a wrong PIN costs one try and is never resent;
/// whoever wants to ask again opens again.
pub trait PinEntry {
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
}

impl<'a> PinRequest<'a> {
    pub(crate) fn new(what: &'a str, purpose: Purpose, tries_left: Tries) -> Self {
        Self { what, purpose, tries_left }
    }
}

/// Which secret a [`PinRequest`] asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Purpose {
    /// The user PIN of a token.
    UserPin,
    /// The passphrase of an existing key file.
    Passphrase,
    /// The passphrase for a key file that is about to be made: ask twice.
    NewPassphrase,
}

/// Tries left before a PIN locks, as far as the token tells. PKCS#11 gives flags and no number (version 3.0, section 3.2,
/// `CK_TOKEN_INFO`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Tries {
    /// A key file: nothing counts.
    Unlimited,
    /// The token raises no warning and gives no number.
    Unknown,
    /// The token warns that wrong PINs were entered, and gives no number.
    Low,
    /// The next wrong PIN locks the token.
    Last,
    /// Locked.
    None,
}

impl fmt::Display for Tries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unlimited => "unlimited tries",
            Self::Unknown => "the token does not tell how many tries are left",
            Self::Low => "the token warns that tries are used up, and gives no number",
            Self::Last => "ONE try left before the token locks",
            Self::None => "no try left: the PIN is locked",
        })
    }
}
