//! Keys on a token: finding the pair, reading its public half, and the one operation.

use std::time::Duration;

use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::elliptic_curve::{EcKdf, Ecdh1DeriveParams};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use cryptoki::types::Ulong;
use zeroize::{Zeroize, Zeroizing};

use super::fail::Foreign;
use super::module::printable;
use crate::curve::{Curve, PublicKey};
use crate::error::{Error, ErrorKind};
use crate::secret::SharedSecret;
use crate::uri::Pkcs11Uri;

type Result<T> = std::result::Result<T, Foreign>;

/// DER of the OID of P-256, 1.2.840.10045.3.1.7.
pub(super) const OID_P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// DER of the OID of X25519, 1.3.101.110 (RFC 8410, section 3).
pub(super) const OID_X25519: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x6e];
/// DER of the OID of Ed25519, 1.3.101.112: a point of 32 bytes too, and no key that can agree.
const OID_ED25519: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];

/// A key pair on the token.
pub(super) struct Key {
    pub(super) private: ObjectHandle,
    pub(super) public: PublicKey,
    /// For people.
    pub(super) label: String,
}

/// The one private key that `uri` names, and the public key that goes with it.
pub(super) fn find_key(session: &Session, uri: &Pkcs11Uri, token: &str) -> Result<Key> {
    let mut template = vec![Attribute::Class(ObjectClass::PRIVATE_KEY)];
    template.extend(uri.object().map(|label| Attribute::Label(label.into())));
    template.extend(uri.id().map(|id| Attribute::Id(id.to_vec())));
    let mut found = session.find_objects(&template).map_err(Foreign::from_call)?;
    if found.is_empty() {
        found = by_public_half(session, uri)?;
    }
    let private = match found[..] {
        [private] => private,
        [] => return Err(not_found(session, token)?.into()),
        ref several => {
            return Err(Error::new(
                ErrorKind::KeyAmbiguous,
                format!("{token} holds {} private keys that answer to the locator.", several.len()),
                "Name one by `object=` and `id=`; `claviger-ceremony token list` shows both.",
            )
            .into());
        }
    };
    let named = read_named(session, private)?;
    if named.always_authenticate {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "{token}, object \"{}\", asks for the PIN before every operation (CKA_ALWAYS_AUTHENTICATE).",
                printable(&named.label)
            ),
            "Make a key without that policy with `claviger-ceremony token generate`.",
        )
        .into());
    }
    let public = public_half(session, &named, token)?;
    Ok(Key { private, public, label: printable(&named.label) })
}

/// The private keys whose public halves `uri` names. OpenSC gives the halves of a PIV card's keys different labels, and only the public one is seen
/// without a login.
fn by_public_half(session: &Session, uri: &Pkcs11Uri) -> Result<Vec<ObjectHandle>> {
    let mut private = Vec::new();
    for public in session.find_objects(&public_template(uri)).map_err(Foreign::from_call)? {
        let id = read_named(session, public)?.id;
        if !id.is_empty() {
            let template = [Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::Id(id)];
            private.extend(session.find_objects(&template).map_err(Foreign::from_call)?);
        }
    }
    Ok(private)
}

fn public_template(uri: &Pkcs11Uri) -> Vec<Attribute> {
    let mut template = vec![Attribute::Class(ObjectClass::PUBLIC_KEY)];
    template.extend(uri.object().map(|label| Attribute::Label(label.into())));
    template.extend(uri.id().map(|id| Attribute::Id(id.to_vec())));
    template
}

/// Compares what is seen without a login: `KeyMismatch` when public objects answer to `uri` and none is `expected`. Where the token shows
/// none, nothing is known.
pub(super) fn check_visible(session: &Session, uri: &Pkcs11Uri, expected: &PublicKey, name: &str) -> crate::Result<()> {
    let seen = session.find_objects(&public_template(uri)).map_err(|error| Foreign::from_call(error).typed(name))?;
    let mut other = None;
    for object in seen {
        match read_public(session, object).map_err(|error| error.typed(name))? {
            Ok(public) if public == *expected => return Ok(()),
            Ok(public) => other = Some(public),
            Err(_) => {}
        }
    }
    other.map_or(Ok(()), |other| crate::token::check_expected(&other, Some(expected), name))
}

/// What ties the two halves of a pair together.
struct Named {
    label: String,
    id: Vec<u8>,
    always_authenticate: bool,
}

fn read_named(session: &Session, object: ObjectHandle) -> Result<Named> {
    let wanted = [AttributeType::Label, AttributeType::Id, AttributeType::AlwaysAuthenticate];
    let mut named = Named { label: String::new(), id: Vec::new(), always_authenticate: false };
    for attribute in session.get_attributes(object, &wanted).map_err(Foreign::from_call)? {
        match attribute {
            Attribute::Label(label) => named.label = String::from_utf8_lossy(&label).into_owned(),
            Attribute::Id(id) => named.id = id,
            Attribute::AlwaysAuthenticate(always) => named.always_authenticate = always,
            _ => {}
        }
    }
    Ok(named)
}

