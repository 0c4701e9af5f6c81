//! One use of a key: what happens in a transaction, as a function of the card alone.

use std::time::{Duration, Instant};

use super::application::{self, Facts};
use super::pin::{self, Attempt, Status};
use crate::error::{Error, ErrorKind};
use crate::operation::{Operation, Stage};
use crate::pin::KeepPin;
use crate::smartcard::{Exchange, Fault};
use crate::token::{PinPolicy, Touch};

/// A key and the rules by which it is used.
pub(super) struct Key<'a> {
    pub(super) what: &'a str,
    pub(super) facts: &'a Facts,
    pub(super) pin: PinPolicy,
    pub(super) touch: Touch,
    pub(super) keep: KeepPin,
}

/// What an operation gave, and the time that the card took.
pub(super) struct Done<T> {
    pub(super) answer: T,
    pub(super) took: Duration,
}

/// An operation without a PIN.
pub(super) enum Outcome<T> {
    Done(Done<T>),
    /// The PIN has to be sent; nothing was done.
    NeedsPin(Status),
}

/// The one command that is an operation with the key.
pub(super) type Work<'a, T> = &'a dyn Fn(&mut dyn Exchange) -> Result<T, Fault>;

impl Key<'_> {
    /// Does `work` where no PIN has to be sent: none is wanted, or somebody has verified it and that is enough.
    pub(super) fn run<T>(
        &self,
        card: &mut dyn Exchange,
        work: Work<'_, T>,
        operation: &Operation<'_>,
    ) -> Result<Outcome<T>, Fault> {
        application::select(card)?;
        // Whoever gave up while others had the card is asked for nothing.
        operation.before_deadline(self.what)?;
        if self.pin != PinPolicy::Never {
            let status = pin::status(card, self.facts)?;
            if !status.verified || self.pin == PinPolicy::Always || self.keep == KeepPin::Always {
                return Ok(Outcome::NeedsPin(status));
            }
            match self.operate(card, work, operation) {
                // Of a key whose policy is not told: it may be *always*.
                Err(Fault::Status { status: 0x6982, .. }) if self.touch == Touch::Unknown => {
                    return Ok(Outcome::NeedsPin(status));
                }
                done => return done.map(Outcome::Done).map_err(|fault| self.explain(fault)),
            }
        }
        self.operate(card, work, operation).map(Outcome::Done).map_err(|fault| self.explain(fault))
    }

    /// Sends the PIN and does `work`. With [`KeepPin::Always`] the card forgets the PIN again, unless it was verified before.
    pub(super) fn run_with<T>(
        &self,
        card: &mut dyn Exchange,
        attempt: &mut Attempt<'_>,
        work: Work<'_, T>,
        operation: &Operation<'_>,
    ) -> Result<Done<T>, Fault> {
        application::select(card)?;
        let before = pin::status(card, self.facts)?;
        operation.before_deadline(self.what)?;
        attempt.verify(card, before)?;
        let done = self.operate(card, work, operation);
        if self.keep == KeepPin::Always && !before.verified && !done.as_ref().is_err_and(Fault::is_lost) {
            pin::unverify(card)?;
        }
        done.map_err(|fault| self.explain(fault))
    }

    fn operate<T>(
        &self,
        card: &mut dyn Exchange,
        work: Work<'_, T>,
        operation: &Operation<'_>,
    ) -> Result<Done<T>, Fault> {
        operation.before_deadline(self.what)?;
        operation.enter(match self.touch {
            Touch::Always | Touch::Cached => Stage::Touch,
            Touch::Never | Touch::Unknown => Stage::Device,
        });
        let start = Instant::now();
        let answer = work(card)?;
        Ok(Done { answer, took: start.elapsed() })
    }

    /// What a refusal means. The PIN is verified, or none is wanted.
    fn explain(&self, fault: Fault) -> Fault {
        let Self { what, .. } = self;
        match fault.status() {
            // A YubiKey says this, and waits 15 s before; 6985 was seen, too.
            Some(0x6982 | 0x6985) if matches!(self.touch, Touch::Always | Touch::Cached) => not_touched(what).into(),
            Some(0x6982) if self.touch == Touch::Unknown => not_touched(what).into(),
            Some(0x6985 | 0x6a82 | 0x6a88) => missing(what).into(),
            _ => fault,
        }
    }
}

fn not_touched(what: &str) -> Error {
    Error::new(
        ErrorKind::NotTouched,
        format!("{what} was not touched in time; the PIN is right and costs no try."),
        "Touch it when it blinks: it waits 15 seconds.",
    )
}

/// There is no key in the slot.
pub(super) fn missing(what: &str) -> Error {
    Error::new(
        ErrorKind::KeyNotFound,
        format!("{what} holds no key that can agree."),
        "Make one with `claviger-ceremony token generate`, or correct the slot; `claviger-ceremony token list` shows the keys.",
    )
}
