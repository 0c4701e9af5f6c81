//! What was found, and how it is shown: a table of targets, and the values behind it.

use crate::measure::{median, quantile, ratio};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;

/// All that a run found.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// The machine and the versions: name and value.
    pub about: Vec<(String, String)>,
    /// What was measured.
    pub values: Vec<Value>,
    /// What that says about the targets.
    pub verdicts: Vec<Verdict>,
    /// Rows that could not be measured here, and why.
    pub skipped: Vec<(String, String)>,
}

/// One subject in one case, all rounds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Value {
    /// The row of the table of targets: `records`.
    pub row: String,
    /// What was done: `seal AES-256-GCM, 16 KiB`.
    pub case: String,
    /// Who did it: `ring`.
    pub subject: String,
    /// `GB/s`, `µs`.
    pub unit: String,
    /// The median of the rounds.
    pub median: f64,
    /// A quarter of the rounds is below.
    pub low: f64,
    /// A quarter of the rounds is above.
    pub high: f64,
}

/// One target.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Verdict {
    /// As in [`Value`].
    pub row: String,
    /// What is compared.
    pub what: String,
    /// Our median.
    pub ours: f64,
    /// Theirs; none where the target is a number of its own.
    pub theirs: Option<f64>,
    /// Who they are.
    pub against: String,
    /// As in [`Value`].
    pub unit: String,
    /// Ours by theirs: the median of the rounds' ratios.
    pub ratio: Option<f64>,
    /// What is to be reached; none for what is only told.
    pub target: Option<Target>,
}

/// A bound of the ratio, or of our own value.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// The ratio is at least this.
    Ratio(f64),
    /// The ratio is at most this.
    RatioBelow(f64),
    /// Our value is at most this.
    Below(f64),
}

/// The rounds of one subject.
pub struct Rounds<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its values.
    pub values: &'a [f64],
}

impl Report {
    /// With what a later run on the same machine found.
    pub fn followed_by(mut self, later: Self) -> Self {
        self.values.extend(later.values);
        self.verdicts.extend(later.verdicts);
        self.skipped.extend(later.skipped);
        self
    }

    /// Notes the rounds of every subject of a case.
    pub fn note(&mut self, row: &str, case: &str, unit: &str, names: &[String], rounds: &[Vec<f64>]) {
        for (name, values) in names.iter().zip(rounds) {
            self.values.push(Value {
                row: row.into(),
                case: case.into(),
                subject: name.clone(),
                unit: unit.into(),
                median: median(values),
                low: quantile(values, 0.25),
                high: quantile(values, 0.75),
            });
        }
    }

    /// Compares ours with theirs.
    pub fn compare(
        &mut self,
        row: &str,
        what: &str,
        unit: &str,
        ours: &[f64],
        theirs: &Rounds<'_>,
        target: Option<Target>,
    ) {
        self.verdicts.push(Verdict {
            row: row.into(),
            what: what.into(),
            ours: median(ours),
            theirs: Some(median(theirs.values)),
            against: theirs.name.into(),
            unit: unit.into(),
            ratio: Some(ratio(ours, theirs.values)),
            target,
        });
    }

    /// The table of targets and the values behind it, for a terminal.
    pub fn text(&self) -> String {
        let mut out = String::new();
        for (name, value) in &self.about {
            let _ = writeln!(out, "{name:10} {value}");
        }
        let _ = writeln!(out);
        out += &columns(&self.verdict_cells());
        for (row, why) in &self.skipped {
            let _ = writeln!(out, "{row}: not measured: {why}");
        }
        for (title, cells) in self.value_tables() {
            let _ = write!(out, "\n{title}\n{}", columns(&cells));
        }
        out
    }

    /// The same in Markdown.
    pub fn markdown(&self) -> String {
        let mut out = String::from("| | |\n|---|---|\n");
        for (name, value) in &self.about {
            let _ = writeln!(out, "| {name} | {value} |");
        }
        let _ = write!(out, "\n{}", piped(&self.verdict_cells()));
        for (row, why) in &self.skipped {
            let _ = writeln!(out, "\n{row}: not measured: {why}");
        }
        for (title, cells) in self.value_tables() {
            let _ = write!(out, "\n### {title}\n\n{}", piped(&cells));
        }
        out
    }

