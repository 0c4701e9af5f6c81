//! The sending direction: plaintext is put where its record will be, sealed there, and several records go to the pipe in one write.

use super::pool::{Buffer, SIZE};
use super::{CONTROL, STREAMS, to_io};
use crate::noise::Sealer;
use crate::transport::WritePipe;
use crate::wire::{FRAME_HEADER, MAX_RECORD_PLAINTEXT, TAG};
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite;

/// Stream bytes of a record when there is more to say: 16 KiB, and the header of a yamux frame, so that whole records hold whole frames.
const STREAM_BYTES: usize = 16 * 1024 + 12;

/// Bytes of such a record: header, kind, stream bytes and tag.
const FRAME: usize = STREAM_BYTES + AROUND;

/// Bytes of a frame that are not its content: header, kind and tag.
const AROUND: usize = FRAME_HEADER + 1 + TAG;

/// Sealed bytes that may wait for the pipe before streams must. More would only be in the way of what is said next.
pub(crate) const MAX_PENDING: usize = SIZE;

/// Sealed bytes that make one write: enough for a system call to count for little, and a quarter of the window that a stream begins with, so that
/// the other end is at work on one, and has asked for more, while the next is sealed.
const WRITE: usize = 4 * FRAME;

/// Writes records. Holds buffers only while something waits for the pipe.
pub(crate) struct RecordWriter {
    pipe: WritePipe,
    sealer: Sealer,
    /// What waits for the pipe, oldest first.
    batches: VecDeque<Batch>,
    /// Bytes of the open record of streams, header and kind included, behind what the last batch has sealed; 0 when none is open.
    open: usize,
    /// Sealed bytes that wait.
    waiting: usize,
    failed: bool,
    bytes: u64,
}

struct Batch {
    buffer: Buffer,
    /// Sealed bytes.
    sealed: usize,
    /// How many of them the pipe has.
    written: usize,
}

impl RecordWriter {
    pub(super) fn new(pipe: WritePipe, sealer: Sealer) -> Self {
        Self { pipe, sealer, batches: VecDeque::new(), open: 0, waiting: 0, failed: false, bytes: 0 }
    }

    /// Takes some bytes of the streams. They are on their way once they are flushed.
    ///
    /// # Errors
    /// The pipe's.
    pub(crate) fn poll_streams(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_streams_within(MAX_PENDING, cx, data)
    }

    /// The same, with another bound for what may wait for the pipe.
    pub(crate) fn poll_streams_within(
        &mut self,
        max: usize,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        let mut taken = 0;
        while taken < data.len() {
            if self.open == 0 {
                // A smaller one waits for more, or to be flushed.
                let full = self.waiting >= WRITE || !self.has_room(FRAME);
                if full && self.poll_drain(cx)?.is_pending() && self.waiting >= max {
                    break;
                }
                let begun = self.room(FRAME);
                begun[FRAME_HEADER] = STREAMS;
                self.open = FRAME_HEADER + 1;
            }
            let rest = &data[taken..];
            let count = rest.len().min(FRAME - TAG - self.open);
            self.append(&rest[..count]);
            taken += count;
            if self.open == FRAME - TAG {
                self.seal()?;
            }
        }
        if taken == 0 && !data.is_empty() { Poll::Pending } else { Poll::Ready(Ok(taken)) }
    }

    /// One record of control messages, behind all that was said so far. It never waits: whoever calls bounds what it says.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal) for messages longer than a record.
    pub(crate) fn control(&mut self, messages: &[u8]) -> io::Result<()> {
        self.check()?;
        self.seal()?;
        if messages.len() >= MAX_RECORD_PLAINTEXT {
            return Err(to_io(crate::noise::NoiseError::Internal("control messages")));
        }
        let begun = self.room(messages.len() + AROUND);
        begun[FRAME_HEADER] = CONTROL;
        self.open = FRAME_HEADER + 1;
        self.append(messages);
        self.seal()
    }

    /// An empty record, behind all that was said so far.
    pub(crate) fn empty(&mut self) -> io::Result<()> {
        self.check()?;
        self.seal()?;
        self.room(FRAME_HEADER + TAG);
        self.open = FRAME_HEADER;
        self.seal()
    }

    /// Sees everything off.
    ///
    /// # Errors
    /// The pipe's.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        self.seal()?;
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    /// Sees everything off, and tells the transport that this was all.
    ///
    /// # Errors
    /// The pipe's.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        self.seal()?;
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }

    /// Bytes that the pipe has not taken yet.
    pub(crate) fn pending(&self) -> usize {
        self.waiting + self.open
    }

    /// Keeps no room for more while nothing waits.
    pub(crate) fn rest(&mut self) {
        if self.batches.is_empty() {
            self.batches = VecDeque::new();
        }
    }

    /// Bytes that the pipe took.
    pub(crate) fn bytes_written(&self) -> u64 {
        self.bytes
    }

    #[cfg(test)]
    pub(super) fn holds_nothing(&self) -> bool {
        self.batches.is_empty()
    }

    fn check(&self) -> io::Result<()> {
        if self.failed { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    }

    /// Whether the last buffer, if there is one, takes another frame of `len` bytes.
    fn has_room(&self, len: usize) -> bool {
        self.batches.back().is_none_or(|last| SIZE - last.sealed >= len)
    }

    /// Where the next frame goes, with room for `len` bytes.
    fn room(&mut self, len: usize) -> &mut [u8] {
        if self.batches.is_empty() || !self.has_room(len) {
            self.batches.push_back(Batch { buffer: Buffer::take(), sealed: 0, written: 0 });
        }
        let Some(last) = self.batches.back_mut() else { return &mut [] };
        &mut last.buffer.bytes[last.sealed..]
    }

    /// Puts plaintext into the open record, which has room for it.
    fn append(&mut self, plain: &[u8]) {
        if let Some(last) = self.batches.back_mut() {
            let at = last.sealed + self.open;
            last.buffer.plain = last.sealed..at + plain.len();
            last.buffer.bytes[at..at + plain.len()].copy_from_slice(plain);
            self.open += plain.len();
        }
    }

    /// Seals the open record, if there is one.
    fn seal(&mut self) -> io::Result<()> {
        let Some(last) = self.batches.back_mut().filter(|_| self.open > 0) else { return Ok(()) };
        let end = last.sealed + self.open + TAG;
        if let Err(error) = self.sealer.seal_in_place(&mut last.buffer.bytes[last.sealed..end]) {
            self.fail();
            return Err(to_io(error));
        }
        self.waiting += end - last.sealed;
        (last.sealed, last.buffer.plain, self.open) = (end, 0..0, 0);
        Ok(())
    }

    /// Writes what is sealed. After an error of the pipe everything stays as it is: asked again, the pipe says again what is wrong.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(first) = self.batches.front_mut() {
            while first.written < first.sealed {
                let rest = &first.buffer.bytes[first.written..first.sealed];
                let count = ready!(Pin::new(&mut self.pipe).poll_write(cx, rest))?;
                if count == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                first.written += count;
                self.waiting -= count;
                self.bytes += count as u64;
            }
            if self.open > 0 && self.batches.len() == 1 {
                break;
            }
            self.batches.pop_front();
        }
        Poll::Ready(Ok(()))
    }

    fn fail(&mut self) {
        self.batches.clear();
        (self.failed, self.open, self.waiting) = (true, 0, 0);
    }
}
