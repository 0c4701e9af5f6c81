//! Keys of a TPM 2.0.

use std::fmt;
use std::path::PathBuf;

use super::query;
use super::refused;
use crate::error::Result;

/// A key of a TPM: `tpm2:0x81010042`, `tpm2:owner/cosigner`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TpmLocator {
    /// Which key.
    pub key: TpmKey,
    /// The way to the TPM, as tpm2-tss writes it (`device:/dev/tpmrm0`, `tabrmd:`, `swtpm:host=127.0.0.1,port=2321`); `None` is `device:/dev/tpmrm0`.
    pub tcti: Option<String>,
    /// The file that holds the PIN.
    pub pin_source: Option<PathBuf>,
}

/// How a TPM's key is named.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TpmKey {
    /// A persistent handle of the owner's range, 0x81000000 to 0x817FFFFF (TPM 2.0, part 2, table 29).
    Persistent(u32),
    /// A primary key of the owner hierarchy: the TPM makes it from its seed and this name whenever it is wanted. 1 to 32 of `a-z`, `0-9` and `-`,
    /// beginning with a letter or digit.
    Owner(String),
}

impl TpmLocator {
    pub(super) fn parse(rest: &str) -> Result<Self> {
        let (path, query) = query::split(rest, true)?;
        let key = if let Some(name) = path.strip_prefix("owner/") {
            let first = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
            let fits = name.len() <= 32
                && name.bytes().next().is_some_and(first)
                && name.bytes().all(|byte| first(byte) || byte == b'-');
            fits.then(|| TpmKey::Owner(name.into()))
        } else {
            let digits = path.strip_prefix("0x").filter(|digits| digits.len() == 8);
            let handle = digits
                .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
                .and_then(|digits| u32::from_str_radix(digits, 16).ok());
            handle.filter(|handle| (0x8100_0000..=0x817f_ffff).contains(handle)).map(TpmKey::Persistent)
        };
        let key = key.ok_or_else(|| {
            refused("after `tpm2:` comes a persistent handle from 0x81000000 to 0x817fffff, or `owner/` and a name of a-z, 0-9 and hyphens")
        })?;
        Ok(Self { key, tcti: query.tcti, pin_source: query.pin_source })
    }
}

impl fmt::Display for TpmLocator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            TpmKey::Persistent(handle) => write!(f, "tpm2:{handle:#010x}")?,
            TpmKey::Owner(name) => write!(f, "tpm2:owner/{name}")?,
        }
        query::write(f, self.tcti.as_deref(), self.pin_source.as_deref())
    }
}
