//! What a ceremony needs beyond agreeing: looking at a TPM, and making keys.

use tss_esapi::handles::{KeyHandle, ObjectHandle, PersistentTpmHandle};
use tss_esapi::interface_types::dynamic_handles::Persistent;
use tss_esapi::interface_types::resource_handles::{Hierarchy, Provision};
use tss_esapi::structures::Auth;

use super::connection::{Connection, DEFAULT_TCTI};
use super::fail::Fault;
use super::{Guard, auth, key_name, owner_key, template};
use crate::curve::{Curve, PublicKey};
use crate::device::{Device, DeviceKey, PinState};
use crate::error::{Error, ErrorKind, Result};
use crate::locator::{Locator, TpmKey, TpmLocator};
use crate::operation::{Operation, Stage};
use crate::pin::{KeepPin, Keeper, PinRequest, Purpose, Tries};
use crate::token::{NewKey, PinPolicy, TokenKind, Touch, prove};

/// The TPM at `tcti` (`None`: `device:/dev/tpmrm0`), with those of its persistent keys that can agree. Asks for no PIN.
///
/// # Errors
/// `Locator`, `ServiceAbsent`, `Busy`, `Device`.
pub fn list(tcti: Option<&str>) -> Result<Vec<Device>> {
    let mut connection = Connection::open(tcti)?;
    let device = describe(&mut connection, tcti).map_err(|fault| fault.typed("The TPM"))?;
    Ok(vec![device])
}

fn describe(connection: &mut Connection, tcti: Option<&str>) -> std::result::Result<Device, Fault> {
    let about = connection.about()?;
    let tries = connection.tries(Guard::Counted)?;
    let mut keys = Vec::new();
    for handle in connection.persistent_handles()? {
        let Some((_, public)) = connection.read(handle)? else { continue };
        let locator = TpmLocator { key: TpmKey::Persistent(handle), tcti: tcti.map(str::to_owned), pin_source: None };
        let name = key_name(&locator.key);
        // What cannot agree is no key of this house, but one that is unsafe is shown.
        let public_key = match template::public_key(&public, &name) {
            Err(error) if error.kind() != ErrorKind::KeyExposed => continue,
            public_key => public_key.map_err(|error| error.to_string().trim_end_matches('.').to_owned()),
        };
        let mut key = DeviceKey::new(format!("{handle:#010x}"), public_key);
        key.pin = template::is_counted(&public).then_some(PinPolicy::Always);
        key.touch = Touch::Never;
        key.locator = Some(Locator::Tpm(locator));
        keys.push(key);
    }
    Ok(Device {
        kind: TokenKind::Tpm,
        hardware: about.hardware(),
        maker: about.manufacturer,
        model: about.vendor,
        serial: String::new(),
        firmware: about.firmware,
        seen_at: tcti.unwrap_or(DEFAULT_TCTI).to_owned(),
        curves: vec![Curve::P256],
        pin: Some(PinState::new(tries)),
        keys,
        unusable: (tries == Tries::None).then(|| "it takes no PIN for now, after too many wrong ones".into()),
    })
}

