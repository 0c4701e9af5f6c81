//! What happens to machines after the ceremony, while they listen and call: the other token, rotation, revocation, expiry.

use crate::support::{Machine, now, run, stream, talk};
use claviger::ceremony::succession::Succession;
use claviger::config::Pattern;
use claviger::endpoint::{Listening, WATCH};
use claviger::identity::{Identifier, KeyPlace};
use claviger::session::{Stream, error_of};
use claviger::store::Peer;
use claviger::{Endpoint, ErrorKind, Session};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

const SOON: Duration = Duration::from_secs(15);

fn name(text: &str) -> Identifier {
    text.parse().unwrap()
}

async fn listen(endpoint: &Endpoint) -> Listening {
    endpoint.listen(&endpoint.identity().onion_address, 4747).await.unwrap()
}

/// Connects and talks; the caller's and the listener's session.
async fn meet(caller: &Endpoint, peer: &str, listening: &mut Listening) -> (Session, Session) {
    let peer = name(peer);
    let meeting = async { tokio::join!(caller.connect_peer(&peer, None), listening.accept()) };
    let (session, accepted) = timeout(SOON, meeting).await.expect("they meet");
    (session.unwrap(), accepted.unwrap())
}

async fn reaches(caller: &Endpoint, peer: &str, listening: &mut Listening) -> (Session, Session) {
    let (session, accepted) = meet(caller, peer, listening).await;
    talk(&session, &accepted).await;
    (session, accepted)
}

/// A listener goes on with its backup token; a caller that runs finds it, and then finds it at once.
#[test]
fn the_backup_token_takes_over() {
    run(async {
        let (mut wallet, mut cosigner) = (Machine::software("wallet"), Machine::backed("cosigner"));
        wallet.introduce(&mut cosigner);
        let caller = wallet.endpoint(Pattern::Kk).await;
        let answerer = cosigner.endpoint(Pattern::Kk).await;
        let mut listening = listen(&answerer).await;
        let (session, accepted) = reaches(&caller, "cosigner", &mut listening).await;
        assert_eq!(session.peer().key, KeyPlace::Primary);
        drop((session, accepted, listening, answerer));

        cosigner.switch(KeyPlace::Backup);
        let answerer = cosigner.endpoint(Pattern::Kk).await;
        assert_eq!(*answerer.token().public(), cosigner.card.backup.as_ref().unwrap().static_public);
        let mut listening = listen(&answerer).await;
        let spent = caller.token().operations();
        let (session, _accepted) = reaches(&caller, "cosigner", &mut listening).await;
        assert_eq!((session.peer().key, session.peer().by_former), (KeyPlace::Backup, false));
        // ss for the key that nobody answered by, then ss and se.
        assert_eq!(caller.token().operations() - spent, 3);
        let spent = caller.token().operations();
        reaches(&caller, "cosigner", &mut listening).await;
        assert_eq!(caller.token().operations() - spent, 2, "the key that worked is tried first");

        // The other way round: whoever listens tells by which key it was called.
        let mut listening = listen(&caller).await;
        let (_, accepted) = reaches(&answerer, "wallet", &mut listening).await;
        assert_eq!(accepted.peer().key, KeyPlace::Backup);
        let contacts = async {
            while wallet.store().contacts().unwrap().len() < 2 {
                sleep(WATCH).await;
            }
        };
        timeout(SOON, contacts).await.expect("both keys are noted");
    });
}

/// A machine that was rotated is reached by a peer that has imported its next card, and by one that has not; and reaches both.
#[test]
fn a_rotation_overlaps() {
    run(async {
        let mut vault = Machine::software("vault");
        let (mut told, mut untold) = (Machine::software("told"), Machine::software("untold"));
        vault.introduce(&mut told);
        vault.introduce(&mut untold);
        let until = now() + 3600;
        let former = vault.card.clone();
        vault.rotate(until);
        let succession = Succession::new(&former, KeyPlace::Primary, vault.card.clone(), until);
        told.store().succeed_card(&succession, "test").unwrap();

        let endpoint = vault.endpoint(Pattern::Kk).await;
        let (knows, does_not) = (told.endpoint(Pattern::Kk).await, untold.endpoint(Pattern::Xk).await);
        let mut listening = listen(&endpoint).await;
        let (session, accepted) = reaches(&knows, "vault", &mut listening).await;
        assert!(!session.peer().by_former && !accepted.peer().as_former);
        let (_, accepted) = reaches(&does_not, "vault", &mut listening).await;
        assert!(accepted.peer().as_former);

        let (mut at_told, mut at_untold) = (listen(&knows).await, listen(&does_not).await);
        let (session, accepted) = reaches(&endpoint, "told", &mut at_told).await;
        assert!(!session.peer().as_former && !accepted.peer().by_former);
        let (session, accepted) = meet(&endpoint, "untold", &mut at_untold).await;
        assert!(session.peer().as_former && !accepted.peer().by_former);

        // The overlap ends under running listeners, and with it what stands on it; the rest goes on.
        let (kept, kept_there) = meet(&endpoint, "told", &mut at_told).await;
        vault.store().finish_rotation().unwrap();
        let ended = timeout(SOON, session.ended()).await.unwrap();
        assert_eq!(ended.kind(), ErrorKind::SessionRevoked, "{ended}");
        timeout(SOON, accepted.ended()).await.unwrap();
        let refused = does_not.connect_peer(&name("vault"), None).await.err().unwrap();
        assert_eq!(refused.kind(), ErrorKind::HandshakeRefused);
        talk(&kept, &kept_there).await;
    });
}

