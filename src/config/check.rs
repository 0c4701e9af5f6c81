//! Every problem of a file, and not only the first.

use super::{Config, problem};
use crate::error::Error;
use std::ops::Range;
use std::path::Path;

/// Problems that are looked for in one file.
const MOST: usize = 50;

impl Config {
    /// Everything that is wrong with the text of the file at `path`, as far as one can be told from another: after a line that is wrong the rest is read without it.
    /// Empty: [`parse`](Self::parse) takes it.
    pub fn problems(text: &str, path: &Path) -> Vec<Error> {
        let mut found = Vec::new();
        if let Err(error) = text.parse::<toml::Table>() {
            return vec![problem::of_toml(path, text, &error)];
        }
        let mut left = text.to_owned();
        while found.len() < MOST {
            let Err(error) = toml::from_str::<Self>(&left) else { break };
            found.push(problem::of_toml(path, text, &error));
            let Some(without) = error.span().and_then(|span| without(&left, span)) else { return found };
            left = without;
        }
        found.extend(Self::parse(&left, path).err());
        found
    }
}

/// The text with the setting at `span` blanked out, so that what stands behind it keeps its place. `None` when that is no setting by itself.
fn without(text: &str, span: Range<usize>) -> Option<String> {
    let start = text.get(..span.start)?.rfind('\n').map_or(0, |at| at + 1);
    let mut end = text.get(span.end..)?.find('\n').map_or(text.len(), |at| span.end + at);
    loop {
        let setting = text.get(start..end)?;
        if !setting.contains('=') || setting.trim_start().starts_with('[') {
            return None;
        }
        let blank: String =
            setting.chars().map(|c| if c == '\n' { "\n".to_owned() } else { " ".repeat(c.len_utf8()) }).collect();
        let without = format!("{}{blank}{}", &text[..start], &text[end..]);
        if without.parse::<toml::Table>().is_ok() {
            return Some(without);
        }
        // A list goes on over the next line.
        end = text.get(end + 1..)?.find('\n').map_or(text.len(), |at| end + 1 + at);
        if end >= text.len() {
            return None;
        }
    }
}
