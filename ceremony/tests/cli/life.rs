//! `revoke`, `expire`, `rotate`, and the import of successions.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use claviger::ceremony::succession::{MAX_OVERLAP, Succession};
use claviger::store::{Contact, Store};

use crate::lab::{Lab, snapshot};
use crate::prompts::{ended, type_at};

const PLAN: &str = "plan = 1\nname = \"three\"\n\
    [[member]]\nname = \"wallet\"\nrole = \"signer\"\n[[member]]\nname = \"cosigner\"\nrole = \"cosigner\"\n\
    [[member]]\nname = \"watchtower\"\nrole = \"watchtower\"\n\
    [[edge]]\nfrom = \"wallet\"\nto = \"cosigner\"\nservice = \"sign\"\n\
    [[edge]]\nfrom = \"cosigner\"\nto = \"watchtower\"\nservice = \"watch\"\n";

const NAMES: [&str; 3] = ["wallet", "cosigner", "watchtower"];

/// Three machines with one plan, each with the others' cards.
fn three() -> Lab {
    let lab = Lab::new();
    lab.write("plan.toml", PLAN);
    for name in NAMES {
        let (_token, locator) = lab.key(name, "x25519");
        lab.ok(&["--store", name, "init", "--plan", "plan.toml", "--name", name, "--token", &locator]);
        lab.ok(&["--store", name, "export"]);
    }
    lab.meet(&NAMES);
    lab
}

#[test]
fn a_peer_is_revoked() {
    let lab = three();
    let at = |store: &'static str, arguments: &[&'static str]| [&["--store", store], arguments].concat();
    let revoke = at("cosigner", &["revoke", "wallet", "--reason", "laptop stolen"]);
    let mut text = lab.fails(4, &revoke);
    text += &lab.fails(4, &[&revoke[..], &["--confirm", "watchtower"]].concat());
    text += &lab.fails(12, &at("cosigner", &["revoke", "walet", "--reason", "x"]));
    text += &lab.fails(4, &at("cosigner", &["revoke", "cosigner", "--reason", "x"]));
    text += &lab.fails(2, &at("cosigner", &["revoke", "wallet"]));
    text += &lab.fails(2, &at("cosigner", &["revoke", "wallet", "--reason", "a\nb"]));
    let mut session = lab.on_a_terminal(&revoke);
    let shown = type_at(&mut session, "Type wallet to revoke it: ", "walet");
    assert!(shown.contains("wallet can no longer connect to cosigner for sign."), "{shown}");
    assert!(ended(session).1 == 4);
    text += &lab.transcript(&[
        &[&revoke[..], &["--confirm", "wallet"]].concat(),
        // One that is only held, for the phrase.
        &at("wallet", &["revoke", "watchtower", "--reason", "sold", "--confirm", "watchtower"]),
        &at("cosigner", &["peers"]),
        &at("cosigner", &["log"]),
    ]);
    text += &lab.fails(12, &[&revoke[..], &["--confirm", "wallet"]].concat());
    snapshot("revoke", &text);

    // It does not come back, by the same card or under another name.
    let words = lab.words("wallet");
    let import = ["--store", "cosigner", "import", "wallet.card", "--fingerprint", &*words];
    let mut text = lab.fails(4, &import).replace(&words, "WORDS");
    let key = lab.json(&["--store", "wallet", "show"])["locator"].as_str().unwrap().to_owned();
    lab.ok(&["--store", "again", "init", "--name", "again", "--role", "signer", "--token", &key]);
    lab.ok(&["--store", "again", "export"]);
    let (_free, locator) = lab.key("free", "x25519");
    lab.ok(&["--store", "free", "init", "--name", "free", "--role", "free", "--token", &locator]);
    let words = lab.words("wallet");
    lab.ok(&["--store", "free", "import", "wallet.card", "--fingerprint", &words]);
    lab.ok(&["--store", "free", "revoke", "wallet", "--reason", "lost", "--confirm", "wallet"]);
    for (name, card) in [("wallet", "wallet.card"), ("again", "again.card")] {
        let words = lab.words(name);
        text += &lab.fails(4, &["--store", "free", "import", card, "--fingerprint", &words]).replace(&words, "WORDS");
    }
    snapshot("revoke-again", &text);
}

