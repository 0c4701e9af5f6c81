//! Another program with the card: what Yubico's tools do, by APDUs.

use std::ffi::CString;

use aws_lc_rs::cipher::{AES_192, EncryptingKey, UnboundCipherKey};
use claviger_testkit::cards::{Card, MANAGEMENT_KEY};
use des::cipher::{Block, BlockEncrypt as _, KeyInit as _};
use pcsc::{Context, Disposition, Protocols, Scope, ShareMode};

pub(super) struct Raw(Option<pcsc::Card>);

impl Raw {
    pub(super) fn connect(card: &Card) -> Self {
        let reader = CString::new(card.reader()).unwrap();
        let context = Context::establish(Scope::User).unwrap();
        Self(Some(context.connect(&reader, ShareMode::Shared, Protocols::ANY).unwrap()))
    }

    /// Connects, and selects the application.
    pub(super) fn new(card: &Card) -> Self {
        let raw = Self::connect(card);
        raw.ok(0xA4, 0x04, 0x00, super::AID);
        raw
    }

    /// One command of any length, chained; its answer and status word.
    pub(super) fn send(&self, ins: u8, p1: u8, p2: u8, data: &[u8]) -> (Vec<u8>, u16) {
        let parts: Vec<&[u8]> = if data.is_empty() { vec![data] } else { data.chunks(255).collect() };
        let mut outcome = (Vec::new(), 0);
        for (at, part) in parts.iter().enumerate() {
            let last = at + 1 == parts.len();
            let mut command = vec![if last { 0x00 } else { 0x10 }, ins, p1, p2];
            if !part.is_empty() {
                command.push(part.len() as u8);
                command.extend_from_slice(part);
            }
            let mut buffer = [0; 512];
            let answer = self.0.as_ref().unwrap().transmit(&command, &mut buffer).unwrap();
            let (body, status) = answer.split_at(answer.len() - 2);
            outcome = (body.to_vec(), u16::from_be_bytes(status.try_into().unwrap()));
        }
        outcome
    }

    pub(super) fn ok(&self, ins: u8, p1: u8, p2: u8, data: &[u8]) -> Vec<u8> {
        let (answer, status) = self.send(ins, p1, p2, data);
        assert!(status == 0x9000 || status >> 8 == 0x61, "{ins:02X}: {status:04X}");
        answer
    }

    /// Shows the factory's management key, by single authentication: `81` the challenge, `82` its encryption.
    pub(super) fn manage(&self, tdes: bool) -> &Self {
        let algorithm = if tdes { 0x03 } else { 0x0A };
        let answer = self.ok(0x87, algorithm, 0x9B, &[0x7C, 2, 0x81, 0]);
        let mut block = answer[4..].to_vec();
        if tdes {
            let cipher = des::TdesEde3::new_from_slice(&MANAGEMENT_KEY).unwrap();
            cipher.encrypt_block(Block::<des::TdesEde3>::from_mut_slice(&mut block));
        } else {
            let key = UnboundCipherKey::new(&AES_192, &MANAGEMENT_KEY).unwrap();
            EncryptingKey::ecb(key).unwrap().encrypt(&mut block).unwrap();
        }
        self.ok(0x87, algorithm, 0x9B, &tlv(0x7C, &tlv(0x82, &block)));
        self
    }

    pub(super) fn set_management_key(&self, key: &[u8; 24]) {
        self.ok(0xFF, 0xFF, 0xFF, &[&[0x0A, 0x9B, 24], &key[..]].concat());
    }

    pub(super) fn put_data(&self, object: &[u8], content: &[u8]) {
        self.ok(0xDB, 0x3F, 0xFF, &[tlv(0x5C, object), tlv(0x53, content)].concat());
    }

    /// Whether there is such an object.
    pub(super) fn has_data(&self, object: &[u8]) -> bool {
        let (_, status) = self.send(0xCB, 0x3F, 0xFF, &tlv(0x5C, object));
        status == 0x9000 || status >> 8 == 0x61
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // To drop the card would reset it.
        let _ = self.0.take().map(|card| card.disconnect(Disposition::LeaveCard));
    }
}

pub(super) fn tlv(tag: u8, value: &[u8]) -> Vec<u8> {
    let length = u8::try_from(value.len()).unwrap();
    let length: &[u8] = if length < 0x80 { &[length] } else { &[0x81, length] };
    [&[tag], length, value].concat()
}
