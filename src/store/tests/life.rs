//! Plan, held cards, revocation, expiry, succession, rotation, challenges.

use super::seal::{answer, own};
use super::*;
use crate::ceremony::plan::{Edge, Member, Rules};
use crate::ceremony::proof::Challenge;
use crate::ceremony::succession::Succession;
use crate::identity::Role;
use crate::secret::{EphemeralSecret, PresharedKey};

/// The id of the challenge of [`full`].
pub(super) const ID: [u8; 16] = [0xc5; 16];

pub(super) fn backup(number: u16) -> BackupKey {
    BackupKey { static_public: key(number), token: TokenKind::Hardware, attestation: None }
}

fn name(text: &str) -> Identifier {
    text.parse().unwrap()
}

/// Members on X25519 with the role of [`card`], and edges from the first name of each pair to the second.
pub(super) fn plan(members: &[&str], edges: &[(&str, &str)]) -> Plan {
    let member = |text: &&str| Member { identifier: name(text), role: role(), curve: Curve::X25519 };
    let edge = |(from, to): &(&str, &str)| Edge { from: name(from), to: name(to), service: "cosign".parse().unwrap() };
    let mut plan = Plan {
        name: name("vault"),
        members: members.iter().map(member).collect(),
        edges: edges.iter().map(edge).collect(),
        rules: Rules::default(),
    };
    plan.members.sort_by(|one, other| one.identifier.cmp(&other.identifier));
    plan.edges.sort();
    plan
}

fn role() -> Role {
    "cosigner".parse().unwrap()
}

pub(super) fn challenge(id: [u8; 16], expires: u64) -> OpenChallenge {
    let challenge =
        Challenge { id, plan: None, verifier: name("wallet"), ephemeral: key(4000), issued: expires - 600, expires };
    OpenChallenge { id, text: challenge.to_text(), secret: EphemeralSecret::new([id[0]; 32]) }
}

pub(super) fn next(card: IdentityCard, until: u64) -> (NewIdentity, IdentityCard) {
    let (onion, client_auth) = (OnionKeys::generate().unwrap(), ClientAuthKeys::generate().unwrap());
    let card = IdentityCard { onion_address: onion.address, client_auth: client_auth.public, ..card };
    let next = NewIdentity {
        card: card.clone(),
        token: "file:/next.pem".into(),
        backup_token: card.backup.as_ref().map(|_| "file:/next-backup.pem".into()),
        onion: onion.secret,
        client_auth: client_auth.secret,
        until,
    };
    (next, card)
}

pub(super) fn preshared(byte: u8) -> PresharedKey {
    PresharedKey::new([byte; 32])
}

/// Records a member's next card, after the one that is held.
pub(super) fn succeed(store: &mut Store, card: IdentityCard, until: u64) -> Result<()> {
    let held = store.cards()?.into_iter().find(|held| held.identifier == card.identifier);
    let former = held.unwrap_or_else(|| card.clone());
    store.succeed_card(&Succession::new(&former, KeyPlace::Primary, card, until), "vouched for")
}

