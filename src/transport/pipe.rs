//! What every transport gives: a byte pipe whose two directions share no lock.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpStream, UnixStream};

/// The receiving half of a [`Pipe`].
pub type ReadPipe = Box<dyn AsyncRead + Send + Unpin>;

/// The sending half of a [`Pipe`].
pub type WritePipe = Box<dyn AsyncWrite + Send + Unpin>;

/// A byte pipe in both directions. It may buffer: what is written is on its way once it is flushed. It is closed when both halves are
/// dropped.
pub struct Pipe {
    read: ReadPipe,
    write: WritePipe,
}

impl Pipe {
    /// From the two directions.
    pub fn new(read: impl AsyncRead + Send + Unpin + 'static, write: impl AsyncWrite + Send + Unpin + 'static) -> Self {
        Self { read: Box::new(read), write: Box::new(write) }
    }

    /// From a stream that can not be divided: its directions take turns.
    pub fn joined(stream: impl AsyncRead + AsyncWrite + Send + 'static) -> Self {
        let (read, write) = tokio::io::split(stream);
        Self::new(read, write)
    }

    /// The two directions.
    pub fn into_split(self) -> (ReadPipe, WritePipe) {
        (self.read, self.write)
    }
}

impl Pipe {
    /// A connection to a tor daemon. tor leaves Nagle's algorithm on, so the end of what it sends us waits for our acknowledgement of what came before, and the kernel puts that off by
    /// 40 ms on a fresh connection: as much for each message of a handshake. So the first [`PROMPT`] reads are acknowledged at once. What waits in the kernel is bounded by [`WAITING`].
    pub(super) fn of_tor(stream: TcpStream) -> Self {
        if let Err(error) = rustix::net::sockopt::set_socket_send_buffer_size(&stream, WAITING) {
            tracing::debug!("can not set SO_SNDBUF: {error}");
        }
        let (read, write) = divided(stream);
        Self::new(Prompt { read, left: PROMPT }, write)
    }
}

impl From<TcpStream> for Pipe {
    /// Sets TCP_NODELAY: messages are written whole, and waiting for more to send would only delay them.
    fn from(stream: TcpStream) -> Self {
        let (read, write) = divided(stream);
        Self::new(read, write)
    }
}

fn divided(stream: TcpStream) -> (OwnedReadHalf, OwnedWriteHalf) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!("can not set TCP_NODELAY: {error}");
    }
    stream.into_split()
}

/// Bytes that may wait in the kernel for tor; it doubles them, for what it needs itself (socket(7)). Left to itself it lets them grow to 4 MiB on loopback, and a sign of life goes behind all
/// of them: on a circuit that carries 64 KiB/s it would be a minute late, and the peer have given this end up as silent by then. What is on its way through the circuit is in tor's own windows (500 cells,
/// 243 KiB, a stream). Here is only what tor takes until this program runs again: at 10 MB/s, faster than a circuit to an onion service, 128 KiB are 13 ms. At 8 KiB/s, twice as much has left in 32 s.
const WAITING: usize = 128 << 10;

/// Reads of a fresh connection that are acknowledged at once: a handshake and a little more.
const PROMPT: u8 = 32;

struct Prompt {
    read: OwnedReadHalf,
    left: u8,
}

impl AsyncRead for Prompt {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.read).poll_read(cx, out);
        if this.left > 0 && polled.is_ready() {
            this.left -= 1;
            let stream: &TcpStream = this.read.as_ref();
            // Not kept by the kernel (tcp(7)), and nothing is lost without it.
            let _ = rustix::net::sockopt::set_tcp_quickack(stream, true);
        }
        polled
    }
}

impl From<UnixStream> for Pipe {
    fn from(stream: UnixStream) -> Self {
        let (read, write) = stream.into_split();
        Self::new(read, write)
    }
}

impl AsyncRead for Pipe {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.read).poll_read(cx, out)
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.write).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.write).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.write).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    /// What a pipe takes whose other end reads nothing.
    async fn taken(pipe: impl FnOnce(TcpStream) -> Pipe) -> usize {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (_other, _) = listener.accept().await.unwrap();
        let (mut pipe, mut taken) = (pipe(stream), 0);
        while let Ok(count) = timeout(Duration::from_millis(500), pipe.write(&[0; 16 << 10])).await {
            taken += count.unwrap();
        }
        taken
    }

    #[tokio::test]
    async fn little_waits_for_tor() {
        let (tor, other) = (taken(Pipe::of_tor).await, taken(Pipe::from).await);
        // With what the other end's kernel takes, which is not ours to bound.
        assert!(tor <= other / 2 && tor <= 1 << 20, "{tor} of {other}");
    }
}
