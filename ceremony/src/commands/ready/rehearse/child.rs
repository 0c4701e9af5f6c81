//! This program again, as somebody at a machine runs it: with a home directory of its own, without a terminal, and gone when this one goes.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use claviger::error::{Error, ErrorKind, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Deserialize;
use serde_json::Value;

/// How often a wait looks whether somebody interrupted.
const SLICE: Duration = Duration::from_millis(100);
/// What a command may take. Ours take a few seconds where everything is slow.
const PATIENCE: Duration = Duration::from_secs(120);
/// The most that a command writes, in bytes.
const MAX_OUTPUT: usize = 4 << 20;

/// Runs commands, until somebody interrupts.
pub(super) struct Runner {
    program: PathBuf,
    interrupted: Arc<AtomicBool>,
}

/// Where a command runs: at a machine, beside the files that are handed around.
#[derive(Debug, Clone)]
pub(super) struct Seat {
    /// What people call the machine.
    pub(super) name: String,
    /// Its home directory, with its store and its keys.
    pub(super) home: PathBuf,
    /// The working directory: the stick that goes from machine to machine.
    pub(super) stick: PathBuf,
}

/// A command that ended.
#[derive(Debug)]
pub(super) struct Run {
    /// As somebody types it.
    pub(super) command: String,
    pub(super) arguments: Vec<String>,
    pub(super) took: Duration,
    pub(super) stdout: String,
    /// Why it failed; `None` when it did not.
    pub(super) said: Option<Said>,
}

/// A command's two sentences.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Said {
    pub(super) kind: String,
    pub(super) message: String,
    pub(super) hint: String,
}

#[derive(Deserialize)]
struct ErrorLine {
    error: Said,
}

impl Runner {
    /// From now on an interrupt ends a command that runs, and everything that the rehearsal made is taken away before this program ends.
    pub(super) fn begin() -> Result<Self> {
        let failed = |call: &str, error: io::Error| {
            let what = format!("The rehearsal can not run this program: {call}: {error}.");
            Error::new(ErrorKind::Internal, what, "Run it where processes can be started and signals handled.")
                .because(error)
        };
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
            signal_hook::flag::register(signal, interrupted.clone()).map_err(|error| failed("sigaction", error))?;
        }
        let program = std::env::current_exe().map_err(|error| failed("/proc/self/exe", error))?;
        Ok(Self { program, interrupted })
    }

    /// # Errors
    /// `Interrupted`.
    pub(super) fn check(&self) -> Result<()> {
        if self.interrupted.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Interrupted, "The rehearsal was interrupted.", "Run it again."));
        }
        Ok(())
    }

    /// Runs a command with `--json`, and waits for its end. An argument `*.EXTENSION` stands for the files of that name on the stick, as a shell takes it.
    ///
    /// # Errors
    /// `Interrupted`; `Internal` when it could not be run, or did not end. That the command fails is no error.
    pub(super) fn run(&self, seat: &Seat, arguments: &[impl AsRef<str>]) -> Result<Run> {
        self.check()?;
        let command = typed(arguments);
        let failed = |why: String| {
            let what = format!("`{command}` could not be played on {}: {why}.", seat.name);
            Error::new(ErrorKind::Internal, what, "Run it again; if it stays, report it as a bug of claviger.")
        };
        let began = Instant::now();
        let expanded = expanded(&seat.stick, arguments)?;
        let json = expanded.iter().all(|argument| argument != "--json").then_some("--json");
        let mut child = Command::new(&self.program)
            .args(expanded)
            .args(json)
            .arg("--in-rehearsal")
            .current_dir(&seat.stick)
            .env("HOME", &seat.home)
            .env_remove("XDG_DATA_HOME")
            // Its PIN is this machine's, and nobody's here.
            .env_remove("CREDENTIALS_DIRECTORY")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        let read = self.read(&mut child, began);
        if !matches!(read, Ok(Ok(_))) {
            // It may have ended by itself meanwhile.
            let _ = child.kill();
        }
        let status = child.wait().map_err(|error| failed(error.to_string()))?;
        let [stdout, stderr] = read?.map_err(failed)?;
        let took = began.elapsed();
        let said = match status.code() {
            Some(0) => None,
            Some(_) => Some(said(&stderr).ok_or_else(|| failed(format!("it said no reason: {}", stderr.trim())))?),
            None => return Err(failed(format!("it ended with {status}"))),
        };
        let arguments = arguments.iter().map(|argument| argument.as_ref().to_owned()).collect();
        Ok(Run { command, arguments, took, stdout, said })
    }

    /// What it writes to stdout and stderr, to their ends. The inner error is a clause.
    fn read(&self, child: &mut Child, began: Instant) -> Result<std::result::Result<[String; 2], String>> {
        let (Some(mut stdout), Some(mut stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Ok(Err("it has no output".into()));
        };
        let mut texts = [Vec::new(), Vec::new()];
        let mut open = [true, true];
        let slice = Timespec { tv_sec: 0, tv_nsec: SLICE.subsec_nanos().into() };
        while open != [false, false] {
            self.check()?;
            if began.elapsed() > PATIENCE {
                return Ok(Err(format!("it did not end within {} s", PATIENCE.as_secs())));
            }
            let ready = {
                let fds = [stdout.as_fd(), stderr.as_fd()];
                // A pipe that ended is always ready, and not asked again.
                let mut asked: Vec<PollFd<'_>> =
                    (0..2).filter(|at| open[*at]).map(|at| PollFd::new(&fds[at], PollFlags::IN)).collect();
                match poll(&mut asked, Some(&slice)) {
                    Ok(_) | Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Ok(Err(format!("poll: {error}"))),
                }
                let mut ready = asked.iter().map(|fd| !fd.revents().is_empty());
                open.map(|open| open && ready.next().unwrap_or(false))
            };
            let pipes: [&mut dyn Read; 2] = [&mut stdout, &mut stderr];
            for (at, pipe) in pipes.into_iter().enumerate().filter(|(at, _)| ready[*at]) {
                let mut chunk = [0; 16 * 1024];
                match pipe.read(&mut chunk) {
                    Ok(0) => open[at] = false,
                    Ok(length) => texts[at].extend_from_slice(&chunk[..length]),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Ok(Err(format!("read: {error}"))),
                }
                if texts[at].len() > MAX_OUTPUT {
                    return Ok(Err("it wrote more than 4 MiB".into()));
                }
            }
        }
        Ok(Ok(texts.map(|text| String::from_utf8_lossy(&text).into_owned())))
    }

    /// Lets time pass.
    ///
    /// # Errors
    /// `Interrupted`.
    pub(super) fn wait(&self, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        let slice = Timespec { tv_sec: 0, tv_nsec: SLICE.subsec_nanos().into() };
        while Instant::now() < until {
            self.check()?;
            // It ends early on a signal, which is looked for above.
            let _ = poll(&mut [], Some(&slice));
        }
        Ok(())
    }

    /// Runs a command that must succeed.
    ///
    /// # Errors
    /// As [`run`](Self::run); `NotReady` with its reason when it failed.
    pub(super) fn ok(&self, seat: &Seat, arguments: &[impl AsRef<str>]) -> Result<Run> {
        let run = self.run(seat, arguments)?;
        match &run.said {
            None => Ok(run),
            Some(said) => Err(Error::new(
                ErrorKind::NotReady,
                format!(
                    "The ceremony of this plan does not go: on {}, `{}` failed. {}",
                    seat.name, run.command, said.message
                ),
                &*said.hint,
            )),
        }
    }
}

