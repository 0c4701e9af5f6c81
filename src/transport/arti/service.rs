//! An onion service that arti publishes.

use super::{Arti, failure};
use crate::config;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::OnionAddress;
use crate::secret::OnionSecretKey;
use crate::transport::{Audience, Listener, Pipe, SETTLED, Service, ServiceState, changed, crowded, set, wrong_key};
use arti_client::config::onion_service::{OnionServiceConfig, OnionServiceConfigBuilder};
use arti_client::{ErrorKind as ArtiKind, HasKind as _};
use aws_lc_rs::digest;
use data_encoding::HEXLOWER;
use futures::future::BoxFuture;
use futures::{Stream, StreamExt as _};
use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use tor_cell::relaycell::msg::Connected;
use tor_config::Reconfigure;
use tor_hscrypto::pk::{HsClientDescEncKey, HsIdKey, HsIdKeypair};
use tor_hsservice::config::TokenBucketConfig;
use tor_hsservice::config::restricted_discovery::HsClientNickname;
use tor_hsservice::status::State;
use tor_hsservice::{HsNickname, InvalidNickname, RendRequest, RunningOnionService, StreamRequest};
use tor_llcrypto::pk::curve25519::PublicKey;
use tor_llcrypto::pk::ed25519::ExpandedKeypair;
use tor_persist::state_dir::StateDirectory;
use tor_proto::stream::IncomingStreamRequest;

/// Streams that are being accepted at once, and accepted ones that wait to be taken. More wait within Tor.
const BACKLOG: usize = 64;
/// How long accepting a stream may take; it only sends one cell.
const ACCEPT: Duration = Duration::from_secs(20);
/// Until a change that arti did not take over is tried again.
const AGAIN: Duration = Duration::from_secs(30);
/// Services that one process may launch, one after the other.
const MAX_LAUNCHES: u32 = 10_000;

/// A service that arti publishes. Dropping it ends the service.
pub(super) struct ArtiService {
    pipes: mpsc::Receiver<Pipe>,
    state: watch::Receiver<ServiceState>,
    _accept: AbortOnDropHandle<()>,
    _watch: AbortOnDropHandle<()>,
    _follow: AbortOnDropHandle<()>,
    /// Locked: one listening process for each state directory.
    _lock: Arc<Published>,
}

/// A service that runs, and the lock that it shares with the others of this process.
pub(super) struct Published {
    address: OnionAddress,
    lock: Arc<File>,
}

impl ArtiService {
    /// Launches the service; it is published once arti has bootstrapped.
    ///
    /// # Errors
    /// `IdentityInvalid` when the key is not the address's, `TransportUnavailable` when something listens with this state directory already,
    /// or arti's state can not be used.
    pub(super) async fn launch(arti: &Arti, service: Service) -> Result<Self> {
        let Service { onion, address, port, mut audience } = service;
        let keypair = keypair(&onion, &address)?;
        if let Some(error) = crowded(&audience.borrow()) {
            return Err(error);
        }
        let lock = lock(arti, &address)?;
        let options = Options { nickname: nickname(arti, &address)?, onion: arti.onion.clone() };
        let launched_with = options.of(&audience.borrow_and_update())?;
        let launched = arti.client.launch_onion_service_with_hsid(launched_with, keypair);
        let launched = launched.map_err(|error| failure::of_setup(&arti.state, error))?;
        let (running, requests) = launched.ok_or_else(|| internal("arti left the service out."))?;

        let (sender, pipes) = mpsc::channel(BACKLOG);
        let (states, state) = watch::channel(ServiceState::Starting);
        let accept = AbortOnDropHandle::new(tokio::spawn(take_in(requests, port, sender)));
        let follow = AbortOnDropHandle::new(tokio::spawn(follow(Arc::clone(&running), options, address, audience)));
        let watch = AbortOnDropHandle::new(tokio::spawn(watch(running, arti.bootstrap(), address, states)));
        Ok(Self { pipes, state, _accept: accept, _watch: watch, _follow: follow, _lock: lock })
    }
}

impl Listener for ArtiService {
    fn accept(&mut self) -> BoxFuture<'_, Result<Pipe>> {
        Box::pin(async {
            self.pipes.recv().await.ok_or_else(|| {
                Error::new(
                    ErrorKind::TransportUnavailable,
                    "arti has ended the onion service.",
                    "Restart claviger; `-v` shows what arti does.",
                )
            })
        })
    }

    fn status(&self) -> watch::Receiver<ServiceState> {
        self.state.clone()
    }
}

