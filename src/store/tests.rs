//! The store against what happens to files: other processes, other releases, other people's modes, full disks, kill -9.

mod crash;
mod life;
mod seal;
mod upgrade;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use crate::error::ErrorKind;
use crate::identity::{AttestationFormat, ClientAuthKeys, Curve, OnionKeys, Suite};
use crate::secret::SharedSecret;

/// The number of the key of [`new_machine`].
const OWN: u16 = u16::MAX;

/// A public key of its own for each number from 1.
fn key(number: u16) -> StaticPublic {
    let mut bytes = [9; 32];
    bytes[..2].copy_from_slice(&number.to_le_bytes());
    StaticPublic::new(Curve::X25519, &bytes).unwrap()
}

fn card(name: &str, number: u16) -> IdentityCard {
    IdentityCard {
        identifier: name.parse().unwrap(),
        role: "cosigner".parse().unwrap(),
        token: TokenKind::Hardware,
        attestation: None,
        static_public: key(number),
        backup: None,
        onion_address: OnionKeys::generate().unwrap().address,
        client_auth: ClientAuthKeys::generate().unwrap().public,
        suites: Suites::default(),
        kem: None,
    }
}

fn peer(name: &str, number: u16) -> Peer {
    Peer::from_card(&card(name, number))
}

fn attested(name: &str, number: u16) -> Peer {
    let chain = vec![vec![7; 600], vec![8; Attestation::MAX_CERTIFICATE]];
    let attestation = Attestation::new(AttestationFormat::YubicoPiv, chain).unwrap();
    Peer { attestation: Some(attestation), ..peer(name, number) }
}

fn new_machine() -> NewMachine {
    let (onion, client_auth) = (OnionKeys::generate().unwrap(), ClientAuthKeys::generate().unwrap());
    let card = IdentityCard { onion_address: onion.address, client_auth: client_auth.public, ..card("wallet", OWN) };
    NewMachine {
        card,
        token: "file:/key.pem".into(),
        backup_token: None,
        plan: None,
        onion: onion.secret,
        client_auth: client_auth.secret,
        attestation: AttestationPolicy::default(),
    }
}

/// What is read back of it.
fn machine_of(new: &NewMachine) -> Machine {
    Machine {
        card: new.card.clone(),
        token: new.token.clone(),
        backup_token: new.backup_token.clone(),
        active: KeyPlace::Primary,
        former: None,
        attestation: new.attestation.clone(),
    }
}

/// An empty temporary directory, and the store's place in it.
fn place() -> (TempDir, PathBuf) {
    let home = TempDir::new().unwrap();
    let dir = home.path().join("share/claviger");
    (home, dir)
}

fn store() -> (TempDir, Store) {
    let (home, dir) = place();
    let store = Store::create(&dir, &new_machine(), &[]).unwrap();
    (home, store)
}

fn sqlite(dir: &Path) -> Connection {
    Connection::open(dir.join("store.db")).unwrap()
}

/// Runs SQL as somebody who can write to the file: the log's triggers are off, and there again afterwards, so that only the rows differ.
fn try_without_triggers(dir: &Path, sql: &str) -> rusqlite::Result<usize> {
    let connection = sqlite(dir);
    let triggers: String = connection.query_row(
        "SELECT group_concat(sql, '; ') || ';' FROM sqlite_schema WHERE type = 'trigger'",
        [],
        |row| row.get(0),
    )?;
    connection.execute_batch("BEGIN; DROP TRIGGER log_update; DROP TRIGGER log_delete; DROP TRIGGER log_replace;")?;
    let rows = connection.execute(sql, [])?;
    // A trigger's own text ends with its END; the dots above only part them.
    connection.execute_batch(&format!("{triggers} COMMIT"))?;
    Ok(rows)
}

fn without_triggers(dir: &Path, sql: &str) {
    try_without_triggers(dir, sql).unwrap();
}

fn kind<T>(result: Result<T>) -> ErrorKind {
    result.err().expect("an error").kind()
}

