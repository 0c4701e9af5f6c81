//! The digital signature key, slot 9C: the one that the standard lets sign documents, and wants the PIN for each time (SP 800-73-4, part 1, table 4b).

use std::path::Path;

use super::application::{self, Facts, if_there};
use super::key::{Done, Key};
use super::{certificate, find, named, used};
use crate::error::{Error, ErrorKind, Result};
use crate::locator::{CardId, PivSlot};
use crate::operation::{Operation, Stage};
use crate::pin::{KeepPin, Keeper};
use crate::sign::{Algorithm, Signature, unsupported};
use crate::smartcard::{Exchange, Fault, Search};
use crate::token::{PinPolicy, Touch};

const SLOT: PivSlot = PivSlot::SIGNATURE;

/// What is known of the key.
pub(super) struct SigningKey {
    /// Or why it cannot be used: a clause.
    public: std::result::Result<(Algorithm, Vec<u8>), String>,
    pin: PinPolicy,
    touch: Touch,
}

/// Signs `hash`, with the PIN where the key wants it.
pub(crate) fn sign(
    card: CardId,
    pin_source: Option<&Path>,
    hash: &[u8; 32],
    operation: &mut Operation<'_>,
) -> Result<Signature> {
    operation.enter(Stage::Access);
    let (mut link, facts) = find(&mut Search::default(), card)?;
    let what = named(&facts, SLOT);
    let read = link.transact(|card| {
        application::select(card)?;
        signing_key(card, &facts)
    });
    let found = read.map_err(|fault| fault.typed(&what))?.ok_or_else(|| missing(&what))?;
    let (algorithm, public_key) = found.public.map_err(|why| unsupported(&what, &why))?;
    // Nothing is kept: this is one call. What others have verified stays verified.
    let mut keeper = Keeper::new(KeepPin::Never, pin_source);
    let key = Key { what: &what, facts: &facts, pin: found.pin, touch: found.touch, keep: KeepPin::Never };
    let work = |card: &mut dyn Exchange| application::sign(card, SLOT, byte(algorithm), hash);
    let Done { answer, .. } = used(&key, &mut link, &mut keeper, &work, operation)
        .outcome
        .map_err(|error| if error.kind() == ErrorKind::KeyNotFound { missing(&what) } else { error })?;
    Ok(Signature { algorithm, public_key, signature: answer, device: what })
}

/// SP 800-78-4, table 6-2; Ed25519 is Yubico's.
fn byte(algorithm: Algorithm) -> u8 {
    match algorithm {
        Algorithm::EcdsaP256 => 0x11,
        Algorithm::Ed25519 => 0xe0,
    }
}

/// As for the keys that agree: GET METADATA, the attestation, the certificate. A card that does not tell policies has the standard's: the PIN each time.
pub(super) fn signing_key(card: &mut dyn Exchange, facts: &Facts) -> std::result::Result<Option<SigningKey>, Fault> {
    if facts.has_metadata() {
        return Ok(application::metadata(card, SLOT.reference())?.map(|told| SigningKey {
            public: match told.algorithm {
                0x11 => Ok((Algorithm::EcdsaP256, told.public)),
                0xe0 => Ok((Algorithm::Ed25519, told.public)),
                0x14 => Err("its key is on P-384".into()),
                0x05..=0x07 | 0x16 => Err("its key is an RSA key".into()),
                other => Err(format!("its key is of algorithm {other:02X}")),
            },
            pin: told.pin.unwrap_or(PinPolicy::Always),
            touch: told.touch,
        }));
    }
    let untold = |public| SigningKey { public, pin: PinPolicy::Always, touch: Touch::Unknown };
    if facts.tells_keys()
        && let Some(attestation) = if_there(application::attest(card, SLOT))?
    {
        return Ok(Some(untold(certificate::signing_key(&attestation))));
    }
    let Some(object) = if_there(application::get_data(card, &certificate::object(SLOT)))? else { return Ok(None) };
    Ok(certificate::in_object(&object).map(|found| untold(found.and_then(certificate::signing_key))))
}

fn missing(what: &str) -> Error {
    Error::new(
        ErrorKind::KeyNotFound,
        format!("{what} holds no signing key whose public key the card tells."),
        "Make one: `ykman piv keys generate --algorithm ECCP256 9c public.pem`, then `ykman piv certificates generate 9c public.pem`.",
    )
}
