//! The thread of a token: tokens are slow, serial, and block.

use super::desk::Desk;
use super::from_hsm;
use super::notice::Reason;
use super::queue::{Job, Next, Queue};
use super::state::TokenState;
use crate::config;
use crate::error::{ErrorKind, Result};
use crate::secret::SharedSecret;
use claviger_hsm::{Operation, Pin, PinEntry, PinRequest, Presence, RefusedPin, Token};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

/// How often an idle token is looked at.
const LOOK: Duration = Duration::from_secs(2);
/// The first pause, and the longest, before a token that was lost is looked for again.
const AGAIN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));
/// What opening may take at least: modules are loaded, and the key is proved.
const OPENING: Duration = Duration::from_secs(20);

/// Who is asked for PINs by a token's thread, at any operation.
///
/// A [`PinEntry`] that is told why it will ask. It must give up by itself when nobody answers.
pub trait PinPrompt: PinEntry + Send {
    /// What the token is wanted for, before it is asked: `cosigner wants to answer wallet-2`.
    fn because(&mut self, reason: &str) {
        let _ = reason;
    }
}

/// Opens the token; again and again until it is there.
pub(super) type Open = Box<dyn FnMut(&mut Operation<'_>) -> claviger_hsm::Result<Box<dyn Token>> + Send>;

pub(super) struct Worker {
    pub(super) machine: String,
    pub(super) queue: Arc<Queue>,
    pub(super) desk: Arc<Desk>,
    pub(super) open: Open,
    pub(super) pins: Box<dyn PinPrompt>,
    pub(super) config: config::Token,
    pub(super) operations: Arc<AtomicU64>,
    pub(super) token: Option<Box<dyn Token>>,
    /// A credential or file that gave it once gives it again until somebody corrects it.
    pub(super) refused: RefusedPin,
}

impl Worker {
    /// Opens the token and tells `opened` how that went; then works until the queue is closed. `wait`: a token that is not there yet is no failure.
    pub(super) fn run(mut self, wait: bool, opened: &SyncSender<Result<()>>) {
        let _ended = Ended(Arc::clone(&self.queue), Arc::clone(&self.desk));
        let waits = |kind| wait && matches!(kind, ErrorKind::TokenAbsent | ErrorKind::TokenBusy);
        // What the caller is told is no event.
        let outcome = match self.open(&Reason::OPENING, waits) {
            Err(error) if waits(error.kind()) => Ok(()),
            outcome => outcome,
        };
        let failed = outcome.is_err();
        if opened.send(outcome).is_err() || failed {
            return;
        }
        let mut pause = AGAIN.0;
        loop {
            let state = self.desk.state();
            let look = if self.desk.is_file() || (self.token.is_none() && !state.is_lost()) {
                None
            } else if state.is_lost() {
                let look = Instant::now() + pause;
                pause = (pause * 2).min(AGAIN.1);
                Some(look)
            } else {
                pause = AGAIN.0;
                Some(Instant::now() + LOOK)
            };
            match self.queue.next(look) {
                Next::Job(job) => self.serve(*job),
                Next::Look => self.look(),
                Next::Closed => return,
            }
        }
    }

    fn serve(&mut self, job: Job) {
        let Job { point, reason, reply } = job;
        if self.token.is_none()
            && let Err(error) = self.open(&reason, |_| true)
        {
            let _ = reply.send(Err(error));
            return;
        }
        // Opening may have taken a while.
        let Some(token) = self.token.as_mut().filter(|_| !reply.is_closed()) else { return };
        let time = if self.desk.may_need_touch() { self.config.touch_timeout } else { self.config.timeout };
        self.operations.fetch_add(1, Ordering::Relaxed);
        self.desk.begin(&reason, time);
        let observer = |stage| self.desk.enter(stage);
        let mut asking = Asking::new(&mut *self.pins, &self.desk, &self.machine, &reason);
        let wanted = || !reply.is_closed();
        let mut operation = Operation::within(time, &mut asking)
            .observed(&observer)
            .while_wanted(&wanted)
            .remembering(&mut self.refused);
        let agreed = token.agree(&point, &mut operation);
        self.desk.finish(agreed.as_ref().err());
        // Who gave up in the meantime does not want it; the secret is wiped with the message.
        let _ = reply.send(agreed.map(|secret| SharedSecret::new(*secret.as_bytes())).map_err(from_hsm));
    }

    fn look(&mut self) {
        let Some(token) = &mut self.token else {
            // Its failure is in the state.
            let _ = self.open(&Reason::OPENING, |_| true);
            return;
        };
        let seen = token.look();
        self.desk.saw(seen.as_ref().map(|presence| match presence {
            Presence::Locked => TokenState::Locked,
            _ => TokenState::Ready,
        }));
    }

    /// `tell`: which failures are told to people.
    fn open(&mut self, reason: &Reason, tell: impl Fn(ErrorKind) -> bool) -> Result<()> {
        let time = OPENING.max(self.config.touch_timeout);
        self.desk.begin(reason, time);
        let observer = |stage| self.desk.enter(stage);
        let mut asking = Asking::new(&mut *self.pins, &self.desk, &self.machine, reason);
        let mut operation = Operation::within(time, &mut asking).observed(&observer).remembering(&mut self.refused);
        let opened = (self.open)(&mut operation);
        if let Ok(token) = &opened {
            self.desk.opened(token.hints());
        }
        let error = match opened {
            Ok(token) => {
                self.desk.finish(None);
                self.token = Some(token);
                return Ok(());
            }
            Err(error) => error,
        };
        let failure = from_hsm(error.clone());
        if tell(failure.kind()) {
            self.desk.finish(Some(&error));
        } else {
            self.desk.cancel();
        }
        Err(failure)
    }
}

/// However the thread ends: nobody waits for it any more.
struct Ended(Arc<Queue>, Arc<Desk>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.close();
        if std::thread::panicking() {
            self.1.saw(Err(&claviger_hsm::Error::new(
                claviger_hsm::ErrorKind::Device,
                format!("The thread of {} failed by a fault of this program.", self.1.label()),
                "Start the program again, and report this.",
            )));
        }
        self.1.close();
    }
}

/// Asks whoever the program has, and has it seen that somebody is being asked.
struct Asking<'a> {
    pins: &'a mut dyn PinPrompt,
    desk: &'a Desk,
    machine: &'a str,
    reason: &'a Reason,
}

impl<'a> Asking<'a> {
    fn new(pins: &'a mut dyn PinPrompt, desk: &'a Desk, machine: &'a str, reason: &'a Reason) -> Self {
        Self { pins, desk, machine, reason }
    }

    fn ask<T>(
        &mut self,
        request: &PinRequest<'_>,
        ask: impl FnOnce(&mut dyn PinPrompt) -> T,
        given: fn(&T) -> bool,
    ) -> T {
        self.desk.ask(request);
        self.pins.because(&format!("{} {}", self.machine, self.reason));
        let answer = ask(self.pins);
        self.desk.answered(given(&answer));
        answer
    }
}

impl PinEntry for Asking<'_> {
    fn credential(&mut self, request: &PinRequest<'_>) -> claviger_hsm::Result<Option<Pin>> {
        self.pins.credential(request)
    }

    fn pin(&mut self, request: &PinRequest<'_>) -> claviger_hsm::Result<Pin> {
        self.ask(request, |pins| pins.pin(request), claviger_hsm::Result::is_ok)
    }

    fn confirm_last_try(&mut self, request: &PinRequest<'_>) -> bool {
        self.ask(request, |pins| pins.confirm_last_try(request), |yes| *yes)
    }
}

#[cfg(test)]
mod tests;
