//! A store that somebody writes to, or replaces, when nobody looks.

use std::fs;
use std::time::Duration;

use rusqlite::Connection;
use serde_json::Value;

use super::tokens::opening;
use super::{Caught, Room};
use crate::lab::Lab;

/// Each change to the wallet's store, and what it is called. `HIS` is the attacker's key.
const CHANGES: &[(&str, &str)] = &[
    ("UPDATE peers SET static_public = 'HIS' WHERE identifier = 'cosigner'", "peer \"cosigner\" was changed"),
    ("UPDATE peers SET backup_public = 'HIS' WHERE identifier = 'cosigner'", "peer \"cosigner\" was changed"),
    ("UPDATE peers SET role = 'auditor' WHERE identifier = 'cosigner'", "peer \"cosigner\" was changed"),
    (
        "UPDATE peers SET onion_address = (SELECT onion_address FROM cards LIMIT 1) WHERE identifier = 'cosigner'",
        "peer \"cosigner\" was changed",
    ),
    ("UPDATE peers SET expires = 4102444800 WHERE identifier = 'cosigner'", "peer \"cosigner\" was changed"),
    ("DELETE FROM peers WHERE identifier = 'cosigner'", "peer \"cosigner\" was removed"),
    (
        "INSERT INTO peers (identifier, role, curve, static_public, suites) VALUES ('mallory', 'signer', 'x25519', 'HIS', 'ChaChaPoly_BLAKE2s')",
        "peer \"mallory\" was added",
    ),
    (
        "UPDATE cards SET static_public = 'HIS' WHERE identifier = 'watchtower'",
        "the card of \"watchtower\" was changed",
    ),
    ("DELETE FROM cards WHERE identifier = 'watchtower'", "the card of \"watchtower\" was removed"),
    ("DELETE FROM revoked", "the revocation of \"auditor\" was removed"),
    ("UPDATE plan SET text = replace(text, 'sign', 'sigm')", "the plan was changed"),
    ("DELETE FROM plan", "the plan was removed"),
    ("UPDATE log SET detail = 'words compared' WHERE sequence = 3", "entry 3 of the log was changed"),
    ("UPDATE machine SET require_attestation = 1", "the token's locator or this machine's own card was changed"),
    ("INSERT INTO attestation_roots VALUES ('his')", "the list of added attestation roots was changed"),
    ("UPDATE log SET time = time - 3600 WHERE sequence = 2", "entry 2 of the log was changed"),
    ("DELETE FROM log WHERE sequence = (SELECT max(sequence) FROM log)", "of the log was removed"),
    ("DELETE FROM log WHERE sequence = 2", "entry 2 of the log was removed or changed"),
    ("DELETE FROM challenges", "challenge "),
    (
        "UPDATE secrets SET value = zeroblob(length(value)) WHERE name = 'onion'",
        "the onion service's secret key was changed",
    ),
    ("UPDATE seal SET manifest = replace(manifest, 'peer cosigner', 'peer mallory')", "the seal itself was changed"),
    ("DELETE FROM seal", "the seal itself was changed"),
    ("UPDATE seal_keys SET wrapped = zeroblob(60)", "the seal's slot of this token was changed"),
];

/// As somebody with the disk does who has read the schema.
fn by_sql(lab: &Lab, store: &str, sql: &str) {
    let connection = Connection::open(lab.path(store).join("store.db")).unwrap();
    let triggers: Vec<(String, String)> = connection
        .prepare("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'")
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    for (name, _) in &triggers {
        connection.execute_batch(&format!("DROP TRIGGER {name}")).unwrap();
    }
    let before = connection.total_changes();
    connection.execute_batch(sql).unwrap();
    assert!(connection.total_changes() > before, "nothing to change: {sql}");
    for (_, sql) in triggers {
        connection.execute_batch(&sql).unwrap();
    }
}