/// A sealed store with something in every table: the machine is in a rotation, and ends with the token [`own`].
pub(super) fn full() -> (TempDir, Store) {
    let (home, dir) = place();
    let members = ["wallet", "cosigner", "watchtower", "guardian", "spare"];
    let edges = [("wallet", "cosigner"), ("wallet", "watchtower"), ("spare", "wallet"), ("guardian", "cosigner")];
    let old = new_machine();
    let new = NewMachine {
        card: IdentityCard { static_public: key(6), backup: Some(backup(7)), ..old.card },
        backup_token: Some("file:/backup.pem".into()),
        plan: Some(plan(&members, &edges)),
        attestation: AttestationPolicy { required: false, roots: vec!["root\n".into()] },
        ..old
    };
    let mut store = Store::create(&dir, &new, &[answer(6), answer(7)]).unwrap();
    for (member, number) in [("cosigner", 1), ("watchtower", 2), ("guardian", 3), ("spare", 4)] {
        let kem = (member != "spare").then_some(Kem::MlKem768);
        let card = IdentityCard { backup: Some(backup(number + 100)), kem, ..card(member, number) };
        assert_eq!(store.add_card(&card, "words compared").unwrap(), Added::New);
    }
    store.revoke(&name("spare"), "stolen").unwrap();
    store.set_expiry(&name("watchtower"), Some(2_000_000_000)).unwrap();
    succeed(&mut store, card("cosigner", 11), 1_900_000_000).unwrap();
    store.open_challenge(&challenge(ID, 1_800_000_000), 1_700_000_000).unwrap();
    store.spend_challenge(&ID, &name("cosigner"), &key(11), "by file").unwrap();
    let contact = Contact { peer: name("cosigner"), own: key(6), theirs: key(1), time: 1_700_000_000 };
    store.note_contact(&contact).unwrap();
    store.set_preshared_key(&name("cosigner"), &preshared(1), "by file").unwrap();
    store.set_preshared_key(&name("watchtower"), &preshared(2), "").unwrap();
    store.rotate(&next(card("wallet", OWN), 1_900_000_000).0, &[own()]).unwrap();
    (home, store)
}

#[test]
fn the_plan_says_who_is_a_peer_and_whose_card_is_only_held() {
    let (_home, mut store) = store();
    let members = ["wallet", "cosigner", "watchtower", "guardian"];
    let first = plan(&members, &[("wallet", "cosigner"), ("watchtower", "wallet"), ("guardian", "cosigner")]);
    let (cosigner, watchtower, guardian) = (card("cosigner", 1), card("watchtower", 2), card("guardian", 3));
    assert_eq!(store.plan().unwrap(), None);
    assert_eq!(store.set_plan(&first, "read").unwrap(), Added::New);
    assert_eq!(store.set_plan(&first, "read").unwrap(), Added::AlreadyThere);
    assert_eq!(store.plan().unwrap(), Some(first.clone()));
    for card in [&cosigner, &watchtower, &guardian] {
        assert_eq!(store.check_card(card).unwrap(), Added::New);
        assert_eq!(store.add_card(card, "").unwrap(), Added::New);
        assert_eq!(store.add_card(card, "").unwrap(), Added::AlreadyThere);
        assert_eq!(store.check_card(card).unwrap(), Added::AlreadyThere);
    }
    let peers = |store: &Store| -> Vec<String> {
        store.peers().unwrap().iter().map(|peer| peer.identifier.to_string()).collect()
    };
    let own = store.machine().unwrap().card;
    assert_eq!(peers(&store), ["cosigner", "watchtower"]);
    assert_eq!(store.cards().unwrap(), [cosigner.clone(), guardian.clone(), own.clone(), watchtower]);
    let log = store.log().unwrap();
    assert_eq!((log[1].event, log[1].fingerprint), (Event::PlanRecorded, first.fingerprint()));
    assert_eq!((log[4].event, log[4].fingerprint), (Event::CardAdded, guardian.fingerprint()));

    let stranger = card("stranger", 9);
    let bare = Peer { onion_address: None, client_auth: None, token: None, ..peer("bare", 8) };
    let other_role = IdentityCard { role: "spare".parse().unwrap(), ..guardian.clone() };
    for refused in [
        store.add_card(&stranger, ""),
        store.check_card(&stranger),
        store.add_peer(&Peer::from_card(&stranger), ""),
        store.add_peer(&Peer::from_card(&guardian), ""),
        store.add_peer(&bare, ""),
        store.add_card(&other_role, ""),
        store.set_plan(&plan(&["wallet", "cosigner", "watchtower"], &[("wallet", "cosigner")]), ""),
        store.set_plan(&plan(&["cosigner", "watchtower", "guardian"], &[("guardian", "cosigner")]), ""),
    ] {
        assert_eq!(kind(refused), ErrorKind::PlanMismatch);
    }
    assert_eq!(kind(store.add_card(&own, "")), ErrorKind::CardIsOwn);
    assert_eq!(store.plan().unwrap(), Some(first), "nothing was changed");

    // Another plan: one edge less, one more.
    let second = plan(&members, &[("wallet", "cosigner"), ("guardian", "wallet")]);
    store.set_plan(&second, "").unwrap();
    assert_eq!(peers(&store), ["cosigner", "guardian"]);
    assert_eq!(store.cards().unwrap().len(), 4);
    assert_eq!(recorded(&store), replayed(&store));
    assert_eq!(store.remove_peer(&name("watchtower")).unwrap().identifier, name("watchtower"), "a held card");
    assert_eq!(kind(store.peer(&name("watchtower"))), ErrorKind::PeerUnknown);
}

