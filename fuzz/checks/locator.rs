//! PKCS#11 URIs: what is parsed is written in one form that reads as the same key, and what is refused does not repeat a PIN.

use claviger_hsm::{ErrorKind, Pkcs11Uri};

/// Reads `data` as a URI.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match text.parse::<Pkcs11Uri>() {
        Ok(uri) => {
            let written = uri.to_string();
            assert_eq!(written.parse(), Ok(uri.clone()), "{written}");
            assert!(written.bytes().all(|byte| byte.is_ascii_graphic()), "{written:?}");
            assert!(uri.token().is_none_or(|token| (1..=32).contains(&token.len())));
            assert!(uri.id().is_none_or(|id| (1..=255).contains(&id.len())));
            assert!(uri.module_path().is_none_or(|path| path.is_absolute()));
            assert!(uri.pin_source().is_none_or(|path| path.is_absolute()));
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
