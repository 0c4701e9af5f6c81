//! The roll call: after a ceremony every edge of the plan is tried once over the network, and both ends learn that it works.
//!
//! On each edge the caller opens a stream for `rollcall` and sends one line, `claviger rollcall 1 SERVICE`, and the other end answers with the same and one more word: `present`, or `unknown` when
//! no edge of its own plan is called so. Both ends show the same words, from the session's handshake hash, to be said on the phone.

use super::{ConnectOptions, Direction, Endpoint, Listening, Resume};
use crate::ceremony::phrase::spoken;
use crate::error::{Error, ErrorKind, ExitCode, Result};
use crate::identity::{Identifier, ServiceName};
use crate::session::{Reset, Session, error_of};
use crate::store::Event;
use crate::token::Trouble;
use crate::wire::Pattern;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// What begins the line.
const LINE: &str = "claviger rollcall 1";
/// Longest line: a service's name is at most 63 bytes.
const MAX_LINE: u64 = 128;
/// The service of the stream that carries the call, and of an edge when there is no plan.
const ANY: &str = "rollcall";
/// How long each end may take for its line.
const EXCHANGE: Duration = Duration::from_secs(30);
/// The first pause before an edge is tried again, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(15)];

/// Words that are said: 44 bits, which nobody between the two ends can bring about while they speak.
pub const WORDS: usize = 4;

/// A roll call of this machine: its edges, and what has become of them.
pub struct RollCall {
    endpoint: Endpoint,
    edges: Vec<Edge>,
    /// Whose calls are left for another time: edges of the plan that were not asked for.
    others: Vec<Edge>,
    started: Instant,
}

/// An edge that begins or ends at this machine.
#[derive(Debug, Clone)]
pub struct Edge {
    /// Whether this machine dials.
    pub direction: Direction,
    /// The other end.
    pub peer: Identifier,
    /// For what.
    pub service: ServiceName,
    /// How it ended. `None`: not yet.
    pub outcome: Option<Outcome>,
    /// What went wrong last, while it is tried again.
    pub trouble: Option<Trouble>,
    /// Of the try that succeeded, or until the edge was given up.
    pub took: Duration,
}

/// How an edge ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Both ends were authenticated, and said that they hold the roll call.
    Present {
        /// The handshake.
        pattern: Pattern,
        /// Token operations on this machine.
        operations: u32,
        /// [`WORDS`] words, single spaces between them: the same at the other end.
        words: String,
    },
    /// It failed, or nobody called.
    Failed {
        /// Why.
        trouble: Trouble,
        /// How far it came.
        stage: Stage,
    },
}

/// How far an edge that failed has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Nobody called.
    Uncalled,
    /// Nobody was there.
    Unreached,
    /// Somebody was there, and was not authenticated.
    Reached,
    /// The peer was there, and did not hold the roll call.
    Authenticated,
}

impl Stage {
    /// `tried`: the trouble came of a try, not of the time being up.
    fn of(edge: &Edge, kind: ErrorKind, tried: bool) -> Self {
        match (kind, ExitCode::from(kind)) {
            (ErrorKind::PlanMismatch, _) | (_, ExitCode::Session) if tried => Self::Authenticated,
            _ if edge.direction == Direction::Incoming => Self::Uncalled,
            (_, ExitCode::Handshake) => Self::Reached,
            _ => Self::Unreached,
        }
    }

    /// The stage in the log, for people and in `--json` output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Uncalled => "no call",
            Self::Unreached => "not reached",
            Self::Reached => "not authenticated",
            Self::Authenticated => "not present",
        }
    }
}

impl Edge {
    fn new(direction: Direction, peer: &Identifier, service: ServiceName) -> Self {
        Self { direction, peer: peer.clone(), service, outcome: None, trouble: None, took: Duration::ZERO }
    }

    /// Whether both ends were there.
    pub fn is_present(&self) -> bool {
        matches!(self.outcome, Some(Outcome::Present { .. }))
    }
}

/// What a task has seen of an edge.
enum Seen {
    Present { edge: usize, pattern: Pattern, operations: u32, words: String, took: Duration },
    Trouble { edge: usize, trouble: Trouble, last: bool },
}

