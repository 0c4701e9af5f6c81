//! The log of connections: who came, who was called, and what became of it; in the store's directory, bound together by hashes.
//!
//! A file of its own (`docs/decisions/0023-the-connection-log.md`). What happens is put into a queue in memory, which never waits, and written once a second by a
//! thread of its own, in one transaction. The daemon works on when the log can not be written; what found no room is counted, and the log says so.
//!
//! ```no_run
//! use claviger::daemon::connections::{Filter, Log};
//!
//! let log = Log::open("/var/lib/claviger".as_ref())?;
//! for entry in log.entries(&Filter { failed: true, limit: 100, ..Filter::default() })? {
//!     println!("{} {}", entry.date, entry.event.map_or(entry.text, |event| event.to_string()));
//! }
//! # Ok::<(), claviger::Error>(())
//! ```

mod entry;
mod file;
mod queue;
mod read;
#[cfg(test)]
mod tests;

pub use entry::{Attempt, Ended, Event};
pub use file::{Chain, FILE_NAME, Head};
pub use read::{Entry, Filter, Log};

use super::shared::Shared;
use crate::config::Config;
use crate::endpoint::{self, Direction};
use crate::error::{Error, ErrorKind, Result};
use crate::identity::{Identifier, ServiceName};
use crate::session::{Reset, Session};
use file::File;
use queue::{Dated, QUEUE, Queue};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What happened is in the file so much later, if it can be.
const WRITTEN: Duration = Duration::from_secs(1);

/// At the daemon's end what can not be written is tried again so often, and so much later.
const TRIES: (u32, Duration) = (5, Duration::from_millis(200));

/// How long the daemon's end waits for the last entries.
const LAST: Duration = Duration::from_secs(5);

/// How the log is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Report {
    /// Whether it is kept at all.
    pub kept: bool,
    /// The number of the last entry.
    pub last: u64,
    /// Entries that found no room since the daemon began.
    pub dropped: u64,
    /// What keeps it from being written.
    pub trouble: Option<Trouble>,
}

/// A failure, to be shown: its kind and two sentences.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Trouble {
    /// An [`ErrorKind`]'s text.
    pub reason: String,
    /// What happened.
    pub what: String,
    /// What to do.
    pub hint: String,
}

impl From<&Error> for Trouble {
    fn from(error: &Error) -> Self {
        Self { reason: error.kind().as_str().to_owned(), what: error.to_string(), hint: error.hint().to_owned() }
    }
}

/// Stands for the names that nothing is configured for. No service has it.
const UNKNOWN: &str = "*";

/// Takes down what happens. Clones share it.
#[derive(Clone)]
pub(super) struct Books(Arc<Inner>);

struct Inner {
    dir: PathBuf,
    /// Entries that are kept; 0: none.
    limit: AtomicU64,
    state: Mutex<State>,
    /// Rouses the thread before its time.
    wake: Condvar,
    written: watch::Sender<Report>,
}

#[derive(Default)]
struct State {
    queue: Queue,
    /// Everything is to be written now, and nothing comes any more.
    ends: bool,
    /// It is all written, or can not be.
    ended: bool,
}

impl Books {
    /// For the log in `store_dir`.
    pub(super) fn new(config: &Config, store_dir: &Path) -> Self {
        let limit = config.log.connections.into();
        let inner = Inner {
            dir: store_dir.to_owned(),
            limit: AtomicU64::new(limit),
            state: Mutex::default(),
            wake: Condvar::new(),
            written: watch::Sender::new(Report { kept: limit > 0, ..Report::default() }),
        };
        Self(Arc::new(inner))
    }

    /// Begins to write. The file is opened in the background, and one that can not be opened is a trouble and no failure.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] when there can be no thread for it.
    pub(super) fn begin(&self) -> Result<()> {
        self.note(Event::Started { version: env!("CARGO_PKG_VERSION").to_owned() });
        let writer = Writer { inner: Arc::clone(&self.0), file: None, pending: Vec::new(), told: None };
        std::thread::Builder::new().name("claviger-log".into()).spawn(move || writer.run()).map(drop).map_err(|error| {
            Error::new(ErrorKind::Internal, "The log's thread could not be started.", "Check the limit on processes.")
                .because(error)
        })
    }