/// A plan that takes an edge away and one that gives it back must not let somebody in for good whose time is over.
#[test]
fn no_plan_takes_a_limit_away() {
    let (_home, mut store) = store();
    let members = ["wallet", "cosigner", "guardian"];
    let joined = plan(&members, &[("wallet", "cosigner"), ("guardian", "cosigner")]);
    let apart = plan(&members, &[("guardian", "cosigner"), ("wallet", "guardian")]);
    store.set_plan(&joined, "").unwrap();
    store.add_card(&card("cosigner", 1), "").unwrap();
    store.add_card(&card("guardian", 3), "").unwrap();
    let limited = store.set_expiry(&name("cosigner"), Some(100)).unwrap();
    let (before, log) = (recorded(&store), store.log().unwrap());
    assert_eq!(kind(store.set_plan(&apart, "")), ErrorKind::PlanMismatch);
    assert_eq!((recorded(&store), store.log().unwrap()), (before, log));
    assert_eq!((store.plan().unwrap(), store.peer(&name("cosigner")).unwrap()), (Some(joined.clone()), limited));
    store.set_expiry(&name("cosigner"), None).unwrap();
    assert_eq!(store.set_plan(&apart, "").unwrap(), Added::New);
    assert_eq!(store.set_plan(&joined, "").unwrap(), Added::New);
    assert_eq!(store.peer(&name("cosigner")).unwrap().expires, None);
}

#[test]
fn a_plan_of_the_first_day_is_recorded_and_demanded() {
    let (home, dir) = place();
    let stranger = plan(&["cosigner", "watchtower"], &[("cosigner", "watchtower")]);
    let new = NewMachine { plan: Some(stranger), ..new_machine() };
    assert_eq!(kind(Store::create(&dir, &new, &[])), ErrorKind::PlanMismatch);
    assert_eq!(listing(home.path()), [""; 0]);
    let ours = plan(&["cosigner", "wallet"], &[("cosigner", "wallet")]);
    let store = Store::create(&dir, &NewMachine { plan: Some(ours.clone()), ..new_machine() }, &[]).unwrap();
    assert_eq!(store.plan().unwrap(), Some(ours));
    let events: Vec<_> = store.log().unwrap().iter().map(|entry| entry.event).collect();
    assert_eq!(events, [Event::Created, Event::PlanRecorded]);
}

#[test]
fn the_tokens_are_those_of_the_card() {
    let (home, dir) = place();
    let with = IdentityCard { backup: Some(backup(7)), ..new_machine().card };
    for (card, token) in [(with, None), (new_machine().card, Some("file:/backup.pem".to_owned()))] {
        let new = NewMachine { card, backup_token: token, ..new_machine() };
        assert_eq!(kind(Store::create(&dir, &new, &[])), ErrorKind::IdentityInvalid);
    }
    let same = IdentityCard { backup: Some(backup(OWN)), ..new_machine().card };
    let new = NewMachine { card: same, backup_token: Some("file:/backup.pem".into()), ..new_machine() };
    assert_eq!(kind(Store::create(&dir, &new, &[])), ErrorKind::IdentityInvalid);
    let locator = NewMachine { token: String::new(), ..new_machine() };
    assert_eq!(kind(Store::create(&dir, &locator, &[])), ErrorKind::LocatorInvalid);
    assert_eq!(listing(home.path()), [""; 0]);
}

