//! The PIV card application, seen through one [`Exchange`]: SP 800-73-4, part 2, and Yubico's extensions.
//!
//! Everything here is inside a transaction. What a card answers is taken for nothing but bytes.

use zeroize::Zeroizing;

use super::certificate;
use crate::curve::{Curve, PublicKey};
use crate::locator::{CardId, PivSlot};
use crate::secret::SharedSecret;
use crate::smartcard::{Command, Exchange, Fault, put, send, tlv};
use crate::token::{PinPolicy, Touch};

/// The application's identifier without its version (SP 800-73-4, part 1, section 2.2).
const AID: [u8; 9] = [0xa0, 0x00, 0x00, 0x03, 0x08, 0x00, 0x00, 0x10, 0x00];

/// Key references: the PIN, and the key for those who manage the card (part 1, table 4b).
pub(super) const PIN: u8 = 0x80;
pub(super) const MANAGEMENT: u8 = 0x9b;

/// Data objects (part 1, table 3), and Yubico's.
const DISCOVERY: &[u8] = &[0x7e];
const CHUID: &[u8] = &[0x5f, 0xc1, 0x02];
pub(super) const PRINTED: &[u8] = &[0x5f, 0xc1, 0x09];
pub(super) const ADMIN_DATA: &[u8] = &[0x5f, 0xff, 0x00];
pub(super) const ATTESTATION: &[u8] = &[0x5f, 0xff, 0x01];

/// A card's status word becomes `None`: it has not what was asked for.
pub(super) fn if_there<T>(answer: Result<T, Fault>) -> Result<Option<T>, Fault> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(Fault::Status { .. }) => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// GET DATA, part 2, section 3.1.2: the data object with its outer tag.
pub(super) fn get_data(card: &mut dyn Exchange, object: &[u8]) -> Result<Zeroizing<Vec<u8>>, Fault> {
    send(card, Command::new("GET DATA", 0xcb, 0x3f, 0xff, &put(0x5c, object)))
}

/// Selects the application, unless it is selected: selecting ends a verified PIN, of this application on some cards and of the others on all.
/// Gives what the card says to it.
pub(super) fn select(card: &mut dyn Exchange) -> Result<Option<Zeroizing<Vec<u8>>>, Fault> {
    // The discovery object says whose it is; a card without one shows its CHUID.
    if let Some(discovery) = if_there(get_data(card, DISCOVERY))?
        && tlv(&discovery, 0x7e).and_then(|fields| tlv(fields, 0x4f)).is_some_and(|aid| aid.starts_with(&AID[..5]))
    {
        return Ok(None);
    }
    if guid(card)?.is_some() {
        return Ok(None);
    }
    send(card, Command::new("SELECT", 0xa4, 0x04, 0x00, &AID)).map(Some)
}

/// The GUID of the card holder unique identifier (part 1, section 3.1.2). All zero is none.
fn guid(card: &mut dyn Exchange) -> Result<Option<[u8; 16]>, Fault> {
    let chuid = if_there(get_data(card, CHUID))?;
    let guid = chuid.as_deref().and_then(|object| tlv(object, 0x53)).and_then(|fields| tlv(fields, 0x34));
    Ok(guid.and_then(|guid| guid.try_into().ok()).filter(|guid| *guid != [0; 16]))
}

/// What a card says of itself.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// It has Yubico's extensions, and means them.
    pub(super) yubico: Option<Yubico>,
    pub(super) guid: Option<[u8; 16]>,
    /// The application's label, where it was selected just now and has one.
    pub(super) label: Option<String>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Yubico {
    pub(super) firmware: [u8; 3],
    /// From firmware 5 on; an older one tells it in another application only, and is named by its GUID.
    pub(super) serial: Option<u32>,
}

impl Yubico {
    /// GET METADATA.
    pub(super) fn has_metadata(self) -> bool {
        self.firmware >= [5, 3, 0]
    }