fn listing(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// What the log says is recorded.
fn replayed(store: &Store) -> Vec<(Identifier, Fingerprint)> {
    let mut peers = Vec::new();
    for entry in store.log().unwrap() {
        match entry.event {
            Event::PeerAdded => peers.push((entry.subject, entry.fingerprint)),
            Event::PeerRemoved | Event::PeerRevoked => peers.retain(|(name, _)| *name != entry.subject),
            _ => {}
        }
    }
    peers.sort_by(|a, b| a.0.cmp(&b.0));
    peers
}

fn recorded(store: &Store) -> Vec<(Identifier, Fingerprint)> {
    store.peers().unwrap().into_iter().map(|peer| (peer.identifier.clone(), peer.fingerprint())).collect()
}

#[test]
fn what_is_created_is_read_back() {
    let (_home, dir) = place();
    let new = new_machine();
    drop(Store::create(&dir, &new, &[]).unwrap());
    let store = Store::open(&dir).unwrap();
    assert_eq!(store.machine().unwrap(), machine_of(&new));
    assert_eq!(store.onion_secret().unwrap().expose(), new.onion.expose());
    assert_eq!(store.client_auth_secret().unwrap().expose(), new.client_auth.expose());
    assert_eq!(store.peers().unwrap(), []);
    let log = store.log().unwrap();
    assert_eq!((log.len(), log[0].sequence, log[0].event), (1, 1, Event::Created));
    assert_eq!(log[0].fingerprint, new.card.fingerprint());
    assert_eq!((listing(&dir), mode(&dir), mode(&dir.join("store.db"))), (vec!["store.db".into()], 0o700, 0o600));
}

#[test]
fn attestations_and_their_policy_are_kept() {
    let (_home, dir) = place();
    let policy = AttestationPolicy { required: true, roots: vec!["one\n".into(), "two\n".into()] };
    let new = NewMachine { card: attested("wallet", 3).card().unwrap(), attestation: policy, ..new_machine() };
    let mut store = Store::create(&dir, &new, &[]).unwrap();
    assert_eq!(store.machine().unwrap(), machine_of(&new));
    let cosigner = attested("cosigner", 1);
    store.add_peer(&cosigner, "").unwrap();
    assert_eq!(store.peer(&cosigner.identifier).unwrap(), cosigner);
    assert_eq!(store.add_peer(&cosigner, "").unwrap(), Added::AlreadyThere);
    assert_eq!(kind(store.add_peer(&peer("bare", 2), "")), ErrorKind::AttestationMissing);
}

#[test]
fn peers_come_and_go_and_the_log_tells() {
    let (_home, mut store) = store();
    let (cosigner, bare) =
        (peer("cosigner", 1), Peer { onion_address: None, client_auth: None, token: None, ..peer("bare", 2) });
    let before = store.changed().unwrap();
    assert_eq!(store.add_peer(&cosigner, "words compared").unwrap(), Added::New);
    assert_eq!(store.add_peer(&cosigner, "words compared").unwrap(), Added::AlreadyThere);
    assert_eq!(store.changed().unwrap(), before + 1, "an identical card writes nothing");
    store.add_peer(&bare, "by key").unwrap();
    assert_eq!(store.peers().unwrap(), [bare.clone(), cosigner.clone()]);
    assert_eq!(store.peer(&cosigner.identifier).unwrap(), cosigner);
    assert_eq!(store.peer_by_key(&bare.static_public).unwrap(), Some(bare.clone()));
    assert_eq!(store.peer_by_key(&key(3)).unwrap(), None);
    assert_eq!(bare.fingerprint(), Fingerprint::of_key(&bare.static_public));
    assert_eq!(store.remove_peer(&cosigner.identifier).unwrap(), cosigner);
    assert_eq!(kind(store.remove_peer(&cosigner.identifier)), ErrorKind::PeerUnknown);
    let log = store.log().unwrap();
    let told: Vec<_> = log.iter().map(|e| (e.sequence, e.event, e.subject.as_str(), e.detail.as_str())).collect();
    assert_eq!(
        told[1..],
        [
            (2, Event::PeerAdded, "cosigner", "words compared"),
            (3, Event::PeerAdded, "bare", "by key"),
            (4, Event::PeerRemoved, "cosigner", ""),
        ]
    );
    assert_eq!(recorded(&store), replayed(&store));
}

#[test]
fn an_unknown_peer_is_answered_with_near_names() {
    let (_home, mut store) = store();
    store.add_peer(&peer("cosigner", 1), "").unwrap();
    let error = store.peer(&"cosinger".parse().unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PeerUnknown);
    assert!(error.hint().contains("Did you mean \"cosigner\"?"), "{}", error.hint());
}

#[test]
fn nothing_recorded_is_ever_replaced() {
    let (_home, mut store) = store();
    let there = peer("cosigner", 1);
    store.add_peer(&there, "").unwrap();
    let own = store.machine().unwrap().card;
    let before = (store.changed().unwrap(), store.peers().unwrap());
    let other = peer("watchtower", 2);
    let cases = [
        ("name, other key", Peer { identifier: there.identifier.clone(), ..other.clone() }, ErrorKind::PeerConflict),
        ("attestation", Peer { attestation: attested("x", 3).attestation, ..there.clone() }, ErrorKind::PeerConflict),
        (
            "same name and key, other role",
            Peer { role: "spare".parse().unwrap(), ..there.clone() },
            ErrorKind::PeerConflict,
        ),
        ("key", Peer { static_public: there.static_public.clone(), ..other.clone() }, ErrorKind::PeerConflict),
        ("address", Peer { onion_address: there.onion_address, ..other.clone() }, ErrorKind::PeerConflict),
        ("client auth", Peer { client_auth: there.client_auth, ..other.clone() }, ErrorKind::PeerConflict),
        ("own card", Peer::from_card(&own), ErrorKind::CardIsOwn),
        ("own key", Peer { static_public: own.static_public.clone(), ..other.clone() }, ErrorKind::CardIsOwn),
        ("own name", Peer { identifier: own.identifier.clone(), ..other.clone() }, ErrorKind::PeerConflict),
        ("own address", Peer { onion_address: Some(own.onion_address), ..other.clone() }, ErrorKind::PeerConflict),
        ("own client auth", Peer { client_auth: Some(own.client_auth), ..other.clone() }, ErrorKind::PeerConflict),
        (
            "suite",
            Peer { suites: Suites::new(vec![Suite::AesGcmSha256]).unwrap(), ..other.clone() },
            ErrorKind::NoSharedSuite,
        ),
        ("curve", Peer { static_public: p256(), ..other }, ErrorKind::NoSharedCurve),
    ];
    for (what, peer, expected) in cases {
        assert_eq!(kind(store.check_peer(&peer)), expected, "{what}");
        assert_eq!(kind(store.add_peer(&peer, "")), expected, "{what}");
        assert_eq!((store.changed().unwrap(), store.peers().unwrap()), before, "{what}");
    }
}

fn p256() -> StaticPublic {
    let generator = "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296\
                     4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5";
    StaticPublic::from_hex(Curve::P256, generator).unwrap()
}

#[test]
fn a_second_store_is_refused_and_the_first_kept() {
    let (_home, dir) = place();
    drop(Store::create(&dir, &new_machine(), &[]).unwrap());
    let before = fs::read(dir.join("store.db")).unwrap();
    assert_eq!(kind(Store::create(&dir, &new_machine(), &[])), ErrorKind::StoreExists);
    assert_eq!(fs::read(dir.join("store.db")).unwrap(), before);
    assert_eq!(listing(&dir), ["store.db"]);
}

#[test]
fn one_of_many_creators_wins() {
    let (_home, dir) = place();
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..8).map(|_| scope.spawn(|| Store::create(&dir, &new_machine(), &[]).map(drop))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    assert!(outcomes.into_iter().filter_map(Result::err).all(|error| error.kind() == ErrorKind::StoreExists));
    assert_eq!(listing(&dir), ["store.db"]);
}

#[test]
fn a_store_that_fails_to_be_created_leaves_nothing() {
    let (home, dir) = place();
    let failure = file::create(&dir, |path| {
        fs::write(path, "half").unwrap();
        fs::write(format!("{}-journal", path.display()), "half").unwrap();
        Err(fail::corrupt(path, "a test says so"))
    });
    assert_eq!(kind(failure), ErrorKind::StoreCorrupt);
    assert_eq!(listing(home.path()), [""; 0], "directories made on the way are gone, too");
    let machine = NewMachine { token: "pkcs11:a\nb".into(), ..new_machine() };
    assert_eq!(kind(Store::create(&dir, &machine, &[])), ErrorKind::LocatorInvalid);
    assert_eq!(listing(home.path()), [""; 0]);
}

#[test]
fn absent_stores() {
    let (home, dir) = place();
    assert_eq!(kind(Store::open(&dir)), ErrorKind::StoreAbsent);
    assert_eq!(listing(home.path()), [""; 0], "looking makes nothing");
    fs::create_dir_all(&dir).unwrap();
    chmod(&dir, 0o700);
    assert_eq!(kind(Store::open(&dir)), ErrorKind::StoreAbsent);
    fs::write(home.path().join("file"), "").unwrap();
    assert_eq!(kind(Store::open(&home.path().join("file"))), ErrorKind::StoreAbsent);
    assert_eq!(kind(Store::open(&home.path().join("file/below"))), ErrorKind::StoreAbsent);
}

#[test]
fn looser_modes_are_refused_with_the_mending_command() {
    let (_home, store) = store();
    let dir = store.dir().to_owned();
    drop(store);
    let file = dir.join("store.db");
    for (path, good, bad) in [(&dir, 0o700, [0o750, 0o701, 0o777]), (&file, 0o600, [0o640, 0o604, 0o602])] {
        for loose in bad {
            chmod(path, loose);
            let error = Store::open(&dir).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::StorePermissions);
            let mend = format!("`chmod {good:o} '{}'`", path.display());
            assert!(error.hint().contains(&mend), "{}", error.hint());
            assert_eq!(mode(path), loose, "nothing is mended in silence");
        }
        chmod(path, good);
        Store::open(&dir).unwrap();
    }
    let open = dir.join("open");
    fs::create_dir(&open).unwrap();
    chmod(&open, 0o755);
    assert_eq!(kind(Store::create(&open, &new_machine(), &[])), ErrorKind::StorePermissions);
    assert_eq!(listing(&open), [""; 0]);
}

