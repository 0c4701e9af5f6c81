//! ML-KEM-768 (FIPS 203) beside the handshake, and the `psk` by which its secret and the ceremony's are mixed in.

use super::NoiseError;
use crate::secret::{KemSecret, NoisePsk, PresharedKey, SecretBytes};
use crate::wire::Kind;
use aws_lc_rs::kem::{self, AlgorithmId, Ciphertext, ML_KEM_768};
use aws_lc_rs::{digest, hkdf};

/// The initiator's key pair, of one handshake. aws-lc wipes the private half when it frees it.
pub(super) struct DecapsulationKey {
    key: kem::DecapsulationKey<AlgorithmId>,
    public: Box<[u8]>,
}

impl DecapsulationKey {
    pub(super) fn generate() -> Result<Self, NoiseError> {
        let failed = |_| NoiseError::Internal("ML-KEM key generation");
        let key = kem::DecapsulationKey::generate(&ML_KEM_768).map_err(failed)?;
        let public = key.encapsulation_key().and_then(|public| public.key_bytes()).map_err(failed)?;
        Ok(Self { key, public: public.as_ref().into() })
    }

    /// A vector's key: FIPS 203's `dk`, which has the encapsulation key after 1152 bytes.
    #[cfg(test)]
    pub(super) fn fixed(bytes: &[u8]) -> Self {
        let key = kem::DecapsulationKey::new(&ML_KEM_768, bytes).unwrap();
        Self { key, public: bytes[1152..1152 + crate::wire::ENCAPSULATION_KEY].into() }
    }

    /// The encapsulation key, [`ENCAPSULATION_KEY`](crate::wire::ENCAPSULATION_KEY) bytes.
    pub(super) fn public(&self) -> &[u8] {
        &self.public
    }

    /// A ciphertext made for another key, or changed, gives another secret and no error (FIPS 203, section 6.3).
    pub(super) fn decapsulate(&self, ciphertext: &[u8]) -> Result<KemSecret, NoiseError> {
        let secret = self.key.decapsulate(Ciphertext::from(ciphertext)).map_err(|_| NoiseError::Length)?;
        KemSecret::from_slice(secret.as_ref()).ok_or(NoiseError::Internal("ML-KEM secret"))
    }
}

/// What a responder makes of an encapsulation key.
pub(super) struct Encapsulation {
    pub(super) ciphertext: Vec<u8>,
    pub(super) secret: KemSecret,
}

/// aws-lc checks the encapsulation key as FIPS 203, section 7.2 demands (length, and coefficients below the modulus) before it uses it; a test below sees it.
pub(super) fn encapsulate(public: &[u8]) -> Result<Encapsulation, NoiseError> {
    let public = kem::EncapsulationKey::new(&ML_KEM_768, public).map_err(|_| NoiseError::EncapsulationKey)?;
    let (ciphertext, secret) = public.encapsulate().map_err(|_| NoiseError::EncapsulationKey)?;
    let secret = KemSecret::from_slice(secret.as_ref()).ok_or(NoiseError::Internal("ML-KEM secret"))?;
    Ok(Encapsulation { ciphertext: ciphertext.as_ref().to_vec(), secret })
}

/// What the KEM gives to the `psk`.
#[derive(Clone, Copy)]
pub(super) struct Exchange<'a> {
    pub(super) public: &'a [u8],
    pub(super) ciphertext: &'a [u8],
    pub(super) secret: &'a KemSecret,
}

