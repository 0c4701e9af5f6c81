//! A plan's TOML, read and checked.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use toml::Spanned;

use super::{Edge, MAX_EDGES, MAX_MEMBERS, MAX_PLAN_LEN, Member, Plan, Rules, VERSION};
use crate::ceremony::log::plain;
use crate::error::{Error, ErrorKind, Result, spelling};
use crate::identity::{Curve, Identifier, IdentityError};

/// The key that says the version, read first: a later version may have keys that this one does not know.
#[derive(Deserialize)]
struct Versioned {
    plan: Option<Spanned<i64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "plan")]
    _version: i64,
    name: Spanned<String>,
    curve: Option<Spanned<String>>,
    #[serde(default)]
    rules: FileRules,
    #[serde(default)]
    member: Vec<FileMember>,
    #[serde(default)]
    edge: Vec<FileEdge>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct FileRules {
    attestation: bool,
    backup_token: bool,
    proof_of_possession: bool,
    words_spoken: bool,
    witnesses: u8,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileMember {
    name: Spanned<String>,
    role: Spanned<String>,
    curve: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileEdge {
    from: Spanned<Names>,
    to: Spanned<Names>,
    service: Spanned<String>,
}

/// One name, or an array of names.
struct Names(Vec<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Names;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a member's name, or an array of names")
            }

            fn visit_str<E>(self, name: &str) -> std::result::Result<Names, E> {
                Ok(Names(vec![name.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> std::result::Result<Names, A::Error> {
                let mut all = Vec::new();
                while let Some(name) = names.next_element()? {
                    all.push(name);
                }
                Ok(Names(all))
            }
        }
        deserializer.deserialize_any(OneOrMany)
    }
}

/// What is wrong, and what to do if that can be said better than by [`SEE_THE_EXAMPLE`].
struct Problem {
    what: String,
    hint: Option<String>,
}

const SEE_THE_EXAMPLE: &str =
    "Correct the plan; `claviger-ceremony plan new --example vault -` shows one with every key and what it means.";

impl Problem {
    fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), hint: None }
    }

    fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

impl From<IdentityError> for Problem {
    fn from(error: IdentityError) -> Self {
        Self::new(error.to_string()).hint(error.hint())
    }
}

/// The text of a plan, for the places of what is wrong in it.
struct Source<'a>(&'a str);

impl Source<'_> {
    fn parsed<T: FromStr<Err = IdentityError>>(&self, value: &Spanned<String>) -> Result<T> {
        value.as_ref().parse().map_err(|error: IdentityError| self.at(value, error.into()))
    }

    fn at<T>(&self, value: &Spanned<T>, problem: Problem) -> Error {
        refused(Some(spelling::place(self.0, value.span().start)), problem)
    }
}

fn refused(place: Option<(usize, usize)>, problem: Problem) -> Error {
    let what = plain(problem.what.trim_end_matches('.'));
    let what = match place {
        Some((line, column)) => format!("Line {line}, column {column} of the plan: {what}."),
        None => format!("The plan {what}."),
    };
    Error::new(ErrorKind::PlanInvalid, what, problem.hint.as_deref().map_or(SEE_THE_EXAMPLE.into(), plain))
}

/// What `toml` or serde did not take.
fn not_taken(text: &str, error: &toml::de::Error) -> Error {
    let (place, message, meant) = spelling::of_toml(text, error);
    let problem = Problem::new(message);
    let problem = match meant {
        Some(name) => problem.hint(format!("Did you mean `{name}`?")),
        None => problem,
    };
    refused(place, problem).because(error.clone())
}

/// Reads a plan.
pub(super) fn read(text: &str) -> Result<Plan> {
    if text.len() > MAX_PLAN_LEN {
        return Err(refused(None, Problem::new(format!("is longer than {} KiB", MAX_PLAN_LEN / 1024))));
    }
    let source = Source(text);
    let versioned: Versioned = toml::from_str(text).map_err(|error| not_taken(text, &error))?;
    match versioned.plan {
        Some(version) if *version.as_ref() == VERSION => {}
        Some(version) => {
            let problem = Problem::new(format!("plan version {} is not read here", version.as_ref()));
            let hint = format!("This release reads `plan = {VERSION}`. Use one release of claviger on all machines.");
            return Err(source.at(&version, problem.hint(hint)));
        }
        None => {
            let problem = Problem::new(format!("does not say `plan = {VERSION}`"));
            return Err(refused(
                None,
                problem.hint(format!("Begin the file with `plan = {VERSION}`, if it is a plan.")),
            ));
        }
    }
    let file: File = toml::from_str(text).map_err(|error| not_taken(text, &error))?;
    let name = source.parsed(&file.name)?;
    let members = members(&source, &file)?;
    let edges = edges(&source, &file.edge, &members)?;
    let FileRules { attestation, backup_token, proof_of_possession, words_spoken, witnesses } = file.rules;
    let rules = Rules { attestation, backup_token, proof_of_possession, words_spoken, witnesses };
    Ok(Plan { name, members: members.into_values().collect(), edges: edges.into_iter().collect(), rules })
}

