//! Where a private key is: the text by which configuration names it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};
use crate::uri::Pkcs11Uri;

/// Where a private key is. Written `pkcs11:…` (RFC 7512) or `file:PATH`.
///
/// `PATH` is taken as it stands, absolute or relative to the working directory, without percent-decoding; `file:///abs` is
/// `file:/abs`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Locator {
    /// A key behind a PKCS#11 module.
    Pkcs11(Pkcs11Uri),
    /// A *software* key file.
    File(PathBuf),
}

impl FromStr for Locator {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text.starts_with("pkcs11:") {
            return text.parse().map(Self::Pkcs11);
        }
        let refused = |why: &str| {
            Error::new(
                ErrorKind::Locator,
                format!("The key's locator is refused: {why}."),
                "Write `pkcs11:token=NAME;object=KEY?module-path=/path/to/module.so`, or `file:/path/to/key.pem` for a software key.",
            )
        };
        let path = text.strip_prefix("file:").ok_or_else(|| refused("it begins with neither `pkcs11:` nor `file:`"))?;
        let path = path.strip_prefix("//").filter(|rest| rest.starts_with('/')).unwrap_or(path);
        if path.starts_with("//") {
            return Err(refused("a `file:` locator names no host"));
        }
        if path.is_empty() || path.len() > 4096 || path.contains('\0') {
            return Err(refused("the path must have 1 to 4096 bytes and no NUL"));
        }
        Ok(Self::File(path.into()))
    }
}

impl fmt::Display for Locator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pkcs11(uri) => uri.fmt(f),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        for (text, canonical) in [
            ("file:/etc/key.pem", "file:/etc/key.pem"),
            ("file:///etc/key.pem", "file:/etc/key.pem"),
            ("file:rel/key %20.pem", "file:rel/key %20.pem"),
            ("pkcs11:object=a;token=b", "pkcs11:token=b;object=a"),
        ] {
            let locator: Locator = text.parse().unwrap();
            assert_eq!(locator.to_string(), canonical);
            assert_eq!(canonical.parse::<Locator>().unwrap(), locator);
        }
        for text in
            ["", "file:", "/etc/key.pem", "tpm:0x81000001", "file:a\0b", "file://host/key.pem", "pkcs11:slot-id=1"]
        {
            assert_eq!(text.parse::<Locator>().unwrap_err().kind(), ErrorKind::Locator, "{text:?}");
        }
    }
}
