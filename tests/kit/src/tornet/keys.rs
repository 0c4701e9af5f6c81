//! The authorities' keys and ports, kept between runs.
//!
//! A cache directory holds sets `set-0`, `set-1`, … A run locks the first set that no other run holds. A set is
//! `lock`, `set.json` (written last: a set without it is unfinished and made anew) and `keys/authN/`, a tor data
//! directory as `tor-gencert` and `tor --list-fingerprint` leave it. Certificates name the directory port, so ports
//! and keys live and die together.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::Error;
use crate::support;

/// Authorities in a network. Tor forms circuits of three hops, and an onion service's of four, from four relays; fewer
/// fail now and then.
const AUTHORITIES: usize = 4;
/// Sets one cache may hold: as many networks at once.
const SETS: usize = 64;
/// Age in seconds past which a set is made anew; its certificates are good for twelve months.
const MAX_AGE: u64 = 180 * 24 * 3600;
/// How long making one key may take. RSA of 3072 bits takes a second, on a loaded machine several.
const KEYGEN: Duration = Duration::from_secs(90);

/// One authority's public face.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Authority {
    /// `auth0`…
    pub(super) name: String,
    /// The relay port.
    pub(super) or_port: u16,
    /// The directory port.
    pub(super) dir_port: u16,
    /// RSA relay identity, 40 hex digits.
    pub(super) rsa: String,
    /// Ed25519 relay identity, base64 without padding.
    pub(super) ed25519: String,
    /// Identity of the authority's v3 certificate, 40 hex digits.
    pub(super) v3ident: String,
}

/// A locked set of keys whose ports are held free until [`KeySet::release_ports`].
#[derive(Debug)]
pub(super) struct KeySet {
    dir: PathBuf,
    authorities: Vec<Authority>,
    cached: bool,
    held: Vec<TcpListener>,
    _lock: File,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SetFile {
    version: u32,
    created: u64,
    authorities: Vec<Authority>,
}

impl KeySet {
    /// Locks a set of `cache` that is free, and makes its keys unless they are there and their ports are free.
    pub(super) fn acquire(cache: &Path) -> Result<Self, Error> {
        for i in 0..SETS {
            let dir = cache.join(format!("set-{i}"));
            support::private_dir(&dir).map_err(|e| Error::file("make the directory", &dir, e))?;
            let path = dir.join("lock");
            let locked = support::lock(&path, Duration::ZERO).map_err(|e| Error::file("lock", &path, e))?;
            if let Some(lock) = locked {
                return Self::load_or_make(dir, lock);
            }
        }
        Err(Error::already_up(cache))
    }

