//! The record layer as one byte stream, without streams and control messages: for benchmarks, fuzzing, and other people's peers.

use super::{Kind, RecordReader, RecordWriter, protocol, split};
use crate::error::{Error, ErrorKind, Result};
use crate::noise::{Established, NoiseError};
use crate::session::{error_of, is_revoked};
use crate::transport::Pipe;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::timeout;

/// How long the other end of a session may take to acknowledge its end.
const CLOSE_PATIENCE: Duration = Duration::from_secs(20);

/// How long the last record may take on its way before the pipe is let go.
const LINGER: Duration = Duration::from_secs(3);

/// The bare record layer.
#[doc(hidden)]
pub struct Records {
    reader: Reader,
    writer: Writer,
}

/// The receiving half of [`Records`].
pub struct Reader {
    records: RecordReader,
    ended: bool,
    /// Comes after the bytes before it.
    failed: Option<io::Error>,
}

/// The sending half of [`Records`].
pub struct Writer {
    records: RecordWriter,
    ended: bool,
    is_initiator: bool,
}

impl Records {
    /// From a finished handshake and the pipe that it ran on.
    ///
    /// # Errors
    /// [`NoiseError::Internal`] only.
    pub fn new(pipe: Pipe, established: &Established, is_initiator: bool) -> std::result::Result<Self, NoiseError> {
        let (reader, writer) = split(pipe, established)?;
        Ok(Self { reader: Reader::of(reader), writer: Writer { records: writer, ended: false, is_initiator } })
    }

    /// The initiator's confirmation of KK, KK1 and NN: its first record, empty.
    ///
    /// # Errors
    /// The pipe's.
    pub async fn confirm(&mut self) -> io::Result<()> {
        self.writer.send_empty().await
    }

    /// Waits for the initiator's confirmation; until then nobody is known to be there.
    ///
    /// # Errors
    /// [`ErrorKind::RecordInvalid`] for anything else.
    pub async fn confirmed(&mut self) -> io::Result<()> {
        self.reader.receive_empty().await
    }

    /// Ends it so that both ends know that everything arrived: see [`close`].
    ///
    /// # Errors
    /// Those of [`close`].
    pub async fn close(mut self) -> Result<()> {
        close(&mut self.reader, &mut self.writer).await
    }

    /// The two directions, which share nothing.
    pub fn into_split(self) -> (Reader, Writer) {
        (self.reader, self.writer)
    }
}

/// Ends a session properly: ends this direction, reads what the peer still sends (and drops it), and exchanges acknowledgements of both
/// ends. A transport's flush says only that bytes are on their way; after this they have arrived, and the process may end.
///
/// The initiator acknowledges first; the responder answers, and waits a little until the initiator has let the pipe go.
///
/// # Errors
/// [`ErrorKind::SessionTruncated`] when the peer does not acknowledge within [`CLOSE_PATIENCE`]: it may not have received everything.
async fn close(reader: &mut Reader, writer: &mut Writer) -> Result<()> {
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
    match timeout(CLOSE_PATIENCE, closing).await {
        Ok(Ok(())) => {
            if writer.is_initiator {
                // Tells the transport that this was all; the answer to it is nobody's concern any more.
                let _ = timeout(LINGER, poll_fn(|cx| writer.records.poll_shutdown(cx))).await;
            } else {
                // Both ends know everything now, or the initiator will as soon as this end's last record is there.
                let _ = timeout(LINGER, reader.peer_gone()).await;
            }
            Ok(())
        }
        Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData || is_revoked(&error) => Err(error_of(error)),
        Ok(Err(error)) => Err(unacknowledged().because(error)),
        Err(_) => Err(unacknowledged()),
    }
}

fn unacknowledged() -> Error {
    Error::new(
        ErrorKind::SessionTruncated,
        "The other machine did not acknowledge the end of the session.",
        "It may not have received everything that was sent: ask it, or send it again.",
    )
}

impl Reader {
    pub(super) fn of(records: RecordReader) -> Self {
        Self { records, ended: false, failed: None }
    }

    /// After reading has ended: waits until the peer has let the pipe go, too, so that nothing more can be said to it.
    pub async fn peer_gone(&mut self) {
        poll_fn(|cx| self.records.poll_gone(cx)).await;
    }

    async fn receive_empty(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.records.poll_empty(cx)).await
    }
}

impl Writer {
    /// Seals an empty record and sees it off.
    async fn send_empty(&mut self) -> io::Result<()> {
        self.records.empty()?;
        self.flush().await
    }
}

impl AsyncRead for Reader {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { records, ended, failed } = self.get_mut();
        let before = out.filled().len();
        while out.remaining() > 0 && !*ended {
            // What is there goes along; what is not is not waited for.
            let more = out.filled().len() > before;
            if more && (failed.is_some() || !records.is_ready()) {
                break;
            }
            if let Some(error) = failed.take() {
                return Poll::Ready(Err(error));
            }
            match ready!(records.poll_record(cx)) {
                Ok(Kind::Streams) => {
                    let count = records.bytes().len().min(out.remaining());
                    out.put_slice(&records.bytes()[..count]);
                    records.consume(count);
                }
                Ok(Kind::Empty) => *ended = true,
                Ok(Kind::Control) => *failed = Some(protocol("control messages where there are none")),
                Err(error) => *failed = Some(error),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Writer {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        this.records.poll_streams(cx, data)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().records.poll_flush(cx)
    }

    /// Sends the empty record and flushes. The pipe stays open for the peer's direction: an onion stream has no half-close of its own.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.ended {
            this.records.empty()?;
            this.ended = true;
        }
        this.records.poll_flush(cx)
    }
}

impl AsyncRead for Records {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().reader).poll_read(cx, out)
    }
}

impl AsyncWrite for Records {
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
