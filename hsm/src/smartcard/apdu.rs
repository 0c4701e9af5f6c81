//! Commands and their answers: ISO 7816-4, sections 5.1 (APDUs), 5.3.3 (command chaining) and 5.3.4 (GET RESPONSE).

use zeroize::Zeroizing;

use super::Fault;

/// The most bytes of one answer, all its parts together: more than any object that is read here.
const MAX_ANSWER: usize = 32 * 1024;
/// The most parts of one answer.
const MAX_PARTS: usize = 256;
/// The most data of one short APDU.
const PART: usize = 255;

/// Something that takes one APDU and gives one answer: a card inside a transaction.
pub(crate) trait Exchange {
    /// One command, its answer with the status word at the end.
    fn transmit(&mut self, command: &[u8]) -> Result<Zeroizing<Vec<u8>>, Fault>;
}

/// A command of any length; sent in parts where it is longer than a short APDU.
#[derive(Clone, Copy)]
pub(crate) struct Command<'a> {
    /// The name that its standard gives it, for errors.
    pub(crate) name: &'static str,
    pub(crate) ins: u8,
    pub(crate) p1: u8,
    pub(crate) p2: u8,
    pub(crate) data: &'a [u8],
}

impl<'a> Command<'a> {
    pub(crate) fn new(name: &'static str, ins: u8, p1: u8, p2: u8, data: &'a [u8]) -> Self {
        Self { name, ins, p1, p2, data }
    }
}

/// Sends `command` and collects its answer. Every status but 9000 is a [`Fault::Status`].
pub(crate) fn send(card: &mut dyn Exchange, command: Command<'_>) -> Result<Zeroizing<Vec<u8>>, Fault> {
    let Command { name, ins, p1, p2, mut data } = command;
    let (mut body, mut status) = loop {
        let last = data.len() <= PART;
        let (part, rest) = data.split_at(data.len().min(PART));
        data = rest;
        let mut bytes = Zeroizing::new(Vec::with_capacity(PART + 6));
        bytes.extend_from_slice(&[if last { 0x00 } else { 0x10 }, ins, p1, p2]);
        if !part.is_empty() {
            bytes.push(part.len() as u8);
            bytes.extend_from_slice(part);
        }
        // Le: 256. With a body that has no answer it means nothing. VERIFY and its like are refused by some cards with it.
        if last && expects_answer(ins) {
            bytes.push(0);
        }
        let (answer, status) = transmit(card, name, &bytes)?;
        if last {
            break (answer, status);
        }
        if status != 0x9000 {
            return Err(Fault::Status { command: name, status });
        }
    };
    let mut parts = 0;
    while status >> 8 == 0x61 {
        let (more, after) = transmit(card, name, &[0, 0xc0, 0, 0, status as u8])?;
        parts += 1;
        if parts > MAX_PARTS || body.len() + more.len() > MAX_ANSWER {
            return Err(Fault::Malformed(name, "the answer does not end"));
        }
        // Never grown in place: that would leave its old bytes behind.
        let mut longer = Zeroizing::new(Vec::with_capacity(body.len() + more.len()));
        longer.extend_from_slice(&body);
        longer.extend_from_slice(&more);
        (body, status) = (longer, after);
    }
    if status == 0x9000 { Ok(body) } else { Err(Fault::Status { command: name, status }) }
}

/// VERIFY, CHANGE REFERENCE DATA, RESET RETRY COUNTER and PUT DATA answer with a status alone.
fn expects_answer(ins: u8) -> bool {
    !matches!(ins, 0x20 | 0x24 | 0x2c | 0xda | 0xdb)
}

fn transmit(card: &mut dyn Exchange, name: &'static str, bytes: &[u8]) -> Result<(Zeroizing<Vec<u8>>, u16), Fault> {
    let (answer, status) = transmit_once(card, name, bytes)?;
    // 6CXX: not done, the answer has XX bytes. Cards that speak T=0 say it of commands without data.
    if status >> 8 == 0x6c && has_le(bytes) {
        let mut exact = Zeroizing::new(bytes.to_vec());
        if let Some(le) = exact.last_mut() {
            *le = status as u8;
        }
        return transmit_once(card, name, &exact);
    }
    Ok((answer, status))
}

fn transmit_once(
    card: &mut dyn Exchange,
    name: &'static str,
    bytes: &[u8],
) -> Result<(Zeroizing<Vec<u8>>, u16), Fault> {
    let mut answer = card.transmit(bytes)?;
    let (Some(low), Some(high)) = (answer.pop(), answer.pop().map(u16::from)) else {
        return Err(Fault::Malformed(name, "the answer has no status word"));
    };
    // The two bytes come off the end, the last one first.
    Ok((answer, high << 8 | u16::from(low)))
}

