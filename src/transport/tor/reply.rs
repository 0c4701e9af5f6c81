//! Replies of tor's control port (control-spec, section 2.3), read from bytes as they arrive.
//!
//! ```text
//! 250-VERSION Tor="0.4.9.11"     a line of a longer reply
//! 250+config-text=               a line followed by data lines,
//! ...                            in which a leading dot is doubled,
//! .                              up to a lone dot
//! 250 OK                         the last line
//! ```
//! Every line ends with CR LF. Status 650 marks an event, which may stand between two replies.

/// Longest line, in bytes.
const MAX_LINE: usize = 64 * 1024;
/// Longest reply, in bytes.
const MAX_REPLY: usize = 1024 * 1024;
/// The status of events.
const EVENT: u16 = 650;

/// A whole reply or event.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reply {
    /// 250 is success, 650 an event; 4xx, 5xx are failures.
    pub(super) status: u16,
    /// Its lines without status; at least one.
    pub(super) lines: Vec<Line>,
}

/// One line of a reply.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// What follows the status.
    pub(super) text: String,
    /// The data lines that belong to it, each ending with a newline; mostly none.
    pub(super) data: String,
}

impl Reply {
    pub(super) fn is_event(&self) -> bool {
        self.status == EVENT
    }

    /// The last line: `OK`, or why not.
    pub(super) fn message(&self) -> &str {
        self.lines.last().map_or("", |line| &line.text)
    }

    /// What follows `prefix` on the first line that begins so.
    pub(super) fn after(&self, prefix: &str) -> Option<&str> {
        self.lines.iter().find_map(|line| line.text.strip_prefix(prefix))
    }
}

/// Why bytes are not a reply: half a sentence.
pub(super) type Malformed = &'static str;

/// Takes bytes, gives replies.
#[derive(Default)]
pub(super) struct Decoder {
    /// Received and not yet read. Append to it.
    pub(super) buffer: Vec<u8>,
    partial: Option<Reply>,
    in_data: bool,
    size: usize,
}

impl Decoder {
    /// The next whole reply, or `None` when more bytes are needed.
    ///
    /// # Errors
    /// When the bytes are no reply, or more than is read. The connection is of no use then.
    pub(super) fn next(&mut self) -> Result<Option<Reply>, Malformed> {
        while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            self.size += line.len();
            if line.len() > MAX_LINE || self.size > MAX_REPLY {
                return Err("the reply is too long");
            }
            let line = line.strip_suffix(b"\r\n").ok_or("a line does not end with CR LF")?;
            let line = std::str::from_utf8(line).map_err(|_| "a line is not text")?;
            if let Some(reply) = self.line(line)? {
                self.size = 0;
                return Ok(Some(reply));
            }
        }
        if self.buffer.len() > MAX_LINE { Err("a line is too long") } else { Ok(None) }
    }

    fn line(&mut self, line: &str) -> Result<Option<Reply>, Malformed> {
        if self.in_data {
            let last = self.partial.as_mut().and_then(|reply| reply.lines.last_mut()).ok_or("data stand alone")?;
            match line {
                "." => self.in_data = false,
                _ => {
                    last.data.push_str(line.strip_prefix('.').unwrap_or(line));
                    last.data.push('\n');
                }
            }
            return Ok(None);
        }
        let (status, rest) = line.split_at_checked(3).ok_or("a line has no status")?;
        if !status.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err("a line has no status");
        }
        let status = status.parse().map_err(|_| "a line has no status")?;
        let (separator, text) = rest.split_at_checked(1).ok_or("a line has no separator")?;
        let reply = self.partial.get_or_insert_with(|| Reply { status, lines: Vec::new() });
        if reply.status != status {
            return Err("the status changes within a reply");
        }
        reply.lines.push(Line { text: text.into(), data: String::new() });
        match separator {
            " " => Ok(self.partial.take()),
            "-" => Ok(None),
            "+" => {
                self.in_data = true;
                Ok(None)
            }
            _ => Err("a line has no separator"),
        }
    }
}

/// The value of `key` among space-separated `KEY=VALUE` words; values may be quoted (control-spec, section 2.1.1).
///
/// # Errors
/// When a quoted string does not end or holds a wrong escape.
pub(super) fn value(text: &str, key: &str) -> Result<Option<Vec<u8>>, Malformed> {
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        let word = rest.iter().position(|byte| matches!(byte, b' ' | b'=')).unwrap_or(rest.len());
        let (name, after) = rest.split_at(word);
        let (value, after) = match after {
            [b'=', b'"', after @ ..] => quoted(after)?,
            [b'=', after @ ..] => {
                let end = after.iter().position(|byte| *byte == b' ').unwrap_or(after.len());
                (after[..end].to_vec(), &after[end..])
            }
            _ => (Vec::new(), after),
        };
        if name == key.as_bytes() {
            return Ok(Some(value));
        }
        rest = after.strip_prefix(b" ").unwrap_or(after);
        if rest.len() == after.len() && !rest.is_empty() {
            return Err("a quoted string does not end at a space");
        }
    }
    Ok(None)
}

