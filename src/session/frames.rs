//! What yamux does not say of its frames, read from their headers as they pass.

use std::ops::ControlFlow;

/// Bytes of a frame's header: version, type, flags (2), stream (4), length (4), big-endian.
const HEADER: usize = 12;

const DATA: u8 = 0;
const PING: u8 = 2;
const GO_AWAY: u8 = 3;

const SYN: u16 = 1;
const ACK: u16 = 2;
const FIN: u16 = 4;
const RST: u16 = 8;

/// A frame's header.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    kind: u8,
    flags: u16,
    /// The stream's number.
    pub(super) stream: u32,
    len: u32,
}

impl Header {
    fn new(bytes: [u8; HEADER]) -> Self {
        let [_, kind, f0, f1, s0, s1, s2, s3, l0, l1, l2, l3] = bytes;
        Self {
            kind,
            flags: u16::from_be_bytes([f0, f1]),
            stream: u32::from_be_bytes([s0, s1, s2, s3]),
            len: u32::from_be_bytes([l0, l1, l2, l3]),
        }
    }

    /// It begins a stream.
    pub(super) fn opens(self) -> bool {
        self.kind < 2 && self.flags & SYN != 0
    }

    /// It ends its sender's direction of a stream.
    pub(super) fn ends(self) -> bool {
        self.kind < 2 && self.flags & FIN != 0
    }

    /// Its sender gives a stream up.
    pub(super) fn resets(self) -> bool {
        self.kind < 2 && self.flags & RST != 0
    }

    /// It says that its sender takes the other end's yamux for broken.
    pub(super) fn is_go_away(self) -> bool {
        self.kind == GO_AWAY
    }

    /// It is to be answered.
    pub(super) fn asks(self) -> bool {
        self.kind == PING && self.flags & ACK == 0
    }

    /// It answers.
    pub(super) fn answers(self) -> bool {
        self.kind == PING && self.flags & ACK != 0
    }

    /// Bytes that follow it.
    pub(super) fn body(self) -> usize {
        if self.kind == DATA { self.len as usize } else { 0 }
    }
}

/// Follows one direction of frames, in any slicing.
#[derive(Default)]
pub(super) struct Frames {
    header: [u8; HEADER],
    have: u8,
    /// Bytes of the frame's body that are still to come.
    body: usize,
}

impl Frames {
    /// Follows `bytes`, and has each header seen as soon as it is whole.
    pub(super) fn follow<B>(
        &mut self,
        mut bytes: &[u8],
        mut seen: impl FnMut(Header) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        loop {
            let skipped = self.body.min(bytes.len());
            self.body -= skipped;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return ControlFlow::Continue(());
            }
            let have = usize::from(self.have);
            let taken = (HEADER - have).min(bytes.len());
            self.header[have..have + taken].copy_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            self.have += taken as u8; // at most HEADER
            if usize::from(self.have) == HEADER {
                self.have = 0;
                let header = Header::new(self.header);
                self.body = header.body();
                seen(header)?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(kind: u8, flags: u16, stream: u32, len: u32) -> Vec<u8> {
        let mut bytes = vec![0, kind];
        bytes.extend_from_slice(&flags.to_be_bytes());
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(&len.to_be_bytes());
        if kind == DATA {
            bytes.resize(bytes.len() + len as usize, 0xff);
        }
        bytes
    }

    proptest! {
        #[test]
        fn every_header_is_seen_once_in_any_slicing(
            frames in prop::collection::vec((0..4_u8, 0..16_u16, any::<u32>(), 0..100_u32), 1..20),
            slices in prop::collection::vec(1..40_usize, 1..20),
        ) {
            let bytes: Vec<u8> = frames.iter().flat_map(|(kind, flags, stream, len)| frame(*kind, *flags, *stream, *len)).collect();
            let (mut follower, mut seen, mut rest, mut slices) = (Frames::default(), Vec::new(), &bytes[..], slices.iter().cycle());
            while !rest.is_empty() {
                let (slice, after) = rest.split_at((*slices.next().unwrap()).min(rest.len()));
                rest = after;
                let flow = follower.follow(slice, |header| {
                    seen.push((header.kind, header.flags, header.stream, header.len));
                    ControlFlow::<()>::Continue(())
                });
                prop_assert!(flow.is_continue());
            }
            prop_assert_eq!(seen, frames);
        }
    }
}