type Members = BTreeMap<Identifier, Member>;

fn members(source: &Source<'_>, file: &File) -> Result<Members> {
    let default = file.curve.as_ref().map_or(Ok(Curve::X25519), |curve| source.parsed(curve))?;
    if file.member.len() > MAX_MEMBERS {
        let what = format!("has {} members, and {MAX_MEMBERS} are the most", file.member.len());
        return Err(refused(None, Problem::new(what)));
    }
    let mut members = Members::new();
    for member in &file.member {
        let identifier: Identifier = source.parsed(&member.name)?;
        let role = source.parsed(&member.role)?;
        let curve = member.curve.as_ref().map_or(Ok(default), |curve| source.parsed(curve))?;
        let known = members.insert(identifier.clone(), Member { identifier, role, curve });
        if let Some(known) = known {
            let problem = Problem::new(format!("a second member \"{}\"", known.identifier));
            return Err(source.at(&member.name, problem.hint("Give every member a name of its own.")));
        }
    }
    if members.len() < 2 {
        let problem = Problem::new("has fewer than two members");
        return Err(refused(None, problem.hint("List every machine that takes part, each under `[[member]]`.")));
    }
    Ok(members)
}

fn edges(source: &Source<'_>, tables: &[FileEdge], members: &Members) -> Result<BTreeSet<Edge>> {
    let mut edges = BTreeSet::new();
    for table in tables {
        let service = source.parsed(&table.service)?;
        let from = ends(source, &table.from, members)?;
        let to = ends(source, &table.to, members)?;
        for from in &from {
            for to in &to {
                joined(from, to).map_err(|problem| source.at(&table.to, problem))?;
                let [from, to] = [from, to].map(|member| member.identifier.clone());
                edges.insert(Edge { from, to, service: Clone::clone(&service) });
                if edges.len() > MAX_EDGES {
                    return Err(source.at(&table.to, Problem::new(format!("more than {MAX_EDGES} edges"))));
                }
            }
        }
    }
    Ok(edges)
}

/// The members that one end of an edge names, each once.
fn ends<'a>(source: &Source<'_>, names: &Spanned<Names>, members: &'a Members) -> Result<Vec<&'a Member>> {
    let mut found = BTreeMap::new();
    for name in &names.as_ref().0 {
        let identifier = name.parse().map_err(|error: IdentityError| source.at(names, error.into()))?;
        let Some(member) = members.get(&identifier) else {
            let problem = Problem::new(format!("\"{identifier}\" is not a member"));
            let hint = match spelling::nearest(name, members.keys().map(Identifier::as_str)) {
                Some(meant) => format!("Did you mean `{meant}`? Else list \"{identifier}\" under `[[member]]`."),
                None => format!("List \"{identifier}\" under `[[member]]`, or take the edge out."),
            };
            return Err(source.at(names, problem.hint(hint)));
        };
        found.insert(identifier, member);
    }
    if found.is_empty() {
        return Err(source.at(names, Problem::new("an edge without a member at one end")));
    }
    Ok(found.into_values().collect())
}

fn joined(from: &Member, to: &Member) -> std::result::Result<(), Problem> {
    if from.identifier == to.identifier {
        let problem = Problem::new(format!("an edge from \"{0}\" to \"{0}\" itself", from.identifier));
        return Err(problem.hint("An edge joins two members. Take the name out at one end."));
    }
    if from.curve != to.curve {
        let what = format!(
            "a curve that a pair does not share: \"{}\" has {} and \"{}\" has {}",
            from.identifier, from.curve, to.identifier, to.curve
        );
        let hint = "Give both members one curve, which both tokens can do; every family of tokens has p256.";
        return Err(Problem::new(what).hint(hint));
    }
    Ok(())
}
