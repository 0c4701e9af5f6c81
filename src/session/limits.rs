//! What one peer may use up, in all its sessions together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The receive window that yamux gives every stream from its beginning, in bytes.
const WINDOW: usize = 256 * 1024;

/// What all sessions with one peer may hold together. Shared by them.
#[derive(Debug)]
pub(crate) struct PeerLimits {
    max_streams: usize,
    streams: AtomicUsize,
    /// Bytes by which receive windows may yet grow beyond their first size.
    growth: AtomicUsize,
}

impl PeerLimits {
    /// `streams` at once; `buffer`: bytes that were received and not yet read, at least 256 KiB for each stream.
    pub(crate) fn new(streams: usize, buffer: usize) -> Arc<Self> {
        let growth = buffer.saturating_sub(streams * WINDOW);
        Arc::new(Self { max_streams: streams, streams: AtomicUsize::new(0), growth: AtomicUsize::new(growth) })
    }

    /// Room for one more stream, as long as the answer is kept.
    pub(super) fn stream(self: &Arc<Self>) -> Option<Place> {
        let taken = self.streams.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |streams| {
            (streams < self.max_streams).then_some(streams + 1)
        });
        taken.ok().map(|_| Place(Arc::clone(self)))
    }

    /// A session's part of the memory by which windows may grow: half of what the sessions before it have left.
    pub(super) fn growth(self: &Arc<Self>) -> Growth {
        let half = |left: usize| Some(left - left / 2);
        // `half` refuses nothing.
        let left = self.growth.fetch_update(Ordering::Relaxed, Ordering::Relaxed, half).unwrap_or(0);
        Growth { limits: Arc::clone(self), bytes: left / 2 }
    }

    /// How yamux is told of it: its own limit of streams is one that an honest peer does not come to, since beyond it the whole connection ends.
    pub(super) fn yamux(&self, growth: &Growth) -> yamux::Config {
        let streams = 2 * self.max_streams + 1024;
        let mut config = yamux::Config::default();
        config.set_max_num_streams(0);
        config.set_max_connection_receive_window(Some(streams * WINDOW + growth.bytes));
        config.set_max_num_streams(streams);
        config.set_read_after_close(true);
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
        let limits = PeerLimits::new(2, 4 << 20);
        let (one, _two) = (limits.stream().unwrap(), limits.stream().unwrap());
        assert!(limits.stream().is_none());
        drop(one);
        assert!(limits.stream().is_some());
    }

    #[test]
    fn sessions_never_hold_more_than_the_peer_may() {
        let limits = PeerLimits::new(4, 9 << 20);
        let mut held: Vec<_> = (0..40).map(|_| limits.growth()).collect();
        assert_eq!(held[0].bytes, 4 << 20);
        assert!(held.iter().map(|growth| growth.bytes).sum::<usize>() <= 8 << 20);
        assert_eq!(held[39].bytes, 0);
        held.clear();
        assert_eq!(limits.growth.load(Ordering::Relaxed), 8 << 20);
        // Whatever was configured, yamux takes it.
        for (streams, buffer) in [(1, 1 << 20), (4096, 1 << 30), (256, 128 << 20), (8, 0)] {
            let limits = PeerLimits::new(streams, buffer);
            let _ = limits.yamux(&limits.growth());
        }
    }
}
