//! Strangers cost a place in a queue, and nothing else.

use crate::support::{Machine, run};
use claviger::config::Pattern;
use claviger::identity::{ClientAuthKeys, Curve, OnionKeys, StaticPublic};
use claviger::noise::knock;
use claviger::store::Peer;
use claviger::wire::{Pattern as WirePattern, frame};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// What a stranger may try. `number` picks the kind.
fn first_bytes(number: usize, cosigner: &StaticPublic) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let mut own = [number as u8; 32];
    (own[0], own[31]) = (9, 0);
    let own = StaticPublic::new(Curve::X25519, &own).unwrap();
    // A correct packet, made with the stranger's own key.
    let packet = knock::packet(&knock::key(&own, cosigner), WirePattern::Kk.into(), now, &[9; 48]);
    match number % 5 {
        0 => Vec::new(),                            // silent
        1 => frame(&packet).unwrap(),               // knocks
        2 => vec![0xff; 3],                         // lies about the length, and waits
        3 => b"GET / HTTP/1.1\r\n\r\n".to_vec(),    // is lost
        _ => frame(&packet).unwrap()[..9].to_vec(), // stops in the middle
    }
}

#[test]
fn a_thousand_strangers_and_a_member() {
    run(async {
        let (mut wallet, mut cosigner) = (Machine::software("wallet"), Machine::software("cosigner"));
        wallet.introduce(&mut cosigner);
        let (caller, answerer) = (wallet.endpoint(Pattern::Kk).await, cosigner.endpoint(Pattern::Kk).await);
        let mut listening = answerer.listen(&cosigner.card.onion_address, 4747).await.unwrap();
        let address = cosigner.address();

        let strangers = (0..1000).map(|number| {
            let key = cosigner.card.static_public.clone();
            tokio::spawn(async move {
                let mut pipe = TcpStream::connect(address).await.unwrap();
                let _ = pipe.write_all(&first_bytes(number, &key)).await;
                pipe
            })
        });
        let strangers: Vec<_> = strangers.collect();
        let mut open = Vec::new();
        for stranger in strangers {
            open.push(stranger.await.unwrap());
        }

        // 600 of them still hold their connection, saying nothing. The member is let in at once.
        let started = Instant::now();
        let (session, accepted) =
            tokio::join!(caller.connect_peer(&cosigner.card.identifier, None), listening.accept());
        let waited = started.elapsed();
        assert!(session.is_ok() && accepted.is_some());
        assert!(waited < Duration::from_secs(3), "the member waited {waited:?}");
        assert_eq!(answerer.token().operations(), 2, "the member's two operations, and none for strangers");

        // Nobody was answered: not one byte, only the end. Those that are still waiting are ended by their deadline.
        for (number, pipe) in open.iter_mut().enumerate().filter(|(number, _)| matches!(number % 5, 1 | 3)) {
            let mut answer = Vec::new();
            let _ = tokio::time::timeout(Duration::from_secs(5), pipe.read_to_end(&mut answer)).await.unwrap();
            assert!(answer.is_empty(), "stranger {number} was answered");
        }
    });
}

/// With all places taken by silent callers, each newcomer still gets one.
#[test]
fn the_longest_waiting_stranger_makes_room() {
    run(async {
        let (mut wallet, mut cosigner) = (Machine::software("wallet"), Machine::software("cosigner"));
        wallet.introduce(&mut cosigner);
        cosigner.config.limits.pending = 10;
        let (caller, answerer) = (wallet.endpoint(Pattern::Kk).await, cosigner.endpoint(Pattern::Kk).await);
        let mut listening = answerer.listen(&cosigner.card.onion_address, 4747).await.unwrap();
        let mut silent = Vec::new();
        for _ in 0..50 {
            silent.push(TcpStream::connect(cosigner.address()).await.unwrap());
        }
        let (session, accepted) =
            tokio::join!(caller.connect_peer(&cosigner.card.identifier, None), listening.accept());
        assert!(session.is_ok() && accepted.is_some());
        // The first was pushed out, long before its deadline.
        let mut byte = [0];
        let ended = tokio::time::timeout(Duration::from_secs(5), silent[0].read(&mut byte)).await;
        assert!(matches!(ended, Ok(Ok(0) | Err(_))));
    });
}

