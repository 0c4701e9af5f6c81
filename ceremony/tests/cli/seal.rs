//! `init` seals; `seal`, `unseal`, `reseal`; and stores that were changed by something else.

use std::fs;

use claviger_testkit::token::TestToken;

use crate::lab::{Lab, snapshot};
use crate::prompts::{ended, type_at};

impl Lab {
    /// A key on a token of its own, and the locator that `init` takes.
    pub(crate) fn key(&self, label: &str, curve: &str) -> (TestToken, String) {
        let token = self.token(label);
        let made = self.ok(&["token", "generate", "--curve", curve, &token.uri_with_pin("noise")]);
        (token, made.trim().to_owned())
    }

    /// Each imports the others' cards, which are in the files of their names.
    pub(crate) fn meet(&self, names: &[&str]) {
        for (one, other) in names.iter().flat_map(|one| names.iter().map(move |other| (one, other))) {
            if one != other {
                self.ok(&["--store", other, "export", &format!("{other}.card"), "--force"]);
                let card = format!("{other}.card");
                self.ok(&["--store", one, "import", &card, "--fingerprint", &self.words(other)]);
            }
        }
    }

    /// Writes over every `from` in a machine's store, as somebody with an editor would.
    fn tamper(&self, store: &str, from: &str, to: &str) {
        assert_eq!(from.len(), to.len());
        let path = self.path(store).join("store.db");
        let mut bytes = fs::read(&path).unwrap();
        let mut found = 0;
        for at in 0..=bytes.len() - from.len() {
            if bytes[at..].starts_with(from.as_bytes()) {
                bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
                found += 1;
            }
        }
        assert!(found > 0, "{from} is not in the store");
        fs::write(&path, bytes).unwrap();
    }
}

/// SoftHSM lists its tokens by serial numbers, which it draws: without the list.
pub(crate) fn settled(text: &str) -> String {
    let line = |line: &str| match line.split_once("; there is ") {
        Some((before, list)) => {
            format!("{before}; there is [TOKENS].{}", list.split_once('.').map_or("", |(_, rest)| rest))
        }
        None => line.to_owned(),
    };
    text.lines().map(|text| line(text) + "\n").collect()
}

