//! The seal: what it keeps, what it finds, and who opens it.

mod tamper;

use super::life::{backup, full};
use super::*;

/// What a token with that key answers. Which 32 bytes a real one gives back is the token's business.
pub(super) fn answer(number: u16) -> SealKey {
    let [low, high] = number.to_le_bytes();
    let mut agreed = [low | 1; 32];
    agreed[0] = high | 1;
    SealKey { key: key(number), agreed: SharedSecret::new(agreed) }
}

/// The answer of the token of [`new_machine`].
pub(super) fn own() -> SealKey {
    answer(OWN)
}

pub(super) fn sealed() -> (TempDir, Store) {
    let (home, dir) = place();
    let store = Store::create(&dir, &new_machine(), &[own()]).unwrap();
    (home, store)
}

fn holds(store: &Store, bytes: &[u8]) -> bool {
    let file = fs::read(store.dir().join("store.db")).unwrap();
    file.windows(bytes.len()).any(|window| window == bytes)
}

/// Every value of `secrets` and `challenges` as the file has it.
fn stored(store: &Store) -> Vec<Vec<u8>> {
    let mut statement =
        store.connection.prepare("SELECT value FROM secrets UNION ALL SELECT secret FROM challenges UNION ALL SELECT value FROM preshared_keys").unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(|value| value.unwrap()).collect()
}

#[test]
fn a_sealed_store_is_read_without_the_token_and_changed_with_it() {
    let (_home, mut store) = sealed();
    assert!(store.is_unlocked());
    assert_eq!(store.seal_state().unwrap(), SealState::Sealed(vec![own().key]));
    store.add_peer(&peer("cosigner", 1), "words compared").unwrap();
    let onion = store.onion_secret().unwrap();
    store.verify().unwrap();
    let mut store = Store::open(store.dir()).unwrap();
    assert!(!store.is_unlocked());
    assert_eq!(store.peers().unwrap().len(), 1);
    let name = "cosigner".parse().unwrap();
    let before = fs::read(store.dir().join("store.db")).unwrap();
    for refused in [
        store.onion_secret().map(drop),
        store.client_auth_secret().map(drop),
        store.former_onion_secret().map(drop),
        store.verify(),
        store.add_peer(&peer("other", 2), "").map(drop),
        store.add_card(&card("other", 2), "").map(drop),
        store.remove_peer(&name).map(drop),
        store.revoke(&name, "").map(drop),
        store.set_expiry(&name, Some(1)).map(drop),
        super::life::succeed(&mut store, card("cosigner", 2), 1),
        store.finish_rotation().map(drop),
        store.activate(KeyPlace::Primary),
        store.set_preshared_key(&name, &super::life::preshared(1), "").map(drop),
        store.remove_preshared_key(&name).map(drop),
        store.preshared_keys().map(drop),
        store.note(Event::Witnessed, &name, Fingerprint::from_bytes([0; 16]), ""),
        store.challenge(&[0; 16]).map(drop),
        store.spend_challenge(&[0; 16], &name, &key(1), ""),
        store.seal(&[own()]),
        store.unseal(),
    ] {
        assert_eq!(kind(refused), ErrorKind::StoreLocked);
    }
    assert_eq!(fs::read(store.dir().join("store.db")).unwrap(), before);
    let error = store.remove_peer(&name).unwrap_err();
    assert!(error.to_string().starts_with("Could not remove peer \"cosigner\" in "), "{error}");
    store.unlock(&own()).unwrap();
    assert_eq!(store.onion_secret().unwrap().expose(), onion.expose());
    store.add_peer(&peer("other", 2), "").unwrap();
    store.remove_peer(&"cosigner".parse().unwrap()).unwrap();
    store.verify().unwrap();
    drop(store.log().unwrap());
}

