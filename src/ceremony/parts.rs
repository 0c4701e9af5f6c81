//! Parts: a text that is too long for one QR code, cut into several.
//!
//! ```text
//! claviger part 2/5 1f2e3d4c
//! the second slice, as it is
//! ```
//!
//! `1f2e3d4c` is the first 4 bytes of SHA-256 of the whole text: it says which parts belong together, and finds a text that was put together wrongly. What the
//! text says is for its own checksum and for people to confirm.

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;

use super::document::MAX_BUNDLE_LEN;
use crate::error::{Error, ErrorKind, Result};

/// Most parts of one text.
pub const MAX_PARTS: usize = 999;

const TITLE: &str = "claviger part ";

/// Least bytes of a slice, so that none is empty where a character takes several.
const LEAST: usize = 8;

/// Digits of an id.
const ID: usize = 8;

/// Cuts a text into pieces of at most `capacity` bytes, of about one length: the text itself when it fits, else parts. `None`: it would take more
/// than [`MAX_PARTS`].
pub fn split(text: &str, capacity: usize) -> Option<Vec<String>> {
    if text.len() <= capacity {
        return Some(vec![text.to_owned()]);
    }
    // Room for the most digits that the numbers can have, and for a character that does not fit whole.
    let room =
        capacity.checked_sub(TITLE.len() + "999/999 ".len() + ID + "\n".len() + 3).filter(|room| *room >= LEAST)?;
    let count = text.len().div_ceil(room);
    if count > MAX_PARTS {
        return None;
    }
    let id = id(text);
    let bound = |number: usize| text.ceil_char_boundary(number * text.len() / count);
    let slice = |number| &text[bound(number - 1)..bound(number)];
    Some((1..=count).map(|number| format!("{TITLE}{number}/{count} {id}\n{}", slice(number))).collect())
}

fn id(text: &str) -> String {
    HEXLOWER.encode(&digest(&SHA256, text.as_bytes()).as_ref()[..ID / 2])
}

/// Whether a text is a part, or means to be.
pub fn is_part(text: &str) -> bool {
    text.starts_with(TITLE)
}

/// Parts that were read so far, of one text or several, in any order and some perhaps twice.
#[derive(Default)]
pub struct Parts {
    /// Texts in the order in which their first parts came.
    sets: Vec<Set>,
}

struct Set {
    id: String,
    slices: Vec<Option<String>>,
}

impl Parts {
    /// Takes a part; gives the number of its text, from 0, in the order in which the texts were first seen.
    ///
    /// # Errors
    /// [`QrUnreadable`](ErrorKind::QrUnreadable): malformed, or it contradicts a part that was read before.
    pub fn add(&mut self, part: &str) -> Result<usize> {
        let (number, count, id, slice) = header(part).ok_or_else(|| {
            Error::new(
                ErrorKind::QrUnreadable,
                "A part of a text is malformed.",
                "Take the parts as `claviger-ceremony` shows them: export again.",
            )
        })?;
        let at = self.sets.iter().position(|set| set.id == id).unwrap_or(self.sets.len());
        if at == self.sets.len() {
            self.sets.push(Set { id: id.to_owned(), slices: vec![None; count] });
        }
        let set = &mut self.sets[at];
        let same_count = count == set.slices.len();
        let place = set.slices.get_mut(number - 1).filter(|there| there.as_deref().is_none_or(|there| there == slice));
        match place {
            Some(place) if same_count => *place = Some(slice.to_owned()),
            _ => {
                let what = format!("Part {number} of {count} of the text {id} is not that which was read before.");
                let hint = "Take all parts from one export: with one size of terminal, or from one image.";
                return Err(Error::new(ErrorKind::QrUnreadable, what, hint));
            }
        }
        let read: usize = self.sets.iter().flat_map(|set| set.slices.iter().flatten()).map(String::len).sum();
        if read > MAX_BUNDLE_LEN {
            let what = format!("The parts hold more than {MAX_BUNDLE_LEN} bytes.");
            return Err(Error::new(ErrorKind::QrUnreadable, what, "Read fewer texts at once."));
        }
        Ok(at)
    }

    /// The texts, in the order in which they were first seen.
    ///
    /// # Errors
    /// [`QrUnreadable`](ErrorKind::QrUnreadable) names the parts that are missing, or the text whose parts do not make it.
    pub fn finish(self) -> Result<Vec<String>> {
        let missing: Vec<String> = self.sets.iter().filter_map(Set::missing).collect();
        if !missing.is_empty() {
            let hint = "Scan what is missing, too, and give all images in one command.";
            return Err(Error::new(ErrorKind::QrUnreadable, missing.join(" "), hint));
        }
        self.sets.into_iter().map(Set::finish).collect()
    }
}

impl Set {
    /// A sentence, if there is something to say.
    fn missing(&self) -> Option<String> {
        let count = self.slices.len();
        let missing: Vec<usize> = (1..=count).filter(|number| self.slices[number - 1].is_none()).collect();
        let verb = match missing.len() {
            0 => return None,
            1 => "is",
            _ => "are",
        };
        Some(format!("{} of {count} of the text {} {verb} missing.", listed(&missing), self.id))
    }

