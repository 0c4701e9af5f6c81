//! What peers open streams to.

use super::backend::{self, DatagramSocket, Process};
use super::datagram::{self, Datagrams};
use super::proxied;
use super::shared::{Force, Shared};
use super::splice::{Broken, Traffic, splice};
use crate::config::{Backend, Service};
use crate::endpoint::Endpoint;
use crate::error::{Error, ErrorKind};
use crate::identity::{Identifier, ServiceName};
use crate::session::{Peer, Reset, Session, Stream};
use crate::transport::Limited;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::task::JoinSet;
use tokio_util::bytes::Bytes;
use tokio_util::task::AbortOnDropHandle;

/// One refusal of a peer is told in so long, and one failure of a service.
const TOLD: Duration = Duration::from_secs(60);

/// Lines of a command's stderr that are told in a minute, of all its processes, and their length.
const LINES: u32 = 60;
const LINE: u64 = 1024;

/// What was counted, by service.
#[derive(Default)]
pub(super) struct Books {
    services: Mutex<BTreeMap<ServiceName, Arc<Book>>>,
    /// Of names that nothing is configured for.
    unknown: AtomicU64,
    /// One for each peer that was refused something.
    refusals: Mutex<HashMap<Identifier, Arc<Limited>>>,
}

struct Book {
    /// Streams that are open, by peer.
    open: Mutex<HashMap<Identifier, u32>>,
    total: AtomicU64,
    not_allowed: AtomicU64,
    limit: AtomicU64,
    failed: AtomicU64,
    traffic: Traffic,
    last: Mutex<Option<Failure>>,
    failures: Limited,
    lines: Limited,
}

/// A service and what became of its streams since the daemon was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ServiceReport {
    /// Its name.
    pub name: String,
    /// What it is on this machine: `tcp:127.0.0.1:9000`.
    pub target: String,
    /// Streams that are open.
    pub open: u32,
    /// Streams that may be open at once.
    pub streams: u32,
    /// Streams that were let in.
    pub total: u64,
    /// Streams that were refused because their peer may not open it.
    pub not_allowed: u64,
    /// Streams that were refused because there were as many as there may be.
    pub limit: u64,
    /// Streams that failed on this machine: the target could not be reached, or broke.
    pub failed: u64,
    /// Bytes from peers that the target took.
    pub received: u64,
    /// Bytes of the target's that were sent to peers.
    pub sent: u64,
    /// Datagrams that were lost here: too long, too late, or not taken.
    pub dropped: u64,
    /// The last failure.
    pub last_failure: Option<Failure>,
}

/// What went wrong, when, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Failure {
    /// Seconds since 1970.
    pub at: u64,
    /// One sentence.
    pub what: String,
    /// Another.
    pub hint: String,
}

impl Failure {
    pub(super) fn of(error: &Error) -> Self {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self { at, what: error.to_string(), hint: error.hint().to_owned() }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Default for Book {
    fn default() -> Self {
        Self {
            open: Mutex::default(),
            total: AtomicU64::new(0),
            not_allowed: AtomicU64::new(0),
            limit: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            traffic: Traffic::default(),
            last: Mutex::default(),
            failures: Limited::new(1, TOLD),
            lines: Limited::new(LINES, Duration::from_secs(60)),
        }
    }
}

impl Books {
    /// Of a service that is configured: names that peers make up get none.
    fn of(&self, service: &ServiceName) -> Arc<Book> {
        Arc::clone(lock(&self.services).entry(service.clone()).or_default())
    }

    fn refusals_of(&self, peer: &Identifier) -> Arc<Limited> {
        let mut refusals = lock(&self.refusals);
        Arc::clone(refusals.entry(peer.clone()).or_insert_with(|| Arc::new(Limited::new(1, TOLD))))
    }
}

/// What became of the streams of each service that is configured, by name.
pub(super) fn reports(shared: &Shared) -> Vec<ServiceReport> {
    let config = shared.config();
    let reported = config.service.iter().map(|(name, service)| shared.services.of(name).report(name, service));
    reported.collect()
}

/// Streams for names that nothing is configured for.
pub(super) fn unknown(shared: &Shared) -> u64 {
    shared.services.unknown.load(Ordering::Relaxed)
}

impl Book {
    fn report(&self, name: &ServiceName, service: &Service) -> ServiceReport {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        ServiceReport {
            name: name.to_string(),
            target: service.backend.to_string(),
            open: lock(&self.open).values().sum(),
            streams: service.streams,
            total: of(&self.total),
            not_allowed: of(&self.not_allowed),
            limit: of(&self.limit),
            failed: of(&self.failed),
            received: of(&self.traffic.received),
            sent: of(&self.traffic.sent),
            dropped: of(&self.traffic.dropped),
            last_failure: lock(&self.last).clone(),
        }
    }

    /// `None`: there are as many as there may be.
    fn enter(self: &Arc<Self>, service: &Service, peer: &Identifier) -> Option<Place> {
        let mut open = lock(&self.open);
        let (all, own) = (open.values().sum::<u32>(), open.get(peer).copied().unwrap_or(0));
        if all >= service.streams || own >= service.streams_per_peer {
            return None;
        }
        open.insert(peer.clone(), own + 1);
        self.total.fetch_add(1, Ordering::Relaxed);
        Some(Place(Arc::clone(self), peer.clone()))
    }

    fn tell(&self, peer: &Peer, service: &ServiceName, error: &Error) {
        *lock(&self.last) = Some(Failure::of(error));
        if let Some(untold) = self.failures.tell() {
            tracing::warn!(target: "claviger::service", %service, peer = %peer.identifier, hint = error.hint(), untold, "a stream failed here: {error}");
        }
    }
}

/// One of the streams that may be open at once.
struct Place(Arc<Book>, Identifier);

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = lock(&self.0.open);
        if let Some(own) = open.get_mut(&self.1) {
            *own -= 1;
            if *own == 0 {
                open.remove(&self.1);
            }
        }
    }
}

