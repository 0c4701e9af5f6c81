//! `preflight`.

use std::path::Path;

use claviger::ceremony::plan::{Member, Plan};
use claviger::error::{ErrorKind, Result};
use claviger::identity::{Curve, Fingerprint, Identifier, KeyPlace};
use claviger::program::{Terminal, store_dir};
use claviger::store::{HeldKey, LogEntry, Machine, SealState, Store};
use serde::Serialize;

use super::checklist::{Check, Checklist};
use super::compare::{self, This};
use super::token::{Found, Wanted, look};
use super::{host, now};
use crate::cli::{Cli, Preflight};
use crate::commands::token::parse;
use crate::files::read_plan;
use crate::report::{Print, utc, wrapped};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// `preflight --json`: what another machine's preflight reads. `time` in seconds since 1970, `key` of this machine's primary key.
#[derive(Serialize)]
struct Report<'a> {
    /// The version of this form.
    preflight: u32,
    ready: bool,
    identifier: Option<&'a str>,
    version: &'static str,
    time: u64,
    plan: Option<PlanSeen<'a>>,
    key: Option<Print>,
    checks: &'a [Check],
}

#[derive(Serialize)]
struct PlanSeen<'a> {
    name: &'a str,
    fingerprint: Print,
}

/// What is here of the store, without its token.
struct Here {
    store: Store,
    machine: Machine,
    plan: Option<Plan>,
    log: Vec<LogEntry>,
    preshared: Vec<HeldKey>,
}

pub(super) fn preflight(cli: &Cli, options: &Preflight, terminal: &Terminal) -> Result<()> {
    let others = options.files.iter().map(|file| compare::read(file)).collect::<Result<Vec<_>>>()?;
    let dir = store_dir(cli.store.as_deref())?;
    let now = now();
    let mut list = Checklist::default();
    list.ok("version", format!("claviger-ceremony {VERSION}."));

    let mut here = here(&dir, &mut list)?;
    let name = name(here.as_ref(), options, &mut list);
    let plan = plan(here.as_ref(), options, &mut list)?;
    let member = plan.as_ref().and_then(|plan| member(plan, name.as_ref(), here.as_ref(), &mut list));
    host::disk(&dir, &mut list);
    host::clock(now, here.as_ref().and_then(|here| here.log.last()), &mut list);
    host::memory(&mut list);
    // Last, so that nobody types a PIN for what could not become ready anyway.
    let mut found =
        tokens(here.as_ref(), options, plan.as_ref(), member.map(|member| member.curve), &mut list, terminal)?;
    if let Some(here) = &mut here {
        seal(here, &mut found, &mut list, terminal)?;
    }
    let key = key(here.as_ref(), &found);
    if !others.is_empty() {
        let hex = |print: Fingerprint| print.to_string().replace(' ', "");
        let (key, plan_hex) = (key.map(hex), plan.as_ref().map(|plan| hex(plan.fingerprint())));
        let this = This {
            name: name.as_ref(),
            version: VERSION,
            time: now,
            plan: plan.as_ref(),
            key: key.as_deref(),
            plan_hex: plan_hex.as_deref(),
        };
        compare::compare(&this, &others, &mut list);
    }

    let report = Report {
        preflight: 1,
        ready: list.failed().is_empty(),
        identifier: name.as_ref().map(Identifier::as_str),
        version: VERSION,
        time: now,
        plan: plan.as_ref().map(|plan| PlanSeen { name: plan.name.as_str(), fingerprint: plan.fingerprint().into() }),
        key: key.map(Print::from),
        checks: list.checks(),
    };
    let text = format!("{}\n{}", list.text(), aloud(name.as_ref(), plan.as_ref(), now));
    terminal.result(&text, &report)?;
    list.outcome()
}

/// What everybody reads out, one machine after the other.
fn aloud(name: Option<&Identifier>, plan: Option<&Plan>, now: u64) -> String {
    let name = name.map_or("this machine", Identifier::as_str);
    let plan = match plan {
        Some(plan) => format!("plan {}:\n{}", plan.name, plan.fingerprint().words()),
        None => "no plan".to_owned(),
    };
    let text = format!("{name}, version {VERSION}, {}, {plan}", utc(now));
    "Read aloud:\n".to_owned() + &wrapped("  ", &text)
}

