//! Other machines' preflights, beside this one's.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use claviger::ceremony::plan::{MAX_MEMBERS, Plan};
use claviger::error::{Error, ErrorKind, Result};
use claviger::identity::Identifier;
use claviger::program::shown;
use serde::Deserialize;

use super::checklist::Checklist;
use crate::files::failed;
use crate::report::utc;

/// Longest preflight that is read, in bytes; ours have some 3000.
const MAX_LEN: usize = 64 * 1024;

/// How far clocks may be apart, in seconds.
const APART: u64 = 120;
/// How old a preflight may be, in seconds: it was carried here.
const CARRIED: u64 = 3600;

/// What another machine's preflight says. Names that are not known here are passed over: a later release may add some.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Other {
    preflight: u32,
    ready: bool,
    identifier: Option<String>,
    version: String,
    time: u64,
    plan: Option<OtherPlan>,
    key: Option<Digits>,
}

#[derive(Debug, Clone, Deserialize)]
struct OtherPlan {
    fingerprint: Digits,
}

#[derive(Debug, Clone, Deserialize)]
struct Digits {
    hex: String,
}

/// This machine, as the others are seen.
pub(super) struct This<'a> {
    pub(super) name: Option<&'a Identifier>,
    pub(super) version: &'a str,
    pub(super) time: u64,
    pub(super) plan: Option<&'a Plan>,
    /// The fingerprint of its key, hexadecimal digits.
    pub(super) key: Option<&'a str>,
    /// The fingerprint of its plan, hexadecimal digits.
    pub(super) plan_hex: Option<&'a str>,
}

/// Reads what a machine's `preflight --json` gave; `-` is stdin.
///
/// # Errors
/// `Io`; `NotReady` for something else.
pub(super) fn read(path: &Path) -> Result<Other> {
    let refused = |why: &str| {
        let what = format!("{} is refused: {why}.", shown(path));
        Error::new(
            ErrorKind::NotReady,
            what,
            "Give what `claviger-ceremony preflight --json` printed on the other machine.",
        )
    };
    let bytes = if path == Path::new("-") { bounded(io::stdin().lock()) } else { File::open(path).and_then(bounded) };
    let bytes = bytes.map_err(|error| failed(path, "read", error))?;
    if bytes.len() > MAX_LEN {
        return Err(refused("it is longer than 64 KiB"));
    }
    let other: Other = serde_json::from_slice(&bytes).map_err(|_| refused("it is no machine's preflight"))?;
    if other.preflight != 1 {
        return Err(refused("it is of a release that is not known here"));
    }
    let plain = |text: &str, most: usize| text.len() <= most && text.bytes().all(|byte| byte.is_ascii_graphic());
    let digits = [other.plan.as_ref().map(|plan| &plan.fingerprint), other.key.as_ref()];
    let digits = digits.into_iter().flatten().all(|digits| plain(&digits.hex, 32));
    let name = other.identifier.as_ref().is_none_or(|name| name.parse::<Identifier>().is_ok());
    if !(digits && name && plain(&other.version, 64)) {
        return Err(refused("a name, a version or a fingerprint in it is none"));
    }
    Ok(other)
}