impl Run {
    /// What it printed: one line of JSON.
    ///
    /// # Errors
    /// `Internal` for something else.
    pub(super) fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.stdout).map_err(|error| {
            let what = format!("`{}` did not print JSON: {error}.", self.command);
            Error::new(ErrorKind::Internal, what, "Report this as a bug of claviger.")
        })
    }

    /// A text in what it printed, by its path: `/fingerprint/words`.
    ///
    /// # Errors
    /// As [`json`](Self::json).
    pub(super) fn text(&self, pointer: &str) -> Result<String> {
        self.json()?.pointer(pointer).and_then(Value::as_str).map(str::to_owned).ok_or_else(|| {
            let what = format!("`{}` did not print {pointer}.", self.command);
            Error::new(ErrorKind::Internal, what, "Report this as a bug of claviger.")
        })
    }
}

/// The reason in what a command wrote to stderr: its last line that is one.
fn said(stderr: &str) -> Option<Said> {
    stderr.lines().rev().find_map(|line| serde_json::from_str::<ErrorLine>(line).ok()).map(|line| line.error)
}

/// A command as a shell takes it.
pub(super) fn typed(arguments: &[impl AsRef<str>]) -> String {
    arguments
        .iter()
        .fold("claviger-ceremony".to_owned(), |text, argument| format!("{text} {}", quoted(argument.as_ref())))
}

/// An argument as a shell takes it.
pub(super) fn quoted(argument: &str) -> String {
    let plain = argument.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./:=,*".contains(&byte));
    if plain && !argument.is_empty() { argument.to_owned() } else { format!("'{}'", argument.replace('\'', r"'\''")) }
}

/// The arguments that a shell makes of these.
fn expanded(stick: &Path, arguments: &[impl AsRef<str>]) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for argument in arguments.iter().map(AsRef::as_ref) {
        let Some(end) = argument.strip_prefix('*').filter(|end| end.starts_with('.')) else {
            all.push(argument.to_owned());
            continue;
        };
        let read = |error| crate::files::failed(stick, "read", error);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(stick).map_err(read)? {
            let name = entry.map_err(read)?.file_name().to_string_lossy().into_owned();
            if name.ends_with(end) && !name.starts_with('.') {
                names.push(name);
            }
        }
        names.sort();
        all.extend(names);
    }
    Ok(all)
}

/// Makes this process one that [`Runner`] started: no terminal to ask on, and no life after it.
///
/// # Errors
/// `Internal` when it can not be.
pub(crate) fn in_rehearsal() -> Result<()> {
    let failed = |call: &str, error: rustix::io::Errno| {
        let what = format!("This process could not leave its terminal: {call}: {error}.");
        Error::new(ErrorKind::Internal, what, "Run the rehearsal itself: `claviger-ceremony rehearse`.").because(error)
    };
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(|error| failed("prctl", error))?;
    rustix::process::setsid().map(drop).map_err(|error| failed("setsid", error))
}

/// A file of this text that only this user may read.
pub(super) fn write(path: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let open = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    open.and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| crate::files::failed(path, "write", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_a_shell_takes_it() {
        assert_eq!(
            typed(&["import", "a.card", "--fingerprint", "it's me", ""]),
            r"claviger-ceremony import a.card --fingerprint 'it'\''s me' ''"
        );
    }

    #[test]
    fn the_reason_is_found_among_warnings() {
        let stderr = "{\"warning\":{\"message\":\"w\"}}\n{\"error\":{\"kind\":\"io\",\"message\":\"m\",\"hint\":\"h\",\"cause\":\"c\"}}\n";
        let said = said(stderr).unwrap();
        assert_eq!((said.kind.as_str(), said.message.as_str(), said.hint.as_str()), ("io", "m", "h"));
    }
}