#[test]
fn changed_on_disk() {
    let room = Room::enter();
    let lab = room.imported.copy();
    let commands = opening(&room, &lab);
    let good = fs::read(lab.path("wallet/store.db")).unwrap();
    // Whose private half everybody knows.
    let his = format!("{:0<64}", "09");
    for (at, (sql, named)) in CHANGES.iter().enumerate() {
        fs::write(lab.path("wallet/store.db"), &good).unwrap();
        by_sql(&lab, "wallet", &sql.replace("HIS", &his));
        // The first with every command that opens the store, the others with some.
        let some = commands.iter().enumerate().filter(|(number, _)| at == 0 || number % 6 == at % 6);
        for (_, command) in some {
            let command: Vec<&str> = command.iter().map(String::as_str).collect();
            let by = Caught { code: 5, kind: "store-tampered", says: &["wallet", "outside this tool", named] };
            lab.caught("wallet", &command, by);
        }
        let shown = preflight(&lab).split_whitespace().collect::<Vec<_>>().join(" ");
        // A log with a gap is not even read.
        assert!(shown.contains(named) || shown.contains("row 2 of table `log` is missing"), "{sql}: {shown}");
    }
    fs::write(lab.path("wallet/store.db"), &good).unwrap();
    lab.at("wallet", &["seal", "--check"]);
}

/// What is written down without the token is what stands in the file: the comparison finds it, or the chain of the log.
#[test]
fn changed_on_disk_and_written_down() {
    let room = Room::enter();
    let lab = room.confirmed.copy();
    let good = fs::read(lab.path("wallet/store.db")).unwrap();
    for (table, member) in [("peers", "cosigner"), ("cards", "watchtower")] {
        fs::write(lab.path("wallet/store.db"), &good).unwrap();
        let sql = format!("UPDATE {table} SET static_public = '{:0<64}' WHERE identifier = '{member}'", "09");
        by_sql(&lab, "wallet", &sql);
        lab.transcripts_differ("wallet", "card", Some(member));
    }
    fs::write(lab.path("wallet/store.db"), &good).unwrap();
    by_sql(&lab, "wallet", "UPDATE log SET detail = 'words compared' WHERE sequence = 3");
    let by = Caught { code: 5, kind: "store-corrupt", says: &["wallet", "entry 3 of the log was changed"] };
    lab.caught("wallet", &["transcript", "next.transcript"], by);
}

/// The same token, another store: what it sealed there says nothing here.
#[test]
fn pasted_from_another_store() {
    let room = Room::enter();
    let lab = room.imported.copy();
    let locator = lab.at("wallet", &["show"])["locator"].as_str().unwrap().to_owned();
    lab.at("other", &["init", "--name", "wallet", "--plan", "plan.toml", "--token", &locator]);
    lab.import_unread("other", &["mallory.card", "watchtower.card", "auditor.card"]);
    let good = fs::read(lab.path("wallet/store.db")).unwrap();
    let other = lab.path("other/store.db");
    for tables in [&["seal_keys"][..], &["seal"], &["seal", "seal_keys"], &["secrets"], &["peers"], &["cards", "peers"]]
    {
        fs::write(lab.path("wallet/store.db"), &good).unwrap();
        let paste = tables
            .iter()
            .map(|table| format!("DELETE FROM main.{table}; INSERT INTO main.{table} SELECT * FROM other.{table};"));
        by_sql(&lab, "wallet", &format!("ATTACH '{}' AS other; {}", other.display(), paste.collect::<String>()));
        for command in [&["phrase"][..], &["challenge", "next.challenge"], &["seal", "--check"]] {
            lab.caught("wallet", command, Caught { code: 5, kind: "store-tampered", says: &["outside this tool"] });
        }
    }
}

/// A store whose seal was taken off by something else than `unseal`: its secrets are wrapped for nobody.
#[test]
fn the_seal_is_stripped() {
    let room = Room::enter();
    let lab = room.imported.copy();
    let commands = opening(&room, &lab);
    let swap = format!("UPDATE peers SET static_public = '{:0<64}' WHERE identifier = 'cosigner'", "09");
    by_sql(&lab, "wallet", &format!("DELETE FROM seal; DELETE FROM seal_keys; {swap}"));
    for command in commands.iter().map(Vec::as_slice).chain([&["seal".to_owned()][..]]) {
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        let says = &["outside this tool: its seal was removed"];
        lab.caught("wallet", &command, Caught { code: 5, kind: "store-tampered", says });
    }
    by_sql(&lab, "cosigner", "DELETE FROM seal; DELETE FROM seal_keys");
    let by = Caught { code: 5, kind: "store-tampered", says: &["its seal was removed"] };
    lab.caught("cosigner", &["switch", "backup"], by);
    let shown = preflight(&lab).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(shown.contains("outside this tool: its seal was removed"), "{shown}");
    // What needs no token, too.
    for command in [&["show"][..], &["transcript", "next.transcript"]] {
        let says = &["outside this tool: its seal was removed"];
        lab.caught("wallet", command, Caught { code: 5, kind: "store-tampered", says });
    }
}

