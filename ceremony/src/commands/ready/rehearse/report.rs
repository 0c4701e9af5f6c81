//! What a rehearsal shows.

use std::fmt::Write as _;

use claviger::program::{COLUMNS, wrapped};
use serde::Serialize;

use super::mistakes::Seen;
use super::play::Step;
use crate::report::Print;

/// `rehearse --json`; times in milliseconds.
#[derive(Serialize)]
pub(super) struct Report<'a> {
    pub(super) plan: &'a str,
    /// The plan's, as it was given.
    pub(super) fingerprint: Print,
    pub(super) machines: usize,
    pub(super) edges: usize,
    /// The rules of the plan that can not be played: the copy that was played has them not.
    pub(super) without: Vec<&'static str>,
    pub(super) steps: &'a [Step],
    /// What every machine showed.
    pub(super) phrase: &'a str,
    pub(super) mistakes: &'a [Seen],
    pub(super) took_ms: u64,
}

impl Report<'_> {
    /// The names of the mistakes that nothing refused.
    pub(super) fn missed(&self) -> Vec<&'static str> {
        self.mistakes.iter().filter(|seen| !seen.caught).map(|seen| seen.mistake).collect()
    }

    pub(super) fn text(&self, fast: bool) -> String {
        let mut text = format!(
            "Rehearsal of {}: {} machines, {} edges, {} in all.\n",
            self.plan,
            self.machines,
            self.edges,
            seconds(self.took_ms)
        );
        for rule in &self.without {
            let why = match *rule {
                "attestation" => "throw-away keys are in files, and nobody attests those",
                _ => "nobody was there to speak, so words were given on the command line",
            };
            text += &paragraph("  ", &format!("Played without the rule `{rule}`: {why}."), 4);
        }
        text += "\nWHAT IS DONE: what one machine takes, without the people, and all, side by side\n";
        for (at, step) in self.steps.iter().enumerate() {
            let _ = write!(
                text,
                "\n{:>2} {:<22}{:>3} {}  each {}, at most {}; all {}\n",
                at + 1,
                step.step,
                step.machines,
                if step.machines == 1 { "machine " } else { "machines" },
                seconds(step.median_ms),
                seconds(step.longest_ms),
                seconds(step.wall_ms)
            );
            for command in &step.commands {
                text += &paragraph("   $ ", command, 7);
            }
        }
        text += &paragraph("\n", &format!("Every machine showed the phrase \"{}\".", self.phrase), 0);
        if fast {
            text += "No mistake was made; without --fast they are.\n";
            return text;
        }
        text += "\nWHAT MISTAKES LOOK LIKE: each was made, and this was seen\n";
        for (at, seen) in self.mistakes.iter().enumerate() {
            text += &paragraph(&format!("\n{:>2} ", at + 1), &seen.what, 3);
            text += &paragraph("   ", &format!("{}, step \"{}\":", seen.machine, seen.step), 3);
            text += &paragraph("   $ ", &seen.command, 7);
            match (&seen.message, &seen.hint) {
                (Some(message), Some(hint)) => {
                    text += &paragraph("     ", message, 5);
                    text += &paragraph("     ", hint, 5);
                }
                _ => text += "     (it did what it was asked)\n",
            }
            if !seen.caught {
                text += "   NOT CAUGHT: this is no refusal of this mistake.\n";
            }
        }
        let caught = self.mistakes.iter().filter(|seen| seen.caught).count();
        let _ = write!(text, "\n{caught} of {} mistakes were caught.\n", self.mistakes.len());
        text
    }
}

/// Within 80 columns, with `begin` before the first line and blanks before the others.
fn paragraph(begin: &str, text: &str, indent: usize) -> String {
    let blank = if begin.starts_with('\n') { "\n" } else { "" };
    let lines = wrapped(&format!("{}{text}", begin.trim_start_matches('\n')), indent, COLUMNS);
    format!("{blank}{}\n", lines.join("\n"))
}

fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1000, ms % 1000 / 100)
}

#[cfg(test)]
mod tests {
    use claviger::identity::Fingerprint;

    use super::*;

    #[test]
    fn a_mistake_that_was_not_caught_is_told_loudly() {
        let seen = |caught| Seen {
            mistake: "x",
            what: "Something happens.".into(),
            step: "import",
            machine: "wallet".into(),
            command: "claviger-ceremony import x.card".into(),
            caught,
            kind: None,
            message: None,
            hint: None,
        };
        let told = |mistakes: &[Seen]| {
            let report = Report {
                plan: "pair",
                fingerprint: Fingerprint::from_bytes([7; 16]).into(),
                machines: 2,
                edges: 1,
                without: vec!["attestation"],
                steps: &[],
                phrase: "",
                mistakes,
                took_ms: 61_250,
            };
            (report.missed(), report.text(false))
        };
        let (missed, text) = told(&[seen(false), seen(true)]);
        assert_eq!(missed, ["x"]);
        assert!(text.contains("NOT CAUGHT") && text.contains("1 of 2 mistakes were caught"), "{text}");
        assert!(text.contains("61.2 s") && text.contains("Played without the rule `attestation`"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= COLUMNS), "{text}");
        assert!(told(&[seen(true)]).0.is_empty());
    }
}
