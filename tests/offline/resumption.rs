//! Sessions that broke are resumed without the token, for a while.

use crate::lab::{ANY, Lab, SOON, Wire, both_end, listen, name};
use crate::support::{Machine, now, run, stream, talk};
use claviger::config::Pattern;
use claviger::endpoint::{Incoming, Resume, WATCH};
use claviger::identity::{Curve, KeyPlace};
use claviger::noise::knock;
use claviger::session::error_of;
use claviger::store::Peer;
use claviger::transport::Pipe;
use claviger::wire::{Kind, Pattern as WirePattern, frame};
use claviger::{Endpoint, ErrorKind, Result, Session};
use claviger_testkit::token::{PIN, SO_PIN, SoftHsm, isolated};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

#[test]
fn a_broken_session_is_resumed_without_the_token() {
    run(async {
        for (curve, suite, pattern) in [
            (Curve::X25519, "ChaChaPoly_BLAKE2s", Pattern::Kk),
            (Curve::P256, "AESGCM_SHA256", Pattern::Kk1),
            (Curve::X25519, "AESGCM_SHA256", Pattern::Xk),
        ] {
            let machine = |name| Machine::new(name, None, curve, suite);
            let mut lab = Lab::with(machine("wallet"), machine("cosigner"), pattern).await;
            let (session, accepted) = lab.meet(ANY).await;
            assert!(!session.peer().resumed && !accepted.peer().resumed);
            let (spent, mut hash) = (lab.spent(), *session.handshake_hash());
            lab.breaks((session, accepted)).await;
            for _ in 0..3 {
                let (session, accepted) = lab.meet(ANY).await;
                assert!(session.peer().resumed && accepted.peer().resumed);
                assert!(session.peer().to_string().starts_with("resumed, token last seen "), "{}", session.peer());
                assert_eq!((session.peer().operations, accepted.peer().operations), (0, 0));
                assert_eq!(session.handshake_hash(), accepted.handshake_hash());
                assert_ne!(std::mem::replace(&mut hash, *session.handshake_hash()), *session.handshake_hash());
                talk(&session, &accepted).await;
                lab.breaks((session, accepted)).await;
            }
            assert_eq!(lab.spent(), spent);
            let (session, _) = lab.meet(ANY.resume(Resume::Never)).await;
            assert!(!session.peer().resumed);
            assert!(lab.spent() > spent);
        }
    });
}

/// Both keys on SoftHSM.
#[test]
fn on_hardware_tokens() {
    isolated(|| {
        let hsm = SoftHsm::new();
        let tokens = ["wallet", "cosigner"].map(|name| (name, hsm.init_token(name, SO_PIN, PIN).uri("key")));
        let [wallet, cosigner] =
            tokens.map(|(name, locator)| Machine::new(name, Some(locator), Curve::P256, "AESGCM_SHA256"));
        run(async {
            let mut lab = Lab::with(wallet, cosigner, Pattern::Kk).await;
            lab.broken().await;
            assert_eq!(lab.spent(), [2, 2]);
            let sessions = lab.meet(ANY).await;
            assert!(sessions.0.peer().resumed);
            talk(&sessions.0, &sessions.1).await;
            assert_eq!(lab.spent(), [2, 2]);
        });
    });
}

#[test]
fn the_time_is_never_extended() {
    run(async {
        let mut lab = Lab::new(Pattern::Kk1).await;
        lab.broken().await;
        // Fifteen minutes, by default.
        for minutes in [7, 7] {
            for end in [&lab.caller, &lab.answerer] {
                end.pass(Duration::from_secs(60 * minutes));
            }
            let sessions = lab.meet(ANY).await;
            assert!(sessions.0.peer().resumed);
            lab.breaks(sessions).await;
        }
        assert_eq!(lab.spent(), [1, 1]);
        // Each end counts by itself: the caller would still, the other does not.
        lab.answerer.pass(Duration::from_secs(60));
        assert_eq!(lab.refused(ANY.resume(Resume::Only)).await, ErrorKind::HandshakeRefused);
        assert_eq!(lab.spent(), [1, 1]);
        let (session, _) = lab.meet(ANY).await;
        assert!(!session.peer().resumed);
        assert_eq!(lab.spent(), [2, 2]);
    });
}

/// Answers wallet's connections one by one, and says how each ended.
struct Door {
    listener: TcpListener,
    incoming: Incoming,
    answerer: Endpoint,
}

