//! A connection to a TPM: its properties, its keys, sessions, and the one operation.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::str::FromStr as _;

use tss_esapi::Context;
use tss_esapi::attributes::SessionAttributesBuilder;
use tss_esapi::constants::response_code::Tss2ResponseCodeKind as Code;
use tss_esapi::constants::{CapabilityType, PropertyTag, SessionType};
use tss_esapi::handles::{KeyHandle, ObjectHandle, PersistentTpmHandle, TpmHandle};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{Auth, CapabilityData, Public, SymmetricDefinition};
use tss_esapi::tcti_ldr::TctiNameConf;
use zeroize::Zeroizing;

use super::fail::{self, Fault};
use super::{Guard, padded, shown, template};
use crate::curve::PublicKey;
use crate::error::{Error, ErrorKind, Result};
use crate::pin::Tries;
use crate::secret::SharedSecret;

/// Where Linux has the TPM behind its resource manager.
pub(super) const DEFAULT_TCTI: &str = "device:/dev/tpmrm0";
/// The first persistent handle, and the most that are listed.
const PERSISTENT: (u32, u32) = (0x8100_0000, 64);
/// Bits of `TPMA_PERMANENT` (part 2, section 8.6).
const OWNER_AUTH_SET: u32 = 1 << 0;
const IN_LOCKOUT: u32 = 1 << 9;

type Answer<T> = std::result::Result<T, Fault>;

/// A connection to a TPM. What was made over it and not persisted is flushed when it is dropped.
pub(super) struct Connection {
    context: Context,
}

/// A key that can be used.
pub(super) struct FoundKey {
    pub(super) key: KeyHandle,
    pub(super) public: PublicKey,
}

/// What a TPM says of itself.
pub(super) struct About {
    /// `TPM_PT_MANUFACTURER`, the vendor ID of the TCG's registry: `IFX`, `INTC`, `IBM`.
    pub(super) manufacturer: String,
    /// `TPM_PT_VENDOR_STRING_1` to `4`.
    pub(super) vendor: String,
    pub(super) firmware: String,
}

impl About {
    /// For people.
    pub(super) fn name(&self) -> String {
        format!("TPM \"{}\"", format!("{} {}", self.manufacturer, self.vendor).trim())
    }

    /// A TPM that calls itself software is none: libtpms, which is behind swtpm, does both.
    pub(super) fn hardware(&self) -> bool {
        self.manufacturer != "IBM" && !self.vendor.starts_with("SW")
    }
}

impl Connection {
    /// # Errors
    /// `Locator` (the text is no TCTI), `ServiceAbsent`, `Busy`.
    pub(super) fn open(tcti: Option<&str>) -> Result<Self> {
        let text = tcti.unwrap_or(DEFAULT_TCTI);
        let tcti = TctiNameConf::from_str(text).map_err(|_| {
            Error::new(
                ErrorKind::Locator,
                format!("The TPM's `tcti` \"{}\" cannot be read.", text.escape_debug()),
                "Write `device:/dev/tpmrm0`, `tabrmd:`, or `swtpm:host=127.0.0.1,port=2321`.",
            )
        })?;
        if let Some(path) = text.strip_prefix("device:") {
            probe(Path::new(path))?;
        }
        let context = Context::new(tcti).map_err(|error| {
            Error::new(
                ErrorKind::ServiceAbsent,
                format!("The TPM at \"{}\" cannot be reached: Esys_Initialize: {error}.", text.escape_debug()),
                "Look whether it is on in the firmware's set-up, and whether what `tcti` names is running.",
            )
        })?;
        Ok(Self { context })
    }

    fn property(&mut self, tag: PropertyTag) -> Answer<u32> {
        let answer = self
            .context
            .execute_without_session(|context| context.get_capability(CapabilityType::TpmProperties, tag.into(), 1));
        let (data, _) = answer.map_err(|error| Fault::call("TPM2_GetCapability", error))?;
        let CapabilityData::TpmProperties(properties) = data else { return Ok(0) };
        Ok(properties.into_iter().find(|property| property.property() == tag).map_or(0, |property| property.value()))
    }

