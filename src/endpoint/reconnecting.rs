//! A session that is always there: begun when somebody wants it, resumed when it breaks, renewed before it comes to its age.

mod reasons;

use super::resumption::is_broken;
use super::{ConnectOptions, Endpoint, Resume};
use crate::error::{Error, Result};
use crate::identity::{Identifier, ServiceName};
use crate::session::{Session, Stream};
use crate::token::Trouble;
use crate::wire::Pattern;
use aws_lc_rs::rand;
use futures::future::BoxFuture;
use reasons::{asks_somebody, closed, draining, is_over, late, passes, trouble_error};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// The longest time before a session's age at which it is renewed; a tenth of `max-age` if that is less.
const RENEWED: Duration = Duration::from_secs(300);

/// Tries of all peers at once that nobody waits for: sessions that are kept, resumed or renewed. Whoever opens a stream is not held up by them.
pub(super) const BACKGROUND: usize = 8;

/// After a reason that waiting does not mend a session that is kept is tried for so much later, in case the other end has mended it. Not when somebody has to touch
/// the token or give its PIN.
const MENDED: Duration = Duration::from_secs(600);

/// Between two looks at how much of a session's time is left: the clock that it counts by goes on while the machine is suspended, and timers do not.
const LOOK: Duration = Duration::from_secs(60);

/// How a [`Reconnecting`] goes about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReconnectOptions {
    /// The handshake pattern; `None` takes the configured one.
    pub pattern: Option<Pattern>,
    /// How long [`Reconnecting::open`] waits for a session. Default: 60 s.
    pub patience: Duration,
    /// The first pause before trying again; it doubles each time. Default: 500 ms.
    pub first_pause: Duration,
    /// The longest. Default: 60 s.
    pub longest_pause: Duration,
}

impl Default for ReconnectOptions {
    fn default() -> Self {
        Self {
            pattern: None,
            patience: Duration::from_secs(60),
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(60),
        }
    }
}

/// What a [`Reconnecting`] is at.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReconnectState {
    /// There is no session, and nobody wants one: none was asked for yet, or the last one was closed.
    Idle,
    /// It dials, or is in a handshake.
    Connecting,
    /// There is a session.
    Connected {
        /// Whether the token was not asked for it.
        resumed: bool,
    },
    /// A try failed, and the next one follows.
    Waiting {
        /// When.
        until: Instant,
        /// Why.
        trouble: Trouble,
    },
    /// A try failed for a reason that waiting does not mend. The next [`open`](Reconnecting::open) tries once more.
    Stopped(Trouble),
    /// It was closed.
    Closed,
}

/// Sessions to one peer, one after the other. Clones share them; the last one to be dropped closes what there is once its streams have ended.
///
/// A session that breaks is resumed at once, or begun anew when that can not be; tries that fail are repeated with growing pauses until it is [closed](Self::close), or
/// fail for a reason that waiting does not mend, like a touch that nobody gave. One that comes to its age is renewed before, with the token and beside it: new streams are opened on
/// the new session, and those of the old one end on it.
///
/// A stream that was open when a session broke ends with [`ErrorKind::SessionInterrupted`](crate::ErrorKind::SessionInterrupted): what it carried is for the application to carry on, on another stream.
///
/// ```no_run
/// # use claviger::{Endpoint, ErrorKind, endpoint::ReconnectOptions, session::error_of};
/// # use tokio::io::{AsyncReadExt, AsyncWriteExt};
/// # async fn example(endpoint: Endpoint) -> claviger::Result<()> {
/// let tower = endpoint.reconnecting(&"tower".parse()?, ReconnectOptions::default());
/// let answer = loop {
///     let mut stream = tower.open(&"watch".parse()?).await?;
///     let asked = async {
///         stream.write_all(b"anything new?").await?;
///         stream.shutdown().await?;
///         let mut answer = Vec::new();
///         stream.read_to_end(&mut answer).await.map(|_| answer)
///     };
///     match asked.await.map_err(error_of) {
///         // The circuit broke. Asking twice does no harm here, so it is asked again, on a session that was resumed.
///         Err(error) if error.kind() == ErrorKind::SessionInterrupted => continue,
///         answer => break answer?,
///     }
/// };
/// # let _ = answer;
/// tower.close().await
/// # }
/// ```
#[derive(Clone)]
pub struct Reconnecting {
    shared: Arc<Shared>,
    _task: Arc<AbortOnDropHandle<()>>,
}

