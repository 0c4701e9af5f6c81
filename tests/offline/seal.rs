//! A store that was changed by other hands, before a program starts and while it runs; and stores without a seal.

use crate::cli::{run as program, shown, snapshot, text};
use crate::support::{Machine, now, pin_file, run, talk};
use claviger::config::Pattern;
use claviger::endpoint::WATCH;
use claviger::identity::Fingerprint;
use claviger::{Endpoint, ErrorKind, Session, transport};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// What somebody does who can write to the file.
fn tamper(machine: &Machine, change: &str) {
    let store = rusqlite::Connection::open(machine.dir.path().join("store/store.db")).unwrap();
    assert_eq!(store.execute(change, []).unwrap(), 1);
}

/// Named at start, before anything is dialled or published.
#[test]
fn a_start_finds_what_was_changed() {
    let (mut wallet, mut cosigner) = (Machine::software("wallet"), Machine::software("cosigner"));
    wallet.introduce(&mut cosigner);
    // Its port is let go: nobody listens there.
    cosigner.configure("");
    let file = pin_file(&wallet);
    let store = wallet.configure(&file);
    let home = wallet.dir.path().to_str().unwrap().to_owned();
    let hide = [(home.as_str(), "[HOME]")];
    let mut seen = String::new();
    assert_eq!(program(&["connect", "cosigner", "--store", text(&store)], b"").status.code(), Some(9));

    tamper(&wallet, "UPDATE peers SET role = 'watchtower' WHERE identifier = 'cosigner'");
    for arguments in [&["connect", "cosigner"][..], &["listen", "--echo"], &["rollcall"]] {
        seen += &shown(5, &[arguments, &["--store", text(&store)]].concat(), &hide);
    }
    tamper(&wallet, "UPDATE peers SET role = 'cosigner' WHERE identifier = 'cosigner'");
    assert_eq!(program(&["connect", "cosigner", "--store", text(&store)], b"").status.code(), Some(9));

    wallet.unseal();
    seen += &shown(5, &["connect", "cosigner", "--store", text(&store)], &hide);
    wallet.config.store.allow_unsealed = true;
    wallet.configure(&file);
    let allowed = program(&["connect", "cosigner", "--store", text(&store)], b"");
    assert_eq!(allowed.status.code(), Some(9));
    assert!(String::from_utf8(allowed.stderr).unwrap().contains("Warning: the store is not sealed"));
    snapshot("seal", &seen);
}

#[test]
fn an_endpoint_wants_the_seal_opened() {
    run(async {
        let mut wallet = Machine::software("wallet");
        let (token, dir) = (wallet.token(), wallet.dir.path().join("store"));
        let transport = transport::open(&wallet.config, &dir).await.unwrap();
        let made = |store| Endpoint::new(store, token.clone(), transport.clone(), wallet.config.clone());
        let mut locked = claviger::store::Store::open(&dir).unwrap();
        let refused = made(claviger::store::Store::open(&dir).unwrap()).err().unwrap();
        assert_eq!(refused.kind(), ErrorKind::StoreLocked);
        claviger::endpoint::unlock(&mut locked, &token).await.unwrap();
        assert!(made(locked).is_ok());
        assert_eq!(token.operations(), 1);
        wallet.unseal();
        let refused = Endpoint::new(wallet.store(), token, transport, wallet.config.clone()).err().unwrap();
        assert_eq!(refused.kind(), ErrorKind::StoreUnsealed);
    });
}

async fn session(caller: &Endpoint, listening: &mut claviger::endpoint::Listening) -> (Session, Session) {
    let name = "cosigner".parse().unwrap();
    let (session, accepted) = tokio::join!(caller.connect_peer(&name, None), listening.accept());
    (session.unwrap(), accepted.unwrap())
}

/// The peers stay as they were, nobody is let in by what was written, and the state says why.
#[test]
fn a_listener_finds_what_is_changed() {
    run(async {
        let (mut wallet, mut cosigner) = (Machine::software("wallet"), Machine::software("cosigner"));
        wallet.introduce(&mut cosigner);
        let mut intruder = Machine::software("intruder");
        intruder.meet(&cosigner);
        let (caller, answerer) = (wallet.endpoint(Pattern::Kk).await, cosigner.endpoint(Pattern::Kk).await);
        let intruders = intruder.endpoint(Pattern::Kk).await;
        let mut listening = answerer.listen(&cosigner.card.onion_address, 4747).await.unwrap();
        let mut trouble = answerer.store_trouble();
        let (before, before_here) = session(&caller, &mut listening).await;

        let key = intruder.card.static_public.to_hex();
        tamper(&cosigner, &format!("UPDATE peers SET static_public = '{key}' WHERE identifier = 'wallet'"));
        let finding = timeout(Duration::from_secs(5), trouble.wait_for(Option::is_some));
        let found = finding.await.expect("found").unwrap().clone().unwrap();
        assert_eq!(found.kind, ErrorKind::StoreTampered);
        assert!(found.what.contains("wallet"), "{}", found.what);
        let spent = answerer.token().operations();
        let refused = intruders.connect_peer(&"cosigner".parse().unwrap(), None).await.err().unwrap();
        assert_eq!(refused.kind(), ErrorKind::HandshakeRefused);
        assert_eq!(answerer.token().operations(), spent);
        let (after, after_here) = session(&caller, &mut listening).await;
        talk(&after, &after_here).await;
        talk(&before, &before_here).await;

        // Put back, it is as it was sealed, and changes count again.
        let key = wallet.card.static_public.to_hex();
        tamper(&cosigner, &format!("UPDATE peers SET static_public = '{key}' WHERE identifier = 'wallet'"));
        timeout(Duration::from_secs(5), trouble.wait_for(Option::is_none)).await.expect("over").unwrap();
        let (last, _here) = session(&caller, &mut listening).await;
        cosigner.store().revoke(&"wallet".parse().unwrap(), "test").unwrap();
        sleep(WATCH).await;
        let ended = timeout(Duration::from_secs(5), last.ended()).await.unwrap();
        assert_ne!(ended.kind(), ErrorKind::SessionRevoked, "it is the other end that ended it");
    });
}

