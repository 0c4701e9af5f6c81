//! The one task of a session: everything between its streams and its pipe.
//!
//! Each time it is woken it does what it was asked to do, lets yamux move frames in both directions until neither goes on, and then sees everything off at once: many
//! frames to a record, many records to a write.

use super::Settings;
use super::closing::Closing;
use super::end::{self, End};
use super::limits::Growth;
use super::line::{Adapter, Line};
use super::shared::{Open, Queue, Shared};
use super::stream::Stream;
use crate::error::{Error, ErrorKind};
use crate::wire::control::{Control, Reset, Why};
use futures::io::AsyncWrite as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

/// How long what the peer has sent is still read after nothing can be sent to it any more.
const LINGER: Duration = Duration::from_secs(3);

/// Drives one session until it is over.
pub(super) struct Driver {
    shared: Arc<Shared>,
    phase: Phase,
    settings: Settings,
    /// Set aside for the windows of this session's streams.
    _growth: Growth,
    timer: Pin<Box<Sleep>>,
    /// Since when it has had no stream.
    empty: Option<Instant>,
    /// A PING without a sign of life since.
    asked: Option<Instant>,
    /// Why this end takes on no new streams, and until when the others may go on.
    drain: Option<(Why, Option<Instant>)>,
    /// Nothing can be sent any more: until when what is still to be read is read.
    broken: Option<Instant>,
}

#[allow(clippy::large_enum_variant, reason = "one a session, and running for all but its last moment")]
enum Phase {
    Running(yamux::Connection<Adapter>),
    Closing(Closing),
    Over,
}

/// What a session comes to.
enum Turn {
    /// It is closed, by the peer's word or this end's.
    Close(Why),
    Break(Error),
}

impl Driver {
    pub(super) fn new(shared: Arc<Shared>, mut settings: Settings) -> Self {
        settings.idle = settings.idle.filter(|_| shared.peer.is_initiator);
        let mode = if shared.peer.is_initiator { yamux::Mode::Server } else { yamux::Mode::Client };
        let growth = settings.limits.growth();
        let connection = yamux::Connection::new(Adapter(Arc::clone(&shared)), settings.limits.yamux(&growth), mode);
        let now = Instant::now();
        Self {
            shared,
            phase: Phase::Running(connection),
            // Armed at the first poll.
            timer: Box::pin(sleep_until(now)),
            settings,
            _growth: growth,
            empty: Some(now),
            asked: None,
            drain: None,
            broken: None,
        }
    }

    fn poll_running(&mut self, cx: &mut Context<'_>) -> Poll<Turn> {
        loop {
            if let Poll::Ready(turn) = self.take_orders(cx) {
                return Poll::Ready(turn);
            }
            let alive = self.poll_frames(cx);
            let shared = Arc::clone(&self.shared);
            let mut line = shared.line();
            if let Some(error) = line.fault.take() {
                // That the pipe has ended says less than why nothing could be sent.
                let first = line.unsent.take().filter(|_| error.kind() == ErrorKind::SessionTruncated);
                return Poll::Ready(Turn::Break(first.unwrap_or(error)));
            }
            if let Some(why) = line.closed {
                return Poll::Ready(Turn::Close(why));
            }
            if !alive {
                let peer = &self.shared.peer.identifier;
                return Poll::Ready(Turn::Break(end::violation(peer, "its frames are none of yamux's")));
            }
            line.answer();
            if let Poll::Ready(turn) = self.poll_times(cx, &mut line) {
                return Poll::Ready(turn);
            }
            if self.broken.is_none() {
                let flushed = line.poll_flush(cx);
                if line.unsent.is_some() {
                    self.broken = Some(Instant::now() + LINGER);
                    continue;
                }
                if flushed.is_ready() && std::mem::take(&mut line.stalled) {
                    continue;
                }
            }
            if line.turns() {
                cx.waker().wake_by_ref();
            }
            if line.streams() == 0 {
                line.rest();
                self.shared.queue().rest();
            }
            return Poll::Pending;
        }
    }

    /// Does what handles and streams have asked for.
    fn take_orders(&mut self, cx: &mut Context<'_>) -> Poll<Turn> {
        let (ends, gone, drain) = {
            let mut queue = self.shared.queue();
            if let Some(violation) = queue.violation.take() {
                return Poll::Ready(Turn::Break(violation));
            }
            if let Some(why) = queue.end {
                return Poll::Ready(Turn::Close(why));
            }
            let Queue { ends, gone, drain, abandoned, .. } = &mut *queue;
            (
                std::mem::take(ends),
                std::mem::take(gone),
                drain.take().map(|why| (why, true)).or_else(|| abandoned.then_some((Why::Done, false))),
            )
        };
        {
            let mut line = self.shared.line();
            for (stream, bytes) in ends {
                line.say(&Control::End { stream, bytes });
            }
            for gone in &gone {
                line.gone(gone.id, gone.reason);
            }
            if let Some((why, timed)) = drain {
                if self.drain.is_none() {
                    line.say(&Control::Drain(why));
                }
                // Streams of a session without handles are somebody's, and have no time to end by.
                let until = timed.then(|| Instant::now() + self.settings.drain);
                if self.drain.is_none_or(|(_, until)| until.is_none() && timed) {
                    self.drain = Some((why, until));
                }
            }
            // Ahead of the RSTs of those that are gone.
            line.seal();
        }
        drop(gone);
        self.open(cx);
        let (open, gone) = {
            let queue = self.shared.queue();
            (queue.opens.is_empty(), queue.gone.is_empty())
        };
        match self.drain {
            Some((why, _)) if open && gone && self.shared.line().streams() == 0 => Poll::Ready(Turn::Close(why)),
            _ => Poll::Pending,
        }
    }

