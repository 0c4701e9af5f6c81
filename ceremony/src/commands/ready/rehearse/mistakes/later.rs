//! Mistakes that are found when the set is confirmed, or later.

use std::path::{Path, PathBuf};

use claviger::ceremony::plan::Edge;
use claviger::error::{Error, ErrorKind, Result};
use rusqlite::{Connection, params};

use super::super::child::Seat;
use super::super::play::Machine;
use super::super::runbook::{CHALLENGED, EXPORTED, VERIFIED, import, proofs_are_given, words};
use super::{Made, Mistake, Scene};

pub(super) const ALL: &[Mistake] = &[
    Mistake { name: "member-forgotten", step: "confirm", kinds: &[ErrorKind::CeremonyIncomplete], make: forgotten },
    Mistake { name: "swap-unnoticed", step: "confirm", kinds: &[ErrorKind::FingerprintMismatch], make: swap_unnoticed },
    Mistake { name: "plan-changed", step: "confirm", kinds: &[ErrorKind::FingerprintMismatch], make: plan_changed },
    Mistake {
        name: "plan-changed-unsaid",
        step: "transcripts compared",
        kinds: &[ErrorKind::TranscriptsDiffer],
        make: plan_changed_unsaid,
    },
    Mistake { name: "store-edited", step: "phrase", kinds: &[ErrorKind::StoreTampered], make: store_edited },
    Mistake {
        name: "log-edited",
        step: "phrase",
        kinds: &[ErrorKind::StoreTampered, ErrorKind::StoreCorrupt],
        make: log_edited,
    },
];

fn forgotten(scene: &Scene<'_>) -> Result<Made> {
    let here = scene.seat(scene.here, EXPORTED)?;
    let others: Vec<&Machine> = scene
        .play
        .machines
        .iter()
        .filter(|machine| ![scene.here.name(), scene.there.name()].contains(&machine.name()))
        .collect();
    if !others.is_empty() {
        let cards: Vec<(String, &String)> =
            others.iter().map(|machine| (machine.card(), scene.words(machine))).collect();
        scene.play.runner.ok(&here, &import(cards.iter()))?;
    }
    let what = format!("{}'s card was forgotten at {}.", scene.there.name(), here.name);
    scene.made(what, here, scene.there.name(), &scene.confirm())
}

/// The swapped card's own words are taken for the machine's, and its holder's token answers: what only the phrase finds.
fn swap_unnoticed(scene: &Scene<'_>) -> Result<Made> {
    let (play, runner) = (scene.play, scene.play.runner);
    let here = scene.seat(scene.here, EXPORTED)?;
    let impostor = scene.introduced(scene.impostor()?)?;
    let swapped = scene.export(&impostor, &scene.there.card())?;
    let others = play.machines.iter().filter(|machine| machine.name() != scene.here.name());
    let print = |machine: &Machine| if machine.name() == scene.there.name() { &swapped } else { scene.words(machine) };
    let cards: Vec<(String, &String)> = others.clone().map(|machine| (machine.card(), print(machine))).collect();
    runner.ok(&here, &import(cards.iter()))?;
    if proofs_are_given(play) {
        runner.ok(&here, &["challenge", "swap.challenge"])?;
        let joined = others.filter(|other| play.plan.joins(&scene.here.member.identifier, &other.member.identifier));
        for machine in joined {
            let seat = if machine.name() == scene.there.name() {
                impostor.clone()
            } else {
                scene.seat(machine, CHALLENGED)?
            };
            let out = format!("{}.swap", machine.name());
            runner.ok(&seat, &["prove", "swap.challenge", "--out", &out])?;
            if machine.backup.is_some() {
                runner.ok(
                    &seat,
                    &["prove", "swap.challenge", "--backup", "--out", &format!("{}.backup.swap", machine.name())],
                )?;
            }
        }
        runner.ok(&here, &["verify-proof", "*.swap"])?;
    }
    let what = format!(
        "{}'s card is exchanged, {} takes the words for the machine's that came with it, and the other token answers.",
        scene.there.name(),
        here.name
    );
    scene.made(what, here, "phrase", &scene.confirm())
}

