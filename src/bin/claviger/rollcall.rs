//! The roll call on the terminal: edge by edge as it happens, and a table at the end.

use crate::cli::Rollcall;
use crate::run::Stop;
use claviger::Endpoint;
use claviger::endpoint::Direction;
use claviger::endpoint::rollcall::{Edge, Outcome, RollCall, Stage};
use claviger::error::{Error, ErrorKind, Result};
use claviger::program::Terminal;
use serde::Serialize;
use std::cell::RefCell;
use std::time::Duration;
use tokio::time::{Instant, interval};

/// Columns of a terminal.
const WIDTH: usize = 80;

pub(crate) async fn run(endpoint: Endpoint, mut stop: Stop, options: &Rollcall, terminal: &Terminal) -> Result<()> {
    let mut call = RollCall::new(&endpoint, options.only.as_ref())?;
    let name = &endpoint.identity().identifier;
    let (count, listens) = (call.edges().len(), call.listens());
    terminal.note(&format!(
        "Roll call of {name}: {} through {}, at most {}.",
        counted(count, "edge"),
        endpoint.transport_name(),
        lasting(options.timeout),
    ));
    if listens {
        terminal.note("Peers are answered as soon as this machine's address can be reached.");
    }
    let waiting = RefCell::new(Waiting::new(call.edges(), options.timeout));
    let calling = call.run(options.timeout, |edge| {
        waiting.borrow_mut().has_changed(edge);
        if edge.outcome.is_some() {
            told_at_once(edge, terminal);
        }
    });
    let mut ticks = interval(Duration::from_secs(1));
    let telling = async {
        let mut first = true;
        loop {
            ticks.tick().await;
            terminal.progress(&waiting.borrow().to_string(), std::mem::take(&mut first), false);
        }
    };
    let outcome = tokio::select! {
        outcome = calling => outcome,
        stopped = &mut stop => stopped,
        () = telling => Ok(()),
    };
    terminal.progress(&waiting.borrow().to_string(), false, true);
    if terminal.is_json() {
        // Those that have ended were told when they did.
        for edge in call.edges().iter().filter(|edge| edge.outcome.is_none()) {
            terminal.result("", &Line::of(edge))?;
        }
    } else {
        terminal.note("");
        terminal.data(table(call.edges()).as_bytes())?;
    }
    outcome?;
    let failed = call.edges().iter().filter(|edge| !edge.is_present()).count();
    if failed == 0 {
        terminal.note("Every edge works. Compare the words with the other ends.");
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::RollCallFailed,
        format!("{} of {} failed.", counted(failed, "edge"), count),
        "Mend what the reasons say, and run `claviger rollcall` again on both ends; --only NAME tries one machine.",
    ))
}

/// What is still waited for.
struct Waiting {
    left: Vec<(Direction, String, String)>,
    count: usize,
    until: Instant,
}

impl Waiting {
    fn new(edges: &[Edge], patience: Duration) -> Self {
        let left: Vec<_> = edges.iter().map(named).collect();
        Self { count: left.len(), left, until: Instant::now() + patience }
    }

    fn has_changed(&mut self, edge: &Edge) {
        if edge.outcome.is_some() {
            let named = named(edge);
            self.left.retain(|left| *left != named);
        }
    }
}

fn named(edge: &Edge) -> (Direction, String, String) {
    (edge.direction, edge.peer.to_string(), edge.service.to_string())
}

impl std::fmt::Display for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} edges done", self.count - self.left.len(), self.count)?;
        let mut names: Vec<&str> = self.left.iter().map(|(_, peer, _)| peer.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        if !names.is_empty() {
            write!(f, "; waiting for {}", names.join(", "))?;
        }
        write!(f, "; {} left", lasting(self.until.saturating_duration_since(Instant::now())))
    }
}

fn told_at_once(edge: &Edge, terminal: &Terminal) {
    if terminal.is_json() {
        // A stdout that is gone is found when the command ends.
        let _ = terminal.result("", &Line::of(edge));
        return;
    }
    let end = match &edge.outcome {
        Some(Outcome::Present { words, .. }) => words.clone(),
        Some(Outcome::Failed { trouble, stage }) => format!("{}, {}", stage.as_str(), trouble.kind),
        None => return,
    };
    terminal.note(&format!("{} {} ({}): {end}", way(edge.direction), edge.peer, edge.service));
}

fn way(direction: Direction) -> &'static str {
    match direction {
        Direction::Outgoing => "to",
        Direction::Incoming => "from",
    }
}