#[test]
fn no_key_is_in_a_store_twice() {
    let (_home, dir) = place();
    let own = IdentityCard { backup: Some(backup(50)), ..new_machine().card };
    let new = NewMachine { card: own, backup_token: Some("file:/backup.pem".into()), ..new_machine() };
    let mut store = Store::create(&dir, &new, &[]).unwrap();
    let plan = plan(&["wallet", "cosigner", "guardian", "late"], &[("wallet", "cosigner"), ("wallet", "late")]);
    store.set_plan(&plan, "").unwrap();
    let cosigner = IdentityCard { backup: Some(backup(101)), ..card("cosigner", 1) };
    let guardian = IdentityCard { backup: Some(backup(103)), ..card("guardian", 3) };
    store.add_card(&cosigner, "").unwrap();
    store.add_card(&guardian, "").unwrap();
    succeed(&mut store, IdentityCard { backup: Some(backup(102)), ..card("cosigner", 2) }, 9).unwrap();
    let late = |number| card("late", number);
    let with = |number| IdentityCard { backup: Some(backup(number)), ..card("late", 200) };
    for taken in [2, 102, 3, 103, 1, 101] {
        assert_eq!(kind(store.add_card(&late(taken), "")), ErrorKind::PeerConflict, "key {taken}");
        assert_eq!(kind(store.add_card(&with(taken), "")), ErrorKind::PeerConflict, "backup key {taken}");
    }
    for taken in [OWN, 50] {
        assert_eq!(kind(store.add_card(&late(taken), "")), ErrorKind::CardIsOwn, "key {taken}");
        assert_eq!(kind(store.add_card(&with(taken), "")), ErrorKind::CardIsOwn, "backup key {taken}");
    }
    for taken in [&cosigner, &guardian] {
        let address = IdentityCard { onion_address: taken.onion_address, ..late(200) };
        let auth = IdentityCard { client_auth: taken.client_auth, ..late(200) };
        assert_eq!(kind(store.add_card(&address, "")), ErrorKind::PeerConflict);
        assert_eq!(kind(store.add_card(&auth, "")), ErrorKind::PeerConflict);
    }
    let twice = Peer { backup: Some(backup(200)), ..Peer::from_card(&late(200)) };
    assert_eq!(kind(store.add_peer(&twice, "")), ErrorKind::IdentityInvalid);
    assert_eq!(store.add_card(&with(201), "").unwrap(), Added::New);
}

#[test]
fn what_was_revoked_never_comes_back() {
    let (_home, mut store) = store();
    let gone = IdentityCard { backup: Some(backup(101)), ..card("cosigner", 1) };
    store.add_card(&gone, "").unwrap();
    let after = IdentityCard { backup: Some(backup(102)), ..card("cosigner", 2) };
    succeed(&mut store, after.clone(), u64::MAX).unwrap();
    let bare = Peer { onion_address: None, client_auth: None, token: None, ..peer("bare", 5) };
    store.add_peer(&bare, "").unwrap();
    assert_eq!(store.revoke(&name("cosigner"), "lost on a train\n").unwrap().card(), Some(after.clone()));
    assert_eq!(store.revoke(&name("bare"), "").unwrap(), bare);
    assert_eq!(kind(store.revoke(&name("bare"), "")), ErrorKind::PeerUnknown);
    let revoked = store.revoked().unwrap();
    let keys: Vec<_> = revoked.iter().map(|revoked| revoked.static_public.clone()).collect();
    assert_eq!(keys, [key(2), key(1), key(5)]);
    assert_eq!((revoked[0].identifier.as_str(), revoked[0].reason.as_str()), ("cosigner", "lost on a train "));
    let last = &store.log().unwrap()[4];
    assert_eq!((last.event, last.detail.as_str()), (Event::PeerRevoked, "lost on a train "));
    for card in [
        gone.clone(),
        after.clone(),
        card("other", 1),
        card("other", 102),
        card("other", 5),
        IdentityCard { backup: Some(backup(101)), ..card("other", 9) },
        IdentityCard { backup: Some(backup(2)), ..card("other", 9) },
        IdentityCard { onion_address: gone.onion_address, ..card("other", 9) },
        IdentityCard { onion_address: after.onion_address, ..card("other", 9) },
        IdentityCard { client_auth: after.client_auth, ..card("other", 9) },
    ] {
        assert_eq!(kind(store.add_card(&card, "")), ErrorKind::PeerRevoked);
        assert_eq!(kind(store.check_peer(&Peer::from_card(&card))), ErrorKind::PeerRevoked);
    }
    store.add_card(&card("cosigner", 9), "").unwrap();
    assert_eq!(kind(succeed(&mut store, card("cosigner", 1), 0)), ErrorKind::PeerRevoked);
    assert_eq!(kind(store.rotate(&next(card("wallet", 102), 0).0, &[])), ErrorKind::PeerRevoked);
}