/// Serves the streams of a session until it has ended, and what they had received has gone through.
pub(super) async fn serve(shared: Arc<Shared>, session: Session) {
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            accepted = session.accept() => match accepted {
                Ok(stream) => drop(streams.spawn(shared.carriers.track_future(one(Arc::clone(&shared), stream)))),
                Err(_) => break,
            },
            Some(_) = streams.join_next() => {}
        }
    }
    drop(session);
    while streams.join_next().await.is_some() {}
}

/// One stream, by the configuration of now.
async fn one(shared: Arc<Shared>, stream: Stream) {
    let Force { config, policy } = shared.force().borrow().clone();
    let (mut peer, name) = (stream.peer().clone(), stream.service().clone());
    let role = shared.role_of(&peer);
    let is_peer = role.is_some();
    peer.role = role.unwrap_or(peer.role);
    let configured = config.service.get(&name);
    let book = configured.map(|_| shared.services.of(&name));
    let refused = |stream: Stream, reason: Reset| {
        if let Some(untold) = shared.services.refusals_of(&peer.identifier).tell() {
            tracing::warn!(target: "claviger::service", peer = %peer.identifier, role = %peer.role, service = %name, %reason, untold, "a stream was refused");
        }
        shared.connections.refused(&peer.identifier, configured.map(|_| &name), reason);
        stream.reset(reason);
    };
    // Who may not open it does not learn whether it is there.
    if !is_peer || !policy.verdict(&peer.identifier, &peer.role, &name).is_allowed() {
        book.as_ref().map_or(&shared.services.unknown, |book| &book.not_allowed).fetch_add(1, Ordering::Relaxed);
        return refused(stream, Reset::NotAllowed);
    }
    let (Some(service), Some(book)) = (configured, book) else {
        shared.services.unknown.fetch_add(1, Ordering::Relaxed);
        return refused(stream, Reset::NoSuchService);
    };
    let Some(_place) = book.enter(service, &peer.identifier) else {
        book.limit.fetch_add(1, Ordering::Relaxed);
        return refused(stream, Reset::Limit);
    };
    let began = tokio::time::Instant::now();
    let outcome = carried(&shared, service, &book, &peer, stream).await;
    let took = began.elapsed().as_millis() as u64;
    let reason = match outcome {
        Ok(()) => "ended".to_owned(),
        Err(Broken::Stream(error)) => error.kind().to_string(),
        Err(Broken::Cut(reason)) => {
            tracing::info!(target: "claviger::service", service = %name, peer = %peer.identifier, %reason, "a stream was cut: the configuration allows it no more");
            reason.to_string()
        }
        Err(Broken::Local(error)) => {
            book.failed.fetch_add(1, Ordering::Relaxed);
            shared.connections.refused(&peer.identifier, Some(&name), Reset::Internal);
            book.tell(&peer, &name, &error);
            error.kind().to_string()
        }
    };
    tracing::debug!(target: "claviger::service", service = %name, peer = %peer.identifier, outcome = reason, ms = took, "a stream is over");
}

