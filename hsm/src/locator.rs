//! Where a private key is: the text by which configuration names it.

mod card;
mod file;
mod query;
mod tpm;

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};
use crate::uri::Pkcs11Uri;

pub use card::{CardId, OpenPgpLocator, PivLocator, PivSlot};
pub use file::FileLocator;
pub use tpm::{TpmKey, TpmLocator};

pub(crate) use card::named as piv;

/// Where a private key is. Never a reader or a slot number of a reader: those change when something is plugged in.
///
/// | text | names |
/// |---|---|
/// | `pkcs11:token=NAME;object=KEY?module-path=PATH` | a key behind a PKCS#11 module (RFC 7512) |
/// | `openpgp:0006:12345678` | the decryption key of an OpenPGP card: maker and serial number, 4 and 8 hexadecimal digits (OpenPGP card 3.4, section 4.2.1) |
/// | `piv:serial=12345678;slot=9d` | a key of a YubiKey by its serial number, decimal; slot `9d` or `82` to `95` (SP 800-73-4, part 1, table 4b) |
/// | `piv:guid=32 hexadecimal digits;slot=82` | the same on any PIV card, by the GUID of its CHUID (SP 800-73-4, part 1, section 3.1.2) |
/// | `tpm2:0x81010042` | a persistent key of the TPM, by its handle |
/// | `tpm2:owner/NAME` | a primary key of the TPM's owner hierarchy, made from its name at every start |
/// | `file:PATH` | a *software* key file |
///
/// All take `?pin-source=/path`, as PKCS#11 URIs do: a file of mode 0600 with the PIN, of a key file its passphrase. `tpm2:` takes
/// `tcti=CONF`, the way to the TPM as tpm2-tss writes it; default `device:/dev/tpmrm0`.
///
/// The `PATH` of `file:` is absolute or relative to the working directory; `file:///abs` is `file:/abs`. Of its characters only `%` and `?`
/// have to be percent-encoded (RFC 3986, section 2.1); control characters are, where it is written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Locator {
    /// A key behind a PKCS#11 module.
    Pkcs11(Pkcs11Uri),
    /// The decryption key of an OpenPGP card.
    OpenPgp(OpenPgpLocator),
    /// A key management key of a PIV card.
    Piv(PivLocator),
    /// A key of a TPM.
    Tpm(TpmLocator),
    /// A *software* key file.
    File(FileLocator),
}

impl Locator {
    /// The file that holds the PIN, if the locator names one.
    pub fn pin_source(&self) -> Option<&Path> {
        match self {
            Self::Pkcs11(uri) => uri.pin_source(),
            Self::OpenPgp(card) => card.pin_source.as_deref(),
            Self::Piv(card) => card.pin_source.as_deref(),
            Self::Tpm(tpm) => tpm.pin_source.as_deref(),
            Self::File(file) => file.pin_source.as_deref(),
        }
    }
}

impl FromStr for Locator {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let Some((scheme, rest)) = text.split_once(':') else {
            return Err(refused("it begins with no scheme"));
        };
        let locator = match scheme {
            "pkcs11" => text.parse().map(Self::Pkcs11)?,
            "openpgp" => OpenPgpLocator::parse(rest).map(Self::OpenPgp)?,
            "piv" => PivLocator::parse(rest).map(Self::Piv)?,
            "tpm2" => TpmLocator::parse(rest).map(Self::Tpm)?,
            "file" => FileLocator::parse(rest).map(Self::File)?,
            _ => return Err(refused("its scheme is none of `pkcs11:`, `openpgp:`, `piv:`, `tpm2:`, `file:`")),
        };
        // It may be longer as it is written, and must be read again.
        if locator.to_string().len() > query::MAX_LEN { Err(refused(query::TOO_LONG)) } else { Ok(locator) }
    }
}

/// The `?pin-source=` of a locator, if it has one.
pub(crate) fn write_query(f: &mut fmt::Formatter<'_>, pin_source: Option<&Path>) -> fmt::Result {
    query::write(f, None, pin_source)
}

impl fmt::Display for Locator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pkcs11(uri) => uri.fmt(f),
            Self::OpenPgp(card) => card.fmt(f),
            Self::Piv(card) => card.fmt(f),
            Self::Tpm(tpm) => tpm.fmt(f),
            Self::File(file) => file.fmt(f),
        }
    }
}

