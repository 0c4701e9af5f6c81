//! Documents and parts: what is read is written back byte for byte, what is cut is put together, and what is refused is refused in words fit for a terminal.

use aws_lc_rs::digest::{SHA256, digest};
use claviger::Error;
use claviger::ceremony::document::{Document, MAX_BUNDLE_LEN};
use claviger::ceremony::parts::{Parts, is_part, split};
use data_encoding::HEXLOWER;

/// Reads `data` as documents, and as codes that were scanned, a zero byte between them; then the documents again with checksums that fit, so that the fields behind
/// them are reached.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    documents(text);
    documents(&summed(text));
    scanned(text);
    let capacity = 40 + data.first().map_or(0, |byte| usize::from(*byte)) * 4;
    if let Some(pieces) = split(text, capacity) {
        cut(text, &pieces, capacity);
    }
}

fn documents(text: &str) {
    match Document::read_all(text) {
        Ok(documents) => {
            assert!(!documents.is_empty() && text.len() <= MAX_BUNDLE_LEN);
            let mut rest = text;
            for document in documents {
                let written = document.to_text();
                rest = rest.trim_start_matches('\n').strip_prefix(&*written).expect("a document has one spelling");
                assert!(written.starts_with("claviger "), "a {}", document.what());
            }
            assert_eq!(rest.trim_start_matches('\n'), "", "nothing is passed over");
        }
        Err(error) => printable(&error),
    }
}

/// With checksums that fit.
fn summed(text: &str) -> String {
    let (mut all, mut body) = (String::new(), String::new());
    for line in text.split_inclusive('\n') {
        if line.starts_with("checksum: ") {
            let sum = HEXLOWER.encode(&digest(&SHA256, body.as_bytes()).as_ref()[..8]);
            all += &format!("{body}checksum: {sum}\n");
            body.clear();
        } else {
            body += line;
        }
    }
    all + &body
}

fn scanned(text: &str) {
    let mut parts = Parts::default();
    for piece in text.split('\0').filter(|piece| is_part(piece)) {
        if let Err(error) = parts.add(piece) {
            printable(&error);
        }
    }
    match parts.finish() {
        Ok(texts) => assert!(texts.iter().map(String::len).sum::<usize>() <= text.len()),
        Err(error) => printable(&error),
    }
}

fn cut(text: &str, pieces: &[String], capacity: usize) {
    assert!(pieces.iter().all(|piece| piece.len() <= capacity));
    if let [one] = pieces {
        assert_eq!(one, text);
        return;
    }
    let mut parts = Parts::default();
    for piece in pieces.iter().rev().chain(pieces) {
        assert_eq!(parts.add(piece).expect("a part of ours"), 0);
    }
    assert_eq!(parts.finish().expect("all parts"), [text]);
}

fn printable(error: &Error) {
    for sentence in [error.to_string(), error.hint().to_owned()] {
        assert!((1..=4096).contains(&sentence.len()), "{} bytes: {sentence}", sentence.len());
        assert!(!sentence.chars().any(char::is_control), "a terminal would act on {sentence:?}");
    }
}
