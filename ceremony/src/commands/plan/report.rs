//! What `plan check` and `plan show` print.

use std::fmt::Write as _;

use claviger::ceremony::plan::{Changes, Edge, Member, Plan, Rules};
use serde::Serialize;

use crate::report::{Print, table};

/// A plan: `{"name", "fingerprint", "rules", "members": [{"identifier", "role", "curve"}], "edges": [{"from", "to", "service"}], "warnings"}`.
#[derive(Serialize)]
pub(super) struct Checked {
    name: String,
    fingerprint: Print,
    rules: RulesReport,
    members: Vec<MemberReport>,
    edges: Vec<EdgeReport>,
    warnings: Vec<String>,
}

#[derive(Serialize)]
pub(super) struct RulesReport {
    attestation: bool,
    backup_token: bool,
    proof_of_possession: bool,
    words_spoken: bool,
    witnesses: u8,
}

#[derive(Serialize)]
pub(super) struct MemberReport {
    identifier: String,
    role: String,
    curve: String,
}

#[derive(Serialize)]
pub(super) struct EdgeReport {
    from: String,
    to: String,
    service: String,
}

impl From<&Rules> for RulesReport {
    fn from(rules: &Rules) -> Self {
        let &Rules { attestation, backup_token, proof_of_possession, words_spoken, witnesses } = rules;
        Self { attestation, backup_token, proof_of_possession, words_spoken, witnesses }
    }
}

impl From<&Member> for MemberReport {
    fn from(member: &Member) -> Self {
        let Member { identifier, role, curve } = member;
        Self { identifier: identifier.to_string(), role: role.to_string(), curve: curve.to_string() }
    }
}

impl From<&Edge> for EdgeReport {
    fn from(edge: &Edge) -> Self {
        Self { from: edge.from.to_string(), to: edge.to.to_string(), service: edge.service.to_string() }
    }
}

impl From<&Plan> for Checked {
    fn from(plan: &Plan) -> Self {
        Self {
            name: plan.name.to_string(),
            fingerprint: plan.fingerprint().into(),
            rules: (&plan.rules).into(),
            members: plan.members.iter().map(MemberReport::from).collect(),
            edges: plan.edges.iter().map(EdgeReport::from).collect(),
            warnings: plan.warnings(),
        }
    }
}

/// The head of `plan check` and `plan show`: name, fingerprint, rules.
pub(super) fn head(plan: &Plan) -> String {
    let print = plan.fingerprint();
    format!("{}\n  {:<14} {print}\n  {:<14} {}\n{}", plan.name, "fingerprint", "words", print.words(), demanded(plan))
}

/// The rules, a line each.
pub(super) fn demanded(plan: &Plan) -> String {
    let demands = demands(&plan.rules).into_iter().enumerate();
    demands.map(|(at, rule)| format!("  {:<14} {rule}\n", if at == 0 { "demanded" } else { "" })).collect()
}

/// What the rules demand, for people.
pub(super) fn demands(rules: &Rules) -> Vec<String> {
    let said = [
        (rules.attestation, "an attestation of every key"),
        (rules.backup_token, "a backup token of every machine"),
        (rules.proof_of_possession, "a proof of possession of every key"),
        (rules.words_spoken, "fingerprints compared by spoken words"),
    ];
    let mut demands: Vec<String> =
        said.into_iter().filter(|(demanded, _)| *demanded).map(|(_, what)| what.to_owned()).collect();
    match rules.witnesses {
        0 => {}
        1 => demands.push("1 witness".into()),
        more => demands.push(format!("{more} witnesses")),
    }
    if demands.is_empty() {
        demands.push("nothing".into());
    }
    demands
}

/// The whole plan, members and edges a line each.
pub(super) fn text(plan: &Plan) -> String {
    let members = plan
        .members
        .iter()
        .map(|Member { identifier, role, curve }| [identifier.to_string(), role.to_string(), curve.to_string()]);
    let edges =
        plan.edges.iter().map(|Edge { from, to, service }| [from.to_string(), to.to_string(), service.to_string()]);
    let mut text = head(plan);
    let _ = write!(text, "\n{} members\n{}", plan.members.len(), table(["NAME", "ROLE", "CURVE"], members));
    match plan.edges.len() {
        0 => text.push_str("\nNo edge\n"),
        1 => text.push_str("\n1 edge\n"),
        count => {
            let _ = writeln!(text, "\n{count} edges");
        }
    }
    if !plan.edges.is_empty() {
        text.push_str(&table(["FROM", "TO", "SERVICE"], edges));
    }
    text
}

/// How a plan differs: `{"name", "members_added", "members_removed", "members_changed", "edges_added", "edges_removed", "rules"}`; `name`, `rules` and each of
/// `members_changed` as `{"before", "after"}`, the first two `null` where they are the same.
#[derive(Serialize)]
pub(super) struct ChangesReport {
    name: Option<Change<String>>,
    members_added: Vec<MemberReport>,
    members_removed: Vec<MemberReport>,
    members_changed: Vec<Change<MemberReport>>,
    edges_added: Vec<EdgeReport>,
    edges_removed: Vec<EdgeReport>,
    rules: Option<Change<RulesReport>>,
}

#[derive(Serialize)]
struct Change<T> {
    before: T,
    after: T,
}

impl<T> Change<T> {
    fn of<'a, U>((before, after): &'a (U, U)) -> Self
    where
        T: From<&'a U>,
    {
        Self { before: before.into(), after: after.into() }
    }
}

impl From<&Changes> for ChangesReport {
    fn from(changes: &Changes) -> Self {
        let members = |members: &[Member]| members.iter().map(MemberReport::from).collect();
        let edges = |edges: &[Edge]| edges.iter().map(EdgeReport::from).collect();
        Self {
            name: changes.name.as_ref().map(|(old, new)| Change { before: old.to_string(), after: new.to_string() }),
            members_added: members(&changes.members_added),
            members_removed: members(&changes.members_removed),
            members_changed: changes.members_changed.iter().map(Change::of).collect(),
            edges_added: edges(&changes.edges_added),
            edges_removed: edges(&changes.edges_removed),
            rules: changes.rules.as_ref().map(Change::of),
        }
    }
}
