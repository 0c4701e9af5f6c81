//! A card for unit tests that says what it was told to say.

use zeroize::Zeroizing;

use crate::smartcard::{Exchange, Fault};

/// Answers in order. Fails the test when it is sent something else than it expects, or more.
pub(super) struct Script(Vec<(Option<Vec<u8>>, Vec<u8>)>);

impl Script {
    /// Pairs of a command and its answer, in hexadecimal digits.
    pub(super) fn new(dialogue: &[(&str, &str)]) -> Self {
        Self(dialogue.iter().rev().map(|(command, answer)| (Some(hex(command)), hex(answer))).collect())
    }

    /// Answers to whatever comes.
    pub(super) fn any(answers: &[&str]) -> Self {
        Self(answers.iter().rev().map(|answer| (None, hex(answer))).collect())
    }

    pub(super) fn is_over(&self) -> bool {
        self.0.is_empty()
    }
}

impl Exchange for Script {
    fn transmit(&mut self, command: &[u8]) -> Result<Zeroizing<Vec<u8>>, Fault> {
        let Some((expected, answer)) = self.0.pop() else { panic!("more was sent than expected: {command:02x?}") };
        if let Some(expected) = expected {
            assert_eq!(format!("{command:02x?}"), format!("{expected:02x?}"));
        }
        Ok(Zeroizing::new(answer))
    }
}

pub(super) fn hex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect()
}
