//! What a module's return values mean here.

use cryptoki::error::{Error as Cryptoki, RvError};

use crate::error::{Error, ErrorKind};

/// A failure below this crate, before it is known which token it concerns; or one that is typed already.
pub(super) enum Foreign {
    /// A call into the module.
    Call(Box<Cryptoki>),
    /// Found here.
    Typed(Error),
}

impl From<Error> for Foreign {
    fn from(error: Error) -> Self {
        Self::Typed(error)
    }
}

impl Foreign {
    pub(super) fn from_call(error: Cryptoki) -> Self {
        Self::Call(Box::new(error))
    }

    /// The session, the login or the handle is gone, and a new session may help.
    pub(super) fn is_stale(&self) -> bool {
        use RvError::{
            CryptokiNotInitialized, DeviceRemoved, KeyHandleInvalid, ObjectHandleInvalid, SessionClosed,
            SessionHandleInvalid, SlotIdInvalid, TokenNotPresent, TokenNotRecognized, UserNotLoggedIn,
        };
        self.rv().is_some_and(|rv| {
            matches!(
                rv,
                SessionHandleInvalid
                    | SessionClosed
                    | DeviceRemoved
                    | TokenNotPresent
                    | TokenNotRecognized
                    | SlotIdInvalid
                    | UserNotLoggedIn
                    | ObjectHandleInvalid
                    | KeyHandleInvalid
                    | CryptokiNotInitialized
            )
        })
    }

    /// The module's return value.
    pub(super) fn rv(&self) -> Option<&RvError> {
        match self {
            Self::Call(error) => match error.as_ref() {
                Cryptoki::Pkcs11(rv, _) => Some(rv),
                _ => None,
            },
            Self::Typed(_) => None,
        }
    }

    /// The error for people, `what` being the token or key concerned.
    pub(super) fn typed(self, what: &str) -> Error {
        let error = match self {
            Self::Typed(error) => return error,
            Self::Call(error) => error,
        };
        let (call, cause) = described(&error);
        let (kind, hint) = match *error {
            Cryptoki::Pkcs11(ref rv, _) => meaning(rv),
            Cryptoki::NullFunctionPointer | Cryptoki::NotSupported => (
                ErrorKind::Unsupported,
                "The module lacks a function that is needed; use another module for this token.",
            ),
            _ => (ErrorKind::Device, DEVICE_HINT),
        };
        Error::new(kind, format!("{what} failed: {call}: {cause}."), hint)
    }
}

const DEVICE_HINT: &str = "Unplug the token and plug it in again; if it stays, run `claviger-ceremony token list` and look at the module's own log.";

/// `C_DeriveKey` and `CKR_DEVICE_ERROR`, as the PKCS#11 text calls them where that is easily told.
pub(super) fn described(error: &Cryptoki) -> (String, String) {
    match error {
        Cryptoki::Pkcs11(rv, function) => (format!("C_{function:?}"), format!("{rv:?}")),
        other => ("cryptoki".into(), other.to_string()),
    }
}

fn meaning(rv: &RvError) -> (ErrorKind, &'static str) {
    match rv {
        RvError::DeviceRemoved
        | RvError::TokenNotPresent
        | RvError::TokenNotRecognized
        | RvError::SlotIdInvalid
        | RvError::SessionHandleInvalid
        | RvError::SessionClosed => {
            (ErrorKind::TokenAbsent, "Plug the token in; `claviger-ceremony token list` shows which are there.")
        }
        RvError::SessionCount
        | RvError::SessionExists
        | RvError::SessionReadWriteSoExists
        | RvError::UserAnotherAlreadyLoggedIn
        | RvError::UserTooManyTypes
        | RvError::OperationActive
        | RvError::FunctionRejected => (ErrorKind::Busy, "End the other program that uses the token, then try again."),
        RvError::MechanismInvalid
        | RvError::MechanismParamInvalid
        | RvError::FunctionNotSupported
        | RvError::CurveNotSupported
        | RvError::DomainParamsInvalid
        | RvError::KeyTypeInconsistent
        | RvError::KeyFunctionNotPermitted
        | RvError::AttributeTypeInvalid
        | RvError::AttributeValueInvalid
        | RvError::TemplateInconsistent
        | RvError::ActionProhibited => (
            ErrorKind::Unsupported,
            "The token or key cannot do this; make another key with `claviger-ceremony token generate`, on p256 if x25519 fails.",
        ),
        RvError::TokenWriteProtected | RvError::SessionReadOnly => {
            (ErrorKind::Unsupported, "The token is write-protected; lift that with its maker's tool.")
        }
        RvError::UserNotLoggedIn => {
            (ErrorKind::PinRequired, "Give the PIN: `pin-source=file:/path` in the locator, or at the prompt.")
        }
        RvError::UserPinNotInitialized => (
            ErrorKind::TokenNotReady,
            "Set the token's user PIN with its maker's tool, for example `softhsm2-util` or `pkcs11-tool --init-pin`.",
        ),
        RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange => {
            (ErrorKind::WrongPin, "Try again with the right PIN; it is not resent by itself.")
        }
        RvError::PinLocked => (ErrorKind::PinLocked, "Unlock the token with its SO PIN or PUK and its maker's tool."),
        RvError::PinExpired => (ErrorKind::TokenNotReady, "Change the token's PIN with its maker's tool."),
        RvError::ObjectHandleInvalid | RvError::KeyHandleInvalid => {
            (ErrorKind::KeyNotFound, "`claviger-ceremony token list` shows the keys that are there.")
        }
        _ => (ErrorKind::Device, DEVICE_HINT),
    }
}
