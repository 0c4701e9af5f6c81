//! What one peer may use up, in all its sessions together.

use crate::transport::Limited;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// The receive window that yamux gives every stream from its beginning, in bytes.
const WINDOW: usize = 256 * 1024;

/// Bytes of a stream that go into one frame, at most. Frames cost time, and a stream that nobody lets write has up to twelve of them in memory.
const FRAME: usize = 32 * 1024;

/// What a piece of a stream costs beside its bytes while it waits to be read, in bytes: yamux keeps each frame's body by itself.
const PIECE: usize = 64;

/// Pieces that a peer may always have: two windows of single bytes.
const MIN_PIECES: usize = 2 * WINDOW;

/// What the log tells of one peer: little of what it can do without end. Outlives its sessions.
#[derive(Debug)]
pub(crate) struct Told {
    /// Streams that were refused, and sessions that broke.
    pub(super) refusals: Limited,
    pub(super) breaks: Limited,
}

impl Default for Told {
    fn default() -> Self {
        let minute = Duration::from_secs(60);
        Self { refusals: Limited::new(1, minute), breaks: Limited::new(5, minute) }
    }
}

/// What all sessions with one peer may hold together. Shared by them.
#[derive(Debug)]
pub(crate) struct PeerLimits {
    buffer: usize,
    max_streams: usize,
    streams: AtomicUsize,
    /// Bytes by which receive windows may yet grow beyond their first size.
    growth: AtomicUsize,
    max_pieces: usize,
    /// Frames of data that nobody may have read yet.
    pieces: AtomicUsize,
    pub(super) told: Arc<Told>,
}

impl PeerLimits {
    /// `streams` at once; `buffer`: bytes that were received and not yet read, at least 256 KiB for each stream.
    pub(crate) fn new(streams: usize, buffer: usize, told: Arc<Told>) -> Arc<Self> {
        let growth = buffer.saturating_sub(streams * WINDOW);
        Arc::new(Self {
            buffer,
            max_streams: streams,
            streams: AtomicUsize::new(0),
            growth: AtomicUsize::new(growth),
            max_pieces: MIN_PIECES.max(buffer / 2 / PIECE),
            pieces: AtomicUsize::new(0),
            told,
        })
    }

    /// Whether more pieces wait than the peer may have sent.
    pub(super) fn is_crumbled(&self) -> bool {
        self.pieces.load(Ordering::Relaxed) > self.max_pieces
    }

    /// Room for one more stream, as long as the answer is kept.
    pub(super) fn stream(self: &Arc<Self>) -> Option<Place> {
        let taken = self.streams.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |streams| {
            (streams < self.max_streams).then_some(streams + 1)
        });
        taken.ok().map(|_| Place(Arc::clone(self)))
    }

    /// Bytes that streams which are over may still hold in a session before nothing more is read.
    pub(super) fn max_left(&self) -> usize {
        self.buffer / 2
    }

    /// Streams that a session may have begun, with those that were let go and have not left yet: fewer than yamux takes.
    pub(super) fn max_begun(&self) -> usize {
        self.max_streams + 512
    }

    /// A session's part of the memory by which windows may grow: half of what the sessions before it have left.
    pub(super) fn growth(self: &Arc<Self>) -> Growth {
        let half = |left: usize| Some(left - left / 2);
        // `half` refuses nothing.
        let left = self.growth.fetch_update(Ordering::Relaxed, Ordering::Relaxed, half).unwrap_or(0);
        Growth { limits: Arc::clone(self), bytes: left / 2 }
    }

    /// How yamux is told of it: its own limit of streams is one that an honest peer does not come to, since beyond it the whole connection ends. It lets go of a stream that is
    /// over only when it comes to it in turn, and by then there may be as many others.
    pub(super) fn yamux(&self, growth: &Growth) -> yamux::Config {
        let streams = 4 * self.max_begun();
        let mut config = yamux::Config::default();
        config.set_max_num_streams(0);
        config.set_max_connection_receive_window(Some(streams * WINDOW + growth.bytes));
        config.set_max_num_streams(streams);
        config.set_read_after_close(true);
        config.set_split_send_size(FRAME);
        config
    }
}