/// A knock that was recorded and is sent again, by who knows whom, costs nothing and gets no answer.
#[test]
fn a_replay() {
    run(async {
        let (mut wallet, mut cosigner) = (Machine::software("wallet"), Machine::software("cosigner"));
        wallet.introduce(&mut cosigner);
        let answerer = cosigner.endpoint(Pattern::Kk).await;
        let _listening = answerer.listen(&cosigner.card.onion_address, 4747).await.unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
        let key = knock::key(&wallet.card.static_public, &cosigner.card.static_public);
        // KK1's first message is an ephemeral alone, so the first one is answered.
        let recorded = frame(&knock::packet(&key, WirePattern::Kk1.into(), now, &[9; 32])).unwrap();
        let mut answers = Vec::new();
        for _ in 0..3 {
            let mut pipe = TcpStream::connect(cosigner.address()).await.unwrap();
            pipe.write_all(&recorded).await.unwrap();
            let mut answer = vec![0; 100];
            let n = tokio::time::timeout(Duration::from_secs(5), pipe.read(&mut answer)).await.unwrap().unwrap();
            answers.push(n);
        }
        assert_eq!(answers, [2 + 32 + 16, 0, 0]);
        assert_eq!(answerer.token().operations(), 1);
    });
}

/// Who knows two machines' public keys can knock in the name of one. It costs the other an operation, and is never a session: KK1's first
/// message is a key that anybody can make, so the listener waits for the caller's confirmation.
#[test]
fn a_knock_in_another_name_is_no_session() {
    run(async {
        let (mut wallet, mut cosigner) = (Machine::software("wallet"), Machine::software("cosigner"));
        wallet.introduce(&mut cosigner);
        cosigner.config.handshake.timeout = Duration::from_secs(1);
        let answerer = cosigner.endpoint(Pattern::Kk).await;
        let mut listening = answerer.listen(&cosigner.card.onion_address, 4747).await.unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
        let key = knock::key(&wallet.card.static_public, &cosigner.card.static_public);
        for follow in [&[][..], &[0, 16], &[0; 18]] {
            let mut ephemeral = [9; 32];
            ephemeral[0] = follow.len() as u8;
            let knock = frame(&knock::packet(&key, WirePattern::Kk1.into(), now, &ephemeral)).unwrap();
            let mut pipe = TcpStream::connect(cosigner.address()).await.unwrap();
            pipe.write_all(&[&knock[..], &[0, 16], &[follow.len() as u8; 16][..]].concat()).await.unwrap();
            let mut answer = Vec::new();
            let _ = tokio::time::timeout(Duration::from_secs(5), pipe.read_to_end(&mut answer)).await.unwrap();
            assert_eq!(answer.len(), 2 + 32 + 16, "the second message, and nothing after it");
        }
        assert!(
            tokio::time::timeout(Duration::from_secs(2), listening.accept()).await.is_err(),
            "a session without a key"
        );
    });
}

/// No caller's packet makes the store work, so another process may hold it.
#[test]
fn a_held_store_holds_up_nobody() {
    run(async {
        let (mut wallet, mut cosigner) = (Machine::software("wallet"), Machine::software("cosigner"));
        wallet.introduce(&mut cosigner);
        let (caller, answerer) = (wallet.endpoint(Pattern::Kk).await, cosigner.endpoint(Pattern::Kk).await);
        let mut listening = answerer.listen(&cosigner.card.onion_address, 4747).await.unwrap();
        let database = cosigner.dir.path().join("store/store.db");
        let held = rusqlite::Connection::open(database).unwrap();
        held.execute_batch("BEGIN EXCLUSIVE").unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await; // the listener's own look at the store waits now
        let started = Instant::now();
        let (session, accepted) =
            tokio::join!(caller.connect_peer(&cosigner.card.identifier, None), listening.accept());
        assert!(session.is_ok() && accepted.is_some());
        assert!(started.elapsed() < Duration::from_secs(2), "the member waited {:?}", started.elapsed());
    });
}

/// The caller is found among hundreds of recorded peers (`scripts/bench knock` has the time for ten thousand).
#[test]
fn among_many_peers() {
    run(async {
        let (mut wallet, mut cosigner) = (Machine::software("wallet"), Machine::software("cosigner"));
        let mut store = cosigner.store();
        for number in 0..500u32 {
            let mut key = [9; 32];
            key[..4].copy_from_slice(&number.to_be_bytes());
            let mut card = wallet.card.clone();
            card.identifier = format!("peer-{number}").parse().unwrap();
            card.static_public = StaticPublic::new(Curve::X25519, &key).unwrap();
            card.onion_address = OnionKeys::generate().unwrap().address;
            card.client_auth = ClientAuthKeys::generate().unwrap().public;
            store.add_peer(&Peer::from_card(&card), "test").unwrap();
        }
        wallet.introduce(&mut cosigner);
        let (caller, answerer) = (wallet.endpoint(Pattern::Kk).await, cosigner.endpoint(Pattern::Kk).await);
        let mut listening = answerer.listen(&cosigner.card.onion_address, 4747).await.unwrap();
        let (session, accepted) =
            tokio::join!(caller.connect_peer(&cosigner.card.identifier, None), listening.accept());
        assert!(session.is_ok());
        assert_eq!(accepted.unwrap().peer().identifier, wallet.card.identifier);
    });
}
