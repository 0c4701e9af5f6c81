//! The signature key: PSO: COMPUTE DIGITAL SIGNATURE (section 7.2.10), with PW1 in mode 81.
//!
//! The PIN is sent for each signature. Many cards want it so (PW status bytes, section 4.3.1), and nobody signs here often enough to be spared it.

use x509_cert::der::asn1::{AnyRef, UintRef};
use x509_cert::der::{self, Encode as _, Tag};

use super::card::{self, Answer, Outcome, Password};
use super::key::Key;
use super::view::{OID_P256, application_object, touch};
use super::{begin, locate, unlocked};
use crate::error::{Error, ErrorKind, Result};
use crate::locator::OpenPgpLocator;
use crate::operation::{Operation, Stage};
use crate::pin::{KeepPin, Keeper};
use crate::sign::{Algorithm, Signature, unsupported};
use crate::smartcard::{Exchange, Fault, tlv};
use crate::token::{Hints, PinPolicy, TokenKind, Touch};

/// Algorithm attributes of the signature key (DO C1, section 4.4.3.9), and its user interaction flag (DO D6, section 4.4.3.6).
const ATTRIBUTES: u16 = 0xc1;
const INTERACTION: u16 = 0xd6;
/// The control reference template of the signature key (section 7.2.14).
const SIGNATURE_KEY: &[u8] = &[0xb6, 0x00];
/// Algorithm numbers in algorithm attributes: RSA, ECDSA, EdDSA (RFC 4880, section 9.1, and RFC 9580, section 9.1).
const RSA: u8 = 1;
const ECDSA: u8 = 19;
const EDDSA: u8 = 22;
/// 1.3.6.1.4.1.11591.15.1, as OpenPGP names Ed25519, and 1.3.101.112 (RFC 9580, section 9.2).
const OID_ED25519: [&[u8]; 2] = [&[0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x0f, 0x01], &[0x2b, 0x65, 0x70]];

/// The key as the card tells it.
struct SigningKey {
    algorithm: std::result::Result<Algorithm, &'static str>,
    /// `None`: there is none.
    public: Option<Vec<u8>>,
    touch: Touch,
    /// Whether PW1 is verified for signing already; `None`: the card does not tell.
    verified: Option<bool>,
}

/// Signs `hash`.
pub(crate) fn sign(locator: &OpenPgpLocator, hash: &[u8; 32], operation: &mut Operation<'_>) -> Result<Signature> {
    operation.enter(Stage::Access);
    let (mut link, view) = locate(&mut Default::default(), locator, None)?;
    let card = view.label();
    let what = format!("{card}, signature key");
    let mut key = Key::of(&view, what.clone());
    let read = link.transact(|exchange| {
        key.select(exchange)?;
        let verified = key.status(exchange, Password::Sign)?;
        Ok((SigningKey { verified, ..SigningKey::read(exchange)? }, card::tries_left(exchange, Password::Sign)?))
    });
    let (found, tries) = read.map_err(|fault| fault.typed(&what))?;
    let public_key = found.public.ok_or_else(|| missing(&card))?;
    let algorithm = found.algorithm.map_err(|why| unsupported(&what, why))?;
    let hints = Hints {
        kind: TokenKind::OpenPgp,
        label: what.clone(),
        hardware: true,
        touch: found.touch,
        pin: PinPolicy::Always,
        latency: Default::default(),
    };
    let waits = matches!(found.touch, Touch::Always | Touch::Cached);
    let stage = if waits { Stage::Touch } else { Stage::Device };
    operation.before_deadline(&what)?;
    let mut keeper = Keeper::new(KeepPin::Never, locator.pin_source.as_deref());
    let signed = unlocked(
        &mut key,
        &mut keeper,
        &hints,
        &mut link,
        Password::Sign,
        tries,
        operation,
        |key, exchange, operation, hints| {
            begin(operation, hints, stage)?;
            let outcome = compute(exchange, hash);
            // A card that lets the PIN hold for several signatures is not left open by us.
            if found.verified == Some(false) && !outcome.as_ref().is_err_and(Fault::is_lost) {
                card::forget(exchange, Password::Sign)?;
            }
            match outcome? {
                Outcome::Done(signature) => Ok(signature),
                Outcome::Refused(0x6985) if !waits => Err(missing(&card).into()),
                Outcome::Refused(status) if waits || status == 0x6600 => Err(key.not_touched().into()),
                Outcome::Refused(status) => Err(Fault::Status { command: NAME, status }),
            }
        },
    );
    let signature = signed.and_then(|signature| form(algorithm, signature)).map_err(|fault| fault.typed(&what))?;
    Ok(Signature { algorithm, public_key, signature, device: what })
}

const NAME: &str = "PSO: COMPUTE DIGITAL SIGNATURE";

