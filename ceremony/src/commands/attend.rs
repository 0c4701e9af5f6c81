//! One call into a token, with the people at the terminal: asked for what the token wants, told what is being waited for.

use std::cell::Cell;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use claviger::error::Result;
use claviger::program::{Pins, Terminal, one_line};
use claviger::token::from_hsm;
use claviger_hsm::{Locator, Operation, Stage};

/// What a call may take, besides the time in which somebody types: enough to find the token and touch it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A touch is asked for when the token has not answered within this time: where a touch is cached, it answers at once.
const UNTOUCHED: Duration = Duration::from_millis(200);
/// Another program's use of the token is told when it lasts.
const HELD: Duration = Duration::from_secs(1);
/// A token that does not tell whether it wants a touch, and has computed for this long, may want one.
const SILENT: Duration = Duration::from_secs(3);

/// A call that ended, and how long it took.
pub(crate) struct Attended<T> {
    pub(crate) answer: T,
    /// Without the waits for other programs and for somebody to type.
    pub(crate) took: Duration,
}

/// What people are told of a token that is not open yet: its locator, without where its PIN or module is.
pub(crate) fn name(locator: &Locator) -> String {
    let text = locator.to_string();
    text.split_once('?').map_or(text.clone(), |(name, _)| name.to_owned())
}

/// Makes the call `work` on the token that people know as `what`.
pub(crate) fn attend<T>(
    terminal: &Terminal,
    what: &str,
    work: impl FnOnce(&mut Operation<'_>) -> claviger_hsm::Result<T>,
) -> Result<Attended<T>> {
    let mut pins = Pins::new(terminal);
    let waits = Waits::begin();
    let answer = std::thread::scope(|scope| {
        let (stages, told) = channel();
        scope.spawn(move || watch(&told, |stage| tell(terminal, what, stage)));
        let observer = |stage| {
            waits.enter(stage);
            // Fails when the watcher has ended, which it does not before this sender has.
            let _ = stages.send(stage);
        };
        work(&mut Operation::within(PATIENCE, &mut pins).observed(&observer))
    });
    let took = waits.end();
    Ok(Attended { answer: pins.outcome(answer.map_err(from_hsm))?, took })
}

/// Looks at tokens, which waits for programs that are in the middle of something, and says so when it lasts.
pub(crate) fn look<T>(terminal: &Terminal, work: impl FnOnce() -> T) -> T {
    std::thread::scope(|scope| {
        let (over, told) = channel::<()>();
        scope.spawn(move || {
            if told.recv_timeout(SILENT) == Err(RecvTimeoutError::Timeout) {
                terminal.request("Still looking at tokens: another program may be using one.");
            }
        });
        let answer = work();
        drop(over);
        answer
    })
}

/// Sums up the time in which the token itself had something to do.
struct Waits {
    began: Cell<Instant>,
    stage: Cell<Stage>,
    took: Cell<Duration>,
}

impl Waits {
    fn begin() -> Self {
        Self { began: Cell::new(Instant::now()), stage: Cell::new(Stage::Device), took: Cell::default() }
    }

    fn enter(&self, stage: Stage) {
        let lasted = self.began.replace(Instant::now()).elapsed();
        if !matches!(self.stage.replace(stage), Stage::Access | Stage::Pin) {
            self.took.set(self.took.get() + lasted);
        }
    }

    fn end(self) -> Duration {
        self.enter(Stage::Device);
        self.took.get()
    }
}

/// Tells of each stage that lasts, once, until the call has ended.
fn watch(stages: &Receiver<Stage>, tell: impl Fn(Stage)) {
    let mut next = stages.recv().ok();
    while let Some(stage) = next {
        let patience = match stage {
            Stage::Access => HELD,
            Stage::Touch => UNTOUCHED,
            Stage::Device => SILENT,
            // The question itself is to be seen.
            _ => Duration::MAX,
        };
        next = match stages.recv_timeout(patience) {
            Ok(stage) => Some(stage),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => {
                tell(stage);
                stages.recv().ok()
            }
        };
    }
}

fn tell(terminal: &Terminal, what: &str, stage: Stage) {
    let what = one_line(what);
    match stage {
        Stage::Touch => terminal.request(&format!("Touch the token: {what} ({} s)", PATIENCE.as_secs())),
        Stage::Access => terminal.request(&format!("Waiting for another program that uses the token: {what}")),
        _ => terminal.request(&format!("The token has not answered yet: {what}. If it blinks, touch it.")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn what_lasts_is_told_once() {
        let told = Mutex::new(Vec::new());
        let (stages, receiver) = channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let stages = stages;
                for stage in [Stage::Access, Stage::Device, Stage::Pin, Stage::Device, Stage::Touch] {
                    stages.send(stage).unwrap();
                }
                let deadline = Instant::now() + Duration::from_secs(20);
                while told.lock().unwrap().is_empty() && Instant::now() < deadline {
                    std::thread::yield_now();
                }
                stages.send(Stage::Device).unwrap();
            });
            watch(&receiver, |stage| told.lock().unwrap().push(stage));
        });
        assert_eq!(*told.lock().unwrap(), [Stage::Touch]);
    }
}
