//! Processes of ours and of others, each ended by its id when it is dropped.

use crate::Result;
use std::io::{BufRead, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a process may take until it listens.
const START: Duration = Duration::from_secs(20);

/// A process of this program. It ends when its standard input does, so that it never outlives its parent.
pub struct Worker {
    child: Child,
    // Dropped first: that is what tells it to end.
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts this program again with other arguments, and waits for its first line.
    ///
    /// # Errors
    /// When it ends before it has said anything.
    pub fn start(arguments: &[&str]) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take();
        let output = child.stdout.take().ok_or("no output")?;
        let mut worker = Self { child, input, output: BufReader::new(output) };
        worker.line().map_err(|error| format!("`{}` did not start: {error}", arguments.join(" ")))?;
        Ok(worker)
    }

    /// The next line it prints.
    ///
    /// # Errors
    /// When it has ended.
    pub fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            return Err("the process ended".into());
        }
        Ok(line.trim_end().into())
    }

    /// Tells it to go on.
    ///
    /// # Errors
    /// When it has ended.
    pub fn go_on(&mut self) -> Result<()> {
        let input = self.input.as_mut().ok_or("no input")?;
        writeln!(input)?;
        Ok(input.flush()?)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.input = None;
        end(&mut self.child);
    }
}

/// A program of others. It gets a signal when the thread that started it ends.
pub struct Program(Child);

impl Program {
    /// Starts it, and waits until something listens at `address`.
    ///
    /// # Errors
    /// When it is not there, or ends, or does not listen in time; what it wrote is in the error.
    pub fn start(command: &str, arguments: &[&str], address: SocketAddr) -> Result<Self> {
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "--", command])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("setpriv, of util-linux, can not be started: {error}"))?;
        let mut program = Self(child);
        let end = Instant::now() + START;
        while TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err() {
            let ended = program.0.try_wait()?;
            if ended.is_some() || Instant::now() > end {
                let mut said = String::new();
                if let (Some(_), Some(stderr)) = (ended, program.0.stderr.take()) {
                    for line in BufReader::new(stderr).lines().map_while(std::result::Result::ok) {
                        said = line;
                    }
                }
                return Err(format!("{command} does not listen; `scripts/bench --setup` installs it. {said}").into());
            }
            pause();
        }
        Ok(program)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let pid = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            // An error means that it has ended.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        end(&mut self.0);
    }
}

/// Waits a little for a process to end, and then makes it.
fn end(child: &mut Child) {
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        pause();
    }
    let _ = child.kill();
    let _ = child.wait();
}

#[allow(clippy::disallowed_methods, reason = "other programs' ports and exits offer nothing to wait on")]
fn pause() {
    std::thread::sleep(Duration::from_millis(20));
}

/// Resident memory of a process, in KiB.
///
/// # Errors
/// When there is no such process.
pub fn resident(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