/// ECDSA takes the hash, EdDSA what is signed; both are these 32 bytes (section 7.2.10).
fn compute(card: &mut dyn Exchange, hash: &[u8; 32]) -> Answer<Outcome<Vec<u8>>> {
    let answer = crate::smartcard::send(card, crate::smartcard::Command::new(NAME, 0x2a, 0x9e, 0x9a, hash));
    Outcome::of(answer.map(|signature| signature.to_vec()))
}

/// The card gives R and S one after the other, 32 bytes each (section 7.2.10).
fn form(algorithm: Algorithm, signature: Vec<u8>) -> Answer<Vec<u8>> {
    if signature.len() != 64 {
        return Err(Fault::Malformed(NAME, "the answer has not 64 bytes"));
    }
    match algorithm {
        Algorithm::Ed25519 => Ok(signature),
        Algorithm::EcdsaP256 => ecdsa_der(&signature).map_err(|_| Fault::Malformed(NAME, "the answer is no signature")),
    }
}

/// `Ecdsa-Sig-Value` (RFC 3279, section 2.2.3) of R and S.
fn ecdsa_der(signature: &[u8]) -> der::Result<Vec<u8>> {
    let (r, s) = signature.split_at(signature.len() / 2);
    let numbers = [UintRef::new(r)?.to_der()?, UintRef::new(s)?.to_der()?].concat();
    AnyRef::new(Tag::Sequence, &numbers)?.to_der()
}

impl SigningKey {
    fn read(card: &mut dyn Exchange) -> Answer<Self> {
        let data = card::get(card, card::APPLICATION_DATA)?;
        let attributes = application_object(&data, ATTRIBUTES).unwrap_or_default();
        let interaction = card::find(card, INTERACTION)?;
        let features = application_object(&data, 0x7f74);
        let (touch, _) = touch(interaction.as_ref().map(|flag| flag.as_slice()), features);
        let public = match crate::smartcard::send(
            card,
            crate::smartcard::Command::new("GENERATE ASYMMETRIC KEY PAIR", 0x47, 0x81, 0x00, SIGNATURE_KEY),
        ) {
            Ok(answer) => tlv(&answer, 0x7f49).and_then(|object| tlv(object, 0x86)).map(<[u8]>::to_vec),
            Err(Fault::Status { .. }) => None,
            Err(fault) => return Err(fault),
        };
        Ok(Self { algorithm: algorithm(attributes), public: public.map(native), touch, verified: None })
    }
}

/// All that is read from a card that signs, for the fuzz target.
#[cfg(feature = "fuzzing")]
pub(super) fn tried(card: &mut dyn Exchange) -> Answer<()> {
    let found = SigningKey::read(card)?;
    if let (Ok(algorithm), Outcome::Done(signature)) = (found.algorithm, compute(card, &[7; 32])?) {
        form(algorithm, signature)?;
    }
    Ok(())
}

/// Some cards mark Ed25519's 32 bytes with 40, as OpenPGP does in its packets.
fn native(public: Vec<u8>) -> Vec<u8> {
    match public.strip_prefix(&[0x40]) {
        Some(native) if native.len() == 32 => native.to_vec(),
        _ => public,
    }
}

fn algorithm(attributes: &[u8]) -> std::result::Result<Algorithm, &'static str> {
    let (&number, named) = attributes.split_first().ok_or("it does not tell what its key is")?;
    let is = |oid: &[u8]| named.strip_prefix(oid).is_some_and(|format| format.len() <= 1);
    match number {
        ECDSA if is(OID_P256) => Ok(Algorithm::EcdsaP256),
        EDDSA if OID_ED25519.into_iter().any(is) => Ok(Algorithm::Ed25519),
        RSA => Err("its key is, or would be, an RSA key"),
        _ => Err("its key is neither on P-256 nor Ed25519"),
    }
}

fn missing(what: &str) -> Error {
    Error::new(
        ErrorKind::KeyNotFound,
        format!("{what} has no signature key."),
        "Make one with `gpg --card-edit`: `admin`, `key-attr`, `generate`.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_minimal_der() {
        let mut raw = [0; 64];
        (raw[31], raw[32]) = (5, 0x80);
        let der = ecdsa_der(&raw).unwrap();
        assert_eq!(der[..5], [0x30, 38, 0x02, 1, 5]);
        assert_eq!(der[5..9], [0x02, 33, 0, 0x80]);
        assert!(matches!(form(Algorithm::EcdsaP256, vec![1; 63]), Err(Fault::Malformed(..))));
    }

    #[test]
    fn attributes_name_the_algorithm() {
        assert_eq!(algorithm(&[&[ECDSA], OID_P256].concat()), Ok(Algorithm::EcdsaP256));
        for oid in OID_ED25519 {
            assert_eq!(algorithm(&[&[EDDSA], oid, &[0xff]].concat()), Ok(Algorithm::Ed25519));
        }
        assert!(algorithm(&[RSA, 8, 0, 0, 32, 0]).unwrap_err().contains("RSA"));
        assert!(algorithm(&[]).is_err() && algorithm(&[ECDSA, 1, 2]).is_err());
    }
}
