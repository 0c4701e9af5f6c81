//! A sealed store changed by hand: every byte, every column, every row.

use rusqlite::types::Value;

use super::*;

/// What anybody reads of a store. Two stores that read the same are the same to everybody.
fn read(store: &Store) -> Result<String> {
    let secret = |secret: Option<&[u8]>| format!("{secret:?}");
    let challenge = store.challenge(&super::super::life::ID)?;
    let mut preshared: Vec<_> =
        store.preshared_keys()?.into_iter().map(|(peer, key)| (peer, secret(Some(key.expose())))).collect();
    preshared.sort();
    Ok(format!(
        "{preshared:?}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?}\n{}\n{}\n{}\n{}\n{}\n{:?}",
        store.held_preshared_keys()?,
        store.machine()?,
        store.plan()?,
        store.peers()?,
        store.cards()?,
        store.revoked()?,
        store.log()?,
        secret(Some(store.onion_secret()?.expose())),
        secret(Some(store.client_auth_secret()?.expose())),
        secret(store.former_onion_secret()?.as_ref().map(|secret| secret.expose().as_slice())),
        secret(store.former_client_auth_secret()?.as_ref().map(|secret| secret.expose().as_slice())),
        secret(challenge.as_ref().map(|challenge| challenge.secret.expose().as_slice())),
        challenge.as_ref().map(|challenge| &challenge.text),
    ))
}

fn opened(dir: &Path) -> Result<Store> {
    let mut store = Store::open(dir)?;
    store.unlock(&own())?;
    Ok(store)
}

/// Opens it, and reads it twice: as who unlocks a changed file, and as who had it open before.
fn found(dir: &Path) -> Result<String> {
    read(&opened(dir)?)
}

