//! What is known of a token while its thread is inside it: shared by that thread, the callers, and a second thread that tells people.
//!
//! The token's thread can not tell anything while a device has it, so it only writes down what it begins. The telling thread sleeps until
//! something has lasted long enough to be told, and is woken as seldom as can be: a token that answers at once costs it nothing.

use super::from_hsm;
use super::notice::{Notice, Notify, Outcome, Phase, Reason, What};
use super::state::{TokenState, TokenStatus, Trouble};
use claviger_hsm::{ErrorKind, Hints, PinRequest, Stage, TokenKind, Touch};
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::watch;

/// Another program's use of the token is a state of its own when it lasts so long.
const HELD: Duration = Duration::from_millis(300);

/// A token that may want a touch, or not, probably wants one when it has not answered for so long.
const SILENT: Duration = Duration::from_millis(400);

/// How often what lasts is told again.
const TICK: Duration = Duration::from_secs(1);

pub(super) struct Desk {
    machine: String,
    /// What the token is called before it was ever open.
    locator: String,
    pin_timeout: Duration,
    facts: OnceLock<Facts>,
    status: watch::Sender<TokenStatus>,
    now: Mutex<Now>,
    wake: Condvar,
}

/// What opening a token has shown.
struct Facts {
    label: String,
    software: bool,
    file: bool,
    touch: Touch,
}

#[derive(Default)]
struct Now {
    current: Option<Current>,
    news: VecDeque<Notice>,
    /// The token was told to be lost, and not yet to be back.
    lost: bool,
    /// When the telling thread wakes by itself. `None`: it is to be woken.
    wakes: Option<Instant>,
    closed: bool,
}

/// A call into the token.
struct Current {
    reason: Reason,
    stage: Stage,
    entered: Instant,
    deadline: Instant,
    /// The state to go back to when what is shown of this call ends.
    before: TokenState,
    held: bool,
    shown: Option<Shown>,
}

struct Shown {
    what: What,
    label: String,
    until: Instant,
    again: Instant,
}

impl Desk {
    pub(super) fn new(machine: &str, locator: String, pin_timeout: Duration) -> Self {
        let status = TokenStatus { state: TokenState::Absent, since: SystemTime::now(), trouble: None };
        Self {
            machine: machine.to_owned(),
            locator,
            pin_timeout,
            facts: OnceLock::new(),
            status: watch::Sender::new(status),
            now: Mutex::default(),
            wake: Condvar::new(),
        }
    }

    pub(super) fn label(&self) -> &str {
        self.facts.get().map_or(&self.locator, |facts| &facts.label)
    }

    /// As far as it was seen.
    pub(super) fn is_software(&self) -> bool {
        self.facts.get().is_some_and(|facts| facts.software)
    }

    /// A key file never goes, and need not be looked at.
    pub(super) fn is_file(&self) -> bool {
        self.facts.get().is_some_and(|facts| facts.file)
    }

    /// Whether an operation may wait for a touch; `true` for what was never open.
    pub(super) fn may_need_touch(&self) -> bool {
        self.touch() != Some(Touch::Never)
    }

    fn touch(&self) -> Option<Touch> {
        self.facts.get().map(|facts| facts.touch)
    }

    pub(super) fn opened(&self, hints: &Hints) {
        // A token that is opened once stays open; what it showed then holds.
        let _ = self.facts.set(Facts {
            label: hints.label.clone(),
            software: !hints.hardware,
            file: hints.kind == TokenKind::Software,
            touch: hints.touch,
        });
    }

    pub(super) fn status(&self) -> TokenStatus {
        self.status.borrow().clone()
    }

    pub(super) fn watch(&self) -> watch::Receiver<TokenStatus> {
        self.status.subscribe()
    }

    pub(super) fn state(&self) -> TokenState {
        self.status.borrow().state
    }

    /// Whether somebody is being asked for a PIN.
    pub(super) fn is_asking(&self) -> bool {
        self.state() == TokenState::WaitingForPin
    }

    /// A call into the token begins, and has `time`.
    pub(super) fn begin(&self, reason: &Reason, time: Duration) {
        let entered = Instant::now();
        self.lock().current = Some(Current {
            reason: reason.clone(),
            stage: Stage::Device,
            entered,
            deadline: entered + time,
            before: self.state(),
            held: false,
            shown: None,
        });
    }

    /// The call has reached a stage.
    pub(super) fn enter(&self, stage: Stage) {
        let mut now = self.lock();
        let entered = Instant::now();
        let ended = now.current.as_mut().and_then(|current| {
            current.stage = stage;
            current.entered = entered;
            if std::mem::take(&mut current.held) {
                self.change(current.before);
            }
            // A touch that was asked for goes on being asked for.
            let over = stage != Stage::Touch && current.shown.is_some();
            over.then(|| self.end(current, Outcome::GaveUp)).flatten()
        });
        now.news.extend(ended);
        self.rouse(&now);
    }

