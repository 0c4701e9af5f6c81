//! The transcript: what a machine holds and what was done on it, as it leaves the machine to be kept, printed, and compared with the others'.
//!
//! One JSON object with stable names. Its log is bound together by hashes, so that an entry that was changed, removed or put in is found; but whoever changes
//! the whole log can make the hashes anew. What stops that is outside: the log's head on paper, a signature, or the transcripts of the other machines, which
//! tell of the same cards, the same plan and the same phrase.

mod compare;
mod json;
#[cfg(test)]
mod tests;

use aws_lc_rs::digest::{SHA256, digest};

use super::log::{Event, LogEntry, ROOT, chained, is_proven};
use super::phrase;
use super::plan::Plan;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::{Fingerprint, Identifier, IdentityCard, Role, TokenKind};

pub use compare::{CONFIRMED_WITHIN, Comparison, Difference, DifferenceKind, Row, compare};

/// Longest transcript that is read, in bytes: a plan and cards of 256 members, and some ten thousand entries.
pub const MAX_TRANSCRIPT_LEN: usize = 8 * 1024 * 1024;

/// The format version that is written and read.
pub const FORMAT: u64 = 1;

/// What a machine tells of its ceremony. Public data, but for whom it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transcript {
    /// Whose it is.
    pub machine: Identifier,
    /// The release of claviger that exported it.
    pub version: String,
    /// When, seconds since 1970, by the machine's clock.
    pub exported: u64,
    /// The plan of its ceremony.
    pub plan: Option<Plan>,
    /// Every card of the set, its own included, ordered by identifier.
    pub cards: Vec<HeldCard>,
    /// The keys that it will not record again, oldest first.
    pub revoked: Vec<RevokedKey>,
    /// The fingerprints of the keys that its store is sealed to; `None`: not sealed.
    pub sealed: Option<Vec<Fingerprint>>,
    /// Its ceremony log, oldest entry first.
    pub log: Vec<LogEntry>,
    /// The signature by a token of the machine.
    pub signature: Option<Signature>,
}

/// A card as a machine holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldCard {
    /// Whose card.
    pub identifier: Identifier,
    /// What that machine is for.
    pub role: Role,
    /// Where its key is, by its own word.
    pub token: TokenKind,
    /// [`IdentityCard::digest`].
    pub digest: [u8; 32],
    /// The card's fingerprint.
    pub fingerprint: Fingerprint,
    /// The primary key's fingerprint ([`Fingerprint::of_key`]).
    pub primary: Fingerprint,
    /// The backup key's.
    pub backup: Option<Fingerprint>,
    /// What its attestation is worth on the machine; `None`: it carries none.
    pub attestation: Option<Attested>,
}

/// The verdict over a card's attestation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attested {
    /// It holds.
    pub holds: bool,
    /// What it states, or why it does not hold. No control characters, at most [`MAX_DETAIL_LEN`](super::log::MAX_DETAIL_LEN) bytes.
    pub verdict: String,
}

/// A revoked key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevokedKey {
    /// Whose it was.
    pub identifier: Identifier,
    /// The key's fingerprint.
    pub key: Fingerprint,
    /// Seconds since 1970.
    pub time: u64,
    /// Why.
    pub reason: String,
}

/// A signature over a transcript without it. Whoever reads the transcript verifies it under `public_key`; whose key that is, is known by its fingerprint alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// As the token's crate names it: `ecdsa-p256-sha256`, `ed25519-of-sha256`.
    pub algorithm: String,
    /// The public key: 65 or 32 bytes.
    pub public_key: Vec<u8>,
    /// In the algorithm's form.
    pub signature: Vec<u8>,
    /// The device, by the word of whoever signed.
    pub device: String,
}

impl Signature {
    /// The first 128 bits of `SHA-256("claviger signing key fingerprint 1\n" || algorithm || ":" || public key in hexadecimal)`.
    pub fn fingerprint(&self) -> Fingerprint {
        let key = data_encoding::HEXLOWER.encode(&self.public_key);
        let hash = digest(&SHA256, format!("claviger signing key fingerprint 1\n{}:{key}", self.algorithm).as_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash.as_ref()[..16]);
        Fingerprint::from_bytes(bytes)
    }
}

impl HeldCard {
    /// A card, and the verdict over its attestation.
    pub fn new(card: &IdentityCard, attestation: Option<Attested>) -> Self {
        Self {
            identifier: card.identifier.clone(),
            role: card.role.clone(),
            token: card.token,
            digest: card.digest(),
            fingerprint: card.fingerprint(),
            primary: Fingerprint::of_key(&card.static_public),
            backup: card.backup.as_ref().map(|backup| Fingerprint::of_key(&backup.static_public)),
            attestation,
        }
    }
}

/// A confirmation of the phrase, as the log tells of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confirmation<'a> {
    /// When, by the machine's clock.
    pub time: u64,
    /// The phrase.
    pub phrase: &'a str,
    /// By whom; may be empty.
    pub by: &'a str,
}

