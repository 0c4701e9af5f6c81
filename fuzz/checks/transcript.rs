//! Transcripts: what is read is written back with one meaning, comparing it comes to something, and what is refused is refused in words fit for a terminal.

use claviger::Error;
use claviger::ceremony::transcript::{MAX_TRANSCRIPT_LEN, Transcript, compare};

/// Reads `data` as transcripts with zero bytes between them, and compares those that hold.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let read: Vec<Transcript> = text.split('\0').filter_map(one).collect();
    if read.is_empty() {
        return;
    }
    let compared = compare(&read);
    assert!(!compared.rows.is_empty() && compared.rows.len() <= read.len());
    for text in compared.differences.iter().map(|one| &one.text).chain(&compared.warnings) {
        assert!(!text.chars().any(char::is_control), "a terminal would act on {text:?}");
    }
}

fn one(text: &str) -> Option<Transcript> {
    match Transcript::from_json(text) {
        Ok(read) => {
            assert!(text.len() <= MAX_TRANSCRIPT_LEN);
            let written = read.to_json();
            let again = Transcript::from_json(&written).expect("what was written is read");
            assert!(again == read && again.to_json() == written);
            assert!(read.signed_bytes().starts_with(b"claviger transcript 1\n{"));
            Some(read)
        }
        Err(error) => {
            printable(&error);
            None
        }
    }
}

fn printable(error: &Error) {
    for sentence in [error.to_string(), error.hint().to_owned()] {
        assert!((1..=4096).contains(&sentence.len()), "{} bytes: {sentence}", sentence.len());
        assert!(!sentence.chars().any(char::is_control), "a terminal would act on {sentence:?}");
    }
}
