//! The virtual cards through a real pcscd, and the software TPM.

use std::ffi::CString;

use claviger_testkit::cards::{self, Card, PIN, Pcscd};
use pcsc::{Context, Disposition, Protocols, Scope, ShareMode};

/// A connection to the card by PC/SC; it leaves the card as it is.
struct Connection(Option<pcsc::Card>);

impl Connection {
    fn to(card: &Card) -> Self {
        let reader = CString::new(card.reader()).unwrap();
        let context = Context::establish(Scope::User).unwrap();
        Self(Some(context.connect(&reader, ShareMode::Shared, Protocols::ANY).unwrap()))
    }

    fn card(&self) -> &pcsc::Card {
        self.0.as_ref().unwrap()
    }

    /// Sends an APDU; data and status word.
    fn try_send(&self, apdu: &[u8]) -> Result<(Vec<u8>, u16), pcsc::Error> {
        let mut buffer = vec![0; pcsc::MAX_BUFFER_SIZE_EXTENDED];
        let answer = self.card().transmit(apdu, &mut buffer)?;
        match answer {
            [data @ .., high, low] => Ok((data.to_vec(), u16::from_be_bytes([*high, *low]))),
            _ => Ok((answer.to_vec(), 0)),
        }
    }

    fn send(&self, apdu: &[u8]) -> (Vec<u8>, u16) {
        self.try_send(apdu).unwrap()
    }

    /// Sends a command with data; the status must be a success.
    fn done(&self, header: [u8; 4], data: &[u8]) -> Vec<u8> {
        let (answer, status) = self.send(&apdu(header, data));
        assert_eq!(status, 0x9000, "{header:02x?} {data:02x?}");
        answer
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(card) = self.0.take() {
            let _ = card.disconnect(Disposition::LeaveCard);
        }
    }
}

fn apdu(header: [u8; 4], data: &[u8]) -> Vec<u8> {
    let mut apdu = header.to_vec();
    if !data.is_empty() {
        apdu.push(u8::try_from(data.len()).unwrap());
        apdu.extend(data);
    }
    apdu.push(0);
    apdu
}

const SELECT_PIV: ([u8; 4], &[u8]) = ([0, 0xA4, 4, 0], &[0xA0, 0, 0, 3, 8]);
const VERIFY: [u8; 4] = [0, 0x20, 0, 0x80];

fn padded_pin() -> Vec<u8> {
    let mut pin = PIN.as_bytes().to_vec();
    pin.resize(8, 0xFF);
    pin
}

#[test]
fn a_yubikey_answers() {
    cards::isolated(|| {
        let pcscd = Pcscd::start();
        let card = Card::yubikey(&pcscd, 12_345_678);
        assert_eq!(card.locator(), "piv:serial=12345678;slot=9d");
        let connection = Connection::to(&card);
        connection.done(SELECT_PIV.0, SELECT_PIV.1);
        assert_eq!(connection.done([0, 0xFD, 0, 0], &[]), [5, 7, 1]);
        assert_eq!(connection.done([0, 0xF8, 0, 0], &[]), 12_345_678_u32.to_be_bytes());
        assert_eq!(connection.send(&apdu(VERIFY, &[])).1, 0x63C3);
    });
}

#[test]
fn pulling_is_seen_and_forgets() {
    cards::isolated(|| {
        let pcscd = Pcscd::start();
        let card = Card::yubikey(&pcscd, 1);
        let connection = Connection::to(&card);
        connection.done(SELECT_PIV.0, SELECT_PIV.1);
        connection.done(VERIFY, &padded_pin());
        assert_eq!(connection.send(&apdu(VERIFY, &[])).1, 0x9000);
        card.pull();
        assert!(connection.try_send(&apdu(VERIFY, &[])).is_err());
        card.insert();
        assert_eq!(connection.try_send(&apdu(VERIFY, &[])), Err(pcsc::Error::RemovedCard));
        let again = Connection::to(&card);
        again.done(SELECT_PIV.0, SELECT_PIV.1);
        assert_eq!(again.send(&apdu(VERIFY, &[])).1, 0x63C3);
    });
}
