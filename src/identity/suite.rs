//! Suites: cipher and hash of a Noise protocol name, as a card offers them.

use super::IdentityError;

/// A cipher and a hash of Noise (section 12.3 to 12.5), by their names there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Suite {
    /// `ChaChaPoly_BLAKE2s`, the default.
    ChaChaPolyBlake2s,
    /// `AESGCM_SHA256`.
    AesGcmSha256,
}

impl Suite {
    /// Every suite, in the order of preference of this version.
    pub const ALL: [Self; 2] = [Self::ChaChaPolyBlake2s, Self::AesGcmSha256];

    /// The part of a Noise protocol name that follows the curve.
    pub const fn noise_name(self) -> &'static str {
        match self {
            Self::ChaChaPolyBlake2s => "ChaChaPoly_BLAKE2s",
            Self::AesGcmSha256 => "AESGCM_SHA256",
        }
    }
}

impl std::fmt::Display for Suite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.noise_name())
    }
}

impl std::str::FromStr for Suite {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        Self::ALL
            .into_iter()
            .find(|suite| suite.noise_name() == text)
            .ok_or_else(|| IdentityError::Suite(text.chars().take(64).collect()))
    }
}

/// The suites that a machine offers, most wanted first: never empty, none twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suites(Vec<Suite>);

impl Suites {
    /// Takes an ordered list.
    ///
    /// # Errors
    /// [`IdentityError::Suite`] when it is empty or names a suite twice.
    pub fn new(suites: Vec<Suite>) -> Result<Self, IdentityError> {
        let twice = suites.iter().enumerate().any(|(at, suite)| suites[..at].contains(suite));
        let this = Self(suites);
        if this.0.is_empty() || twice { Err(IdentityError::Suite(this.to_string())) } else { Ok(this) }
    }

    /// The list, most wanted first.
    pub fn as_slice(&self) -> &[Suite] {
        &self.0
    }

    /// The suite of a handshake in which this machine responds to `initiator`: the first of the responder's list that the initiator
    /// offers, too. Both ends hold both cards, so nothing is negotiated. `None`: the two can not talk.
    pub fn with_initiator(&self, initiator: &Self) -> Option<Suite> {
        self.0.iter().copied().find(|suite| initiator.0.contains(suite))
    }
}

impl Default for Suites {
    /// `ChaChaPoly_BLAKE2s` alone.
    fn default() -> Self {
        Self(vec![Suite::ChaChaPolyBlake2s])
    }
}

impl std::fmt::Display for Suites {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, suite) in self.0.iter().enumerate() {
            write!(f, "{}{suite}", if at == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

impl std::str::FromStr for Suites {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        if text.len() > 256 {
            return Err(IdentityError::Suite(text.chars().take(64).collect()));
        }
        Self::new(text.split(' ').map(str::parse).collect::<Result<_, _>>()?)
    }
}

/// A key encapsulation mechanism, as a card offers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kem {
    /// ML-KEM-768 (FIPS 203).
    MlKem768,
}

impl Kem {
    /// The name on a card.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MlKem768 => "ML-KEM-768",
        }
    }
}

impl std::fmt::Display for Kem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for Kem {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        match text {
            "ML-KEM-768" => Ok(Self::MlKem768),
            _ => Err(IdentityError::Kem(text.chars().take(64).collect())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_responder_prefers() {
        let both: Suites = "AESGCM_SHA256 ChaChaPoly_BLAKE2s".parse().unwrap();
        let default = Suites::default();
        assert_eq!(both.with_initiator(&default), Some(Suite::ChaChaPolyBlake2s));
        assert_eq!(both.with_initiator(&both), Some(Suite::AesGcmSha256));
        let aes: Suites = "AESGCM_SHA256".parse().unwrap();
        assert_eq!(default.with_initiator(&aes), None);
    }

    #[test]
    fn lists_are_strict() {
        for bad in ["", " ", "AESGCM_SHA256 AESGCM_SHA256", "AESGCM_SHA256  ChaChaPoly_BLAKE2s", "aesgcm_sha256", "X"] {
            assert!(bad.parse::<Suites>().is_err(), "{bad:?}");
        }
    }
}