#[test]
fn a_peers_time_is_limited() {
    let lab = Lab::new();
    for name in ["wallet", "cosigner"] {
        lab.machine(name, "x25519", &[]);
    }
    lab.meet(&["wallet", "cosigner"]);
    let expire = |more: &[&'static str]| [&["--store", "wallet", "expire", "cosigner"], more].concat();
    let mut text = String::new();
    for bad in [
        &[][..],
        &["--at", "2020-01-01"],
        &["--at", "soon"],
        &["--in", "0s"],
        &["--in", "90"],
        &["--in", "30years"],
        &["--never", "--in", "1d"],
    ] {
        text += &lab.fails(2, &expire(bad));
    }
    text += &lab.fails(4, &expire(&["--at", "2100-01-31"]));
    text += &lab.fails(4, &expire(&["--at", "2100-01-31", "--confirm", "wallet"]));
    text += &lab.fails(12, &["--store", "wallet", "expire", "nobody", "--in", "1d"]);
    text += &lab.transcript(&[
        &expire(&["--at", "2100-01-31", "--confirm", "cosigner"]),
        &["--store", "wallet", "peers"],
        &["--store", "wallet", "show", "cosigner"],
        // Later than now: nobody is cut off by it.
        &expire(&["--at", "2100-02-01T12:00:00Z", "--json"]),
        &expire(&["--never"]),
        &expire(&["--never"]),
        &["--store", "wallet", "log"],
    ]);
    snapshot("expire", &text.replace("2100-01-31T00:00:00Z", "THEN").replace("2100-02-01T12:00:00Z", "LATER"));
}

/// A session, as a daemon notes it.
fn contact(lab: &Lab, store: &str, peer: &str, own: &claviger::identity::StaticPublic, time: u64) {
    let mut store = Store::open(&lab.path(store)).unwrap();
    let theirs = store.peer(&peer.parse().unwrap()).unwrap().static_public;
    let contact = Contact { peer: peer.parse().unwrap(), own: own.clone(), theirs, time };
    store.note_contact(&contact).unwrap();
}

#[test]
fn a_machine_is_rotated() {
    let lab = three();
    let at = |arguments: &[&str]| -> Vec<String> {
        ["--store", "cosigner"].iter().chain(arguments).map(|text| (*text).to_owned()).collect()
    };
    let fails = |code, arguments: &[&str]| {
        let arguments = at(arguments);
        lab.fails(code, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let runs = |arguments: &[&str]| {
        let arguments = at(arguments);
        lab.transcript(&[&arguments.iter().map(String::as_str).collect::<Vec<_>>()])
    };
    let before = lab.json(&["--store", "cosigner", "show"]);
    let (_token, next) = lab.key("next", "x25519");
    let (_curved, curved) = lab.key("curved", "p256");
    let present = before["locator"].as_str().unwrap();
    let mut text = fails(2, &["rotate"]);
    text += &fails(2, &["rotate", "--status", "--overlap", "1d"]);
    text += &fails(2, &["rotate", "--token", &next, "--overlap", "1"]);
    text += &fails(2, &["rotate", "--token", &next, "--overlap", "91d"]);
    text += &fails(6, &["rotate", "--status"]);
    text += &fails(6, &["rotate", "--finish"]);
    text += &fails(6, &["rotate", "--again"]);
    text += &fails(4, &["rotate", "--token", &next]);
    text += &fails(6, &["rotate", "--token", present, "--confirm", "cosigner"]);
    text += &fails(6, &["rotate", "--token", &curved, "--confirm", "cosigner"]);
    text += &fails(1, &["rotate", "--token", &next, "--confirm", "cosigner", "absent/file"]);
    snapshot("rotate-refused", &text);

    let mut text = runs(&["rotate", "--token", &next, "--confirm", "cosigner"]);
    text += &fails(4, &["rotate", "--token", &next, "--confirm", "cosigner"]);
    text += &runs(&["show"]);
    let after = lab.json(&["--store", "cosigner", "show"]);
    for other in ["static_public_key", "onion_address", "client_auth_public_key", "locator"] {
        assert_ne!(before[other], after[other], "{other}");
    }
    // The file again is as good as the file, and says the same but for nothing.
    let written = lab.read("cosigner.succession");
    text += &runs(&["rotate", "--again", "second.succession", "--json"]);
    assert_eq!(lab.read("second.succession"), written);
    assert_eq!(lab.ok(&["--store", "cosigner", "rotate", "--again", "-"]), written);
    snapshot("rotate", &text);

    let words = lab.words("cosigner");
    let import = |store: &'static str| {
        ["--store", store, "import", "cosigner.succession", "--fingerprint"]
            .into_iter()
            .chain([words.as_str()])
            .collect::<Vec<_>>()
    };
    let mut text = lab.transcript(&[
        &import("wallet"),
        &["--store", "wallet", "show", "cosigner"],
        &["--store", "wallet", "peers"],
        // It is recorded already.
        &import("wallet"),
    ]);
    // Not its own; not of a machine that is not known; not one that was changed on the way.
    text += &lab.fails(4, &import("cosigner"));
    lab.machine("stranger", "x25519", &[]);
    text += &lab.fails(12, &import("stranger"));
    let wrong = written.replace("by: primary", "by: backup");
    lab.write("wrong.succession", &wrong);
    text += &lab.fails(4, &["--store", "watchtower", "import", "wrong.succession", "--fingerprint", &words]);
    text += &lab
        .fails(4, &["--store", "watchtower", "import", "cosigner.succession", "--fingerprint", &lab.words("wallet")])
        .replace(&lab.words("wallet"), "OTHER");
    // As long as nobody could wait for.
    let mut long = Succession::from_text(&written).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    long.until = (now + MAX_OVERLAP + Duration::from_secs(25 * 3600)).as_secs();
    lab.write("long.succession", long.to_text());
    text += &lab.fails(4, &["--store", "watchtower", "import", "long.succession", "--fingerprint", &words]);
    snapshot("rotate-import", &text.replace(&words, "WORDS"));
    lab.ok(&import("watchtower"));
    lab.ok(&["--store", "watchtower", "seal", "--check"]);

    // Who still needs the former key.
    let store = Store::open(&lab.path("cosigner")).unwrap();
    let machine = store.machine().unwrap();
    let former = machine.former.clone().unwrap().card.static_public;
    drop(store);
    contact(&lab, "cosigner", "wallet", &former, 1_700_000_000);
    contact(&lab, "cosigner", "wallet", machine.key(), 1_700_000_100);
    contact(&lab, "cosigner", "watchtower", &former, 1_700_000_200);
    let mut text = runs(&["rotate", "--status"]) + &runs(&["rotate", "--status", "--json"]);
    text += &fails(4, &["rotate", "--finish"]);
    contact(&lab, "cosigner", "watchtower", machine.key(), 1_700_000_300);
    // Who was seen is not under the seal: it is shown, and never the answer.
    text += &fails(4, &["rotate", "--finish"]);
    text += &fails(4, &["rotate", "--finish", "--confirm", "wallet"]);
    text += &runs(&["rotate", "--finish", "--confirm", "cosigner"]);
    text += &fails(6, &["rotate", "--status"]);
    text += &runs(&["log"]);
    snapshot("rotate-status", &text);
}

/// Both ends rotate before either has the other's succession; and a machine that was revoked has no successor.
#[test]
fn both_rotate() {
    let lab = Lab::new();
    for name in ["wallet", "cosigner"] {
        lab.machine(name, "x25519", &[]);
    }
    lab.meet(&["wallet", "cosigner"]);
    for name in ["wallet", "cosigner"] {
        let (_token, next) = lab.key(&format!("{name}-next"), "x25519");
        lab.ok(&["--store", name, "rotate", "--token", &next, "--confirm", name]);
    }
    for (one, other) in [("wallet", "cosigner"), ("cosigner", "wallet")] {
        let file = format!("{other}.succession");
        lab.ok(&["--store", one, "import", &file, "--fingerprint", &lab.words(other)]);
        assert_eq!(
            lab.json(&["--store", one, "show", other])["fingerprint"],
            lab.json(&["--store", other, "show"])["fingerprint"]
        );
    }
    // And once more, one after the other.
    for (one, other) in [("wallet", "cosigner"), ("cosigner", "wallet")] {
        lab.ok(&["--store", one, "rotate", "--finish", "--confirm", one]);
        let (_token, next) = lab.key(&format!("{one}-last"), "x25519");
        let rotate = ["--store", one, "rotate", "--token", &next, "--overlap", "0s", "--confirm", one, "--force"];
        lab.ok(&rotate);
        let file = format!("{one}.succession");
        lab.ok(&["--store", other, "import", &file, "--fingerprint", &lab.words(one)]);
    }
    let missed = lab.read("wallet.succession");
    lab.ok(&["--store", "cosigner", "revoke", "wallet", "--reason", "lost", "--confirm", "wallet"]);
    let words = lab.words("wallet");
    let revoked = ["--store", "cosigner", "import", "wallet.succession", "--fingerprint", &words];
    let mut text = lab.fails(4, &revoked).replace(&words, "WORDS");
    // A succession that follows upon one that never came.
    for name in ["wallet", "watchtower"] {
        fs::remove_file(lab.path(&format!("{name}.card"))).ok();
    }
    lab.machine("watchtower", "x25519", &[]);
    lab.ok(&["--store", "wallet", "export"]);
    lab.ok(&["--store", "watchtower", "import", "wallet.card", "--fingerprint", &words]);
    lab.ok(&["--store", "wallet", "import", "watchtower.card", "--fingerprint", &lab.words("watchtower")]);
    lab.write("old.succession", missed);
    text += &lab
        .transcript(&[&["--store", "watchtower", "import", "old.succession", "--fingerprint", &words]])
        .replace(&words, "WORDS");
    for at in ["one", "two"] {
        lab.ok(&["--store", "wallet", "rotate", "--finish", "--confirm", "wallet"]);
        let (_token, next) = lab.key(at, "x25519");
        lab.ok(&["--store", "wallet", "rotate", "--token", &next, "--confirm", "wallet", &format!("{at}.succession")]);
    }
    let words = lab.words("wallet");
    text += &lab
        .fails(4, &["--store", "watchtower", "import", "two.succession", "--fingerprint", &words])
        .replace(&words, "WORDS");
    snapshot("succession-refused", &text);
}

#[test]
fn every_command_has_an_example() {
    let lab = Lab::new();
    for command in ["seal", "unseal", "reseal", "switch", "revoke", "expire", "rotate", "backup add", "backup again"] {
        let arguments: Vec<&str> = command.split(' ').chain(["--help"]).collect();
        let help = lab.ok(&arguments);
        assert!(help.contains("Example") && help.contains(&format!("claviger-ceremony {command}")), "{command}");
    }
}
