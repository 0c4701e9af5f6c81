//! What a ceremony needs beyond agreeing: looking at tokens, and making keys.

use std::path::Path;

use aws_lc_rs::rand;
use cryptoki::mechanism::vendor_defined::VendorDefinedMechanism;
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use cryptoki::slot::TokenInfo;

use super::Found;
use super::fail::Foreign;
use super::login::{Login, tries_left};
use super::module::{Module, trimmed};
use super::objects::{self, OID_P256, OID_X25519};
use crate::curve::{Curve, PublicKey};
use crate::device::{Device, DeviceKey, PinState};
use crate::error::{Error, ErrorKind, Result};
use crate::locator::Locator;
use crate::operation::Operation;
use crate::pin::{KeepPin, Tries};
use crate::token::{NewKey, TokenKind, no_policies};
use crate::uri::Pkcs11Uri;

/// Whether the token of `uri` is in a slot that calls itself hardware.
///
/// # Errors
/// `ModuleMissing`, `ModuleFailed`, `TokenAbsent`, `TokenAmbiguous`.
pub fn is_hardware(uri: &Pkcs11Uri) -> Result<bool> {
    let module = Module::load(uri)?;
    Ok(module.find_token(uri)?.hardware)
}

/// The tokens behind the module at `module_path`, those included that cannot be used yet. Asks for no PIN.
///
/// # Errors
/// `ModuleMissing`, `ModuleFailed`.
pub fn list(module_path: &Path) -> Result<Vec<Device>> {
    let module = Module::at(module_path)?;
    Ok(module.tokens()?.iter().map(|found| describe(&module, module_path, found)).collect())
}

