//! Machines for tests: a store in a temporary directory, a token, plain TCP on a free loopback port.

use claviger::config::{Config, Pattern, TransportKind};
use claviger::identity::{ClientAuthKeys, Curve, IdentityCard, OnionKeys, StaticPublic, Suites, TokenKind};
use claviger::session::Session;
use claviger::store::{AttestationPolicy, NewMachine, Peer, Store};
use claviger::token::{PinPrompt, Settings, TokenHandle};
use claviger::{Endpoint, transport};
use claviger_hsm::{NewKey, Operation, Pin, PinEntry, PinRequest};
use claviger_testkit::token::PIN;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub struct Pins;

impl PinEntry for Pins {
    fn pin(&mut self, _: &PinRequest<'_>) -> claviger_hsm::Result<Pin> {
        Pin::new(PIN.into())
    }
}

impl PinPrompt for Pins {}

pub fn hsm_curve(curve: Curve) -> claviger_hsm::Curve {
    match curve {
        Curve::X25519 => claviger_hsm::Curve::X25519,
        Curve::P256 => claviger_hsm::Curve::P256,
    }
}

/// Makes a key where `locator` says and gives the public half.
pub fn generate(locator: &str, curve: Curve) -> StaticPublic {
    let mut pins = Pins;
    let mut operation = Operation::within(Duration::from_secs(60), &mut pins);
    let new = NewKey::new(hsm_curve(curve));
    let (_, public) = claviger_hsm::generate(&locator.parse().unwrap(), &new, &mut operation).unwrap();
    StaticPublic::new(curve, public.as_bytes()).unwrap()
}

/// One machine: its directory lives as long as it does.
pub struct Machine {
    pub dir: tempfile::TempDir,
    pub card: IdentityCard,
    pub locator: String,
    pub config: Config,
    /// Its TCP port, kept from others until it listens.
    reserved: Option<TcpListener>,
}

impl Machine {
    /// Makes the key at `locator` (`None`: a software key of its own) and the store.
    pub fn new(name: &str, locator: Option<String>, curve: Curve, suites: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let locator = locator.unwrap_or_else(|| format!("file:{}", dir.path().join("key.pem").display()));
        let onion = OnionKeys::generate().unwrap();
        let auth = ClientAuthKeys::generate().unwrap();
        let card = IdentityCard {
            identifier: name.parse().unwrap(),
            role: name.parse().unwrap(),
            token: if locator.starts_with("file:") { TokenKind::Software } else { TokenKind::Hardware },
            attestation: None,
            static_public: generate(&locator, curve),
            onion_address: onion.address,
            client_auth: auth.public,
            suites: suites.parse::<Suites>().unwrap(),
        };
        let machine = NewMachine {
            card: card.clone(),
            token: locator.clone(),
            onion: onion.secret,
            client_auth: auth.secret,
            attestation: AttestationPolicy::default(),
        };
        Store::create(&dir.path().join("store"), &machine).unwrap();
        let reserved = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut config = Config::default();
        config.transport.kind = TransportKind::Tcp;
        config.transport.tcp.listen = reserved.local_addr().unwrap();
        config.transport.dial_timeout = Duration::from_secs(10);
        config.handshake.timeout = Duration::from_secs(10);
        config.token.timeout = Duration::from_secs(10);
        Self { dir, card, locator, config, reserved: Some(reserved) }
    }

    pub fn software(name: &str) -> Self {
        Self::new(name, None, Curve::X25519, "ChaChaPoly_BLAKE2s")
    }

    pub fn store(&self) -> Store {
        Store::open(&self.dir.path().join("store")).unwrap()
    }

    pub fn address(&self) -> SocketAddr {
        self.config.transport.tcp.listen
    }

    /// Records the other machine, as the ceremony does, and where it listens.
    pub fn meet(&mut self, other: &Self) {
        self.store().add_peer(&Peer::from_card(&other.card), "test").unwrap();
        self.config.transport.tcp.peers.insert(other.card.identifier.clone(), other.address());
    }

    /// Both record each other.
    pub fn introduce(&mut self, other: &mut Self) {
        self.meet(other);
        other.meet(self);
    }

    pub fn token(&self) -> TokenHandle {
        TokenHandle::open(&self.locator, &self.card.static_public, self.settings()).unwrap()
    }

    /// The machine's token settings, with the PIN of tests.
    pub fn settings(&self) -> Settings {
        Settings { config: self.config.token.clone(), ..Settings::new(self.card.identifier.as_str(), Pins) }
    }

    /// Writes claviger.toml for the program, which listens on the machine's port from now on.
    pub fn configure(&mut self, more: &str) -> PathBuf {
        self.reserved = None;
        let mut text =
            format!("{more}\n[transport]\nkind = \"tcp\"\n[transport.tcp]\nlisten = \"{}\"\n", self.address());
        text.push_str("[transport.tcp.peers]\n");
        for (peer, address) in &self.config.transport.tcp.peers {
            text.push_str(&format!("{peer} = \"{address}\"\n"));
        }
        let store = self.dir.path().join("store");
        std::fs::write(store.join("claviger.toml"), text).unwrap();
        store
    }

    pub async fn endpoint(&mut self, pattern: Pattern) -> Endpoint {
        self.reserved = None;
        let mut config = self.config.clone();
        config.handshake.pattern = pattern;
        let transport = transport::open(&config.transport, Path::new(self.dir.path())).await.unwrap();
        let (store, token) = (self.store(), self.token());
        // From here on operations count: opening made one to see that the token's key is the store's.
        assert_eq!(token.operations(), 0);
        Endpoint::new(store, token, transport, config).unwrap()
    }
}

/// Says something in both directions at once, more than a record holds, and ends properly.
pub async fn talk(a: &mut Session, b: &mut Session) {
    async fn say_and_hear(session: &mut Session, word: u8) -> Vec<u8> {
        let (mut read, mut write) = tokio::io::split(session);
        let said = vec![word; 100_000];
        let mut heard = Vec::new();
        let saying = async {
            write.write_all(&said).await.unwrap();
            write.shutdown().await.unwrap();
        };
        let ((), n) = tokio::join!(saying, read.read_to_end(&mut heard));
        assert_eq!(n.unwrap(), 100_000);
        heard
    }
    let (at_a, at_b) = tokio::join!(say_and_hear(a, 1), say_and_hear(b, 2));
    assert!(at_a.iter().all(|byte| *byte == 2) && at_b.iter().all(|byte| *byte == 1));
}

/// Runs an async test in this thread, with a bound.
pub fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(120), test).await.expect("the test hangs") });
    runtime.shutdown_background();
}