impl Transcript {
    /// Reads a transcript, and checks that it holds: its log's chain, and its own card among the cards. A signature is for the caller to verify over
    /// [`signed_bytes`](Self::signed_bytes).
    ///
    /// # Errors
    /// [`TranscriptInvalid`](ErrorKind::TranscriptInvalid): not a transcript, of another format, or changed: it names the first entry that does not fit.
    pub fn from_json(text: &str) -> Result<Self> {
        let transcript = json::read(text)?;
        transcript.check()?;
        Ok(transcript)
    }

    /// The transcript as JSON: one line, without a line feed.
    pub fn to_json(&self) -> String {
        json::write(self)
    }

    /// What a signature is over: `"claviger transcript 1\n"`, and the JSON text without `signature` and without white space, as `jq -cj 'del(.signature)'`
    /// gives it.
    pub fn signed_bytes(&self) -> Vec<u8> {
        let unsigned = Self { signature: None, ..self.clone() };
        [b"claviger transcript 1\n", unsigned.to_json().as_bytes()].concat()
    }

    /// The hash of the last entry, which stands for the whole log.
    pub fn head(&self) -> [u8; 32] {
        self.log.last().map_or(ROOT, |entry| entry.hash)
    }

    /// The head for people: its first 128 bits, whose words are to be written on paper.
    pub fn head_print(&self) -> Fingerprint {
        head_print(&self.head())
    }

    /// The card of that machine, if it is held.
    pub fn card(&self, identifier: &Identifier) -> Option<&HeldCard> {
        let at = self.cards.binary_search_by(|card| card.identifier.cmp(identifier)).ok()?;
        self.cards.get(at)
    }

    /// The last confirmation of the phrase under the present plan; without a plan, of this machine's card as it is.
    pub fn confirmation(&self) -> Option<Confirmation<'_>> {
        let entry = self.confirmed()?;
        let (phrase, by) = entry.detail.split_once(';').unwrap_or((&entry.detail, ""));
        let by = by.trim();
        Some(Confirmation { time: entry.time, phrase: phrase.trim(), by: by.strip_prefix("by ").unwrap_or(by) })
    }

    /// Its entry. The fingerprint in it is the plan's, or the own card's.
    fn confirmed(&self) -> Option<&LogEntry> {
        let print = match &self.plan {
            Some(plan) => plan.fingerprint(),
            None => self.card(&self.machine)?.fingerprint,
        };
        self.log.iter().rev().find(|entry| entry.event == Event::Confirmed && entry.fingerprint == print)
    }

    /// The phrase over the plan and the cards that are held now.
    pub fn phrase(&self) -> String {
        let plan = self.plan.as_ref().map(Plan::to_toml);
        phrase::over_digests(plan.as_deref(), self.cards.iter().map(|card| (&card.identifier, card.digest)).collect())
    }

    /// The names of those who watched the confirmation that stands, each once, in the order in which they were recorded.
    pub fn witnesses(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        let Some(confirmed) = self.confirmed() else { return names };
        let watched = self.log.iter().filter(|entry| {
            entry.event == Event::Witnessed
                && entry.sequence > confirmed.sequence
                && entry.fingerprint == confirmed.fingerprint
        });
        for entry in watched {
            if !names.contains(&entry.detail.as_str()) {
                names.push(&entry.detail);
            }
        }
        names
    }

    /// Whether a token proved that it holds this key of that machine.
    pub fn is_proven(&self, identifier: &Identifier, key: &Fingerprint) -> bool {
        is_proven(&self.log, identifier, key)
    }

    fn check(&self) -> Result<()> {
        let mut before = ROOT;
        for (sequence, entry) in (1..).zip(&self.log) {
            if entry.sequence != sequence || chained(&before, entry) != entry.hash {
                let what = if entry.sequence == sequence {
                    format!("entry {sequence} does not fit those before it")
                } else {
                    format!("entry {} stands where entry {sequence} should", entry.sequence)
                };
                return Err(self.changed(&what));
            }
            before = entry.hash;
        }
        if self.log.first().is_none_or(|first| first.event != Event::Created || first.subject != self.machine) {
            return Err(self.changed("its log does not begin with the making of its store"));
        }
        if self.cards.windows(2).any(|pair| pair[0].identifier >= pair[1].identifier) {
            return Err(self.changed("its cards are not in order, or one is there twice"));
        }
        if self.card(&self.machine).is_none() {
            return Err(self.changed("the machine's own card is not in it"));
        }
        Ok(())
    }

    fn changed(&self, why: &str) -> Error {
        Error::new(
            ErrorKind::TranscriptInvalid,
            format!(
                "The transcript of \"{}\" does not hold: {why}. It was changed after it was exported, or its store was.",
                self.machine
            ),
            "Export it anew on that machine with `claviger-ceremony transcript`; if it is the same, that store's log was changed: find out by whom.",
        )
    }
}

/// A hash of the log for people: the first 128 bits, as a fingerprint is shown.
pub fn head_print(head: &[u8; 32]) -> Fingerprint {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&head[..16]);
    Fingerprint::from_bytes(bytes)
}
