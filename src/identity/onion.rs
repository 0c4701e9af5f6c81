//! Onion addresses (Tor rend-spec-v3, section 6) and the client-authorization key (appendix G).

use super::IdentityError;
use crate::secret::{ClientAuthSecret, OnionSecretKey};
use aws_lc_rs::agreement::{self, PrivateKey};
use aws_lc_rs::digest;
use aws_lc_rs::encoding::{AsBigEndian, Curve25519SeedBin};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use data_encoding::BASE32_NOPAD;
use sha3::{Digest, Sha3_256};

/// A v3 onion address: the 32-byte Ed25519 public key of an onion service.
///
/// `Display` is the full address, 56 characters and `.onion`; logs use [`redacted`](Self::redacted).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct OnionAddress([u8; 32]);

impl OnionAddress {
    /// The address of a service's public key.
    pub fn from_public_key(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// The service's Ed25519 public key.
    pub fn public_key(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first four characters, for logs at the default level.
    pub fn redacted(&self) -> String {
        format!("{}….onion", &self.label()[..4])
    }

    /// The 56 characters before `.onion`.
    pub fn label(&self) -> String {
        let mut bytes = [0u8; 35];
        bytes[..32].copy_from_slice(&self.0);
        bytes[32..34].copy_from_slice(&self.checksum());
        bytes[34] = 3;
        BASE32_NOPAD.encode(&bytes).to_ascii_lowercase()
    }

    // CHECKSUM = SHA3-256(".onion checksum" || PUBKEY || VERSION)[:2]
    fn checksum(&self) -> [u8; 2] {
        let hash = Sha3_256::new().chain_update(b".onion checksum").chain_update(self.0).chain_update([3u8]).finalize();
        [hash[0], hash[1]]
    }
}

impl std::fmt::Display for OnionAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&format!("{}.onion", self.label()))
    }
}

impl std::fmt::Debug for OnionAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.redacted())
    }
}

impl std::str::FromStr for OnionAddress {
    type Err = IdentityError;

    /// Reads 56 lower-case base32 characters and `.onion`.
    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let label = text.strip_suffix(".onion").ok_or(IdentityError::Onion("does not end with .onion"))?;
        if label.len() != 56 {
            return Err(IdentityError::Onion("is not a v3 address of 56 characters before .onion"));
        }
        if label.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(IdentityError::Onion("is not in lower case"));
        }
        let bytes = BASE32_NOPAD
            .decode(label.to_ascii_uppercase().as_bytes())
            .map_err(|_| IdentityError::Onion("is not base32"))?;
        let key: [u8; 32] = bytes[..32].try_into().map_err(|_| IdentityError::Onion("is not base32"))?;
        let address = Self(key);
        if bytes[34] != 3 || bytes[32..34] != address.checksum() {
            return Err(IdentityError::Onion("has a wrong version or checksum"));
        }
        Ok(address)
    }
}

/// An onion service's key pair, made when a machine is set up, so that its address is known before anything runs.
pub struct OnionKeys {
    /// Goes into the store and to the transport that publishes the service. Keep it secret: who has it can impersonate the address
    /// (but not the machine: the Noise handshake needs the token).
    pub secret: OnionSecretKey,
    /// Its address.
    pub address: OnionAddress,
}

impl OnionKeys {
    /// Makes a new key pair.
    ///
    /// # Errors
    /// [`IdentityError::KeyGeneration`] when there is no randomness.
    pub fn generate() -> Result<Self, IdentityError> {
        let pair = Ed25519KeyPair::generate().map_err(|_| IdentityError::KeyGeneration)?;
        let seed = pair.seed().map_err(|_| IdentityError::KeyGeneration)?;
        let seed: Curve25519SeedBin<'_> =
            aws_lc_rs::encoding::AsBigEndian::as_be_bytes(&seed).map_err(|_| IdentityError::KeyGeneration)?;
        let public: [u8; 32] = pair.public_key().as_ref().try_into().map_err(|_| IdentityError::KeyGeneration)?;
        Ok(Self { secret: expand(seed.as_ref()), address: OnionAddress(public) })
    }
}

