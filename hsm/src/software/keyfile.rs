//! The bytes of a key file.

use std::path::Path;

use aws_lc_rs::rand;
use pkcs8::der::asn1::{AnyRef, OctetStringRef};
use pkcs8::der::pem::LineEnding;
use pkcs8::der::{Decode, Encode};
use pkcs8::pkcs5::pbes2::{EncryptionScheme as Cipher, Parameters};
use pkcs8::pkcs5::{EncryptionScheme, scrypt};
use pkcs8::{AlgorithmIdentifierRef, EncryptedPrivateKeyInfo, ObjectIdentifier, PrivateKeyInfo, SecretDocument};
use sec1::EcPrivateKey;
use zeroize::Zeroizing;

use crate::curve::{Curve, SoftKey, library_failed};
use crate::error::{Error, ErrorKind, Result};
use crate::secret::Pin;

/// RFC 8410, section 3.
const ID_X25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.110");
/// RFC 5480, section 2.1.1.
const ID_EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
/// RFC 5480, section 2.1.1.1.
const SECP256R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");

const PEM_LABEL: &str = "ENCRYPTED PRIVATE KEY";

/// The cost of a file that is written: 2^20 blocks mixed, a few tenths of a second, in 16 MiB.
const LOG_N: u8 = 14;
const R: u32 = 8;
const P: u32 = 8;

/// The most that a file may ask of whoever opens it: bytes of memory (128 · N · r), and blocks mixed (N · r · p).
const MAX_MEMORY: u64 = 256 << 20;
const MAX_WORK: u64 = 1 << 24;

/// A key file whose passphrase has not been asked for yet: well-formed, of the accepted algorithms, and affordable.
pub(super) struct Sealed {
    der: SecretDocument,
    name: String,
}

impl Sealed {
    /// # Errors
    /// `KeyFile`: not PEM, not encrypted, other algorithms than scrypt and AES-256-CBC, or too costly.
    pub(super) fn parse(text: &[u8], name: &str, path: &Path) -> Result<Self> {
        let convert = format!(
            "Convert it: `openssl pkcs8 -topk8 -scrypt -v2 aes-256-cbc -in '{}' -out NEW.pem`, then `chmod 600 NEW.pem`.",
            path.display()
        );
        let refused =
            |why: &str, hint: &str| Error::new(ErrorKind::KeyFile, format!("The {name} is refused: {why}."), hint);
        let restore = "Restore it from its backup, or make another with `claviger-ceremony token generate`.";
        let text = std::str::from_utf8(text).map_err(|_| refused("it is not text", restore))?;
        let (label, der) = SecretDocument::from_pem(text).map_err(|_| refused("it is not PEM", restore))?;
        if label != PEM_LABEL {
            let why = if label.ends_with("PRIVATE KEY") {
                "it is not encrypted as PKCS#8"
            } else {
                "it holds no private key"
            };
            return Err(refused(why, &convert));
        }
        let info = EncryptedPrivateKeyInfo::from_der(der.as_bytes())
            .map_err(|_| refused("it is damaged, or uses algorithms that are unknown here", &convert))?;
        let EncryptionScheme::Pbes2(Parameters { kdf, encryption: Cipher::Aes256Cbc { .. } }) =
            &info.encryption_algorithm
        else {
            return Err(refused("its cipher is not AES-256-CBC", &convert));
        };
        let Some(cost) = kdf.scrypt() else {
            return Err(refused("its passphrase is not guarded by scrypt", &convert));
        };
        let blocks = cost.cost_parameter.saturating_mul(cost.block_size.into());
        if blocks.saturating_mul(128) > MAX_MEMORY || blocks.saturating_mul(cost.parallelization.into()) > MAX_WORK {
            return Err(refused("opening it would take more than 256 MiB, or very long", &convert));
        }
        Ok(Self { der, name: name.into() })
    }

