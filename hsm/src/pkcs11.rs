//! Tokens behind a PKCS#11 module (versions 2.40 to 3.2), loaded at run time from the locator's `module-path`.
//!
//! A key is found by its names, never by slot number, and never by `CKA_DERIVE` or `CKA_EC_PARAMS`, which modules fill in
//! differently. Its curve is told by the length of the public point: `CKA_EC_POINT` is 32 or 65 raw bytes, or 34 or 67 as a DER
//! OCTET STRING. X25519 keys come in two dialects, and both derive alike (PKCS#11 3.0, section 2.3.20 `CKM_ECDH1_DERIVE`, KDF
//! null, raw peer point): the standard `CKK_EC_MONTGOMERY`, and SoftHSM 2's `CKK_EC_EDWARDS` with the OID of X25519.
//!
//! One read-only session is opened and kept. When it went stale (token pulled, reader reset, module logged out) it is opened anew
//! and logged in with the PIN kept in memory, once per agree; the key must then be the same. A PIN that failed there is
//! forgotten and never resent. Modules stay loaded and initialized until the process ends; several tokens may share one.
//!
//! The shared secret passes through a session object and a buffer of the `cryptoki` crate, which is freed without being wiped.

mod fail;
mod login;
mod manage;
mod module;
mod objects;

use std::path::Path;
use std::time::Duration;

use cryptoki::object::ObjectHandle;
use cryptoki::session::Session;
use cryptoki::slot::Slot;

use crate::curve::{PublicKey, same_curve};
use crate::device::PinState;
use crate::error::{Error, ErrorKind, Result};
use crate::operation::{Operation, Stage};
use crate::pin::keeper::locked;
use crate::pin::{KeepPin, Tries};
use crate::secret::SharedSecret;
use crate::token::{Hints, PinPolicy, Presence, Token, TokenKind, Touch, check_expected};
use crate::uri::Pkcs11Uri;

pub(crate) use manage::generate;
pub use manage::{is_hardware, list};

use fail::Foreign;
use login::{Login, tries_left};
use module::Module;

/// An operation that took this long at opening waited for a person.
const TOUCHED: Duration = Duration::from_millis(1500);

/// Finds the key, logs in, and proves the pair: see [`crate::open`].
pub(crate) fn open(
    uri: &Pkcs11Uri,
    expected: Option<&PublicKey>,
    keep: KeepPin,
    operation: &mut Operation<'_>,
) -> Result<Box<dyn Token>> {
    let module = Module::load(uri)?;
    let found = module.find_token(uri)?;
    let session = module.context.open_ro_session(found.slot).map_err(|e| found.failed(e))?;
    let (login, ours) = Login::first(&module, &found, &session, uri, keep, operation)?;
    let key = objects::find_key(&session, uri, &found.name).map_err(|e| e.typed(&found.name))?;
    let name = format!("{}, object \"{}\"", found.name, key.label);
    check_expected(&key.public, expected, &name)?;
    operation.before_deadline(&name)?;
    operation.enter(Stage::Device);
    let latency = objects::prove(&session, &key, &name)?;
    let hints = Hints {
        kind: TokenKind::Pkcs11,
        label: name,
        hardware: found.hardware,
        touch: if latency >= TOUCHED { Touch::Always } else { Touch::Unknown },
        pin: if matches!(login, Login::NotNeeded) { PinPolicy::Never } else { PinPolicy::Once },
        latency,
    };
    let live = login.keep(Live { session, key: key.private, ours });
    let serial = found.info.serial_number().to_owned();
    Ok(Box::new(Pkcs11Token { module, uri: uri.clone(), serial, public: key.public, hints, login, live }))
}

struct Pkcs11Token {
    module: Module,
    uri: Pkcs11Uri,
    /// `CK_TOKEN_INFO.serialNumber` of the token that was opened.
    serial: String,
    public: PublicKey,
    hints: Hints,
    login: Login,
    live: Option<Live>,
}

/// A session that is logged in, and the private key's handle in it.
struct Live {
    session: Session,
    key: ObjectHandle,
    /// The login was made for this session; otherwise something else in this process had made it.
    ours: bool,
}

impl Token for Pkcs11Token {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn hints(&self) -> &Hints {
        &self.hints
    }