/// Room for one stream.
pub(super) struct Place(Arc<PeerLimits>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The pieces in which one stream came, and that nobody may have read yet. At most twice as many as there are while it is read.
pub(super) struct Pieces {
    limits: Arc<PeerLimits>,
    received: u64,
    /// So many bytes came before it.
    mark: u64,
    before: usize,
    after: usize,
}

impl Pieces {
    pub(super) fn new(limits: Arc<PeerLimits>) -> Self {
        Self { limits, received: 0, mark: 0, before: 0, after: 0 }
    }

    /// One more of `len` bytes; `read`: bytes of the stream that were read.
    pub(super) fn came(&mut self, len: usize, read: u64) {
        self.limits.pieces.fetch_add(1, Ordering::Relaxed);
        self.received += len as u64;
        self.after += 1;
        self.settle(read);
    }

    /// What the stream holds, in bytes, at most.
    pub(super) fn weight(&self, read: u64) -> usize {
        self.received.saturating_sub(read) as usize + (self.before + self.after) * PIECE
    }

    /// Forgets what was read.
    pub(super) fn settle(&mut self, read: u64) {
        if read < self.mark {
            return;
        }
        let read_after = if read < self.received { 0 } else { std::mem::take(&mut self.after) };
        let gone = std::mem::replace(&mut self.before, std::mem::take(&mut self.after)) + read_after;
        self.mark = self.received;
        self.limits.pieces.fetch_sub(gone, Ordering::Relaxed);
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        self.limits.pieces.fetch_sub(self.before + self.after, Ordering::Relaxed);
    }
}

/// Memory that was set aside for a session.
pub(super) struct Growth {
    limits: Arc<PeerLimits>,
    bytes: usize,
}

impl Drop for Growth {
    fn drop(&mut self) {
        self.limits.growth.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_counted_over_all_sessions() {
        let limits = PeerLimits::new(2, 4 << 20, Arc::default());
        let (one, _two) = (limits.stream().unwrap(), limits.stream().unwrap());
        assert!(limits.stream().is_none());
        drop(one);
        assert!(limits.stream().is_some());
    }

    #[test]
    fn pieces_are_forgotten_as_they_are_read() {
        let limits = PeerLimits::new(1, 1 << 20, Arc::default());
        let count = |limits: &PeerLimits| limits.pieces.load(Ordering::Relaxed);
        let mut pieces = Pieces::new(Arc::clone(&limits));
        for at in 0..1000 {
            pieces.came(1, at);
            // A reader that is one behind.
            assert!(count(&limits) <= 3, "{}", count(&limits));
        }
        (0..100).for_each(|_| pieces.came(1, 1000));
        assert!((100..104).contains(&count(&limits)));
        pieces.settle(1050);
        assert!((50..104).contains(&count(&limits)));
        pieces.settle(1100);
        assert_eq!(count(&limits), 0);
        (0..MIN_PIECES + 1).for_each(|_| pieces.came(1, 1100));
        assert!(limits.is_crumbled());
        drop(pieces);
        assert_eq!(count(&limits), 0);
    }

    #[test]
    fn sessions_never_hold_more_than_the_peer_may() {
        let limits = PeerLimits::new(4, 9 << 20, Arc::default());
        let mut held: Vec<_> = (0..40).map(|_| limits.growth()).collect();
        assert_eq!(held[0].bytes, 4 << 20);
        assert!(held.iter().map(|growth| growth.bytes).sum::<usize>() <= 8 << 20);
        assert_eq!(held[39].bytes, 0);
        held.clear();
        assert_eq!(limits.growth.load(Ordering::Relaxed), 8 << 20);
        // Whatever was configured, yamux takes it.
        for (streams, buffer) in [(1, 1 << 20), (4096, 1 << 30), (256, 128 << 20), (8, 0)] {
            let limits = PeerLimits::new(streams, buffer, Arc::default());
            let _ = limits.yamux(&limits.growth());
        }
    }
}
