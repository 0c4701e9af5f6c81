//! What a card carries as proof that its key is in a device: certificates, unread.

use super::IdentityError;
use data_encoding::BASE64;

/// A maker's certificates about a static key. Public data, and no more believed than any other bytes of a card: whoever imports the card verifies
/// them ([`crate::token::attestation`]), so that nobody needs to believe the machine that exported it.
///
/// Text: the format, then the certificates in base64 (RFC 4648, section 4, padded), one space before each: `yubico-piv MIIC… MIID…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attestation {
    format: AttestationFormat,
    chain: Vec<Vec<u8>>,
}

/// Who states what, in which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AttestationFormat {
    /// A YubiKey's PIV application.
    YubicoPiv,
    /// A YubiKey's OpenPGP application.
    YubicoOpenPgp,
}

impl std::fmt::Display for AttestationFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::YubicoPiv => "yubico-piv",
            Self::YubicoOpenPgp => "yubico-openpgp",
        })
    }
}

impl Attestation {
    /// The most certificates.
    pub const MAX_CHAIN: usize = 4;
    /// The most bytes of one certificate.
    pub const MAX_CERTIFICATE: usize = 3072;

    /// The certificate about the key first, then those that sign it, DER.
    ///
    /// # Errors
    /// [`IdentityError::Attestation`]: none or more than [`MAX_CHAIN`](Self::MAX_CHAIN), or one is empty or longer than
    /// [`MAX_CERTIFICATE`](Self::MAX_CERTIFICATE).
    pub fn new(format: AttestationFormat, chain: Vec<Vec<u8>>) -> Result<Self, IdentityError> {
        if !(1..=Self::MAX_CHAIN).contains(&chain.len()) {
            return Err(IdentityError::Attestation("has no certificate, or more than 4"));
        }
        if chain.iter().any(|der| !(1..=Self::MAX_CERTIFICATE).contains(&der.len())) {
            return Err(IdentityError::Attestation("has a certificate that is empty or longer than 3072 bytes"));
        }
        Ok(Self { format, chain })
    }

    /// Who states what, in which form.
    pub fn format(&self) -> AttestationFormat {
        self.format
    }

    /// The certificates, DER.
    pub fn chain(&self) -> &[Vec<u8>] {
        &self.chain
    }
}

impl std::fmt::Display for Attestation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.format)?;
        self.chain.iter().try_for_each(|der| write!(f, " {}", BASE64.encode_display(der)))
    }
}

impl std::str::FromStr for Attestation {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let mut words = text.split(' ');
        let format = words.next().unwrap_or_default();
        let format = [AttestationFormat::YubicoPiv, AttestationFormat::YubicoOpenPgp]
            .into_iter()
            .find(|known| known.to_string() == format)
            .ok_or(IdentityError::Attestation("has a form that this version does not know"))?;
        // One more than may be there, so that there is no need to decode a line of nothing but spaces.
        let chain: Result<Vec<_>, _> =
            words.take(Self::MAX_CHAIN + 1).map(|word| BASE64.decode(word.as_bytes())).collect();
        Self::new(format, chain.map_err(|_| IdentityError::Attestation("is not written in base64"))?)
    }
}

/// A field that may say `none`: of a card, and of a store.
pub(crate) fn to_field(attestation: Option<&Attestation>) -> String {
    attestation.map_or_else(|| "none".into(), ToString::to_string)
}

/// Reads what [`to_field`] writes.
pub(crate) fn from_field(text: &str) -> Result<Option<Attestation>, IdentityError> {
    if text == "none" { Ok(None) } else { text.parse().map(Some) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling() {
        let attestation = Attestation::new(AttestationFormat::YubicoPiv, vec![vec![1], vec![2; 3072]]).unwrap();
        let text = attestation.to_string();
        assert!(text.starts_with("yubico-piv AQ== AgIC"));
        assert_eq!(from_field(&text), Ok(Some(attestation)));
        assert_eq!((from_field("none"), to_field(None)), (Ok(None), "none".into()));
        for bad in [
            "",
            "None",
            "yubico-piv",
            "yubico-piv ",
            "yubico-piv  AQ==",
            "yubico-piv AQ== ",
            "yubico-piv AQ",
            "yubico-piv AR==",
            "yubico-piv A Q==",
            "yubico-piv AQ== AQ== AQ== AQ== AQ==",
            "yubico-PIV AQ==",
            "none AQ==",
            &format!("yubico-piv {}", BASE64.encode(&[0; 3073])),
        ] {
            assert!(matches!(from_field(bad), Err(IdentityError::Attestation(_))), "{bad:?}");
        }
    }
}
