//! What surrounds a call into a token: how long it may take, who can be asked, and who is told what is being waited for.

use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::pin::PinEntry;
use crate::secret::Pin;

/// What a call into a token is waiting for. Told as it changes, from within the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// Another program holds the token, or may hold it: the call goes on when it lets go.
    Access,
    /// Somebody is being asked for a PIN.
    Pin,
    /// The device computes.
    Device,
    /// The device computes, and does so only after a touch.
    Touch,
}

/// The surroundings of one call into a token.
pub struct Operation<'a> {
    deadline: Instant,
    pins: &'a mut dyn PinEntry,
    observer: Option<&'a dyn Fn(Stage)>,
    wanted: Option<&'a dyn Fn() -> bool>,
    refused: Option<&'a mut RefusedPin>,
}

/// The PIN that a token refused last, remembered from call to call: also across openings, each of which begins without a memory of its own.
#[derive(Default)]
pub struct RefusedPin(Option<Pin>);

impl<'a> Operation<'a> {
    /// A call that should end by `deadline` and asks `pins` where it needs a PIN.
    ///
    /// The time in which somebody is asked for a PIN does not count: the deadline moves by it.
    pub fn new(deadline: Instant, pins: &'a mut dyn PinEntry) -> Self {
        Self { deadline, pins, observer: None, wanted: None, refused: None }
    }

    /// The same, with a deadline from now on.
    pub fn within(time: Duration, pins: &'a mut dyn PinEntry) -> Self {
        Self::new(Instant::now() + time, pins)
    }

    /// Tells `observer` of every stage as it begins. It must return at once: the token waits for it.
    #[must_use]
    pub fn observed(mut self, observer: &'a dyn Fn(Stage)) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Ends as if the deadline had passed once `wanted` says that nobody waits for the answer any more. It is asked before the device is used, and again after
    /// other programs were waited for.
    #[must_use]
    pub fn while_wanted(mut self, wanted: &'a dyn Fn() -> bool) -> Self {
        self.wanted = Some(wanted);
        self
    }

    /// Sends no PIN that `refused` remembers, and has it remember the next one that the token refuses.
    #[must_use]
    pub fn remembering(mut self, refused: &'a mut RefusedPin) -> Self {
        self.refused = Some(refused);
        self
    }

    /// Whether `pin` is the one that was refused last.
    pub(crate) fn was_refused(&self, pin: &Pin) -> bool {
        self.refused.as_ref().and_then(|refused| refused.0.as_ref()).is_some_and(|refused| refused.is(pin))
    }

    /// Gives `pin` back where nobody remembers it.
    pub(crate) fn remember(&mut self, pin: Option<Pin>) -> Option<Pin> {
        match &mut self.refused {
            Some(refused) => {
                refused.0 = pin;
                None
            }
            None => pin,
        }
    }

    /// When the call should have ended.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Says what is being waited for.
    pub fn enter(&self, stage: Stage) {
        if let Some(observer) = self.observer {
            observer(stage);
        }
    }

    /// Lets `ask` ask the people at the token. The deadline moves by the time it takes.
    pub(crate) fn ask<T>(&mut self, ask: impl FnOnce(&mut dyn PinEntry) -> T) -> T {
        self.enter(Stage::Pin);
        let start = Instant::now();
        let answer = ask(self.pins);
        self.deadline += start.elapsed();
        answer
    }

    /// Refuses to go on past the deadline, or for nobody. `what` is the token, for people.
    pub(crate) fn before_deadline(&self, what: &str) -> Result<()> {
        if self.wanted.is_some_and(|wanted| !wanted()) {
            return Err(Error::new(
                ErrorKind::Deadline,
                format!("Nobody waits for {what} any more."),
                "Try again; whoever asked for the operation has given up.",
            ));
        }
        if Instant::now() < self.deadline {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Deadline,
            format!("{what} did not agree in time."),
            "If it waits for a touch, touch it when it blinks; otherwise see whether another program holds it.",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pin::PinRequest;
    use crate::secret::Pin;

    struct Nobody;

    impl PinEntry for Nobody {
        fn pin(&mut self, _: &PinRequest<'_>) -> Result<Pin> {
            Err(Error::pin_required("Nobody is here.", "Come back."))
        }
    }

    #[test]
    fn a_past_deadline_is_refused() {
        let mut nobody = Nobody;
        let operation = Operation::within(Duration::ZERO, &mut nobody);
        assert_eq!(operation.before_deadline("It").unwrap_err().kind(), ErrorKind::Deadline);
    }

    #[test]
    fn nothing_is_done_for_nobody() {
        let mut nobody = Nobody;
        let waiting = std::cell::Cell::new(true);
        let wanted = || waiting.get();
        let operation = Operation::within(Duration::from_secs(60), &mut nobody).while_wanted(&wanted);
        assert!(operation.before_deadline("It").is_ok());
        waiting.set(false);
        assert_eq!(operation.before_deadline("It").unwrap_err().kind(), ErrorKind::Deadline);
    }

    #[test]
    #[allow(clippy::disallowed_methods)] // sleep: the time that passes is what is tested.
    fn asking_does_not_count() {
        let mut nobody = Nobody;
        let mut operation = Operation::within(Duration::from_millis(20), &mut nobody);
        operation.ask(|_| std::thread::sleep(Duration::from_millis(30)));
        assert!(operation.before_deadline("It").is_ok());
    }
}
