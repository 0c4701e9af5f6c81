//! Machines for tests: a store in a temporary directory, a token, plain TCP on a free loopback port.

use claviger::ceremony::plan::Plan;
use claviger::config::{Config, Pattern, TransportKind};
use claviger::identity::{
    BackupKey, ClientAuthKeys, Curve, IdentityCard, Kem, KeyPlace, OnionKeys, StaticPublic, Suites, TokenKind,
};
use claviger::secret::SharedSecret;
use claviger::session::{Session, Stream};
use claviger::store::{AttestationPolicy, NewIdentity, NewMachine, Peer, SealKey, SealState, Store, seal_point};
use claviger::token::{Notify, PinPrompt, Settings, TokenHandle};
use claviger::{Endpoint, transport};
use claviger_hsm::{KeepPin, NewKey, Operation, Pin, PinEntry, PinRequest, Purpose};
use claviger_testkit::{cards, token};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Gives the PINs that tokens are made with in tests.
pub struct Pins(pub &'static str);

impl Pins {
    /// A virtual card has its factory's PIN, any other token that of the kit.
    pub fn of(locator: &str) -> Self {
        let card = locator.starts_with("piv:") || locator.starts_with("openpgp:");
        Self(if card { cards::PIN } else { token::PIN })
    }
}

impl PinEntry for Pins {
    fn pin(&mut self, request: &PinRequest<'_>) -> claviger_hsm::Result<Pin> {
        let pin = if request.purpose == Purpose::AdminPin { cards::ADMIN_PIN } else { self.0 };
        Pin::new(pin.into())
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
    generate_as(locator, &NewKey::new(hsm_curve(curve)))
}

fn generate_as(locator: &str, new: &NewKey) -> StaticPublic {
    let mut pins = Pins::of(locator);
    let mut operation = Operation::within(Duration::from_secs(60), &mut pins);
    let (_, public) = claviger_hsm::generate(&locator.parse().unwrap(), new, &mut operation).unwrap();
    let curve = match new.curve {
        claviger_hsm::Curve::X25519 => Curve::X25519,
        claviger_hsm::Curve::P256 => Curve::P256,
    };
    StaticPublic::new(curve, public.as_bytes()).unwrap()
}

/// What the token at `locator` answers to the question that opens a store's seal.
fn answer(locator: &str, key: &StaticPublic) -> [u8; 32] {
    let hsm_key = |key: &StaticPublic| claviger_hsm::PublicKey::new(hsm_curve(key.curve()), key.as_bytes()).unwrap();
    let mut pins = Pins::of(locator);
    let mut operation = Operation::within(Duration::from_secs(60), &mut pins);
    let locator = locator.parse().unwrap();
    let mut token = claviger_hsm::open(&locator, Some(&hsm_key(key)), KeepPin::Once, &mut operation).unwrap();
    *token.agree(&hsm_key(&seal_point(key)), &mut operation).unwrap().as_bytes()
}

/// The part of a configuration that names a file with the PIN of the machine's token, which is written.
pub fn pin_file(machine: &Machine) -> String {
    let pin = machine.dir.path().join("pin");
    std::fs::write(&pin, Pins::of(&machine.locator).0).unwrap();
    std::fs::set_permissions(&pin, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    format!("[token]\npin-file = \"{}\"", pin.display())
}

/// A port of this test alone. Below those that the kernel gives out by itself: a program takes it after it was let go, and nobody may have it in between.
fn reserve() -> TcpListener {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(101);
    let ports = std::iter::repeat_with(|| 10_000 + first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000);
    let mut bound = ports.filter_map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port as u16)).ok());
    bound.next().unwrap()
}

/// A port for a program that a test starts: nobody else is given it by the kernel until the program has taken it.
pub fn free_port() -> u16 {
    reserve().local_addr().unwrap().port()
}

/// Seconds since 1970.
pub fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

/// One machine: its directory lives as long as it does.
pub struct Machine {
    pub dir: tempfile::TempDir,
    pub card: IdentityCard,
    pub locator: String,
    /// What its tokens answered when the store was sealed; none for a store that is not.
    answers: Vec<(StaticPublic, [u8; 32])>,
    pub config: Config,
    /// Who is told of its token's waits.
    pub notify: Option<Notify>,
    /// Its TCP port, kept from others until it listens.
    reserved: Option<TcpListener>,
}

impl Machine {
    /// Makes the key at `locator` (`None`: a software key of its own) and the store.
    pub fn new(name: &str, locator: Option<String>, curve: Curve, suites: &str) -> Self {
        Self::with(name, locator, &NewKey::new(hsm_curve(curve)), suites)
    }

