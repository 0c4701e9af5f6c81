//! The ceremony itself: every command that is typed, in the order of the runbook, several machines side by side.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use claviger::ceremony::plan::{Member, Plan};
use claviger::error::{Error, ErrorKind, Result};
use claviger::program::Terminal;
use claviger_hsm::{FileLocator, Locator};
use data_encoding::HEXLOWER;
use rustix::rand::{GetRandomFlags, getrandom};
use serde::Serialize;

use super::child::{Run, Runner, Seat, quoted, write};
use super::place::Place;

/// A machine of the plan, with throw-away tokens.
pub(super) struct Machine {
    pub(super) member: Member,
    pub(super) seat: Seat,
    /// The locator of its key.
    pub(super) token: String,
    /// That of its backup key, where the plan wants one.
    pub(super) backup: Option<String>,
}

/// The ceremony of a plan, as it is played.
pub(super) struct Play<'a> {
    pub(super) plan: &'a Plan,
    pub(super) runner: &'a Runner,
    pub(super) place: &'a Place,
    pub(super) terminal: &'a Terminal,
    pub(super) machines: Vec<Machine>,
    pub(super) steps: Vec<Step>,
}

/// A step that was played; times in milliseconds.
#[derive(Debug, Serialize)]
pub(super) struct Step {
    pub(super) step: &'static str,
    pub(super) machines: usize,
    /// What the first of them typed.
    pub(super) commands: Vec<String>,
    /// From the first machine's first command to the last one's end, several side by side.
    pub(super) wall_ms: u64,
    /// What a machine took.
    pub(super) median_ms: u64,
    pub(super) longest_ms: u64,
}

impl Machine {
    pub(super) fn name(&self) -> &str {
        self.member.identifier.as_str()
    }

    /// Its card's file on the stick.
    pub(super) fn card(&self) -> String {
        format!("{}.card", self.name())
    }
}

impl<'a> Play<'a> {
    /// Gives every member a home directory, and lays the plan on the stick.
    pub(super) fn new(plan: &'a Plan, runner: &'a Runner, place: &'a Place, terminal: &'a Terminal) -> Result<Self> {
        let stick = place.directory("stick")?;
        write(&stick.join("plan.toml"), &plan.to_toml())?;
        let machines = plan.members.iter().map(|member| {
            let home = place.directory(member.identifier.as_str())?;
            let token = token_in(&home, "key")?;
            let backup = plan.rules.backup_token.then(|| token_in(&home, "backup")).transpose()?;
            let seat = Seat { name: member.identifier.to_string(), home, stick: stick.clone() };
            Ok(Machine { member: member.clone(), seat, token, backup })
        });
        let machines = machines.collect::<Result<Vec<_>>>()?;
        Ok(Self { plan, runner, place, terminal, machines, steps: Vec::new() })
    }

    /// Plays a step at each machine. Gives what each ran.
    pub(super) fn step(
        &mut self,
        step: &'static str,
        work: impl Fn(&Machine) -> Result<Vec<Run>> + Sync,
    ) -> Result<Vec<Vec<Run>>> {
        let began = Instant::now();
        let played = each(step, &self.machines, self.terminal, |machine| {
            let began = Instant::now();
            work(machine).map(|runs| (runs, began.elapsed()))
        })?;
        let wall_ms = milliseconds(began.elapsed());
        let took_part: Vec<_> = played.iter().filter(|(runs, _)| !runs.is_empty()).collect();
        let mut times: Vec<u64> = took_part.iter().map(|(_, took)| milliseconds(*took)).collect();
        times.sort_unstable();
        let first = took_part.first().map_or(&[][..], |(runs, _)| runs);
        self.steps.push(Step {
            step,
            machines: took_part.len(),
            commands: first.iter().map(|run| self.shown(&run.arguments)).collect(),
            wall_ms,
            median_ms: times.get(times.len() / 2).copied().unwrap_or_default(),
            longest_ms: times.last().copied().unwrap_or_default(),
        });
        Ok(played.into_iter().map(|(runs, _)| runs).collect())
    }

