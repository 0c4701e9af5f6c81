//! The plan of a ceremony: members, edges, rules. Written beforehand, reviewed, and the same on every machine.
//!
//! ```toml
//! plan = 1
//! name = "vault-2026"
//! curve = "x25519"             # of members that name none; x25519 if left out
//!
//! [rules]                      # what is left out is false, and 0
//! attestation = false
//! backup-token = true
//! proof-of-possession = true
//! words-spoken = true
//! witnesses = 1
//!
//! [[member]]
//! name = "manager-1"
//! role = "manager"
//! curve = "p256"
//!
//! [[edge]]                     # from each to each
//! from = ["manager-1", "manager-2"]
//! to = "coordinator"
//! service = "spend"
//! ```
//!
//! The file's comments, order and grouping do not count: plans are compared by their [canonical text](Plan::to_toml).

mod changes;
mod read;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;

use aws_lc_rs::digest::{Context, SHA256};

use crate::error::{Error, ErrorKind, Result};
use crate::identity::{Curve, Fingerprint, Identifier, IdentityCard, Role, ServiceName};

pub use changes::Changes;

/// The version of the form, `plan = 1`.
const VERSION: i64 = 1;

/// Longest text of a plan, in bytes. The canonical text of the largest plan is shorter.
pub const MAX_PLAN_LEN: usize = 1024 * 1024;

/// The plan of two machines, with every key and what it means.
pub const EXAMPLE_PAIR: &str = include_str!("plan/pair.toml");

/// The plan of a vault, with every key and what it means: `docs/vault-plan.toml`.
pub const EXAMPLE_VAULT: &str = include_str!("../../docs/vault-plan.toml");

/// Most members of a plan.
pub const MAX_MEMBERS: usize = 256;

/// Most edges of a plan.
pub const MAX_EDGES: usize = 4096;

/// A ceremony's plan. Two plans are the same when their [fingerprints](Self::fingerprint) are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What people call this ceremony: `vault-2026`.
    pub name: Identifier,
    /// Who takes part, ordered by identifier; at least two.
    pub members: Vec<Member>,
    /// Who may connect to whom, ordered.
    pub edges: Vec<Edge>,
    /// What everybody demands.
    pub rules: Rules,
}

/// A machine that takes part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub identifier: Identifier,
    /// What it is for.
    pub role: Role,
    /// The curve of its key.
    pub curve: Curve,
}

/// `from` may connect to `to` for `service`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edge {
    /// Who dials.
    pub from: Identifier,
    /// Who listens.
    pub to: Identifier,
    /// For what.
    pub service: ServiceName,
}

/// What every machine demands before its set is confirmed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// Every card proves by an attestation that its keys are in devices.
    pub attestation: bool,
    /// Every card has a backup key.
    pub backup_token: bool,
    /// Every peer's token answered a challenge in the room.
    pub proof_of_possession: bool,
    /// Fingerprints are compared by words that are spoken, not only given on a command line.
    pub words_spoken: bool,
    /// Least number of witnesses whom `confirm` names.
    pub witnesses: u8,
}

impl Plan {
    /// Reads a plan in TOML. Unknown keys are refused.
    ///
    /// # Errors
    /// [`PlanInvalid`](crate::ErrorKind::PlanInvalid), with the line or the member that is off: TOML or a key that is not of this form, a version that is not
    /// read here, a limit, fewer than two members, a name twice, an edge to a stranger or to itself, a pair of other curves.
    pub fn from_toml(text: &str) -> Result<Self> {
        read::read(text)
    }

    /// The plan in its one canonical spelling, TOML: what is stored, hashed, and read again by [`from_toml`](Self::from_toml).
    pub fn to_toml(&self) -> String {
        let mut text = format!("plan = {VERSION}\nname = \"{}\"\n\n[rules]\n", self.name);
        for (name, value) in self.rules.table() {
            let _ = writeln!(text, "{name} = {value}");
        }
        for Member { identifier, role, curve } in &self.members {
            let _ = write!(text, "\n[[member]]\nname = \"{identifier}\"\nrole = \"{role}\"\ncurve = \"{curve}\"\n");
        }
        for Edge { from, to, service } in &self.edges {
            let _ = write!(text, "\n[[edge]]\nfrom = \"{from}\"\nto = \"{to}\"\nservice = \"{service}\"\n");
        }
        text
    }