struct Shared {
    peer: Identifier,
    options: ReconnectOptions,
    session: Mutex<Option<Session>>,
    state: watch::Sender<ReconnectState>,
    /// How often a session was asked for and not there.
    asked: watch::Sender<u64>,
    /// How often something happened after which another try may end otherwise.
    nudged: watch::Sender<u64>,
    /// Whether there is to be a session though nobody asks.
    kept: AtomicBool,
    pattern: Mutex<Option<Pattern>>,
    closing: CancellationToken,
}

impl Endpoint {
    /// Sessions to `peer`, kept up as long as the answer is. Must be called in a tokio runtime. Nothing is dialled before a stream is opened.
    pub fn reconnecting(&self, peer: &Identifier, options: ReconnectOptions) -> Reconnecting {
        let shared = Arc::new(Shared {
            peer: peer.clone(),
            options,
            session: Mutex::default(),
            state: watch::Sender::new(ReconnectState::Idle),
            asked: watch::Sender::new(0),
            nudged: watch::Sender::new(0),
            kept: AtomicBool::new(false),
            pattern: Mutex::new(options.pattern),
            closing: CancellationToken::new(),
        });
        let keeper = Keeper { endpoint: self.clone(), shared: Arc::clone(&shared), pause: options.first_pause };
        // From now on, and not from when the task runs.
        let wishes = Wishes { asked: shared.asked.subscribe(), nudged: shared.nudged.subscribe() };
        let task = tokio::spawn(keeper.run(wishes));
        Reconnecting { shared, _task: Arc::new(AbortOnDropHandle::new(task)) }
    }
}

impl Reconnecting {
    /// Opens a stream for a service of the peer's, on the session that is there or on the next one.
    ///
    /// # Errors
    /// What the last try to connect failed with, when waiting does not mend it, or [`patience`](ReconnectOptions::patience) is over ([`ErrorKind::DialTimeout`](crate::ErrorKind::DialTimeout) when no try
    /// ended in that time); [`ErrorKind::StreamLimit`](crate::ErrorKind::StreamLimit); [`ErrorKind::SessionClosed`](crate::ErrorKind::SessionClosed) after [`close`](Self::close).
    pub async fn open(&self, service: &ServiceName) -> Result<Stream> {
        let deadline = Instant::now() + self.shared.options.patience;
        loop {
            let session = self.session_by(deadline).await?;
            match session.open(service).await {
                Err(error) if is_over(error.kind()) => self.shared.part(&session),
                opened => return opened,
            }
        }
    }

    /// The session that is there, or the next one. It is one of several, one after the other: do not keep it.
    ///
    /// # Errors
    /// As [`open`](Self::open), but for the stream's.
    pub async fn session(&self) -> Result<Session> {
        self.session_by(Instant::now() + self.shared.options.patience).await
    }

    async fn session_by(&self, deadline: Instant) -> Result<Session> {
        let shared = &self.shared;
        let mut state = shared.state.subscribe();
        if *state.borrow() == ReconnectState::Closed {
            return Err(closed(&shared.peer));
        }
        if let Some(session) = shared.session() {
            return Ok(session);
        }
        shared.asked.send_modify(|asked| *asked += 1);
        loop {
            if let Some(session) = shared.session() {
                return Ok(session);
            }
            let changed = timeout_at(deadline, state.changed()).await;
            let now = state.borrow_and_update().clone();
            match (changed, now) {
                (_, ReconnectState::Closed) | (Ok(Err(_)), _) => return Err(closed(&shared.peer)),
                (_, ReconnectState::Stopped(trouble)) => return Err(trouble_error(trouble)),
                (Err(_), ReconnectState::Waiting { trouble, .. }) => return Err(trouble_error(trouble)),
                (Err(_), _) => return Err(late(&shared.peer, shared.options.patience)),
                // It came and went before it was seen here.
                (Ok(Ok(())), ReconnectState::Idle) => shared.asked.send_modify(|asked| *asked += 1),
                (Ok(Ok(())), _) => {}
            }
        }
    }

