//! `token test`.

use std::time::Duration;

use claviger::error::{Error, ErrorKind, Result};
use claviger::identity::Fingerprint;
use claviger::program::{Terminal, one_line};
use claviger::token::from_hsm;
use claviger_hsm::{Hints, KeepPin, Operation, PinState, Token, TokenKind, Touch, Tries, rehearse};
use serde::Serialize;

use super::shown::{PinReport, pin_text};
use super::{look, parse, static_public};
use crate::cli::Test;
use crate::commands::attend::{self, attend, name};
use crate::report::Print;

/// How many operations are timed.
const OPERATIONS: usize = 10;

/// What an operation without a touch may take in a daemon that is not told otherwise.
const DEADLINE: Duration = Duration::from_secs(2);
/// The same with a touch.
const DEADLINE_TOUCHED: Duration = Duration::from_secs(20);

/// `token test --json`. Times in milliseconds, without the waits for other programs and for somebody to type; where the key wants a touch they
/// are its owner's.
#[derive(Serialize)]
struct Report {
    locator: String,
    token: String,
    backend: String,
    hardware: bool,
    curve: String,
    fingerprint: Print,
    pin_policy: String,
    touch_policy: String,
    operations_ms: Vec<f64>,
    median_ms: f64,
    min_ms: f64,
    max_ms: f64,
    pin_before: PinReport,
    pin_after: PinReport,
    passed: bool,
    /// What is off: sentences for people.
    findings: Vec<String>,
}

pub(super) fn test(test: &Test, terminal: &Terminal) -> Result<()> {
    let locator = parse(&test.locator)?;
    // Opening verifies the PIN: what it was before is seen from outside.
    let seen = match attend::look(terminal, || look::of(&locator)).map_err(from_hsm)?.as_slice() {
        [device] => device.pin,
        _ => None,
    };
    let open = |operation: &mut Operation<'_>| claviger_hsm::open(&locator, None, KeepPin::Once, operation);
    let mut token = attend(terminal, &name(&locator), open)?.answer;
    let public = static_public(token.public_key())?;
    let label = one_line(&token.hints().label);
    terminal.note(&format!("The key of the {label} is on {}, and answers.", public.curve()));
    if token.hints().touch == Touch::Always {
        terminal.note(&format!("It wants a touch for each of the {OPERATIONS} operations that follow."));
    }

    let before = seen.map_or_else(|| token.pin_state().map_err(from_hsm), Ok)?;
    let times = operations(&mut *token, &label, terminal)?;
    let after = token.pin_state().map_err(from_hsm)?;

    let spread = Spread::of(&times);
    let findings = findings(token.hints(), &spread, before, after);
    let hints = token.hints();
    let report = Report {
        locator: locator.to_string(),
        token: label,
        backend: hints.kind.to_string(),
        hardware: hints.hardware,
        curve: public.curve().to_string(),
        fingerprint: Fingerprint::of_key(&public).into(),
        pin_policy: hints.pin.to_string(),
        touch_policy: hints.touch.to_string(),
        operations_ms: times.iter().copied().map(milliseconds).collect(),
        median_ms: milliseconds(spread.median),
        min_ms: milliseconds(spread.min),
        max_ms: milliseconds(spread.max),
        pin_before: before.into(),
        pin_after: after.into(),
        passed: findings.is_empty(),
        findings,
    };
    terminal.result(&report.text(hints, &spread, before, after), &report)?;
    if report.passed {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::TokenFailed,
        format!("The {} did not pass the test.", report.token),
        "Mend what the report names before this key becomes an identity, or take another token.",
    ))
}

/// The operations' times; each is made with a fresh peer, and its secret compared.
fn operations(token: &mut dyn Token, label: &str, terminal: &Terminal) -> Result<Vec<Duration>> {
    let mut times = Vec::with_capacity(OPERATIONS);
    for number in 1..=OPERATIONS {
        let what = format!("{label}, operation {number} of {OPERATIONS}");
        let took = attend(terminal, &what, |operation| rehearse(token, operation))?.took;
        terminal.note(&format!("operation {number:>2} of {OPERATIONS}: {}, as software computes it", shown(took)));
        times.push(took);
    }
    Ok(times)
}

struct Spread {
    median: Duration,
    min: Duration,
    max: Duration,
}

impl Spread {
    /// Of at least one.
    fn of(times: &[Duration]) -> Self {
        let mut sorted = times.to_vec();
        sorted.sort_unstable();
        let at = |index: usize| sorted.get(index).copied().unwrap_or_default();
        let middle = sorted.len() / 2;
        let median =
            if sorted.len().is_multiple_of(2) { (at(middle.saturating_sub(1)) + at(middle)) / 2 } else { at(middle) };
        Self { median, min: at(0), max: at(sorted.len().saturating_sub(1)) }
    }
}

