//! Mistakes with cards.

use claviger::error::{ErrorKind, Result};

use super::super::runbook::{EXPORTED, VERIFIED};
use super::{Made, Mistake, Scene};

pub(super) const ALL: &[Mistake] = &[
    Mistake { name: "card-swapped", step: "others' cards", kinds: &[ErrorKind::FingerprintMismatch], make: swapped },
    Mistake { name: "stranger", step: "others' cards", kinds: &[ErrorKind::PlanMismatch], make: stranger },
    Mistake { name: "wrong-role", step: "others' cards", kinds: &[ErrorKind::PlanMismatch], make: wrong_role },
    Mistake {
        name: "wrong-curve",
        step: "others' cards",
        kinds: &[ErrorKind::PlanMismatch, ErrorKind::NoSharedCurve],
        make: wrong_curve,
    },
    Mistake {
        name: "two-of-one-name",
        step: "others' cards",
        kinds: &[ErrorKind::PeerConflict],
        make: two_of_one_name,
    },
];

fn swapped(scene: &Scene<'_>) -> Result<Made> {
    let (here, there) = (scene.seat(scene.here, EXPORTED)?, scene.there.name());
    let card = scene.there.card();
    scene.export(&scene.impostor()?, &card)?;
    scene.made(
        format!("On its way {there}'s card is exchanged for one with another key; {there} reads out its own words."),
        here,
        there,
        &["import", &card, "--fingerprint", scene.words(scene.there)],
    )
}

fn stranger(scene: &Scene<'_>) -> Result<Made> {
    let here = scene.seat(scene.here, EXPORTED)?;
    let free = |name: &String| scene.play.machines.iter().all(|machine| machine.name() != name);
    let name = (1..).map(|number| format!("stranger-{number}")).find(free).unwrap_or_default();
    let seat = scene.stranger(&scene.curve(), &["--name", &name, "--role", "stranger"])?;
    let card = format!("{name}.card");
    let print = scene.export(&seat, &card)?;
    scene.made(
        "A card of a machine that is not in the plan is on the stick, and its words are read out.".into(),
        here,
        &name,
        &["import", &card, "--fingerprint", &print],
    )
}

fn wrong_role(scene: &Scene<'_>) -> Result<Made> {
    let (here, there) = (scene.seat(scene.here, EXPORTED)?, scene.there);
    let role = if there.member.role.as_str() == "watchtower" { "cosigner" } else { "watchtower" };
    let seat = scene.stranger(&scene.curve(), &["--name", there.name(), "--role", role])?;
    let print = scene.export(&seat, &there.card())?;
    scene.made(
        format!("{} was set up without the plan, as {role}.", there.name()),
        here,
        role,
        &["import", &there.card(), "--fingerprint", &print],
    )
}

fn wrong_curve(scene: &Scene<'_>) -> Result<Made> {
    let (here, there) = (scene.seat(scene.here, EXPORTED)?, scene.there);
    let curve = if scene.curve() == "p256" { "x25519" } else { "p256" };
    let seat = scene.stranger(curve, &["--name", there.name(), "--role", there.member.role.as_str()])?;
    let print = scene.export(&seat, &there.card())?;
    scene.made(
        format!("{} was set up without the plan, with a key on {curve}.", there.name()),
        here,
        curve,
        &["import", &there.card(), "--fingerprint", &print],
    )
}

fn two_of_one_name(scene: &Scene<'_>) -> Result<Made> {
    let (here, there) = (scene.seat(scene.here, VERIFIED)?, scene.there.name());
    let card = format!("{there}-2.card");
    let print = scene.export(&scene.impostor()?, &card)?;
    scene.made(
        format!("A second machine was set up as {there}, and its card comes after the first one's."),
        here,
        there,
        &["import", &card, "--fingerprint", &print],
    )
}