#[test]
fn only_the_tokens_that_it_is_sealed_to_open_it() {
    let (_home, store) = sealed();
    let mut store = Store::open(store.dir()).unwrap();
    assert_eq!(kind(store.unlock(&answer(5))), ErrorKind::KeyMismatch);
    assert_eq!(kind(store.unlock(&SealKey { agreed: SharedSecret::new([3; 32]), ..own() })), ErrorKind::StoreTampered);
    assert!(!store.is_unlocked());
    assert_eq!(kind(store.onion_secret()), ErrorKind::StoreLocked);
}

#[test]
fn either_token_opens_it_and_a_lost_one_costs_nothing() {
    let (_home, dir) = place();
    let card = IdentityCard { backup: Some(backup(7)), ..new_machine().card };
    let new = NewMachine { card, backup_token: Some("file:/backup.pem".into()), ..new_machine() };
    let mut store = Store::create(&dir, &new, &[own(), answer(7)]).unwrap();
    let onion = store.onion_secret().unwrap();
    // The first token is lost.
    let mut again = Store::open(&dir).unwrap();
    again.unlock(&answer(7)).unwrap();
    assert_eq!(kind(again.seal(&[answer(7)])), ErrorKind::KeyMismatch, "the next command would ask for the lost one");
    again.activate(KeyPlace::Backup).unwrap();
    assert_eq!((again.machine().unwrap().key(), again.machine().unwrap().locator()), (&key(7), "file:/backup.pem"));
    again.seal(&[answer(7)]).unwrap();
    assert_eq!(again.seal_state().unwrap(), SealState::Sealed(vec![key(7)]));
    assert_eq!(again.onion_secret().unwrap().expose(), onion.expose());
    assert_eq!(kind(again.activate(KeyPlace::Primary)), ErrorKind::KeyMismatch, "it is not sealed to that one now");
    // Whoever found it opens nothing; and a process that had the store open has to ask again.
    assert_eq!(kind(Store::open(&dir).unwrap().unlock(&own())), ErrorKind::KeyMismatch);
    assert_eq!(kind(store.peers()), ErrorKind::StoreLocked);
    assert_eq!(kind(store.add_peer(&peer("a", 1), "")), ErrorKind::StoreLocked);
    store.unlock(&answer(7)).unwrap();
    assert_eq!(store.peers().unwrap(), []);
}

#[test]
fn tokens_of_others_are_refused_at_the_seal() {
    let (_home, mut store) = sealed();
    let before = fs::read(store.dir().join("store.db")).unwrap();
    for keys in [vec![], vec![answer(5)], vec![own(), answer(5)], vec![own(), own()]] {
        assert_eq!(kind(store.seal(&keys)), ErrorKind::KeyMismatch);
    }
    assert_eq!(fs::read(store.dir().join("store.db")).unwrap(), before);
    let (home, dir) = place();
    assert_eq!(kind(Store::create(&dir, &new_machine(), &[answer(5)])), ErrorKind::KeyMismatch);
    assert_eq!(listing(home.path()), [""; 0]);
}

#[test]
fn no_secret_is_left_in_the_clear_and_none_of_an_older_seal() {
    let (_home, mut store) = full();
    let expose = |store: &Store| {
        let mut secrets = vec![store.onion_secret().unwrap().expose().to_vec()];
        secrets.push(store.client_auth_secret().unwrap().expose().to_vec());
        secrets.push(store.former_onion_secret().unwrap().unwrap().expose().to_vec());
        secrets.push(store.former_client_auth_secret().unwrap().unwrap().expose().to_vec());
        secrets.push(store.challenge(&super::life::ID).unwrap().unwrap().secret.expose().to_vec());
        let keys = store.preshared_keys().unwrap();
        secrets.extend(["cosigner", "watchtower"].map(|peer| keys[&peer.parse().unwrap()].expose().to_vec()));
        secrets
    };
    let secrets = expose(&store);
    assert!(!secrets.iter().any(|secret| holds(&store, secret)), "sealed from the beginning");
    let first = stored(&store);
    assert!(first.len() == 7 && first.iter().all(|value| holds(&store, value)));

    store.seal(&[own()]).unwrap();
    let second = stored(&store);
    assert!(!first.iter().any(|value| holds(&store, value)), "wrapped by the key before");
    assert_eq!(expose(&store), secrets);

    store.unseal().unwrap();
    assert!(store.is_unlocked() && store.seal_state().unwrap() == SealState::Unsealed);
    assert!(!second.iter().any(|value| holds(&store, value)));
    assert_eq!((expose(&store), stored(&store).len()), (secrets.clone(), 7));
    assert!(secrets.iter().all(|secret| holds(&store, secret)));

    store.seal(&[own()]).unwrap();
    assert!(!secrets.iter().any(|secret| holds(&store, secret)));
    assert_eq!(expose(&store), secrets);
    store.finish_rotation().unwrap();
    assert!(store.former_onion_secret().unwrap().is_none());
    assert!(!stored(&store).is_empty() && stored(&store).len() == 5);
}

