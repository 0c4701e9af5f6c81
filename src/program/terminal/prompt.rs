//! Reading an answer from the controlling terminal: a secret unseen, interruptible, and for a bounded time.

use crate::error::{Error, ErrorKind, Result};
use crate::secret::{SecretBytes, SecretString};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{LocalModes, OptionalActions, Termios, isatty, tcgetattr, tcgetpgrp, tcsetattr};
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Longest answer that is read, in bytes, with its line end.
const MAX: usize = 1024;

/// How often a prompt looks whether it should end. A signal may reach another thread than the one that waits here.
pub(in crate::program) const SLICE: Duration = Duration::from_millis(100);

/// What a prompt gave.
pub(super) enum Answer {
    Given(SecretString),
    /// There is no terminal, this process is in its background, or its input ended.
    Nobody,
    /// The time was up.
    Late,
}

/// Shows `text` and reads a line; `secret`: one that is not shown. `time`: how long somebody may take.
pub(super) fn ask(text: &str, secret: bool, time: Option<Duration>) -> Result<Answer> {
    let Ok(mut tty) = OpenOptions::new().read(true).write(true).open("/dev/tty") else { return Ok(Answer::Nobody) };
    // A background job that reads would be stopped, and with it everything else that this process does.
    if !isatty(&tty) || tcgetpgrp(&tty).ok() != Some(rustix::process::getpgrp()) {
        return Ok(Answer::Nobody);
    }
    let until = time.map(|time| Instant::now() + time);
    let signals = Signals::begin()?;
    let unseen = if secret { Unseen::begin(&tty) } else { None };
    if secret && unseen.is_none() {
        return Ok(Answer::Nobody);
    }
    if tty.write_all(super::for_screen(text, &tty).as_bytes()).is_err() {
        return Ok(Answer::Nobody);
    }
    let answer = wait(&mut tty, until, &signals);
    if secret || !matches!(answer, Ok(Answer::Given(_))) {
        // The line end that was not shown; the terminal may be gone.
        let _ = tty.write_all(b"\n");
    }
    answer
}

fn wait(tty: &mut File, until: Option<Instant>, signals: &Signals) -> Result<Answer> {
    // The terminal gives whole lines. A longer one is read in parts, and refused.
    let mut line = SecretBytes::from(vec![0; MAX]);
    loop {
        if signals.interrupted() {
            return Err(interrupted());
        }
        if until.is_some_and(|until| Instant::now() >= until) {
            return Ok(Answer::Late);
        }
        let slice = Timespec { tv_sec: 0, tv_nsec: SLICE.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&*tty, PollFlags::IN)], Some(&slice)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => continue,
            Ok(_) => {}
            Err(_) => return Ok(Answer::Nobody),
        }
        return Ok(match tty.read(&mut line) {
            Ok(read) if (1..MAX).contains(&read) => {
                let text = line[..read].strip_suffix(b"\n").unwrap_or(&line[..read]);
                std::str::from_utf8(text).map_or(Answer::Nobody, |text| Answer::Given(text.to_owned().into()))
            }
            _ => Answer::Nobody,
        });
    }
}

/// The question was ended by a signal, or with the program.
pub(in crate::program) fn interrupted() -> Error {
    Error::new(ErrorKind::Interrupted, "Interrupted.", "Run the command again.")
}

/// While it lives, what is typed is not shown.
struct Unseen(File, Termios);

impl Unseen {
    fn begin(tty: &File) -> Option<Self> {
        let before = tcgetattr(tty).ok()?;
        let mut unseen = before.clone();
        unseen.local_modes -= LocalModes::ECHO | LocalModes::ECHONL;
        unseen.local_modes |= LocalModes::ICANON | LocalModes::ISIG;
        let tty = tty.try_clone().ok()?;
        // What was typed before the question is no answer to it.
        tcsetattr(&tty, OptionalActions::Flush, &unseen).ok()?;
        Some(Self(tty, before))
    }
}

impl Drop for Unseen {
    fn drop(&mut self) {
        // What is typed late is thrown away: it may be a PIN, and the next program would read it.
        let _ = tcsetattr(&self.0, OptionalActions::Flush, &self.1);
    }
}

/// A terminal as it was.
#[cfg(feature = "cli")]
pub(in crate::program) struct Before(File, Termios);

#[cfg(feature = "cli")]
impl Before {
    /// `None`: `path` is no terminal that can be opened.
    pub(in crate::program) fn of(path: &str) -> Option<Self> {
        let tty = OpenOptions::new().read(true).write(true).open(path).ok()?;
        let before = tcgetattr(&tty).ok()?;
        Some(Self(tty, before))
    }

    /// Makes it so again, after a program that was ended in the middle of a question.
    pub(in crate::program) fn restore(&self) {
        if tcgetpgrp(&self.0).is_ok_and(|group| group == rustix::process::getpgrp()) {
            let _ = tcsetattr(&self.0, OptionalActions::Flush, &self.1);
        }
    }
}

/// While it lives, SIGINT and SIGTERM end the prompt instead of the process, so that the terminal's echo is restored first, and no pinentry program is left behind.
pub(in crate::program) struct Signals;

/// Whether an interrupt ends the process. Set when the first prompt begins; before that the system's default does it.
static ENDS_PROCESS: OnceLock<Arc<AtomicBool>> = OnceLock::new();
/// An interrupt came.
static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();
/// The program handles interrupts itself.
static HANDLED: AtomicBool = AtomicBool::new(false);
/// The program ends: nobody is to be asked any more.
static OVER: AtomicBool = AtomicBool::new(false);

/// From now on the caller handles interrupts itself: they no longer end the process after a prompt.
pub fn interrupts_are_handled() {
    HANDLED.store(true, Ordering::SeqCst);
    if let Some(flag) = ENDS_PROCESS.get() {
        flag.store(false, Ordering::SeqCst);
    }
}

/// Ends the prompt that is shown, if there is one, and all later ones: the program ends.
pub fn prompts_are_over() {
    OVER.store(true, Ordering::SeqCst);
}

impl Signals {
    pub(in crate::program) fn begin() -> Result<Self> {
        let ends = ENDS_PROCESS.get_or_init(|| Arc::new(AtomicBool::new(true)));
        let came = INTERRUPTED.get_or_init(Arc::default);
        static REGISTERED: AtomicBool = AtomicBool::new(false);
        if !REGISTERED.swap(true, Ordering::SeqCst) {
            for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
                signal_hook::flag::register_conditional_default(signal, ends.clone())
                    .and_then(|_| signal_hook::flag::register(signal, came.clone()))
                    .map_err(|error| {
                        let what = format!("Could not handle interrupts: sigaction: {error}.");
                        Error::new(ErrorKind::Internal, what, "Run it where signals can be handled.")
                    })?;
            }
        }
        came.store(false, Ordering::SeqCst);
        ends.store(false, Ordering::SeqCst);
        Ok(Self)
    }

    pub(in crate::program) fn interrupted(&self) -> bool {
        OVER.load(Ordering::SeqCst) || INTERRUPTED.get().is_some_and(|came| came.load(Ordering::SeqCst))
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        if let Some(ends) = ENDS_PROCESS.get() {
            ends.store(!HANDLED.load(Ordering::SeqCst), Ordering::SeqCst);
        }
    }
}