/// One row under the seal, and the words for it.
const CHANGES: &[(&str, &str)] = &[
    ("UPDATE machine SET token = 'file:/other.pem'", "the token's locator or this machine's own card was changed"),
    ("UPDATE machine SET require_attestation = 1", "the token's locator or this machine's own card was changed"),
    ("UPDATE machine SET former_until = 1", "the token's locator or this machine's own card was changed"),
    ("DELETE FROM machine", "the token's locator or this machine's own card was removed"),
    ("INSERT INTO attestation_roots VALUES ('mine')", "the list of added attestation roots was changed"),
    ("DELETE FROM attestation_roots", "the list of added attestation roots was changed"),
    ("UPDATE plan SET text = replace(text, 'cosign\"', 'watch\"')", "the plan was changed"),
    ("DELETE FROM plan", "the plan was removed"),
    (
        "UPDATE peers SET static_public = '2000' || substr(static_public, 5) WHERE identifier = 'watchtower'",
        "peer \"watchtower\" was changed",
    ),
    ("UPDATE peers SET role = 'guardian' WHERE identifier = 'watchtower'", "peer \"watchtower\" was changed"),
    ("UPDATE peers SET expires = NULL WHERE identifier = 'watchtower'", "peer \"watchtower\" was changed"),
    ("UPDATE peers SET former_until = 9 WHERE identifier = 'cosigner'", "peer \"cosigner\" was changed"),
    ("DELETE FROM peers WHERE identifier = 'watchtower'", "peer \"watchtower\" was removed"),
    (
        "INSERT INTO peers (identifier, role, curve, static_public, suites) VALUES ('mallory', 'cosigner', 'x25519', '2000' || printf('%060d', 9), 'ChaChaPoly_BLAKE2s')",
        "peer \"mallory\" was added",
    ),
    (
        "UPDATE peers SET identifier = 'mallory' WHERE identifier = 'watchtower'",
        "peer \"watchtower\" was removed; peer \"mallory\" was added",
    ),
    ("UPDATE machine SET kem = 'ML-KEM-768'", "the token's locator or this machine's own card was changed"),
    ("UPDATE peers SET kem = NULL WHERE identifier = 'watchtower'", "peer \"watchtower\" was changed"),
    ("UPDATE peers SET kem = 'ML-KEM-768' WHERE identifier = 'cosigner'", "peer \"cosigner\" was changed"),
    ("UPDATE cards SET kem = NULL", "the card of \"guardian\" was changed"),
    ("UPDATE cards SET role = 'wallet'", "the card of \"guardian\" was changed"),
    ("DELETE FROM cards", "the card of \"guardian\" was removed"),
    ("DELETE FROM revoked WHERE number = 1", "the revocation of \"spare\" was removed"),
    ("UPDATE revoked SET backup_public = NULL", "the revocation of \"spare\" was changed"),
    ("UPDATE challenges SET expires = expires + 600", "challenge c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5 was changed"),
    ("DELETE FROM challenges", "challenge c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5 was removed"),
    ("DELETE FROM spent", "the record of a proof for challenge c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5 was removed"),
    ("DELETE FROM preshared_keys WHERE peer = 'cosigner'", "the pre-shared key with \"cosigner\" was removed"),
    (
        "UPDATE preshared_keys SET value = (SELECT value FROM preshared_keys WHERE peer = 'cosigner')",
        "the pre-shared key with \"watchtower\" was changed",
    ),
    (
        "UPDATE preshared_keys SET check_value = '0000 0000 0000 0000'",
        "the pre-shared key with \"cosigner\" was changed",
    ),
    (
        "INSERT INTO preshared_keys SELECT 'guardian', check_value, time, value FROM preshared_keys WHERE peer = 'cosigner'",
        "the pre-shared key with \"guardian\" was added",
    ),
    ("UPDATE secrets SET value = zeroblob(92) WHERE name = 'onion'", "the onion service's secret key was changed"),
    ("DELETE FROM secrets WHERE name = 'former-onion'", "the former onion service's secret key was removed"),
    ("DELETE FROM secrets WHERE name = 'client-auth'", "the client-authorization secret was removed"),
    ("UPDATE log SET detail = 'nothing' WHERE sequence = 7", "entry 7 of the log was changed"),
    ("DELETE FROM log WHERE sequence = 5", "entry 5 of the log was removed or changed"),
    ("DELETE FROM log WHERE sequence = (SELECT max(sequence) FROM log)", "of the log was removed"),
    ("DELETE FROM log WHERE sequence > 9", "entries 10 to "),
    ("UPDATE seal SET mac = zeroblob(32)", "the seal itself was changed or is of another store"),
    ("UPDATE seal SET manifest = manifest || 'peer mallory ' || printf('%064d', 0)", "the seal itself was changed"),
    ("DELETE FROM seal", "the seal itself was changed or is of another store"),
    ("UPDATE seal_keys SET wrapped = zeroblob(60)", "the seal's slot of this token was changed"),
];

#[test]
fn each_change_is_named() {
    let (_home, store) = full();
    let dir = store.dir().to_owned();
    drop(store);
    let good = fs::read(dir.join("store.db")).unwrap();
    for (sql, words) in CHANGES {
        fs::write(dir.join("store.db"), &good).unwrap();
        without_triggers(&dir, sql);
        let error = found(&dir).expect_err(sql);
        assert_eq!(error.kind(), ErrorKind::StoreTampered, "{sql}: {error}");
        assert!(error.to_string().contains(words), "{sql}: {error}");
        assert!(error.to_string().ends_with('.') && error.hint().contains("claviger-ceremony init"), "{sql}");
    }
}

#[test]
fn a_change_is_found_by_whoever_has_it_open() {
    let (_home, store) = full();
    let dir = store.dir().to_owned();
    drop(store);
    let good = fs::read(dir.join("store.db")).unwrap();
    for (sql, _) in CHANGES {
        fs::write(dir.join("store.db"), &good).unwrap();
        let mut store = opened(&dir).unwrap();
        read(&store).unwrap();
        without_triggers(&dir, sql);
        let sealed = !sql.contains("seal_keys");
        assert!(kinds_of_change(store.verify()), "{sql}");
        assert!(
            kinds_of_change(store.note(Event::Witnessed, &"a".parse().unwrap(), Fingerprint::from_bytes([0; 16]), "")),
            "{sql}: sealed in"
        );
        if sealed && !sql.contains("spent") && !sql.contains("manifest =") {
            assert!(kinds_of_change(read(&store).map(drop)), "{sql}: read");
        }
        assert!(kinds_of_change(store.seal(&[own()])), "{sql}: sealed in");
    }
}

