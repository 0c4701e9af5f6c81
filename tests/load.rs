//! Streams of every kind on a session, every byte of them checked: what whole peers carry in a soak.

use claviger::session::{Reset, Stream, error_of, reset_of};
use claviger::{ErrorKind, Session};
use std::sync::LazyLock;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Bytes repeat after so many: a prime, so that no piece of a stream passes for another one.
const PERIOD: usize = 65_521;

/// No stream takes longer, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut random = Random(7);
    let bytes: Vec<u8> = (0..PERIOD).map(|_| random.below(256) as u8).collect();
    bytes.repeat(3)
});

/// Numbers that are the same in every run.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

/// What happens on a stream. Its opener says it in the first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Everything comes back.
    Echo,
    /// The other end ends its direction at once, and reads all.
    Upload,
    /// The opener ends its direction at once, and reads all.
    Download,
    /// The opener gives it up on the way, with a code.
    Reset,
    /// The other end does.
    Refuse,
    /// The opener drops it.
    Drop,
    /// Nothing is read until the rest of the session is done.
    Wait,
}

impl Act {
    const ALL: [Self; 7] =
        [Self::Echo, Self::Upload, Self::Download, Self::Reset, Self::Refuse, Self::Drop, Self::Wait];
}

/// One stream's.
#[derive(Debug, Clone, Copy)]
pub struct Job {
    pub act: Act,
    pub len: u64,
    pub seed: u32,
}

const HEADER: usize = 13;
const CODE: Reset = Reset::Application(77);

impl Job {
    /// By chance: mostly short, some longer than any window.
    pub fn random(random: &mut Random, longest: u64) -> Self {
        let act = Act::ALL[random.below(6) as usize];
        let bound = 1 << random.below(u64::from(longest.ilog2()) + 1);
        Self { act, len: random.below(bound + 1), seed: random.below(1 << 31) as u32 }
    }