/// `HKDF(K || S, "claviger psk 1", kind || T)`: `docs/wire-format.md`, section 5.
pub(super) fn psk(
    kind: Kind,
    exchange: Option<Exchange<'_>>,
    preshared: Option<&PresharedKey>,
) -> Result<NoisePsk, NoiseError> {
    const ABSENT: [u8; 32] = [0; 32];
    let mut transcript = ABSENT;
    if let Some(exchange) = exchange {
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(exchange.public);
        hash.update(exchange.ciphertext);
        transcript.copy_from_slice(hash.finish().as_ref());
    }
    // Never longer than what is reserved: no copy is left behind.
    let mut secrets = SecretBytes::new(Vec::with_capacity(64));
    secrets.extend_from_slice(exchange.map_or(&ABSENT, |exchange| exchange.secret.expose()));
    secrets.extend_from_slice(preshared.map_or(&ABSENT, |key| key.expose()));
    let mut derived = [0; NoisePsk::LEN];
    hkdf::Salt::new(hkdf::HKDF_SHA256, b"claviger psk 1")
        .extract(&secrets)
        .expand(&[&[kind.byte()], &transcript], hkdf::HKDF_SHA256)
        .and_then(|output| output.fill(&mut derived))
        .map_err(|_| NoiseError::Internal("HKDF"))?;
    Ok(NoisePsk::take(&mut derived))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{ENCAPSULATION_KEY, KEM_CIPHERTEXT, Pattern};

    #[test]
    fn both_ends_have_one_secret_and_a_changed_ciphertext_another() {
        let key = DecapsulationKey::generate().unwrap();
        let made = encapsulate(key.public()).unwrap();
        assert_eq!((key.public().len(), made.ciphertext.len()), (ENCAPSULATION_KEY, KEM_CIPHERTEXT));
        assert_eq!(key.decapsulate(&made.ciphertext).unwrap().expose(), made.secret.expose());
        let mut changed = made.ciphertext.clone();
        changed[7] ^= 1;
        assert_ne!(key.decapsulate(&changed).unwrap().expose(), made.secret.expose());
        assert_eq!(key.decapsulate(&made.ciphertext[1..]).err(), Some(NoiseError::Length));
    }

    /// Each of the 768 coefficients, 12 bits little-endian, set to the modulus 3329.
    #[test]
    fn coefficients_beyond_the_modulus_are_refused() {
        let key = DecapsulationKey::generate().unwrap();
        for coefficient in 0..768 {
            let mut public = key.public().to_vec();
            let three = &mut public[coefficient / 2 * 3..][..3];
            let [low, high] = 3329u16.to_le_bytes();
            if coefficient % 2 == 0 {
                (three[0], three[1]) = (low, three[1] & 0xf0 | high);
            } else {
                (three[1], three[2]) = (three[1] & 0x0f | low << 4, low >> 4 | high << 4);
            }
            assert_eq!(encapsulate(&public).err(), Some(NoiseError::EncapsulationKey), "coefficient {coefficient}");
        }
        for len in [0, ENCAPSULATION_KEY - 1] {
            assert_eq!(encapsulate(&key.public()[..len]).err(), Some(NoiseError::EncapsulationKey));
        }
        assert!(encapsulate(&[key.public(), &[0]].concat()).is_err());
    }

    /// Nothing that goes into it can be left out or exchanged.
    #[test]
    fn every_input_of_the_psk_counts() {
        let (one, other) = (KemSecret::new([1; 32]), KemSecret::new([2; 32]));
        let (mine, theirs) = (PresharedKey::new([1; 32]), PresharedKey::new([2; 32]));
        let exchange = |public, ciphertext, secret| Some(Exchange { public, ciphertext, secret });
        let (kk, xk) = (Kind::from(Pattern::Kk), Kind::from(Pattern::Xk));
        let all = [
            psk(kk, None, Some(&mine)),
            psk(kk, None, Some(&theirs)),
            psk(xk, None, Some(&mine)),
            psk(kk, exchange(&[1], &[2], &one), None),
            psk(kk, exchange(&[1], &[2], &other), None),
            psk(kk, exchange(&[1], &[3], &one), None),
            psk(kk, exchange(&[2], &[2], &one), None),
            psk(kk, exchange(&[1], &[2], &one), Some(&mine)),
        ]
        .map(|psk| *psk.unwrap().expose());
        for (at, psk) in all.iter().enumerate() {
            assert!(!all[..at].contains(psk), "psk {at} is not new");
        }
    }
}