    pub(super) fn about(&mut self) -> Answer<About> {
        let manufacturer = text(&[self.property(PropertyTag::Manufacturer)?]);
        let mut vendor = [0; 4];
        let tags = [
            PropertyTag::VendorString1,
            PropertyTag::VendorString2,
            PropertyTag::VendorString3,
            PropertyTag::VendorString4,
        ];
        for (word, tag) in vendor.iter_mut().zip(tags) {
            *word = self.property(tag)?;
        }
        let high = self.property(PropertyTag::FirmwareVersion1)?;
        let low = self.property(PropertyTag::FirmwareVersion2)?;
        let firmware = format!("{}.{}.{}.{}", high >> 16, high & 0xffff, low >> 16, low & 0xffff);
        Ok(About { manufacturer, vendor: text(&vendor), firmware })
    }

    /// Whether the owner hierarchy has an authorization value.
    pub(super) fn owner_has_auth(&mut self) -> Answer<bool> {
        Ok(self.property(PropertyTag::Permanent)? & OWNER_AUTH_SET != 0)
    }

    /// Tries before the TPM locks, for a key with that guard (part 1, section 19.8).
    pub(super) fn tries(&mut self, guard: Guard) -> Answer<Tries> {
        if guard != Guard::Counted {
            // It is asked all the same: whoever asks wants to know whether the TPM is there.
            self.property(PropertyTag::Permanent)?;
            return Ok(Tries::Unlimited);
        }
        if self.property(PropertyTag::Permanent)? & IN_LOCKOUT != 0 {
            return Ok(Tries::None);
        }
        let most = self.property(PropertyTag::MaxAuthFail)?;
        let left = most.saturating_sub(self.property(PropertyTag::LockoutCounter)?);
        Ok(Tries::counted(u8::try_from(left).unwrap_or(u8::MAX)))
    }

    /// The error for people, with the tries that are left after a wrong PIN.
    pub(super) fn explained(&mut self, fault: Fault, guard: Guard, what: &str) -> Error {
        if !fault.is_wrong_pin() {
            return fault.typed(what);
        }
        fail::wrong_pin(what, self.tries(guard).ok())
    }

    /// The persistent handles that are there.
    pub(super) fn persistent_handles(&mut self) -> Answer<Vec<u32>> {
        let answer = self.context.execute_without_session(|context| {
            context.get_capability(CapabilityType::Handles, PERSISTENT.0, PERSISTENT.1)
        });
        let (data, _) = answer.map_err(|error| Fault::call("TPM2_GetCapability", error))?;
        let CapabilityData::Handles(handles) = data else { return Ok(Vec::new()) };
        Ok(handles.into_inner().into_iter().map(u32::from).collect())
    }

