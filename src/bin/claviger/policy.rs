//! `claviger policy`: who may open what on this machine, and why. Reads the file and the store, and needs neither token nor daemon.

use crate::cli::{Cli, Target};
use crate::run::Sources;
use clap::{Args, Subcommand};
use claviger::config::{Config, FILE_NAME};
use claviger::error::{Error, ErrorKind, Result};
use claviger::identity::{Identifier, ServiceName};
use claviger::policy::{Ground, Policy as Rules};
use claviger::program::Terminal;
use claviger::store::{Peer, Store};
use serde::Serialize;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

#[derive(Args)]
pub(crate) struct Policy {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Whether a peer may open a service of this machine, and what decides
    #[command(after_help = "\
Examples:
  claviger policy test wallet-1 cosign
  claviger policy test wallet-1/cosign --json | jq .by

Ends with 0 when it may, with 1 when it may not, and with 12 when no peer of that name is recorded.")]
    Test {
        /// The peer, or peer and service as PEER/SERVICE
        peer: String,
        /// The service
        service: Option<ServiceName>,
    },
    /// Every service, and who may open it
    #[command(after_help = "Example:\n  claviger policy list --config /etc/claviger/claviger.toml")]
    List,
}

/// What decides about a peer and a service, and how.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Decision {
    peer: String,
    role: String,
    service: String,
    allowed: bool,
    /// A line of the file, an edge of the plan, or another reason.
    by: By,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
enum By {
    Line {
        file: String,
        line: usize,
        key: &'static str,
        who: String,
    },
    Edge {
        from: String,
        to: String,
        service: String,
    },
    /// Nothing is served by that name.
    NoService,
    /// The peer's time has passed.
    Expired,
    /// Nothing allows it.
    Nothing,
}

impl By {
    fn sentence(&self) -> String {
        match self {
            Self::Line { file, line, key, who } => format!("{file}, line {line}: {key} = {who}"),
            Self::Edge { from, to, service } => format!("the plan's edge {from} -> {to} for {service}"),
            Self::NoService => "this machine serves nothing of that name".into(),
            Self::Expired => "the peer's time has passed".into(),
            Self::Nothing => "nothing allows it".into(),
        }
    }
}

/// What a verdict stands on.
struct Grounds {
    config: Config,
    file: String,
    rules: Rules,
    peers: Vec<Peer>,
}

impl Grounds {
    fn read(cli: &Cli) -> Result<Self> {
        let sources = Sources::of(cli);
        let (dir, config) = sources.load()?;
        let file = sources.file()?;
        let file =
            file.as_deref().and_then(Path::file_name).map_or(FILE_NAME.into(), |name| name.to_string_lossy().into());
        let store = Store::open(&dir)?;
        let machine = store.machine()?.card.identifier;
        let rules = claviger::daemon::policy(&config, &machine, store.plan()?.as_ref());
        Ok(Self { config, file, rules, peers: store.peers()? })
    }

    fn decide(&self, peer: &Peer, service: &ServiceName) -> Decision {
        let verdict = self.rules.verdict(&peer.identifier, &peer.role, service);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let line = |key, who: &claviger::policy::Who, place: claviger::policy::Place| By::Line {
            file: self.file.clone(),
            line: place.line,
            key,
            who: who.to_string(),
        };
        let (allowed, by) = match &verdict.ground {
            _ if peer.expires.is_some_and(|expires| expires <= now) => (false, By::Expired),
            Ground::Denied { who, place } => (false, line("deny", who, *place)),
            Ground::Nothing => (false, By::Nothing),
            _ if !self.config.service.contains_key(service) => (false, By::NoService),
            Ground::Allowed { who, place } => (true, line("allow", who, *place)),
            Ground::Planned(edge) => {
                let [from, to] = [&edge.from, &edge.to].map(ToString::to_string);
                (true, By::Edge { from, to, service: edge.service.to_string() })
            }
        };
        let (peer, role) = (peer.identifier.to_string(), peer.role.to_string());
        Decision { peer, role, service: service.to_string(), allowed, by }
    }
}

pub(crate) fn run(cli: &Cli, options: &Policy, terminal: &Terminal) -> Result<()> {
    match &options.command {
        Command::Test { peer, service: Some(service) } => test(cli, &peer.parse()?, service, terminal),
        Command::Test { peer, service: None } if peer.contains('/') => {
            let Target { name, service } = peer.parse()?;
            test(cli, &name, &service, terminal)
        }
        Command::Test { peer, .. } => Err(Error::new(
            ErrorKind::IdentityInvalid,
            format!("`{peer}` names no service."),
            format!("Name both, as in `claviger policy test {peer} ssh`."),
        )),
        Command::List => list(cli, terminal),
    }
}

fn test(cli: &Cli, name: &Identifier, service: &ServiceName, terminal: &Terminal) -> Result<()> {
    let grounds = Grounds::read(cli)?;
    let peer = grounds.peers.iter().find(|peer| peer.identifier == *name).ok_or_else(|| {
        Error::new(
            ErrorKind::PeerUnknown,
            format!("No peer `{name}` is recorded on this machine."),
            "See the names with `claviger-ceremony peers`.",
        )
    })?;
    let decision = grounds.decide(peer, service);
    let by = decision.by.sentence();
    if decision.allowed {
        return terminal.result(&format!("`{name}` may open `{service}`: {by}.\n"), &decision);
    }
    terminal.result("", &decision)?;
    let hint = match decision.by {
        By::Nothing => format!("To let it in, add it to `allow` of [service.{service}]."),
        By::Expired => format!("If it may go on, run `claviger-ceremony expire {name} --never`."),
        By::NoService => format!("Add a table [service.{service}]; `claviger config example` shows one."),
        _ => "If it is to be let in, change that line.".into(),
    };
    Err(Error::new(ErrorKind::NotAllowed, format!("`{name}` may not open `{service}`: {by}."), hint))
}

fn list(cli: &Cli, terminal: &Terminal) -> Result<()> {
    let grounds = Grounds::read(cli)?;
    let of = |service| grounds.peers.iter().map(move |peer| (service, peer));
    let decisions: Vec<Decision> =
        grounds.config.service.keys().flat_map(of).map(|(service, peer)| grounds.decide(peer, service)).collect();
    let mut text = String::new();
    for service in grounds.config.service.keys() {
        text.push_str(&format!("{service}\n"));
        let mut allowed =
            decisions.iter().filter(|decision| decision.service == service.as_str() && decision.allowed).peekable();
        if allowed.peek().is_none() {
            text.push_str("  nobody\n");
        }
        for Decision { peer, role, by, .. } in allowed {
            text.push_str(&format!("  {peer} ({role}): {}\n", by.sentence()));
        }
    }
    if text.is_empty() {
        text.push_str("This machine serves nothing.\n");
    }
    terminal.result(&text, &decisions)
}