    /// ATTEST.
    pub(super) fn has_attestation(self) -> bool {
        self.firmware >= [4, 3, 0]
    }

    /// Algorithm E1. By the maker's documentation: it was never seen on a real one here.
    pub(super) fn has_x25519(self) -> bool {
        self.firmware >= [5, 7, 0]
    }
}

impl Facts {
    /// Selects the application and asks it.
    pub(super) fn read(card: &mut dyn Exchange) -> Result<Self, Fault> {
        let selected = select(card)?;
        let label = selected
            .as_deref()
            .and_then(|answer| tlv(answer, 0x61))
            .and_then(|fields| tlv(fields, 0x50))
            .map(|label| String::from_utf8_lossy(label).into_owned());
        Ok(Self { yubico: yubico(card)?, guid: guid(card)?, label })
    }

    pub(super) fn is(&self, id: CardId) -> bool {
        match id {
            CardId::Serial(serial) => self.yubico.and_then(|yubico| yubico.serial) == Some(serial),
            CardId::Guid(guid) => self.guid == Some(guid),
        }
    }

    /// What names it: a YubiKey's serial number, which outlives a reset of the application, before the GUID.
    pub(super) fn id(&self) -> Option<CardId> {
        let serial = self.yubico.and_then(|yubico| yubico.serial).map(CardId::Serial);
        serial.or(self.guid.map(CardId::Guid))
    }

    pub(super) fn has_metadata(&self) -> bool {
        self.yubico.is_some_and(Yubico::has_metadata)
    }

    /// It tells the public key of every key that it made; else only a certificate does.
    pub(super) fn tells_keys(&self) -> bool {
        self.yubico.is_some_and(Yubico::has_attestation)
    }

    pub(super) fn curves(&self) -> Vec<Curve> {
        let x25519 = self.yubico.is_some_and(Yubico::has_x25519);
        x25519.then_some(Curve::X25519).into_iter().chain([Curve::P256]).collect()
    }

    /// For people.
    pub(super) fn name(&self) -> String {
        match (self.yubico, self.guid) {
            (Some(Yubico { serial: Some(serial), .. }), _) => format!("YubiKey {serial}"),
            (Some(_), None) => "YubiKey".into(),
            (Some(_), Some(guid)) => format!("YubiKey {:032x}", u128::from_be_bytes(guid)),
            (None, Some(guid)) => format!("PIV card {:032x}", u128::from_be_bytes(guid)),
            (None, None) => "PIV card".into(),
        }
    }
}

/// GET VERSION and GET SERIAL. A firmware that should have GET METADATA and has it not is somebody else's: piv-authenticator answers with the version
/// 6.6.6 and one serial number for all its cards.
fn yubico(card: &mut dyn Exchange) -> Result<Option<Yubico>, Fault> {
    let version = if_there(send(card, Command::new("GET VERSION", 0xfd, 0, 0, &[])))?;
    let Some(firmware) = version.and_then(|version| <[u8; 3]>::try_from(&version[..]).ok()) else { return Ok(None) };
    let serial = if_there(send(card, Command::new("GET SERIAL", 0xf8, 0, 0, &[])))?;
    let serial = serial.and_then(|serial| <[u8; 4]>::try_from(&serial[..]).ok()).map(u32::from_be_bytes);
    let yubico = Yubico { firmware, serial: serial.filter(|serial| *serial != 0) };
    let means_it = !yubico.has_metadata() || metadata(card, PIN)?.is_some();
    Ok(means_it.then_some(yubico))
}

/// What GET METADATA tells of a key or a PIN.
pub(super) struct Metadata {
    /// `FF` for a PIN.
    pub(super) algorithm: u8,
    pub(super) pin: Option<PinPolicy>,
    pub(super) touch: Touch,
    /// Made in the card, not imported.
    pub(super) generated: bool,
    pub(super) public: Vec<u8>,
    /// It is still the factory's.
    pub(super) factory: bool,
    /// A PIN's tries left.
    pub(super) tries: Option<u8>,
}