/// Makes a key, and proves it: see [`crate::generate`].
///
/// A persistent key is random, child of a storage key that is not kept (a persistent key needs its parent no more), and put at its handle when all else
/// was right. It gets a PIN unless [`NewKey::pin`] is `Never`; then anybody who reaches the TPM can use it. A primary key is only computed, and
/// has the owner hierarchy's authorization for its PIN.
///
/// # Errors
/// `Unsupported` (X25519, touch), `KeyExists`, `WrongPin` (the owner hierarchy's), `KeyExposed`, and those of [`open`](crate::open).
pub(crate) fn generate(
    locator: &TpmLocator,
    new: &NewKey,
    operation: &mut Operation<'_>,
) -> Result<(TpmLocator, PublicKey)> {
    check_wanted(locator, new)?;
    let mut connection = Connection::open(locator.tcti.as_deref())?;
    let about = connection.about().map_err(|fault| fault.typed("The TPM"))?;
    let tpm = about.name();
    let name = format!("{tpm}, {}", key_name(&locator.key));
    let owned = connection.owner_has_auth().map_err(|fault| fault.typed(&name))?;
    let public = match &locator.key {
        TpmKey::Owner(key) => {
            let mut keeper = Keeper::new(KeepPin::Never, locator.pin_source.as_deref());
            let found = owner_key(&mut connection, key, owned, &mut keeper, &name, operation)?;
            prove_new(&mut connection, found.key, &found.public, Auth::default(), &name)?;
            found.public
        }
        TpmKey::Persistent(handle) => {
            let old = occupant(&mut connection, *handle, new, &name)?;
            let pin = new_pin(locator, new, &name, operation)?;
            let make = |connection: &mut Connection| make(connection, *handle, old, pin, &name);
            if owned {
                let mut made = None;
                let what = format!("{tpm}, owner hierarchy");
                let request = PinRequest::new(&what, Purpose::OwnerAuth, Tries::Unlimited);
                Keeper::new(KeepPin::Never, None).unlock(request, operation, |owner| {
                    made = Some(connection.with_owner_auth(&auth(owner, &what)?, &what, make)?);
                    Ok(())
                })?;
                made.ok_or_else(|| {
                    Error::new(ErrorKind::Device, format!("{name} was not made."), super::fail::DEVICE_HINT)
                })?
            } else {
                operation.enter(Stage::Device);
                make(&mut connection).map_err(|fault| fault.typed(&name))?
            }
        }
    };
    Ok((locator.clone(), public))
}

fn check_wanted(locator: &TpmLocator, new: &NewKey) -> Result<()> {
    let unsupported = |what: &str, hint: &str| Err(Error::new(ErrorKind::Unsupported, what, hint));
    if new.curve != Curve::P256 {
        return unsupported("A TPM has no Diffie-Hellman on x25519; no key was made.", "Ask for `--curve p256`.");
    }
    if new.touch.is_some_and(|touch| touch != Touch::Never) {
        return unsupported("A TPM cannot be touched; no key was made.", "Leave out `--touch-policy`.");
    }
    if matches!(locator.key, TpmKey::Owner(_)) && new.pin.is_some() {
        return unsupported(
            "An owner key has the owner hierarchy's authorization for its PIN; no key was made.",
            "Leave out `--pin-policy`, or make a key at a persistent handle.",
        );
    }
    Ok(())
}

/// What is at the handle, if it may be replaced.
fn occupant(connection: &mut Connection, handle: u32, new: &NewKey, name: &str) -> Result<Option<ObjectHandle>> {
    let Some((object, public)) = connection.read(handle).map_err(|fault| fault.typed(name))? else { return Ok(None) };
    let there = template::public_key(&public, name).ok();
    if there.is_some() && there == new.replace {
        return Ok(Some(object));
    }
    Err(Error::new(
        ErrorKind::KeyExists,
        format!("{name} is there already, or something else is at its handle; nothing was made."),
        "Choose another handle from 0x81000000 to 0x817fffff; `tpm2_getcap handles-persistent` shows those that are taken.",
    ))
}

/// The PIN of the new key; `None` where it is to have none.
fn new_pin(locator: &TpmLocator, new: &NewKey, name: &str, operation: &mut Operation<'_>) -> Result<Option<Auth>> {
    if new.pin == Some(PinPolicy::Never) {
        return Ok(None);
    }
    let mut given = None;
    let request = PinRequest::new(name, Purpose::NewPin, Tries::Unlimited);
    Keeper::new(KeepPin::Never, locator.pin_source.as_deref()).unlock(request, operation, |pin| {
        given = Some(auth(pin, name)?);
        Ok(())
    })?;
    Ok(given)
}

