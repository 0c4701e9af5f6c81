//! Pipes that this end can cut: a revoked peer's sessions end at once, whatever their owner is doing with them.

use crate::error::{Error, ErrorKind};
use crate::transport::{Pipe, ReadPipe, WritePipe};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Where a pipe is, until it is taken away. Each direction has a lock of its own, which nobody else wants but when the pipe is cut.
pub(super) struct Held {
    read: Half<ReadPipe>,
    write: Half<WritePipe>,
}

struct Half<P>(Mutex<State<P>>);

struct State<P> {
    pipe: Option<P>,
    /// Why there is none any more: a sentence, if it was by a change of the store.
    why: Option<String>,
    /// Who waits for it.
    waiting: Option<Waker>,
}

impl Held {
    pub(super) fn new(pipe: Pipe) -> Self {
        let (read, write) = pipe.into_split();
        Self { read: Half::new(read), write: Half::new(write) }
    }

    /// Closes the pipe because the peer may not go on. Whoever waits for it is told `why`.
    pub(super) fn cut(&self, why: String) {
        self.close(Some(why));
    }

    /// Closes the pipe, as the peer might have.
    pub(super) fn drop_pipe(&self) {
        self.close(None);
    }

    fn close(&self, why: Option<String>) {
        let read = self.read.cut(why.clone());
        let write = self.write.cut(why);
        drop((read.0, write.0));
        [read.1, write.1].into_iter().flatten().for_each(Waker::wake);
    }
}

impl<P: Unpin> Half<P> {
    fn new(pipe: P) -> Self {
        Self(Mutex::new(State { pipe: Some(pipe), why: None, waiting: None }))
    }

    /// What is to be dropped and woken once no lock is held.
    fn cut(&self, why: Option<String>) -> (Option<P>, Option<Waker>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.why = why;
        (state.pipe.take(), state.waiting.take())
    }

    fn poll<T>(
        &self,
        cx: &mut Context<'_>,
        act: impl FnOnce(Pin<&mut P>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(pipe) = &mut state.pipe else {
            let why = state.why.as_deref().map(|why| io::Error::other(revoked(why)));
            return Poll::Ready(Err(why.unwrap_or_else(|| io::ErrorKind::ConnectionAborted.into())));
        };
        let polled = act(Pin::new(pipe), cx);
        if polled.is_pending() && !state.waiting.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.waiting = Some(cx.waker().clone());
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

/// A session's end of a held pipe. `kept` lives as long as that: the watch over the store.
pub(super) fn guarded(held: &Arc<Held>, kept: &Arc<impl Send + Sync + 'static>) -> Pipe {
    let reader = Reader { held: Arc::clone(held), _kept: Arc::clone(kept) };
    let writer = Writer { held: Arc::clone(held), _kept: Arc::clone(kept) };
    Pipe::new(reader, writer)
}

struct Reader<K> {
    held: Arc<Held>,
    _kept: Arc<K>,
}

struct Writer<K> {
    held: Arc<Held>,
    _kept: Arc<K>,
}

impl<K> AsyncRead for Reader<K> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.held.read.poll(cx, |pipe, cx| pipe.poll_read(cx, out))
    }
}

impl<K> AsyncWrite for Writer<K> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.held.write.poll(cx, |pipe, cx| pipe.poll_write(cx, data))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.held.write.poll(cx, |pipe, cx| pipe.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.held.write.poll(cx, |pipe, cx| pipe.poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    #[tokio::test]
    async fn a_cut_wakes_who_waits_and_closes_the_pipe() {
        let (near, mut far) = duplex(64);
        let held = Arc::new(Held::new(Pipe::joined(near)));
        let (mut reader, mut writer) = guarded(&held, &Arc::new(())).into_split();
        far.write_all(b"x").await.unwrap();
        assert_eq!(reader.read_u8().await.unwrap(), b'x');
        let reading = tokio::spawn(async move { reader.read_u8().await.unwrap_err() });
        // More than the pipe takes, which nobody reads.
        let writing = tokio::spawn(async move { writer.write_all(&[0; 65]).await.unwrap_err() });
        tokio::task::yield_now().await;
        held.cut("`wallet` was revoked.".into());
        for waiting in [reading, writing] {
            let error = crate::session::error_of(waiting.await.unwrap());
            assert_eq!((error.kind(), error.to_string()), (ErrorKind::SessionRevoked, "`wallet` was revoked.".into()));
        }
        let mut left = Vec::new();
        assert_eq!(far.read_to_end(&mut left).await.unwrap(), 64, "the other end sees its end");
    }
}
