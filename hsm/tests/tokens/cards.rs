//! Cards that other programs use beside us: whatever they do to a card is a state, and whatever we do leaves theirs alone.

use std::ffi::CString;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use claviger_hsm::{
    Curve, ErrorKind, KeepPin, Operation, Pin, PinEntry, PinRequest, Presence, Result, Stage, Token, Tries,
};
use claviger_testkit::cards::Card;
use pcsc::{Context, Disposition, Protocols, Scope, ShareMode};

use crate::backend::{
    Counting, Given, Nobody, SmartCard, agree, agrees, agrees_asking, each, kind, open, peer, ready, soon,
};

/// Another program: the card, as it connects to it.
fn other_program(card: &Card, mode: ShareMode) -> pcsc::Card {
    let reader = CString::new(card.reader()).unwrap();
    Context::establish(Scope::User).unwrap().connect(&reader, mode, Protocols::ANY).unwrap()
}

/// It ends and leaves the card as it is; to drop it would reset the card.
fn leave(card: pcsc::Card) {
    card.disconnect(Disposition::LeaveCard).map_err(|(_, error)| error).unwrap();
}

/// The status word of a command.
fn status(card: &pcsc::Card, command: &[u8]) -> u16 {
    let mut answer = [0; 512];
    let answer = card.transmit(command, &mut answer).unwrap();
    u16::from_be_bytes(*answer.last_chunk().unwrap())
}

fn select<B: SmartCard>(card: &pcsc::Card) {
    let command = [&[0x00, 0xA4, 0x04, 0x00, u8::try_from(B::AID.len()).unwrap()], B::AID, &[0x00]].concat();
    let word = status(card, &command);
    assert!(word == 0x9000 || word >> 8 == 0x61, "{word:04X}");
}

fn verify<B: SmartCard>(card: &pcsc::Card) {
    let pin = B::pin_block();
    let command = [&[0x00, 0x20, 0x00, B::PIN_REFERENCE, u8::try_from(pin.len()).unwrap()], &pin[..]].concat();
    assert_eq!(status(card, &command), 0x9000);
}

/// VERIFY without data asks whether the PIN is verified, and costs no try.
fn is_verified<B: SmartCard>(card: &pcsc::Card) -> bool {
    status(card, &[0x00, 0x20, 0x00, B::PIN_REFERENCE]) == 0x9000
}

pub(crate) fn pulled_in_the_middle_of_an_operation<B: SmartCard>(curve: Curve) {
    let (backend, locator, _) = ready::<B>(curve);
    let mut token = open(&locator, None, &mut Given::new(B::PIN)).unwrap();
    for _ in 0..2 {
        backend.card().pull_during();
        assert_eq!(kind(agree(token.as_mut())), ErrorKind::TokenAbsent);
        backend.insert();
        agrees(token.as_mut());
    }
    // By hand, while the card works on something long.
    backend.card().hang(Duration::from_secs(5));
    let start = Instant::now();
    std::thread::scope(|scope| {
        let agree = scope.spawn(|| kind(agree(token.as_mut())));
        #[allow(clippy::disallowed_methods, reason = "nothing tells that the command is with the card")]
        std::thread::sleep(Duration::from_millis(300));
        backend.pull();
        assert_eq!(agree.join().unwrap(), ErrorKind::TokenAbsent);
    });
    assert!(start.elapsed() < Duration::from_secs(4));
    backend.insert();
    agrees(token.as_mut());
}

pub(crate) fn reset_by_another_program<B: SmartCard>(curve: Curve) {
    let (backend, locator, _) = ready::<B>(curve);
    let mut token = open(&locator, None, &mut Given::new(B::PIN)).unwrap();
    for _ in 0..3 {
        let card = other_program(backend.card(), ShareMode::Shared);
        card.disconnect(Disposition::ResetCard).map_err(|(_, error)| error).unwrap();
        assert_eq!(token.look().unwrap(), Presence::Ready);
        agrees(token.as_mut());
        // Of this one PC/SC knows nothing.
        backend.card().reset();
        agrees(token.as_mut());
    }
}

