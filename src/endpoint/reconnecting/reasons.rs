//! What a failure to connect means for the next try, and what those who wait are told.

use crate::error::{Error, ErrorKind};
use crate::identity::Identifier;
use crate::token::Trouble;
use std::time::Duration;

/// Whether a failure to connect may be another one later without anybody doing something about it.
pub(super) fn passes(kind: ErrorKind) -> bool {
    use ErrorKind as Kind;
    matches!(
        kind,
        Kind::Unreachable
            | Kind::DialTimeout
            | Kind::OnionAuth
            | Kind::TransportUnavailable
            | Kind::ControlRefused
            | Kind::HandshakeRefused
            | Kind::HandshakeTimeout
            | Kind::RateLimited
            | Kind::SessionLimit
            | Kind::SessionIo
            | Kind::SessionTruncated
            | Kind::TokenAbsent
            | Kind::TokenBusy
            | Kind::TokenTimeout
            | Kind::TokenFailed
            | Kind::StoreBusy
            | Kind::Io
    )
}

/// Whether another try would have somebody touch the token, or give its PIN.
pub(super) fn asks_somebody(kind: ErrorKind) -> bool {
    use ErrorKind as Kind;
    matches!(kind, Kind::TokenNotTouched | Kind::PinRequired | Kind::PinWrong | Kind::PinLocked)
}

/// Whether a session that refused a stream takes on none any more.
pub(super) fn is_over(kind: ErrorKind) -> bool {
    !matches!(kind, ErrorKind::StreamLimit)
}

pub(super) fn trouble_error(trouble: Trouble) -> Error {
    Error::new(trouble.kind, trouble.what, trouble.hint)
}

pub(super) fn closed(peer: &Identifier) -> Error {
    Error::new(
        ErrorKind::SessionClosed,
        format!("The sessions with `{peer}` were closed by this machine."),
        "Connect again if more is to be said.",
    )
}

pub(super) fn draining(peer: &Identifier) -> Error {
    Error::new(
        ErrorKind::SessionDraining,
        format!("`{peer}` takes on no new streams in the session that was just begun."),
        "Look at what runs on that machine.",
    )
}

pub(super) fn late(peer: &Identifier, patience: Duration) -> Error {
    Error::new(
        ErrorKind::DialTimeout,
        format!("No session with `{peer}` came about within {} s.", patience.as_secs()),
        "Look at the log for what it waits for: the network, or this machine's token.",
    )
}
