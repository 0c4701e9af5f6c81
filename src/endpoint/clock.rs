//! The clock by which sessions and what is left of them age.

use crate::session::BootInstant;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// `CLOCK_BOOTTIME`, and what a test says has passed besides.
#[derive(Clone, Default)]
pub(super) struct Clock(Arc<AtomicU64>);

impl Clock {
    pub(super) fn now(&self) -> BootInstant {
        BootInstant::now().later(Duration::from_millis(self.0.load(Ordering::Relaxed)))
    }

    /// As if so much more time had passed.
    pub(super) fn pass(&self, time: Duration) {
        self.0.fetch_add(time.as_millis() as u64, Ordering::Relaxed);
    }
}