    /// A step at one machine, the first.
    pub(super) fn once(&mut self, step: &'static str, arguments: &[String]) -> Result<()> {
        let Some(machine) = self.machines.first() else { return Ok(()) };
        self.terminal.progress(&format!("{step}: 0 of 1"), true, false);
        let run = self.runner.ok(&machine.seat, arguments)?;
        self.terminal.progress(&format!("{step}: 1 of 1"), false, true);
        let ms = milliseconds(run.took);
        let commands = vec![self.shown(&run.arguments)];
        self.steps.push(Step { step, machines: 1, commands, wall_ms: ms, median_ms: ms, longest_ms: ms });
        Ok(())
    }

    /// A command of the first machine as the runbook has it: what is long, and different for each machine, is named.
    fn shown(&self, arguments: &[String]) -> String {
        let mut text: Vec<String> = Vec::new();
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let token = self.machines.iter().find_map(|machine| match argument {
                locator if *locator == machine.token => Some("LOCATOR"),
                locator if Some(locator) == machine.backup.as_ref() => Some("LOCATOR-2"),
                _ => None,
            });
            let card = self.machines.iter().any(|machine| *argument == machine.card());
            let next = match token {
                Some(name) => name.to_owned(),
                None if card => "*.card".to_owned(),
                None if argument == "--fingerprint" || argument == "--phrase" => {
                    let _ = arguments.next();
                    format!("{argument} WORDS")
                }
                None => quoted(argument),
            };
            // Once for all of a kind.
            if text.last() != Some(&next) {
                text.push(next);
            }
        }
        format!("claviger-ceremony {}", text.join(" "))
    }

    /// A step of one command, which must succeed.
    pub(super) fn command(
        &mut self,
        step: &'static str,
        arguments: impl Fn(&Machine) -> Vec<String> + Sync,
    ) -> Result<Vec<Run>> {
        let runner = self.runner;
        let runs = self.step(step, |machine| Ok(vec![runner.ok(&machine.seat, &arguments(machine))?]))?;
        Ok(runs.into_iter().flatten().collect())
    }
}

/// A new key file's locator, and its passphrase beside it, which nobody knows.
pub(super) fn token_in(home: &Path, name: &str) -> Result<String> {
    let mut random = [0; 16];
    getrandom(&mut random, GetRandomFlags::empty()).map_err(|error| {
        Error::new(ErrorKind::Internal, format!("There is no randomness: getrandom: {error}."), "Run it again.")
    })?;
    let passphrase = home.join(format!("{name}.passphrase"));
    write(&passphrase, &HEXLOWER.encode(&random))?;
    let key = home.join(format!("{name}.pem"));
    let locator = FileLocator { path: key, pin_source: Some(passphrase) };
    Ok(Locator::File(locator).to_string())
}

/// Does `work` for each of `items`, as many side by side as there are cores. The first failure, in their order, ends all.
pub(super) fn each<I: Sync, T: Send>(
    what: &str,
    items: &[I],
    terminal: &Terminal,
    work: impl Fn(&I) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let done = Mutex::new(Vec::with_capacity(items.len()));
    let told = |done: usize| {
        terminal.progress(&format!("{what}: {done} of {}", items.len()), done == 0, done == items.len());
    };
    told(0);
    std::thread::scope(|scope| {
        for _ in 0..cores.min(items.len()) {
            scope.spawn(|| {
                while !failed.load(Ordering::SeqCst) {
                    let at = next.fetch_add(1, Ordering::SeqCst);
                    let Some(item) = items.get(at) else { break };
                    let outcome = work(item);
                    failed.fetch_or(outcome.is_err(), Ordering::SeqCst);
                    let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                    done.push((at, outcome));
                    if !failed.load(Ordering::SeqCst) {
                        told(done.len());
                    }
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, outcome)| outcome).collect()
}

pub(super) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_done_in_order_and_ends_with_the_first_failure() {
        let terminal = Terminal::new("test", true, true);
        let items: Vec<usize> = (0..100).collect();
        assert_eq!(each("x", &items, &terminal, |at| Ok(at * 2)).unwrap()[99], 198);
        let tried = AtomicUsize::new(0);
        let outcome = each("x", &items, &terminal, |at| {
            tried.fetch_add(1, Ordering::SeqCst);
            if *at == 3 { Err(Error::new(ErrorKind::Io, "It.", "Mend it.")) } else { Ok(()) }
        });
        assert!(outcome.is_err() && tried.load(Ordering::SeqCst) < 100);
    }
}
