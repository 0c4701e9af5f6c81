//! The pinentry program: a window, or a screen on a terminal of its own.

use super::Missing;
use crate::config::PinEntryProgram;
use crate::program::terminal::{Before, SLICE, Signals, interrupted};
use crate::secret::SecretString;
use pinentry::{ConfirmationDialog, Error, PassphraseInput, unix};
use rustix::process::{Pid, Signal, kill_process};
use secrecy::ExposeSecret as _;
use std::fs::OpenOptions;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

/// How long somebody may take when nothing else is said: the program must end some time.
const TIME: Duration = Duration::from_secs(300);
/// How much longer the program itself may take: it was told when to give up.
const GRACE: Duration = Duration::from_secs(5);
/// How long it may take to end when it is told to.
const END: Duration = Duration::from_secs(1);
/// Longest text that is sent, in characters. Lines of the protocol have 1000 bytes (Assuan, section 3.1), and escapes take three for one.
const MAX_TEXT: usize = 240;

/// A pinentry program that can show itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Window {
    program: String,
    terminal: Option<String>,
}

impl Window {
    /// The program, if it is there, and if there is something it can show itself on. Without that it would fail, or wait for nobody.
    pub(super) fn find(config: &PinEntryProgram) -> Option<Self> {
        let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let display = set("DISPLAY").or_else(|| set("WAYLAND_DISPLAY")).is_some();
        let terminal = set("GPG_TTY");
        let program = match config {
            PinEntryProgram::None => return None,
            PinEntryProgram::Auto if display || terminal.is_some() => "pinentry",
            PinEntryProgram::Auto => return None,
            PinEntryProgram::Named(program) => program,
        };
        let shown = display || terminal.is_some() || OpenOptions::new().read(true).write(true).open("/dev/tty").is_ok();
        (shown && PassphraseInput::with_binary(program).is_some()).then(|| Self { program: program.into(), terminal })
    }

    /// Asks for a secret, twice if it is new. `None`: nobody gave it.
    pub(super) fn secret(
        &self,
        text: &str,
        again: bool,
        time: Option<Duration>,
    ) -> Result<Option<SecretString>, Missing> {
        let (this, text) = (self.clone(), cut(text));
        self.bounded(time, move |seconds| {
            let Some(mut input) = PassphraseInput::with_binary(&this.program) else { return Ok(None) };
            input.with_title("Claviger").with_description(&text).with_prompt("PIN:").with_timeout(seconds);
            input.with_unix_options(this.options());
            if again {
                input.with_confirmation("The same again:", "The two are not the same.");
            }
            answer(input.interact().map(|secret| Some(secret.expose_secret().to_owned().into())))
        })
    }

    /// Asks for a yes.
    pub(super) fn confirm(&self, text: &str, time: Option<Duration>) -> Result<bool, Missing> {
        let (this, text) = (self.clone(), cut(text));
        self.bounded(time, move |seconds| {
            let Some(mut dialog) = ConfirmationDialog::with_binary(&this.program) else { return Ok(false) };
            dialog.with_ok("Yes").with_cancel("No").with_timeout(seconds);
            dialog.with_unix_options(this.options());
            answer(dialog.confirm(&text).map(Some)).map(|yes| yes == Some(true))
        })
    }

    /// Runs `work` on a thread of its own, and ends the program that it started when the time is up, or this one is to end: it must not stay behind on
    /// somebody's terminal.
    fn bounded<T: Send + 'static>(
        &self,
        time: Option<Duration>,
        work: impl FnOnce(u16) -> Result<T, String> + Send + 'static,
    ) -> Result<T, Missing> {
        let signals = Signals::begin().map_err(Missing::Interrupted)?;
        let before = Before::of(self.terminal.as_deref().unwrap_or("/dev/tty"));
        let time = time.unwrap_or(TIME);
        let seconds = u16::try_from(time.as_secs()).unwrap_or(u16::MAX).max(1);
        let (sender, receiver) = sync_channel(1);
        let (begun, thread) = sync_channel(1);
        let asking = std::thread::Builder::new().name("claviger-pin".into()).spawn(move || {
            // Fail when nobody waits any more; a secret is wiped with the message.
            let _ = begun.send(std::fs::read_link("/proc/thread-self"));
            let _ = sender.send(work(seconds));
        });
        asking.map_err(|error| Missing::Failed(error.to_string()))?;
        let thread = thread.recv().ok().and_then(Result::ok).map(|thread| Path::new("/proc").join(thread));
        let end = || {
            end_programs(thread.as_deref());
            let _ = receiver.recv_timeout(END);
            before.iter().for_each(Before::restore);
        };
        let until = Instant::now() + time + GRACE;
        loop {
            let answer = receiver.recv_timeout(SLICE);
            // An interrupt on a terminal goes to that program, too, which then says that nobody answered.
            let stopped = signals.interrupted();
            let late = Instant::now() >= until;
            match answer {
                _ if stopped => {
                    end();
                    return Err(Missing::Interrupted(interrupted()));
                }
                Ok(answer) => return answer.map_err(Missing::Failed),
                Err(RecvTimeoutError::Timeout) if late => {
                    end();
                    return Err(Missing::Failed("it did not answer in time".into()));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(Missing::Failed("it failed".into())),
            }
        }
    }

    fn options(&self) -> unix::Options<'_> {
        let options = unix::Options::builder();
        match &self.terminal {
            Some(terminal) => options.tty_name(terminal).build(),
            None => options.build(),
        }
    }
}

fn cut(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}

fn answer<T>(answer: Result<Option<T>, Error>) -> Result<Option<T>, String> {
    match answer {
        Ok(answer) => Ok(answer),
        Err(Error::Cancelled | Error::Timeout) => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// Ends what the thread has started and still waits for. The pinentry crate does not tell its process; the kernel does (proc(5),
/// `/proc/PID/task/TID/children`), where it was built to.
fn end_programs(thread: Option<&Path>) {
    let children = thread.and_then(|thread| std::fs::read_to_string(thread.join("children")).ok()).unwrap_or_default();
    for pid in children.split_whitespace().filter_map(|pid| pid.parse().ok()).filter_map(Pid::from_raw) {
        // It may have ended by itself.
        let _ = kill_process(pid, Signal::TERM);
    }
}