fn describe(module: &Module, module_path: &Path, found: &Found) -> Device {
    let info = &found.info;
    let field = |text: &str| trimmed(text).to_owned();
    let pin = pin_state(info);
    let curves = curves(module, found);
    let (keys, failure) = match visible_keys(module, module_path, found) {
        Ok(keys) => (keys, None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    let unusable = if !info.token_initialized() {
        Some("it is not initialized".into())
    } else if info.login_required() && !pin.set {
        Some("it has no user PIN yet".into())
    } else if pin.tries_left == Tries::None {
        Some("its PIN is locked".into())
    } else if curves.is_empty() && keys.iter().all(|key| key.public_key.is_err()) {
        Some("it offers no Diffie-Hellman on x25519 or p256".into())
    } else {
        failure
    };
    let firmware = info.firmware_version();
    Device {
        kind: TokenKind::Pkcs11,
        maker: field(info.manufacturer_id()),
        model: found.name.clone(),
        serial: field(info.serial_number()),
        firmware: format!("{}.{}", firmware.major(), firmware.minor()),
        hardware: found.hardware,
        seen_at: module_path.display().to_string(),
        curves,
        pin: Some(pin),
        keys,
        unusable,
    }
}

/// As far as `CK_TOKEN_INFO` tells (PKCS#11 3.0, section 3.2).
pub(super) fn pin_state(info: &TokenInfo) -> PinState {
    PinState {
        set: info.user_pin_initialized(),
        pad: info.protected_authentication_path(),
        tries_left: tries_left(info),
        verified: None,
    }
}

fn curves(module: &Module, found: &Found) -> Vec<Curve> {
    [Curve::X25519, Curve::P256].into_iter().filter(|&curve| dialect(module, found, curve).is_some()).collect()
}

/// Mechanism and key type that make a key on `curve`; `None` where the token does not offer it, or cannot agree.
fn dialect(module: &Module, found: &Found, curve: Curve) -> Option<(Mechanism<'static>, KeyType)> {
    let offered = module.context.get_mechanism_list(found.slot).ok()?;
    let has = |mechanism| offered.contains(&mechanism);
    if !has(MechanismType::ECDH1_DERIVE) {
        return None;
    }
    match curve {
        Curve::P256 => has(MechanismType::ECC_KEY_PAIR_GEN).then_some((Mechanism::EccKeyPairGen, KeyType::EC)),
        Curve::X25519 if has(MechanismType::ECC_MONTGOMERY_KEY_PAIR_GEN) => {
            // cryptoki knows the number of this mechanism and has no variant for it.
            let montgomery = VendorDefinedMechanism::new::<u8>(MechanismType::ECC_MONTGOMERY_KEY_PAIR_GEN, None);
            Some((Mechanism::VendorDefined(montgomery), KeyType::EC_MONTGOMERY))
        }
        Curve::X25519 => (module.is_softhsm() && has(MechanismType::ECC_EDWARDS_KEY_PAIR_GEN))
            .then_some((Mechanism::EccEdwardsKeyPairGen, KeyType::EC_EDWARDS)),
    }
}

fn visible_keys(module: &Module, module_path: &Path, found: &Found) -> Result<Vec<DeviceKey>> {
    if !found.info.token_initialized() {
        return Ok(Vec::new());
    }
    let session = module.context.open_ro_session(found.slot).map_err(|error| found.failed(error))?;
    let read = || -> std::result::Result<Vec<DeviceKey>, Foreign> {
        let template = [Attribute::Class(ObjectClass::PUBLIC_KEY)];
        let objects = session.find_objects(&template).map_err(Foreign::from_call)?;
        objects.into_iter().map(|object| key_info(&session, object, module_path, found)).collect()
    };
    read().map_err(|error| error.typed(&found.name))
}

fn key_info(
    session: &Session,
    object: ObjectHandle,
    module_path: &Path,
    found: &Found,
) -> std::result::Result<DeviceKey, Foreign> {
    let public_key = objects::read_public(session, object)?;
    let (mut label, mut id) = (String::new(), Vec::new());
    for attribute in
        session.get_attributes(object, &[AttributeType::Label, AttributeType::Id]).map_err(Foreign::from_call)?
    {
        match attribute {
            Attribute::Label(found) => label = String::from_utf8_lossy(&found).into_owned(),
            Attribute::Id(found) => id = found,
            _ => {}
        }
    }
    let (token, serial) = (trimmed(found.info.label()), trimmed(found.info.serial_number()));
    let uri = Pkcs11Uri::for_key(module_path, token, &label).map(|uri| uri.narrowed(token, serial, &label, &id));
    let mut key = DeviceKey::new(label, public_key);
    key.locator = uri.ok().map(Locator::Pkcs11);
    Ok(key)
}

/// Makes a key pair on the token that `uri` names: non-extractable, sensitive, kept on the token, for deriving only.
///
/// `uri` must have `object`; without `id` a random one of 16 bytes is taken. What the token says of the key afterwards is read
/// back, and one agree proves the pair; a key that fails either is destroyed. Returns the URI that names the new key by the
/// token's label and serial number and the key's label and ID, and the public key.
///
/// # Errors
/// `Locator` (no `object`), `KeyExists` (an object of that label or ID is there), `Unsupported` (curve), `KeyExposed`, and those of
/// [`open`](crate::open).
pub(crate) fn generate(uri: &Pkcs11Uri, new: &NewKey, operation: &mut Operation<'_>) -> Result<(Pkcs11Uri, PublicKey)> {
    let curve = new.curve;
    let Some(label) = uri.object() else {
        return Err(Error::new(
            ErrorKind::Locator,
            "The PKCS#11 URI does not say what to call the new key.",
            "Add `object=NAME` to it.",
        ));
    };
    no_policies(new, "A PKCS#11 token")?;
    let module = Module::load(uri)?;
    let found = module.find_token(uri)?;
    let Some((mechanism, key_type)) = dialect(&module, &found, curve) else {
        let others: Vec<String> = curves(&module, &found).iter().map(Curve::to_string).collect();
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!("{} offers no Diffie-Hellman on {curve}.", found.name),
            if others.is_empty() {
                "Use another token.".into()
            } else {
                format!("Ask for `--curve {}`.", others.join("|"))
            },
        ));
    };
    let id = match uri.id() {
        Some(id) => id.to_vec(),
        None => {
            let mut id = [0; 16];
            rand::fill(&mut id).map_err(|_| {
                Error::new(ErrorKind::Device, "aws-lc failed in rand::fill.", "Run it again; if it stays, report it.")
            })?;
            id.to_vec()
        }
    };
    let session = module.context.open_rw_session(found.slot).map_err(|error| found.failed(error))?;
    Login::first(&module, &found, &session, uri, KeepPin::Never, operation)?;
    let name = format!("{}, object \"{label}\"", found.name);
    refuse_existing(&session, label, &id, &name)?;
    let (public, private) =
        make_pair(&session, &mechanism, key_type, curve, label, &id).map_err(|error| error.typed(&name))?;
    let named = uri.narrowed(trimmed(found.info.label()), trimmed(found.info.serial_number()), label, &id);
    match check_new(&session, private, &named, curve, &name) {
        Ok(public_key) => Ok((named, public_key)),
        Err(error) => {
            // Best effort: the error that is reported is the one that made the key unusable.
            let _ = session.destroy_object(private);
            let _ = session.destroy_object(public);
            Err(error)
        }
    }
}

