//! Values that are checked while they are read, so that an error has a place in the file.

use super::{Local, Pattern, PinEntryProgram};
use crate::identity::{Fingerprint, Identifier, ServiceName};
use crate::policy::Who;
use serde::de::{Deserialize, Deserializer, Error as _};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

/// Longest time that can be configured.
const MAX_SECONDS: u64 = 3600;
const DAY: u64 = 86_400;
/// Most streams of one peer: each is promised 256 KiB of buffer.
const MAX_STREAMS: u32 = 4096;
/// Largest number that can be configured as a limit.
const MAX_COUNT: u32 = 1_000_000;

/// Where tor's control port listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlAddress {
    /// A TCP port on loopback.
    Tcp(SocketAddr),
    /// A unix socket, written `unix:PATH`. The file system says who may open it, so no other program can take its place while tor is down.
    Unix(PathBuf),
    /// There is none, written `none`: services are dialled by the SOCKS port alone.
    None,
}

impl std::fmt::Display for ControlAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::None => f.write_str("none"),
        }
    }
}

impl<'de> Deserialize<'de> for ControlAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.strip_prefix("unix:") {
            Some("") => Err(D::Error::custom("`unix:` needs the path of a socket")),
            Some(path) => Ok(Self::Unix(path.into())),
            None if text == "none" => Ok(Self::None),
            None => parse_loopback(&text).map(Self::Tcp).map_err(D::Error::custom),
        }
    }
}

impl<'de> Deserialize<'de> for PinEntryProgram {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.as_str() {
            "auto" => Ok(Self::Auto),
            "none" => Ok(Self::None),
            // A relative path would depend on where the program was started.
            program if program.starts_with('/') || !(program.is_empty() || program.contains(['/', '\0'])) => {
                Ok(Self::Named(text))
            }
            _ => Err(D::Error::custom(format!(
                "`{text}` is neither `auto` or `none`, nor a program's name or absolute path"
            ))),
        }
    }
}

impl std::fmt::Display for Local {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp:{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Udp(address) => write!(f, "udp:{address}"),
            Self::Unixgram(path) => write!(f, "unixgram:{}", path.display()),
            Self::Systemd(name) => write!(f, "systemd:{name}"),
        }
    }
}

impl std::str::FromStr for Local {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let address = |rest: &str| {
            rest.parse::<SocketAddr>()
                .map_err(|_| format!("`{rest}` is not an address and port like 127.0.0.1:9000 or [::1]:9000"))
        };
        match text.split_once(':') {
            Some((_, "")) => Err(format!("`{text}` says no address, path or name")),
            Some(("tcp", rest)) => Ok(Self::Tcp(address(rest)?)),
            Some(("udp", rest)) => Ok(Self::Udp(address(rest)?)),
            Some(("unix", path)) => Ok(Self::Unix(path.into())),
            Some(("unixgram", path)) => Ok(Self::Unixgram(path.into())),
            Some(("systemd", name)) => Ok(Self::Systemd(name.into())),
            _ => Err(format!(
                "`{text}` is not `tcp:ADDRESS:PORT`, `unix:PATH`, `udp:ADDRESS:PORT`, `unixgram:PATH` or `systemd:NAME`"
            )),
        }
    }
}

impl<'de> Deserialize<'de> for Local {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Who {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|_| {
            D::Error::custom(format!(
                "`{text}` is neither a peer's name, nor `role:` and a role, nor `*` for every peer"
            ))
        })
    }
}

/// `PEER/SERVICE`.
pub(super) fn destination<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(Identifier, ServiceName), D::Error> {
    let text = String::deserialize(deserializer)?;
    let parsed = text.split_once('/').and_then(|(peer, service)| Some((peer.parse().ok()?, service.parse().ok()?)));
    parsed.ok_or_else(|| D::Error::custom(format!("`{text}` is not a peer and its service like `cosigner/ssh`")))
}

/// A table by names.
pub(super) fn named<'de, D, K, V>(deserializer: D) -> Result<BTreeMap<K, V>, D::Error>
where
    D: Deserializer<'de>,
    K: std::str::FromStr + Ord,
    V: Deserialize<'de>,
{
    let map = BTreeMap::<String, V>::deserialize(deserializer)?;
    let named = |(name, value): (String, V)| match name.parse() {
        Ok(name) => Ok((name, value)),
        Err(_) => Err(D::Error::custom(format!(
            "`{name}` is not a name: 1 to 63 of a-z, 0-9 and -, beginning with a letter, not ending with a hyphen"
        ))),
    };
    map.into_iter().map(named).collect()
}

