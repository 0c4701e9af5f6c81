//! Mistakes with proofs of possession.

use std::time::Duration;

use claviger::error::{ErrorKind, Result};

use super::super::runbook::{CHALLENGED, VERIFIED};
use super::{Made, Mistake, Scene};

pub(super) const ALL: &[Mistake] = &[
    Mistake {
        name: "other-ceremony",
        step: "prove",
        kinds: &[ErrorKind::PlanMismatch, ErrorKind::ProofInvalid],
        make: other_ceremony,
    },
    Mistake { name: "other-token", step: "verify-proof", kinds: &[ErrorKind::ProofInvalid], make: other_token },
    Mistake { name: "proof-replayed", step: "verify-proof", kinds: &[ErrorKind::ProofUsed], make: replayed },
    Mistake { name: "challenge-expired", step: "verify-proof", kinds: &[ErrorKind::ProofExpired], make: expired },
];

fn other_ceremony(scene: &Scene<'_>) -> Result<Made> {
    let there = scene.there.name();
    scene.changed_plan(|plan| {
        if let Ok(name) = format!("{}-before", plan.name).parse() {
            plan.name = name;
        }
    })?;
    let seat = scene.stranger(&scene.curve(), &["--plan", "changed.toml", "--name", there])?;
    let seat = scene.introduced(seat)?;
    scene.made(
        format!("Instead of {there} its machine of an earlier ceremony was brought, with another plan."),
        seat,
        scene.here.name(),
        &["prove", &format!("{}.challenge", scene.here.name()), "--out", &format!("{there}.proofs"), "--force"],
    )
}

fn other_token(scene: &Scene<'_>) -> Result<Made> {
    let (here, there) = (scene.seat(scene.here, CHALLENGED)?, scene.there.name());
    let (challenge, proofs) = (format!("{}.challenge", scene.here.name()), format!("{there}.proofs"));
    let impostor = scene.introduced(scene.impostor()?)?;
    scene.play.runner.ok(&impostor, &["prove", &challenge, "--out", &proofs, "--force"])?;
    scene.made(
        format!("Not {there}'s token answers {}'s challenge, but another one.", scene.here.name()),
        here,
        there,
        &["verify-proof", &proofs],
    )
}

fn replayed(scene: &Scene<'_>) -> Result<Made> {
    let (here, there) = (scene.seat(scene.here, VERIFIED)?, scene.there.name());
    scene.made(
        format!("{there}'s proof, which counted already, is given once more."),
        here,
        there,
        &["verify-proof", &format!("{there}.proofs")],
    )
}

fn expired(scene: &Scene<'_>) -> Result<Made> {
    let (here, there) = (scene.seat(scene.here, CHALLENGED)?, scene.seat(scene.there, CHALLENGED)?);
    let runner = scene.play.runner;
    // Enough for a prover that is slow; what it takes is waited for.
    let valid = 6;
    runner.ok(&here, &["challenge", "late.challenge", "--valid", &format!("{valid}s")])?;
    let made = std::time::Instant::now();
    let what = format!(
        "A challenge that holds for {valid} seconds, not for the usual hour, is answered, and the answer looked at later."
    );
    let prove = ["prove", "late.challenge", "--out", "late.proofs"];
    let run = runner.run(&there, &prove)?;
    if run.said.is_some() {
        return Ok(Made { what, seat: there, run, named: scene.here.name().to_owned() });
    }
    runner.wait(Duration::from_secs(valid + 1).saturating_sub(made.elapsed()))?;
    scene.made(what, here, scene.there.name(), &["verify-proof", "late.proofs"])
}
