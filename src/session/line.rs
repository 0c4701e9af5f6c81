//! The record layer as yamux sees it, and what passes beside yamux: control messages, and the headers of frames.

use super::end::violation;
use super::error_of;
use super::frames::Frames;
use super::limits::{PeerLimits, Pieces};
use super::records::{Kind, MAX_PENDING, RecordReader, RecordWriter};
use super::shared::Shared;
use super::stream::Entry;
use crate::error::{Error, Result};
use crate::identity::{Identifier, ServiceName};
use crate::wire::control::{Control, MAX_CONTROL, Reset, Why};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::time::Instant;

/// Streams that may be announced and not begun: as many as yamux opens without an answer.
const MAX_ANNOUNCED: usize = 256;

/// While so many bytes wait for the pipe nothing more is read, opened or answered: a peer that does not read costs no memory.
const BACKLOG: usize = 512 * 1024;

/// Streams' bytes that are taken in before their readers get a turn: a fraction of a window, so that they ask for more while there is some left. As
/// much as one write of the peer's holds, and its frames' headers.
const TURN: usize = 66 * 1024;

/// Control messages are gathered up to this many bytes before they are sealed.
const GATHERED: usize = 4096;

/// One session's record layer, and what is known of its streams by number.
pub(super) struct Line {
    peer: Identifier,
    is_initiator: bool,
    pub(super) reader: Option<RecordReader>,
    pub(super) writer: Option<RecordWriter>,
    inbound: Frames,
    outbound: Frames,
    limits: Arc<PeerLimits>,
    streams: HashMap<u32, Slot>,
    /// OPENs whose streams have not begun, in the order of their numbers.
    announced: VecDeque<(Announced, bool)>,
    /// The last number in an OPEN of the peer's, and of this end's; 0: none.
    last: u32,
    last_own: u32,
    /// Control messages to be sealed.
    control: Vec<u8>,
    /// Streams of this end's whose OPEN was said and whose first frame is still to come.
    ahead: usize,
    /// Streams wait to be begun until one of those has left.
    held_up: bool,
    /// A ping of yamux's waits for its answer: until then yamux reads nothing.
    owing: bool,
    /// The last PING that was not answered yet.
    ping: Option<[u8; 8]>,
    pub(super) drained: Option<Why>,
    pub(super) closed: Option<Why>,
    /// Why nothing is read any more.
    pub(super) fault: Option<Error>,
    /// Why nothing is written any more.
    pub(super) unsent: Option<Error>,
    /// Something waits until the pipe has taken more.
    pub(super) stalled: bool,
    /// yamux waits for the pipe, and lets no stream go meanwhile; what those that are over hold, in bytes.
    blocked: bool,
    left: usize,
    /// What may yet be taken in before the readers' turn.
    turn: usize,
    /// When bytes last came, once the reader is gone.
    heard: Instant,
    /// What reader and writer have counted in all, once they are gone.
    total: Totals,
}

/// Bytes on the pipe in each direction, and records read.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Totals {
    pub(super) read: u64,
    pub(super) written: u64,
    pub(super) records: u64,
}

/// A stream that the peer announced.
pub(super) struct Announced {
    pub(super) service: ServiceName,
    pub(super) entry: Arc<Entry>,
    /// In its first frame.
    pieces: Pieces,
}

struct Slot {
    entry: Arc<Entry>,
    /// Its handle is gone; what it wrote is still on its way.
    gone: bool,
    /// Its FIN, or RST, has passed to the record layer.
    finished: bool,
    pieces: Pieces,
}

impl Line {
    pub(super) fn new(
        peer: Identifier,
        is_initiator: bool,
        reader: RecordReader,
        writer: RecordWriter,
        limits: Arc<PeerLimits>,
    ) -> Self {
        Self {
            peer,
            is_initiator,
            reader: Some(reader),
            writer: Some(writer),
            inbound: Frames::default(),
            outbound: Frames::default(),
            limits,
            streams: HashMap::new(),
            announced: VecDeque::new(),
            last: 0,
            last_own: 0,
            control: Vec::new(),
            ahead: 0,
            held_up: false,
            owing: false,
            ping: None,
            drained: None,
            closed: None,
            fault: None,
            unsent: None,
            stalled: false,
            blocked: false,
            left: 0,
            turn: TURN,
            heard: Instant::now(),
            total: Totals::default(),
        }
    }

    pub(super) fn totals(&self) -> Totals {
        let mut totals = self.total;
        if let Some(reader) = &self.reader {
            (totals.read, totals.records) = (reader.bytes_read(), reader.records());
        }
        if let Some(writer) = &self.writer {
            totals.written = writer.bytes_written();
        }
        totals
    }

    pub(super) fn peer(&self) -> &Identifier {
        &self.peer
    }