impl Door {
    async fn answer(&self) -> Result<Session> {
        let (pipe, _) = timeout(SOON, self.listener.accept()).await.unwrap().unwrap();
        self.answerer.handshake_respond(Pipe::from(pipe), &self.incoming, None).await
    }

    async fn refuses(&self) -> ErrorKind {
        let error = self.answer().await.expect_err("a refusal");
        assert!(!error.hint().is_empty());
        error.kind()
    }

    /// What comes of these bytes.
    async fn hears(&self, bytes: &[u8]) -> ErrorKind {
        let mut stranger = TcpStream::connect(self.listener.local_addr().unwrap()).await.unwrap();
        stranger.write_all(bytes).await.unwrap();
        let kind = self.refuses().await;
        let mut answer = Vec::new();
        let _ = timeout(SOON, stranger.read_to_end(&mut answer)).await.unwrap();
        assert!(answer.is_empty(), "it was answered");
        kind
    }
}

/// A knock for `message`, by whoever knows the two public keys.
fn knocks(from: &Machine, to: &Machine, message: &[u8]) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let key = knock::key(&from.card.static_public, &to.card.static_public);
    frame(&knock::packet(&key, Kind::from(WirePattern::Nn), now, message)).unwrap()
}

#[test]
fn what_others_make_of_a_resumption_is_refused_without_the_token() {
    run(async {
        let (mut wallet, mut cosigner) = (Machine::software("wallet"), Machine::software("cosigner"));
        let tower = Machine::software("tower");
        wallet.introduce(&mut cosigner);
        cosigner.meet(&tower);
        let wire = Wire::between(&mut wallet, &cosigner).await;
        let (caller, answerer) = (wallet.endpoint(Pattern::Kk1).await, cosigner.endpoint(Pattern::Kk1).await);
        let listener = TcpListener::bind(cosigner.address()).await.unwrap();
        let door = Door { listener, incoming: answerer.incoming(4747).unwrap(), answerer: answerer.clone() };
        let peer = name("cosigner");
        let meet = async || {
            let (session, accepted) = tokio::join!(caller.connect_peer_with(&peer, ANY), door.answer());
            (session.unwrap(), accepted.unwrap())
        };
        let breaks = async |sessions: (Session, Session)| {
            wire.cut();
            both_end(&sessions).await;
        };
        breaks(meet().await).await;
        let resumed = meet().await;
        assert!(resumed.0.peer().resumed);
        breaks(resumed).await;
        let spent = answerer.token().operations();

        // As it was recorded; and by a member who wraps it anew, in its own name or in wallet's.
        let message = wire.last();
        let recorded = wire.carried.knocks.lock().unwrap().last().unwrap().clone();
        assert_eq!(door.hears(&recorded).await, ErrorKind::KnockReplayed);
        assert_eq!(door.hears(&knocks(&wallet, &cosigner, &message)).await, ErrorKind::ResumptionRefused);
        assert_eq!(door.hears(&knocks(&tower, &cosigner, &message)).await, ErrorKind::ResumptionRefused);

        // One that has not arrived is kept from arriving, changed or moved, in each of its bytes.
        let lost = tokio::join!(caller.connect_peer_with(&peer, ANY.resume(Resume::Only)), async {
            let (pipe, _) = door.listener.accept().await.unwrap();
            drop(pipe);
        });
        assert_eq!(lost.0.err().unwrap().kind(), ErrorKind::HandshakeRefused);
        let message = wire.last();
        assert_eq!(door.hears(&knocks(&tower, &cosigner, &message)).await, ErrorKind::ResumptionRefused);
        for at in 0..message.len() {
            let mut changed = message.clone();
            changed[at] ^= 1;
            let kind = door.hears(&knocks(&wallet, &cosigner, &changed)).await;
            assert_eq!(
                kind,
                if at < 16 { ErrorKind::ResumptionRefused } else { ErrorKind::HandshakeFailed },
                "byte {at}"
            );
        }
        for len in [0, 16, 48, 63, 65] {
            let mut changed = message.clone();
            changed.resize(len, 0);
            assert_eq!(door.hears(&knocks(&wallet, &cosigner, &changed)).await, ErrorKind::PacketInvalid);
        }
        // As it was sent, but late and by somebody else: nobody confirms it.
        let mut stranger = TcpStream::connect(door.listener.local_addr().unwrap()).await.unwrap();
        stranger.write_all(&knocks(&wallet, &cosigner, &message)).await.unwrap();
        let answered = async {
            stranger.read_exact(&mut [0; 50]).await.unwrap();
            drop(stranger);
        };
        assert_eq!(tokio::join!(door.refuses(), answered).0, ErrorKind::HandshakeRefused);
        assert_eq!(door.hears(&knocks(&wallet, &cosigner, &message)).await, ErrorKind::ResumptionRefused);
        assert_eq!(answerer.token().operations(), spent);
        // All of it costs at most that link.
        assert!(meet().await.0.peer().resumed);
        assert_eq!(answerer.token().operations(), spent);
    });
}

