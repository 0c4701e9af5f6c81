//! What waits to be written: bounded, whatever peers and strangers do.

use super::entry::{ESTABLISHED, Event};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

/// Entries that may wait.
pub(super) const QUEUE: usize = 4096;

/// What is counted together is written no more often than this.
pub(super) const MINUTE: Duration = Duration::from_secs(60);

/// Attempts and sessions' ends of one peer that are written one by one in a [`MINUTE`]; the others are counted.
const OF_A_PEER: u32 = 60;

/// Different things of a kind that are counted at a time.
const KEYS: usize = 256;

/// When, in milliseconds since 1970, and what.
pub(super) type Dated = (u64, Event);

#[derive(Default)]
pub(super) struct Queue {
    entries: VecDeque<Dated>,
    /// Whoever is nobody's peer, by what it was dropped for. One key's entry is all.
    strangers: BTreeMap<&'static str, u64>,
    strangers_told: Option<Instant>,
    /// By peer, service and reason.
    refused: Counts<(String, String, &'static str)>,
    /// By peer, direction and outcome.
    repeated: Counts<(String, &'static str, String)>,
    /// What each peer has used up, and since when.
    budgets: HashMap<String, (Instant, u32)>,
    /// That the log does not know of yet.
    dropped: u64,
    dropped_told: Option<Instant>,
    /// Since this was made.
    dropped_ever: u64,
}

/// Counted together, and told once a [`MINUTE`].
struct Counts<K>(BTreeMap<K, (u64, Option<Instant>)>);

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + Clone> Counts<K> {
    /// `false`: there are too many different ones.
    fn add(&mut self, key: K) -> bool {
        if self.0.len() >= KEYS && !self.0.contains_key(&key) {
            return false;
        }
        self.0.entry(key).or_default().0 += 1;
        true
    }

    fn due(&mut self, now: Instant, all: bool) -> Vec<(K, u64)> {
        let rested = |told: Option<Instant>| told.is_none_or(|told| now.saturating_duration_since(told) >= MINUTE);
        self.0.retain(|_, (count, told)| *count > 0 || !rested(*told));
        let mut due = Vec::new();
        for (key, (count, told)) in &mut self.0 {
            if *count > 0 && (all || rested(*told)) {
                due.push((key.clone(), std::mem::take(count)));
                *told = Some(now);
            }
        }
        due
    }
}

impl Queue {
    pub(super) fn push(&mut self, time: u64, event: Event) {
        if self.entries.len() >= QUEUE {
            self.lost(1);
        } else {
            self.entries.push_back((time, event));
        }
    }

    /// Something that a peer can cause as often as it likes.
    pub(super) fn push_of_peer(&mut self, time: u64, event: Event, now: Instant) {
        let (peer, direction, outcome) = match &event {
            Event::Attempt(attempt) => {
                let outcome = attempt.reason.clone().unwrap_or_else(|| ESTABLISHED.to_owned());
                (attempt.peer.clone(), attempt.direction == "incoming", outcome)
            }
            Event::SessionEnded(ended) => (ended.peer.clone(), ended.direction == "incoming", ended.reason.clone()),
            _ => return self.push(time, event),
        };
        let budget = self.budgets.entry(peer.clone()).or_insert((now, 0));
        if now.saturating_duration_since(budget.0) >= MINUTE {
            *budget = (now, 0);
        }
        budget.1 = budget.1.saturating_add(1);
        if budget.1 <= OF_A_PEER {
            self.push(time, event);
        } else {
            let direction = if direction { "incoming" } else { "outgoing" };
            let counted = self.repeated.add((peer, direction, outcome));
            self.lost(u64::from(!counted));
        }
    }

    pub(super) fn stranger(&mut self, reason: &'static str) {
        *self.strangers.entry(reason).or_default() += 1;
    }

    pub(super) fn refused(&mut self, peer: &str, service: &str, reason: &'static str) {
        let counted = self.refused.add((peer.to_owned(), service.to_owned(), reason));
        self.lost(u64::from(!counted));
    }

    /// As many found no room.
    pub(super) fn lost(&mut self, count: u64) {
        self.dropped += count;
        self.dropped_ever += count;
    }

    /// What was taken finds no room, either.
    pub(super) fn give_back(&mut self, event: &Event) {
        match event {
            // Those have been counted.
            Event::Dropped { count } => self.dropped += count,
            _ => self.lost(1),
        }
    }

    /// Whether something found no room that the log does not know of yet.
    pub(super) fn lacks(&self) -> bool {
        self.dropped > 0
    }

    /// How many found no room since this was made.
    pub(super) fn dropped_ever(&self) -> u64 {
        self.dropped_ever
    }

    /// What is to be written now; `all`: nothing is kept back to be counted with what comes.
    pub(super) fn take(&mut self, time: u64, now: Instant, all: bool) -> Vec<Dated> {
        let mut taken: Vec<Dated> = std::mem::take(&mut self.entries).into();
        let rested = |told: Option<Instant>| told.is_none_or(|told| now.saturating_duration_since(told) >= MINUTE);
        if !self.strangers.is_empty() && (all || rested(self.strangers_told)) {
            let reasons = std::mem::take(&mut self.strangers);
            let reasons: BTreeMap<_, _> =
                reasons.into_iter().map(|(reason, count)| (reason.to_owned(), count)).collect();
            taken.push((time, Event::Strangers { count: reasons.values().sum(), reasons }));
            self.strangers_told = Some(now);
        }
        for ((peer, service, reason), count) in self.refused.due(now, all) {
            taken.push((time, Event::StreamRefused { peer, service, reason: reason.to_owned(), count }));
        }
        for ((peer, direction, outcome), count) in self.repeated.due(now, all) {
            taken.push((time, Event::Repeated { peer, direction: direction.to_owned(), outcome, count }));
        }
        self.budgets.retain(|_, (since, _)| now.saturating_duration_since(*since) < MINUTE);
        if self.dropped > 0 && (all || rested(self.dropped_told)) {
            taken.push((time, Event::Dropped { count: std::mem::take(&mut self.dropped) }));
            self.dropped_told = Some(now);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::Attempt;
    use super::*;

    fn called(peer: &str) -> Event {
        Event::Attempt(Attempt { peer: peer.into(), direction: "incoming".into(), ..Attempt::default() })
    }

    fn count(events: &[Dated], wanted: impl Fn(&Event) -> bool) -> usize {
        events.iter().filter(|(_, event)| wanted(event)).count()
    }

    #[test]
    fn a_flood_of_strangers_is_an_entry_a_minute() {
        let (mut queue, start) = (Queue::default(), Instant::now());
        let mut entries = Vec::new();
        for second in 0..120 {
            (0..1000).for_each(|_| queue.stranger("knock-unknown"));
            queue.stranger("packet-invalid");
            entries.extend(queue.take(second * 1000, start + Duration::from_secs(second), false));
        }
        entries.extend(queue.take(120_000, start, true));
        assert_eq!(entries.len(), 3);
        let total: u64 = entries
            .iter()
            .map(|(_, event)| match event {
                Event::Strangers { count, reasons } => {
                    assert_eq!(reasons["knock-unknown"] + reasons["packet-invalid"], *count);
                    *count
                }
                other => panic!("{other:?}"),
            })
            .sum();
        assert_eq!(total, 120 * 1001);
        assert!(queue.take(0, start, true).is_empty());
    }

    #[test]
    fn a_peer_in_a_loop_leaves_room_for_the_others() {
        let (mut queue, start) = (Queue::default(), Instant::now());
        for _ in 0..10_000 {
            queue.push_of_peer(1, called("mad"), start);
        }
        queue.push_of_peer(1, called("good"), start);
        let entries = queue.take(2, start, false);
        let of =
            |peer: &'static str| move |event: &Event| matches!(event, Event::Attempt(attempt) if attempt.peer == peer);
        assert_eq!((count(&entries, of("mad")), count(&entries, of("good"))), (60, 1));
        assert_eq!(entries.last().unwrap().1.to_string(), "mad called: 9940 more, established");
        queue.push_of_peer(1, called("mad"), start + Duration::from_secs(30));
        assert!(queue.take(2, start + Duration::from_secs(30), false).is_empty(), "counted with what comes");
        queue.push_of_peer(1, called("mad"), start + MINUTE);
        assert_eq!(queue.take(2, start + MINUTE, false).len(), 2);
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let mut queue = Queue::default();
        (0..QUEUE + 7).for_each(|_| queue.push(1, Event::TokenBack {}));
        (0..KEYS + 3).for_each(|at| queue.refused(&format!("peer-{at}"), "ssh", "not-allowed"));
        let entries = queue.take(2, Instant::now(), false);
        assert_eq!(entries.len(), QUEUE + KEYS + 1);
        assert_eq!(entries.last().unwrap().1, Event::Dropped { count: 10 });
    }

    #[test]
    fn what_finds_no_room_again_and_again_is_an_entry_a_minute() {
        let (mut queue, start) = (Queue::default(), Instant::now());
        let mut entries = Vec::new();
        for second in 0..120 {
            queue.lost(5);
            entries.extend(queue.take(second * 1000, start + Duration::from_secs(second), false));
        }
        entries.extend(queue.take(120_000, start, true));
        assert_eq!(entries.len(), 3);
        let total: u64 =
            entries.iter().map(|(_, event)| if let Event::Dropped { count } = event { *count } else { 0 }).sum();
        assert_eq!((total, queue.dropped_ever()), (600, 600));
    }
}
