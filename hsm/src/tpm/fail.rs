//! What the answers of tpm2-tss and of the TPM mean here.

use tss_esapi::Error as Tss;
use tss_esapi::constants::response_code::Tss2ResponseCodeKind as Code;

use crate::error::{Error, ErrorKind};

/// A failure below this backend, before it is known which key it concerns; or one that is typed already.
pub(super) enum Fault {
    /// A command, by its name in part 3 of the specification, or a call into tpm2-tss.
    Call(&'static str, Tss),
    /// Found here.
    Typed(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Typed(error)
    }
}

pub(super) const DEVICE_HINT: &str =
    "Try again; if it stays, look at the system log and run `tpm2_selftest --fulltest`, or restart the machine.";

const LOCKOUT_HINT: &str = "Wait until the TPM gives a try back (`tpm2_getcap properties-variable` shows TPM2_PT_LOCKOUT_INTERVAL, in seconds), or run \
     `tpm2_dictionarylockout --clear-lockout` with the lockout hierarchy's authorization.";

impl Fault {
    pub(super) fn call(command: &'static str, error: Tss) -> Self {
        Self::Call(command, error)
    }

    /// The TPM's response code, as far as the crate knows it.
    pub(super) fn code(&self) -> Option<Code> {
        match self {
            Self::Call(_, Tss::Tss2Error(code)) => code.kind(),
            _ => None,
        }
    }

    /// The authorization value is wrong. It cost a try where the TPM counts (`TPM_RC_AUTH_FAIL`), and none elsewhere (`TPM_RC_BAD_AUTH`).
    pub(super) fn is_wrong_pin(&self) -> bool {
        matches!(self.code(), Some(Code::AuthFail | Code::BadAuth))
    }

    /// A new connection may help: the TPM was reset, its device went away, the session or key is gone. Everything is taken for that but what
    /// was found here, and answers about the PIN.
    pub(super) fn is_lost(&self) -> bool {
        matches!(self, Self::Call(..)) && !self.is_wrong_pin() && self.code() != Some(Code::Lockout)
    }

    /// The error for people, `what` being the TPM or key concerned.
    pub(super) fn typed(self, what: &str) -> Error {
        let code = self.code();
        let (command, error) = match self {
            Self::Typed(error) => return error,
            Self::Call(command, error) => (command, error),
        };
        let (kind, hint) = match code {
            Some(Code::Lockout) => return locked(what),
            Some(Code::AuthFail | Code::BadAuth) => return wrong_pin(what, None),
            Some(
                Code::ObjectMemory | Code::SessionMemory | Code::SessionHandles | Code::ObjectHandles | Code::Memory,
            ) => (
                ErrorKind::Busy,
                "Other programs fill the TPM's memory: go through a resource manager (`tcti=device:/dev/tpmrm0`), or end them.",
            ),
            Some(Code::NvSpace) => (
                ErrorKind::Unsupported,
                "The TPM has no room for another persistent key; `tpm2_getcap handles-persistent` shows those that are there.",
            ),
            Some(Code::Curve | Code::CommandCode) => {
                (ErrorKind::Unsupported, "This TPM has no ECDH on P-256; use another token.")
            }
            Some(Code::Reboot | Code::Initialize | Code::Failure) => (ErrorKind::ServiceAbsent, DEVICE_HINT),
            _ => (ErrorKind::Device, DEVICE_HINT),
        };
        Error::new(kind, format!("{what} failed: {command}: {}.", shown(&error)), hint)
    }
}

/// The crate's text less what would break a sentence.
fn shown(error: &Tss) -> String {
    error.to_string().trim_end_matches('.').to_owned()
}

/// Too many wrong PINs, not all of them for this key perhaps.
pub(super) fn locked(what: &str) -> Error {
    Error::new(
        ErrorKind::PinLocked,
        format!("{what}: the TPM takes no PIN for now, after too many wrong ones."),
        LOCKOUT_HINT,
    )
}

/// `tries` is what the TPM says afterwards.
pub(super) fn wrong_pin(what: &str, tries: Option<crate::pin::Tries>) -> Error {
    let tries = tries.map_or(String::new(), |tries| format!("; {tries}"));
    Error::new(
        ErrorKind::WrongPin,
        format!("{what} refuses the PIN{tries}."),
        "Try again with the right PIN; it is not resent by itself.",
    )
}