/// What the listener's store says of the caller changes, and with it goes what was left.
#[test]
fn changes_of_the_store_leave_nothing() {
    run(async {
        let mut lab = Lab::new(Pattern::Kk1).await;
        let wallet = name("wallet");
        let only = ANY.resume(Resume::Only);
        let changes: [&dyn Fn(&Machine); 4] = [
            &|cosigner| drop(cosigner.store().set_expiry(&wallet, Some(now() + 3600)).unwrap()),
            &|cosigner| {
                cosigner.store().remove_peer(&wallet).unwrap();
            },
            &|cosigner| drop(cosigner.store().set_expiry(&wallet, Some(now() - 1)).unwrap()),
            &|cosigner| {
                cosigner.store().revoke(&wallet, "the machine was stolen").unwrap();
            },
        ];
        for (at, change) in changes.into_iter().enumerate() {
            lab.broken().await;
            let sessions = lab.meet(only).await;
            assert!(sessions.0.peer().resumed);
            lab.breaks(sessions).await;
            let spent = lab.spent();
            change(&lab.cosigner);
            sleep(WATCH * 4).await;
            match at {
                1 => lab.cosigner.store().add_peer(&Peer::from_card(&lab.wallet.card), "test").map(drop).unwrap(),
                2 => lab.cosigner.store().set_expiry(&wallet, None).map(drop).unwrap(),
                _ => {}
            }
            sleep(WATCH * 4).await;
            assert_eq!(lab.refused(only).await, ErrorKind::HandshakeRefused, "change {at}");
            assert_eq!(lab.spent(), spent);
        }
    });
}

/// The caller's own store.
#[test]
fn a_caller_forgets_as_well() {
    run(async {
        let mut lab = Lab::new(Pattern::Kk1).await;
        let cosigner = name("cosigner");
        lab.broken().await;
        lab.wallet.store().set_expiry(&cosigner, Some(now() + 3600)).unwrap();
        assert_eq!(lab.refused(ANY.resume(Resume::Only)).await, ErrorKind::ResumptionRefused);
        lab.broken().await;
        assert_eq!(lab.spent(), [2, 2]);
        lab.wallet.store().revoke(&cosigner, "the machine was stolen").unwrap();
        assert_eq!(lab.refused(ANY).await, ErrorKind::PeerUnknown);
    });
}

#[test]
fn a_listener_that_was_started_again_has_nothing_left() {
    run(async {
        let mut lab = Lab::new(Pattern::Kk1).await;
        lab.broken().await;
        let Lab { mut cosigner, caller, wire, back, wallet, answerer, listening } = lab;
        drop((answerer, listening));
        let answerer = cosigner.endpoint(Pattern::Kk1).await;
        let listening = listen(&answerer).await;
        let mut lab = Lab { wallet, cosigner, wire, back, caller, answerer, listening };
        assert_eq!(lab.refused(ANY.resume(Resume::Only)).await, ErrorKind::HandshakeRefused);
        assert_eq!(lab.spent(), [1, 0]);
        let (session, _accepted) = lab.meet(ANY).await;
        assert!(!session.peer().resumed);
        assert_eq!(lab.spent(), [2, 1]);
    });
}

#[test]
fn either_end_may_forbid_it() {
    run(async {
        for forbids in [true, false] {
            let (mut wallet, mut cosigner) = (Machine::software("wallet"), Machine::software("cosigner"));
            let config = if forbids { &mut wallet.config } else { &mut cosigner.config };
            config.session.resume_for = Duration::ZERO;
            let mut lab = Lab::with(wallet, cosigner, Pattern::Kk1).await;
            lab.broken().await;
            let kind = lab.refused(ANY.resume(Resume::Only)).await;
            assert_eq!(kind, if forbids { ErrorKind::ResumptionRefused } else { ErrorKind::HandshakeRefused });
            assert!(!lab.meet(ANY).await.0.peer().resumed);
        }
    });
}

