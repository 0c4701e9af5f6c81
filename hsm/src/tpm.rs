//! Keys of a TPM 2.0, through tpm2-tss: P-256 only, the one curve of this house that TPMs have.
//!
//! Two kinds of key (part numbers are those of the TPM 2.0 library specification):
//!
//! - `tpm2:0x81010042`, a *persistent* key of the owner hierarchy, random, made by [`crate::generate`] or by any other program (`tpm2_create`,
//!   `tpm2_evictcontrol`). Its PIN is its authorization value, at most 32 bytes. A key with a PIN is under the TPM's protection
//!   against dictionary attacks, whose counter is one for the whole TPM: wrong PINs of other programs use up tries, too, and a right PIN
//!   gives none back; time does, or `tpm2_dictionarylockout`.
//! - `tpm2:owner/NAME`, a *primary* key of the owner hierarchy, which the TPM computes from its owner seed and the name (part 1, section
//!   27.2): nothing is stored, and it is the same at every start until the TPM is cleared. Its PIN is the authorization value of the owner
//!   hierarchy, which is empty on most machines, and which nothing counts. Whoever has that, and the TPM's device, has the key's use.
//!
//! A key without a PIN is found out only where a try costs nothing: it must have the attribute `noDA`, and has it when it was made here.
//!
//! Commands go through an HMAC session with parameter encryption (AES-128-CFB; part 1, section 21), salted by the key itself: the
//! shared secret and proofs of the PIN cross the bus encrypted under a secret that only the holder of the private key can know. Where the public key was
//! pinned before (`expected`), that also stops who sits between host and TPM and answers in its place. On the first meeting, and while a key
//! is made, it stops only who listens. The PIN itself never crosses the bus but in the command that makes a key.
//!
//! One connection is kept while the token is open and, for a primary key, the key; but no session. Linux's resource manager saves an idle one and
//! never renews it, and a TPM lets nobody save another once 255 (65535 on some) were saved after the oldest (`TPM_RC_CONTEXT_GAP`): a daemon's
//! session would stop every other program. Whatever fails on the connection for another reason than the PIN is tried once more on a new one: that is
//! all that a TPM's reset or a machine's sleep need. Sessions and transient objects are flushed when the connection is dropped. Use a resource manager (`/dev/tpmrm0`, the default): without one a TPM has room for three keys.
//!
//! tpm2-tss writes each failure to standard error, and only the environment can stop it: `TSS2_LOG=all+none`. The shared secret
//! passes through buffers of tpm2-tss, which are freed without being wiped; while a PIN is kept (`once`) tpm2-tss keeps a copy, which is
//! overwritten before the connection is dropped.

mod connection;
mod fail;
mod manage;
mod template;

use std::path::Path;
use std::time::Duration;

use tss_esapi::handles::{KeyHandle, SessionHandle};
use tss_esapi::structures::Auth;
use zeroize::Zeroizing;

use crate::curve::{Curve, PublicKey, same_curve};
use crate::device::PinState;
use crate::error::{Error, ErrorKind, Result};
use crate::locator::{TpmKey, TpmLocator};
use crate::operation::{Operation, Stage};
use crate::pin::keeper::still;
use crate::pin::{KeepPin, Keeper, PinRequest, Purpose, Tries};
use crate::secret::{Pin, SharedSecret};
use crate::token::{Hints, PinPolicy, Presence, Token, TokenKind, Touch, check_expected, prove};

pub(crate) use manage::generate;
pub use manage::list;

use connection::Connection;
use fail::Fault;

/// The most bytes of an authorization value: a digest of the key's name algorithm (part 1, section 19.6.4.3), here SHA-256.
const MAX_PIN: usize = 32;

/// What a key wants before an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guard {
    /// Nothing.
    Nothing,
    /// Its PIN, and the TPM counts wrong ones.
    Counted,
    /// Its PIN, and nothing counts.
    Uncounted,
    /// The owner hierarchy's authorization, when the key is made anew.
    Owner,
}