    fn agree(&mut self, peer: &PublicKey, operation: &mut Operation<'_>) -> Result<SharedSecret> {
        same_curve(self.public.curve(), peer)?;
        operation.before_deadline(&self.hints.label)?;
        if let Some(live) = self.live.take() {
            let (answer, lost) = self.attempt(live, peer, operation);
            if !lost {
                return self.in_time(answer, operation);
            }
        }
        // The session was lost, now or before: one try on a new one.
        operation.before_deadline(&self.hints.label)?;
        let live = self.reopen(operation)?;
        operation.before_deadline(&self.hints.label)?;
        let (answer, _) = self.attempt(live, peer, operation);
        self.in_time(answer, operation)
    }

    fn look(&mut self) -> Result<Presence> {
        let found = self.find()?;
        if tries_left(&found.info) == Tries::None {
            return Err(locked(&found.name));
        }
        if self.live.as_ref().is_some_and(|live| !self.login.is_lost(&live.session)) {
            return Ok(Presence::Ready);
        }
        // Closed before another is opened: see `attempt`.
        self.live = None;
        let session = self.module.context.open_ro_session(found.slot).map_err(|e| found.failed(e))?;
        objects::check_visible(&session, &self.uri, &self.public, &self.hints.label)?;
        Ok(if self.login.is_locked() { Presence::Locked } else { Presence::Ready })
    }

    fn pin_state(&mut self) -> Result<PinState> {
        Ok(manage::pin_state(&self.find()?.info))
    }
}

impl Pkcs11Token {
    /// Keeps the session unless it turns out lost, which the second value says. A lost one is closed here, before another is opened: a
    /// module that was reset hands out the same handles again, and closing late would close the new session.
    fn attempt(
        &mut self,
        live: Live,
        peer: &PublicKey,
        operation: &Operation<'_>,
    ) -> (std::result::Result<SharedSecret, Foreign>, bool) {
        operation.enter(if self.hints.touch == Touch::Always { Stage::Touch } else { Stage::Device });
        let answer = objects::derive(&live.session, live.key, peer.as_bytes());
        let lost = answer
            .as_ref()
            .is_err_and(|failure| failure.is_stale() || self.login.is_lost(&live.session) || self.find().is_err());
        if !lost {
            self.live = self.login.keep(live);
        }
        (answer, lost)
    }

    fn in_time(
        &self,
        answer: std::result::Result<SharedSecret, Foreign>,
        operation: &Operation<'_>,
    ) -> Result<SharedSecret> {
        let secret = answer.map_err(|failure| failure.typed(&self.hints.label))?;
        operation.before_deadline(&self.hints.label)?;
        Ok(secret)
    }

    /// The token that was opened, if it is there.
    fn find(&self) -> Result<Found> {
        let found = self.module.find_token(&self.uri)?;
        // Before any PIN is sent: another token of the same label would lose a try by it.
        if found.info.serial_number() != self.serial {
            return Err(Error::new(
                ErrorKind::TokenAbsent,
                format!("{} is another token than the one that was opened.", found.name),
                "Plug the right token in; one that replaces it for good needs a new ceremony.",
            ));
        }
        Ok(found)
    }

    fn reopen(&mut self, operation: &mut Operation<'_>) -> Result<Live> {
        let found = self.find()?;
        let session = self.module.context.open_ro_session(found.slot).map_err(|e| found.failed(e))?;
        let ours = self.login.again(&self.module, &found, &session, operation)?;
        let key = objects::find_key(&session, &self.uri, &found.name).map_err(|e| e.typed(&found.name))?;
        check_expected(&key.public, Some(&self.public), &self.hints.label)?;
        Ok(Live { session, key: key.private, ours })
    }
}

/// A token that answers to a URI.
struct Found {
    slot: Slot,
    info: cryptoki::slot::TokenInfo,
    /// `SoftHSM v2 token "cosigner"`.
    name: String,
    /// `CKF_HW_SLOT`.
    hardware: bool,
}

impl Found {
    fn failed(&self, error: cryptoki::error::Error) -> crate::Error {
        Foreign::from_call(error).typed(&self.name)
    }
}

/// The module's file name, for texts.
fn shown(path: &Path) -> std::path::Display<'_> {
    path.display()
}