#[test]
fn keys_hold_until_they_do_not() {
    let (_home, mut store) = store();
    let was = IdentityCard { backup: Some(backup(101)), ..card("cosigner", 1) };
    // The next card keeps the backup key, at another address.
    let is = IdentityCard { backup: Some(backup(101)), ..card("cosigner", 2) };
    store.add_card(&was, "").unwrap();
    store.set_expiry(&was.identifier, Some(200)).unwrap();
    succeed(&mut store, is.clone(), 100).unwrap();
    succeed(&mut store, is.clone(), 100).unwrap();
    let peer = store.peer(&was.identifier).unwrap();
    assert_eq!(peer.former, Some(Former { card: was.clone(), until: 100 }));
    assert_eq!(store.peers().unwrap(), std::slice::from_ref(&peer));
    let told = |now| -> Vec<_> {
        peer.keys(now).into_iter().map(|key| (key.static_public, key.onion_address, key.place, key.former)).collect()
    };
    let current = [
        (key(2), Some(is.onion_address), KeyPlace::Primary, false),
        (key(101), Some(is.onion_address), KeyPlace::Backup, false),
    ];
    let former = [
        (key(1), Some(was.onion_address), KeyPlace::Primary, true),
        (key(101), Some(was.onion_address), KeyPlace::Backup, true),
    ];
    assert_eq!(told(99), [current.clone(), former].concat());
    assert_eq!((told(100), told(199)), (current.to_vec(), current.to_vec()));
    assert_eq!(told(200), []);
    for number in [1, 2, 101] {
        assert_eq!(store.peer_by_key(&key(number)).unwrap(), Some(peer.clone()), "key {number}");
    }
    assert_eq!(store.peer_by_key(&key(3)).unwrap(), None);
    assert_eq!(store.add_card(&is, "").unwrap(), Added::AlreadyThere, "whatever was done with it here");
    let peer = store.set_expiry(&was.identifier, None).unwrap();
    assert_eq!((peer.expires, peer.keys(u64::MAX).len()), (None, 2));
    assert_eq!(kind(store.set_expiry(&name("nobody"), None)), ErrorKind::PeerUnknown);
    let told: Vec<_> = store.log().unwrap()[2..].iter().map(|entry| (entry.event, entry.detail.clone())).collect();
    assert_eq!(
        told,
        [
            (Event::ExpirySet, "until 1970-01-01T00:03:20Z".to_owned()),
            (Event::CardSucceeded, "vouched for".to_owned()),
            (Event::ExpirySet, "without limit".to_owned()),
        ]
    );
    assert_eq!(kind(succeed(&mut store, card("nobody", 7), 0)), ErrorKind::PeerUnknown);
}

/// Two commands that import successions at once: the one that is slower does not go back behind the other.
#[test]
fn a_succession_follows_upon_the_card_that_is_there() {
    let (_home, mut store) = store();
    let [first, second, third] = [1, 2, 3].map(|number| card("cosigner", number));
    store.add_card(&first, "").unwrap();
    let slower = Succession::new(&first, KeyPlace::Primary, second.clone(), 100);
    succeed(&mut store, second.clone(), 100).unwrap();
    succeed(&mut store, third.clone(), 100).unwrap();
    assert_eq!(kind(store.succeed_card(&slower, "")), ErrorKind::SuccessionInvalid);
    let peer = store.peer(&name("cosigner")).unwrap();
    assert_eq!((peer.card(), peer.former.map(|former| former.card)), (Some(third), Some(second)));
}

