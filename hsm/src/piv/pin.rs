//! The PIN of the PIV application: its state, and VERIFY (SP 800-73-4, part 2, section 3.2.1).

use zeroize::Zeroizing;

use super::application::{self, Facts, if_there};
use crate::device::PinState;
use crate::error::{Error, ErrorKind};
use crate::pin::Tries;
use crate::pin::keeper::{last, locked};
use crate::secret::Pin;
use crate::smartcard::{Command, Exchange, Fault, send};

/// As a card has it at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Status {
    /// Until the card is reset, or another application on it is selected.
    pub(super) verified: bool,
    pub(super) tries: Tries,
}

impl From<Status> for PinState {
    fn from(status: Status) -> Self {
        Self { verified: Some(status.verified), ..Self::new(status.tries) }
    }
}

/// VERIFY without data, which tells the state and changes nothing. A verified PIN's tries only GET METADATA tells.
pub(super) fn status(card: &mut dyn Exchange, facts: &Facts) -> Result<Status, Fault> {
    let (verified, tries) = match verify_command(card, &[]) {
        Ok(()) => (true, Tries::Unknown),
        Err(Fault::Status { status, .. }) => (false, tries_of(status).unwrap_or(Tries::Unknown)),
        Err(fault) => return Err(fault),
    };
    if tries == Tries::Unknown
        && facts.has_metadata()
        && let Some(told) = application::metadata(card, application::PIN)?
    {
        return Ok(Status { verified, tries: told.tries.map_or(tries, Tries::counted) });
    }
    Ok(Status { verified, tries })
}

/// `63CX`, also as `630X` (YubiKey NEO), and `6983`. `6300` without a number tells nothing.
fn tries_of(status: u16) -> Option<Tries> {
    match status {
        0x63c0..=0x63cf | 0x6301..=0x630f => Some(Tries::counted((status & 0x0f) as u8)),
        0x6300 => Some(Tries::Unknown),
        0x6983 => Some(Tries::None),
        _ => None,
    }
}

/// The eight bytes that are sent, padded with FF. `None` where that cannot be a PIN: 6 to 8 bytes, on a YubiKey any text, else digits (part 2,
/// section 2.4.3).
pub(super) fn padded(pin: &Pin, facts: &Facts) -> Option<Zeroizing<[u8; 8]>> {
    let text = pin.expose();
    let allowed = |letter: char| letter.is_ascii_digit() || (facts.yubico.is_some() && !letter.is_control());
    if !(6..=8).contains(&text.len()) || !text.chars().all(allowed) {
        return None;
    }
    let mut padded = Zeroizing::new([0xff; 8]);
    padded[..text.len()].copy_from_slice(text.as_bytes());
    Some(padded)
}

/// The error for what cannot be a PIN.
pub(super) fn odd(what: &str, tries: Tries) -> Error {
    Error::new(
        ErrorKind::PinRequired,
        format!("What was given cannot be the PIN of {what}; nothing was sent ({tries})."),
        "A PIV PIN has 6 to 8 digits; a YubiKey takes other characters, too.",
    )
}

/// One attempt at verifying one PIN, which may take several transactions when other programs reset the card.
pub(super) struct Attempt<'a> {
    pub(super) what: &'a str,
    pub(super) pin: &'a [u8; 8],
    /// The tries that the people were told of.
    pub(super) told: Tries,
    sent: bool,
}

impl<'a> Attempt<'a> {
    pub(super) fn new(what: &'a str, pin: &'a [u8; 8], told: Tries) -> Self {
        Self { what, pin, told, sent: false }
    }

    /// Sends the PIN. Nothing else may come between this and an operation with the policy *always*.
    ///
    /// Not when tries were used up since people were told of them: by this PIN, its answer lost with a reset, or by another program.
    pub(super) fn verify(&mut self, card: &mut dyn Exchange, now: Status) -> Result<(), Fault> {
        if !now.verified && now.tries.fewer_than(self.told) {
            match now.tries {
                _ if self.sent => return Err(wrong(self.what, now.tries).into()),
                Tries::None => return Err(locked(self.what).into()),
                Tries::Last => return Err(last(self.what).into()),
                _ => {}
            }
        }
        self.sent = true;
        match verify_command(card, self.pin) {
            Err(Fault::Status { status: 0x6983, .. }) => Err(locked(self.what).into()),
            Err(Fault::Status { status, command }) => Err(match tries_of(status) {
                Some(tries) => wrong(self.what, tries).into(),
                None => Fault::Status { command, status },
            }),
            answer => answer,
        }
    }
}