    /// Whether there is to be a session at all times from now on, or only when one is asked for. Default: only then.
    pub fn keep(&self, kept: bool) {
        if self.shared.kept.swap(kept, Ordering::SeqCst) != kept {
            self.retry();
        }
    }

    /// Has the next sessions begun with another handshake pattern; `None` takes the configured one.
    pub fn set_pattern(&self, pattern: Option<Pattern>) {
        *self.shared.pattern.lock().unwrap_or_else(PoisonError::into_inner) = pattern;
    }

    /// Tries again at once what waits for its next try, or was given up: something has changed. Sessions that nobody wants are not begun.
    pub fn retry(&self) {
        self.shared.nudged.send_modify(|nudged| *nudged += 1);
    }

    /// What it is at.
    pub fn state(&self) -> ReconnectState {
        self.shared.state.borrow().clone()
    }

    /// The same, to watch.
    pub fn watch(&self) -> watch::Receiver<ReconnectState> {
        self.shared.state.subscribe()
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &Identifier {
        &self.shared.peer
    }

    /// Connects no more, and closes the session that is there so that both ends know that everything arrived.
    ///
    /// # Errors
    /// Those of [`Session::close`].
    pub async fn close(&self) -> Result<()> {
        self.shared.closing.cancel();
        self.shared.state.send_replace(ReconnectState::Closed);
        let session = self.shared.lock().take();
        match session {
            Some(session) => session.close().await,
            None => Ok(()),
        }
    }
}

impl std::fmt::Debug for Reconnecting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reconnecting").field("peer", self.peer()).field("state", &self.state()).finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Session>> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn session(&self) -> Option<Session> {
        self.lock().clone()
    }

    /// Does without a session that takes on no streams any more. It goes on with those that it has.
    fn part(&self, session: &Session) {
        let mut held = self.lock();
        if held.as_ref().is_some_and(|held| held.handshake_hash() == session.handshake_hash()) {
            *held = None;
        }
    }
}

/// The task behind it: one try at a time, however many want a session.
struct Keeper {
    endpoint: Endpoint,
    shared: Arc<Shared>,
    pause: Duration,
}

/// What the others wish.
struct Wishes {
    asked: watch::Receiver<u64>,
    nudged: watch::Receiver<u64>,
}

/// How the time with a session ended.
enum Next {
    /// Another one is wanted at once.
    Connect,
    /// Not before somebody asks.
    Wait,
}

impl Keeper {
    async fn run(mut self, mut wishes: Wishes) {
        let closing = self.shared.closing.clone();
        tokio::select! {
            () = closing.cancelled() => {}
            () = self.keep(&mut wishes) => {}
        }
        // One may have come at the last moment.
        self.shared.lock().take();
    }

    async fn keep(&mut self, wishes: &mut Wishes) {
        let mut next = Next::Wait;
        loop {
            if let Next::Wait = next {
                self.wanted(wishes).await;
            }
            self.tell(ReconnectState::Connecting);
            // What was to be tried again until now is tried by this.
            wishes.nudged.mark_unchanged();
            let connected = self.connect(Resume::IfBroken, &mut wishes.asked).await;
            // Whoever has asked until now is told of this.
            wishes.asked.mark_unchanged();
            next = match connected {
                Ok(session) => self.attend(session, wishes).await,
                Err(error) if !passes(error.kind()) => {
                    self.tell(ReconnectState::Stopped(Trouble::from(&error)));
                    Next::Wait
                }
                Err(error) => {
                    self.wait(&error, wishes).await;
                    Next::Connect
                }
            };
        }
    }

