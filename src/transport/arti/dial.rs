//! Dialling through arti.
//!
//! Not by `TorClient::connect`: it makes a new set of client keys for each dial to a service that only some find, and by arti's rules sets share neither circuit
//! nor descriptor. So this has a connector of its own, made when arti has bootstrapped, with one set of keys for each address and secret.

use super::{Client, failure};
use crate::error::{Error, ErrorKind, Result};
use crate::identity::OnionAddress;
use crate::secret::ClientAuthSecret;
use crate::transport::retry::{Attempt, Failure};
use crate::transport::{Pipe, Target};
use arti_client::{IsolationToken, TorClientConfig};
use futures::StreamExt as _;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::timeout;
use tor_circmgr::isolation::StreamIsolationBuilder;
use tor_hsclient::{HsClientConnector, HsClientSecretKeys, HsClientSecretKeysBuilder};
use tor_hscrypto::pk::{HsClientDescEncKey, HsClientDescEncKeypair, HsClientDescEncSecretKey, HsId};
use tor_llcrypto::pk::curve25519::StaticSecret;
use tor_netdir::{DirEvent, Timeliness};
use tor_proto::client::stream::StreamParameters;
use tor_rtcompat::tokio::TokioRustlsRuntime;

/// How long a service may take to accept a stream on a circuit that is there.
const BEGIN: Duration = Duration::from_secs(20);
/// Labels and sets of keys that are remembered. Beyond, all are forgotten: what was dialled by them is dialled on new circuits.
const MAX_REMEMBERED: usize = 4096;

type Connector = HsClientConnector<TokioRustlsRuntime>;
/// By address and the place of the secret in memory, which is held so that no other takes the place.
type Keys = HashMap<(OnionAddress, usize), (Arc<ClientAuthSecret>, HsClientSecretKeys)>;

/// What is kept between dials.
#[derive(Default)]
pub(super) struct Dialler {
    connector: Mutex<Option<Connector>>,
    /// One token per label: arti gives streams with different tokens different circuits.
    isolation: Mutex<HashMap<String, IsolationToken>>,
    /// Made once for each address and secret: only clones of a set share circuits.
    keys: Mutex<Keys>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Dialler {
    /// One try, of a client that has bootstrapped.
    pub(super) async fn connect(
        &self,
        client: &Client,
        config: &TorClientConfig,
        onion: &OnionAddress,
        target: &Target,
    ) -> Attempt<Pipe> {
        let port = target.port;
        let connector = self.connector(client, config).map_err(Failure::Final)?;
        let keys = self.keys(onion, target.client.as_ref()).map_err(Failure::Final)?;
        let isolation = StreamIsolationBuilder::new().stream_isolation(Box::new(self.token(&target.isolation))).build();
        let isolation = isolation.map_err(|error| Failure::Final(internal("arti does not isolate").because(error)))?;
        let directory = client.dirmgr().map_err(|error| failure::of_dial(onion, port, error))?;
        let directory = directory.netdir(Timeliness::Timely).map_err(|error| failure::of_dial(onion, port, error))?;
        let tunnel = connector.get_or_launch_tunnel(&directory, HsId::from(*onion.public_key()), keys, isolation).await;
        let tunnel = tunnel.map_err(|error| failure::of_dial(onion, port, error))?;
        let mut parameters = StreamParameters::default();
        parameters.suppress_hostname().suppress_begin_flags().optimistic(false);
        let stream = timeout(BEGIN, tunnel.begin_stream("", port, Some(parameters))).await;
        let stream = stream.map_err(|_| failure::silent(onion))?;
        let stream = stream.map_err(|error| failure::of_dial(onion, port, error))?;
        let (read, write) = stream.split();
        Ok(Pipe::new(read, write))
    }

    fn connector(&self, client: &Client, config: &TorClientConfig) -> Result<Connector> {
        let mut connector = lock(&self.connector);
        if let Some(connector) = &*connector {
            return Ok(connector.clone());
        }
        let failed = |error| internal("arti has no circuits for onion services").because(error);
        let circuits = client.hs_circ_pool().map_err(failed)?;
        let directory = client.dirmgr().map_err(failed)?;
        let prompts = directory.events().filter_map(async |event| (event == DirEvent::NewConsensus).then_some(()));
        let made = Connector::new(client.runtime().clone(), circuits, config, Box::pin(prompts));
        let made = made.map_err(|error| internal("arti can not dial onion services").because(error))?;
        Ok(connector.insert(made).clone())
    }

    fn token(&self, label: &str) -> IsolationToken {
        let mut tokens = lock(&self.isolation);
        if tokens.len() >= MAX_REMEMBERED {
            tokens.clear();
        }
        *tokens.entry(label.to_owned()).or_insert_with(IsolationToken::new)
    }

    fn keys(&self, onion: &OnionAddress, secret: Option<&Arc<ClientAuthSecret>>) -> Result<HsClientSecretKeys> {
        let Some(secret) = secret else { return Ok(HsClientSecretKeys::none()) };
        let mut known = lock(&self.keys);
        let place = (*onion, Arc::as_ptr(secret) as usize);
        if let Some((_, keys)) = known.get(&place) {
            return Ok(keys.clone());
        }
        if known.len() >= MAX_REMEMBERED {
            known.clear();
        }
        let key = HsClientDescEncSecretKey::from(StaticSecret::from(*secret.expose()));
        let public = HsClientDescEncKey::from(&key);
        let mut builder = HsClientSecretKeysBuilder::default();
        builder.ks_hsc_desc_enc(HsClientDescEncKeypair::new(public, key));
        let keys = builder
            .build()
            .map_err(|error| internal("arti does not take the client-authorization key").because(error))?;
        known.insert(place, (Arc::clone(secret), keys.clone()));
        Ok(keys)
    }
}

fn internal(what: &str) -> Error {
    Error::new(
        ErrorKind::Internal,
        format!("{what}."),
        "Restart claviger; if it happens again, report it with the output of `-v`.",
    )
}