impl RollCall {
    /// The edges of the plan that begin or end here; without a plan one to, and one from, every peer. `only`: those with this peer.
    ///
    /// # Errors
    /// [`ErrorKind::PlanMismatch`] when there is no such edge; the store's errors.
    pub fn new(endpoint: &Endpoint, only: Option<&Identifier>) -> Result<Self> {
        let own = &endpoint.identity().identifier;
        let plan = endpoint.store().plan()?;
        let edges: Vec<Edge> = match plan {
            Some(plan) => {
                let from = plan.edges.iter().filter(|edge| edge.from == *own);
                let to = plan.edges.iter().filter(|edge| edge.to == *own);
                let from = from.map(|edge| Edge::new(Direction::Outgoing, &edge.to, edge.service.clone()));
                from.chain(to.map(|edge| Edge::new(Direction::Incoming, &edge.from, edge.service.clone()))).collect()
            }
            None => {
                let any: ServiceName = ANY.parse()?;
                let peers = endpoint.0.shared.known();
                let to = peers.peers.iter().filter(|peer| peer.onion_address.is_some());
                let to = to.map(|peer| Edge::new(Direction::Outgoing, &peer.identifier, any.clone()));
                let from = peers.peers.iter();
                to.chain(from.map(|peer| Edge::new(Direction::Incoming, &peer.identifier, any.clone()))).collect()
            }
        };
        let (edges, others): (Vec<Edge>, Vec<Edge>) =
            edges.into_iter().partition(|edge| only.is_none_or(|only| edge.peer == *only));
        if edges.is_empty() {
            let with = only.map_or_else(String::new, |only| format!(" with `{only}`"));
            return Err(Error::new(
                ErrorKind::PlanMismatch,
                format!(
                    "There is no edge{with} to call the roll of: the plan has none that begins or ends at `{own}`, or no peer is recorded."
                ),
                "Look at the plan with `claviger-ceremony plan print`, and at the peers with `claviger-ceremony peers`.",
            ));
        }
        Ok(Self { endpoint: endpoint.clone(), edges, others, started: Instant::now() })
    }

    /// The edges, those that this machine dials first.
    pub fn edges(&self) -> &[Edge] {
        &self.edges
    }

    /// Whether any edge ends here, so that this machine listens.
    pub fn listens(&self) -> bool {
        self.edges.iter().any(|edge| edge.direction == Direction::Incoming)
    }

    /// Dials every edge that begins here, again and again, and answers those that end here, until each has worked once or `patience` is over. `changed` is called with
    /// the edge that worked, was given up, or failed and is tried again. Each edge's end is a line of the ceremony log. Dropped before it is
    /// done, it leaves the edges as they are, to be shown.
    ///
    /// # Errors
    /// Those of [`Endpoint::listen`], and [`ErrorKind::TransportUnavailable`] when the listener ends. An edge that failed is none.
    pub async fn run(&mut self, patience: Duration, mut changed: impl FnMut(&Edge)) -> Result<()> {
        self.started = Instant::now();
        let deadline = self.started + patience;
        let (sender, mut seen) = mpsc::channel(16);
        let (mut tasks, mut answers) = (JoinSet::new(), JoinSet::new());
        let mut listening = None;
        let (edges, others): (Arc<[Edge]>, Arc<[Edge]>) = (self.edges.clone().into(), self.others.clone().into());
        if self.listens() {
            let own = self.endpoint.identity().onion_address;
            listening = Some(self.endpoint.listen(&own, self.endpoint.config().transport.port).await?);
        }
        for (at, edge) in self.edges.iter().enumerate() {
            if edge.direction == Direction::Outgoing {
                tasks.spawn(dial(self.endpoint.clone(), at, edge.peer.clone(), edge.service.clone(), sender.clone()));
            }
        }
        while self.edges.iter().any(|edge| edge.outcome.is_none()) {
            let seen = tokio::select! {
                () = sleep_until(deadline) => break,
                Some(seen) = seen.recv() => seen,
                Some(Ok(answered)) = answers.join_next() => match answered {
                    Some(seen) => seen,
                    None => continue,
                },
                session = accepted(&mut listening) => match session {
                    Some(session) => {
                        answers.spawn(answer(session, Arc::clone(&edges), Arc::clone(&others)));
                        continue;
                    }
                    None => return Err(ended()),
                },
            };
            self.take(seen, &mut changed).await;
        }
        for at in 0..self.edges.len() {
            if self.edges[at].outcome.is_none() {
                let trouble = self.edges[at].trouble.clone().unwrap_or_else(|| absent(&self.edges[at], patience));
                self.give_up(at, trouble).await;
                changed(&self.edges[at]);
            }
        }
        Ok(())
    }

