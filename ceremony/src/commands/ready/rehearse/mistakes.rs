//! What each mistake looks like: made with copies of the machines as they were, and told by nobody but the program that refuses it.

mod cards;
mod later;
mod proofs;

use std::path::{Path, PathBuf};

use claviger::ceremony::plan::Plan;
use claviger::error::{Error, ErrorKind, Result};
use claviger::identity::Identifier;
use serde::Serialize;

use super::child::{Run, Seat};
use super::place::copy;
use super::play::{Machine, Play, each, token_in};
use super::runbook::{Ceremony, kept, proofs_are_given, words};

/// A mistake as it was seen.
#[derive(Debug, Serialize)]
pub(super) struct Seen {
    /// Names it in scripts: `card-swapped`.
    pub(super) mistake: &'static str,
    /// What happens in the room: a sentence.
    pub(super) what: String,
    /// The step at which it is found.
    pub(super) step: &'static str,
    /// The machine at which it is found.
    pub(super) machine: String,
    pub(super) command: String,
    /// It was refused for what it is, and what is wrong was named.
    pub(super) caught: bool,
    /// The refusal; `null` where the command did what it was asked.
    pub(super) kind: Option<String>,
    pub(super) message: Option<String>,
    pub(super) hint: Option<String>,
}

/// A mistake that can be made.
#[derive(Clone, Copy)]
struct Mistake {
    name: &'static str,
    step: &'static str,
    /// What it is refused for.
    kinds: &'static [ErrorKind],
    make: fn(&Scene<'_>) -> Result<Made>,
}

/// What became of it: what happened, where, and the command that should refuse it, and say the word `named`.
struct Made {
    what: String,
    seat: Seat,
    run: Run,
    named: String,
}

/// Where a mistake is made: a stick and machines of its own.
struct Scene<'a> {
    play: &'a Play<'a>,
    ceremony: &'a Ceremony,
    /// The machine at which it is found, and another, joined to it where the plan joins any.
    here: &'a Machine,
    there: &'a Machine,
    path: PathBuf,
}

/// Makes every mistake that this plan lets people make.
///
/// # Errors
/// `NotReady` when a command fails that has to succeed before the mistake can be made.
pub(super) fn all(play: &Play<'_>, ceremony: &Ceremony) -> Result<Vec<Seen>> {
    let proofs = if proofs_are_given(play) { proofs::ALL } else { &[] };
    let mistakes: Vec<Mistake> = cards::ALL.iter().chain(proofs).chain(later::ALL).copied().collect();
    each("mistakes", &mistakes, play.terminal, |mistake| mistake.seen(play, ceremony))
}

impl Mistake {
    fn seen(&self, play: &Play<'_>, ceremony: &Ceremony) -> Result<Seen> {
        let scene = Scene::new(play, ceremony, self.name)?;
        let Made { what, seat, run, named } = (self.make)(&scene)?;
        let said = run.said;
        let caught = said.as_ref().is_some_and(|said| {
            self.kinds.iter().any(|kind| kind.as_str() == said.kind) && said.message.contains(&named)
        });
        let (kind, message, hint) =
            said.map_or((None, None, None), |said| (Some(said.kind), Some(said.message), Some(said.hint)));
        Ok(Seen {
            mistake: self.name,
            what,
            step: self.step,
            machine: seat.name,
            command: run.command,
            caught,
            kind,
            message,
            hint,
        })
    }
}

impl<'a> Scene<'a> {
    fn new(play: &'a Play<'a>, ceremony: &'a Ceremony, name: &str) -> Result<Self> {
        let [first, second, ..] = play.machines.as_slice() else {
            let what = "The plan has fewer than two members.";
            return Err(Error::new(ErrorKind::PlanInvalid, what, "Check it with `claviger-ceremony plan check`."));
        };
        let find = |name: &Identifier| play.machines.iter().find(|machine| machine.member.identifier == *name);
        let joined = play.plan.edges.iter().find_map(|edge| Some((find(&edge.from)?, find(&edge.to)?)));
        let (here, there) = joined.unwrap_or((first, second));
        let path = play.place.directory(&format!("mistakes/{name}"))?;
        copy(&here.seat.stick, &path.join("stick"))?;
        Ok(Self { play, ceremony, here, there, path })
    }

