//! What was found, and how it is told.

use claviger::error::Error;
use claviger::program::{one_line, wrapped};
use serde::Serialize;
use std::borrow::Cow;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Outcome {
    Ok,
    Warning,
    Failed,
    Skipped,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
pub(super) struct Step {
    about: Cow<'static, str>,
    outcome: Outcome,
    what: String,
    /// What mends it, for what is not well.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    /// The typed reason of a failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl Step {
    pub(super) fn ok(about: impl Into<Cow<'static, str>>, what: impl Into<String>) -> Self {
        Self { about: about.into(), outcome: Outcome::Ok, what: what.into(), hint: None, reason: None }
    }

    pub(super) fn skipped(about: impl Into<Cow<'static, str>>, what: impl Into<String>) -> Self {
        Self { outcome: Outcome::Skipped, ..Self::ok(about, what) }
    }

    pub(super) fn warning(
        about: impl Into<Cow<'static, str>>,
        what: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self { outcome: Outcome::Warning, hint: Some(hint.into()), ..Self::ok(about, what) }
    }

    pub(super) fn failed(about: impl Into<Cow<'static, str>>, error: &Error) -> Self {
        Self::told(about, error.kind().as_str(), error.to_string(), error.hint())
    }

    /// A failure that somebody else found.
    pub(super) fn told(
        about: impl Into<Cow<'static, str>>,
        reason: impl Into<String>,
        what: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self { outcome: Outcome::Failed, reason: Some(reason.into()), ..Self::warning(about, what, hint) }
    }
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    steps: Vec<Step>,
}

impl Report {
    pub(super) fn push(&mut self, step: Step) {
        self.steps.push(step);
    }

    pub(super) fn failed(&self) -> usize {
        self.steps.iter().filter(|step| step.outcome == Outcome::Failed).count()
    }

    /// A line for each step, and below what is not well what mends it.
    pub(super) fn page(&self, columns: usize) -> String {
        let width = self.steps.iter().map(|step| step.about.chars().count()).max().unwrap_or(0).min(24);
        let mut page = String::new();
        for Step { about, outcome, what, hint, .. } in &self.steps {
            let mark = match outcome {
                Outcome::Ok => "ok",
                Outcome::Warning => "warning",
                Outcome::Failed => "FAILED",
                Outcome::Skipped => "skipped",
            };
            let first = format!("{mark:<7}  {:<width$}  ", one_line(about));
            let indent = first.chars().count();
            let hint = hint.as_ref().map(|hint| format!("\n{}", one_line(hint))).unwrap_or_default();
            for line in wrapped(&format!("{first}{}{hint}", one_line(what)), indent, columns) {
                page.push_str(line.trim_end());
                page.push('\n');
            }
        }
        page
    }
}
