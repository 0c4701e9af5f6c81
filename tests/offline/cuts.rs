//! Somebody between two machines who understands the framing: records cut, dropped, repeated, swapped, shortened, changed, sent back, in both directions of a session with streams.

use crate::load::{Act, Job};
use crate::support::{Machine, run};
use claviger::config::Pattern;
use claviger::endpoint::Connection;
use claviger::session::Session;
use claviger::transport::Pipe;
use claviger::wire::frame;
use claviger::{Endpoint, ErrorKind};
use futures::StreamExt as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, duplex};
use tokio::time::{sleep, timeout};

/// What is done to a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attack {
    Nothing,
    /// Comes twice.
    Repeat,
    /// Comes after the next one.
    Swap,
    Drop,
    /// One bit of it is another.
    Flip,
    /// Its last byte is missing, and its length says so.
    Shorten,
    /// The last record of the other direction comes before it.
    Reflect,
    /// The first record of this direction comes before it, again.
    Replay,
    /// The pipe ends before it.
    Cut,
    /// The pipe ends in the middle of it.
    CutWithin,
}

const ATTACKS: [Attack; 9] = [
    Attack::Repeat,
    Attack::Swap,
    Attack::Drop,
    Attack::Flip,
    Attack::Shorten,
    Attack::Reflect,
    Attack::Replay,
    Attack::Cut,
    Attack::CutWithin,
];

/// What a direction has carried.
#[derive(Debug, Clone, Copy, Default)]
struct Carried {
    records: usize,
    attacked: bool,
}

/// The last record of each direction.
type Last = Arc<Mutex<[Vec<u8>; 2]>>;

