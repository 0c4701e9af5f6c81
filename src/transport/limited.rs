//! What is told no more often than anybody wants to read.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Lets a few through in a while, and counts the others.
#[derive(Debug)]
pub(crate) struct Limited {
    most: u32,
    within: Duration,
    state: Mutex<Option<(Instant, u32, u64)>>,
}

impl Limited {
    /// `most` in any span of `within` that begins with one that is told.
    pub(crate) const fn new(most: u32, within: Duration) -> Self {
        Self { most, within, state: Mutex::new(None) }
    }

    /// Whether this one is told, and how many before it were not.
    pub(crate) fn tell(&self) -> Option<u64> {
        let now = Instant::now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (began, told, untold) = state.get_or_insert((now, 0, 0));
        if now.duration_since(*began) >= self.within {
            (*began, *told) = (now, 0);
        }
        if *told == self.most {
            *untold += 1;
            return None;
        }
        *told += 1;
        Some(std::mem::take(untold))
    }
}

/// The same for each of several, which must be few: peers of the store, and not what anybody says.
#[derive(Debug)]
pub(crate) struct Each<K> {
    most: u32,
    within: Duration,
    all: Mutex<HashMap<K, Arc<Limited>>>,
}

impl<K: Eq + Hash> Each<K> {
    pub(crate) fn new(most: u32, within: Duration) -> Self {
        Self { most, within, all: Mutex::default() }
    }

    pub(crate) fn tell(&self, key: K) -> Option<u64> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let one = Arc::clone(all.entry(key).or_insert_with(|| Arc::new(Limited::new(self.most, self.within))));
        drop(all);
        one.tell()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_has_its_own() {
        let each = Each::new(1, Duration::from_secs(60));
        assert_eq!([each.tell("mad"), each.tell("mad"), each.tell("good")], [Some(0), None, Some(0)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_in_a_while() {
        let limited = Limited::new(2, Duration::from_secs(60));
        assert_eq!([limited.tell(), limited.tell(), limited.tell(), limited.tell()], [Some(0), Some(0), None, None]);
        tokio::time::advance(Duration::from_secs(59)).await;
        assert_eq!(limited.tell(), None);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!([limited.tell(), limited.tell(), limited.tell()], [Some(3), Some(0), None]);
    }
}
