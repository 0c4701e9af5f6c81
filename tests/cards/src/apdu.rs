//! ISO 7816-4 between a reader and an applet: short and extended lengths, command chaining, GET RESPONSE.

/// A status word, such as `0x6982`.
pub type Status = u16;

/// No error.
pub const SUCCESS: Status = 0x9000;
/// The length of the data field is wrong.
pub const WRONG_LENGTH: Status = 0x6700;
/// Security status not satisfied: no PIN, no touch, no management key.
pub const SECURITY_STATUS: Status = 0x6982;
/// The PIN or PUK is blocked.
pub const BLOCKED: Status = 0x6983;
/// Conditions of use not satisfied.
pub const CONDITIONS: Status = 0x6985;
/// The data field is wrong.
pub const WRONG_DATA: Status = 0x6A80;
/// There is no such file, object or application.
pub const NOT_FOUND: Status = 0x6A82;
/// P1 or P2 is wrong.
pub const WRONG_PARAMETERS: Status = 0x6A86;
/// There is no such reference data: no key in this slot, no PIN of this number.
pub const NO_REFERENCE: Status = 0x6A88;
/// The instruction is not known.
pub const WRONG_INSTRUCTION: Status = 0x6D00;

/// SELECT.
pub const SELECT: u8 = 0xA4;
const GET_RESPONSE: u8 = 0xC0;
/// The bit of CLA that says that more of the command follows.
const CHAINED: u8 = 0x10;
/// More than this no applet here takes in one command, chained or not.
const MAX_DATA: usize = 8192;

/// A whole command: chained parts have been put together.
#[derive(Clone)]
pub struct Command {
    /// Instruction.
    pub ins: u8,
    /// First parameter.
    pub p1: u8,
    /// Second parameter.
    pub p2: u8,
    /// The data field, of all parts.
    pub data: Vec<u8>,
}

/// An application on a card.
pub trait Applet {
    /// The card was reset or has lost its power: what is not stored is forgotten.
    fn reset(&mut self);

    /// Executes a command; the answer's data or an error's status word.
    fn execute(&mut self, command: &Command) -> Result<Vec<u8>, Status>;

    /// Whether `command`, which succeeded with `answer`, used a private key.
    fn used_private_key(&self, command: &Command, answer: &[u8]) -> bool;
}

/// Puts commands together from APDUs and cuts answers into them.
#[derive(Default)]
pub struct Assembler {
    parts: Vec<u8>,
    rest: Vec<u8>,
}

/// What an APDU asks for.
pub enum Asked {
    /// A whole command, and how long the first part of the answer may be.
    Command(Command, usize),
    /// Nothing of the applet: this is the answer.
    Answer(Vec<u8>),
}

impl Assembler {
    /// Forgets a half command and a half answer.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Takes an APDU from the reader.
    pub fn take(&mut self, apdu: &[u8]) -> Asked {
        let (Some(&[cla, ins, p1, p2]), Some((data, le))) = (apdu.first_chunk(), split(apdu)) else {
            return Asked::Answer(WRONG_LENGTH.to_be_bytes().into());
        };
        if ins == GET_RESPONSE {
            return Asked::Answer(self.part(le));
        }
        self.rest.clear();
        if self.parts.len() + data.len() > MAX_DATA {
            self.parts.clear();
            return Asked::Answer(WRONG_LENGTH.to_be_bytes().into());
        }
        self.parts.extend(data);
        if cla & CHAINED != 0 {
            return Asked::Answer(SUCCESS.to_be_bytes().into());
        }
        Asked::Command(Command { ins, p1, p2, data: std::mem::take(&mut self.parts) }, le)
    }

    /// The answer to a command whose first part may be `le` bytes long: data and status word.
    pub fn answer(&mut self, result: Result<Vec<u8>, Status>, le: usize) -> Vec<u8> {
        match result {
            Ok(data) => {
                self.rest = data;
                self.part(le)
            }
            Err(status) => status.to_be_bytes().into(),
        }
    }

    fn part(&mut self, le: usize) -> Vec<u8> {
        let mut part: Vec<u8> = self.rest.drain(..le.min(self.rest.len())).collect();
        match u8::try_from(self.rest.len()) {
            Ok(0) => part.extend(SUCCESS.to_be_bytes()),
            Ok(left) => part.extend([0x61, left]),
            // 256 or more.
            Err(_) => part.extend([0x61, 0]),
        }
        part
    }
}

