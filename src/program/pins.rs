//! PINs and passphrases, and where they come from.
//!
//! In this order: the service manager's credential `claviger-pin`, the file that the locator names (read by the token itself), `pin-file` of the
//! configuration, a pinentry program, the controlling terminal. Never an argument, never an environment variable, never stdin.

#[cfg(not(feature = "cli"))]
mod nobody;
#[cfg(feature = "cli")]
mod pinentry;

use super::Terminal;
use super::terminal::one_line;
use crate::config::{self, PinEntryProgram};
use crate::error::{self, ErrorKind};
use crate::secret::SecretString;
use crate::token::{Pin, PinEntry, PinError, PinRequest, Purpose, Tries};
#[cfg(not(feature = "cli"))]
use nobody::Window;
#[cfg(feature = "cli")]
use pinentry::Window;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

type Result<T> = std::result::Result<T, PinError>;

/// How often a new passphrase may be typed differently the second time.
const TRIES: usize = 3;

/// The credential of the service manager: `LoadCredential=claviger-pin:/path` or `LoadCredentialEncrypted=` in the unit (systemd.exec(5)).
const CREDENTIAL: &str = "claviger-pin";

/// Why a window asked nobody.
#[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "there is no window"))]
enum Missing {
    /// The program that shows it failed, for this reason.
    Failed(String),
    /// This program is to end.
    Interrupted(error::Error),
}

/// Finds PINs and passphrases, and asks for them. Clones ask the same people.
#[derive(Clone)]
pub struct Pins {
    terminal: Terminal,
    file: Option<PathBuf>,
    pinentry: PinEntryProgram,
    time: Option<Duration>,
    /// What the token is wanted for.
    because: Option<String>,
    interrupted: Arc<Mutex<Option<error::Error>>>,
}

impl Pins {
    /// Credential and terminal, with as much time as somebody takes.
    pub fn new(terminal: &Terminal) -> Self {
        let (terminal, pinentry) = (*terminal, PinEntryProgram::None);
        Self { terminal, file: None, pinentry, time: None, because: None, interrupted: Arc::default() }
    }

    /// Every source that `config` names, and its `pin-timeout`.
    pub fn configured(terminal: &Terminal, config: &config::Token) -> Self {
        Self {
            file: config.pin_file.clone(),
            pinentry: config.pinentry.clone(),
            time: Some(config.pin_timeout),
            ..Self::new(terminal)
        }
    }

    /// Whether a PIN would be asked for by another program, in a window, unless the token's locator names a file with it.
    pub fn asks_in_a_window(&self) -> bool {
        credential().is_none() && self.file.is_none() && Window::find(&self.pinentry).is_some()
    }

    /// The token's answer; an interrupt at the prompt, which the token can only see as a missing PIN, is told as what it was.
    pub fn outcome<T>(self, answer: error::Result<T>) -> error::Result<T> {
        let interrupted = || self.interrupted.lock().unwrap_or_else(PoisonError::into_inner).take();
        // What the token made of it stays readable: a key may have been made before the question.
        answer.map_err(|error| match interrupted() {
            Some(interrupted) => interrupted.because(error),
            None => error,
        })
    }

    /// Asks for one secret: `title` names it and its token. `tries`: what is known of them. `again`: it is new, and typed a second time.
    fn ask(&self, title: &str, tries: Option<Tries>, again: bool, hint: &str) -> Result<SecretString> {
        let tries = tries.map(|tries| format!(" ({tries})")).unwrap_or_default();
        let question = format!("{}{tries}", one_line(title));
        let because = self.because.as_ref().map(|because| format!("{}.\n", one_line(because))).unwrap_or_default();
        if let Some(window) = Window::find(&self.pinentry) {
            match window.secret(&format!("{because}{question}"), again, self.time) {
                Ok(Some(secret)) => return Ok(secret),
                Ok(None) => return Err(PinError::pin_required("Nobody gave the PIN or passphrase.", "Try again.")),
                Err(Missing::Failed(why)) => {
                    self.terminal.warn(&format!("The pinentry program did not ask: {why}."));
                }
                Err(Missing::Interrupted(error)) => {
                    self.was_interrupted(error);
                    return Err(PinError::pin_required("The PIN or passphrase could not be asked for.", hint));
                }
            }
        }
        for _ in 0..if again { TRIES } else { 1 } {
            let first = self.typed(&format!("{because}{question}: "), hint)?;
            if !again || self.typed("The same again: ", hint)? == first {
                return Ok(first);
            }
            self.terminal.warn("The two are not the same.");
        }
        Err(PinError::pin_required("The new one was not typed the same twice.", "Run the command again."))
    }

