//! A private Tor network on loopback: four directory authorities that are also its relays, and tor daemons on it.
//!
//! [`Network::start`] brings the authorities up and returns when each serves a consensus that lists all four, about
//! eight seconds later. Clients learn of it from two files: [`Network::arti_config`] for arti, [`Network::torrc`] for
//! tor. Everything listens on 127.0.0.1, on ports the system chose. Keys are cached between runs, and any number
//! of networks can run at once from one cache.
//!
//! A network belongs to the process that started it: it ends when the value is dropped, and by itself within 15 s when
//! the process is killed. [`detached`] is for the network that outlives its starter.

mod config;
mod daemon;
pub mod detached;
mod error;
mod keys;
mod process;

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use daemon::{Auth, TorDaemon, TorProcess};
pub use error::{Error, ErrorKind};

use crate::support;
use config::Clock;
use keys::{Authority, KeySet};
use process::Process;

/// From the start to the first consensus, at least; twice that at each further attempt. An authority that is not ready
/// to vote four seconds before that time is missing from the network for a whole round, and everything is started
/// again. This is enough on an idle machine, not always for five networks started at once on four cores.
const LEAD: Duration = Duration::from_millis(7500);
/// Attempts at a network.
const ATTEMPTS: u32 = 3;
/// How long after its due time a consensus may appear; the time is rounded up to a second first.
const LATE: Duration = Duration::from_secs(6);
/// The largest consensus read, in bytes; that of four relays has about 4 KiB.
const MAX_CONSENSUS: u64 = 256 * 1024;

/// Where a network keeps its files.
#[derive(Debug, Clone)]
pub struct Options {
    /// The cache of keys and ports, made when missing. Default: `tornet-cache` in cargo's target directory.
    pub cache: PathBuf,
    /// The directory the network runs in, made when missing and left behind; what an earlier network left there is
    /// deleted. Default: a temporary one, deleted when the network ends.
    pub dir: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self { cache: support::target_dir().join("tornet-cache"), dir: None }
    }
}

/// What starting a network took.
#[derive(Debug, Clone, Copy)]
pub struct Timings {
    /// Making the keys, or finding them in the cache.
    pub keys: Duration,
    /// Whether the keys were in the cache at the first attempt.
    pub cached: bool,
    /// From the start of the daemons to a consensus of all four, in the attempt that led to one.
    pub consensus: Duration,
    /// Attempts it took: 1, unless the machine was too slow.
    pub attempts: u32,
}

/// A running private network. Dropping it ends its daemons by pid, waits until they are gone, and deletes its
/// directory if that was temporary.
#[derive(Debug)]
pub struct Network {
    // Dropped in this order: the daemons, the lock on their keys, their files.
    daemons: Vec<Process>,
    _keys: KeySet,
    timings: Timings,
    dir: PathBuf,
    _temporary: Option<tempfile::TempDir>,
}

impl Network {
    /// Starts a network and waits for its first consensus, at most about 70 s in three attempts.
    ///
    /// # Errors
    /// [`ErrorKind::Missing`] without tor, [`ErrorKind::Keys`] or [`ErrorKind::Io`] when no keys can be made or files
    /// written, [`ErrorKind::Died`] when a daemon ends by itself, [`ErrorKind::Timeout`] when no attempt led to a
    /// consensus of all authorities. No process is left behind.
    pub fn start(options: &Options) -> Result<Self, Error> {
        let (dir, temporary) = match &options.dir {
            Some(dir) => (dir.clone(), None),
            None => {
                let temporary = tempfile::Builder::new().prefix("tornet-").tempdir();
                let temporary = temporary.map_err(|e| Error::file("make a directory in", &std::env::temp_dir(), e))?;
                (temporary.path().to_owned(), Some(temporary))
            }
        };
        let owner = Some(std::process::id());
        let up = bring_up(&options.cache, &dir, owner, &mut |_| {}, &mut |_| Ok(()))?;
        let Up { daemons, keys, timings, dir } = up;
        Ok(Self { daemons, _keys: keys, timings, dir, _temporary: temporary })
    }

    /// The directory the network runs in.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A file in arti's own configuration format that puts a client on this network. It sets no storage directories.
    pub fn arti_config(&self) -> PathBuf {
        arti_config(&self.dir)
    }

    /// A torrc fragment that puts a tor on this network, for `%include`.
    pub fn torrc(&self) -> PathBuf {
        torrc(&self.dir)
    }

    /// What starting took.
    pub fn timings(&self) -> Timings {
        self.timings
    }

    /// The process ids of the authorities.
    pub fn pids(&self) -> Vec<u32> {
        self.daemons.iter().filter_map(Process::pid).collect()
    }

    /// Starts a tor daemon, client and onion service host alike, on this network, and waits until it is bootstrapped.
    ///
    /// # Errors
    /// As [`Network::start`]; the daemon is ended.
    pub fn start_tor(&self, daemon: &TorDaemon) -> Result<TorProcess, Error> {
        TorProcess::start(&self.torrc(), daemon)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.daemons.iter().for_each(Process::terminate);
    }
}

/// The parts of a network that is up.
struct Up {
    daemons: Vec<Process>,
    keys: KeySet,
    timings: Timings,
    dir: PathBuf,
}

fn arti_config(dir: &Path) -> PathBuf {
    dir.join("arti.toml")
}

fn torrc(dir: &Path) -> PathBuf {
    dir.join("network.torrc")
}

