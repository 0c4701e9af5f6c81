//! What the hand does: pulls, touches, makes the card misbehave.

use std::thread;
use std::time::{Duration, Instant};

use claviger_testkit::cards::{self, Card, Kind, Options, Pcscd};

use crate::connection::{Connection, NEVER, ONCE_OR_TOUCHED, P256, VERIFY_PIV, X25519};

const SHORT: Duration = Duration::from_millis(400);

/// A YubiKey that waits for a touch for [`SHORT`], with a key in 9D that needs one and no PIN.
fn touched_yubikey(pcscd: &Pcscd) -> (Card, Connection, Vec<u8>) {
    let options = Options { touch_timeout: Some(SHORT), ..Options::default() };
    let card = Card::with(pcscd, Kind::YubiKey, 9, &options);
    let connection = Connection::piv(&card);
    connection.manage(0x0A);
    let public = connection.generate_piv(0x9D, X25519, Some((NEVER, ONCE_OR_TOUCHED)));
    (card, connection, public)
}

/// What `work` gives, and how long it took.
fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    (work(), start.elapsed())
}

#[test]
fn a_yubikey_waits_for_the_finger() {
    cards::isolated(|| {
        let pcscd = Pcscd::start();
        let (card, connection, public) = touched_yubikey(&pcscd);
        let agree = || timed(|| connection.agree_piv(0x9D, X25519, &public).map(drop));
        assert_eq!(agree().0, Ok(()));
        card.touch_after(SHORT / 2);
        let (answer, time) = agree();
        assert!(answer.is_ok() && time >= SHORT / 2, "{answer:?} after {time:?}");
        card.touch_never();
        let (answer, time) = agree();
        assert!(answer == Err(0x6982) && time >= SHORT, "{answer:?} after {time:?}");
        assert_eq!(card.operations(), 2);
        thread::scope(|scope| {
            let waiting = scope.spawn(|| connection.agree_piv(0x9D, X25519, &public).map(drop));
            card.wait_asking();
            card.touch_now();
            assert_eq!(waiting.join().unwrap(), Ok(()));
        });
    });
}

#[test]
fn an_openpgp_card_waits_for_the_finger() {
    cards::isolated(|| {
        let pcscd = Pcscd::start();
        let options = Options { touch_timeout: Some(SHORT), ..Options::default() };
        let card = Card::with(&pcscd, Kind::OpenPgp, 9, &options);
        let connection = Connection::openpgp(&card);
        let public = connection.generate_openpgp(X25519);
        // UIF of the decryption key: on, by a button.
        connection.done([0, 0xDA, 0, 0xD7], &[1, 0x20]);
        let agree = || timed(|| connection.agree_openpgp(&public).map(drop));
        card.touch_after(SHORT / 2);
        let (answer, time) = agree();
        assert!(answer.is_ok() && time >= SHORT / 2, "{answer:?} after {time:?}");
        card.touch_never();
        let (answer, time) = agree();
        assert!(answer == Err(0x6982) && time >= SHORT && time < 4 * SHORT, "{answer:?} after {time:?}");
        card.touch_now();
        assert_eq!(agree().0, Ok(()));
    });
}

#[test]
fn pulling_is_seen_and_forgets() {
    cards::isolated(|| {
        let pcscd = Pcscd::start();
        for card in [Card::yubikey(&pcscd, 1), Card::piv(&pcscd, 2)] {
            let connection = Connection::piv(&card);
            connection.verify_piv();
            assert_eq!(connection.status(VERIFY_PIV, &[]), 0x9000);
            card.pull();
            assert!(connection.try_send(VERIFY_PIV, &[]).is_err());
            card.insert();
            assert_eq!(connection.try_send(VERIFY_PIV, &[]), Err(pcsc::Error::RemovedCard));
            assert_eq!(Connection::piv(&card).status(VERIFY_PIV, &[]), 0x63C3);
        }
    });
}

#[test]
fn a_card_can_be_pulled_in_the_middle() {
    cards::isolated(|| {
        let pcscd = Pcscd::start();
        let card = Card::yubikey(&pcscd, 1);
        let connection = Connection::piv(&card);
        connection.manage(0x0A);
        let public = connection.generate_piv(0x9D, P256, Some((NEVER, ONCE_OR_TOUCHED)));
        card.touch_never();
        // The card would wait for 15 s.
        thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                timed(|| connection.try_send([0, 0x87, P256, 0x9D], &[&[0x7C, 67, 0x85, 65], &public[..]].concat()))
            });
            card.wait_asking();
            card.pull();
            let (answer, time) = waiting.join().unwrap();
            assert!(!matches!(answer, Ok((_, 0x9000 | 0x6982))), "{answer:?}");
            assert!(time < Duration::from_secs(5), "{time:?}");
        });
        card.insert();
        let connection = Connection::piv(&card);
        card.pull_during();
        let answer = connection.try_send(VERIFY_PIV, &[]);
        assert!(!matches!(answer, Ok((_, 0x63C3))), "{answer:?}");
        card.insert();
        assert_eq!(Connection::piv(&card).status(VERIFY_PIV, &[]), 0x63C3);
    });
}

#[test]
fn a_reset_by_another_program_is_noticed_and_the_card_s_own_is_not() {
    cards::isolated(|| {
        let pcscd = Pcscd::start();
        for card in [Card::yubikey(&pcscd, 1), Card::piv(&pcscd, 2)] {
            let connection = Connection::piv(&card);
            connection.verify_piv();
            Connection::to(&card).reset_card();
            assert_eq!(connection.try_send(VERIFY_PIV, &[]), Err(pcsc::Error::ResetCard));
            let connection = Connection::piv(&card);
            connection.verify_piv();
            card.reset();
            assert_ne!(connection.status(VERIFY_PIV, &[]), 0x9000);
        }
    });
}

#[test]
fn garbage_ends_nothing() {
    cards::isolated(|| {
        let pcscd = Pcscd::start();
        for card in [Card::yubikey(&pcscd, 1), Card::piv(&pcscd, 2), Card::openpgp(&pcscd, 3)] {
            card.garbage(true);
            let connection = Connection::to(&card);
            let answers: Vec<_> = (0..200).map(|_| connection.try_send(VERIFY_PIV, &[])).collect();
            assert!(answers.windows(2).any(|pair| pair[0] != pair[1]), "{answers:?}");
            card.garbage(false);
            drop(connection);
            Connection::to(&card).try_send([0, 0xA4, 4, 0], &[0xA0]).unwrap();
        }
    });
}

#[test]
fn a_card_hangs_once() {
    cards::isolated(|| {
        let pcscd = Pcscd::start();
        let card = Card::yubikey(&pcscd, 1);
        let connection = Connection::piv(&card);
        card.hang(SHORT);
        let (status, time) = timed(|| connection.status(VERIFY_PIV, &[]));
        assert!(status == 0x63C3 && time >= SHORT, "{status:x} after {time:?}");
        let (_, time) = timed(|| connection.status(VERIFY_PIV, &[]));
        assert!(time < SHORT, "{time:?}");
    });
}
