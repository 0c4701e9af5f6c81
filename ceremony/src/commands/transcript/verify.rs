//! `transcript verify`: each by itself, then all of them together.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use claviger::ceremony::plan::Plan;
use claviger::ceremony::transcript::{
    Comparison, Difference, DifferenceKind, MAX_TRANSCRIPT_LEN, Row, Signature, Transcript, compare, head_print,
};
use claviger::error::{Error, ErrorKind, Result};
use claviger::identity::Identifier;
use claviger::program::{Terminal, shown};
use serde::Serialize;

use crate::cli::Verify;
use crate::files::failed;
use crate::report::{Print, halves, table, utc, wrapped};

/// `transcript verify --json`: `{"same", "plan", "phrase", "machines", "differences", "warnings", "heads"}`.
#[derive(Serialize)]
struct Verified {
    /// Nothing differs.
    same: bool,
    /// What all go by; `null` when there is none, or they go by different ones.
    plan: Option<PlanName>,
    /// What all confirmed; `null` when they did not, or confirmed different ones.
    phrase: Option<String>,
    machines: Vec<Machine>,
    differences: Vec<Differing>,
    warnings: Vec<String>,
    /// The heads from paper that were found.
    heads: Vec<Found>,
}

#[derive(Serialize)]
struct PlanName {
    name: String,
    fingerprint: Print,
}

/// `confirmed` in seconds since 1970, or `null`.
#[derive(Serialize)]
struct Machine {
    identifier: String,
    entries: usize,
    head: Print,
    cards: usize,
    peers: usize,
    proven: usize,
    confirmed: Option<u64>,
    witnesses: usize,
    sealed: bool,
    /// `null`: not signed.
    signed_by: Option<SignedBy>,
    differs: bool,
}

/// The signature verifies under the key of this fingerprint. `device` is the signer's word.
#[derive(Serialize)]
struct SignedBy {
    fingerprint: Print,
    algorithm: String,
    device: String,
}

/// `kind` in kebab case: `card`, `phrase`, `rolled-back`, …
#[derive(Serialize)]
struct Differing {
    kind: &'static str,
    machine: Option<String>,
    member: Option<String>,
    message: String,
}

#[derive(Serialize)]
struct Found {
    head: Print,
    machine: String,
    /// The entry that the log had come to.
    entry: u64,
}

pub(super) fn verify(verify: &Verify, terminal: &Terminal) -> Result<()> {
    let mut transcripts = Vec::new();
    for file in &verify.files {
        transcripts.push(read(file)?);
    }
    let heads = verify.head.iter().map(|typed| passed(&transcripts, typed)).collect::<Result<Vec<_>>>()?;
    let compared = compare(&transcripts);
    for warning in &compared.warnings {
        terminal.warn(warning);
    }
    let report = report(&transcripts, &compared, heads);
    terminal.result(&text(&report, &compared.rows), &report)?;
    match compared.differences.as_slice() {
        [] => Ok(()),
        differences => Err(differ(differences)),
    }
}

/// What was done otherwise comes before what was not done.
fn differ(differences: &[Difference]) -> Error {
    let first = differences.iter().find(|one| !one.kind.is_missing()).or(differences.first());
    let more = match differences.len() {
        0 | 1 => String::new(),
        all => format!(" And {} more.", all - 1),
    };
    let (what, hint) = match first.map(|one| one.kind) {
        Some(DifferenceKind::RolledBack | DifferenceKind::SameName) => (
            "The transcripts differ.",
            "Stop that machine, and find out who restored its store: what was revoked or removed after that entry is a peer there again.",
        ),
        Some(DifferenceKind::TranscriptMissing) => (
            "Not all transcripts are here.",
            "Give those of all members, as `claviger-ceremony transcript FILE --json` writes them.",
        ),
        Some(kind) if kind.is_missing() => (
            "The ceremony was not held to its end.",
            "Do what is missing on the machines named, and write their transcripts again.",
        ),
        _ => (
            "The transcripts differ.",
            "Do not use these machines before it is mended: compare `claviger-ceremony show` on those named, import the right cards, and confirm again.",
        ),
    };
    let text = first.map_or("", |one| one.text.as_str());
    Error::new(ErrorKind::TranscriptsDiffer, format!("{what} {text}{more}"), hint)
}

/// Reads a transcript and verifies its signature, if it has one.
fn read(path: &Path) -> Result<Transcript> {
    let mut bytes = Vec::new();
    // One byte more than there may be, so that a longer file is seen to be one.
    let most = MAX_TRANSCRIPT_LEN as u64 + 1;
    let read = if path == Path::new("-") {
        io::stdin().lock().take(most).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes))
    };
    read.map_err(|error| failed(path, "read", error))?;
    let refused = |error: &Error| {
        Error::new(ErrorKind::TranscriptInvalid, format!("{} is refused. {error}", shown(path)), error.hint())
    };
    let transcript = Transcript::from_json(&String::from_utf8_lossy(&bytes)).map_err(|error| refused(&error))?;
    match &transcript.signature {
        Some(signature) if !verifies(signature, &transcript) => Err(refused(&Error::new(
            ErrorKind::TranscriptInvalid,
            "Its signature does not verify: it was changed after it was signed.",
            format!("Take it anew from {}, and find out who had it meanwhile.", transcript.machine),
        ))),
        _ => Ok(transcript),
    }
}