/// Refused as changed, or, when it is the slots that changed, as sealed anew.
fn kinds_of_change(result: Result<()>) -> bool {
    result.is_err_and(|error| matches!(error.kind(), ErrorKind::StoreTampered | ErrorKind::StoreLocked))
}

#[test]
fn many_changes_are_counted() {
    let (_home, mut store) = sealed();
    for number in 1..=12 {
        store.add_peer(&peer(&format!("peer-{number}"), number), "").unwrap();
    }
    without_triggers(store.dir(), "UPDATE peers SET role = 'other'");
    let error = found(store.dir()).unwrap_err().to_string();
    assert_eq!(error.matches("was changed").count(), 8 + 1, "{error}");
    assert!(error.ends_with("; and 4 more."), "{error}");
}

#[test]
fn every_column_of_every_row_is_under_it() {
    let (_home, store) = full();
    let dir = store.dir().to_owned();
    let before = read(&store).unwrap();
    drop(store);
    let good = fs::read(dir.join("store.db")).unwrap();
    let tables: Vec<String> = list(&sqlite(&dir), "SELECT name FROM sqlite_schema WHERE type = 'table'");
    let mut changed = 0;
    for table in tables.iter().filter(|table| *table != "contacts" && *table != "sqlite_sequence") {
        let columns: Vec<String> = list(&sqlite(&dir), &format!("SELECT name FROM pragma_table_info('{table}')"));
        let keys = format!("SELECT name FROM pragma_table_info('{table}') WHERE pk > 0 ORDER BY pk");
        let keys: Vec<String> = list(&sqlite(&dir), &keys);
        let chosen = keys.iter().map(|key| format!("quote(\"{key}\")")).collect::<Vec<_>>().join(" || char(31) || ");
        let rows: Vec<String> = list(&sqlite(&dir), &format!("SELECT {chosen} FROM {table}"));
        assert!(!rows.is_empty(), "{table} has no row to change");
        for row in &rows {
            let clause = keys.iter().zip(row.split('\u{1f}')).map(|(key, value)| format!("\"{key}\" = {value}"));
            let clause = clause.collect::<Vec<_>>().join(" AND ");
            let mut statements = vec![format!("DELETE FROM {table} WHERE {clause}")];
            for column in &columns {
                let value: Value = sqlite(&dir)
                    .query_row(&format!("SELECT \"{column}\" FROM {table} WHERE {clause}"), [], |row| row.get(0))
                    .unwrap();
                let other = match value {
                    Value::Null => vec!["'x'", "7"],
                    Value::Integer(_) => vec!["{} + 1"],
                    Value::Text(_) => vec!["{} || 'x'", "replace({}, '1', '2')", "''", "NULL"],
                    _ => vec!["{} || x'00'", "zeroblob(length({}))", "NULL"],
                };
                let set = |other: &str| {
                    let other = other.replace("{}", &format!("\"{column}\""));
                    format!("UPDATE {table} SET \"{column}\" = {other} WHERE {clause} AND \"{column}\" IS NOT {other}")
                };
                statements.extend(other.into_iter().map(set));
            }
            for sql in statements {
                fs::write(dir.join("store.db"), &good).unwrap();
                // What the schema itself refuses is no change.
                if try_without_triggers(&dir, &sql).is_ok_and(|rows| rows > 0) {
                    changed += 1;
                    let error = found(&dir).expect_err(&sql);
                    let kinds = [ErrorKind::StoreTampered, ErrorKind::StoreCorrupt, ErrorKind::KeyMismatch];
                    assert!(kinds.contains(&error.kind()), "{sql}: {error}");
                }
            }
        }
    }
    assert!(changed > 300, "{changed}");
    fs::write(dir.join("store.db"), &good).unwrap();
    assert_eq!(found(&dir).unwrap(), before);
}