/// The public object with the private key's `CKA_ID`, or with its label where it has no ID.
fn public_half(session: &Session, named: &Named, token: &str) -> Result<PublicKey> {
    let tie = if named.id.is_empty() {
        Attribute::Label(named.label.clone().into_bytes())
    } else {
        Attribute::Id(named.id.clone())
    };
    let template = [Attribute::Class(ObjectClass::PUBLIC_KEY), tie];
    let name = format!("{token}, object \"{}\"", printable(&named.label));
    match session.find_objects(&template).map_err(Foreign::from_call)?[..] {
        [public] => Ok(read_public(session, public)?.map_err(|why| {
            Error::new(
                ErrorKind::WrongCurve,
                format!("The key of {name} is not on a curve that is used here: {why}."),
                "Make a key with `claviger-ceremony token generate --curve x25519` (or p256).",
            )
        })?),
        [] => Err(Error::new(
            ErrorKind::KeyNotFound,
            format!("{name} is there, but its public key object is missing (no public object with the same CKA_ID)."),
            "Import the public key under the same ID, or make a new pair with `claviger-ceremony token generate`.",
        )
        .into()),
        _ => Err(Error::new(
            ErrorKind::KeyAmbiguous,
            format!("Several public key objects have the ID of {name}."),
            "Remove the public objects that do not belong to the key.",
        )
        .into()),
    }
}

/// The public key of a public object; the inner error says why it is none that can be used here.
pub(super) fn read_public(session: &Session, object: ObjectHandle) -> Result<std::result::Result<PublicKey, String>> {
    let wanted = [AttributeType::KeyType, AttributeType::EcPoint, AttributeType::EcParams];
    let (mut point, mut params, mut key_type) = (Vec::new(), Vec::new(), None);
    for attribute in session.get_attributes(object, &wanted).map_err(Foreign::from_call)? {
        match attribute {
            Attribute::EcPoint(bytes) => point = bytes,
            Attribute::EcParams(bytes) => params = bytes,
            Attribute::KeyType(found) => key_type = Some(found),
            _ => {}
        }
    }
    if point.is_empty() {
        return Ok(Err(match key_type {
            Some(KeyType::RSA) => "it is an RSA key".into(),
            _ => "it has no CKA_EC_POINT".into(),
        }));
    }
    if params == OID_ED25519 {
        return Ok(Err("it is an Ed25519 signing key".into()));
    }
    Ok(match raw_point(&point) {
        Some((curve, raw)) => PublicKey::new(curve, raw).map_err(|error| error.to_string()),
        None => Err(format!("its point has {} bytes", point.len())),
    })
}

/// `CKA_EC_POINT`: raw, or wrapped in a DER OCTET STRING. The four lengths tell both form and curve.
fn raw_point(point: &[u8]) -> Option<(Curve, &[u8])> {
    match point {
        [0x04, 32, raw @ ..] if raw.len() == 32 => Some((Curve::X25519, raw)),
        [0x04, 65, raw @ ..] if raw.len() == 65 => Some((Curve::P256, raw)),
        raw if raw.len() == 32 => Some((Curve::X25519, raw)),
        raw if raw.len() == 65 => Some((Curve::P256, raw)),
        _ => None,
    }
}

fn not_found(session: &Session, token: &str) -> Result<Error> {
    let mut labels = Vec::new();
    let template = [Attribute::Class(ObjectClass::PRIVATE_KEY)];
    for object in session.find_objects(&template).map_err(Foreign::from_call)?.into_iter().take(16) {
        labels.push(format!("\"{}\"", printable(&read_named(session, object)?.label)));
    }
    let there = if labels.is_empty() { "it holds none".into() } else { format!("it holds {}", labels.join(", ")) };
    Ok(Error::new(
        ErrorKind::KeyNotFound,
        format!("{token} has no private key that answers to the locator; {there}."),
        "Correct `object=` or `id=`, or make the key with `claviger-ceremony token generate`.",
    ))
}

/// The one operation: `C_DeriveKey` into a session object, its value read, the object destroyed.
///
/// `point` is raw: every module takes that, and several refuse DER.
pub(super) fn derive(session: &Session, private: ObjectHandle, point: &[u8]) -> Result<SharedSecret> {
    let mechanism = Mechanism::Ecdh1Derive(Ecdh1DeriveParams::new(EcKdf::null(), point));
    let template = [
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::GENERIC_SECRET),
        Attribute::Token(false),
        Attribute::Private(false),
        Attribute::Sensitive(false),
        Attribute::Extractable(true),
        Attribute::ValueLen(Ulong::new(32)),
    ];
    let derived = session.derive_key(&mechanism, private, &template).map_err(Foreign::from_call)?;
    let value = session.get_attributes(derived, &[AttributeType::Value]);
    let destroyed = session.destroy_object(derived);
    let mut secret = Zeroizing::new([0; 32]);
    let mut length = 0;
    for attribute in value.map_err(Foreign::from_call)? {
        if let Attribute::Value(mut bytes) = attribute {
            length = bytes.len();
            if length == secret.len() {
                secret.copy_from_slice(&bytes);
            }
            bytes.zeroize();
        }
    }
    destroyed.map_err(Foreign::from_call)?;
    if length != secret.len() {
        return Err(Error::new(
            ErrorKind::Device,
            format!("The token gave a shared secret of {length} bytes instead of 32."),
            "Use another module or token; this one does not do plain ECDH.",
        )
        .into());
    }
    Ok(SharedSecret::new(*secret)?)
}

/// Proves that the private key belongs to the public one. Gives the time the operation took.
pub(super) fn prove(session: &Session, key: &Key, name: &str) -> crate::Result<Duration> {
    crate::token::prove(&key.public, name, |peer| {
        derive(session, key.private, peer.as_bytes()).map_err(|error| error.typed(name))
    })
}