fn refuse_existing(session: &Session, label: &str, id: &[u8], name: &str) -> Result<()> {
    for attribute in [Attribute::Label(label.into()), Attribute::Id(id.to_vec())] {
        let there = session.find_objects(&[attribute]).map_err(|error| Foreign::from_call(error).typed(name))?;
        if !there.is_empty() {
            return Err(Error::new(
                ErrorKind::KeyExists,
                format!("{name}: an object of that label or ID is there already; nothing was made."),
                "Choose another name: `object=` and, if given, `id=`.",
            ));
        }
    }
    Ok(())
}

fn make_pair(
    session: &Session,
    mechanism: &Mechanism<'_>,
    key_type: KeyType,
    curve: Curve,
    label: &str,
    id: &[u8],
) -> std::result::Result<(ObjectHandle, ObjectHandle), Foreign> {
    let params = match curve {
        Curve::X25519 => OID_X25519,
        Curve::P256 => OID_P256,
    };
    let both = [
        Attribute::KeyType(key_type),
        Attribute::Token(true),
        Attribute::Label(label.into()),
        Attribute::Id(id.to_vec()),
    ];
    let mut public = both.to_vec();
    public.extend([Attribute::Private(false), Attribute::EcParams(params.to_vec())]);
    let mut private = both.to_vec();
    private.extend([
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Derive(true),
    ]);
    session.generate_key_pair(mechanism, &public, &private).map_err(Foreign::from_call)
}

/// Reads the new key back as `open` would, and believes the module nothing.
fn check_new(session: &Session, private: ObjectHandle, uri: &Pkcs11Uri, curve: Curve, name: &str) -> Result<PublicKey> {
    let claims = [
        AttributeType::Sensitive,
        AttributeType::Extractable,
        AttributeType::AlwaysSensitive,
        AttributeType::NeverExtractable,
    ];
    let read = session.get_attributes(private, &claims).map_err(|error| Foreign::from_call(error).typed(name))?;
    let guarded = [
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::AlwaysSensitive(true),
        Attribute::NeverExtractable(true),
    ];
    if let Some(missing) = guarded.iter().find(|claim| !read.contains(claim)) {
        return Err(Error::new(
            ErrorKind::KeyExposed,
            format!(
                "{name}: the token does not guard the key it made ({missing:?} was asked for and is not so); it was destroyed."
            ),
            "Use another token or module.",
        ));
    }
    let key = objects::find_key(session, uri, name).map_err(|error| error.typed(name))?;
    if key.public.curve() != curve {
        return Err(Error::new(
            ErrorKind::WrongCurve,
            format!("{name}: the token made a key on {} instead of {curve}; it was destroyed.", key.public.curve()),
            "Use another token or module.",
        ));
    }
    objects::prove(session, &key, name)?;
    Ok(key.public)
}