/// Finds or makes the key, and proves the pair: see [`crate::open`].
pub(crate) fn open(
    locator: &TpmLocator,
    expected: Option<&PublicKey>,
    keep: KeepPin,
    operation: &mut Operation<'_>,
) -> Result<Box<dyn Token>> {
    let mut connection = Connection::open(locator.tcti.as_deref())?;
    let about = connection.about().map_err(|fault| fault.typed("The TPM"))?;
    let name = format!("{}, {}", about.name(), key_name(&locator.key));
    operation.before_deadline(&name)?;
    let mut keeper = Keeper::new(keep, locator.pin_source.as_deref());
    operation.enter(Stage::Device);
    let mut live = match &locator.key {
        TpmKey::Persistent(handle) => {
            let found = connection.persistent(*handle, &name)?;
            check_expected(&found.public, expected, &name)?;
            Live::new(connection, found)
        }
        TpmKey::Owner(key) => {
            let owned = connection.owner_has_auth().map_err(|fault| fault.typed(&name))?;
            let found = owner_key(&mut connection, key, owned, &mut keeper, &name, operation)?;
            check_expected(&found.public, expected, &name)?;
            Live::new(connection, found)
        }
    };
    operation.before_deadline(&name)?;
    let (guard, latency) = live.find_guard(&locator.key, &mut keeper, &name, operation)?;
    let hints = Hints {
        kind: TokenKind::Tpm,
        label: name,
        hardware: about.hardware(),
        touch: Touch::Never,
        pin: if guard == Guard::Nothing { PinPolicy::Never } else { PinPolicy::Always },
        latency,
    };
    let mut token =
        TpmToken { locator: locator.clone(), public: live.public.clone(), hints, guard, keeper, live: None };
    token.keep(live);
    Ok(Box::new(token))
}

fn key_name(key: &TpmKey) -> String {
    match key {
        TpmKey::Persistent(handle) => format!("key {handle:#010x}"),
        TpmKey::Owner(name) => format!("owner key \"{name}\""),
    }
}

/// Makes the primary key, with the owner hierarchy's authorization where it has one.
fn owner_key(
    connection: &mut Connection,
    key: &str,
    owned: bool,
    keeper: &mut Keeper,
    name: &str,
    operation: &mut Operation<'_>,
) -> Result<connection::FoundKey> {
    if !owned {
        return connection.owner_key(key, name).map_err(|fault| fault.typed(name));
    }
    let mut made = None;
    let request = PinRequest::new(name, Purpose::UserPin, Tries::Unlimited);
    keeper.unlock(request, operation, |pin| {
        made = Some(connection.with_owner_auth(&auth(pin, name)?, name, |connection| connection.owner_key(key, name))?);
        Ok(())
    })?;
    made.ok_or_else(|| Error::new(ErrorKind::Device, format!("{name} was not made."), fail::DEVICE_HINT))
}

/// A PIN as the TPM takes it.
fn auth(pin: &Pin, name: &str) -> Result<Auth> {
    let bytes = pin.expose().as_bytes();
    if bytes.len() > MAX_PIN {
        return Err(Error::new(
            ErrorKind::PinRequired,
            format!("The PIN for {name} is longer than {MAX_PIN} bytes; nothing was sent."),
            "A TPM takes at most 32 bytes; give the PIN that the key was made with.",
        ));
    }
    Auth::try_from(bytes).map_err(|error| Fault::call("Auth::try_from", error).typed(name))
}

struct TpmToken {
    locator: TpmLocator,
    public: PublicKey,
    hints: Hints,
    guard: Guard,
    keeper: Keeper,
    live: Option<Live>,
}

/// A connection with the key.
struct Live {
    connection: Connection,
    key: KeyHandle,
    public: PublicKey,
    /// tpm2-tss has the PIN, and it was right.
    authorized: bool,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.forget();
    }
}

impl Live {
    fn new(connection: Connection, found: connection::FoundKey) -> Self {
        Self { connection, key: found.key, public: found.public, authorized: false }
    }

    /// tpm2-tss overwrites its copy of the PIN.
    fn forget(&mut self) {
        // It fails for a handle that is gone, and then so is the copy.
        let _ = self.connection.set_auth(self.key, Auth::default());
        self.authorized = false;
    }

    /// `TPM2_ECDH_ZGen` (part 3, section 14.5): X of the product, big-endian, 32 bytes. In a session of its own, salted by the key.
    fn agree(&mut self, peer: &PublicKey) -> std::result::Result<SharedSecret, Fault> {
        let session = self.connection.session(self.key)?;
        let answer = self.connection.ecdh(self.key, session, peer);
        self.connection.flush(SessionHandle::from(session).into());
        answer
    }

    /// The same with a PIN, which tpm2-tss keeps if it was right.
    fn agree_with(&mut self, pin: Auth, peer: &PublicKey) -> std::result::Result<SharedSecret, Fault> {
        self.connection.set_auth(self.key, pin)?;
        let answer = self.agree(peer);
        match &answer {
            Ok(_) => self.authorized = true,
            Err(_) => self.forget(),
        }
        answer
    }

    /// How many tries the TPM leaves for a key with that guard.
    fn tries(&mut self, guard: Guard) -> std::result::Result<Tries, Fault> {
        self.connection.tries(guard)
    }