/// As scdaemon does it.
pub(crate) fn an_exclusive_holder_is_waited_out<B: SmartCard>(curve: Curve) {
    let (backend, locator, _) = ready::<B>(curve);
    let mut token = open(&locator, None, &mut Given::new(B::PIN)).unwrap();
    // Nobody gets it for himself while a token has it open; but who is first when it is plugged in again does.
    backend.pull();
    assert_eq!(kind(agree(token.as_mut())), ErrorKind::TokenAbsent);
    backend.insert();
    let holder = other_program(backend.card(), ShareMode::Exclusive);
    for _ in 0..2 {
        let error = token.agree(&peer(curve).1, &mut soon(&mut Nobody)).err().unwrap();
        assert!(error.hint().contains("pcsc-shared"), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert_eq!(kind(token.look()), ErrorKind::Busy);
        assert_eq!(kind(open(&locator, None, &mut Given::new(B::PIN))), ErrorKind::Busy);
    }
    leave(holder);
    agrees(token.as_mut());
}

pub(crate) fn another_programs_transaction_is_waited_for<B: SmartCard>(curve: Curve) {
    let (backend, locator, _) = ready::<B>(curve);
    let mut token = open(&locator, None, &mut Given::new(B::PIN)).unwrap();
    agrees(token.as_mut());
    let before = backend.card().operations();
    let (holds, held) = channel();
    let card = backend.card();
    let hold = |time: Duration| {
        let mut card = other_program(card, ShareMode::Shared);
        let transaction = card.transaction().unwrap();
        holds.send(()).unwrap();
        #[allow(clippy::disallowed_methods, reason = "the time that passes is what is tested")]
        std::thread::sleep(time);
        transaction.end(Disposition::LeaveCard).map_err(|(_, error)| error).unwrap();
        leave(card);
    };
    let answered = |limit: Duration, wanted: bool, token: &mut dyn Token| {
        let stages = std::cell::RefCell::new(Vec::new());
        let (mut nobody, observer) = (Nobody, |stage| stages.borrow_mut().push(stage));
        // Whoever does not want it gives up while the other program holds the card.
        let waits = || wanted || stages.borrow().is_empty();
        let mut operation = Operation::within(limit, &mut nobody).observed(&observer).while_wanted(&waits);
        std::thread::scope(|scope| {
            scope.spawn(|| hold(Duration::from_millis(500)));
            held.recv().unwrap();
            let start = Instant::now();
            let answer = token.agree(&peer(curve).1, &mut operation);
            assert!(start.elapsed() > Duration::from_millis(300), "it did not wait");
            assert_eq!(stages.borrow().first(), Some(&Stage::Access));
            answer
        })
    };
    answered(Duration::from_secs(20), true, token.as_mut()).unwrap();
    assert_eq!(backend.card().operations(), before + 1);
    // Who gave up meanwhile costs no operation.
    assert_eq!(kind(answered(Duration::from_millis(100), true, token.as_mut())), ErrorKind::Deadline);
    assert_eq!(kind(answered(Duration::from_secs(20), false, token.as_mut())), ErrorKind::Deadline);
    assert_eq!(backend.card().operations(), before + 1);
    agrees(token.as_mut());
}

pub(crate) fn pcscd_is_a_state<B: SmartCard>(curve: Curve) {
    let (backend, locator, _) = ready::<B>(curve);
    let mut token = open(&locator, None, &mut Given::new(B::PIN)).unwrap();
    for crash in [false, true] {
        if crash {
            backend.pcscd().kill()
        } else {
            backend.pcscd().stop()
        }
        for _ in 0..2 {
            assert_eq!(kind(agree(token.as_mut())), ErrorKind::ServiceAbsent);
            assert_eq!(kind(token.look()), ErrorKind::ServiceAbsent);
            assert_eq!(kind(open(&locator, None, &mut Nobody)), ErrorKind::ServiceAbsent);
        }
        backend.pcscd().start_again();
        agrees(token.as_mut());
    }
    // Started again before anybody noticed.
    backend.pcscd().restart();
    agrees(token.as_mut());
}

/// gpg, ssh and age beside us: what they have verified stays verified, by every policy of ours.
pub(crate) fn other_programs_keep_their_pin_state<B: SmartCard>(curve: Curve) {
    let (backend, locator, _) = ready::<B>(curve);
    let card = other_program(backend.card(), ShareMode::Shared);
    select::<B>(&card);
    verify::<B>(&card);
    for keep in [KeepPin::Once, KeepPin::Never, KeepPin::Always] {
        let mut people = Given::new(B::PIN);
        let mut token = claviger_hsm::open(&locator, None, keep, &mut soon(&mut people)).unwrap();
        for _ in 0..3 {
            agrees_asking(token.as_mut(), &mut people);
            token.look().unwrap();
            token.pin_state().unwrap();
            assert!(is_verified::<B>(&card), "{keep}");
        }
        drop(token);
        assert!(is_verified::<B>(&card), "{keep}");
    }
    leave(card);
}

/// `always`: the card forgets it after each operation, where nobody else had it verified.
pub(crate) fn a_pin_that_is_always_asked_is_forgotten_by_the_card<B: SmartCard>(curve: Curve) {
    let (backend, locator, _) = ready::<B>(curve);
    let mut token = claviger_hsm::open(&locator, None, KeepPin::Always, &mut soon(&mut Given::new(B::PIN))).unwrap();
    let card = other_program(backend.card(), ShareMode::Shared);
    for _ in 0..3 {
        assert!(!is_verified::<B>(&card));
        agrees_asking(token.as_mut(), &mut Given::new(B::PIN));
    }
    assert!(!is_verified::<B>(&card));
    leave(card);
}

/// Another program uses up the tries while a token is open.
fn a_pin_that_others_lock_is_told<B: SmartCard + Counting>(curve: Curve) {
    let (backend, locator, _) = ready::<B>(curve);
    let mut token = open(&locator, None, &mut Given::new(B::PIN)).unwrap();
    agrees(token.as_mut());
    let card = other_program(backend.card(), ShareMode::Shared);
    select::<B>(&card);
    let mut wrong = B::pin_block();
    wrong[0] ^= 1;
    for _ in 0..B::TRIES {
        let command = [&[0x00, 0x20, 0x00, B::PIN_REFERENCE, u8::try_from(wrong.len()).unwrap()], &wrong[..]].concat();
        assert_ne!(status(&card, &command), 0x9000);
    }
    leave(card);
    let state = token.pin_state().unwrap();
    assert_eq!(state.tries_left, Tries::None);
    if state.verified == Some(true) {
        // opcard goes on for who had the PIN right before.
        return agrees(token.as_mut());
    }
    for _ in 0..2 {
        assert_eq!(kind(agree(token.as_mut())), ErrorKind::PinLocked);
    }
}

/// Another application was selected meanwhile.
pub(crate) fn the_application_is_selected_again<B: SmartCard>(curve: Curve) {
    let (backend, locator, _) = ready::<B>(curve);
    let mut token = open(&locator, None, &mut Given::new(B::PIN)).unwrap();
    let card = other_program(backend.card(), ShareMode::Shared);
    for _ in 0..3 {
        // No card here has more than one application: what is not there leaves the card as it is, or deselects.
        status(&card, &[0x00, 0xA4, 0x04, 0x00, 0x05, 0xA0, 0x00, 0x00, 0x03, 0x99]);
        agrees(token.as_mut());
    }
    leave(card);
}

/// Another program mistypes the PIN: that costs a try, and the card holds it no longer as verified.
fn mistype<B: SmartCard>(card: &pcsc::Card) {
    let mut pin = B::pin_block();
    pin[0] ^= 1;
    let command = [&[0x00, 0x20, 0x00, B::PIN_REFERENCE, u8::try_from(pin.len()).unwrap()], &pin[..]].concat();
    assert_ne!(status(card, &command), 0x9000);
}

pub(crate) fn a_pin_that_another_program_ended_is_sent_again<B: SmartCard>(curve: Curve) {
    let (backend, locator, _) = ready::<B>(curve);
    let mut token = open(&locator, None, &mut Given::new(B::PIN)).unwrap();
    let card = other_program(backend.card(), ShareMode::Shared);
    for _ in 0..2 {
        mistype::<B>(&card);
        agrees(token.as_mut());
    }
    leave(card);
}

/// Gives the right PIN, after other programs have left one try for it.
struct Slow<'a, B>(&'a B);

