//! Waiting, locking and private files, for the parts that run other programs.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Bytes read from the end of a log for an error message.
const TAIL_BYTES: u64 = 8 * 1024;
/// Lines of a log quoted in an error message.
const TAIL_LINES: usize = 15;

/// Asks `ready` about every 20 ms until it answers, or `None` once `limit` has passed.
pub(crate) fn poll<T>(limit: Duration, mut ready: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(answer) = ready() {
            return Some(answer);
        }
        if Instant::now() >= end {
            return None;
        }
        #[allow(clippy::disallowed_methods, reason = "other programs' files and exits offer nothing to wait on")]
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Cargo's target directory: the marked directory above the running test or binary, else the workspace's `target`.
pub(crate) fn target_dir() -> PathBuf {
    let marked = std::env::current_exe()
        .ok()
        .and_then(|exe| exe.ancestors().find(|dir| dir.join("CACHEDIR.TAG").is_file()).map(Path::to_owned));
    marked.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"))
}

/// Makes `dir` and its missing parents, mode 0700.
pub(crate) fn private_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Replaces the file at `path` in one step, mode 0600. Its directory must exist.
pub(crate) fn write_atomically(path: &Path, text: &str) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(text.as_bytes())?;
    file.persist(path).map_err(|e| e.error)?;
    Ok(())
}

/// Opens `path` (made when missing, mode 0600) and locks it against every other process and handle until it is
/// dropped. `None` when it was still locked after `limit`.
pub(crate) fn lock(path: &Path, limit: Duration) -> io::Result<Option<File>> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    poll(limit, || match file.try_lock() {
        Ok(()) => Some(Ok(())),
        Err(TryLockError::WouldBlock) => None,
        Err(TryLockError::Error(e)) => Some(Err(e)),
    })
    .transpose()
    .map(|locked| locked.map(|()| file))
}

/// Waits for `child` to end; `None` when it still runs after `limit`.
pub(crate) fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    poll(limit, || child.try_wait().transpose()).transpose()
}

/// Runs `command` to its end. Panics when it cannot be started, as the tests do that this serves.
pub(crate) fn output(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{:?} cannot be started: {error}", command.get_program()))
}

/// What a command wrote.
pub(crate) fn shown(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Builds the package `tests/NAME`, a workspace of its own, and returns the directory of what was built. Panics when that fails.
/// The second time in a target directory this takes no time.
pub(crate) fn build(name: &str, release: bool) -> PathBuf {
    let target = target_dir().join(name);
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name).join("Cargo.toml");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--locked", "--quiet", "--manifest-path"]).arg(manifest);
    cargo.arg("--target-dir").arg(&target);
    if release {
        cargo.arg("--release");
    }
    let output = output(&mut cargo);
    assert!(output.status.success(), "building {name} failed: {}\n{}", output.status, shown(&output));
    target.join(if release { "release" } else { "debug" })
}

/// Asks `child` to end (SIGTERM), kills it when it is still there after 3 s, and waits until it is gone. The pid is ours until
/// the child is reaped, so no signal can hit a stranger.
pub(crate) fn end(child: &mut Child) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let (Ok(None), Some(pid)) = (child.try_wait(), pid) {
        // A process that has just ended is what was wanted.
        let _ = kill_process(pid, Signal::TERM);
        if !matches!(wait(child, Duration::from_secs(3)), Ok(Some(_))) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Runs `command` to its end with `input` on its standard input and both outputs appended to `log`.
/// A command that still runs after `limit` is killed, and `None` returned.
pub(crate) fn run(command: &mut Command, input: &str, log: &Path, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let output = append(log)?;
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::from(output.try_clone()?)).stderr(Stdio::from(output)).spawn()?;
    if let Some(mut pipe) = child.stdin.take() {
        // A command that ended without reading its input says why by its status.
        pipe.write_all(input.as_bytes()).or_else(|e| match e.kind() {
            io::ErrorKind::BrokenPipe => Ok(()),
            _ => Err(e),
        })?;
    }
    let status = wait(&mut child, limit)?;
    if status.is_none() {
        child.kill()?;
        child.wait()?;
    }
    Ok(status)
}

/// Opens the log at `path` for appending, mode 0600.
pub(crate) fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// The text of `log` from byte `start` on; what cannot be read is empty.
pub(crate) fn read_from(log: &Path, start: u64) -> String {
    let mut bytes = Vec::new();
    if let Ok(mut file) = File::open(log) {
        let _ = file.seek(SeekFrom::Start(start)).and_then(|_| file.read_to_end(&mut bytes));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The last lines of `log`, for an error message.
pub(crate) fn tail(log: &Path) -> String {
    let length = std::fs::metadata(log).map_or(0, |m| m.len());
    let text = read_from(log, length.saturating_sub(TAIL_BYTES));
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}
