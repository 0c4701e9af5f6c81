//! The configuration file, `claviger.toml`: typed, unknown keys refused.
//!
//! `docs/claviger.toml` of the source tree is a file with every key, what it means and its default. Times are whole seconds. Relative
//! paths are relative to the configuration file's directory. The command line overrides what the file says.

mod check;
mod daemon;
mod onion;
mod problem;
mod schema;
mod value;

use crate::error::{Error, ErrorKind, Result};
use crate::identity::{Fingerprint, Identifier, ServiceName, StaticPublic};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use daemon::{Backend, Daemon, Forward, Level, Local, Log, Metrics, Named, Peer, Policy, Sandbox, Service, Socks};
pub use onion::{IntroductionLimit, Onion, Vanguards};
pub use schema::schema;
pub use value::ControlAddress;

/// Name of the configuration file.
pub const FILE_NAME: &str = "claviger.toml";
/// A file with every key, what it means and its default.
pub const EXAMPLE: &str = include_str!("../docs/claviger.toml");
/// Largest configuration file that is read, in bytes.
pub const MAX_LEN: u64 = 256 * 1024;

/// The whole configuration. `default()` is that of an empty file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// How bytes reach other machines.
    pub transport: Transport,
    /// Which Noise handshakes are spoken.
    pub handshake: Handshake,
    /// How long sessions last, and what keeps them alive.
    pub session: Session,
    /// The token's deadlines, and where its PIN comes from.
    pub token: Token,
    /// What callers may use up.
    pub limits: Limits,
    /// What is asked of the store.
    pub store: Store,
    /// This machine's onion service.
    pub onion: Onion,
    /// What peers may open streams to, by name.
    #[serde(deserialize_with = "value::named")]
    pub service: BTreeMap<ServiceName, Service>,
    /// Local sockets that lead to peers' services.
    pub forward: Vec<Forward>,
    /// A local front for programs that speak SOCKS5.
    pub socks: Socks,
    /// What is wanted of single peers, by name.
    #[serde(deserialize_with = "value::named")]
    pub peer: BTreeMap<Identifier, Peer>,
    /// What lets peers open services.
    pub policy: Policy,
    /// How the daemon is asked.
    pub daemon: Daemon,
    /// What it writes down.
    pub log: Log,
    /// Its numbers.
    pub metrics: Metrics,
    /// What it gives up.
    pub sandbox: Sandbox,
}

/// `[transport]`: how bytes reach other machines.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Transport {
    /// Which transport. Default: [`TransportKind::Arti`].
    pub kind: TransportKind,
    /// Virtual port of this machine's onion service, not 0. It is part of what a handshake binds: all machines use the same. Default: 4747.
    #[serde(deserialize_with = "value::port")]
    pub port: u16,
    /// How long dialling may take, retries included; 1 s to 1 h. The first dial includes the bootstrap of arti. Default: 120 s.
    #[serde(deserialize_with = "value::seconds")]
    pub dial_timeout: Duration,
    /// Used when `kind` is `arti`.
    pub arti: Arti,
    /// Used when `kind` is `tor`.
    pub tor: Tor,
    /// Used when `kind` is `tcp`.
    pub tcp: Tcp,
}

impl Default for Transport {
    fn default() -> Self {
        Self {
            kind: TransportKind::default(),
            port: 4747,
            dial_timeout: Duration::from_secs(120),
            arti: Arti::default(),
            tor: Tor::default(),
            tcp: Tcp::default(),
        }
    }
}

/// Which transport.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransportKind {
    /// Tor in this process, by arti.
    #[default]
    Arti,
    /// A tor daemon of this machine.
    Tor,
    /// Plain TCP over loopback and private networks. No Tor: addresses are visible, only what is said is protected.
    Tcp,
}

impl TransportKind {
    /// The name in the configuration file and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Arti => "arti",
            Self::Tor => "tor",
            Self::Tcp => "tcp",
        }
    }
}

/// `[transport.arti]`: Tor in this process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Arti {
    /// A file in arti's own configuration format: another Tor network, bridges, timings. Its storage directories and keystore are not used.
    /// Default: none, which is the public Tor network.
    pub config: Option<PathBuf>,
    /// Directory of arti's state and cache, made with mode 0700. It holds guards, and no secret key. Losing it costs anonymity (new guards),
    /// sharing it between machines links them. Default: `arti` in the store's directory.
    pub state: Option<PathBuf>,
}

