//! `verify-proof`.

use claviger::ceremony::document::Document;
use claviger::ceremony::plan::Plan;
use claviger::ceremony::proof::{Challenge, Proof};
use claviger::error::{Error, ErrorKind, Result};
use claviger::identity::{Fingerprint, StaticPublic};
use claviger::program::Terminal;
use claviger::store::Store;
use data_encoding::HEXLOWER;
use serde::Serialize;

use super::{lacking, now, read};
use crate::cli::{Cli, VerifyProof};
use crate::commands::opened::opened;
use crate::report::{Print, table, utc};

/// `verify-proof --json`: `{"verified": [{"prover", "key", "fingerprint", "outcome"}], "elsewhere", "lacking": [{"identifier", "key"}]}`. `key` is `primary` or `backup`,
/// the fingerprint is that key's, `outcome` is `new` or `already-there`; `elsewhere`: how many proofs are for other challenges.
#[derive(Serialize)]
struct Verified {
    verified: Vec<Outcome>,
    elsewhere: usize,
    lacking: Vec<Lacking>,
}

#[derive(Serialize)]
struct Outcome {
    prover: String,
    key: String,
    fingerprint: Print,
    outcome: &'static str,
    #[serde(skip)]
    grouped: String,
}

#[derive(Serialize)]
struct Lacking {
    identifier: String,
    key: String,
}

/// A proof that holds, and the key that it is by.
struct Holds {
    proof: Proof,
    key: StaticPublic,
}

pub(super) fn verify(cli: &Cli, command: &VerifyProof, terminal: &Terminal) -> Result<()> {
    let proofs = read(&command.files, "proof", |document| match document {
        Document::Proof(proof) => Some(proof.clone()),
        _ => None,
    })?;
    let mut store = opened(cli, terminal)?.store;
    let (holding, elsewhere) = check(proofs, &store)?;
    let mut used = None;
    let mut verified = Vec::new();
    for Holds { proof, key } in &holding {
        let how = format!("{} key; challenge {}", proof.place, HEXLOWER.encode(&proof.challenge[..4]));
        let outcome = match store.spend_challenge(&proof.challenge, &proof.prover, key, &how) {
            Ok(()) => "new",
            Err(error) if error.kind() == ErrorKind::ProofUsed => {
                used = Some(error);
                "already-there"
            }
            Err(error) => return Err(error),
        };
        let print = Fingerprint::of_key(key);
        verified.push(Outcome {
            prover: proof.prover.to_string(),
            key: proof.place.to_string(),
            fingerprint: print.into(),
            outcome,
            grouped: print.to_string(),
        });
    }
    // What came with new ones is a stick that came round again; alone it is a replay.
    if let Some(used) = used.filter(|_| verified.iter().all(|outcome| outcome.outcome != "new")) {
        if lacking(&store)?.is_empty() {
            let hint = "Every key of every peer is proven already: go on with the next step.";
            return Err(Error::new(used.kind(), used.to_string(), hint));
        }
        return Err(used);
    }
    if elsewhere > 0 {
        terminal
            .note(&format!("Left out: {elsewhere} for challenges that are not open here, such as other machines'."));
    }
    let lacking = lacking(&store)?;
    terminal.note(&if store.peers()?.is_empty() {
        "Nothing to verify: this machine has no peer, of whom it could want a proof.".into()
    } else if lacking.is_empty() {
        "Every key of every peer is proven.".into()
    } else {
        let names: Vec<String> = lacking.iter().map(|(name, place)| format!("{name} ({place})")).collect();
        format!("Not proven yet: {}.", names.join(", "))
    });
    let text = if verified.is_empty() { String::new() } else { outcomes(&verified) };
    let lacking =
        lacking.into_iter().map(|(name, place)| Lacking { identifier: name.to_string(), key: place.to_string() });
    terminal.result(&text, &Verified { verified, elsewhere, lacking: lacking.collect() })
}

fn outcomes(verified: &[Outcome]) -> String {
    table(
        ["PROVER", "KEY", "KEY'S FINGERPRINT", "RESULT"],
        verified.iter().map(|outcome| {
            let result = if outcome.outcome == "new" { "proven" } else { "counted before" };
            [outcome.prover.clone(), outcome.key.clone(), outcome.grouped.clone(), result.to_owned()]
        }),
    )
}

/// The proofs that are for challenges of this machine, which all hold, and how many others there are. None of them only where there is no peer.
fn check(proofs: Vec<Proof>, store: &Store) -> Result<(Vec<Holds>, usize)> {
    let (now, cards) = (now(), store.cards()?);
    let plan = store.plan()?.as_ref().map(Plan::fingerprint);
    let own = store.machine()?.card.identifier;
    let (mut holding, mut elsewhere) = (Vec::new(), 0);
    for proof in proofs {
        let Some(open) = store.challenge(&proof.challenge)? else {
            elsewhere += 1;
            continue;
        };
        let challenge = Challenge::from_text(&open.text)?;
        let name = &proof.prover;
        if *name == own {
            let what = "The proof is this machine's own, and a machine proves nothing to itself.";
            return Err(Error::new(ErrorKind::ProofInvalid, what, "Give the proofs of the other machines."));
        }
        let again = || format!("Make another one with `claviger-ceremony challenge`, and have \"{name}\" answer that.");
        if now >= challenge.expires {
            let what = format!(
                "The challenge that \"{name}\" answered held until {}, and this machine's clock says {}; nothing was recorded.",
                utc(challenge.expires),
                utc(now)
            );
            return Err(Error::new(ErrorKind::ProofExpired, what, again()));
        }
        if challenge.plan != plan {
            let what =
                format!("The plan was changed after the challenge that \"{name}\" answered; nothing was recorded.");
            return Err(Error::new(ErrorKind::ProofInvalid, what, again()));
        }
        let Some(card) = cards.iter().find(|card| card.identifier == *name) else {
            return Err(Error::new(
                ErrorKind::PeerUnknown,
                format!("The proof is by \"{name}\", whose card is not held here; nothing was recorded."),
                format!(
                    "Import its card first, with `claviger-ceremony import {name}.card`, and compare fingerprints."
                ),
            ));
        };
        proof.verify(&challenge, &open.secret, card)?;
        let Some(key) = card.key(proof.place).cloned() else { continue };
        holding.push(Holds { proof, key });
    }
    // A member whom no edge joins to anybody waits for no proof.
    if holding.is_empty() && !store.peers()?.is_empty() {
        return Err(Error::new(
            ErrorKind::ProofInvalid,
            "No proof is for a challenge that is open on this machine: they are for other machines', or for one that expired.",
            "Have the peers answer this machine's challenge; make one with `claviger-ceremony challenge`.",
        ));
    }
    Ok((holding, elsewhere))
}
