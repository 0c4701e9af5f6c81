//! The seam: what the rest of the house knows of a token.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::attestation::Evidence;
use crate::curve::{Curve, PublicKey};
use crate::device::PinState;
use crate::error::{Error, ErrorKind, Result};
use crate::locator::Locator;
use crate::operation::Operation;
use crate::pin::KeepPin;
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
    /// Leaves the device as it found it: never a reset, and no other program's PIN state is lost. What went stale since the last call
    /// (token pulled and put back, card reset, service restarted) is opened again here, once. Whoever `operation` names is asked for a PIN only
    /// where none is kept.
    ///
    /// The deadline is looked at before the device is used, before the one retry, and when the answer is there. A call that is
    /// already inside the device cannot be interrupted; whoever must go on in time calls this from a thread of its own.
    ///
    /// # Errors
    /// `WrongCurve` for a peer on another curve, `Deadline`, `ZeroSecret`, and what the device fails with: `TokenAbsent`,
    /// `ServiceAbsent`, `Busy`, `WrongPin`, `PinRequired`, `PinLocked`, `PinLast`, `NotTouched`, `KeyNotFound`, `KeyMismatch`, `Device`.
    /// A token that was pulled is tried again by the next call.
    fn agree(&mut self, peer: &PublicKey, operation: &mut Operation<'_>) -> Result<SharedSecret>;

    /// Looks whether the token is there, without a PIN, a touch or a private-key operation, and without waiting for other programs where
    /// that is possible. A token that came back is found and its public key compared.
    ///
    /// # Errors
    /// Those by which an agree would fail before its operation: `TokenAbsent`, `ServiceAbsent`, `Busy`, `PinLocked`, `KeyNotFound`, `KeyMismatch`, `Device`.
    fn look(&mut self) -> Result<Presence>;

    /// The state of the PIN, read without changing it.
    ///
    /// # Errors
    /// As [`look`](Self::look).
    fn pin_state(&mut self) -> Result<PinState>;

    /// The maker's statement that the key was made in this device and never was elsewhere. May ask for a PIN and wait for a touch.
    ///
    /// # Errors
    /// `Unsupported` where the device makes no such statement, or not about this key; and those of [`agree`](Self::agree).
    fn attest(&mut self, operation: &mut Operation<'_>) -> Result<Evidence> {
        let _ = operation;
        Err(Error::new(
            ErrorKind::Unsupported,
            format!("{} makes no attestation.", self.hints().label),
            "Only a YubiKey attests its keys; go on without an attestation, the card says so.",
        ))
    }
}

/// What [`Token::look`] saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Presence {
    /// An agree needs nobody, but for a touch where the key wants one.
    Ready,
    /// The next agree asks somebody for the PIN.
    Locked,
}

/// What to expect of a token.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Hints {
    /// The backend.
    pub kind: TokenKind,
    /// For people: `YubiKey 5 NFC 12345678, PIV slot 9d`. Of a key file it begins with `software key`.
    pub label: String,
    /// The key is in a device, by the device's own word. `false` for a key file, for SoftHSM and its like (PKCS#11 v3.0, section 3.2,
    /// `CKF_HW_SLOT`), and for a TPM that calls itself software.
    pub hardware: bool,
    /// Whether an agree waits for a touch.
    pub touch: Touch,
    /// When the device wants the PIN.
    pub pin: PinPolicy,
    /// What an agree takes: measured once at opening.
    pub latency: Duration,
}

/// When a key wants a touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Touch {
    /// Never.
    Never,
    /// For an operation, unless there was a touch shortly before (YubiKey: 15 s).
    Cached,
    /// For every operation.
    Always,
    /// The device does not tell (PKCS#11): it may.
    Unknown,
}

/// When a device wants the PIN for an operation with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PinPolicy {
    /// Never.
    Never,
    /// Once, until the device loses power, is reset, or another application on it is selected.
    Once,
    /// Before every operation.
    Always,
}

macro_rules! words {
    ($type:ident, $what:literal: $($variant:ident = $word:literal),*) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(match self { $(Self::$variant => $word),* })
            }
        }

        impl FromStr for $type {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                match text {
                    $($word => Ok(Self::$variant),)*
                    _ => Err(Error::new(
                        ErrorKind::Locator,
                        concat!("That is no ", $what, "."),
                        concat!("Write one of:", $(" `", $word, "`",)* "."),
                    )),
                }
            }
        }
    };
}
pub(crate) use words;

words!(Touch, "touch policy": Never = "never", Cached = "cached", Always = "always", Unknown = "unknown");
words!(PinPolicy, "PIN policy": Never = "never", Once = "once", Always = "always");
words!(TokenKind, "kind of token": OpenPgp = "openpgp", Pkcs11 = "pkcs11", Piv = "piv", Software = "software", Tpm = "tpm");

/// Backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TokenKind {
    /// An OpenPGP card.
    OpenPgp,
    /// Behind a PKCS#11 module.
    Pkcs11,
    /// A PIV card or YubiKey.
    Piv,
    /// A key file: the private key is in this process's memory.
    Software,
    /// A TPM 2.0.
    Tpm,
}

