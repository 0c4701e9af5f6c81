//! What is wrong with a file in TOML, and where, in words for whoever wrote it.

/// What `toml` did not take: where (line and column, from 1), its message, and the name that was probably meant.
pub(crate) fn of_toml<'a>(
    text: &str,
    error: &'a toml::de::Error,
) -> (Option<(usize, usize)>, &'a str, Option<&'a str>) {
    let place = error.span().map(|span| place(text, span.start));
    let message = error.message().lines().next().unwrap_or_default();
    let meant = unknown(message).and_then(|(name, expected)| nearest(name, expected));
    (place, message.trim_end_matches('.'), meant)
}

/// Line and column, from 1, of a byte offset; columns count characters.
pub(crate) fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before[start..].chars().count() + 1)
}

/// The unknown name and the expected ones in serde's messages "unknown field `a`, expected `b` or `c`" and "unknown variant …".
pub(crate) fn unknown(message: &str) -> Option<(&str, Vec<&str>)> {
    let rest = message.strip_prefix("unknown field `").or_else(|| message.strip_prefix("unknown variant `"))?;
    let (name, rest) = rest.split_once("`, expected ")?;
    Some((name, rest.split('`').skip(1).step_by(2).collect()))
}

/// The closest of `candidates`, if it is close enough to be what was meant: a third of its letters wrong at most.
pub(crate) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let scored = candidates.into_iter().map(|candidate| (distance(name, candidate), candidate));
    let (distance, nearest) = scored.min()?;
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