fn list(connection: &Connection, sql: &str) -> Vec<String> {
    let mut statement = connection.prepare(sql).unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(|name| name.unwrap()).collect()
}

/// Every value of every table under the seal, and the peers that the indices find by their keys.
fn rows(store: &Store) -> Vec<Vec<Value>> {
    let mut all = Vec::new();
    for table in [
        "machine",
        "attestation_roots",
        "plan",
        "peers",
        "cards",
        "revoked",
        "challenges",
        "spent",
        "secrets",
        "preshared_keys",
        "log",
    ] {
        let mut statement = store.connection.prepare(&format!("SELECT * FROM {table}")).unwrap();
        let columns = statement.column_count();
        let rows = statement.query_map([], |row| (0..columns).map(|column| row.get(column)).collect()).unwrap();
        all.extend(rows.map(|row: rusqlite::Result<Vec<Value>>| row.unwrap()));
    }
    for number in [1, 2, 11, 101, 102] {
        let peer = store.peer_by_key(&key(number)).unwrap();
        all.push(vec![Value::Text(peer.map_or(String::new(), |peer| peer.identifier.to_string()))]);
    }
    all
}

fn put(dir: &Path, at: usize, byte: u8) {
    use std::os::unix::fs::FileExt;
    let file = fs::OpenOptions::new().write(true).open(dir.join("store.db")).unwrap();
    file.write_all_at(&[byte], at as u64).unwrap();
}

