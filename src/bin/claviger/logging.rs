//! Where log events go: stderr, as lines for people or as JSON.

use crate::cli::{Cli, Command};
use claviger::config;
use claviger::program::LogWriter;
use std::io::{self, IsTerminal as _, Write};
use std::os::fd::AsFd as _;
use tracing::Level;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Starts logging. A listener shows connection attempts and changes of its service from the start; `connect` only what went wrong. The daemon's configuration says how it
/// logs: see [`start_daemon`].
pub(crate) fn start(cli: &Cli) {
    let directives = match (cli.verbose, &cli.command) {
        (_, Command::Run(_)) => return,
        _ if cli.quiet => "warn,tor_netdir=error",
        // What the service does is told by notes, where there are any.
        (0, Command::Listen(_) | Command::Rollcall(_)) if cli.json => "warn,tor_netdir=error,claviger=info",
        (0, Command::Listen(_)) => "warn,tor_netdir=error,claviger::connection=info,claviger::token=info",
        // Each edge has a line of its own, and each failure its reason below the table.
        (0, Command::Rollcall(_)) => "warn,tor_netdir=error,claviger::connection=off",
        // The error itself is printed at the end.
        (0, _) if !cli.json => "warn,tor_netdir=error,claviger::connection=off",
        (verbose, _) => told(verbose),
    };
    // It stays at what the command line says.
    drop(begin(directives, cli.json));
}

/// Changes how much is told.
pub(crate) type SetLevel = Box<dyn Fn(config::Level) + Send + Sync>;

/// Starts the daemon's logging, by `[log]`; the command line comes before it, also when the level is changed later by what it gives.
pub(crate) fn start_daemon(cli: &Cli, log: &config::Log) -> SetLevel {
    let (quiet, verbose) = (cli.quiet, cli.verbose);
    let directives = move |level| match (verbose, level) {
        _ if quiet => "warn,tor_netdir=error",
        (0, config::Level::Error) => "error",
        (0, config::Level::Warn) => "warn,tor_netdir=error",
        (0, config::Level::Info) => told(0),
        (0, config::Level::Debug) => told(2),
        (verbose, _) => told(verbose),
    };
    let set = begin(directives(log.level), cli.json || log.json);
    Box::new(move |level| set(directives(level)))
}

/// The events of a number of `--verbose`.
fn told(verbose: u8) -> &'static str {
    match verbose {
        0 | 1 => "warn,tor_netdir=error,claviger=info",
        2 => "info,claviger=debug",
        _ => "debug,claviger=trace",
    }
}

/// Begins, and gives what changes the directives.
fn begin(directives: &str, json: bool) -> Box<dyn Fn(&str) + Send + Sync> {
    // Touches and PINs are shown as they are waited for, where there is somebody to see it.
    let waits = if json { "" } else { ",claviger::token::notice=off" };
    // What it has to say is said by whoever asked through it.
    let filter = move |directives: &str| {
        // Of the frames of streams a peer can have it say something without end; what matters of that is the session's to tell.
        let frames = if directives.starts_with("warn") || directives.starts_with("error") { ",yamux=off" } else { "" };
        EnvFilter::new(format!("{directives}{waits},pinentry=off{frames}"))
    };
    let in_journal = is_journal();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter(directives))
        .with_writer(Stderr { in_journal })
        .with_ansi(io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()));
    macro_rules! begin {
        ($subscriber:expr) => {{
            let subscriber = $subscriber.with_filter_reloading();
            let handle = subscriber.reload_handle();
            // Only a second subscriber could make this fail.
            let _ = subscriber.try_init();
            // It lives as long as the process.
            Box::new(move |directives: &str| drop(handle.reload(filter(directives))))
        }};
    }
    // The journal has the time of each line, and its level.
    match (json, in_journal) {
        (true, _) => begin!(subscriber.json().flatten_event(true)),
        (false, true) => begin!(subscriber.without_time().with_level(false)),
        (false, false) => begin!(subscriber),
    }
}

/// Whether stderr is the journal: `JOURNAL_STREAM` is its device and inode (systemd.exec(5)).
fn is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let stderr = rustix::fs::fstat(io::stderr().as_fd()).map(|stat| format!("{}:{}", stat.st_dev, stat.st_ino));
    stderr.is_ok_and(|stderr| stderr == stream)
}

/// Stderr; in the journal each line begins with its priority, `<3>` to `<7>` (sd-daemon(3)).
struct Stderr {
    in_journal: bool,
}

/// One event.
struct Event {
    priority: Option<u8>,
}

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = Event;

    fn make_writer(&'a self) -> Event {
        Event { priority: self.in_journal.then_some(6) }
    }

    fn make_writer_for(&'a self, of: &tracing::Metadata<'_>) -> Event {
        let priority = match *of.level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            _ => 7,
        };
        Event { priority: self.in_journal.then_some(priority) }
    }
}

impl Write for Event {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.priority.take() {
            // In one piece: other threads write, too.
            Some(priority) => LogWriter.write_all(&[format!("<{priority}>").as_bytes(), bytes].concat()),
            None => LogWriter.write_all(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        LogWriter.flush()
    }
}
