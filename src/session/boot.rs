//! The clock by which a session ages: it counts while the machine is suspended, and nobody sets it.

use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// A moment of this boot, by `CLOCK_BOOTTIME`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootInstant(Duration);

impl BootInstant {
    /// Now.
    pub fn now() -> Self {
        let now = clock_gettime(ClockId::Boottime);
        // Neither is negative on this clock, and nanoseconds are fewer than a second.
        Self(Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32))
    }

    /// How long ago it was; zero for a moment to come.
    pub fn elapsed(self) -> Duration {
        Self::now().since(self)
    }

    /// How long after `earlier` it is; zero when it is before.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// So much later.
    #[must_use]
    pub fn later(self, by: Duration) -> Self {
        Self(self.0.saturating_add(by))
    }
}

/// How long ago something was, for people: `just now`, `40 s ago`, `4 min ago`, `3 h ago`, `2 days ago`.
pub(super) fn ago(elapsed: Duration) -> String {
    match elapsed.as_secs() {
        0 => "just now".to_owned(),
        seconds @ ..120 => format!("{seconds} s ago"),
        seconds @ ..7200 => format!("{} min ago", seconds / 60),
        seconds @ ..172_800 => format!("{} h ago", seconds / 3600),
        seconds => format!("{} days ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_and_is_told() {
        let before = BootInstant::now();
        assert!(BootInstant::now() >= before && before.elapsed() < Duration::from_secs(10));
        assert_eq!(before.later(Duration::from_secs(5)).since(before), Duration::from_secs(5));
        assert_eq!(before.since(before.later(Duration::from_secs(5))), Duration::ZERO);
        let told = [0, 1, 119, 120, 299, 7199, 7200, 172_799, 172_800].map(|seconds| ago(Duration::from_secs(seconds)));
        let expected = [
            "just now",
            "1 s ago",
            "119 s ago",
            "2 min ago",
            "4 min ago",
            "119 min ago",
            "2 h ago",
            "47 h ago",
            "2 days ago",
        ];
        assert_eq!(told, expected);
    }
}