/// The expanded secret key of a seed (RFC 8032, section 5.1.5, steps 1 and 2).
fn expand(seed: &[u8]) -> OnionSecretKey {
    let mut expanded = [0u8; 64];
    expanded.copy_from_slice(digest::digest(&digest::SHA512, seed).as_ref());
    expanded[0] &= 248;
    expanded[31] &= 63;
    expanded[31] |= 64;
    OnionSecretKey::take(&mut expanded)
}

/// The X25519 public key by which a machine is let into other machines' onion descriptors.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientAuthPublic([u8; 32]);

impl ClientAuthPublic {
    /// Takes the 32 bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::fmt::Debug for ClientAuthPublic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

impl std::fmt::Display for ClientAuthPublic {
    /// `descriptor:x25519:` and 52 base32 characters: the line of a file in tor's `authorized_clients`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "descriptor:x25519:{}", BASE32_NOPAD.encode(&self.0))
    }
}

impl std::str::FromStr for ClientAuthPublic {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let key = text
            .strip_prefix("descriptor:x25519:")
            .ok_or(IdentityError::ClientAuth("does not begin with descriptor:x25519:"))?;
        let bytes = BASE32_NOPAD.decode(key.as_bytes()).map_err(|_| IdentityError::ClientAuth("is not base32"))?;
        let bytes = bytes.try_into().map_err(|_| IdentityError::ClientAuth("is not 32 bytes"))?;
        Ok(Self(bytes))
    }
}

/// The client-authorization key pair of a machine.
pub struct ClientAuthKeys {
    /// Goes into the store and to the transport that dials. Keep it secret: it opens the descriptors that list this machine.
    pub secret: ClientAuthSecret,
    /// Goes onto the card.
    pub public: ClientAuthPublic,
}

impl ClientAuthKeys {
    /// Makes a new key pair.
    ///
    /// # Errors
    /// [`IdentityError::KeyGeneration`] when there is no randomness.
    pub fn generate() -> Result<Self, IdentityError> {
        let failed = |_| IdentityError::KeyGeneration;
        let key = PrivateKey::generate(&agreement::X25519).map_err(failed)?;
        let seed: Curve25519SeedBin<'_> = key.as_be_bytes().map_err(failed)?;
        let public = key.compute_public_key().map_err(failed)?;
        let secret = ClientAuthSecret::from_slice(seed.as_ref()).ok_or(IdentityError::KeyGeneration)?;
        let public = public.as_ref().try_into().map_err(|_| IdentityError::KeyGeneration)?;
        Ok(Self { secret, public: ClientAuthPublic(public) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of rend-spec-v3, section 6.
    const PUBLISHED: [&str; 3] = [
        "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion",
        "sp3k262uwy4r2k3ycr5awluarykdpag6a7y33jxop4cs2lu5uz5sseqd.onion",
        "xa4r2iadxm55fbnqgwwi5mymqdcofiu3w6rpbtqn7b2dyn7mgwj64jyd.onion",
    ];

    #[test]
    fn published_addresses() {
        for text in PUBLISHED {
            assert_eq!(text.parse::<OnionAddress>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn every_changed_character_is_found() {
        for at in 0..56 {
            let mut text = PUBLISHED[0].as_bytes().to_vec();
            text[at] = if text[at] == b'a' { b'b' } else { b'a' };
            assert!(String::from_utf8(text).unwrap().parse::<OnionAddress>().is_err(), "character {at}");
        }
        for bad in ["", ".onion", "example.com", &PUBLISHED[0].to_uppercase(), &PUBLISHED[0][1..]] {
            assert!(bad.parse::<OnionAddress>().is_err(), "{bad}");
        }
    }

    #[test]
    fn expansion_matches_the_public_key() {
        // The expanded scalar times the base point is the public key; checked by signing through tor's own library in the
        // transport tests, and here against RFC 8032, section 7.1, test 1: SHA-512 of the seed, clamped.
        let seed = data_encoding::HEXLOWER
            .decode(b"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
            .unwrap();
        let expanded = expand(&seed);
        assert_eq!(
            data_encoding::HEXLOWER.encode(&expanded.expose()[..32]),
            "307c83864f2833cb427a2ef1c00a013cfdff2768d980c0a3a520f006904de94f"
        );
    }

    #[test]
    fn debug_and_redacted_do_not_show_the_address() {
        let address: OnionAddress = PUBLISHED[0].parse().unwrap();
        assert_eq!(format!("{address:?}"), "pg6m….onion");
    }
}