/// GET METADATA, Yubico's F7. `None`: nothing there, or the command is not known.
pub(super) fn metadata(card: &mut dyn Exchange, reference: u8) -> Result<Option<Metadata>, Fault> {
    let Some(fields) = if_there(send(card, Command::new("GET METADATA", 0xf7, 0, reference, &[])))? else {
        return Ok(None);
    };
    let byte = |tag, index: usize| tlv(&fields, tag).and_then(|value| value.get(index)).copied();
    let Some(algorithm) = byte(0x01, 0) else { return Ok(None) };
    Ok(Some(Metadata {
        algorithm,
        pin: match byte(0x02, 0) {
            Some(1) => Some(PinPolicy::Never),
            // 4 and 5, of a YubiKey Bio: a finger would do in the PIN's place.
            Some(2 | 4) => Some(PinPolicy::Once),
            Some(3 | 5) => Some(PinPolicy::Always),
            _ => None,
        },
        touch: match byte(0x02, 1) {
            Some(1) => Touch::Never,
            Some(2) => Touch::Always,
            Some(3) => Touch::Cached,
            _ => Touch::Unknown,
        },
        generated: byte(0x03, 0) == Some(1),
        public: tlv(&fields, 0x04).and_then(|key| tlv(key, 0x86)).unwrap_or_default().to_vec(),
        factory: byte(0x05, 0) == Some(1),
        tries: byte(0x06, 1),
    }))
}

/// What is known of the key in a slot.
pub(super) struct SlotKey {
    /// Or why it cannot be used: a clause.
    pub(super) public: Result<PublicKey, String>,
    pub(super) pin: Option<PinPolicy>,
    pub(super) touch: Touch,
    pub(super) attestable: bool,
}

/// The key in `slot`: by GET METADATA; on older YubiKeys by the attestation of a key that was made in it; else by the slot's certificate. `None`: there
/// is none, or the card does not tell.
pub(super) fn slot_key(card: &mut dyn Exchange, facts: &Facts, slot: PivSlot) -> Result<Option<SlotKey>, Fault> {
    if facts.has_metadata() {
        return Ok(metadata(card, slot.reference())?.map(|told| SlotKey {
            public: told_key(&told),
            pin: told.pin,
            touch: told.touch,
            attestable: told.generated,
        }));
    }
    let untold = |public, attestable| SlotKey { public, pin: None, touch: Touch::Unknown, attestable };
    if facts.tells_keys()
        && let Some(attestation) = if_there(attest(card, slot))?
    {
        return Ok(Some(untold(certificate::public_key(&attestation), true)));
    }
    let Some(object) = if_there(get_data(card, &certificate::object(slot)))? else { return Ok(None) };
    Ok(certificate::in_object(&object).map(|found| untold(found.and_then(certificate::public_key), false)))
}

fn told_key(told: &Metadata) -> Result<PublicKey, String> {
    let curve = match told.algorithm {
        0x11 => Curve::P256,
        0xe1 => Curve::X25519,
        0x14 => return Err("it is on P-384".into()),
        0xe0 => return Err("it is an Ed25519 key, which only signs".into()),
        0x05..=0x07 | 0x16 => return Err("it is an RSA key".into()),
        other => return Err(format!("it is of algorithm {other:02X}")),
    };
    PublicKey::new(curve, &told.public).map_err(|error| error.to_string())
}

/// SP 800-78-4, table 6-2; X25519 is Yubico's.
fn algorithm(curve: Curve) -> u8 {
    match curve {
        Curve::P256 => 0x11,
        Curve::X25519 => 0xe1,
    }
}

