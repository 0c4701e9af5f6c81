//! What a session carries, and has carried.

use super::Peer;
use super::line::Totals;
use super::shared::Shared;
use std::time::Duration;

/// A session at a moment.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Status {
    /// Who is at the other end, and how it was established.
    pub peer: Peer,
    /// How long it has lasted.
    pub age: Duration,
    /// How long nothing has been heard of the peer.
    pub silent: Duration,
    /// Its streams that have not ended.
    pub streams: usize,
    /// Streams that were opened in it, by either end.
    pub opened: u64,
    /// Bytes that came from the pipe, records' headers and tags included.
    pub received: u64,
    /// Bytes that went to it.
    pub sent: u64,
    /// Records received.
    pub records: u64,
    /// Whether it takes on no new streams.
    pub is_draining: bool,
    /// Whether it has ended.
    pub has_ended: bool,
}

impl Status {
    pub(super) fn of(shared: &Shared) -> Self {
        let (is_draining, has_ended) = {
            let queue = shared.queue();
            (queue.draining, queue.has_ended())
        };
        let line = shared.line();
        let Totals { read, written, records } = line.totals();
        Self {
            peer: shared.peer.clone(),
            age: shared.began.elapsed(),
            silent: line.heard().elapsed(),
            streams: line.streams(),
            opened: line.opened(),
            received: read,
            sent: written,
            records,
            is_draining,
            has_ended,
        }
    }
}