    /// Opens the streams that are asked for, as far as yamux and the pipe go along.
    fn open(&mut self, cx: &mut Context<'_>) {
        let Phase::Running(connection) = &mut self.phase else { return };
        loop {
            {
                let mut line = self.shared.line();
                if line.is_backed_up() || !self.shared.queue().opens.is_empty() && line.is_ahead() {
                    return;
                }
            }
            let open = {
                let mut queue = self.shared.queue();
                // Whoever asked may have gone.
                while queue.opens.front().is_some_and(|open| open.answer.is_closed()) {
                    queue.opens.pop_front();
                }
                if queue.opens.is_empty() {
                    return;
                }
                if self.drain.is_some() || queue.draining {
                    let refused = std::mem::take(&mut queue.opens);
                    drop(queue);
                    for open in refused {
                        let _ = open.answer.send(Err(end::draining(&self.shared.peer.identifier)));
                    }
                    return;
                }
                // An error is the connection's end, which is seen when frames are moved.
                let Poll::Ready(Ok(stream)) = connection.poll_new_outbound(cx) else { return };
                queue.opens.pop_front().map(|open| (open, stream))
            };
            let Some((Open { service, place, answer }, mut stream)) = open else { return };
            let entry = self.shared.line().open(number(&stream), service.clone());
            // Without a first frame the peer would not see a stream that is only read. A new stream's queue has room.
            let _ = Pin::new(&mut stream).poll_write(cx, &[]);
            self.empty = None;
            let _ = answer.send(Ok(Stream::new(stream, entry, Arc::clone(&self.shared), service, place)));
        }
    }

    /// Moves frames until neither direction goes on. `false`: yamux has ended.
    fn poll_frames(&mut self, cx: &mut Context<'_>) -> bool {
        loop {
            let Phase::Running(connection) = &mut self.phase else { return false };
            match connection.poll_next_inbound(cx) {
                Poll::Ready(Some(Ok(stream))) => self.begin(cx, stream),
                Poll::Ready(Some(Err(_)) | None) => return false,
                Poll::Pending => return true,
            }
        }
    }

    /// Takes on a stream that the peer has begun, or refuses it.
    fn begin(&mut self, cx: &mut Context<'_>, mut stream: yamux::Stream) {
        let id = number(&stream);
        let draining = self.drain.is_some() || self.shared.is_draining();
        let mut line = self.shared.line();
        let Some(announced) = line.begun(id) else { return };
        let place = match (draining, self.settings.limits.stream()) {
            (false, Some(place)) => place,
            (true, _) => return line.refuse(&announced, Reset::Draining),
            (false, None) => {
                if let Some(untold) = self.settings.limits.told.refusals.tell() {
                    let limit = "streams-per-peer";
                    tracing::warn!(target: "claviger::session", peer = %self.shared.peer.identifier, service = %announced.service, reason = "stream-limit", limit, untold, "a stream was refused: there are as many as there may be");
                }
                return line.refuse(&announced, Reset::Limit);
            }
        };
        let (entry, service) = line.keep(announced);
        drop(line);
        // Tells the opener that it is there, whenever somebody writes on it.
        let _ = Pin::new(&mut stream).poll_write(cx, &[]);
        self.empty = None;
        let stream = Stream::new(stream, entry, Arc::clone(&self.shared), service, place);
        self.shared.arrived(stream);
    }

