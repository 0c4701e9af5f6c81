//! A session that is kept up, over a wire that breaks.

use crate::lab::{ANY, Lab, SOON, both_end, listen, name};
use crate::support::{Machine, run};
use claviger::config::Pattern;
use claviger::endpoint::{Listening, ReconnectOptions, ReconnectState, Reconnecting, Resume};
use claviger::session::{Stream, error_of};
use claviger::{ErrorKind, Session};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, split};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// Everything that is said is said back, on every stream of every session.
async fn echo(mut listening: Listening) {
    let mut sessions = JoinSet::new();
    while let Some(session) = listening.accept().await {
        sessions.spawn(echo_session(session));
    }
}

async fn echo_session(session: Session) {
    let mut streams = JoinSet::new();
    while let Ok(stream) = session.accept().await {
        streams.spawn(async move {
            let (mut read, mut write) = split(stream);
            if copy(&mut read, &mut write).await.is_ok() {
                let _ = write.shutdown().await;
            }
        });
    }
    streams.join_all().await;
}

/// Says so many bytes and hears them again.
async fn say(stream: Stream, bytes: usize) -> Result<(), claviger::Error> {
    let said: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8).collect();
    let (mut read, mut write) = split(stream);
    let mut heard = Vec::new();
    let saying = async {
        write.write_all(&said).await?;
        write.shutdown().await
    };
    let (said_all, heard_all) = tokio::join!(saying, read.read_to_end(&mut heard));
    heard_all.map_err(error_of)?;
    said_all.map_err(error_of)?;
    assert_eq!(heard.len(), said.len(), "an end that is none");
    assert!(heard == said);
    Ok(())
}

fn options() -> ReconnectOptions {
    let mut options = ReconnectOptions::default();
    (options.first_pause, options.longest_pause) = (Duration::from_millis(100), Duration::from_secs(1));
    options
}

/// A lab whose listener says everything back.
async fn echoing(pattern: Pattern) -> (Lab, Reconnecting) {
    let mut lab = Lab::new(pattern).await;
    // Another one in its place, that nobody listens to.
    let listening = std::mem::replace(&mut lab.listening, listen(&lab.caller).await);
    tokio::spawn(echo(listening));
    let kept = lab.caller.reconnecting(&name("cosigner"), options());
    (lab, kept)
}

async fn until(kept: &Reconnecting, wanted: impl Fn(&ReconnectState) -> bool) -> ReconnectState {
    let mut states = kept.watch();
    let seen = timeout(SOON, states.wait_for(|state| wanted(state))).await;
    seen.unwrap_or_else(|_| panic!("it is {:?}", kept.state())).unwrap().clone()
}

#[test]
fn one_dial_for_all_who_ask_and_none_before() {
    run(async {
        let (lab, kept) = echoing(Pattern::Kk1).await;
        assert_eq!((kept.state(), lab.spent()), (ReconnectState::Idle, [0, 0]));
        let asked = (0..50).map(|_| {
            let kept = kept.clone();
            tokio::spawn(async move { say(kept.open(&"echo".parse().unwrap()).await.unwrap(), 1000).await.unwrap() })
        });
        for one in asked.collect::<Vec<_>>() {
            one.await.unwrap();
        }
        assert_eq!(lab.spent(), [1, 1]);
        assert_eq!(kept.state(), ReconnectState::Connected { resumed: false });
        kept.close().await.unwrap();
        assert_eq!(kept.state(), ReconnectState::Closed);
        assert_eq!(kept.open(&"echo".parse().unwrap()).await.unwrap_err().kind(), ErrorKind::SessionClosed);
        assert!(lab.caller.sessions().is_empty());
    });
}

#[test]
fn a_session_that_breaks_is_resumed_at_once() {
    run(async {
        let (lab, kept) = echoing(Pattern::Kk).await;
        let service = "echo".parse().unwrap();
        say(kept.open(&service).await.unwrap(), 1000).await.unwrap();
        let spent = lab.spent();
        for _ in 0..3 {
            let mut open = kept.open(&service).await.unwrap();
            open.write_all(b"half").await.unwrap();
            let mut half = [0; 4];
            open.read_exact(&mut half).await.unwrap();
            sleep(Duration::from_millis(200)).await;
            lab.wire.cut();
            let broke = Instant::now();
            let error = error_of(open.read_u8().await.unwrap_err());
            assert_eq!(error.kind(), ErrorKind::SessionInterrupted, "{error}");
            say(kept.open(&service).await.unwrap(), 1000).await.unwrap();
            assert!(broke.elapsed() < Duration::from_secs(1), "{:?}", broke.elapsed());
            assert_eq!(kept.state(), ReconnectState::Connected { resumed: true });
        }
        assert_eq!(lab.spent(), spent);
        // Later only with the token.
        lab.caller.pass(Duration::from_secs(900));
        lab.wire.cut();
        until(&kept, |state| *state == ReconnectState::Connected { resumed: false }).await;
        say(kept.open(&service).await.unwrap(), 1000).await.unwrap();
        assert!(lab.spent() > spent);
    });
}