/// GENERAL AUTHENTICATE as key agreement: part 2, section 3.2.4 and appendix A.5. The peer's 65 or 32 bytes in `7C{82, 85}`, the 32 bytes of the shared
/// secret in `7C{82}`.
pub(super) fn agree(card: &mut dyn Exchange, slot: PivSlot, peer: &PublicKey) -> Result<SharedSecret, Fault> {
    const NAME: &str = "GENERAL AUTHENTICATE";
    let fields = [&put(0x82, &[])[..], &put(0x85, peer.as_bytes())].concat();
    let template = put(0x7c, &fields);
    let answer = send(card, Command::new(NAME, 0x87, algorithm(peer.curve()), slot.reference(), &template))?;
    let found = tlv(&answer, 0x7c).and_then(|fields| tlv(fields, 0x82)).filter(|secret| secret.len() == 32);
    let mut secret = Zeroizing::new([0; 32]);
    secret.copy_from_slice(found.ok_or(Fault::Malformed(NAME, "the answer is no shared secret of 32 bytes"))?);
    Ok(SharedSecret::new(*secret)?)
}

/// GENERAL AUTHENTICATE as a signature: part 2, appendix A.4. ECDSA takes the hash, Ed25519 (Yubico's E0) the message, either in `7C{82, 81}`; the answer in
/// `7C{82}` is a DER `Ecdsa-Sig-Value`, or the 64 bytes of RFC 8032.
pub(super) fn sign(card: &mut dyn Exchange, slot: PivSlot, algorithm: u8, signed: &[u8; 32]) -> Result<Vec<u8>, Fault> {
    const NAME: &str = "GENERAL AUTHENTICATE";
    let fields = [&put(0x82, &[])[..], &put(0x81, signed)].concat();
    let answer = send(card, Command::new(NAME, 0x87, algorithm, slot.reference(), &put(0x7c, &fields)))?;
    let signature = tlv(&answer, 0x7c).and_then(|fields| tlv(fields, 0x82));
    signature.map(<[u8]>::to_vec).ok_or(Fault::Malformed(NAME, "the answer is no signature"))
}

/// GENERATE ASYMMETRIC KEY PAIR: part 2, section 3.3.2, with Yubico's fields AA and AB. The management key must have been shown.
pub(super) fn generate(
    card: &mut dyn Exchange,
    slot: PivSlot,
    curve: Curve,
    pin: Option<PinPolicy>,
    touch: Option<Touch>,
) -> Result<PublicKey, Fault> {
    const NAME: &str = "GENERATE ASYMMETRIC KEY PAIR";
    let mut fields = put(0x80, &[algorithm(curve)]).to_vec();
    if let Some(policy) = pin {
        let policy = match policy {
            PinPolicy::Never => 1,
            PinPolicy::Once => 2,
            PinPolicy::Always => 3,
        };
        fields.extend_from_slice(&put(0xaa, &[policy]));
    }
    let policy = match touch {
        Some(Touch::Never) => Some(1),
        Some(Touch::Always) => Some(2),
        Some(Touch::Cached) => Some(3),
        Some(Touch::Unknown) | None => None,
    };
    if let Some(policy) = policy {
        fields.extend_from_slice(&put(0xab, &[policy]));
    }
    let answer = send(card, Command::new(NAME, 0x47, 0, slot.reference(), &put(0xac, &fields)))?;
    let point = tlv(&answer, 0x7f49).and_then(|fields| tlv(fields, 0x86));
    let point = point.ok_or(Fault::Malformed(NAME, "the answer is no public key"))?;
    Ok(PublicKey::new(curve, point)?)
}

/// PUT DATA, part 2, section 3.3.1. The management key must have been shown.
pub(super) fn put_data(card: &mut dyn Exchange, object: &[u8], content: &[u8]) -> Result<(), Fault> {
    let data = [&put(0x5c, object)[..], &put(0x53, content)].concat();
    send(card, Command::new("PUT DATA", 0xdb, 0x3f, 0xff, &data)).map(drop)
}

/// ATTEST, Yubico's F9: a certificate about the key in `slot`, DER.
pub(super) fn attest(card: &mut dyn Exchange, slot: PivSlot) -> Result<Zeroizing<Vec<u8>>, Fault> {
    send(card, Command::new("ATTEST", 0xf9, slot.reference(), 0, &[]))
}