#[test]
fn another_users_store_is_refused() {
    if !rustix::process::geteuid().is_root() {
        return; // Only root can give a file away; CI runs as root.
    }
    let (_home, store) = store();
    for path in [store.dir().join("store.db"), store.dir().to_owned()] {
        std::os::unix::fs::chown(&path, Some(1), None).unwrap();
        assert_eq!(kind(Store::open(store.dir())), ErrorKind::StorePermissions, "{}", path.display());
    }
}

#[test]
fn a_file_that_is_no_store_is_refused() {
    let (_home, store) = store();
    let (dir, file) = (store.dir().to_owned(), store.dir().join("store.db"));
    let whole = fs::read(&file).unwrap();
    drop(store);
    for content in [
        &b""[..],
        b"not a database, but long enough to have a header, if it were one, of one hundred bytes, or more",
        &whole[..whole.len() / 2],
    ] {
        fs::write(&file, content).unwrap();
        assert_eq!(kind(Store::open(&dir)), ErrorKind::StoreCorrupt, "{} bytes", content.len());
        assert_eq!(fs::read(&file).unwrap(), content, "a damaged store is left as it is");
    }
    fs::remove_file(&file).unwrap();
    Connection::open(&file).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    chmod(&file, 0o600);
    assert_eq!(kind(Store::open(&dir)), ErrorKind::StoreCorrupt, "another program's database");
    fs::rename(&file, dir.join("elsewhere")).unwrap();
    symlink(dir.join("elsewhere"), &file).unwrap();
    assert_eq!(kind(Store::open(&dir)), ErrorKind::StoreCorrupt, "a symbolic link");
}