    /// How the log is doing.
    pub(super) fn report(&self) -> Report {
        self.0.written.borrow().clone()
    }

    /// Something that this machine or its operator causes.
    pub(super) fn note(&self, event: Event) {
        self.with(|queue| queue.push(now(), event));
    }

    /// An attempt to connect is over.
    pub(super) fn attempt(&self, report: &endpoint::Report) {
        match (&report.peer, report.direction) {
            (None, Direction::Incoming) => {
                let reason = report.failure.map_or("", ErrorKind::as_str);
                self.with(|queue| queue.stranger(reason));
            }
            _ => {
                let event = Event::Attempt(report.into());
                self.with(|queue| queue.push_of_peer(now(), event, Instant::now()));
            }
        }
    }

    /// A stream was refused to a peer. `service`: `None` for every name that nothing is configured for, of which a peer can make up as many as it likes.
    pub(super) fn refused(&self, peer: &Identifier, service: Option<&ServiceName>, reason: Reset) {
        let reason = match reason {
            Reset::NotAllowed => "not-allowed",
            Reset::NoSuchService => "no-such-service",
            Reset::Limit => "limit",
            _ => "backend",
        };
        self.with(|queue| queue.refused(peer.as_str(), service.map_or(UNKNOWN, ServiceName::as_str), reason));
    }

    /// Notes a session's end when it has come.
    pub(super) fn follow(&self, session: &Session) {
        let (books, session) = (self.clone(), session.clone());
        tokio::spawn(async move {
            let reason = session.ended().await.kind();
            let status = session.status();
            let ended = Ended {
                peer: status.peer.identifier.to_string(),
                direction: if status.peer.is_initiator { Direction::Incoming } else { Direction::Outgoing }
                    .as_str()
                    .to_owned(),
                reason: reason.as_str().to_owned(),
                closed: is_closed(reason),
                age_s: status.age.as_secs(),
                received: status.received,
                sent: status.sent,
                streams: status.opened,
            };
            books.with(|queue| queue.push_of_peer(now(), Event::SessionEnded(ended), Instant::now()));
        });
    }

    /// Another configuration counts.
    fn limit(&self, limit: u32) {
        self.0.limit.store(limit.into(), Ordering::Relaxed);
        self.0.written.send_modify(|report| report.kept = limit > 0);
    }

