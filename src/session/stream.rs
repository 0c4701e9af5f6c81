//! One stream of a session.

use super::end::{self, End};
use super::limits::Place;
use super::shared::{Gone, Shared};
use super::{Peer, to_io};
use crate::error::Error;
use crate::identity::{Identifier, ServiceName};
use crate::wire::control::Reset;
use futures::io::{AsyncRead as _, AsyncWrite as _};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// One byte stream of a session, in both directions, for one service.
///
/// Reading ends (0 bytes) only by the peer's own word, and after everything that it sent. Whatever else ends it is an [`io::Error`] around a typed error, which
/// [`error_of`](super::error_of) gets back: [`StreamReset`](crate::ErrorKind::StreamReset), [`ServiceRefused`](crate::ErrorKind::ServiceRefused),
/// [`SessionInterrupted`](crate::ErrorKind::SessionInterrupted), or why the session was closed. What had arrived before is read first.
///
/// [`shutdown`](tokio::io::AsyncWriteExt::shutdown) ends this machine's direction and leaves the other open. What was written is on its way without a flush. A stream that is
/// dropped before both directions have ended is reset.
pub struct Stream {
    /// Taken when it is given up.
    inner: Option<yamux::Stream>,
    entry: Arc<Entry>,
    session: Arc<Shared>,
    service: ServiceName,
    read: u64,
    written: u64,
    /// The END was said.
    ended: bool,
    /// And yamux's FIN.
    finished: bool,
    /// Everything that the peer sent was read.
    drained: bool,
    _place: Place,
}

/// What stream and driver know of one stream together.
pub(super) struct Entry {
    pub(super) id: u32,
    /// Bytes that were read.
    read: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// How many bytes the peer sent on it in all.
    end: Option<u64>,
    /// yamux's FIN came.
    fin: bool,
    fault: Option<Fault>,
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// Who wants to know when nothing can be written any more.
    other: Option<Waker>,
}

#[derive(Clone)]
enum Fault {
    /// By the peer.
    Reset(Reset),
    Session(Arc<End>),
}

impl Fault {
    fn error(&self, peer: &Identifier) -> Error {
        match self {
            Self::Reset(reason) => end::reset(peer, *reason),
            Self::Session(end) => end.of_stream(),
        }
    }
}

impl Entry {
    pub(super) fn new(id: u32) -> Arc<Self> {
        Arc::new(Self { id, read: AtomicU64::new(0), state: Mutex::default() })
    }

    pub(super) fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The peer ended its direction after so many bytes. `false`: it had already.
    pub(super) fn end(&self, bytes: u64) -> bool {
        let mut state = self.state();
        if state.end.is_some() {
            return false;
        }
        state.end = Some(bytes);
        let reader = state.reader.take();
        drop(state);
        reader.into_iter().for_each(Waker::wake);
        true
    }

    /// yamux's end of the direction is here.
    pub(super) fn fin(&self) {
        self.state().fin = true;
    }

    /// The peer gave it up.
    pub(super) fn reset(&self, reason: Reset) {
        self.fail(Fault::Reset(reason));
    }

    pub(super) fn over(&self, end: &Arc<End>) {
        self.fail(Fault::Session(Arc::clone(end)));
    }

    /// The first fault is the one that is told.
    fn fail(&self, fault: Fault) {
        let mut state = self.state();
        state.fault.get_or_insert(fault);
        let wakers = [state.reader.take(), state.writer.take(), state.other.take()];
        drop(state);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    pub(super) fn has_failed(&self) -> bool {
        self.state().fault.is_some()
    }
}

/// Keeps who waits.
fn wait(place: &mut Option<Waker>, cx: &Context<'_>) {
    if !place.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
        *place = Some(cx.waker().clone());
    }
}

impl Stream {
    pub(super) fn new(
        inner: yamux::Stream,
        entry: Arc<Entry>,
        session: Arc<Shared>,
        service: ServiceName,
        place: Place,
    ) -> Self {
        Self {
            inner: Some(inner),
            entry,
            session,
            service,
            read: 0,
            written: 0,
            ended: false,
            finished: false,
            drained: false,
            _place: place,
        }
    }

    /// What it was opened for.
    pub fn service(&self) -> &ServiceName {
        &self.service
    }

