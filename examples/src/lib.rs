//! HTTP, gRPC and JSON-RPC between two machines, each on a stream of a session.
//!
//! What these protocols need of a connection is that it is [`AsyncRead`] and [`AsyncWrite`]. A stream is, and it says who is at its other end before
//! the first byte: no TLS, no tokens in headers, no addresses. Each example is a server and a client in a module of its own, for any such pipe, and a
//! program of the same name around it:
//!
//! ```console
//! $ cargo run -p claviger-examples --bin http -- --store /var/lib/claviger serve
//! $ cargo run -p claviger-examples --bin http -- --store ~/.local/share/claviger call cosigner
//! ```
//!
//! `docs/examples.md` tells how.

pub mod grpc;
pub mod http;
pub mod jsonrpc;
pub mod machine;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How long an answer may take.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Any error: what the libraries under these examples have in common.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// The outcome of an example.
pub type Result<T = ()> = std::result::Result<T, Error>;

/// What carries an example's protocol: a stream of a session, a TCP connection, one end of [`tokio::io::duplex`].
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// A stream that a peer has opened, and the peer's name in this machine's store: the handshake has proved it.
#[derive(Debug)]
pub struct Call<S> {
    /// The peer's name.
    pub caller: String,
    /// The stream.
    pub stream: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Call<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, out)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Call<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, data)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// The code in the document compiles.
#[cfg(doctest)]
#[doc = include_str!("../../docs/examples.md")]
struct Document;
