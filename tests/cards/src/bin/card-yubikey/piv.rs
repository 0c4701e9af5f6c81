//! The application: commands, security status, data objects.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use claviger_cards::apdu::{
    CONDITIONS, NO_REFERENCE, NOT_FOUND, SECURITY_STATUS, SELECT, WRONG_DATA, WRONG_INSTRUCTION, WRONG_PARAMETERS,
};
use claviger_cards::control::Touch;
use claviger_cards::{Applet, Command, Control, Status, tlv};

use crate::Model;
use crate::attestation::Attestation;
use crate::keys::{self, Curve, Key, PinPolicy, TouchPolicy};
use crate::management::{Challenge, Management};
use crate::pin::Pin;

/// The PIV application's identifier with its version.
const AID: [u8; 11] = [0xA0, 0, 0, 0x03, 0x08, 0, 0, 0x10, 0, 0x01, 0];
/// The shortest right-truncated form: the part that names NIST.
const AID_SHORTEST: usize = 5;
const FACTORY_PIN: [u8; 8] = *b"123456\xFF\xFF";
const FACTORY_PUK: [u8; 8] = *b"12345678";
/// How long a touch counts with the policy *cached*.
const TOUCH_CACHED: Duration = Duration::from_secs(15);

const DISCOVERY: &[u8] = &[0x7E];
const CHUID: &[u8] = &[0x5F, 0xC1, 0x02];
const ATTESTATION_CERTIFICATE: &[u8] = &[0x5F, 0xFF, 0x01];
/// Objects that are read with the PIN only: fingerprints, facial image, printed information, iris images.
const BEHIND_PIN: [&[u8]; 4] = [&[0x5F, 0xC1, 0x03], &[0x5F, 0xC1, 0x08], &[0x5F, 0xC1, 0x09], &[0x5F, 0xC1, 0x21]];

const VERIFY: u8 = 0x20;
const CHANGE_REFERENCE: u8 = 0x24;
const RESET_RETRY: u8 = 0x2C;
const GENERATE: u8 = 0x47;
const GENERAL_AUTHENTICATE: u8 = 0x87;
const GET_DATA: u8 = 0xCB;
const PUT_DATA: u8 = 0xDB;
const GET_METADATA: u8 = 0xF7;
const GET_SERIAL: u8 = 0xF8;
const ATTEST: u8 = 0xF9;
const SET_RETRIES: u8 = 0xFA;
const RESET: u8 = 0xFB;
const GET_VERSION: u8 = 0xFD;
const IMPORT: u8 = 0xFE;
const SET_MANAGEMENT_KEY: u8 = 0xFF;

/// The numbers of PIN, PUK, management key and attestation key.
const PIN: u8 = 0x80;
const PUK: u8 = 0x81;
const MANAGEMENT: u8 = 0x9B;
const ATTESTATION: u8 = 0xF9;

/// The card.
pub(crate) struct Piv<'a> {
    model: Model,
    control: &'a Control,
    attestation: Attestation,
    stored: Stored,
    session: Session,
}

/// What a reset of the application returns to the factory's state.
struct Stored {
    pin: Pin,
    puk: Pin,
    management: Management,
    keys: BTreeMap<u8, Key>,
    objects: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What is in RAM.
#[derive(Default)]
struct Session {
    selected: bool,
    verified: bool,
    /// The command before this one was a VERIFY that succeeded.
    just_verified: bool,
    managed: bool,
    challenge: Option<Challenge>,
    last_touch: Option<Instant>,
}

impl Stored {
    fn new(model: &Model) -> Self {
        let objects = BTreeMap::from([(CHUID.to_vec(), chuid(model.guid))]);
        Self {
            pin: Pin::new(FACTORY_PIN, 3),
            puk: Pin::new(FACTORY_PUK, 3),
            management: Management::new(model.management),
            keys: BTreeMap::new(),
            objects,
        }
    }
}

impl Applet for Piv<'_> {
    fn reset(&mut self) {
        self.session = Session::default();
    }