/// `[transport.tor]`: a tor daemon of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Tor {
    /// tor's SOCKS port, on loopback. Whoever sits between could see which onion addresses are dialled. Default: 127.0.0.1:9050.
    #[serde(deserialize_with = "value::loopback")]
    pub socks: SocketAddr,
    /// tor's control port, on loopback, or `unix:PATH`. The onion service's secret key travels over it. `none`: there is none for this program, which then
    /// only dials, and peers' services by the keys in tor's `ClientOnionAuthDir`, or listens for a service of torrc. Default: 127.0.0.1:9051.
    pub control: ControlAddress,
    /// The file with the control port's cookie, as `CookieAuthFile` says in torrc. It is never taken from the control port's own answer: a
    /// program that took the port while tor was down would name a file of its own, and be sent the onion service's key. Default:
    /// /run/tor/control.authcookie, where Debian's tor has it.
    pub cookie_file: PathBuf,
    /// A file, mode 0600, with the control port's password on its first line; used instead of the cookie. Unlike the cookie, the password does
    /// not prove that it is tor who listens. Default: none.
    pub password_file: Option<PathBuf>,
    /// Who publishes this machine's onion service. Default: [`TorService::Control`].
    pub service: TorService,
    /// With `service = "torrc"`, the local socket to which `HiddenServicePort` leads, `unix:PATH` or `tcp:ADDRESS:PORT` on loopback. Any program of this
    /// machine that may open it is as much of a stranger as whoever comes through Tor. Default: none.
    #[serde(deserialize_with = "value::local_stream")]
    pub listen: Option<Local>,
}

/// Who publishes the onion service of a tor daemon.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TorService {
    /// This program, by the control port.
    #[default]
    Control,
    /// tor by itself, from a `HiddenServiceDir` in torrc, whose files `claviger onion service` writes.
    Torrc,
}

impl Default for Tor {
    fn default() -> Self {
        Self {
            socks: (Ipv4Addr::LOCALHOST, 9050).into(),
            control: ControlAddress::Tcp((Ipv4Addr::LOCALHOST, 9051).into()),
            cookie_file: "/run/tor/control.authcookie".into(),
            password_file: None,
            service: TorService::default(),
            listen: None,
        }
    }
}

/// `[transport.tcp]`: plain TCP. Addresses are loopback, private (RFC 1918, RFC 4193) or link-local; others are refused when they are used.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Tcp {
    /// Where to listen. Default: 127.0.0.1:4747.
    pub listen: SocketAddr,
    /// Where peers listen, by their identifier. Default: none.
    #[serde(deserialize_with = "value::peers")]
    pub peers: BTreeMap<Identifier, SocketAddr>,
}

impl Default for Tcp {
    fn default() -> Self {
        Self { listen: (Ipv4Addr::LOCALHOST, 4747).into(), peers: BTreeMap::new() }
    }
}

/// `[handshake]`: which Noise handshakes are spoken.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Handshake {
    /// The pattern used when connecting. Default: [`Pattern::Kk`].
    pub pattern: Pattern,
    /// The patterns answered when listening; at least one. Default: all.
    #[serde(deserialize_with = "value::patterns")]
    pub allow: Vec<Pattern>,
    /// How long the other end may take for its handshake message; 1 s to 1 h. Default: 30 s.
    #[serde(deserialize_with = "value::seconds")]
    pub timeout: Duration,
    /// How far a caller's clock may be off, before or after ours; 1 s to 1 h. Knocks are remembered twice as long. Default: 120 s.
    #[serde(deserialize_with = "value::seconds")]
    pub knock_window: Duration,
}

impl Default for Handshake {
    fn default() -> Self {
        Self {
            pattern: Pattern::default(),
            allow: vec![Pattern::Kk, Pattern::Kk1, Pattern::Xk],
            timeout: Duration::from_secs(30),
            knock_window: Duration::from_secs(120),
        }
    }
}

/// A Noise handshake pattern between machines that know each other's key (Noise, section 7.5, and 18.1 for the deferred KK1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pattern {
    /// Both keys authenticate from the first message on; two token operations at each end.
    #[default]
    Kk,
    /// Deferred: one token operation at each end.
    Kk1,
    /// The caller's key travels encrypted; three messages.
    Xk,
}

impl Pattern {
    /// The name in the configuration file and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kk => "kk",
            Self::Kk1 => "kk1",
            Self::Xk => "xk",
        }
    }
}