    fn header(self) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[0] = self.act as u8;
        header[1..9].copy_from_slice(&self.len.to_be_bytes());
        header[9..].copy_from_slice(&self.seed.to_be_bytes());
        header
    }

    fn parse(header: [u8; HEADER]) -> Self {
        let [act, len @ .., a, b, c, d] = header;
        Self { act: Act::ALL[usize::from(act)], len: u64::from_be_bytes(len), seed: u32::from_be_bytes([a, b, c, d]) }
    }

    fn slice(self, at: u64, len: usize) -> &'static [u8] {
        let start = ((u64::from(self.seed) + at) % PERIOD as u64) as usize;
        &BYTES[start..start + len]
    }

    async fn say(self, to: &mut (impl AsyncWrite + Unpin), len: u64) -> std::io::Result<()> {
        let (mut random, mut at) = (Random(u64::from(self.seed) + 1), 0);
        while at < len {
            let n = (len - at).min(1 + random.below(40_000)) as usize;
            to.write_all(self.slice(at, n)).await?;
            at += n as u64;
        }
        Ok(())
    }

    /// Checks every byte that comes until the end or an error; how many there were.
    async fn hear(self, from: &mut (impl AsyncRead + Unpin)) -> (u64, Option<claviger::Error>) {
        let (mut buffer, mut at) = (vec![0; 32 * 1024], 0);
        loop {
            match from.read(&mut buffer).await {
                Ok(0) => return (at, None),
                Ok(n) => {
                    assert!(buffer[..n] == *self.slice(at, n), "{self:?}: other bytes at {at}");
                    at += n as u64;
                }
                Err(error) => return (at, Some(error_of(error))),
            }
        }
    }

    async fn hear_all(self, from: &mut (impl AsyncRead + Unpin)) {
        let (n, error) = self.hear(from).await;
        assert!(n == self.len && error.is_none(), "{self:?}: {n} bytes, then {error:?}");
    }

    /// At the end that opens it.
    pub async fn begin(self, session: &Session) {
        let mut stream =
            session.open(&"load".parse().unwrap()).await.unwrap_or_else(|error| panic!("{self:?}: {error}"));
        let said = stream.write_all(&self.header()).await;
        match self.act {
            Act::Echo | Act::Upload | Act::Wait => {
                said.unwrap();
                let (mut read, mut write) = tokio::io::split(stream);
                let saying = async {
                    self.say(&mut write, self.len).await.unwrap();
                    write.shutdown().await.unwrap();
                };
                let hearing = async {
                    match self.act {
                        Act::Echo => self.hear_all(&mut read).await,
                        _ => assert_eq!(read.read(&mut [0]).await.unwrap(), 0, "{self:?}"),
                    }
                };
                tokio::join!(saying, hearing);
            }
            Act::Download => {
                said.unwrap();
                stream.shutdown().await.unwrap();
                self.hear_all(&mut stream).await;
            }
            Act::Reset => {
                self.say(&mut stream, self.len).await.unwrap();
                stream.reset(CODE);
            }
            Act::Drop => self.say(&mut stream, self.len).await.unwrap(),
            Act::Refuse => {
                let saying = self.say(&mut stream, self.len).await.map_err(error_of);
                let refused = match saying {
                    Err(error) => error,
                    Ok(()) => error_of(stream.read(&mut [0]).await.unwrap_err()),
                };
                assert_eq!((refused.kind(), reset_of(&refused)), (ErrorKind::StreamReset, Some(CODE)), "{self:?}");
            }
        }
    }

    /// At the other end. `done`: the session's other streams are over.
    async fn answer(mut stream: Stream, mut done: tokio::sync::watch::Receiver<bool>) -> Option<Self> {
        let mut header = [0; HEADER];
        if let Err(error) = stream.read_exact(&mut header).await {
            // Given up before anything of it had left.
            assert_eq!(error_of(error).kind(), ErrorKind::StreamReset);
            return None;
        }
        let job = Self::parse(header);
        match job.act {
            Act::Echo => {
                let (mut read, mut write) = tokio::io::split(stream);
                let mut heard = Vec::new();
                read.read_to_end(&mut heard).await.unwrap_or_else(|error| panic!("{job:?}: {error}"));
                assert_eq!(heard.len() as u64, job.len);
                for (at, piece) in heard.chunks(PERIOD).enumerate() {
                    assert!(*piece == *job.slice((at * PERIOD) as u64, piece.len()), "{job:?}: other bytes");
                }
                write.write_all(&heard).await.unwrap();
                write.shutdown().await.unwrap();
            }
            Act::Upload => {
                stream.shutdown().await.unwrap();
                job.hear_all(&mut stream).await;
            }
            Act::Wait => {
                stream.shutdown().await.unwrap();
                done.wait_for(|done| *done).await.unwrap();
                job.hear_all(&mut stream).await;
            }
            Act::Download => {
                job.say(&mut stream, job.len).await.unwrap();
                stream.shutdown().await.unwrap();
                assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "{job:?}");
            }
            Act::Reset | Act::Drop => {
                let (n, error) = job.hear(&mut stream).await;
                let error = error.unwrap_or_else(|| panic!("{job:?} passes for whole after {n} bytes"));
                let expected = if job.act == Act::Reset { CODE } else { Reset::Dropped };
                assert!(n <= job.len, "{job:?}: {n} bytes");
                assert_eq!((error.kind(), reset_of(&error)), (ErrorKind::StreamReset, Some(expected)), "{job:?}");
            }
            Act::Refuse => {
                let some = job.len / 2;
                job.hear(&mut (&mut stream).take(some)).await;
                stream.reset(CODE);
            }
        }
        Some(job)
    }
}

/// What one end of a session carries: `jobs` opened here, and whatever the other end opens, until it says that it is done.
///
/// With a slow reader at both ends, whose stream fills its window and is not read until everything else has ended.
pub async fn carry(session: &Session, mut jobs: Vec<Job>, expected: usize) {
    jobs.push(Job { act: Act::Wait, len: 1_000_000, seed: jobs.len() as u32 });
    let (done, waiting) = tokio::sync::watch::channel(false);
    let mut opened = JoinSet::new();
    let slow = jobs.len() - 1;
    for job in jobs {
        let session = session.clone();
        opened.spawn(async move {
            timeout(PATIENCE, job.begin(&session)).await.unwrap_or_else(|_| panic!("{job:?} hangs"));
        });
    }
    let mut answered = JoinSet::new();
    let accepting = async {
        for _ in 0..=expected {
            let stream = session.accept().await.unwrap_or_else(|error| panic!("{error}"));
            answered.spawn(Job::answer(stream, waiting.clone()));
        }
        // All but the slow one.
        for _ in 0..expected {
            answered.join_next().await.unwrap().unwrap();
        }
    };
    timeout(PATIENCE, accepting).await.expect("every stream comes, and ends");
    // The other end may be done before this one, and read this one's slow stream.
    for _ in 0..slow {
        opened.join_next().await.unwrap().unwrap();
    }
    done.send(true).unwrap();
    opened.join_next().await.unwrap().unwrap();
    timeout(PATIENCE, answered.join_next()).await.expect("the slow one ends").unwrap().unwrap();
    let rest = async {
        while session.status().streams > 0 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, rest).await.expect("no stream is left");
}