/// The answer is lost on its way, again and again: each costs a link, and no token operation.
#[test]
fn a_resumption_that_breaks_half_way() {
    run(async {
        let mut lab = Lab::new(Pattern::Kk1).await;
        let only = ANY.resume(Resume::Only);
        lab.broken().await;
        lab.wire.lose(7);
        for _ in 0..7 {
            assert_eq!(lab.refused(only).await, ErrorKind::HandshakeRefused);
        }
        let sessions = lab.meet(only).await;
        assert!(sessions.0.peer().resumed);
        lab.breaks(sessions).await;
        let sessions = lab.meet(only).await;
        lab.breaks(sessions).await;
        assert_eq!(lab.spent(), [1, 1]);
        // The other end looks no further ahead.
        lab.wire.lose(8);
        for _ in 0..8 {
            assert_eq!(lab.refused(only).await, ErrorKind::HandshakeRefused);
        }
        assert_eq!(lab.refused(only).await, ErrorKind::ResumptionRefused);
        assert_eq!(lab.spent(), [1, 1]);
    });
}

/// The bytes of a resumption: knock, answer, confirmation.
const BYTES: [u64; 3] = [2 + 26 + 64, 2 + 48, 2 + 16];

/// Wherever it breaks: that costs a link and no token operation.
#[test]
fn a_resumption_that_breaks_at_any_byte() {
    run(async {
        let mut lab = Lab::new(Pattern::Kk1).await;
        lab.broken().await;
        let [knock, answer, confirmation] = BYTES;
        let out = (0..=knock + confirmation).map(|at| (at, u64::MAX));
        let cuts = out.chain((0..=answer).map(|at| (u64::MAX, at)));
        for (caller, machine) in cuts {
            let what = format!("after {caller} bytes of the caller's and {machine} of the machine's");
            lab.wire.break_after(caller, machine);
            let whole = caller == knock + confirmation;
            lab.breaks_down(whole, &what).await;
            let sessions = lab.meet(ANY.resume(Resume::Only)).await;
            assert!(sessions.0.peer().resumed, "{what}");
            assert_eq!(sessions.0.handshake_hash(), sessions.1.handshake_hash(), "{what}");
            lab.breaks(sessions).await;
            assert_eq!(lab.spent(), [1, 1], "{what}");
        }
    });
}

/// And however these follow each other.
#[test]
fn resumptions_that_break_one_after_the_other() {
    run(async {
        let mut lab = Lab::new(Pattern::Kk1).await;
        lab.broken().await;
        let [knock, answer, confirmation] = BYTES;
        // The knock, the answer, the confirmation are lost; the session breaks as it begins.
        let cuts = [
            (knock - 1, u64::MAX),
            (u64::MAX, answer - 1),
            (knock + confirmation - 1, u64::MAX),
            (knock + confirmation, u64::MAX),
        ];
        for order in 0..4usize.pow(3) {
            let order: Vec<usize> = (0..3).map(|place| order / 4usize.pow(place) % 4).collect();
            for at in &order {
                let (caller, machine) = cuts[*at];
                lab.wire.break_after(caller, machine);
                lab.breaks_down(*at == 3, &format!("{order:?}")).await;
            }
            let sessions = lab.meet(ANY.resume(Resume::Only)).await;
            assert!(sessions.0.peer().resumed);
            lab.breaks(sessions).await;
            assert_eq!(lab.spent(), [1, 1], "{order:?}");
        }
    });
}

/// What the other end says on the old session is here before it has confirmed the new one.
#[test]
fn a_confirmation_that_is_late() {
    run(async {
        let mut lab = Lab::new(Pattern::Kk1).await;
        let old = lab.meet(ANY).await;
        lab.wire.delay();
        let peer = name("cosigner");
        let only = ANY.resume(Resume::Only);
        let new = lab.caller.connect_peer_with(&peer, only).await.unwrap();
        assert_eq!(timeout(SOON, old.1.ended()).await.unwrap().kind(), ErrorKind::SessionReplaced);
        assert_eq!(lab.answerer.sessions().len(), 0);
        lab.wire.release();
        let accepted = timeout(SOON, lab.listening.accept()).await.expect("it is confirmed").unwrap();
        talk(&new, &accepted).await;
        lab.breaks((new, accepted)).await;
        assert!(lab.meet(only).await.0.peer().resumed);
        assert_eq!(lab.spent(), [1, 1]);
    });
}

