//! Tor in this process, by arti.
//!
//! Nothing is connected until the first dial or listen; then arti bootstraps, which it does once and in the background of everything else.
//! Its state directory holds guards and a cache of public directory documents. Keys stay in memory.
//!
//! Several processes of one machine may share the directory: the first one writes it, the others read. Only one can listen, at as many addresses as it has.

mod dial;
mod failure;
mod service;
mod settings;

use super::progress::{self, Stage};
use super::retry;
use super::{Listener, Pipe, Progress, Service, Target, Transport, onion_of};
use crate::config;
use crate::error::{Error, ErrorKind, Result};
use arti_client::status::{BlockageKind, BootstrapStatus};
use arti_client::{BootstrapBehavior, TorClient, TorClientConfig};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::task::AbortOnDropHandle;
use tor_rtcompat::tokio::TokioRustlsRuntime;

/// First pause between two bootstraps; doubles up to [`LAST_PAUSE`]. arti has waited between its own tries before it gives up.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause between two bootstraps.
const LAST_PAUSE: Duration = Duration::from_secs(30);

/// How often arti is asked, beside what it tells by itself.
const ASK: Duration = Duration::from_secs(15);

type Client = Arc<TorClient<TokioRustlsRuntime>>;

/// The arti transport.
pub struct Arti {
    client: Client,
    config: TorClientConfig,
    onion: config::Onion,
    state: PathBuf,
    dialler: dial::Dialler,
    /// Whether arti has bootstrapped, and the task that does it.
    ready: watch::Sender<bool>,
    task: Mutex<Option<AbortOnDropHandle<()>>>,
    /// The services that run.
    listening: Mutex<Vec<Weak<service::Published>>>,
    /// Services launched so far.
    launched: AtomicU32,
    progress: watch::Sender<Progress>,
    _report: AbortOnDropHandle<()>,
}

impl Arti {
    /// A client that is not connected yet, with its state in the configured directory or in `store_dir`. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// `ConfigInvalid` when arti does not take the file, `TransportUnavailable` when its directory can not be used.
    pub async fn open(config: &config::Arti, onion: &config::Onion, store_dir: &Path) -> Result<Self> {
        if onion.proof_of_work && cfg!(not(feature = "pow")) {
            return Err(Error::new(
                ErrorKind::ConfigInvalid,
                "This claviger was built without arti's proof of work.",
                "Build it with the feature `pow`, use `--transport tor`, or remove `proof-of-work` under [onion].",
            ));
        }
        let state = config.state.clone().unwrap_or_else(|| store_dir.join("arti"));
        let config = settings::load(config, onion.vanguards, &state)?;
        // arti's rustls takes the process's provider. If there is one already, that one serves.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime = TokioRustlsRuntime::current().map_err(|error| {
            Error::new(
                ErrorKind::Internal,
                "arti was opened outside a tokio runtime.",
                "Open the transport in an async context.",
            )
            .because(error)
        })?;
        let builder =
            TorClient::with_runtime(runtime).config(config.clone()).bootstrap_behavior(BootstrapBehavior::OnDemand);
        let client = builder.create_unbootstrapped_async().await.map_err(|error| failure::of_setup(&state, error))?;
        let progress = watch::Sender::new(Progress::idle());
        let report = AbortOnDropHandle::new(tokio::spawn(report(client.clone(), progress.clone())));
        Ok(Self {
            client,
            config,
            onion: onion.clone(),
            state,
            dialler: dial::Dialler::default(),
            ready: watch::Sender::new(false),
            task: Mutex::default(),
            listening: Mutex::default(),
            launched: AtomicU32::new(0),
            progress,
            _report: report,
        })
    }

    /// Begins to bootstrap, if that is still to be done; becomes true when arti has enough of the network's directory.
    ///
    /// The bootstrap has a task of its own because arti's can not be cancelled: called again, it would say that it is done.
    fn bootstrap(&self) -> watch::Receiver<bool> {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if task.is_none() {
            progress::set(
                &self.progress,
                Progress { stage: Stage::Connecting, summary: "connecting".into(), ..Progress::idle() },
            );
            *task = Some(AbortOnDropHandle::new(tokio::spawn(bootstrap(self.client.clone(), self.ready.clone()))));
        }
        self.ready.subscribe()
    }

    async fn ready(&self, deadline: Instant) -> Result<()> {
        let begin = Instant::now();
        let mut ready = self.bootstrap();
        match timeout_at(deadline, ready.wait_for(|ready| *ready)).await {
            Ok(Ok(_)) => Ok(()),
            // The sender lives as long as this transport.
            Ok(Err(_)) | Err(_) => Err(failure::not_ready(&self.client, begin.elapsed())),
        }
    }
}

impl Transport for Arti {
    fn name(&self) -> &'static str {
        "arti"
    }

    fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    fn dial<'a>(&'a self, target: &'a Target, deadline: Instant) -> BoxFuture<'a, Result<Pipe>> {
        Box::pin(async move {
            let onion = onion_of(target)?;
            self.ready(deadline).await?;
            retry::until(deadline, || self.dialler.connect(&self.client, &self.config, &onion, target)).await
        })
    }

    fn listen(&self, service: Service) -> BoxFuture<'_, Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let listener = service::ArtiService::launch(self, service).await?;
            let listener: Box<dyn Listener> = Box::new(listener);
            Ok(listener)
        })
    }
}

/// Bootstraps, as often as it takes.
async fn bootstrap(client: Client, ready: watch::Sender<bool>) {
    let mut pause = FIRST_PAUSE;
    while let Err(error) = client.bootstrap().await {
        let error = failure::of_bootstrap(error);
        tracing::warn!(reason = error.kind().as_str(), "{error} {}", error.hint());
        sleep(pause).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
    ready.send_replace(true);
}

/// Follows how far arti is, and what blocks it.
async fn report(client: Client, sender: watch::Sender<Progress>) {
    let mut events = client.bootstrap_events();
    let mut asking = tokio::time::interval(ASK);
    loop {
        // Time makes a directory too old, too, and tells nobody.
        let status = tokio::select! {
            status = events.next() => match status {
                Some(status) => status,
                None => return,
            },
            _ = asking.tick() => client.bootstrap_status(),
        };
        // Nobody has asked it for anything.
        if sender.borrow().stage != Stage::Idle {
            progress::set(&sender, standing(&status));
        }
    }
}

fn standing(status: &BootstrapStatus) -> Progress {
    // 0 to 100; the conversion saturates.
    let percent = (status.as_frac() * 100.0) as u8;
    if status.ready_for_traffic() {
        return Progress::ready();
    }
    let summary = "connecting to the Tor network".to_owned();
    let Some(blockage) = status.blocked() else {
        return Progress { stage: Stage::Connecting, percent, summary, blocked: None };
    };
    let stage = match blockage.kind() {
        BlockageKind::Offline => Stage::Offline,
        BlockageKind::ClockSkewed => Stage::ClockWrong,
        BlockageKind::Filtering | BlockageKind::CantReachTor => Stage::Filtered,
        _ => Stage::Connecting,
    };
    Progress::blocked(stage, percent, summary, &format!("arti does not get on: {}", blockage.message()))
}