fn here(dir: &Path, list: &mut Checklist) -> Result<Option<Here>> {
    let store = match Store::open(dir) {
        Err(error) if error.kind() == ErrorKind::StoreAbsent => {
            host::place(dir, list);
            return Ok(None);
        }
        opened => opened,
    };
    let read = store.and_then(|store| {
        let (machine, plan, log) = (store.machine()?, store.plan()?, store.log()?);
        let preshared = store.held_preshared_keys()?;
        Ok(Here { store, machine, plan, log, preshared })
    });
    let here = list.take("store", read)?;
    if let Some(here) = &here {
        let card = &here.machine.card;
        list.ok(
            "store",
            format!("{}, of {}, role {}; closed to others.", here.store.dir().display(), card.identifier, card.role),
        );
        host::above(here.store.dir(), list);
        if !here.preshared.is_empty() {
            let held: String =
                here.preshared.iter().map(|held| format!("\n{}: check value {}", held.peer, held.check)).collect();
            list.ok("psk", format!("Pre-shared keys, each of which the other machine must hold, too:{held}"));
        }
    }
    Ok(here)
}

fn name(here: Option<&Here>, options: &Preflight, list: &mut Checklist) -> Option<Identifier> {
    let recorded = here.map(|here| &here.machine.card.identifier);
    if let (Some(recorded), Some(given)) = (recorded, &options.name)
        && recorded != given
    {
        let what = format!("The store is that of {recorded}, not of {given}.");
        list.fail("store", what, "Name the right store with `--store DIR`, or leave `--name` out.");
    }
    recorded.or(options.name.as_ref()).cloned()
}

/// The plan that is recorded, or given.
fn plan(here: Option<&Here>, options: &Preflight, list: &mut Checklist) -> Result<Option<Plan>> {
    let given = match &options.plan {
        Some(path) => list.take("plan", read_plan(path))?,
        None => None,
    };
    let recorded = here.and_then(|here| here.plan.as_ref());
    if let (Some(recorded), Some(given)) = (recorded, &given)
        && recorded.fingerprint() != given.fingerprint()
    {
        let what = format!(
            "The plan that is given is not the one that is recorded here. Recorded:\n{}\ngiven:\n{}",
            recorded.fingerprint().words(),
            given.fingerprint().words()
        );
        list.fail("plan", what, "Find out which one everybody agreed on, and use no other.");
    }
    let plan = recorded.cloned().or(given);
    match &plan {
        Some(plan) => {
            let how = if recorded.is_some() { "recorded" } else { "given, not recorded yet" };
            let what = format!(
                "{}, {} members; {how}. Its words:\n{}",
                plan.name,
                plan.members.len(),
                plan.fingerprint().words()
            );
            list.ok("plan", what);
        }
        None if options.plan.is_some() => {}
        None => list.warn(
            "plan",
            "None: nobody can say who is missing, or is a stranger.",
            "Write one with `claviger-ceremony plan new`, and give it with `--plan FILE`.",
        ),
    }
    Ok(plan)
}

/// This machine's line of the plan.
fn member<'a>(
    plan: &'a Plan,
    name: Option<&Identifier>,
    here: Option<&Here>,
    list: &mut Checklist,
) -> Option<&'a Member> {
    let Some(name) = name else {
        let what = "Which member this machine will be was not said.";
        list.warn("member", what, "Say it with `--name NAME`, so that role and curve can be compared.");
        return None;
    };
    let Some(member) = plan.member(name) else {
        let what = format!("{name} is not in the plan.");
        list.fail("member", what, "Use the name that the plan has, or let everybody agree on a plan with it.");
        return None;
    };
    match here.map(|here| plan.check_card(&here.machine.card)) {
        Some(Err(error)) => list.fail("member", error.to_string(), error.hint()),
        _ => list.ok("member", format!("{name}, role {}, curve {}.", member.role, member.curve)),
    }
    Some(member)
}