    /// The public area at a persistent handle, and the handle that tpm2-tss has for it; `None` where nothing is.
    pub(super) fn read(&mut self, handle: u32) -> Answer<Option<(ObjectHandle, Public)>> {
        let handle = PersistentTpmHandle::new(handle).map_err(|error| Fault::call("TPM2_ReadPublic", error))?;
        let read = self.context.execute_without_session(|context| {
            let object = context.tr_from_tpm_public(TpmHandle::Persistent(handle))?;
            Ok((object, context.read_public(KeyHandle::from(object))?.0))
        });
        match read.map_err(|error: tss_esapi::Error| Fault::call("TPM2_ReadPublic", error)) {
            Ok(found) => Ok(Some(found)),
            Err(fault) if fault.code() == Some(Code::Handle) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// The key at a persistent handle.
    ///
    /// # Errors
    /// `KeyNotFound`, and those of [`template::public_key`].
    pub(super) fn persistent(&mut self, handle: u32, name: &str) -> Result<FoundKey> {
        let Some((object, public)) = self.read(handle).map_err(|fault| fault.typed(name))? else {
            let there = self.persistent_handles().unwrap_or_default();
            let there: Vec<String> = there.iter().map(|handle| format!("{handle:#010x}")).collect();
            return Err(Error::new(
                ErrorKind::KeyNotFound,
                format!(
                    "{name} is not there; the TPM holds {}.",
                    if there.is_empty() { "no persistent key".into() } else { there.join(", ") }
                ),
                "Correct the handle, or make the key with `claviger-ceremony token generate`.",
            ));
        };
        Ok(FoundKey { key: KeyHandle::from(object), public: template::public_key(&public, name)? })
    }

    /// Whether wrong PINs for the key are counted.
    pub(super) fn is_counted(&mut self, key: KeyHandle) -> Answer<bool> {
        let read = self.context.execute_without_session(|context| context.read_public(key));
        Ok(template::is_counted(&read.map_err(|error| Fault::call("TPM2_ReadPublic", error))?.0))
    }

    /// The primary key of that name, made anew. Needs [`Self::with_owner_auth`] where the owner hierarchy has an authorization value.
    pub(super) fn owner_key(&mut self, key: &str, name: &str) -> Answer<FoundKey> {
        let template = template::owner_key(key)?;
        let made = self.in_salted(|context| context.create_primary(Hierarchy::Owner, template, None, None, None, None));
        let made = made?.map_err(|error| Fault::call("TPM2_CreatePrimary", error))?;
        Ok(FoundKey { key: made.key_handle, public: template::public_key(&made.out_public, name)? })
    }

    /// Runs `work` while tpm2-tss has the owner hierarchy's authorization value. One that is wrong is `WrongPin`.
    pub(super) fn with_owner_auth<T>(
        &mut self,
        auth: &Auth,
        name: &str,
        work: impl FnOnce(&mut Self) -> Answer<T>,
    ) -> Result<T> {
        self.set_owner_auth(auth.clone()).map_err(|fault| fault.typed(name))?;
        let done = work(self);
        let forgotten = self.set_owner_auth(Auth::default());
        let done = done.map_err(|fault| self.explained(fault, Guard::Owner, name))?;
        forgotten.map_err(|fault| fault.typed(name))?;
        Ok(done)
    }

    fn set_owner_auth(&mut self, auth: Auth) -> Answer<()> {
        self.context.tr_set_auth(ObjectHandle::Owner, auth).map_err(|error| Fault::call("Esys_TR_SetAuth", error))
    }

    /// The authorization value that is used for `key` from now on; tpm2-tss has it, the TPM learns nothing yet.
    pub(super) fn set_auth(&mut self, key: KeyHandle, auth: Auth) -> Answer<()> {
        self.context.tr_set_auth(key.into(), auth).map_err(|error| Fault::call("Esys_TR_SetAuth", error))
    }

    /// An HMAC session salted by `key` that encrypts the first parameter of commands and answers. Starting it is one more operation with `key`, for which
    /// the TPM wants no authorization (part 1, section 19.6.13).
    pub(super) fn session(&mut self, key: KeyHandle) -> Answer<AuthSession> {
        let started = self.context.execute_without_session(|context| {
            context.start_auth_session(
                Some(key),
                None,
                None,
                SessionType::Hmac,
                SymmetricDefinition::AES_128_CFB,
                HashingAlgorithm::Sha256,
            )
        });
        let call = |error| Fault::call("TPM2_StartAuthSession", error);
        let session = started.map_err(call)?.ok_or_else(|| {
            Error::new(ErrorKind::Device, "tpm2-tss started no session: Esys_StartAuthSession.", fail::DEVICE_HINT)
        })?;
        let (attributes, mask) =
            SessionAttributesBuilder::new().with_decrypt(true).with_encrypt(true).with_continue_session(true).build();
        self.context.tr_sess_set_attributes(session, attributes, mask).map_err(call)?;
        Ok(session)
    }

    /// Runs `work` in a session that is salted by a fresh key of the null hierarchy, whose authorization value is empty. The key is made from a seed that
    /// changes with every reset, and both are flushed afterwards.
    pub(super) fn in_salted<T>(&mut self, work: impl FnOnce(&mut Context) -> T) -> Answer<T> {
        let template = template::storage()?;
        let salt = self
            .context
            .execute_with_session(Some(AuthSession::Password), |context| {
                context.create_primary(Hierarchy::Null, template, None, None, None, None)
            })
            .map_err(|error| Fault::call("TPM2_CreatePrimary", error))?
            .key_handle;
        let done = self.session(salt).map(|session| {
            let done = self.context.execute_with_session(Some(session), work);
            self.flush(tss_esapi::handles::SessionHandle::from(session).into());
            done
        });
        self.flush(salt.into());
        done
    }

    /// The TPM's commands.
    pub(super) fn context(&mut self) -> &mut Context {
        &mut self.context
    }

    /// Flushes a session or a transient object.
    pub(super) fn flush(&mut self, object: ObjectHandle) {
        // Where it fails the TPM has lost it already, or the connection has, which flushes again when it is dropped.
        let _ = self.context.execute_without_session(|context| context.flush_context(object));
    }

    /// `TPM2_ECDH_ZGen` (part 3, section 14.5).
    pub(super) fn ecdh(&mut self, key: KeyHandle, session: AuthSession, peer: &PublicKey) -> Answer<SharedSecret> {
        let point = template::point(peer)?;
        let product = self.context.execute_with_session(Some(session), |context| context.ecdh_z_gen(key, point));
        let product = product.map_err(|error| Fault::call("TPM2_ECDH_ZGen", error))?;
        let x: Zeroizing<[u8; 32]> = padded(product.x().value()).ok_or_else(|| {
            Error::new(
                ErrorKind::Device,
                "The TPM gave a shared secret of more than 32 bytes: TPM2_ECDH_ZGen.",
                fail::DEVICE_HINT,
            )
        })?;
        Ok(SharedSecret::new(*x)?)
    }
}

/// Says why a device cannot be opened, which tpm2-tss does not.
fn probe(path: &Path) -> Result<()> {
    let error = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(_) => return Ok(()),
        Err(error) => error,
    };
    let (kind, hint) = match error.kind() {
        io::ErrorKind::NotFound => (
            ErrorKind::ServiceAbsent,
            "Turn the TPM on in the firmware's set-up; a virtual machine needs one of its own. Or name another way to it by `tcti=`.",
        ),
        io::ErrorKind::PermissionDenied => (
            ErrorKind::ServiceAbsent,
            "Let the user in: `usermod --append --groups tss USER` where the device belongs to group tss, then log in again.",
        ),
        io::ErrorKind::ResourceBusy => (
            ErrorKind::Busy,
            "Another program has it for itself: go through the resource manager, `tcti=device:/dev/tpmrm0`.",
        ),
        _ => (ErrorKind::ServiceAbsent, fail::DEVICE_HINT),
    };
    Err(Error::new(kind, format!("The TPM's device \"{}\" cannot be opened: {error}.", shown(path)), hint))
}

/// Properties that hold four characters each, first in the highest byte.
fn text(words: &[u32]) -> String {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).filter(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&bytes).trim().escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_are_text() {
        assert_eq!(text(&[0x4942_4d00]), "IBM");
        assert_eq!(text(&[0x5357_2020, 0x2054_504d, 0, 0]), "SW   TPM");
    }

    #[test]
    fn a_device_that_is_none_is_named() {
        let error = Connection::open(Some("device:/nonexistent/tpm")).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::ServiceAbsent);
        assert!(error.to_string().contains("/nonexistent/tpm"), "{error}");
        assert_eq!(Connection::open(Some("nonsense")).err().unwrap().kind(), ErrorKind::Locator);
    }
}
