//! What is wrong with a configuration file, and where.

use crate::error::{Error, ErrorKind};
use std::path::Path;

/// The error for a file, at line and column (both from 1) where known.
pub(super) fn at(path: &Path, place: Option<(usize, usize)>, what: String, nearest: Option<&str>) -> Error {
    let path = path.display();
    let what = match place {
        Some((line, column)) => format!("{path}, line {line}, column {column}: {what}."),
        None => format!("{path} {what}."),
    };
    let hint = match nearest {
        Some(name) => format!("Did you mean `{name}`?"),
        None => "Correct the file; docs/claviger.toml lists every key with its meaning.".into(),
    };
    Error::new(ErrorKind::ConfigInvalid, what, hint)
}

/// The error for what `toml` did not take.
pub(super) fn of_toml(path: &Path, text: &str, error: &toml::de::Error) -> Error {
    let place = error.span().map(|span| place(text, span.start));
    let message = error.message().lines().next().unwrap_or_default();
    let nearest = unknown(message).and_then(|(name, expected)| nearest(name, &expected));
    at(path, place, message.trim_end_matches('.').to_owned(), nearest)
}

/// Line and column, from 1, of a byte offset; columns count characters.
fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before[start..].chars().count() + 1)
}

/// The unknown name and the expected ones in serde's messages "unknown field `a`, expected `b` or `c`" and "unknown variant …".
pub(super) fn unknown(message: &str) -> Option<(&str, Vec<&str>)> {
    let rest = message.strip_prefix("unknown field `").or_else(|| message.strip_prefix("unknown variant `"))?;
    let (name, rest) = rest.split_once("`, expected ")?;
    Some((name, rest.split('`').skip(1).step_by(2).collect()))
}

/// The closest of `candidates`, if it is close enough to be what was meant: a third of its letters wrong at most.
fn nearest<'a>(name: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let (distance, nearest) = candidates.iter().map(|candidate| (distance(name, candidate), *candidate)).min()?;
    (distance <= nearest.len().div_ceil(3)).then_some(nearest)
}

/// Letters to insert, delete or replace to make one word of the other (Levenshtein), after `_` is read as `-`.
fn distance(from: &str, to: &str) -> usize {
    let from: Vec<char> = from.to_lowercase().replace('_', "-").chars().collect();
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}
