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
            let at = error.span().map_or(usize::MAX, |span| span.start);
            found.push((at, problem::of_toml(path, text, &error)));
            let Some(without) = error.span().and_then(|span| without(&left, span)) else { break };
            left = without;
        }
        if toml::from_str::<Self>(&left).is_ok() {
            // Of values that do not fit each other.
            found.extend(Self::parse(&left, path).err().map(|error| (usize::MAX, error)));
        }
        found.sort_by_key(|(at, _)| *at);
        found.into_iter().map(|(_, error)| error).collect()
    }
}

impl Config {
    /// What a file that is wrong says of where the store and the control socket are; nothing else of it. Defaults where that can not be told.
    pub fn where_to_ask(path: &Path) -> Self {
        let table: toml::Table = super::read(path).ok().and_then(|text| text.parse().ok()).unwrap_or_default();
        let dir = path.parent().unwrap_or(Path::new(""));
        let named = |of: &str, key: &str| Some(dir.join(table.get(of)?.get(key)?.as_str()?));
        let mut config = Self::default();
        (config.store.dir, config.daemon.control) = (named("store", "dir"), named("daemon", "control"));
        config
    }
}

/// The text with the setting, or the table, at `span` blanked out, so that what stands behind it keeps its place. `None` when what is left is no TOML.
fn without(text: &str, span: Range<usize>) -> Option<String> {
    let line_start = |at: usize| text.get(..at).map(|before| before.rfind('\n').map_or(0, |at| at + 1));
    let mut start = line_start(span.start)?;
    let is_table = text.get(start..)?.trim_start().starts_with('[');
    // A value of a list stands on a line after its key's.
    let line_end = text.get(span.end..)?.find('\n').map_or(text.len(), |at| span.end + at);
    while !is_table && !text.get(start..line_end)?.contains('=') {
        start = line_start(start.checked_sub(1)?)?;
    }
    let mut end = span.end;
    loop {
        end = text.get(end..)?.find('\n').map_or(text.len(), |at| end + at);
        // A table goes on to the next one, a list over the next line.
        let goes_on = is_table && text.get(end..)?.trim_start().chars().next().is_some_and(|next| next != '[');
        let blank = |c: char| if c == '\n' { "\n".to_owned() } else { " ".repeat(c.len_utf8()) };
        let blank: String = text.get(start..end)?.chars().map(blank).collect();
        let without = format!("{}{blank}{}", &text[..start], &text[end..]);
        if !goes_on && without.parse::<toml::Table>().is_ok() {
            return Some(without);
        }
        if end == text.len() {
            return None;
        }
        end += 1;
    }
}
