//! What is wrong with a configuration file, and where.

use crate::error::{Error, ErrorKind, spelling};
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
    let (place, message, nearest) = spelling::of_toml(text, error);
    at(path, place, message.to_owned(), nearest)
}