/// The content of a quoted string whose opening quote was read, and what follows its end.
fn quoted(text: &[u8]) -> Result<(Vec<u8>, &[u8]), Malformed> {
    let mut value = Vec::new();
    let mut rest = text;
    loop {
        let (byte, after) = match rest {
            [b'"', after @ ..] => return Ok((value, after)),
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] => {
                ((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'), after)
            }
            [b'\\', b'n', after @ ..] => (b'\n', after),
            [b'\\', b'r', after @ ..] => (b'\r', after),
            [b'\\', b't', after @ ..] => (b'\t', after),
            [b'\\', byte @ (b'\\' | b'"' | b'\''), after @ ..] => (*byte, after),
            [b'\\', ..] => return Err("a quoted string holds a wrong escape"),
            [byte, after @ ..] => (*byte, after),
            [] => return Err("a quoted string does not end"),
        };
        value.push(byte);
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything in `bytes`, fed in pieces of `step`.
    fn decode(bytes: &[u8], step: usize) -> Result<Vec<Reply>, Malformed> {
        let mut decoder = Decoder::default();
        let mut replies = Vec::new();
        for piece in bytes.chunks(step) {
            decoder.buffer.extend_from_slice(piece);
            while let Some(reply) = decoder.next()? {
                replies.push(reply);
            }
        }
        assert!(decoder.buffer.is_empty() && decoder.partial.is_none(), "bytes left over");
        Ok(replies)
    }

    fn texts(reply: &Reply) -> Vec<&str> {
        reply.lines.iter().map(|line| line.text.as_str()).collect()
    }

    #[test]
    fn replies_of_every_shape_in_pieces_of_every_size() {
        let bytes = b"250-PROTOCOLINFO 1\r\n250-AUTH METHODS=NULL\r\n250 OK\r\n\
            650 HS_DESC UPLOADED abc UNKNOWN $FP\r\n\
            250+info/names=\r\na -- b\r\n..dotted\r\n\r\n.\r\n250 OK\r\n\
            552 Unrecognized key\r\n250 \r\n";
        for step in [1, 2, 3, 7, bytes.len()] {
            let replies = decode(bytes, step).unwrap();
            assert_eq!(replies.len(), 5);
            assert_eq!(texts(&replies[0]), ["PROTOCOLINFO 1", "AUTH METHODS=NULL", "OK"]);
            assert_eq!(replies[0].after("AUTH "), Some("METHODS=NULL"));
            assert!(replies[1].is_event() && !replies[0].is_event());
            assert_eq!(replies[2].lines[0].data, "a -- b\n.dotted\n\n");
            assert_eq!((replies[3].status, replies[3].message()), (552, "Unrecognized key"));
            assert_eq!(replies[4].message(), "");
        }
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        for bytes in [
            &b"\r\n"[..],
            b"25\r\n",
            b"250\r\n",
            b"250*OK\r\n",
            b"2x0 OK\r\n",
            b"+50 OK\r\n",
            b"250 OK\n",
            b"250-a\r\n550 b\r\n",
            b"250 \xff\r\n",
            "2\u{e9}0 OK\r\n".as_bytes(),
            b"HTTP/1.0 400 Bad Request\r\n",
            b"\x05\xff\n",
        ] {
            assert!(decode(bytes, bytes.len()).is_err(), "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn lines_and_replies_are_bounded() {
        let mut decoder = Decoder { buffer: vec![b'2'; MAX_LINE + 1], ..Decoder::default() };
        assert!(decoder.next().is_err(), "a line without end");
        let long = format!("250 {}\r\n", "x".repeat(MAX_LINE));
        assert!(decode(long.as_bytes(), long.len()).is_err());
        let fits = format!("250 {}\r\n", "x".repeat(MAX_LINE - 6));
        assert_eq!(decode(fits.as_bytes(), 1000).unwrap().len(), 1);
        // A reply, or data, that goes on for ever.
        for line in ["250-x\r\n".to_owned(), format!("{}\r\n", "y".repeat(1000))] {
            let mut decoder = Decoder::default();
            decoder.buffer.extend_from_slice(b"250+x=\r\n");
            let mut taken = 0;
            let refused = loop {
                decoder.buffer.extend_from_slice(line.as_bytes());
                match decoder.next() {
                    Ok(reply) => assert_eq!(reply, None),
                    Err(why) => break why,
                }
                taken += line.len();
                assert!(taken <= MAX_REPLY);
            };
            assert_eq!(refused, "the reply is too long");
        }
    }

    #[test]
    fn values_are_found_and_unquoted() {
        let text = r#"METHODS=COOKIE,SAFECOOKIE COOKIEFILE="/a \"b\" \\c\303\244=METHODS" LAST=1"#;
        assert_eq!(value(text, "METHODS").unwrap().unwrap(), b"COOKIE,SAFECOOKIE");
        assert_eq!(value(text, "COOKIEFILE").unwrap().unwrap(), "/a \"b\" \\cä=METHODS".as_bytes());
        assert_eq!(value(text, "LAST").unwrap().unwrap(), b"1");
        assert_eq!(value(text, "METHOD").unwrap(), None);
        assert_eq!(value("", "X").unwrap(), None);
        assert_eq!(value("X", "X").unwrap().unwrap(), b"");
        for bad in ["A=\"", "A=\"\\", "A=\"\\x\"", "A=\"\\9\"", "A=\"\\400\"", "A=\"b\"c B=1"] {
            assert!(value(bad, "B").is_err(), "{bad}");
        }
    }
}