/// The same, when its sender has gone on meanwhile: that is no session any more.
#[test]
fn a_confirmation_that_is_too_late() {
    run(async {
        let mut lab = Lab::new(Pattern::Kk1).await;
        lab.broken().await;
        let (peer, only) = (name("cosigner"), ANY.resume(Resume::Only));
        lab.wire.delay();
        let given_up = lab.caller.connect_peer_with(&peer, only).await.unwrap();
        let new = lab.meet(only).await;
        assert_eq!(timeout(SOON, given_up.ended()).await.unwrap().kind(), ErrorKind::SessionReplaced);
        lab.wire.release();
        let phantom = timeout(Duration::from_secs(1), lab.listening.accept()).await;
        assert!(phantom.is_err(), "a session with nobody");
        talk(&new.0, &new.1).await;
        assert_eq!(lab.answerer.sessions().len(), 1);
        lab.breaks(new).await;
        assert!(lab.meet(only).await.0.peer().resumed);
        assert_eq!(lab.spent(), [1, 1]);
    });
}

/// Two sessions to one peer stand beside each other, and are resumed each for itself.
#[test]
fn two_sessions_to_one_peer() {
    run(async {
        let mut lab = Lab::new(Pattern::Kk1).await;
        let first = lab.meet(ANY).await;
        let second = lab.meet(ANY).await;
        assert_eq!(lab.spent(), [2, 2], "a session that lives is not resumed");
        talk(&first.0, &first.1).await;
        talk(&second.0, &second.1).await;
        lab.breaks(first).await;
        both_end(&second).await;
        let first = lab.meet(ANY).await;
        let second = lab.meet(ANY).await;
        assert!(first.0.peer().resumed && second.0.peer().resumed);
        assert_eq!(lab.spent(), [2, 2]);
        talk(&first.0, &first.1).await;
        talk(&second.0, &second.1).await;
    });
}

#[test]
fn both_ends_dial_each_other() {
    run(async {
        let mut lab = Lab::new(Pattern::Kk).await;
        let mut at_wallet = listen(&lab.caller).await;
        let (wallet, cosigner) = (name("wallet"), name("cosigner"));
        let mut spent = None;
        for _ in 0..3 {
            let meeting = async {
                tokio::join!(
                    lab.caller.connect_peer(&cosigner, None),
                    lab.listening.accept(),
                    lab.answerer.connect_peer(&wallet, None),
                    at_wallet.accept()
                )
            };
            let (called, there, back, here) = timeout(SOON, meeting).await.expect("they meet");
            let (called, there) = (called.unwrap(), there.unwrap());
            let (back, here) = (back.unwrap(), here.unwrap());
            talk(&called, &there).await;
            talk(&back, &here).await;
            assert_eq!(called.peer().resumed, spent.is_some());
            assert_eq!(back.peer().resumed, spent.is_some());
            assert_eq!(*spent.get_or_insert(lab.spent()), lab.spent());
            lab.breaks((called, there)).await;
            lab.back.cut();
            both_end(&(back, here)).await;
        }
    });
}

/// A session that the caller takes for a living one, and demands to resume: its streams end with a reason, at both ends.
#[test]
fn what_is_replaced_is_told_so() {
    run(async {
        let mut lab = Lab::new(Pattern::Kk1).await;
        let old = lab.meet(ANY).await;
        let (mut stream, mut other) = stream(&old.0, &old.1).await;
        other.write_all(b"half").await.unwrap();
        other.flush().await.unwrap();
        let mut half = [0; 4];
        stream.read_exact(&mut half).await.unwrap();
        let new = lab.meet(ANY.resume(Resume::Only)).await;
        assert!(new.0.peer().resumed);
        for stream in [&mut stream, &mut other] {
            let error = error_of(timeout(SOON, stream.read_u8()).await.unwrap().unwrap_err());
            assert_eq!(error.kind(), ErrorKind::SessionReplaced, "{error}");
        }
        both_end(&old).await;
        talk(&new.0, &new.1).await;
        assert_eq!(lab.caller.sessions().len(), 1);
        let status = &lab.answerer.sessions()[0];
        assert!(status.peer.resumed && status.peer.identifier.as_str() == "wallet");
        assert_eq!(lab.spent(), [1, 1]);
    });
}

