//! What people are told while a token waits for them, and when it goes and comes back.

use crate::identity::Identifier;
use claviger_hsm::Tries;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Why the token is asked for an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// The peer it is for; none when the token or the store is only being opened.
    pub peer: Option<Identifier>,
    /// What this machine wants with it.
    pub why: Why,
}

/// What an operation serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// The proof at opening that the private key belongs to the public one.
    Opening,
    /// What opens the seal of the machine's store.
    Unlocking,
    /// A handshake that this machine begins.
    Calling,
    /// A handshake that a peer has begun; its knock was good.
    Answering,
}

impl Reason {
    /// To open the token.
    pub const OPENING: Self = Self { peer: None, why: Why::Opening };

    /// To open the store.
    pub const UNLOCKING: Self = Self { peer: None, why: Why::Unlocking };

    /// To call `peer`.
    pub fn calling(peer: &Identifier) -> Self {
        Self { peer: Some(peer.clone()), why: Why::Calling }
    }

    /// To answer `peer`.
    pub fn answering(peer: &Identifier) -> Self {
        Self { peer: Some(peer.clone()), why: Why::Answering }
    }
}

impl fmt::Display for Reason {
    /// What the machine wants, to stand after its name: `wants to answer wallet-2`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whom = self.peer.as_ref().map_or("a peer", Identifier::as_str);
        match self.why {
            Why::Opening => f.write_str("wants to open its token"),
            Why::Unlocking => f.write_str("wants to open the store"),
            Why::Calling => write!(f, "wants to call {whom}"),
            Why::Answering => write!(f, "wants to answer {whom}"),
        }
    }
}

/// Something that the people at the machine should see. `Display` is one line for them, without a full stop.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Notice {
    /// This machine.
    pub machine: String,
    /// What the token is wanted for.
    pub reason: Reason,
    /// What is to be done, or has happened.
    pub what: What,
    /// The token, for people. Comes from the device: escape it before a terminal sees it.
    pub label: String,
    /// Whether it begins, lasts, or has ended.
    pub phase: Phase,
}

/// What a [`Notice`] is about.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum What {
    /// The token waits for a touch.
    Touch {
        /// The token does not tell whether it wants one (PKCS#11); it has only not answered yet.
        perhaps: bool,
    },
    /// Somebody is being asked for the PIN or passphrase.
    Pin {
        /// Tries left before it locks.
        tries_left: Tries,
    },
    /// The token can not be used; the failure's sentence.
    Gone(String),
    /// It can again.
    Back,
}

/// Where a [`Notice`] stands. [`What::Gone`] and [`What::Back`] are told once, as ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Told first, and then every second while it lasts; with the time that is left.
    Lasts {
        /// The first notice of this wait.
        begins: bool,
        /// Until it is given up.
        left: Duration,
    },
    /// It is over.
    Ended(Outcome),
}

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Touched; the PIN was given.
    Done,
    /// Nobody touched the token, or gave the PIN.
    Missed,
    /// The token failed in another way, or the time was up.
    GaveUp,
}

/// Whom [`Notice`]s go to: a terminal, a daemon, a desktop. Called from a thread of its own, one notice after the other; a slow one delays
/// the next notice and no operation.
pub type Notify = Arc<dyn Fn(&Notice) + Send + Sync>;

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { machine, reason, label, .. } = self;
        // What is not open yet is named by its locator: "the token `piv:…`".
        let which = label.strip_prefix("the token ").unwrap_or(label);
        let (wanted, missed) = match &self.what {
            What::Gone(why) => return write!(f, "{machine}: {label} can not be used: {why}"),
            What::Back => return write!(f, "{machine}: {label} is back"),
            What::Touch { perhaps: false } => (format!("touch the token ({which})"), "was not touched"),
            What::Touch { perhaps: true } => (format!("touch the token if it blinks ({which})"), "was not touched"),
            What::Pin { tries_left: Tries::Unlimited } => (format!("passphrase of {label}"), "was not unlocked"),
            What::Pin { tries_left } => (format!("PIN of {label} ({tries_left})"), "was not unlocked"),
        };
        write!(f, "{machine} {reason}: ")?;
        match (self.phase, &self.what) {
            (Phase::Lasts { left, .. }, _) => write!(f, "{wanted}, {} s left", left.as_secs_f64().ceil()),
            (Phase::Ended(Outcome::Done), What::Touch { .. }) => write!(f, "the token answered ({label})"),
            (Phase::Ended(Outcome::Done), _) => write!(f, "given ({label})"),
            (Phase::Ended(Outcome::Missed), _) => write!(f, "the token {missed} ({label})"),
            (Phase::Ended(Outcome::GaveUp), _) => write!(f, "given up ({label})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_read_as_sentences() {
        let notice = |reason, what, phase| {
            let label = "YubiKey 5 12345678".into();
            Notice { machine: "cosigner".into(), reason, what, label, phase }.to_string()
        };
        let wallet = "wallet-2".parse().unwrap();
        let lasts = Phase::Lasts { begins: true, left: Duration::from_millis(13_100) };
        assert_eq!(
            notice(Reason::answering(&wallet), What::Touch { perhaps: false }, lasts),
            "cosigner wants to answer wallet-2: touch the token (YubiKey 5 12345678), 14 s left"
        );
        assert_eq!(
            notice(Reason::calling(&wallet), What::Pin { tries_left: Tries::Left(3) }, lasts),
            "cosigner wants to call wallet-2: PIN of YubiKey 5 12345678 (3 tries left), 14 s left"
        );
        assert_eq!(
            notice(Reason::OPENING, What::Touch { perhaps: true }, Phase::Ended(Outcome::Missed)),
            "cosigner wants to open its token: the token was not touched (YubiKey 5 12345678)"
        );
        assert_eq!(
            notice(Reason::OPENING, What::Back, Phase::Ended(Outcome::Done)),
            "cosigner: YubiKey 5 12345678 is back"
        );
    }
}