#[test]
fn every_byte_is_under_it() {
    let (_home, store) = full();
    let dir = store.dir().to_owned();
    drop(store);
    // Small pages: as many kinds of bytes in fewer of them.
    sqlite(&dir).execute_batch("PRAGMA page_size = 512; VACUUM").unwrap();
    let before = rows(&opened(&dir).unwrap());
    let good = fs::read(dir.join("store.db")).unwrap();
    let threads = 4;
    let silent: usize = std::thread::scope(|scope| {
        let (good, before) = (&good, &before);
        let work = |first| {
            move || {
                let (_home, dir) = place();
                fs::create_dir_all(&dir).unwrap();
                chmod(&dir, 0o700);
                fs::write(dir.join("store.db"), good).unwrap();
                chmod(&dir.join("store.db"), 0o600);
                let mut silent = 0;
                // Of the zeros between the rows one in sixteen: they are what carries nothing.
                let flipped = (0..good.len()).filter(|at| good[*at] != 0 || at % 16 == 0);
                for at in flipped.skip(first).step_by(threads) {
                    // In place: a file that is written anew is waited for by some file systems.
                    put(&dir, at, good[at] ^ (1 << (at % 8)));
                    match opened(&dir) {
                        Ok(store) => {
                            assert_eq!(rows(&store), *before, "byte {at}");
                            silent += 1;
                        }
                        Err(error) => {
                            let kind = error.kind();
                            assert!(
                                kind.as_str().starts_with("store-") || kind == ErrorKind::KeyMismatch,
                                "byte {at}: {error}"
                            );
                        }
                    }
                    put(&dir, at, good[at]);
                    // Where the header was changed, SQLite may have written, too.
                    if fs::read(dir.join("store.db")).unwrap() != *good {
                        fs::write(dir.join("store.db"), good).unwrap();
                    }
                }
                silent
            }
        };
        let workers: Vec<_> = (0..threads).map(|first| scope.spawn(work(first))).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    assert!(silent < good.len() / 8, "{silent} of {} bytes carry nothing", good.len());
}

#[test]
fn a_seal_of_another_store_is_refused() {
    let (_home, store) = full();
    let (_other_home, other) = sealed();
    let dir = store.dir().to_owned();
    drop(store);
    let good = fs::read(dir.join("store.db")).unwrap();
    let attach = format!("ATTACH '{}' AS other;", other.dir().join("store.db").display());
    for paste in [
        "DELETE FROM seal_keys; INSERT INTO main.seal_keys SELECT * FROM other.seal_keys",
        "DELETE FROM seal_keys; INSERT INTO main.seal_keys SELECT * FROM other.seal_keys; DELETE FROM seal; INSERT INTO main.seal SELECT * FROM other.seal",
        "DELETE FROM seal; INSERT INTO main.seal SELECT * FROM other.seal",
        "DELETE FROM secrets; INSERT INTO main.secrets SELECT * FROM other.secrets",
    ] {
        fs::write(dir.join("store.db"), &good).unwrap();
        sqlite(&dir).execute_batch(&format!("{attach} {paste}")).unwrap();
        assert_eq!(kind(found(&dir)), ErrorKind::StoreTampered, "{paste}");
    }
}

#[test]
fn a_seal_that_is_removed_takes_the_secrets_along() {
    let (_home, store) = full();
    let dir = store.dir().to_owned();
    drop(store);
    sqlite(&dir).execute_batch("DELETE FROM seal; DELETE FROM seal_keys").unwrap();
    let mut store = Store::open(&dir).unwrap();
    assert_eq!(kind(store.seal_state()), ErrorKind::StoreTampered);
    assert_eq!(kind(store.add_peer(&peer("mallory", 90), "")), ErrorKind::StoreTampered);
    store.unlock(&own()).unwrap();
    for refused in [
        store.onion_secret().map(drop),
        store.client_auth_secret().map(drop),
        store.former_onion_secret().map(drop),
        store.preshared_keys().map(drop),
        store.challenge(&super::super::life::ID).map(drop),
    ] {
        assert_eq!(kind(refused), ErrorKind::StoreTampered);
    }
    assert_eq!(kind(store.seal(&[own()])), ErrorKind::StoreTampered, "wrapped secrets are not wrapped again");
    // With secrets in the clear, as an unsealed store has them, the log still tells of the seal.
    let fresh = OnionKeys::generate().unwrap().secret;
    without_triggers(&dir, "DELETE FROM secrets");
    without_triggers(&dir, "DELETE FROM challenges");
    without_triggers(&dir, "DELETE FROM preshared_keys");
    for (name, value) in [("onion", fresh.expose().as_slice()), ("client-auth", &[7; 32])] {
        sqlite(&dir).execute("INSERT INTO secrets VALUES (?1, ?2)", rusqlite::params![name, value]).unwrap();
    }
    let mut store = Store::open(&dir).unwrap();
    assert_eq!(kind(store.seal_state()), ErrorKind::StoreTampered);
    assert_eq!(kind(store.seal(&[own()])), ErrorKind::StoreTampered, "nothing that was changed is sealed in");
}

#[test]
fn an_older_copy_is_found_only_by_whoever_has_it_open() {
    let (_home, mut store) = sealed();
    store.add_peer(&peer("cosigner", 1), "").unwrap();
    let dir = store.dir().to_owned();
    let older = fs::read(dir.join("store.db")).unwrap();
    store.revoke(&"cosigner".parse().unwrap(), "stolen").unwrap();
    let head = store.log().unwrap().pop().unwrap().hash;
    fs::write(dir.join("store.db"), &older).unwrap();
    assert_eq!(kind(store.peers()), ErrorKind::StoreTampered);
    let again = opened(&dir).unwrap();
    assert_eq!(again.peers().unwrap().len(), 1);
    assert!(again.log().unwrap().iter().all(|entry| entry.hash != head), "what the printed transcript shows");
}

#[test]
fn an_older_copy_that_went_on_by_itself_is_found_by_whoever_has_it_open() {
    let (_home, mut store) = sealed();
    store.add_peer(&peer("cosigner", 1), "").unwrap();
    let dir = store.dir().to_owned();
    let older = fs::read(dir.join("store.db")).unwrap();
    store.revoke(&"cosigner".parse().unwrap(), "stolen").unwrap();
    fs::write(dir.join("store.db"), &older).unwrap();
    let mut again = opened(&dir).unwrap();
    for number in 2..5 {
        again.add_peer(&peer(&format!("peer-{number}"), number), "").unwrap();
    }
    assert_eq!(kind(store.peers()), ErrorKind::StoreTampered, "its log is longer, and not the same");
    assert_eq!(kind(store.add_peer(&peer("late", 9), "")), ErrorKind::StoreTampered);
}

/// A file that is made one of version 3 is upgraded when it is opened, and then offers what version 3 knew: nothing.
#[test]
fn a_store_that_is_made_an_older_one_is_found() {
    let (_home, store) = full();
    let dir = store.dir().to_owned();
    drop(store);
    let older: String =
        ["machine", "peers", "cards"].map(|table| format!("ALTER TABLE {table} DROP COLUMN kem;")).concat();
    sqlite(&dir).execute_batch(&format!("{older} DROP TABLE preshared_keys; PRAGMA user_version = 3")).unwrap();
    assert!(Store::open(&dir).unwrap().peers().unwrap().iter().all(|peer| peer.kem.is_none()));
    let error = opened(&dir).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::StoreTampered);
    assert!(error.to_string().contains("peer \"watchtower\" was changed"), "{error}");
}

/// A trigger runs within the change that comes next, and what it wrote would be sealed in.
const TRIGGER: &str =
    "AFTER INSERT ON log BEGIN UPDATE peers SET role = 'guardian' WHERE identifier = 'watchtower'; END";

#[test]
fn a_trigger_under_a_reserved_name_is_found_when_it_is_opened() {
    let (_home, store) = full();
    let dir = store.dir().to_owned();
    drop(store);
    let plant = format!(
        "PRAGMA writable_schema = ON;
         INSERT INTO sqlite_schema VALUES ('trigger', 'sqlite_more', 'log', 0, 'CREATE TRIGGER sqlite_more {}')",
        TRIGGER.replace('\'', "''")
    );
    let connection = sqlite(&dir);
    connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_DEFENSIVE, false).unwrap();
    connection.execute_batch(&plant).unwrap();
    assert_eq!(kind(Store::open(&dir)), ErrorKind::StoreCorrupt);
}