/// What was closed properly is over.
#[test]
fn a_closed_session_is_not_resumed() {
    run(async {
        let mut lab = Lab::new(Pattern::Kk1).await;
        for by_caller in [true, false] {
            let sessions = lab.meet(ANY).await;
            assert!(!sessions.0.peer().resumed);
            let (closes, other) = if by_caller { (&sessions.0, &sessions.1) } else { (&sessions.1, &sessions.0) };
            closes.close().await.unwrap();
            assert_eq!(other.ended().await.kind(), ErrorKind::SessionClosed);
            assert_eq!(lab.refused(ANY.resume(Resume::Only)).await, ErrorKind::ResumptionRefused);
        }
        assert_eq!(lab.spent(), [2, 2]);
    });
}

#[test]
fn a_peers_oldest_session_makes_room() {
    run(async {
        let mut cosigner = Machine::software("cosigner");
        cosigner.config.limits.sessions_per_peer = 2;
        let mut lab = Lab::with(Machine::software("wallet"), cosigner, Pattern::Kk1).await;
        let (first, second) = (lab.meet(ANY).await, lab.meet(ANY).await);
        talk(&first.0, &first.1).await;
        let third = lab.meet(ANY).await;
        for session in [&first.0, &first.1] {
            assert_eq!(timeout(SOON, session.ended()).await.unwrap().kind(), ErrorKind::SessionLimit);
        }
        talk(&second.0, &second.1).await;
        talk(&third.0, &third.1).await;
        assert_eq!(lab.answerer.sessions().len(), 2);
    });
}

/// Who comes when there are as many sessions as there may be costs no token operation; who resumes one takes its place.
#[test]
fn as_many_sessions_as_there_may_be() {
    run(async {
        let (mut cosigner, mut tower) = (Machine::software("cosigner"), Machine::software("tower"));
        cosigner.config.limits.sessions = 1;
        cosigner.introduce(&mut tower);
        let mut lab = Lab::with(Machine::software("wallet"), cosigner, Pattern::Kk1).await;
        let towers = tower.endpoint(Pattern::Kk1).await;
        let old = lab.meet(ANY).await;
        let spent = lab.spent();
        let refused = towers.connect_peer(&name("cosigner"), None).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::HandshakeRefused);
        assert_eq!(lab.spent(), spent);
        let new = lab.meet(ANY.resume(Resume::Only)).await;
        both_end(&old).await;
        let refused = towers.connect_peer(&name("cosigner"), None).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::HandshakeRefused);
        assert_eq!(lab.spent(), spent);
        new.0.close().await.unwrap();
        both_end(&new).await;
        let room = async {
            while towers.connect_peer(&name("cosigner"), None).await.is_err() {
                sleep(WATCH).await;
            }
        };
        timeout(SOON, room).await.expect("there is room again");
    });
}

/// A session's age counts from the token, however often it was resumed.
#[test]
fn a_resumed_session_is_as_old_as_its_token() {
    run(async {
        let (wallet, mut cosigner) = (Machine::software("wallet"), Machine::software("cosigner"));
        let day = Duration::from_secs(86_400);
        (cosigner.config.session.resume_for, cosigner.config.session.max_age) = (day, day);
        let mut lab = Lab::with(wallet, cosigner, Pattern::Kk1).await;
        lab.broken().await;
        lab.answerer.pass(day - Duration::from_secs(2));
        let sessions = lab.meet(ANY).await;
        assert!(sessions.0.peer().resumed);
        for session in [&sessions.0, &sessions.1] {
            assert_eq!(timeout(SOON, session.ended()).await.unwrap().kind(), ErrorKind::SessionAged);
        }
    });
}

/// The store goes on with another key than the running program.
#[test]
fn another_key_leaves_nothing() {
    run(async {
        let mut lab = Lab::with(Machine::software("wallet"), Machine::backed("cosigner"), Pattern::Kk1).await;
        lab.broken().await;
        lab.cosigner.switch(KeyPlace::Backup);
        sleep(WATCH * 4).await;
        assert_eq!(lab.refused(ANY.resume(Resume::Only)).await, ErrorKind::HandshakeRefused);
        assert_eq!(lab.spent(), [1, 1]);
    });
}
