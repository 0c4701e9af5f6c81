//! Machines for measurements: a store and a software key in a directory, plain TCP or Tor between them.

use crate::Result;
use claviger::Endpoint;
use claviger::config::{Config, Pattern, TransportKind};
use claviger::identity::{ClientAuthKeys, Curve, Identifier, IdentityCard, Kem, OnionKeys, StaticPublic, TokenKind};
use claviger::secret::OnionSecretKey;
use claviger::store::{AttestationPolicy, NewMachine, Peer, Store};
use claviger::token::{PinPrompt, Settings, TokenHandle};
use claviger::transport::{self, Transport};
use claviger_hsm::{NewKey, Operation, Pin, PinEntry, PinRequest};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The passphrase of the keys here, which protect nothing.
struct Passphrase;

impl PinEntry for Passphrase {
    fn pin(&mut self, _request: &PinRequest<'_>) -> claviger_hsm::Result<Pin> {
        Pin::new("benchmark".into())
    }
}

impl PinPrompt for Passphrase {}

/// The two machines of a measurement, by what they do.
pub const LISTENER: &str = "listener";
/// See [`LISTENER`].
pub const DIALLER: &str = "dialler";

/// Makes both below `dir`, in a directory each, and introduces them to each other.
///
/// # Errors
/// Those of the token and the store.
pub fn make(dir: &Path, suite: claviger::identity::Suite, kem: Option<Kem>) -> Result<()> {
    let cards: [IdentityCard; 2] =
        [make_one(&dir.join(LISTENER), LISTENER, suite, kem)?, make_one(&dir.join(DIALLER), DIALLER, suite, kem)?];
    for (name, other) in [(LISTENER, &cards[1]), (DIALLER, &cards[0])] {
        Store::open(&store(&dir.join(name)))?.add_peer(&Peer::from_card(other), "for a measurement")?;
    }
    Ok(())
}

fn store(dir: &Path) -> PathBuf {
    dir.join("store")
}

fn make_one(dir: &Path, name: &str, suite: claviger::identity::Suite, kem: Option<Kem>) -> Result<IdentityCard> {
    std::fs::create_dir_all(dir)?;
    let locator = format!("file:{}", dir.join("key.pem").display());
    let mut people = Passphrase;
    let mut operation = Operation::within(Duration::from_secs(60), &mut people);
    let new = NewKey::new(claviger_hsm::Curve::X25519);
    let (_, public) = claviger_hsm::generate(&locator.parse()?, &new, &mut operation)?;
    let (onion, auth) = (OnionKeys::generate()?, ClientAuthKeys::generate()?);
    let card = IdentityCard {
        identifier: name.parse()?,
        role: name.parse()?,
        token: TokenKind::Software,
        attestation: None,
        static_public: StaticPublic::new(Curve::X25519, public.as_bytes())?,
        backup: None,
        onion_address: onion.address,
        client_auth: auth.public,
        suites: suite.to_string().parse()?,
        kem,
    };
    let machine = NewMachine {
        card: card.clone(),
        token: locator,
        backup_token: None,
        plan: None,
        onion: onion.secret,
        client_auth: auth.secret,
        attestation: AttestationPolicy::default(),
    };
    Store::create(&store(dir), &machine, &[])?;
    Ok(card)
}

/// The onion service's key of the machine in `dir`.
///
/// # Errors
/// Those of the store.
pub fn onion_secret(dir: &Path) -> Result<OnionSecretKey> {
    Ok(Store::open(&store(dir))?.onion_secret()?)
}

/// What a machine's endpoint is configured with: no limit is reached, nothing ends by its age.
pub fn config() -> Config {
    let mut config = Config::default();
    config.store.allow_unsealed = true;
    config.handshake.pattern = Pattern::Kk1;
    config.token.timeout = Duration::from_secs(60);
    config.transport.dial_timeout = Duration::from_secs(60);
    config.handshake.timeout = Duration::from_secs(60);
    (config.session.max_age, config.session.idle) = (Duration::from_secs(30 * 86_400), Duration::ZERO);
    config.session.resume_for = Duration::ZERO;
    let limits = &mut config.limits;
    (limits.streams_per_peer, limits.buffer_per_peer) = (4096, 1024);
    (limits.sessions, limits.sessions_per_peer, limits.per_peer) = (1_000_000, 1_000_000, 1_000_000);
    config
}

/// The same over TCP: where this machine listens, and where the other does.
pub fn over_tcp(listen: SocketAddr, peer: Option<(Identifier, SocketAddr)>) -> Config {
    let mut config = config();
    config.transport.kind = TransportKind::Tcp;
    config.transport.tcp.listen = listen;
    // Of one peer no more than `knock::MAX_SEEN` knocks are taken within it, and here one peer has thousands of sessions.
    config.handshake.knock_window = Duration::from_secs(1);
    config.transport.tcp.peers.extend(peer);
    config
}

/// The endpoint of the machine in `dir`.
///
/// # Errors
/// Those of opening it.
pub async fn open(dir: &Path, config: Config) -> Result<Endpoint> {
    let transport = transport::open(&config, dir).await?;
    open_with(dir, config, transport)
}

/// The same with a transport that is there.
///
/// # Errors
/// Those of opening it.
pub fn open_with(dir: &Path, config: Config, transport: Arc<dyn Transport>) -> Result<Endpoint> {
    let store = Store::open(&store(dir))?;
    let machine = store.machine()?;
    let settings =
        Settings { config: config.token.clone(), ..Settings::new(machine.card.identifier.as_str(), Passphrase) };
    let token = TokenHandle::open(machine.locator(), machine.key(), settings)?;
    Ok(Endpoint::new(store, token, transport, config)?)
}