#[test]
fn a_trigger_that_comes_while_it_is_open_seals_nothing_in() {
    let (_home, mut store) = full();
    sqlite(store.dir()).execute_batch(&format!("CREATE TRIGGER more {TRIGGER}")).unwrap();
    let before = fs::read(store.dir().join("store.db")).unwrap();
    let name = "cosigner".parse().unwrap();
    assert_eq!(
        kind(store.note(Event::Witnessed, &name, Fingerprint::from_bytes([0; 16]), "")),
        ErrorKind::StoreTampered
    );
    assert_eq!(kind(store.seal(&[own()])), ErrorKind::StoreTampered);
    assert_eq!(kind(store.unseal()), ErrorKind::StoreTampered);
    assert_eq!(kind(store.verify()), ErrorKind::StoreTampered);
    assert_eq!(fs::read(store.dir().join("store.db")).unwrap(), before);
}

#[test]
fn no_row_hides_behind_another_of_its_key() {
    for sql in [
        "INSERT INTO machine SELECT 0, * FROM (SELECT %C FROM machine); UPDATE machine SET token = 'file:/other.pem' WHERE one = 0",
        "INSERT INTO plan SELECT 0, replace(text, 'cosign\"', 'watch\"') FROM plan",
    ] {
        let (_home, store) = full();
        let columns = list(&sqlite(store.dir()), "SELECT name FROM pragma_table_info('machine') WHERE name <> 'one'");
        let connection = sqlite(store.dir());
        connection.execute_batch("PRAGMA ignore_check_constraints = ON").unwrap();
        connection.execute_batch(&sql.replace("%C", &columns.join(", "))).unwrap();
        assert_eq!(kind(store.machine().and_then(|_| store.plan())), ErrorKind::StoreTampered, "{sql}");
        assert_eq!(kind(store.verify()), ErrorKind::StoreTampered, "{sql}");
    }
}
