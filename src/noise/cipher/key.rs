//! One direction's key, in the implementation of the AEAD that is fastest on the processor that runs this.
//!
//! Both are assembly-backed descendants of BoringSSL and give the same bytes; they differ in which instructions they use. ChaCha20-Poly1305
//! is the same code in both. AES-256-GCM is not: aws-lc has code for VAES with AVX-512 and none for VAES without it; ring has code for VAES
//! with AVX2. So a processor with VAES and no AVX-512 (AMD before Zen 4, Intel's client processors from Alder Lake on) takes ring, at twice
//! aws-lc's speed there, and everything else takes aws-lc, which is the faster one with AVX-512.
//!
//! aws-lc wipes its keys when they are freed. ring does not: a key that was replaced stays in freed memory until that is used again.

use crate::identity::Suite;
use aws_lc_rs::aead as aws;

/// An implementation of the AEAD.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Provider {
    AwsLc,
    #[cfg(feature = "net")]
    Ring,
}

impl Provider {
    /// The faster one here. The same on every call: it depends on the processor and the suite only.
    #[cfg(all(feature = "net", target_arch = "x86_64"))]
    pub(super) fn fastest(suite: Suite) -> Self {
        macro_rules! has {
            ($($feature:tt)*) => { true $(&& is_x86_feature_detected!($feature))* };
        }
        // What aws-lc asks for in `crypto_gcm_avx512_enabled`, and ring in `gcm::Key::new`.
        let vaes = has!("vaes" "vpclmulqdq" "avx2");
        let avx512 = has!("avx512f" "avx512vl" "avx512bw" "avx512dq" "avx512ifma");
        if suite == Suite::AesGcmSha256 && vaes && !avx512 { Self::Ring } else { Self::AwsLc }
    }

    /// Only one, or none known to be faster.
    #[cfg(not(all(feature = "net", target_arch = "x86_64")))]
    pub(super) fn fastest(_suite: Suite) -> Self {
        Self::AwsLc
    }
}

/// An AEAD key.
pub(super) enum Key {
    AwsLc(aws::LessSafeKey),
    #[cfg(feature = "net")]
    Ring(Box<ring::aead::LessSafeKey>),
}

impl Key {
    /// `None` when the AEAD refuses its key.
    pub(super) fn new(provider: Provider, aes: bool, key: &[u8; 32]) -> Option<Self> {
        match provider {
            Provider::AwsLc => {
                let algorithm = if aes { &aws::AES_256_GCM } else { &aws::CHACHA20_POLY1305 };
                Some(Self::AwsLc(aws::LessSafeKey::new(aws::UnboundKey::new(algorithm, key).ok()?)))
            }
            #[cfg(feature = "net")]
            Provider::Ring => {
                use ring::aead::{AES_256_GCM, CHACHA20_POLY1305, LessSafeKey, UnboundKey};
                let algorithm = if aes { &AES_256_GCM } else { &CHACHA20_POLY1305 };
                Some(Self::Ring(Box::new(LessSafeKey::new(UnboundKey::new(algorithm, key).ok()?))))
            }
        }
    }

    /// Which implementation it is of.
    pub(super) fn provider(&self) -> Provider {
        match self {
            Self::AwsLc(_) => Provider::AwsLc,
            #[cfg(feature = "net")]
            Self::Ring(_) => Provider::Ring,
        }
    }

    /// Seals in place, without associated data; `None` when the AEAD refuses.
    pub(super) fn seal(&self, nonce: [u8; 12], text: &mut [u8]) -> Option<[u8; 16]> {
        match self {
            Self::AwsLc(key) => {
                let nonce = aws::Nonce::assume_unique_for_key(nonce);
                key.seal_in_place_separate_tag(nonce, aws::Aad::empty(), text).ok()?.as_ref().try_into().ok()
            }
            #[cfg(feature = "net")]
            Self::Ring(key) => {
                let nonce = ring::aead::Nonce::assume_unique_for_key(nonce);
                key.seal_in_place_separate_tag(nonce, ring::aead::Aad::empty(), text).ok()?.as_ref().try_into().ok()
            }
        }
    }

    /// Opens text and tag in place; the length of the plaintext, or `None` when it does not authenticate.
    pub(super) fn open(&self, nonce: [u8; 12], sealed: &mut [u8]) -> Option<usize> {
        match self {
            Self::AwsLc(key) => {
                let nonce = aws::Nonce::assume_unique_for_key(nonce);
                key.open_in_place(nonce, aws::Aad::empty(), sealed).ok().map(|plain| plain.len())
            }
            #[cfg(feature = "net")]
            Self::Ring(key) => {
                let nonce = ring::aead::Nonce::assume_unique_for_key(nonce);
                key.open_in_place(nonce, ring::aead::Aad::empty(), sealed).ok().map(|plain| plain.len())
            }
        }
    }
}

#[cfg(all(test, feature = "net"))]
mod tests {
    use super::*;
    use crate::noise::cipher::nonce;

    #[test]
    fn both_give_the_same_bytes() {
        for aes in [true, false] {
            for secret in [[0; 32], [5; 32], [0xff; 32]] {
                let keys = [Provider::AwsLc, Provider::Ring].map(|provider| Key::new(provider, aes, &secret).unwrap());
                for len in (0..300).chain([1023, 1024, 4097, 16_366, 65_519]) {
                    let nonce = nonce(aes, if len % 2 == 0 { len as u64 } else { u64::MAX - len as u64 });
                    let plain: Vec<u8> = (0..len).map(|i| (i * 7) as u8).collect();
                    let sealed = keys.each_ref().map(|key| {
                        let mut text = plain.clone();
                        let tag = key.seal(nonce, &mut text).unwrap();
                        [text.as_slice(), &tag].concat()
                    });
                    assert_eq!(sealed[0], sealed[1], "AES {aes}, {len} bytes");
                    for (key, theirs) in keys.iter().zip([&sealed[1], &sealed[0]]) {
                        let mut text = theirs.clone();
                        assert_eq!(key.open(nonce, &mut text), Some(len));
                        assert_eq!(text[..len], plain);
                        let mut bad = theirs.clone();
                        bad[len / 2] ^= 1;
                        assert_eq!(key.open(nonce, &mut bad), None);
                    }
                }
            }
        }
    }

    #[test]
    fn the_choice_is_of_the_processor_and_the_suite() {
        assert_eq!(Provider::fastest(Suite::ChaChaPolyBlake2s), Provider::AwsLc);
        for suite in Suite::ALL {
            let first = Provider::fastest(suite);
            let key = Key::new(first, suite == Suite::AesGcmSha256, &[5; 32]).unwrap();
            assert_eq!([Provider::fastest(suite), key.provider()], [first, first]);
        }
    }
}
