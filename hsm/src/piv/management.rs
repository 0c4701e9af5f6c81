//! The management key, which a card wants from whoever makes keys (SP 800-73-4, part 2, section 3.2.4 and appendix A.1).
//!
//! A block cipher key, shown by mutual authentication: the card proves that it has it, too, before anything is made.

use aws_lc_rs::cipher::{
    AES_128, AES_192, AES_256, Algorithm as Aes, DecryptingKey, DecryptionContext, EncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::{constant_time, rand};
use des::TdesEde3;
use des::cipher::{Block, BlockDecrypt as _, BlockEncrypt as _, KeyInit as _};
use zeroize::Zeroizing;

use super::application::{self, Facts, get_data, if_there};
use crate::curve::library_failed;
use crate::error::{Error, ErrorKind, Result};
use crate::secret::Pin;
use crate::smartcard::{Command, Exchange, Fault, put, send, tlv};
use crate::token::Touch;

/// The factory's management key of every maker: of 3DES, and of AES-192 on YubiKeys from firmware 5.7 on.
const FACTORY: [u8; 24] = [1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8];

/// SP 800-78-4, table 6-2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    Tdes,
    Aes(&'static Aes, u8),
}

const ALGORITHMS: [Algorithm; 4] =
    [Algorithm::Tdes, Algorithm::Aes(&AES_128, 0x08), Algorithm::Aes(&AES_192, 0x0a), Algorithm::Aes(&AES_256, 0x0c)];

impl Algorithm {
    fn byte(self) -> u8 {
        match self {
            Self::Tdes => 0x03,
            Self::Aes(_, byte) => byte,
        }
    }

    fn key_len(self) -> usize {
        match self {
            Self::Tdes | Self::Aes(_, 0x0a) => 24,
            Self::Aes(_, 0x08) => 16,
            Self::Aes(..) => 32,
        }
    }

    fn block_len(self) -> usize {
        if self == Self::Tdes { 8 } else { 16 }
    }

    /// One block, encrypted or decrypted in place. The lengths fit: [`Managed::algorithms`] chose by the key's, `block` is of [`Self::block_len`].
    fn apply(self, key: &ManagementKey, encrypt: bool, block: &mut [u8]) -> Result<()> {
        let failed = || library_failed("cipher::EncryptingKey");
        match self {
            Self::Tdes => {
                let cipher = TdesEde3::new_from_slice(&key.0).map_err(|_| failed())?;
                let block = Block::<TdesEde3>::from_mut_slice(block);
                if encrypt {
                    cipher.encrypt_block(block)
                } else {
                    cipher.decrypt_block(block)
                }
                Ok(())
            }
            Self::Aes(aes, _) => {
                let key = UnboundCipherKey::new(aes, &key.0).map_err(|_| failed())?;
                if encrypt {
                    EncryptingKey::ecb(key).and_then(|key| key.encrypt(block)).map(drop)
                } else {
                    DecryptingKey::ecb(key).and_then(|key| key.decrypt(block, DecryptionContext::None).map(drop))
                }
                .map_err(|_| failed())
            }
        }
    }
}

/// 16, 24 or 32 bytes. Wiped on drop.
pub(super) struct ManagementKey(Zeroizing<Vec<u8>>);

impl ManagementKey {
    pub(super) fn factory() -> Self {
        Self(Zeroizing::new(FACTORY.to_vec()))
    }

    /// From 32, 48 or 64 hexadecimal digits.
    pub(super) fn parse(text: &Pin) -> Result<Self> {
        let digits = text.expose().trim().as_bytes();
        let odd = || {
            Error::new(
                ErrorKind::PinRequired,
                "What was given cannot be a management key; nothing was sent.",
                "Give 32, 48 or 64 hexadecimal digits.",
            )
        };
        if !matches!(digits.len(), 32 | 48 | 64) {
            return Err(odd());
        }
        let mut key = Zeroizing::new(Vec::with_capacity(digits.len() / 2));
        for pair in digits.chunks_exact(2) {
            let nibble = |digit: u8| char::from(digit).to_digit(16).ok_or_else(odd);
            key.push((nibble(pair[0])? << 4 | nibble(pair[1])?) as u8);
        }
        Ok(Self(key))
    }
}

/// What a card tells of its management key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Managed {
    /// SP 800-78-4's number of its algorithm, where the card tells it.
    algorithm: Option<u8>,
    /// It is the factory's; `None` where the card does not tell.
    pub(super) factory: Option<bool>,
    /// The card wants a touch when it is shown.
    pub(super) touch: bool,
    /// The card itself keeps it, behind the PIN.
    pub(super) behind_pin: bool,
}

