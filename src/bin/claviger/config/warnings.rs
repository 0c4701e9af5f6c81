//! What a file says that can be meant, and probably is not.

use crate::run::Sources;
use claviger::config::{Backend, Config};
use claviger::daemon::client::control_path;
use claviger::identity::Identifier;
use claviger::policy::{Effect, Rule, Who};
use claviger::store::{Peer, Store};
use serde::Serialize;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Warning {
    /// A place in the file: a line, or a table.
    pub(super) about: String,
    pub(super) message: String,
    pub(super) hint: String,
}

struct Warnings(Vec<Warning>);

impl Warnings {
    fn add(&mut self, about: impl Into<String>, message: impl Into<String>, hint: impl Into<String>) {
        self.0.push(Warning { about: about.into(), message: message.into(), hint: hint.into() });
    }
}

/// Of a file that is right by itself.
pub(super) fn of(config: &Config, path: &Path, sources: &Sources) -> Vec<Warning> {
    let mut found = Warnings(Vec::new());
    modes(config, path, &mut found);
    let dir = sources.dir(config).ok();
    let store = dir
        .as_deref()
        .map(|dir| Store::open(dir).and_then(|store| Ok((store.machine()?, store.peers()?, store.plan()?))));
    match store {
        Some(Ok((machine, peers, plan))) => {
            let machine = machine.card.identifier;
            let edges = plan.filter(|_| config.policy.plan).map(|plan| claviger::policy::edges_to(&plan, &machine));
            let planned: Vec<_> = edges.unwrap_or_default().into_iter().map(|edge| edge.service).collect();
            names(config, &peers, &mut found);
            for (name, service) in &config.service {
                if service.allow.is_empty() && !planned.contains(name) {
                    found.add(
                        format!("[service.{name}]"),
                        "nobody may open it.",
                        "Name peers under `allow`, or take it out.",
                    );
                }
            }
            for name in planned.iter().filter(|name| !config.service.contains_key(*name)) {
                found.add(
                    "the plan",
                    format!("peers may open `{name}`, and nothing is served by that name."),
                    format!("Add a table [service.{name}]."),
                );
            }
        }
        Some(Err(error)) => found.add(
            "the store",
            format!("the peers that are named could not be looked for: {error}"),
            error.hint().to_owned(),
        ),
        None => {}
    }
    if let Some(dir) =
        dir.filter(|dir| !config.daemon.operators.is_empty() && control_path(config, dir).starts_with(dir))
    {
        found.add(
            "[daemon] operators",
            format!("nobody but this user can reach a control socket in {}.", dir.display()),
            "Name another place as `control` under [daemon], for example /run/claviger/control.sock.",
        );
    }
    found.0
}

/// Files that others may read or write, or that are not there.
fn modes(config: &Config, path: &Path, found: &mut Warnings) {
    let mode = |path: &Path| std::fs::metadata(path).map(|meta| meta.permissions().mode());
    if mode(path).is_ok_and(|mode| mode & 0o022 != 0) {
        found.add(
            "the file",
            "others than its owner may write to it, and so decide who may open what.",
            format!("Run `chmod go-w {}`.", path.display()),
        );
    }
    for (key, secret) in [
        ("[token] pin-file", &config.token.pin_file),
        ("[transport.tor] password-file", &config.transport.tor.password_file),
    ] {
        let Some(secret) = secret else { continue };
        match mode(secret) {
            Err(error) => found.add(
                key,
                format!("{} can not be looked at: {error}.", secret.display()),
                "Make it before the daemon is started.",
            ),
            Ok(mode) if mode & 0o077 != 0 => found.add(
                key,
                format!("others may read {}.", secret.display()),
                format!("Run `chmod 600 {}`.", secret.display()),
            ),
            Ok(_) => {}
        }
    }
    for (name, service) in &config.service {
        let Backend::Command(command) = &service.backend else { continue };
        let program = command.first().map(Path::new).unwrap_or(Path::new(""));
        if !mode(program).is_ok_and(|mode| mode & 0o111 != 0) {
            found.add(
                format!("[service.{name}]"),
                format!("{} is no program.", program.display()),
                "Correct its path.",
            );
        }
    }
    if config.store.allow_unsealed {
        found.add(
            "[store] allow-unsealed",
            "whoever can write to the store can change it unseen.",
            "Seal it with `claviger-ceremony seal`, and take this out.",
        );
    }
}

/// Names that nobody has.
fn names(config: &Config, peers: &[Peer], found: &mut Warnings) {
    let hint = "See the names with `claviger-ceremony peers`.";
    let is_peer = |name: &Identifier| peers.iter().any(|peer| peer.identifier == *name);
    for Rule { service, who, effect, place } in config.rules() {
        let key = if effect == Effect::Allow { "allow" } else { "deny" };
        let about = format!("line {}", place.line);
        match &who {
            Who::Peer(name) if !is_peer(name) => {
                found.add(
                    about,
                    format!("`{key}` of `{service}` names `{name}`, and no peer of that name is recorded."),
                    hint,
                );
            }
            Who::Role(role) if !peers.iter().any(|peer| peer.role == *role) => {
                found.add(about, format!("`{key}` of `{service}` names the role `{role}`, and no peer has it."), hint);
            }
            _ => {}
        }
    }
    let forwards = config.forward.iter().map(|forward| (format!("[[forward]] {}", forward.listen), &forward.peer));
    let wanted = config.peer.keys().map(|name| (format!("[peer.{name}]"), name));
    let dialled = config.transport.tcp.peers.keys().map(|name| ("[transport.tcp] peers".to_owned(), name));
    for (about, name) in forwards.chain(wanted).chain(dialled).filter(|(_, name)| !is_peer(name)) {
        found.add(about, format!("no peer `{name}` is recorded."), hint);
    }
}
