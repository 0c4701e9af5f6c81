//! Logging in: where the PIN comes from, how many tries are left, and never the same wrong PIN twice.

use cryptoki::error::{Error as Cryptoki, RvError};
use cryptoki::session::{Session, SessionState, UserType};
use cryptoki::slot::TokenInfo;
use cryptoki::types::AuthPin;

use super::fail::Foreign;
use super::module::Module;
use super::{Found, Live};
use crate::error::{Error, ErrorKind, Result};
use crate::operation::Operation;
use crate::pin::keeper::{last, locked, still};
use crate::pin::{KeepPin, Keeper, PinRequest, Purpose, Tries};
use crate::secret::Pin;
use crate::uri::Pkcs11Uri;

/// How this token is logged in to, again when its session went stale.
pub(super) enum Login {
    /// The token asks for none.
    NotNeeded,
    /// The token has a PIN pad of its own.
    Pad(KeepPin),
    /// With a PIN.
    Pin(Keeper),
}

impl Login {
    /// The login of `open` and of `generate`, and whether it was made here: see [`Login::again`].
    pub(super) fn first(
        module: &Module,
        found: &Found,
        session: &Session,
        uri: &Pkcs11Uri,
        keep: KeepPin,
        operation: &mut Operation<'_>,
    ) -> Result<(Self, bool)> {
        let info = module.token_info(found)?;
        if !info.token_initialized() {
            return Err(not_ready(found, "is not initialized"));
        }
        let mut login = if !info.login_required() {
            Self::NotNeeded
        } else if !info.user_pin_initialized() {
            return Err(not_ready(found, "has no user PIN yet"));
        } else if info.protected_authentication_path() {
            Self::Pad(keep)
        } else {
            Self::Pin(Keeper::new(keep, uri.pin_source()))
        };
        let ours = login.again(module, found, session, operation)?;
        Ok((login, ours))
    }

    /// Whether the session, or its login, is gone. Modules do not always say so in the answer to an operation: kryoptic gives
    /// CKR_GENERAL_ERROR for a private key whose login is gone.
    pub(super) fn is_lost(&self, session: &Session) -> bool {
        let Ok(info) = session.get_session_info() else { return true };
        let logged_in = matches!(info.session_state(), SessionState::RoUser | SessionState::RwUser);
        !logged_in && !matches!(self, Self::NotNeeded)
    }

    /// Whether the next login needs somebody.
    pub(super) fn is_locked(&self) -> bool {
        match self {
            Self::NotNeeded => false,
            Self::Pad(_) => true,
            Self::Pin(keeper) => !keeper.asks_nobody(),
        }
    }

    /// What is kept of a session after its operation. By the policy `always` nothing: a login that was made for it is ended, one that something
    /// else in this process made is left alone.
    pub(super) fn keep(&self, live: Live) -> Option<Live> {
        let policy = match self {
            Self::NotNeeded => return Some(live),
            Self::Pad(policy) => *policy,
            Self::Pin(keeper) => keeper.policy(),
        };
        if policy != KeepPin::Always {
            return Some(live);
        }
        if live.ours {
            // Where it fails, the session is gone, and the login with it.
            let _ = live.session.logout();
        }
        None
    }

    /// The login of a session. Gives whether it was made here; one login holds for all of this process's sessions with the token, and another
    /// may have made it.
    pub(super) fn again(
        &mut self,
        module: &Module,
        found: &Found,
        session: &Session,
        operation: &mut Operation<'_>,
    ) -> Result<bool> {
        match self {
            Self::NotNeeded => Ok(false),
            Self::Pad(_) => {
                let tries = tries_left(&module.token_info(found)?);
                let request = PinRequest::new(&found.name, Purpose::UserPin, tries);
                match tries {
                    Tries::None => return Err(locked(&found.name)),
                    Tries::Last if !operation.ask(|pins| pins.confirm_last_try(&request)) => {
                        return Err(last(&found.name));
                    }
                    _ => {}
                }
                // Whoever types it there is being asked, too: the deadline moves.
                operation.ask(|_| log_in(module, found, session, None))
            }
            Self::Pin(keeper) => {
                let tries = tries_left(&module.token_info(found)?);
                let request = PinRequest::new(&found.name, Purpose::UserPin, tries);
                let mut ours = false;
                keeper.unlock(request, operation, |pin| {
                    still(&found.name, tries, tries_left(&module.token_info(found)?))?;
                    ours = log_in(module, found, session, Some(pin))?;
                    Ok(())
                })?;
                Ok(ours)
            }
        }
    }
}

fn log_in(module: &Module, found: &Found, session: &Session, pin: Option<&Pin>) -> Result<bool> {
    let pin = pin.map(|pin| AuthPin::new(pin.expose().into()));
    let error = match session.login(UserType::User, pin.as_ref()) {
        Ok(()) => return Ok(true),
        Err(Cryptoki::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => return Ok(false),
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
        Some(RvError::PinLocked) => Err(locked(&found.name)),
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
