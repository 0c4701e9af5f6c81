//! Stores of other releases.

use super::*;

#[test]
fn a_newer_store_is_refused_and_left_alone() {
    let (_home, store) = store();
    let dir = store.dir().to_owned();
    drop(store);
    sqlite(&dir).execute_batch("PRAGMA user_version = 99; CREATE TABLE future (x); PRAGMA journal_mode = WAL").unwrap();
    let before = fs::read(dir.join("store.db")).unwrap();
    assert_eq!(kind(Store::open(&dir)), ErrorKind::StoreNewer);
    assert_eq!(fs::read(dir.join("store.db")).unwrap(), before);
    for version in [0, -1] {
        sqlite(&dir).pragma_update(None, "user_version", version).unwrap();
        assert_eq!(kind(Store::open(&dir)), ErrorKind::StoreCorrupt, "version {version}");
    }
}

/// The first release's store, as `sqlite3 store.db .dump` wrote it. It must open for ever.
#[test]
fn version_1_opens() {
    let (_home, dir) = place();
    fs::create_dir_all(&dir).unwrap();
    chmod(&dir, 0o700);
    sqlite(&dir).execute_batch(include_str!("version-1.sql")).unwrap();
    chmod(&dir.join("store.db"), 0o600);
    let mut store = Store::open(&dir).unwrap();
    assert_eq!(store.machine().unwrap().card.identifier.as_str(), "wallet");
    assert_eq!(store.machine().unwrap().token, "file:/key.pem");
    assert_eq!(store.onion_secret().unwrap().expose()[0] & 7, 0);
    store.client_auth_secret().unwrap();
    let names: Vec<_> = store.peers().unwrap().iter().map(|peer| peer.identifier.to_string()).collect();
    assert_eq!(names, ["bare", "cosigner"]);
    // Fingerprints are those of cards as this release writes them; the log keeps what was compared then.
    let named = |list: Vec<(Identifier, Fingerprint)>| list.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(named(recorded(&store)), named(replayed(&store)));
    assert_eq!(store.machine().unwrap().card.attestation, None);
    assert_eq!(store.machine().unwrap().attestation, AttestationPolicy::default());
    assert!(store.peers().unwrap().iter().all(|peer| peer.attestation.is_none()));
    store.add_peer(&attested("new", 77), "").unwrap();
}

/// The second release's store. Its log gets the chain of hashes, and is append-only again.
#[test]
fn version_2_opens() {
    let (_home, dir) = place();
    fs::create_dir_all(&dir).unwrap();
    chmod(&dir, 0o700);
    sqlite(&dir).execute_batch(include_str!("version-2.sql")).unwrap();
    chmod(&dir.join("store.db"), 0o600);
    let mut store = Store::open(&dir).unwrap();
    let machine = store.machine().unwrap();
    assert_eq!((machine.active, machine.backup_token, machine.former), (KeyPlace::Primary, None, None));
    assert_eq!((machine.card.backup, machine.attestation.roots.len()), (None, 1));
    assert_eq!((store.seal_state().unwrap(), store.plan().unwrap()), (SealState::Unsealed, None));
    let peers = store.peers().unwrap();
    assert_eq!(peers.iter().filter(|peer| peer.attestation.is_some()).count(), 1);
    assert!(peers.iter().all(|peer| peer.backup.is_none() && peer.former.is_none() && peer.expires.is_none()));

    let log = store.log().unwrap();
    let told: Vec<_> = log.iter().map(|entry| (entry.sequence, entry.event, entry.detail.as_str())).collect();
    assert_eq!(told[1..3], [(2, Event::PeerAdded, "words compared"), (3, Event::PeerAdded, "fingerprint given")]);
    assert!(log.len() == 5 && log.iter().all(|entry| entry.version.is_empty()));
    let mut before = crate::ceremony::log::ROOT;
    for entry in &log {
        before = crate::ceremony::log::chained(&before, entry);
        assert_eq!(entry.hash, before);
    }
    for sql in ["UPDATE log SET detail = 'x'", "DELETE FROM log"] {
        assert!(sqlite(&dir).execute_batch(sql).is_err(), "{sql}");
    }
    store.add_peer(&attested("new", 77), "").unwrap();
    assert_eq!(store.log().unwrap().len(), 6);
    store.seal(&[super::seal::own()]).unwrap();
    Store::open(&dir).unwrap().unlock(&super::seal::own()).unwrap();
}

#[test]
fn an_older_log_with_a_gap_is_not_chained() {
    let (_home, dir) = place();
    fs::create_dir_all(&dir).unwrap();
    chmod(&dir, 0o700);
    sqlite(&dir).execute_batch(include_str!("version-2.sql")).unwrap();
    chmod(&dir.join("store.db"), 0o600);
    without_triggers(&dir, "DELETE FROM log WHERE sequence = 3");
    let before = fs::read(dir.join("store.db")).unwrap();
    let error = Store::open(&dir).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::StoreCorrupt);
    assert!(error.to_string().contains("row 3 of table `log`"), "{error}");
    assert_eq!(fs::read(dir.join("store.db")).unwrap(), before);
}