    /// Somebody is asked for what `request` describes.
    pub(super) fn ask(&self, request: &PinRequest<'_>) {
        let mut now = self.lock();
        let (at, left) = (Instant::now(), self.pin_timeout);
        let Some(current) = &mut now.current else { return };
        let (what, label) = (What::Pin { tries_left: request.tries_left }, request.what.to_owned());
        let begins = self.notice(current, &what, &label, Phase::Lasts { begins: true, left });
        current.shown = Some(Shown { what, label, until: at + left, again: at + TICK });
        self.change(TokenState::WaitingForPin);
        now.news.push_back(begins);
        self.rouse(&now);
    }

    /// It was given, or not.
    pub(super) fn answered(&self, given: bool) {
        let mut now = self.lock();
        let at = Instant::now();
        let Some(current) = &mut now.current else { return };
        // The time of asking does not count, as in hsm's own deadline.
        current.deadline += at.saturating_duration_since(current.entered);
        current.entered = at;
        let ended = self.end(current, if given { Outcome::Done } else { Outcome::Missed });
        now.news.extend(ended);
        self.rouse(&now);
    }

    /// The call has ended.
    pub(super) fn finish(&self, failure: Option<&claviger_hsm::Error>) {
        let mut now = self.lock();
        let Some(mut current) = now.current.take() else { return };
        let outcome = match failure.map(claviger_hsm::Error::kind) {
            None => Outcome::Done,
            Some(ErrorKind::NotTouched) => Outcome::Missed,
            Some(_) => Outcome::GaveUp,
        };
        now.news.extend(self.end(&mut current, outcome));
        let waited = current.stage == Stage::Access;
        let state = match failure {
            None => TokenState::Ready,
            Some(error) => TokenState::after(error.kind(), waited).unwrap_or_else(|| {
                // Nobody touched it: so it is there, whatever was known of it before.
                match error.kind() {
                    ErrorKind::NotTouched if self.facts.get().is_some() => TokenState::Ready,
                    ErrorKind::NotTouched => TokenState::Failed,
                    _ => current.before,
                }
            }),
        };
        self.settle(&mut now, current.before, state, failure);
        self.rouse(&now);
    }

    /// The call has ended, and its failure is told by whoever made it.
    pub(super) fn cancel(&self) {
        let mut now = self.lock();
        let ended = now.current.take().and_then(|mut current| self.end(&mut current, Outcome::GaveUp));
        now.news.extend(ended);
        self.rouse(&now);
    }

    /// The token was looked at.
    pub(super) fn saw(&self, seen: Result<TokenState, &claviger_hsm::Error>) {
        let mut now = self.lock();
        let before = self.state();
        match seen {
            Ok(state) => self.settle(&mut now, before, state, None),
            Err(error) => {
                let state = TokenState::after(error.kind(), true).unwrap_or(before);
                self.settle(&mut now, before, state, Some(error));
            }
        }
        self.rouse(&now);
    }

    /// Takes a state over, and tells of it when it is another kind of state than before.
    fn settle(&self, now: &mut Now, before: TokenState, state: TokenState, failure: Option<&claviger_hsm::Error>) {
        let trouble = failure.map(|error| Trouble::from(&from_hsm(error.clone())));
        self.status.send_if_modified(|status| {
            let changed = status.state != state;
            if changed {
                status.state = state;
                status.since = SystemTime::now();
            }
            // A look that finds the token as it was leaves the last failure to be read.
            let keep = trouble.is_none() && before == state && state != TokenState::Ready;
            let told = keep || status.trouble == trouble;
            if !told {
                status.trouble.clone_from(&trouble);
            }
            changed || !told
        });
        let told = |what| Notice {
            machine: self.machine.clone(),
            reason: Reason::OPENING,
            what,
            label: self.label().to_owned(),
            phase: Phase::Ended(Outcome::Done),
        };
        // At the start the state is absent before anything was seen, which is no loss.
        let lost = std::mem::replace(&mut now.lost, state.is_lost());
        if state == before && lost == state.is_lost() {
            return;
        }
        match &trouble {
            Some(Trouble { kind, what, hint }) => {
                tracing::warn!(target: "claviger::token", token = self.label(), %state, reason = kind.as_str(), hint, "{what}");
                if state.is_lost() {
                    now.news.push_back(told(What::Gone(what.clone())));
                } else if lost {
                    now.news.push_back(told(What::Back));
                }
            }
            None if lost => {
                tracing::info!(target: "claviger::token", token = self.label(), %state, "{} is back", self.label());
                now.news.push_back(told(What::Back));
            }
            None => {
                tracing::debug!(target: "claviger::token", token = self.label(), %state, "{} is {state}", self.label())
            }
        }
    }