    /// # Errors
    /// `WrongPin`: the passphrase does not open it (a damaged file cannot be told from that). `WrongCurve`: another kind of key.
    pub(super) fn open(&self, passphrase: &Pin) -> Result<SoftKey> {
        let wrong = || {
            Error::new(
                ErrorKind::WrongPin,
                format!("The passphrase does not open the {}.", self.name),
                "Try again with the right passphrase; if it is right, the file is damaged: restore it from its backup.",
            )
        };
        let info = EncryptedPrivateKeyInfo::from_der(self.der.as_bytes()).map_err(|_| wrong())?;
        let plain = info.decrypt(passphrase.expose()).map_err(|_| wrong())?;
        let key = PrivateKeyInfo::from_der(plain.as_bytes()).map_err(|_| wrong())?;
        let other = || {
            Error::new(
                ErrorKind::WrongCurve,
                format!("The {} holds a key that is neither x25519 nor p256.", self.name),
                "Make another with `claviger-ceremony token generate`.",
            )
        };
        let named_curve = || key.algorithm.parameters_oid().ok();
        let (curve, scalar) = match key.algorithm.oid {
            ID_X25519 => (Curve::X25519, OctetStringRef::from_der(key.private_key).map_err(|_| other())?.as_bytes()),
            ID_EC_PUBLIC_KEY if named_curve() == Some(SECP256R1) => {
                (Curve::P256, EcPrivateKey::from_der(key.private_key).map_err(|_| other())?.private_key)
            }
            _ => return Err(other()),
        };
        let scalar: Zeroizing<[u8; 32]> = Zeroizing::new(scalar.try_into().map_err(|_| other())?);
        SoftKey::from_scalar(curve, &scalar)
    }
}

/// The PEM text of a key file.
pub(super) fn seal(key: &SoftKey, scalar: &[u8; 32], passphrase: &Pin) -> Result<Zeroizing<String>> {
    let failed = |call: &'static str| move |_| library_failed_in("pkcs8", call);
    let curve_oid = AnyRef::from(&SECP256R1);
    let (algorithm, inner) = match key.public().curve() {
        Curve::X25519 => {
            let inner = OctetStringRef::new(scalar).and_then(|octets| octets.to_der()).map_err(failed("to_der"))?;
            (AlgorithmIdentifierRef { oid: ID_X25519, parameters: None }, Zeroizing::new(inner))
        }
        Curve::P256 => {
            let ec = EcPrivateKey { private_key: scalar, parameters: None, public_key: Some(key.public().as_bytes()) };
            let inner = ec.to_der().map_err(failed("to_der"))?;
            let algorithm = AlgorithmIdentifierRef { oid: ID_EC_PUBLIC_KEY, parameters: Some(curve_oid) };
            (algorithm, Zeroizing::new(inner))
        }
    };
    let (mut salt, mut iv) = ([0; 16], [0; 16]);
    rand::fill(&mut salt).map_err(|_| library_failed("rand::fill"))?;
    rand::fill(&mut iv).map_err(|_| library_failed("rand::fill"))?;
    let cost = scrypt::Params::new(LOG_N, R, P, 32).map_err(|_| library_failed_in("scrypt", "Params::new"))?;
    let parameters = Parameters::scrypt_aes256cbc(cost, &salt, &iv)
        .map_err(|_| library_failed_in("pkcs5", "Parameters::scrypt_aes256cbc"))?;
    PrivateKeyInfo::new(algorithm, &inner)
        .encrypt_with_params(parameters, passphrase.expose())
        .map_err(|_| library_failed_in("pkcs8", "PrivateKeyInfo::encrypt_with_params"))?
        .to_pem(PEM_LABEL, LineEnding::LF)
        .map_err(failed("to_pem"))
}

fn library_failed_in(library: &str, call: &str) -> Error {
    Error::new(ErrorKind::Device, format!("{library} failed in {call}."), "Run it again; if it stays, report it.")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A well-formed file of that cost, which nobody ever encrypted.
    fn costing(log_n: u8, r: u32, p: u32) -> Result<Sealed> {
        let cost = scrypt::Params::new(log_n, r, p, 32).unwrap();
        let parameters = Parameters::scrypt_aes256cbc(cost, &[1; 16], &[2; 16]).unwrap();
        let info = EncryptedPrivateKeyInfo { encryption_algorithm: parameters.into(), encrypted_data: &[3; 64] };
        let text = SecretDocument::encode_msg(&info).unwrap().to_pem(PEM_LABEL, LineEnding::LF).unwrap();
        Sealed::parse(text.as_bytes(), "software key file", Path::new("key.pem"))
    }

    #[test]
    fn a_file_cannot_ask_for_endless_work() {
        for (log_n, r, p) in [(LOG_N, R, P), (18, 8, 8), (14, 8, 128), (17, 16, 8)] {
            assert!(costing(log_n, r, p).is_ok(), "{log_n} {r} {p}");
        }
        for (log_n, r, p) in [(18, 9, 1), (19, 8, 1), (30, 8, 1), (14, 8, 129), (1, 65_535, 16_384), (14, 65_535, 1)] {
            let error = costing(log_n, r, p).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::KeyFile, "{log_n} {r} {p}");
            assert!(error.to_string().contains("256 MiB"), "{error}");
        }
    }
}
