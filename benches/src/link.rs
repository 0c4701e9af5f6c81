//! Byte streams between two processes over loopback TCP: bare, by rustls, by a session; and what is said on them.

use crate::keys::{Key, PROLOGUE};
use crate::tls::{Cipher, Identity, Provider, Signature, configs, server_name};
use crate::{Result, machines};
use claviger::Session;
use claviger::identity::Curve;
use claviger::noise::{Protocol, Setup, Step, initiator, responder};
use claviger::session::Records;
use claviger::transport::Pipe;
use claviger::wire::Pattern;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OnceCell;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Bytes that are written and read at once.
pub const CHUNK: usize = 64 * 1024;

/// Bytes of an echo.
pub const ECHO: usize = 1024;

/// What carries a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing in between.
    Tcp,
    /// tokio-rustls, TLS 1.3 with this one suite.
    Tls(Provider, Cipher),
    /// The bare record layer.
    Records(Cipher),
    /// A session's stream.
    Session(Cipher),
}

impl Kind {
    /// As it is printed.
    pub fn name(self) -> String {
        match self {
            Self::Tcp => "TCP".into(),
            Self::Tls(provider, _) => format!("rustls, {}", provider.name()),
            Self::Records(_) => "bare records".into(),
            Self::Session(_) => "claviger".into(),
        }
    }

    /// As it is named on the command line of a process of ours.
    pub fn argument(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls(Provider::AwsLc, Cipher::ChaCha) => "tls-aws-lc-chacha",
            Self::Tls(Provider::AwsLc, Cipher::Aes) => "tls-aws-lc-aes",
            Self::Tls(Provider::Ring, Cipher::ChaCha) => "tls-ring-chacha",
            Self::Tls(Provider::Ring, Cipher::Aes) => "tls-ring-aes",
            Self::Records(Cipher::ChaCha) => "records-chacha",
            Self::Records(Cipher::Aes) => "records-aes",
            Self::Session(Cipher::ChaCha) => "session-chacha",
            Self::Session(Cipher::Aes) => "session-aes",
        }
    }

    /// Every kind with this cipher, the one without among them.
    pub fn with(cipher: Cipher) -> Vec<Self> {
        let tls = Provider::ALL.map(|provider| Self::Tls(provider, cipher));
        [&[Self::Session(cipher), Self::Records(cipher), Self::Tcp], tls.as_slice()].concat()
    }
}

impl std::str::FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let all = Cipher::ALL.into_iter().flat_map(Self::with);
        all.into_iter().find(|kind| kind.argument() == text).ok_or_else(|| format!("no kind is called {text}"))
    }
}

/// Makes below `dir` what both ends of every kind need.
///
/// # Errors
/// Those of writing it.
pub fn make(dir: &Path) -> Result<()> {
    for end in [machines::LISTENER, machines::DIALLER] {
        Identity::new(Signature::Ed25519)?.write(&dir.join("tls").join(end))?;
        std::fs::write(dir.join(end), Key::new(Curve::X25519).bytes)?;
    }
    for cipher in Cipher::ALL {
        machines::make(&dir.join(cipher.name()), cipher.suite(), None)?;
    }
    Ok(())
}

