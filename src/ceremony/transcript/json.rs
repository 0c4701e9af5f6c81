//! A transcript as JSON. The order of the names is part of the format: it is what a signature is over.

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use super::{Attested, FORMAT, HeldCard, MAX_TRANSCRIPT_LEN, RevokedKey, Signature, Transcript};
use crate::ceremony::log::{Event, LogEntry, plain};
use crate::ceremony::plan::Plan;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::{Fingerprint, TokenKind};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Root {
    claviger_transcript: u64,
    machine: String,
    version: String,
    exported: u64,
    plan: Option<PlanText>,
    cards: Vec<Card>,
    revoked: Vec<Revoked>,
    /// The keys' fingerprints; `null`: not sealed.
    sealed: Option<Vec<String>>,
    log: Vec<Entry>,
    head: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signature: Option<Signed>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanText {
    name: String,
    fingerprint: String,
    toml: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Card {
    identifier: String,
    role: String,
    token: String,
    digest: String,
    fingerprint: String,
    primary_key: String,
    backup_key: Option<String>,
    attestation: Option<Verdict>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Verdict {
    holds: bool,
    verdict: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Revoked {
    identifier: String,
    key: String,
    time: u64,
    reason: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    sequence: u64,
    time: u64,
    event: String,
    subject: String,
    fingerprint: String,
    version: String,
    detail: String,
    hash: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    algorithm: String,
    public_key: String,
    signature: String,
    device: String,
}

/// Only to say what a file is that is no transcript of this format.
#[derive(Deserialize)]
struct Title {
    claviger_transcript: u64,
}

/// `why` is a clause. It may quote the file: that is cut, and loses its control characters.
fn invalid(why: impl std::fmt::Display) -> Error {
    Error::new(
        ErrorKind::TranscriptInvalid,
        format!("The transcript can not be read: {}.", plain(&why.to_string())),
        "Give the file that `claviger-ceremony transcript FILE --json` wrote; the text without `--json` is for paper.",
    )
}

fn hex(print: &Fingerprint) -> String {
    HEXLOWER.encode(print.as_bytes())
}

pub(super) fn write(transcript: &Transcript) -> String {
    let root = Root {
        claviger_transcript: FORMAT,
        machine: transcript.machine.to_string(),
        version: transcript.version.clone(),
        exported: transcript.exported,
        plan: transcript.plan.as_ref().map(|plan| PlanText {
            name: plan.name.to_string(),
            fingerprint: hex(&plan.fingerprint()),
            toml: plan.to_toml(),
        }),
        cards: transcript.cards.iter().map(card).collect(),
        revoked: transcript.revoked.iter().map(revoked).collect(),
        sealed: transcript.sealed.as_ref().map(|keys| keys.iter().map(hex).collect()),
        log: transcript.log.iter().map(entry).collect(),
        head: HEXLOWER.encode(&transcript.head()),
        signature: transcript.signature.as_ref().map(|signature| Signed {
            algorithm: signature.algorithm.clone(),
            public_key: HEXLOWER.encode(&signature.public_key),
            signature: HEXLOWER.encode(&signature.signature),
            device: signature.device.clone(),
        }),
    };
    // Texts and numbers are always written.
    serde_json::to_string(&root).unwrap_or_default()
}

fn card(card: &HeldCard) -> Card {
    Card {
        identifier: card.identifier.to_string(),
        role: card.role.to_string(),
        token: card.token.to_string(),
        digest: HEXLOWER.encode(&card.digest),
        fingerprint: hex(&card.fingerprint),
        primary_key: hex(&card.primary),
        backup_key: card.backup.as_ref().map(hex),
        attestation: card
            .attestation
            .as_ref()
            .map(|attested| Verdict { holds: attested.holds, verdict: attested.verdict.clone() }),
    }
}

fn revoked(key: &RevokedKey) -> Revoked {
    Revoked { identifier: key.identifier.to_string(), key: hex(&key.key), time: key.time, reason: key.reason.clone() }
}

fn entry(entry: &LogEntry) -> Entry {
    Entry {
        sequence: entry.sequence,
        time: entry.time,
        event: entry.event.as_str().to_owned(),
        subject: entry.subject.to_string(),
        fingerprint: hex(&entry.fingerprint),
        version: entry.version.clone(),
        detail: entry.detail.clone(),
        hash: HEXLOWER.encode(&entry.hash),
    }
}

pub(super) fn read(text: &str) -> Result<Transcript> {
    if text.len() > MAX_TRANSCRIPT_LEN {
        return Err(invalid(format_args!("it is longer than {} MiB", MAX_TRANSCRIPT_LEN / 1024 / 1024)));
    }
    let root: Root = match serde_json::from_str(text) {
        Ok(root) => root,
        Err(error) => return Err(not_this_format(text, &error)),
    };
    if root.claviger_transcript != FORMAT {
        return Err(format_version(root.claviger_transcript));
    }
    let transcript = Transcript {
        machine: root.machine.parse()?,
        version: told(root.version)?,
        exported: root.exported,
        plan: root.plan.map(plan).transpose()?,
        cards: root.cards.into_iter().map(read_card).collect::<Result<_>>()?,
        revoked: root.revoked.into_iter().map(read_revoked).collect::<Result<_>>()?,
        sealed: root.sealed.map(|keys| keys.iter().map(|key| print(key)).collect()).transpose()?,
        log: root.log.into_iter().map(read_entry).collect::<Result<_>>()?,
        signature: root.signature.map(read_signature).transpose()?,
    };
    if bytes::<32>(&root.head)? != transcript.head() {
        return Err(invalid("its head is not the hash of its last entry"));
    }
    Ok(transcript)
}

fn not_this_format(text: &str, error: &serde_json::Error) -> Error {
    match serde_json::from_str::<Title>(text) {
        Ok(title) if title.claviger_transcript != FORMAT => format_version(title.claviger_transcript),
        Ok(_) => invalid(format_args!("{error}")),
        Err(_) => invalid("it is not a transcript in JSON"),
    }
}

fn format_version(version: u64) -> Error {
    invalid(format_args!("it is of format version {version}, and this release reads {FORMAT}"))
}

fn bytes<const N: usize>(text: &str) -> Result<[u8; N]> {
    let bytes = HEXLOWER.decode(text.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| invalid(format_args!("a value has not {} lower-case hexadecimal digits", 2 * N)))
}

fn print(text: &str) -> Result<Fingerprint> {
    bytes(text).map(Fingerprint::from_bytes)
}

/// Text that is shown: bounded, and without control characters.
fn told(text: String) -> Result<String> {
    if plain(&text) == text { Ok(text) } else { Err(invalid("a text in it is too long, or holds control characters")) }
}

fn plan(text: PlanText) -> Result<Plan> {
    let plan = Plan::from_toml(&text.toml)?;
    if plan.name.as_str() != text.name || plan.fingerprint() != print(&text.fingerprint)? {
        return Err(invalid("the name or fingerprint of its plan is not that of the plan's text"));
    }
    Ok(plan)
}

fn read_card(card: Card) -> Result<HeldCard> {
    let token = [TokenKind::Hardware, TokenKind::Software].into_iter().find(|kind| kind.to_string() == card.token);
    Ok(HeldCard {
        identifier: card.identifier.parse()?,
        role: card.role.parse()?,
        token: token.ok_or_else(|| invalid("a card's token is neither hardware nor software"))?,
        digest: bytes(&card.digest)?,
        fingerprint: print(&card.fingerprint)?,
        primary: print(&card.primary_key)?,
        backup: card.backup_key.as_deref().map(print).transpose()?,
        attestation: card
            .attestation
            .map(|verdict| Ok::<_, Error>(Attested { holds: verdict.holds, verdict: told(verdict.verdict)? }))
            .transpose()?,
    })
}

fn read_revoked(key: Revoked) -> Result<RevokedKey> {
    Ok(RevokedKey {
        identifier: key.identifier.parse()?,
        key: print(&key.key)?,
        time: key.time,
        reason: told(key.reason)?,
    })
}

fn read_entry(entry: Entry) -> Result<LogEntry> {
    let event = Event::ALL.iter().copied().find(|event| event.as_str() == entry.event);
    Ok(LogEntry {
        sequence: entry.sequence,
        time: entry.time,
        event: event.ok_or_else(|| {
            invalid(format_args!("entry {} tells of an event that this release does not know", entry.sequence))
        })?,
        subject: entry.subject.parse()?,
        fingerprint: print(&entry.fingerprint)?,
        version: told(entry.version)?,
        detail: told(entry.detail)?,
        hash: bytes(&entry.hash)?,
    })
}

fn read_signature(signature: Signed) -> Result<Signature> {
    let bytes = |text: &str| {
        let bytes = HEXLOWER.decode(text.as_bytes()).ok().filter(|bytes| (1..=512).contains(&bytes.len()));
        bytes.ok_or_else(|| invalid("its signature is not in hexadecimal digits, or too long"))
    };
    Ok(Signature {
        public_key: bytes(&signature.public_key)?,
        signature: bytes(&signature.signature)?,
        algorithm: told(signature.algorithm)?,
        device: told(signature.device)?,
    })
}
