//! The operations that wait for a token: bounded, and fair between peers.
//!
//! Each peer has a lane of its own, and lanes take turns: whoever has many operations waiting delays another's first by one.

use super::notice::Reason;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::Identifier;
use crate::secret::SharedSecret;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::oneshot;

/// Operations that may wait for a token at a time.
pub const QUEUE: usize = 64;

/// Operations that may wait for a token at a time on behalf of one peer.
pub const QUEUE_PER_PEER: usize = 8;

/// An operation that is asked for.
pub(super) struct Job {
    pub(super) point: claviger_hsm::PublicKey,
    pub(super) reason: Reason,
    /// Closed when the caller gave up.
    pub(super) reply: oneshot::Sender<Result<SharedSecret>>,
}

/// What the token's thread has to do next.
pub(super) enum Next {
    Job(Box<Job>),
    /// The time has come to look at the token.
    Look,
    Closed,
}

#[derive(Default)]
pub(super) struct Queue {
    lanes: Mutex<Lanes>,
    changed: Condvar,
}

#[derive(Default)]
struct Lanes {
    /// None is empty. The first lane's first job is next.
    waiting: VecDeque<(Option<Identifier>, VecDeque<Box<Job>>)>,
    total: usize,
    closed: bool,
    /// The token's thread waits: it must be woken.
    asleep: bool,
}

impl Queue {
    /// Puts a job at the end of its peer's lane. `label` names the token in errors.
    ///
    /// # Errors
    /// [`ErrorKind::TokenBusy`] when all places are taken, or all of this peer; [`ErrorKind::TokenFailed`] when the queue was closed.
    pub(super) fn push(&self, job: Job, label: &str) -> Result<()> {
        let mut lanes = self.lock();
        if lanes.closed {
            return Err(gone(label));
        }
        let taken = |lanes: &Lanes| lanes.lane(&job.reason.peer).map_or(0, |at| lanes.waiting[at].1.len());
        if lanes.total >= QUEUE || taken(&lanes) >= QUEUE_PER_PEER {
            lanes.drop_abandoned();
        }
        let refused = if lanes.total >= QUEUE {
            Some(format!("{QUEUE} operations wait for {label} already."))
        } else if taken(&lanes) >= QUEUE_PER_PEER {
            let peer = job.reason.peer.as_ref().map_or("one caller", Identifier::as_str);
            Some(format!("{QUEUE_PER_PEER} operations for {peer} wait for {label} already."))
        } else {
            None
        };
        if let Some(what) = refused {
            return Err(Error::new(ErrorKind::TokenBusy, what, "Try again when there are fewer connections at once."));
        }
        match lanes.lane(&job.reason.peer) {
            Some(at) => lanes.waiting[at].1.push_back(Box::new(job)),
            None => {
                let peer = job.reason.peer.clone();
                lanes.waiting.push_back((peer, VecDeque::from([Box::new(job)])));
            }
        }
        lanes.total += 1;
        if lanes.asleep {
            self.changed.notify_one();
        }
        Ok(())
    }

    /// Jobs that wait, those included that nobody waits for any more.
    pub(super) fn waiting(&self) -> usize {
        self.lock().total
    }

    /// Waits for the next job, at most until `look`. Jobs that nobody waits for any more are left out.
    pub(super) fn next(&self, look: Option<Instant>) -> Next {
        let mut lanes = self.lock();
        loop {
            if lanes.closed {
                return Next::Closed;
            }
            while let Some(job) = lanes.take() {
                if !job.reply.is_closed() {
                    return Next::Job(job);
                }
            }
            lanes.asleep = true;
            lanes = match look.map(|look| look.saturating_duration_since(Instant::now())) {
                None => self.changed.wait(lanes).unwrap_or_else(PoisonError::into_inner),
                Some(left) if left.is_zero() => {
                    lanes.asleep = false;
                    return Next::Look;
                }
                Some(left) => self.changed.wait_timeout(lanes, left).unwrap_or_else(PoisonError::into_inner).0,
            };
            lanes.asleep = false;
        }
    }