    /// Proves the pair, and finds out what the key wants for it.
    fn find_guard(
        &mut self,
        key: &TpmKey,
        keeper: &mut Keeper,
        name: &str,
        operation: &mut Operation<'_>,
    ) -> Result<(Guard, Duration)> {
        let public = self.public.clone();
        if let TpmKey::Owner(_) = key {
            let latency = prove(&public, name, |peer| self.agree(peer).map_err(|fault| fault.typed(name)))?;
            let owned = self.connection.owner_has_auth().map_err(|fault| fault.typed(name))?;
            self.authorized = true;
            return Ok((if owned { Guard::Owner } else { Guard::Nothing }, latency));
        }
        let counted = self.connection.is_counted(self.key).map_err(|fault| fault.typed(name))?;
        if !counted {
            let mut refused = false;
            let without = prove(&public, name, |peer| {
                self.agree_with(Auth::default(), peer).map_err(|fault| {
                    refused = fault.is_wrong_pin();
                    fault.typed(name)
                })
            });
            match without {
                Ok(latency) => return Ok((Guard::Nothing, latency)),
                Err(_) if refused => {}
                Err(error) => return Err(error),
            }
        }
        let guard = if counted { Guard::Counted } else { Guard::Uncounted };
        let tries = self.tries(guard).map_err(|fault| fault.typed(name))?;
        let request = PinRequest::new(name, Purpose::UserPin, tries);
        let mut latency = Duration::ZERO;
        keeper.unlock(request, operation, |pin| {
            let pin = auth(pin, name)?;
            still(name, tries, self.tries(guard).map_err(|fault| fault.typed(name))?)?;
            latency = prove(&public, name, |peer| {
                self.agree_with(pin, peer).map_err(|fault| self.connection.explained(fault, guard, name))
            })?;
            Ok(())
        })?;
        Ok((guard, latency))
    }
}

impl Token for TpmToken {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn hints(&self) -> &Hints {
        &self.hints
    }

    fn agree(&mut self, peer: &PublicKey, operation: &mut Operation<'_>) -> Result<SharedSecret> {
        same_curve(Curve::P256, peer)?;
        operation.before_deadline(&self.hints.label)?;
        if let Some(live) = self.live.take() {
            match self.attempt(live, peer, operation) {
                // A new connection may help; the old one is closed by now, as some ways to a TPM are open to one at a time.
                Err(Failure::Lost(_)) => {}
                answer => return self.in_time(answer, operation),
            }
        }
        operation.before_deadline(&self.hints.label)?;
        let live = self.reopen(operation)?;
        operation.before_deadline(&self.hints.label)?;
        let answer = self.attempt(live, peer, operation);
        self.in_time(answer, operation)
    }

    fn look(&mut self) -> Result<Presence> {
        let guard = self.guard;
        if self.on_connection(|connection| connection.tries(guard))? == Tries::None {
            return Err(fail::locked(&self.hints.label));
        }
        let ready = guard == Guard::Nothing
            || self.keeper.asks_nobody()
            || self.live.as_ref().is_some_and(|live| live.authorized);
        Ok(if ready { Presence::Ready } else { Presence::Locked })
    }

    fn pin_state(&mut self) -> Result<PinState> {
        let guard = self.guard;
        let mut state = PinState::new(self.on_connection(|connection| connection.tries(guard))?);
        state.set = guard != Guard::Nothing;
        Ok(state)
    }
}

/// Why an attempt failed.
enum Failure {
    /// For a reason that a new connection may take away.
    Lost(Error),
    Final(Error),
}

