//! What only the daemon reads: services, forwards, the front for SOCKS5, peers that are kept, policy, and how it tells of itself.

use super::Pattern;
use super::value;
use crate::identity::{Identifier, ServiceName};
use crate::policy::{Effect, Place, Rule, Who};
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::Spanned;

/// `[service.NAME]`: something that peers may open streams to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawService")]
pub struct Service {
    /// What it is on this machine.
    pub backend: Backend,
    /// Who may open it, beside those whom the plan names. Default: nobody.
    pub allow: Vec<Named>,
    /// Who may not, whatever allows it. Default: nobody.
    pub deny: Vec<Named>,
    /// Whether a connection to a backend of TCP or a unix socket begins with a PROXY protocol header, version 2, that names the peer. Default: no.
    pub proxy_protocol: bool,
    /// Streams at once, of all peers; one more is reset. Default: 256.
    pub streams: u32,
    /// Streams of one peer at once; one more is reset, and there is room for others. Default: 192.
    pub streams_per_peer: u32,
    /// How long the backend may take to accept a connection; 1 s to 1 h. Default: 10 s.
    pub dial_timeout: Duration,
    /// After so long without a datagram in either direction a flow of datagrams ends; 1 s to 1 h. Default: 60 s.
    pub datagram_idle: Duration,
}

/// Where a service's streams end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backend {
    /// `target = "tcp:ADDRESS:PORT"`, on loopback unless `unsafe-target` is set.
    Tcp(SocketAddr),
    /// `target = "unix:PATH"`.
    Unix(PathBuf),
    /// `target = "udp:ADDRESS:PORT"`, on loopback unless `unsafe-target` is set.
    Udp(SocketAddr),
    /// `target = "unixgram:PATH"`: a unix datagram socket.
    Unixgram(PathBuf),
    /// `command = ["PROGRAM", "ARGUMENT"]`: a process for each stream, with the stream as its stdin and stdout. No shell.
    Command(Vec<String>),
}

impl std::fmt::Display for Backend {
    /// As in the file; of a command the program alone.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp:{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Udp(address) => write!(f, "udp:{address}"),
            Self::Unixgram(path) => write!(f, "unixgram:{}", path.display()),
            Self::Command(command) => write!(f, "command:{}", command.first().map_or("", String::as_str)),
        }
    }
}

/// A name in `allow` or `deny`, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Whom it names.
    pub who: Who,
    /// Its byte in the file; [`Config::parse`](super::Config::parse) makes a line of it.
    pub(super) offset: usize,
    /// Its line, from 1.
    pub line: usize,
}

/// `[[forward]]`: a local socket whose connections are streams to a peer's service.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawForward")]
pub struct Forward {
    /// Where it listens, on loopback unless `unsafe-listen` is set.
    pub listen: Local,
    /// `unsafe-listen`: whether it may listen where other machines reach it. Default: no.
    pub unsafe_listen: bool,
    /// The peer's name.
    pub peer: Identifier,
    /// The service that is asked for there.
    pub service: ServiceName,
    /// Streams at once; connections beyond wait to be accepted. Default: 256.
    pub streams: u32,
    /// After so long without a datagram in either direction a flow of datagrams ends; 1 s to 1 h. Default: 60 s.
    pub datagram_idle: Duration,
}

/// A local socket to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Local {
    /// `tcp:ADDRESS:PORT`.
    Tcp(SocketAddr),
    /// `unix:PATH`, made with mode 0600.
    Unix(PathBuf),
    /// `udp:ADDRESS:PORT`.
    Udp(SocketAddr),
    /// `unixgram:PATH`, made with mode 0600.
    Unixgram(PathBuf),
    /// `systemd:NAME`: a socket that the service manager opened, by its `FileDescriptorName`.
    Systemd(String),
}

/// `[socks]`: a SOCKS5 front, for programs that speak only that. `SERVICE.PEER.claviger` is a peer's service, on any port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawSocks")]
pub struct Socks {
    /// Where it listens: TCP on loopback unless `unsafe-listen` is set, a unix socket, or the service manager's. Default: nowhere.
    pub listen: Option<Local>,
    /// `unsafe-listen`: whether it may listen where other machines reach it. Default: no.
    pub unsafe_listen: bool,
}

/// `[peer.NAME]`: what this machine wants of a peer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Peer {
    /// Whether a session is begun at the start and kept up. Default: no, one is begun when a stream is wanted.
    pub keep: bool,
    /// The handshake pattern for it. Default: that of `[handshake]`.
    pub pattern: Option<Pattern>,
}

/// `[policy]`: what lets peers open services beside the services' own `allow`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Policy {
    /// Whether an edge of the ceremony's plan that ends here lets its peer open its service. Default: yes.
    pub plan: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self { plan: true }
    }
}