    /// Whether there was more to take in than a turn is long. Begins the next one.
    pub(super) fn turns(&mut self) -> bool {
        std::mem::replace(&mut self.turn, TURN) == 0
    }

    /// When bytes last came from the peer.
    pub(super) fn heard(&self) -> Instant {
        self.reader.as_ref().map_or(self.heard, RecordReader::heard)
    }

    /// Lets the pipe go.
    pub(super) fn hang_up(&mut self) {
        self.heard = self.heard();
        self.total = self.totals();
        (self.reader, self.writer) = (None, None);
        self.streams = HashMap::new();
        self.announced = VecDeque::new();
        self.control = Vec::new();
    }

    /// Keeps no room for streams while there is none.
    pub(super) fn rest(&mut self) {
        if self.streams.is_empty() {
            self.streams = HashMap::new();
            if let Some(writer) = &mut self.writer {
                writer.rest();
            }
        }
        if self.announced.is_empty() {
            self.announced = VecDeque::new();
        }
    }

    /// Streams of which this end still has something to do.
    pub(super) fn streams(&self) -> usize {
        self.streams.len()
    }

    /// Streams that were ever opened: either end numbers its own in steps of two, from 1 or 2.
    pub(super) fn opened(&self) -> u64 {
        u64::from(self.last.div_ceil(2)) + u64::from(self.last_own.div_ceil(2))
    }

