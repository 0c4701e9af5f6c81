//! A caller and a listener, and a wire between them that breaks when it is told to.

use crate::support::Machine;
use claviger::config::Pattern;
use claviger::endpoint::{ConnectOptions, Listening, Resume};
use claviger::identity::Identifier;
use claviger::wire::{KnockPacket, frame};
use claviger::{Endpoint, ErrorKind, Session};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;

pub const SOON: Duration = Duration::from_secs(15);

/// Whatever may be.
pub const ANY: ConnectOptions = ConnectOptions::DEFAULT;

pub fn name(text: &str) -> Identifier {
    text.parse().unwrap()
}

/// What lies between a caller and a machine: it carries connections, until it breaks them.
pub struct Wire {
    pub carried: Arc<Carried>,
}

#[derive(Default)]
pub struct Carried {
    pub connections: Mutex<JoinSet<()>>,
    /// Of so many more connections the machine's answer is lost.
    pub losing: AtomicUsize,
    /// So many more connections end with the caller's knock, which is kept from the machine.
    pub holding: AtomicUsize,
    /// So many more have their answer, and what the caller says to it waits until [`Wire::release`]; it is not told when the caller leaves.
    pub delaying: AtomicUsize,
    /// So many more are held open, and nothing of them arrives.
    pub stalling: AtomicUsize,
    /// These.
    pub stalled: Mutex<Vec<TcpStream>>,
    /// Permits for those that wait.
    pub released: Notify,
    /// After how many bytes the next connection breaks: of the caller's, and of the machine's.
    pub breaking: Mutex<Option<[u64; 2]>>,
    /// What came first on each: the caller's knock, in its frame.
    pub knocks: Mutex<Vec<Vec<u8>>>,
}

impl Wire {
    /// To `machine`, for `caller`.
    pub async fn between(caller: &mut Machine, machine: &Machine) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, target) = (listener.local_addr().unwrap(), machine.address());
        caller.config.transport.tcp.peers.insert(machine.card.identifier.clone(), address);
        let carried = Arc::new(Carried::default());
        let wire = Arc::clone(&carried);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let carried = Arc::clone(&wire);
                wire.connections.lock().unwrap().spawn(async move {
                    let _ = carried.carry(near, target).await;
                });
            }
        });
        Self { carried }
    }

    /// Breaks every connection.
    pub fn cut(&self) {
        *self.carried.connections.lock().unwrap() = JoinSet::new();
    }

    /// Loses the answers of the next connections.
    pub fn lose(&self, connections: usize) {
        self.carried.losing.store(connections, Ordering::SeqCst);
    }

    /// Keeps the knocks of the next connections from the machine.
    pub fn hold(&self, connections: usize) {
        self.carried.holding.store(connections, Ordering::SeqCst);
    }

    /// Keeps back what the caller of the next connection says to the answer.
    pub fn delay(&self) {
        self.carried.delaying.store(1, Ordering::SeqCst);
    }

    /// Has it arrive.
    pub fn release(&self) {
        self.carried.released.notify_one();
    }

    /// Breaks the next connection after so many bytes of the caller's or of the machine's.
    pub fn break_after(&self, caller: u64, machine: u64) {
        *self.carried.breaking.lock().unwrap() = Some([caller, machine]);
    }

    /// The Noise message of the last knock, and the id in front of it.
    pub fn last(&self) -> Vec<u8> {
        let knocks = self.carried.knocks.lock().unwrap();
        knocks.last().unwrap()[2 + KnockPacket::HEADER..].to_vec()
    }
}