    /// The token's thread ends: nothing more will be told.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_one();
    }

    /// The telling thread. Ends when the desk is closed.
    pub(super) fn tell(&self, notify: Option<&Notify>) {
        let mut now = self.lock();
        loop {
            if let Some(notice) = now.news.pop_front() {
                drop(now);
                log(&notice);
                if let Some(notify) = notify {
                    notify(&notice);
                }
                now = self.lock();
                continue;
            }
            if now.closed {
                return;
            }
            let at = Instant::now();
            now = match self.due(&now) {
                None => self.wake.wait(now).unwrap_or_else(PoisonError::into_inner),
                Some(due) if due > at => {
                    now.wakes = Some(due);
                    let mut now = self.wake.wait_timeout(now, due - at).unwrap_or_else(PoisonError::into_inner).0;
                    now.wakes = None;
                    now
                }
                Some(_) => {
                    let due = now.current.as_mut().and_then(|current| self.come_due(current, at));
                    now.news.extend(due);
                    now
                }
            };
        }
    }

    /// When there will be something to tell of the call that runs.
    fn due(&self, now: &Now) -> Option<Instant> {
        let current = now.current.as_ref()?;
        if let Some(shown) = &current.shown {
            return Some(shown.again);
        }
        match (current.stage, self.touch()) {
            (Stage::Access, _) if !current.held => Some(current.entered + HELD),
            // What was never open may be of either kind.
            (Stage::Touch, Some(Touch::Always) | None) => Some(current.entered),
            (Stage::Touch, _) | (Stage::Device, Some(Touch::Unknown)) => Some(current.entered + SILENT),
            _ => None,
        }
    }

    fn come_due(&self, current: &mut Current, at: Instant) -> Option<Notice> {
        if let Some(shown) = &mut current.shown {
            shown.again = at + TICK;
            let (what, label) = (shown.what.clone(), shown.label.clone());
            let left = shown.until.saturating_duration_since(at);
            return Some(self.notice(current, &what, &label, Phase::Lasts { begins: false, left }));
        }
        if current.stage == Stage::Access {
            current.held = true;
            self.change(TokenState::BusyElsewhere);
            return None;
        }
        let what = What::Touch { perhaps: current.stage != Stage::Touch };
        let (label, until) = (self.label().to_owned(), current.deadline);
        let left = until.saturating_duration_since(at);
        let begins = self.notice(current, &what, &label, Phase::Lasts { begins: true, left });
        current.shown = Some(Shown { what, label, until, again: at + TICK });
        self.change(TokenState::WaitingForTouch);
        Some(begins)
    }

    fn end(&self, current: &mut Current, outcome: Outcome) -> Option<Notice> {
        let shown = current.shown.take()?;
        self.change(current.before);
        Some(self.notice(current, &shown.what, &shown.label, Phase::Ended(outcome)))
    }

    fn notice(&self, current: &Current, what: &What, label: &str, phase: Phase) -> Notice {
        let (machine, reason) = (self.machine.clone(), current.reason.clone());
        Notice { machine, reason, what: what.clone(), label: label.to_owned(), phase }
    }

    fn change(&self, state: TokenState) {
        self.status.send_if_modified(|status| {
            let changed = status.state != state;
            if changed {
                status.state = state;
                status.since = SystemTime::now();
            }
            changed
        });
    }

    /// Wakes the telling thread if it would be late by itself.
    fn rouse(&self, now: &Now) {
        let due = if now.news.is_empty() { self.due(now) } else { Some(Instant::now()) };
        if due.is_some_and(|due| now.wakes.is_none_or(|wakes| wakes > due)) {
            self.wake.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Begin and end of a wait for people, as an event. States have events of their own.
fn log(notice: &Notice) {
    let (waits, left, outcome) = match notice.phase {
        Phase::Lasts { begins: true, left } => (true, left.as_secs_f64().ceil() as u64, ""),
        Phase::Lasts { .. } => return,
        Phase::Ended(Outcome::Done) => (false, 0, "done"),
        Phase::Ended(Outcome::Missed) => (false, 0, "missed"),
        Phase::Ended(Outcome::GaveUp) => (false, 0, "given-up"),
    };
    let what = match notice.what {
        What::Touch { .. } => "touch",
        What::Pin { .. } => "pin",
        What::Gone(_) | What::Back => return,
    };
    let peer = notice.reason.peer.as_ref().map_or("", |peer| peer.as_str());
    tracing::info!(target: "claviger::token::notice", token = notice.label, what, peer, waits, left, outcome, "{notice}");
}
