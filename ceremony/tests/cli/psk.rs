//! `psk`, and what cards offer against quantum computers.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use claviger::identity::{IdentityCard, Kem};

use crate::lab::{Lab, chmod, snapshot};
use crate::prompts::{ended, type_at};

/// Two machines that know each other.
fn pair(more: [&[&str]; 2]) -> Lab {
    let lab = Lab::new();
    for (name, more) in ["wallet", "cosigner"].into_iter().zip(more) {
        lab.machine(name, "x25519", more);
    }
    for (at, other) in [("wallet", "cosigner"), ("cosigner", "wallet")] {
        lab.ok(&["--store", at, "import", &format!("{other}.card"), "--fingerprint", &lab.words(other)]);
    }
    lab
}

fn at<'a>(store: &'a str, arguments: &[&'a str]) -> Vec<&'a str> {
    [&["--store", store], arguments].concat()
}

#[test]
fn a_preshared_key_is_made_and_recorded_on_both() {
    let lab = pair([&[], &[]]);
    let mut text = lab.transcript(&[
        &["psk", "new", "pair.psk"],
        &at("wallet", &["psk", "list"]),
        &at("wallet", &["psk", "record", "cosigner", "pair.psk"]),
    ]);
    assert_eq!(fs::metadata(lab.path("pair.psk")).unwrap().permissions().mode() & 0o7777, 0o600);
    let written = lab.read("pair.psk");
    assert!(written.starts_with("claviger pre-shared key 1\nkey: ") && written.lines().count() == 3);
    let key = written.lines().nth(1).unwrap().trim_start_matches("key: ").to_owned();
    let output = lab.run_with(&at("cosigner", &["psk", "record", "wallet", "-", "--json"]), written.as_bytes());
    let recorded: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let held = lab.json(&at("wallet", &["psk", "list"]));
    assert_eq!((&recorded["check"], &recorded["outcome"]), (&held["preshared_keys"][0]["check"], &"new".into()));
    text += &lab.transcript(&[
        // Once more: nothing is written.
        &at("wallet", &["psk", "record", "cosigner", "pair.psk"]),
        &at("wallet", &["psk", "list"]),
        &at("wallet", &["psk", "list", "--json"]),
        &at("wallet", &["peers"]),
        &at("wallet", &["show", "cosigner"]),
        &at("wallet", &["seal", "--check"]),
        &at("wallet", &["log"]),
    ]);
    let ready = lab.ok(&at("wallet", &["preflight", "--no-token", "--json"]));
    assert!(ready.contains("Pre-shared keys, each of which the other machine must hold, too"), "{ready}");
    text += &lab.transcript(&[
        &at("wallet", &["psk", "remove", "cosigner", "--confirm", "cosigner"]),
        &at("wallet", &["psk", "list", "--json"]),
    ]);
    snapshot("psk", &text);
    assert!(!text.contains(&key) && !text.contains(&key[..16]), "the key was shown");
    for file in ["wallet/store.db", "cosigner/store.db"] {
        let bytes = fs::read(lab.path(file)).unwrap();
        let raw = data_encoding::HEXLOWER.decode(key.as_bytes()).unwrap();
        assert!(!bytes.windows(32).any(|window| window == raw), "{file} holds the key in the clear");
    }

    // While the store is not sealed somebody could have exchanged it: the seal shows it first.
    lab.ok(&at("cosigner", &["unseal", "--confirm", "cosigner"]));
    let shown = lab.fails(4, &at("cosigner", &["seal"]));
    let check = recorded["check"].as_str().unwrap();
    assert!(shown.contains("A pre-shared key with wallet, whose check value there must be the same:"), "{shown}");
    assert!(shown.contains(&format!("  {check}\n")), "{shown}");

    // It goes with its peer.
    lab.ok(&at("cosigner", &["remove", "wallet", "--confirm", "wallet"]));
    assert_eq!(lab.json(&at("cosigner", &["psk", "list"]))["preshared_keys"].as_array().unwrap().len(), 0);
    assert!(lab.ok(&at("cosigner", &["log"])).contains("psk-removed"));
}

#[test]
fn a_preshared_key_is_refused() {
    let lab = pair([&[], &[]]);
    lab.ok(&["psk", "new", "pair.psk"]);
    lab.ok(&["psk", "new", "other.psk"]);
    let written = lab.read("pair.psk");
    let digits = written.lines().nth(1).unwrap().trim_start_matches("key: ").to_owned();
    let wallet = |code, more: &[&str]| lab.fails(code, &at("wallet", more));
    lab.write("edited.psk", written.replacen("key: ", "key: 0", 1));
    lab.write("changed.psk", written.replace(&digits, &digits.chars().rev().collect::<String>()));
    lab.write("cut.psk", &written[..written.len() / 2]);
    lab.write("crlf.psk", written.replace('\n', "\r\n"));
    lab.write("huge.psk", "x".repeat(1 << 20));
    lab.write("binary.psk", [0xff; 64]);
    lab.write("empty.psk", "");
    let mut text = wallet(4, &["psk", "record", "cosigner", "edited.psk"]);
    for file in ["changed.psk", "cut.psk", "crlf.psk", "huge.psk", "binary.psk", "empty.psk", "wallet.card"] {
        text += &wallet(4, &["psk", "record", "cosigner", file]);
    }
    text += &wallet(1, &["psk", "record", "cosigner", "absent.psk"]);
    text += &wallet(12, &["psk", "record", "cosinger", "pair.psk"]);
    text += &wallet(4, &["psk", "record", "wallet", "pair.psk"]);
    text += &wallet(4, &["import", "pair.psk"]);
    text += &wallet(2, &["psk", "record", "cosigner"]);
    text += &wallet(6, &["psk", "remove", "cosigner"]);
    text += &wallet(12, &["psk", "remove", "cosinger"]);
    text += &lab.fails(1, &["psk", "new", "pair.psk"]);
    text += &lab.fails(1, &["psk", "new", "absent/pair.psk"]);
    lab.ok(&at("wallet", &["psk", "record", "cosigner", "pair.psk"]));
    text += &wallet(4, &["psk", "record", "cosigner", "other.psk"]);
    text += &wallet(4, &["psk", "remove", "cosigner"]);
    text += &wallet(4, &["psk", "remove", "cosigner", "--confirm", "wallet"]);
    snapshot("psk-refused", &text);
    assert!(!text.contains(&digits[..16]) && !text.contains(&digits[48..]), "{text}");

    // Readable by others: told, and taken.
    chmod(&lab.path("pair.psk"), 0o644);
    let output = lab.run_with(&at("cosigner", &["psk", "record", "wallet", "pair.psk"]), b"");
    assert!(String::from_utf8_lossy(&output.stderr).contains("others on this machine can read pair.psk."));

    let mut session = lab.on_a_terminal(&at("wallet", &["psk", "remove", "cosigner"]));
    let shown = type_at(&mut session, "Type cosigner to forget it: ", "wallet");
    assert!(shown.contains("the two can not connect"), "{shown}");
    assert_eq!(ended(session).1, 4);
    let mut session = lab.on_a_terminal(&at("wallet", &["psk", "remove", "cosigner"]));
    type_at(&mut session, "Type cosigner to forget it: ", "cosigner");
    assert_eq!(ended(session).1, 0);
}

#[test]
fn cards_offer_a_kem_unless_told_otherwise() {
    let lab = Lab::new();
    lab.machine("wallet", "x25519", &[]);
    lab.machine("old", "x25519", &["--kem", "none"]);
    let card = |name: &str| IdentityCard::from_text(&lab.read(&format!("{name}.card"))).unwrap();
    assert_eq!((card("wallet").kem, card("old").kem), (Some(Kem::MlKem768), None));
    assert!(lab.read("old.card").starts_with("claviger identity card 3\n"));
    let (wallet, old) = (lab.words("wallet"), lab.words("old"));
    let mut text = lab.transcript(&[
        &at("wallet", &["import", "old.card", "--fingerprint", &old]),
        &at("old", &["import", "wallet.card", "--fingerprint", &wallet, "--json"]),
        &at("old", &["import", "wallet.card"]),
        &at("wallet", &["peers"]),
        &at("wallet", &["show", "old"]),
        &at("old", &["show"]),
    ]);
    // A pre-shared key is against them as well.
    lab.ok(&["psk", "new", "pair.psk"]);
    lab.ok(&at("old", &["psk", "record", "wallet", "pair.psk"]));
    text += &lab.transcript(&[&at("old", &["import", "wallet.card"])]);
    text +=
        &lab.fails(2, &at("new", &["init", "--name", "new", "--role", "new", "--token", "file:x", "--kem", "kyber"]));
    text += &lab.fails(2, &at("old", &["rotate", "--status", "--kem", "none"]));

    // The next card offers one, and its peer sees it.
    let token = lab.token("next");
    let made = lab.ok(&["token", "generate", "--curve", "x25519", &token.uri_with_pin("noise")]);
    lab.ok(&at("old", &["rotate", "--token", made.trim(), "--confirm", "old", "old.succession"]));
    let words = lab.words("old");
    text += &lab.transcript(&[&at("wallet", &["import", "old.succession", "--fingerprint", &words])]);
    let shown = lab.json(&at("wallet", &["show", "old"]));
    assert_eq!(shown["kem"], "ML-KEM-768");
    snapshot("kem", &text.replace(&old, "WORDS").replace(&wallet, "WORDS").replace(&words, "WORDS"));
}