    async fn take(&mut self, seen: Seen, changed: &mut impl FnMut(&Edge)) {
        let at = match seen {
            Seen::Present { edge, pattern, operations, words, took } => {
                self.edges[edge].took = took;
                self.end(edge, Outcome::Present { pattern, operations, words }).await;
                edge
            }
            // One that worked already has.
            Seen::Trouble { edge, .. } if self.edges[edge].outcome.is_some() => return,
            Seen::Trouble { edge, trouble, last: true } => {
                self.edges[edge].trouble = Some(trouble.clone());
                self.give_up(edge, trouble).await;
                edge
            }
            Seen::Trouble { edge, trouble, last: false } => {
                self.edges[edge].trouble = Some(trouble);
                edge
            }
        };
        changed(&self.edges[at]);
    }

    async fn give_up(&mut self, at: usize, trouble: Trouble) {
        self.edges[at].took = self.started.elapsed();
        let stage = Stage::of(&self.edges[at], trouble.kind, self.edges[at].trouble.is_some());
        self.end(at, Outcome::Failed { trouble, stage }).await;
    }

    /// Keeps the outcome, here and in the ceremony log.
    async fn end(&mut self, at: usize, outcome: Outcome) {
        let edge = &mut self.edges[at];
        let way = match edge.direction {
            Direction::Outgoing => "to",
            Direction::Incoming => "from",
        };
        let told = match &outcome {
            Outcome::Present { pattern, words, .. } => format!("authenticated by {}; {words}", pattern.noise_name()),
            Outcome::Failed { trouble, stage } => format!("{}; {}", stage.as_str(), trouble.kind),
        };
        let detail = format!("{way}, {}: {told}", edge.service);
        edge.outcome = Some(outcome);
        edge.trouble = None;
        let (shared, name) = (Arc::clone(&self.endpoint.0.shared), edge.peer.clone());
        // A seal that was made anew meanwhile is opened before it is written under.
        shared.look().await;
        let noted = tokio::task::spawn_blocking(move || {
            let known = shared.known();
            // A member that is no peer has no fingerprint here; the line is about this machine's edge to it.
            let print = known.peer(&name).map(|peer| peer.fingerprint());
            let print = print.map_or_else(|| shared.store().machine().map(|own| own.card.fingerprint()), Ok)?;
            shared.store().note(Event::RollCalled, &name, print, &detail)
        });
        if let Ok(Err(error)) = noted.await {
            tracing::warn!(target: "claviger::store", reason = error.kind().as_str(), hint = error.hint(), "the roll call could not be logged: {error}");
        }
    }
}

/// Tries an edge until it works, or can not.
async fn dial(endpoint: Endpoint, edge: usize, peer: Identifier, service: ServiceName, sender: mpsc::Sender<Seen>) {
    let mut pause = PAUSES[0];
    loop {
        let started = Instant::now();
        let error = match call(&endpoint, &peer, &service).await {
            Ok((pattern, operations, words)) => {
                let seen = Seen::Present { edge, pattern, operations, words, took: started.elapsed() };
                let _ = sender.send(seen).await;
                return;
            }
            Err(error) => error,
        };
        let last = is_final(error.kind());
        let seen = Seen::Trouble { edge, trouble: Trouble::from(&error), last };
        if sender.send(seen).await.is_err() || last {
            return;
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSES[1]);
    }
}

/// Whether waiting would mend it.
fn is_final(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::PeerUnknown
            | ErrorKind::PeerExpired
            | ErrorKind::AddressRefused
            | ErrorKind::NoSharedCurve
            | ErrorKind::NoSharedSuite
            | ErrorKind::PlanMismatch
            | ErrorKind::PinLocked
            | ErrorKind::PinWrong
    )
}

