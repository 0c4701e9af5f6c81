//! The record layer: Noise transport messages behind a big-endian `u16` length.
//!
//! The plaintext of a record is empty (a confirmation, the end of a direction, an acknowledgement), or its first byte says what follows:
//! 0 bytes of the streams, in any slicing; 1 control messages, one or more, whole. The two directions share nothing, not even a lock.

mod bare;
mod pool;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub use bare::Records;
pub(crate) use reader::RecordReader;
pub(crate) use writer::{MAX_PENDING, RecordWriter};

use crate::error::{Error, ErrorKind};
use crate::noise::{Established, NoiseError, Opener, Sealer};
use crate::transport::Pipe;
use std::io;

/// Bytes of the streams follow.
const STREAMS: u8 = 0;

/// Control messages follow.
const CONTROL: u8 = 1;

/// What a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Bytes of the streams.
    Streams,
    /// Control messages.
    Control,
    /// Nothing.
    Empty,
}

/// The two directions of a session, from a finished handshake and the pipe that it ran on.
///
/// # Errors
/// [`NoiseError::Internal`] only.
pub(crate) fn split(pipe: Pipe, established: &Established) -> Result<(RecordReader, RecordWriter), NoiseError> {
    let suite = established.protocol.suite;
    let (read, write) = pipe.into_split();
    let reader = RecordReader::new(read, Opener::new(suite, &established.receive)?);
    let writer = RecordWriter::new(write, Sealer::new(suite, &established.send)?);
    Ok((reader, writer))
}

/// A session's error as `std::io` carries it; [`error_of`](super::error_of) gets it back.
fn to_io(error: NoiseError) -> io::Error {
    let (kind, hint) = match error {
        NoiseError::NonceExhausted => (ErrorKind::NonceExhausted, "Connect again: a new session has new keys."),
        NoiseError::Decrypt => return invalid(&error),
        _ => (ErrorKind::Internal, "Please report this."),
    };
    io::Error::other(Error::new(kind, format!("The session failed: {error}."), hint))
}

/// Bytes that are no record of the peer's.
fn invalid(why: &dyn std::fmt::Display) -> io::Error {
    let hint = "Connect again; if it happens again, something between the machines changes bytes.";
    let error = Error::new(ErrorKind::RecordInvalid, format!("The session failed: {why}."), hint);
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// The peer's own records, which say what they may not.
fn protocol(what: &str) -> io::Error {
    let error = Error::new(
        ErrorKind::SessionProtocol,
        format!("The other machine sent {what}."),
        "Use the same release of claviger on both machines.",
    );
    io::Error::new(io::ErrorKind::InvalidData, error)
}
