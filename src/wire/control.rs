//! Control messages: what the ends of a session say to each other beside the bytes of its streams, in records of their own.
//!
//! ```text
//! 1 PING   8 bytes, which the PONG brings back
//! 2 PONG   the same 8 bytes
//! 3 OPEN   stream (4), length of the name (1), name of the service: before the stream's first frame
//! 4 END    stream (4), bytes that the sender sent on it in all (8): the proper end of that direction
//! 5 RESET  stream (4), reason (4): the sender neither reads nor writes it any more
//! 6 DRAIN  reason (1): no new streams from either end
//! 7 CLOSE  reason (1): nothing but empty records follows
//! ```
//! Integers are big-endian. A record holds one or more whole messages.

use crate::identity::{MAX_NAME_LEN, ServiceName};

/// Longest control message, in bytes: an OPEN.
pub const MAX_CONTROL: usize = 1 + 4 + 1 + MAX_NAME_LEN;

/// From this reason of a RESET on, it is the application's code plus this.
const APPLICATION: u32 = 256;

/// One control message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    /// Asks for a sign of life.
    Ping([u8; 8]),
    /// Gives it.
    Pong([u8; 8]),
    /// Begins a stream.
    Open {
        /// The stream: odd numbers are the initiator's.
        stream: u32,
        /// What it is for.
        service: ServiceName,
    },
    /// Ends a direction of a stream.
    End {
        /// The stream.
        stream: u32,
        /// Bytes that its sender sent on it in all.
        bytes: u64,
    },
    /// Gives a stream up.
    Reset {
        /// The stream.
        stream: u32,
        /// Why.
        reason: Reset,
    },
    /// No new streams.
    Drain(Why),
    /// The session's end.
    Close(Why),
}

/// Why a session takes on no new streams, or was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[non_exhaustive]
pub enum Why {
    /// All is said.
    Done = 0,
    /// Nobody used it.
    Idle = 1,
    /// The time since its last token operation is over.
    Aged = 2,
    /// There are as many sessions as there may be.
    Limit = 3,
    /// The program ends.
    ShuttingDown = 4,
    /// Another session of the same two machines took its place.
    Replaced = 5,
}

impl Why {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Done, Self::Idle, Self::Aged, Self::Limit, Self::ShuttingDown, Self::Replaced]
            .get(usize::from(byte))
            .copied()
    }
}

/// Why a stream was reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reset {
    /// It was dropped before it had ended.
    Dropped,
    /// Nothing of that name is served.
    NoSuchService,
    /// The service is not for this peer.
    NotAllowed,
    /// There are as many streams as there may be.
    Limit,
    /// The session takes on no new streams.
    Draining,
    /// Something failed at the end that reset it.
    Internal,
    /// The application's own code; `u32::MAX - 256` at most, larger ones become that.
    Application(u32),
}

impl Reset {
    /// The number on the wire.
    pub fn code(self) -> u32 {
        match self {
            Self::Dropped => 0,
            Self::NoSuchService => 1,
            Self::NotAllowed => 2,
            Self::Limit => 3,
            Self::Draining => 4,
            Self::Internal => 5,
            Self::Application(code) => APPLICATION.saturating_add(code),
        }
    }

    /// From the number on the wire. `None` for one that is not assigned.
    pub fn from_code(code: u32) -> Option<Self> {
        Some(match code {
            0 => Self::Dropped,
            1 => Self::NoSuchService,
            2 => Self::NotAllowed,
            3 => Self::Limit,
            4 => Self::Draining,
            5 => Self::Internal,
            APPLICATION.. => Self::Application(code - APPLICATION),
            _ => return None,
        })
    }
}

impl std::fmt::Display for Reset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Dropped => f.write_str("dropped"),
            Self::NoSuchService => f.write_str("no such service"),
            Self::NotAllowed => f.write_str("not allowed"),
            Self::Limit => f.write_str("too many streams"),
            Self::Draining => f.write_str("no new streams"),
            Self::Internal => f.write_str("internal error"),
            Self::Application(code) => write!(f, "application code {code}"),
        }
    }
}

/// What a [`Reset`] is as the source of an error: see `claviger::session::reset_of`.
impl std::error::Error for Reset {}

/// Bytes that are no control message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ControlError {
    /// The record ends within a message, or holds none.
    Truncated,
    /// A message that is not assigned.
    Unknown(u8),
    /// A reason that is not assigned.
    Reason(u32),
    /// A service's name that is none.
    Service,
}

impl std::fmt::Display for ControlError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Truncated => f.write_str("a control message is cut short"),
            Self::Unknown(kind) => write!(f, "control message {kind} is not assigned"),
            Self::Reason(reason) => write!(f, "reason {reason} is not assigned"),
            Self::Service => f.write_str("a control message names no service"),
        }
    }
}

impl std::error::Error for ControlError {}