    /// Does what the clock asks for, and sees to it that the task is woken for what it will ask for next.
    fn poll_times(&mut self, cx: &mut Context<'_>, line: &mut Line) -> Poll<Turn> {
        if self.empty.is_none() && line.streams() == 0 {
            self.empty = Some(Instant::now());
        }
        if let Some(why) = line.drained.take() {
            self.shared.queue().draining = true;
            // Those that wait to be opened are refused.
            cx.waker().wake_by_ref();
            tracing::debug!(target: "claviger::session", peer = %self.shared.peer.identifier, ?why, "the peer takes on no new streams in this session");
        }
        loop {
            let now = Instant::now();
            if let (Some(due), Some(sooner)) = (&mut self.settings.due, &self.settings.sooner) {
                *due = sooner().min(*due);
            }
            if self.broken.is_some_and(|until| until <= now) {
                return Poll::Ready(Turn::Break(line.unsent.take().unwrap_or_else(end::unacknowledged)));
            }
            if self.asked.is_some_and(|asked| asked <= line.heard()) {
                self.asked = None;
            }
            if self.asked.is_none() && line.heard() + self.settings.keepalive <= now {
                self.asked = Some(now);
                line.say(&Control::Ping(*b"claviger"));
            }
            if self.asked.is_some_and(|asked| asked + self.settings.keepalive_timeout <= now) {
                return Poll::Ready(Turn::Break(end::silent(&self.shared.peer.identifier)));
            }
            if self.settings.due.is_some_and(|due| due <= now) {
                self.settings.due = None;
                if self.drain.is_none_or(|(_, until)| until.is_none()) {
                    self.drain = Some((Why::Aged, Some(now + self.settings.drain)));
                    self.shared.queue().draining = true;
                    line.say(&Control::Drain(Why::Aged));
                }
            }
            if let Some((why, until)) = self.drain
                && (line.streams() == 0 || until.is_some_and(|until| until <= now))
            {
                return Poll::Ready(Turn::Close(why));
            }
            if let (Some(idle), Some(empty)) = (self.settings.idle, self.empty)
                && line.streams() == 0
                && empty + idle <= now
            {
                return Poll::Ready(Turn::Close(Why::Idle));
            }
            let life = self
                .asked
                .map_or(line.heard() + self.settings.keepalive, |asked| asked + self.settings.keepalive_timeout);
            let idle = self.settings.idle.zip(self.empty).map(|(idle, empty)| empty + idle);
            let drained = self.drain.and_then(|(_, until)| until);

            let next = [idle, drained, self.broken, self.settings.due].into_iter().flatten().fold(life, Instant::min);
            if !self.arm(cx, next) {
                return Poll::Pending;
            }
        }
    }

    /// Sets the timer, unless it goes off before that anyway. `true`: it went off.
    fn arm(&mut self, cx: &mut Context<'_>, next: Instant) -> bool {
        if self.timer.is_elapsed() || next < self.timer.deadline() {
            self.timer.as_mut().reset(next);
        }
        self.timer.as_mut().poll(cx).is_ready()
    }

    /// Ends every stream, and lets yamux go.
    fn part(&mut self, end: &Arc<End>) {
        if let Some(over) = self.settings.over.take() {
            over(end.error().kind());
        }
        self.shared.line().entries().for_each(|entry| entry.over(end));
        self.shared.over(end);
        self.phase = Phase::Over;
    }

    fn turn(&mut self, turn: Turn) {
        let shared = Arc::clone(&self.shared);
        let peer = &shared.peer.identifier;
        match turn {
            Turn::Close(why) => {
                let by_peer = shared.line().closed.is_some();
                let end = Arc::new(End::closed(peer, why, by_peer));
                tracing::debug!(target: "claviger::session", %peer, ?why, by_peer, "a session is closed");
                self.part(&end);
                self.phase = Phase::Closing(Closing::new(&mut shared.line(), why, !shared.peer.is_initiator));
            }
            Turn::Break(error) => {
                if let Some(untold) = self.settings.limits.told.breaks.tell() {
                    tracing::warn!(target: "claviger::session", %peer, reason = error.kind().as_str(), hint = error.hint(), untold, "a session broke: {error}");
                }
                self.over(&Arc::new(End::broken(&error)));
            }
        }
    }

    fn over(&mut self, end: &Arc<End>) {
        self.part(end);
        self.shared.line().hang_up();
        self.shared.done(Err(Arc::clone(end)));
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        this.shared.driver.register(cx.waker());
        loop {
            match &mut this.phase {
                Phase::Running(_) => match this.poll_running(cx) {
                    Poll::Ready(turn) => this.turn(turn),
                    Poll::Pending => return Poll::Pending,
                },
                Phase::Closing(closing) => {
                    let mut line = this.shared.line();
                    let Poll::Ready(closed) = closing.poll(cx, &mut line) else { return Poll::Pending };
                    line.hang_up();
                    drop(line);
                    this.phase = Phase::Over;
                    if let Err(error) = &closed {
                        tracing::debug!(target: "claviger::session", peer = %this.shared.peer.identifier, reason = error.kind().as_str(), "the end of a session was not acknowledged: {error}");
                    }
                    this.shared.done(closed.map_err(|error| Arc::new(End::broken(&error))));
                }
                Phase::Over => return Poll::Ready(()),
            }
        }
    }
}

impl Drop for Driver {
    /// The runtime may end before the session does.
    fn drop(&mut self) {
        if !matches!(self.phase, Phase::Over) {
            let error = end::unacknowledged();
            self.over(&Arc::new(End::broken(&error)));
        }
    }
}

fn number(stream: &yamux::Stream) -> u32 {
    stream.id().val()
}
