//! Pipes that this end can cut: a revoked peer's sessions end at once, whatever their owner is doing with them.

use super::known::Shared;
use crate::error::{Error, ErrorKind};
use crate::transport::BoxPipe;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Where a pipe is, until it is taken away.
pub(super) struct Held(Mutex<State>);

struct State {
    pipe: Option<BoxPipe>,
    /// Why there is none any more: a sentence.
    why: String,
    /// Who waits for it, in each direction.
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Held {
    pub(super) fn new(pipe: BoxPipe) -> Self {
        Self(Mutex::new(State { pipe: Some(pipe), why: String::new(), reader: None, writer: None }))
    }

    /// Closes the pipe. Whoever waits for it is told `why`.
    pub(super) fn cut(&self, why: String) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (pipe, wakers) = (state.pipe.take(), [state.reader.take(), state.writer.take()]);
        state.why = why;
        drop(state);
        drop(pipe);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    fn poll<T>(
        &self,
        cx: &mut Context<'_>,
        waiting: fn(&mut State) -> &mut Option<Waker>,
        act: impl FnOnce(Pin<&mut BoxPipe>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(pipe) = &mut state.pipe else { return Poll::Ready(Err(io::Error::other(revoked(&state.why)))) };
        let polled = act(Pin::new(pipe), cx);
        if polled.is_pending() {
            let waiting = waiting(&mut state);
            if !waiting.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                *waiting = Some(cx.waker().clone());
            }
        }
        polled
    }
}

pub(super) fn revoked(why: &str) -> Error {
    Error::new(
        ErrorKind::SessionRevoked,
        why,
        "`claviger-ceremony log` tells when and why; a new card of that machine is recorded with `claviger-ceremony import`.",
    )
}

/// A session's end of a held pipe. The store is watched for as long as there is one.
pub(super) struct Guarded {
    pub(super) held: Arc<Held>,
    pub(super) _shared: Arc<Shared>,
}

impl AsyncRead for Guarded {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.held.poll(cx, |state| &mut state.reader, |pipe, cx| pipe.poll_read(cx, out))
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.held.poll(cx, |state| &mut state.writer, |pipe, cx| pipe.poll_write(cx, data))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.held.poll(cx, |state| &mut state.writer, |pipe, cx| pipe.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.held.poll(cx, |state| &mut state.writer, |pipe, cx| pipe.poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::ready;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    struct Near(Arc<Held>);

    impl AsyncRead for Near {
        fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            ready!(self.0.poll(cx, |state| &mut state.reader, |pipe, cx| pipe.poll_read(cx, out)))?;
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_cut_wakes_who_waits_and_closes_the_pipe() {
        let (near, mut far) = duplex(64);
        let held = Arc::new(Held::new(Box::new(near)));
        let mut reader = Near(Arc::clone(&held));
        far.write_all(b"x").await.unwrap();
        assert_eq!(reader.read_u8().await.unwrap(), b'x');
        let waiting = tokio::spawn(async move { reader.read_u8().await });
        tokio::task::yield_now().await;
        held.cut("`wallet` was revoked.".into());
        let error = crate::session::error_of(waiting.await.unwrap().unwrap_err());
        assert_eq!((error.kind(), error.to_string()), (ErrorKind::SessionRevoked, "`wallet` was revoked.".into()));
        assert_eq!(far.read(&mut [0; 8]).await.unwrap(), 0, "the other end sees its end");
    }
}
