//! What the daemon gives up before it meets anybody.
//!
//! # When
//! [`enter`] is called on the main thread, after configuration and store were read and before there is another thread. Landlock binds the calling thread
//! and those that it makes from then on (landlock(7)); the token's thread, the runtime and whatever a PKCS#11 module starts are made later and inherit it.
//! So nothing that a peer, a token or a module sends is read outside. There is one step, and not a second one after the token is open: a token that was pulled
//! is opened again, and its module loaded again, at any time. The price is that what opening needs stays allowed: libraries may be read and mapped.
//!
//! # Files
//! Landlock, as far as the kernel knows it. What the configuration and the token's locator name can be read; the store's directory, arti's and those of sockets
//! can be changed; nothing can be executed. Rules belong to directories, so that a file may be replaced; a directory that is replaced by another of the same
//! name is out of reach until the next start. TCP ports are bound only where the configuration listens, and connected to only where it dials; arti dials any.
//! UDP is no matter of Landlock: its sockets are there only where the configuration has some, or a token's module connects, or with arti.
//! Connecting to a unix socket is no matter of Landlock before ABI 9: pcscd and backends are reached by their modes alone.
//!
//! # System calls
//! seccomp, a list of what is allowed; the rest fails with ENOSYS, as on a kernel that has not got it. Not EPERM: the C library asks for new calls first and
//! takes the old ones only after ENOSYS, so a library that is newer than the list goes on working. Not a killed process: a module of a token maker that calls
//! something odd would end the daemon of a machine that others wait for, while whoever has taken the process over gains nothing by trying.
//!
//! # When not
//! A `command` of a service, or a PIN that a window asks for, is another program with needs of its own. Then neither is applied, and the daemon says so.

mod calls;
mod files;
mod needs;

use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::token::Places;
use needs::Needs;
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities, set_no_new_privs};
use std::fmt;
use std::path::{Path, PathBuf};

/// One thing that is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// Files and TCP ports that are not needed.
    Landlock,
    /// System calls that are not needed.
    Seccomp,
    /// Memory that may be written to swap space.
    SwappableMemory,
    /// Privileges of programs with the set-user-ID bit.
    NewPrivileges,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Landlock => "landlock",
            Self::Seccomp => "seccomp",
            Self::SwappableMemory => "swappable-memory",
            Self::NewPrivileges => "new-privileges",
        })
    }
}

/// How far it is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Wholly.
    Applied,
    /// As far as this kernel can.
    Partly,
    /// Not at all.
    Not,
}

/// One thing that was to be given up, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Applied {
    /// What.
    pub what: What,
    /// How far.
    pub state: State,
    /// Why not wholly: half a sentence.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub why: Option<String>,
}

/// Where a daemon stands: what the configuration does not say.
#[derive(Debug, Clone, Default)]
pub struct Place {
    /// The store's directory.
    pub store: PathBuf,
    /// The configuration's file.
    pub config: Option<PathBuf>,
    /// What its tokens need.
    pub tokens: Vec<Places>,
    /// Whether a window would be opened to ask for a PIN.
    pub asks_in_a_window: bool,
}

/// What was given up. It can not be taken back.
#[derive(Debug, Clone, Default)]
pub struct Confinement {
    place: Place,
    applied: Vec<Applied>,
    /// What Landlock leaves; none where it is not applied.
    left: Option<Needs>,
    /// Whether no program can be started.
    starts_none: bool,
    /// Whether no UDP socket can be made.
    is_without_udp: bool,
}

impl Confinement {
    /// What came of everything that was to be given up.
    pub fn applied(&self) -> &[Applied] {
        &self.applied
    }

    /// Whether the files at and below `path` can still be read, and a socket made there.
    pub fn allows(&self, path: &Path) -> bool {
        self.left.as_ref().is_none_or(|left| left.allows(path))
    }