    /// Every stream's own.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.streams.values().map(|slot| &slot.entry)
    }

    /// The pipe takes no more at the moment.
    pub(super) fn is_backed_up(&self) -> bool {
        self.left > self.limits.max_left() || self.writer.as_ref().is_some_and(|writer| writer.pending() > BACKLOG)
    }

    /// No more streams are begun until yamux has seen those off that were: the peer takes only so many OPENs ahead of their streams, and yamux only so many streams.
    pub(super) fn is_ahead(&mut self) -> bool {
        self.held_up = self.ahead >= MAX_ANNOUNCED || self.streams.len() >= self.limits.max_begun();
        self.held_up
    }

    /// Says something to the peer. It is sealed at the next [`seal`](Self::seal), which has to come before bytes that it must be ahead of.
    pub(super) fn say(&mut self, message: &Control) {
        message.write(&mut self.control);
        if self.control.len() + MAX_CONTROL > GATHERED {
            self.seal();
        }
    }

    /// Seals what is to be said.
    pub(super) fn seal(&mut self) {
        if self.control.is_empty() {
            return;
        }
        if let Some(writer) = &mut self.writer
            && let Err(error) = writer.control(&self.control)
        {
            self.unsent.get_or_insert(error_of(error));
        }
        self.control.clear();
        self.control.shrink_to(0);
    }

    /// A stream of this end begins.
    pub(super) fn open(&mut self, id: u32, service: ServiceName) -> Arc<Entry> {
        self.say(&Control::Open { stream: id, service });
        // Before its first frame.
        self.seal();
        (self.last_own, self.ahead) = (id, self.ahead + 1);
        self.insert(Entry::new(id), Pieces::new(Arc::clone(&self.limits)))
    }

    fn insert(&mut self, entry: Arc<Entry>, pieces: Pieces) -> Arc<Entry> {
        let slot = Slot { entry: Arc::clone(&entry), gone: false, finished: false, pieces };
        self.streams.insert(entry.id, slot);
        entry
    }

    /// A stream of the peer's has begun. yamux gives none that was not announced: [`inspect`](Self::inspect) sees to it.
    pub(super) fn begun(&mut self, id: u32) -> Option<Announced> {
        let at = self.announced.iter().position(|(announced, _)| announced.entry.id == id)?;
        self.announced.remove(at).map(|(announced, _)| announced)
    }

    /// Their first frames are not looked at any more.
    pub(super) fn forget_announced(&mut self) {
        self.announced.clear();
    }

    /// It is taken on: what its owner needs.
    pub(super) fn keep(&mut self, announced: Announced) -> (Arc<Entry>, ServiceName) {
        let Announced { service, entry, pieces } = announced;
        (self.insert(entry, pieces), service)
    }

    /// It is not.
    pub(super) fn refuse(&mut self, announced: &Announced, reason: Reset) {
        self.leave(announced.pieces.weight(0));
        self.say(&Control::Reset { stream: announced.entry.id, reason });
        self.seal();
    }

    /// A stream is over that holds so many bytes.
    fn leave(&mut self, weight: usize) {
        if self.blocked {
            self.left += weight;
        }
    }

    /// A stream's owner has let it go.
    pub(super) fn gone(&mut self, id: u32, reason: Option<Reset>) {
        let Some(slot) = self.streams.get_mut(&id) else { return };
        slot.gone = true;
        // The peer needs no word about what it has reset.
        let reset = slot.entry.has_failed();
        let weight = slot.pieces.weight(slot.entry.read());
        if reset || slot.finished {
            self.streams.remove(&id);
        }
        self.leave(weight);
        if let Some(reason) = reason.filter(|_| !reset) {
            self.say(&Control::Reset { stream: id, reason });
        }
    }

    /// Answers the last PING.
    pub(super) fn answer(&mut self) {
        if let Some(bytes) = self.ping.take() {
            self.say(&Control::Pong(bytes));
        }
    }

    /// Seals and writes everything; what can not be written is no longer waited for.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.seal();
        let Some(writer) = self.writer.as_mut().filter(|_| self.unsent.is_none()) else { return Poll::Ready(()) };
        if let Err(error) = ready!(writer.poll_flush(cx)) {
            self.unsent = Some(error_of(error));
        }
        Poll::Ready(())
    }

    /// The next record of streams' bytes, with control messages taken in on the way. `None` at the peer's CLOSE.
    fn poll_streams(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<()>>> {
        loop {
            let Some(reader) = &mut self.reader else { return Poll::Ready(Ok(None)) };
            if self.closed.is_some() {
                return Poll::Ready(Ok(None));
            }
            if !reader.bytes().is_empty() {
                return Poll::Ready(Ok(Some(())));
            }
            let kind = ready!(reader.poll_record(cx)).map_err(error_of)?;
            match kind {
                Kind::Streams => {}
                Kind::Control => self.listen()?,
                Kind::Empty => return Poll::Ready(Err(violation(&self.peer, "it ended without a word"))),
            }
        }
    }

    /// Takes in a record of control messages.
    pub(super) fn listen(&mut self) -> Result<()> {
        loop {
            let Some(reader) = &mut self.reader else { return Ok(()) };
            let mut rest = reader.bytes();
            let len = rest.len();
            let message = Control::read(&mut rest).map_err(|error| violation(&self.peer, error))?;
            let (taken, more) = (len - rest.len(), !rest.is_empty());
            reader.consume(taken);
            self.heed(message)?;
            if !more {
                return Ok(());
            }
        }
    }

    fn heed(&mut self, message: Control) -> Result<()> {
        if self.closed.is_some() {
            return Err(violation(&self.peer, "it went on after its CLOSE"));
        }
        match message {
            // Whoever asks faster than it takes answers is answered once.
            Control::Ping(bytes) => self.ping = Some(bytes),
            Control::Pong(_) => {}
            Control::Open { stream, service } => {
                if self.is_own(stream) || stream <= self.last {
                    return Err(violation(&self.peer, "it opened a stream by a number that is not free"));
                }
                if self.announced.len() == MAX_ANNOUNCED {
                    return Err(violation(&self.peer, "it announced streams without beginning them"));
                }
                self.last = stream;
                let pieces = Pieces::new(Arc::clone(&self.limits));
                self.announced.push_back((Announced { service, entry: Entry::new(stream), pieces }, false));
            }
            Control::End { stream, bytes } => {
                if self.entry(stream)?.is_some_and(|entry| !entry.end(bytes)) {
                    return Err(violation(&self.peer, "it ended a stream twice"));
                }
            }
            Control::Reset { stream, reason } => {
                if let Some(entry) = self.entry(stream)? {
                    entry.reset(reason);
                }
            }
            Control::Drain(why) => self.drained = Some(why),
            Control::Close(why) => self.closed = Some(why),
        }
        Ok(())
    }

    /// Whether this end would open a stream by that number: odd ones are the initiator's.
    fn is_own(&self, stream: u32) -> bool {
        (stream % 2 == 1) == self.is_initiator
    }

    /// A stream that a message is about; `None` for one that is over.
    fn entry(&self, stream: u32) -> Result<Option<&Arc<Entry>>> {
        let announced =
            || self.announced.iter().map(|(announced, _)| &announced.entry).find(|entry| entry.id == stream);
        let entry = self.streams.get(&stream).map(|slot| &slot.entry).or_else(announced);
        let last = if self.is_own(stream) { self.last_own } else { self.last };
        if entry.is_none() && stream > last {
            return Err(violation(&self.peer, "it spoke of a stream that nobody has opened"));
        }
        Ok(entry)
    }

    /// Follows the peer's frames: yamux takes no notice of some things that it must not.
    fn inspect(&mut self, n: usize) -> Result<()> {
        let Self { reader, inbound, streams, announced, peer, limits, owing, held_up, stalled, .. } = self;
        let Some(reader) = reader else { return Ok(()) };
        let flow = inbound.follow(&reader.bytes()[..n], |header| {
            if header.is_go_away() {
                return ControlFlow::Break("it says that it was not kept to here");
            }
            *owing |= header.asks();
            let entry = announced.iter_mut().find(|(announced, _)| announced.entry.id == header.stream);
            let entry = if header.opens() {
                match entry {
                    Some((announced, begun @ false)) => {
                        *begun = true;
                        if header.body() > 0 {
                            announced.pieces.came(header.body(), 0);
                        }
                        Some(&announced.entry)
                    }
                    _ => return ControlFlow::Break("it began a stream that it had not announced"),
                }
            } else {
                if header.body() > 0
                    && let Some(slot) = streams.get_mut(&header.stream)
                {
                    slot.pieces.came(header.body(), slot.entry.read());
                    if limits.is_crumbled() {
                        streams.values_mut().for_each(|slot| slot.pieces.settle(slot.entry.read()));
                        if limits.is_crumbled() {
                            return ControlFlow::Break(
                                "what nobody has read yet came in more pieces than there is room for",
                            );
                        }
                    }
                }
                streams.get(&header.stream).map(|slot| &slot.entry).or(entry.map(|(announced, _)| &announced.entry))
            };
            if let Some(entry) = entry {
                if header.resets() {
                    // The RESET comes first, and says why.
                    entry.reset(Reset::Dropped);
                } else if header.ends() {
                    entry.fin();
                }
            }
            // yamux has nothing more to say of a stream that both ends have given up.
            if header.resets() && streams.get(&header.stream).is_some_and(|slot| slot.gone) {
                streams.remove(&header.stream);
                *stalled |= std::mem::take(held_up);
            }
            ControlFlow::Continue(())
        });
        match flow {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(how) => Err(violation(peer, how)),
        }
    }

    /// Follows this end's frames.
    fn sent(&mut self, bytes: &[u8]) {
        let Self { outbound, streams, fault, peer, ahead, held_up, stalled, owing, .. } = self;
        let _ = outbound.follow(bytes, |header| {
            *ahead = ahead.saturating_sub(usize::from(header.opens()));
            *owing &= !header.answers();
            if header.opens() || header.ends() || header.resets() {
                // The driver looks at them once more.
                *stalled |= std::mem::take(held_up);
            }
            if header.is_go_away() {
                // yamux would wait for the peer to hang up.
                fault.get_or_insert_with(|| violation(peer, "its frames break the rules of yamux"));
            } else if (header.ends() || header.resets())
                && let Some(slot) = streams.get_mut(&header.stream)
            {
                slot.finished = true;
                if slot.gone {
                    streams.remove(&header.stream);
                }
            }
            ControlFlow::<()>::Continue(())
        });
    }
}