#[test]
fn on_and_off() {
    let lab = Lab::new();
    lab.machine("cosigner", "x25519", &[]);
    let at = |arguments: &[&'static str]| [&["--store", "cosigner"], arguments].concat();
    let mut text = lab.transcript(&[&at(&["seal", "--check"]), &at(&["seal", "--check", "--json"]), &at(&["seal"])]);
    text += &lab.fails(4, &at(&["unseal"]));
    text += &lab.fails(4, &at(&["unseal", "--confirm", "wallet"]));
    text += &lab.transcript(&[&at(&["unseal", "--confirm", "cosigner"]), &at(&["show"]), &at(&["unseal"])]);
    text += &lab.fails(5, &at(&["seal", "--check"]));
    text += &lab.fails(5, &at(&["reseal"]));
    text += &lab.fails(6, &at(&["seal", "--backup"]));
    text += &lab.transcript(&[&at(&["seal"]), &at(&["reseal", "--json"]), &at(&["show", "--json"])]);
    text += &lab.fails(6, &at(&["reseal", "--backup"]));
    text += &lab.fails(2, &at(&["seal", "--check", "--backup"]));
    snapshot("seal", &text);
}

#[test]
fn a_store_need_not_be_sealed() {
    let lab = Lab::new();
    let (_token, locator) = lab.key("cosigner", "p256");
    let text = lab.transcript(&[
        &["init", "--name", "cosigner", "--role", "cosigner", "--unsealed", "--token", &locator],
        &["seal"],
        &["seal", "--check"],
    ]);
    snapshot("seal-later", &text);
}

#[test]
fn what_is_asked_is_answered() {
    let lab = Lab::new();
    lab.machine("cosigner", "x25519", &[]);
    let unseal = ["--store", "cosigner", "unseal"];
    let mut session = lab.on_a_terminal(&unseal);
    let shown = type_at(&mut session, "Type cosigner to take the seal off: ", "yes");
    assert!(shown.contains("Nobody is cut off"), "{shown}");
    let (shown, code) = ended(session);
    assert!(code == 4 && shown.contains("nothing was changed"), "{shown}");
    lab.ok(&["--store", "cosigner", "seal", "--check"]);
    let mut session = lab.on_a_terminal(&unseal);
    type_at(&mut session, "Type cosigner to take the seal off: ", "cosigner");
    let (shown, code) = ended(session);
    assert!(code == 0 && shown.contains("is not sealed any more"), "{shown}");
}

/// Every command that changes something names what was changed by something else, and changes nothing.
#[test]
fn a_changed_store_is_found() {
    let lab = Lab::new();
    for name in ["wallet", "cosigner", "watchtower", "attacker"] {
        lab.machine(name, "x25519", &[]);
    }
    lab.meet(&["wallet", "cosigner"]);
    let good = fs::read(lab.path("wallet/store.db")).unwrap();
    let key = lab.json(&["--store", "wallet", "show", "cosigner"])["static_public_key"].as_str().unwrap().to_owned();
    let other = lab.json(&["--store", "attacker", "show"])["static_public_key"].as_str().unwrap().to_owned();
    let (_new, next) = lab.key("next", "x25519");
    let watchtower = lab.words("watchtower");
    let commands: &[&[&str]] = &[
        &["seal", "--check"],
        &["unseal", "--confirm", "wallet"],
        &["reseal"],
        &["remove", "cosigner", "--confirm", "cosigner"],
        &["revoke", "cosigner", "--reason", "stolen", "--confirm", "cosigner"],
        &["expire", "cosigner", "--in", "90d", "--confirm", "cosigner"],
        &["rotate", "--token", &next, "--confirm", "wallet"],
        &["backup", "add", "--token", &next],
        &["import", "watchtower.card", "--fingerprint", &watchtower],
    ];
    lab.tamper("wallet", &key, &other);
    let mut text = String::new();
    for command in commands {
        let said = lab.fails(5, &[&["--store", "wallet"], *command].concat());
        assert!(said.contains("cosigner") && said.contains("outside"), "{said}");
        if text.is_empty() {
            text = said;
        }
    }
    // The role of a peer; the reason in the log.
    fs::write(lab.path("wallet/store.db"), &good).unwrap();
    lab.tamper("wallet", "fingerprint given; no attestation", "fingerprint given; an attestation");
    text += &lab.fails(5, &["--store", "wallet", "seal", "--check"]);
    snapshot("seal-tampered", &text);
    fs::write(lab.path("wallet/store.db"), &good).unwrap();
    lab.ok(&["--store", "wallet", "seal", "--check"]);
}

#[test]
fn a_token_that_is_not_there_is_named() {
    let lab = Lab::new();
    let token = lab.machine("wallet", "x25519", &[]);
    lab.machine("cosigner", "x25519", &[]);
    lab.meet(&["wallet", "cosigner"]);
    token.pull();
    let mut text = String::new();
    for command in [
        &["seal", "--check"][..],
        &["reseal"],
        &["remove", "cosigner", "--confirm", "cosigner"],
        &["revoke", "cosigner", "--reason", "stolen", "--confirm", "cosigner"],
        &["expire", "cosigner", "--never"],
    ] {
        let said = lab.fails(6, &[&["--store", "wallet"], command].concat());
        assert!(said.contains("was not changed"), "{said}");
        text += &said;
    }
    // What only reads needs no token.
    for command in [&["show"][..], &["peers"], &["log"], &["export", "-"]] {
        lab.ok(&[&["--store", "wallet"], command].concat());
    }
    token.put_back();
    lab.ok(&["--store", "wallet", "expire", "cosigner", "--never"]);
    snapshot("seal-absent", &settled(&text));
}