/// What `preflight` says of a wallet that is not ready.
fn preflight(lab: &Lab) -> String {
    let preflight = lab.run_with(&["--store", "wallet", "preflight"], b"");
    let shown = [preflight.stdout, preflight.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    assert!([Some(4), Some(5)].contains(&preflight.status.code()), "{shown}");
    shown
}

/// An older copy of the store is a store that was true once: its seal holds. What finds it is what is kept elsewhere.
#[test]
#[allow(clippy::disallowed_methods)] // sleep: transcripts are ordered by the second.
fn an_older_copy_is_restored() {
    let room = Room::enter();
    let lab = room.confirmed.copy();
    let older = fs::read(lab.path("wallet/store.db")).unwrap();
    lab.at("wallet", &["revoke", "cosigner", "--reason", "stolen", "--confirm", "cosigner"]);
    let checked = lab.at("wallet", &["seal", "--check"]);
    lab.at("wallet", &["transcript", "later.transcript"]);
    let head = lab.at("wallet", &["log"])["head"]["words"].as_str().unwrap().to_owned();
    fs::write(lab.path("wallet/store.db"), &older).unwrap();

    // Not by the seal, nor by anything else in it: the cosigner is a peer again.
    let again = lab.at("wallet", &["seal", "--check"]);
    assert_eq!(lab.phrase("wallet"), room.phrase);
    lab.at("wallet", &["show", "cosigner"]);
    let (output, report) = lab.compared(&[]);
    assert!(output.status.success() && report["same"] == true, "{report}");
    // By the number of changes, where somebody remembers it.
    assert!(again["changes"].as_u64() < checked["changes"].as_u64(), "{again} {checked}");
    std::thread::sleep(Duration::from_millis(1100));
    lab.at("wallet", &["transcript", "restored.transcript"]);
    // By the later transcript.
    let verify = |arguments: &[&str]| lab.run_with(&[&["transcript", "verify", "--json"], arguments].concat(), b"");
    for files in [["later.transcript", "restored.transcript"], ["restored.transcript", "later.transcript"]] {
        let said = super::Said::of(&verify(&files));
        assert_eq!(said.kind, "transcripts-differ");
        assert!(said.text.contains("The later transcript of wallet goes back behind entry"), "{}", said.text);
    }
    // By the head on paper.
    let said = super::Said::of(&verify(&["restored.transcript", "--head", &head]));
    assert!(said.kind == "transcripts-differ" && said.text.contains("An older store was restored"), "{}", said.text);
    let later: Value = serde_json::from_slice(&verify(&["later.transcript", "--head", &head]).stdout).unwrap();
    assert_eq!(later["heads"][0]["entry"], checked["changes"], "{later}");
    // And a change that is made on it can not be brought together with what was.
    lab.at("wallet", &["expire", "auditor", "--in", "90d", "--confirm", "auditor"]);
    lab.at("wallet", &["transcript", "restored.transcript", "--force"]);
    let said = super::Said::of(&verify(&["later.transcript", "restored.transcript"]));
    assert!(said.text.contains("an older store was restored"), "{}", said.text);
}

/// A whole store of the attacker's making, in the place of the wallet's: it is sealed, to his token.
#[test]
fn another_store_is_put_in_its_place() {
    let room = Room::enter();
    let lab = room.confirmed.copy();
    lab.at("his", &["init", "--name", "wallet", "--plan", "plan.toml", "--token", &room.spare]);
    lab.import_unread("his", &["mallory.card", "watchtower.card", "auditor.card"]);
    fs::copy(lab.path("his/store.db"), lab.path("wallet/store.db")).unwrap();
    assert_ne!(lab.phrase("wallet"), room.phrase, "with his token attached it opens");
    lab.phrases_differ("wallet", &room.phrase);
    lab.at("wallet", &["transcript", "his.transcript"]);
    let (output, report) = lab.compared(&["his.transcript"]);
    let found = report["differences"].as_array().unwrap();
    assert!(found.iter().any(|one| one["kind"] == "same-name" && one["machine"] == "wallet"), "{report}");
    assert_eq!(output.status.code(), Some(4));
    // Without it, its token is asked for by name.
    let lab = lab.without_tokens();
    lab.caught("wallet", &["phrase"], Caught { code: 6, kind: "token-absent", says: &["spare"] });
}