/// `[daemon]`: how the daemon is asked, and how it looks after itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Daemon {
    /// The control socket, made with mode 0600, or 0666 where there are `operators`. Default: `control.sock` in the directory that the service manager gave
    /// (`RUNTIME_DIRECTORY`), else in the store's.
    pub control: Option<PathBuf>,
    /// Numbers of users who may ask for the status, beside the daemon's own and root. Only those two may reload or stop. Default: none.
    pub operators: Vec<u32>,
    /// Every so often the own onion service is dialled from outside, through circuits of its own; 0: never, else 60 s to 1 day. Default: 10 min.
    #[serde(deserialize_with = "value::probe")]
    pub probe: Duration,
    /// How long streams may go on when the daemon is told to end; 1 s to 1 h. Default: 20 s.
    #[serde(deserialize_with = "value::seconds")]
    pub shutdown: Duration,
}

impl Default for Daemon {
    fn default() -> Self {
        Self {
            control: None,
            operators: Vec::new(),
            probe: Duration::from_secs(600),
            shutdown: Duration::from_secs(20),
        }
    }
}

/// `[log]`: events on stderr, and the log of connections in the store's directory.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Log {
    /// What is written to stderr. Default: [`Level::Info`].
    pub level: Level,
    /// As lines of JSON. Default: no.
    pub json: bool,
    /// Connections that are remembered; the oldest go first; 0: none. At most 1 000 000. Default: 100 000.
    #[serde(deserialize_with = "value::number")]
    pub connections: u32,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: Level::default(), json: false, connections: 100_000 }
    }
}

/// How much is written to stderr.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// What keeps the daemon from working.
    Error,
    /// And what may.
    Warn,
    /// And connections, sessions, states.
    #[default]
    Info,
    /// And what parts of it do.
    Debug,
}

/// `[metrics]`: numbers for Prometheus.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawMetrics")]
pub struct Metrics {
    /// Where they are served by HTTP at `/metrics`: TCP on loopback unless `unsafe-listen` is set, or a unix socket. Default: nowhere.
    pub listen: Option<Local>,
    /// Whether a socket that the service manager opened may be reached from other machines. Default: no.
    pub unsafe_listen: bool,
}

/// `[sandbox]`: what the daemon gives up once it has started.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Sandbox {
    /// Files beyond the ones that it needs (Landlock). Default: yes.
    pub landlock: bool,
    /// System calls beyond the ones that it needs (seccomp). Default: yes.
    pub seccomp: bool,
    /// Whether its memory is kept from being written to swap space. Default: yes.
    pub lock_memory: bool,
    /// Whether the start ends when one of them can not be applied at all; else, and when a kernel can apply a part, it is told. Default: no.
    pub require: bool,
    /// Directories and files that it may read beside what it needs: of a token's module, for example. Default: none.
    pub read: Vec<PathBuf>,
    /// Directories and files, devices among them, that it may change beside what it needs: where a token's module keeps its state, for example. Default: none.
    pub write: Vec<PathBuf>,
    /// TCP ports that it may connect to beside what it needs: of a token's connector, for example. With arti it may connect to any. Default: none.
    pub connect: Vec<u16>,
}

impl Default for Sandbox {
    fn default() -> Self {
        let (read, write, connect) = (Vec::new(), Vec::new(), Vec::new());
        Self { landlock: true, seccomp: true, lock_memory: true, require: false, read, write, connect }
    }
}

impl super::Config {
    /// The rules of every service, in the file's order.
    pub fn rules(&self) -> Vec<Rule> {
        let of = |named: &Named, service: &ServiceName, effect| Rule {
            service: service.clone(),
            who: named.who.clone(),
            effect,
            place: Place { line: named.line },
        };
        let rules = self.service.iter().flat_map(|(name, service)| {
            let allow = service.allow.iter().map(move |named| of(named, name, Effect::Allow));
            allow.chain(service.deny.iter().map(move |named| of(named, name, Effect::Deny)))
        });
        rules.collect()
    }

    /// Makes lines of offsets, and paths absolute.
    pub(super) fn settle_daemon(&mut self, text: &str, dir: &Path) {
        for service in self.service.values_mut() {
            for named in service.allow.iter_mut().chain(&mut service.deny) {
                named.line = text.get(..named.offset).map_or(0, |before| before.matches('\n').count()) + 1;
            }
            if let Backend::Unix(path) | Backend::Unixgram(path) = &mut service.backend {
                *path = dir.join(&*path);
            }
        }
        let listeners = self.forward.iter_mut().map(|forward| &mut forward.listen);
        for listen in listeners.chain(&mut self.socks.listen).chain(&mut self.metrics.listen) {
            if let Local::Unix(path) | Local::Unixgram(path) = listen {
                *path = dir.join(&*path);
            }
        }
        for path in self
            .daemon
            .control
            .iter_mut()
            .chain(&mut self.sandbox.read)
            .chain(&mut self.sandbox.write)
            .chain(&mut self.store.dir)
        {
            *path = dir.join(&*path);
        }
    }
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct RawService {
    target: Option<Local>,
    command: Option<Vec<String>>,
    allow: Vec<Spanned<Who>>,
    deny: Vec<Spanned<Who>>,
    proxy_protocol: bool,
    #[serde(deserialize_with = "value::count")]
    streams: u32,
    #[serde(deserialize_with = "value::count")]
    streams_per_peer: u32,
    #[serde(deserialize_with = "value::seconds")]
    dial_timeout: Duration,
    #[serde(deserialize_with = "value::seconds")]
    datagram_idle: Duration,
    unsafe_target: bool,
}

impl Default for RawService {
    fn default() -> Self {
        Self {
            target: None,
            command: None,
            allow: Vec::new(),
            deny: Vec::new(),
            proxy_protocol: false,
            streams: 256,
            streams_per_peer: 192,
            dial_timeout: Duration::from_secs(10),
            datagram_idle: Duration::from_secs(60),
            unsafe_target: false,
        }
    }
}

impl TryFrom<RawService> for Service {
    type Error = String;

