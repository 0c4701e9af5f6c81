//! A transcript on paper: 80 columns, and room for those who were there.

use std::fmt::Write as _;

use claviger::ceremony::transcript::{HeldCard, Transcript};

use crate::report::{entry_text, halves, utc, wrapped};

/// Lines for signatures, where the plan demands no more.
const WITNESSES: usize = 3;

pub(super) fn paper(transcript: &Transcript) -> String {
    let mut text = format!("CLAVIGER CEREMONY TRANSCRIPT OF {}\n\n", transcript.machine);
    let head = transcript.head_print();
    let mut line = |name: &str, value: &str| text += &wrapped(&format!("  {name:<11} "), value);
    line("exported", &format!("{}, by claviger {}", utc(transcript.exported), transcript.version));
    if let Some(own) = transcript.card(&transcript.machine) {
        line("card", &own.fingerprint.to_string());
        line("", &own.fingerprint.words());
    }
    match &transcript.plan {
        Some(plan) => {
            line("plan", plan.name.as_str());
            line("", &plan.fingerprint().to_string());
            line("", &plan.fingerprint().words());
        }
        None => line("plan", "none"),
    }
    match &transcript.sealed {
        Some(keys) => keys.iter().for_each(|key| line("sealed to", &format!("the key {key}"))),
        None => line("sealed to", "NOTHING: whoever could write to the store could change it unseen"),
    }
    match transcript.confirmation() {
        Some(confirmed) => {
            let by = if confirmed.by.is_empty() { String::new() } else { format!(", by {}", confirmed.by) };
            line("confirmed", &format!("{}{by}", utc(confirmed.time)));
            let [first, second] = halves(confirmed.phrase);
            line("phrase", &first);
            line("", &second);
        }
        None => line("confirmed", "NOT YET"),
    }
    line("entries", &transcript.log.len().to_string());
    line("log head", &head.to_string());
    line("", &head.words());
    text += &format!("\nCARDS: {}\n", transcript.cards.len());
    transcript.cards.iter().for_each(|card| held(&mut text, card));
    if !transcript.revoked.is_empty() {
        text += &format!("\nREVOKED KEYS: {}\n", transcript.revoked.len());
        for key in &transcript.revoked {
            let _ = write!(text, "\n  {}  {}\n      {}\n", utc(key.time), key.identifier, key.key);
            text += &wrapped("      ", &key.reason);
        }
    }
    text += &format!("\nLOG: {}\n\n", transcript.log.len());
    transcript.log.iter().for_each(|entry| text += &entry_text(entry));
    text += "\nEND OF THE LOG, whose head is\n\n";
    let _ = writeln!(text, "      {head}\n      {}", head.words());
    witnesses(&mut text, transcript);
    text
}

fn held(text: &mut String, card: &HeldCard) {
    let attested = match &card.attestation {
        Some(attested) if attested.holds => format!("attested: {}", attested.verdict),
        Some(attested) => format!("NOT PROVEN: {}", attested.verdict),
        None => "no attestation".into(),
    };
    let _ = write!(text, "\n  {}  ({}, {})\n", card.identifier, card.role, card.token);
    let _ = writeln!(text, "      card    {}\n              {}", card.fingerprint, card.fingerprint.words());
    let digest = data_encoding::HEXLOWER.encode(&card.digest);
    let _ = writeln!(text, "      digest  {digest}\n      key     {}", card.primary);
    if let Some(backup) = &card.backup {
        let _ = writeln!(text, "      backup  {backup}");
    }
    *text += &wrapped("      ", &attested);
}

fn witnesses(text: &mut String, transcript: &Transcript) {
    let demanded = transcript.plan.as_ref().map_or(0, |plan| usize::from(plan.rules.witnesses));
    let names = transcript.witnesses();
    *text += "\nWITNESSES: we were there, and what stands above is what was done.\n";
    for at in 0..WITNESSES.max(demanded).max(names.len()) {
        let name = names.get(at).copied().unwrap_or_default();
        let _ = write!(
            text,
            "\n\n  ______________________________  ______________  ____________________________\n  {:<30}  {:<14}  signature\n",
            if name.is_empty() { "name" } else { name },
            "date"
        );
    }
}
