//! A test with cards has them to itself, and leaves nothing.

use std::env;
use std::ffi::CString;
use std::fs;
use std::mem;
use std::process::Command;

use claviger_testkit::cards::{self, Card, Pcscd};
use claviger_testkit::token::{self, SoftHsm};
use pcsc::{Context, Scope};

use crate::connection::{Connection, VERIFY_PIV};

/// A time to sleep that no other process sleeps.
const NAP: &str = "86397.25";

/// Set for the test that runs beside another.
const BESIDE: &str = "CLAVIGER_TEST_BESIDE";

fn readers() -> Vec<CString> {
    Context::establish(Scope::User).unwrap().list_readers_owned().unwrap()
}

#[test]
fn a_test_sees_its_own_cards_only() {
    cards::isolated(|| {
        assert!(Context::establish(Scope::User).is_err(), "there is a pcscd already");
        let pcscd = Pcscd::start();
        let card = Card::yubikey(&pcscd, 1);
        assert_eq!(readers().len(), 4);
        let connection = Connection::piv(&card);
        connection.verify_piv();
        // The same once more, beside this one.
        if env::var_os(BESIDE).is_some() {
            return;
        }
        let other = Command::new(env::current_exe().unwrap())
            .args(["isolation::a_test_sees_its_own_cards_only", "--exact"])
            .env(BESIDE, "1")
            .env_remove("CLAVIGER_TESTKIT_CARDS")
            .output();
        let other = other.unwrap();
        assert!(other.status.success(), "{other:?}");
        assert_eq!(connection.status(VERIFY_PIV, &[]), 0x9000);
    });
}

#[test]
fn a_test_has_other_tokens_beside_its_cards() {
    cards::isolated(|| {
        let pcscd = Pcscd::start();
        let _card = Card::openpgp(&pcscd, 1);
        token::isolated(|| {
            let softhsm = SoftHsm::new();
            let (variable, conf) = softhsm.env();
            assert_eq!(env::var_os(variable), Some(conf.into_os_string()));
            softhsm.init_token("one", token::SO_PIN, token::PIN);
        });
    });
}

#[test]
fn what_a_test_leaves_ends_with_it() {
    cards::isolated(|| {
        let pcscd = Pcscd::start();
        let card = Card::yubikey(&pcscd, 1);
        let sleep = Command::new("sleep").arg(NAP).spawn().unwrap();
        mem::forget((pcscd, card, sleep));
    });
    if env::var_os("CLAVIGER_TESTKIT_CARDS").is_some() {
        return;
    }
    let left = fs::read_dir("/proc").unwrap().filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok());
    let left: Vec<_> = left.filter(|line| line.windows(NAP.len()).any(|part| part == NAP.as_bytes())).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn cards_outlast_their_pcscd() {
    cards::isolated(|| {
        let pcscd = Pcscd::start();
        let (inside, outside) = (Card::yubikey(&pcscd, 1), Card::piv(&pcscd, 2));
        outside.pull();
        let connection = Connection::piv(&inside);
        pcscd.restart();
        assert!(connection.try_send(VERIFY_PIV, &[]).is_err());
        Connection::piv(&inside).verify_piv();
        pcscd.kill();
        outside.insert();
        pcscd.start_again();
        assert_eq!(Connection::piv(&inside).status(VERIFY_PIV, &[]), 0x63C3);
        assert_eq!(Connection::piv(&outside).status(VERIFY_PIV, &[]), 0x63C3);
    });
}

#[test]
fn a_slot_is_free_again() {
    cards::isolated(|| {
        let pcscd = Pcscd::start();
        for serial in 1..=6 {
            let card = Card::yubikey(&pcscd, serial);
            assert_eq!(Connection::piv(&card).done([0, 0xF8, 0, 0], &[]), serial.to_be_bytes());
        }
        let four: Vec<Card> = (1..=4).map(|serial| Card::yubikey(&pcscd, serial)).collect();
        let readers: std::collections::BTreeSet<_> = four.iter().map(Card::reader).collect();
        assert_eq!(readers.len(), 4);
    });
}
