//! What differs between two plans, and what ends when a member goes.

use std::fmt::Write as _;

use super::{Edge, Member, Plan, Rules};
use crate::identity::Identifier;

/// How a newer plan differs from an older one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// The former and the new name of the ceremony, if they differ.
    pub name: Option<(Identifier, Identifier)>,
    /// Who takes part now and did not, ordered by identifier.
    pub members_added: Vec<Member>,
    /// Who took part and does not any more.
    pub members_removed: Vec<Member>,
    /// Who has another role or curve: before and after.
    pub members_changed: Vec<(Member, Member)>,
    /// Edges that the newer plan alone has.
    pub edges_added: Vec<Edge>,
    /// Edges that the older plan alone has.
    pub edges_removed: Vec<Edge>,
    /// The rules before and after, if they differ.
    pub rules: Option<(Rules, Rules)>,
}

impl Changes {
    /// Whether the plans are the same.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether nothing was removed or changed: members and edges were added, or nothing was.
    pub fn only_adds(&self) -> bool {
        let Self { name, members_removed, members_changed, edges_removed, rules, .. } = self;
        name.is_none()
            && members_removed.is_empty()
            && members_changed.is_empty()
            && edges_removed.is_empty()
            && rules.is_none()
    }

    /// A line for each change, those that take away last: `+ member …`, `~ rule …`, `- edge …`. Empty when there is none.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let mut line = |mark: &str, what: std::fmt::Arguments<'_>| {
            let _ = writeln!(text, "{mark} {what}");
        };
        if let Some((old, new)) = &self.name {
            line("~", format_args!("name    {old}: now {new}"));
        }
        if let Some((old, new)) = &self.rules {
            for ((name, old), (_, new)) in old.table().iter().zip(new.table()).filter(|(old, new)| old.1 != new.1) {
                line("~", format_args!("rule    {name}: {old}, now {new}"));
            }
        }
        for member in &self.members_added {
            line("+", format_args!("member  {member}"));
        }
        for (old, new) in &self.members_changed {
            line("~", format_args!("member  {old}: now {}, {}", new.role, new.curve));
        }
        for edge in &self.edges_added {
            line("+", format_args!("edge    {edge}"));
        }
        for edge in &self.edges_removed {
            line("-", format_args!("edge    {edge}"));
        }
        for member in &self.members_removed {
            line("-", format_args!("member  {member}"));
        }
        text
    }
}

impl Plan {
    /// How `newer` differs from this plan.
    pub fn changes(&self, newer: &Self) -> Changes {
        let only = |of: &Self, not: &Self| -> Vec<Member> {
            of.members.iter().filter(|member| not.member(&member.identifier).is_none()).cloned().collect()
        };
        let edges = |of: &Self, not: &Self| -> Vec<Edge> {
            of.edges.iter().filter(|edge| not.edges.binary_search(edge).is_err()).cloned().collect()
        };
        let changed = self.members.iter().filter_map(|old| {
            let new = newer.member(&old.identifier)?;
            (old != new).then(|| (old.clone(), new.clone()))
        });
        Changes {
            name: (self.name != newer.name).then(|| (self.name.clone(), newer.name.clone())),
            members_added: only(newer, self),
            members_removed: only(self, newer),
            members_changed: changed.collect(),
            edges_added: edges(newer, self),
            edges_removed: edges(self, newer),
            rules: (self.rules != newer.rules).then(|| (self.rules.clone(), newer.rules.clone())),
        }
    }

    /// The edges between two members, whoever dials.
    pub fn between(&self, one: &Identifier, other: &Identifier) -> Vec<&Edge> {
        self.edges.iter().filter(|edge| edge.other(one) == Some(other)).collect()
    }

    /// What ends for `own` when `gone` goes, a sentence each: first the edges, then what nobody is left for. Empty when no edge joins them.
    pub fn losses(&self, own: &Identifier, gone: &Identifier) -> Vec<String> {
        self.losses_among(own, gone, |_| true)
    }

    /// As [`losses`](Self::losses), when of the other members only those are left for whom `left` holds: the others were revoked, or were never recorded.
    pub fn losses_among(&self, own: &Identifier, gone: &Identifier, left: impl Fn(&Identifier) -> bool) -> Vec<String> {
        let stays = |edge: &&Edge| edge.other(own).is_some_and(|other| other != gone && left(other));
        let staying: Vec<&Edge> = self.edges.iter().filter(stays).collect();
        told(own, &self.between(own, gone), &staying, |name| self.member(name))
    }

    /// What ends for `own` when `newer` takes this plan's place, as [`losses`](Self::losses) says it.
    pub fn losses_by(&self, newer: &Self, own: &Identifier) -> Vec<String> {
        let ending: Vec<&Edge> = self.edges_of(own).filter(|edge| newer.edges.binary_search(edge).is_err()).collect();
        let staying: Vec<&Edge> = newer.edges_of(own).collect();
        told(own, &ending, &staying, |name| newer.member(name).or_else(|| self.member(name)))
    }
}

/// What ends for `own` with the edges `ending`, and what nobody is left for when it has `staying`.
fn told<'a>(
    own: &Identifier,
    ending: &[&Edge],
    staying: &[&Edge],
    member: impl Fn(&Identifier) -> Option<&'a Member>,
) -> Vec<String> {
    let (dialled, served): (Vec<&Edge>, Vec<&Edge>) = staying.iter().partition(|edge| edge.from == *own);
    let (lost, unserved): (Vec<&Edge>, Vec<&Edge>) = ending.iter().partition(|edge| edge.from == *own);
    let ended = |edge: &&Edge| format!("{} can no longer connect to {} for {}.", edge.from, edge.to, edge.service);
    let mut losses: Vec<String> = ending.iter().map(ended).collect();
    let mut after = |what: String| {
        let loss = format!("After this, {what}.");
        if !losses.contains(&loss) {
            losses.push(loss);
        }
    };
    if dialled.is_empty() && !lost.is_empty() {
        after(format!("{own} reaches nobody"));
    } else {
        let role = |edge: &Edge| member(&edge.to).map(|member| &member.role);
        for role_lost in lost.iter().filter_map(|edge| role(edge)) {
            if !dialled.iter().any(|edge| role(edge) == Some(role_lost)) {
                after(format!("{own} reaches no {role_lost}"));
            }
        }
        for Edge { service, .. } in &lost {
            if !dialled.iter().any(|edge| edge.service == *service) {
                after(format!("{own} reaches nobody for {service}"));
            }
        }
    }
    for Edge { service, .. } in &unserved {
        if !served.iter().any(|edge| edge.service == *service) {
            after(format!("nobody connects to {own} for {service}"));
        }
    }
    losses
}
