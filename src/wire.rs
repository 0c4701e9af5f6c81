//! What is on the wire, and how large: `docs/wire-format.md` in code.
//!
//! Every packet of a handshake and every record of a session is a frame: a big-endian `u16` length, then that many bytes.
//! The first packet of a handshake has a [`KnockPacket`] header in front of Noise's first message. Pure functions of bytes.

pub mod control;
mod kind;

pub use kind::{ENCAPSULATION_KEY, KEM_CIPHERTEXT, Kind, Pattern, RESUMPTION_ID};

use crate::identity::{Identifier, OnionAddress, Role};

/// The protocol version, first byte of the first packet and part of the prologue.
pub const VERSION: u8 = 2;

/// Bytes of a frame's length prefix.
pub const FRAME_HEADER: usize = 2;

/// Largest handshake message, in bytes. This version needs at most 1265 (the first message with an encapsulation key, P-256).
pub const MAX_HANDSHAKE_MESSAGE: usize = 4096;

/// Largest first packet, in bytes.
pub const MAX_KNOCK_PACKET: usize = KnockPacket::HEADER + MAX_HANDSHAKE_MESSAGE;

/// Largest record, in bytes: a Noise transport message (Noise, section 3).
pub const MAX_RECORD: usize = 65535;

/// Bytes of an AEAD tag.
pub const TAG: usize = 16;

/// Bytes of the initiator's confirmation of KK, KK1 and NN, without its frame header: a record of no plaintext.
pub const CONFIRMATION: usize = TAG;

/// Largest plaintext of a record, in bytes.
pub const MAX_RECORD_PLAINTEXT: usize = MAX_RECORD - TAG;

/// Bytes of the knock's MAC.
pub const KNOCK_MAC: usize = 16;

/// Why bytes are not what the wire format says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WireError {
    /// Fewer bytes than the smallest packet has.
    TooShort,
    /// A length prefix beyond the limit of what is expected.
    TooLong,
    /// A handshake message of another length than its kind's.
    Length,
    /// Another protocol version.
    Version(u8),
    /// A kind of handshake that is not assigned.
    Kind(u8),
}

impl std::fmt::Display for WireError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooShort => f.write_str("the packet is too short"),
            Self::Length => f.write_str("the handshake message does not have the length of its kind"),
            Self::TooLong => f.write_str("the packet is longer than its limit"),
            Self::Version(version) => {
                write!(f, "the packet has protocol version {version}, and this is version {VERSION}")
            }
            Self::Kind(kind) => write!(f, "the packet names a handshake of kind {kind:#04x}, which is not assigned"),
        }
    }
}

impl std::error::Error for WireError {}

/// The two ends of a handshake, as the prologue binds them.
#[derive(Debug, Clone, Copy)]
pub struct Ends<'a> {
    /// Name of the machine that dials.
    pub initiator: &'a Identifier,
    /// Role of the machine that dials.
    pub initiator_role: &'a Role,
    /// Name of the machine that listens.
    pub responder: &'a Identifier,
    /// Role of the machine that listens.
    pub responder_role: &'a Role,
    /// The listening machine's onion address, whatever transport carries the bytes.
    pub onion_address: &'a OnionAddress,
    /// The virtual port of its onion service.
    pub port: u16,
}

/// The Noise prologue (Noise, section 6): what both ends must agree on before a handshake can succeed.
///
/// ```text
/// "claviger"                        8 bytes
/// version                           1
/// kind                              1
/// length, initiator's identifier    1 + 1..=63
/// length, initiator's role          1 + 1..=63
/// length, responder's identifier    1 + 1..=63
/// length, responder's role          1 + 1..=63
/// responder's onion public key      32
/// responder's port                  2, big-endian
/// ```
pub fn prologue(kind: Kind, ends: &Ends<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 + 2 + 4 * 64 + 34);
    out.extend_from_slice(b"claviger");
    out.extend_from_slice(&[VERSION, kind.byte()]);
    let names =
        [ends.initiator.as_str(), ends.initiator_role.as_str(), ends.responder.as_str(), ends.responder_role.as_str()];
    for name in names {
        out.push(name.len() as u8); // at most MAX_NAME_LEN, 63
        out.extend_from_slice(name.as_bytes());
    }
    out.extend_from_slice(ends.onion_address.public_key());
    out.extend_from_slice(&ends.port.to_be_bytes());
    out
}

/// The first packet of a handshake, without its frame header.
///
/// ```text
///  0   1  version
///  1   1  kind
///  2   8  the initiator's clock, milliseconds since the Unix epoch, big-endian
/// 10  16  knock MAC
/// 26   …  Noise's first handshake message; with NN, after the id of the link (16)
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnockPacket<'a> {
    /// Which handshake this begins.
    pub kind: Kind,
    /// The initiator's clock, in milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// MAC over everything else in the packet, by the knock key of the two ends.
    pub mac: [u8; KNOCK_MAC],
    /// What follows: Noise's first handshake message; with NN, after the id of the link.
    pub message: &'a [u8],
}

impl<'a> KnockPacket<'a> {
    /// Bytes before the Noise message.
    pub const HEADER: usize = 1 + 1 + 8 + KNOCK_MAC;

