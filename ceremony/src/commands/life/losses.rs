//! Who could then no longer connect.

use claviger::error::Result;
use claviger::identity::Identifier;
use claviger::program::{self, COLUMNS};
use claviger::store::Store;

use super::now;

/// What ends for this machine when `gone` is a stranger to it, a sentence each; never empty.
pub(in crate::commands) fn losses(store: &Store, own: &Identifier, gone: &Identifier) -> Result<Vec<String>> {
    let losses = match store.plan()? {
        Some(plan) => {
            let now = now();
            let peers = store.peers()?;
            let left = |name: &Identifier| {
                peers.iter().any(|peer| peer.identifier == *name && peer.expires.is_none_or(|expires| expires > now))
            };
            plan.losses_among(own, gone, left)
        }
        None => vec![format!("{own} and {gone} can no longer connect, whoever dials.")],
    };
    if losses.is_empty() {
        return Ok(vec![format!("Nobody is cut off: no edge of the plan joins {own} and {gone}.")]);
    }
    Ok(losses)
}

/// Sentences as a list, wrapped for a terminal of 80 columns.
pub(in crate::commands) fn list(sentences: &[String]) -> String {
    sentences.iter().map(|sentence| wrapped(sentence, "  - ", "    ")).collect::<Vec<_>>().join("\n")
}

/// Words in lines of at most 80 columns.
pub(super) fn wrapped(text: &str, first: &str, next: &str) -> String {
    program::wrapped(&format!("{first}{text}"), next.len(), COLUMNS).join("\n")
}

/// Names in a sentence: `a, b and c`; `nobody`.
pub(super) fn names<T: std::fmt::Display>(names: &[T]) -> String {
    match names {
        [] => "nobody".into(),
        [one] => one.to_string(),
        [first @ .., last] => {
            let first: Vec<String> = first.iter().map(ToString::to_string).collect();
            format!("{} and {last}", first.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_fit_a_terminal() {
        let text = list(&["word ".repeat(40), "x".repeat(100)]);
        assert!(text.lines().filter(|line| !line.contains('x')).all(|line| line.chars().count() <= 80), "{text}");
        assert_eq!(text.lines().filter(|line| line.starts_with("  - ")).count(), 2);
    }

    #[test]
    fn names_are_listed() {
        assert_eq!(names::<&str>(&[]), "nobody");
        assert_eq!(names(&["a"]), "a");
        assert_eq!(names(&["a", "b", "c"]), "a, b and c");
    }
}