/// arti's form of the key, if it is the address's.
fn keypair(onion: &OnionSecretKey, address: &OnionAddress) -> Result<HsIdKeypair> {
    let expanded = ExpandedKeypair::from_secret_key_bytes(*onion.expose()).ok_or_else(|| wrong_key(address))?;
    let keypair = HsIdKeypair::from(expanded);
    let derived: [u8; 32] = HsIdKey::from(&keypair).id().into();
    if derived == *address.public_key() { Ok(keypair) } else { Err(wrong_key(address)) }
}

/// What a service is launched with, and goes on with.
struct Options {
    nickname: HsNickname,
    onion: config::Onion,
}

impl Options {
    fn of(&self, audience: &Audience) -> Result<OnionServiceConfig> {
        let config::Onion { introduction_points, introduction_limit, proof_of_work, streams_per_circuit, .. } =
            &self.onion;
        let mut options = OnionServiceConfigBuilder::default();
        options.nickname(self.nickname.clone()).max_concurrent_streams_per_circuit(u32::from(*streams_per_circuit));
        options.enable_pow(*proof_of_work);
        if let Some(count) = introduction_points {
            options.num_intro_points(*count);
        }
        if let Some(limit) = introduction_limit {
            options.rate_limit_at_intro(Some(TokenBucketConfig::new(limit.rate, limit.burst)));
        }
        if let Some(keys) = audience {
            options.restricted_discovery().enabled(true);
            for (number, key) in keys.iter().enumerate() {
                // arti wants a name for each.
                let name = format!("client-{number}").parse::<HsClientNickname>();
                let name = name.map_err(|error| internal("arti does not take a client's name.").because(error))?;
                let key = HsClientDescEncKey::from(PublicKey::from(*key.as_bytes()));
                options.restricted_discovery().static_keys().access().push((name, key));
            }
        }
        options.build().map_err(|error| internal("arti does not take the service's configuration.").because(error))
    }
}

/// Has the descriptor encrypted to whoever may find the service now. arti uploads it again by itself.
async fn follow(
    service: Arc<RunningOnionService>,
    options: Options,
    address: OnionAddress,
    mut audience: watch::Receiver<Audience>,
) {
    let onion = address.redacted();
    let mut failed = false;
    loop {
        // Who was removed must not find it until the next change.
        let again = async { if failed { sleep(AGAIN).await } else { std::future::pending().await } };
        tokio::select! {
            () = changed(&mut audience) => {}
            () = again => {}
        }
        // Several changes at once are one.
        sleep(SETTLED).await;
        let audience = audience.borrow_and_update().clone();
        let outcome = match crowded(&audience) {
            Some(error) => Err(error),
            None => options.of(&audience),
        };
        let outcome = outcome.and_then(|options| {
            let done = service.reconfigure(options, Reconfigure::AllOrNothing);
            done.map_err(|error| internal("arti did not take over who finds the service.").because(error))
        });
        failed = outcome.is_err();
        match outcome {
            Ok(()) => {
                tracing::info!(onion, keys = audience.map_or(0, |keys| keys.len()), "who finds the service has changed")
            }
            Err(error) => tracing::error!(
                onion,
                reason = error.kind().as_str(),
                hint = error.hint(),
                "who finds the service has not changed: {error}"
            ),
        }
    }
}

/// Takes the lock of the one process that listens, or shares it with this process's other addresses.
fn lock(arti: &Arti, address: &OnionAddress) -> Result<Arc<Published>> {
    let state = arti.state.as_path();
    let mut listening = arti.listening.lock().unwrap_or_else(PoisonError::into_inner);
    let running: Vec<_> = listening.iter().filter_map(Weak::upgrade).collect();
    if running.iter().any(|published| published.address == *address) {
        return Err(occupied(state));
    }
    let shared = running.first().map(|published| Arc::clone(&published.lock));
    let lock = shared.map_or_else(|| exclusive(state).map(Arc::new), Ok)?;
    let published = Arc::new(Published { address: *address, lock });
    *listening = running.iter().chain([&published]).map(Arc::downgrade).collect();
    Ok(published)
}

fn exclusive(state: &Path) -> Result<File> {
    let path = state.join("listen.lock");
    let opened = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
    let file = opened.map_err(|error| unusable(state).because(error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::Error(error)) => Err(unusable(state).because(error)),
        Err(TryLockError::WouldBlock) => Err(occupied(state)),
    }
}

fn occupied(state: &Path) -> Error {
    Error::new(
        ErrorKind::TransportUnavailable,
        format!("Something publishes an onion service from {} already.", state.display()),
        "End the other claviger that listens for this machine.",
    )
}