    /// Reads a packet. The MAC is not checked here.
    ///
    /// # Errors
    /// [`WireError`] for each way in which a packet can be malformed.
    pub fn parse(packet: &'a [u8]) -> Result<Self, WireError> {
        let (head, message) = packet.split_at_checked(Self::HEADER).ok_or(WireError::TooShort)?;
        if message.len() > MAX_HANDSHAKE_MESSAGE {
            return Err(WireError::TooLong);
        }
        if head[0] != VERSION {
            return Err(WireError::Version(head[0]));
        }
        let kind = Kind::from_byte(head[1])?;
        let mut time = [0; 8];
        time.copy_from_slice(&head[2..10]);
        let mut mac = [0; KNOCK_MAC];
        mac.copy_from_slice(&head[10..]);
        Ok(Self { kind, time_ms: u64::from_be_bytes(time), mac, message })
    }

    /// The packet's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = self.authenticated_header().to_vec();
        out.extend_from_slice(&self.mac);
        out.extend_from_slice(self.message);
        out
    }

    /// The ten bytes before the MAC, which it covers together with the message.
    pub fn authenticated_header(&self) -> [u8; 10] {
        let mut out = [0; 10];
        out[0] = VERSION;
        out[1] = self.kind.byte();
        out[2..].copy_from_slice(&self.time_ms.to_be_bytes());
        out
    }
}

/// Puts the length in front.
///
/// # Errors
/// [`WireError::TooLong`] when the body does not fit a `u16` length.
pub fn frame(body: &[u8]) -> Result<Vec<u8>, WireError> {
    let len = u16::try_from(body.len()).map_err(|_| WireError::TooLong)?;
    let mut out = Vec::with_capacity(FRAME_HEADER + body.len());
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(body);
    Ok(out)
}

/// The length that a frame's header announces, checked against what is acceptable now, before anything is read or allocated.
///
/// # Errors
/// [`WireError::TooShort`] below `min`, [`WireError::TooLong`] above `max`.
pub fn frame_len(header: [u8; FRAME_HEADER], min: usize, max: usize) -> Result<usize, WireError> {
    let len = usize::from(u16::from_be_bytes(header));
    if len < min {
        Err(WireError::TooShort)
    } else if len > max {
        Err(WireError::TooLong)
    } else {
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_knock_packet_round_trips_and_short_ones_are_refused() {
        let packet =
            KnockPacket { kind: Pattern::Xk.into(), time_ms: 0x0102_0304_0506_0708, mac: [7; 16], message: b"noise" };
        let bytes = packet.to_bytes();
        assert_eq!(bytes[..10], [2, 3, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(KnockPacket::parse(&bytes), Ok(packet));
        for len in 0..KnockPacket::HEADER {
            assert_eq!(KnockPacket::parse(&bytes[..len]), Err(WireError::TooShort));
        }
        assert_eq!(KnockPacket::parse(&[vec![1], bytes[1..].to_vec()].concat()), Err(WireError::Version(1)));
        assert_eq!(KnockPacket::parse(&[vec![2, 0], bytes[2..].to_vec()].concat()), Err(WireError::Kind(0)));
        assert_eq!(KnockPacket::parse(&vec![1; MAX_KNOCK_PACKET + 1]), Err(WireError::TooLong));
    }

    #[test]
    fn frames_keep_their_limits() {
        assert_eq!(frame(b"ab").unwrap(), [0, 2, b'a', b'b']);
        assert_eq!(frame(&vec![0; 65536]), Err(WireError::TooLong));
        assert_eq!(frame_len([1, 0], 16, 256), Ok(256));
        assert_eq!(frame_len([1, 1], 16, 256), Err(WireError::TooLong));
        assert_eq!(frame_len([0, 15], 16, 256), Err(WireError::TooShort));
    }

    #[test]
    fn prologues_of_different_ends_differ() {
        let (a, ab): (Identifier, Identifier) = ("a".parse().unwrap(), "ab".parse().unwrap());
        let (role, brole): (Role, Role) = ("role".parse().unwrap(), "brole".parse().unwrap());
        let onion_address = OnionAddress::from_public_key([3; 32]);
        let base = Ends {
            initiator: &a,
            initiator_role: &role,
            responder: &ab,
            responder_role: &brole,
            onion_address: &onion_address,
            port: 1,
        };
        let mut all = [1, 3, 0x11, 0x21, 0x31].map(|byte| prologue(Kind::from_byte(byte).unwrap(), &base)).to_vec();
        all.push(prologue(Pattern::Kk.into(), &Ends { initiator: &ab, responder: &a, ..base }));
        all.push(prologue(Pattern::Kk.into(), &Ends { initiator_role: &brole, ..base }));
        all.push(prologue(Pattern::Kk.into(), &Ends { port: 2, ..base }));
        all.push(prologue(
            Pattern::Kk.into(),
            &Ends { onion_address: &OnionAddress::from_public_key([4; 32]), ..base },
        ));
        for (at, one) in all.iter().enumerate() {
            assert!(!all[..at].contains(one), "prologue {at} is not new");
        }
    }
}