    fn load_or_make(dir: PathBuf, lock: File) -> Result<Self, Error> {
        if let Some((authorities, held)) = load(&dir) {
            return Ok(Self { dir, authorities, cached: true, held, _lock: lock });
        }
        let file = dir.join("set.json");
        let keys = dir.join("keys");
        remove(fs::remove_file(&file)).map_err(|e| Error::file("delete", &file, e))?;
        remove(fs::remove_dir_all(&keys)).map_err(|e| Error::file("delete", &keys, e))?;
        let held: Vec<TcpListener> = (0..2 * AUTHORITIES).map(|_| bind(0)).collect::<Result<_, _>>()?;
        let ports: Vec<u16> = held.iter().map(port).collect::<Result<_, _>>()?;
        let authorities = std::thread::scope(|scope| {
            let threads: Vec<_> = ports
                .chunks_exact(2)
                .enumerate()
                .map(|(i, pair)| {
                    let keys = &keys;
                    scope.spawn(move || make(keys, format!("auth{i}"), pair[0], pair[1]))
                })
                .collect();
            threads
                .into_iter()
                .map(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect::<Result<Vec<_>, _>>()
        })?;
        let text = SetFile { version: 1, created: now(), authorities: authorities.clone() };
        serde_json::to_string_pretty(&text)
            .map_err(std::io::Error::from)
            .and_then(|text| support::write_atomically(&file, &text))
            .map_err(|e| Error::file("write", &file, e))?;
        Ok(Self { dir, authorities, cached: false, held, _lock: lock })
    }

    pub(super) fn authorities(&self) -> &[Authority] {
        &self.authorities
    }

    /// Whether the keys were there already.
    pub(super) fn cached(&self) -> bool {
        self.cached
    }

    /// Frees the ports for the daemons that are about to be started on them.
    pub(super) fn release_ports(&mut self) {
        self.held.clear();
    }

    /// Copies the keys of `authority` into the data directory `to`, which must not exist.
    pub(super) fn copy(&self, authority: &Authority, to: &Path) -> Result<(), Error> {
        let from = self.dir.join("keys").join(&authority.name);
        copy_dir(&from, to).map_err(|e| Error::file("copy the keys to", to, e))
    }
}

/// The set in `dir` with its ports bound, if it is finished, young enough, and all its ports are free now.
fn load(dir: &Path) -> Option<(Vec<Authority>, Vec<TcpListener>)> {
    let set: SetFile = serde_json::from_str(&fs::read_to_string(dir.join("set.json")).ok()?).ok()?;
    let young = set.created.checked_add(MAX_AGE).is_some_and(|end| end > now()) && set.created <= now();
    if set.version != 1 || set.authorities.len() != AUTHORITIES || !young {
        return None;
    }
    let held = set.authorities.iter().flat_map(|a| [a.or_port, a.dir_port]).map(|p| bind(p).ok());
    let held = held.collect::<Option<Vec<_>>>()?;
    Some((set.authorities, held))
}

/// Makes one authority's keys in `keys/NAME`.
fn make(keys: &Path, name: String, or_port: u16, dir_port: u16) -> Result<Authority, Error> {
    let dir = keys.join(&name);
    let inner = dir.join("keys");
    support::private_dir(&inner).map_err(|e| Error::file("make the directory", &inner, e))?;
    let log = dir.join("keygen.log");

    let mut gencert = Command::new("tor-gencert");
    gencert.args(["--create-identity-key", "--passphrase-fd", "0", "-m", "12", "-a"]);
    gencert.arg(format!("127.0.0.1:{dir_port}"));
    for (option, file) in
        [("-i", "authority_identity_key"), ("-s", "authority_signing_key"), ("-c", "authority_certificate")]
    {
        gencert.arg(option).arg(inner.join(file));
    }
    // The passphrase protects a key of a network that lives for minutes on loopback.
    run(&mut gencert, "tor-gencert", "tornet\n", &log)?;

    // Makes the relay's own identity keys and writes down their fingerprints. An authority line is needed for tor to
    // accept a relay at this address at all; nothing is contacted.
    let mut fingerprint = Command::new("tor");
    fingerprint.args(["--list-fingerprint", "--hush", "--ignore-missing-torrc"]);
    fingerprint.args(["--defaults-torrc", "/dev/null", "-f", "/dev/null"]);
    fingerprint.arg("--DataDirectory").arg(&dir).args(["--Nickname", &name, "--AssumeReachable", "1"]);
    fingerprint.args(["--ORPort", "127.0.0.1:1", "--Address", "127.0.0.1", "--DirAuthority"]);
    fingerprint.arg(format!("none orport=1 no-v2 v3ident={} 127.0.0.1:1 {}", "0".repeat(40), "F".repeat(40)));
    run(&mut fingerprint, "tor", "", &log)?;

    let word = |file: PathBuf, before: &str| {
        let text = fs::read_to_string(&file).map_err(|e| Error::file("read", &file, e))?;
        let found = text.lines().find_map(|line| line.strip_prefix(before)).map(|rest| rest.trim().to_owned());
        found.ok_or_else(|| Error::keys(format!("no line {before:?} in {}", file.display()), &log))
    };
    let nickname = format!("{name} ");
    Ok(Authority {
        rsa: word(dir.join("fingerprint"), &nickname)?,
        ed25519: word(dir.join("fingerprint-ed25519"), &nickname)?,
        v3ident: word(inner.join("authority_certificate"), "fingerprint ")?,
        name,
        or_port,
        dir_port,
    })
}

fn run(command: &mut Command, program: &str, input: &str, log: &Path) -> Result<(), Error> {
    match support::run(command, input, log, KEYGEN).map_err(|e| Error::spawn(program, e))? {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(Error::keys(format!("{program} made no keys ({status})"), log)),
        None => Err(Error::timeout(&format!("{program} made no keys"), KEYGEN, log)),
    }
}

fn bind(port: u16) -> Result<TcpListener, Error> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(Error::port)
}

fn port(listener: &TcpListener) -> Result<u16, Error> {
    listener.local_addr().map(|a| a.port()).map_err(Error::port)
}

/// A deletion that found nothing to delete did its work.
fn remove(result: std::io::Result<()>) -> std::io::Result<()> {
    result.or_else(|e| if e.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(e) })
}

fn copy_dir(from: &Path, to: &Path) -> std::io::Result<()> {
    support::private_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_dir(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
