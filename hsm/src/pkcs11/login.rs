//! Logging in: where the PIN comes from, how many tries are left, and never the same wrong PIN twice.

use cryptoki::error::{Error as Cryptoki, RvError};
use cryptoki::session::{Session, SessionState, UserType};
use cryptoki::slot::TokenInfo;
use cryptoki::types::AuthPin;

use super::Found;
use super::fail::Foreign;
use super::module::Module;
use crate::error::{Error, ErrorKind, Result};
use crate::files::read_secret;
use crate::pin::{PinEntry, PinRequest, Purpose, Tries};
use crate::secret::Pin;
use crate::uri::Pkcs11Uri;

/// How this token is logged in to, again when its session went stale.
pub(super) enum Login {
    /// The token asks for none.
    NotNeeded,
    /// The token has a PIN pad of its own.
    Pad,
    /// With this PIN. Where another session of this process was logged in already, it has not been tried yet.
    Pin(Pin),
    /// The PIN was kept and failed; it has been wiped.
    Failed,
}

impl Login {
    /// The login of `open` and of `generate`: asks for the PIN once.
    pub(super) fn first(
        module: &Module,
        found: &Found,
        session: &Session,
        uri: &Pkcs11Uri,
        pins: &mut dyn PinEntry,
    ) -> Result<Self> {
        let info = module.token_info(found)?;
        if !info.token_initialized() {
            return Err(not_ready(found, "is not initialized"));
        }
        if !info.login_required() {
            return Ok(Self::NotNeeded);
        }
        if !info.user_pin_initialized() {
            return Err(not_ready(found, "has no user PIN yet"));
        }
        let tries = tries_left(&info);
        let request = PinRequest::new(&found.name, Purpose::UserPin, tries);
        match tries {
            Tries::None => return Err(locked(found)),
            Tries::Last if !pins.confirm_last_try(&request) => return Err(last(found)),
            _ => {}
        }
        if info.protected_authentication_path() {
            log_in(module, found, session, None)?;
            return Ok(Self::Pad);
        }
        let pin = match uri.pin_source() {
            Some(path) => {
                let bytes = read_secret(path, "PIN file", true, Pin::MAX_LEN + 2)?;
                let text = std::str::from_utf8(&bytes).map_err(|_| {
                    Error::new(
                        ErrorKind::PinRequired,
                        format!("The PIN file \"{}\" is not UTF-8 text.", path.display()),
                        "Write the PIN into it, with or without a newline at the end.",
                    )
                })?;
                let text = text.strip_suffix('\n').unwrap_or(text);
                Pin::new(text.strip_suffix('\r').unwrap_or(text).to_owned())?
            }
            None => pins.pin(&request)?,
        };
        log_in(module, found, session, Some(&pin))?;
        Ok(Self::Pin(pin))
    }

    /// Whether the session, or its login, is gone. Modules do not always say so in the answer to an operation: kryoptic gives
    /// CKR_GENERAL_ERROR for a private key whose login is gone.
    pub(super) fn is_lost(&self, session: &Session) -> bool {
        let Ok(info) = session.get_session_info() else { return true };
        let logged_in = matches!(info.session_state(), SessionState::RoUser | SessionState::RwUser);
        !logged_in && !matches!(self, Self::NotNeeded)
    }

    /// The login of a session that replaces a stale one. Nobody is asked, so the last try is never spent here.
    pub(super) fn again(&mut self, module: &Module, found: &Found, session: &Session) -> Result<()> {
        let outcome = match self {
            Self::NotNeeded => return Ok(()),
            Self::Failed => {
                return Err(Error::new(
                    ErrorKind::WrongPin,
                    format!("{} refused its PIN before; it is not sent again.", found.name),
                    "Open the token again with the right PIN: restart what uses it.",
                ));
            }
            Self::Pad | Self::Pin(_) => match tries_left(&module.token_info(found)?) {
                Tries::None => return Err(locked(found)),
                Tries::Last => return Err(last(found)),
                _ => log_in(module, found, session, if let Self::Pin(pin) = self { Some(pin) } else { None }),
            },
        };
        if outcome.as_ref().is_err_and(|error| error.kind() == ErrorKind::WrongPin) && matches!(self, Self::Pin(_)) {
            *self = Self::Failed;
        }
        outcome
    }
}

fn log_in(module: &Module, found: &Found, session: &Session, pin: Option<&Pin>) -> Result<()> {
    let pin = pin.map(|pin| AuthPin::new(pin.expose().into()));
    let error = match session.login(UserType::User, pin.as_ref()) {
        // One login holds for all of this process's sessions with the token.
        Ok(()) | Err(Cryptoki::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => return Ok(()),
        Err(error) => Foreign::from_call(error),
    };
    match error.rv() {
        Some(RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange) => {
            let tries = module.token_info(found).map(|info| tries_left(&info)).unwrap_or(Tries::Low);
            Err(Error::new(
                ErrorKind::WrongPin,
                format!("{} refuses the PIN (C_Login); {tries}.", found.name),
                "Try again with the right PIN; it is not resent by itself.",
            ))
        }
        Some(RvError::PinLocked) => Err(locked(found)),
        _ => Err(error.typed(&found.name)),
    }
}

/// PKCS#11 3.0, section 3.2: the `CKF_USER_PIN_*` flags.
pub(super) fn tries_left(info: &TokenInfo) -> Tries {
    if info.user_pin_locked() {
        Tries::None
    } else if info.user_pin_final_try() {
        Tries::Last
    } else if info.user_pin_count_low() {
        Tries::Low
    } else {
        Tries::Unknown
    }
}

fn not_ready(found: &Found, why: &str) -> Error {
    Error::new(
        ErrorKind::TokenNotReady,
        format!("{} {why}.", found.name),
        "Initialize the token and set its user PIN with its maker's tool, for example `softhsm2-util --init-token`.",
    )
}

fn locked(found: &Found) -> Error {
    Error::new(
        ErrorKind::PinLocked,
        format!("{} has locked its PIN; no try is left.", found.name),
        "Unlock it with its SO PIN or PUK and its maker's tool.",
    )
}

fn last(found: &Found) -> Error {
    Error::new(
        ErrorKind::PinLast,
        format!("{} has ONE try left before it locks; nothing was sent.", found.name),
        "Make sure of the PIN, then run the command where it can ask you, and agree to spend the last try.",
    )
}
