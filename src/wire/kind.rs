//! Which handshake a first packet begins: pattern, and what is mixed in.

use super::{TAG, WireError};
use crate::identity::Curve;

/// Bytes of an ML-KEM-768 encapsulation key (FIPS 203, table 3).
pub const ENCAPSULATION_KEY: usize = 1184;

/// Bytes of an ML-KEM-768 ciphertext (FIPS 203, table 3).
pub const KEM_CIPHERTEXT: usize = 1088;

/// Bytes of the id of a resumption's link, in front of Noise's first message.
pub const RESUMPTION_ID: usize = 16;

/// A Noise handshake pattern (Noise, section 7.5 and 18.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pattern {
    /// Both know the other's static key; two token operations on each side, two messages.
    Kk,
    /// KK with deferred authentication of the initiator's and responder's statics: one operation on each side, two messages.
    Kk1,
    /// The initiator's static key is sent encrypted: one operation on each side, three messages.
    Xk,
    /// Resumption, as NNpsk0: no static key and no token operation, two messages. Both ends know each other by the `psk`.
    Nn,
}

impl Pattern {
    /// The patterns of full handshakes: those that can be configured.
    pub const ALL: [Self; 3] = [Self::Kk, Self::Kk1, Self::Xk];

    /// The low four bits of the [`Kind`]'s byte.
    pub const fn number(self) -> u8 {
        match self {
            Self::Kk => 1,
            Self::Kk1 => 2,
            Self::Xk => 3,
            Self::Nn => 4,
        }
    }

    /// Messages until the handshake is finished.
    pub const fn messages(self) -> u8 {
        match self {
            Self::Kk | Self::Kk1 | Self::Nn => 2,
            Self::Xk => 3,
        }
    }

    /// Whether the initiator confirms the handshake with its first record: [`CONFIRMATION`](super::CONFIRMATION) bytes, an empty plaintext.
    ///
    /// KK, KK1 and NN end with the responder's message. Until something of the initiator's opens under the new keys, the responder has no
    /// proof that the caller is there: KK1's first message is an ephemeral key that anybody can make, KK's may be a replay, and NN's may have been held back until
    /// its sender gave up. XK ends with the initiator's.
    pub const fn confirms(self) -> bool {
        match self {
            Self::Kk | Self::Kk1 | Self::Nn => true,
            Self::Xk => false,
        }
    }

    /// The name in a Noise protocol name, without its modifier.
    pub const fn noise_name(self) -> &'static str {
        match self {
            Self::Kk => "KK",
            Self::Kk1 => "KK1",
            Self::Xk => "XK",
            Self::Nn => "NN",
        }
    }
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.noise_name())
    }
}

/// What a handshake is made of: the second byte of the first packet, and part of the prologue.
///
/// ```text
/// low four bits  pattern: 1 KK, 2 KK1, 3 XK, 4 NN
/// 0x10           ML-KEM-768 is mixed in
/// 0x20           the pre-shared key of the ceremony is mixed in
/// ```
///
/// Other bits are zero, and so are both flags with NN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Kind {
    /// The handshake pattern.
    pub pattern: Pattern,
    /// ML-KEM-768 is mixed in.
    pub kem: bool,
    /// The pre-shared key is mixed in.
    pub psk: bool,
}

impl Kind {
    const KEM: u8 = 0x10;
    const PSK: u8 = 0x20;

    /// The byte on the wire.
    pub const fn byte(self) -> u8 {
        self.pattern.number() | if self.kem { Self::KEM } else { 0 } | if self.psk { Self::PSK } else { 0 }
    }

    /// The kind of a byte.
    ///
    /// # Errors
    /// [`WireError::Kind`] for a byte that is not assigned.
    pub fn from_byte(byte: u8) -> Result<Self, WireError> {
        let (kem, psk) = (byte & Self::KEM != 0, byte & Self::PSK != 0);
        let pattern = match byte & !(Self::KEM | Self::PSK) {
            1 => Pattern::Kk,
            2 => Pattern::Kk1,
            3 => Pattern::Xk,
            4 if !kem && !psk => Pattern::Nn,
            _ => return Err(WireError::Kind(byte)),
        };
        Ok(Self { pattern, kem, psk })
    }

    /// Whether Noise's `psk` modifier is in the protocol's name.
    pub const fn is_modified(self) -> bool {
        self.kem || self.psk || matches!(self.pattern, Pattern::Nn)
    }

    /// Exact length in bytes of the body of handshake message `number`, from 1, without the knock: a message of another length ends the handshake.
    /// NN's first is without the id in front of it.
    pub const fn message_len(self, curve: Curve, number: u8) -> usize {
        let kem = match (self.kem, number) {
            (true, 1) => ENCAPSULATION_KEY,
            (true, 2) => KEM_CIPHERTEXT,
            _ => 0,
        };
        let noise = match (self.pattern, number) {
            // KK1  -> e   has no key to encrypt its payload with, but for a modified one, which mixes `e` into the key.
            (Pattern::Kk1, 1) if !self.is_modified() => curve.public_len(),
            // XK   -> s, se
            (Pattern::Xk, 3) => curve.public_len() + TAG + TAG,
            _ => curve.public_len() + TAG,
        };
        kem + noise
    }

    /// Exact length in bytes of what follows the knock's MAC in the first packet.
    pub const fn first_message_len(self, curve: Curve) -> usize {
        let id = if matches!(self.pattern, Pattern::Nn) { RESUMPTION_ID } else { 0 };
        id + self.message_len(curve, 1)
    }
}

impl From<Pattern> for Kind {
    /// Nothing mixed in.
    fn from(pattern: Pattern) -> Self {
        Self { pattern, kem: false, psk: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thirteen_of_256_bytes_are_kinds() {
        let kinds: Vec<Kind> = (0..=255).filter_map(|byte| Kind::from_byte(byte).ok()).collect();
        let bytes: Vec<u8> = kinds.iter().map(|kind| kind.byte()).collect();
        assert_eq!(bytes, [1, 2, 3, 4, 0x11, 0x12, 0x13, 0x21, 0x22, 0x23, 0x31, 0x32, 0x33]);
        for bad in [0, 5, 0x14, 0x24, 0x34, 0x41, 0x81, 0xff] {
            assert_eq!(Kind::from_byte(bad), Err(WireError::Kind(bad)));
        }
    }

    /// The tables of `docs/wire-format.md`, sections 5 and 6.
    #[test]
    fn lengths() {
        let lengths = |byte: u8, curve| {
            let kind = Kind::from_byte(byte).unwrap();
            (1..=kind.pattern.messages()).map(|number| kind.message_len(curve, number)).collect::<Vec<_>>()
        };
        for (byte, x25519, p256) in [
            (0x01, &[48, 48][..], &[81, 81][..]),
            (0x02, &[32, 48], &[65, 81]),
            (0x03, &[48, 48, 64], &[81, 81, 97]),
            (0x11, &[1232, 1136], &[1265, 1169]),
            (0x32, &[1232, 1136], &[1265, 1169]),
            (0x13, &[1232, 1136, 64], &[1265, 1169, 97]),
            (0x22, &[48, 48], &[81, 81]),
            (0x04, &[48, 48], &[81, 81]),
        ] {
            assert_eq!(lengths(byte, Curve::X25519), x25519, "{byte:#x}");
            assert_eq!(lengths(byte, Curve::P256), p256, "{byte:#x}");
        }
        let resumption = Kind::from(Pattern::Nn);
        assert_eq!([Curve::X25519, Curve::P256].map(|curve| resumption.first_message_len(curve)), [64, 97]);
    }
}