/// The overlap of a peer: until its former key's time has passed both work, then only the next one.
#[test]
fn a_peer_is_still_who_it_was() {
    run(async {
        let (mut wallet, mut vault) = (Machine::software("wallet"), Machine::software("vault"));
        wallet.introduce(&mut vault);
        // It goes on as it was: it was not started again.
        let before = vault.endpoint(Pattern::Kk).await;
        let mut at_vault = listen(&before).await;
        let next = Machine::software("vault").card;
        let endpoint = wallet.endpoint(Pattern::Kk).await;
        let mut listening = listen(&endpoint).await;
        let until = now() + 8;
        let succession = Succession::new(&vault.card, KeyPlace::Primary, next, until);
        wallet.store().succeed_card(&succession, "test").unwrap();
        let (session, _) = reaches(&endpoint, "vault", &mut at_vault).await;
        assert!(session.peer().by_former);
        let (_session, accepted) = meet(&before, "wallet", &mut listening).await;
        assert!(accepted.peer().by_former);
        let ended = timeout(SOON, accepted.ended()).await.unwrap();
        assert_eq!(ended.kind(), ErrorKind::SessionRevoked);
        assert!(ended.to_string().contains("holds no more"), "{ended}");
        assert!(now() >= until);
        let refused = before.connect_peer(&name("wallet"), None).await.err().unwrap();
        assert_eq!(refused.kind(), ErrorKind::HandshakeRefused);
    });
}

/// Sends and receives in step, so that both ends know of each byte.
async fn in_step(a: &mut Stream, b: &mut Stream, bytes: std::ops::Range<u32>) {
    for word in bytes {
        a.write_u32(word).await.unwrap();
        a.flush().await.unwrap();
        assert_eq!(b.read_u32().await.unwrap(), word);
        b.write_u32(!word).await.unwrap();
        b.flush().await.unwrap();
        assert_eq!(a.read_u32().await.unwrap(), !word);
    }
}

