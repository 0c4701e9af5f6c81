//! A network that outlives the program that started it, for demos and for work by hand.
//!
//! Its directory holds `state.json`, written as soon as there are processes to end, and `lock`, held while the network
//! is brought up or ended. Keys are cached in the directory itself, `cache/`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::process::{Process, end_all, runs_on};
use super::{Error, Timings, Up, arti_config, bring_up, torrc};
use crate::support;

/// How long to wait for another program that brings the network up or ends it.
const LOCK: Duration = Duration::from_secs(90);

/// A detached network, as its directory describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Whether all its daemons run.
    pub up: bool,
    /// The process ids of those that run.
    pub pids: Vec<u32>,
    /// The file for arti; see [`super::Network::arti_config`].
    pub arti_config: PathBuf,
    /// The torrc fragment for tor; see [`super::Network::torrc`].
    pub torrc: PathBuf,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    version: u32,
    daemons: Vec<Daemon>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Daemon {
    pid: u32,
    torrc: PathBuf,
}

/// The directory used when none is named: `tornet` in cargo's target directory.
pub fn default_dir() -> PathBuf {
    support::target_dir().join("tornet")
}

/// Brings a network up in `dir`, made when missing, and leaves it running. `progress` is told each step.
///
/// # Errors
/// [`super::ErrorKind::AlreadyUp`] when a daemon of this directory runs, else as [`super::Network::start`]. No process is left
/// behind.
pub fn up(dir: &Path, progress: &mut dyn FnMut(&str)) -> Result<(Status, Timings), Error> {
    support::private_dir(dir).map_err(|e| Error::file("make the directory", dir, e))?;
    let _lock = lock(dir)?;
    if !status(dir)?.pids.is_empty() {
        return Err(Error::already_up(dir));
    }
    let record = |daemons: &[Process]| write_state(dir, daemons);
    let Up { daemons, timings, .. } = bring_up(&dir.join("cache"), dir, None, progress, &mut { record })?;
    daemons.into_iter().for_each(Process::leave);
    Ok((status(dir)?, timings))
}

/// Ends the network in `dir` by the recorded process ids, each only if it still runs on a torrc of this directory.
/// Returns how many daemons were ended; 0 when none ran.
///
/// # Errors
/// [`super::ErrorKind::Timeout`] when a daemon stays despite SIGKILL, [`super::ErrorKind::Io`] when the state cannot be read.
pub fn down(dir: &Path) -> Result<usize, Error> {
    if !dir.is_dir() {
        return Ok(0);
    }
    let _lock = lock(dir)?;
    let daemons: Vec<_> = read_state(dir)?.daemons.into_iter().map(|d| (d.pid, d.torrc)).collect();
    let running = daemons.iter().filter(|(pid, torrc)| runs_on(*pid, torrc)).count();
    if !end_all(&daemons) {
        return Err(Error::timeout("not all daemons ended", Duration::from_secs(8), &state_file(dir)));
    }
    match fs::remove_file(state_file(dir)) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::file("delete", &state_file(dir), e)),
        _ => Ok(running),
    }
}

/// What runs in `dir`.
///
/// # Errors
/// [`super::ErrorKind::Io`] when the state cannot be read.
pub fn status(dir: &Path) -> Result<Status, Error> {
    let daemons = read_state(dir)?.daemons;
    let pids: Vec<u32> = daemons.iter().filter(|d| runs_on(d.pid, &d.torrc)).map(|d| d.pid).collect();
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let up = !daemons.is_empty() && pids.len() == daemons.len();
    Ok(Status { up, pids, arti_config: arti_config(&dir), torrc: torrc(&dir) })
}

fn state_file(dir: &Path) -> PathBuf {
    dir.join("state.json")
}

fn lock(dir: &Path) -> Result<File, Error> {
    let path = dir.join("lock");
    let locked = support::lock(&path, LOCK).map_err(|e| Error::file("lock", &path, e))?;
    locked.ok_or_else(|| Error::already_up(dir))
}

fn read_state(dir: &Path) -> Result<State, Error> {
    let path = state_file(dir);
    match fs::read_to_string(&path) {
        Ok(text) => serde_json::from_str(&text).map_err(|e| Error::file("understand", &path, e.into())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(State::default()),
        Err(e) => Err(Error::file("read", &path, e)),
    }
}

fn write_state(dir: &Path, processes: &[Process]) -> Result<(), Error> {
    let daemons = processes.iter().filter_map(|p| Some(Daemon { pid: p.pid()?, torrc: p.torrc().into() })).collect();
    let path = state_file(dir);
    serde_json::to_string_pretty(&State { version: 1, daemons })
        .map_err(std::io::Error::from)
        .and_then(|text| support::write_atomically(&path, &text))
        .map_err(|e| Error::file("write", &path, e))
}