fn verifies(signature: &Signature, transcript: &Transcript) -> bool {
    let Ok(algorithm) = signature.algorithm.parse() else { return false };
    let signature = claviger_hsm::sign::Signature {
        algorithm,
        public_key: signature.public_key.clone(),
        signature: signature.signature.clone(),
        device: signature.device.clone(),
    };
    signature.verifies(&transcript.signed_bytes())
}

/// Where a log passes a head from paper.
fn passed(transcripts: &[Transcript], typed: &str) -> Result<Found> {
    for one in transcripts {
        for entry in &one.log {
            let print = head_print(&entry.hash);
            if print.matches(typed)? {
                return Ok(Found { head: print.into(), machine: one.machine.to_string(), entry: entry.sequence });
            }
        }
    }
    Err(Error::new(
        ErrorKind::TranscriptsDiffer,
        format!("No log here has ever come to the head {typed:?} that is on paper."),
        "An older store was restored, or the log was written anew; or it is another machine's head: give that one's transcript.",
    ))
}

fn report(transcripts: &[Transcript], compared: &Comparison, heads: Vec<Found>) -> Verified {
    let of = |machine: &Identifier| {
        transcripts.iter().filter(move |one| one.machine == *machine).max_by_key(|one| (one.exported, one.log.len()))
    };
    let machines = compared.rows.iter().map(|row| Machine {
        identifier: row.machine.to_string(),
        entries: row.entries,
        head: row.head.into(),
        cards: row.cards,
        peers: row.proven.1,
        proven: row.proven.0,
        confirmed: row.confirmed,
        witnesses: row.witnesses,
        sealed: row.sealed,
        signed_by: of(&row.machine).and_then(|one| one.signature.as_ref()).map(|signature| SignedBy {
            fingerprint: signature.fingerprint().into(),
            algorithm: signature.algorithm.clone(),
            device: signature.device.clone(),
        }),
        differs: row.differs,
    });
    let mut plans = compared.rows.iter().map(|row| of(&row.machine)?.plan.as_ref());
    let plan = plans.next().flatten();
    let plan = plan.filter(|plan| plans.all(|other| other.map(Plan::fingerprint) == Some(plan.fingerprint())));
    let mut phrases = compared.rows.iter().map(|row| Some(of(&row.machine)?.confirmation()?.phrase));
    let first = phrases.next().flatten();
    Verified {
        same: compared.differences.is_empty(),
        plan: plan.map(|plan| PlanName { name: plan.name.to_string(), fingerprint: plan.fingerprint().into() }),
        phrase: first.filter(|first| phrases.all(|other| other == Some(first))).map(str::to_owned),
        machines: machines.collect(),
        differences: compared
            .differences
            .iter()
            .map(|one| Differing {
                kind: one.kind.as_str(),
                machine: one.machine.as_ref().map(ToString::to_string),
                member: one.member.as_ref().map(ToString::to_string),
                message: one.text.clone(),
            })
            .collect(),
        warnings: compared.warnings.clone(),
        heads,
    }
}

fn text(report: &Verified, rows: &[Row]) -> String {
    let mut text = table(
        ["MACHINE", "LOG", "CARDS", "PROOFS", "CONFIRMED", "SEALED", "RESULT"],
        rows.iter().map(|row| {
            [
                row.machine.to_string(),
                row.entries.to_string(),
                row.cards.to_string(),
                format!("{} of {}", row.proven.0, row.proven.1),
                row.confirmed.map_or_else(|| "no".into(), utc),
                if row.sealed { "yes" } else { "NO" }.into(),
                if row.differs { "SEE BELOW" } else { "good" }.into(),
            ]
        }),
    );
    if let Some(plan) = &report.plan {
        text += &format!("\nThe plan {}, {}\n", plan.name, plan.fingerprint.grouped());
    }
    text += "\nHeads of the logs:\n";
    let width = report.machines.iter().map(|machine| machine.identifier.len()).max().unwrap_or(0);
    for machine in &report.machines {
        text += &wrapped(&format!("  {:<width$}  ", machine.identifier), &machine.head.words);
    }
    for found in &report.heads {
        let line =
            format!("The head on paper is that of entry {} on {}: {}", found.entry, found.machine, found.head.words);
        text += &format!("\n{}", wrapped("", &line));
    }
    for (machine, signed) in report.machines.iter().filter_map(|machine| Some((machine, machine.signed_by.as_ref()?))) {
        text += &format!("\n{} is signed by the key {}\n", machine.identifier, signed.fingerprint.grouped());
        let line = format!(
            "By the signer's word on {}, {}. That proves no more than what is known of this fingerprint.",
            signed.device, signed.algorithm
        );
        text += &wrapped("  ", &line);
    }
    if let Some(phrase) = &report.phrase {
        let [first, second] = halves(phrase);
        text += &format!("\nThe phrase that was confirmed:\n  {first}\n  {second}\n");
    }
    if report.same {
        let line = match report.machines.as_slice() {
            [one] => format!("The transcript of {} holds. Give those of all machines to compare them.", one.identifier),
            all => format!("The transcripts of {} machines hold, and tell of the same ceremony.", all.len()),
        };
        return text + "\n" + &wrapped("", &line);
    }
    text += "\nWhat differs:\n";
    for (number, one) in (1..).zip(&report.differences) {
        text += &wrapped(&format!("  {number}. "), &one.message);
    }
    text
}
