//! Private keys and their policies.

use claviger_cards::apdu::WRONG_DATA;
use claviger_cards::{Status, tlv};
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::signature::hazmat::PrehashSigner as _;
use rand_core::{OsRng, RngCore as _};
use x509_cert::der::asn1::{Any, BitString, ObjectIdentifier};
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};

const ID_EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const PRIME256V1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const ID_X25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.110");
const ID_ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// The curves that this card has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Curve {
    P256,
    X25519,
    /// Signs only.
    Ed25519,
}

impl Curve {
    /// Yubico's algorithm byte.
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0x11 => Some(Self::P256),
            0xE0 => Some(Self::Ed25519),
            0xE1 => Some(Self::X25519),
            _ => None,
        }
    }

    fn byte(self) -> u8 {
        match self {
            Self::P256 => 0x11,
            Self::X25519 => 0xE1,
            Self::Ed25519 => 0xE0,
        }
    }
}

/// When an operation needs the PIN.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum PinPolicy {
    Never = 1,
    /// Once after SELECT.
    Once = 2,
    /// Immediately before each operation.
    Always = 3,
}

/// When an operation needs a touch.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum TouchPolicy {
    Never = 1,
    Always = 2,
    /// When the last touch is 15 s ago or more.
    Cached = 3,
}

/// Policies from the fields `AA` and `AB` of a command; an absent one, or 0, is the slot's default.
pub(crate) fn policies(fields: &[u8], slot: u8) -> Result<(PinPolicy, TouchPolicy), Status> {
    let pin = match (tlv::find(fields, 0xAA), slot) {
        (None | Some([0]), 0x9C) => PinPolicy::Always,
        (None | Some([0]), 0x9E) | (Some([1]), _) => PinPolicy::Never,
        (None | Some([0]), _) | (Some([2]), _) => PinPolicy::Once,
        (Some([3]), _) => PinPolicy::Always,
        _ => return Err(WRONG_DATA),
    };
    let touch = match tlv::find(fields, 0xAB) {
        None | Some([0 | 1]) => TouchPolicy::Never,
        Some([2]) => TouchPolicy::Always,
        Some([3]) => TouchPolicy::Cached,
        _ => return Err(WRONG_DATA),
    };
    Ok((pin, touch))
}

enum Secret {
    P256(p256::SecretKey),
    X25519(x25519_dalek::StaticSecret),
    Ed25519(Box<salty::Keypair>),
}

/// A key in a slot.
pub(crate) struct Key {
    secret: Secret,
    pub(crate) pin: PinPolicy,
    pub(crate) touch: TouchPolicy,
    /// False for an imported key.
    pub(crate) generated: bool,
}

impl Key {
    /// Makes a key.
    pub(crate) fn generate(curve: Curve, (pin, touch): (PinPolicy, TouchPolicy)) -> Self {
        let secret = match curve {
            Curve::P256 => Secret::P256(p256::SecretKey::random(&mut OsRng)),
            Curve::X25519 => Secret::X25519(x25519_dalek::StaticSecret::random_from_rng(OsRng)),
            Curve::Ed25519 => {
                let mut seed = [0; 32];
                OsRng.fill_bytes(&mut seed);
                Secret::Ed25519(Box::new(salty::Keypair::from(&seed)))
            }
        };
        Self { secret, pin, touch, generated: true }
    }

    /// Takes a private key of 32 bytes: field `06` for P-256, `07` for Ed25519, `08` for X25519.
    pub(crate) fn import(curve: Curve, fields: &[u8], (pin, touch): (PinPolicy, TouchPolicy)) -> Result<Self, Status> {
        let tag = match curve {
            Curve::P256 => 0x06,
            Curve::Ed25519 => 0x07,
            Curve::X25519 => 0x08,
        };
        let bytes: [u8; 32] = tlv::find(fields, tag).and_then(|key| key.try_into().ok()).ok_or(WRONG_DATA)?;
        let secret = match curve {
            Curve::P256 => Secret::P256(p256::SecretKey::from_slice(&bytes).map_err(|_| WRONG_DATA)?),
            Curve::X25519 => Secret::X25519(bytes.into()),
            Curve::Ed25519 => Secret::Ed25519(Box::new(salty::Keypair::from(&bytes))),
        };
        Ok(Self { secret, pin, touch, generated: false })
    }

