//! Datagrams in a stream.
//!
//! ```text
//! length (2, big-endian) and so many bytes: a datagram, 0 to 65507 bytes
//! ```
//! A stream is one flow: what goes between one client's address and one socket of the service's machine. It ends after some time without a datagram in either
//! direction, at whichever end finds that first. Tor carries streams only: no datagram is lost, doubled or overtaken inside, and one that is late holds up those behind
//! it. What comes faster than the circuit takes it is lost where datagrams are: in the local socket's queue.

use super::splice::{Broken, Buffer, Traffic};
use crate::error::{Error, ErrorKind};
use crate::identity::Identifier;
use crate::session::{Reset, Stream, error_of};
use futures::{SinkExt, StreamExt as _};
use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::{UdpSocket, UnixDatagram};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::bytes::{Bytes, BytesMut};
use tokio_util::codec::{Decoder as _, FramedRead, FramedWrite, LengthDelimitedCodec};

/// Longest datagram, in bytes: what UDP carries over IPv4.
pub(super) const MAX_DATAGRAM: usize = 65_507;

/// How long the end of a flow may take.
const PARTING: Duration = Duration::from_secs(2);

/// A local end of a flow.
pub(super) trait Datagrams: Send + Sync {
    /// The next datagram to the peer; `None` for one longer than [`MAX_DATAGRAM`]. Cancel-safe.
    ///
    /// # Errors
    /// It is of no use any more.
    fn receive(&self) -> impl Future<Output = io::Result<Option<Bytes>>> + Send;

    /// Sends on what the peer sent.
    ///
    /// # Errors
    /// This datagram is lost; the next may not be.
    fn send(&self, datagram: &[u8]) -> impl Future<Output = io::Result<()>> + Send;
}

/// Carries a flow until it has been idle for so long, the peer ends it, or `cut` is ready: then the peer is told its reason. `traffic` counts bytes, and datagrams that
/// were dropped here.
pub(super) async fn carry(
    stream: Stream,
    socket: &impl Datagrams,
    idle: Duration,
    traffic: &Traffic,
    cut: impl Future<Output = Reset>,
) -> Result<(), Broken> {
    let peer = stream.peer().identifier.clone();
    let (read, write) = tokio::io::split(stream);
    let (mut reader, mut writer) = (FramedRead::new(read, codec()), FramedWrite::new(write, codec()));
    let last = Mutex::new(Instant::now());
    let moved = || *last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    let dropped = || traffic.dropped.fetch_add(1, Ordering::Relaxed);
    let inward = async {
        while let Some(datagram) = reader.next().await {
            let datagram = datagram.map_err(|error| Broken::Stream(malformed(&peer, error)))?;
            moved();
            match socket.send(&datagram).await {
                Ok(()) => traffic.received.fetch_add(datagram.len() as u64, Ordering::Relaxed),
                Err(_) => dropped(),
            };
        }
        Ok(())
    };
    let outward = async {
        loop {
            let Some(datagram) = socket.receive().await.map_err(Broken::of_local)? else {
                dropped();
                continue;
            };
            moved();
            let len = datagram.len() as u64;
            writer.send(datagram).await.map_err(|error| Broken::Stream(error_of(error)))?;
            traffic.sent.fetch_add(len, Ordering::Relaxed);
        }
    };
    let silent = async {
        loop {
            let until = *last.lock().unwrap_or_else(PoisonError::into_inner) + idle;
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    };
    let outcome = {
        let (inward, outward) = (pin!(inward), pin!(outward));
        tokio::select! {
            biased;
            reason = cut => Err(Broken::Cut(reason)),
            ended = inward => ended,
            failed = outward => failed,
            () = silent => Ok(()),
        }
    };
    match outcome {
        Ok(()) => {
            let parting = async {
                // Behind the last datagram, and not in it.
                SinkExt::<Bytes>::close(&mut writer).await?;
                // What is still on its way is too late.
                while let Some(Ok(_)) = reader.next().await {
                    dropped();
                }
                Ok::<_, io::Error>(())
            };
            let _ = timeout(PARTING, parting).await;
        }
        Err(Broken::Cut(reason)) => reader.into_inner().unsplit(writer.into_inner()).reset(reason),
        Err(_) => {}
    }
    outcome
}

fn codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().length_field_type::<u16>().max_frame_length(MAX_DATAGRAM).new_codec()
}

/// What a flow makes of what a peer sent: its datagrams, and whether it goes on behind them. For tests.
#[doc(hidden)]
pub fn datagrams(sent: &[u8]) -> (Vec<Vec<u8>>, bool) {
    let (mut codec, mut sent, mut found) = (codec(), BytesMut::from(sent), Vec::new());
    loop {
        match codec.decode(&mut sent) {
            Ok(Some(datagram)) => found.push(datagram.to_vec()),
            Ok(None) => return (found, true),
            Err(_) => return (found, false),
        }
    }
}

/// The session's own error, or the peer's datagram is too long or cut short.
fn malformed(peer: &Identifier, error: io::Error) -> Error {
    if error.get_ref().is_some_and(|inner| inner.is::<Error>()) {
        return error_of(error);
    }
    Error::new(
        ErrorKind::SessionProtocol,
        format!("`{peer}` sent datagrams that are none: {error}."),
        "Use the same kind of target and of listener at both ends of the service: datagrams (`udp:`, `unixgram:`) or bytes (`tcp:`, `unix:`).",
    )
}

/// One that is received into `buffer`.
pub(super) fn received(buffer: &Buffer, len: usize) -> Option<Bytes> {
    buffer.get(..len).filter(|datagram| datagram.len() <= MAX_DATAGRAM).map(Bytes::copy_from_slice)
}

/// The socket's other end was not there for an earlier datagram; it may be now.
pub(super) fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset)
}

impl Datagrams for UdpSocket {
    async fn receive(&self) -> io::Result<Option<Bytes>> {
        loop {
            self.readable().await?;
            let mut buffer = Buffer::take();
            match self.try_recv(&mut buffer) {
                Ok(len) => return Ok(received(&buffer, len)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn send(&self, datagram: &[u8]) -> io::Result<()> {
        Self::send(self, datagram).await.map(drop)
    }
}

/// A unix datagram socket that another one listens to.
pub(super) struct Unixgram {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Unixgram {
    /// With a name of its own in the kernel, so that it can be answered.
    ///
    /// # Errors
    /// Those of `bind` and `connect`.
    pub(super) fn connect(path: PathBuf) -> io::Result<Self> {
        let socket = rustix::net::socket_with(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::DGRAM,
            rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK,
            None,
        )?;
        // unix(7), "Autobind feature".
        rustix::net::bind(&socket, &rustix::net::SocketAddrUnix::new_unnamed())?;
        let socket = UnixDatagram::from_std(socket.into())?;
        socket.connect(&path)?;
        Ok(Self { socket, path })
    }
}

impl Datagrams for Unixgram {
    async fn receive(&self) -> io::Result<Option<Bytes>> {
        loop {
            self.socket.readable().await?;
            let mut buffer = Buffer::take();
            match self.socket.try_recv(&mut buffer) {
                Ok(len) => return Ok(received(&buffer, len)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn send(&self, datagram: &[u8]) -> io::Result<()> {
        match self.socket.send(datagram).await {
            Err(error) if is_absence(&error) || error.kind() == io::ErrorKind::NotConnected => {
                // Another socket of that name may be there by now.
                self.socket.connect(&self.path)?;
                self.socket.send(datagram).await.map(drop)
            }
            outcome => outcome.map(drop),
        }
    }
}
