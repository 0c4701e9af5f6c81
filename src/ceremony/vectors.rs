//! Vectors and cards for the tests of this module, made from `docs/wire-format.md` by `tests/vectors/ceremony.py` and by nothing of this library.

use data_encoding::HEXLOWER;
use serde_json::Value;

use super::phrase::over;
use super::proof::{Challenge, Proof};
use super::succession::Succession;
use crate::identity::{Curve, IdentityCard, KeyPlace, StaticPublic, words};
use crate::secret::{EphemeralSecret, SharedSecret};

/// What is in the file for one curve.
pub(super) struct Vector {
    file: Value,
    pub(super) wallet: IdentityCard,
    pub(super) cosigner: IdentityCard,
    /// Of the wallet; its secret is 32 times the byte 4.
    pub(super) challenge: Challenge,
}

/// The secret keys in the file: a byte, 32 times.
pub(super) const WALLET: u8 = 1;
pub(super) const COSIGNER: u8 = 2;
pub(super) const BACKUP: u8 = 3;
pub(super) const CHALLENGE: u8 = 4;

impl Vector {
    pub(super) fn all() -> [Self; 2] {
        [Curve::X25519, Curve::P256].map(|curve| {
            let file: Value = serde_json::from_str(include_str!("../../tests/vectors/ceremony.json")).unwrap();
            let file = file[curve.to_string()].clone();
            let card = |name: &str| IdentityCard::from_text(file[name].as_str().unwrap()).unwrap();
            let challenge = Challenge::from_text(file["challenge"].as_str().unwrap()).unwrap();
            Self { wallet: card("wallet"), cosigner: card("cosigner"), challenge, file }
        })
    }

    pub(super) fn text(&self, name: &str) -> &str {
        self.file[name].as_str().unwrap()
    }
}

pub(super) fn secret(byte: u8) -> EphemeralSecret {
    EphemeralSecret::new([byte; 32])
}

/// What the token of that secret answers.
pub(super) fn agreed(byte: u8, public: &StaticPublic) -> SharedSecret {
    super::proof::agree(&secret(byte), public).unwrap()
}

#[test]
fn the_document_and_the_library_agree() {
    for vector in Vector::all() {
        let Vector { wallet, cosigner, challenge, .. } = &vector;
        assert_eq!(challenge.to_text(), vector.text("challenge"));
        for (name, place, key) in
            [("proof_primary", KeyPlace::Primary, COSIGNER), ("proof_backup", KeyPlace::Backup, BACKUP)]
        {
            let proof = Proof::new(challenge, cosigner, place, &agreed(key, &challenge.ephemeral)).unwrap();
            assert_eq!(proof.to_text(), vector.text(name));
            assert_eq!(Proof::from_text(vector.text(name)).unwrap(), proof);
            proof.verify(challenge, &secret(CHALLENGE), cosigner).unwrap();
        }

        let next = IdentityCard::from_text(vector.text("next")).unwrap();
        let mut succession = Succession::new(cosigner, KeyPlace::Backup, next, challenge.expires);
        let shared = agreed(BACKUP, &wallet.static_public);
        assert_eq!(HEXLOWER.encode(shared.expose()), vector.text("succession_agreed"));
        succession.vouch(&wallet.identifier, KeyPlace::Primary, &shared).unwrap();
        assert_eq!(succession.to_text(), vector.text("succession"));
        assert_eq!(Succession::from_text(vector.text("succession")).unwrap(), succession);
        let theirs = agreed(WALLET, cosigner.key(KeyPlace::Backup).unwrap());
        succession.verify(cosigner, (&wallet.identifier, KeyPlace::Primary), &theirs).unwrap();

        let list = bip39::Language::English.word_list();
        let phrase = |name: &str| -> String {
            let numbers = vector.file["phrase"][name].as_array().unwrap();
            let words: Vec<&str> = numbers.iter().map(|number| list[number.as_u64().unwrap() as usize]).collect();
            words.join(" ")
        };
        let plan = vector.file["phrase"]["plan"].as_str();
        assert_eq!(over(plan, [wallet, cosigner].into_iter()), phrase("with_plan"));
        assert_eq!(over(None, [cosigner, wallet].into_iter()), phrase("without"));
        assert!(phrase("without").split(' ').all(words::is_listed));
    }
}

/// Every reader refuses every changed byte, every cut, and whatever stands before or behind.
pub(super) fn one_spelling(text: &str, read: impl Fn(&str) -> bool) {
    assert!(read(text));
    for at in 0..text.len() {
        for change in [1u8, 2, 0x20] {
            let mut bytes = text.as_bytes().to_vec();
            bytes[at] ^= change;
            let changed = std::str::from_utf8(&bytes).unwrap();
            assert!(!read(changed), "byte {at} changed by {change}");
        }
        assert!(!read(&text[..at]), "cut to {at}");
    }
    for more in ["\n", " ", "x", "\r\n", "\u{feff}"] {
        assert!(!read(&format!("{text}{more}")) && !read(&format!("{more}{text}")));
    }
    assert!(!read(&text.replace('\n', "\r\n")) && !read(""));
}

/// `text` with some of it replaced, and a checksum that fits: what somebody writes who wants to be believed.
pub(super) fn forged(text: &str, from: &str, to: &str) -> String {
    let body = &text[..text.rfind("checksum: ").unwrap()];
    assert!(body.contains(from), "{from:?} is not in {body}");
    crate::identity::lines::with_checksum(body.replacen(from, to, 1))
}
