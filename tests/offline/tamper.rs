//! Every byte of every packet and record changed, every read trickled, lengths lied about.

use crate::support::{Machine, run};
use claviger::Endpoint;
use claviger::config::Pattern;
use claviger::endpoint::Connection;
use claviger::identity::Curve;
use claviger::session::Session;
use claviger::transport::Pipe;
use claviger::wire::FRAME_HEADER;
use futures::StreamExt as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};

/// What happens to the bytes of one direction on their way.
#[derive(Clone, Copy)]
enum Change {
    Nothing,
    /// The byte at this place of the direction's whole stream has its lowest bit changed.
    Flip(usize),
    /// One byte at a time.
    Trickle,
    /// The pipe ends after so many bytes.
    Cut(usize),
}

/// What a direction has carried.
#[derive(Debug, Clone, Copy)]
struct Carried {
    bytes: usize,
    changed: bool,
}

/// Carries bytes from one pipe to the other.
async fn carry(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, change: Change) -> Carried {
    let mut carried = Carried { bytes: 0, changed: false };
    let mut buffer = [0; 4096];
    loop {
        let limit = if matches!(change, Change::Trickle) { 1 } else { buffer.len() };
        let Ok(n) = from.read(&mut buffer[..limit]).await else { break };
        if n == 0 {
            break;
        }
        let at = carried.bytes;
        let mut bytes = buffer[..n].to_vec();
        match change {
            Change::Flip(place) if (at..at + n).contains(&place) => {
                bytes[place - at] ^= 1;
                carried.changed = true;
            }
            Change::Cut(place) if at + n > place => {
                carried.changed = true;
                let _ = to.write_all(&bytes[..place - at]).await;
                break;
            }
            _ => {}
        }
        carried.bytes += n;
        if to.write_all(&bytes).await.is_err() || to.flush().await.is_err() {
            break;
        }
        if matches!(change, Change::Trickle) {
            tokio::task::yield_now().await;
        }
    }
    let _ = to.shutdown().await;
    carried
}

/// Few enough at once for each to be in time.
async fn in_turns<T>(trials: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    futures::stream::iter(trials).buffered(160).collect().await
}

struct Pair {
    wallet: Machine,
    cosigner: Machine,
    caller: Endpoint,
    answerer: Endpoint,
}

impl Pair {
    async fn new(pattern: Pattern) -> Arc<Self> {
        Self::of(Machine::software("wallet"), Machine::software("cosigner"), pattern).await
    }

    /// With ML-KEM-768.
    async fn hybrid(pattern: Pattern) -> Arc<Self> {
        let machine = |name| Machine::hybrid(name, None, Curve::X25519, "ChaChaPoly_BLAKE2s");
        Self::of(machine("wallet"), machine("cosigner"), pattern).await
    }

    async fn of(mut wallet: Machine, mut cosigner: Machine, pattern: Pattern) -> Arc<Self> {
        wallet.introduce(&mut cosigner);
        for machine in [&mut wallet, &mut cosigner] {
            machine.config.handshake.timeout = Duration::from_millis(1500);
            machine.config.limits.per_peer = 10_000;
        }
        let (caller, answerer) = (wallet.endpoint(pattern).await, cosigner.endpoint(pattern).await);
        Arc::new(Self { wallet, cosigner, caller, answerer })
    }

    /// One handshake and two records each way over a pipe with changes; what each end heard, and the bytes that each direction carried.
    async fn converse(&self, out: Change, back: Change) -> (Outcome, Outcome, [Carried; 2]) {
        let _ = &self.wallet;
        let (caller_pipe, near) = duplex(64 * 1024);
        let (answerer_pipe, far) = duplex(64 * 1024);
        let ((near_read, near_write), (far_read, far_write)) = (tokio::io::split(near), tokio::io::split(far));
        let carrying = async { tokio::join!(carry(near_read, far_write, out), carry(far_read, near_write, back)) };
        let incoming = self.answerer.incoming(4747).unwrap();
        let key = &self.cosigner.card.static_public;
        let address = self.cosigner.card.onion_address;
        let calling = async {
            let connection = Connection::new(Pipe::joined(caller_pipe), address, 4747);
            Outcome::of(self.caller.handshake_initiate(connection, key).await, true).await
        };
        let answering = async { Outcome::of(self.respond(answerer_pipe, &incoming).await, false).await };
        let (at_caller, at_answerer, carried) = tokio::join!(calling, answering, carrying);
        (at_caller, at_answerer, [carried.0, carried.1])
    }

    async fn respond(&self, pipe: DuplexStream, incoming: &claviger::endpoint::Incoming) -> claviger::Result<Session> {
        self.answerer.handshake_respond(Pipe::joined(pipe), incoming, None).await
    }
}

/// How long each step may take.
const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// The handshake failed.
    Refused,
    /// It did not; then this was heard, and whether it and the session ended properly.
    Heard(Vec<u8>, bool),
}

const SAID: [&[u8]; 2] = [b"first record", b"second"];

