//! A pre-shared key on its way between two machines: the one text of a ceremony that is secret.
//!
//! ```text
//! claviger pre-shared key 1
//! key: 64 lower-case hexadecimal digits
//! checksum: 16 digits
//! ```
//!
//! The key is 32 random bytes. A handshake of its two machines mixes it in beside everything else (`docs/wire-format.md`, "Hybrid handshakes"), so whoever breaks the
//! curve and ML-KEM still needs the text, and whoever finds the text still needs a token.

use aws_lc_rs::{hmac, rand};
use data_encoding::HEXLOWER;

use super::text::Form;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::lines::with_checksum;
use crate::secret::{PresharedKey, SecretBytes, SecretString};

/// Longest text of a pre-shared key, in bytes.
pub const MAX_PRESHARED_KEY_LEN: usize = 128;

/// What the check value is the HMAC of.
const CHECK: &[u8] = b"claviger pre-shared key check 1";

static FORM: Form = Form {
    title: "claviger pre-shared key ",
    version: "1",
    what: "pre-shared key",
    kind: ErrorKind::PresharedKeyInvalid,
    hint: "Carry the file again and unchanged, or make another one with `claviger-ceremony psk new FILE`.",
    max: MAX_PRESHARED_KEY_LEN,
};

/// Makes a key.
///
/// # Errors
/// [`Internal`](crate::ErrorKind::Internal) when there is no randomness.
pub fn generate() -> Result<PresharedKey> {
    let mut bytes = [0; PresharedKey::LEN];
    rand::fill(&mut bytes).map_err(|_| {
        let hint = "Check that the operating system's random generator works, and try again.";
        Error::new(ErrorKind::Internal, "No random key could be made.", hint)
    })?;
    Ok(PresharedKey::take(&mut bytes))
}

/// The key's text, ASCII, at most [`MAX_PRESHARED_KEY_LEN`] bytes.
pub fn to_text(key: &PresharedKey) -> SecretString {
    // Of its full size at once: a text that grows leaves copies behind.
    let mut text = String::with_capacity(MAX_PRESHARED_KEY_LEN);
    text.push_str(FORM.title);
    text.push_str(FORM.version);
    text.push_str("\nkey: ");
    HEXLOWER.encode_append(key.expose(), &mut text);
    text.push('\n');
    SecretString::new(with_checksum(text))
}

/// Reads exactly what [`to_text`] writes.
///
/// # Errors
/// [`PresharedKeyInvalid`](crate::ErrorKind::PresharedKeyInvalid), also for a key of zeros, which stands for none. No message repeats what was read.
pub fn from_text(text: &str) -> Result<PresharedKey> {
    let mut lines = FORM.read(text)?;
    let digits = lines.field("key")?;
    lines.end()?;
    let bytes = SecretBytes::new(HEXLOWER.decode(digits.as_bytes()).unwrap_or_default());
    let key = PresharedKey::from_slice(&bytes);
    let key = key.ok_or_else(|| FORM.refused("The pre-shared key is not 64 lower-case hexadecimal digits.".into()))?;
    if key.expose() == &[0; PresharedKey::LEN] {
        return Err(FORM.refused("The pre-shared key is all zeros, which is none.".into()));
    }
    Ok(key)
}

/// The key's check value, by which people see that two machines recorded the same one: the first 8 bytes of HMAC-SHA-256 under the key over
/// `claviger pre-shared key check 1`, as four groups of four hexadecimal digits. Public: it says nothing of a key of 32 random bytes.
pub fn check_value(key: &PresharedKey) -> String {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.expose()), CHECK);
    let groups: Vec<String> = tag.as_ref()[..8].chunks(2).map(|group| HEXLOWER.encode(group)).collect();
    groups.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> PresharedKey {
        PresharedKey::new(std::array::from_fn(|at| at as u8))
    }

    #[test]
    fn round_trip() {
        let text = to_text(&key());
        assert!(text.len() <= MAX_PRESHARED_KEY_LEN && text.capacity() <= MAX_PRESHARED_KEY_LEN);
        assert_eq!(from_text(&text).unwrap().expose(), key().expose());
        assert_ne!(generate().unwrap().expose(), generate().unwrap().expose());
    }

    /// From Python's hmac and hashlib.
    #[test]
    fn vector() {
        assert_eq!(check_value(&key()), "aa81 5e27 4f33 c6ae");
        assert_eq!(
            *to_text(&key()),
            "claviger pre-shared key 1\nkey: 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\nchecksum: faa8a89f90a4bb03\n"
        );
    }

    #[test]
    fn every_changed_byte_and_every_cut_is_found() {
        let text = to_text(&key());
        for at in 0..text.len() {
            for change in [1u8, 2, 0x20] {
                let mut bytes = text.as_bytes().to_vec();
                bytes[at] ^= change;
                assert!(std::str::from_utf8(&bytes).is_ok_and(|text| from_text(text).is_err()), "byte {at}");
            }
            assert!(from_text(&text[..at]).is_err(), "cut to {at}");
        }
        for bad in [to_text(&PresharedKey::new([0; 32])).to_string(), format!("{}\n", *text), "x".repeat(200)] {
            assert_eq!(from_text(&bad).err().unwrap().kind(), ErrorKind::PresharedKeyInvalid);
        }
    }

    #[test]
    fn no_error_repeats_the_key() {
        let text = to_text(&key());
        for bad in [
            text.replace("000102", "00010g"),
            text.replace("key: ", "kye: "),
            text.replace("checksum: ", "checksum: 0"),
        ] {
            let error = from_text(&bad).err().unwrap();
            assert!(!format!("{error} {} {error:?}", error.hint()).contains("030405"), "{error}");
        }
    }
}