#[test]
fn two_processes_may_have_it_open() {
    let (_home, mut one) = sealed();
    let mut two = Store::open(one.dir()).unwrap();
    two.unlock(&own()).unwrap();
    for number in 1..10 {
        let store = if number % 2 == 0 { &mut one } else { &mut two };
        store.add_peer(&peer(&format!("peer-{number}"), number), "").unwrap();
    }
    assert_eq!((one.peers().unwrap().len(), two.peers().unwrap().len()), (9, 9));
    two.unseal().unwrap();
    assert_eq!(kind(one.peers()), ErrorKind::StoreUnsealed, "it does not go on as if there had never been a seal");
    assert_eq!(kind(one.add_peer(&peer("late", 20), "")), ErrorKind::StoreUnsealed);
    assert_eq!(kind(one.verify()), ErrorKind::StoreUnsealed);
}

#[test]
fn contacts_are_outside() {
    let (_home, store) = sealed();
    let mut locked = Store::open(store.dir()).unwrap();
    let contact = |time| Contact { peer: "cosigner".parse().unwrap(), own: own().key, theirs: key(1), time };
    let before = store.changed().unwrap();
    for time in [5, 9, 7] {
        locked.note_contact(&contact(time)).unwrap();
    }
    assert_eq!(store.contacts().unwrap(), [contact(9)]);
    store.verify().unwrap();
    assert_eq!(store.changed().unwrap(), before);
}

/// How long a daemon waits for its peers. Run it in release.
#[test]
#[ignore = "a measurement"]
fn ten_thousand_peers() {
    let (_home, mut store) = store();
    let transaction = store.connection.unchecked_transaction().unwrap();
    for number in 1..=10_000 {
        let peer = peer(&format!("peer-{number}"), number);
        store.put_peer(&transaction, &peer).unwrap();
        log::append(&transaction, Event::PeerAdded, &peer.identifier, peer.fingerprint(), "words compared").unwrap();
    }
    transaction.commit().unwrap();
    let timed = |what: &str, work: &mut dyn FnMut()| {
        let start = std::time::Instant::now();
        work();
        println!("{what}: {:?}", start.elapsed());
    };
    timed("seal", &mut || store.seal(&[own()]).unwrap());
    let mut store = Store::open(store.dir()).unwrap();
    timed("unlock", &mut || store.unlock(&own()).unwrap());
    timed("verify", &mut || store.verify().unwrap());
    let name = "peer-77".parse().unwrap();
    timed("open", &mut || drop(Store::open(store.dir()).unwrap()));
    timed("peer", &mut || drop(store.peer(&name).unwrap()));
    timed("peer by key", &mut || drop(store.peer_by_key(&key(9_999)).unwrap().unwrap()));
    timed("peers", &mut || drop(store.peers().unwrap()));
    let locked = Store::open(store.dir()).unwrap();
    timed("peers of a locked store", &mut || drop(locked.peers().unwrap()));
    timed("note", &mut || store.note(Event::Witnessed, &name, Fingerprint::from_bytes([0; 16]), "x").unwrap());
}
