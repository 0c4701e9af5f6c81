//! What a session's handles, streams and driver share.

use super::Peer;
use super::end::{End, draining, too_many_streams};
use super::limits::{PeerLimits, Place};
use super::line::Line;
use super::stream::Stream;
use crate::error::{Error, ErrorKind};
use crate::identity::ServiceName;
use crate::wire::control::{Reset, Why};
use futures::task::AtomicWaker;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

/// Everything but the handshake's keys.
pub(super) struct Shared {
    pub(super) peer: Peer,
    pub(super) handshake_hash: [u8; 32],
    pub(super) began: Instant,
    pub(super) limits: Arc<PeerLimits>,
    /// Wakes the driver.
    pub(super) driver: AtomicWaker,
    /// A stream came, or the session ended.
    changed: Notify,
    queue: Mutex<Queue>,
    /// The driver's, but for a look at its counters.
    line: Mutex<Line>,
}

/// What the driver is asked to do, and what it gives.
#[derive(Default)]
pub(super) struct Queue {
    pub(super) opens: VecDeque<Open>,
    /// Ends of directions: the stream, bytes sent.
    pub(super) ends: Vec<(u32, u64)>,
    pub(super) gone: Vec<Gone>,
    pub(super) drain: Option<Why>,
    /// To be closed at once.
    pub(super) end: Option<Why>,
    /// A reader found that the peer does not keep to the protocol.
    pub(super) violation: Option<Error>,
    /// There is no handle any more.
    pub(super) abandoned: bool,
    /// Nobody accepts streams any more.
    refusing: bool,
    /// No new streams, by whichever end.
    pub(super) draining: bool,
    /// Streams that wait to be accepted; each has its place among the peer's.
    accepts: VecDeque<Stream>,
    /// Why the session has ended.
    ended: Option<Arc<End>>,
    /// The driver is done: the end was acknowledged, or was not.
    closed: Option<Result<(), Arc<End>>>,
}

impl Queue {
    /// Keeps no room for streams while there is none.
    pub(super) fn rest(&mut self) {
        if self.opens.is_empty() {
            self.opens = VecDeque::new();
        }
        if self.accepts.is_empty() {
            self.accepts = VecDeque::new();
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.is_some()
    }
}

/// A stream that is to be opened.
pub(super) struct Open {
    pub(super) service: ServiceName,
    pub(super) place: Place,
    pub(super) answer: oneshot::Sender<Result<Stream, Error>>,
}

/// A stream that its owner let go.
pub(super) struct Gone {
    pub(super) id: u32,
    /// Not both directions had ended.
    pub(super) reason: Option<Reset>,
    /// Goes after the RESET has been sent, so that yamux's RST comes after it.
    pub(super) _inner: yamux::Stream,
}

impl Shared {
    pub(super) fn new(peer: Peer, handshake_hash: [u8; 32], limits: Arc<PeerLimits>, line: Line) -> Arc<Self> {
        Arc::new(Self {
            peer,
            handshake_hash,
            began: Instant::now(),
            limits,
            driver: AtomicWaker::new(),
            changed: Notify::new(),
            queue: Mutex::default(),
            line: Mutex::new(line),
        })
    }

    pub(super) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the queue and has the driver look at it.
    fn ask(&self, change: impl FnOnce(&mut Queue)) {
        change(&mut self.queue());
        self.driver.wake();
    }

    pub(super) async fn open(&self, service: &ServiceName) -> Result<Stream, Error> {
        let (answer, opened) = oneshot::channel();
        {
            let mut queue = self.queue();
            if let Some(end) = &queue.ended {
                return Err(end.error());
            }
            if queue.draining {
                return Err(draining(&self.peer.identifier));
            }
            let place = self.limits.stream().ok_or_else(|| too_many_streams(&self.peer.identifier))?;
            queue.opens.push_back(Open { service: service.clone(), place, answer });
        }
        self.driver.wake();
        match opened.await {
            Ok(opened) => opened,
            Err(_) => Err(self.ended().await.error()),
        }
    }

    pub(super) async fn accept(&self) -> Result<Stream, Error> {
        self.until(|queue| match (queue.accepts.pop_front(), &queue.ended) {
            (Some(stream), _) => Some(Ok(stream)),
            (None, Some(end)) => Some(Err(end.error())),
            (None, None) => None,
        })
        .await
    }

    pub(super) async fn ended(&self) -> Arc<End> {
        self.until(|queue| queue.ended.clone()).await
    }

    pub(super) fn how_ended(&self) -> Option<ErrorKind> {
        self.queue().ended.as_ref().map(|end| end.error().kind())
    }

    /// Waits until the driver is done.
    pub(super) async fn closed(&self) -> Result<(), Arc<End>> {
        self.until(|queue| queue.closed.clone()).await
    }

    async fn until<T>(&self, mut look: impl FnMut(&mut Queue) -> Option<T>) -> T {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let seen = look(&mut self.queue());
            match seen {
                Some(seen) => return seen,
                None => changed.await,
            }
        }
    }

    pub(super) fn drain(&self, why: Why) {
        self.ask(|queue| {
            queue.drain.get_or_insert(why);
            queue.draining = true;
        });
    }

    pub(super) fn end(&self, why: Why) {
        self.ask(|queue| {
            queue.end.get_or_insert(why);
            queue.draining = true;
        });
    }

    pub(super) fn fail(&self, violation: Error) {
        self.ask(|queue| {
            queue.violation.get_or_insert(violation);
        });
    }

    pub(super) fn end_of(&self, id: u32, bytes: u64) {
        self.ask(|queue| {
            if queue.ended.is_none() {
                queue.ends.push((id, bytes));
            }
        });
    }

    pub(super) fn gone(&self, gone: Gone) {
        let mut gone = Some(gone);
        self.ask(|queue| {
            if queue.ended.is_none() {
                queue.gone.extend(gone.take());
            }
        });
    }

    /// The last handle was dropped: nobody can open or accept streams any more.
    pub(super) fn abandon(&self) {
        self.ask(|queue| {
            queue.abandoned = true;
            queue.draining = true;
        });
        self.refuse();
    }

    /// Refuses the streams that nobody has accepted, and those that may still come.
    pub(super) fn refuse(&self) {
        let left = {
            let mut queue = self.queue();
            queue.refusing = true;
            std::mem::take(&mut queue.accepts)
        };
        // Outside of the lock, which they take.
        for stream in left {
            stream.reset(Reset::Draining);
        }
    }

    /// Gives a stream to whoever accepts it.
    pub(super) fn arrived(&self, stream: Stream) {
        let mut queue = self.queue();
        if queue.refusing {
            drop(queue);
            stream.reset(Reset::Draining);
            return;
        }
        queue.accepts.push_back(stream);
        drop(queue);
        self.changed.notify_waiters();
    }

    /// The session has ended; its streams know already.
    pub(super) fn over(&self, end: &Arc<End>) {
        let (opens, gone) = {
            let mut queue = self.queue();
            queue.ended.get_or_insert_with(|| Arc::clone(end));
            queue.draining = true;
            queue.ends = Vec::new();
            (std::mem::take(&mut queue.opens), std::mem::take(&mut queue.gone))
        };
        for open in opens {
            let _ = open.answer.send(Err(end.error()));
        }
        drop(gone);
        self.changed.notify_waiters();
    }

    pub(super) fn done(&self, closed: Result<(), Arc<End>>) {
        self.queue().closed.get_or_insert(closed);
        self.changed.notify_waiters();
    }

    pub(super) fn is_draining(&self) -> bool {
        self.queue().draining
    }
}
