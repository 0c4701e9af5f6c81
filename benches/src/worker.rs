//! What this program does when it is started again as one end of a measurement.

use crate::Result;
use crate::link::{self, BoxStream, CHUNK, Dialler, Kind};
use clap::Subcommand;
use claviger::Session;
use claviger::noise::knock::MAX_SEEN;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional_with_sizes};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::sleep;

/// The ends. Hidden: this program starts itself.
#[derive(Debug, Subcommand)]
#[command(hide = true)]
pub enum Worker {
    /// Takes in streams and answers what is asked on them.
    Answer {
        /// What carries them.
        kind: Kind,
        /// Where the keys are.
        dir: PathBuf,
        /// Where to listen.
        address: SocketAddr,
    },
    /// Takes in streams and forwards each to a TCP port.
    Exit {
        /// What carries them.
        kind: Kind,
        /// Where the keys are.
        dir: PathBuf,
        /// Where to listen.
        address: SocketAddr,
        /// Where to.
        to: SocketAddr,
    },
    /// Takes in TCP connections and forwards each by a stream.
    Entry {
        /// What carries it.
        kind: Kind,
        /// Where the keys are.
        dir: PathBuf,
        /// Where to listen.
        address: SocketAddr,
        /// Where to.
        to: SocketAddr,
    },
    /// Sends on one stream for a while, and prints GB/s: something to hold a profiler to.
    Load {
        /// What carries it.
        kind: Kind,
        /// How long, in seconds.
        seconds: u64,
    },
    /// Opens many streams, uses each once, and holds them.
    Hold {
        /// What carries them.
        kind: Kind,
        /// Where the keys are.
        dir: PathBuf,
        /// Where to.
        to: SocketAddr,
        /// How many.
        count: usize,
        /// Sessions without a stream, after one has ended.
        #[arg(long)]
        bare: bool,
    },
}

impl Worker {
    /// Works until its standard input ends.
    ///
    /// # Errors
    /// Those of setting it up.
    pub fn run(self) -> Result<()> {
        if let Self::Load { kind, seconds } = self {
            return crate::rows::load(kind, seconds);
        }
        let files = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: files.maximum, maximum: files.maximum })?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let go_on = Notify::new();
        let result = runtime.block_on(async {
            tokio::select! {
                result = self.work(&go_on) => result,
                () = input_ends(&go_on) => Ok(()),
            }
        });
        runtime.shutdown_background();
        result
    }

    async fn work(self, go_on: &Notify) -> Result<()> {
        match self {
            Self::Answer { kind, dir, address } => link::serve(kind, &dir, address, ready, link::answer).await,
            Self::Exit { kind, dir, address, to } => {
                let take = move |stream| async move {
                    let onward = TcpStream::connect(to).await?;
                    onward.set_nodelay(true)?;
                    forward(stream, Box::new(onward)).await
                };
                link::serve(kind, &dir, address, ready, take).await
            }
            Self::Entry { kind, dir, address, to } => {
                let dialler = Arc::new(Dialler::new(kind, &dir, to).await?);
                let listener = TcpListener::bind(address).await?;
                ready();
                loop {
                    let (tcp, _) = listener.accept().await?;
                    tcp.set_nodelay(true)?;
                    let dialler = Arc::clone(&dialler);
                    tokio::spawn(async move { forward(Box::new(tcp), dialler.dial().await?).await });
                }
            }
            Self::Load { .. } => Ok(()),
            Self::Hold { kind, dir, to, count, bare } => {
                hold(&Dialler::new(kind, &dir, to).await?, count, bare, go_on).await
            }
        }
    }
}

async fn forward(mut one: BoxStream, mut other: BoxStream) -> Result<()> {
    copy_bidirectional_with_sizes(&mut one, &mut other, CHUNK, CHUNK).await?;
    Ok(())
}

/// What is held.
enum Held {
    #[allow(dead_code, reason = "it is there to take memory")]
    Stream(BoxStream),
    #[allow(dead_code, reason = "it is there to take memory")]
    Session(Session, Option<BoxStream>),
}

/// One before the parent looks, then all of them.
async fn hold(dialler: &Dialler, count: usize, bare: bool, go_on: &Notify) -> Result<()> {
    let mut held = Vec::with_capacity(count);
    held.push(once(dialler, bare).await?);
    ready();
    go_on.notified().await;
    while held.len() < count {
        // No more within the listener's window than it takes of one peer.
        if held.len() % (MAX_SEEN / 2) == 0 {
            sleep(Duration::from_secs(2)).await;
        }
        held.push(once(dialler, bare).await?);
    }
    ready();
    std::future::pending().await
}

/// A stream on which something was said: buffers that are kept after use are there. Of sessions, each has its own.
async fn once(dialler: &Dialler, bare: bool) -> Result<Held> {
    if !matches!(dialler, Dialler::Session(..)) {
        let mut stream = dialler.dial().await?;
        link::echo(&mut stream, 1).await?;
        return Ok(Held::Stream(stream));
    }
    let session = dialler.session().await?;
    let mut stream = link::stream_of(&session).await?;
    link::echo(&mut stream, 1).await?;
    if !bare {
        return Ok(Held::Session(session, Some(stream)));
    }
    stream.shutdown().await?;
    stream.read_to_end(&mut Vec::new()).await?;
    Ok(Held::Session(session, None))
}

fn ready() {
    let mut out = std::io::stdout().lock();
    // A parent that is gone has closed the input, too.
    let _ = writeln!(out, "ready").and_then(|()| out.flush());
}

/// Nothing but line ends is ever sent: each says that the parent has looked.
async fn input_ends(go_on: &Notify) {
    let mut byte = [0];
    let mut input = tokio::io::stdin();
    while let Ok(1) = input.read(&mut byte).await {
        go_on.notify_one();
    }
}
