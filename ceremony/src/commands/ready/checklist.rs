//! What was checked, and how it came out.

use claviger::error::{Error, ErrorKind, Result};
use claviger::program::{COLUMNS, wrapped};
use serde::{Deserialize, Serialize};

/// Where the sentences begin.
const INDENT: usize = 20;

/// How a check came out. In JSON `ok`, `warn`, `fail`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    Ok,
    /// Goes, and somebody should know.
    Warn,
    Fail,
}

/// `{"check", "verdict", "message", "hint"}`.
#[derive(Debug, Serialize)]
pub(super) struct Check {
    check: &'static str,
    pub(super) verdict: Verdict,
    /// What was seen.
    message: String,
    /// What to do, where something is.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

/// The checks in the order in which they were made.
#[derive(Default)]
pub(super) struct Checklist(Vec<Check>);

impl Checklist {
    pub(super) fn ok(&mut self, check: &'static str, message: impl Into<String>) {
        self.add(check, Verdict::Ok, message.into(), None);
    }

    pub(super) fn warn(&mut self, check: &'static str, message: impl Into<String>, hint: impl Into<String>) {
        self.add(check, Verdict::Warn, message.into(), Some(hint.into()));
    }

    pub(super) fn fail(&mut self, check: &'static str, message: impl Into<String>, hint: impl Into<String>) {
        self.add(check, Verdict::Fail, message.into(), Some(hint.into()));
    }

    fn add(&mut self, check: &'static str, verdict: Verdict, message: String, hint: Option<String>) {
        self.0.push(Check { check, verdict, message, hint });
    }

    /// What `outcome` gave; an error is a check that failed, with its two sentences.
    ///
    /// # Errors
    /// An interrupt, which ends the command.
    pub(super) fn take<T>(&mut self, check: &'static str, outcome: Result<T>) -> Result<Option<T>> {
        match outcome {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.kind() == ErrorKind::Interrupted => Err(error),
            Err(error) => {
                self.fail(check, error.to_string(), error.hint());
                Ok(None)
            }
        }
    }

    pub(super) fn checks(&self) -> &[Check] {
        &self.0
    }

    /// The names of the checks that failed, each once.
    pub(super) fn failed(&self) -> Vec<&'static str> {
        let mut failed: Vec<&str> = Vec::new();
        for check in self.0.iter().filter(|check| check.verdict == Verdict::Fail) {
            if !failed.contains(&check.check) {
                failed.push(check.check);
            }
        }
        failed
    }

    /// The refusal, if a check failed.
    pub(super) fn outcome(&self) -> Result<()> {
        let failed = self.failed();
        if failed.is_empty() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::NotReady,
            format!("This machine is not ready: {}.", failed.join(", ")),
            "Mend what is marked FAIL above, then run `claviger-ceremony preflight` again.",
        ))
    }

    /// A block for each check, within 80 columns.
    pub(super) fn text(&self) -> String {
        self.0.iter().map(Check::text).collect()
    }
}

impl Check {
    fn text(&self) -> String {
        let verdict = match self.verdict {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
        };
        let mut text = format!("{verdict:<6}{:<14}{}", self.check, self.message);
        if let Some(hint) = &self.hint {
            text += &format!("\n{hint}");
        }
        wrapped(&text, INDENT, COLUMNS).join("\n") + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_named_once() {
        let mut list = Checklist::default();
        list.ok("a", "Fine.");
        list.warn("b", "Well.", "Look.");
        assert!(list.outcome().is_ok());
        list.fail("c", "No.", "Mend it.");
        list.fail("c", "No.", "Mend it.");
        let error = list.outcome().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotReady);
        assert_eq!(error.to_string(), "This machine is not ready: c.");
    }
}