#[test]
fn it_waits_for_what_passes_and_stops_at_what_does_not() {
    run(async {
        let (mut wallet, mut cosigner) = (Machine::software("wallet"), Machine::software("cosigner"));
        wallet.introduce(&mut cosigner);
        wallet.config.transport.dial_timeout = Duration::from_millis(200);
        let caller = wallet.endpoint(Pattern::Kk1).await;
        let service = "echo".parse().unwrap();
        let nobody = caller.reconnecting(&name("tower"), options());
        for _ in 0..2 {
            assert_eq!(nobody.open(&service).await.unwrap_err().kind(), ErrorKind::PeerUnknown);
            assert!(
                matches!(nobody.state(), ReconnectState::Stopped(trouble) if trouble.kind == ErrorKind::PeerUnknown)
            );
        }
        // Nobody listens yet.
        let mut patient = options();
        patient.patience = Duration::from_secs(1);
        let kept = caller.reconnecting(&name("cosigner"), patient);
        let error = kept.open(&service).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::DialTimeout), "{error}");
        let answerer = cosigner.endpoint(Pattern::Kk1).await;
        tokio::spawn(echo(listen(&answerer).await));
        until(&kept, |state| matches!(state, ReconnectState::Connected { .. })).await;
        say(kept.open(&service).await.unwrap(), 1000).await.unwrap();
        // Dropping the last handle closes it.
        drop(kept);
        let closed = async {
            while !caller.sessions().is_empty() || !answerer.sessions().is_empty() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(SOON, closed).await.expect("it is closed");
    });
}

/// What the peer has closed stays closed until somebody wants it.
#[test]
fn a_session_that_was_closed_is_begun_anew_when_it_is_wanted() {
    run(async {
        let mut lab = Lab::new(Pattern::Kk1).await;
        let kept = lab.caller.reconnecting(&name("cosigner"), options());
        for operations in 1..3 {
            let (session, accepted) = tokio::join!(kept.session(), lab.listening.accept());
            let sessions = (session.unwrap(), accepted.unwrap());
            assert_eq!(lab.spent(), [operations, operations]);
            sessions.1.close().await.unwrap();
            both_end(&sessions).await;
            until(&kept, |state| *state == ReconnectState::Idle).await;
        }
    });
}

/// Before a session comes to its age there is another one. A stream of the old one goes on, and new ones are never refused.
#[test]
fn it_is_renewed_without_a_gap() {
    run(async {
        let (mut wallet, cosigner) = (Machine::software("wallet"), Machine::software("cosigner"));
        wallet.config.session.max_age = Duration::from_secs(3);
        let mut lab = Lab::with(wallet, cosigner, Pattern::Kk1).await;
        let listening = std::mem::replace(&mut lab.listening, listen(&lab.caller).await);
        tokio::spawn(echo(listening));
        let kept = lab.caller.reconnecting(&name("cosigner"), options());
        let service = "echo".parse().unwrap();
        let mut long = kept.open(&service).await.unwrap();
        let first = *kept.session().await.unwrap().handshake_hash();
        let began = Instant::now();
        let mut words = 0_u32;
        while began.elapsed() < Duration::from_secs(7) {
            long.write_u32(words).await.unwrap();
            assert_eq!(long.read_u32().await.unwrap(), words);
            words += 1;
            let asked = Instant::now();
            say(kept.open(&service).await.unwrap(), 100).await.unwrap();
            assert!(asked.elapsed() < Duration::from_secs(1));
            sleep(Duration::from_millis(20)).await;
        }
        assert_ne!(*kept.session().await.unwrap().handshake_hash(), first);
        assert!(lab.spent()[0] >= 3, "{:?}", lab.spent());
        long.shutdown().await.unwrap();
        assert_eq!(long.read_to_end(&mut Vec::new()).await.unwrap(), 0);
    });
}

