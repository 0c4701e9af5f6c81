//! The proper end of a session: both ends say that they send nothing more, and both acknowledge it.
//!
//! ```text
//! CLOSE, end (an empty record) ──▶
//!                              ◀── CLOSE, end
//! acknowledgement (empty)      ──▶        the initiator's comes first
//!                              ◀── acknowledgement
//! ```
//! A transport's flush says only that bytes are on their way; after this they have arrived, and the process may end.

use super::end::{unacknowledged, violation};
use super::error_of;
use super::line::Line;
use super::records::Kind;
use crate::error::{Error, ErrorKind, Result};
use crate::wire::control::{Control, Why};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Sleep, sleep};

/// How long the other end of a session may take to acknowledge its end.
pub const CLOSE_PATIENCE: Duration = Duration::from_secs(20);

/// How long the last record may take on its way before the pipe is let go.
const LINGER: Duration = Duration::from_secs(3);

/// A session that is being closed.
pub(super) struct Closing {
    step: Step,
    is_initiator: bool,
    timer: Pin<Box<Sleep>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Until the peer's CLOSE and end; what it has sent before is dropped.
    Hear,
    /// Until its acknowledgement.
    Await,
    /// Until this end's last record has left.
    Leave,
    /// Until the pipe is closed: by this end.
    Shut,
    /// By the other.
    Linger,
}

impl Closing {
    /// Says CLOSE and ends this direction.
    pub(super) fn new(line: &mut Line, why: Why, is_initiator: bool) -> Self {
        line.say(&Control::Close(line.closed.unwrap_or(why)));
        line.seal();
        let mut closing = Self { step: Step::Hear, is_initiator, timer: Box::pin(sleep(CLOSE_PATIENCE)) };
        closing.empty(line);
        closing
    }

    fn empty(&mut self, line: &mut Line) {
        if let Some(writer) = &mut line.writer
            && let Err(error) = writer.empty()
        {
            line.unsent.get_or_insert(error_of(error));
        }
    }

    /// # Errors
    /// [`ErrorKind::SessionTruncated`] when the peer does not acknowledge within [`CLOSE_PATIENCE`]: it may not have received everything.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, line: &mut Line) -> Poll<Result<()>> {
        let over = self.timer.as_mut().poll(cx).is_ready();
        let stepped = self.poll_steps(cx, line);
        if stepped.is_pending() && !over {
            return Poll::Pending;
        }
        if matches!(self.step, Step::Shut | Step::Linger) {
            // Both ends know everything now, or the initiator will as soon as this end's last record is there.
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(match stepped {
            Poll::Ready(Ok(())) => Ok(()),
            Poll::Ready(Err(error)) if is_telling(&error) => Err(error),
            Poll::Ready(Err(error)) => Err(unacknowledged().because(error)),
            Poll::Pending => Err(unacknowledged()),
        })
    }

    fn poll_steps(&mut self, cx: &mut Context<'_>, line: &mut Line) -> Poll<Result<()>> {
        loop {
            let flushed = line.poll_flush(cx);
            if let Some(error) = line.unsent.take() {
                return Poll::Ready(Err(error));
            }
            match self.step {
                Step::Hear => {
                    if !ready!(poll_heard(cx, line))? {
                        continue;
                    }
                    if self.is_initiator {
                        self.empty(line);
                    }
                    self.step = Step::Await;
                }
                Step::Await => {
                    if ready!(poll_kind(cx, line))? != Kind::Empty {
                        return Poll::Ready(Err(violation(line.peer(), "it went on after its end")));
                    }
                    if !self.is_initiator {
                        self.empty(line);
                    }
                    self.step = Step::Leave;
                }
                Step::Leave => {
                    ready!(flushed);
                    self.step = if self.is_initiator { Step::Shut } else { Step::Linger };
                    let deadline = tokio::time::Instant::now() + LINGER;
                    self.timer.as_mut().reset(deadline);
                    if self.timer.as_mut().poll(cx).is_ready() {
                        return Poll::Ready(Ok(()));
                    }
                }
                Step::Shut => {
                    let Some(writer) = &mut line.writer else { return Poll::Ready(Ok(())) };
                    return writer.poll_shutdown(cx).map_err(error_of);
                }
                Step::Linger => {
                    let Some(reader) = &mut line.reader else { return Poll::Ready(Ok(())) };
                    return reader.poll_gone(cx).map(Ok);
                }
            }
        }
    }
}

/// The next record while the peer's end is waited for. `true`: it was that.
fn poll_heard(cx: &mut Context<'_>, line: &mut Line) -> Poll<Result<bool>> {
    let kind = ready!(poll_kind(cx, line))?;
    Poll::Ready(match kind {
        Kind::Control => line.listen().map(|()| {
            line.forget_announced();
            false
        }),
        Kind::Empty if line.closed.is_some() => Ok(true),
        Kind::Streams if line.closed.is_none() => Ok(false),
        Kind::Empty => Err(violation(line.peer(), "it ended without a word")),
        Kind::Streams => Err(violation(line.peer(), "it went on after its CLOSE")),
    })
}

fn poll_kind(cx: &mut Context<'_>, line: &mut Line) -> Poll<Result<Kind>> {
    let Some(reader) = &mut line.reader else { return Poll::Ready(Err(unacknowledged())) };
    let left = reader.bytes().len();
    reader.consume(left);
    reader.poll_record(cx).map_err(error_of)
}

/// It says more than that the end was not acknowledged.
fn is_telling(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::RecordInvalid | ErrorKind::SessionProtocol | ErrorKind::SessionRevoked)
}
