//! Which peer may open which service. What nothing allows is denied.
//!
//! Rules come from the configuration file (`allow` and `deny` of a service) and, where the file says so, from the edges of the ceremony's plan. A denial that
//! fits a peer is stronger than whatever allows it.
//!
//! ```
//! use claviger::policy::{Effect, Ground, Place, Policy, Rule, Who};
//!
//! let allow = Rule { service: "cosign".parse()?, who: Who::Role("wallet".parse()?), effect: Effect::Allow, place: Place { line: 7 } };
//! let policy = Policy::new(vec![allow], &[]);
//! let verdict = policy.verdict(&"alice".parse()?, &"wallet".parse()?, &"cosign".parse()?);
//! assert!(verdict.is_allowed());
//! assert_eq!(verdict.ground, Ground::Allowed { who: Who::Role("wallet".parse()?), place: Place { line: 7 } });
//! assert!(!policy.verdict(&"alice".parse()?, &"wallet".parse()?, &"ssh".parse()?).is_allowed());
//! # Ok::<(), claviger::identity::IdentityError>(())
//! ```

use crate::ceremony::plan::{Edge, Plan};
use crate::identity::{Identifier, IdentityError, Role, ServiceName};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Whom a rule is about: `wallet-1`, `role:wallet`, or `*`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// One peer.
    Peer(Identifier),
    /// Every peer of a role.
    Role(Role),
    /// Every peer of the store.
    Anyone,
}

impl Who {
    fn is(&self, peer: &Identifier, role: &Role) -> bool {
        match self {
            Self::Peer(name) => name == peer,
            Self::Role(name) => name == role,
            Self::Anyone => true,
        }
    }
}

impl FromStr for Who {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        match text.strip_prefix("role:") {
            _ if text == "*" => Ok(Self::Anyone),
            Some(role) => Ok(Self::Role(role.parse()?)),
            None => Ok(Self::Peer(text.parse()?)),
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(name) => name.fmt(f),
            Self::Role(name) => write!(f, "role:{name}"),
            Self::Anyone => f.write_str("*"),
        }
    }
}

/// Where in the configuration file a rule stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// From 1.
    pub line: usize,
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Lets in, unless a denial fits.
    Allow,
    /// Keeps out.
    Deny,
}

/// A rule of the configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The service that it is about.
    pub service: ServiceName,
    /// The peers that it is about.
    pub who: Who,
    /// What it does.
    pub effect: Effect,
    /// Where it stands.
    pub place: Place,
}

/// Who may open what on this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    rules: BTreeMap<ServiceName, Vec<Rule>>,
    edges: Vec<Edge>,
}

impl Policy {
    /// The rules of the file, and the edges that allow: see [`edges_to`].
    pub fn new(rules: Vec<Rule>, edges: &[Edge]) -> Self {
        let mut by_service = BTreeMap::<ServiceName, Vec<Rule>>::new();
        for rule in rules {
            by_service.entry(rule.service.clone()).or_default().push(rule);
        }
        Self { rules: by_service, edges: edges.to_vec() }
    }

    /// Whether a peer may open a service, and by what.
    pub fn verdict(&self, peer: &Identifier, role: &Role, service: &ServiceName) -> Verdict {
        let rules = self.rules.get(service).map(Vec::as_slice).unwrap_or_default();
        let first = |effect| rules.iter().find(|rule| rule.effect == effect && rule.who.is(peer, role));
        let ground = if let Some(rule) = first(Effect::Deny) {
            Ground::Denied { who: rule.who.clone(), place: rule.place }
        } else if let Some(rule) = first(Effect::Allow) {
            Ground::Allowed { who: rule.who.clone(), place: rule.place }
        } else if let Some(edge) = self.edges.iter().find(|edge| edge.from == *peer && edge.service == *service) {
            Ground::Planned(edge.clone())
        } else {
            Ground::Nothing
        };
        Verdict { ground }
    }
}

/// The edges of a plan that end at a machine: who may open what there.
pub fn edges_to(plan: &Plan, machine: &Identifier) -> Vec<Edge> {
    plan.edges.iter().filter(|edge| edge.to == *machine).cloned().collect()
}

/// What a policy says, and by what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What decides.
    pub ground: Ground,
}

impl Verdict {
    /// Whether the peer may open the service.
    pub fn is_allowed(&self) -> bool {
        matches!(self.ground, Ground::Allowed { .. } | Ground::Planned(_))
    }
}

/// What decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ground {
    /// A line of the file lets it in.
    Allowed {
        /// Whom it names.
        who: Who,
        /// Where it stands.
        place: Place,
    },
    /// A line of the file keeps it out.
    Denied {
        /// Whom it names.
        who: Who,
        /// Where it stands.
        place: Place,
    },
    /// An edge of the plan lets it in.
    Planned(Edge),
    /// Nothing is said about it.
    Nothing,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(service: &str, who: &str, effect: Effect, line: usize) -> Rule {
        Rule { service: service.parse().unwrap(), who: who.parse().unwrap(), effect, place: Place { line } }
    }

    #[test]
    fn a_denial_is_stronger_and_nothing_is_a_denial() {
        let edge =
            Edge { from: "tower".parse().unwrap(), to: "me".parse().unwrap(), service: "watch".parse().unwrap() };
        let policy = Policy::new(
            vec![
                rule("cosign", "role:wallet", Effect::Allow, 1),
                rule("cosign", "mallory", Effect::Deny, 2),
                rule("echo", "*", Effect::Allow, 3),
                rule("watch", "tower-2", Effect::Allow, 4),
                rule("shut", "*", Effect::Deny, 5),
                rule("shut", "alice", Effect::Allow, 6),
            ],
            std::slice::from_ref(&edge),
        );
        let ground = |peer: &str, role: &str, service: &str| {
            policy.verdict(&peer.parse().unwrap(), &role.parse().unwrap(), &service.parse().unwrap()).ground
        };
        let allowed = |who: &str, line| Ground::Allowed { who: who.parse().unwrap(), place: Place { line } };
        assert_eq!(ground("alice", "wallet", "cosign"), allowed("role:wallet", 1));
        assert_eq!(
            ground("mallory", "wallet", "cosign"),
            Ground::Denied { who: "mallory".parse().unwrap(), place: Place { line: 2 } }
        );
        assert_eq!(ground("bob", "tower", "cosign"), Ground::Nothing);
        assert_eq!(ground("bob", "tower", "echo"), allowed("*", 3));
        assert_eq!(ground("tower", "watchtower", "watch"), Ground::Planned(edge));
        assert_eq!(ground("tower", "watchtower", "cosign"), Ground::Nothing);
        // A role is not a name.
        assert_eq!(ground("wallet", "other", "cosign"), Ground::Nothing);
        assert_eq!(ground("role", "tower-2", "watch"), Ground::Nothing);
        assert_eq!(ground("alice", "wallet", "shut"), Ground::Denied { who: Who::Anyone, place: Place { line: 5 } });
        assert_eq!(ground("alice", "wallet", "unheard-of"), Ground::Nothing);
    }

    #[test]
    fn whom_a_rule_names() {
        for text in ["wallet-1", "role:wallet", "*"] {
            assert_eq!(text.parse::<Who>().unwrap().to_string(), text);
        }
        for wrong in ["", "role:", "role:A", "**", "Role:a", "group:a", "a b"] {
            assert!(wrong.parse::<Who>().is_err(), "{wrong}");
        }
    }
}
