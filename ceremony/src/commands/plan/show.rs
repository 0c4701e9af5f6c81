//! `plan show`: the recorded plan, and what has come of it.

use std::fmt::Write as _;

use claviger::ceremony::log::{Event, LogEntry};
use claviger::ceremony::phrase::{PHRASE_WORDS, phrase};
use claviger::ceremony::plan::{Edge, Member, Plan};
use claviger::error::{Error, ErrorKind, Result};
use claviger::identity::{Fingerprint, Identifier, IdentityCard, KeyPlace};
use claviger::program::Terminal;
use claviger::store::{Machine, Store};
use serde::Serialize;

use super::report::{EdgeReport, RulesReport, head};
use crate::report::{Print, table, utc};

/// `plan show --json`.
#[derive(Serialize)]
struct Shown {
    name: String,
    fingerprint: Print,
    rules: RulesReport,
    members: Vec<MemberShown>,
    edges: Vec<EdgeReport>,
    /// How many members' cards are missing.
    missing: usize,
    /// When the phrase over what is recorded now was confirmed; `null` while it was not.
    confirmed: Option<Confirmed>,
}

#[derive(Serialize)]
struct MemberShown {
    identifier: String,
    role: String,
    curve: String,
    /// `own`, `peer`, or `held`, for the phrase alone; `null` while it is missing, and when it was revoked.
    card: Option<&'static str>,
    revoked: bool,
    /// The card's.
    fingerprint: Option<Print>,
    /// Whether its token proved here that it holds the key on the card; `null` for this machine's own, and while the card is missing.
    proven: Option<bool>,
    /// The same for its backup key; `null` when it has none.
    backup_proven: Option<bool>,
}

/// `{"time", "how"}`: seconds since 1970, and who.
#[derive(Serialize)]
struct Confirmed {
    time: u64,
    how: String,
}

pub(super) fn show(store: &Store, toml: bool, terminal: &Terminal) -> Result<()> {
    let Some(plan) = store.plan()? else {
        let hint = "Record one with `claviger-ceremony plan record FILE`.";
        return Err(Error::new(ErrorKind::PlanMismatch, "No plan is recorded here.", hint));
    };
    if toml {
        return terminal.data(plan.to_toml().as_bytes());
    }
    let (machine, cards, log) = (store.machine()?, store.cards()?, store.log()?);
    let revoked = store.revoked()?;
    let members: Vec<MemberShown> = plan
        .members
        .iter()
        .map(|member| {
            let card = cards.iter().find(|card| card.identifier == member.identifier);
            let revoked = card.is_none() && revoked.iter().any(|revoked| revoked.identifier == member.identifier);
            MemberShown::of(member, card, revoked, &machine, &plan, &log)
        })
        .collect();
    let shown = Shown {
        name: plan.name.to_string(),
        fingerprint: plan.fingerprint().into(),
        rules: (&plan.rules).into(),
        missing: members.iter().filter(|member| member.card.is_none()).count(),
        members,
        edges: plan.edges.iter().map(EdgeReport::from).collect(),
        confirmed: confirmed(&plan, &cards, &log),
    };
    terminal.result(&shown.text(&plan, &machine.card.identifier), &shown)
}

impl MemberShown {
    fn of(
        member: &Member,
        card: Option<&IdentityCard>,
        revoked: bool,
        machine: &Machine,
        plan: &Plan,
        log: &[LogEntry],
    ) -> Self {
        let Member { identifier, role, curve } = member;
        let own = *identifier == machine.card.identifier;
        let proven = |place| {
            let key = card.filter(|_| !own)?.key(place)?;
            let print = Fingerprint::of_key(key);
            let proof = |entry: &LogEntry| {
                entry.event == Event::ProofVerified && entry.subject == *identifier && entry.fingerprint == print
            };
            Some(log.iter().any(proof))
        };
        let kind = match (own, plan.joins(&machine.card.identifier, identifier)) {
            (true, _) => "own",
            (false, true) => "peer",
            (false, false) => "held",
        };
        Self {
            identifier: identifier.to_string(),
            role: role.to_string(),
            curve: curve.to_string(),
            card: card.map(|_| kind),
            revoked,
            fingerprint: card.map(|card| card.fingerprint().into()),
            proven: proven(KeyPlace::Primary),
            backup_proven: proven(KeyPlace::Backup),
        }
    }

    fn row(&self) -> [String; 4] {
        let card = match (self.card, self.revoked) {
            (Some(kind), _) => kind,
            (None, true) => "revoked",
            (None, false) => "MISSING",
        };
        let proven = match (self.proven, self.backup_proven) {
            (None, _) => "-",
            (Some(true), None) => "yes",
            (Some(true), Some(true)) => "both keys",
            (Some(true), Some(false)) => "primary key only",
            (Some(false), Some(true)) => "backup key only",
            (Some(false), _) => "no",
        };
        [self.identifier.clone(), self.role.clone(), card.to_owned(), proven.to_owned()]
    }
}

impl Shown {
    fn text(&self, plan: &Plan, own: &Identifier) -> String {
        let mut text = head(plan);
        let state = match (&self.confirmed, self.missing) {
            (Some(confirmed), _) => format!("confirmed {}, {}", utc(confirmed.time), confirmed.how),
            (None, 0) => "not confirmed".into(),
            (None, 1) => "not yet: 1 card is missing".into(),
            (None, missing) => format!("not yet: {missing} cards are missing"),
        };
        let _ = writeln!(text, "  {:<14} {state}\n", "phrase");
        text += &table(["NAME", "ROLE", "CARD", "PROVEN"], self.members.iter().map(MemberShown::row));
        let edges = plan
            .edges_of(own)
            .map(|Edge { from, to, service }| [from.to_string(), to.to_string(), service.to_string()]);
        text + "\nEdges of this machine\n" + &table(["FROM", "TO", "SERVICE"], edges)
    }
}

/// The last confirmation of the phrase over the plan and the cards that are here, if all are.
fn confirmed(plan: &Plan, cards: &[IdentityCard], log: &[LogEntry]) -> Option<Confirmed> {
    let print = plan.fingerprint();
    let now = phrase(Some(plan), cards.iter());
    let entry = log.iter().rev().find(|entry| {
        let words: Vec<&str> = entry.detail.split([' ', ';']).take(PHRASE_WORDS).collect();
        entry.event == Event::Confirmed && entry.fingerprint == print && words.join(" ") == now
    })?;
    let how = entry.detail.get(now.len()..).unwrap_or_default().trim_start_matches([';', ' ']);
    Some(Confirmed { time: entry.time, how: how.to_owned() })
}
