//! BER-TLV as cards use it: tags of one or two bytes, lengths of up to 65535.

/// The value of the first field with the one-byte tag `tag` in `fields`. `None` if there is none, or a length before it is wrong.
pub fn find(fields: &[u8], tag: u8) -> Option<&[u8]> {
    let mut rest = fields;
    while let [first, after @ ..] = rest {
        let (length, after) = length(after)?;
        let (value, next) = after.split_at_checked(length)?;
        if *first == tag {
            return Some(value);
        }
        rest = next;
    }
    None
}

/// A length and what follows it.
fn length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    match bytes {
        [short @ 0..=0x7F, rest @ ..] => Some((usize::from(*short), rest)),
        [0x81, length, rest @ ..] => Some((usize::from(*length), rest)),
        [0x82, high, low, rest @ ..] => Some((usize::from(u16::from_be_bytes([*high, *low])), rest)),
        _ => None,
    }
}

/// A field. `value` is at most 65535 bytes long; a card holds none longer.
pub fn field(tag: &[u8], value: &[u8]) -> Vec<u8> {
    let [.., high, low] = value.len().to_be_bytes();
    let mut field = tag.to_vec();
    match value.len() {
        0..=0x7F => field.push(low),
        0x80..=0xFF => field.extend([0x81, low]),
        _ => field.extend([0x82, high, low]),
    }
    field.extend(value);
    field
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_found() {
        for length in [0, 1, 0x7F, 0x80, 0xFF, 0x100, 3000] {
            let value = vec![7; length];
            let fields = [field(&[0x80], &[1]), field(&[0x85], &value), field(&[0x86], &[2])].concat();
            assert_eq!(find(&fields, 0x85), Some(&value[..]));
            assert_eq!(find(&fields, 0x86), Some(&[2][..]));
            assert_eq!(find(&fields, 0x87), None);
        }
    }

    #[test]
    fn a_length_past_the_end_is_no_field() {
        for bad in
            [&[0x85][..], &[0x85, 1], &[0x85, 0x81], &[0x85, 0x82, 0], &[0x85, 0x83, 0, 0, 0], &[0x80, 5, 0x85, 0]]
        {
            assert_eq!(find(bad, 0x85), None, "{bad:x?}");
        }
    }
}