impl Outcome {
    /// The caller opens a stream. Both ends say something on it, and close the session.
    async fn of(session: claviger::Result<Session>, calls: bool) -> Self {
        let Ok(session) = session else { return Self::Refused };
        let service = "test".parse().unwrap();
        let stream = async { if calls { session.open(&service).await } else { session.accept().await } };
        let Ok(Ok(stream)) = tokio::time::timeout(PATIENCE, stream).await else {
            return Self::Heard(Vec::new(), false);
        };
        let (mut read, mut write) = tokio::io::split(stream);
        let saying = async {
            for word in SAID {
                if write.write_all(word).await.is_err() || write.flush().await.is_err() {
                    return;
                }
            }
            let _ = write.shutdown().await;
        };
        let mut heard = Vec::new();
        let hearing = tokio::time::timeout(PATIENCE, read.read_to_end(&mut heard));
        let ((), result) = tokio::join!(saying, hearing);
        drop((read, write));
        let ended = matches!(result, Ok(Ok(_)));
        let closed = tokio::time::timeout(PATIENCE, session.close()).await;
        Self::Heard(heard, ended && matches!(closed, Ok(Ok(()))))
    }

    fn whole() -> Self {
        Self::Heard(SAID.concat(), true)
    }

    /// What was heard is a beginning of what was said, and passes for the whole only when it is.
    fn is_honest(&self) -> bool {
        match self {
            Self::Refused => true,
            Self::Heard(heard, true) => *heard == SAID.concat(),
            Self::Heard(heard, false) => SAID.concat().starts_with(heard),
        }
    }
}

const PATTERNS: [Pattern; 3] = [Pattern::Kk, Pattern::Kk1, Pattern::Xk];

/// Each byte of a session that began by XK; every third of those by KK and KK1, which differ in the handshake alone, and there `noise::tests` changes each.
#[test]
fn every_changed_byte_is_found() {
    for (pattern, step) in [(Pattern::Kk, 3), (Pattern::Kk1, 3), (Pattern::Xk, 1)] {
        run(async { changed(&*Pair::new(pattern).await, step).await });
    }
}

/// Every 37th byte of the encapsulation key and the ciphertext, and of everything else: a prime, so that each pattern meets other bytes of the fields.
#[test]
fn changed_bytes_of_the_kem_are_found() {
    for pattern in PATTERNS {
        run(async { changed(&*Pair::hybrid(pattern).await, 37).await });
    }
}

/// Each conversation with one byte changed, every `step`th.
async fn changed(pair: &Pair, step: usize) {
    let (at_caller, at_answerer, lengths) = pair.converse(Change::Nothing, Change::Nothing).await;
    assert_eq!([at_caller, at_answerer], [Outcome::whole(), Outcome::whole()]);
    let [out, back] = lengths;
    let (out, back) = (out.bytes, back.bytes);
    // Knock, handshake messages and three records a direction, with the lengths in front of them.
    assert!(out > FRAME_HEADER + 26 + 32 && back > FRAME_HEADER + 48);
    let places = (0..out).step_by(step).map(|at| (Change::Flip(at), Change::Nothing));
    let places: Vec<_> = places.chain((0..back).step_by(step).map(|at| (Change::Nothing, Change::Flip(at)))).collect();
    let trials = places.iter().map(|(out, back)| pair.converse(*out, *back));
    let mut tried = 0;
    for ((at_caller, at_answerer, carried), place) in in_turns(trials).await.into_iter().zip(&places) {
        let (hearer, at) = match place {
            (Change::Flip(at), _) => (&at_answerer, format!("outgoing byte {at}")),
            (_, Change::Flip(at)) => (&at_caller, format!("returning byte {at}")),
            _ => unreachable!(),
        };
        assert!(at_caller.is_honest() && at_answerer.is_honest(), "{at}: {at_caller:?} {at_answerer:?}");
        // What goes in one record and what in two is not the same in every run.
        let changed = carried.iter().any(|carried| carried.changed);
        assert!(!changed || *hearer != Outcome::whole(), "{at}: the change was not found");
        tried += usize::from(changed);
    }
    // On a busy machine a handshake may be over, by its time, before its byte was there.
    assert!(tried > places.len() / 4, "{tried} of {}", places.len());
}

#[test]
fn every_cut_is_found() {
    run(async {
        let pair = Pair::new(Pattern::Xk).await;
        let (_, _, [out, back]) = pair.converse(Change::Nothing, Change::Nothing).await;
        let (out, back) = (out.bytes, back.bytes);
        let places = (0..out).map(|at| (Change::Cut(at), Change::Nothing));
        let places: Vec<_> = places.chain((0..back).map(|at| (Change::Nothing, Change::Cut(at)))).collect();
        let trials = places.iter().map(|(out, back)| pair.converse(*out, *back));
        let mut tried = 0;
        for ((at_caller, at_answerer, carried), place) in in_turns(trials).await.into_iter().zip(&places) {
            let (hearer, at) = match place {
                (Change::Cut(at), _) => (&at_answerer, at),
                (_, Change::Cut(at)) => (&at_caller, at),
                _ => unreachable!(),
            };
            assert!(at_caller.is_honest() && at_answerer.is_honest(), "cut at {at}: {at_caller:?} {at_answerer:?}");
            let changed = carried.iter().any(|carried| carried.changed);
            assert!(!changed || *hearer != Outcome::whole(), "cut at {at}: not found");
            tried += usize::from(changed);
        }
        // On a busy machine a handshake may be over, by its time, before its byte was there.
        assert!(tried > places.len() / 4, "{tried} of {}", places.len());
    });
}

#[test]
fn trickled_bytes_are_as_good() {
    run(async {
        for pattern in PATTERNS {
            let pair = Pair::new(pattern).await;
            let (at_caller, at_answerer, _) = pair.converse(Change::Trickle, Change::Trickle).await;
            assert_eq!([at_caller, at_answerer], [Outcome::whole(), Outcome::whole()], "{pattern:?}");
        }
    });
}