    /// Waits until a session is wanted: one that is kept is, unless it was given up.
    async fn wanted(&self, wishes: &mut Wishes) {
        let stopped = match &*self.shared.state.borrow() {
            ReconnectState::Stopped(trouble) => Some(trouble.kind),
            _ => None,
        };
        let again = stopped.filter(|kind| !asks_somebody(*kind)).map(|_| Instant::now() + MENDED);
        loop {
            let kept = self.shared.kept.load(Ordering::SeqCst);
            if kept && stopped.is_none() {
                return;
            }
            let mended = async {
                match again.filter(|_| kept) {
                    Some(again) => sleep_until(again).await,
                    None => std::future::pending().await,
                }
            };
            // The senders live as long as this.
            tokio::select! {
                _ = wishes.asked.changed() => return,
                _ = wishes.nudged.changed() => if self.shared.kept.load(Ordering::SeqCst) {
                    return;
                },
                () = mended => return,
            }
        }
    }

    /// One try. Those that nobody waits for take turns with those of other peers.
    async fn connect(&self, resume: Resume, asked: &mut watch::Receiver<u64>) -> Result<Session> {
        let background = &self.endpoint.0.shared.background;
        let _turn = tokio::select! {
            biased;
            _ = asked.changed() => None,
            // It is never closed.
            turn = background.acquire() => turn.ok(),
        };
        self.begin(resume).await
    }

