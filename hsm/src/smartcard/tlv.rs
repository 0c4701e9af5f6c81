//! BER-TLV as cards write it (ISO 7816-4, section 5.2.2): tags of one or two bytes, definite lengths of up to three.
//!
//! Read here and not by a crate: cards send templates that DER readers refuse (long lengths that could be short, padding), and what is needed is
//! one function.

use zeroize::Zeroizing;

/// One data object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tlv<'a> {
    pub(crate) tag: u16,
    pub(crate) value: &'a [u8],
}

impl<'a> Tlv<'a> {
    /// The first data object of `bytes`, and what follows it. `None`: there is none, or it is cut.
    pub(crate) fn first(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (&first, mut rest) = bytes.split_first()?;
        let mut tag = u16::from(first);
        if first & 0x1f == 0x1f {
            let (&second, after) = rest.split_first()?;
            // Tags of three bytes are not used by any card here.
            if second & 0x80 != 0 {
                return None;
            }
            (tag, rest) = (tag << 8 | u16::from(second), after);
        }
        let (&length, rest) = rest.split_first()?;
        let (length, rest) = match length {
            0..=0x7f => (usize::from(length), rest),
            0x81..=0x83 => {
                let (digits, rest) = rest.split_at_checked(usize::from(length & 3))?;
                (digits.iter().fold(0, |length, &digit| length << 8 | usize::from(digit)), rest)
            }
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(length)?;
        Some((Self { tag, value }, rest))
    }

    /// The data objects of `bytes`, up to the first that is cut.
    pub(crate) fn all(bytes: &'a [u8]) -> impl Iterator<Item = Self> {
        let mut rest = bytes;
        std::iter::from_fn(move || {
            let (found, after) = Self::first(rest)?;
            rest = after;
            Some(found)
        })
    }
}

/// The value of the first object with `tag` among the objects of `bytes`; not inside them.
pub(crate) fn tlv(bytes: &[u8], tag: u16) -> Option<&[u8]> {
    Tlv::all(bytes).find(|object| object.tag == tag).map(|object| object.value)
}

/// A data object. Values beyond 65535 bytes, which no card takes, are cut.
pub(crate) fn put(tag: u16, value: &[u8]) -> Zeroizing<Vec<u8>> {
    let value = &value[..value.len().min(0xffff)];
    // Never grown: a grown vector leaves its old bytes behind.
    let mut object = Zeroizing::new(Vec::with_capacity(value.len() + 5));
    if tag > 0xff {
        object.push((tag >> 8) as u8);
    }
    object.push(tag as u8);
    match value.len() {
        length @ 0..=0x7f => object.push(length as u8),
        length @ 0x80..=0xff => object.extend_from_slice(&[0x81, length as u8]),
        length => object.extend_from_slice(&[0x82, (length >> 8) as u8, length as u8]),
    }
    object.extend_from_slice(value);
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for tag in [0x7c, 0x82, 0x7f49, 0x5f2f] {
            for length in [0, 1, 0x7f, 0x80, 0xff, 0x100, 0xffff] {
                let value = vec![7; length];
                let object = put(tag, &value);
                assert_eq!(Tlv::first(&object), Some((Tlv { tag, value: &value }, &[][..])));
                for cut in 0..object.len().min(300) {
                    assert_eq!(Tlv::first(&object[..cut]), None);
                }
            }
        }
    }

    #[test]
    fn objects_are_found_beside_others() {
        let bytes = [&put(1, &[9])[..], &put(0x7f49, &put(0x86, &[1, 2])), &[0xff]].concat();
        assert_eq!(tlv(&bytes, 0x7f49).and_then(|inner| tlv(inner, 0x86)), Some(&[1, 2][..]));
        assert_eq!(tlv(&bytes, 0x86), None);
        assert_eq!(Tlv::all(&bytes).count(), 2);
        for nonsense in [&[0x5c, 0x84, 0, 0, 0, 1, 1][..], &[0x5c, 0x80], &[0x7f, 0x81, 1, 0], &[]] {
            assert_eq!(Tlv::first(nonsense), None);
        }
    }
}