#[test]
fn damaged_pages_are_typed_errors() {
    let (_home, mut store) = store();
    for number in 1..=64 {
        store.add_peer(&peer(&format!("peer-{number}"), number), "").unwrap();
    }
    let (dir, file) = (store.dir().to_owned(), store.dir().join("store.db"));
    drop(store);
    let whole = fs::read(&file).unwrap();
    for page in 1..whole.len() / 4096 {
        let mut damaged = whole.clone();
        damaged[page * 4096..][..64].fill(0xa5);
        fs::write(&file, &damaged).unwrap();
        assert_eq!(kind(Store::open(&dir)), ErrorKind::StoreCorrupt, "page {page}");
    }
    fs::write(&file, &whole).unwrap();
    Store::open(&dir).unwrap();
}

#[test]
fn rows_changed_by_hand_are_named() {
    let (_home, mut store) = store();
    store.add_peer(&peer("cosigner", 0xabcd), "").unwrap();
    let dir = store.dir().to_owned();
    let good = fs::read(dir.join("store.db")).unwrap();
    drop(store);
    let peers = "row \"cosigner\" of table `peers`";
    let cases = [
        ("UPDATE peers SET role = 'Co signer'", peers),
        ("UPDATE peers SET curve = 'p521'", peers),
        ("UPDATE peers SET curve = 'p256'", peers),
        ("UPDATE peers SET static_public = upper(static_public)", peers),
        ("UPDATE peers SET static_public = '01' || substr(static_public, 5)", peers),
        ("UPDATE peers SET static_public = printf('%064d', 0)", peers),
        ("UPDATE peers SET onion_address = 'x' || onion_address", peers),
        ("UPDATE peers SET client_auth = ''", peers),
        ("UPDATE peers SET suites = ''", peers),
        ("UPDATE peers SET token_kind = 'paper'", peers),
        ("UPDATE peers SET attestation = ''", peers),
        ("UPDATE peers SET attestation = 'yubico-piv AQ'", peers),
        ("UPDATE peers SET identifier = '../x'", "row \"../x\" of table `peers`"),
        ("UPDATE peers SET role = CAST(x'ff' AS TEXT)", "table `peers`"),
        ("UPDATE machine SET identifier = ''", "row \"\" of table `machine`"),
        ("UPDATE machine SET token = ''", "table `machine`"),
        ("INSERT INTO attestation_roots VALUES (printf('%0200000d', 0))", "table `attestation_roots`"),
        ("DELETE FROM machine", "table `machine` is empty"),
        ("DELETE FROM secrets", "row \"onion\" of table `secrets`"),
        ("UPDATE secrets SET value = x'00'", "row \"onion\" of table `secrets`"),
        ("INSERT INTO log VALUES (7, 0, 'created', 'wallet', printf('%032d', 0), '', '', x'')", "row 3 of table `log`"),
        ("INSERT INTO log VALUES (3, 0, 'eaten', 'wallet', printf('%032d', 0), '', '', x'')", "row 3 of table `log`"),
        (
            "INSERT INTO log VALUES (3, -1, 'created', 'wallet', printf('%032d', 0), '', '', x'')",
            "row 3 of table `log`",
        ),
        ("INSERT INTO log VALUES (3, 0, 'created', 'wallet', 'zz', '', '', x'')", "row 3 of table `log`"),
        (
            "INSERT INTO log VALUES (3, 0, 'created', 'wallet', printf('%032d', 0), '', char(27), x'')",
            "row 3 of table `log`",
        ),
    ];
    for (sql, named) in cases {
        fs::write(dir.join("store.db"), &good).unwrap();
        sqlite(&dir).execute_batch(sql).unwrap();
        let store = Store::open(&dir).unwrap();
        let read = || -> Result<()> {
            store.machine()?;
            store.onion_secret()?;
            store.client_auth_secret()?;
            store.peers()?;
            store.log().map(drop)
        };
        let error = read().expect_err(sql);
        assert_eq!(error.kind(), ErrorKind::StoreCorrupt, "{sql}");
        assert!(error.to_string().contains(named), "{sql}: {error}");
    }
}

