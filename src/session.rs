//! Sessions: the authenticated channel after a handshake, as one byte stream.
//!
//! A session's bytes travel in records: Noise transport messages behind a big-endian `u16` length. An empty record says that its
//! sender will send no more; a pipe that ends without it was cut, and reading says so instead of passing it off as the end. One more empty
//! record after that acknowledges the other end's: see [`close`].

mod boot;
mod buffers;

use crate::error::{Error, ErrorKind};
use crate::identity::{Identifier, KeyPlace, Role};
use crate::noise::{Established, NoiseError, Opener, Protocol, Sealer};
use crate::transport::BoxPipe;
pub use boot::BootInstant;
use buffers::Incoming;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf};

/// Sealed bytes that may wait for the pipe before writing pauses.
const MAX_PENDING: usize = 256 * 1024;

/// Largest plaintext put into one record: a quarter of what a record can carry delays the first byte less and costs nothing measurable.
const CHUNK: usize = 16 * 1024;

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
    reader: Reader,
    writer: Writer,
}

/// How long the other end of a session may take to acknowledge its end.
pub const CLOSE_PATIENCE: Duration = Duration::from_secs(20);

/// How long the last record may take on its way before the pipe is let go.
const LINGER: Duration = Duration::from_secs(3);

/// The receiving half of a [`Session`].
pub struct Reader {
    pipe: ReadHalf<BoxPipe>,
    opener: Opener,
    incoming: Incoming,
}

/// The sending half of a [`Session`].
pub struct Writer {
    pipe: WriteHalf<BoxPipe>,
    sealer: Sealer,
    /// Sealed, not yet written: `pending[written..]`.
    pending: Vec<u8>,
    written: usize,
    ended: bool,
    is_initiator: bool,
}

impl Session {
    /// From a finished handshake and the pipe it ran on.
    ///
    /// # Errors
    /// [`NoiseError::Internal`] only.
    pub(crate) fn new(pipe: BoxPipe, peer: Peer, established: &Established) -> Result<Self, NoiseError> {
        let suite = established.protocol.suite;
        let (read, write) = tokio::io::split(pipe);
        let opener = Opener::new(suite, &established.receive)?;
        let sealer = Sealer::new(suite, &established.send)?;
        let is_initiator = !peer.is_initiator;
        Ok(Self {
            peer,
            handshake_hash: established.handshake_hash,
            reader: Reader { pipe: read, opener, incoming: Incoming::default() },
            writer: Writer { pipe: write, sealer, pending: Vec::new(), written: 0, ended: false, is_initiator },
        })
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
        self.writer.send_empty().await
    }

    /// Waits for the initiator's confirmation; until then nobody is known to be there.
    pub(crate) async fn confirmed(&mut self) -> io::Result<()> {
        self.reader.receive_empty().await
    }

    /// Ends the session so that both ends know that everything arrived: see [`close`].
    ///
    /// # Errors
    /// Those of [`close`].
    pub async fn close(self) -> crate::Result<()> {
        let (mut reader, mut writer) = self.into_split();
        close(&mut reader, &mut writer).await
    }

    /// The two directions, which share nothing but the pipe.
    pub fn into_split(self) -> (Reader, Writer) {
        (self.reader, self.writer)
    }
}

impl Reader {
    /// After reading has ended: waits until the peer has let the pipe go, too, so that nothing more can be said to it.
    pub async fn peer_gone(&mut self) {
        let mut scrap = [0; 512];
        // Nothing may follow the end; what follows it nevertheless is not a session's.
        while matches!(self.pipe.read(&mut scrap).await, Ok(1..)) {}
    }

    async fn receive_empty(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.incoming.poll_empty(cx, &mut self.pipe, &mut self.opener)).await
    }
}