    fn execute(&mut self, command: &Command) -> Result<Vec<u8>, Status> {
        let data = &command.data[..];
        let parameters = (command.p1, command.p2);
        if command.ins == SELECT {
            return self.select(data);
        }
        if !self.session.selected {
            return Err(WRONG_INSTRUCTION);
        }
        let just_verified = std::mem::take(&mut self.session.just_verified);
        match (command.ins, parameters) {
            (VERIFY, (0, PIN)) => self.verify(data),
            (VERIFY, (0xFF, PIN)) if data.is_empty() => {
                self.session.verified = false;
                Ok(Vec::new())
            }
            (VERIFY, (0 | 0xFF, _)) => Err(NO_REFERENCE),
            (CHANGE_REFERENCE, (0, reference)) => self.change(reference, data),
            (RESET_RETRY, (0, PIN)) => self.unblock(data),
            (GET_DATA, (0x3F, 0xFF)) => self.get(tlv::find(data, 0x5C).ok_or(WRONG_DATA)?),
            (PUT_DATA, (0x3F, 0xFF)) => self.put(data),
            (GENERATE, (0, slot)) => self.generate(slot, data),
            (IMPORT, (algorithm, slot)) => self.import(algorithm, slot, data),
            (GENERAL_AUTHENTICATE, (algorithm, slot)) => {
                let fields = tlv::find(data, 0x7C).ok_or(WRONG_DATA)?;
                match slot {
                    MANAGEMENT => self.authenticate(algorithm, fields),
                    _ => self.operate(algorithm, slot, fields, just_verified),
                }
            }
            (GET_METADATA, (0, reference)) if self.model.firmware >= [5, 3, 0] => self.metadata(reference),
            (GET_SERIAL, _) if self.model.firmware >= [5, 0, 0] => Ok(self.model.serial.to_be_bytes().into()),
            (GET_VERSION, _) => Ok(self.model.firmware.into()),
            (ATTEST, (slot, 0)) => self.attest(slot),
            (SET_RETRIES, (pin, puk)) => self.set_retries(pin, puk),
            (RESET, _) => self.factory_reset(),
            (SET_MANAGEMENT_KEY, (0xFF, touch @ (0xFE | 0xFF))) => {
                self.needs_management()?;
                self.stored.management.set(data, touch == 0xFE).map(|()| Vec::new())
            }
            (VERIFY | CHANGE_REFERENCE | RESET_RETRY | GET_DATA | PUT_DATA | GENERATE | SET_MANAGEMENT_KEY, _) => {
                Err(WRONG_PARAMETERS)
            }
            _ => Err(WRONG_INSTRUCTION),
        }
    }

    fn used_private_key(&self, command: &Command, answer: &[u8]) -> bool {
        command.ins == GENERAL_AUTHENTICATE && command.p2 != MANAGEMENT && !answer.is_empty()
    }
}

impl<'a> Piv<'a> {
    /// A card as it leaves the factory.
    pub(crate) fn new(model: Model, attestation: Attestation, control: &'a Control) -> Self {
        let stored = Stored::new(&model);
        Self { model, control, attestation, stored, session: Session::default() }
    }

    fn select(&mut self, aid: &[u8]) -> Result<Vec<u8>, Status> {
        self.session = Session { selected: aid.len() >= AID_SHORTEST && AID.starts_with(aid), ..Session::default() };
        if !self.session.selected {
            return Err(NOT_FOUND);
        }
        let authority = tlv::field(&[0x79], &tlv::field(&[0x4F], &AID[..5]));
        Ok(tlv::field(&[0x61], &[tlv::field(&[0x4F], &AID[5..]), authority].concat()))
    }

    /// With no PIN: asks whether one is needed.
    fn verify(&mut self, pin: &[u8]) -> Result<Vec<u8>, Status> {
        if pin.is_empty() {
            return if self.session.verified { Ok(Vec::new()) } else { Err(self.stored.pin.tries_left()) };
        }
        let outcome = self.stored.pin.check(pin);
        self.session.verified = outcome.is_ok();
        self.session.just_verified = outcome.is_ok();
        outcome.map(|()| Vec::new())
    }

    /// Old and new PIN, or old and new PUK.
    fn change(&mut self, reference: u8, data: &[u8]) -> Result<Vec<u8>, Status> {
        let (old, new) = data.split_at_checked(8).ok_or(WRONG_DATA)?;
        let secret = match reference {
            PIN => &mut self.stored.pin,
            PUK => &mut self.stored.puk,
            _ => return Err(NO_REFERENCE),
        };
        secret.check(old)?;
        secret.set(new)?;
        Ok(Vec::new())
    }