    /// The same with a key of one's own wishes. A key that wants to be touched seals nothing: nobody is there yet.
    pub fn with(name: &str, locator: Option<String>, new: &NewKey, suites: &str) -> Self {
        Self::made(name, locator, new, (suites, None), false, None)
    }

    /// With a software key, and another one as its backup.
    pub fn backed(name: &str) -> Self {
        Self::made(name, None, &NewKey::new(claviger_hsm::Curve::X25519), ("ChaChaPoly_BLAKE2s", None), true, None)
    }

    /// With a key at `locator` (`None`: a software key of its own), and a card that offers ML-KEM-768.
    pub fn hybrid(name: &str, locator: Option<String>, curve: Curve, suites: &str) -> Self {
        Self::made(name, locator, &NewKey::new(hsm_curve(curve)), (suites, Some(Kem::MlKem768)), false, None)
    }

    /// With a software key and a plan.
    pub fn planned(name: &str, plan: &Plan) -> Self {
        Self::made(
            name,
            None,
            &NewKey::new(claviger_hsm::Curve::X25519),
            ("ChaChaPoly_BLAKE2s", None),
            false,
            Some(plan),
        )
    }

    fn made(
        name: &str,
        locator: Option<String>,
        new: &NewKey,
        (suites, kem): (&str, Option<Kem>),
        backed: bool,
        plan: Option<&Plan>,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let locator = locator.unwrap_or_else(|| format!("file:{}", dir.path().join("key.pem").display()));
        let backup_token = backed.then(|| format!("file:{}", dir.path().join("backup.pem").display()));
        let backup = backup_token.as_ref().map(|locator| BackupKey {
            static_public: generate_as(locator, new),
            token: TokenKind::Software,
            attestation: None,
        });
        let onion = OnionKeys::generate().unwrap();
        let auth = ClientAuthKeys::generate().unwrap();
        let card = IdentityCard {
            identifier: name.parse().unwrap(),
            role: name.parse().unwrap(),
            token: if locator.starts_with("file:") { TokenKind::Software } else { TokenKind::Hardware },
            attestation: None,
            static_public: generate_as(&locator, new),
            backup,
            onion_address: onion.address,
            client_auth: auth.public,
            suites: suites.parse::<Suites>().unwrap(),
            kem,
        };
        let machine = NewMachine {
            card: card.clone(),
            token: locator.clone(),
            backup_token: backup_token.clone(),
            plan: plan.cloned(),
            onion: onion.secret,
            client_auth: auth.secret,
            attestation: AttestationPolicy::default(),
        };
        let seals = new.touch.is_none_or(|touch| touch == claviger_hsm::Touch::Never);
        let mut answers = Vec::new();
        if seals {
            answers.push((card.static_public.clone(), answer(&locator, &card.static_public)));
            answers.extend(
                backup_token
                    .iter()
                    .zip(&card.backup)
                    .map(|(locator, backup)| (backup.static_public.clone(), answer(locator, &backup.static_public))),
            );
        }
        let keys: Vec<SealKey> = answers.iter().map(seal_key).collect();
        Store::create(&dir.path().join("store"), &machine, &keys).unwrap();
        let reserved = reserve();
        let mut config = Config::default();
        config.transport.kind = TransportKind::Tcp;
        config.transport.tcp.listen = reserved.local_addr().unwrap();
        config.transport.dial_timeout = Duration::from_secs(10);
        config.handshake.timeout = Duration::from_secs(10);
        config.token.timeout = Duration::from_secs(10);
        config.store.allow_unsealed = !seals;
        Self { dir, card, locator, answers, config, notify: None, reserved: Some(reserved) }
    }

    pub fn software(name: &str) -> Self {
        Self::new(name, None, Curve::X25519, "ChaChaPoly_BLAKE2s")
    }

    /// Its store, unlocked: by what its token answered before, so that no operation is made.
    pub fn store(&self) -> Store {
        let mut store = Store::open(&self.dir.path().join("store")).unwrap();
        if let SealState::Sealed(keys) = store.seal_state().unwrap() {
            let answer = self.answers.iter().find(|(key, _)| keys.contains(key)).unwrap();
            store.unlock(&seal_key(answer)).unwrap();
        }
        store
    }

    /// Goes on with its other token.
    pub fn switch(&mut self, place: KeyPlace) {
        let mut store = self.store();
        store.activate(place).unwrap();
        self.locator = store.machine().unwrap().locator().to_owned();
    }

