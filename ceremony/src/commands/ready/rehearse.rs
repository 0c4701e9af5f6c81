//! `rehearse`: the whole ceremony of a plan with throw-away tokens, and what each mistake looks like.

mod child;
mod mistakes;
mod place;
mod play;
mod report;
mod runbook;

use std::time::Instant;

use claviger::ceremony::plan::Plan;
use claviger::error::{Error, ErrorKind, Result};
use claviger::program::Terminal;

pub(crate) use child::in_rehearsal;

use crate::cli::Rehearse;
use crate::files::read_plan;
use child::Runner;
use place::Place;
use play::{Play, milliseconds};
use report::Report;

pub(super) fn rehearse(options: &Rehearse, terminal: &Terminal) -> Result<()> {
    let began = Instant::now();
    let given = read_plan(&options.plan)?;
    let (plan, without) = playable(&given);
    let runner = Runner::begin()?;
    let place = Place::new(options.dir.as_deref())?;
    let mut play = Play::new(&plan, &runner, &place, terminal)?;
    let ceremony = runbook::play(&mut play)?;
    let mistakes = if options.fast { Vec::new() } else { mistakes::all(&play, &ceremony)? };
    let report = Report {
        plan: given.name.as_str(),
        fingerprint: given.fingerprint().into(),
        machines: plan.members.len(),
        edges: plan.edges.len(),
        without,
        steps: &play.steps,
        phrase: &ceremony.phrase,
        mistakes: &mistakes,
        took_ms: milliseconds(began.elapsed()),
    };
    terminal.result(&report.text(options.fast), &report)?;
    if let Some(dir) = &options.dir {
        terminal.note(&format!("What was played is in {}: keys and stores of nobody.", dir.display()));
    }
    let missed = report.missed();
    if missed.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::NotReady,
        format!("Mistakes were made and NOT caught: {}.", missed.join(", ")),
        "Hold no ceremony with this release, and report this as a bug of claviger.",
    ))
}

/// The plan without what nobody can do in a rehearsal, and the names of those rules.
fn playable(given: &Plan) -> (Plan, Vec<&'static str>) {
    let mut plan = given.clone();
    let mut without = Vec::new();
    let rules = [("attestation", &mut plan.rules.attestation), ("words-spoken", &mut plan.rules.words_spoken)];
    for (name, rule) in rules {
        if std::mem::take(rule) {
            without.push(name);
        }
    }
    (plan, without)
}