/// `[token]`: deadlines of the token, and where its PIN comes from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Token {
    /// How long one operation may take when no touch is asked for, from when its turn comes; 1 s to 1 h. Default: 2 s.
    #[serde(deserialize_with = "value::seconds")]
    pub timeout: Duration,
    /// How long one operation may take when the token asks for a touch; 1 s to 1 h. Default: 20 s.
    #[serde(deserialize_with = "value::seconds")]
    pub touch_timeout: Duration,
    /// How long somebody may take to give the PIN or passphrase; 1 s to 1 h. The token waits meanwhile, and so does every peer: one that is being
    /// answered gives up after its own `timeout` under `[handshake]`. Default: 60 s.
    #[serde(deserialize_with = "value::seconds")]
    pub pin_timeout: Duration,
    /// How long the PIN stays in memory. Default: [`KeepPin::Once`].
    pub keep_pin: KeepPin,
    /// A file, mode 0600, with the PIN or passphrase. It is used where the locator has no `pin-source` and the service manager gave no credential
    /// `claviger-pin`. Whoever reads it and has the token has the identity. Default: none.
    pub pin_file: Option<PathBuf>,
    /// The program that asks for the PIN. Default: [`PinEntryProgram::Auto`].
    pub pinentry: PinEntryProgram,
}

impl Default for Token {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(2),
            touch_timeout: Duration::from_secs(20),
            pin_timeout: Duration::from_secs(60),
            keep_pin: KeepPin::default(),
            pin_file: None,
            pinentry: PinEntryProgram::default(),
        }
    }
}

/// How long a PIN stays in this process's memory after the token has taken it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeepPin {
    /// As long as the token is open: asked once, also when the token was pulled and is back.
    #[default]
    Once,
    /// Not at all, and the token forgets it, too, after the operation: asked for each.
    Always,
    /// Not at all; the token itself remembers it until it is reset or loses power. Then it is asked again.
    NeverKeep,
}

impl From<KeepPin> for claviger_hsm::KeepPin {
    fn from(keep: KeepPin) -> Self {
        match keep {
            KeepPin::Once => Self::Once,
            KeepPin::Always => Self::Always,
            KeepPin::NeverKeep => Self::Never,
        }
    }
}

/// The pinentry program, which asks for a PIN in a window or on a terminal of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PinEntryProgram {
    /// `auto`: `pinentry` of the search path, where there is a display, or GPG_TTY says which terminal it may have. Else the PIN is asked on the
    /// controlling terminal.
    #[default]
    Auto,
    /// `none`: the controlling terminal only.
    None,
    /// This program, by name or path.
    Named(String),
}

/// `[session]`: how long sessions last, and what keeps them alive. Each end keeps to its own; where they differ, the shorter time comes first.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Session {
    /// How long after its last token operation a session takes on new streams; 1 min to 30 days. A new full handshake with the token is due then. Default: 1 day.
    #[serde(deserialize_with = "value::age")]
    pub max_age: Duration,
    /// How long the streams of a session that takes on no new ones may go on; 1 s to 1 day. What is left then is reset. Default: 10 min.
    #[serde(deserialize_with = "value::drain")]
    pub drain: Duration,
    /// How long after the last token operation a broken session may be resumed without one; 0 forbids it, at most 1 day. Resuming does not extend it. Default: 15 min.
    #[serde(deserialize_with = "value::resume_for")]
    pub resume_for: Duration,
    /// After so long without a byte from the peer it is asked for a sign of life; 1 s to 1 h. Default: 60 s.
    #[serde(deserialize_with = "value::seconds")]
    pub keepalive: Duration,
    /// How long it may take for one; then the session has broken; 1 s to 1 h. Default: 30 s.
    #[serde(deserialize_with = "value::seconds")]
    pub keepalive_timeout: Duration,
    /// After so long without a stream a session that a peer began is closed; 0 never does, at most 30 days. Default: 30 min.
    #[serde(deserialize_with = "value::idle")]
    pub idle: Duration,
}

impl Default for Session {
    fn default() -> Self {
        Self {
            max_age: Duration::from_secs(86_400),
            drain: Duration::from_secs(600),
            resume_for: Duration::from_secs(900),
            keepalive: Duration::from_secs(60),
            keepalive_timeout: Duration::from_secs(30),
            idle: Duration::from_secs(1800),
        }
    }
}

/// `[limits]`: what callers may use up. Numbers from 1 to 1 000 000.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Limits {
    /// Connections that have not knocked yet; when so many wait, a new one ends the one that has waited longest. Each costs a few KiB and a file descriptor.
    /// Default: 4096.
    #[serde(deserialize_with = "value::count")]
    pub pending: u32,
    /// Handshakes of one peer that may wait for the token at once. Default: 8.
    #[serde(deserialize_with = "value::count")]
    pub per_peer: u32,
    /// Sessions at once. A peer that comes when so many are there is turned away before the token is asked. Default: 1024.
    #[serde(deserialize_with = "value::count")]
    pub sessions: u32,
    /// Sessions of one peer at once; one more ends the oldest. Default: 8.
    #[serde(deserialize_with = "value::count")]
    pub sessions_per_peer: u32,
    /// Streams of one peer at once, in all its sessions; one more is reset. 1 to 4096. Default: 256.
    #[serde(deserialize_with = "value::streams")]
    pub streams_per_peer: u32,
    /// MiB of what one peer sent and nobody has read yet, in all its streams; then it waits until somebody does. At least 1 for every four streams. Default: 128.
    #[serde(deserialize_with = "value::count")]
    pub buffer_per_peer: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            pending: 4096,
            per_peer: 8,
            sessions: 1024,
            sessions_per_peer: 8,
            streams_per_peer: 256,
            buffer_per_peer: 128,
        }
    }
}

