//! The header of the first packet and the length in front of every packet: accepted exactly when the wire format says so.

use claviger::wire::{FRAME_HEADER, Kind, KnockPacket, MAX_HANDSHAKE_MESSAGE, VERSION, WireError, frame, frame_len};

/// Reads `data` as a first packet, and its first bytes as a length and its limits.
pub fn check(data: &[u8]) {
    packet(data);
    if let Some((numbers, body)) = data.split_first_chunk() {
        lengths(*numbers);
        framing(body);
    }
}

fn packet(data: &[u8]) {
    let parsed = KnockPacket::parse(data);
    let expected = match data {
        [] => Some(WireError::TooShort),
        _ if data.len() < KnockPacket::HEADER => Some(WireError::TooShort),
        _ if data.len() > KnockPacket::HEADER + MAX_HANDSHAKE_MESSAGE => Some(WireError::TooLong),
        [version, ..] if *version != VERSION => Some(WireError::Version(*version)),
        [_, kind, ..] if !is_kind(*kind) => Some(WireError::Kind(*kind)),
        _ => None,
    };
    assert_eq!(parsed.err(), expected);
    if let Ok(packet) = parsed {
        assert_eq!(packet.to_bytes(), data, "a packet has one spelling");
        assert_eq!(packet.authenticated_header(), data[..10]);
        assert_eq!(Kind::from_byte(data[1]), Ok(packet.kind));
        assert_eq!(packet.kind.byte(), data[1]);
        assert_eq!(packet.message, &data[KnockPacket::HEADER..]);
    }
}

/// A pattern with or without KEM and pre-shared key, or a resumption, which has neither.
fn is_kind(byte: u8) -> bool {
    byte == 4 || byte < 0x40 && (1..=3).contains(&(byte & 0x0f))
}

fn lengths([a, b, c, d, e, f]: [u8; 6]) {
    let number = |high, low| usize::from(u16::from_be_bytes([high, low]));
    let (min, max) = (number(c, d), number(e, f));
    match frame_len([a, b], min, max) {
        Ok(len) => assert!(len == number(a, b) && (min..=max).contains(&len)),
        Err(WireError::TooShort) => assert!(number(a, b) < min),
        Err(WireError::TooLong) => assert!(number(a, b) > max),
        Err(other) => panic!("{other}"),
    }
}

fn framing(body: &[u8]) {
    match frame(body) {
        Ok(framed) => {
            let (header, rest) = framed.split_first_chunk::<FRAME_HEADER>().expect("a frame has a header");
            assert_eq!(rest, body);
            assert_eq!(frame_len(*header, 0, usize::from(u16::MAX)), Ok(body.len()));
        }
        Err(error) => assert!(error == WireError::TooLong && body.len() > usize::from(u16::MAX)),
    }
}
