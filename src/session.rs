//! Sessions: the authenticated channel after a handshake, as one byte stream.
//!
//! A session's bytes travel in [`records`]: Noise transport messages behind a big-endian `u16` length. An empty record says that its
//! sender will send no more; a pipe that ends without it was cut, and reading says so instead of passing it off as the end. One more empty
//! record after that acknowledges the other end's: see [`close`].

mod boot;
mod records;

use crate::error::{Error, ErrorKind};
use crate::identity::{Identifier, KeyPlace, Role};
use crate::noise::{Established, NoiseError, Protocol};
use crate::transport::Pipe;
pub use boot::BootInstant;
#[doc(hidden)]
pub use records::Records;
pub use records::{CLOSE_PATIENCE, Reader, Writer, close};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Who is at the other end, and how it was established.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Peer {
    /// The peer's name in this machine's store.
    pub identifier: Identifier,
    /// Its role.
    pub role: Role,
    /// Which of its keys it holds the token of.
    pub key: KeyPlace,
    /// The key is on the card that it had before its last one.
    pub by_former: bool,
    /// This machine is, to this peer, who it was before its rotation.
    pub as_former: bool,
    /// Whether it dialled.
    pub is_initiator: bool,
    /// The Noise protocol of the handshake.
    pub protocol: Protocol,
    /// Token operations that the handshake cost this machine.
    pub operations: u32,
    /// Whether a broken session was resumed, without the token.
    pub resumed: bool,
    /// When this machine's token was last asked, for this session or for the one that it resumes.
    pub token_seen: BootInstant,
}

impl std::fmt::Display for Peer {
    /// How the session was made: `Noise_KK_25519_ChaChaPoly_BLAKE2s, 2 token operations`; `resumed, token last seen 4 min ago`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.resumed, self.operations) {
            (true, _) => write!(f, "resumed, token last seen {}", boot::ago(self.token_seen.elapsed())),
            (false, 1) => write!(f, "{}, 1 token operation", self.protocol.name()),
            (false, operations) => write!(f, "{}, {operations} token operations", self.protocol.name()),
        }
    }
}

/// An authenticated, encrypted byte stream to one peer.
///
/// Reading ends (0 bytes) only by the peer's own word; a cut pipe is an [`io::ErrorKind::UnexpectedEof`] around
/// [`ErrorKind::SessionTruncated`]. [`shutdown`](tokio::io::AsyncWriteExt::shutdown) ends this machine's direction and leaves the other open.
pub struct Session {
    peer: Peer,
    handshake_hash: [u8; 32],
    records: Records,
}

impl Session {
    /// From a finished handshake and the pipe it ran on.
    ///
    /// # Errors
    /// [`NoiseError::Internal`] only.
    pub(crate) fn new(pipe: Pipe, peer: Peer, established: &Established) -> Result<Self, NoiseError> {
        let records = Records::new(pipe, established, !peer.is_initiator)?;
        Ok(Self { peer, handshake_hash: established.handshake_hash, records })
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// 32 bytes, the same at both ends and unique to this session: to bind something above to it (Noise, section 11.2). Public.
    pub fn handshake_hash(&self) -> &[u8; 32] {
        &self.handshake_hash
    }

    /// The initiator's confirmation of KK and KK1: its first record, empty.
    pub(crate) async fn confirm(&mut self) -> io::Result<()> {
        self.records.confirm().await
    }

    /// Waits for the initiator's confirmation; until then nobody is known to be there.
    pub(crate) async fn confirmed(&mut self) -> io::Result<()> {
        self.records.confirmed().await
    }

    /// Ends the session so that both ends know that everything arrived: see [`close`].
    ///
    /// # Errors
    /// Those of [`close`].
    pub async fn close(self) -> crate::Result<()> {
        self.records.close().await
    }

    /// The two directions, which share nothing.
    pub fn into_split(self) -> (Reader, Writer) {
        self.records.into_split()
    }
}

/// This end cut the pipe.
pub(crate) fn is_revoked(error: &io::Error) -> bool {
    let error = error.get_ref().and_then(|error| error.downcast_ref::<Error>());
    error.is_some_and(|error| error.kind() == ErrorKind::SessionRevoked)
}

impl AsyncRead for Session {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().records).poll_read(cx, out)
    }
}

impl AsyncWrite for Session {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().records).poll_write(cx, data)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().records).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().records).poll_shutdown(cx)
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// The typed error of a failed read or write on a [`Session`].
pub fn error_of(error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(typed) => typed,
        Err(error) => Error::new(
            ErrorKind::SessionIo,
            format!("The session's pipe failed: {error}."),
            "Connect again; the circuit or the other machine went away.",
        ),
    }
}