/// `[store]`: what is asked of the store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Store {
    /// The store's directory; `--store` comes before it. Default: none, which is the user's own.
    pub dir: Option<PathBuf>,
    /// Whether a store that is not sealed is used, with a warning. Whoever can write to its file could take a seal off, so without this an unsealed store
    /// ends the start. Default: `false`.
    pub allow_unsealed: bool,
    /// The fingerprints of the keys that this machine may use, as [`Fingerprint::of_key`](crate::identity::Fingerprint::of_key) gives them: words, or 32 hexadecimal
    /// digits. A seal says that the store belongs to its token, and not that the token is the right one: whoever exchanges store and token together is found by this
    /// list alone. Looked at before the token is opened. Default: empty, any key.
    #[serde(deserialize_with = "value::fingerprints")]
    pub keys: Vec<String>,
}

impl Store {
    /// Whether a key is one of [`keys`](Self::keys), or any may be used.
    pub fn allows(&self, key: &StaticPublic) -> bool {
        let print = Fingerprint::of_key(key);
        self.keys.is_empty() || self.keys.iter().any(|listed| print.matches(listed) == Ok(true))
    }
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ErrorKind::ConfigInvalid`] when it can not be read, is larger than [`MAX_LEN`], is not TOML, or has an unknown key or a wrong value;
    /// the sentence names file, line and column.
    pub fn load(path: &Path) -> Result<Self> {
        Self::parse(&read(path)?, path)
    }

    /// Parses the text of the file at `path`, which is not opened: it names the file in errors, and its directory is where relative paths begin.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        let mut config: Self = toml::from_str(text).map_err(|error| problem::of_toml(path, text, &error))?;
        let Limits { streams_per_peer, buffer_per_peer, .. } = config.limits;
        if buffer_per_peer < streams_per_peer.div_ceil(4) {
            let what = format!(
                "has `buffer-per-peer = {buffer_per_peer}` under [limits], too little for `streams-per-peer = {streams_per_peer}`: each stream needs 256 KiB"
            );
            return Err(problem::at(path, None, what, None));
        }
        let dir = path.parent().unwrap_or(Path::new(""));
        config.settle_daemon(text, dir);
        let Self { transport: Transport { arti, tor, .. }, token, .. } = &mut config;
        tor.cookie_file = dir.join(&tor.cookie_file);
        let files = [&mut arti.config, &mut arti.state, &mut tor.password_file, &mut token.pin_file];
        for file in files.into_iter().flatten() {
            *file = dir.join(&*file);
        }
        if let Some(Local::Unix(socket)) = &mut tor.listen {
            *socket = dir.join(&*socket);
        }
        if tor.service == TorService::Torrc && tor.listen.is_none() {
            let what = "has `service = \"torrc\"` in [transport.tor] and no `listen`, where HiddenServicePort leads to";
            return Err(problem::at(path, None, what.into(), None));
        }
        if let ControlAddress::Unix(socket) = &mut tor.control {
            *socket = dir.join(&*socket);
        }
        Ok(config)
    }
}

/// Reads the text of a file; `-` is stdin.
///
/// # Errors
/// [`ErrorKind::ConfigInvalid`] when it can not be read, is larger than [`MAX_LEN`], or is no text.
pub fn read(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    let read = match path == Path::new("-") {
        true => std::io::stdin().take(MAX_LEN + 1).read_to_end(&mut bytes),
        false => std::fs::File::open(path).and_then(|file| file.take(MAX_LEN + 1).read_to_end(&mut bytes)),
    };
    read.map_err(|source| {
        Error::new(
            ErrorKind::ConfigInvalid,
            format!("The configuration file {} can not be read.", path.display()),
            "Check that the file exists and that you may read it.",
        )
        .because(source)
    })?;
    if bytes.len() as u64 > MAX_LEN {
        return Err(problem::at(path, None, format!("is larger than {} KiB", MAX_LEN / 1024), None));
    }
    String::from_utf8(bytes).map_err(|_| problem::at(path, None, "is not UTF-8 text".into(), None))
}

#[cfg(test)]
mod tests;
