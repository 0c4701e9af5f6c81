//! `init`: a machine gets its identity.

use std::path::Path;

use claviger::ceremony::plan::Plan;
use claviger::error::{Error, ErrorKind, Result};
use claviger::identity::{ClientAuthKeys, Curve, IdentityCard, KeyPlace, OnionKeys, Role};
use claviger::program::Terminal;
use claviger::store::{AttestationPolicy, NewMachine, SealKey, Store};
use claviger_hsm::Locator;

use super::fresh::Fresh;
use super::token::{curve_at, parse};
use crate::attestation::{read_root, roots};
use crate::cli::Init;
use crate::files::read_plan;
use crate::report::Identity;

pub(super) fn init(dir: &Path, init: &Init, terminal: &Terminal) -> Result<()> {
    let locator = parse(&init.token)?;
    let backup = init.backup_token.as_deref().map(parse).transpose()?;
    // Before a token costs anybody a PIN or a touch.
    refuse_existing(dir)?;
    if backup.as_ref().is_some_and(|backup| backup.to_string() == locator.to_string()) {
        return Err(Error::new(
            ErrorKind::KeyMismatch,
            "--token and --backup-token are the same: that is no backup. No store was made.",
            "Give the locator of another token with a key of its own.",
        ));
    }
    let plan = init.plan.as_deref().map(read_plan).transpose()?;
    let role = role(init, plan.as_ref())?;
    if let Some(plan) = &plan {
        check(init, plan, &[Some(&locator), backup.as_ref()])?;
    }
    let kept = init.attestation_root.iter().map(|file| read_root(file)).collect::<Result<Vec<_>>>()?;
    let roots = roots(&kept, &[])?;

    let attest = (!init.no_attestation).then_some(&roots);
    let mut seal: Vec<SealKey> = Vec::new();
    let mut first = Fresh::open(&locator, KeyPlace::Primary, attest, terminal)?;
    planned_curve(init, plan.as_ref(), first.key.curve())?;
    if !init.unsealed {
        seal.push(first.seal_key(terminal)?);
    }
    let mut second = None;
    if let Some(locator) = &backup {
        let mut fresh = Fresh::open(locator, KeyPlace::Backup, attest, terminal)?;
        fresh.check_beside(&first, terminal)?;
        if !init.unsealed {
            seal.push(fresh.seal_key(terminal)?);
        }
        second = Some(fresh);
    }

    let (onion, client_auth) = (OnionKeys::generate()?, ClientAuthKeys::generate()?);
    let card = IdentityCard {
        identifier: init.name.clone(),
        role,
        token: first.kind,
        attestation: first.attestation.clone(),
        static_public: first.key.clone(),
        backup: second.as_ref().map(Fresh::backup_key),
        onion_address: onion.address,
        client_auth: client_auth.public,
        suites: init.suites.clone(),
        kem: init.kem.into(),
    };
    if let Some(plan) = &plan {
        plan.check_card(&card)?;
    }
    let required = init.require_attestation || plan.as_ref().is_some_and(|plan| plan.rules.attestation);
    let machine = NewMachine {
        card,
        token: first.locator.clone(),
        backup_token: second.as_ref().map(|second| second.locator.clone()),
        plan,
        onion: onion.secret,
        client_auth: client_auth.secret,
        attestation: AttestationPolicy { required, roots: kept },
    };
    let store = Store::create(dir, &machine, &seal)?;
    if init.unsealed {
        terminal.warn(
            "the store is not sealed: whoever can write to it can change it unseen, and its secrets are in it in the clear. Seal it with \
             `claviger-ceremony seal`.",
        );
    }
    terminal.note(&format!(
        "The store is in {}. Write this machine's card with `claviger-ceremony export`.",
        store.dir().display()
    ));
    let identity = Identity::of_store(&store, &roots)?;
    terminal.result(&identity.text(), &identity)
}

/// The role that was given, or the plan's.
fn role(init: &Init, plan: Option<&Plan>) -> Result<Role> {
    let name = &init.name;
    let member = match plan {
        None => None,
        Some(plan) => Some(plan.member(name).ok_or_else(|| {
            let members: Vec<&str> = plan.members.iter().map(|member| member.identifier.as_str()).collect();
            mismatch(
                format!("The plan \"{}\" has no member \"{name}\".", plan.name),
                &format!("Use a name of the plan: {}.", members.join(", ")),
            )
        })?),
    };
    match (member, &init.role) {
        (Some(member), Some(role)) if member.role != *role => Err(mismatch(
            format!("\"{name}\" is {} in the plan, and {role} by --role.", member.role),
            "Leave --role out, or correct the plan on every machine.",
        )),
        (Some(member), _) => Ok(member.role.clone()),
        (None, Some(role)) => Ok(role.clone()),
        // clap has seen that one of the two is given.
        (None, None) => {
            Err(mismatch("No role is given.".into(), "Give one with `--role ROLE`, or a plan with `--plan FILE`."))
        }
    }
}

/// What the plan says and can be seen without opening a token.
fn check(init: &Init, plan: &Plan, locators: &[Option<&Locator>]) -> Result<()> {
    if plan.rules.backup_token && init.backup_token.is_none() {
        return Err(mismatch(
            format!("The plan \"{}\" demands a backup token, and none is given.", plan.name),
            "Give one with `--backup-token LOCATOR`.",
        ));
    }
    if plan.rules.attestation && init.no_attestation {
        return Err(mismatch(
            format!("The plan \"{}\" demands attestations, and --no-attestation leaves them out.", plan.name),
            "Leave --no-attestation out.",
        ));
    }
    for locator in locators.iter().flatten() {
        if let Some(curve) = curve_at(locator) {
            planned_curve(init, Some(plan), curve)?;
        }
    }
    Ok(())
}

fn planned_curve(init: &Init, plan: Option<&Plan>, curve: Curve) -> Result<()> {
    match plan.and_then(|plan| plan.member(&init.name)) {
        Some(member) if member.curve != curve => Err(mismatch(
            format!("The key is on {curve}, and the plan wants \"{}\" on {}.", init.name, member.curve),
            &format!(
                "Make a key with `claviger-ceremony token generate --curve {}`, and give its locator.",
                member.curve
            ),
        )),
        _ => Ok(()),
    }
}

fn mismatch(what: String, hint: &str) -> Error {
    Error::new(ErrorKind::PlanMismatch, format!("{what} No store was made."), hint)
}

fn refuse_existing(dir: &Path) -> Result<()> {
    match Store::open(dir) {
        Err(error) if error.kind() == ErrorKind::StoreAbsent => Ok(()),
        Err(error) => Err(error),
        Ok(store) => Err(Error::new(
            ErrorKind::StoreExists,
            format!("There is a store in {} already.", store.dir().display()),
            "See it with `claviger-ceremony show`, or name another directory with `--store`.",
        )),
    }
}
