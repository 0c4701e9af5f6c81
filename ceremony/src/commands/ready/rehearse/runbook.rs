//! The commands of the runbook, in its order.

use claviger::error::{Error, ErrorKind, Result};

use super::child::Seat;
use super::place::copy;
use super::play::{Machine, Play};

/// Who answers for a machine, and who watches.
const BY: &str = "Ada Lovelace";
const WITNESSES: [&str; 4] = ["Grace Hopper", "Emmy Noether", "Sophie Germain", "Hypatia"];

/// What the machines show after the ceremony, and copies of them from in between, for mistakes.
pub(super) struct Ceremony {
    /// The words of each machine's card, in the order of the plan.
    pub(super) words: Vec<String>,
    /// The phrase that all machines show.
    pub(super) phrase: String,
    /// How `confirm` is typed, but for the phrase.
    pub(super) confirm: Vec<String>,
}

/// Copies of every machine as it was after a step.
pub(super) const EXPORTED: &str = "exported";
pub(super) const CHALLENGED: &str = "challenged";
pub(super) const VERIFIED: &str = "verified";

pub(super) fn words(arguments: &[&str]) -> Vec<String> {
    arguments.iter().map(|&argument| argument.to_owned()).collect()
}

/// Plays all of it.
///
/// # Errors
/// `NotReady` for a command that fails, or phrases that differ.
pub(super) fn play(play: &mut Play<'_>) -> Result<Ceremony> {
    let runner = play.runner;
    play.step("token generate", |machine| {
        let curve = machine.member.curve.to_string();
        let tokens = [Some(&machine.token), machine.backup.as_ref()];
        let make = |locator: &String| runner.ok(&machine.seat, &["token", "generate", "--curve", &curve, locator]);
        tokens.into_iter().flatten().map(make).collect()
    })?;
    play.command("init", |machine| {
        let role = machine.member.role.to_string();
        let init = ["init", "--name", machine.name(), "--role", &role, "--plan", "plan.toml", "--token", &machine.token];
        let backup = machine.backup.iter().flat_map(|locator| ["--backup-token", locator]);
        words(&init.into_iter().chain(backup).collect::<Vec<_>>())
    })?;
    play.command("preflight", |_| words(&["preflight"]))?;
    play.command("export", |_| words(&["export"]))?;
    keep(play, EXPORTED)?;
    // Each from the screen of its own machine.
    let shown = play.command("show", |_| words(&["show"]))?;
    let prints = shown.iter().map(|run| run.text("/fingerprint/words")).collect::<Result<Vec<_>>>()?;
    let cards: Vec<(String, String, String)> = play
        .machines
        .iter()
        .zip(&prints)
        .map(|(machine, print)| (machine.name().to_owned(), machine.card(), print.clone()))
        .collect();
    let others = |machine: &Machine| {
        let name = machine.name().to_owned();
        cards.iter().filter(move |(other, ..)| *other != name)
    };
    play.command("import", |machine| {
        let files = others(machine).map(|(_, card, _)| card.as_str());
        let prints = others(machine).flat_map(|(.., print)| ["--fingerprint", print.as_str()]);
        words(&["import"].into_iter().chain(files).chain(prints).collect::<Vec<_>>())
    })?;
    if play.plan.rules.proof_of_possession {
        proofs(play)?;
    }
    keep(play, VERIFIED)?;
    let shown = play.command("phrase", |_| words(&["phrase"]))?;
    let phrases = shown.iter().map(|run| run.text("/phrase")).collect::<Result<Vec<_>>>()?;
    let phrase = phrases.first().cloned().unwrap_or_default();
    if let Some(at) = phrases.iter().position(|other| *other != phrase) {
        let what = format!(
            "The phrases of {} and {} differ after a ceremony without a mistake.",
            play.machines[0].name(),
            play.machines[at].name()
        );
        return Err(Error::new(ErrorKind::NotReady, what, "Report this as a bug of claviger."));
    }
    let witnesses = WITNESSES.iter().take(play.plan.rules.witnesses.into()).flat_map(|name| ["--witness", name]);
    let confirm = words(&["confirm", "--by", BY].into_iter().chain(witnesses).collect::<Vec<_>>());
    play.command("confirm", |_| [confirm.clone(), words(&["--phrase", &phrase])].concat())?;
    play.command("transcript", |machine| words(&["transcript", &format!("{}.transcript", machine.name())]))?;
    let transcripts: Vec<String> =
        play.machines.iter().map(|machine| format!("{}.transcript", machine.name())).collect();
    play.once("transcript verify", |_| [words(&["transcript", "verify"]), transcripts.clone()].concat())?;
    Ok(Ceremony { words: prints, phrase, confirm })
}

/// Challenges, proofs, and their verification.
fn proofs(play: &mut Play<'_>) -> Result<()> {
    let runner = play.runner;
    play.command("challenge", |machine| words(&["challenge", &format!("{}.challenge", machine.name())]))?;
    keep(play, CHALLENGED)?;
    let names: Vec<String> = play.machines.iter().map(|machine| machine.name().to_owned()).collect();
    let of_others = |machine: &Machine, kind: &str| {
        let own = machine.name();
        names.iter().filter(|name| *name != own).map(|name| format!("{name}.{kind}")).collect::<Vec<_>>()
    };
    play.step("prove", |machine| {
        let challenges = of_others(machine, "challenge");
        let prove = |out: String, more: &[&str]| {
            let arguments = [words(&["prove"]), challenges.clone(), words(&["--out", &out]), words(more)].concat();
            runner.ok(&machine.seat, &arguments)
        };
        let mut runs = vec![prove(format!("{}.proof", machine.name()), &[])?];
        if machine.backup.is_some() {
            runs.push(prove(format!("{}.backup-proof", machine.name()), &["--backup"])?);
        }
        Ok(runs)
    })?;
    let backup = play.plan.rules.backup_token;
    play.command("verify-proof", |machine| {
        let backups = if backup { of_others(machine, "backup-proof") } else { Vec::new() };
        [words(&["verify-proof"]), of_others(machine, "proof"), backups].concat()
    })?;
    Ok(())
}

/// Copies every machine as it is now.
fn keep(play: &Play<'_>, when: &str) -> Result<()> {
    play.machines.iter().try_for_each(|machine| copy(&machine.seat.home, &kept(play, when, &machine.seat)))
}

/// Where the copy of a machine is.
pub(super) fn kept(play: &Play<'_>, when: &str, seat: &Seat) -> std::path::PathBuf {
    play.place.path().join("kept").join(when).join(&seat.name)
}