async fn call(endpoint: &Endpoint, peer: &Identifier, service: &ServiceName) -> Result<(Pattern, u32, String)> {
    // An edge is there when the two tokens say so, and not a session of before.
    let session = endpoint.connect_peer_with(peer, ConnectOptions::DEFAULT.resume(Resume::Never)).await?;
    let (pattern, operations) = (session.peer().protocol.pattern, session.peer().operations);
    let words = spoken(session.handshake_hash(), WORDS);
    let exchange = async {
        let mut stream = session.open(&ANY.parse()?).await?;
        stream.write_all(format!("{LINE} {service}\n").as_bytes()).await.map_err(error_of)?;
        stream.shutdown().await.map_err(error_of)?;
        let mut line = Vec::new();
        stream.take(MAX_LINE).read_to_end(&mut line).await.map_err(error_of)?;
        Ok::<_, Error>(line)
    };
    let line = match timeout(EXCHANGE, exchange).await {
        Ok(Err(error)) if error.kind() != ErrorKind::ServiceRefused => return Err(error),
        Ok(Ok(line)) => line,
        Ok(Err(_)) | Err(_) => return Err(other(peer)),
    };
    if line == format!("{LINE} {service} present\n").into_bytes() {
        // It is said; whether the other end hears that we heard it is its own concern.
        let _ = session.close().await;
        return Ok((pattern, operations, words));
    }
    if line == format!("{LINE} {service} unknown\n").into_bytes() {
        return Err(Error::new(
            ErrorKind::PlanMismatch,
            format!("`{peer}` was reached and authenticated, and knows of no call by this machine for `{service}`."),
            "Compare the plans' fingerprints with `claviger-ceremony plan print` on both.",
        ));
    }
    Err(other(peer))
}

fn other(peer: &Identifier) -> Error {
    Error::new(
        ErrorKind::RollCallFailed,
        format!("`{peer}` was reached and authenticated, but does something else than the roll call."),
        "End `claviger listen` there, and run `claviger rollcall`.",
    )
}

/// Answers a caller. `None`: it did not call the roll, or for no edge of ours.
async fn answer(session: Session, edges: Arc<[Edge]>, others: Arc<[Edge]>) -> Option<Seen> {
    let started = Instant::now();
    let peer = session.peer().clone();
    let words = spoken(session.handshake_hash(), WORDS);
    let mut stream = timeout(EXCHANGE, session.accept()).await.ok()?.ok()?;
    if stream.service().as_str() != ANY {
        stream.reset(Reset::NoSuchService);
        return None;
    }
    let mut line = Vec::new();
    timeout(EXCHANGE, (&mut stream).take(MAX_LINE).read_to_end(&mut line)).await.ok()?.ok()?;
    let line = String::from_utf8(line).ok()?;
    let service: ServiceName = line.strip_prefix(LINE)?.strip_prefix(' ')?.strip_suffix('\n')?.parse().ok()?;
    let called =
        |edge: &Edge| edge.direction == Direction::Incoming && edge.peer == peer.identifier && edge.service == service;
    if others.iter().any(called) {
        // It stands in the plan and is not called here this time: without an answer the other end tries again.
        return None;
    }
    let edge = edges.iter().position(called);
    let word = if edge.is_some() { "present" } else { "unknown" };
    let said = format!("{LINE} {service} {word}\n");
    let saying = async {
        stream.write_all(said.as_bytes()).await?;
        stream.shutdown().await
    };
    timeout(EXCHANGE, saying).await.ok()?.ok()?;
    drop(stream);
    let closed = session.close().await;
    let Some(edge) = edge else {
        tracing::warn!(target: "claviger::rollcall", peer = %peer.identifier, %service, "a call for an edge that is not in this machine's plan");
        return None;
    };
    if let Err(error) = closed {
        // It was there, and may not know that we were: it will call again.
        return Some(Seen::Trouble { edge, trouble: Trouble::from(&error), last: false });
    }
    let (pattern, operations) = (peer.protocol.pattern, peer.operations);
    Some(Seen::Present { edge, pattern, operations, words, took: started.elapsed() })
}

/// The next session of the listener; for ever without one.
async fn accepted(listening: &mut Option<Listening>) -> Option<Session> {
    match listening {
        Some(listening) => listening.accept().await,
        None => std::future::pending().await,
    }
}

fn ended() -> Error {
    Error::new(
        ErrorKind::TransportUnavailable,
        "The onion service has ended.",
        "Look at the messages above and start it again.",
    )
}

/// Why an edge has come to nothing of which nothing was heard.
fn absent(edge: &Edge, patience: Duration) -> Trouble {
    let (peer, seconds) = (&edge.peer, patience.as_secs());
    Trouble::from(&match edge.direction {
        Direction::Incoming => Error::new(
            ErrorKind::RollCallFailed,
            format!("`{peer}` did not call within {seconds} s."),
            "Run `claviger rollcall` there at the same time, and look at the reason that it gives.",
        ),
        Direction::Outgoing => Error::new(
            ErrorKind::DialTimeout,
            format!("`{peer}` could not be reached within {seconds} s."),
            "Run `claviger rollcall` there at the same time, and give both more time with `--timeout`.",
        ),
    })
}