/// The data field and Le of an APDU, ISO 7816-4 section 5.1. An absent Le allows a short answer, as T=1 readers expect.
fn split(apdu: &[u8]) -> Option<(&[u8], usize)> {
    let short = |le: u8| if le == 0 { 256 } else { usize::from(le) };
    let long = |high: u8, low: u8| match u16::from_be_bytes([high, low]) {
        0 => 65536,
        le => usize::from(le),
    };
    match apdu.get(4..)? {
        [] => Some((&[], 256)),
        [le] => Some((&[], short(*le))),
        [0, high, low] => Some((&[], long(*high, *low))),
        [0, high, low, rest @ ..] => {
            let (data, le) = rest.split_at_checked(usize::from(u16::from_be_bytes([*high, *low])))?;
            match le {
                [] => Some((data, 65536)),
                [high, low] => Some((data, long(*high, *low))),
                _ => None,
            }
        }
        [length @ 1..=255, rest @ ..] => {
            let (data, le) = rest.split_at_checked(usize::from(*length))?;
            match le {
                [] => Some((data, 256)),
                [le] => Some((data, short(*le))),
                _ => None,
            }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_length_is_read() {
        type Form = (&'static [u8], Option<(&'static [u8], usize)>);
        let forms: &[Form] = &[
            (&[0, 1, 2, 3], Some((&[], 256))),
            (&[0, 1, 2, 3, 0], Some((&[], 256))),
            (&[0, 1, 2, 3, 5], Some((&[], 5))),
            (&[0, 1, 2, 3, 1, 9], Some((&[9], 256))),
            (&[0, 1, 2, 3, 1, 9, 4], Some((&[9], 4))),
            (&[0, 1, 2, 3, 0, 0, 0], Some((&[], 65536))),
            (&[0, 1, 2, 3, 0, 1, 0], Some((&[], 256))),
            (&[0, 1, 2, 3, 0, 0, 1, 9], Some((&[9], 65536))),
            (&[0, 1, 2, 3, 0, 0, 1, 9, 1, 2], Some((&[9], 258))),
            (&[0, 1, 2, 3, 2, 9], None),
            (&[0, 1, 2, 3, 1, 9, 4, 4], None),
            (&[0, 1, 2, 3, 0, 0], None),
            (&[0, 1, 2, 3, 0, 0, 2, 9], None),
            (&[0, 1, 2], None),
        ];
        for (apdu, expected) in forms {
            assert_eq!(split(apdu), *expected, "{apdu:x?}");
        }
    }

    #[test]
    fn a_chained_command_arrives_whole_and_its_answer_in_parts() {
        let mut assembler = Assembler::default();
        let Asked::Answer(more) = assembler.take(&[0x10, 0xDB, 0x3F, 0xFF, 2, 1, 2]) else { panic!("a half command") };
        assert_eq!(more, [0x90, 0]);
        let Asked::Command(command, le) = assembler.take(&[0, 0xDB, 0x3F, 0xFF, 1, 3, 0]) else { panic!("no command") };
        assert_eq!((command.ins, command.data), (0xDB, vec![1, 2, 3]));
        let first = assembler.answer(Ok(vec![5; 600]), le);
        assert_eq!((first.len(), &first[256..]), (258, &[0x61, 0][..]));
        let Asked::Answer(second) = assembler.take(&[0, 0xC0, 0, 0, 0]) else { panic!("a command") };
        assert_eq!(second[256..], [0x61, 88]);
        let Asked::Answer(third) = assembler.take(&[0, 0xC0, 0, 0, 88]) else { panic!("a command") };
        assert_eq!((third.len(), &third[88..]), (90, &[0x90, 0][..]));
    }

    #[test]
    fn an_endless_chain_is_refused() {
        let mut assembler = Assembler::default();
        let part = [&[0x10, 0xDB, 0x3F, 0xFF, 255][..], &[0; 255]].concat();
        let refused = (0..64).any(|_| matches!(assembler.take(&part), Asked::Answer(answer) if answer == [0x67, 0]));
        assert!(refused);
    }
}
