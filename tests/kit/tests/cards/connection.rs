//! Raw APDUs through PC/SC, and the few sequences of them that the tests need.

use std::ffi::CString;
use std::io::Write as _;
use std::process::{Command, Stdio};

use claviger_testkit::cards::{ADMIN_PIN, Card, MANAGEMENT_KEY, PIN};
use data_encoding::HEXLOWER;
use pcsc::{Context, Disposition, Protocols, Scope, ShareMode};

/// An instruction with its class and parameters.
pub(crate) type Header = [u8; 4];
pub(crate) const VERIFY_PIV: Header = [0, 0x20, 0, 0x80];
/// Algorithm bytes of Yubico.
pub(crate) const P256: u8 = 0x11;
pub(crate) const X25519: u8 = 0xE1;
/// PIN and touch policies of Yubico.
pub(crate) const NEVER: u8 = 1;
pub(crate) const ONCE_OR_TOUCHED: u8 = 2;

/// A connection to a card; it leaves the card as it is.
pub(crate) struct Connection(Option<pcsc::Card>);

impl Connection {
    pub(crate) fn to(card: &Card) -> Self {
        let reader = CString::new(card.reader()).unwrap();
        let context = Context::establish(Scope::User).unwrap();
        Self(Some(context.connect(&reader, ShareMode::Shared, Protocols::ANY).unwrap()))
    }

    /// Ends the connection as an ill-mannered program does.
    pub(crate) fn reset_card(mut self) {
        assert!(self.0.take().unwrap().disconnect(Disposition::ResetCard).is_ok());
    }

    /// Sends an APDU; data and status word.
    pub(crate) fn try_send(&self, header: Header, data: &[u8]) -> Result<(Vec<u8>, u16), pcsc::Error> {
        let mut apdu = header.to_vec();
        if !data.is_empty() {
            apdu.push(u8::try_from(data.len()).unwrap());
            apdu.extend(data);
        }
        apdu.push(0);
        let mut buffer = vec![0; pcsc::MAX_BUFFER_SIZE_EXTENDED];
        match self.0.as_ref().unwrap().transmit(&apdu, &mut buffer)? {
            [data @ .., high, low] => Ok((data.to_vec(), u16::from_be_bytes([*high, *low]))),
            short => Ok((short.to_vec(), 0)),
        }
    }

    /// The status word of a command.
    pub(crate) fn status(&self, header: Header, data: &[u8]) -> u16 {
        self.try_send(header, data).unwrap().1
    }

    /// Sends a command that must succeed, and collects its answer.
    pub(crate) fn done(&self, header: Header, data: &[u8]) -> Vec<u8> {
        let (mut answer, mut status) = self.try_send(header, data).unwrap();
        while status & 0xFF00 == 0x6100 {
            let (more, next) = self.try_send([0, 0xC0, 0, 0], &[]).unwrap();
            answer.extend(more);
            status = next;
        }
        assert_eq!(status, 0x9000, "{header:02x?} {data:02x?}");
        answer
    }

    /// Connects and selects PIV.
    pub(crate) fn piv(card: &Card) -> Self {
        let connection = Self::to(card);
        connection.done([0, 0xA4, 4, 0], &[0xA0, 0, 0, 3, 8, 0, 0, 0x10, 0]);
        connection
    }

    pub(crate) fn verify_piv(&self) {
        self.done(VERIFY_PIV, &padded(PIN));
    }

    /// Proves the factory's management key: 0x0A for AES-192, 0x03 for 3DES.
    pub(crate) fn manage(&self, algorithm: u8) {
        let challenge = self.done([0, 0x87, algorithm, 0x9B], &[0x7C, 2, 0x81, 0]);
        let response = encrypted(algorithm, &challenge[4..]);
        let length = u8::try_from(response.len()).unwrap();
        self.done([0, 0x87, algorithm, 0x9B], &[&[0x7C, length + 2, 0x82, length], &response[..]].concat());
    }

    /// Generates a key; its public key.
    pub(crate) fn generate_piv(&self, slot: u8, curve: u8, policies: Option<(u8, u8)>) -> Vec<u8> {
        let mut fields = vec![0x80, 1, curve];
        if let Some((pin, touch)) = policies {
            fields.extend([0xAA, 1, pin, 0xAB, 1, touch]);
        }
        let answer = self.done([0, 0x47, 0, slot], &within(0xAC, &fields));
        answer[answer.len() - public_length(curve)..].to_vec()
    }

    /// The shared secret, or the status word.
    pub(crate) fn agree_piv(&self, slot: u8, curve: u8, peer: &[u8]) -> Result<Vec<u8>, u16> {
        let fields = [&[0x82, 0][..], &within(0x85, peer)].concat();
        let (answer, status) = self.try_send([0, 0x87, curve, slot], &within(0x7C, &fields)).unwrap();
        if status == 0x9000 { Ok(answer[4..].to_vec()) } else { Err(status) }
    }

    /// Connects, selects OpenPGP and verifies both PINs.
    pub(crate) fn openpgp(card: &Card) -> Self {
        let connection = Self::to(card);
        connection.done([0, 0xA4, 4, 0], &[0xD2, 0x76, 0, 1, 0x24, 1]);
        connection.done([0, 0x20, 0, 0x83], ADMIN_PIN.as_bytes());
        connection.done([0, 0x20, 0, 0x82], PIN.as_bytes());
        connection
    }

    /// Generates the decryption key; its public key.
    pub(crate) fn generate_openpgp(&self, curve: u8) -> Vec<u8> {
        let object: &[u8] = match curve {
            X25519 => &[0x12, 0x2B, 6, 1, 4, 1, 0x97, 0x55, 1, 5, 1],
            _ => &[0x12, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 3, 1, 7],
        };
        self.done([0, 0xDA, 0, 0xC2], object);
        let answer = self.done([0, 0x47, 0x80, 0], &[0xB8, 0]);
        answer[answer.len() - public_length(curve)..].to_vec()
    }

    /// The shared secret, or the status word.
    pub(crate) fn agree_openpgp(&self, peer: &[u8]) -> Result<Vec<u8>, u16> {
        let key = within(0x86, peer);
        let template = [&[0x7F, 0x49, u8::try_from(key.len()).unwrap()], &key[..]].concat();
        let (answer, status) = self.try_send([0, 0x2A, 0x80, 0x86], &within(0xA6, &template)).unwrap();
        if status == 0x9000 { Ok(answer) } else { Err(status) }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(card) = self.0.take() {
            let _ = card.disconnect(Disposition::LeaveCard);
        }
    }
}

pub(crate) fn padded(pin: &str) -> Vec<u8> {
    let mut pin = pin.as_bytes().to_vec();
    pin.resize(8, 0xFF);
    pin
}

fn public_length(curve: u8) -> usize {
    if curve == X25519 { 32 } else { 65 }
}

fn within(tag: u8, value: &[u8]) -> Vec<u8> {
    [&[tag, u8::try_from(value.len()).unwrap()], value].concat()
}

fn encrypted(algorithm: u8, block: &[u8]) -> Vec<u8> {
    let cipher = if algorithm == 0x0A { "-aes-192-ecb" } else { "-des-ede3" };
    let mut openssl = Command::new("openssl")
        .args(["enc", cipher, "-nopad", "-K", &HEXLOWER.encode(&MANAGEMENT_KEY)])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    openssl.stdin.take().unwrap().write_all(block).unwrap();
    openssl.wait_with_output().unwrap().stdout
}