/// The tokens that opened.
fn tokens(
    here: Option<&Here>,
    options: &Preflight,
    plan: Option<&Plan>,
    curve: Option<Curve>,
    list: &mut Checklist,
    terminal: &Terminal,
) -> Result<Vec<(KeyPlace, Found)>> {
    if options.no_token {
        list.warn("token", "Not looked at.", "Run it without `--no-token` before the ceremony.");
        return Ok(Vec::new());
    }
    let (card, machine) = (here.map(|here| &here.machine.card), here.map(|here| &here.machine));
    let recorded = [
        (KeyPlace::Primary, machine.map(|machine| machine.token.as_str()), options.token.as_deref()),
        (
            KeyPlace::Backup,
            machine.and_then(|machine| machine.backup_token.as_deref()),
            options.backup_token.as_deref(),
        ),
    ];
    let mut found = Vec::new();
    for (place, recorded, given) in recorded {
        let check = if place == KeyPlace::Primary { "token" } else { "backup" };
        if let (Some(_), Some(given)) = (here, given)
            && let Some(given) = list.take(check, parse(given))?
            && recorded != Some(given.to_string().as_str())
        {
            let what = "The locator that is given is not the one in the store.";
            list.fail(check, what, "Leave it out: after `init` the store says where the tokens are.");
        }
        let locator = recorded.or(given);
        let Some(locator) = locator else {
            match place {
                KeyPlace::Primary if here.is_none() => list.fail(
                    check,
                    "None was named.",
                    "Give its locator with `--token LOCATOR`; `claviger-ceremony token list` shows it.",
                ),
                KeyPlace::Backup if plan.is_some_and(|plan| plan.rules.backup_token) => list.fail(
                    check,
                    "The plan wants a backup token, and none was named or recorded.",
                    "Give its locator with `--backup-token LOCATOR`, here and to `init`.",
                ),
                _ => {}
            }
            continue;
        };
        let key = card.and_then(|card| card.key(place));
        if let Some(one) = look(&Wanted { place, locator, key, curve, plan }, list, terminal)? {
            found.push((place, one));
        }
    }
    if let [(_, one), (_, other)] = found.as_slice()
        && one.key == other.key
    {
        let hint = "Make the backup key on a token of its own with `claviger-ceremony token generate`.";
        list.fail("backup", "Token and backup token hold one key.", hint);
    }
    Ok(found)
}

/// Opens the seal with a token that it knows: the one in use, or else the other.
fn seal(here: &mut Here, found: &mut [(KeyPlace, Found)], list: &mut Checklist, terminal: &Terminal) -> Result<()> {
    let Some(state) = list.take("seal", here.store.seal_state())? else { return Ok(()) };
    let SealState::Sealed(keys) = state else {
        let what = "The store is not sealed: whoever can write to it can change it unseen.";
        list.fail("seal", what, "Look at `claviger-ceremony peers` first; then seal it with `claviger-ceremony seal`.");
        return Ok(());
    };
    found.sort_by_key(|(place, _)| *place != here.machine.active);
    let Some((_, found)) = found.iter_mut().find(|(_, found)| keys.contains(&found.key)) else {
        let what = "Not verified: no token that it is sealed to was opened.";
        list.warn("seal", what, "Run it again with the token.");
        return Ok(());
    };
    let opened = found.token.seal_key(&found.key, terminal).and_then(|key| here.store.unlock(&key));
    if list.take("seal", opened)?.is_some() {
        let tokens = if keys.len() == 1 { "one token".to_owned() } else { format!("{} tokens", keys.len()) };
        list.ok("seal", format!("Holds, to {tokens}: nothing was changed outside this program."));
    }
    Ok(())
}

fn key(here: Option<&Here>, found: &[(KeyPlace, Found)]) -> Option<Fingerprint> {
    let seen = found.iter().find(|(place, _)| *place == KeyPlace::Primary).map(|(_, found)| &found.key);
    here.map(|here| &here.machine.card.static_public).or(seen).map(Fingerprint::of_key)
}