/// Carries one direction: the handshake's frame, and then records, of which the one at `at` is attacked.
async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    (attack, at): (Attack, usize),
    last: Last,
    back: bool,
) -> Carried {
    let mut carried = Carried::default();
    let mut first: Option<Vec<u8>> = None;
    let mut handshake = true;
    while let Ok(body) = crate::hostile::read_frame(&mut from).await {
        let record = frame(&body).unwrap();
        if std::mem::take(&mut handshake) {
            if to.write_all(&record).await.is_err() {
                break;
            }
            continue;
        }
        let here = carried.records == at && attack != Attack::Nothing;
        let mut out = record.clone();
        if here {
            carried.attacked = true;
            match attack {
                Attack::Nothing => {}
                Attack::Repeat => out.extend_from_slice(&record),
                Attack::Drop => out.clear(),
                Attack::Flip => {
                    let place = 2 + at * 7 % body.len();
                    out[place] ^= 1 << (at % 8);
                }
                Attack::Shorten => out = frame(&body[..body.len() - 1]).unwrap(),
                Attack::Reflect => {
                    let other = last.lock().unwrap()[usize::from(!back)].clone();
                    carried.attacked = !other.is_empty();
                    out = [other, record.clone()].concat();
                }
                Attack::Replay => match &first {
                    Some(first) => out = [&first[..], &record].concat(),
                    None => carried.attacked = false,
                },
                Attack::Swap => {
                    let next = timeout(Duration::from_millis(200), crate::hostile::read_frame(&mut from)).await;
                    match next {
                        Ok(Ok(next)) => {
                            out = [frame(&next).unwrap(), record.clone()].concat();
                            carried.records += 1;
                        }
                        // Its frame may be half read: no more of this.
                        _ => {
                            carried.attacked = false;
                            let _ = to.write_all(&record).await;
                            break;
                        }
                    }
                }
                Attack::Cut => break,
                Attack::CutWithin => {
                    let _ = to.write_all(&record[..1 + at * 5 % (record.len() - 1)]).await;
                    break;
                }
            }
        }
        first.get_or_insert_with(|| record.clone());
        last.lock().unwrap()[usize::from(back)] = record;
        carried.records += 1;
        if to.write_all(&out).await.is_err() || to.flush().await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
    carried
}

/// What one end has come to.
#[derive(Debug)]
struct End {
    /// Of each stream: whether all of it came, with its end.
    whole: Vec<bool>,
    /// What its streams' errors were.
    errors: Vec<ErrorKind>,
    closed: Result<(), ErrorKind>,
}

impl End {
    fn is_whole(&self) -> bool {
        self.whole == [true; 4] && self.errors.is_empty() && self.closed.is_ok()
    }
}

const SAID: [u64; 2] = [30_000, 12_000];

/// Says something, hears something, checks every byte, and takes only what is whole for whole.
async fn talk(stream: claviger::session::Stream, opened: bool) -> (bool, Option<ErrorKind>) {
    let [mine, theirs] = if opened { SAID } else { [SAID[1], SAID[0]] };
    let job = |len| Job { act: Act::Echo, len, seed: stream.id() };
    let (mine, theirs) = (job(mine), job(theirs));
    let (mut read, mut write) = tokio::io::split(stream);
    let saying = async {
        mine.say(&mut write, mine.len).await?;
        write.shutdown().await
    };
    let (said, (n, error)) = tokio::join!(saying, theirs.hear(&mut read));
    let whole = error.is_none();
    assert!(if whole { n == theirs.len } else { n <= theirs.len }, "{n} bytes");
    let said = said.err().map(|error| claviger::session::error_of(error).kind());
    (whole, error.map(|error| error.kind()).or(said))
}

async fn converse(session: claviger::Result<Session>) -> Option<End> {
    let session = session.ok()?;
    let (mut whole, mut errors) = (Vec::new(), Vec::new());
    let opening = async {
        let mut talks = Vec::new();
        for _ in 0..2 {
            match session.open(&"test".parse().unwrap()).await {
                Ok(stream) => talks.push(talk(stream, true)),
                Err(_) => break,
            }
        }
        futures::future::join_all(talks).await
    };
    let accepting = async {
        let mut talks = Vec::new();
        for _ in 0..2 {
            match session.accept().await {
                Ok(stream) => talks.push(tokio::spawn(talk(stream, false))),
                Err(_) => break,
            }
        }
        futures::future::join_all(talks).await
    };
    let talking = async { tokio::join!(opening, accepting) };
    // A record that is held back holds everything up; whoever waits longer than that says so.
    if let Ok((opened, accepted)) = timeout(Duration::from_secs(8), talking).await {
        for (one, error) in opened.into_iter().chain(accepted.into_iter().map(|talk| talk.unwrap())) {
            whole.push(one);
            errors.extend(error);
        }
    }
    let closed = timeout(Duration::from_secs(30), session.close()).await.expect("closing has an end");
    Some(End { whole, errors, closed: closed.map_err(|error| error.kind()) })
}

struct Pair {
    cosigner: Machine,
    caller: Endpoint,
    answerer: Endpoint,
    _wallet: Machine,
}

impl Pair {
    async fn new(suite: &str) -> Self {
        let machine = |name| Machine::new(name, None, claviger::identity::Curve::X25519, suite);
        let (mut wallet, mut cosigner) = (machine("wallet"), machine("cosigner"));
        wallet.introduce(&mut cosigner);
        for machine in [&mut wallet, &mut cosigner] {
            let limits = &mut machine.config.limits;
            (limits.per_peer, limits.sessions, limits.sessions_per_peer) = (10_000, 10_000, 1_000);
            machine.config.handshake.timeout = Duration::from_secs(4);
            machine.config.session.drain = Duration::from_secs(3);
        }
        let (caller, answerer) = (wallet.endpoint(Pattern::Kk1).await, cosigner.endpoint(Pattern::Kk1).await);
        Self { cosigner, caller, answerer, _wallet: wallet }
    }

    /// A session with an attacker in the middle; what both ends come to, if they have one, and what each direction carried.
    async fn attacked(&self, out: (Attack, usize), back: (Attack, usize)) -> ([Option<End>; 2], [Carried; 2]) {
        let (caller_pipe, near) = duplex(32 * 1024);
        let (answerer_pipe, far) = duplex(32 * 1024);
        let ((near_read, near_write), (far_read, far_write)) = (tokio::io::split(near), tokio::io::split(far));
        let last = Last::default();
        let carrying = async {
            tokio::join!(
                carry(near_read, far_write, out, Arc::clone(&last), false),
                carry(far_read, near_write, back, Arc::clone(&last), true)
            )
        };
        let incoming = self.answerer.incoming(4747).unwrap();
        let connection = Connection::new(Pipe::joined(caller_pipe), self.cosigner.card.onion_address, 4747);
        let calling = async {
            converse(self.caller.handshake_initiate(connection, &self.cosigner.card.static_public).await).await
        };
        let answering = async {
            converse(self.answerer.handshake_respond(Pipe::joined(answerer_pipe), &incoming, None).await).await
        };
        let (calls, answers, carried) = tokio::join!(calling, answering, carrying);
        ([calls, answers], carried.into())
    }
}

#[test]
fn every_record_in_every_way() {
    run(async {
        for suite in ["ChaChaPoly_BLAKE2s", "AESGCM_SHA256"] {
            let pair = Pair::new(suite).await;
            let nothing = (Attack::Nothing, 0);
            let (ends, carried) = pair.attacked(nothing, nothing).await;
            assert!(ends.iter().all(|end| end.as_ref().unwrap().is_whole()), "{ends:?}");
            let records = carried.map(|carried| carried.records);
            assert!(records.iter().all(|records| *records > 6), "{records:?}");
            let places = |back: usize| (0..records[back]).flat_map(move |at| ATTACKS.map(|attack| (back, attack, at)));
            let trials: Vec<_> = places(0).chain(places(1)).collect();
            let trying = trials.iter().map(|(back, attack, at)| {
                let ways = if *back == 0 { ((*attack, *at), nothing) } else { (nothing, (*attack, *at)) };
                pair.attacked(ways.0, ways.1)
            });
            let results: Vec<_> = futures::stream::iter(trying).buffered(48).collect().await;
            let mut attacked = [0; ATTACKS.len()];
            for ((ends, carried), (back, attack, at)) in results.into_iter().zip(&trials) {
                let what = format!("{suite}: {attack:?} of record {at} ({} → {})", back, 1 - back);
                if !carried[*back].attacked {
                    continue;
                }
                attacked[ATTACKS.iter().position(|one| one == attack).unwrap()] += 1;
                // Who hears the attacked direction: the answerer that of the caller.
                let hearer = &ends[1 - *back];
                // KK1's first record confirms the handshake: without it there is no session.
                let Some(hearer) = hearer else {
                    assert!(*back == 0 && *at <= 1, "{what}: no session");
                    continue;
                };
                // Nobody reads what comes after the last record.
                let late = *at + 1 >= carried[*back].records && matches!(attack, Attack::Repeat);
                if late && hearer.is_whole() {
                    continue;
                }
                assert!(!hearer.is_whole(), "{what} was not noticed: {ends:?}");
                let cut = [ErrorKind::SessionTruncated, ErrorKind::SessionIo];
                let closed = hearer.closed.err();
                let expected = match attack {
                    Attack::Cut | Attack::CutWithin | Attack::Drop | Attack::Swap => {
                        closed.is_some_and(|kind| cut.contains(&kind) || kind == ErrorKind::RecordInvalid)
                    }
                    _ => closed == Some(ErrorKind::RecordInvalid),
                };
                assert!(expected, "{what}: {ends:?}");
                for kind in ends.iter().flatten().flat_map(|end| &end.errors) {
                    let typed = [ErrorKind::SessionInterrupted, ErrorKind::RecordInvalid, ErrorKind::StreamReset];
                    assert!(typed.contains(kind), "{what}: {kind:?} in {ends:?}");
                }
            }
            println!("{records:?} records, attacked {attacked:?}");
            assert!(attacked.iter().all(|count| *count > 10), "{attacked:?}");
            assert!(pair.caller.sessions().len() <= 1 && pair.answerer.sessions().len() <= 1);
        }
        sleep(Duration::ZERO).await;
    });
}
