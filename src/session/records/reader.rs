//! The receiving direction: records out of the pipe, opened in the buffer that they were read into.

use super::pool::{Buffer, SIZE};
use super::{CONTROL, Kind, STREAMS, protocol, to_io};
use crate::error::{Error, ErrorKind};
use crate::noise::Opener;
use crate::transport::ReadPipe;
use crate::wire::{FRAME_HEADER, MAX_RECORD, TAG, frame_len};
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Instant;

/// Room that a read of the pipe has at least: a piece of a record is moved to the front of the buffer before it gets less.
const ROOM: usize = 64 * 1024;

/// Reads records. Holds a buffer only while it has a part of one.
pub(crate) struct RecordReader {
    pipe: ReadPipe,
    opener: Opener,
    buffer: Option<Buffer>,
    /// Where in the buffer the bytes are that are not opened yet.
    sealed: Range<usize>,
    /// Where in the buffer that part of the current record is which is not consumed yet.
    plain: Range<usize>,
    kind: Kind,
    failed: bool,
    heard: Instant,
    records: u64,
    bytes: u64,
}

impl RecordReader {
    pub(super) fn new(pipe: ReadPipe, opener: Opener) -> Self {
        Self {
            pipe,
            opener,
            buffer: None,
            sealed: 0..0,
            plain: 0..0,
            kind: Kind::Empty,
            failed: false,
            heard: Instant::now(),
            records: 0,
            bytes: 0,
        }
    }

    /// The next record, once the current one is consumed; until then that one again. After an error nothing more is read.
    ///
    /// # Errors
    /// [`ErrorKind::SessionTruncated`] when the pipe ends, [`ErrorKind::RecordInvalid`], [`ErrorKind::SessionProtocol`] for a record of no
    /// known kind, and the pipe's own.
    pub(crate) fn poll_record(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Kind>> {
        self.poll_within(cx, MAX_RECORD)
    }

    /// The next record, which must be empty: a longer one is refused before it is there.
    pub(crate) fn poll_empty(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_within(cx, TAG).map_ok(drop)
    }

    /// Whether the next record is there in full, so that [`poll_record`](Self::poll_record) does not ask the pipe.
    pub(crate) fn is_ready(&self) -> bool {
        let sealed = self.buffer.as_ref().map_or(&[][..], |buffer| &buffer.bytes[self.sealed.clone()]);
        !self.plain.is_empty() || (sealed.len() >= FRAME_HEADER && sealed.len() >= wanted(sealed))
    }

    /// Plaintext of the current record that is not consumed yet.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.buffer.as_ref().map_or(&[], |buffer| &buffer.bytes[self.plain.clone()])
    }

    /// Takes `count` bytes off [`bytes`](Self::bytes), at most all.
    pub(crate) fn consume(&mut self, count: usize) {
        self.plain.start += count.min(self.plain.len());
    }

    /// When bytes last came from the peer.
    pub(crate) fn heard(&self) -> Instant {
        self.heard
    }

    /// Records opened.
    pub(crate) fn records(&self) -> u64 {
        self.records
    }

    /// Bytes that came from the pipe.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.bytes
    }

    /// After the peer's last record: ready when it has let the pipe go. What it still sends is not a session's.
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let mut scrap = [0; 512];
            let mut space = ReadBuf::new(&mut scrap);
            match ready!(Pin::new(&mut self.pipe).poll_read(cx, &mut space)) {
                Ok(()) if !space.filled().is_empty() => {}
                _ => return Poll::Ready(()),
            }
        }
    }

    #[cfg(test)]
    pub(super) fn holds_nothing(&self) -> bool {
        self.buffer.is_none()
    }

    fn poll_within(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<io::Result<Kind>> {
        if self.failed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if !self.plain.is_empty() {
            return Poll::Ready(Ok(self.kind));
        }
        loop {
            let result = match self.open(max) {
                Ok(Some(kind)) => return Poll::Ready(Ok(kind)),
                Ok(None) => ready!(self.poll_fill(cx)),
                Err(error) => Err(error),
            };
            if let Err(error) = result {
                (self.failed, self.buffer, self.plain) = (true, None, 0..0);
                return Poll::Ready(Err(error));
            }
        }
    }

    /// Opens the next record, of at most `max` bytes, if it is all there.
    fn open(&mut self, max: usize) -> io::Result<Option<Kind>> {
        let Some(Buffer { bytes, .. }) = &mut self.buffer else { return Ok(None) };
        let sealed = &mut bytes[self.sealed.clone()];
        let Some((header, rest)) = sealed.split_first_chunk_mut::<FRAME_HEADER>() else { return Ok(None) };
        let len = frame_len(*header, TAG, max).map_err(|error| super::invalid(&error))?;
        let Some(record) = rest.get_mut(..len) else { return Ok(None) };
        let plain = self.opener.open(record).map_err(to_io)?;
        self.kind = match plain.first() {
            None => Kind::Empty,
            Some(&STREAMS) => Kind::Streams,
            Some(&CONTROL) => Kind::Control,
            Some(_) => return Err(protocol("a record of no known kind")),
        };
        let (body, plain) = (self.sealed.start + FRAME_HEADER, plain.len());
        self.sealed.start = body + len;
        // Without the kind; an empty record has none.
        self.plain = body + plain.min(1)..body + plain;
        self.records += 1;
        Ok(Some(self.kind))
    }

    /// Reads what the pipe has, as much as there is room for. All plaintext was consumed, so the rest may move.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let buffer = self.buffer.get_or_insert_with(Buffer::take);
        if self.sealed.is_empty() {
            self.sealed = 0..0;
        } else if SIZE - self.sealed.end < ROOM && self.sealed.start > 0 {
            // A record is smaller than what the front has room for.
            buffer.bytes.copy_within(self.sealed.clone(), 0);
            self.sealed = 0..self.sealed.len();
        }
        let mut space = ReadBuf::new(&mut buffer.bytes[self.sealed.end..]);
        match Pin::new(&mut self.pipe).poll_read(cx, &mut space) {
            Poll::Pending => {
                if self.sealed.is_empty() {
                    self.buffer = None;
                }
                Poll::Pending
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) => {
                let count = space.filled().len();
                if count == 0 {
                    return Poll::Ready(Err(cut()));
                }
                self.sealed.end += count;
                // All of it is going to be opened in place.
                buffer.plain.end = buffer.plain.end.max(self.sealed.end);
                self.heard = Instant::now();
                self.bytes += count as u64;
                Poll::Ready(Ok(()))
            }
        }
    }
}

/// Bytes of the frame that begins here, header included.
fn wanted(sealed: &[u8]) -> usize {
    sealed.first_chunk().map_or(0, |header| usize::from(u16::from_be_bytes(*header))) + FRAME_HEADER
}

fn cut() -> io::Error {
    let cut = Error::new(
        ErrorKind::SessionTruncated,
        "The session was cut: the pipe ended, and the other machine did not say that it was done.",
        "Connect again, and treat what was received as incomplete.",
    );
    io::Error::new(io::ErrorKind::UnexpectedEof, cut)
}