    /// A machine as it was after a step.
    fn seat(&self, machine: &Machine, when: &str) -> Result<Seat> {
        let home = self.path.join(machine.name());
        copy(&kept(self.play, when, &machine.seat), &home)?;
        Ok(Seat { name: machine.name().to_owned(), home, stick: self.path.join("stick") })
    }

    /// A machine that is not one of the plan's, with a key of its own. `init` is what is given to it beside the token.
    fn stranger(&self, curve: &str, init: &[&str]) -> Result<Seat> {
        let home = self.play.place.directory(&relative(self.play, &self.path.join("elsewhere")))?;
        let seat = Seat { name: "another machine".into(), home, stick: self.path.join("stick") };
        let token = token_in(&seat.home, "key")?;
        let runner = self.play.runner;
        runner.ok(&seat, &["token", "generate", "--curve", curve, &token])?;
        let backup = match self.play.plan.rules.backup_token {
            true => Some(token_in(&seat.home, "backup")?),
            false => None,
        };
        if let Some(backup) = &backup {
            runner.ok(&seat, &["token", "generate", "--curve", curve, backup])?;
        }
        let backup = backup.iter().flat_map(|locator| ["--backup-token", locator]);
        runner.ok(&seat, &words(["init", "--token", &token].into_iter().chain(backup).chain(init.iter().copied())))?;
        Ok(seat)
    }

    /// A machine with the other one's name, role and curve, and another key.
    fn impostor(&self) -> Result<Seat> {
        self.stranger(&self.curve(), &["--plan", "plan.toml", "--name", self.there.name()])
    }

    /// Has a machine record the card of the machine at which the mistake is found.
    fn introduced(&self, seat: Seat) -> Result<Seat> {
        let import = ["import", &self.here.card(), "--fingerprint", self.words(self.here)];
        self.play.runner.ok(&seat, &import)?;
        Ok(seat)
    }

    fn curve(&self) -> String {
        self.there.member.curve.to_string()
    }

    /// Writes a machine's card on the stick, over what is there. Gives the words that its screen shows.
    fn export(&self, seat: &Seat, file: &str) -> Result<String> {
        self.play.runner.ok(seat, &["export", file, "--force"])?;
        self.play.runner.ok(seat, &["show"])?.text("/fingerprint/words")
    }

    /// The command that should be refused, and name what is wrong.
    fn made(&self, what: String, seat: Seat, named: &str, arguments: &[impl AsRef<str>]) -> Result<Made> {
        let run = self.play.runner.run(&seat, arguments)?;
        Ok(Made { what, seat, run, named: named.to_owned() })
    }

    /// The words of a machine's card.
    fn words(&self, of: &Machine) -> &'a String {
        let at = self.play.machines.iter().position(|machine| machine.name() == of.name()).unwrap_or_default();
        &self.ceremony.words[at]
    }

    /// `confirm` as everybody types it.
    fn confirm(&self) -> Vec<String> {
        [self.ceremony.confirm.clone(), words(["--phrase", &self.ceremony.phrase])].concat()
    }

    /// The plan with something changed, on the stick as `changed.toml`.
    fn changed_plan(&self, change: impl FnOnce(&mut Plan)) -> Result<Plan> {
        let mut plan = self.play.plan.clone();
        change(&mut plan);
        super::child::write(&self.path.join("stick/changed.toml"), &plan.to_toml())?;
        Ok(plan)
    }
}

fn relative(play: &Play<'_>, path: &Path) -> String {
    path.strip_prefix(play.place.path()).unwrap_or(path).display().to_string()
}