/// Whether the short APDU ends in the length that its answer may have.
fn has_le(command: &[u8]) -> bool {
    command.len() == 5 || command.get(4).is_some_and(|&length| command.len() == usize::from(length) + 6)
}

/// The command as the protocol T=0 has it (ISO 7816-3, section 12.2): five bytes at least, and no length of the answer behind data; GET RESPONSE
/// asks for that. Readers that leave this to the host pass on what they get.
pub(super) fn for_t0(command: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(command.len() + 1));
    let le = has_le(command) && command.len() > 5;
    bytes.extend_from_slice(&command[..command.len() - usize::from(le)]);
    if bytes.len() == 4 {
        bytes.push(0);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers in order; remembers what it was sent.
    struct Script(Vec<Vec<u8>>, Vec<Vec<u8>>);

    impl Exchange for Script {
        fn transmit(&mut self, command: &[u8]) -> Result<Zeroizing<Vec<u8>>, Fault> {
            self.0.push(command.to_vec());
            Ok(Zeroizing::new(if self.1.is_empty() { vec![0x6f, 0] } else { self.1.remove(0) }))
        }
    }

    #[test]
    fn long_commands_are_chained_and_long_answers_collected() {
        let answers = vec![vec![0x90, 0], vec![1, 2, 0x61, 1], vec![3, 0x90, 0]];
        let mut card = Script(Vec::new(), answers);
        let answer = send(&mut card, Command::new("TEST", 0x2a, 0x80, 0x86, &[7; 256])).unwrap();
        assert_eq!(**answer, [1, 2, 3]);
        assert_eq!(card.0[0][..5], [0x10, 0x2a, 0x80, 0x86, 255]);
        assert_eq!(card.0[0].len(), 260);
        assert_eq!(card.0[1], [0x00, 0x2a, 0x80, 0x86, 1, 7, 0]);
        assert_eq!(card.0[2], [0, 0xc0, 0, 0, 1]);
    }

    #[test]
    fn statuses_and_nonsense_are_told_apart() {
        let send_to =
            |answer: Vec<u8>| send(&mut Script(Vec::new(), vec![answer]), Command::new("TEST", 0xca, 0, 0, &[]));
        assert_eq!(send_to(vec![0x69, 0x82]).unwrap_err().status(), Some(0x6982));
        assert!(matches!(send_to(vec![]), Err(Fault::Malformed(..))));
        assert!(matches!(send_to(vec![0x90]), Err(Fault::Malformed(..))));
    }

    #[test]
    fn an_answer_of_another_length_is_asked_for_once() {
        let answers = vec![vec![0x6c, 3], vec![1, 2, 3, 0x90, 0], vec![0x6c, 3], vec![0x6c, 3], vec![0x6c, 3]];
        let mut card = Script(Vec::new(), answers);
        let command = Command::new("TEST", 0xca, 0, 0x4f, &[]);
        assert_eq!(**send(&mut card, command).unwrap(), [1, 2, 3]);
        assert_eq!(card.0, [[0, 0xca, 0, 0x4f, 0], [0, 0xca, 0, 0x4f, 3]]);
        assert_eq!(send(&mut card, command).unwrap_err().status(), Some(0x6c03));
        // A PIN is not sent twice by this: its command has no such length.
        let sent = card.0.len();
        assert!(send(&mut card, Command::new("VERIFY", 0x20, 0, 0x82, &[1; 6])).is_err());
        assert_eq!(card.0.len(), sent + 1);
    }

    #[test]
    fn t0_has_its_own_form() {
        for (command, form) in [
            (&[0, 0x20, 0, 0x82][..], &[0, 0x20, 0, 0x82, 0][..]),
            (&[0, 0xca, 0, 0x4f, 0], &[0, 0xca, 0, 0x4f, 0]),
            (&[0, 0x20, 0, 0x82, 2, 7, 8], &[0, 0x20, 0, 0x82, 2, 7, 8]),
            (&[0, 0x87, 0x11, 0x9d, 2, 7, 8, 0], &[0, 0x87, 0x11, 0x9d, 2, 7, 8]),
        ] {
            assert_eq!(for_t0(command).as_slice(), form);
        }
    }

    #[test]
    fn an_answer_without_end_is_ended() {
        struct Endless;
        impl Exchange for Endless {
            fn transmit(&mut self, _: &[u8]) -> Result<Zeroizing<Vec<u8>>, Fault> {
                Ok(Zeroizing::new(vec![0x61, 0]))
            }
        }
        assert!(matches!(send(&mut Endless, Command::new("TEST", 0xca, 0, 0, &[])), Err(Fault::Malformed(..))));
    }
}