/// Ends a session properly: ends this direction, reads what the peer still sends (and drops it), and exchanges acknowledgements of both
/// ends. A transport's flush says only that bytes are on their way; after this they have arrived, and the process may end.
///
/// The initiator acknowledges first; the responder answers, and waits a little until the initiator has let the pipe go.
///
/// # Errors
/// [`ErrorKind::SessionTruncated`] when the peer does not acknowledge within [`CLOSE_PATIENCE`]: it may not have received everything.
pub async fn close(reader: &mut Reader, writer: &mut Writer) -> crate::Result<()> {
    let closing = async {
        writer.shutdown().await?;
        let mut scrap = [0; 4096];
        while reader.read(&mut scrap).await? > 0 {}
        if writer.is_initiator {
            writer.send_empty().await?;
            reader.receive_empty().await
        } else {
            reader.receive_empty().await?;
            writer.send_empty().await
        }
    };
    match tokio::time::timeout(CLOSE_PATIENCE, closing).await {
        Ok(Ok(())) => {
            if writer.is_initiator {
                // Tells the transport that this was all; the answer to it is nobody's concern any more.
                let _ = tokio::time::timeout(LINGER, writer.pipe.shutdown()).await;
            } else {
                // Both ends know everything now, or the initiator will as soon as this end's last record is there.
                let _ = tokio::time::timeout(LINGER, reader.peer_gone()).await;
            }
            Ok(())
        }
        Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData || is_revoked(&error) => Err(error_of(error)),
        Ok(Err(error)) => Err(unacknowledged().because(error)),
        Err(_) => Err(unacknowledged()),
    }
}

/// This end cut the pipe.
pub(crate) fn is_revoked(error: &io::Error) -> bool {
    let error = error.get_ref().and_then(|error| error.downcast_ref::<Error>());
    error.is_some_and(|error| error.kind() == ErrorKind::SessionRevoked)
}

fn unacknowledged() -> Error {
    Error::new(
        ErrorKind::SessionTruncated,
        "The other machine did not acknowledge the end of the session.",
        "It may not have received everything that was sent: ask it, or send it again.",
    )
}

impl Writer {
    /// Seals an empty record and sees it off.
    async fn send_empty(&mut self) -> io::Result<()> {
        self.sealer.seal(b"", &mut self.pending).map_err(to_io)?;
        self.flush().await
    }

    /// Writes what is sealed until `pending` is empty.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.pending.len() {
            let n = ready!(Pin::new(&mut self.pipe).poll_write(cx, &self.pending[self.written..]))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += n;
        }
        self.pending.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Reader {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.incoming.poll_read(cx, &mut this.pipe, &mut this.opener, out)
    }
}

impl AsyncWrite for Writer {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if data.is_empty() {
            return Poll::Ready(Ok(0)); // an empty record would mean the end
        }
        if this.pending.len() - this.written >= MAX_PENDING {
            ready!(this.poll_drain(cx))?;
        }
        let chunk = &data[..data.len().min(CHUNK)];
        this.sealer.seal(chunk, &mut this.pending).map_err(to_io)?;
        // What the pipe does not take now waits for the next write or flush.
        if let Poll::Ready(Err(error)) = this.poll_drain(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(chunk.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.pipe).poll_flush(cx)
    }

    /// Sends the empty record and flushes. The pipe stays open for the peer's direction: an onion stream has no half-close of its own.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.ended {
            this.sealer.seal(b"", &mut this.pending).map_err(to_io)?;
            this.ended = true;
        }
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.pipe).poll_flush(cx)
    }
}

impl AsyncRead for Session {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().reader).poll_read(cx, out)
    }
}

impl AsyncWrite for Session {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().writer).poll_write(cx, data)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().writer).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().writer).poll_shutdown(cx)
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// A session's error as `std::io` carries it; [`error_of`] gets it back.
fn to_io(error: NoiseError) -> io::Error {
    let (io_kind, kind, hint) = match error {
        NoiseError::NonceExhausted => {
            (io::ErrorKind::Other, ErrorKind::NonceExhausted, "Connect again: a new session has new keys.")
        }
        NoiseError::Internal(_) => (io::ErrorKind::Other, ErrorKind::Internal, "Please report this."),
        _ => (
            io::ErrorKind::InvalidData,
            ErrorKind::RecordInvalid,
            "Connect again; if it happens again, something between the machines changes bytes.",
        ),
    };
    io::Error::new(io_kind, Error::new(kind, format!("The session failed: {error}."), hint))
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