    fn typed(&self, text: &str, hint: &str) -> Result<SecretString> {
        match self.terminal.secret(text, self.time) {
            Ok(Some(secret)) => Ok(secret),
            Ok(None) => Err(PinError::pin_required(
                "No PIN or passphrase was given: there is no terminal to ask on, it ended, or nobody answered.",
                hint,
            )),
            Err(error) => {
                self.was_interrupted(error);
                Err(PinError::pin_required("The PIN or passphrase could not be asked for.", hint))
            }
        }
    }

    fn was_interrupted(&self, error: error::Error) {
        if error.kind() == ErrorKind::Interrupted {
            *self.interrupted.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        }
    }
}

/// Where the credential is, if the service manager gave one.
fn credential() -> Option<PathBuf> {
    let directory = PathBuf::from(std::env::var_os("CREDENTIALS_DIRECTORY")?);
    let path = directory.join(CREDENTIAL);
    // One that is there and can not be used is an error, and not the same as none.
    (directory.is_absolute() && path.symlink_metadata().is_ok()).then_some(path)
}

impl PinEntry for Pins {
    fn credential(&mut self, request: &PinRequest<'_>) -> Result<Option<Pin>> {
        // What makes keys is not left in a file of the machine that uses them.
        if !matches!(request.purpose, Purpose::UserPin | Purpose::Passphrase) {
            return Ok(None);
        }
        if let Some(path) = credential() {
            return Pin::from_credential(&path).map(Some);
        }
        self.file.as_deref().filter(|_: &&Path| request.source.is_none()).map(Pin::from_file).transpose()
    }

    fn pin(&mut self, request: &PinRequest<'_>) -> Result<Pin> {
        let what = request.what;
        let tries = Some(request.tries_left);
        let on_a_terminal = "Run the command on a terminal.";
        let passphrase = "Run the command on a terminal; or give the passphrase as the service manager's credential `claviger-pin`, or in a file of \
             mode 0600 that `pin-file` under [token] names.";
        let unattended = "Run the command on a terminal; or give the PIN as the service manager's credential `claviger-pin`, or in a file of mode 0600 \
             that `pin-file` under [token] or `pin-source=file:/path` in the locator names.";
        let (title, tries, again, hint) = match request.purpose {
            Purpose::UserPin => (format!("PIN of {what}"), tries, false, unattended),
            Purpose::AdminPin => (format!("Admin PIN of {what}"), tries, false, on_a_terminal),
            Purpose::ManagementKey => {
                (format!("Management key of {what}, in hexadecimal digits"), tries, false, on_a_terminal)
            }
            Purpose::OwnerAuth => (format!("Owner authorization of {what}"), tries, false, on_a_terminal),
            Purpose::NewPin => (format!("New PIN of {what}"), None, true, on_a_terminal),
            Purpose::NewPassphrase => (format!("New passphrase of {what}"), None, true, on_a_terminal),
            _ => (format!("Passphrase of {what}"), None, false, passphrase),
        };
        Pin::new(String::clone(&*self.ask(&title, tries, again, hint)?))
    }

    fn confirm_last_try(&mut self, request: &PinRequest<'_>) -> bool {
        let text = format!("{}: {}.", one_line(request.what), request.tries_left);
        if let Some(window) = Window::find(&self.pinentry) {
            match window.confirm(&format!("{text} Spend the last try?"), self.time) {
                Ok(yes) => return yes,
                Err(Missing::Failed(_)) => {}
                Err(Missing::Interrupted(error)) => {
                    self.was_interrupted(error);
                    return false;
                }
            }
        }
        let text = format!("{text}\nType yes to spend the last try: ");
        match self.terminal.answer(&text, self.time) {
            Ok(answer) => answer.as_deref() == Some("yes"),
            Err(error) => {
                self.was_interrupted(error);
                false
            }
        }
    }
}

#[cfg(feature = "net")]
impl crate::token::PinPrompt for Pins {
    fn because(&mut self, reason: &str) {
        self.because = Some(reason.to_owned());
    }
}