    /// Its number in the session; odd ones were opened by the session's initiator.
    pub fn id(&self) -> u32 {
        self.entry.id
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &Peer {
        &self.session.peer
    }

    /// Gives the stream up in both directions. What was written and has not left yet may be lost; the peer is told `reason`.
    pub fn reset(mut self, reason: Reset) {
        self.give_up(Some(reason));
    }

    /// Waits until nothing can be written any more: the peer has reset the stream, or the session has ended. What has arrived can be read all the same. One at a time may wait.
    pub fn lost(&self) -> impl Future<Output = Error> + Send + use<> {
        let (entry, session) = (Arc::clone(&self.entry), Arc::clone(&self.session));
        poll_fn(move |cx| {
            let mut state = entry.state();
            let Some(fault) = state.fault.clone() else {
                wait(&mut state.other, cx);
                return Poll::Pending;
            };
            drop(state);
            Poll::Ready(fault.error(&session.peer.identifier))
        })
    }

    fn give_up(&mut self, reason: Option<Reset>) {
        let Some(inner) = self.inner.take() else { return };
        self.session.gone(Gone { id: self.entry.id, reason, _inner: inner });
    }

    fn fault(&self, fault: &Fault) -> io::Error {
        to_io(fault.error(&self.session.peer.identifier))
    }

    /// yamux has no more bytes: none at the moment, or (`closed`) none at all. It says the latter of a FIN, an RST and a connection that is gone.
    fn poll_end(&mut self, cx: &mut Context<'_>, closed: bool) -> Poll<io::Result<()>> {
        let mut state = self.entry.state();
        let false_end = match state.end {
            Some(end) if end == self.read => {
                drop(state);
                self.drained = true;
                return Poll::Ready(Ok(()));
            }
            // More than that came; or less, and then yamux's end.
            Some(end) => end < self.read || (closed && state.fin),
            None => false,
        };
        match &state.fault {
            // What it sent before the RESET is still on its way, and yamux's RST behind it.
            Some(Fault::Reset(_)) if !closed => {}
            Some(fault) => {
                let fault = fault.clone();
                drop(state);
                return Poll::Ready(Err(self.fault(&fault)));
            }
            None if false_end => {
                drop(state);
                let error =
                    || end::violation(&self.session.peer.identifier, "a stream has another length than was said");
                self.session.fail(error());
                return Poll::Ready(Err(to_io(error())));
            }
            None => {}
        }
        // The END, or why the connection is gone, is on its way.
        wait(&mut state.reader, cx);
        Poll::Pending
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if out.remaining() == 0 || this.drained {
            return Poll::Ready(Ok(()));
        }
        let Some(inner) = &mut this.inner else { return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())) };
        // `initialize_unfilled` zeroes what was never written to, once a buffer.
        match Pin::new(inner).poll_read(cx, out.initialize_unfilled()) {
            Poll::Ready(Ok(n @ 1..)) => {
                out.advance(n);
                this.read += n as u64;
                this.entry.read.store(this.read, Ordering::Relaxed);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(_) => this.poll_end(cx, true),
            Poll::Pending => this.poll_end(cx, false),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let Some(inner) = this.inner.as_mut().filter(|_| !this.ended) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let written = Pin::new(inner).poll_write(cx, data);
        let mut state = this.entry.state();
        if let Some(fault) = state.fault.clone() {
            drop(state);
            return Poll::Ready(Err(this.fault(&fault)));
        }
        match written {
            Poll::Ready(Ok(n)) => {
                drop(state);
                this.written += n as u64;
                Poll::Ready(Ok(n))
            }
            // The connection is gone, and why is on its way.
            Poll::Ready(Err(_)) | Poll::Pending => {
                wait(&mut state.writer, cx);
                Poll::Pending
            }
        }
    }

    /// Nothing waits for a flush: the driver sees everything off as soon as there is nothing to add.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.finished {
            return Poll::Ready(Ok(()));
        }
        let fault = this.entry.state().fault.clone();
        if let Some(fault) = fault {
            return Poll::Ready(Err(this.fault(&fault)));
        }
        let Some(inner) = &mut this.inner else { return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())) };
        // Room for yamux's FIN comes first: a peer that has the END may be done, and the session closed, before this is asked again.
        if Pin::new(&mut *inner).poll_flush(cx).is_ready() {
            if !this.ended {
                this.ended = true;
                this.session.end_of(this.entry.id, this.written);
            }
            if let Poll::Ready(Ok(())) = Pin::new(inner).poll_close(cx) {
                this.finished = true;
                return Poll::Ready(Ok(()));
            }
        }
        let mut state = this.entry.state();
        if let Some(fault) = state.fault.clone() {
            drop(state);
            return Poll::Ready(Err(this.fault(&fault)));
        }
        wait(&mut state.writer, cx);
        Poll::Pending
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let whole = self.finished && (self.drained || self.entry.state().end == Some(self.read));
        self.give_up((!whole).then_some(Reset::Dropped));
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("id", &self.entry.id).field("service", &self.service).finish_non_exhaustive()
    }
}
