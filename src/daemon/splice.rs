//! Carries a stream's bytes to and from something local, both directions at once.
//!
//! The end of a direction is passed on, and leaves the other open. What breaks is broken at both ends: a stream that was reset, or whose session has ended, resets a
//! TCP connection, so that nobody takes half of what was said for all of it, and so does a process that is killed; a connection that was reset resets the stream. (A unix socket has no reset: its other end sees an end.)
//! There is no idle timer: a stream without a byte costs no buffer.

use crate::error::{Error, ErrorKind};
use crate::session::{Reset, Stream, error_of, reset_of};
use rustix::net::sockopt::set_socket_linger;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, sleep_until, timeout};

/// Bytes that are read at once.
const CHUNK: usize = 64 * 1024;

/// Buffers that a thread keeps for the next stream with something to carry.
const SPARE: usize = 16;

/// Reads that are dropped in a row before others have their turn.
const TURN: usize = 16;

/// How long an end that has been told everything may go on talking to nobody: whoever closes on it at once may destroy what it has not read yet.
const LINGER: Duration = Duration::from_secs(2);

/// How long one that was told everything, by a peer that did not wait for an answer, may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long what is left of a stream that is gone may make no way into something local.
const STALL: Duration = Duration::from_secs(10);

/// Something local that has two directions.
pub(super) trait Local: AsyncRead + AsyncWrite + Unpin + Send {
    /// Has its other end see a break, and no end, when this is dropped.
    fn cut(&mut self);

    /// The same when this process dies, where the system can do that: until [`release`](Self::release).
    fn guard(&mut self) {}

    /// Both directions have ended: so will this when it is dropped.
    fn release(&mut self) {}