    fn verdict_cells(&self) -> Vec<Vec<String>> {
        let mut cells =
            vec![["what", "ours", "theirs", "who", "ratio", "target", "reached"].map(String::from).to_vec()];
        for verdict in &self.verdicts {
            let with_unit = |value: f64| format!("{} {}", number(value), verdict.unit);
            cells.push(vec![
                format!("{}: {}", verdict.row, verdict.what),
                with_unit(verdict.ours),
                verdict.theirs.map_or("–".into(), with_unit),
                verdict.against.clone(),
                verdict.ratio.map_or("–".into(), |ratio| format!("{ratio:.2}")),
                verdict.target.map_or("–".into(), |target| target.text(&verdict.unit)),
                verdict.met().map_or("", |met| if met { "yes" } else { "no" }).into(),
            ]);
        }
        cells
    }

    /// A table for each row and unit: a line for each case, a column for each subject.
    fn value_tables(&self) -> Vec<(String, Vec<Vec<String>>)> {
        let mut tables = Vec::new();
        let mut titles: Vec<(&str, &str)> = Vec::new();
        for value in &self.values {
            if !titles.contains(&(&value.row, &value.unit)) {
                titles.push((&value.row, &value.unit));
            }
        }
        for (row, unit) in titles {
            let of: Vec<&Value> = self.values.iter().filter(|value| value.row == row && value.unit == unit).collect();
            let (mut cases, mut subjects): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
            for value in &of {
                if !cases.contains(&value.case.as_str()) {
                    cases.push(&value.case);
                }
                if !subjects.contains(&value.subject.as_str()) {
                    subjects.push(&value.subject);
                }
            }
            let mut cells = vec![vec![String::new()]];
            cells[0].extend(subjects.iter().map(ToString::to_string));
            for case in cases {
                let mut line = vec![case.to_owned()];
                line.extend(subjects.iter().map(|subject| {
                    let found = of.iter().find(|value| value.case == case && value.subject == *subject);
                    found.map_or("–".into(), |value| number(value.median))
                }));
                cells.push(line);
            }
            tables.push((format!("{row}, {unit}"), cells));
        }
        tables
    }
}

impl Verdict {
    /// Whether the target is reached.
    pub fn met(&self) -> Option<bool> {
        Some(match self.target? {
            Target::Ratio(bound) => self.ratio? >= bound,
            Target::RatioBelow(bound) => self.ratio? <= bound,
            Target::Below(bound) => self.ours <= bound,
        })
    }
}

impl Target {
    fn text(self, unit: &str) -> String {
        match self {
            Self::Ratio(bound) => format!("≥ {bound}"),
            Self::RatioBelow(bound) => format!("≤ {bound}"),
            Self::Below(bound) => format!("≤ {bound} {unit}"),
        }
    }
}

/// Three digits that matter.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        ..10.0 => format!("{value:.2}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

fn columns(cells: &[Vec<String>]) -> String {
    let wide = |column: usize| cells.iter().filter_map(|line| Some(line.get(column)?.chars().count())).max();
    let widths: Vec<usize> = (0..).map_while(wide).collect();
    let mut out = String::new();
    for line in cells {
        let mut text = String::new();
        for (at, (cell, width)) in line.iter().zip(&widths).enumerate() {
            // Words to the left, numbers to the right.
            let pad = " ".repeat(width - cell.chars().count());
            let numeric = at > 0 && cell.starts_with(|c: char| c.is_ascii_digit() || c == '–');
            text += &if numeric { format!("{pad}{cell}  ") } else { format!("{cell}{pad}  ") };
        }
        out += text.trim_end();
        out.push('\n');
    }
    out
}

fn piped(cells: &[Vec<String>]) -> String {
    let mut out = String::new();
    for (at, line) in cells.iter().enumerate() {
        let _ = writeln!(out, "| {} |", line.join(" | "));
        if at == 0 {
            let _ = writeln!(out, "|{}", "---|".repeat(line.len()));
        }
    }
    out
}