    pub(crate) fn curve(&self) -> Curve {
        match self.secret {
            Secret::P256(_) => Curve::P256,
            Secret::X25519(_) => Curve::X25519,
            Secret::Ed25519(_) => Curve::Ed25519,
        }
    }

    /// 65 bytes (an uncompressed point) or 32.
    pub(crate) fn public(&self) -> Vec<u8> {
        match &self.secret {
            Secret::P256(key) => key.public_key().to_sec1_bytes().into(),
            Secret::X25519(key) => x25519_dalek::PublicKey::from(key).as_bytes().into(),
            Secret::Ed25519(key) => key.public.as_bytes().into(),
        }
    }

    /// The public key as certificates hold it.
    pub(crate) fn public_info(&self) -> Result<SubjectPublicKeyInfoOwned, x509_cert::der::Error> {
        let algorithm = match self.curve() {
            Curve::P256 => AlgorithmIdentifierOwned { oid: ID_EC_PUBLIC_KEY, parameters: Some(Any::from(PRIME256V1)) },
            Curve::X25519 => AlgorithmIdentifierOwned { oid: ID_X25519, parameters: None },
            Curve::Ed25519 => AlgorithmIdentifierOwned { oid: ID_ED25519, parameters: None },
        };
        Ok(SubjectPublicKeyInfoOwned { algorithm, subject_public_key: BitString::from_bytes(&self.public())? })
    }

    /// GET METADATA's fields: algorithm, policies, origin, public key.
    pub(crate) fn metadata(&self) -> Vec<u8> {
        let mut fields = vec![0x01, 1, self.curve().byte(), 0x02, 2, self.pin as u8, self.touch as u8];
        fields.extend([0x03, 1, if self.generated { 1 } else { 2 }]);
        fields.extend(tlv::field(&[0x04], &tlv::field(&[0x86], &self.public())));
        fields
    }

    /// The shared secret with `peer`, 32 bytes. A P-256 point that is none is refused; X25519 takes any 32 bytes.
    pub(crate) fn agree(&self, peer: &[u8]) -> Result<Vec<u8>, Status> {
        match &self.secret {
            Secret::P256(key) => {
                let peer = (peer.len() == 65).then(|| p256::PublicKey::from_sec1_bytes(peer).ok()).flatten();
                let peer = peer.ok_or(WRONG_DATA)?;
                let shared = p256::ecdh::diffie_hellman(key.to_nonzero_scalar(), peer.as_affine());
                Ok(shared.raw_secret_bytes().to_vec())
            }
            Secret::X25519(key) => {
                let peer: [u8; 32] = peer.try_into().map_err(|_| WRONG_DATA)?;
                Ok(key.diffie_hellman(&peer.into()).as_bytes().to_vec())
            }
            Secret::Ed25519(_) => Err(WRONG_DATA),
        }
    }

    /// An ECDSA signature of a hash, DER; or an Ed25519 signature of a message, 64 bytes. An X25519 key signs nothing.
    pub(crate) fn sign(&self, hash: &[u8]) -> Result<Vec<u8>, Status> {
        if let Secret::Ed25519(key) = &self.secret {
            return Ok(key.sign(hash).to_bytes().into());
        }
        let signature: p256::ecdsa::DerSignature =
            self.signer().ok_or(WRONG_DATA)?.sign_prehash(hash).map_err(|_| WRONG_DATA)?;
        Ok(signature.as_bytes().into())
    }

    /// The same of a message, with SHA-256. `None` for a key on another curve.
    pub(crate) fn sign_message(&self, message: &[u8]) -> Option<Vec<u8>> {
        let signature: p256::ecdsa::DerSignature = self.signer()?.sign(message);
        Some(signature.as_bytes().into())
    }

    fn signer(&self) -> Option<p256::ecdsa::SigningKey> {
        match &self.secret {
            Secret::P256(key) => Some(key.into()),
            Secret::X25519(_) | Secret::Ed25519(_) => None,
        }
    }
}
