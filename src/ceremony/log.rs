//! The ceremony log: what was done when, and how it was confirmed. Append-only, each entry bound to all before it.

use aws_lc_rs::digest::{Context, SHA256};

use crate::identity::{Fingerprint, Identifier};

/// The detail of an entry by which a new plan moves a card that is recorded between peers and cards that are only held.
pub const MOVED: &str = "by the plan's edges";

/// Longest [`LogEntry::detail`], in bytes. Longer text is cut.
pub const MAX_DETAIL_LEN: usize = 256;

macro_rules! events {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// What happened. Its [text](Self::as_str) is stored and shown, and never changes meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Event {
            $($(#[$doc])* $name,)*
        }

        impl Event {
            /// Every event.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The event, in kebab case.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

events! {
    /// The store was created; the subject is this machine.
    Created = "created",
    /// The plan was recorded or changed; the subject is this machine, the fingerprint the plan's.
    PlanRecorded = "plan-recorded",
    /// A peer was recorded.
    PeerAdded = "peer-added",
    /// The card of a member that this machine does not connect with was recorded.
    CardAdded = "card-added",
    /// A peer was removed.
    PeerRemoved = "peer-removed",
    /// A peer was revoked; the detail is the reason.
    PeerRevoked = "peer-revoked",
    /// A peer's time was limited, or the limit taken away.
    ExpirySet = "expiry-set",
    /// A member's card was replaced by its next one, vouched for by its present key.
    CardSucceeded = "card-succeeded",
    /// A challenge was made; the subject is this machine.
    ChallengeMade = "challenge-made",
    /// This machine's token answered a challenge; the subject is who asked.
    ProofGiven = "proof-given",
    /// A token proved that it holds the key on a card; the subject is its machine, the fingerprint the key's.
    ProofVerified = "proof-verified",
    /// The phrase over the whole set was read aloud and agreed; the detail is the phrase, and who confirmed.
    Confirmed = "confirmed",
    /// Somebody who watched; the detail is the name.
    Witnessed = "witnessed",
    /// The store was sealed to this machine's tokens.
    Sealed = "sealed",
    /// The seal was taken off.
    Unsealed = "unsealed",
    /// A key that this machine and a peer hold beside their static keys was recorded; the detail has its check value.
    PskRecorded = "psk-recorded",
    /// That key was removed, by itself or with the peer.
    PskRemoved = "psk-removed",
    /// This machine's own key, address and client-authorization key were replaced.
    Rotated = "rotated",
    /// The overlap of a rotation is over; the former key is forgotten.
    RotationFinished = "rotation-finished",
    /// This machine goes on with its other token.
    TokenSwitched = "token-switched",
    /// An edge of the plan was tried over the network; the subject is the peer, the detail the outcome.
    RollCalled = "roll-called",
    /// The transcript was signed by the token's signing key; the detail names the key.
    TranscriptSigned = "transcript-signed",
}

/// One line of the ceremony log. Public data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// 1, 2, 3…, without a gap.
    pub sequence: u64,
    /// Seconds since 1970-01-01 00:00:00 UTC, by this machine's clock. The clock may have been set back between entries.
    pub time: u64,
    /// What happened.
    pub event: Event,
    /// To which machine.
    pub subject: Identifier,
    /// Its fingerprint then: of its card, unless the event says otherwise.
    pub fingerprint: Fingerprint,
    /// The release of claviger that wrote it: `0.1.0`. Empty in entries of releases that did not say.
    pub version: String,
    /// How it was done: `words compared`, `fingerprint given`. At most [`MAX_DETAIL_LEN`] bytes, no control characters; may be empty.
    pub detail: String,
    /// [`chained`] over this entry and the hash of the one before.
    pub hash: [u8; 32],
}

/// The hash before the first entry.
pub const ROOT: [u8; 32] = [0; 32];

/// `SHA-256("claviger ceremony log 1\n" || before || sequence "\n" time "\n" event "\n" subject "\n" fingerprint "\n" version "\n" detail "\n")`, numbers in
/// decimal, the fingerprint as 32 lower-case hexadecimal digits. `entry.hash` is not read.
pub fn chained(before: &[u8; 32], entry: &LogEntry) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    context.update(b"claviger ceremony log 1\n");
    context.update(before);
    let text = format!(
        "{}\n{}\n{}\n{}\n{}\n{}\n{}\n",
        entry.sequence,
        entry.time,
        entry.event.as_str(),
        entry.subject,
        data_encoding::HEXLOWER.encode(entry.fingerprint.as_bytes()),
        entry.version,
        entry.detail,
    );
    context.update(text.as_bytes());
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// Whether a token proved that it holds the key of that fingerprint, for the card that is recorded of `subject`. A proof is for a card, every line of it: one for a card that
/// was removed says nothing of another that was imported afterwards, be it with the same key. A card that its present key vouches for goes on with it.
pub fn is_proven(log: &[LogEntry], subject: &Identifier, key: &Fingerprint) -> bool {
    let (mut card, mut proven) = (None, false);
    for entry in log.iter().filter(|entry| entry.subject == *subject) {
        match entry.event {
            Event::PeerAdded | Event::CardAdded => {
                proven &= card == Some(entry.fingerprint);
                card = Some(entry.fingerprint);
            }
            Event::CardSucceeded => card = Some(entry.fingerprint),
            Event::ProofVerified if entry.fingerprint == *key => proven = true,
            _ => {}
        }
    }
    proven
}

/// `detail` as it may be stored and shown: no control characters, bounded.
pub fn plain(detail: &str) -> String {
    let mut text = String::new();
    for c in detail.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if text.len() + c.len_utf8() > MAX_DETAIL_LEN {
            break;
        }
        text.push(c);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_are_bounded_and_plain() {
        assert_eq!(plain("a\n\u{1b}[2Jb"), "a  [2Jb");
        let long = "ä".repeat(MAX_DETAIL_LEN);
        assert_eq!(plain(&long).len(), MAX_DETAIL_LEN);
        assert_eq!(plain(&format!("x{long}")).len(), MAX_DETAIL_LEN - 1);
    }

    #[test]
    fn a_proof_is_for_the_card_that_was_there() {
        let print = |byte| Fingerprint::from_bytes([byte; 16]);
        let (card, other, key) = (print(1), print(2), print(9));
        let proven = |events: &[(Event, Fingerprint)]| {
            let entry = |&(event, fingerprint): &(Event, Fingerprint)| LogEntry {
                sequence: 1,
                time: 0,
                event,
                subject: "cosigner".parse().unwrap(),
                fingerprint,
                version: String::new(),
                detail: String::new(),
                hash: ROOT,
            };
            let log: Vec<LogEntry> = events.iter().map(entry).collect();
            assert!(!is_proven(&log, &"other".parse().unwrap(), &key));
            is_proven(&log, &"cosigner".parse().unwrap(), &key)
        };
        let (added, held, gone) = (Event::PeerAdded, Event::CardAdded, Event::PeerRemoved);
        let proof = (Event::ProofVerified, key);
        assert!(proven(&[(added, card), proof]));
        assert!(!proven(&[(added, card), (Event::ProofVerified, other)]));
        assert!(proven(&[(held, card), proof, (gone, card), (added, card)]), "the same card");
        assert!(!proven(&[(added, card), proof, (gone, card), (added, other)]), "the same key, another address");
        assert!(proven(&[(added, card), proof, (gone, card), (added, other), proof]));
        assert!(proven(&[(added, card), proof, (Event::CardSucceeded, other), (gone, other), (held, other)]));
    }

    #[test]
    fn events_are_unique_kebab_case() {
        for (at, event) in Event::ALL.iter().enumerate() {
            assert!(event.as_str().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'));
            assert!(!Event::ALL[..at].iter().any(|other| other.as_str() == event.as_str()), "{event:?} twice");
        }
    }
}
