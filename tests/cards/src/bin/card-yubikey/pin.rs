//! PIN and PUK: eight bytes, padded with FF, and a counter.

use claviger_cards::Status;
use claviger_cards::apdu::{BLOCKED, WRONG_DATA};

/// A PIN or PUK.
pub(crate) struct Pin {
    value: [u8; 8],
    factory: [u8; 8],
    total: u8,
    left: u8,
}

impl Pin {
    /// As the factory leaves it.
    pub(crate) fn new(factory: [u8; 8], total: u8) -> Self {
        Self { value: factory, factory, total, left: total }
    }

    /// Compares. SP 800-73-4 section 3.2.1: the last wrong one is answered by 63C0, everything after it by 6983.
    pub(crate) fn check(&mut self, given: &[u8]) -> Result<(), Status> {
        let given = padded(given)?;
        if self.left == 0 {
            return Err(BLOCKED);
        }
        if given != self.value {
            self.left -= 1;
            return Err(self.tries_left());
        }
        self.left = self.total;
        Ok(())
    }

    /// Sets a new value and all tries.
    pub(crate) fn set(&mut self, value: &[u8]) -> Result<(), Status> {
        self.value = padded(value)?;
        self.left = self.total;
        Ok(())
    }

    /// `63CX`.
    pub(crate) fn tries_left(&self) -> Status {
        0x63C0 | Status::from(self.left.min(0x0F))
    }

    /// Whether no try is left.
    pub(crate) fn is_blocked(&self) -> bool {
        self.left == 0
    }

    /// GET METADATA's fields: algorithm (FF: a PIN), whether it is the factory's, tries in all and left.
    pub(crate) fn metadata(&self) -> Vec<u8> {
        vec![0x01, 1, 0xFF, 0x05, 1, u8::from(self.value == self.factory), 0x06, 2, self.total, self.left]
    }
}

/// Six to eight bytes, then FF. The YubiKey takes any byte, not only digits.
fn padded(given: &[u8]) -> Result<[u8; 8], Status> {
    let value: [u8; 8] = given.try_into().map_err(|_| WRONG_DATA)?;
    let length = value.iter().position(|byte| *byte == 0xFF).unwrap_or(value.len());
    let is_padding = value[length..].iter().all(|byte| *byte == 0xFF);
    if length >= 6 && is_padding { Ok(value) } else { Err(WRONG_DATA) }
}