/// Joins the stream to what the service is.
async fn carried(
    shared: &Arc<Shared>,
    service: &Service,
    book: &Arc<Book>,
    peer: &Peer,
    stream: Stream,
) -> Result<(), Broken> {
    let name = stream.service().clone();
    let cut = forbidden(Arc::clone(shared), peer.clone(), name.clone());
    let failed = |stream: Stream, error: Error| {
        stream.reset(Reset::Internal);
        Err(Broken::Local(error))
    };
    match &service.backend {
        Backend::Tcp(address) => {
            let dialled = async { announced(shared, service, peer, backend::tcp(service, *address).await?).await };
            match dialled.await {
                Ok(local) => splice(stream, local, &book.traffic, cut).await,
                Err(error) => failed(stream, error),
            }
        }
        Backend::Unix(path) => {
            let dialled = async { announced(shared, service, peer, backend::unix(service, path).await?).await };
            match dialled.await {
                Ok(local) => splice(stream, local, &book.traffic, cut).await,
                Err(error) => failed(stream, error),
            }
        }
        Backend::Command(command) => match Process::start(command, peer, &name) {
            Ok((process, stderr)) => {
                let said =
                    AbortOnDropHandle::new(tokio::spawn(tell(stderr, Arc::clone(book), peer.identifier.clone(), name)));
                let outcome = splice(stream, process, &book.traffic, cut).await;
                // What it started may have its stderr for ever.
                let _ = tokio::time::timeout(Duration::from_secs(1), said).await;
                outcome
            }
            Err(error) => failed(stream, error),
        },
        Backend::Udp(_) | Backend::Unixgram(_) => match backend::datagrams(service).await {
            Ok(socket) => {
                let target = Target { socket, book, target: &service.backend, peer, service: &name };
                datagram::carry(stream, &target, service.datagram_idle, &book.traffic, cut).await
            }
            Err(error) => failed(stream, error),
        },
    }
}

/// Begins a connection to the backend by saying whose it is, where that is wanted.
async fn announced<L: AsyncWrite + Unpin>(
    shared: &Shared,
    service: &Service,
    peer: &Peer,
    mut local: L,
) -> Result<L, Error> {
    if service.proxy_protocol {
        let header = proxied::header(&peer.identifier, &peer.role, &shared.machine);
        backend::timed(&service.backend, service.dial_timeout, local.write_all(&header)).await?;
    }
    Ok(local)
}

/// What a flow of datagrams goes to; what it does not take is told.
struct Target<'a> {
    socket: DatagramSocket,
    book: &'a Book,
    target: &'a Backend,
    peer: &'a Peer,
    service: &'a ServiceName,
}

impl Target<'_> {
    fn lost(&self, error: io::Error) {
        self.book.traffic.dropped.fetch_add(1, Ordering::Relaxed);
        let what = format!("A datagram did not reach {}: {error}.", self.target);
        self.book.tell(
            self.peer,
            self.service,
            &Error::new(ErrorKind::Io, what, "Look at the program behind the service."),
        );
    }
}

impl Datagrams for Target<'_> {
    async fn receive(&self) -> io::Result<Option<Bytes>> {
        loop {
            match self.socket.receive().await {
                Err(error) if datagram::is_absence(&error) => self.lost(error),
                outcome => return outcome,
            }
        }
    }

    async fn send(&self, datagram: &[u8]) -> io::Result<()> {
        let mut outcome = self.socket.send(datagram).await;
        if matches!(self.socket, DatagramSocket::Udp(_)) {
            match outcome {
                // Of an earlier one, and this one was not sent.
                Err(error) if datagram::is_absence(&error) => {
                    self.lost(error);
                    outcome = self.socket.send(datagram).await;
                }
                _ => {}
            }
        }
        if let Err(error) = outcome {
            self.lost(error);
        }
        Ok(())
    }
}

/// Ready when the peer may not have a stream for the service any more, with what it is told.
async fn forbidden(shared: Arc<Shared>, peer: Peer, service: ServiceName) -> Reset {
    let (mut force, mut changes) = (shared.force(), shared.endpoint().map(Endpoint::changes));
    loop {
        let Force { config, policy } = force.borrow_and_update().clone();
        let role = shared.role_of(&peer);
        if !role.is_some_and(|role| policy.verdict(&peer.identifier, &role, &service).is_allowed()) {
            return Reset::NotAllowed;
        }
        if !config.service.contains_key(&service) {
            return Reset::NoSuchService;
        }
        let changed = tokio::select! {
            changed = force.changed() => changed,
            changed = async {
                match &mut changes {
                    Some(changes) => changes.changed().await,
                    None => std::future::pending().await,
                }
            } => changed,
        };
        if changed.is_err() {
            return std::future::pending().await;
        }
    }
}

/// What a command says on stderr: lines, as many as anybody wants to read.
async fn tell(stderr: impl AsyncRead + Unpin, book: Arc<Book>, peer: Identifier, service: ServiceName) {
    let mut stderr = BufReader::new(stderr);
    let mut line = Vec::new();
    // Whoever does not read it holds the command up.
    while let Ok(1..) = (&mut stderr).take(LINE).read_until(b'\n', &mut line).await {
        if let Some(untold) = book.lines.tell() {
            let line = String::from_utf8_lossy(line.trim_ascii_end());
            tracing::info!(target: "claviger::service", %service, %peer, untold, "the command says: {}", line.escape_debug());
        }
        line.clear();
    }
}