/// Opens the key at `locator`. With `expected`, a key that is another one is refused. `keep` says how long its PIN stays in this process's
/// memory; a wrong PIN costs one try and is never resent.
///
/// One agree is made with a fresh software key to prove that the token's private key belongs to its public key; a token that
/// wants a touch wants it here too.
///
/// # Errors
/// Every [`ErrorKind`] but `KeyExists` and `KeyExposed`.
pub fn open(
    locator: &Locator,
    expected: Option<&PublicKey>,
    keep: KeepPin,
    operation: &mut Operation<'_>,
) -> Result<Box<dyn Token>> {
    match locator {
        #[cfg(feature = "openpgp")]
        Locator::OpenPgp(card) => crate::openpgp::open(card, expected, keep, operation),
        #[cfg(feature = "pkcs11")]
        Locator::Pkcs11(uri) => crate::pkcs11::open(uri, expected, keep, operation),
        #[cfg(feature = "tpm")]
        Locator::Tpm(tpm) => crate::tpm::open(tpm, expected, keep, operation),
        #[cfg(feature = "piv")]
        Locator::Piv(piv) => crate::piv::open(piv, expected, keep, operation),
        #[cfg(feature = "software")]
        Locator::File(file) => crate::software::open(file, expected, operation),
        #[allow(unreachable_patterns)] // Reached in builds that leave a backend out.
        other => {
            let _ = (expected, keep, operation);
            Err(no_backend(other))
        }
    }
}

/// A key that is to be made.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NewKey {
    /// Its curve.
    pub curve: Curve,
    /// When the device is to want the PIN. `None`: its default for that place. PIV on a YubiKey.
    pub pin: Option<PinPolicy>,
    /// When the device is to want a touch. `None`: its default. PIV on a YubiKey, OpenPGP cards with a button.
    pub touch: Option<Touch>,
    /// The key that may be overwritten. `None`: none; a place that is taken is left alone.
    pub replace: Option<PublicKey>,
}

impl NewKey {
    /// A key on `curve` with the device's default policies, which overwrites nothing.
    pub fn new(curve: Curve) -> Self {
        Self { curve, pin: None, touch: None, replace: None }
    }
}

/// Makes a key in the device, at the place that `locator` names, and proves it. Returns the locator that names it most narrowly.
///
/// Asks for what the device wants from whoever makes keys: a PIN (PKCS#11, TPM), an admin PIN (OpenPGP), a management key (PIV), a new passphrase (key file).
///
/// # Errors
/// `KeyExists` where another key than [`NewKey::replace`] is there; nothing was overwritten. `Unsupported` for a curve or policy that the device has not.
/// Otherwise those of [`open`].
pub fn generate(locator: &Locator, new: &NewKey, operation: &mut Operation<'_>) -> Result<(Locator, PublicKey)> {
    match locator {
        #[cfg(feature = "openpgp")]
        Locator::OpenPgp(card) => {
            let (card, public) = crate::openpgp::generate(card, new, operation)?;
            Ok((Locator::OpenPgp(card), public))
        }
        #[cfg(feature = "pkcs11")]
        Locator::Pkcs11(uri) => {
            let (uri, public) = crate::pkcs11::generate(uri, new, operation)?;
            Ok((Locator::Pkcs11(uri), public))
        }
        #[cfg(feature = "tpm")]
        Locator::Tpm(tpm) => {
            let (tpm, public) = crate::tpm::generate(tpm, new, operation)?;
            Ok((Locator::Tpm(tpm), public))
        }
        #[cfg(feature = "piv")]
        Locator::Piv(piv) => {
            let (piv, public) = crate::piv::generate(piv, new, operation)?;
            Ok((Locator::Piv(piv), public))
        }
        #[cfg(feature = "software")]
        Locator::File(file) => Ok((locator.clone(), crate::software::generate(file, new, operation)?)),
        #[allow(unreachable_patterns)] // Reached in builds that leave a backend out.
        other => {
            let _ = (new, operation);
            Err(no_backend(other))
        }
    }
}

fn no_backend(locator: &Locator) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!("This build has no backend for `{locator}`."),
        "Build with the cargo feature `openpgp`, `piv`, `pkcs11`, `tpm` or `software`.",
    )
}

/// Refuses policies that a backend can not set.
#[allow(dead_code)] // Used by backends that a build may leave out.
pub(crate) fn no_policies(new: &NewKey, what: &str) -> Result<()> {
    if new.pin.is_none() && new.touch.is_none() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Unsupported,
        format!("{what} has no PIN or touch policy of its own for a key; no key was made."),
        "Leave out `--pin-policy` and `--touch-policy`, or use a YubiKey.",
    ))
}

/// Refuses a key that is not the one expected.
#[allow(dead_code)] // Used by backends that a build may leave out.
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

/// Proves that the private key behind `agree` belongs to `public`, by one agree with a fresh software key. Gives the time it took.
#[allow(dead_code)] // Used by backends that a build may leave out.
pub(crate) fn prove(
    public: &PublicKey,
    what: &str,
    agree: impl FnOnce(&PublicKey) -> Result<SharedSecret>,
) -> Result<Duration> {
    let ephemeral = crate::curve::SoftKey::generate(public.curve())?;
    let expected = ephemeral.agree(public)?;
    let start = std::time::Instant::now();
    let agreed = agree(ephemeral.public())?;
    let latency = start.elapsed();
    let differ = expected.as_bytes().iter().zip(agreed.as_bytes()).fold(0, |any, (a, b)| any | (a ^ b));
    if differ != 0 {
        return Err(Error::new(
            ErrorKind::KeyMismatch,
            format!("The private key of {what} does not belong to its public key."),
            "Do not use this key; make a new pair with `claviger-ceremony token generate`.",
        ));
    }
    Ok(latency)
}

/// One agree of `token` with a fresh software key, which must come to the same secret as that key does.
///
/// # Errors
/// `KeyMismatch` when they differ, and those of [`Token::agree`].
pub fn rehearse(token: &mut dyn Token, operation: &mut Operation<'_>) -> Result<()> {
    let (public, what) = (token.public_key().clone(), token.hints().label.clone());
    prove(&public, &what, |peer| token.agree(peer, operation)).map(|_| ())
}