#[test]
fn a_rotation_keeps_both_until_it_is_finished() {
    let (_home, mut store) = super::seal::sealed();
    store.add_card(&card("cosigner", 1), "").unwrap();
    let before = store.machine().unwrap();
    let (onion, auth) = (store.onion_secret().unwrap(), store.client_auth_secret().unwrap());
    for (other, expected) in [
        (card("other", 20), ErrorKind::PeerConflict),
        (before.card.clone(), ErrorKind::PeerConflict),
        (card("wallet", 1), ErrorKind::PeerConflict),
        (IdentityCard { static_public: p256(), ..card("wallet", 20) }, ErrorKind::NoSharedCurve),
    ] {
        let mut refused = next(other.clone(), 100).0;
        refused.card = other;
        assert_eq!(kind(store.rotate(&refused, &[answer(20)])), expected);
    }
    let (next, next_card) = next(IdentityCard { backup: Some(backup(21)), ..card("wallet", 20) }, 100);
    for keys in [vec![], vec![own()], vec![answer(21)], vec![answer(20), own()]] {
        assert_eq!(kind(store.rotate(&next, &keys)), ErrorKind::KeyMismatch);
    }
    assert_eq!(store.machine().unwrap(), before, "nothing was changed");
    store.rotate(&next, &[answer(20), answer(21)]).unwrap();
    let machine = store.machine().unwrap();
    let former = FormerIdentity { card: before.card, active: KeyPlace::Primary, token: before.token, until: 100 };
    assert_eq!((machine.card.clone(), machine.former.clone()), (next_card, Some(former)));
    assert_eq!((machine.key(), machine.locator()), (&key(20), "file:/next.pem"));
    let mut again = Store::open(store.dir()).unwrap();
    assert_eq!(kind(again.unlock(&own())), ErrorKind::KeyMismatch, "the former token");
    again.unlock(&answer(21)).unwrap();
    assert_eq!(again.onion_secret().unwrap().expose(), next.onion.expose());
    assert_eq!(again.client_auth_secret().unwrap().expose(), next.client_auth.expose());
    assert_eq!(again.former_onion_secret().unwrap().unwrap().expose(), onion.expose());
    assert_eq!(again.former_client_auth_secret().unwrap().unwrap().expose(), auth.expose());
    assert_eq!(kind(store.add_card(&card("late", OWN), "")), ErrorKind::CardIsOwn, "its former key");
    assert_eq!(kind(store.rotate(&next, &[answer(20)])), ErrorKind::PeerConflict, "one is under way");
    assert!(store.finish_rotation().unwrap());
    assert!(!store.finish_rotation().unwrap());
    assert_eq!(store.machine().unwrap(), Machine { former: None, ..machine });
    assert!(store.former_onion_secret().unwrap().is_none() && store.former_client_auth_secret().unwrap().is_none());
    let events: Vec<_> = store.log().unwrap()[3..].iter().map(|entry| entry.event).collect();
    assert_eq!(events, [Event::Rotated, Event::RotationFinished]);
}

#[test]
fn a_backup_key_may_come_later() {
    let (_home, mut store) = super::seal::sealed();
    assert_eq!(kind(store.activate(KeyPlace::Backup)), ErrorKind::KeyNotFound);
    let machine = store.machine().unwrap();
    let next = NewIdentity {
        card: IdentityCard { backup: Some(backup(7)), ..machine.card.clone() },
        token: machine.token.clone(),
        backup_token: Some("file:/backup.pem".into()),
        onion: store.onion_secret().unwrap(),
        client_auth: store.client_auth_secret().unwrap(),
        until: 0,
    };
    store.rotate(&next, &[own(), answer(7)]).unwrap();
    store.finish_rotation().unwrap();
    assert_eq!(store.onion_secret().unwrap().expose(), next.onion.expose());
    store.activate(KeyPlace::Backup).unwrap();
    store.activate(KeyPlace::Backup).unwrap();
    assert_eq!(store.machine().unwrap().locator(), "file:/backup.pem");
    let last = store.log().unwrap().pop().unwrap();
    assert_eq!((last.event, last.detail.as_str()), (Event::TokenSwitched, "backup"));
}