    fn begin(&self, resume: Resume) -> BoxFuture<'static, Result<Session>> {
        let pattern = *self.shared.pattern.lock().unwrap_or_else(PoisonError::into_inner);
        let options = ConnectOptions::DEFAULT.pattern(pattern).resume(resume);
        let (endpoint, peer) = (self.endpoint.clone(), self.shared.peer.clone());
        Box::pin(async move { endpoint.connect_peer_with(&peer, options).await })
    }

    /// Sees to a session, and to those that follow it without a gap, until there is none.
    async fn attend(&mut self, mut session: Session, wishes: &mut Wishes) -> Next {
        // Beside the session, and beside what resumes it: it may wait for somebody's finger. It takes no turn, which others would wait for.
        let mut renewing: Option<BoxFuture<'static, Result<Session>>> = None;
        'sessions: loop {
            self.give(&session);
            let began = Instant::now();
            let mut renew = self.renewal(&session);
            loop {
                let due = renew;
                tokio::select! {
                    ended = session.ended() => {
                        self.shared.part(&session);
                        let broke = is_broken(ended.kind());
                        tracing::info!(target: "claviger::connection", peer = %self.shared.peer, reason = ended.kind().as_str(), broke, "a session that is kept up has ended");
                        if let Some(renewal) = renewing.take() {
                            let next = self.resume_beside(renewal, broke.then_some((began, &ended)), wishes).await;
                            if let Some((next, renewal)) = next {
                                (session, renewing) = (next, renewal);
                                continue 'sessions;
                            }
                        }
                        self.rest(began, &ended, wishes).await;
                        if broke {
                            return Next::Connect;
                        }
                        self.tell(ReconnectState::Idle);
                        return Next::Wait;
                    }
                    // It takes on no streams: the peer is about to close it.
                    _ = wishes.asked.changed(), if renewing.is_none() => if self.shared.session().is_none() {
                        self.rest(began, &draining(&self.shared.peer), wishes).await;
                        return Next::Connect;
                    },
                    // A renewal that failed is tried again.
                    _ = wishes.nudged.changed(), if renewing.is_none() => renew = self.renewal(&session),
                    () = sleep_until(due.min(Instant::now() + LOOK)), if renewing.is_none() => {
                        if Instant::now() < due {
                            renew = renew.min(self.renewal(&session));
                        } else {
                            renewing = Some(self.begin(Resume::Never));
                        }
                    }
                    renewed = ready(&mut renewing) => {
                        renewing = None;
                        match renewed {
                            // Nobody sees that there is another one.
                            Ok(next) => {
                                session = next;
                                continue 'sessions;
                            }
                            Err(error) => {
                                self.not_renewed(&error);
                                renew = Instant::now() + self.pause();
                            }
                        }
                    }
                }
            }
        }
    }

    /// The session is over, and another one is being begun with the token. What `broke`, since then and for that reason, is resumed meanwhile. `None`: there is none.
    async fn resume_beside(
        &mut self,
        renewal: BoxFuture<'static, Result<Session>>,
        broke: Option<(Instant, &Error)>,
        wishes: &mut Wishes,
    ) -> Option<(Session, Option<BoxFuture<'static, Result<Session>>>)> {
        let mut renewing = Some(renewal);
        self.tell(ReconnectState::Connecting);
        let resuming = async {
            if let Some((began, ended)) = broke {
                self.rest(began, ended, wishes).await;
                if let Ok(session) = self.connect(Resume::Only, &mut wishes.asked).await {
                    return session;
                }
            }
            std::future::pending().await
        };
        let renewed = tokio::select! {
            session = resuming => return Some((session, renewing)),
            renewed = ready(&mut renewing) => renewed,
        };
        renewed.inspect_err(|error| self.not_renewed(error)).ok().map(|session| (session, None))
    }

    fn not_renewed(&self, error: &Error) {
        tracing::warn!(target: "claviger::connection", peer = %self.shared.peer, reason = error.kind().as_str(), hint = error.hint(), "a session could not be renewed before its time is over: {error}");
    }

    /// After a session that did not last another one is not begun at once: it may cost the token.
    async fn rest(&mut self, began: Instant, ended: &Error, wishes: &mut Wishes) {
        if began.elapsed() > self.pause {
            self.pause = self.shared.options.first_pause;
        } else {
            self.wait(ended, wishes).await;
        }
    }

    async fn wait(&mut self, failure: &Error, wishes: &mut Wishes) {
        let until = Instant::now() + self.pause();
        self.tell(ReconnectState::Waiting { until, trouble: Trouble::from(failure) });
        tokio::select! {
            () = sleep_until(until) => {}
            _ = wishes.nudged.changed() => self.pause = self.shared.options.first_pause,
        }
    }

    fn give(&self, session: &Session) {
        *self.shared.lock() = Some(session.clone());
        self.tell(ReconnectState::Connected { resumed: session.peer().resumed });
    }

    /// A session that was closed meanwhile stays so.
    fn tell(&self, state: ReconnectState) {
        self.shared.state.send_if_modified(|old| {
            let changed = *old != ReconnectState::Closed;
            if changed {
                *old = state;
            }
            changed
        });
    }

    /// When a session is to be renewed.
    fn renewal(&self, session: &Session) -> Instant {
        let super::Inner { shared, config, .. } = &*self.endpoint.0;
        let max_age = config.session.max_age;
        let margin = RENEWED.min(max_age / 10);
        Instant::now() + (max_age - margin).saturating_sub(shared.clock.now().since(session.peer().token_seen))
    }

    /// The next pause: between half of what it may be and all of it, so that machines that lost each other together do not come back together.
    fn pause(&mut self) -> Duration {
        let mut random = [0; 2];
        // Without randomness the pause is the shortest.
        let _ = rand::fill(&mut random);
        let part = 0.5 + f64::from(u16::from_be_bytes(random)) / f64::from(u16::MAX) / 2.0;
        let pause = self.pause.mul_f64(part);
        self.pause = (self.pause * 2).min(self.shared.options.longest_pause);
        pause
    }
}

/// What comes of a connection that is under way; never, of none.
async fn ready(connecting: &mut Option<BoxFuture<'static, Result<Session>>>) -> Result<Session> {
    match connecting {
        Some(connecting) => connecting.await,
        None => std::future::pending().await,
    }
}
