//! The states of a token, as an operator meets them.

use crate::error::{Error, ErrorKind};
use claviger_hsm::ErrorKind as Token;
use std::fmt;
use std::time::SystemTime;

/// What a token is doing, or what keeps it from doing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TokenState {
    /// Not plugged in, or pcscd or the TPM's device can not be reached. It is looked for.
    Absent,
    /// There, and an operation needs nobody but for a touch where the key wants one.
    Ready,
    /// There, and the next operation asks for the PIN; or the PIN that was given is wrong.
    Locked,
    /// An operation runs and waits for a touch.
    WaitingForTouch,
    /// Somebody is being asked for the PIN.
    WaitingForPin,
    /// Another program holds it.
    BusyElsewhere,
    /// Its PIN is blocked: no try is left.
    Blocked,
    /// It fails in another way. It is tried again.
    Failed,
}

impl TokenState {
    /// The state in logs and in `--json` output, kebab case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Ready => "ready",
            Self::Locked => "locked",
            Self::WaitingForTouch => "waiting-for-touch",
            Self::WaitingForPin => "waiting-for-pin",
            Self::BusyElsewhere => "busy-elsewhere",
            Self::Blocked => "blocked",
            Self::Failed => "failed",
        }
    }

    /// Whether an operation would fail, whoever is there to touch the token or give a PIN.
    pub const fn is_lost(self) -> bool {
        matches!(self, Self::Absent | Self::BusyElsewhere | Self::Blocked | Self::Failed)
    }

    /// The state that a failed call leaves; `waited` for another program as its last stage. `None`: the failure says nothing about the
    /// token, only about this call.
    pub(super) fn after(kind: Token, waited: bool) -> Option<Self> {
        match kind {
            Token::TokenAbsent | Token::TokenAmbiguous | Token::ServiceAbsent => Some(Self::Absent),
            Token::PinRequired | Token::WrongPin | Token::PinLast => Some(Self::Locked),
            Token::PinLocked => Some(Self::Blocked),
            Token::Busy => Some(Self::BusyElsewhere),
            Token::Deadline if waited => Some(Self::BusyElsewhere),
            Token::Deadline | Token::NotTouched | Token::WrongCurve | Token::BadPoint | Token::ZeroSecret => None,
            _ => Some(Self::Failed),
        }
    }
}

impl fmt::Display for TokenState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A token's state with its history.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TokenStatus {
    /// The state.
    pub state: TokenState,
    /// Since when.
    pub since: SystemTime,
    /// The last failure, until an operation succeeds or the token is back.
    pub trouble: Option<Trouble>,
}

/// A failure without its cause, to be shown: the two sentences of an [`Error`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Trouble {
    /// Its kind.
    pub kind: ErrorKind,
    /// What happened.
    pub what: String,
    /// What to do.
    pub hint: String,
}

impl From<&Error> for Trouble {
    fn from(error: &Error) -> Self {
        Self { kind: error.kind(), what: error.to_string(), hint: error.hint().to_owned() }
    }
}
