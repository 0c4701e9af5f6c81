//! One thread a token: tokens are slow, serial, and block.

use super::from_hsm;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::{Curve, StaticPublic};
use crate::secret::SharedSecret;
use claviger_hsm::{KeepPin, Operation, Pin, PinEntry, PinRequest, Touch};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Operations that may wait for a token at a time.
pub const QUEUE: usize = 64;

/// How long an operation may wait for its turn.
pub const TURN: Duration = Duration::from_secs(10);

/// An open token, behind its thread. Clones share it; the thread ends with the last one.
#[derive(Clone)]
pub struct TokenHandle(Arc<Inner>);

struct Inner {
    queue: SyncSender<Request>,
    public: StaticPublic,
    label: String,
    software: bool,
    touch: bool,
    operations: Arc<AtomicU64>,
}

enum Request {
    Agree(Job),
    /// Let the token go, drop the sender, and end.
    Close(SyncSender<()>),
}

struct Job {
    point: claviger_hsm::PublicKey,
    /// For the operation, from when it begins.
    timeout: Duration,
    reply: oneshot::Sender<Result<SharedSecret>>,
}

impl TokenHandle {
    /// Opens the token at `locator` (`pkcs11:…`, `file:…`), which must hold the key `expected`, and starts its thread. Blocks: it
    /// may ask `pins` for a PIN, and makes one operation to see that the token's private key belongs to its public key.
    ///
    /// # Errors
    /// Every token kind of [`ErrorKind`], from [`ErrorKind::LocatorInvalid`] to [`ErrorKind::TokenFailed`].
    pub fn open(locator: &str, expected: &StaticPublic, pins: &mut dyn PinEntry) -> Result<Self> {
        let locator: claviger_hsm::Locator = locator.parse().map_err(from_hsm)?;
        let mut operation = Operation::within(Duration::from_secs(60), pins);
        let token =
            claviger_hsm::open(&locator, Some(&point(expected)?), KeepPin::Once, &mut operation).map_err(from_hsm)?;
        let label = token.hints().label.clone();
        let software = !token.hints().hardware;
        let touch = token.hints().touch != Touch::Never;
        let operations = Arc::new(AtomicU64::new(0));
        let (queue, jobs) = sync_channel(QUEUE);
        let counter = Arc::clone(&operations);
        std::thread::Builder::new().name("claviger-token".into()).spawn(move || work(token, &jobs, &counter)).map_err(
            |error| {
                Error::new(
                    ErrorKind::Internal,
                    "The token's thread could not be started.",
                    "Check the limit on processes.",
                )
                .because(error)
            },
        )?;
        Ok(Self(Arc::new(Inner { queue, public: expected.clone(), label, software, touch, operations })))
    }

    /// The static public key whose private half the token holds.
    pub fn public(&self) -> &StaticPublic {
        &self.0.public
    }

    /// What the token is called, for people. A software key's label says so.
    pub fn label(&self) -> &str {
        &self.0.label
    }

    /// Whether the key is in this process's memory and can be copied: a key file, or a token that exists in software only.
    pub fn is_software(&self) -> bool {
        self.0.software
    }

    /// Whether an operation may wait for somebody's touch.
    pub fn may_need_touch(&self) -> bool {
        self.0.touch
    }

    /// How many operations the token was asked for since it was opened.
    pub fn operations(&self) -> u64 {
        self.0.operations.load(Ordering::Relaxed)
    }

    /// Lets the token go and ends its thread, waiting at most `timeout`; clones of this handle fail from then on. A program calls it before it
    /// ends: a PKCS#11 module must not be in use while the process takes it down. `false`: the token was still busy.
    pub fn close(&self, timeout: Duration) -> bool {
        let (done, closed) = sync_channel(1);
        let deadline = Instant::now() + timeout;
        // A full queue is drained in no time: its callers are gone, or get their answers.
        let mut request = Request::Close(done);
        loop {
            match self.0.queue.try_send(request) {
                Ok(()) => break,
                Err(TrySendError::Disconnected(_)) => return true,
                Err(TrySendError::Full(back)) if Instant::now() < deadline => {
                    request = back;
                    std::thread::yield_now();
                }
                Err(TrySendError::Full(_)) => return false,
            }
        }
        let left = deadline.saturating_duration_since(Instant::now());
        // The sender is dropped after the token, without a word.
        closed.recv_timeout(left) == Err(RecvTimeoutError::Disconnected)
    }

    /// One Diffie-Hellman operation with `peer`'s point. A caller that gives up (drops the future) before its turn costs no operation.
    ///
    /// # Errors
    /// [`ErrorKind::TokenBusy`] when [`QUEUE`] operations wait already, [`ErrorKind::TokenTimeout`] when the operation takes longer than
    /// `timeout`, or its turn has not come after [`TURN`] more, and the token's own.
    pub async fn agree(&self, peer: &StaticPublic, timeout: Duration) -> Result<SharedSecret> {
        let deadline = Instant::now() + TURN + timeout;
        let (reply, answer) = oneshot::channel();
        self.0.queue.try_send(Request::Agree(Job { point: point(peer)?, timeout, reply })).map_err(
            |error| match error {
                TrySendError::Full(_) => Error::new(
                    ErrorKind::TokenBusy,
                    format!("{QUEUE} operations wait for {} already.", self.0.label),
                    "Try again when there are fewer connections at once.",
                ),
                TrySendError::Disconnected(_) => gone(&self.0.label),
            },
        )?;
        match tokio::time::timeout_at(deadline.into(), answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(gone(&self.0.label)),
            Err(_) => Err(Error::new(
                ErrorKind::TokenTimeout,
                format!("{} did not answer in time ({} ms for the operation).", self.0.label, timeout.as_millis()),
                "Check that the token is plugged in and not waiting for a touch; raise `timeout` under [token] for a slow one.",
            )),
        }
    }
}

fn gone(label: &str) -> Error {
    Error::new(ErrorKind::TokenFailed, format!("The thread of {label} has ended."), "Start the program again.")
}

struct Nobody;

impl PinEntry for Nobody {
    fn pin(&mut self, _: &PinRequest<'_>) -> claviger_hsm::Result<Pin> {
        Err(claviger_hsm::Error::pin_required("Nobody is here.", "Come back."))
    }
}

fn work(mut token: Box<dyn claviger_hsm::Token>, requests: &Receiver<Request>, operations: &AtomicU64) {
    for request in requests {
        let job = match request {
            Request::Agree(job) => job,
            Request::Close(done) => {
                drop(token);
                drop(done);
                return;
            }
        };
        if job.reply.is_closed() {
            continue;
        }
        operations.fetch_add(1, Ordering::Relaxed);
        let mut nobody = Nobody;
        let result = token.agree(&job.point, &mut Operation::within(job.timeout, &mut nobody)).map_err(from_hsm);
        // Who gave up in the meantime does not want it; the secret is wiped with the message.
        let _ = job.reply.send(result.map(|secret| SharedSecret::new(*secret.as_bytes())));
    }
}

fn point(key: &StaticPublic) -> Result<claviger_hsm::PublicKey> {
    let curve = match key.curve() {
        Curve::X25519 => claviger_hsm::Curve::X25519,
        Curve::P256 => claviger_hsm::Curve::P256,
    };
    claviger_hsm::PublicKey::new(curve, key.as_bytes()).map_err(from_hsm)
}
