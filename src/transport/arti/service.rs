//! An onion service that arti publishes.

use super::{Arti, Client, failure};
use crate::error::{Error, ErrorKind, Result};
use crate::identity::OnionAddress;
use crate::secret::OnionSecretKey;
use crate::transport::{BoxPipe, Listener, Service, ServiceState, set, wrong_key};
use arti_client::config::onion_service::OnionServiceConfigBuilder;
use arti_client::{ErrorKind as ArtiKind, HasKind as _, TorClientConfig};
use aws_lc_rs::digest;
use data_encoding::HEXLOWER;
use futures::future::BoxFuture;
use futures::{Stream, StreamExt as _};
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use tor_cell::relaycell::msg::Connected;
use tor_hscrypto::pk::{HsIdKey, HsIdKeypair};
use tor_hsservice::status::State;
use tor_hsservice::{HsNickname, RendRequest, RunningOnionService, StreamRequest};
use tor_llcrypto::pk::ed25519::ExpandedKeypair;
use tor_persist::state_dir::StateDirectory;
use tor_proto::stream::IncomingStreamRequest;

/// Streams that are being accepted at once, and accepted ones that wait to be taken. More wait within Tor.
const BACKLOG: usize = 64;
/// How long accepting a stream may take; it only sends one cell.
const ACCEPT: Duration = Duration::from_secs(20);
/// How long the service of an earlier listener of this process may take to end.
const RELEASE: Duration = Duration::from_secs(5);
/// Pause between two tries to get hold of what it held, and the first pause between two bootstraps.
const PAUSE: Duration = Duration::from_millis(200);
/// Longest pause between two bootstraps.
const LAST_PAUSE: Duration = Duration::from_secs(30);

/// A service that arti publishes. Dropping it ends the service.
pub(super) struct ArtiService {
    pipes: mpsc::Receiver<BoxPipe>,
    state: watch::Receiver<ServiceState>,
    _accept: AbortOnDropHandle<()>,
    _watch: AbortOnDropHandle<()>,
}

impl ArtiService {
    /// Launches the service; it is published once arti has bootstrapped.
    ///
    /// # Errors
    /// `IdentityInvalid` when the key is not the address's, `TransportUnavailable` when another process listens with this state directory,
    /// or arti's state can not be used.
    pub(super) async fn launch(arti: &Arti, service: Service) -> Result<Self> {
        let Arti { client, config, state, .. } = arti;
        let Service { onion, address, port } = service;
        let keypair = keypair(&onion, &address)?;
        let nickname = nickname(&address)?;
        forget(config, state, &nickname).await?;
        let first = arti.launched.lock().unwrap_or_else(PoisonError::into_inner).insert(address);
        let options = OnionServiceConfigBuilder::default()
            .nickname(nickname)
            .build()
            .map_err(|error| internal("arti does not take the service's configuration.").because(error))?;
        let failed = |error| failure::of_setup(state, error);
        // arti keeps a key that it was given once, in memory, and does not take it twice.
        let launched = if first {
            client.launch_onion_service_with_hsid(options, keypair).map_err(failed)?.map(|(a, b)| (a, b.boxed()))
        } else {
            client.launch_onion_service(options).map_err(failed)?.map(|(a, b)| (a, b.boxed()))
        };
        let (running, requests) = launched.ok_or_else(|| internal("arti left the service out."))?;

        let (sender, pipes) = mpsc::channel(BACKLOG);
        let (states, state) = watch::channel(ServiceState::Starting);
        let accept = AbortOnDropHandle::new(tokio::spawn(take_in(requests, port, sender)));
        let watch = AbortOnDropHandle::new(tokio::spawn(watch(client.clone(), running, address, states)));
        Ok(Self { pipes, state, _accept: accept, _watch: watch })
    }
}

impl Listener for ArtiService {
    fn accept(&mut self) -> BoxFuture<'_, Result<BoxPipe>> {
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

/// arti's name of the service in its logs and its state directory. A hash, so that neither holds the address.
fn nickname(address: &OnionAddress) -> Result<HsNickname> {
    let hash = digest::digest(&digest::SHA256, address.public_key());
    let name = format!("claviger-{}", HEXLOWER.encode(&hash.as_ref()[..8]));
    name.parse().map_err(|error| internal("arti does not take the service's name.").because(error))
}

/// Removes what an earlier run left of the service in arti's state directory: introduction points whose keys were in memory only.
async fn forget(config: &TorClientConfig, state: &Path, nickname: &HsNickname) -> Result<()> {
    let directory = StateDirectory::new(state.join(super::settings::STATE), config.fs_mistrust());
    let directory = directory.map_err(|error| unusable(state).because(error))?;
    let give_up = Instant::now() + RELEASE;
    loop {
        match directory.acquire_instance(nickname) {
            Ok(instance) => return instance.purge().map_err(|error| unusable(state).because(error)),
            Err(error) if error.kind() != ArtiKind::LocalResourceAlreadyInUse => {
                return Err(unusable(state).because(error));
            }
            Err(_) if Instant::now() < give_up => sleep(PAUSE).await,
            Err(error) => {
                return Err(Error::new(
                    ErrorKind::TransportUnavailable,
                    format!("Another process publishes this onion service from {}.", state.display()),
                    "End the other claviger that listens for this machine.",
                )
                .because(error));
            }
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
async fn take_in(requests: impl Stream<Item = RendRequest>, port: u16, pipes: mpsc::Sender<BoxPipe>) {
    let streams = tor_hsservice::handle_rend_requests(requests);
    streams.for_each_concurrent(BACKLOG, |request| accept(request, port, &pipes)).await;
}

async fn accept(request: StreamRequest, port: u16, pipes: &mpsc::Sender<BoxPipe>) {
    if !matches!(request.request(), IncomingStreamRequest::Begin(begin) if begin.port() == port) {
        tracing::debug!("a stream to another port: its circuit is closed");
        if let Err(error) = request.shutdown_circuit() {
            tracing::debug!("can not close a circuit: {error}");
        }
        return;
    }
    match timeout(ACCEPT, request.accept(Connected::new_empty())).await {
        // The receiver is gone only while the listener is being dropped.
        Ok(Ok(stream)) => drop(pipes.send(Box::new(stream)).await),
        Ok(Err(error)) => tracing::debug!("a stream was gone before it was accepted: {error}"),
        Err(_) => tracing::debug!("a stream could not be accepted in time"),
    }
}

/// Bootstraps, then follows the service's state. Owns the service, which lives as long as this runs.
async fn watch(
    client: Client,
    service: Arc<RunningOnionService>,
    address: OnionAddress,
    states: watch::Sender<ServiceState>,
) {
    let onion = address.redacted();
    let mut pause = PAUSE;
    while let Err(error) = client.bootstrap().await {
        let error = failure::of_bootstrap(error);
        tracing::warn!(reason = error.kind().as_str(), "{error} {}", error.hint());
        sleep(pause).await;
        pause = (pause * 2).min(LAST_PAUSE);
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
        assert!(nickname(&ours.address).is_ok());
    }
}