#[test]
fn migrations_run_in_order_and_together() {
    let (_home, store) = store();
    let dir = store.dir().to_owned();
    drop(store);
    let open = || schema::connect(&dir.join("store.db"), &dir).unwrap();
    let version = || -> i64 { sqlite(&dir).pragma_query_value(None, "user_version", |row| row.get(0)).unwrap() };
    let add = "ALTER TABLE peers ADD COLUMN note TEXT";
    // The last fails: the one before, which worked, is undone with it.
    let with = |more: [&'static str; 2]| [schema::MIGRATIONS, &more.map(schema::Migration::sql)].concat();
    let failing = with([add, "INSERT INTO absent VALUES (1)"]);
    assert_eq!(kind(schema::upgrade(&mut open(), &failing, &dir)), ErrorKind::StoreIo);
    assert_eq!(version(), 4);
    Store::open(&dir).unwrap();
    let good = with([add, "UPDATE peers SET note = 'kept'"]);
    // Two processes that upgrade at once run it once.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| schema::upgrade(&mut open(), &good, &dir).unwrap());
        }
    });
    assert_eq!(version(), 6);
    assert_eq!(kind(Store::open(&dir)), ErrorKind::StoreNewer);
}

/// A newer release may upgrade the store between this one's look at its version and its own upgrade.
#[test]
fn an_older_release_never_lowers_the_version() {
    let (_home, store) = store();
    let dir = store.dir().to_owned();
    drop(store);
    sqlite(&dir).execute_batch("ALTER TABLE peers ADD COLUMN note TEXT; PRAGMA user_version = 99").unwrap();
    let mut connection = schema::connect(&dir.join("store.db"), &dir).unwrap();
    let refused = schema::upgrade(&mut connection, schema::MIGRATIONS, &dir).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::StoreNewer);
    let version: i64 = sqlite(&dir).pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(version, 99);
}

/// The former release's stores: this one's tables, and nothing under the seal is changed by them.
#[test]
fn version_3_opens() {
    let (_home, mut store) = older(include_str!("version-3.sql"));
    let machine = store.machine().unwrap();
    assert_eq!(machine.card.fingerprint().to_string(), "99a6 bbb0 58fd d154 ed30 e8b5 19fc 9308");
    assert_eq!(machine.former.unwrap().card.fingerprint().to_string(), "8982 d6a2 f3ce 8af0 bd35 cf25 2ac5 776d");
    let peers = store.peers().unwrap();
    assert!(peers.iter().all(|peer| peer.kem.is_none()) && peers[1].former.is_some());
    let prints: Vec<_> = peers.iter().map(|peer| peer.fingerprint().to_string()).collect();
    let expected = ["cd0e 2d9d ad95 9d11 cd2d 76b1 5bd6 d921", "dcda 3ac8 2675 1b14 64f6 cf39 a270 fc30"];
    assert_eq!(prints, expected);
    assert_eq!(store.log().unwrap().len(), 5);
    store.former_onion_secret().unwrap().unwrap();
    store.add_peer(&Peer { kem: Some(Kem::MlKem768), ..peer("new", 77) }, "").unwrap();
    store.seal(&[super::seal::answer(12)]).unwrap();
    Store::open(store.dir()).unwrap().unlock(&super::seal::answer(12)).unwrap();
}

#[test]
fn a_sealed_store_of_version_3_opens_under_its_seal() {
    let (_home, mut store) = older(include_str!("version-3-sealed.sql"));
    let mac = |store: &Store| -> Vec<u8> {
        store.connection.query_row("SELECT mac FROM seal", [], |row| row.get(0)).unwrap()
    };
    let sealed = mac(&store);
    store.unlock(&super::seal::own()).unwrap();
    store.verify().unwrap();
    assert_eq!(mac(&store), sealed, "opening it seals nothing anew");
    store.onion_secret().unwrap();
    store.former_client_auth_secret().unwrap().unwrap();
    store.challenge(&super::life::ID).unwrap().unwrap();
    let prints: Vec<_> = store.cards().unwrap().iter().map(|card| card.fingerprint().to_string()).collect();
    let expected = [
        "e525 7d40 9974 ea92 6ca9 461e 98cc 3e07",
        "14cc ebb6 0bb9 6fab 9b84 f1db 1a3c f2f8",
        "6771 20a4 b7a2 f7ec 54c2 2ed4 e6c7 94f0",
        "b2d7 41cb c85b 717a 12f5 51e1 f557 c592",
    ];
    assert_eq!(prints, expected);
    store.set_expiry(&"watchtower".parse().unwrap(), None).unwrap();
    Store::open(store.dir()).unwrap().unlock(&super::seal::own()).unwrap();
}

/// What was changed in the file before the upgrade is found after it.
#[test]
fn an_upgrade_hides_nothing_from_the_seal() {
    for (sql, found) in [
        ("UPDATE peers SET suites = 'AESGCM_SHA256' WHERE identifier = 'cosigner'", "peer \"cosigner\" was changed"),
        ("UPDATE machine SET token = 'file:/other.pem'", "the token's locator or this machine's own card was changed"),
    ] {
        let (_home, mut store) = older(&format!("{}{sql};", include_str!("version-3-sealed.sql")));
        let error = store.unlock(&super::seal::own()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StoreTampered);
        assert!(error.to_string().contains(found), "{error}");
    }
}

/// A store of an older release, opened by this one.
fn older(sql: &str) -> (TempDir, Store) {
    let (home, dir) = place();
    fs::create_dir_all(&dir).unwrap();
    chmod(&dir, 0o700);
    sqlite(&dir).execute_batch(sql).unwrap();
    chmod(&dir.join("store.db"), 0o600);
    let store = Store::open(&dir).unwrap();
    (home, store)
}