fn bounded(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(MAX_LEN as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Compares; `others` are not empty.
pub(super) fn compare(this: &This<'_>, others: &[Other], list: &mut Checklist) {
    ready(others, list);
    same(
        "versions",
        this.version,
        others.iter().map(|other| (other, other.version.as_str())),
        "Install the same release everywhere.",
        list,
    );
    if this.plan_hex.is_none() && others.iter().all(|other| other.plan.is_none()) {
        list.warn("plans", "No machine has a plan.", "Write one with `claviger-ceremony plan new`, and agree on it.");
    } else {
        same(
            "plans",
            this.plan_hex.unwrap_or("none"),
            others.iter().map(|other| (other, other.plan.as_ref().map_or("none", |plan| &*plan.fingerprint.hex))),
            "Give everybody the same plan file, and compare its words with `claviger-ceremony plan check`.",
            list,
        );
    }
    clocks(this.time, others, list);
    names(this, others, list);
    keys(this, others, list);
    if let Some(plan) = this.plan {
        members(this.name, plan, others, list);
    }
}

impl Other {
    fn name(&self) -> &str {
        self.identifier.as_deref().unwrap_or("a machine without a name")
    }
}

fn ready(others: &[Other], list: &mut Checklist) {
    let not: Vec<&str> = others.iter().filter(|other| !other.ready).map(Other::name).collect();
    if not.is_empty() {
        let machines = if others.len() == 1 { "machine is" } else { "machines are" };
        list.ok("others", format!("{} other {machines} ready by their own word.", others.len()));
    } else {
        list.fail("others", format!("Not ready: {}.", not.join(", ")), "See its own preflight for what to mend there.");
    }
}

fn same<'a>(
    check: &'static str,
    ours: &str,
    theirs: impl Iterator<Item = (&'a Other, &'a str)>,
    hint: &str,
    list: &mut Checklist,
) {
    let differ: Vec<String> =
        theirs.filter(|(_, value)| *value != ours).map(|(other, value)| format!("{} {value}", other.name())).collect();
    if differ.is_empty() {
        list.ok(check, "Equal everywhere.");
    } else {
        list.fail(check, format!("Here {ours}; {}.", differ.join(", ")), hint);
    }
}

fn clocks(now: u64, others: &[Other], list: &mut Checklist) {
    let hint = "Set the clocks, and run it again at the same moment on each.";
    let mut fine = true;
    for other in others {
        let (name, time) = (other.name(), utc(other.time));
        if other.time > now.saturating_add(APART) {
            list.fail("clocks", format!("{name} says {time}, later than now, {}: a clock is wrong.", utc(now)), hint);
        } else if other.time.saturating_add(CARRIED) < now {
            let what = format!("{name} says {time}, and here it is {}: its clock is slow, or that is old.", utc(now));
            list.fail("clocks", what, hint);
        } else if other.time.saturating_add(APART) < now {
            let minutes = (now - other.time) / 60;
            let what = format!("{name} is {minutes} minutes behind, unless its preflight was carried here that long.");
            list.warn("clocks", what, "Compare the times that both show, or run it again at the same moment on each.");
        } else {
            continue;
        }
        fine = false;
    }
    if fine {
        list.ok("clocks", "Within two minutes.");
    }
}

fn names(this: &This<'_>, others: &[Other], list: &mut Checklist) {
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    let named = others.iter().filter_map(|other| other.identifier.as_deref());
    for name in this.name.map(Identifier::as_str).into_iter().chain(named) {
        *count.entry(name).or_default() += 1;
    }
    let several: Vec<&str> = count.iter().filter(|(_, count)| **count > 1).map(|(name, _)| *name).collect();
    let nameless = others.iter().filter(|other| other.identifier.is_none()).count();
    if !several.is_empty() {
        let what = format!("More than one machine is called {}.", several.join(", "));
        let hint =
            "Give each machine its own name in the plan and to `init`; or take out the file that is given twice.";
        list.fail("names", what, hint);
    } else if nameless > 0 {
        let what = format!("{nameless} of the files are of machines that said no name.");
        list.fail("names", what, "Before `init`, give it with `--name NAME` on that machine.");
    } else {
        list.ok("names", "Each is there once.");
    }
}

fn keys(this: &This<'_>, others: &[Other], list: &mut Checklist) {
    let mut owners: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let ours = this.key.map(|key| (key, this.name.map_or("this machine", Identifier::as_str)));
    let theirs = others.iter().filter_map(|other| Some((other.key.as_ref()?.hex.as_str(), other.name())));
    for (key, owner) in ours.into_iter().chain(theirs) {
        let names = owners.entry(key).or_default();
        // The same machine twice is told above.
        if !names.contains(&owner) {
            names.push(owner);
        }
    }
    let shared: Vec<String> =
        owners.into_values().filter(|names| names.len() > 1).map(|names| names.join(" and ")).collect();
    if !shared.is_empty() {
        let what = format!("One key on several machines: {}.", shared.join("; "));
        list.fail(
            "keys",
            what,
            "Make a key for each machine, on a token of its own, with `claviger-ceremony token generate`.",
        );
    } else {
        list.ok("keys", "Different everywhere.");
    }
}

fn members(this: Option<&Identifier>, plan: &Plan, others: &[Other], list: &mut Checklist) {
    debug_assert!(plan.members.len() <= MAX_MEMBERS);
    let there = |name: &str| {
        this.is_some_and(|this| this.as_str() == name)
            || others.iter().any(|other| other.identifier.as_deref() == Some(name))
    };
    let missing: Vec<&str> =
        plan.members.iter().map(|member| member.identifier.as_str()).filter(|name| !there(name)).collect();
    let strangers: Vec<&str> = others
        .iter()
        .filter_map(|other| other.identifier.as_deref())
        .filter(|name| !plan.members.iter().any(|member| member.identifier.as_str() == *name))
        .collect();
    if !missing.is_empty() {
        let hint =
            "Run `claviger-ceremony preflight --json` there, and give its FILE here; before `init` with `--name`.";
        list.fail(
            "members",
            format!("Of the plan's {} members these are missing: {}.", plan.members.len(), missing.join(", ")),
            hint,
        );
    }
    if !strangers.is_empty() {
        let hint = "Take their files out, or let everybody agree on a plan with them.";
        list.fail("members", format!("Not in the plan: {}.", strangers.join(", ")), hint);
    }
    if missing.is_empty() && strangers.is_empty() {
        list.ok("members", format!("All {} of the plan.", plan.members.len()));
    }
}