/// A port that was free a moment ago.
///
/// # Errors
/// Those of binding one.
pub fn free_port() -> Result<SocketAddr> {
    Ok(std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Any stream.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Any stream, as it is handed around.
pub type BoxStream = Box<dyn Stream>;

fn tls(dir: &Path, provider: Provider, cipher: Cipher) -> Result<(TlsAcceptor, TlsConnector)> {
    let read = |end| Identity::read(&dir.join("tls").join(end));
    let (listener, dialler) = (read(machines::LISTENER)?, read(machines::DIALLER)?);
    let (accepting, dialling) = configs(provider, Some(cipher), None, [&listener, &dialler])?;
    Ok((TlsAcceptor::from(accepting), TlsConnector::from(dialling)))
}

/// The bare record layer on a pipe, after a handshake with two keys that were [made](make).
async fn records(dir: &Path, cipher: Cipher, mut tcp: TcpStream, dialling: bool) -> Result<Records> {
    let key = |end| Ok::<_, crate::Error>(Key::from_bytes(Curve::X25519, &std::fs::read(dir.join(end))?));
    let (own, peer) = (key(machines::LISTENER)?, key(machines::DIALLER)?);
    let (own, peer) = if dialling { (peer, own) } else { (own, peer) };
    let (pattern, curve, suite) = (Pattern::Xk, Curve::X25519, cipher.suite());
    let protocol = Protocol { pattern, kem: None, psk: false, curve, suite };
    let setup = Setup::new(protocol, &own.public, &peer.public, PROLOGUE);
    let mut step = if dialling { initiator(setup) } else { responder(setup) }?;
    loop {
        step = match own.answer(step) {
            Step::Send(send) => {
                tcp.write_all(send.message()).await?;
                send.sent()?
            }
            Step::Receive(receive) => {
                let mut message = vec![0; receive.expected_len()];
                tcp.read_exact(&mut message).await?;
                receive.received(&message)?
            }
            Step::Finished(established) => return Ok(Records::new(Pipe::from(tcp), &established, dialling)?),
            Step::Agree(_) => return Err("an unanswered step".into()),
        };
    }
}

/// Takes in streams of one kind at `address` and hands each to `take`, for ever.
///
/// # Errors
/// Those of listening. A stream that fails ends alone.
pub async fn serve<F>(
    kind: Kind,
    dir: &Path,
    address: SocketAddr,
    ready: impl FnOnce(),
    take: impl Fn(BoxStream) -> F + Clone + Send + Sync + 'static,
) -> Result<()>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    if let Kind::Session(cipher) = kind {
        let dir = dir.join(cipher.name()).join(machines::LISTENER);
        let endpoint = machines::open(&dir, machines::over_tcp(address, None)).await?;
        let mut listening = endpoint.listen(&endpoint.identity().onion_address, 4747).await?;
        ready();
        while let Some(session) = listening.accept().await {
            take_all(session, take.clone());
        }
        return Err("the listener ended".into());
    }
    let listener = TcpListener::bind(address).await?;
    let acceptor = match kind {
        Kind::Tls(provider, cipher) => Some(tls(dir, provider, cipher)?.0),
        _ => None,
    };
    ready();
    loop {
        let (tcp, _) = listener.accept().await?;
        tcp.set_nodelay(true)?;
        let (acceptor, take, dir) = (acceptor.clone(), take.clone(), dir.to_owned());
        tokio::spawn(async move {
            let stream: BoxStream = match (acceptor, kind) {
                (Some(acceptor), _) => Box::new(Box::pin(acceptor.accept(tcp)).await?),
                (None, Kind::Records(cipher)) => Box::new(Box::pin(records(&dir, cipher, tcp, false)).await?),
                (None, _) => Box::new(tcp),
            };
            take(stream).await
        });
    }
}

/// Hands each stream of a session to `take`, until it ends.
pub fn take_all<F>(session: Session, take: impl Fn(BoxStream) -> F + Clone + Send + Sync + 'static)
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    tokio::spawn(async move {
        while let Ok(stream) = session.accept().await {
            tokio::spawn(take(Box::new(stream)));
        }
    });
}

/// A new stream of a session.
///
/// # Errors
/// Those of opening it.
pub async fn stream_of(session: &Session) -> Result<BoxStream> {
    Ok(Box::new(session.open(&"bench".parse()?).await?))
}

/// Opens streams of one kind to a listener.
pub enum Dialler {
    /// See [`Kind::Tcp`].
    Tcp(SocketAddr),
    /// See [`Kind::Tls`].
    Tls(SocketAddr, TlsConnector),
    /// See [`Kind::Records`].
    Records(SocketAddr, PathBuf, Cipher),
    /// See [`Kind::Session`]. All streams are of one session.
    Session(claviger::Endpoint, OnceCell<Session>),
}

impl Dialler {
    /// To what listens at `address`.
    ///
    /// # Errors
    /// Those of setting it up.
    pub async fn new(kind: Kind, dir: &Path, address: SocketAddr) -> Result<Self> {
        Ok(match kind {
            Kind::Tcp => Self::Tcp(address),
            Kind::Tls(provider, cipher) => Self::Tls(address, tls(dir, provider, cipher)?.1),
            Kind::Records(cipher) => Self::Records(address, dir.to_owned(), cipher),
            Kind::Session(cipher) => {
                let peer = (machines::LISTENER.parse()?, address);
                let config = machines::over_tcp(free_port()?, Some(peer));
                let dir = dir.join(cipher.name()).join(machines::DIALLER);
                Self::Session(machines::open(&dir, config).await?, OnceCell::new())
            }
        })
    }

    /// A new stream.
    ///
    /// # Errors
    /// Those of dialling.
    pub async fn dial(&self) -> Result<BoxStream> {
        let tcp = async |address| {
            let tcp = TcpStream::connect(address).await?;
            tcp.set_nodelay(true)?;
            Ok::<_, std::io::Error>(tcp)
        };
        Ok(match self {
            Self::Tcp(address) => Box::new(tcp(*address).await?),
            Self::Tls(address, connector) => {
                Box::new(Box::pin(connector.connect(server_name(), tcp(*address).await?)).await?)
            }
            Self::Records(address, dir, cipher) => Box::new(records(dir, *cipher, tcp(*address).await?, true).await?),
            Self::Session(_, session) => {
                return stream_of(session.get_or_try_init(|| self.session()).await?).await;
            }
        })
    }

    /// A new session. Only of that kind.
    ///
    /// # Errors
    /// Those of connecting.
    pub async fn session(&self) -> Result<Session> {
        let Self::Session(endpoint, _) = self else { return Err("no sessions".into()) };
        Ok(endpoint.connect_peer(&machines::LISTENER.parse()?, None).await?)
    }
}

/// What is asked of the other end, one byte in front of a count.
const SINK: u8 = b's';
const REPEAT: u8 = b'e';

/// The listening end of [`send`] and [`echo`]: does what it is asked until the stream ends.
///
/// # Errors
/// Those of the stream.
pub async fn answer(mut stream: BoxStream) -> Result<()> {
    let mut buffer = Vec::new();
    loop {
        let mut request = [0; 9];
        match stream.read(&mut request[..1]).await? {
            0 => break,
            _ => stream.read_exact(&mut request[1..]).await?,
        };
        let mut left = u64::from_be_bytes(request[1..].try_into()?);
        if request[0] == SINK {
            buffer.resize(CHUNK, 0);
            while left > 0 {
                let most = left.min(CHUNK as u64) as usize;
                match stream.read(&mut buffer[..most]).await? {
                    0 => return Err("the stream ended early".into()),
                    read => left -= read as u64,
                }
            }
            stream.write_u8(SINK).await?;
            stream.flush().await?;
        } else {
            buffer.resize(ECHO, 0);
            for _ in 0..left {
                stream.read_exact(&mut buffer[..ECHO]).await?;
                stream.write_all(&buffer[..ECHO]).await?;
                stream.flush().await?;
            }
        }
        // One that waits for its next request holds nothing.
        buffer = Vec::new();
    }
    stream.shutdown().await?;
    Ok(())
}

async fn ask(stream: &mut BoxStream, what: u8, count: u64) -> Result<()> {
    let mut request = [what; 9];
    request[1..].copy_from_slice(&count.to_be_bytes());
    Ok(stream.write_all(&request).await?)
}

/// Sends so many bytes and waits until the other end has them all.
///
/// # Errors
/// Those of the stream.
pub async fn send(stream: &mut BoxStream, bytes: u64) -> Result<()> {
    ask(stream, SINK, bytes).await?;
    let chunk = vec![0xa5; CHUNK];
    let mut left = bytes;
    while left > 0 {
        let most = left.min(CHUNK as u64) as usize;
        stream.write_all(&chunk[..most]).await?;
        left -= most as u64;
    }
    stream.flush().await?;
    stream.read_u8().await?;
    Ok(())
}

/// Sends a message and waits until it is back, so many times; how long each took.
///
/// # Errors
/// Those of the stream.
pub async fn echo(stream: &mut BoxStream, count: u64) -> Result<Vec<Duration>> {
    ask(stream, REPEAT, count).await?;
    let (message, mut back) = ([7; ECHO], [0; ECHO]);
    let mut times = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let start = Instant::now();
        stream.write_all(&message).await?;
        stream.flush().await?;
        stream.read_exact(&mut back).await?;
        times.push(start.elapsed());
    }
    Ok(times)
}
