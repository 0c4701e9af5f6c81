//! A token as the rest of the house uses it.

use super::desk::Desk;
use super::from_hsm;
use super::notice::{Notify, Reason};
use super::queue::{Job, Queue, gone};
use super::state::TokenStatus;
use super::worker::{Open, PinPrompt, Worker};
use crate::config;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::{Curve, StaticPublic};
use crate::secret::SharedSecret;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};

/// How long an operation may wait for its turn.
pub const TURN: Duration = Duration::from_secs(10);

/// An open token, behind its thread. Clones share it; the thread ends with the last one.
#[derive(Clone)]
pub struct TokenHandle(Arc<Inner>);

struct Inner {
    queue: Arc<Queue>,
    desk: Arc<Desk>,
    public: StaticPublic,
    config: config::Token,
    operations: Arc<AtomicU64>,
    /// Nothing is ever sent: it disconnects when the thread has let the token go.
    ended: std::sync::Mutex<Receiver<()>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// How a token is used, and by whom.
pub struct Settings {
    /// The machine, as people know it: what stands first in a [`Notice`](super::Notice).
    pub machine: String,
    /// Deadlines, and how long the PIN is kept.
    pub config: config::Token,
    /// Who is asked for PINs.
    pub pins: Box<dyn PinPrompt>,
    /// Who is told of touches and PINs that are waited for, and of the token's comings and goings.
    pub notify: Option<Notify>,
}

impl Settings {
    /// With the configuration's defaults, and nobody who is told.
    pub fn new(machine: impl Into<String>, pins: impl PinPrompt + 'static) -> Self {
        Self { machine: machine.into(), config: config::Token::default(), pins: Box::new(pins), notify: None }
    }
}

impl TokenHandle {
    /// Opens the token at `locator` (`piv:…`, `openpgp:…`, `pkcs11:…`, `tpm2:…`, `file:…`), which must hold the key `expected`, on a thread of its
    /// own. Blocks: somebody may be asked for a PIN, and one operation is made to see that the token's private key belongs to its public key.
    ///
    /// # Errors
    /// Every token kind of [`ErrorKind`], from [`ErrorKind::LocatorInvalid`] to [`ErrorKind::TokenFailed`].
    pub fn open(locator: &str, expected: &StaticPublic, settings: Settings) -> Result<Self> {
        Self::at(locator, expected, settings, false)
    }

    /// The same; but a token that is not there, or that another program holds, is waited for: until it has come, operations fail with what keeps
    /// it away. When it comes it is opened, and somebody may be asked for a PIN then.
    ///
    /// # Errors
    /// As [`open`](Self::open), for a token that is there.
    pub fn open_when_there(locator: &str, expected: &StaticPublic, settings: Settings) -> Result<Self> {
        Self::at(locator, expected, settings, true)
    }

    fn at(locator: &str, expected: &StaticPublic, settings: Settings, wait: bool) -> Result<Self> {
        let locator: claviger_hsm::Locator = locator.parse().map_err(from_hsm)?;
        let (key, keep) = (point(expected)?, settings.config.keep_pin.into());
        let name = locator.to_string();
        // Without its query: where a module and a PIN file are is not the token's name.
        let name = name.split('?').next().unwrap_or_default().to_owned();
        let open = move |operation: &mut claviger_hsm::Operation<'_>| {
            claviger_hsm::open(&locator, Some(&key), keep, operation)
        };
        Self::start(name, expected, Box::new(open), settings, wait)
    }

    /// `name` is what the token is called before it was open.
    pub(super) fn start(
        name: String,
        expected: &StaticPublic,
        open: Open,
        settings: Settings,
        wait: bool,
    ) -> Result<Self> {
        let Settings { machine, config, pins, notify } = settings;
        let desk = Arc::new(Desk::new(&machine, name, config.pin_timeout));
        let (queue, operations) = (Arc::new(Queue::default()), Arc::new(AtomicU64::new(0)));
        let worker = Worker {
            machine,
            queue: Arc::clone(&queue),
            desk: Arc::clone(&desk),
            open,
            pins,
            config: config.clone(),
            operations: Arc::clone(&operations),
            token: None,
            refused: claviger_hsm::RefusedPin::default(),
        };
        let (opened, outcome) = sync_channel(1);
        let (ending, ended) = sync_channel(0);
        let telling = Arc::clone(&desk);
        thread("claviger-notice", move || telling.tell(notify.as_ref()))?;
        let working = thread("claviger-token", move || {
            worker.run(wait, &opened);
            drop(ending);
        });
        if let Err(error) = working {
            desk.close();
            return Err(error);
        }
        outcome.recv().unwrap_or_else(|_| Err(gone(desk.label())))?;
        let ended = std::sync::Mutex::new(ended);
        Ok(Self(Arc::new(Inner { queue, desk, public: expected.clone(), config, operations, ended })))
    }

