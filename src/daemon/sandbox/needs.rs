//! What a daemon with a configuration reaches for.

use super::Place;
use crate::config::{Backend, Config, ControlAddress, Local, TorService, TransportKind};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// What every daemon reads: libraries and their settings, users' names, and what the kernel tells of itself.
const READ: &[&str] = &[
    "/usr",
    "/lib",
    "/lib64",
    "/etc/group",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/nsswitch.conf",
    "/etc/opensc",
    "/etc/passwd",
    "/etc/pkcs11",
    "/etc/softhsm",
    "/etc/ssl/openssl.cnf",
    "/etc/tpm2-tss",
    "/dev/random",
    "/dev/urandom",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/self",
    "/proc/stat",
    "/proc/sys",
    "/run/pcscd",
    "/sys/devices/system/cpu",
    "/sys/fs/cgroup",
    "/sys/kernel/mm/transparent_hugepage",
];

/// What every daemon reads and writes: nothing, and the terminal on which a PIN is asked.
const WRITE: &[&str] = &["/dev/null", "/dev/tty"];

/// Paths, ports and programs. A path stands for everything below it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Needs {
    pub(super) read: BTreeSet<PathBuf>,
    pub(super) write: BTreeSet<PathBuf>,
    /// Directories in which sockets are made and removed.
    pub(super) sockets: BTreeSet<PathBuf>,
    /// TCP ports that are listened on; 0 is one that the system chooses.
    pub(super) bind: BTreeSet<u16>,
    /// TCP ports that are connected to; none: any.
    pub(super) connect: Option<BTreeSet<u16>>,
    /// Whether UDP is used. Landlock has no rules for it.
    pub(super) udp: bool,
    /// Programs that are started, for people.
    pub(super) programs: Vec<String>,
}

impl Needs {
    pub(super) fn of(config: &Config, place: &Place) -> Self {
        let mut needs = Self { connect: Some(BTreeSet::new()), ..Self::default() };
        needs.read.extend(READ.iter().map(PathBuf::from));
        needs.write.extend(WRITE.iter().map(PathBuf::from));
        needs.write.insert(absolute(&place.store));
        // The file is read again, and editors put another one in its place.
        needs.read.extend(place.config.as_deref().map(parent));
        for variable in ["CREDENTIALS_DIRECTORY", "RUNTIME_DIRECTORY"] {
            let Some(value) = std::env::var_os(variable) else { continue };
            let paths = std::env::split_paths(&value).filter(|path| path.is_absolute());
            let set = if variable == "RUNTIME_DIRECTORY" { &mut needs.write } else { &mut needs.read };
            set.extend(paths);
        }
        needs.tokens(config, place);
        needs.transport(config);
        needs.sockets(config);
        let sandbox = &config.sandbox;
        needs.read.extend(sandbox.read.iter().map(|path| absolute(path)));
        needs.write.extend(sandbox.write.iter().map(|path| absolute(path)));
        needs.connect(sandbox.connect.iter().copied());
        // A token's module that connects may ask for a name; arti reaches whatever it likes anyway.
        let connects = !sandbox.connect.is_empty() || place.tokens.iter().any(|token| !token.connect.is_empty());
        needs.udp |= connects || needs.connect.is_none();
        needs
    }

    fn tokens(&mut self, config: &Config, place: &Place) {
        self.read.extend(config.token.pin_file.as_deref().map(parent));
        for token in &place.tokens {
            self.read.extend(token.read.iter().map(|path| absolute(path)));
            self.write.extend(token.devices.iter().map(|path| absolute(path)));
            self.connect(token.connect.iter().copied());
            if token.starts_program {
                self.programs.push("what leads to the token".into());
            }
        }
        if place.asks_in_a_window {
            self.programs.push("pinentry".into());
        }
    }