#[test]
fn revocation_and_expiry_end_sessions_and_no_others() {
    run(async {
        let mut cosigner = Machine::software("cosigner");
        let (mut wallet, mut tower) = (Machine::software("wallet"), Machine::software("tower"));
        cosigner.introduce(&mut wallet);
        cosigner.introduce(&mut tower);
        let answerer = cosigner.endpoint(Pattern::Kk).await;
        let (wallets, towers) = (wallet.endpoint(Pattern::Kk).await, tower.endpoint(Pattern::Xk).await);
        let mut listening = listen(&answerer).await;
        let (lost_session, lost_session_here) = meet(&wallets, "cosigner", &mut listening).await;
        let (mut lost, mut lost_here) = stream(&lost_session, &lost_session_here).await;
        let (kept_session, kept_session_here) = meet(&towers, "cosigner", &mut listening).await;
        let (mut kept, mut kept_here) = stream(&kept_session, &kept_session_here).await;
        in_step(&mut lost, &mut lost_here, 0..100).await;
        in_step(&mut kept, &mut kept_here, 0..100).await;

        cosigner.store().revoke(&name("wallet"), "the machine was stolen").unwrap();
        // Nobody reads it here: it is cut all the same, and says so to whoever comes.
        let gone = timeout(WATCH * 8, lost.read_u8()).await.expect("at once").unwrap_err();
        assert_eq!(error_of(gone).kind(), ErrorKind::SessionInterrupted);
        assert!(matches!(lost_session.ended().await.kind(), ErrorKind::SessionTruncated | ErrorKind::SessionIo));
        let here = error_of(lost_here.read_u8().await.unwrap_err());
        assert_eq!(here.kind(), ErrorKind::SessionRevoked);
        assert_eq!(here.to_string(), "`wallet` was removed or revoked on this machine.");
        let written = async {
            lost_here.write_u8(0).await?;
            lost_here.flush().await
        };
        assert_eq!(error_of(written.await.unwrap_err()).kind(), ErrorKind::SessionRevoked);
        assert_eq!(lost_session_here.close().await.unwrap_err().kind(), ErrorKind::SessionRevoked);
        let spent = answerer.token().operations();
        let refused = wallets.connect_peer(&name("cosigner"), None).await.err().unwrap();
        assert_eq!(refused.kind(), ErrorKind::HandshakeRefused);
        assert_eq!(answerer.token().operations(), spent, "a stranger costs nothing");
        assert_eq!(answerer.connect_peer(&name("wallet"), None).await.err().unwrap().kind(), ErrorKind::PeerUnknown);
        in_step(&mut kept, &mut kept_here, 100..1000).await;

        // A time that passes needs no change of the store.
        cosigner.store().set_expiry(&name("tower"), Some(now() + 2)).unwrap();
        sleep(WATCH * 2).await;
        in_step(&mut kept, &mut kept_here, 1000..1100).await;
        let here = error_of(timeout(SOON, kept_here.read_u8()).await.unwrap().unwrap_err());
        assert_eq!(here.to_string(), "The time of `tower` has passed.");
        assert!(timeout(SOON, kept.read_u8()).await.unwrap().is_err());
        let refused = towers.connect_peer(&name("cosigner"), None).await.err().unwrap();
        assert_eq!(refused.kind(), ErrorKind::HandshakeRefused);
        assert_eq!(answerer.connect_peer(&name("tower"), None).await.err().unwrap().kind(), ErrorKind::PeerExpired);
        cosigner.store().set_expiry(&name("tower"), None).unwrap();
        sleep(WATCH * 3).await;
        reaches(&towers, "cosigner", &mut listening).await;
    });
}

/// A machine that only calls watches its store, too.
#[test]
fn a_caller_ends_its_sessions_as_well() {
    run(async {
        let (mut wallet, mut cosigner) = (Machine::software("wallet"), Machine::software("cosigner"));
        wallet.introduce(&mut cosigner);
        let (caller, answerer) = (wallet.endpoint(Pattern::Kk).await, cosigner.endpoint(Pattern::Kk).await);
        let mut listening = listen(&answerer).await;
        let (session, accepted) = meet(&caller, "cosigner", &mut listening).await;
        // The session alone keeps the watch.
        drop(caller);
        wallet.store().remove_peer(&name("cosigner")).unwrap();
        let ended = timeout(SOON, session.ended()).await.unwrap();
        assert_eq!(ended.kind(), ErrorKind::SessionRevoked);
        timeout(SOON, accepted.ended()).await.unwrap();
    });
}

/// The seal is made anew under a running listener: it asks its token once more, and goes on.
#[test]
fn a_store_that_is_sealed_anew_is_opened_again() {
    run(async {
        let (mut wallet, mut cosigner) = (Machine::software("wallet"), Machine::backed("cosigner"));
        wallet.introduce(&mut cosigner);
        let tower = Machine::software("tower");
        let (caller, answerer) = (wallet.endpoint(Pattern::Kk).await, cosigner.endpoint(Pattern::Kk).await);
        let mut listening = listen(&answerer).await;
        let spent = answerer.token().operations();
        cosigner.seal_anew();
        // Whoever connects meanwhile waits for the same answer.
        let looks = (0..8).map(|_| {
            let answerer = answerer.clone();
            tokio::spawn(async move { answerer.connect_peer(&name("tower"), None).await.err().unwrap().kind() })
        });
        for look in looks.collect::<Vec<_>>() {
            assert_eq!(look.await.unwrap(), ErrorKind::PeerUnknown);
        }
        cosigner.store().add_peer(&Peer::from_card(&tower.card), "test").unwrap();
        sleep(WATCH * 4).await;
        assert_eq!(answerer.token().operations() - spent, 1);
        assert_eq!(*answerer.store_trouble().borrow(), None);
        reaches(&caller, "cosigner", &mut listening).await;
        assert_eq!(answerer.connect_peer(&name("tower"), None).await.err().unwrap().kind(), ErrorKind::AddressRefused);
    });
}
