//! Templates of keys that are made, and what a key must be so that it is used (part 2, sections 8.3 and 12.2).

use aws_lc_rs::digest;
use tss_esapi::attributes::{ObjectAttributes, ObjectAttributesBuilder};
use tss_esapi::interface_types::algorithm::{HashingAlgorithm, PublicAlgorithm};
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::structures::{
    EccParameter, EccPoint, EccScheme, HashScheme, KeyDerivationFunctionScheme, Public, PublicBuilder,
    PublicEccParametersBuilder, SymmetricDefinitionObject,
};

use super::fail::Fault;
use super::padded;
use crate::curve::{Curve, PublicKey};
use crate::error::{Error, ErrorKind, Result};

/// What is hashed before the name of an owner key. Another text makes other keys.
const OWNER_KEY: &[u8] = b"claviger tpm2 owner key 1:";

type Made<T> = std::result::Result<T, Fault>;

/// What all keys made here have: they never leave the TPM, and it made them.
fn attributes() -> ObjectAttributesBuilder {
    ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(true)
        .with_decrypt(true)
}

fn ecc(attributes: ObjectAttributesBuilder, parameters: PublicEccParametersBuilder, unique: EccPoint) -> Made<Public> {
    let attributes = attributes.build().map_err(|error| Fault::call("TPMA_OBJECT", error))?;
    let parameters = parameters.build().map_err(|error| Fault::call("TPMS_ECC_PARMS", error))?;
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::Ecc)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_ecc_parameters(parameters)
        .with_ecc_unique_identifier(unique)
        .build()
        .map_err(|error| Fault::call("TPMT_PUBLIC", error))
}

/// A storage key: parent of the keys made here, and salt of the sessions in which they are made.
pub(super) fn storage() -> Made<Public> {
    let parameters = PublicEccParametersBuilder::new_restricted_decryption_key(
        SymmetricDefinitionObject::AES_128_CFB,
        EccCurve::NistP256,
    );
    ecc(attributes().with_restricted(true).with_no_da(true), parameters, EccPoint::default())
}

fn agreeing() -> PublicEccParametersBuilder {
    PublicEccParametersBuilder::new()
        .with_ecc_scheme(EccScheme::EcDh(HashScheme::new(HashingAlgorithm::Sha256)))
        .with_curve(EccCurve::NistP256)
        .with_is_decryption_key(true)
        .with_key_derivation_function_scheme(KeyDerivationFunctionScheme::Null)
}

/// A key that agrees. Without a PIN there is nothing that a lockout would protect.
pub(super) fn key(with_pin: bool) -> Made<Public> {
    ecc(attributes().with_no_da(!with_pin), agreeing(), EccPoint::default())
}

/// The primary key of that name: X of its unique field is the SHA-256 of [`OWNER_KEY`] and the name, Y is empty.
pub(super) fn owner_key(name: &str) -> Made<Public> {
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(OWNER_KEY);
    hash.update(name.as_bytes());
    let x =
        EccParameter::try_from(hash.finish().as_ref()).map_err(|error| Fault::call("TPM2B_ECC_PARAMETER", error))?;
    ecc(attributes().with_no_da(true), agreeing(), EccPoint::new(x, EccParameter::default()))
}

/// Whether wrong authorization values for the object are counted.
pub(super) fn is_counted(public: &Public) -> bool {
    !public.object_attributes().no_da()
}

/// The public key of an object that agrees and cannot leave the TPM.
///
/// # Errors
/// `WrongCurve`, `Unsupported`, `KeyExposed`, `BadPoint`.
pub(super) fn public_key(public: &Public, what: &str) -> Result<PublicKey> {
    let Public::Ecc { object_attributes, parameters, unique, .. } = public else {
        return Err(not_p256(what, "is no key of an elliptic curve"));
    };
    if parameters.ecc_curve() != EccCurve::NistP256 {
        return Err(not_p256(what, "is on another curve than p256"));
    }
    let scheme = matches!(parameters.ecc_scheme(), EccScheme::Null | EccScheme::EcDh(_));
    if !object_attributes.decrypt() || object_attributes.restricted() || !scheme {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!("{what} was not made for Diffie-Hellman (it signs, or is a storage key)."),
            "Make a key for it with `claviger-ceremony token generate`.",
        ));
    }
    if !object_attributes.user_with_auth() {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!("{what} may be used by a policy only (userWithAuth is not set)."),
            "Make a key without a policy with `claviger-ceremony token generate`.",
        ));
    }
    if let Some(missing) = exposure(*object_attributes) {
        return Err(Error::new(
            ErrorKind::KeyExposed,
            format!("{what} was not made in this TPM, or can leave it ({missing} is not set)."),
            "Make a key that cannot with `claviger-ceremony token generate`.",
        ));
    }
    let coordinates = padded(unique.x().value()).zip(padded(unique.y().value()));
    let (x, y) = coordinates.ok_or_else(|| {
        Error::new(ErrorKind::BadPoint, format!("The public key of {what} is too long."), super::fail::DEVICE_HINT)
    })?;
    PublicKey::new(Curve::P256, &[&[4], &x[..], &y[..]].concat())
}

fn exposure(attributes: ObjectAttributes) -> Option<&'static str> {
    [
        (attributes.fixed_tpm(), "fixedTPM"),
        (attributes.fixed_parent(), "fixedParent"),
        (attributes.sensitive_data_origin(), "sensitiveDataOrigin"),
    ]
    .into_iter()
    .find_map(|(set, name)| (!set).then_some(name))
}

fn not_p256(what: &str, why: &str) -> Error {
    Error::new(
        ErrorKind::WrongCurve,
        format!("{what} {why}."),
        "A TPM agrees on p256 only; make a key with `claviger-ceremony token generate --curve p256`.",
    )
}

/// A point as a command takes it.
pub(super) fn point(peer: &PublicKey) -> Made<EccPoint> {
    let coordinate =
        |bytes: &[u8]| EccParameter::try_from(bytes).map_err(|error| Fault::call("TPM2B_ECC_PARAMETER", error));
    let bytes = peer.as_bytes();
    Ok(EccPoint::new(coordinate(&bytes[1..33])?, coordinate(&bytes[33..])?))
}