/// Another store, sealed to another token, in the place of this machine's: its own seal holds.
#[test]
fn a_configuration_says_which_key_may_be_used() {
    let (mut wallet, mut cosigner) = (Machine::software("wallet"), Machine::software("cosigner"));
    wallet.introduce(&mut cosigner);
    cosigner.configure("");
    let file = pin_file(&wallet);
    let print = Fingerprint::of_key(&wallet.card.static_public);
    wallet.config.store.keys = vec![Fingerprint::of_key(&cosigner.card.static_public).words(), print.to_string()];
    let store = wallet.configure(&file);
    let connect = ["connect", "cosigner", "--store", text(&store)];
    assert_eq!(program(&connect, b"").status.code(), Some(9), "its key is the second of the list");

    wallet.config.store.keys.pop();
    // No passphrase is given: none is asked for.
    wallet.configure("");
    let refused = program(&connect, b"");
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.status.code() == Some(6) && said.contains(&print.to_string()) && said.contains("`keys`"), "{said}");
}

/// What was found stays told while time goes on: the end of a peer's time is no sign that the store can be believed.
#[test]
fn a_time_that_passes_takes_no_trouble_away() {
    run(async {
        let (mut wallet, mut cosigner) = (Machine::software("wallet"), Machine::software("cosigner"));
        wallet.introduce(&mut cosigner);
        let mut tower = Machine::software("tower");
        tower.introduce(&mut cosigner);
        let until = now() + 4;
        cosigner.store().set_expiry(&"tower".parse().unwrap(), Some(until)).unwrap();
        let endpoint = cosigner.endpoint(Pattern::Kk).await;
        let (kept, kept_here);
        let _listening = {
            let mut listening = endpoint.listen(&cosigner.card.onion_address, 4747).await.unwrap();
            let caller = tower.endpoint(Pattern::Kk).await;
            (kept, kept_here) = session(&caller, &mut listening).await;
            listening
        };
        tamper(&cosigner, "UPDATE peers SET role = 'x' WHERE identifier = 'wallet'");
        let mut trouble = endpoint.store_trouble();
        let found = timeout(Duration::from_secs(5), trouble.wait_for(Option::is_some));
        let found = found.await.expect("found").unwrap().clone().unwrap();
        assert!(found.what.contains("wallet") && now() < until, "{}", found.what);

        let ended = timeout(Duration::from_secs(10), kept_here.ended()).await.unwrap();
        assert_eq!(ended.to_string(), "The time of `tower` has passed.");
        timeout(Duration::from_secs(5), kept.ended()).await.unwrap();
        assert!(timeout(WATCH * 6, trouble.changed()).await.is_err(), "told once");
        assert_eq!(*endpoint.store_trouble().borrow(), Some(found));
    });
}

/// A file that is no longer the store's is not watched in silence.
#[test]
fn a_store_that_is_put_aside_is_told() {
    run(async {
        let (mut wallet, mut cosigner) = (Machine::software("wallet"), Machine::software("cosigner"));
        wallet.introduce(&mut cosigner);
        let (caller, answerer) = (wallet.endpoint(Pattern::Kk).await, cosigner.endpoint(Pattern::Kk).await);
        let mut listening = answerer.listen(&cosigner.card.onion_address, 4747).await.unwrap();
        let mut trouble = answerer.store_trouble();
        let store = cosigner.dir.path().join("store");
        let (file, aside) = (store.join("store.db"), store.join("aside.db"));
        std::fs::rename(&file, &aside).unwrap();
        std::fs::copy(&aside, &file).unwrap();
        let found = timeout(Duration::from_secs(5), trouble.wait_for(Option::is_some));
        let found = found.await.expect("found").unwrap().clone().unwrap();
        assert_eq!(found.kind, ErrorKind::StoreTampered);
        assert!(found.what.contains("put in its place"), "{}", found.what);
        session(&caller, &mut listening).await;

        std::fs::rename(&aside, &file).unwrap();
        timeout(Duration::from_secs(5), trouble.wait_for(Option::is_none)).await.expect("over").unwrap();
        cosigner.store().revoke(&"wallet".parse().unwrap(), "test").unwrap();
        sleep(WATCH * 4).await;
        let refused = caller.connect_peer(&"cosigner".parse().unwrap(), None).await.err().unwrap();
        assert_eq!(refused.kind(), ErrorKind::HandshakeRefused);
    });
}