fn findings(hints: &Hints, spread: &Spread, before: PinState, after: PinState) -> Vec<String> {
    let mut findings = Vec::new();
    if lost_tries(before.tries_left, after.tries_left) {
        findings.push(format!("The PIN lost tries: before {}, after {}.", before.tries_left, after.tries_left));
    }
    if before.verified == Some(true) && after.verified == Some(false) {
        findings
            .push("The token forgot that the PIN was verified: other programs have to ask for it again.".to_owned());
    }
    let (deadline, touch) = deadline(hints);
    if spread.max > deadline {
        findings.push(format!(
            "An operation took {}; a daemon gives up after {}{touch}.",
            shown(spread.max),
            shown(deadline)
        ));
    }
    findings
}

/// A right PIN gives tries back, and some cards tell no number while it is verified.
fn lost_tries(before: Tries, after: Tries) -> bool {
    match after {
        Tries::Left(after) => matches!(before, Tries::Left(before) if after < before),
        Tries::Low => !matches!(before, Tries::Low | Tries::Last | Tries::None),
        Tries::Last => !matches!(before, Tries::Last | Tries::None),
        Tries::None => before != Tries::None,
        _ => false,
    }
}

fn deadline(hints: &Hints) -> (Duration, &'static str) {
    match hints.touch {
        Touch::Never | Touch::Unknown => (DEADLINE, ""),
        _ => (DEADLINE_TOUCHED, ", touch included"),
    }
}

impl Report {
    fn text(&self, hints: &Hints, spread: &Spread, before: PinState, after: PinState) -> String {
        let touch = match hints.touch {
            Touch::Always => "always: every operation waits for a person; the times are theirs",
            Touch::Cached => "cached: one touch serves the operations of the next seconds",
            Touch::Never => "never",
            _ => "the token does not tell",
        };
        let pin = if before == after {
            "unchanged"
        } else if lost_tries(before.tries_left, after.tries_left)
            || before.verified == Some(true) && after.verified == Some(false)
        {
            "CHANGED"
        } else {
            "no try lost"
        };
        let (deadline, with_touch) = deadline(hints);
        // A key file's label says what it is.
        let software = if self.hardware || hints.kind == TokenKind::Software { "" } else { ", in SOFTWARE" };
        let mut lines = vec![
            format!("{}{software}: {}", self.token, if self.passed { "passed" } else { "NOT passed" }),
            format!("  operations  {OPERATIONS}, each as software computes it"),
            format!(
                "  time        median {}, min {}, max {}",
                shown(spread.median),
                shown(spread.min),
                shown(spread.max)
            ),
            format!("  touch       {touch}"),
            format!("  PIN         policy {}; {}; {pin}", self.pin_policy, pin_text(after)),
            format!(
                "  handshakes  KK takes 2 operations on each side ({}), KK1 and XK take 1",
                shown(spread.median * 2)
            ),
            format!("  deadline    {} s an operation{with_touch}", deadline.as_secs()),
        ];
        lines.extend(self.findings.iter().map(|finding| format!("  off         {finding}")));
        lines.join("\n") + "\n"
    }
}

fn milliseconds(time: Duration) -> f64 {
    // Microseconds are enough, and few digits to read.
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// `0.31 ms`, `9.1 ms`, `1.2 s`.
fn shown(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    match ms {
        ms if ms < 1.0 => format!("{ms:.2} ms"),
        ms if ms < 1000.0 => format!("{ms:.1} ms"),
        ms => format!("{:.1} s", ms / 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_times() {
        let times: Vec<Duration> = [5, 1, 4, 2].map(Duration::from_millis).to_vec();
        let spread = Spread::of(&times);
        assert_eq!((spread.min.as_millis(), spread.median.as_millis(), spread.max.as_millis()), (1, 3, 5));
        assert_eq!(Spread::of(&times[..3]).median.as_millis(), 4);
    }

    #[test]
    fn lost_tries_are_seen() {
        for (before, after, lost) in [
            (Tries::Left(3), Tries::Left(3), false),
            (Tries::Left(3), Tries::Left(2), true),
            (Tries::Left(2), Tries::Last, true),
            (Tries::Last, Tries::Left(3), false),
            (Tries::Left(3), Tries::Unknown, false),
            (Tries::Unknown, Tries::Left(3), false),
            (Tries::Unknown, Tries::Low, true),
            (Tries::Last, Tries::None, true),
        ] {
            assert_eq!(lost_tries(before, after), lost, "{before:?} {after:?}");
        }
    }

    #[test]
    fn times_are_short_to_read() {
        for (micros, text) in [(310, "0.31 ms"), (9_140, "9.1 ms"), (1_240_000, "1.2 s"), (2_000_000, "2.0 s")] {
            assert_eq!(shown(Duration::from_micros(micros)), text);
        }
    }
}