    /// Whether a configuration can be taken over without a new start.
    ///
    /// # Errors
    /// [`ErrorKind::RestartNeeded`], with what it needs that was given up.
    pub fn admits(&self, config: &Config) -> Result<()> {
        let mut needs = Needs::of(config, &self.place);
        let program = if self.starts_none { needs.programs.pop() } else { None };
        let udp = (self.is_without_udp && needs.udp).then(|| "UDP sockets".to_owned());
        let lacks = program.or(udp).or_else(|| self.left.as_ref().and_then(|left| left.lacks(&needs)));
        lacks.map_or(Ok(()), |what| {
            Err(Error::new(
                ErrorKind::RestartNeeded,
                format!("The new configuration needs what this daemon gave up when it started: {what}."),
                "Start the daemon again, with `systemctl restart claviger` where it is a service; sessions that can be resumed go on.",
            ))
        })
    }
}

/// Gives up what `config` says, for good. Call it before another thread is made: see the module's page.
///
/// What can not be given up is told by one warning each.
///
/// # Errors
/// [`ErrorKind::SandboxFailed`] when `[sandbox] require` is set and something can not be given up at all.
pub fn enter(config: &Config, place: Place) -> Result<Confinement> {
    let needs = Needs::of(config, &place);
    let (wanted, udp) = (&config.sandbox, needs.udp);
    let mut confinement = Confinement { place, ..Confinement::default() };
    let mut tell = |what, outcome: Outcome| {
        let Outcome { state, why } = outcome;
        if let Some(why) = &why {
            let how_far = if state == State::Not { "not" } else { "only in part" };
            tracing::warn!(target: "claviger::daemon", %what, why, "{how_far} given up");
        }
        confinement.applied.push(Applied { what, state, why });
    };
    if wanted.lock_memory {
        tell(What::SwappableMemory, lock_memory());
    }
    let privileges = set_no_new_privs(true);
    tell(What::NewPrivileges, privileges.map_or_else(|error| not(error.to_string()), |()| APPLIED));
    let program = needs.programs.first().map(|program| format!("{program} is another program, with needs of its own"));
    if wanted.landlock {
        let outcome = program.clone().map_or_else(|| files::restrict(&needs), not);
        confinement.left = (outcome.state != State::Not).then_some(needs);
        tell(What::Landlock, outcome);
    }
    if wanted.seccomp {
        let outcome = program.map_or_else(|| calls::restrict(udp), not);
        confinement.starts_none |= outcome.state != State::Not;
        confinement.is_without_udp = outcome.state != State::Not && !udp;
        tell(What::Seccomp, outcome);
    }
    confinement.starts_none |= confinement.left.is_some();
    let lacking = confinement.applied.iter().find(|applied| applied.state == State::Not);
    let lacking = lacking.and_then(|applied| Some((applied.what, applied.why.as_ref()?)));
    match lacking {
        Some((what, why)) if wanted.require => Err(Error::new(
            ErrorKind::SandboxFailed,
            format!("What the daemon is to give up can not be given up here: {what}: {why}."),
            "Mend that; or set `require = false` under [sandbox], or that one to `false`.",
        )),
        _ => Ok(confinement),
    }
}

/// What came of one.
struct Outcome {
    state: State,
    why: Option<String>,
}

const APPLIED: Outcome = Outcome { state: State::Applied, why: None };

fn not(why: String) -> Outcome {
    Outcome { state: State::Not, why: Some(why) }
}

fn partly(why: String) -> Outcome {
    Outcome { state: State::Partly, why: Some(why) }
}

/// Keeps what is in memory there, now and later. Only what is touched, so that a runtime's stacks do not take their whole size.
fn lock_memory() -> Outcome {
    let limit = getrlimit(Resource::Memlock);
    let is_free = capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK));
    // With a limit, memory that is asked for beyond it would be refused one day, and the process end.
    if let Some(bytes) = limit.maximum.filter(|_| !is_free) {
        return not(format!(
            "the limit on locked memory is {} KiB, and it has to be none: `LimitMEMLOCK=infinity` in the unit",
            bytes / 1024
        ));
    }
    let locked = setrlimit(Resource::Memlock, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .and_then(|()| mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT));
    locked.map_or_else(|error| not(format!("mlockall(2): {error}")), |()| APPLIED)
}

#[cfg(test)]
mod tests;
