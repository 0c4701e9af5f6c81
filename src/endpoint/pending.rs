//! Connections that have not knocked yet: a bounded number, the oldest pushed out by the newest.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::task::AbortHandle;

/// Strangers cost a slot here and nothing else. A member knocks within one packet, so it is in and out while silent callers wait.
#[derive(Clone)]
pub(super) struct Pending(Arc<Mutex<Slots>>);

struct Slots {
    next: u64,
    limit: usize,
    waiting: VecDeque<(u64, Option<AbortHandle>)>,
}

/// A connection's place among those waiting; given back when dropped.
pub(super) struct Slot {
    pending: Pending,
    number: u64,
}

impl Pending {
    pub(super) fn new(limit: usize) -> Self {
        Self(Arc::new(Mutex::new(Slots { next: 0, limit: limit.max(1), waiting: VecDeque::new() })))
    }

    /// Takes a place. When all are taken, the longest waiting connection is ended.
    pub(super) fn take(&self) -> Slot {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while slots.waiting.len() >= slots.limit {
            if let Some((_, Some(oldest))) = slots.waiting.pop_front() {
                oldest.abort();
            }
        }
        let number = slots.next;
        slots.next += 1;
        slots.waiting.push_back((number, None));
        Slot { pending: self.clone(), number }
    }

    /// Says which task to end when the place is needed.
    pub(super) fn attach(&self, number: u64, task: AbortHandle) {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, handle)) = slots.waiting.iter_mut().find(|(waiting, _)| *waiting == number) {
            *handle = Some(task);
        }
    }
}

impl Slot {
    pub(super) fn number(&self) -> u64 {
        self.number
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut slots = self.pending.0.lock().unwrap_or_else(PoisonError::into_inner);
        slots.waiting.retain(|(number, _)| *number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_makes_room() {
        let pending = Pending::new(2);
        let mut tasks = Vec::new();
        for _ in 0..3 {
            let slot = pending.take();
            let number = slot.number();
            let task = tokio::spawn(async move {
                let _slot = slot;
                std::future::pending::<()>().await;
            });
            pending.attach(number, task.abort_handle());
            tasks.push(task);
        }
        let first = tasks.remove(0);
        assert!(first.await.unwrap_err().is_cancelled());
        assert!(tasks.iter().all(|task| !task.is_finished()));
        tasks.iter().for_each(|task| task.abort());
    }
}
