//! What can be seen without a daemon.

use super::step::{Report, Step};
use crate::cli::Cli;
use crate::run;
use claviger::Endpoint;
use claviger::config::{Backend, Config, Local, TransportKind};
use claviger::error::{Error, ErrorKind, Result};
use claviger::program::Terminal;
use claviger::store::Machine;
use claviger::token::glance;
use claviger::transport::{self, Progress, Stage};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::time::Duration;

/// How long a Tor may take to say how it is.
const PATIENCE: Duration = Duration::from_secs(8);

pub(super) fn steps(dir: &Path, config: &Config, machine: Option<&Machine>, report: &mut Report) {
    match machine {
        Some(machine) => report.push(token(machine)),
        None => report.push(Step::skipped("token", "the store says which one it is")),
    }
    report.push(transport(dir, config));
    sockets(config, report);
    backends(config, report);
    report.push(match config.service.is_empty() {
        true => Step::skipped("onion", "this machine serves nothing"),
        false => Step::skipped("onion", "published by the daemon, which does not run"),
    });
}

fn token(machine: &Machine) -> Step {
    match glance(machine.locator(), machine.key()) {
        Ok(seen) if seen.label.starts_with("software key") => Step::warning(
            "token",
            format!("{}: the key can be copied.", seen.label),
            "For more than a trial use a hardware token, and `claviger-ceremony rotate` to move to it.",
        ),
        Ok(seen) => match (&seen.tries, seen.has_key) {
            (Some(tries), _) => Step::warning(
                "token",
                format!("{}: {tries}.", seen.label),
                "Give the right one next time: `claviger doctor --token` asks for it.",
            ),
            (None, true) => Step::ok("token", format!("{}, with this machine's key", seen.label)),
            (None, false) => Step::ok("token", format!("{}; it shows its keys to --token only", seen.label)),
        },
        Err(error) => Step::failed("token", &error),
    }
}

pub(super) fn progress(kind: &str, progress: &Progress) -> Step {
    match (progress.stage, &progress.blocked) {
        (Stage::Ready, _) if kind == TransportKind::Tcp.as_str() => Step::warning(
            "transport",
            "Plain TCP: without Tor everyone on the path sees who talks to whom.",
            "Use `arti` or `tor` outside loopback and private networks.",
        ),
        (Stage::Ready, _) => Step::ok("transport", format!("{kind}: {}", progress.summary)),
        (Stage::Idle, _) => Step::skipped("transport", format!("{kind}: {}", progress.summary)),
        (stage, Some(blocked)) => Step::told("transport", stage.as_str(), &blocked.what, &blocked.hint),
        (_, None) => Step::warning(
            "transport",
            format!("{kind} connects to the Tor network: {} %, {}.", progress.percent, progress.summary),
            "Wait a minute; `claviger status --watch` shows how it goes.",
        ),
    }
}

fn transport(dir: &Path, config: &Config) -> Step {
    let kind = config.transport.kind;
    let looked = run::runtime().and_then(|runtime| {
        let looked = runtime.block_on(async {
            let transport = transport::open(config, dir).await?;
            let mut state = transport.progress();
            let settled = |progress: &Progress| progress.stage != Stage::Idle && progress.stage != Stage::Connecting;
            // arti does nothing before it is asked for something.
            let patience = if kind == TransportKind::Arti { Duration::ZERO } else { PATIENCE };
            let _ = tokio::time::timeout(patience, state.wait_for(settled)).await;
            let now = state.borrow().clone();
            Ok::<_, Error>(now)
        });
        // As in `run::network`.
        std::mem::forget(runtime);
        looked
    });
    match looked {
        Ok(now) => progress(kind.as_str(), &now),
        Err(error) => Step::failed("transport", &error),
    }
}

