//! The receiving side of a session: frames out of the pipe, plaintext out of frames, in place.

use super::to_io;
use crate::error::{Error, ErrorKind};
use crate::noise::Opener;
use crate::secret::SecretBytes;
use crate::transport::BoxPipe;
use crate::wire::{FRAME_HEADER, MAX_RECORD, TAG, frame_len};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, ReadBuf, ReadHalf};

/// How many bytes are asked of the pipe at once, at least.
const READ: usize = 16 * 1024;

/// One record's buffer and where in it we are.
#[derive(Default)]
pub(super) struct Incoming {
    /// Raw bytes, of which `start..filled` are not yet consumed; wiped when dropped, since records are opened in place.
    raw: SecretBytes,
    start: usize,
    filled: usize,
    /// Opened plaintext inside `raw`, not yet handed out.
    plain: std::ops::Range<usize>,
    /// The peer ended its direction, or the session failed.
    end: Option<End>,
}

enum End {
    Closed,
    Failed,
}

impl Incoming {
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        pipe: &mut ReadHalf<BoxPipe>,
        opener: &mut Opener,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if out.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            if !self.plain.is_empty() {
                let n = self.plain.len().min(out.remaining());
                out.put_slice(&self.raw[self.plain.start..self.plain.start + n]);
                self.plain.start += n;
                return Poll::Ready(Ok(()));
            }
            match self.end {
                Some(End::Closed) => return Poll::Ready(Ok(())),
                Some(End::Failed) => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                None => {}
            }
            ready!(self.poll_record(cx, pipe, opener, MAX_RECORD))?;
            if self.plain.is_empty() {
                self.end = Some(End::Closed);
            }
        }
    }

    /// The next record, which must be empty: a confirmation at the beginning, or an acknowledgement after the end.
    pub(super) fn poll_empty(
        &mut self,
        cx: &mut Context<'_>,
        pipe: &mut ReadHalf<BoxPipe>,
        opener: &mut Opener,
    ) -> Poll<io::Result<()>> {
        self.poll_record(cx, pipe, opener, TAG)
    }

    /// Opens the next record, of at most `max` bytes, into `plain`. After an error nothing more is read.
    fn poll_record(
        &mut self,
        cx: &mut Context<'_>,
        pipe: &mut ReadHalf<BoxPipe>,
        opener: &mut Opener,
        max: usize,
    ) -> Poll<io::Result<()>> {
        loop {
            let result = match self.next_record(opener, max) {
                Ok(true) => return Poll::Ready(Ok(())),
                Ok(false) => ready!(self.poll_fill(cx, pipe)),
                Err(error) => Err(error),
            };
            if let Err(error) = result {
                self.end = Some(End::Failed);
                return Poll::Ready(Err(error));
            }
        }
    }

    /// Opens the next record if it is all there; `false` when more bytes are needed.
    fn next_record(&mut self, opener: &mut Opener, max: usize) -> io::Result<bool> {
        let Some(header) = self.raw[self.start..self.filled].first_chunk::<FRAME_HEADER>() else { return Ok(false) };
        let len = frame_len(*header, TAG, max).map_err(|error| {
            let what = format!("The session failed: {error}.");
            io::Error::new(
                io::ErrorKind::InvalidData,
                Error::new(
                    ErrorKind::RecordInvalid,
                    what,
                    "Connect again; if it happens again, something between the machines changes bytes.",
                ),
            )
        })?;
        let body = self.start + FRAME_HEADER;
        if self.filled < body + len {
            return Ok(false);
        }
        let plain = opener.open(&mut self.raw[body..body + len]).map_err(to_io)?.len();
        self.start = body + len;
        self.plain = body..body + plain;
        Ok(true)
    }

    /// Reads some bytes of the pipe. All plaintext was handed out, so the buffer may move.
    fn poll_fill(&mut self, cx: &mut Context<'_>, pipe: &mut ReadHalf<BoxPipe>) -> Poll<io::Result<()>> {
        self.plain = 0..0;
        if self.start > 0 {
            self.raw.copy_within(self.start..self.filled, 0);
            self.filled -= self.start;
            self.start = 0;
        }
        let wanted = match self.raw[..self.filled].first_chunk::<FRAME_HEADER>() {
            Some(header) => FRAME_HEADER + usize::from(u16::from_be_bytes(*header)),
            None => FRAME_HEADER,
        };
        if self.raw.len() < wanted.max(READ) {
            let mut larger = SecretBytes::new(vec![0; wanted.max(READ)]);
            larger[..self.filled].copy_from_slice(&self.raw[..self.filled]);
            self.raw = larger;
        }
        let mut space = ReadBuf::new(&mut self.raw[self.filled..]);
        ready!(Pin::new(pipe).poll_read(cx, &mut space))?;
        let n = space.filled().len();
        if n == 0 {
            let cut = Error::new(
                ErrorKind::SessionTruncated,
                "The session was cut: the pipe ended, and the other machine did not say that it was done.",
                "Connect again, and treat what was received as incomplete.",
            );
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, cut)));
        }
        self.filled += n;
        Poll::Ready(Ok(()))
    }
}