fn wrong(what: &str, tries: Tries) -> Error {
    Error::new(
        ErrorKind::WrongPin,
        format!("{what} refuses the PIN; {tries}."),
        if tries == Tries::None {
            "Unblock it with the PUK: `ykman piv access unblock-pin`, or the tool of the card's maker."
        } else {
            "Try again with the right PIN; it is not resent by itself."
        },
    )
}

/// Ends the PIN's validity (P1 = FF). Cards from before SP 800-73-4 cannot do that.
pub(super) fn unverify(card: &mut dyn Exchange) -> Result<(), Fault> {
    if_there(send(card, Command::new("VERIFY", 0x20, 0xff, application::PIN, &[]))).map(drop)
}

fn verify_command(card: &mut dyn Exchange, data: &[u8]) -> Result<(), Fault> {
    send(card, Command::new("VERIFY", 0x20, 0x00, application::PIN, data)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(yubico: bool) -> Facts {
        let yubico = yubico.then_some(application::Yubico { firmware: [5, 7, 1], serial: Some(1) });
        Facts { yubico, guid: None, label: None }
    }

    #[test]
    fn pins_are_padded_and_odd_ones_refused() {
        let pad = |text: &str, yubico| padded(&Pin::new(text.into()).unwrap(), &facts(yubico)).map(|padded| *padded);
        assert_eq!(pad("123456", false), Some(*b"123456\xff\xff"));
        assert_eq!(pad("12345678", true), Some(*b"12345678"));
        assert_eq!(pad("abcdef", true), Some(*b"abcdef\xff\xff"));
        for (text, yubico) in [("12345", true), ("123456789", true), ("abcdef", false), ("12345\n", true)] {
            assert_eq!(pad(text, yubico), None, "{text:?}");
        }
    }

    #[test]
    fn statuses_count_tries() {
        assert_eq!(tries_of(0x63c3), Some(Tries::Left(3)));
        assert_eq!(tries_of(0x6301), Some(Tries::Last));
        assert_eq!(tries_of(0x63c0), Some(Tries::None));
        assert_eq!(tries_of(0x6983), Some(Tries::None));
        assert_eq!(tries_of(0x6982), None);
    }

    /// Answers VERIFY with these, in order; remembers the lengths of what it was sent.
    struct Answers(Vec<u16>, Vec<usize>);

    impl Exchange for Answers {
        fn transmit(&mut self, command: &[u8]) -> Result<Zeroizing<Vec<u8>>, Fault> {
            self.1.push(command.len());
            Ok(Zeroizing::new(self.0.remove(0).to_be_bytes().to_vec()))
        }
    }

    #[test]
    fn a_pin_whose_answer_was_lost_is_not_sent_again() {
        let mut card = Answers(vec![0x9000], Vec::new());
        let mut attempt = Attempt::new("It", b"123456\xff\xff", Tries::Left(3));
        let now = |tries| Status { verified: false, tries };
        attempt.verify(&mut card, now(Tries::Left(3))).unwrap();
        let Err(Fault::Typed(error)) = attempt.verify(&mut card, now(Tries::Left(2))) else { panic!("it was sent") };
        assert_eq!((error.kind(), card.1.len()), (ErrorKind::WrongPin, 1));
        let mut attempt = Attempt::new("It", b"123456\xff\xff", Tries::Left(3));
        let Err(Fault::Typed(error)) = attempt.verify(&mut card, now(Tries::Last)) else { panic!("it was sent") };
        assert_eq!((error.kind(), card.1.len()), (ErrorKind::PinLast, 1));
    }

    #[test]
    fn a_refusal_names_the_tries() {
        for (status, kind, said) in [
            (0x63c2, ErrorKind::WrongPin, "2 tries left"),
            (0x6983, ErrorKind::PinLocked, ""),
            (0x63c0, ErrorKind::WrongPin, "no try"),
        ] {
            let mut card = Answers(vec![status], Vec::new());
            let now = Status { verified: false, tries: Tries::Left(3) };
            let outcome = Attempt::new("It", b"123456\xff\xff", Tries::Left(3)).verify(&mut card, now);
            let error = outcome.unwrap_err().typed("It");
            assert!(error.kind() == kind && error.to_string().contains(said), "{error:?}");
        }
    }
}
