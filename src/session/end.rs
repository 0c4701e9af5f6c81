//! Why sessions and streams end, as errors.

use crate::error::{Error, ErrorKind};
use crate::identity::Identifier;
use crate::wire::control::{Reset, Why};
use std::io;

/// Why a session has ended; kept, and told to everyone who asks.
#[derive(Debug, Clone)]
pub(super) struct End {
    kind: ErrorKind,
    what: String,
    hint: String,
}

impl End {
    /// Closed by one of its ends.
    pub(super) fn closed(peer: &Identifier, why: Why, by_peer: bool) -> Self {
        let by = if by_peer { format!("`{peer}`") } else { "this machine".to_owned() };
        let (kind, what, hint) = match why {
            Why::Done => (
                ErrorKind::SessionClosed,
                format!("The session with `{peer}` was closed by {by}."),
                "Connect again if more is to be said.",
            ),
            Why::Idle => (
                ErrorKind::SessionIdle,
                format!("The session with `{peer}` was closed by {by}: it had no stream for some time."),
                "Connect again when there is something to say; `idle` under [session] is the time.",
            ),
            Why::Aged => (
                ErrorKind::SessionAged,
                format!("The session with `{peer}` was closed by {by}: it has come to its age."),
                "Connect again, with the token; `max-age` under [session] is the time.",
            ),
            Why::Limit => (
                ErrorKind::SessionLimit,
                format!("The session with `{peer}` was closed by {by}: there are as many as there may be."),
                "End others; `sessions` and `sessions-per-peer` under [limits] are the numbers.",
            ),
            Why::Replaced => (
                ErrorKind::SessionReplaced,
                format!("Another session with `{peer}` has taken this one's place."),
                "Open the stream again on the new session.",
            ),
            Why::ShuttingDown => (
                ErrorKind::SessionClosed,
                format!("The session with `{peer}` was closed by {by}, where the program ends."),
                "Connect again when it runs again.",
            ),
        };
        Self { kind, what, hint: hint.to_owned() }
    }

    pub(super) fn broken(error: &Error) -> Self {
        Self { kind: error.kind(), what: error.to_string(), hint: error.hint().to_owned() }
    }

    /// What the session's owner is told.
    pub(super) fn error(&self) -> Error {
        Error::new(self.kind, self.what.clone(), self.hint.clone())
    }

    /// What a stream's owner is told. A pipe that broke says nothing against another session.
    pub(super) fn of_stream(&self) -> Error {
        match self.kind {
            ErrorKind::SessionTruncated | ErrorKind::SessionIo | ErrorKind::PeerSilent => Error::new(
                ErrorKind::SessionInterrupted,
                "The session broke before the stream had ended: what was received on it is incomplete.",
                "Connect again and open the stream anew.",
            )
            .because(self.error()),
            ErrorKind::SessionClosed
            | ErrorKind::SessionIdle
            | ErrorKind::SessionAged
            | ErrorKind::SessionLimit
            | ErrorKind::SessionReplaced => {
                let mut why = self.what.clone();
                if let Some(first) = why.get_mut(..1) {
                    first.make_ascii_lowercase();
                }
                Error::new(self.kind, format!("What the stream carried is incomplete: {why}"), self.hint.clone())
            }
            _ => self.error(),
        }
    }
}

/// What the peer's RESET of a stream is to its owner.
pub(super) fn reset(peer: &Identifier, reason: Reset) -> Error {
    let (kind, what, hint) = match reason {
        Reset::NoSuchService => (
            ErrorKind::ServiceRefused,
            format!("`{peer}` serves nothing of that name."),
            "Look at what runs on that machine.",
        ),
        Reset::NotAllowed => (
            ErrorKind::ServiceRefused,
            format!("`{peer}` does not serve that to this machine."),
            "Look at the policy of that machine.",
        ),
        Reset::Limit => (
            ErrorKind::StreamLimit,
            format!("`{peer}` takes on no more streams at once."),
            "End others; `streams-per-peer` under [limits] is the number, on that machine.",
        ),
        Reset::Draining => {
            (ErrorKind::SessionDraining, format!("`{peer}` takes on no new streams in this session."), "Connect again.")
        }
        Reset::Dropped => (
            ErrorKind::StreamReset,
            format!("`{peer}` gave the stream up before it had ended."),
            "Look at what runs on that machine.",
        ),
        Reset::Internal => (
            ErrorKind::StreamReset,
            format!("Something failed on `{peer}` and ended the stream."),
            "Look at the messages on that machine.",
        ),
        Reset::Application(code) => (
            ErrorKind::StreamReset,
            format!("`{peer}` ended the stream with its own code {code}."),
            "Its documentation says what the code means.",
        ),
    };
    Error::new(kind, what, hint).because(reason)
}

/// The reason of the peer's RESET, if that is what `error` is about.
pub fn reset_of(error: &Error) -> Option<Reset> {
    std::error::Error::source(error)?.downcast_ref().copied()
}

pub(super) fn draining(peer: &Identifier) -> Error {
    Error::new(
        ErrorKind::SessionDraining,
        format!("The session with `{peer}` takes on no new streams: it is about to be closed."),
        "Connect again.",
    )
}

pub(super) fn too_many_streams(peer: &Identifier) -> Error {
    Error::new(
        ErrorKind::StreamLimit,
        format!("There are as many streams with `{peer}` as there may be."),
        "End others; `streams-per-peer` under [limits] is the number.",
    )
}

/// The peer does not keep to the protocol: half a sentence says how.
pub(super) fn violation(peer: &Identifier, how: impl std::fmt::Display) -> Error {
    Error::new(
        ErrorKind::SessionProtocol,
        format!("`{peer}` does not keep to the session protocol: {how}."),
        "Use the same release of claviger on both machines; if it is, treat that machine's software as broken.",
    )
}

pub(super) fn silent(peer: &Identifier) -> Error {
    Error::new(
        ErrorKind::PeerSilent,
        format!("`{peer}` gave no sign of life when it was asked for one."),
        "Connect again; the circuit or the other machine went away.",
    )
}

pub(super) fn unacknowledged() -> Error {
    Error::new(
        ErrorKind::SessionTruncated,
        "The other machine did not acknowledge the end of the session.",
        "It may not have received everything that was sent: ask it, or send it again.",
    )
}

/// `error` as `std::io` carries it; [`error_of`](super::error_of) gets it back.
pub(super) fn to_io(error: Error) -> io::Error {
    let kind = match error.kind() {
        ErrorKind::SessionTruncated | ErrorKind::SessionInterrupted => io::ErrorKind::UnexpectedEof,
        ErrorKind::RecordInvalid | ErrorKind::SessionProtocol => io::ErrorKind::InvalidData,
        ErrorKind::StreamReset | ErrorKind::StreamLimit | ErrorKind::SessionDraining => io::ErrorKind::ConnectionReset,
        ErrorKind::ServiceRefused => io::ErrorKind::ConnectionRefused,
        ErrorKind::SessionClosed | ErrorKind::SessionIdle | ErrorKind::SessionAged | ErrorKind::SessionReplaced => {
            io::ErrorKind::ConnectionAborted
        }
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}
