//! Texts of lines, as all that travels in a ceremony is written: a title with a format version, fields of the form `name: value` in one order, and last a
//! `checksum:` over all bytes before its line, the first 8 bytes of their SHA-256. Each line is ended by one line feed.

use aws_lc_rs::digest::{SHA256, digest};

/// The last line's name.
pub(crate) const CHECKSUM: &str = "checksum";

/// The first line that is not what it should be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Off {
    /// From 1.
    pub(crate) line: usize,
    /// For a sentence: what was expected there.
    pub(crate) expected: String,
}

/// Reads such a text, line by line.
pub(crate) struct Lines<'a> {
    text: &'a str,
    rest: &'a str,
    line: usize,
}

impl<'a> Lines<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, rest: text, line: 0 }
    }

    /// The format version behind `title`, which ends with a space; `version` is the one that is expected.
    pub(crate) fn title(&mut self, title: &str, version: &str) -> Result<&'a str, Off> {
        self.take(title, || format!("the title `{title}{version}`"))
    }

    /// The value of the field that is next.
    pub(crate) fn field(&mut self, name: &str) -> Result<&'a str, Off> {
        self.take(&format!("{name}: "), || format!("`{name}: …`"))
    }

    /// Reads the checksum, behind which nothing may stand; `what` names the text. `false`: it is not that of the text.
    pub(crate) fn checksum(mut self, what: &str) -> Result<bool, Off> {
        let body = &self.text[..self.text.len() - self.rest.len()];
        let sum = self.field(CHECKSUM)?;
        if !self.rest.is_empty() {
            return Err(Off { line: self.line + 1, expected: format!("the end of the {what}") });
        }
        Ok(sum == checksum(body))
    }

    fn take(&mut self, prefix: &str, expected: impl Fn() -> String) -> Result<&'a str, Off> {
        self.line += 1;
        let off = || Off { line: self.line, expected: expected() };
        let (line, rest) = self.rest.split_once('\n').ok_or_else(off)?;
        let value = line.strip_prefix(prefix).ok_or_else(off)?;
        self.rest = rest;
        Ok(value)
    }
}

/// `body`, which ends with a line feed, and the line of its checksum.
pub(crate) fn with_checksum(mut body: String) -> String {
    let sum = checksum(&body);
    body.push_str(CHECKSUM);
    body.push_str(": ");
    body.push_str(&sum);
    body.push('\n');
    body
}

fn checksum(body: &str) -> String {
    data_encoding::HEXLOWER.encode(&digest(&SHA256, body.as_bytes()).as_ref()[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_off_is_named() {
        let text = with_checksum("claviger thing 1\nname: a\n".into());
        let read = |text: &str| {
            let mut lines = Lines::new(text);
            let version = lines.title("claviger thing ", "1")?.to_owned();
            let name = lines.field("name")?.to_owned();
            Ok((version, name, lines.checksum("thing")?))
        };
        assert_eq!(read(&text), Ok(("1".into(), "a".into(), true)));
        assert_eq!(read(&text.replace("name: a", "name: b")), Ok(("1".into(), "b".into(), false)));
        let off = |line, expected: &str| Err(Off { line, expected: expected.into() });
        assert_eq!(read("claviger other 1\n"), off(1, "the title `claviger thing 1`"));
        assert_eq!(read("claviger thing 1\nname: a"), off(2, "`name: …`"));
        assert_eq!(read("claviger thing 1\nname: a\nend: x\n"), off(3, "`checksum: …`"));
        assert_eq!(read(&format!("{text}\n")), off(4, "the end of the thing"));
    }
}