impl TpmToken {
    /// One operation. The connection is kept only where it succeeds.
    fn attempt(
        &mut self,
        mut live: Live,
        peer: &PublicKey,
        operation: &mut Operation<'_>,
    ) -> std::result::Result<SharedSecret, Failure> {
        operation.enter(Stage::Device);
        let name = &self.hints.label;
        let guard = self.guard;
        let mut lost = false;
        let answer = if live.authorized || guard == Guard::Nothing {
            live.agree(peer).map_err(|fault| {
                lost = fault.is_lost();
                (fault.is_wrong_pin(), live.connection.explained(fault, guard, name))
            })
        } else {
            let tries = live.tries(guard).map_err(|fault| Failure::Lost(fault.typed(name)))?;
            let mut agreed = None;
            let unlocked = self.keeper.unlock(PinRequest::new(name, Purpose::UserPin, tries), operation, |pin| {
                let pin = auth(pin, name)?;
                still(name, tries, live.tries(guard).map_err(|fault| fault.typed(name))?)?;
                agreed = Some(live.agree_with(pin, peer).map_err(|fault| {
                    lost = fault.is_lost();
                    live.connection.explained(fault, guard, name)
                })?);
                Ok(())
            });
            let none = || Error::new(ErrorKind::Device, format!("{name} gave no answer."), fail::DEVICE_HINT);
            unlocked.and_then(|()| agreed.ok_or_else(none)).map_err(|error| (false, error))
        };
        match answer {
            Ok(secret) => {
                self.keep(live);
                Ok(secret)
            }
            Err((refused, error)) => {
                if refused && self.keeper.is_held() {
                    // The PIN was changed behind our back: the keeper learns that it is wrong, and sends it no more.
                    let request = PinRequest::new(name, Purpose::UserPin, Tries::Unknown);
                    let _ = self.keeper.unlock(request, operation, |_| Err(error.clone()));
                }
                Err(if lost { Failure::Lost(error) } else { Failure::Final(error) })
            }
        }
    }

    fn in_time(
        &self,
        answer: std::result::Result<SharedSecret, Failure>,
        operation: &Operation<'_>,
    ) -> Result<SharedSecret> {
        match answer {
            Ok(secret) => {
                operation.before_deadline(&self.hints.label)?;
                Ok(secret)
            }
            Err(Failure::Lost(error) | Failure::Final(error)) => Err(error),
        }
    }

    /// Keeps of a connection what the policy allows. A TPM remembers no PIN, so by `never` it is asked for as often as by `always`; a primary key
    /// that was made is what it remembers of the owner's authorization.
    fn keep(&mut self, mut live: Live) {
        match (self.guard, self.keeper.policy()) {
            (Guard::Nothing, _) | (_, KeepPin::Once) | (Guard::Owner, KeepPin::Never) => {}
            (Guard::Owner, KeepPin::Always) => return,
            (Guard::Counted | Guard::Uncounted, KeepPin::Never | KeepPin::Always) => live.forget(),
        }
        self.live = Some(live);
    }

    fn reopen(&mut self, operation: &mut Operation<'_>) -> Result<Live> {
        let mut connection = Connection::open(self.locator.tcti.as_deref())?;
        let name = &self.hints.label;
        let found = match &self.locator.key {
            TpmKey::Persistent(handle) => connection.persistent(*handle, name)?,
            TpmKey::Owner(key) => {
                owner_key(&mut connection, key, self.guard == Guard::Owner, &mut self.keeper, name, operation)?
            }
        };
        check_expected(&found.public, Some(&self.public), name)?;
        let mut live = Live::new(connection, found);
        live.authorized = self.guard == Guard::Owner;
        Ok(live)
    }

    /// Asks the TPM something, on the connection that is there or, where that is lost, on one of its own.
    fn on_connection<T>(&mut self, mut ask: impl FnMut(&mut Connection) -> std::result::Result<T, Fault>) -> Result<T> {
        if let Some(live) = &mut self.live {
            if let Ok(answer) = ask(&mut live.connection) {
                return Ok(answer);
            }
            self.live = None;
        }
        let mut connection = Connection::open(self.locator.tcti.as_deref())?;
        let name = &self.hints.label;
        if let TpmKey::Persistent(handle) = self.locator.key {
            check_expected(&connection.persistent(handle, name)?.public, Some(&self.public), name)?;
        }
        ask(&mut connection).map_err(|fault| fault.typed(name))
    }
}

/// 32 bytes from a number of at most that: TPMs leave leading zeros away (part 2, section 11.2.5.1).
fn padded(number: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    let mut bytes = Zeroizing::new([0; 32]);
    let start = bytes.len().checked_sub(number.len())?;
    bytes[start..].copy_from_slice(number);
    Some(bytes)
}

/// For texts.
fn shown(path: &Path) -> std::path::Display<'_> {
    path.display()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_padded_on_the_left() {
        assert_eq!(padded(&[]).unwrap()[..], [0; 32]);
        assert_eq!(padded(&[7; 32]).unwrap()[..], [7; 32]);
        let short = padded(&[1, 2]).unwrap();
        assert_eq!((&short[..30], &short[30..]), (&[0; 30][..], &[1, 2][..]));
        assert!(padded(&[0; 33]).is_none());
    }

    #[test]
    fn longer_pins_are_not_sent() {
        let pin = |length| Pin::new("1".repeat(length)).unwrap();
        assert!(auth(&pin(32), "It").is_ok());
        assert_eq!(auth(&pin(33), "It").unwrap_err().kind(), ErrorKind::PinRequired);
    }
}
