//! The plan of a ceremony: members, edges, rules. Written beforehand, reviewed, and the same on every machine.

use crate::error::Result;
use crate::identity::{Curve, Fingerprint, Identifier, IdentityCard, Role, ServiceName};

/// Longest text of a plan, in bytes.
pub const MAX_PLAN_LEN: usize = 256 * 1024;

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
    /// [`PlanInvalid`](crate::ErrorKind::PlanInvalid), with the line or the member that is off.
    pub fn from_toml(text: &str) -> Result<Self> {
        let _ = text;
        unimplemented!()
    }

    /// The plan in its one canonical spelling, TOML: what is stored, hashed, and read again by [`from_toml`](Self::from_toml).
    pub fn to_toml(&self) -> String {
        unimplemented!()
    }

    /// The first 128 bits of `SHA-256("claviger plan 1\n" || to_toml())`: what people compare, and what challenges and the phrase are bound to.
    pub fn fingerprint(&self) -> Fingerprint {
        unimplemented!()
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

    /// Whether a card is that of the member: name, role, curve, and what the rules demand of a card (that an attestation is there, not that it holds).
    ///
    /// # Errors
    /// [`PlanMismatch`](crate::ErrorKind::PlanMismatch): a stranger, another role, another curve, no backup key;
    /// [`AttestationMissing`](crate::ErrorKind::AttestationMissing).
    pub fn check_card(&self, card: &IdentityCard) -> Result<()> {
        let _ = card;
        unimplemented!()
    }
}
