//! The commands of the runbook, in its order.

use std::path::PathBuf;

use claviger::error::{Error, ErrorKind, Result};

use super::child::Seat;
use super::place::copy;
use super::play::{Machine, Play};

/// Who answers for a machine, and who watches.
pub(super) const BY: &str = "Ada Lovelace";
const WITNESS: &str = "Grace Hopper";

/// What the machines show after the ceremony.
pub(super) struct Ceremony {
    /// The words of each machine's card, in the order of the plan.
    pub(super) words: Vec<String>,
    /// The phrase that all machines show.
    pub(super) phrase: String,
    /// How `confirm` is typed, but for the phrase.
    pub(super) confirm: Vec<String>,
}

/// Every machine is copied after these steps: mistakes are made with the copies.
pub(super) const EXPORTED: &str = "exported";
pub(super) const CHALLENGED: &str = "challenged";
pub(super) const VERIFIED: &str = "verified";

pub(super) fn words<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    arguments.into_iter().map(str::to_owned).collect()
}

/// Plays all of it.
///
/// # Errors
/// `NotReady` for a command that fails, or phrases that differ.
pub(super) fn play(play: &mut Play<'_>) -> Result<Ceremony> {
    let runner = play.runner;
    play.command("plan", |_| words(["plan", "check", "plan.toml"]))?;
    play.step("key", |machine| {
        let curve = machine.member.curve.to_string();
        let tokens = [Some(&machine.token), machine.backup.as_ref()];
        let make = |locator: &String| runner.ok(&machine.seat, &["token", "generate", "--curve", &curve, locator]);
        tokens.into_iter().flatten().map(make).collect()
    })?;
    let named = |command: &str, machine: &Machine| {
        let begin = [command, "--plan", "plan.toml", "--name", machine.name(), "--token", &machine.token];
        let backup = machine.backup.iter().flat_map(|locator| ["--backup-token", locator]);
        words(begin.into_iter().chain(backup))
    };
    play.command("preflight", |machine| named("preflight", machine))?;
    play.command("identity", |machine| named("init", machine))?;
    play.command("card", |_| words(["export"]))?;
    keep(play, EXPORTED)?;

    // Each from the screen of its own machine.
    let shown = play.command("show", |_| words(["show"]))?;
    let prints = shown.iter().map(|run| run.text("/fingerprint/words")).collect::<Result<Vec<_>>>()?;
    let cards: Vec<(String, &String)> = play.machines.iter().map(Machine::card).zip(&prints).collect();
    play.command("others' cards", |machine| import(cards.iter().filter(|(card, _)| *card != machine.card())))?;
    if proofs_are_given(play) {
        proofs(play)?;
    }
    keep(play, VERIFIED)?;

    let shown = play.command("phrase", |_| words(["phrase"]))?;
    let phrases = shown.iter().map(|run| run.text("/phrase")).collect::<Result<Vec<_>>>()?;
    let phrase = phrases.first().cloned().unwrap_or_default();
    if let Some((_, other)) = phrases.iter().zip(&play.machines).find(|(other, _)| **other != phrase) {
        let what = format!("The phrase of {} differs after a ceremony without a mistake.", other.name());
        return Err(Error::new(ErrorKind::NotReady, what, "Report this as a bug of claviger."));
    }
    let witnesses: Vec<String> = (1..=play.plan.rules.witnesses).map(|number| format!("{WITNESS} {number}")).collect();
    let witnesses = witnesses.iter().flat_map(|name| ["--witness", name]);
    let confirm = words(["confirm", "--by", BY].into_iter().chain(witnesses));
    play.command("confirm", |_| [confirm.clone(), words(["--phrase", &phrase])].concat())?;
    play.command("transcript", |machine| {
        words(["transcript", &format!("{}.transcript.json", machine.name()), "--json"])
    })?;
    play.once("transcripts compared", &words(["transcript", "verify", "*.transcript.json"]))?;
    Ok(Ceremony { words: prints, phrase, confirm })
}

/// Cards, each with its fingerprint, as `import` takes them.
pub(super) fn import<'a>(cards: impl Iterator<Item = &'a (String, &'a String)> + Clone) -> Vec<String> {
    let files = cards.clone().map(|(card, _)| card.as_str());
    let prints = cards.flat_map(|(_, print)| ["--fingerprint", print.as_str()]);
    words(["import"].into_iter().chain(files).chain(prints))
}

/// Challenges, proofs, and their verification.
fn proofs(play: &mut Play<'_>) -> Result<()> {
    let runner = play.runner;
    play.command("challenge", |machine| words(["challenge", &format!("{}.challenge", machine.name())]))?;
    keep(play, CHALLENGED)?;
    play.step("prove", |machine| {
        let prove = |more: &[&str], out: &str| {
            let out = format!("{}.{out}", machine.name());
            let arguments = ["prove", "*.challenge"].iter().chain(more).copied().chain(["--out", &out]);
            runner.ok(&machine.seat, &words(arguments))
        };
        let mut runs = vec![prove(&[], "proofs")?];
        if machine.backup.is_some() {
            runs.push(prove(&["--backup"], "backup.proofs")?);
        }
        Ok(runs)
    })?;
    play.step("verify-proof", |machine| Ok(vec![runner.ok(&machine.seat, &["verify-proof", "*.proofs"])?]))?;
    Ok(())
}

/// Whether the plan demands proofs, and joins anybody who could ask for one.
pub(super) fn proofs_are_given(play: &Play<'_>) -> bool {
    play.plan.rules.proof_of_possession && !play.plan.edges.is_empty()
}

/// Copies every machine as it is now.
fn keep(play: &Play<'_>, when: &str) -> Result<()> {
    play.machines.iter().try_for_each(|machine| copy(&machine.seat.home, &kept(play, when, &machine.seat)))
}

/// Where the copy of a machine is.
pub(super) fn kept(play: &Play<'_>, when: &str, seat: &Seat) -> PathBuf {
    play.place.path().join("kept").join(when).join(&seat.name)
}