    fn transport(&mut self, config: &Config) {
        let transport = &config.transport;
        match transport.kind {
            TransportKind::Arti => {
                // Relays listen on whatever port they like.
                self.connect = None;
                if let Some(file) = transport.arti.config.as_deref() {
                    self.read.insert(parent(file));
                    self.programs.extend(pluggable_transports(file));
                }
                if let Some(state) = transport.arti.state.as_deref() {
                    // A rule stands on what is there; arti would make it later. What it can not use it tells itself.
                    let _ = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(state);
                    self.write.insert(absolute(state));
                }
            }
            TransportKind::Tor => {
                self.connect([transport.tor.socks.port()]);
                if let ControlAddress::Tcp(address) = &transport.tor.control {
                    self.connect([address.port()]);
                }
                self.read.extend(transport.tor.password_file.as_deref().map(parent));
                // tor's directory may be made anew with each start of tor.
                let directory = parent(&transport.tor.cookie_file);
                self.read.insert(
                    directory.parent().filter(|above| *above != Path::new("/")).unwrap_or(&directory).to_owned(),
                );
                // Where tor brings the service's connections: a port that the system chooses, or what torrc says.
                match (transport.tor.service, &transport.tor.listen) {
                    (TorService::Control, _) => drop(self.bind.insert(0)),
                    (TorService::Torrc, Some(local)) => self.listener(local),
                    (TorService::Torrc, None) => {}
                }
            }
            TransportKind::Tcp => {
                self.bind.insert(transport.tcp.listen.port());
                self.connect(transport.tcp.peers.values().chain([&transport.tcp.listen]).map(SocketAddr::port));
            }
        }
    }

    fn sockets(&mut self, config: &Config) {
        for (name, service) in &config.service {
            match &service.backend {
                Backend::Tcp(address) => self.connect([address.port()]),
                Backend::Command(_) => self.programs.push(format!("the command of the service `{name}`")),
                Backend::Udp(_) => self.udp = true,
                Backend::Unix(_) | Backend::Unixgram(_) => {}
            }
        }
        let forwards = config.forward.iter().map(|forward| &forward.listen);
        for local in forwards.chain(&config.socks.listen).chain(&config.metrics.listen) {
            self.listener(local);
        }
        // A file beside it says whether its daemon lives.
        self.write.extend(config.daemon.control.as_deref().map(parent));
    }

    fn listener(&mut self, local: &Local) {
        match local {
            Local::Tcp(address) => drop(self.bind.insert(address.port())),
            Local::Unix(path) | Local::Unixgram(path) => drop(self.sockets.insert(parent(path))),
            Local::Udp(_) => self.udp = true,
            Local::Systemd(_) => {}
        }
    }

    fn connect(&mut self, ports: impl IntoIterator<Item = u16>) {
        if let Some(connect) = &mut self.connect {
            connect.extend(ports);
        }
    }

    /// Whether files at and below `path` can be read, or sockets made there.
    pub(super) fn allows(&self, path: &Path) -> bool {
        let path = absolute(path);
        [&self.read, &self.write, &self.sockets].into_iter().any(|set| covers(set, &path))
    }

    /// The first of `wanted` that is not here, for people.
    pub(super) fn lacks(&self, wanted: &Self) -> Option<String> {
        let path = |paths: &BTreeSet<PathBuf>, held: &[&BTreeSet<PathBuf>]| {
            paths.iter().find(|path| !held.iter().any(|set| covers(set, path))).map(|path| path.display().to_string())
        };
        let port = |wanted: &BTreeSet<u16>, held: &BTreeSet<u16>| wanted.difference(held).next().copied();
        let (read, write) = (&self.read, &self.write);
        path(&wanted.read, &[read, write])
            .map(|path| format!("to read {path}"))
            .or_else(|| path(&wanted.write, &[write]).map(|path| format!("to write {path}")))
            .or_else(|| path(&wanted.sockets, &[write, &self.sockets]).map(|path| format!("a socket in {path}")))
            .or_else(|| port(&wanted.bind, &self.bind).map(|port| format!("to listen on TCP port {port}")))
            .or_else(|| match (&wanted.connect, &self.connect) {
                (_, None) => None,
                (None, Some(_)) => Some("to connect to any TCP port".into()),
                (Some(wanted), Some(held)) => port(wanted, held).map(|port| format!("to connect to TCP port {port}")),
            })
    }
}

/// The programs that arti starts by its own file: pluggable transports (`[[bridges.transports]]` with a `path`).
fn pluggable_transports(file: &Path) -> Vec<String> {
    // What is wrong with the file arti says itself, and more clearly.
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let table: toml::Table = text.parse().unwrap_or_default();
    let transports = table.get("bridges").and_then(|bridges| bridges.get("transports")).and_then(toml::Value::as_array);
    let paths = transports.into_iter().flatten().filter_map(|transport| transport.get("path")?.as_str());
    paths.map(|path| format!("the pluggable transport {path}")).collect()
}

fn covers(set: &BTreeSet<PathBuf>, path: &Path) -> bool {
    set.iter().any(|held| path.starts_with(held))
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// The directory of a file, which may be replaced.
fn parent(path: &Path) -> PathBuf {
    let path = absolute(path);
    path.parent().filter(|parent| *parent != Path::new("/")).unwrap_or(&path).to_owned()
}
