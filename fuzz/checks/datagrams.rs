//! Flows of datagrams: whatever a peer sends is cut into datagrams of the lengths that it said, up to the first that may not be.

use claviger::daemon::datagrams;

/// The input is what came on a stream.
pub fn check(data: &[u8]) {
    let (found, goes_on) = datagrams(data);
    let mut rest = data;
    for datagram in &found {
        let len = usize::from(u16::from_be_bytes([rest[0], rest[1]]));
        assert!(len <= 65_507);
        assert_eq!(&rest[2..2 + len], datagram);
        rest = &rest[2 + len..];
    }
    let longest = rest.first_chunk().map(|len| usize::from(u16::from_be_bytes(*len)));
    match longest {
        Some(len) if len > 65_507 => assert!(!goes_on),
        Some(len) => assert!(goes_on && rest.len() < 2 + len, "a datagram was kept back"),
        None => assert!(goes_on),
    }
}