#[test]
fn a_schema_changed_by_hand_is_refused() {
    let (_home, store) = store();
    let dir = store.dir().to_owned();
    let good = fs::read(dir.join("store.db")).unwrap();
    drop(store);
    for sql in [
        "DROP TRIGGER log_delete",
        "CREATE TRIGGER t AFTER INSERT ON peers BEGIN DELETE FROM secrets; END",
        "CREATE VIEW v AS SELECT * FROM secrets",
        "ALTER TABLE peers ADD COLUMN note TEXT",
        "DROP TABLE secrets",
    ] {
        fs::write(dir.join("store.db"), &good).unwrap();
        sqlite(&dir).execute_batch(sql).unwrap();
        assert_eq!(kind(Store::open(&dir)), ErrorKind::StoreCorrupt, "{sql}");
    }
    fs::write(dir.join("store.db"), &good).unwrap();
    sqlite(&dir).execute_batch("ANALYZE; VACUUM; PRAGMA journal_mode = WAL").unwrap();
    let store = Store::open(&dir).unwrap();
    assert_eq!(store.log().unwrap().len(), 1);
    assert_eq!(listing(&dir), ["store.db"], "a write-ahead log is taken back");
}

#[test]
fn the_log_can_not_be_changed_by_sql() {
    let (_home, mut store) = store();
    store.add_peer(&peer("cosigner", 1), "").unwrap();
    let before = store.log().unwrap();
    let row = "(1, 0, 'created', 'x', '', '', '', x'')";
    for sql in [
        "UPDATE log SET detail = 'x'",
        "DELETE FROM log",
        "DELETE FROM log WHERE sequence = 2",
        &format!("REPLACE INTO log VALUES {row}"),
        &format!("INSERT OR REPLACE INTO log VALUES {row}"),
        &format!("INSERT INTO log VALUES {row} ON CONFLICT DO UPDATE SET detail = 'x'"),
        "UPDATE OR REPLACE log SET sequence = 1 WHERE sequence = 2",
    ] {
        // A connection of its own, with SQLite's defaults.
        let error = sqlite(store.dir()).execute_batch(sql).unwrap_err();
        assert!(error.to_string().contains("append-only"), "{sql}: {error}");
        assert_eq!(store.log().unwrap(), before, "{sql}");
    }
}