/// At most [`WIDTH`] columns; the reasons of what failed below it.
fn table(edges: &[Edge]) -> String {
    let mut rows = vec![["", "MACHINE", "SERVICE", "BY", "OPS", "TIME", "WORDS"].map(str::to_owned)];
    let mut reasons: Vec<String> = Vec::new();
    for edge in edges {
        let mut row = [way(edge.direction).to_owned(), edge.peer.to_string(), edge.service.to_string()]
            .into_iter()
            .chain(std::iter::repeat_n("-".to_owned(), 4));
        let mut row: [String; 7] = std::array::from_fn(|_| row.next().unwrap_or_default());
        match &edge.outcome {
            Some(Outcome::Present { pattern, operations, words }) => {
                row[3] = pattern.noise_name().to_owned();
                row[4] = operations.to_string();
                row[5] = seconds(edge.took);
                row[6].clone_from(words);
            }
            Some(Outcome::Failed { trouble, stage }) => {
                row[5] = seconds(edge.took);
                let text = format!("{}: {} {}", trouble.kind, trouble.what, trouble.hint);
                let number = reasons.iter().position(|reason| *reason == text).unwrap_or_else(|| {
                    reasons.push(text);
                    reasons.len() - 1
                });
                row[6] = format!("{} [{}]", stage.as_str(), number + 1);
            }
            None => {
                row[6] = edge.trouble.as_ref().map_or("not yet".into(), |trouble| format!("not yet: {}", trouble.kind))
            }
        }
        rows.push(row);
    }
    // Names give way, words do not.
    let limits = [4, 14, 8, 3, 3, 6, 35];
    let widths: [usize; 7] =
        std::array::from_fn(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0).min(limits[at]));
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(widths).enumerate().map(|(at, (cell, width))| {
            let cell = if at == 6 { cell.clone() } else { shortened(cell, width) };
            if matches!(at, 4 | 5) { format!("{cell:>width$}") } else { format!("{cell:width$}") }
        });
        text.push_str(cells.collect::<Vec<_>>().join(" ").trim_end());
        text.push('\n');
    }
    for (number, reason) in (1..).zip(&reasons) {
        text.push('\n');
        wrap(&mut text, &format!("[{number}] "), reason);
    }
    text
}

fn shortened(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// Adds `text` in lines, those after the first as far in as `label` is long.
fn wrap(out: &mut String, label: &str, text: &str) {
    let mut column = label.len();
    out.push_str(label);
    for (at, word) in text.split(' ').enumerate() {
        let length = word.chars().count();
        if at > 0 && column + 1 + length > WIDTH {
            out.push('\n');
            out.push_str(&" ".repeat(label.len()));
            column = label.len();
        } else if at > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += length;
    }
    out.push('\n');
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn seconds(time: Duration) -> String {
    match time.as_secs() {
        0 => format!("{} ms", time.as_millis()),
        1..100 => format!("{:.1} s", time.as_secs_f64()),
        seconds @ 100..6000 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

fn lasting(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds if seconds % 60 == 0 => format!("{} min", seconds / 60),
        seconds => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}

/// An edge's line with `--json`.
#[derive(Serialize)]
struct Line<'a> {
    direction: &'static str,
    peer: &'a str,
    service: &'a str,
    /// `present` or `failed`; `unfinished` when the roll call was interrupted, with the reason of the last try.
    outcome: &'static str,
    reached: bool,
    authenticated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pattern: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_operations: Option<u32>,
    time_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    words: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
}

impl<'a> Line<'a> {
    fn of(edge: &'a Edge) -> Self {
        let mut line = Self {
            direction: match edge.direction {
                Direction::Outgoing => "outgoing",
                Direction::Incoming => "incoming",
            },
            peer: edge.peer.as_str(),
            service: edge.service.as_str(),
            outcome: "failed",
            reached: edge.is_present(),
            authenticated: edge.is_present(),
            pattern: None,
            token_operations: None,
            time_ms: edge.took.as_millis() as u64,
            words: None,
            reason: None,
            message: None,
            hint: None,
        };
        match &edge.outcome {
            Some(Outcome::Present { pattern, operations, words }) => {
                line.outcome = "present";
                (line.pattern, line.token_operations) = (Some(pattern.noise_name()), Some(*operations));
                line.words = Some(words);
            }
            Some(Outcome::Failed { trouble, stage }) => {
                line.reached = matches!(stage, Stage::Reached | Stage::Authenticated);
                line.authenticated = *stage == Stage::Authenticated;
                line.reason = Some(trouble.kind.as_str());
                (line.message, line.hint) = (Some(trouble.what.as_str()), Some(trouble.hint.as_str()));
            }
            None => {
                line.outcome = "unfinished";
                if let Some(trouble) = &edge.trouble {
                    line.reason = Some(trouble.kind.as_str());
                    (line.message, line.hint) = (Some(trouble.what.as_str()), Some(trouble.hint.as_str()));
                }
            }
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use claviger::wire::Pattern;

    #[test]
    fn the_table_fits_a_terminal() {
        let edge = |direction, peer: &str, outcome| Edge {
            direction,
            peer: peer.parse().unwrap(),
            service: "a-service-with-a-name".parse().unwrap(),
            outcome,
            trouble: None,
            took: Duration::from_millis(99_940),
        };
        let words = "abstract accident addition activity".to_owned();
        let edges = [
            edge(
                Direction::Incoming,
                "a-machine-whose-name-is-long",
                Some(Outcome::Present { pattern: Pattern::Kk1, operations: 1, words }),
            ),
            edge(Direction::Outgoing, "b", None),
        ];
        let text = table(&edges);
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert!(text.contains("abstract accident addition activity") && text.contains("not yet"), "{text}");
    }
}