    /// PUK and new PIN.
    fn unblock(&mut self, data: &[u8]) -> Result<Vec<u8>, Status> {
        let (puk, pin) = data.split_at_checked(8).ok_or(WRONG_DATA)?;
        self.stored.puk.check(puk)?;
        self.stored.pin.set(pin)?;
        Ok(Vec::new())
    }

    /// Both get their factory's values.
    fn set_retries(&mut self, pin: u8, puk: u8) -> Result<Vec<u8>, Status> {
        self.needs_management()?;
        if !self.session.verified {
            return Err(SECURITY_STATUS);
        }
        if pin == 0 || puk == 0 {
            return Err(WRONG_PARAMETERS);
        }
        self.stored.pin = Pin::new(FACTORY_PIN, pin);
        self.stored.puk = Pin::new(FACTORY_PUK, puk);
        Ok(Vec::new())
    }

    /// Only when PIN and PUK are blocked. The attestation key stays.
    fn factory_reset(&mut self) -> Result<Vec<u8>, Status> {
        if !(self.stored.pin.is_blocked() && self.stored.puk.is_blocked()) {
            return Err(CONDITIONS);
        }
        self.stored = Stored::new(&self.model);
        self.session = Session { selected: true, ..Session::default() };
        Ok(Vec::new())
    }

    fn get(&self, object: &[u8]) -> Result<Vec<u8>, Status> {
        if object == DISCOVERY {
            // SP 800-73-4 part 1 section 3.3.2: the application PIN alone satisfies access control.
            let policy = tlv::field(&[0x5F, 0x2F], &[0x40, 0x00]);
            return Ok(tlv::field(DISCOVERY, &[tlv::field(&[0x4F], &AID), policy].concat()));
        }
        if BEHIND_PIN.contains(&object) && !self.session.verified {
            return Err(SECURITY_STATUS);
        }
        if object == ATTESTATION_CERTIFICATE && !self.stored.objects.contains_key(object) {
            let certificate = self.attestation.certificate().map_err(|_| CONDITIONS)?;
            let content = [tlv::field(&[0x70], &certificate), vec![0x71, 1, 0, 0xFE, 0]].concat();
            return Ok(tlv::field(&[0x53], &content));
        }
        self.stored.objects.get(object).map(|content| tlv::field(&[0x53], content)).ok_or(NOT_FOUND)
    }

    /// No content deletes the object.
    fn put(&mut self, data: &[u8]) -> Result<Vec<u8>, Status> {
        self.needs_management()?;
        let object = tlv::find(data, 0x5C).ok_or(WRONG_DATA)?.to_vec();
        match tlv::find(data, 0x53).ok_or(WRONG_DATA)? {
            [] => drop(self.stored.objects.remove(&object)),
            content => drop(self.stored.objects.insert(object, content.to_vec())),
        }
        Ok(Vec::new())
    }

    fn generate(&mut self, slot: u8, data: &[u8]) -> Result<Vec<u8>, Status> {
        self.needs_management()?;
        let fields = tlv::find(data, 0xAC).ok_or(WRONG_DATA)?;
        let Some([algorithm]) = tlv::find(fields, 0x80) else { return Err(WRONG_DATA) };
        let curve = self.curve(*algorithm)?;
        let key = Key::generate(curve, keys::policies(fields, is_slot(slot)?)?);
        let answer = tlv::field(&[0x7F, 0x49], &tlv::field(&[0x86], &key.public()));
        self.stored.keys.insert(slot, key);
        Ok(answer)
    }

    fn import(&mut self, algorithm: u8, slot: u8, fields: &[u8]) -> Result<Vec<u8>, Status> {
        self.needs_management()?;
        let policies = keys::policies(fields, is_slot(slot)?)?;
        let key = Key::import(self.curve(algorithm)?, fields, policies)?;
        self.stored.keys.insert(slot, key);
        Ok(Vec::new())
    }

    /// X25519 and Ed25519 came with firmware 5.7, and a FIPS key has no X25519.
    fn curve(&self, algorithm: u8) -> Result<Curve, Status> {
        let newer = self.model.firmware >= [5, 7, 0];
        let has = |curve: &Curve| match curve {
            Curve::P256 => true,
            Curve::Ed25519 => newer,
            Curve::X25519 => newer && !self.model.fips,
        };
        Curve::from_byte(algorithm).filter(has).ok_or(WRONG_DATA)
    }

