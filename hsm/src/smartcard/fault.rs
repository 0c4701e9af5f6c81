//! What can go wrong between a program and a card.

use crate::error::{Error, ErrorKind};

/// A failure below the backends, before it is known which token it concerns; or one that is typed already.
#[derive(Debug)]
pub(crate) enum Fault {
    /// Another program reset the card: applications and PIN states are gone, the card is there.
    Reset,
    /// The card or its reader is gone, or was gone meanwhile.
    Removed,
    /// Another program holds the card for itself.
    Held,
    /// pcscd cannot be reached.
    Service(pcsc::Error),
    /// Another answer of PC/SC.
    Pcsc(pcsc::Error),
    /// The card's status word for that command (ISO 7816-4, section 5.6).
    Status {
        /// The command's name, as its standard writes it.
        command: &'static str,
        /// SW1 and SW2.
        status: u16,
    },
    /// The card's answer is not what its standard says: which command, and what is wrong.
    Malformed(&'static str, &'static str),
    /// Found here.
    Typed(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Typed(error)
    }
}

impl From<pcsc::Error> for Fault {
    fn from(error: pcsc::Error) -> Self {
        use pcsc::Error::{
            CommError, InvalidHandle, NoService, NoSmartcard, NotTransacted, ReaderUnavailable, RemovedCard, ResetCard,
            SecurityViolation, ServiceStopped, SharingViolation, Shutdown, SystemCancelled, UnknownCard, UnknownReader,
            UnpoweredCard, UnresponsiveCard,
        };
        match error {
            ResetCard => Self::Reset,
            RemovedCard | NoSmartcard | ReaderUnavailable | UnknownReader | UnknownCard | UnpoweredCard
            | UnresponsiveCard => Self::Removed,
            // A reader's driver lost the card in the middle of a command: pcscd has not noticed yet that it was pulled.
            NotTransacted => Self::Removed,
            SharingViolation => Self::Held,
            // SecurityViolation: access is denied, or pcscd was killed in the middle of a call (pcsc-lite says this for ECONNRESET). Which of them it
            // was the next connection tells.
            NoService | ServiceStopped | CommError | InvalidHandle | Shutdown | SystemCancelled | SecurityViolation => {
                Self::Service(error)
            }
            other => Self::Pcsc(other),
        }
    }
}

impl Fault {
    /// The connection is of no use any more; the card has to be looked for again.
    pub(crate) fn is_lost(&self) -> bool {
        matches!(self, Self::Reset | Self::Removed | Self::Service(_))
    }

    /// The card's status word, if that is the failure.
    pub(crate) fn status(&self) -> Option<u16> {
        match self {
            Self::Status { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// The error for people, `what` being the token concerned.
    pub(crate) fn typed(self, what: &str) -> Error {
        match self {
            Self::Typed(error) => error,
            Self::Reset => Error::new(
                ErrorKind::Busy,
                format!("{what} was reset by other programs again and again."),
                "End the other program that uses the token, then try again.",
            ),
            Self::Removed => Error::new(
                ErrorKind::TokenAbsent,
                format!("{what} is not plugged in, or was pulled."),
                "Plug the token in; `claviger-ceremony token list` shows which are there.",
            ),
            Self::Held => held(what),
            Self::Service(error) => service(error),
            Self::Pcsc(error) => Error::new(ErrorKind::Device, format!("{what} failed: PC/SC: {error}."), DEVICE_HINT),
            Self::Status { command, status } => {
                Error::new(ErrorKind::Device, format!("{what} failed: {command}: status {status:04X}."), DEVICE_HINT)
            }
            Self::Malformed(command, why) => {
                Error::new(ErrorKind::Device, format!("{what} failed: {command}: {why}."), DEVICE_HINT)
            }
        }
    }
}

const DEVICE_HINT: &str = "Unplug the token and plug it in again; if it stays, run `claviger-ceremony token list`.";

/// Another program holds it for itself.
pub(crate) fn held(what: &str) -> Error {
    Error::new(
        ErrorKind::Busy,
        format!("{what} is held by another program for itself alone."),
        "End it; if it is GnuPG, write `disable-ccid` and `pcsc-shared` into ~/.gnupg/scdaemon.conf and run `gpgconf --kill scdaemon`.",
    )
}

/// pcscd cannot be reached, or lets this process not use it.
pub(crate) fn service(error: pcsc::Error) -> Error {
    if error == pcsc::Error::SecurityViolation {
        return Error::new(
            ErrorKind::ServiceAbsent,
            "The smart card service pcscd denies access to this process: polkit lets users at the machine in, and no others.",
            "Allow this user `org.debian.pcsc-lite.access_pcsc` and `access_card` by a polkit rule: docs/tokens.md, \"pcscd for a daemon\".",
        );
    }
    Error::new(
        ErrorKind::ServiceAbsent,
        format!("The smart card service pcscd cannot be reached: {error}."),
        "Start it: `systemctl start pcscd.socket` (Debian: `apt install pcscd`); if it runs, polkit may keep this user out: docs/tokens.md, \"pcscd for a daemon\".",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn denied_access_is_told_from_an_absent_service() {
        let denied = Fault::from(pcsc::Error::SecurityViolation);
        assert!(denied.is_lost());
        let denied = denied.typed("It");
        assert!(
            denied.kind() == ErrorKind::ServiceAbsent && denied.hint().contains("pcscd for a daemon"),
            "{denied:?}"
        );
        let absent = service(pcsc::Error::NoService);
        assert!(absent.hint().contains("systemctl start"), "{absent:?}");
    }

    #[test]
    fn a_card_lost_in_the_middle_of_a_command_is_looked_for_again() {
        let fault = Fault::from(pcsc::Error::NotTransacted);
        assert!(fault.is_lost());
        assert_eq!(fault.typed("It").kind(), ErrorKind::TokenAbsent);
    }
}