impl<B: SmartCard + Counting> PinEntry for Slow<'_, B> {
    fn pin(&mut self, request: &PinRequest<'_>) -> Result<Pin> {
        assert_eq!(request.tries_left, Tries::Left(B::TRIES));
        let card = other_program(self.0.card(), ShareMode::Shared);
        (1..B::TRIES).for_each(|_| mistype::<B>(&card));
        leave(card);
        Pin::new(B::PIN.into())
    }
}

pub(crate) fn the_last_try_is_nobodys_who_was_asked_before<B: SmartCard + Counting>(curve: Curve) {
    let (backend, locator, _) = ready::<B>(curve);
    let card = other_program(backend.card(), ShareMode::Shared);
    select::<B>(&card);
    leave(card);
    assert_eq!(kind(open(&locator, None, &mut Slow(&backend))), ErrorKind::PinLast);
    // It was not sent: the right one would have given the tries back.
    assert_eq!(kind(open(&locator, None, &mut Given::new(B::PIN))), ErrorKind::PinLast);
    open(&locator, None, &mut Given::all(B::PIN)).unwrap();
}

pub(crate) fn a_card_that_answers_anything_is_a_failure<B: SmartCard>(curve: Curve) {
    let (backend, locator, _) = ready::<B>(curve);
    let mut token = open(&locator, None, &mut Given::new(B::PIN)).unwrap();
    backend.card().garbage(true);
    for _ in 0..20 {
        // Whatever it says, it cannot say a right shared secret, nor a proof of its key.
        let _ = token.look();
        let _ = token.pin_state();
        let _ = agree(token.as_mut());
        assert!(open(&locator, None, &mut Given::all(B::PIN)).is_err());
    }
    backend.card().garbage(false);
    backend.pull();
    backend.insert();
    agrees(open(&locator, None, &mut Given::all(B::PIN)).unwrap().as_mut());
}

each! {
    #[cfg(feature = "openpgp")]
    openpgp: crate::openpgp::OpenPgpCard [X25519 P256],
    piv_card: crate::piv::PivCard [P256],
    yubikey: crate::piv::YubiKey [X25519 P256]
    => {
        pulled_in_the_middle_of_an_operation
        reset_by_another_program
        an_exclusive_holder_is_waited_out
        another_programs_transaction_is_waited_for
        pcscd_is_a_state
        other_programs_keep_their_pin_state
        a_pin_that_is_always_asked_is_forgotten_by_the_card
        a_pin_that_others_lock_is_told
        the_application_is_selected_again
        a_pin_that_another_program_ended_is_sent_again
        the_last_try_is_nobodys_who_was_asked_before
        a_card_that_answers_anything_is_a_failure
    }
}
