//! The virtual cards through a real pcscd, and the software TPM.

// What a test stands on may fail as the test does.
#![allow(clippy::unwrap_used)]

mod connection;
mod hand;
mod isolation;
mod people;
mod yubikey;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;

use claviger_testkit::cards::{self, Card, Kind, Options, Pcscd, Swtpm};
use connection::{Connection, NEVER, ONCE_OR_TOUCHED, P256, VERIFY_PIV, X25519};

#[test]
fn a_yubikey_answers() {
    cards::isolated(|| {
        let pcscd = Pcscd::start();
        let card = Card::yubikey(&pcscd, 12_345_678);
        assert_eq!(card.locator(), "piv:serial=12345678;slot=9d");
        let connection = Connection::piv(&card);
        assert_eq!(connection.done([0, 0xFD, 0, 0], &[]), [5, 7, 1]);
        assert_eq!(connection.done([0, 0xF8, 0, 0], &[]), 12_345_678_u32.to_be_bytes());
        assert_eq!(connection.status(VERIFY_PIV, &[]), 0x63C3);
        assert_eq!(connection.status(VERIFY_PIV, b"111111\xFF\xFF"), 0x63C2);
        connection.verify_piv();
        assert_eq!(connection.status(VERIFY_PIV, &[]), 0x9000);
        assert_eq!(connection.status([0, 0x20, 0xFF, 0x80], &[]), 0x9000);
        assert_eq!(connection.status(VERIFY_PIV, &[]), 0x63C3);
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
        assert_eq!(card.locator_at(0x82), "piv:guid=C1A716E500004000800000010000BEEF;slot=82");
        let tool = Command::new("opensc-tool").args(["--reader", card.reader(), "--serial"]).output().unwrap();
        assert!(tool.status.success(), "{tool:?}");
        let chuid = Connection::piv(&card).done([0, 0xCB, 0x3F, 0xFF], &[0x5C, 3, 0x5F, 0xC1, 2]);
        let guid = data_encoding::HEXUPPER.decode(b"C1A716E500004000800000010000BEEF").unwrap();
        assert!(chuid.windows(16).any(|window| window == guid), "{chuid:02x?}");
    });
}

#[test]
fn cards_of_all_kinds_agree_with_each_other() {
    cards::isolated(|| {
        let pcscd = Pcscd::start();
        let (yubikey, piv) = (Card::yubikey(&pcscd, 1), Card::piv(&pcscd, 2));
        let (openpgp, other) = (Card::openpgp(&pcscd, 3), Card::openpgp(&pcscd, 4));
        let y = Connection::piv(&yubikey);
        y.manage(0x0A);
        let p = Connection::piv(&piv);
        p.manage(0x03);
        let (o, q) = (Connection::openpgp(&openpgp), Connection::openpgp(&other));
        for curve in [P256, X25519] {
            let y_public = y.generate_piv(0x9D, curve, None);
            y.verify_piv();
            let (o_public, q_public) = (o.generate_openpgp(curve), q.generate_openpgp(curve));
            assert_ne!(o_public, q_public, "two cards have the same key");
            let secret = y.agree_piv(0x9D, curve, &o_public).unwrap();
            assert_eq!(secret.len(), 32);
            assert_eq!(o.agree_openpgp(&y_public).unwrap(), secret);
            assert_eq!(q.agree_openpgp(&o_public).unwrap(), o.agree_openpgp(&q_public).unwrap());
        }
        let y_public = y.generate_piv(0x82, P256, None);
        for slot in [0x9D, 0x82] {
            let p_public = p.generate_piv(slot, P256, None);
            p.verify_piv();
            let secret = y.agree_piv(0x82, P256, &p_public).unwrap();
            assert_eq!(p.agree_piv(slot, P256, &y_public).unwrap(), secret);
        }
        let counts = [&yubikey, &piv, &openpgp, &other].map(Card::operations);
        assert_eq!(counts, [4, 2, 4, 2]);
    });
}