    /// Gives it another key, address and client-authorization key; the present ones hold until `until`.
    pub fn rotate(&mut self, until: u64) {
        self.rotate_to(self.card.kem, until);
    }

    /// The same, and what its next card offers.
    pub fn rotate_to(&mut self, kem: Option<Kem>, until: u64) {
        let locator = format!("file:{}", self.dir.path().join("next.pem").display());
        let static_public = generate(&locator, self.card.curve());
        let (onion, auth) = (OnionKeys::generate().unwrap(), ClientAuthKeys::generate().unwrap());
        let card = IdentityCard {
            static_public: static_public.clone(),
            token: TokenKind::Software,
            attestation: None,
            backup: None,
            onion_address: onion.address,
            client_auth: auth.public,
            kem,
            ..self.card.clone()
        };
        let answer = (static_public.clone(), answer(&locator, &static_public));
        let next = NewIdentity {
            card: card.clone(),
            token: locator.clone(),
            backup_token: None,
            onion: onion.secret,
            client_auth: auth.secret,
            until,
        };
        self.store().rotate(&next, &[seal_key(&answer)]).unwrap();
        self.answers = vec![answer];
        (self.card, self.locator) = (card, locator);
    }

    /// Seals the store under a new key, to the tokens that it is sealed to.
    pub fn seal_anew(&self) {
        let keys: Vec<SealKey> = self.answers.iter().map(seal_key).collect();
        self.store().seal(&keys).unwrap();
    }

    /// Takes the seal off, as somebody would who has the disk and does not care to hide it.
    pub fn unseal(&mut self) {
        self.store().unseal().unwrap();
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
        let machine = self.store().machine().unwrap();
        TokenHandle::open(machine.locator(), machine.key(), self.settings()).unwrap()
    }

    /// The machine's token settings, with the PIN of tests.
    pub fn settings(&self) -> Settings {
        let settings = Settings::new(self.card.identifier.as_str(), Pins::of(&self.locator));
        Settings { config: self.config.token.clone(), notify: self.notify.clone(), ..settings }
    }

    /// Writes claviger.toml for the program, which listens on the machine's port from now on.
    pub fn configure(&mut self, more: &str) -> PathBuf {
        self.reserved = None;
        let mut text = format!(
            "{more}\n[store]\nallow-unsealed = {}\nkeys = {:?}\n[transport]\nkind = \"tcp\"\n[transport.tcp]\nlisten = \"{}\"\n",
            self.config.store.allow_unsealed,
            self.config.store.keys,
            self.address()
        );
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
        let transport = transport::open(&config, Path::new(self.dir.path())).await.unwrap();
        let (store, token) = (self.store(), self.token());
        // From here on operations count: opening made one to see that the token's key is the store's.
        assert_eq!(token.operations(), 0);
        let former = store.machine().unwrap().former;
        let endpoint = Endpoint::new(store, token, transport, config).unwrap();
        let Some(former) = former else { return endpoint };
        let key = former.card.key(former.active).unwrap();
        endpoint.with_former(TokenHandle::open(&former.token, key, self.settings()).unwrap()).unwrap()
    }
}

fn seal_key((key, agreed): &(StaticPublic, [u8; 32])) -> SealKey {
    SealKey { key: key.clone(), agreed: SharedSecret::new(*agreed) }
}

/// A stream of a session, and its other end.
pub async fn stream(a: &Session, b: &Session) -> (Stream, Stream) {
    let (opened, accepted) = (a.open(&"test".parse().unwrap()).await.unwrap(), b.accept().await.unwrap());
    assert_eq!(opened.id(), accepted.id());
    (opened, accepted)
}

/// Says something in both directions at once, more than a record holds, and ends properly.
pub async fn talk(a: &Session, b: &Session) {
    async fn say_and_hear(stream: Stream, word: u8) -> Vec<u8> {
        let (mut read, mut write) = tokio::io::split(stream);
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
    let (at_a, at_b) = stream(a, b).await;
    let (at_a, at_b) = tokio::join!(say_and_hear(at_a, 1), say_and_hear(at_b, 2));
    assert!(at_a.iter().all(|byte| *byte == 2) && at_b.iter().all(|byte| *byte == 1));
}

/// Runs an async test in this thread, with a bound.
pub fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(120), test).await.expect("the test hangs") });
    // Tasks hold tokens and stores: they end here, not some time after the test.
    runtime.shutdown_timeout(Duration::from_secs(10));
}
