//! What the readers of challenges, proofs and successions share: one spelling, bounded, and errors that name the line.

use std::fmt::Display;
use std::str::FromStr;

use aws_lc_rs::{hkdf, hmac};
use data_encoding::HEXLOWER;

use crate::error::{Error, ErrorKind, Result};
use crate::identity::KeyPlace;
use crate::identity::lines::{Lines, Off};
use crate::secret::SharedSecret;

/// The last second of the year 9999: behind it a time has no usual spelling.
pub(super) const MAX_TIME: u64 = 253_402_300_799;

/// A kind of text.
pub(super) struct Form {
    /// The first line, without the format version; ends with a space.
    pub(super) title: &'static str,
    /// The format version that is written and read.
    pub(super) version: &'static str,
    /// What people call it.
    pub(super) what: &'static str,
    /// The kind of its errors.
    pub(super) kind: ErrorKind,
    /// What to do about one that was damaged: a sentence.
    pub(super) hint: &'static str,
    /// Its longest text, in bytes.
    pub(super) max: usize,
}

impl Form {
    /// Begins to read a text of this form.
    pub(super) fn read<'a>(&'static self, text: &'a str) -> Result<Reader<'a>> {
        let what = self.what;
        if text.len() > self.max {
            return Err(self.refused(format!(
                "The {what} is {} bytes of text, and one is at most {}.",
                text.len(),
                self.max
            )));
        }
        if text.contains('\r') {
            return Err(self.refused(format!("The {what}'s line ends were changed on the way.")));
        }
        let mut lines = Lines::new(text);
        let version = lines.title(self.title, self.version).map_err(|off| self.off(off))?;
        if version != self.version {
            let version: String = version.chars().take(16).collect();
            return Err(Error::new(
                self.kind,
                format!("The {what} has format version {version:?}, and this program reads {}.", self.version),
                "Use the same release of claviger on both machines.",
            ));
        }
        Ok(Reader { lines, form: self })
    }

    /// Why a text is not taken; `why` is a sentence.
    pub(super) fn refused(&self, why: String) -> Error {
        Error::new(self.kind, why, self.hint)
    }

    fn off(&self, Off { line, expected }: Off) -> Error {
        self.refused(format!("Line {line} of the {} is not {expected}.", self.what))
    }
}

/// Reads a text line by line.
pub(super) struct Reader<'a> {
    lines: Lines<'a>,
    form: &'static Form,
}

impl<'a> Reader<'a> {
    /// The value of the field that is next.
    pub(super) fn field(&mut self, name: &str) -> Result<&'a str> {
        self.lines.field(name).map_err(|off| self.form.off(off))
    }

    /// Reads the checksum, behind which nothing may stand.
    pub(super) fn end(self) -> Result<()> {
        let Self { lines, form } = self;
        if lines.checksum(form.what).map_err(|off| form.off(off))? { Ok(()) } else { Err(form.changed()) }
    }
}

impl Form {
    /// The checksum does not fit.
    pub(super) fn changed(&self) -> Error {
        self.refused(format!("The {}'s checksum does not match its text.", self.what))
    }

    /// The value of the field `name`, which is of a type with one spelling.
    pub(super) fn value<T: FromStr<Err: Display>>(&self, name: &str, text: &str) -> Result<T> {
        text.parse().map_err(|why: T::Err| self.refused(format!("The {}'s `{name}` is refused: {why}", self.what)))
    }

    /// `N` bytes in lower-case hexadecimal.
    pub(super) fn bytes<const N: usize>(&self, name: &str, text: &str) -> Result<[u8; N]> {
        let bytes = HEXLOWER.decode(text.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
        let why = || self.refused(format!("The {}'s `{name}` is not {} hexadecimal digits.", self.what, 2 * N));
        bytes.ok_or_else(why)
    }

    /// Which of a machine's keys.
    pub(super) fn place(&self, name: &str, text: &str) -> Result<KeyPlace> {
        let why = |_| self.refused(format!("The {}'s `{name}` is neither `primary` nor `backup`.", self.what));
        text.parse().map_err(why)
    }

    /// A number in decimal, without leading zeros.
    pub(super) fn number(&self, name: &str, text: &str, max: u64) -> Result<u64> {
        let number = text.parse().ok().filter(|number: &u64| *number <= max && number.to_string() == text);
        number.ok_or_else(|| self.refused(format!("The {}'s `{name}` is not a number up to {max}.", self.what)))
    }
}

/// The key of a MAC: HKDF-SHA-256 (RFC 5869) with the shared secret as key material; 32 bytes, for HMAC-SHA-256.
pub(super) fn mac_key(agreed: &SharedSecret, salt: &str, info: &[u8]) -> Result<hmac::Key> {
    let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, salt.as_bytes()).extract(agreed.expose());
    // Fails for lengths that no call here asks for.
    let failed = |_| Error::new(ErrorKind::Internal, "No key could be derived.", "Report this as a bug of claviger.");
    let info = [info];
    let okm = prk.expand(&info, hmac::HMAC_SHA256).map_err(failed)?;
    Ok(okm.into())
}

/// HMAC-SHA-256.
pub(super) fn mac(key: &hmac::Key, message: &[u8]) -> [u8; 32] {
    let mut mac = [0; 32];
    mac.copy_from_slice(hmac::sign(key, message).as_ref());
    mac
}
