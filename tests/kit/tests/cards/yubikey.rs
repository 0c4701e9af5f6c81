//! What our own card does as the YubiKey does: PINs, policies, metadata, the management key.

use claviger_testkit::cards::{self, ADMIN_PIN, Card, MANAGEMENT_KEY, PIN, Pcscd};

use crate::connection::{Connection, Header, NEVER, ONCE_OR_TOUCHED, P256, VERIFY_PIV, X25519, padded};

const CHANGE_PIN: Header = [0, 0x24, 0, 0x80];
const UNBLOCK: Header = [0, 0x2C, 0, 0x80];
const PIN_METADATA: Header = [0, 0xF7, 0, 0x80];
const ALWAYS: u8 = 3;

fn pair(one: &str, two: &str) -> Vec<u8> {
    [padded(one), padded(two)].concat()
}

#[test]
fn a_pin_is_counted_changed_blocked_and_unblocked() {
    cards::isolated(|| {
        let pcscd = Pcscd::start();
        let card = Card::yubikey(&pcscd, 1);
        let connection = Connection::piv(&card);
        assert_eq!(connection.done(PIN_METADATA, &[]), [1, 1, 0xFF, 5, 1, 1, 6, 2, 3, 3]);
        assert_eq!(connection.status(CHANGE_PIN, &pair("111111", "654321")), 0x63C2);
        connection.done(CHANGE_PIN, &pair(PIN, "654321"));
        assert_eq!(connection.done(PIN_METADATA, &[]), [1, 1, 0xFF, 5, 1, 0, 6, 2, 3, 3]);
        let wrong = || connection.status(VERIFY_PIV, &padded(PIN));
        assert_eq!([wrong(), wrong(), wrong(), wrong()], [0x63C2, 0x63C1, 0x63C0, 0x6983]);
        assert_eq!(connection.status(VERIFY_PIV, &padded("654321")), 0x6983);
        assert_eq!(connection.status(VERIFY_PIV, b"12345\xFF\xFF\xFF"), 0x6A80);
        // Pulling it does not give tries back.
        card.pull();
        card.insert();
        let connection = Connection::piv(&card);
        assert_eq!(connection.status(VERIFY_PIV, &padded("654321")), 0x6983);
        connection.done(UNBLOCK, &pair(ADMIN_PIN, PIN));
        connection.verify_piv();
        assert_eq!(connection.status([0, 0xFB, 0, 0], &[]), 0x6985);
    });
}

#[test]
fn policies_hold() {
    cards::isolated(|| {
        let pcscd = Pcscd::start();
        let card = Card::yubikey(&pcscd, 1);
        let connection = Connection::piv(&card);
        assert_eq!(connection.status([0, 0x47, 0, 0x82], &[0xAC, 3, 0x80, 1, P256]), 0x6982);
        connection.manage(0x0A);
        let mut peer = Vec::new();
        for (slot, pin) in [(0x82, NEVER), (0x83, ONCE_OR_TOUCHED), (0x84, ALWAYS)] {
            peer = connection.generate_piv(slot, X25519, Some((pin, NEVER)));
            let metadata = connection.done([0, 0xF7, 0, slot], &[]);
            assert_eq!(metadata, [&[1, 1, X25519, 2, 2, pin, NEVER, 3, 1, 1, 4, 34, 0x86, 32], &peer[..]].concat());
        }
        let agree = |slot| connection.agree_piv(slot, X25519, &peer).map(drop);
        assert_eq!([agree(0x82), agree(0x83), agree(0x84)], [Ok(()), Err(0x6982), Err(0x6982)]);
        connection.verify_piv();
        assert_eq!([agree(0x84), agree(0x84), agree(0x83)], [Ok(()), Err(0x6982), Ok(())]);
        // The touch of a moment ago counts with the policy *cached*.
        peer = connection.generate_piv(0x85, X25519, Some((NEVER, 3)));
        assert_eq!(connection.agree_piv(0x85, X25519, &peer).map(drop), Ok(()));
        card.touch_never();
        assert_eq!(connection.agree_piv(0x85, X25519, &peer).map(drop), Ok(()));
    });
}

#[test]
fn the_management_key_changes_and_an_imported_key_has_no_attestation() {
    cards::isolated(|| {
        let pcscd = Pcscd::start();
        let card = Card::yubikey(&pcscd, 1);
        let connection = Connection::piv(&card);
        let set = [0, 0xFF, 0xFF, 0xFF];
        let tdes = [&[0x03, 0x9B, 24], &MANAGEMENT_KEY[..]].concat();
        assert_eq!(connection.status(set, &tdes), 0x6982);
        connection.manage(0x0A);
        connection.done(set, &tdes);
        let connection = Connection::piv(&card);
        assert_eq!(connection.status([0, 0x87, 0x0A, 0x9B], &[0x7C, 2, 0x81, 0]), 0x6A86);
        connection.manage(0x03);
        assert_eq!(connection.done([0, 0xF7, 0, 0x9B], &[]), [1, 1, 3, 2, 2, 0, 1, 5, 1, 1]);
        // RFC 7748 section 6.1: Alice's private key, Bob's public key, their secret.
        let hex = |text: &str| data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap();
        let alice = hex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
        let bob = hex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f");
        let secret = hex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
        connection.done([0, 0xFE, X25519, 0x9D], &[&[8, 32], &alice[..], &[0xAA, 1, NEVER]].concat());
        assert_eq!(connection.agree_piv(0x9D, X25519, &bob), Ok(secret));
        assert_eq!(connection.status([0, 0xF9, 0x9D, 0], &[]), 0x6A80);
    });
}