impl Control {
    /// Appends the message to `out`: [`MAX_CONTROL`] bytes at most.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Ping(bytes) => {
                out.push(1);
                out.extend_from_slice(bytes);
            }
            Self::Pong(bytes) => {
                out.push(2);
                out.extend_from_slice(bytes);
            }
            Self::Open { stream, service } => {
                out.push(3);
                out.extend_from_slice(&stream.to_be_bytes());
                out.push(service.as_str().len() as u8); // at most MAX_NAME_LEN
                out.extend_from_slice(service.as_str().as_bytes());
            }
            Self::End { stream, bytes } => {
                out.push(4);
                out.extend_from_slice(&stream.to_be_bytes());
                out.extend_from_slice(&bytes.to_be_bytes());
            }
            Self::Reset { stream, reason } => {
                out.push(5);
                out.extend_from_slice(&stream.to_be_bytes());
                out.extend_from_slice(&reason.code().to_be_bytes());
            }
            Self::Drain(why) => out.extend_from_slice(&[6, *why as u8]),
            Self::Close(why) => out.extend_from_slice(&[7, *why as u8]),
        }
    }

    /// Takes the next message off the front of a record.
    ///
    /// # Errors
    /// [`ControlError`]; the session has to end.
    pub fn read(record: &mut &[u8]) -> Result<Self, ControlError> {
        let [kind] = *take::<1>(record)?;
        Ok(match kind {
            1 => Self::Ping(*take(record)?),
            2 => Self::Pong(*take(record)?),
            3 => {
                let stream = u32::from_be_bytes(*take(record)?);
                let [len] = *take::<1>(record)?;
                let (name, rest) = record.split_at_checked(usize::from(len)).ok_or(ControlError::Truncated)?;
                *record = rest;
                let name = std::str::from_utf8(name).map_err(|_| ControlError::Service)?;
                Self::Open { stream, service: name.parse().map_err(|_| ControlError::Service)? }
            }
            4 => Self::End { stream: u32::from_be_bytes(*take(record)?), bytes: u64::from_be_bytes(*take(record)?) },
            5 => {
                let (stream, code) = (u32::from_be_bytes(*take(record)?), u32::from_be_bytes(*take(record)?));
                Self::Reset { stream, reason: Reset::from_code(code).ok_or(ControlError::Reason(code))? }
            }
            6 => Self::Drain(why(record)?),
            7 => Self::Close(why(record)?),
            _ => return Err(ControlError::Unknown(kind)),
        })
    }
}

fn why(record: &mut &[u8]) -> Result<Why, ControlError> {
    let [byte] = *take::<1>(record)?;
    Why::from_byte(byte).ok_or(ControlError::Reason(byte.into()))
}

fn take<'a, const N: usize>(record: &mut &'a [u8]) -> Result<&'a [u8; N], ControlError> {
    let (taken, rest) = record.split_first_chunk::<N>().ok_or(ControlError::Truncated)?;
    *record = rest;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn why() -> impl Strategy<Value = Why> {
        (0..6_u8).prop_map(|byte| Why::from_byte(byte).unwrap())
    }

    fn reset() -> impl Strategy<Value = Reset> {
        prop_oneof![0..6_u32, 256..=u32::MAX].prop_map(|code| Reset::from_code(code).unwrap())
    }

    fn control() -> impl Strategy<Value = Control> {
        prop_oneof![
            any::<[u8; 8]>().prop_map(Control::Ping),
            any::<[u8; 8]>().prop_map(Control::Pong),
            (any::<u32>(), "[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
                .prop_map(|(stream, name)| Control::Open { stream, service: name.parse().unwrap() }),
            (any::<u32>(), any::<u64>()).prop_map(|(stream, bytes)| Control::End { stream, bytes }),
            (any::<u32>(), reset()).prop_map(|(stream, reason)| Control::Reset { stream, reason }),
            why().prop_map(Control::Drain),
            why().prop_map(Control::Close),
        ]
    }

    fn read_all(mut record: &[u8]) -> Result<Vec<Control>, ControlError> {
        let mut read = Vec::new();
        while !record.is_empty() {
            read.push(Control::read(&mut record)?);
        }
        Ok(read)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(messages in prop::collection::vec(control(), 1..20)) {
            let (mut record, mut ends) = (Vec::new(), vec![0]);
            for message in &messages {
                message.write(&mut record);
                ends.push(record.len());
                prop_assert!(ends[ends.len() - 1] - ends[ends.len() - 2] <= MAX_CONTROL);
            }
            prop_assert_eq!(read_all(&record), Ok(messages.clone()));
            for cut in 0..record.len() {
                let whole = ends.contains(&cut);
                prop_assert_eq!(read_all(&record[..cut]).is_ok(), whole, "cut at {}", cut);
            }
        }

        #[test]
        fn what_is_read_has_one_spelling(record in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut rest = &record[..];
            while let Ok(message) = Control::read(&mut rest) {
                let mut again = Vec::new();
                message.write(&mut again);
                prop_assert!(record[..record.len() - rest.len()].ends_with(&again));
            }
        }
    }

    #[test]
    fn what_is_not_assigned_is_refused() {
        for (bytes, error) in [
            (&b""[..], ControlError::Truncated),
            (&[0], ControlError::Unknown(0)),
            (&[8, 0], ControlError::Unknown(8)),
            (&[6, 6], ControlError::Reason(6)),
            (&[7, 255], ControlError::Reason(255)),
            (&[5, 0, 0, 0, 1, 0, 0, 0, 6], ControlError::Reason(6)),
            (&[5, 0, 0, 0, 1, 0, 0, 0, 255], ControlError::Reason(255)),
            (&[3, 0, 0, 0, 1, 0], ControlError::Service),
            (&[3, 0, 0, 0, 1, 1, b'A'], ControlError::Service),
            (&[3, 0, 0, 0, 1, 1, 0xff], ControlError::Service),
            (&[3, 0, 0, 0, 1, 2, b'a'], ControlError::Truncated),
        ] {
            assert_eq!(Control::read(&mut &bytes[..]), Err(error), "{bytes:?}");
        }
    }

    #[test]
    fn application_codes_come_back() {
        for code in [0, 1, 255, u32::MAX - 256] {
            let reset = Reset::Application(code);
            assert_eq!(Reset::from_code(reset.code()), Some(reset));
        }
        assert_eq!(Reset::Application(u32::MAX).code(), u32::MAX);
    }
}
