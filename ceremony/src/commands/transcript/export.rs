//! `transcript`: out of the store, onto paper or into a file.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use claviger::ceremony::log::{Event, plain};
use claviger::ceremony::transcript::{Attested, HeldCard, RevokedKey, Signature, Transcript};
use claviger::error::{Error, Result};
use claviger::identity::{Fingerprint, IdentityCard};
use claviger::program::{Terminal, one_line};
use claviger::store::{SealState, Store};
use claviger::token::attestation::AttestationRoots;
use claviger::token::from_hsm;
use claviger_hsm::sign::{SigningLocator, sign};
use serde::Serialize;

use super::text::paper;
use crate::attestation::roots;
use crate::cli::{Cli, ExportTranscript};
use crate::commands::attend::attend;
use crate::commands::open;
use crate::commands::opened::opened;
use crate::files::{Written, check_file, write_file};
use crate::report::Print;

/// `transcript FILE --json`: `{"file", "outcome", "entries", "head", "signed_by"}`; `outcome` is `new` or `already-there`, `signed_by` the signing key's
/// fingerprint or `null`.
#[derive(Serialize)]
struct Exported {
    file: String,
    outcome: &'static str,
    entries: usize,
    head: Print,
    signed_by: Option<Print>,
}

pub(super) fn export(cli: &Cli, export: &ExportTranscript, terminal: &Terminal) -> Result<()> {
    let file = export.file.as_deref().filter(|file| *file != Path::new("-"));
    let transcript = match &export.sign {
        Some(locator) => {
            let locator = locator.parse().map_err(from_hsm)?;
            signed(cli, &locator, file, export.force, terminal)?
        }
        None => {
            let transcript = take(&open(cli)?)?;
            if transcript.sealed.is_some() {
                terminal
                    .note("The seal was not opened for this: what is written down is what stands in the store's file.");
            }
            transcript
        }
    };
    let text = if cli.json { transcript.to_json() + "\n" } else { paper(&transcript) };
    let Some(file) = file else { return terminal.data(text.as_bytes()) };
    let outcome = match write_file(file, text.as_bytes(), export.force)? {
        Written::New => "new",
        Written::AlreadyThere => "already-there",
    };
    terminal.note(&format!("Write the log's head on paper: {}", transcript.head_print().words()));
    let report = Exported {
        file: file.display().to_string(),
        outcome,
        entries: transcript.log.len(),
        head: transcript.head_print().into(),
        signed_by: transcript.signature.as_ref().map(|signature| signature.fingerprint().into()),
    };
    terminal.result(&format!("{}\n", report.file), &report)
}

/// The store's transcript, which is read again before it leaves: a log that was changed in the store is found here.
fn take(store: &Store) -> Result<Transcript> {
    let machine = store.machine()?;
    let roots = roots(&machine.attestation.roots, &[])?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let taken = Transcript {
        machine: machine.card.identifier,
        version: env!("CARGO_PKG_VERSION").into(),
        exported: now,
        plan: store.plan()?,
        cards: store.cards()?.iter().map(|card| HeldCard::new(card, attested(card, &roots))).collect(),
        revoked: store
            .revoked()?
            .into_iter()
            .map(|revoked| RevokedKey {
                identifier: revoked.identifier,
                key: Fingerprint::of_key(&revoked.static_public),
                time: revoked.time,
                reason: plain(&revoked.reason),
            })
            .collect(),
        sealed: match store.seal_state()? {
            SealState::Unsealed => None,
            SealState::Sealed(keys) => Some(keys.iter().map(Fingerprint::of_key).collect()),
        },
        log: store.log()?,
        signature: None,
    };
    Transcript::from_json(&taken.to_json())
}

/// What a card's attestations are worth here. Those of both keys have to hold.
fn attested(card: &IdentityCard, roots: &AttestationRoots) -> Option<Attested> {
    let keys = std::iter::once((&card.attestation, &card.static_public))
        .chain(card.backup.iter().map(|backup| (&backup.attestation, &backup.static_public)));
    let mut verdicts = Vec::new();
    let mut holds = true;
    for (attestation, key) in keys {
        match attestation.as_ref().map(|attestation| roots.verify(attestation, key)) {
            Some(Ok(attested)) => verdicts.push(attested.to_string()),
            Some(Err(error)) => {
                holds = false;
                verdicts.push(error.to_string());
            }
            None if verdicts.is_empty() => return None,
            None => {
                holds = false;
                verdicts.push("the backup key has none".into());
            }
        }
    }
    Some(Attested { holds, verdict: plain(&verdicts.join("; backup: ")) })
}

fn signed(
    cli: &Cli,
    locator: &SigningLocator,
    file: Option<&Path>,
    force: bool,
    terminal: &Terminal,
) -> Result<Transcript> {
    // Before anybody is asked for a PIN: the content will be another one than any that is there.
    if let Some(file) = file {
        check_file(file, &[], force)?;
    }
    // The machine's own token has done its part when the seal is open.
    let mut store = opened(cli, terminal)?.store;
    let mut transcript = take(&store)?;
    let text = locator.to_string();
    let what = text.split_once('?').map_or(text.as_str(), |(name, _)| name);
    let message = transcript.signed_bytes();
    let made = attend(terminal, what, |operation| sign(locator, &message, operation))?.answer;
    let signature = Signature {
        algorithm: made.algorithm.to_string(),
        public_key: made.public_key,
        signature: made.signature,
        device: plain(&one_line(&made.device)),
    };
    let detail = format!("entries 1 to {}, {}, {}", transcript.log.len(), signature.algorithm, signature.device);
    let written = store.note(Event::TranscriptSigned, &transcript.machine, signature.fingerprint(), &detail);
    written.map_err(|error| {
        let what =
            format!("The transcript was signed, but the log can not tell of it, so it is not given out. {error}");
        Error::new(error.kind(), what, error.hint())
    })?;
    terminal.note(&format!(
        "Signed by the key {} on {}. Note that fingerprint where others will look for it.",
        signature.fingerprint(),
        signature.device
    ));
    transcript.signature = Some(signature);
    Ok(transcript)
}