impl Managed {
    pub(super) fn read(card: &mut dyn Exchange, facts: &Facts) -> std::result::Result<Self, Fault> {
        let told = match facts.has_metadata() {
            true => application::metadata(card, application::MANAGEMENT)?,
            false => None,
        };
        // Yubico's tools keep in 80{81 flags} that the management key is in the object of printed information (flag 2).
        let behind_pin = facts.yubico.is_some()
            && if_there(get_data(card, application::ADMIN_DATA))?
                .as_deref()
                .and_then(|object| tlv(object, 0x53))
                .and_then(|fields| tlv(fields, 0x80))
                .and_then(|fields| tlv(fields, 0x81))
                .is_some_and(|flags| flags.first().is_some_and(|flags| flags & 2 != 0));
        Ok(Self {
            algorithm: told.as_ref().map(|told| told.algorithm),
            factory: told.as_ref().map(|told| told.factory),
            touch: told.is_some_and(|told| told.touch == Touch::Always),
            behind_pin,
        })
    }

    /// The algorithms to try with a key of that length. None of them is sent the key.
    fn algorithms(&self, key: &ManagementKey) -> impl Iterator<Item = Algorithm> + use<> {
        let (told, length) = (self.algorithm, key.0.len());
        ALGORITHMS
            .into_iter()
            .filter(move |algorithm| algorithm.key_len() == length && told.is_none_or(|told| told == algorithm.byte()))
    }
}

/// The management key that Yubico's tools keep behind the PIN, in `88{89 key}`. The PIN must be verified.
pub(super) fn behind_pin(card: &mut dyn Exchange) -> std::result::Result<ManagementKey, Fault> {
    let object = get_data(card, application::PRINTED)?;
    let key = tlv(&object, 0x53).and_then(|fields| tlv(fields, 0x88)).and_then(|fields| tlv(fields, 0x89));
    let key = key.ok_or(Fault::Malformed("GET DATA", "the printed information holds no management key"))?;
    Ok(ManagementKey(Zeroizing::new(key.to_vec())))
}