pub(super) fn probe<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let seconds = u64::deserialize(deserializer)?;
    if seconds != 0 && !(60..=DAY).contains(&seconds) {
        return Err(D::Error::custom(format!("this time is 0, or a whole number of seconds from 60 to {DAY}")));
    }
    Ok(Duration::from_secs(seconds))
}

pub(super) fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let count = u32::deserialize(deserializer)?;
    if count > MAX_COUNT {
        return Err(D::Error::custom(format!("this number is at most {MAX_COUNT}")));
    }
    Ok(count)
}

fn parse_loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr =
        text.parse().map_err(|_| format!("`{text}` is not an address and port like 127.0.0.1:9050"))?;
    if !address.ip().is_loopback() {
        return Err(format!("`{text}` is not on loopback"));
    }
    Ok(address)
}

pub(super) fn loopback<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    parse_loopback(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

pub(super) fn fingerprints<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    for text in &texts {
        // Whose it is does not matter here: text that is none at all is refused.
        Fingerprint::from_bytes([0; 16])
            .matches(text)
            .map_err(|error| D::Error::custom(error.to_string().trim_end_matches('.')))?;
    }
    Ok(texts)
}

pub(super) fn local_stream<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Local>, D::Error> {
    match Local::deserialize(deserializer)? {
        Local::Tcp(address) if !address.ip().is_loopback() => {
            Err(D::Error::custom(format!("{address} is not on loopback")))
        }
        local @ (Local::Tcp(_) | Local::Unix(_)) => Ok(Some(local)),
        _ => Err(D::Error::custom("tor connects to `tcp:ADDRESS:PORT` or `unix:PATH`")),
    }
}

pub(super) fn port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    match u16::deserialize(deserializer)? {
        0 => Err(D::Error::custom("a port is a number from 1 to 65535")),
        port => Ok(port),
    }
}

fn within<'de, D: Deserializer<'de>>(deserializer: D, range: RangeInclusive<u64>) -> Result<Duration, D::Error> {
    let seconds = u64::deserialize(deserializer)?;
    if !range.contains(&seconds) {
        let (first, last) = range.into_inner();
        return Err(D::Error::custom(format!("this time is a whole number of seconds from {first} to {last}")));
    }
    Ok(Duration::from_secs(seconds))
}

pub(super) fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    within(deserializer, 1..=MAX_SECONDS)
}

pub(super) fn age<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    within(deserializer, 60..=30 * DAY)
}

pub(super) fn drain<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    within(deserializer, 1..=DAY)
}

pub(super) fn resume_for<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    within(deserializer, 0..=DAY)
}

pub(super) fn idle<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    within(deserializer, 0..=30 * DAY)
}

pub(super) fn streams<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let count = u32::deserialize(deserializer)?;
    if !(1..=MAX_STREAMS).contains(&count) {
        return Err(D::Error::custom(format!("this limit is a whole number from 1 to {MAX_STREAMS}")));
    }
    Ok(count)
}

pub(super) fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let count = u32::deserialize(deserializer)?;
    if !(1..=MAX_COUNT).contains(&count) {
        return Err(D::Error::custom(format!("a limit is a whole number from 1 to {MAX_COUNT}")));
    }
    Ok(count)
}

pub(super) fn patterns<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Pattern>, D::Error> {
    let patterns = Vec::<Pattern>::deserialize(deserializer)?;
    if patterns.is_empty() {
        return Err(D::Error::custom("name at least one of `kk`, `kk1`, `xk`"));
    }
    Ok(patterns)
}

pub(super) fn peers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<Identifier, SocketAddr>, D::Error> {
    let peers = BTreeMap::<String, SocketAddr>::deserialize(deserializer)?;
    let named = |(name, address): (String, _)| match name.parse() {
        Ok(name) => Ok((name, address)),
        Err(_) => Err(D::Error::custom(format!("`{name}` is not a peer's identifier"))),
    };
    peers.into_iter().map(named).collect()
}