#[test]
fn an_attestation_chains_to_the_root_of_its_card() {
    cards::isolated(|| {
        let pcscd = Pcscd::start();
        let (card, stranger) = (Card::yubikey(&pcscd, 4711), Card::yubikey(&pcscd, 4712));
        let connection = Connection::piv(&card);
        connection.manage(0x0A);
        connection.generate_piv(0x9D, X25519, Some((3, ONCE_OR_TOUCHED)));
        let object = connection.done([0, 0xCB, 0x3F, 0xFF], &[0x5C, 3, 0x5F, 0xFF, 1]);
        let home = tempfile::tempdir().unwrap();
        let file = |name: &str| home.path().join(name).display().to_string();
        // 53 82 hh ll 70 82 hh ll CERTIFICATE 71 01 00 FE 00
        std::fs::write(file("f9.der"), &object[8..object.len() - 5]).unwrap();
        std::fs::write(file("leaf.der"), connection.done([0, 0xF9, 0x9D, 0], &[])).unwrap();
        let openssl = |arguments: &[&str]| Command::new("openssl").args(arguments).output().unwrap();
        let f9 = openssl(&["x509", "-inform", "DER", "-in", &file("f9.der")]).stdout;
        std::fs::write(file("f9.pem"), f9).unwrap();
        let verify = |root: &std::path::Path| {
            let root = root.display().to_string();
            openssl(&["verify", "-CAfile", &root, "-untrusted", &file("f9.pem"), &file("leaf.der")]).status.success()
        };
        assert!(verify(&card.attestation_root()));
        assert!(!verify(&stranger.attestation_root()));
        let text = openssl(&["x509", "-inform", "DER", "-in", &file("leaf.der"), "-noout", "-text"]);
        let text = String::from_utf8_lossy(&text.stdout);
        let parsed = openssl(&["asn1parse", "-inform", "DER", "-in", &file("leaf.der")]);
        let parsed = String::from_utf8_lossy(&parsed.stdout);
        for expected in ["CN = YubiKey PIV Attestation 9d", "Issuer: CN = Yubico PIV Attestation", "X25519"] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
        // Firmware, serial number, policies, form factor.
        for (oid, value) in [("3.3", "050701"), ("3.7", "02021267"), ("3.8", "0302"), ("3.9", "01")] {
            let mut lines = parsed.lines().skip_while(|line| !line.ends_with(&format!("1.3.6.1.4.1.41482.{oid}")));
            assert!(lines.nth(1).is_some_and(|line| line.ends_with(&format!("[HEX DUMP]:{value}"))), "{oid}\n{parsed}");
        }
    });
}

#[test]
fn an_old_or_fips_yubikey_has_no_x25519() {
    cards::isolated(|| {
        let pcscd = Pcscd::start();
        let refused = |options: &Options, management: u8| {
            let card = Card::with(&pcscd, Kind::YubiKey, 5, options);
            let connection = Connection::piv(&card);
            connection.manage(management);
            connection.generate_piv(0x9D, P256, Some((NEVER, NEVER)));
            connection.status([0, 0x47, 0, 0x9D], &[0xAC, 3, 0x80, 1, X25519]) == 0x6A80
        };
        assert!(refused(&Options { firmware: Some("5.4.3".into()), ..Options::default() }, 0x03));
        assert!(refused(&Options { fips: true, ..Options::default() }, 0x0A));
        assert!(!refused(&Options::default(), 0x0A));
    });
}

#[test]
fn a_card_with_storage_keeps_its_keys() {
    cards::isolated(|| {
        let pcscd = Pcscd::start();
        let home = tempfile::tempdir().unwrap();
        let options = Options { storage: Some(home.path().join("card")), ..Options::default() };
        let card = Card::with(&pcscd, Kind::OpenPgp, 6, &options);
        let public = Connection::openpgp(&card).generate_openpgp(X25519);
        drop(card);
        let card = Card::with(&pcscd, Kind::OpenPgp, 6, &options);
        let read = Connection::openpgp(&card).done([0, 0x47, 0x81, 0], &[0xB8, 0]);
        assert_eq!(read[read.len() - 32..], public);
    });
}

#[test]
fn a_tpm_answers_and_starts_again() {
    let tpm = Swtpm::start();
    let port: u16 = tpm.tcti().rsplit_once('=').unwrap().1.parse().unwrap();
    // TPM2_GetRandom of 16 bytes, TPM 2.0 part 3 section 16.1.
    let random = || {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(&[0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x7B, 0, 16]).unwrap();
        let mut answer = [0; 28];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer[..12], [0x80, 1, 0, 0, 0, 28, 0, 0, 0, 0, 0, 16]);
        answer
    };
    let first = random();
    tpm.restart();
    assert_ne!(random(), first);
}