    /// Ready when nothing will ever read what is written to it.
    fn poll_gone(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

impl Local for TcpStream {
    fn cut(&mut self) {
        // It may be closed already.
        let _ = self.set_zero_linger();
    }

    fn guard(&mut self) {
        self.cut();
    }

    fn release(&mut self) {
        let _ = set_socket_linger(&*self, None);
    }
}

impl Local for UnixStream {
    fn cut(&mut self) {}
}

/// What was carried, in bytes, in each direction.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    /// From the peer.
    pub(super) received: AtomicU64,
    /// To the peer.
    pub(super) sent: AtomicU64,
    /// Datagrams that nobody took.
    pub(super) dropped: AtomicU64,
}

/// What kept it from ending well.
#[derive(Debug)]
pub(super) enum Broken {
    /// The peer has given the stream up, or the session has ended.
    Stream(Error),
    /// What is local broke.
    Local(Error),
    /// This end was told to.
    Cut(Reset),
}

/// Joins the two until both directions have ended, or `cut` is ready: then the peer is told its reason.
///
/// An end that takes no more, but goes on talking, is heard out; what is said to it meanwhile is dropped. `traffic` counts what the writing end has taken.
pub(super) async fn splice(
    stream: Stream,
    mut local: impl Local,
    traffic: &Traffic,
    cut: impl Future<Output = Reset>,
) -> Result<(), Broken> {
    local.guard();
    let mut lost = pin!(stream.lost());
    let mut ends = Ends { stream, local: Whole { local, ended: false } };
    let (mut inward, mut outward) = (Flow::default(), Flow::default());
    // Set once the stream takes nothing more.
    let mut gone: Option<Error> = None;
    let mut stalled = pin!(sleep_until(Instant::now()));
    let mut moved = 0;
    let joined = async {
        poll_fn(|cx| {
            let Ends { stream, local } = &mut ends;
            let local = &mut local.local;
            if gone.is_none()
                && let Poll::Ready(error) = lost.as_mut().poll(cx)
            {
                gone = Some(error);
                stalled.as_mut().reset(Instant::now() + STALL);
            }
            match inward.poll(cx, stream, local, &traffic.received) {
                Err(Failed::Read(error)) => return Poll::Ready(Err(Broken::Stream(error_of(error)))),
                Err(Failed::Write(error)) if takes_no_more(&error) => inward.sink(),
                // The kernel tells of a reset once: whoever reads after that finds an end.
                Err(Failed::Write(error)) => return Poll::Ready(Err(Broken::of_local(error))),
                Ok(()) if !inward.is_over() && local.poll_gone(cx).is_ready() => inward.sink(),
                Ok(()) => {}
            }
            if inward.is_sink()
                && let Err(error) = inward.poll_sink(cx, stream)
                && !outward.is_over()
            {
                return Poll::Ready(Err(Broken::Stream(error_of(error))));
            }
            if gone.is_none() {
                match outward.poll(cx, local, stream, &traffic.sent) {
                    Err(Failed::Read(error)) => return Poll::Ready(Err(Broken::of_local(error))),
                    Err(Failed::Write(error)) => {
                        gone = Some(error_of(error));
                        stalled.as_mut().reset(Instant::now() + STALL);
                    }
                    Ok(()) => {}
                }
            }
            if outward.is_over() && (inward.is_over() || inward.is_sink()) {
                return Poll::Ready(Ok(()));
            }
            let Some(error) = gone.take() else { return Poll::Pending };
            if inward.is_over() && reset_of(&error) == Some(Reset::Dropped) {
                // It has said everything and heard enough.
                return Poll::Ready(Ok(()));
            }
            if inward.is_over() || inward.is_sink() {
                return Poll::Ready(Err(Broken::Stream(error)));
            }
            // What had arrived goes on into what is local, for as long as that takes it.
            while stalled.as_mut().poll(cx).is_ready() {
                if std::mem::replace(&mut moved, inward.moved) == inward.moved {
                    return Poll::Ready(Err(Broken::Stream(error)));
                }
                stalled.as_mut().reset(Instant::now() + STALL);
            }
            gone = Some(error);
            Poll::Pending
        })
        .await?;
        ends.part(&mut inward, &outward).await;
        Ok(())
    };
    let reason = tokio::select! {
        biased;
        reason = cut => reason,
        joined = joined => return joined,
    };
    ends.stream.reset(reason);
    Err(Broken::Cut(reason))
}

/// What is local has closed its reading direction, or all of itself, behind everything that it had to say.
fn takes_no_more(error: &io::Error) -> bool {
    // Of a shutdown, the latter: what was before it, reading tells.
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::NotConnected)
}

impl Broken {
    /// Something local failed as the system says.
    pub(super) fn of_local(error: io::Error) -> Self {
        Self::Local(
            Error::new(
                ErrorKind::Io,
                format!("The connection on this machine broke: {error}."),
                "Look at the messages of the program at its other end.",
            )
            .because(error),
        )
    }
}

struct Ends<L: Local> {
    stream: Stream,
    local: Whole<L>,
}

/// Cut when it is dropped, unless it has ended.
struct Whole<L: Local> {
    local: L,
    ended: bool,
}

impl<L: Local> Drop for Whole<L> {
    fn drop(&mut self) {
        if self.ended {
            self.local.release();
        } else {
            self.local.cut();
        }
    }
}

impl<L: Local> Ends<L> {
    /// Both have said everything that the other took.
    async fn part(&mut self, inward: &mut Flow, outward: &Flow) {
        if inward.is_sink() {
            // The peer's rest is not wanted, and the peer may not have read our end yet.
            let _ = timeout(
                LINGER,
                poll_fn(|cx| {
                    let read = inward.poll_sink(cx, &mut self.stream);
                    if read.is_err() || inward.is_over() { Poll::Ready(()) } else { Poll::Pending }
                }),
            )
            .await;
        }
        self.local.ended = outward.is_over() || self.is_silent().await;
    }

