//! One tor daemon as a process: started on a torrc, watched by its log, ended by pid.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::Error;
use crate::support;

/// How long a daemon may take to end after SIGTERM before SIGKILL follows. One told `ShutdownWaitLength 0` takes
/// milliseconds.
const TERM: Duration = Duration::from_secs(3);
/// How long the kernel may take to end a process after SIGKILL.
const KILL: Duration = Duration::from_secs(5);

/// A running tor. Dropping it ends the process and waits until it is gone.
#[derive(Debug)]
pub(super) struct Process {
    name: String,
    child: Option<Child>,
    torrc: PathBuf,
    log: PathBuf,
    log_start: u64,
}

impl Process {
    /// Starts tor on `torrc`; its output is appended to `log`. `detached` puts it into a process group of its own, so
    /// that a terminal's Ctrl-C does not reach it.
    pub(super) fn spawn(name: &str, torrc: &Path, log: &Path, detached: bool) -> Result<Self, Error> {
        let output = support::append(log).map_err(|e| Error::file("open the log", log, e))?;
        let log_start = output.metadata().map_err(|e| Error::file("measure the log", log, e))?.len();
        let errors = output.try_clone().map_err(|e| Error::file("share the log", log, e))?;
        let mut command = Command::new("tor");
        command.args(["--defaults-torrc", "/dev/null", "-f"]).arg(torrc);
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        if detached {
            command.process_group(0);
        }
        let child = command.spawn().map_err(|e| Error::spawn("tor", e))?;
        Ok(Self { name: name.into(), child: Some(child), torrc: torrc.into(), log: log.into(), log_start })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    pub(super) fn torrc(&self) -> &Path {
        &self.torrc
    }

    pub(super) fn log(&self) -> &Path {
        &self.log
    }

    /// What this process, and none before it, has logged so far.
    pub(super) fn logged(&self) -> String {
        support::read_from(&self.log, self.log_start)
    }

    /// An error when the process has ended by itself.
    pub(super) fn check(&mut self) -> Result<(), Error> {
        let Some(child) = &mut self.child else { return Ok(()) };
        match child.try_wait().map_err(|e| Error::watch(&self.name, e))? {
            None => Ok(()),
            Some(status) => Err(self.died(status)),
        }
    }

    fn died(&mut self, status: ExitStatus) -> Error {
        self.child = None;
        Error::died(&self.name, status, &self.log, self.log_start)
    }

    /// Asks the process to end (SIGTERM) without waiting for it.
    pub(super) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Ends the process at once (SIGKILL) and waits until it is gone.
    pub(super) fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.reap(KILL);
    }

    /// Ends the process (SIGTERM, then SIGKILL) and waits until it is gone.
    pub(super) fn end(&mut self) {
        self.terminate();
        if !self.reap(TERM) {
            self.kill();
        }
    }

    /// Gives the process up: it goes on running after this value and this program have ended.
    pub(super) fn leave(mut self) {
        self.child = None;
    }

    /// The pid stays ours until the child is reaped, so the signal cannot hit a stranger; the look at the command line
    /// guards against a mistake of ours.
    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid()
            && runs_on(pid, &self.torrc)
        {
            send(pid, signal);
        }
    }

    fn reap(&mut self, limit: Duration) -> bool {
        let Some(child) = &mut self.child else { return true };
        let gone = matches!(support::wait(child, limit), Ok(Some(_)));
        if gone {
            self.child = None;
        }
        gone
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// Whether the process `pid` is a tor that was started on `torrc`.
pub(super) fn runs_on(pid: u32, torrc: &Path) -> bool {
    let cmdline = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    cmdline.split(|b| *b == 0).any(|arg| arg == torrc.as_os_str().as_encoded_bytes())
}

/// Ends processes that other programs started, each named by its pid and torrc: SIGTERM to all, SIGKILL to those
/// that stay. Returns whether all are gone.
pub(super) fn end_all(processes: &[(u32, PathBuf)]) -> bool {
    let running = || processes.iter().filter(|(pid, torrc)| runs_on(*pid, torrc));
    for (signal, limit) in [(Signal::TERM, TERM), (Signal::KILL, KILL)] {
        running().for_each(|(pid, _)| send(*pid, signal));
        if support::poll(limit, || running().next().is_none().then_some(())).is_some() {
            return true;
        }
    }
    false
}

fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // A process that has just ended is what was wanted.
        let _ = kill_process(pid, signal);
    }
}
