//! One error type for every token. Each error says what happened and what to do about it.

use std::fmt;

/// What a function of this crate returns.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, for programs. The text for people is [`Error`]'s `Display` and [`Error::hint`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The locator cannot be read, or asks for something that is refused.
    Locator,
    /// The PKCS#11 module's file is not there or cannot be loaded.
    ModuleMissing,
    /// The PKCS#11 module is there, and failed before any token was reached.
    ModuleFailed,
    /// No token answers to the locator: not plugged in, or another one is.
    TokenAbsent,
    /// The smart card service pcscd, or the TPM's device, cannot be reached.
    ServiceAbsent,
    /// Several tokens answer to the locator.
    TokenAmbiguous,
    /// The token is there, but is not initialized or has no user PIN yet.
    TokenNotReady,
    /// The token holds no key of that name, or only half of the pair.
    KeyNotFound,
    /// Several keys answer to the locator.
    KeyAmbiguous,
    /// The key found is not the one expected, or its two halves do not belong together.
    KeyMismatch,
    /// A key of that name is already there; nothing was overwritten.
    KeyExists,
    /// The token made a key that it does not guard: extractable, or not sensitive.
    KeyExposed,
    /// The PIN or passphrase is wrong. It has been sent once and is not sent again.
    WrongPin,
    /// A PIN is needed and nobody was there to give one, or what was given cannot be a PIN.
    PinRequired,
    /// The token has locked its PIN.
    PinLocked,
    /// One try is left and nobody agreed to spend it. Nothing was sent.
    PinLast,
    /// The token waited for a touch and was not touched. The PIN was right, and costs no try.
    NotTouched,
    /// A certificate of an attestation is malformed, or does not fit key, device or root.
    Attestation,
    /// The key, or the peer's key, is on another curve.
    WrongCurve,
    /// The bytes are not a point that is safe to agree with.
    BadPoint,
    /// The shared secret is all zero.
    ZeroSecret,
    /// The deadline passed.
    Deadline,
    /// The token, or this build, cannot do what was asked.
    Unsupported,
    /// A file that holds a secret can be read by others, or belongs to somebody else.
    LoosePermissions,
    /// The key file cannot be read as what this crate writes.
    KeyFile,
    /// The token is in use by another program, or has no session left.
    Busy,
    /// The token failed.
    Device,
    /// The operating system refused.
    Io,
}

/// What happened, and what to do.
///
/// `Display` is the first half: one or two sentences that name the token or file and the foreign call that failed.
/// [`Error::hint`] is the second. Neither ever holds a PIN, a passphrase or key material.
#[derive(Clone, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    what: String,
    hint: String,
}

impl Error {
    /// A failure of a [`Token`](crate::Token): what happened, and what to do, a sentence each.
    pub fn new(kind: ErrorKind, what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { kind, what: what.into(), hint: hint.into() }
    }

    /// An error of a [`PinEntry`](crate::PinEntry): nobody gave the PIN. `what` and `hint` are the two sentences.
    pub fn pin_required(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(ErrorKind::PinRequired, what, hint)
    }

    /// What went wrong, for programs.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What to do about it, for people: one sentence, with the command where one helps.
    pub fn hint(&self) -> &str {
        &self.hint
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {} ({})", self.kind, self.what, self.hint)
    }
}

impl std::error::Error for Error {}