#[test]
fn a_full_disk_leaves_what_was_there() {
    let (_home, mut store) = store();
    let mut number = 0;
    let full = loop {
        let pages: i64 = store.connection.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
        if number == 20 {
            // As if the disk were full now: the file may not grow any more.
            store.connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(())).unwrap();
        }
        number += 1;
        let before = (store.peers().unwrap(), store.changed().unwrap());
        if let Err(error) = store.add_peer(&peer(&format!("peer-{number}"), number), &"x".repeat(MAX_DETAIL_LEN)) {
            assert_eq!((store.peers().unwrap(), store.changed().unwrap()), before);
            break error;
        }
        assert!(number < 200, "the disk never filled");
    };
    assert_eq!(full.kind(), ErrorKind::StoreIo);
    assert!(full.to_string().contains("disk is full"), "{full}");
    let dir = store.dir().to_owned();
    drop(store);
    let mut store = Store::open(&dir).unwrap();
    assert_eq!(recorded(&store), replayed(&store));
    store.add_peer(&peer("later", 999), "").unwrap();
}

#[test]
fn writers_at_once_all_get_through() {
    let (_home, store) = store();
    let dir = store.dir();
    std::thread::scope(|scope| {
        for thread in 0..4u16 {
            scope.spawn(move || {
                let mut store = Store::open(dir).unwrap();
                for turn in 0..10 {
                    let peer = peer(&format!("peer-{thread}-{turn}"), 1 + thread * 100 + turn);
                    assert_eq!(store.add_peer(&peer, "").unwrap(), Added::New);
                    assert!(store.peers().unwrap().contains(&peer));
                    if turn % 3 == 0 {
                        store.remove_peer(&peer.identifier).unwrap();
                    }
                }
            });
        }
    });
    assert_eq!(recorded(&store), replayed(&store));
    assert_eq!(store.peers().unwrap().len(), 24);
    assert_eq!(store.changed().unwrap(), 1 + 40 + 16);
}

#[test]
fn the_same_card_from_two_processes_is_recorded_once() {
    let (_home, store) = store();
    let (dir, card) = (store.dir(), peer("cosigner", 1));
    let added: Vec<Added> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..8).map(|_| scope.spawn(|| Store::open(dir).unwrap().add_peer(&card, "").unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(added.iter().filter(|added| **added == Added::New).count(), 1);
    assert_eq!(store.changed().unwrap(), 2);
}

#[test]
fn a_lock_held_too_long_is_busy_and_a_change_elsewhere_is_seen() {
    let (_home, mut store) = store();
    let before = store.changed().unwrap();
    let mut other = Store::open(store.dir()).unwrap();
    other.add_peer(&peer("cosigner", 1), "").unwrap();
    assert_ne!(store.changed().unwrap(), before);
    other.connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    let start = std::time::Instant::now();
    assert_eq!(kind(store.add_peer(&peer("watchtower", 2), "")), ErrorKind::StoreBusy);
    assert!(start.elapsed() >= BUSY_TIMEOUT && start.elapsed() < 3 * BUSY_TIMEOUT, "{:?}", start.elapsed());
    assert_eq!(store.peers().unwrap().len(), 1, "a reader does not wait for a writer that has not written yet");
    drop(other);
    store.add_peer(&peer("watchtower", 2), "").unwrap();
}

#[test]
fn a_removed_peer_is_overwritten() {
    let (_home, mut store) = store();
    let gone = peer("cosigner", 1);
    store.add_peer(&gone, "").unwrap();
    let address = gone.onion_address.unwrap().to_string();
    let holds = |store: &Store| {
        let file = fs::read(store.dir().join("store.db")).unwrap();
        file.windows(address.len()).any(|window| window == address.as_bytes())
    };
    assert!(holds(&store));
    store.remove_peer(&gone.identifier).unwrap();
    assert!(!holds(&store));
}