/// `why` is a clause.
fn refused(why: &str) -> Error {
    Error::new(
        ErrorKind::Locator,
        format!("The key's locator is refused: {why}."),
        "Write `openpgp:0006:12345678`, `piv:serial=12345678;slot=9d`, `tpm2:0x81010042`, \
         `pkcs11:token=NAME;object=KEY?module-path=/path/to/module.so`, or `file:/path/to/key.pem` for a software key; \
         `claviger-ceremony token list` shows those that are there.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        for (text, canonical) in [
            ("file:/etc/key.pem", "file:/etc/key.pem"),
            ("file:///etc/key.pem", "file:/etc/key.pem"),
            ("file:rel/a key.pem", "file:rel/a key.pem"),
            ("file:rel/a%20key%3f%25.p%65m", "file:rel/a key%3F%25.pem"),
            ("file:%2f%2Fa%0a", "file:/%2Fa%0A"),
            ("file:/\u{e9}%c3%a9%ff", "file:/\u{e9}\u{e9}%FF"),
            ("file:key.pem?pin-source=/run/a%20b?", "file:key.pem?pin-source=file:/run/a%20b?"),
            ("pkcs11:object=a;token=b", "pkcs11:token=b;object=a"),
            ("openpgp:0006:12345678", "openpgp:0006:12345678"),
            ("openpgp:fffe:0000beef", "openpgp:FFFE:0000BEEF"),
            ("openpgp:0006:12345678?pin-source=/a%20b", "openpgp:0006:12345678?pin-source=file:/a%20b"),
            ("piv:serial=12345678;slot=9d", "piv:serial=12345678;slot=9d"),
            ("piv:slot=9D;serial=7", "piv:serial=7;slot=9d"),
            ("piv:guid=000102030405060708090A0B0C0D0E0F;slot=82", "piv:guid=000102030405060708090a0b0c0d0e0f;slot=82"),
            ("piv:serial=7;slot=95?pin-source=file:/run/pin", "piv:serial=7;slot=95?pin-source=file:/run/pin"),
            ("tpm2:0x81010042", "tpm2:0x81010042"),
            ("tpm2:owner/cosigner", "tpm2:owner/cosigner"),
            (
                "tpm2:0x81010042?tcti=swtpm:host=127.0.0.1,port=2321&pin-source=/p",
                "tpm2:0x81010042?tcti=swtpm:host=127.0.0.1,port=2321&pin-source=file:/p",
            ),
        ] {
            let locator: Locator = text.parse().unwrap_or_else(|error: Error| panic!("{text}: {error}"));
            assert_eq!(locator.to_string(), canonical);
            assert_eq!(canonical.parse::<Locator>().unwrap(), locator);
        }
    }

    #[test]
    fn what_names_no_key_is_refused() {
        for text in [
            "",
            "file:",
            "/etc/key.pem",
            "tpm:0x81000001",
            "file:a\0b",
            "file:a%00b",
            "file:?pin-source=/a",
            "file:a?",
            "file:a?b",
            "file:a?b?pin-source=/a",
            "file:a%",
            "file:a%4",
            "file:a%+4",
            "file:a?pin-source=",
            "file:a?pin-source=rel",
            "file:a?pin-source=/a&pin-source=/b",
            "file:a?pin-source=/a&tcti=b",
            "file:a?pin-value=1",
            "file://host/key.pem",
            "pkcs11:slot-id=1",
            "openpgp:",
            "openpgp:0006",
            "openpgp:0006:1234567",
            "openpgp:00006:12345678",
            "openpgp:0006:1234567g",
            "openpgp:+006:12345678",
            "openpgp:0006:12345678?",
            "openpgp:0006:12345678?pin-value=1",
            "openpgp:0006:12345678?pin-source=rel",
            "openpgp:0006:12345678?pin-source=/a&pin-source=/b",
            "openpgp:0006:12345678?tcti=a",
            "piv:",
            "piv:slot=9d",
            "piv:serial=1",
            "piv:serial=1;slot=9c",
            "piv:serial=1;slot=81",
            "piv:serial=1;slot=96",
            "piv:serial=+1;slot=9d",
            "piv:serial=01;slot=9d",
            "piv:serial=4294967296;slot=9d",
            "piv:serial=1;guid=000102030405060708090a0b0c0d0e0f;slot=9d",
            "piv:guid=00;slot=9d",
            "piv:serial=1;serial=1;slot=9d",
            "piv:reader=0;slot=9d",
            "tpm2:",
            "tpm2:81010042",
            "tpm2:0x80000001",
            "tpm2:0x81800000",
            "tpm2:0x8101004",
            "tpm2:owner/",
            "tpm2:owner/-a",
            "tpm2:0x81010042?tcti=",
            // 4095 bytes, and 4100 with the `file:` that it is written with.
            &format!("openpgp:0006:12345678?pin-source=/{}", "a".repeat(4061)),
            // 1506 bytes, and 4506 as it is written.
            &format!("file:/{}", "\n".repeat(1500)),
        ] {
            assert_eq!(text.parse::<Locator>().unwrap_err().kind(), ErrorKind::Locator, "{text:?}");
        }
    }

    #[test]
    fn a_question_mark_in_a_name_is_told_of() {
        let error = "file:what?.pem".parse::<Locator>().unwrap_err().to_string();
        assert!(error.contains("%3F") && error.contains("pin-source="), "{error}");
        assert!(!"file:key.pem?271828".parse::<Locator>().unwrap_err().to_string().contains("271828"));
    }
}