/// A machine that records another plan after everything else is done.
fn with_another_plan(scene: &Scene<'_>) -> Result<Seat> {
    let here = scene.seat(scene.here, VERIFIED)?;
    let (from, to) = (&scene.here.member.identifier, &scene.there.member.identifier);
    let service = "added".parse().map_err(Error::from)?;
    let other_name = format!("{}-changed", scene.play.plan.name).parse().ok();
    let plan = scene.changed_plan(|plan| {
        if plan.joins(from, to) {
            plan.edges.push(Edge { from: from.clone(), to: to.clone(), service });
            plan.edges.sort();
        } else if let Some(name) = other_name {
            plan.name = name;
        }
    })?;
    scene.play.runner.ok(&here, &["plan", "record", "changed.toml", "--fingerprint", &plan.fingerprint().words()])?;
    Ok(here)
}

fn plan_changed(scene: &Scene<'_>) -> Result<Made> {
    let here = with_another_plan(scene)?;
    let what = format!("{} records another plan midway; the others read out their phrase.", here.name);
    scene.made(what, here, "phrase", &scene.confirm())
}

fn plan_changed_unsaid(scene: &Scene<'_>) -> Result<Made> {
    let here = with_another_plan(scene)?;
    let runner = scene.play.runner;
    let phrase = runner.ok(&here, &["phrase"])?.text("/phrase")?;
    runner.ok(&here, &[scene.ceremony.confirm.clone(), words(["--phrase", &phrase])].concat())?;
    let file = format!("{}.transcript.json", here.name);
    // A transcript is not written over another.
    std::fs::remove_file(here.stick.join(&file))
        .map_err(|error| crate::files::failed(Path::new(&file), "remove", error))?;
    runner.ok(&here, &["transcript", &file, "--json"])?;
    let what = format!("{} records another plan midway, and confirms its own phrase without a word.", here.name);
    scene.made(what, here, scene.here.name(), &["transcript", "verify", "*.transcript.json"])
}

/// A store as somebody opens it who has no use for this program.
fn database(seat: &Seat) -> (PathBuf, std::result::Result<Connection, rusqlite::Error>) {
    let path = seat.home.join(".local/share/claviger/store.db");
    let connection = Connection::open(&path);
    (path, connection)
}

fn by_sql(seat: &Seat, edit: impl FnOnce(&Connection) -> rusqlite::Result<usize>) -> Result<()> {
    let (path, connection) = database(seat);
    let failed = |why: String| {
        let what = format!("The store {} could not be edited for the rehearsal: {why}.", path.display());
        Error::new(ErrorKind::Internal, what, "Report this as a bug of claviger.")
    };
    match connection.and_then(|connection| edit(&connection)) {
        Ok(0) => Err(failed("there was nothing to change".into())),
        Ok(_) => Ok(()),
        Err(error) => Err(failed(error.to_string())),
    }
}

fn store_edited(scene: &Scene<'_>) -> Result<Made> {
    let here = scene.seat(scene.here, VERIFIED)?;
    let there = scene.there.name();
    let table = if scene.play.plan.joins(&scene.here.member.identifier, &scene.there.member.identifier) {
        "peers"
    } else {
        "cards"
    };
    // The key of an attacker: here the one of a card that was never in the room.
    let key = scene.play.runner.ok(&scene.impostor()?, &["show"])?.text("/static_public_key")?;
    by_sql(&here, |store| {
        store.execute(&format!("UPDATE {table} SET static_public = ?1 WHERE identifier = ?2"), params![key, there])
    })?;
    let what = format!("Somebody with the disk of {} puts another key in the place of {there}'s.", here.name);
    scene.made(what, here, there, &["phrase"])
}

fn log_edited(scene: &Scene<'_>) -> Result<Made> {
    let here = scene.seat(scene.here, VERIFIED)?;
    by_sql(&here, |store| {
        let trigger: String =
            store.query_row("SELECT sql FROM sqlite_schema WHERE name = 'log_update'", [], |row| row.get(0))?;
        store.execute_batch("DROP TRIGGER log_update")?;
        let changed = store.execute("UPDATE log SET time = time - 3600 WHERE sequence = 2", [])?;
        store.execute_batch(&trigger)?;
        Ok(changed)
    })?;
    let what = format!("Somebody with the disk of {} sets an entry of its ceremony log back by an hour.", here.name);
    scene.made(what, here, "log", &["phrase"])
}