/// A renewal may wait for somebody's finger for long. The session that breaks meanwhile is resumed without it.
#[test]
fn it_is_resumed_while_it_is_being_renewed() {
    run(async {
        let (mut wallet, cosigner) = (Machine::software("wallet"), Machine::software("cosigner"));
        wallet.config.session.max_age = Duration::from_secs(10);
        wallet.config.handshake.timeout = Duration::from_secs(60);
        let mut lab = Lab::with(wallet, cosigner, Pattern::Kk1).await;
        let listening = std::mem::replace(&mut lab.listening, listen(&lab.caller).await);
        tokio::spawn(echo(listening));
        let kept = lab.caller.reconnecting(&name("cosigner"), options());
        let service = "echo".parse().unwrap();
        say(kept.open(&service).await.unwrap(), 100).await.unwrap();
        lab.wire.carried.stalling.store(1, Ordering::SeqCst);
        let stalled = async {
            while lab.wire.carried.stalled.lock().unwrap().is_empty() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(SOON, stalled).await.expect("it is being renewed");
        let session = kept.session().await.unwrap();
        lab.wire.cut();
        session.ended().await;
        until(&kept, |state| *state == ReconnectState::Connected { resumed: true }).await;
        say(kept.open(&service).await.unwrap(), 100).await.unwrap();
        assert_eq!(lab.spent(), [1, 1]);
        // And the renewal, which fails, is tried again.
        lab.wire.carried.stalled.lock().unwrap().clear();
        until(&kept, |state| *state == ReconnectState::Connected { resumed: false }).await;
        assert_eq!(lab.spent(), [2, 2]);
    });
}

/// Connections are cut at random for 20 seconds under streams of random lengths: each stream carries every byte, or says that it did not.
#[test]
fn streams_over_a_wire_that_breaks() {
    run(async {
        let (lab, kept) = echoing(Pattern::Kk).await;
        let until = Instant::now() + Duration::from_secs(20);
        let (whole, broken) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut streams = JoinSet::new();
        for task in 0..8_usize {
            let (kept, whole, broken) = (kept.clone(), Arc::clone(&whole), Arc::clone(&broken));
            streams.spawn(async move {
                for round in 0.. {
                    if Instant::now() > until {
                        return;
                    }
                    let bytes = (task * 7919 + round * 104_729) % 300_000;
                    let outcome = match kept.open(&"echo".parse().unwrap()).await {
                        Ok(stream) => say(stream, bytes).await,
                        Err(error) => Err(error),
                    };
                    match outcome {
                        Ok(()) => whole.fetch_add(1, Ordering::Relaxed),
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::SessionInterrupted, "{error}");
                            broken.fetch_add(1, Ordering::Relaxed)
                        }
                    };
                }
            });
        }
        say(kept.open(&"echo".parse().unwrap()).await.unwrap(), 10).await.unwrap();
        let spent = lab.spent();
        let mut cuts = 0_u64;
        while Instant::now() < until {
            sleep(Duration::from_millis(150 + cuts * 7919 % 700)).await;
            lab.wire.cut();
            cuts += 1;
        }
        timeout(Duration::from_secs(70), async { while streams.join_next().await.transpose().unwrap().is_some() {} })
            .await
            .expect("every stream comes to an end");
        let (whole, broken) = (whole.load(Ordering::Relaxed), broken.load(Ordering::Relaxed));
        assert!(whole > 50 && broken > 5 && cuts > 10, "{whole} whole, {broken} broken, {cuts} cuts");
        assert_eq!(lab.spent(), spent, "no token operation");
        // It may have been cut last.
        let _ = kept.close().await;
        // By the token alone, when the time is over.
        for end in [&lab.caller, &lab.answerer] {
            end.pass(Duration::from_secs(900));
        }
        assert_eq!(lab.refused(ANY.resume(Resume::Only)).await, ErrorKind::ResumptionRefused);
    });
}

/// It is there though nobody asks, and comes back when it was closed, until it is wanted no more.
#[test]
fn a_session_that_is_kept() {
    run(async {
        let (lab, kept) = echoing(Pattern::Kk1).await;
        kept.keep(true);
        for _ in 0..3 {
            until(&kept, |state| matches!(state, ReconnectState::Connected { .. })).await;
            // One that was closed as soon as it had begun is not followed at once.
            sleep(Duration::from_millis(200)).await;
            kept.session().await.unwrap().close().await.unwrap();
            until(&kept, |state| !matches!(state, ReconnectState::Connected { .. })).await;
        }
        until(&kept, |state| matches!(state, ReconnectState::Connected { .. })).await;
        sleep(Duration::from_millis(200)).await;
        kept.keep(false);
        kept.session().await.unwrap().close().await.unwrap();
        until(&kept, |state| *state == ReconnectState::Idle).await;
        sleep(Duration::from_millis(500)).await;
        assert_eq!((kept.state(), lab.spent()), (ReconnectState::Idle, [4, 4]));
    });
}

/// Something has changed: pauses that were begun before mean nothing, and what was given up is tried again.
#[test]
fn another_try_at_once() {
    run(async {
        let (lab, _) = echoing(Pattern::Kk1).await;
        let mut patient = options();
        (patient.first_pause, patient.longest_pause) = (Duration::from_secs(100), Duration::from_secs(100));
        let kept = lab.caller.reconnecting(&name("cosigner"), patient);
        lab.wire.hold(1);
        kept.keep(true);
        until(&kept, |state| matches!(state, ReconnectState::Waiting { .. })).await;
        kept.retry();
        until(&kept, |state| matches!(state, ReconnectState::Connected { .. })).await;

        let stranger = lab.caller.reconnecting(&name("tower"), patient);
        stranger.keep(true);
        until(&stranger, |state| matches!(state, ReconnectState::Stopped(_))).await;
        let mut states = stranger.watch();
        states.mark_unchanged();
        stranger.retry();
        timeout(SOON, states.wait_for(|state| *state == ReconnectState::Connecting)).await.unwrap().unwrap();
        // Nothing is begun that nobody wants.
        stranger.keep(false);
        until(&stranger, |state| matches!(state, ReconnectState::Stopped(_))).await;
        states.mark_unchanged();
        stranger.retry();
        assert!(timeout(Duration::from_millis(300), states.changed()).await.is_err());
    });
}
