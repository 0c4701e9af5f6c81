//! The management key: who may generate and write.

use aes::cipher::generic_array::GenericArray;
use aes::cipher::{BlockEncrypt as _, KeyInit as _};
use claviger_cards::apdu::{CONDITIONS, SECURITY_STATUS, WRONG_DATA};
use claviger_cards::{Status, tlv};
use rand_core::{OsRng, RngCore as _};

/// The factory's key, for both algorithms.
const FACTORY: [u8; 24] = [1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8];

/// Block ciphers with keys of 24 bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Tdes,
    Aes192,
}

impl Algorithm {
    /// From the option's word.
    pub(crate) fn named(word: &str) -> Result<Self, String> {
        match word {
            "tdes" => Ok(Self::Tdes),
            "aes192" => Ok(Self::Aes192),
            _ => Err(format!("no management key algorithm is called {word}")),
        }
    }

    /// SP 800-78-4's algorithm byte.
    pub(crate) fn byte(self) -> u8 {
        match self {
            Self::Tdes => 0x03,
            Self::Aes192 => 0x0A,
        }
    }

    /// Length of a block and so of a challenge, in bytes.
    fn block(self) -> usize {
        match self {
            Self::Tdes => 8,
            Self::Aes192 => 16,
        }
    }
}

/// The key.
pub(crate) struct Management {
    algorithm: Algorithm,
    key: [u8; 24],
    pub(crate) needs_touch: bool,
}

/// A half authentication, of the card's RAM.
pub(crate) struct Challenge(Vec<u8>);

impl Management {
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        Self { algorithm, key: FACTORY, needs_touch: false }
    }

    pub(crate) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// SET MANAGEMENT KEY's data field: algorithm, `9B`, length, key.
    pub(crate) fn set(&mut self, data: &[u8], needs_touch: bool) -> Result<(), Status> {
        let [algorithm, 0x9B, 24, key @ ..] = data else { return Err(WRONG_DATA) };
        self.algorithm = match algorithm {
            0x03 => Algorithm::Tdes,
            0x0A => Algorithm::Aes192,
            _ => return Err(WRONG_DATA),
        };
        self.key = key.try_into().map_err(|_| WRONG_DATA)?;
        self.needs_touch = needs_touch;
        Ok(())
    }

    /// GET METADATA's fields: algorithm, policies, whether it is the factory's.
    pub(crate) fn metadata(&self) -> Vec<u8> {
        let touch = if self.needs_touch { 2 } else { 1 };
        vec![0x01, 1, self.algorithm.byte(), 0x02, 2, 0, touch, 0x05, 1, u8::from(self.key == FACTORY)]
    }

    /// One step of GENERAL AUTHENTICATE, SP 800-73-4 section 3.2.4: the answer's fields, and whether the host has proved the key.
    /// `pending` is what the step before has left.
    pub(crate) fn step(&self, fields: &[u8], pending: &mut Option<Challenge>) -> Result<(Vec<u8>, bool), Status> {
        match (tlv::find(fields, 0x80), tlv::find(fields, 0x81), tlv::find(fields, 0x82)) {
            // Single: the host asks for a challenge…
            (None, Some([]), None) => {
                let challenge = self.random();
                let answer = tlv::field(&[0x81], &challenge);
                *pending = Some(Challenge(self.encrypt(&challenge)?));
                Ok((answer, false))
            }
            // …and returns it encrypted.
            (None, None, Some(response)) => {
                let Challenge(expected) = pending.take().ok_or(CONDITIONS)?;
                if response == expected { Ok((Vec::new(), true)) } else { Err(SECURITY_STATUS) }
            }
            // Mutual: the host asks for an encrypted witness…
            (Some([]), None, None) => {
                let witness = self.random();
                let answer = tlv::field(&[0x80], &self.encrypt(&witness)?);
                *pending = Some(Challenge(witness));
                Ok((answer, false))
            }
            // …and returns it decrypted, with a challenge of its own that the card encrypts.
            (Some(witness), Some(challenge), _) => {
                let Challenge(expected) = pending.take().ok_or(CONDITIONS)?;
                if witness != expected {
                    return Err(SECURITY_STATUS);
                }
                Ok((tlv::field(&[0x82], &self.encrypt(challenge)?), true))
            }
            _ => Err(WRONG_DATA),
        }
    }

    fn random(&self) -> Vec<u8> {
        let mut block = vec![0; self.algorithm.block()];
        OsRng.fill_bytes(&mut block);
        block
    }

    fn encrypt(&self, block: &[u8]) -> Result<Vec<u8>, Status> {
        if block.len() != self.algorithm.block() {
            return Err(WRONG_DATA);
        }
        let key = GenericArray::from_slice(&self.key);
        let mut block = block.to_vec();
        match self.algorithm {
            Algorithm::Tdes => des::TdesEde3::new(key).encrypt_block(GenericArray::from_mut_slice(&mut block)),
            Algorithm::Aes192 => aes::Aes192::new(key).encrypt_block(GenericArray::from_mut_slice(&mut block)),
        }
        Ok(block)
    }
}