/// Makes the key and puts it at its handle. What was made is flushed, or taken off the handle again, where anything fails.
fn make(
    connection: &mut Connection,
    handle: u32,
    old: Option<ObjectHandle>,
    pin: Option<Auth>,
    name: &str,
) -> std::result::Result<PublicKey, Fault> {
    let (storage, wanted) = (template::storage()?, template::key(pin.is_some())?);
    let auth = pin.clone();
    let key = connection.in_salted(|context| {
        let parent = context
            .create_primary(Hierarchy::Owner, storage, None, None, None, None)
            .map_err(|error| Fault::call("TPM2_CreatePrimary", error))?
            .key_handle;
        let made = context
            .create(parent, wanted, auth, None, None, None)
            .map_err(|error| Fault::call("TPM2_Create", error))
            .and_then(|made| {
                let loaded = context.load(parent, made.out_private, made.out_public);
                loaded.map_err(|error| Fault::call("TPM2_Load", error))
            });
        // Whatever became of it: the key needs its parent no more.
        let _ = context.execute_without_session(|context| context.flush_context(parent.into()));
        made
    })??;
    let placed = place(connection, key, handle, old, pin.unwrap_or_default(), name);
    connection.flush(key.into());
    placed
}

fn place(
    connection: &mut Connection,
    key: KeyHandle,
    handle: u32,
    old: Option<ObjectHandle>,
    pin: Auth,
    name: &str,
) -> std::result::Result<PublicKey, Fault> {
    let public = connection.public_of(key, name)?;
    // Proved before the old one goes.
    prove_new(connection, key, &public, pin, name)?;
    if let Some(old) = old {
        connection.evict(old, handle)?;
    }
    let persistent = connection.evict(key.into(), handle)?;
    match connection.persistent(handle, name) {
        Ok(found) if found.public == public => Ok(public),
        other => {
            // Best effort: what is reported is why the key is of no use.
            let _ = connection.evict(persistent, handle);
            let differs = || {
                Error::new(
                    ErrorKind::KeyMismatch,
                    format!("{name} is not the key that was made."),
                    super::fail::DEVICE_HINT,
                )
            };
            Err(other.err().unwrap_or_else(differs).into())
        }
    }
}

/// Proves the pair of a new key by one agree, in a session that it has salted.
fn prove_new(connection: &mut Connection, key: KeyHandle, public: &PublicKey, pin: Auth, name: &str) -> Result<()> {
    let typed = |fault: Fault| fault.typed(name);
    let session = connection.session(key).map_err(typed)?;
    connection.set_auth(key, pin).map_err(typed)?;
    let proved = prove(public, name, |peer| connection.ecdh(key, session, peer).map_err(typed));
    // tpm2-tss overwrites its copy; it fails for a key that is gone, and then so is the copy.
    let _ = connection.set_auth(key, Auth::default());
    connection.flush(tss_esapi::handles::SessionHandle::from(session).into());
    proved.map(drop)
}

impl Connection {
    /// The public key of a loaded key, if it can be used.
    fn public_of(&mut self, key: KeyHandle, name: &str) -> std::result::Result<PublicKey, Fault> {
        let read = self.context().execute_without_session(|context| context.read_public(key));
        let (public, ..) = read.map_err(|error| Fault::call("TPM2_ReadPublic", error))?;
        Ok(template::public_key(&public, name)?)
    }

    /// Puts a transient object at a persistent handle, or takes what is there off it (part 3, section 28.5).
    fn evict(&mut self, object: ObjectHandle, handle: u32) -> std::result::Result<ObjectHandle, Fault> {
        let call = |error| Fault::call("TPM2_EvictControl", error);
        let handle = Persistent::Persistent(PersistentTpmHandle::new(handle).map_err(call)?);
        self.in_salted(|context| context.evict_control(Provision::Owner, object, handle))?.map_err(call)
    }
}