/// The sockets that a daemon would open are free.
fn sockets(config: &Config, report: &mut Report) {
    let forwards = config.forward.iter().map(|forward| (format!("forward {}", forward.listen), &forward.listen));
    let socks = config.socks.listen.iter().map(|local| ("socks".to_owned(), local));
    let metrics = config.metrics.listen.iter().map(|local| ("metrics".to_owned(), local));
    let own = Local::Tcp(config.transport.tcp.listen);
    let listens = config.transport.kind == TransportKind::Tcp && !config.service.is_empty();
    let own = listens.then_some(("listener".to_owned(), &own)).into_iter();
    let mut looked = 0;
    for (about, local) in own.chain(forwards).chain(socks).chain(metrics) {
        looked += 1;
        let (tried, address): (_, SocketAddr) = match local {
            Local::Tcp(address) => (TcpListener::bind(address).map(drop), *address),
            Local::Udp(address) => (UdpSocket::bind(address).map(drop), *address),
            _ => continue,
        };
        if let Err(error) = tried {
            let hint =
                format!("See who has it with `ss -lntup sport = {}`, or choose another address.", address.port());
            let error = Error::new(ErrorKind::PortInUse, format!("{local} can not be listened on: {error}."), hint);
            report.push(Step::failed(about, &error));
            looked = usize::MAX / 2;
        }
    }
    if (1..usize::MAX / 2).contains(&looked) {
        report.push(Step::ok("sockets", format!("{looked}, and their addresses are free")));
    }
}

/// What services lead to is there.
fn backends(config: &Config, report: &mut Report) {
    for (name, service) in &config.service {
        let about = format!("service {name}");
        let seen = match &service.backend {
            Backend::Tcp(address) => {
                std::net::TcpStream::connect_timeout(address, Duration::from_secs(2)).map(drop).map_err(|error| {
                    (format!("Nothing answers at tcp:{address}: {error}."), "Start the program behind the service.")
                })
            }
            Backend::Unix(path) | Backend::Unixgram(path) => path.symlink_metadata().map(drop).map_err(|error| {
                (
                    format!("The socket {} is not there: {error}.", path.display()),
                    "Start the program behind the service.",
                )
            }),
            Backend::Command(command) => {
                let program = command.first().map(String::as_str).unwrap_or_default();
                Path::new(program).metadata().map(drop).map_err(|error| {
                    (format!("The program {program} is not there: {error}."), "Install it, or correct `command`.")
                })
            }
            Backend::Udp(_) => Ok(()),
        };
        report.push(match seen {
            Ok(()) => Step::ok(about, service.backend.to_string()),
            Err((what, hint)) => Step::warning(about, what, hint),
        });
    }
}

/// Opens the token and the seal; and, if that is wanted, has a handshake with each peer.
pub(super) fn dial(cli: &Cli, dials: bool, terminal: &Terminal, report: &mut Report) {
    let mut steps = Vec::new();
    let outcome = run::network(cli, terminal, async |endpoint, stop| {
        steps.push(Step::ok("handshakes", format!("{} opened the store's seal", endpoint.token().label())));
        if !dials {
            return Ok(());
        }
        let all = async {
            for peer in endpoint.peers() {
                let about = format!("peer {}", peer.identifier);
                terminal.note(&format!("Dialling {}…", peer.identifier));
                steps.push(match handshake(&endpoint, &peer.identifier).await {
                    Ok(how) => Step::ok(about, how),
                    Err(error) => Step::failed(about, &error),
                });
            }
            Ok(())
        };
        tokio::select! {
            outcome = all => outcome,
            stopped = stop => stopped,
        }
    });
    steps.into_iter().for_each(|step| report.push(step));
    if let Err(error) = outcome {
        report.push(Step::failed("handshakes", &error));
    }
}

async fn handshake(endpoint: &Endpoint, peer: &claviger::identity::Identifier) -> Result<String> {
    let session = endpoint.connect_peer(peer, None).await?;
    let how = session.peer().to_string();
    // It was established, and that was asked.
    let _ = session.close().await;
    Ok(how)
}