impl Carried {
    pub async fn carry(&self, mut near: TcpStream, target: SocketAddr) -> std::io::Result<()> {
        let len = near.read_u16().await?;
        let mut knock = vec![0; usize::from(len)];
        near.read_exact(&mut knock).await?;
        let knock = frame(&knock).unwrap();
        self.knocks.lock().unwrap().push(knock.clone());
        if self.holding.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            return Ok(());
        }
        if self.stalling.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            self.stalled.lock().unwrap().push(near);
            return Ok(());
        }
        let mut far = TcpStream::connect(target).await?;
        let breaking = self.breaking.lock().unwrap().take();
        if let Some([caller, machine]) = breaking {
            let first = knock.len().min(caller as usize);
            far.write_all(&knock[..first]).await?;
            let (near_read, mut near_write) = near.split();
            let (far_read, mut far_write) = far.split();
            let (mut out, mut back) = (near_read.take(caller - first as u64), far_read.take(machine));
            tokio::select! {
                result = copy(&mut out, &mut far_write) => result?,
                result = copy(&mut back, &mut near_write) => result?,
            };
            return Ok(());
        }
        far.write_all(&knock).await?;
        if self.losing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            far.read_u8().await?;
            return Ok(());
        }
        if self.delaying.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            let len = far.read_u16().await?;
            let mut answer = vec![0; usize::from(len)];
            far.read_exact(&mut answer).await?;
            near.write_all(&frame(&answer).unwrap()).await?;
            self.released.notified().await;
        }
        copy_bidirectional(&mut near, &mut far).await.map(drop)
    }
}

/// A wallet that calls a cosigner, over a wire.
pub struct Lab {
    pub wallet: Machine,
    pub cosigner: Machine,
    pub wire: Wire,
    /// For what the cosigner calls.
    pub back: Wire,
    pub caller: Endpoint,
    pub answerer: Endpoint,
    pub listening: Listening,
}

impl Lab {
    pub async fn new(pattern: Pattern) -> Self {
        Self::with(Machine::software("wallet"), Machine::software("cosigner"), pattern).await
    }

    pub async fn with(mut wallet: Machine, mut cosigner: Machine, pattern: Pattern) -> Self {
        wallet.introduce(&mut cosigner);
        let wire = Wire::between(&mut wallet, &cosigner).await;
        let back = Wire::between(&mut cosigner, &wallet).await;
        let (caller, answerer) = (wallet.endpoint(pattern).await, cosigner.endpoint(pattern).await);
        let listening = listen(&answerer).await;
        Self { wallet, cosigner, wire, back, caller, answerer, listening }
    }

    /// Connects; the caller's and the listener's session.
    pub async fn meet(&mut self, options: ConnectOptions) -> (Session, Session) {
        let peer = name("cosigner");
        let meeting = async { tokio::join!(self.caller.connect_peer_with(&peer, options), self.listening.accept()) };
        let (session, accepted) = timeout(SOON, meeting).await.expect("they meet");
        (session.unwrap(), accepted.unwrap())
    }

    /// A session that breaks.
    pub async fn broken(&mut self) {
        let sessions = self.meet(ANY).await;
        self.breaks(sessions).await;
    }

    pub async fn breaks(&self, sessions: (Session, Session)) {
        self.wire.cut();
        both_end(&sessions).await;
    }

    /// A resumption that breaks. `stands`: its confirmation has arrived, so that there is a session at both ends before.
    pub async fn breaks_down(&mut self, stands: bool, what: &str) {
        let peer = name("cosigner");
        let only = ANY.resume(Resume::Only);
        let session = timeout(SOON, self.caller.connect_peer_with(&peer, only)).await.expect("an end");
        let ended = match session {
            Ok(session) => timeout(SOON, session.ended()).await.expect("it breaks").kind(),
            Err(error) => error.kind(),
        };
        let broke = [ErrorKind::HandshakeRefused, ErrorKind::SessionTruncated, ErrorKind::SessionIo];
        assert!(broke.contains(&ended), "{what}: {ended:?}");
        if stands {
            let accepted = timeout(SOON, self.listening.accept()).await.expect("it stands").unwrap();
            timeout(SOON, accepted.ended()).await.expect("it breaks");
        }
    }

    /// What comes of a connection that must not succeed.
    pub async fn refused(&self, options: ConnectOptions) -> ErrorKind {
        let peer = name("cosigner");
        let refused = self.caller.connect_peer_with(&peer, options);
        timeout(SOON, refused).await.expect("an answer").expect_err("a refusal").kind()
    }

    /// Token operations at both ends.
    pub fn spent(&self) -> [u64; 2] {
        [&self.caller, &self.answerer].map(|end| end.token().operations())
    }
}

/// Waits until both ends know that the session is no more.
pub async fn both_end((session, accepted): &(Session, Session)) {
    timeout(SOON, async { tokio::join!(session.ended(), accepted.ended()) }).await.expect("they end");
}

pub async fn listen(endpoint: &Endpoint) -> Listening {
    endpoint.listen(&endpoint.identity().onion_address, 4747).await.unwrap()
}