#[test]
fn challenges_are_kept_spent_once_and_forgotten() {
    for mut store in [store(), super::seal::sealed()].map(|(home, store)| (home, store)) {
        let store = &mut store.1;
        let asked = challenge([1; 16], 1000);
        store.open_challenge(&asked, 500).unwrap();
        let kept = store.challenge(&asked.id).unwrap().unwrap();
        assert_eq!((kept.text, kept.secret.expose()), (asked.text, asked.secret.expose()));
        assert!(store.challenge(&[9; 16]).unwrap().is_none());
        store.spend_challenge(&[1; 16], &name("cosigner"), &key(1), "by file").unwrap();
        assert_eq!(kind(store.spend_challenge(&[1; 16], &name("cosigner"), &key(1), "")), ErrorKind::ProofUsed);
        store.spend_challenge(&[1; 16], &name("cosigner"), &key(101), "by file").unwrap();
        assert_eq!(kind(store.spend_challenge(&[9; 16], &name("cosigner"), &key(1), "")), ErrorKind::ProofInvalid);
        let log = store.log().unwrap();
        let last = log.last().unwrap();
        assert_eq!((last.event, last.fingerprint), (Event::ProofVerified, Fingerprint::of_key(&key(101))));
        assert_eq!(last.version, env!("CARGO_PKG_VERSION"));
        let swapped = OpenChallenge { text: challenge([2; 16], 2000).text, ..challenge([3; 16], 2000) };
        assert_eq!(kind(store.open_challenge(&swapped, 500)), ErrorKind::ProofInvalid);
        // The first one's time passes.
        store.open_challenge(&challenge([2; 16], 2000), 1000).unwrap();
        assert!(store.challenge(&[1; 16]).unwrap().is_none() && store.challenge(&[2; 16]).unwrap().is_some());
        assert_eq!(kind(store.spend_challenge(&[1; 16], &name("cosigner"), &key(1), "")), ErrorKind::ProofInvalid);
    }
}

#[test]
fn the_log_is_a_chain() {
    let (_home, mut store) = store();
    for number in 1..=8 {
        store.add_peer(&peer(&format!("peer-{number}"), number), "").unwrap();
    }
    let dir = store.dir().to_owned();
    drop(store);
    let good = fs::read(dir.join("store.db")).unwrap();
    for (sql, named) in [
        ("UPDATE log SET detail = 'words compared' WHERE sequence = 7", "entry 7 of the log was changed"),
        ("UPDATE log SET version = '0.0.9' WHERE sequence = 7", "entry 7 of the log was changed"),
        ("UPDATE log SET hash = zeroblob(32) WHERE sequence = 2", "entry 2 of the log was changed"),
        ("UPDATE log SET time = time - 1 WHERE sequence = 9", "entry 9 of the log was changed"),
        ("UPDATE log SET hash = x'00' WHERE sequence = 2", "row 2 of table `log`"),
        ("DELETE FROM log WHERE sequence = 4", "row 4 of table `log` is missing"),
    ] {
        fs::write(dir.join("store.db"), &good).unwrap();
        without_triggers(&dir, sql);
        let error = Store::open(&dir).unwrap().log().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StoreCorrupt);
        assert!(error.to_string().contains(named), "{sql}: {error}");
    }
}

