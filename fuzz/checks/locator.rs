//! Locators: what is parsed is written in one form that reads as the same key, and what is refused does not repeat a PIN.

use claviger_hsm::{Error, ErrorKind, Locator, Pkcs11Uri};

/// Reads `data` as a locator.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match text.parse::<Locator>() {
        Ok(locator) => {
            let written = locator.to_string();
            let again: Locator = written.parse().unwrap_or_else(|error: Error| panic!("{written}: {error}"));
            assert_eq!(again, locator, "{written}");
            assert_eq!(again.to_string(), written, "a locator has one spelling");
            // In a key file's path only what would be read as something else, or a terminal would act on, is percent-encoded.
            let is_file = matches!(locator, Locator::File(_));
            assert!(is_file || written.bytes().all(|byte| byte.is_ascii_graphic()), "{written:?}");
            assert!(!written.chars().any(char::is_control), "{written:?}");
            assert!(locator.pin_source().is_none_or(std::path::Path::is_absolute), "{written}");
            if let Locator::Pkcs11(uri) = &locator {
                check_uri(uri);
            }
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Locator);
            for sentence in [error.to_string(), error.hint().to_owned()] {
                assert!((1..=512).contains(&sentence.len()), "{} bytes: {sentence}", sentence.len());
                assert!(!sentence.chars().any(char::is_control), "a terminal would act on {sentence:?}");
            }
            // Four digits or more, as a PIN is, and nowhere else: a name that holds the same digits may be shown.
            if let Some((_, pin)) = text.split_once("pin-value=") {
                let is_pin = pin.len() >= 4 && pin.bytes().all(|byte| byte.is_ascii_digit());
                let once = is_pin && text.matches(pin).count() == 1;
                assert!(!once || !error.to_string().contains(pin), "the PIN is repeated: {error}");
            }
        }
    }
}

fn check_uri(uri: &Pkcs11Uri) {
    assert!(uri.token().is_none_or(|token| (1..=32).contains(&token.len())));
    assert!(uri.id().is_none_or(|id| (1..=255).contains(&id.len())));
    assert!(uri.module_path().is_none_or(std::path::Path::is_absolute));
}