    fn try_from(raw: RawService) -> Result<Self, String> {
        if let Some(target) = &raw.target
            && !raw.unsafe_target
        {
            guard(target, "target", "unsafe-target")?;
        }
        let backend = match (raw.target, raw.command) {
            (Some(Local::Tcp(address)), None) => Backend::Tcp(address),
            (Some(Local::Unix(path)), None) => Backend::Unix(path),
            (Some(Local::Udp(address)), None) => Backend::Udp(address),
            (Some(Local::Unixgram(path)), None) => Backend::Unixgram(path),
            (Some(Local::Systemd(_)), None) => {
                return Err("a service's target is no socket of the service manager".into());
            }
            (None, Some(command)) if command.first().is_some_and(|program| program.starts_with('/')) => {
                Backend::Command(command)
            }
            (None, Some(_)) => return Err("a service's command begins with the absolute path of a program".into()),
            (None, None) => return Err("a service needs a `target` or a `command`".into()),
            (Some(_), Some(_)) => return Err("a service has a `target` or a `command`, not both".into()),
        };
        if raw.proxy_protocol && !matches!(backend, Backend::Tcp(_) | Backend::Unix(_)) {
            return Err("`proxy-protocol` is for targets of tcp and unix".into());
        }
        let named = |named: Spanned<Who>| {
            let offset = named.span().start;
            Named { who: named.into_inner(), offset, line: 0 }
        };
        Ok(Self {
            backend,
            allow: raw.allow.into_iter().map(named).collect(),
            deny: raw.deny.into_iter().map(named).collect(),
            proxy_protocol: raw.proxy_protocol,
            streams: raw.streams,
            streams_per_peer: raw.streams_per_peer,
            dial_timeout: raw.dial_timeout,
            datagram_idle: raw.datagram_idle,
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawForward {
    listen: Local,
    #[serde(deserialize_with = "value::destination")]
    to: (Identifier, ServiceName),
    #[serde(default = "streams", deserialize_with = "value::count")]
    streams: u32,
    #[serde(default = "datagram_idle", deserialize_with = "value::seconds")]
    datagram_idle: Duration,
    #[serde(default)]
    unsafe_listen: bool,
}

fn streams() -> u32 {
    256
}

fn datagram_idle() -> Duration {
    Duration::from_secs(60)
}

impl TryFrom<RawForward> for Forward {
    type Error = String;

    fn try_from(raw: RawForward) -> Result<Self, String> {
        let RawForward { listen, to: (peer, service), streams, datagram_idle, unsafe_listen } = raw;
        if !unsafe_listen {
            guard(&listen, "listen", "unsafe-listen")?;
        }
        Ok(Self { listen, unsafe_listen, peer, service, streams, datagram_idle })
    }
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct RawSocks {
    listen: Option<Local>,
    unsafe_listen: bool,
}

impl TryFrom<RawSocks> for Socks {
    type Error = String;

    fn try_from(raw: RawSocks) -> Result<Self, String> {
        Ok(Self { listen: byte_listener(raw.listen, raw.unsafe_listen)?, unsafe_listen: raw.unsafe_listen })
    }
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct RawMetrics {
    listen: Option<Local>,
    unsafe_listen: bool,
}

impl TryFrom<RawMetrics> for Metrics {
    type Error = String;

    fn try_from(raw: RawMetrics) -> Result<Self, String> {
        Ok(Self { listen: byte_listener(raw.listen, raw.unsafe_listen)?, unsafe_listen: raw.unsafe_listen })
    }
}

fn byte_listener(listen: Option<Local>, anywhere: bool) -> Result<Option<Local>, String> {
    match &listen {
        Some(Local::Udp(_) | Local::Unixgram(_)) => {
            Err("this listens for connections: `tcp:`, `unix:` or `systemd:`".into())
        }
        Some(local) if !anywhere => guard(local, "listen", "unsafe-listen").map(|()| listen),
        _ => Ok(listen),
    }
}

/// Refuses addresses that others reach, unless somebody has said that this is meant.
fn guard(local: &Local, key: &str, unsafe_key: &str) -> Result<(), String> {
    match local {
        Local::Tcp(address) | Local::Udp(address) if !address.ip().is_loopback() => Err(format!(
            "`{key}` has {address}, which is not on loopback: whoever reaches it is taken for this machine; write `{unsafe_key} = true` beside it if that is meant"
        )),
        _ => Ok(()),
    }
}
