//! `plan record` and `add`: a plan into the store, compared first.

use std::fmt::Write as _;
use std::path::Path;

use claviger::ceremony::plan::{Changes, Plan};
use claviger::error::{Error, ErrorKind, Result};
use claviger::identity::IdentityCard;
use claviger::program::{self, COLUMNS, Terminal, shown};
use claviger::store::{Added, Store};
use serde::Serialize;

use super::super::cards::{Refusal, check_by, import_into, import_read, read_cards, type_words, words_shown};
use super::super::open;
use super::super::opened::opened;
use super::report::{ChangesReport, demanded};
use crate::cli::{Add, Cli, Record};
use crate::files::read_plan;
use crate::report::{Print, wrapped};

/// `plan record --json`: `{"name", "fingerprint", "outcome", "changes", "losses"}`; `outcome` is `new` or `already-there`, `changes` those from the plan that
/// was recorded, `null` when there was none.
#[derive(Serialize)]
struct Recorded {
    name: String,
    fingerprint: Print,
    outcome: &'static str,
    changes: Option<ChangesReport>,
    losses: Vec<String>,
}

pub(super) fn record(cli: &Cli, options: &Record, terminal: &Terminal) -> Result<()> {
    let plan = read_plan(&options.file)?;
    let step = Step::new(&open(cli)?, plan)?;
    plan_warnings(&step.plan, terminal);
    let outcome = if step.is_recorded() {
        terminal.note(&format!("The plan \"{}\" was recorded already.", step.plan.name));
        Added::AlreadyThere
    } else {
        let how = step.confirmed(options.fingerprint.as_deref(), "--fingerprint", terminal)?;
        let mut opened = opened(cli, terminal)?;
        step.unchanged(&opened.store)?;
        let outcome = opened.store.set_plan(&step.plan, how)?;
        terminal.note(&format!("The plan \"{}\" is recorded.", step.plan.name));
        outcome
    };
    let recorded = Recorded {
        name: step.plan.name.to_string(),
        fingerprint: step.plan.fingerprint().into(),
        outcome: match outcome {
            Added::New => "new",
            Added::AlreadyThere => "already-there",
        },
        changes: step.changes.as_ref().map(ChangesReport::from),
        losses: step.losses,
    };
    terminal.result("", &recorded)
}

pub(super) fn add(cli: &Cli, options: &Add, terminal: &Terminal) -> Result<()> {
    if options.plan == Path::new("-") {
        let hint = "Name the plan's file; the cards can come from standard input.";
        return Err(Error::new(ErrorKind::PlanInvalid, "A plan is not read from standard input here.", hint));
    }
    let plan = read_plan(&options.plan)?;
    let read = read_cards(&options.import.files)?;
    let step = Step::new(&open(cli)?, plan)?;
    let file = shown(&options.plan);
    let record = format!("Record it with `claviger-ceremony plan record {file}`, then import the cards.");
    match &step.changes {
        None => {
            return Err(Error::new(
                ErrorKind::PlanMismatch,
                "No plan is recorded here to which a member could be added.",
                record,
            ));
        }
        Some(changes) if !changes.only_adds() => {
            let what = format!(
                "The plan {file} does more than add members and edges; nothing was recorded. It has: {}.",
                changes
                    .to_text()
                    .lines()
                    .filter(|line| !line.starts_with('+'))
                    .take(3)
                    .map(squeezed)
                    .collect::<Vec<_>>()
                    .join("; ")
            );
            return Err(Error::new(ErrorKind::PlanMismatch, what, record));
        }
        Some(_) => {}
    }
    // Before the plan is recorded: what `import` would refuse.
    check_by(&step.plan, &read, &step.own, &options.import)?;
    plan_warnings(&step.plan, terminal);
    if step.is_recorded() {
        return import_read(cli, read, &options.import, terminal);
    }
    let how = step.confirmed(options.plan_fingerprint.as_deref(), "--plan-fingerprint", terminal)?;
    let mut opened = opened(cli, terminal)?;
    step.unchanged(&opened.store)?;
    opened.store.set_plan(&step.plan, how)?;
    terminal.note(&format!("The plan \"{}\" is recorded.", step.plan.name));
    import_into(opened, read, &options.import, terminal).inspect_err(|_| {
        terminal.warn("the new plan is recorded; the cards that are missing are left to `claviger-ceremony import`.");
    })
}

fn plan_warnings(plan: &Plan, terminal: &Terminal) {
    plan.warnings().iter().for_each(|warning| terminal.warn(warning));
}

