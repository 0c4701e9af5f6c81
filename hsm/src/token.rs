//! The seam: what the rest of the house knows of a token.

use std::fmt;
use std::time::{Duration, Instant};

use crate::curve::{Curve, PublicKey};
use crate::error::{Error, ErrorKind, Result};
use crate::locator::Locator;
use crate::pin::PinEntry;
use crate::secret::SharedSecret;

/// A private key and the one thing it is asked to do.
pub trait Token: Send {
    /// The public key; proved at opening to belong to the private one.
    fn public_key(&self) -> &PublicKey;

    /// The curve of the key.
    fn curve(&self) -> Curve {
        self.public_key().curve()
    }

    /// What to expect of it, and what to call it.
    fn hints(&self) -> &Hints;

    /// One Diffie-Hellman with the private key. Blocks: a token may take from a millisecond to a human's touch.
    ///
    /// The deadline is looked at before the token is used, before the one retry on a session that went stale, and when the
    /// answer is there. A call that is already inside the device cannot be interrupted; whoever must go on in time
    /// calls this from a thread of its own.
    ///
    /// # Errors
    /// `WrongCurve` for a peer on another curve, `Deadline`, `ZeroSecret`, and what the device fails with:
    /// `TokenAbsent`, `WrongPin`, `PinLocked`, `PinLast`, `KeyNotFound`, `KeyMismatch`, `Busy`, `Device`.
    /// A token that was pulled is tried again by the next call.
    fn agree(&mut self, peer: &PublicKey, deadline: Instant) -> Result<SharedSecret>;
}

/// What to expect of a token.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Hints {
    /// The backend.
    pub kind: TokenKind,
    /// For people: `SoftHSM v2 token "cosigner", object "noise"`. Of a key file it begins with `software key`.
    pub label: String,
    /// The key is in a device: a slot that calls itself hardware (`CKF_HW_SLOT`; PKCS#11 v3.0, section 3.2). `false` for a key file and for
    /// SoftHSM and its like, whose keys are in this process's memory.
    pub hardware: bool,
    /// An agree may wait for somebody's touch. PKCS#11 does not tell: taken from the time the operation at opening took.
    pub touch: bool,
    /// What an agree takes: measured once at opening.
    pub latency: Duration,
}

/// Backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TokenKind {
    /// Behind a PKCS#11 module.
    Pkcs11,
    /// A key file: the private key is in this process's memory.
    Software,
}

impl fmt::Display for TokenKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pkcs11 => "pkcs11",
            Self::Software => "software",
        })
    }
}

/// Opens the key at `locator`, asking `pins` at most once. With `expected`, a key that is another one is refused.
///
/// One agree is made with a fresh software key to prove that the token's private key belongs to its public key; a token that
/// wants a touch wants it here too.
///
/// # Errors
/// Every [`ErrorKind`] but `KeyExists` and `KeyExposed`.
pub fn open(locator: &Locator, expected: Option<&PublicKey>, pins: &mut dyn PinEntry) -> Result<Box<dyn Token>> {
    match locator {
        #[cfg(feature = "pkcs11")]
        Locator::Pkcs11(uri) => crate::pkcs11::open(uri, expected, pins),
        #[cfg(feature = "software")]
        Locator::File(path) => crate::software::open(path, expected, pins),
        #[allow(unreachable_patterns)] // Reached in builds that leave a backend out.
        other => {
            let _ = (expected, pins);
            Err(Error::new(
                ErrorKind::Unsupported,
                format!("This build has no backend for `{other}`."),
                "Build with the cargo feature `pkcs11` or `software`.",
            ))
        }
    }
}

/// Refuses a key that is not the one expected.
#[cfg(any(feature = "pkcs11", feature = "software"))]
pub(crate) fn check_expected(found: &PublicKey, expected: Option<&PublicKey>, what: &str) -> Result<()> {
    match expected {
        None => Ok(()),
        Some(expected) if expected == found => Ok(()),
        Some(expected) if expected.curve() != found.curve() => Err(Error::new(
            ErrorKind::WrongCurve,
            format!("The key of {what} is on {}, the one expected is on {}.", found.curve(), expected.curve()),
            "Plug in the right token or correct the locator.",
        )),
        Some(_) => Err(Error::new(
            ErrorKind::KeyMismatch,
            format!("The key of {what} is not the one expected."),
            "Plug in the right token or correct the locator; a machine that really has a new key needs a new ceremony.",
        )),
    }
}

#[cfg(any(feature = "pkcs11", feature = "software"))]
pub(crate) fn before(deadline: Instant, what: &str) -> Result<()> {
    if Instant::now() < deadline {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Deadline,
        format!("{what} did not agree in time."),
        "If it waits for a touch, touch it when it blinks; otherwise see whether another program holds it.",
    ))
}

#[cfg(test)]
mod tests {
    #[test]
    #[cfg(feature = "software")]
    fn a_past_deadline_is_refused() {
        let error = super::before(std::time::Instant::now(), "It").unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Deadline);
    }
}