/// The record layer as yamux's connection. Only the driver's task comes here, so the lock is never waited for.
pub(super) struct Adapter(pub(super) Arc<Shared>);

/// What yamux is told when it is over; why is in [`Line::fault`] or [`Line::closed`].
fn over() -> io::Error {
    io::ErrorKind::ConnectionAborted.into()
}

impl futures::io::AsyncRead for Adapter {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut line = self.0.line();
        if line.is_backed_up() {
            line.stalled = true;
            return Poll::Pending;
        }
        if line.turn == 0 {
            // The driver comes back.
            return Poll::Pending;
        }
        let read = ready!(line.poll_streams(cx)).and_then(|more| {
            let n = match (&line.reader, more) {
                (Some(reader), Some(())) => reader.bytes().len().min(out.len()).min(line.turn),
                _ => return Ok(None),
            };
            line.inspect(n)?;
            if let Some(reader) = &mut line.reader {
                out[..n].copy_from_slice(&reader.bytes()[..n]);
                reader.consume(n);
            }
            line.turn -= n;
            Ok(Some(n))
        });
        Poll::Ready(match read {
            Ok(Some(n)) => Ok(n),
            Ok(None) => Err(over()),
            Err(error) => {
                line.fault.get_or_insert(error);
                Err(over())
            }
        })
    }
}

impl futures::io::AsyncWrite for Adapter {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let mut line = self.0.line();
        let line = &mut *line;
        // What came before the pipe broke is still to be read, so yamux goes on, and is not let write.
        let Some(writer) = line.writer.as_mut().filter(|_| line.unsent.is_none()) else { return Poll::Pending };
        // Both ends could wait for each other to read: an answer, and the frame that it waits for, is always taken.
        let max = if line.owing { BACKLOG } else { MAX_PENDING };
        let written = writer.poll_streams_within(max, cx, data);
        line.blocked = written.is_pending();
        match ready!(written) {
            Ok(n) => {
                line.left = 0;
                line.sent(&data[..n]);
                Poll::Ready(Ok(n))
            }
            Err(error) => {
                line.unsent = Some(error_of(error));
                Poll::Pending
            }
        }
    }

    /// The driver flushes, once there is nothing to add.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