/// Brings a network up in `dir`. `progress` is told each step in a sentence; `started` gets the processes as soon as
/// they exist, before there is a consensus.
fn bring_up(
    cache: &Path,
    dir: &Path,
    owner: Option<u32>,
    progress: &mut dyn FnMut(&str),
    started: &mut dyn FnMut(&[Process]) -> Result<(), Error>,
) -> Result<Up, Error> {
    support::private_dir(dir).map_err(|e| Error::file("make the directory", dir, e))?;
    // tor resolves relative paths against its own working directory.
    let dir = dir.canonicalize().map_err(|e| Error::file("resolve", dir, e))?;
    let mut timings = Timings { keys: Duration::ZERO, cached: true, consensus: Duration::ZERO, attempts: 0 };
    let mut lead = LEAD;
    loop {
        timings.attempts += 1;
        let begin = Instant::now();
        let mut keys = KeySet::acquire(cache)?;
        timings.keys += begin.elapsed();
        timings.cached &= keys.cached() || timings.attempts > 1;
        let (count, made) = (keys.authorities().len(), if keys.cached() { "found" } else { "made" });
        progress(&format!("keys of {count} authorities {made} in {:.1} s", begin.elapsed().as_secs_f64()));
        let begin = Instant::now();
        match launch(&mut keys, &dir, lead, owner, started) {
            Ok(daemons) => {
                timings.consensus = begin.elapsed();
                progress(&format!("consensus after {:.1} s", timings.consensus.as_secs_f64()));
                return Ok(Up { daemons, keys, timings, dir });
            }
            Err(e) if timings.attempts < ATTEMPTS && matches!(e.kind(), ErrorKind::Timeout | ErrorKind::PortTaken) => {
                progress(&format!("{}; starting again with more time", e.what()));
                lead *= 2;
            }
            Err(e) => return Err(e),
        }
    }
}

/// Writes the files, starts the daemons and waits for their consensus. On an error every daemon is ended.
fn launch(
    keys: &mut KeySet,
    dir: &Path,
    lead: Duration,
    owner: Option<u32>,
    started: &mut dyn FnMut(&[Process]) -> Result<(), Error>,
) -> Result<Vec<Process>, Error> {
    let write =
        |path: &Path, text: &str| support::write_atomically(path, text).map_err(|e| Error::file("write", path, e));
    write(&torrc(dir), &config::network(keys.authorities()))?;
    write(&arti_config(dir), &config::arti(keys.authorities()))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let clock = Clock { start: now.as_secs(), due: (now + lead).as_secs() + 1 };
    for authority in keys.authorities() {
        let data = dir.join(&authority.name);
        match std::fs::remove_dir_all(&data) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::file("delete", &data, e)),
            _ => keys.copy(authority, &data)?,
        }
        write(&data.join("sr-state"), &config::shared_random(keys.authorities().len(), clock))?;
        let text = config::daemon(&torrc(dir), &data, owner) + &config::authority(authority, clock);
        write(&data.join("torrc"), &text)?;
    }
    keys.release_ports();
    let mut daemons = Vec::new();
    for authority in keys.authorities() {
        let data = dir.join(&authority.name);
        let log = data.join("notice.log");
        daemons.push(Process::spawn(&authority.name, &data.join("torrc"), &log, owner.is_none())?);
    }
    started(&daemons)?;
    await_consensus(keys.authorities(), &mut daemons, lead + LATE)?;
    Ok(daemons)
}

/// Waits until every authority serves a consensus that lists all of them as running onion service directories. The
/// first consensus stands for a whole round: one that lacks an authority ends the wait.
fn await_consensus(authorities: &[Authority], daemons: &mut [Process], limit: Duration) -> Result<(), Error> {
    let end = Instant::now() + limit;
    for authority in authorities {
        let log = daemons.iter().find(|d| d.name() == authority.name).map_or(PathBuf::new(), |d| d.log().to_owned());
        let left = end.saturating_duration_since(Instant::now());
        let found = support::poll(left, || match daemons.iter_mut().try_for_each(Process::check) {
            Err(e) => Some(Err(e)),
            Ok(()) => consensus(authority.dir_port).map(|text| Ok(lists(&text, authorities.len()))),
        });
        if !found.transpose()?.unwrap_or(false) {
            let what = format!("{} served no consensus of all authorities", authority.name);
            return Err(Error::timeout(&what, limit, &log));
        }
    }
    Ok(())
}

/// Whether `consensus` names `count` relays that run and store onion service descriptors (dir-spec, "s" lines).
fn lists(consensus: &str, count: usize) -> bool {
    let flags = consensus.lines().filter_map(|line| line.strip_prefix("s "));
    let serving = flags.filter(|f| ["HSDir", "Running"].iter().all(|flag| f.split(' ').any(|word| word == *flag)));
    serving.count() >= count
}

/// The microdescriptor consensus that the authority at `dir_port` serves now.
fn consensus(dir_port: u16) -> Option<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, dir_port));
    let wait = Duration::from_secs(2);
    let mut stream = TcpStream::connect_timeout(&address, wait).ok()?;
    stream.set_read_timeout(Some(wait)).ok()?;
    stream.write_all(b"GET /tor/status-vote/current/consensus-microdesc HTTP/1.0\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.take(MAX_CONSENSUS).read_to_string(&mut text).ok()?;
    text.starts_with("HTTP/1.0 200").then_some(text)
}