/// A line of changes with single spaces.
fn squeezed(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A plan on its way into a store, and what it changes there.
#[derive(PartialEq, Eq)]
struct Step {
    plan: Plan,
    own: IdentityCard,
    recorded: Option<Plan>,
    changes: Option<Changes>,
    /// What this machine loses, a sentence each.
    losses: Vec<String>,
}

impl Step {
    /// Reads what is recorded, and holds it to the plan.
    fn new(store: &Store, plan: Plan) -> Result<Self> {
        let machine = store.machine()?;
        let own = &machine.card.identifier;
        if plan.member(own).is_none() {
            let what =
                format!("This machine, \"{own}\", is not a member of the plan \"{}\"; it was not recorded.", plan.name);
            let members = plan.members.iter().map(|member| member.identifier.as_str()).collect::<Vec<_>>().join(", ");
            return Err(Error::new(
                ErrorKind::PlanMismatch,
                what,
                format!("Take the plan in which it is. Members of this one are: {members}."),
            ));
        }
        for card in store.cards()? {
            let name = &card.identifier;
            if plan.member(name).is_none() {
                let what = format!(
                    "\"{name}\" is recorded here, and is not a member of the plan \"{}\"; it was not recorded.",
                    plan.name
                );
                let hint = format!(
                    "If it left, first `claviger-ceremony revoke {name} --reason TEXT`, or `claviger-ceremony remove {name}`; else add it to the plan."
                );
                return Err(Error::new(ErrorKind::PlanMismatch, what, hint));
            }
            plan.check_card(&card)?;
        }
        let recorded = store.plan()?;
        let changes = recorded.as_ref().map(|recorded| recorded.changes(&plan));
        let losses = recorded.as_ref().map(|recorded| recorded.losses_by(&plan, own)).unwrap_or_default();
        Ok(Self { own: machine.card, plan, recorded, changes, losses })
    }

    /// What was shown, and whether the plan had to be compared, was decided by the plan that was read before the seal was opened. Under the seal it must be the
    /// same: else somebody changed the file for the time of the question.
    fn unchanged(&self, verified: &Store) -> Result<()> {
        if Self::new(verified, self.plan.clone())? == *self {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::StoreTampered,
            format!(
                "The store's file was changed between the question and the opening of its seal; the plan \"{}\" was not recorded.",
                self.plan.name
            ),
            "If another command ran meanwhile, run this one again. If none did, find out who else writes to that file.",
        ))
    }

    fn is_recorded(&self) -> bool {
        self.changes.as_ref().is_some_and(Changes::is_empty)
    }

    /// Shows what changes and has the plan's words compared; gives how that was done.
    fn confirmed(&self, given: Option<&str>, option: &str, terminal: &Terminal) -> Result<&'static str> {
        let print = self.plan.fingerprint();
        let name = &self.plan.name;
        let mismatch = || {
            Error::new(
                ErrorKind::FingerprintMismatch,
                format!("The words are not those of this plan \"{name}\"; it was not recorded."),
                "Compare it with the others' by `claviger-ceremony plan check`; take the file that all of you have.",
            )
        };
        if let Some(given) = given {
            self.losses.iter().for_each(|loss| terminal.warn(loss));
            return if print.matches(given)? { Ok("fingerprint given") } else { Err(mismatch()) };
        }
        let refused = |refusal| match refusal {
            Refusal::Mismatch => mismatch(),
            Refusal::Declined => Error::new(
                ErrorKind::Declined,
                format!("The words of the plan \"{name}\" were not confirmed; it was not recorded."),
                "Find out its words from who leads, and record it again.",
            ),
        };
        let otherwise = format!("Run it on a terminal, or give the plan's fingerprint with `{option}`.");
        type_words(&print, &self.own.fingerprint(), |words| self.screen(words), refused, &otherwise, terminal)?;
        Ok("words compared")
    }

    /// What is compared, on a screen of 24 lines with the questions: a new plan's rules, or what differs and what is lost.
    fn screen(&self, words: &[&str]) -> String {
        let mut text = format!("{}\n  {:<14} {}\n", self.plan.name, "fingerprint", self.plan.fingerprint());
        if self.changes.is_none() {
            text += &demanded(&self.plan);
        }
        text += &words_shown(words);
        let consequence = match &self.changes {
            None => "Recorded, the plan says whose cards this machine takes, and who of them is a peer.",
            Some(changes) => {
                let (changes, losses) = (changes.to_text(), self.losses.join("\n"));
                let losses = some(&wrapped_lines(&losses), SHOWN / 2);
                let changes = some(
                    &changes.lines().map(str::to_owned).collect::<Vec<_>>(),
                    SHOWN.saturating_sub(losses.lines().count()),
                );
                let _ = write!(text, "\nIt differs from the recorded plan:\n{changes}{losses}");
                "Recorded, it takes the place of the former plan, and the phrase has to be confirmed anew."
            }
        };
        let question = "Every page of the runbook, and `claviger-ceremony plan check` on the other machines, show all eight words. Compare; then type the two that are left out here.";
        text + "\n" + &wrapped("", consequence) + &wrapped("", question)
    }
}

/// Lines about changes that are shown before a question.
const SHOWN: usize = 9;

fn wrapped_lines(text: &str) -> Vec<String> {
    text.lines().flat_map(|line| program::wrapped(line, 2, COLUMNS)).collect()
}

/// The first `most` lines, of which the last says how many more there are.
fn some(lines: &[String], most: usize) -> String {
    let shown = if lines.len() > most { most.saturating_sub(1) } else { lines.len() };
    let mut text: String = lines.iter().take(shown).map(|line| format!("{line}\n")).collect();
    if lines.len() > shown {
        let _ = writeln!(text, "… and {} more", lines.len() - shown);
    }
    text
}