    /// Hears the local end out. Whether it ended and had nothing to say.
    async fn is_silent(&mut self) -> bool {
        let mut buffer = Buffer::take();
        let mut heard = async || {
            let mut read = ReadBuf::new(&mut buffer);
            poll_fn(|cx| Pin::new(&mut self.local.local).poll_read(cx, &mut read)).await.map(|()| read.filled().len())
        };
        // It has everything, and may be at work on it.
        match timeout(PATIENCE, heard()).await {
            Ok(Ok(0)) => return true,
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return false,
        }
        let _ = timeout(LINGER, async { while let Ok(1..) = heard().await {} }).await;
        false
    }
}

/// A buffer, from those that the thread has spare.
pub(super) struct Buffer(Box<[u8]>);

impl std::ops::Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl std::ops::DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

thread_local! {
    static SPARES: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

impl Buffer {
    /// 64 KiB, with whatever was in it.
    pub(super) fn take() -> Self {
        Self(SPARES.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; CHUNK].into()))
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.0);
        // A thread that ends has none any more.
        let _ = SPARES.try_with(|spares| {
            if let Ok(mut spares) = spares.try_borrow_mut()
                && spares.len() < SPARE
            {
                spares.push(bytes);
            }
        });
    }
}

/// One direction.
#[derive(Default)]
struct Flow {
    /// What was read and not written yet.
    chunk: Option<(Buffer, usize, usize)>,
    state: State,
    unflushed: bool,
    /// Bytes that were written.
    moved: u64,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// The reading end has ended; the writing end is told.
    Ending,
    /// So it was.
    Over,
    /// The writing end takes no more; what is read is dropped.
    Sink,
}

enum Failed {
    Read(io::Error),
    Write(io::Error),
}

impl Flow {
    fn is_over(&self) -> bool {
        self.state == State::Over
    }

    fn is_sink(&self) -> bool {
        self.state == State::Sink
    }

    fn sink(&mut self) {
        (self.state, self.chunk) = (State::Sink, None);
    }

    /// Carries until one of the ends makes it wait, or it is over.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        moved: &AtomicU64,
    ) -> Result<(), Failed> {
        match self.poll_steps(cx, from, to, moved) {
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    fn poll_steps(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        moved: &AtomicU64,
    ) -> Poll<Result<(), Failed>> {
        let (mut from, mut to) = (Pin::new(from), Pin::new(to));
        loop {
            match self.state {
                State::Over | State::Sink => return Poll::Ready(Ok(())),
                State::Ending => {
                    ready!(to.as_mut().poll_shutdown(cx)).map_err(Failed::Write)?;
                    self.state = State::Over;
                    continue;
                }
                State::Open => {}
            }
            if let Some((buffer, start, end)) = &mut self.chunk {
                while start < end {
                    let rest = &buffer[*start..*end];
                    let n = ready!(to.as_mut().poll_write(cx, rest)).map_err(Failed::Write)?;
                    if n == 0 {
                        return Poll::Ready(Err(Failed::Write(io::ErrorKind::WriteZero.into())));
                    }
                    *start += n;
                    self.moved += n as u64;
                    moved.fetch_add(n as u64, Ordering::Relaxed);
                }
                (self.chunk, self.unflushed) = (None, true);
            }
            let mut buffer = Buffer::take();
            let mut read = ReadBuf::new(&mut buffer);
            match from.as_mut().poll_read(cx, &mut read) {
                Poll::Ready(Ok(())) => match read.filled().len() {
                    0 => self.state = State::Ending,
                    end => self.chunk = Some((buffer, 0, end)),
                },
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Failed::Read(error))),
                Poll::Pending => {
                    if self.unflushed {
                        ready!(to.poll_flush(cx)).map_err(Failed::Write)?;
                        self.unflushed = false;
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// Drops what comes until there is no more.
    fn poll_sink(&mut self, cx: &mut Context<'_>, from: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
        let mut buffer = Buffer::take();
        for _ in 0..TURN {
            let mut read = ReadBuf::new(&mut buffer);
            match Pin::new(&mut *from).poll_read(cx, &mut read) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Ready(Ok(())) if read.filled().is_empty() => {
                    self.state = State::Over;
                    return Ok(());
                }
                Poll::Ready(Ok(())) => {}
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }
}