    fn finish(self) -> Result<String> {
        let count = self.slices.len();
        let text: String = self.slices.into_iter().flatten().collect();
        if id(&text) == self.id {
            return Ok(text);
        }
        let what = format!("The {count} parts of the text {} do not make that text.", self.id);
        Err(Error::new(
            ErrorKind::QrUnreadable,
            what,
            "Export again on the other machine, and take all parts from there.",
        ))
    }
}

/// At most so many missing parts are named.
const NAMED: usize = 12;

fn listed(numbers: &[usize]) -> String {
    let texts: Vec<String> = numbers.iter().take(NAMED).map(ToString::to_string).collect();
    match texts.as_slice() {
        [one] => format!("Part {one}"),
        [all @ .., last] if numbers.len() <= NAMED => format!("Parts {} and {last}", all.join(", ")),
        all => format!("Parts {} and {} more", all.join(", "), numbers.len() - all.len()),
    }
}

/// Number, count, id and slice of a part in its one spelling.
fn header(part: &str) -> Option<(usize, usize, &str, &str)> {
    let (line, slice) = part.split_once('\n')?;
    let (numbers, id) = line.strip_prefix(TITLE)?.split_once(' ')?;
    let (number, count) = numbers.split_once('/')?;
    let [number, count] = [number, count].map(|digits| {
        let plain = (1..=3).contains(&digits.len()) && !digits.starts_with('0');
        digits.parse::<usize>().ok().filter(|_| plain && digits.bytes().all(|byte| byte.is_ascii_digit()))
    });
    let (number, count) = (number?, count?);
    let hex = id.len() == ID && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (number <= count && count > 1 && hex && !slice.is_empty()).then_some((number, count, id, slice))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn together<'a>(parts: impl IntoIterator<Item = &'a String>) -> std::result::Result<Vec<String>, String> {
        let mut all = Parts::default();
        for part in parts {
            all.add(part).map_err(|error| error.to_string())?;
        }
        all.finish().map_err(|error| error.to_string())
    }

    #[test]
    fn any_capacity_any_order() {
        let text: String = (0..500).map(|at| if at % 70 == 69 { "\n".into() } else { format!("{at}é") }).collect();
        for capacity in [44, 76, 106, 271, 858, text.len() - 1] {
            let mut parts = split(&text, capacity).unwrap();
            assert!(parts.len() > 1 && parts.iter().all(|part| part.len() <= capacity && is_part(part)));
            parts.reverse();
            parts.push(parts[0].clone());
            assert_eq!(together(&parts), Ok(vec![text.clone()]));
        }
        assert_eq!(split(&text, text.len()), Some(vec![text.clone()]));
        assert_eq!(split(&text, 30), None);
        assert_eq!(split(&"x".repeat(100_000), 100), None);
    }

    #[test]
    fn what_is_missing_is_named() {
        let (one, two) = ("1".repeat(300), "2".repeat(300));
        let [ones, twos] = [&one, &two].map(|text| split(text, 100).unwrap());
        assert_eq!(ones.len(), 5);
        let id = id(&one);
        assert_eq!(together(ones[..4].iter().chain(&twos)), Err(format!("Part 5 of 5 of the text {id} is missing.")));
        assert_eq!(together([&ones[0], &ones[2]]), Err(format!("Parts 2, 4 and 5 of 5 of the text {id} are missing.")));
        assert_eq!(together(twos.iter().rev().chain(&ones)), Ok(vec![two, one]));
        let many = split(&"3".repeat(30_000), 300).unwrap();
        let what = together(&many[..1]).unwrap_err();
        let start = format!("Parts 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13 and {} more of", many.len() - 13);
        assert!(what.starts_with(&start) && what.ends_with("are missing."), "{what}");
    }

    #[test]
    fn what_contradicts_is_refused() {
        let parts = split(&"1".repeat(300), 100).unwrap();
        let changed = parts[1].replace("11111", "11112");
        assert!(together([&parts[1], &changed]).unwrap_err().starts_with("Part 2 of 5"));
        let swapped: Vec<String> =
            parts.iter().map(|part| if part == &parts[1] { changed.clone() } else { part.clone() }).collect();
        assert!(together(&swapped).unwrap_err().contains("do not make that text"));
        assert!(together([&parts[1], &parts[2].replace("/5", "/6")]).unwrap_err().starts_with("Part 3 of 6"));
        for bad in ["1/1", "0/2", "3/2", "01/2", "1/2000", "+1/2", "1/", "1"] {
            let part = format!("claviger part {bad} 00112233\nx");
            assert!(is_part(&part) && together([&part]).unwrap_err().contains("malformed"), "{bad}");
        }
        for bad in ["claviger part 1/2 0011223\nx", "claviger part 1/2 0011223G\nx", "claviger part 1/2 00112233\n"] {
            assert!(together([&bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