    fn metadata(&self, reference: u8) -> Result<Vec<u8>, Status> {
        match reference {
            PIN => Ok(self.stored.pin.metadata()),
            PUK => Ok(self.stored.puk.metadata()),
            MANAGEMENT => Ok(self.stored.management.metadata()),
            ATTESTATION => Ok(self.attestation.key().metadata()),
            slot => self.stored.keys.get(&slot).map(Key::metadata).ok_or(NO_REFERENCE),
        }
    }

    fn attest(&self, slot: u8) -> Result<Vec<u8>, Status> {
        let key = self.stored.keys.get(&slot).ok_or(NO_REFERENCE)?;
        if !key.generated {
            return Err(WRONG_DATA);
        }
        self.attestation.attest(slot, key).map_err(|_| CONDITIONS)
    }

    fn authenticate(&mut self, algorithm: u8, fields: &[u8]) -> Result<Vec<u8>, Status> {
        if algorithm != self.stored.management.algorithm().byte() {
            return Err(WRONG_PARAMETERS);
        }
        if self.stored.management.needs_touch && (tlv::find(fields, 0x82).is_some() || fields.len() > 2) {
            self.needs_touch(TouchPolicy::Always)?;
        }
        let (answer, proved) = self.stored.management.step(fields, &mut self.session.challenge)?;
        self.session.managed |= proved;
        Ok(if answer.is_empty() { answer } else { tlv::field(&[0x7C], &answer) })
    }

    /// An operation with a private key: `85` agrees with a public key, `81` signs a hash.
    fn operate(&mut self, algorithm: u8, slot: u8, fields: &[u8], just_verified: bool) -> Result<Vec<u8>, Status> {
        let key = self.stored.keys.get(&slot).ok_or(CONDITIONS)?;
        if Curve::from_byte(algorithm) != Some(key.curve()) {
            return Err(WRONG_DATA);
        }
        let allowed = match key.pin {
            PinPolicy::Never => true,
            PinPolicy::Once => self.session.verified,
            PinPolicy::Always => just_verified,
        };
        if !allowed {
            return Err(SECURITY_STATUS);
        }
        self.needs_touch(key.touch)?;
        let key = self.stored.keys.get(&slot).ok_or(CONDITIONS)?;
        let result = match (tlv::find(fields, 0x85), tlv::find(fields, 0x81)) {
            (Some(peer), _) => key.agree(peer)?,
            (None, Some(hash)) => key.sign(hash)?,
            (None, None) => return Err(WRONG_DATA),
        };
        Ok(tlv::field(&[0x7C], &tlv::field(&[0x82], &result)))
    }

    /// A card that nobody touches answers as if the PIN were missing.
    fn needs_touch(&mut self, policy: TouchPolicy) -> Result<(), Status> {
        let cached = self.session.last_touch.is_some_and(|touch| touch.elapsed() < TOUCH_CACHED);
        if policy == TouchPolicy::Never || (policy == TouchPolicy::Cached && cached) {
            return Ok(());
        }
        match self.control.touch(self.model.touch_timeout) {
            Touch::Touched => {
                self.session.last_touch = Some(Instant::now());
                Ok(())
            }
            Touch::NotTouched | Touch::Pulled => Err(SECURITY_STATUS),
        }
    }

    fn needs_management(&self) -> Result<(), Status> {
        if self.session.managed { Ok(()) } else { Err(SECURITY_STATUS) }
    }
}

/// The slots that hold keys: 9A, 9C, 9D, 9E and the twenty retired ones.
fn is_slot(slot: u8) -> Result<u8, Status> {
    match slot {
        0x9A | 0x9C | 0x9D | 0x9E | 0x82..=0x95 => Ok(slot),
        _ => Err(WRONG_PARAMETERS),
    }
}

/// The card holder unique identifier as Yubico's tools write it: FASC-N, GUID, expiry, an empty signature.
fn chuid(guid: [u8; 16]) -> Vec<u8> {
    const FASC_N: [u8; 25] =
        *b"\xD4\xE7\x39\xDA\x73\x9C\xED\x39\xCE\x73\x9D\x83\x68\x58\x21\x08\x42\x10\x84\x21\xC8\x42\x10\xC3\xEB";
    [
        tlv::field(&[0x30], &FASC_N),
        tlv::field(&[0x34], &guid),
        tlv::field(&[0x35], b"20500101"),
        tlv::field(&[0x3E], &[]),
        tlv::field(&[0xFE], &[]),
    ]
    .concat()
}