#[test]
fn a_preshared_key_stays_with_its_peer() {
    let (_home, mut store) = store();
    for (peer, number) in [("onion", 1), ("former-onion", 2), ("client-auth", 3), ("psk", 4)] {
        store.add_peer(&super::peer(peer, number), "").unwrap();
        store.set_preshared_key(&name(peer), &preshared(number as u8), "by file").unwrap();
    }
    let keys = |store: &Store| -> Vec<(String, u8)> {
        let mut keys: Vec<_> =
            store.preshared_keys().unwrap().iter().map(|(peer, key)| (peer.to_string(), key.expose()[31])).collect();
        keys.sort();
        keys
    };
    let all =
        [("client-auth", 3), ("former-onion", 2), ("onion", 1), ("psk", 4)].map(|(peer, key)| (peer.to_owned(), key));
    assert_eq!(keys(&store), all);
    // Sealed, under another key, and in the clear again: names that secrets have, too, are told apart.
    for step in [Store::seal, Store::seal, |store: &mut Store, _: &[SealKey]| store.unseal()] {
        step(&mut store, &[own()]).unwrap();
        assert_eq!(keys(&store), all);
        store.onion_secret().unwrap();
    }
    succeed(&mut store, card("onion", 11), 1_900_000_000).unwrap();
    store.rotate(&next(card("wallet", 12), 1_900_000_000).0, &[]).unwrap();
    store.finish_rotation().unwrap();
    assert_eq!(keys(&store), all, "neither rotation takes it away");

    let again = store.set_preshared_key(&name("psk"), &preshared(4), "by file");
    assert_eq!(again.unwrap(), Added::AlreadyThere);
    assert_eq!(kind(store.set_preshared_key(&name("psk"), &preshared(5), "")), ErrorKind::PeerConflict);
    assert_eq!(kind(store.set_preshared_key(&name("absent"), &preshared(5), "")), ErrorKind::PeerUnknown);
    assert_eq!(kind(store.set_preshared_key(&name("psk"), &preshared(0), "")), ErrorKind::PresharedKeyInvalid);
    assert_eq!(kind(store.remove_preshared_key(&name("absent"))), ErrorKind::PeerUnknown);
    assert!(store.remove_preshared_key(&name("psk")).unwrap());
    assert!(!store.remove_preshared_key(&name("psk")).unwrap());
    store.set_preshared_key(&name("psk"), &preshared(5), "").unwrap();
    store.remove_peer(&name("onion")).unwrap();
    store.revoke(&name("client-auth"), "stolen").unwrap();
    assert_eq!(keys(&store), [("former-onion".to_owned(), 2), ("psk".to_owned(), 5)]);

    let held = store.held_preshared_keys().unwrap();
    let check = crate::ceremony::preshared::check_value(&preshared(2));
    assert_eq!((held[0].peer.as_str(), &held[0].check), ("former-onion", &check));
    let told: Vec<_> =
        store.log().unwrap().into_iter().filter(|entry| entry.event.as_str().starts_with("psk-")).collect();
    assert_eq!(told.len(), 4 + 1 + 1 + 2);
    assert!(told[1].subject == name("former-onion") && told[1].detail == format!("check {check}; by file"));
    assert!(told.iter().all(|entry| entry.detail.starts_with("check ")));
}

/// A plan that cuts an edge and gets it again would else leave the two without what they had agreed on.
#[test]
fn a_preshared_key_stays_when_the_plan_moves_the_card() {
    let (_home, mut store) = store();
    let joined = plan(&["wallet", "cosigner"], &[("wallet", "cosigner")]);
    store.set_plan(&joined, "").unwrap();
    store.add_card(&card("cosigner", 1), "").unwrap();
    store.set_preshared_key(&name("cosigner"), &preshared(1), "").unwrap();
    store.set_plan(&plan(&["wallet", "cosigner", "third"], &[("wallet", "third"), ("third", "cosigner")]), "").unwrap();
    assert!(store.peers().unwrap().is_empty() && store.preshared_keys().unwrap().len() == 1);
    assert_eq!(kind(store.set_preshared_key(&name("cosigner"), &preshared(1), "")), ErrorKind::PeerUnknown);
    store.set_plan(&joined, "").unwrap();
    assert_eq!(store.preshared_keys().unwrap()[&name("cosigner")].expose(), &[1; 32]);
}
