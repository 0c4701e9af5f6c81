//! Identity cards: whatever is read is written back byte for byte, and what is refused is refused in words fit for a terminal.

use aws_lc_rs::digest::{SHA256, digest};
use claviger::identity::{IdentityCard, IdentityError, MAX_CARD_LEN};
use data_encoding::HEXLOWER;

/// Reads `data` as a card; then again with a checksum that fits, so that the fields behind it are reached.
pub fn check(data: &[u8]) {
    read(data);
    let marker = b"\nchecksum: ";
    let body = data.windows(marker.len()).position(|window| window == marker).map_or(data, |at| &data[..=at]);
    let sum = HEXLOWER.encode(&digest(&SHA256, body).as_ref()[..8]);
    read(&[body, format!("checksum: {sum}\n").as_bytes()].concat());
}

fn read(card: &[u8]) {
    match IdentityCard::from_bytes(card) {
        Ok(parsed) => {
            assert_eq!(parsed.to_text().as_bytes(), card, "a card has one spelling");
            assert!(card.len() <= MAX_CARD_LEN && card.is_ascii());
            let fingerprint = parsed.fingerprint();
            assert_eq!(fingerprint.matches(&fingerprint.to_string()), Ok(true));
            assert_eq!(fingerprint.matches(&fingerprint.words()), Ok(true));
        }
        Err(error) => {
            assert_eq!(matches!(error, IdentityError::CardSize(_)), card.len() > MAX_CARD_LEN);
            for sentence in [error.to_string(), error.hint()] {
                assert!((1..=1024).contains(&sentence.len()), "{} bytes: {sentence}", sentence.len());
                assert!(!sentence.chars().any(char::is_control), "a terminal would act on {sentence:?}");
            }
        }
    }
}
