//! PINs and passphrases: from the terminal, and from nowhere else. (A `pin-source` in the locator is read by the token itself.)

use super::Terminal;
use crate::error::{self, ErrorKind};
use crate::secret::SecretString;
use crate::token::{Pin, PinEntry, PinError, PinRequest, Purpose};

type Result<T> = std::result::Result<T, PinError>;

/// How often a new passphrase may be typed differently the second time.
const TRIES: usize = 3;

/// Asks for PINs and passphrases on the terminal.
pub struct Pins<'a> {
    terminal: &'a Terminal,
    interrupted: Option<error::Error>,
}

impl<'a> Pins<'a> {
    /// On that terminal.
    pub fn new(terminal: &'a Terminal) -> Self {
        Self { terminal, interrupted: None }
    }

    /// The token's answer; an interrupt at the prompt, which the token can only see as a missing PIN, is told as what it was.
    pub fn outcome<T>(self, answer: error::Result<T>) -> error::Result<T> {
        answer.map_err(|error| self.interrupted.unwrap_or(error))
    }

    fn ask(&mut self, text: &str, hint: &str) -> Result<SecretString> {
        match self.terminal.secret(text) {
            Ok(Some(secret)) => Ok(secret),
            Ok(None) => Err(PinError::pin_required(
                "No PIN or passphrase was given: there is no terminal to ask on, or it ended.",
                hint,
            )),
            Err(error) => {
                if error.kind() == ErrorKind::Interrupted {
                    self.interrupted = Some(error);
                }
                Err(PinError::pin_required("The PIN or passphrase could not be asked for.", hint))
            }
        }
    }
}

impl PinEntry for Pins<'_> {
    fn pin(&mut self, request: &PinRequest<'_>) -> Result<Pin> {
        let what = request.what;
        let on_a_terminal = "Run the command on a terminal.";
        match request.purpose {
            Purpose::UserPin => {
                let hint = "Run the command on a terminal, or put the PIN into a file of mode 0600 and add `pin-source=file:/path` to the locator.";
                let pin = self.ask(&format!("PIN of {what} ({}): ", request.tries_left), hint)?;
                Pin::new(String::clone(&pin))
            }
            Purpose::NewPassphrase => {
                for _ in 0..TRIES {
                    let first = self.ask(&format!("New passphrase of {what}: "), on_a_terminal)?;
                    let second = self.ask("The same again: ", on_a_terminal)?;
                    if first == second {
                        return Pin::new(String::clone(&first));
                    }
                    self.terminal.warn("The two are not the same.");
                }
                Err(PinError::pin_required(
                    "The new passphrase was not typed the same twice.",
                    "Run the command again.",
                ))
            }
            _ => {
                let passphrase = self.ask(&format!("Passphrase of {what}: "), on_a_terminal)?;
                Pin::new(String::clone(&passphrase))
            }
        }
    }

    fn confirm_last_try(&mut self, request: &PinRequest<'_>) -> bool {
        let text = format!("{}: {}.\nType yes to spend the last try: ", request.what, request.tries_left);
        self.terminal.ask(&text, "Run the command on a terminal.").is_ok_and(|answer| answer == "yes")
    }
}
