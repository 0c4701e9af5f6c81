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
    text += &lab.fails(4, &at(&["seal"]));
    text += &lab.fails(4, &at(&["seal", "--confirm", "wallet"]));
    text += &lab.transcript(&[
        &at(&["seal", "--confirm", "cosigner"]),
        &at(&["reseal", "--json"]),
        &at(&["show", "--json"]),
    ]);
    text += &lab.fails(6, &at(&["reseal", "--backup"]));
    text += &lab.fails(2, &at(&["seal", "--check", "--backup"]));
    text += &lab.fails(2, &at(&["seal", "--check", "--confirm", "cosigner"]));
    snapshot("seal", &text);
}

#[test]
fn a_store_need_not_be_sealed() {
    let lab = Lab::new();
    let (_token, locator) = lab.key("cosigner", "p256");
    let text = lab.transcript(&[
        &["init", "--name", "cosigner", "--role", "cosigner", "--unsealed", "--token", &locator],
        &["seal", "--confirm", "cosigner"],
        &["seal", "--check"],
    ]);
    snapshot("seal-later", &text);
}

/// Words of fingerprints and phrases, wherever they stand on a line.
fn without_words(shown: &str, words: &[&str]) -> String {
    let text = words.iter().fold(shown.replace('\r', ""), |text, words| {
        let (at, _) = words.match_indices(' ').nth(3).unwrap();
        let (head, tail) = words.split_at(at);
        text.replace(words, "[WORDS]").replace(head, "[HALF]").replace(tail.trim(), "[HALF]")
    });
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        let four: Vec<&str> = line.split_whitespace().collect();
        match (four.as_slice(), lines.last_mut()) {
            ([at @ ("1-4" | "5-8" | "9-12"), _, _, _, _], _) => lines.push(format!("  {at:<4}  [FOUR]")),
            (["[HALF]"], Some(last)) => *last = last.replace("[HALF]", "[WORDS]"),
            _ => lines.push(line.to_owned()),
        }
    }
    lines.join("\n")
}

/// What is sealed in is shown first: whoever could write to the file could have put it there.
#[test]
fn what_is_sealed_in_is_shown() {
    const SEAL: [&str; 3] = ["--store", "wallet", "seal"];
    const PROMPT: &str = "Type wallet to seal it in: ";
    let lab = Lab::new();
    lab.machine("wallet", "x25519", &["--unsealed"]);
    for name in ["cosigner", "watchtower", "stranger"] {
        lab.machine(name, "x25519", &[]);
    }
    lab.meet(&["wallet", "cosigner"]);
    let name = lab.words("wallet");
    let (cosigner, watchtower) = (lab.words("cosigner"), lab.words("watchtower"));
    let all = [name.as_str(), &cosigner, &watchtower];
    lab.ok(&["--store", "wallet", "expire", "cosigner", "--at", "2100-01-31", "--confirm", "cosigner"]);
    lab.ok(&["--store", "wallet", "import", "watchtower.card", "--fingerprint", &watchtower]);
    lab.ok(&["--store", "wallet", "revoke", "watchtower", "--reason", "sold", "--confirm", "watchtower"]);
    let mut session = lab.on_a_terminal(&SEAL);
    let shown = type_at(&mut session, PROMPT, "yes");
    assert!(shown.lines().count() < 24 && shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
    snapshot("seal-question", &without_words(&shown, &all).replace("2100-01-31T00:00:00Z", "THEN"));
    assert!(ended(session).1 == 4);
    lab.fails(5, &["--store", "wallet", "seal", "--check"]);

    // Somebody adds a peer while the words are compared.
    let mut session = lab.on_a_terminal(&SEAL);
    session.exp_string(PROMPT).unwrap();
    lab.ok(&["--store", "wallet", "import", "stranger.card", "--fingerprint", &lab.words("stranger")]);
    session.send_line("wallet").unwrap();
    let (shown, code) = ended(session);
    assert!(code == 5 && shown.contains("it was not sealed"), "{shown}");
    lab.fails(5, &["--store", "wallet", "seal", "--check"]);

    let mut session = lab.on_a_terminal(&SEAL);
    let shown = type_at(&mut session, PROMPT, "wallet");
    assert!(shown.contains("stranger"), "{shown}");
    assert!(ended(session).1 == 0);
    lab.ok(&["--store", "wallet", "seal", "--check"]);
}

/// With the plan and all its cards the phrase stands for them; what it does not cover is shown beside it.
#[test]
fn the_phrase_is_sealed_in() {
    let lab = Lab::new();
    let member = |name| format!("[[member]]\nname = \"{name}\"\nrole = \"signer\"\n");
    let plan = format!(
        "plan = 1\nname = \"three\"\n{}{}{}[[edge]]\nfrom = \"wallet\"\nto = \"cosigner\"\nservice = \"sign\"\n",
        member("wallet"),
        member("cosigner"),
        member("watchtower")
    );
    lab.write("plan.toml", plan);
    for (name, more) in [("wallet", &["--unsealed"][..]), ("cosigner", &[]), ("watchtower", &[])] {
        let (_token, locator) = lab.key(name, "x25519");
        let init = ["--store", name, "init", "--plan", "plan.toml", "--name", name, "--token", &locator];
        lab.ok(&[&init[..], more].concat());
        lab.ok(&["--store", name, "export"]);
    }
    let seal = ["--store", "wallet", "seal"];
    let text = lab.fails(4, &seal);
    assert!(text.contains("Missing: the card of \"cosigner\""), "{text}");
    lab.meet(&["wallet", "cosigner", "watchtower"]);
    let (_next, next) = lab.key("next", "x25519");
    let former = lab.words("cosigner");
    lab.ok(&["--store", "cosigner", "rotate", "--token", &next, "--confirm", "cosigner"]);
    let import = ["import", "cosigner.succession", "--fingerprint", &lab.words("cosigner")];
    lab.ok(&[&["--store", "wallet"], &import[..]].concat());
    let text = lab.fails(4, &seal);
    let phrase = lab.json(&["--store", "wallet", "phrase"])["phrase"].as_str().unwrap().to_owned();
    for word in phrase.split(' ') {
        assert!(text.contains(word), "{word}: {text}");
    }
    let plan = lab.json(&["--store", "wallet", "plan", "show"])["fingerprint"]["words"].as_str().unwrap().to_owned();
    let text: String = text.lines().map(|line| line.strip_prefix("err| ").unwrap_or(line).to_owned() + "\n").collect();
    let text = without_words(&text, &[&former, &lab.words("wallet"), &plan]);
    snapshot("seal-phrase", &text);
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
