//! The PROXY protocol's header, version 2, which tells a backend which peer calls.
//!
//! <https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt>, section 2.2:
//! ```text
//! signature (12)
//! 0x21   version 2, PROXY: with LOCAL a receiver drops what follows
//! 0x21   AF_INET6, STREAM: of other families some receivers drop what follows
//! length of what follows (2)
//! source (16), destination (16), their ports (2, 2)
//! 0x02   PP2_TYPE_AUTHORITY, length (2), the peer's name
//! 0xE0   PP2_TYPE_MIN_CUSTOM, length (2), the peer's role
//! ```
//! Streams have no addresses. Each machine has one made of its name instead, for what knows callers by their addresses only: unique local
//! (RFC 4193), `fd63:6c61:7669::/48` and the first 80 bits of the name's SHA-256. Ports are 0.

use crate::identity::{Identifier, Role};
use aws_lc_rs::digest::{SHA256, digest};
use std::net::Ipv6Addr;

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
const VERSION_PROXY: u8 = 0x21;
const INET6_STREAM: u8 = 0x21;
const AUTHORITY: u8 = 0x02;
const ROLE: u8 = 0xe0;

/// The header of a stream of `peer` to `machine`.
pub(super) fn header(peer: &Identifier, role: &Role, machine: &Identifier) -> Vec<u8> {
    let mut rest = Vec::with_capacity(128);
    rest.extend(address(peer).octets());
    rest.extend(address(machine).octets());
    rest.extend([0; 4]);
    for (kind, value) in [(AUTHORITY, peer.as_str()), (ROLE, role.as_str())] {
        rest.push(kind);
        // Names have one length byte on the wire, too.
        rest.extend((value.len() as u16).to_be_bytes());
        rest.extend(value.as_bytes());
    }
    let mut header = SIGNATURE.to_vec();
    header.extend([VERSION_PROXY, INET6_STREAM]);
    header.extend((rest.len() as u16).to_be_bytes());
    header.extend(rest);
    header
}

/// What stands for a machine where only addresses are known.
pub(super) fn address(machine: &Identifier) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets[..6].copy_from_slice(b"\xfdclavi");
    octets[6..].copy_from_slice(&digest(&SHA256, machine.as_str().as_bytes()).as_ref()[..10]);
    octets.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `printf wallet | sha256sum` has it.
    #[test]
    fn a_machine_has_an_address() {
        assert_eq!(address(&"wallet".parse().unwrap()).to_string(), "fd63:6c61:7669:e8d4:4050:873d:ba86:5aa7");
    }

    #[test]
    fn the_header_by_the_byte() {
        let [wallet, cosigner] = ["wallet", "cosigner"].map(|name| name.parse().unwrap());
        let header = header(&wallet, &"payer".parse().unwrap(), &cosigner);
        let expected = [
            b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a\x21\x21\x00\x35".as_slice(),
            &address(&wallet).octets(),
            &address(&cosigner).octets(),
            b"\0\0\0\0\x02\0\x06wallet\xe0\0\x05payer",
        ];
        assert_eq!(header, expected.concat());
    }
}
