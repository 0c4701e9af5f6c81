use super::*;
use crate::identity::{ClientAuthKeys, Curve, IdentityCard, OnionKeys, TokenKind};
use crate::store::{AttestationPolicy, Former, NewMachine};
use std::path::Path;

fn key(n: u16) -> StaticPublic {
    let mut bytes = [9; 32];
    bytes[..2].copy_from_slice(&n.to_le_bytes());
    StaticPublic::new(Curve::X25519, &bytes).unwrap()
}

fn card(name: &str, n: u16) -> (IdentityCard, OnionKeys, ClientAuthKeys) {
    let (onion, auth) = (OnionKeys::generate().unwrap(), ClientAuthKeys::generate().unwrap());
    let card = IdentityCard {
        identifier: name.parse().unwrap(),
        role: name.parse().unwrap(),
        token: TokenKind::Software,
        attestation: None,
        static_public: key(n),
        backup: None,
        onion_address: onion.address,
        client_auth: auth.public,
        suites: Suites::default(),
        kem: None,
    };
    (card, onion, auth)
}

fn store(dir: &Path) -> Store {
    let (card, onion, auth) = card("here", 1);
    let machine = NewMachine {
        card,
        token: "file:/nowhere".into(),
        backup_token: None,
        plan: None,
        onion: onion.secret,
        client_auth: auth.secret,
        attestation: AttestationPolicy::default(),
    };
    Store::create(&dir.join("store"), &machine, &[]).unwrap()
}

#[test]
fn a_contact_is_no_change_and_hides_none() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = store(dir.path());
    let contact = |time| Contact { peer: "there".parse().unwrap(), own: key(1), theirs: key(2), time };
    let seen = Stamp::of(&store).unwrap();
    let (before, after) = write_alone(&mut store, &contact(1)).unwrap().expect("nobody else wrote");
    assert_eq!(before, seen);
    assert_ne!(after, seen, "the file did change");
    assert_eq!(Stamp::of(&store).unwrap(), after);

    // What another process did before it is in none of the two that could be taken for what was read.
    let mut other = Store::open(store.dir()).unwrap();
    other.note_contact(&contact(2)).unwrap();
    let (before, _) = write_alone(&mut store, &contact(3)).unwrap().expect("nobody else wrote meanwhile");
    assert_ne!(before, after);
}

#[test]
fn another_process_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = store(dir.path());
    let version = store.data_version().unwrap();
    let contact = Contact { peer: "there".parse().unwrap(), own: key(1), theirs: key(2), time: 1 };
    store.note_contact(&contact).unwrap();
    assert_eq!(store.data_version().unwrap(), version);
    Store::open(store.dir()).unwrap().note_contact(&Contact { time: 2, ..contact }).unwrap();
    assert_ne!(store.data_version().unwrap(), version);
}

#[test]
fn peers_are_found_by_name_and_key_and_time_takes_them_away() {
    let now = 1_800_000_000;
    let peers: Vec<Peer> = (0..1000)
        .map(|n| {
            let mut peer = Peer::from_card(&card(&format!("peer-{n}"), n + 10).0);
            // One that was rotated, and one whose time ends.
            peer.former = (n == 7).then(|| Former { card: card("peer-7", 5000).0, until: now + 100 });
            peer.expires = (n == 8).then_some(now + 50);
            peer
        })
        .collect();
    let known = Known::new(Content { peers: peers.clone(), ..Content::default() }, now);
    for (n, peer) in peers.iter().enumerate() {
        let keys: Vec<_> = known.keys_of(&peer.identifier).map(|key| &key.static_public).collect();
        assert_eq!(keys.len(), if n == 7 { 2 } else { 1 });
        assert_eq!(known.peer(&peer.identifier), Some(peer));
        assert!(keys.into_iter().all(|key| known.by_key(key).unwrap().0 == peer));
    }
    assert!(known.by_key(&key(9)).is_none() && known.peer(&"peer".parse().unwrap()).is_none());
    assert_eq!(known.by_key(&key(5000)).unwrap().0.identifier.as_str(), "peer-7");

    assert!(!known.is_past(now) && !known.is_past(now + 49) && known.is_past(now + 50));
    assert!(known.is_past(now - 1), "a clock that was put back");
    let later = Known::new(Content { peers, ..Content::default() }, now + 51);
    let gone = "peer-8".parse().unwrap();
    assert!(later.peer(&gone).is_some() && later.keys_of(&gone).next().is_none());
    assert!(!later.is_past(now + 99) && later.is_past(now + 100));
}
