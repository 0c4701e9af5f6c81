//! `phrase`.

use std::fmt::Write as _;

use claviger::error::Result;
use claviger::identity::IdentityCard;
use claviger::program::Terminal;
use serde::Serialize;

use super::{Whole, complete, groups, incomplete};
use crate::cli::Cli;
use crate::commands::opened::opened;
use crate::report::Print;

/// What a line may have, so that nothing wraps.
const COLUMNS: usize = 80;

/// Four words of eight letters.
const FOUR_WORDS: usize = 35;

/// `phrase --json`: `{"plan": {"name", "fingerprint"}, "members": [{"identifier", "fingerprint"}], "phrase", "verified"}`. `plan` is `null` in a ceremony without one;
/// `verified`: the store's seal was.
#[derive(Serialize)]
struct Phrase {
    plan: Option<Named>,
    members: Vec<Member>,
    phrase: String,
    verified: bool,
}

#[derive(Serialize)]
struct Named {
    name: String,
    fingerprint: Print,
}

#[derive(Serialize)]
struct Member {
    identifier: String,
    fingerprint: Print,
}

pub(super) fn phrase(cli: &Cli, terminal: &Terminal) -> Result<()> {
    let opened = opened(cli, terminal)?;
    let (whole, missing) = Whole::of(&opened.store)?;
    if !missing.is_empty() {
        return Err(incomplete(&missing, complete(&missing)));
    }
    let named = |plan: &claviger::ceremony::plan::Plan| Named {
        name: plan.name.to_string(),
        fingerprint: plan.fingerprint().into(),
    };
    let phrase = Phrase {
        plan: whole.plan.as_ref().map(named),
        members: whole.cards.iter().map(member).collect(),
        phrase: whole.phrase(),
        verified: opened.token.is_some(),
    };
    terminal.result(&text(&whole, &phrase), &phrase)
}

fn member(card: &IdentityCard) -> Member {
    Member { identifier: card.identifier.to_string(), fingerprint: card.fingerprint().into() }
}

/// To read aloud, from top to bottom.
fn text(whole: &Whole, phrase: &Phrase) -> String {
    let plan = whole.plan.as_ref().map(|plan| (format!("plan {}", plan.name), plan.fingerprint().words()));
    let cards = whole.cards.iter().map(|card| (card.identifier.to_string(), card.fingerprint().words()));
    let mut text = spoken(plan.into_iter().chain(cards).collect());
    let words: Vec<&str> = phrase.phrase.split(' ').collect();
    let _ = write!(text, "\nThe phrase over all of it:\n{}", groups(&words));
    if !phrase.verified {
        text += "\nNot verified against the seal: this store is not sealed.\n";
    }
    text
}

/// Names, each with its words: on one line where all fit, else on two, else under the name.
pub(in crate::commands) fn spoken(rows: Vec<(String, String)>) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let longest = rows.iter().map(|(_, words)| words.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, words) in rows {
        let words: Vec<&str> = words.split(' ').collect();
        let (head, tail) = words.split_at(words.len() / 2);
        let (head, tail) = (head.join(" "), tail.join(" "));
        // Two spaces on each side of the name.
        let _ = if width + longest + 4 <= COLUMNS {
            writeln!(text, "  {name:<width$}  {head} {tail}")
        } else if width + FOUR_WORDS + 4 <= COLUMNS {
            writeln!(text, "  {name:<width$}  {head}\n  {:<width$}  {tail}", "")
        } else {
            writeln!(text, "  {name}\n      {head}\n      {tail}")
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_wider_than_the_terminal() {
        let longest = ["abstract"; 8].join(" ");
        for name in [1, 5, 6, 41, 42, 63, 68] {
            let text = spoken(vec![("a".repeat(name), longest.clone()), ("b".into(), ["zoo"; 8].join(" "))]);
            assert!(text.lines().all(|line| line.len() <= COLUMNS), "{text}");
            assert_eq!(text.split_whitespace().count(), 18);
        }
    }
}