    /// The static public key whose private half the token holds.
    pub fn public(&self) -> &StaticPublic {
        &self.0.public
    }

    /// What the token is called, for people; its locator until it was open. A software key's label says so.
    pub fn label(&self) -> &str {
        self.0.desk.label()
    }

    /// Whether the key is in this process's memory and can be copied: a key file, or a token that exists in software only. Known once it was open.
    pub fn is_software(&self) -> bool {
        self.0.desk.is_software()
    }

    /// Whether an operation may wait for somebody's touch. `true` until it was open.
    pub fn may_need_touch(&self) -> bool {
        self.0.desk.may_need_touch()
    }

    /// What the token is doing, or what keeps it from doing it.
    pub fn state(&self) -> TokenStatus {
        self.0.desk.status()
    }

    /// The same, to watch. It changes when the state does, and with each new failure.
    pub fn watch(&self) -> watch::Receiver<TokenStatus> {
        self.0.desk.watch()
    }

    /// How many operations the token was asked for since it was opened.
    pub fn operations(&self) -> u64 {
        self.0.operations.load(Ordering::Relaxed)
    }

    /// How many operations wait for their turn.
    pub fn waiting(&self) -> usize {
        self.0.queue.waiting()
    }

    /// Lets the token go and ends its thread, waiting at most `timeout`; clones of this handle fail from then on. A program calls it before it
    /// ends: a PKCS#11 module must not be in use while the process takes it down. `false`: the token was still busy.
    pub fn close(&self, timeout: Duration) -> bool {
        self.0.queue.close();
        let ended = self.0.ended.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        ended.recv_timeout(timeout) == Err(RecvTimeoutError::Disconnected)
    }

    /// One Diffie-Hellman operation with `peer`'s point, for `reason`. A caller that gives up (drops the future) before its turn costs no operation.
    ///
    /// The operation has `timeout` or, where the token may want a touch, `touch-timeout` of the configuration from when its turn comes.
    ///
    /// # Errors
    /// [`ErrorKind::TokenBusy`] when [`QUEUE`](super::QUEUE) operations wait already, or [`QUEUE_PER_PEER`](super::QUEUE_PER_PEER) for this peer;
    /// [`ErrorKind::TokenTimeout`] when the operation takes longer than it has, or its turn has not come after [`TURN`] more; and the token's own.
    pub async fn agree(&self, peer: &StaticPublic, reason: &Reason) -> Result<SharedSecret> {
        let Inner { queue, desk, config, .. } = &*self.0;
        let (reply, mut answer) = oneshot::channel();
        queue.push(Job { point: point(peer)?, reason: reason.clone(), reply }, desk.label())?;
        let time = if desk.may_need_touch() { config.touch_timeout } else { config.timeout };
        // Whoever has to be asked for a PIN first has time of their own for it.
        let mut deadline = Instant::now() + TURN + time;
        let last = deadline + config.pin_timeout + time;
        let mut asked = false;
        loop {
            match tokio::time::timeout_at(deadline.min(last).into(), &mut answer).await {
                Ok(Ok(result)) => return result,
                Ok(Err(_)) => return Err(gone(desk.label())),
                Err(_) if deadline < last && desk.is_asking() => {
                    asked = true;
                    deadline += Duration::from_secs(1);
                }
                Err(_) if std::mem::take(&mut asked) => deadline += time,
                Err(_) => return Err(late(desk.label(), time)),
            }
        }
    }
}

fn late(label: &str, time: Duration) -> Error {
    Error::new(
        ErrorKind::TokenTimeout,
        format!("{label} did not answer in time ({} ms for the operation).", time.as_millis()),
        "Check that the token is plugged in and not waiting for a touch; raise `timeout` under [token] for a slow one.",
    )
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    std::thread::Builder::new().name(name.into()).spawn(work).map(drop).map_err(|error| {
        Error::new(ErrorKind::Internal, "The token's thread could not be started.", "Check the limit on processes.")
            .because(error)
    })
}

pub(super) fn point(key: &StaticPublic) -> Result<claviger_hsm::PublicKey> {
    let curve = match key.curve() {
        Curve::X25519 => claviger_hsm::Curve::X25519,
        Curve::P256 => claviger_hsm::Curve::P256,
    };
    claviger_hsm::PublicKey::new(curve, key.as_bytes()).map_err(from_hsm)
}
