//! Attestations: nothing that was not signed is believed, and what is refused is refused in words fit for a terminal.

use claviger_hsm::attestation::{Evidence, Format, Roots, verify};
use claviger_hsm::{Curve, ErrorKind, PublicKey};

/// A root whose private key is gone: it signed the good seeds and nothing else.
const ROOT: &[u8] = include_bytes!("attestation-root.pem");

/// The keys that the good seeds are about.
const X25519: [u8; 32] = [9; 32];
const P256: &[u8; 65] = include_bytes!("attestation-p256.point");

/// Reads `data` as the number of a form, then certificates, each after its length in two bytes.
pub fn check(data: &[u8]) {
    let Some((&form, mut rest)) = data.split_first() else { return };
    let format = if form & 1 == 0 { Format::YubicoPiv } else { Format::YubicoOpenPgp };
    let mut chain = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let (certificate, after) = after.split_at(usize::from(u16::from_be_bytes(*length)).min(after.len()));
        chain.push(certificate.to_vec());
        rest = after;
    }
    let evidence = Evidence { format, chain };
    let mut roots = Roots::makers();
    roots.with_pem(ROOT).expect("a root");
    for (curve, key) in [(Curve::X25519, &X25519[..]), (Curve::P256, P256)] {
        let key = PublicKey::new(curve, key).expect("a key");
        match verify(&evidence, &key, &roots) {
            Ok(verdict) => {
                let said = verdict.to_string();
                let expected = match curve {
                    Curve::X25519 => {
                        "no known maker, serial 12345678, firmware 5.7.1, PIN once, touch always, up to Fuzz Root"
                    }
                    Curve::P256 => "no known maker, serial 12345678, firmware 5.7.1, touch cached, up to Fuzz Root",
                };
                assert_eq!(said, expected);
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Attestation);
                for sentence in [error.to_string(), error.hint().to_owned()] {
                    assert!((1..=512).contains(&sentence.len()), "{} bytes: {sentence}", sentence.len());
                    assert!(!sentence.chars().any(char::is_control), "a terminal would act on {sentence:?}");
                }
            }
        }
    }
    // Whatever else the bytes are: as PEM.
    let _ = Roots::default().with_pem(data);
}