    /// Notes the daemon's end and waits, not for long, until all is written. Blocks.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        state.queue.push(now(), Event::Stopped {});
        state.ends = true;
        self.0.wake.notify_all();
        let last = Instant::now() + LAST;
        while !state.ended {
            let left = last.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.0.wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn with(&self, add: impl FnOnce(&mut Queue)) {
        if self.0.limit.load(Ordering::Relaxed) > 0 {
            add(&mut self.lock().queue);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether one of the ends was done with it.
fn is_closed(reason: ErrorKind) -> bool {
    use ErrorKind::{SessionAged, SessionClosed, SessionDraining, SessionIdle, SessionReplaced};
    matches!(reason, SessionAged | SessionClosed | SessionDraining | SessionIdle | SessionReplaced)
}

/// Milliseconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The thread that writes.
struct Writer {
    inner: Arc<Inner>,
    file: Option<File>,
    /// What could not be written yet.
    pending: Vec<Dated>,
    /// The trouble that was told.
    told: Option<ErrorKind>,
}

impl Writer {
    fn run(mut self) {
        let _ended = Over(Arc::clone(&self.inner));
        let mut tries = 0;
        loop {
            let (taken, ends) = {
                let mut state = self.inner.lock();
                let ends = state.ends;
                (state.queue.take(now(), Instant::now(), ends), ends)
            };
            self.take(taken);
            self.write();
            let mut state = self.inner.lock();
            if !ends {
                if !state.ends {
                    drop(self.inner.wake.wait_timeout(state, WRITTEN));
                }
                continue;
            }
            tries += 1;
            // What found no room is told once there is some.
            if tries > TRIES.0 || (self.pending.is_empty() && !state.queue.lacks()) {
                return;
            }
            state = self.inner.wake.wait_timeout(state, TRIES.1).unwrap_or_else(PoisonError::into_inner).0;
            drop(state);
        }
    }

    /// The newest find no room when there is none: what led to the trouble is worth more than what it led to.
    fn take(&mut self, taken: Vec<Dated>) {
        let room = QUEUE.saturating_sub(self.pending.len());
        let mut taken = taken.into_iter();
        self.pending.extend(taken.by_ref().take(room));
        let mut state = self.inner.lock();
        taken.for_each(|(_, event)| state.queue.give_back(&event));
        let dropped = state.queue.dropped_ever();
        drop(state);
        if dropped != self.inner.written.borrow().dropped {
            self.inner.written.send_modify(|report| report.dropped = dropped);
        }
    }

    fn write(&mut self) {
        let limit = self.inner.limit.load(Ordering::Relaxed);
        if limit == 0 {
            self.file = None;
            self.pending.clear();
            return;
        }
        if self.file.as_ref().is_some_and(|file| !file.is_there()) {
            self.file = None;
            let why = "the file was taken away while the daemon ran".to_owned();
            self.pending.insert(0, (now(), Event::NewChain { why, kept: None }));
        }
        if self.pending.is_empty() {
            return;
        }
        match self.append(limit) {
            Ok(last) => {
                self.pending.clear();
                if self.told.take().is_some() {
                    tracing::info!(target: "claviger::daemon", "the log of connections is written again");
                }
                self.inner.written.send_modify(|report| (report.last, report.trouble) = (last, None));
            }
            Err(error) => {
                if self.told.replace(error.kind()) != Some(error.kind()) {
                    let reason = error.kind().as_str();
                    tracing::warn!(target: "claviger::daemon", reason, hint = error.hint(), "{error}");
                }
                // A file that was damaged while it was open is looked at again, and set aside.
                if error.kind() != ErrorKind::StoreBusy {
                    self.file = None;
                }
                self.inner.written.send_modify(|report| report.trouble = Some(Trouble::from(&error)));
            }
        }
    }

    fn append(&mut self, limit: u64) -> Result<u64> {
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let (file, event) = File::open(&self.inner.dir)?;
                if let Some(event) = event {
                    tracing::error!(target: "claviger::daemon", "{event}");
                    self.pending.insert(0, (now(), event));
                }
                self.file.insert(file)
            }
        };
        file.append(&self.pending, limit)?;
        Ok(file.head.sequence)
    }
}

/// However the thread ends: nobody waits for it any more.
struct Over(Arc<Inner>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.wake.notify_all();
    }
}

/// Writes down what becomes of the token, and follows the configuration. Attempts, sessions and streams are told by whoever sees them.
pub(super) fn start(shared: &Arc<Shared>, tasks: &mut JoinSet<()>) -> Result<()> {
    let books = shared.connections.clone();
    let mut configs = shared.force();
    tasks.spawn(async move {
        while configs.changed().await.is_ok() {
            let limit = configs.borrow_and_update().config.log.connections;
            books.limit(limit);
        }
    });
    if let Some(token) = shared.token() {
        let (books, mut status) = (shared.connections.clone(), token.watch());
        tasks.spawn(async move {
            let mut lost = false;
            loop {
                let (state, reason) = {
                    let status = status.borrow_and_update();
                    (status.state, status.trouble.as_ref().map(|trouble| trouble.kind.as_str().to_owned()))
                };
                if state.is_lost() != lost {
                    lost = state.is_lost();
                    books.note(match lost {
                        true => Event::TokenLost { state: state.as_str().to_owned(), reason },
                        false => Event::TokenBack {},
                    });
                }
                if status.changed().await.is_err() {
                    return;
                }
            }
        });
    }
    Ok(())
}