    /// The first 128 bits of `SHA-256("claviger plan 1\n" || to_toml())`: what people compare, and what challenges and the phrase are bound to.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut context = Context::new(&SHA256);
        context.update(b"claviger plan 1\n");
        context.update(self.to_toml().as_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&context.finish().as_ref()[..16]);
        Fingerprint::from_bytes(bytes)
    }

    /// The member of that name.
    pub fn member(&self, identifier: &Identifier) -> Option<&Member> {
        self.members.iter().find(|member| member.identifier == *identifier)
    }

    /// The edges that begin or end at a member.
    pub fn edges_of<'a>(&'a self, identifier: &'a Identifier) -> impl Iterator<Item = &'a Edge> {
        self.edges.iter().filter(move |edge| edge.from == *identifier || edge.to == *identifier)
    }

    /// Whether an edge joins the two, whoever dials.
    pub fn joins(&self, one: &Identifier, other: &Identifier) -> bool {
        self.edges_of(one).any(|edge| edge.from == *other || edge.to == *other)
    }

    /// What is allowed, and probably not meant: a sentence each.
    pub fn warnings(&self) -> Vec<String> {
        let alone = self.members.iter().filter(|member| self.edges_of(&member.identifier).next().is_none());
        let mut warnings: Vec<String> = alone
            .map(|Member { identifier, .. }| {
                format!("No edge begins or ends at \"{identifier}\": it connects with nobody.")
            })
            .collect();
        if !self.rules.proof_of_possession {
            warnings.push(
                "No proof of possession is demanded: a card can name a key that its bearer does not hold.".into(),
            );
        }
        warnings
    }

    /// Whether a card is that of the member: name, role, curve, and what the rules demand of a card (that an attestation is there, not that it holds).
    ///
    /// # Errors
    /// [`PlanMismatch`](crate::ErrorKind::PlanMismatch): a stranger, another role, another curve, no backup key;
    /// [`AttestationMissing`](crate::ErrorKind::AttestationMissing).
    pub fn check_card(&self, card: &IdentityCard) -> Result<()> {
        let IdentityCard { identifier, role, .. } = card;
        let mismatch = |what: String, hint: String| Err(Error::new(ErrorKind::PlanMismatch, what, hint));
        let Some(member) = self.member(identifier) else {
            let what = format!("\"{identifier}\" is not a member of the plan \"{}\".", self.name);
            let hint = "Import only the members' cards. A machine that is to join later needs a new plan: see `claviger-ceremony add --help`.";
            return mismatch(what, hint.into());
        };
        let again = format!(
            "Set \"{identifier}\" up as the plan has it with `claviger-ceremony init --plan`, and export its card anew."
        );
        if member.role != *role {
            let what = format!(
                "The card of \"{identifier}\" says role {role}, and the plan \"{}\" says {}.",
                self.name, member.role
            );
            return mismatch(what, again);
        }
        if member.curve != card.curve() {
            let what = format!(
                "The key of \"{identifier}\" is on {}, and the plan \"{}\" says {}.",
                card.curve(),
                self.name,
                member.curve
            );
            return mismatch(what, again);
        }
        if self.rules.backup_token && card.backup.is_none() {
            let what =
                format!("The card of \"{identifier}\" has no backup key, and the plan \"{}\" demands one.", self.name);
            let hint = format!(
                "Set \"{identifier}\" up with `claviger-ceremony init --plan … --backup-token LOCATOR`, and export its card anew."
            );
            return mismatch(what, hint);
        }
        if self.rules.attestation {
            let backup = card.backup.as_ref().map(|backup| &backup.attestation);
            let missing = [("key", Some(&card.attestation)), ("backup key", backup)];
            if let Some((which, _)) = missing.iter().find(|(_, proof)| proof.is_some_and(|proof| proof.is_none())) {
                let what = format!(
                    "The {which} of \"{identifier}\" has no attestation, and the plan \"{}\" demands one.",
                    self.name
                );
                let hint = format!(
                    "Make the keys of \"{identifier}\" in devices that attest them, and set it up anew; see `claviger-ceremony token attest --help`."
                );
                return Err(Error::new(ErrorKind::AttestationMissing, what, hint));
            }
        }
        Ok(())
    }
}

impl Edge {
    /// The member at the other end than `end`; `None` when the edge does not end there.
    pub fn other(&self, end: &Identifier) -> Option<&Identifier> {
        match (self.from == *end, self.to == *end) {
            (true, _) => Some(&self.to),
            (_, true) => Some(&self.from),
            _ => None,
        }
    }
}

impl Rules {
    /// Each rule by its key in the file, and its value there.
    pub fn table(&self) -> [(&'static str, String); 5] {
        [
            ("attestation", self.attestation.to_string()),
            ("backup-token", self.backup_token.to_string()),
            ("proof-of-possession", self.proof_of_possession.to_string()),
            ("words-spoken", self.words_spoken.to_string()),
            ("witnesses", self.witnesses.to_string()),
        ]
    }
}

impl std::fmt::Display for Member {
    /// `manager-1 (manager, x25519)`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({}, {})", self.identifier, self.role, self.curve)
    }
}

impl std::fmt::Display for Edge {
    /// `manager-1 -> coordinator: spend`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} -> {}: {}", self.from, self.to, self.service)
    }
}
