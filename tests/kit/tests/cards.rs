//! The virtual cards through a real pcscd, and the software TPM.

// What a test stands on may fail as the test does.
#![allow(clippy::unwrap_used)]

use std::ffi::CString;
use std::process::Command;

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

const SELECT_PIV: ([u8; 4], &[u8]) = ([0, 0xA4, 4, 0], &[0xA0, 0, 0, 3, 8, 0, 0, 0x10, 0]);
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
fn an_openpgp_card_answers_to_gpg() {
    cards::isolated(|| {
        let pcscd = Pcscd::start();
        let card = Card::openpgp(&pcscd, 7);
        assert_eq!(card.locator(), "openpgp:FFFE:00000007");
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("scdaemon.conf"), "disable-ccid\npcsc-shared\n").unwrap();
        let status = Command::new("gpg").arg("--homedir").arg(home.path()).arg("--card-status").output().unwrap();
        let text = String::from_utf8_lossy(&status.stdout);
        assert!(text.contains("D2760001240103") && text.contains("FFFE00000007"), "{status:?}");
        let ended = Command::new("gpgconf").arg("--homedir").arg(home.path()).args(["--kill", "all"]).status();
        assert!(ended.unwrap().success());
    });
}

#[test]
fn a_piv_card_answers_to_opensc() {
    cards::isolated(|| {
        let pcscd = Pcscd::start();
        let card = Card::piv(&pcscd, 0xBEEF);
        assert_eq!(card.locator(), "piv:guid=C1A716E500004000800000010000BEEF;slot=9d");
        let tool = Command::new("opensc-tool").args(["--reader", card.reader(), "--serial"]).output().unwrap();
        assert!(tool.status.success(), "{tool:?}");
        let connection = Connection::to(&card);
        connection.done(SELECT_PIV.0, SELECT_PIV.1);
        let chuid = connection.done([0, 0xCB, 0x3F, 0xFF], &[0x5C, 3, 0x5F, 0xC1, 2]);
        let guid = data_encoding::HEXUPPER.decode(b"C1A716E500004000800000010000BEEF").unwrap();
        assert!(chuid.windows(16).any(|window| window == guid), "{chuid:02x?}");
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