/// Shows the card `key` and has it show that it knows it: `80` the witness, `81` a challenge, `82` its answer.
pub(super) fn authenticate(
    card: &mut dyn Exchange,
    managed: &Managed,
    key: &ManagementKey,
    what: &str,
) -> std::result::Result<(), Fault> {
    const NAME: &str = "GENERAL AUTHENTICATE";
    let wrong = |why: &str| {
        Error::new(
            ErrorKind::WrongPin,
            format!("{what} refuses the management key: {why}."),
            "Give the right one; `ykman piv access change-management-key` sets a new one. Nothing counts the tries.",
        )
    };
    let mut ask = |algorithm: Algorithm, fields: &[u8]| {
        send(card, Command::new(NAME, 0x87, algorithm.byte(), application::MANAGEMENT, &put(0x7c, fields)))
    };
    let mut refusal = Fault::Typed(wrong("the card's is of another length"));
    let mut asked = None;
    for algorithm in managed.algorithms(key) {
        match ask(algorithm, &put(0x80, &[])) {
            Ok(answer) => {
                asked = Some((algorithm, answer));
                break;
            }
            // Another algorithm, then.
            Err(fault @ Fault::Status { .. }) => refusal = fault,
            Err(fault) => return Err(fault),
        }
    }
    let Some((algorithm, answer)) = asked else { return Err(refusal) };
    let witness = tlv(&answer, 0x7c).and_then(|fields| tlv(fields, 0x80));
    let witness = witness.filter(|witness| witness.len() == algorithm.block_len());
    let mut witness = witness.ok_or(Fault::Malformed(NAME, "the answer is no witness of one block"))?.to_vec();
    algorithm.apply(key, false, &mut witness)?;
    let mut challenge = vec![0; algorithm.block_len()];
    rand::fill(&mut challenge).map_err(|_| library_failed("rand::fill"))?;
    let fields = [&put(0x80, &witness)[..], &put(0x81, &challenge)].concat();
    let answer = match ask(algorithm, &fields) {
        Err(Fault::Status { status: 0x6982 | 0x6a80 | 0x6300..=0x63cf, .. }) => {
            return Err(wrong("it is wrong, or the card was not touched where it wants that").into());
        }
        answer => answer?,
    };
    algorithm.apply(key, true, &mut challenge)?;
    let proof = tlv(&answer, 0x7c).and_then(|fields| tlv(fields, 0x82)).unwrap_or_default();
    constant_time::verify_slices_are_equal(proof, &challenge)
        .map_err(|_| Fault::Malformed(NAME, "the card does not know the management key that it accepts"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    /// FIPS 197, appendix C, and NIST SP 800-67, appendix B (three different keys, first block).
    #[test]
    fn blocks_are_those_of_the_standards() {
        let aes_key = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
        let aes_plain = "00112233445566778899aabbccddeeff";
        for (algorithm, key, plain, sealed) in [
            (ALGORITHMS[0], "0123456789abcdef23456789abcdef01456789abcdef0123", "5468652071756663", "a826fd8ce53b855f"),
            (ALGORITHMS[1], &aes_key[..32], aes_plain, "69c4e0d86a7b0430d8cdb78070b4c55a"),
            (ALGORITHMS[2], &aes_key[..48], aes_plain, "dda97ca4864cdfe06eaf70a0ec0d7191"),
            (ALGORITHMS[3], aes_key, aes_plain, "8ea2b7ca516745bfeafc49904b496089"),
        ] {
            let key = ManagementKey::parse(&Pin::new(key.into()).unwrap()).unwrap();
            let mut block = hex(plain);
            algorithm.apply(&key, true, &mut block).unwrap();
            assert_eq!(block, hex(sealed), "{algorithm:?}");
            algorithm.apply(&key, false, &mut block).unwrap();
            assert_eq!(block, hex(plain), "{algorithm:?}");
        }
    }

    #[test]
    fn a_key_has_hexadecimal_digits() {
        let parse = |text: &str| ManagementKey::parse(&Pin::new(text.into()).unwrap());
        assert_eq!(*parse("010203040506070801020304050607080102030405060708").unwrap().0, FACTORY);
        for text in [
            "01",
            &"0g".repeat(24),
            &"00".repeat(25),
            "\u{00e9}\u{00e9}\u{00e9}\u{00e9}\u{00e9}\u{00e9}\u{00e9}\u{00e9}\u{00e9}\u{00e9}\u{00e9}\u{00e9}\u{00e9}\u{00e9}\u{00e9}\u{00e9}",
        ] {
            assert_eq!(parse(text).err().unwrap().kind(), ErrorKind::PinRequired);
        }
    }

    #[test]
    fn an_algorithm_is_chosen_by_card_and_length() {
        let key = ManagementKey::factory();
        let managed = |algorithm| Managed { algorithm, factory: None, touch: false, behind_pin: false };
        let chosen = |told| managed(told).algorithms(&key).map(Algorithm::byte).collect::<Vec<_>>();
        assert_eq!(chosen(None), [0x03, 0x0a]);
        assert_eq!(chosen(Some(0x0a)), [0x0a]);
        assert!(chosen(Some(0x0c)).is_empty());
    }
}