    /// Takes no more jobs, and drops those that wait: their callers learn it.
    pub(super) fn close(&self) {
        let dropped = {
            let mut lanes = self.lock();
            lanes.closed = true;
            lanes.total = 0;
            std::mem::take(&mut lanes.waiting)
        };
        drop(dropped);
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lanes {
    fn lane(&self, peer: &Option<Identifier>) -> Option<usize> {
        self.waiting.iter().position(|(whose, _)| whose == peer)
    }

    /// The first lane's first job; the lane goes to the end.
    fn take(&mut self) -> Option<Box<Job>> {
        let (peer, mut lane) = self.waiting.pop_front()?;
        let job = lane.pop_front();
        if !lane.is_empty() {
            self.waiting.push_back((peer, lane));
        }
        self.total -= usize::from(job.is_some());
        job
    }

    fn drop_abandoned(&mut self) {
        for (_, lane) in &mut self.waiting {
            lane.retain(|job| !job.reply.is_closed());
        }
        self.waiting.retain(|(_, lane)| !lane.is_empty());
        self.total = self.waiting.iter().map(|(_, lane)| lane.len()).sum();
    }
}

pub(super) fn gone(label: &str) -> Error {
    Error::new(ErrorKind::TokenFailed, format!("The thread of {label} has ended."), "Start the program again.")
}

#[cfg(test)]
mod tests {
    use super::*;

    type Answer = oneshot::Receiver<Result<SharedSecret>>;

    fn job(peer: &str) -> (Job, Answer) {
        let mut base = [0; 32];
        base[0] = 9;
        let point = claviger_hsm::PublicKey::new(claviger_hsm::Curve::X25519, &base).unwrap();
        let (reply, answer) = oneshot::channel();
        (Job { point, reason: Reason::answering(&peer.parse().unwrap()), reply }, answer)
    }

    fn push(queue: &Queue, peer: &str) -> std::result::Result<Answer, ErrorKind> {
        let (job, answer) = job(peer);
        queue.push(job, "the token").map(|()| answer).map_err(|error| error.kind())
    }

    fn next(queue: &Queue) -> Option<String> {
        match queue.next(Some(Instant::now())) {
            Next::Job(job) => Some(job.reason.peer.unwrap().to_string()),
            _ => None,
        }
    }

    #[test]
    fn peers_take_turns() {
        let queue = Queue::default();
        let _waiting: Vec<_> = ["a", "a", "a", "b", "b", "c"].map(|peer| push(&queue, peer).unwrap()).into();
        let mut order = Vec::new();
        while let Some(peer) = next(&queue) {
            order.push(peer);
        }
        assert_eq!(order, ["a", "b", "c", "a", "b", "a"]);
    }

    #[test]
    fn a_late_first_operation_waits_for_one_other() {
        let queue = Queue::default();
        let _many: Vec<_> = (0..QUEUE_PER_PEER).map(|_| push(&queue, "many").unwrap()).collect();
        assert_eq!(next(&queue).as_deref(), Some("many"));
        let _one = push(&queue, "one").unwrap();
        assert_eq!(next(&queue).as_deref(), Some("many"));
        assert_eq!(next(&queue).as_deref(), Some("one"));
    }

    #[test]
    fn places_are_bounded_and_given_back() {
        let queue = Queue::default();
        let mut mine: Vec<_> = (0..QUEUE_PER_PEER).map(|_| push(&queue, "mine").unwrap()).collect();
        assert_eq!(push(&queue, "mine").err(), Some(ErrorKind::TokenBusy));
        mine.pop();
        mine.push(push(&queue, "mine").unwrap());
        let others: Vec<_> =
            (QUEUE_PER_PEER..QUEUE).map(|at| push(&queue, &format!("p{}", at / QUEUE_PER_PEER)).unwrap()).collect();
        assert_eq!(push(&queue, "last").err(), Some(ErrorKind::TokenBusy));
        drop(others);
        let _last = push(&queue, "last").unwrap();
        // What was abandoned costs no operation.
        assert_eq!((0..=mine.len()).map(|_| next(&queue).unwrap()).filter(|peer| peer == "mine").count(), mine.len());
        assert_eq!(next(&queue), None);
    }

    #[test]
    fn closing_answers_everybody() {
        let queue = Queue::default();
        let mut waiting = push(&queue, "a").unwrap();
        queue.close();
        assert!(waiting.try_recv().is_err());
        assert!(matches!(queue.next(None), Next::Closed));
        assert_eq!(push(&queue, "a").err(), Some(ErrorKind::TokenFailed));
    }
}