/// arti's name of the service, in its logs and its state directory: a hash, so that neither holds the address, and a number. What an
/// earlier run left under that name is removed: introduction points whose keys were in memory only.
///
/// The number is the first that is free. arti's proof-of-work thread keeps a service that has ended for the rest of the process.
fn nickname(arti: &Arti, address: &OnionAddress) -> Result<HsNickname> {
    let failed = |error: tor_persist::Error| unusable(&arti.state).because(error);
    let directory = StateDirectory::new(arti.state.join(super::settings::STATE), arti.config.fs_mistrust());
    let directory = directory.map_err(failed)?;
    let hash = digest::digest(&digest::SHA256, address.public_key());
    let hash = HEXLOWER.encode(&hash.as_ref()[..8]);
    loop {
        let number = arti.launched.fetch_add(1, Ordering::Relaxed);
        let nickname: HsNickname = format!("claviger-{hash}-{number}")
            .parse()
            .map_err(|error: InvalidNickname| internal("arti does not take the service's name.").because(error))?;
        match directory.acquire_instance(&nickname) {
            Ok(instance) => {
                instance.purge().map_err(failed)?;
                return Ok(nickname);
            }
            Err(error) if error.kind() == ArtiKind::LocalResourceAlreadyInUse && number < MAX_LAUNCHES => {}
            Err(error) => return Err(failed(error)),
        }
    }
}

fn unusable(state: &Path) -> Error {
    Error::new(
        ErrorKind::TransportUnavailable,
        format!("arti's state in {} can not be used.", state.display()),
        "Check that you may write there; deleting that directory is safe, and chooses new guards.",
    )
}

fn internal(what: &str) -> Error {
    Error::new(ErrorKind::Internal, what, "Report it, with the output of `-v`.")
}

/// Accepts streams to `port` until arti ends the service, or the listener is gone.
async fn take_in(requests: impl Stream<Item = RendRequest>, port: u16, pipes: mpsc::Sender<Pipe>) {
    let streams = tor_hsservice::handle_rend_requests(requests);
    streams.for_each_concurrent(BACKLOG, |request| accept(request, port, &pipes)).await;
}

async fn accept(request: StreamRequest, port: u16, pipes: &mpsc::Sender<Pipe>) {
    if !matches!(request.request(), IncomingStreamRequest::Begin(begin) if begin.port() == port) {
        tracing::debug!("a stream to another port: its circuit is closed");
        if let Err(error) = request.shutdown_circuit() {
            tracing::debug!("can not close a circuit: {error}");
        }
        return;
    }
    match timeout(ACCEPT, request.accept(Connected::new_empty())).await {
        // The receiver is gone only while the listener is being dropped.
        Ok(Ok(stream)) => {
            let (read, write) = stream.split();
            drop(pipes.send(Pipe::new(read, write)).await);
        }
        Ok(Err(error)) => tracing::debug!("a stream was gone before it was accepted: {error}"),
        Err(_) => tracing::debug!("a stream could not be accepted in time"),
    }
}

/// Follows the service's state once arti has bootstrapped. Owns the service, which lives as long as this runs.
async fn watch(
    service: Arc<RunningOnionService>,
    mut ready: watch::Receiver<bool>,
    address: OnionAddress,
    states: watch::Sender<ServiceState>,
) {
    let onion = address.redacted();
    if ready.wait_for(|ready| *ready).await.is_err() {
        tracing::debug!(onion, "the transport is gone");
        return;
    }
    let mut events = service.status_events();
    let mut was_reachable = false;
    while let Some(status) = events.next().await {
        let now = match status.state() {
            State::Running | State::DegradedReachable => ServiceState::Reachable,
            _ if !was_reachable => ServiceState::Publishing,
            State::Shutdown => ServiceState::Interrupted("arti has shut the service down".into()),
            State::Bootstrapping => ServiceState::Publishing,
            State::DegradedUnreachable => {
                ServiceState::Interrupted("Tor's directories did not take the descriptor".into())
            }
            State::Recovering => ServiceState::Interrupted("no introduction points".into()),
            state => ServiceState::Interrupted(format!("arti says {state:?}")),
        };
        was_reachable |= now == ServiceState::Reachable;
        if let (false, Some(problem)) = (now == ServiceState::Reachable, status.current_problem()) {
            tracing::debug!(onion, "arti reports: {problem:?}");
        }
        let interrupted = matches!(now, ServiceState::Interrupted(_));
        if set(&states, now.clone()) {
            match interrupted {
                true => tracing::warn!(onion, state = ?now, "service interrupted"),
                false => tracing::info!(onion, state = ?now, "service"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::OnionKeys;

    #[test]
    fn a_key_of_another_address_is_refused() {
        let (ours, other) = (OnionKeys::generate().unwrap(), OnionKeys::generate().unwrap());
        assert!(keypair(&ours.secret, &ours.address).is_ok());
        assert_eq!(keypair(&ours.secret, &other.address).err().unwrap().kind(), ErrorKind::IdentityInvalid);
    }
}
