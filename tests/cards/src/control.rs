//! The hand that holds the card: pulls it, touches it, makes it misbehave. Shared by the thread that reads standard input and
//! the one that is the card.

use std::io::{self, BufRead as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What the finger does when the card asks for a touch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Finger {
    /// Touches this long after the card has asked.
    After(Duration),
    Never,
}

/// How a wait for a touch ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Touch {
    /// The card was touched.
    Touched,
    /// Nobody touched it in time.
    NotTouched,
    /// The card was pulled while it waited.
    Pulled,
}

/// The state of the hand. See the crate's documentation for the commands.
pub struct Control {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    inserted: bool,
    ended: bool,
    /// The connection to the reader while the card is in it.
    connection: Option<TcpStream>,
    ready_said: bool,
    finger: Finger,
    /// The card is waiting for a touch.
    asking: bool,
    garbage: bool,
    hang: Option<Duration>,
    pull_during: bool,
    reset: bool,
    operations: u64,
}

/// What is to be done to one APDU besides answering it.
pub(crate) struct Whim {
    /// Forget what is in RAM first.
    pub(crate) reset: bool,
    /// Answer with [`crate::garbage`].
    pub(crate) garbage: bool,
}

impl Default for Control {
    fn default() -> Self {
        Self::new()
    }
}

impl Control {
    /// A card that is in its reader, with a finger that touches at once.
    pub fn new() -> Self {
        let state = State {
            inserted: true,
            ended: false,
            connection: None,
            ready_said: false,
            finger: Finger::After(Duration::ZERO),
            asking: false,
            garbage: false,
            hang: None,
            pull_during: false,
            reset: false,
            operations: 0,
        };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `done` gives something, or until `limit`, which `None` puts off for ever; then the last thing it gave.
    fn wait<T>(&self, limit: Option<Instant>, mut done: impl FnMut(&mut State) -> Option<T>) -> Option<T> {
        let mut state = self.state();
        loop {
            if let Some(value) = done(&mut state) {
                return Some(value);
            }
            state = match limit.map(|limit| limit.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => return None,
                Some(left) => self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Asks the finger for a touch and waits for it for `timeout`, or until the card is pulled.
    pub fn touch(&self, timeout: Duration) -> Touch {
        self.state().asking = true;
        let outcome = self.ask(timeout);
        self.state().asking = false;
        outcome
    }

    fn ask(&self, timeout: Duration) -> Touch {
        let asked = Instant::now();
        let end = asked + timeout;
        loop {
            let mut until = end;
            // Woken whenever the finger changes its mind; then the question is asked anew.
            let seen = self.wait(Some(asked), |state| Some((state.connection.is_some(), state.finger)));
            let Some((true, finger)) = seen else { return Touch::Pulled };
            if let Finger::After(delay) = finger
                && asked + delay <= end
            {
                until = asked + delay;
            }
            let changed = |state: &mut State| (state.connection.is_none() || state.finger != finger).then_some(());
            if self.wait(Some(until), changed).is_none() {
                return if matches!(finger, Finger::After(delay) if delay <= timeout) {
                    Touch::Touched
                } else {
                    Touch::NotTouched
                };
            }
        }
    }

    /// Waits while the card is out of its reader. False when the program ends.
    pub(crate) fn wait_inserted(&self) -> bool {
        self.wait(None, |state| (state.ended || state.inserted).then_some(!state.ended)).unwrap_or(false)
    }

    /// Waits a little before the reader is tried again.
    pub(crate) fn wait_retry(&self) {
        let _ = self.wait(Some(Instant::now() + Duration::from_millis(10)), |state| state.ended.then_some(()));
    }

    /// Makes `stream` the connection, if the card is still wanted in its reader, and says `ready` the first time.
    pub(crate) fn connected(&self, stream: &TcpStream) -> io::Result<bool> {
        let stream = stream.try_clone()?;
        let first = {
            let mut state = self.state();
            if state.ended || !state.inserted {
                return Ok(false);
            }
            state.connection = Some(stream);
            !std::mem::replace(&mut state.ready_said, true)
        };
        if first {
            say("ready")?;
        }
        Ok(true)
    }

    /// The connection has gone, whoever ended it.
    pub(crate) fn disconnected(&self) {
        self.state().connection = None;
    }

    /// Called with every whole command: waits if the card is to hang. `None` if the card is pulled instead of answering.
    pub(crate) fn whim(&self, is_select: bool) -> Option<Whim> {
        let hang = self.state().hang.take();
        if let Some(hang) = hang {
            let pulled = |state: &mut State| state.connection.is_none().then_some(());
            if self.wait(Some(Instant::now() + hang), pulled).is_some() {
                return None;
            }
        }
        let mut state = self.state();
        if state.pull_during && !is_select {
            state.pull_during = false;
            state.pull();
            return None;
        }
        Some(Whim { reset: std::mem::take(&mut state.reset), garbage: state.garbage })
    }

    /// Counts an operation with a private key.
    pub(crate) fn count_operation(&self) {
        self.state().operations += 1;
    }

    /// Reads commands to the end of standard input; then the card is pulled and [`crate::run`] returns.
    pub(crate) fn obey(&self) {
        for line in io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            if say(&self.command(&line)).is_err() {
                break;
            }
        }
        let mut state = self.state();
        state.ended = true;
        state.pull();
        self.changed.notify_all();
    }

    fn command(&self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        let milliseconds = |text: &str| text.parse().map(Duration::from_millis);
        let mut state = self.state();
        match words[..] {
            ["pull"] => state.pull(),
            ["insert"] => state.inserted = true,
            ["reset"] => state.reset = true,
            ["touch", "now"] => state.finger = Finger::After(Duration::ZERO),
            ["touch", "never"] => state.finger = Finger::Never,
            ["touch", "after", delay] => match milliseconds(delay) {
                Ok(delay) => state.finger = Finger::After(delay),
                Err(error) => return format!("error {delay} is no number of milliseconds: {error}"),
            },
            ["garbage", "on"] => state.garbage = true,
            ["garbage", "off"] => state.garbage = false,
            ["hang", delay] => match milliseconds(delay) {
                Ok(delay) => state.hang = Some(delay),
                Err(error) => return format!("error {delay} is no number of milliseconds: {error}"),
            },
            ["pull-during"] => state.pull_during = true,
            ["asking"] => return format!("ok {}", state.asking),
            ["operations"] => return format!("ok {}", state.operations),
            _ => return format!("error no command is called {line:?}"),
        }
        self.changed.notify_all();
        "ok".into()
    }
}

impl State {
    fn pull(&mut self) {
        self.inserted = false;
        if let Some(connection) = self.connection.take() {
            // It may be gone already, which is what was wanted.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

fn say(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}
