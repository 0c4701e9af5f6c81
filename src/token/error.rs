//! A token's failures as failures of this library.

use claviger_hsm::ErrorKind as Token;

use crate::error::{Error, ErrorKind};

/// Keeps both sentences and maps the kind.
pub fn from_hsm(error: claviger_hsm::Error) -> Error {
    let kind = match error.kind() {
        Token::Locator => ErrorKind::LocatorInvalid,
        Token::ModuleMissing | Token::ModuleFailed => ErrorKind::TokenModule,
        Token::TokenAbsent | Token::TokenAmbiguous | Token::ServiceAbsent => ErrorKind::TokenAbsent,
        Token::KeyNotFound | Token::KeyAmbiguous => ErrorKind::KeyNotFound,
        Token::KeyMismatch => ErrorKind::KeyMismatch,
        Token::KeyExists => ErrorKind::KeyExists,
        Token::WrongPin => ErrorKind::PinWrong,
        Token::PinRequired => ErrorKind::PinRequired,
        Token::PinLocked | Token::PinLast => ErrorKind::PinLocked,
        Token::WrongCurve | Token::Unsupported => ErrorKind::CurveUnsupported,
        Token::BadPoint | Token::ZeroSecret => ErrorKind::BadPoint,
        Token::NotTouched => ErrorKind::TokenNotTouched,
        Token::Attestation => ErrorKind::AttestationInvalid,
        Token::Deadline => ErrorKind::TokenTimeout,
        Token::Busy => ErrorKind::TokenBusy,
        // Also what a later kind is until it has a place here.
        Token::TokenNotReady | Token::KeyExposed | Token::LoosePermissions | Token::KeyFile | Token::Device | _ => {
            ErrorKind::TokenFailed
        }
    };
    let (what, hint) = (error.to_string(), error.hint().to_owned());
    Error::new(kind, what, hint).because(error)
}
