//! Bad input: a typed error of two sentences, an exit code, nothing changed.

use std::fs;

use header::set_user_version;

use crate::lab::{Lab, chmod, snapshot};

#[test]
fn misuse() {
    let lab = Lab::new();
    let text = [
        &[][..],
        &["bogus"],
        &["bogus", "--json"],
        &["token", "list", "--slot", "1"],
        &["token", "generate", "--curve", "ed25519", "pkcs11:token=a;object=b"],
        &["token", "generate", "--curve", "x25519"],
        &["init", "--name", "Not A Name", "--role", "x", "--token", "file:x"],
        &["init", "--name", "a", "--role", "x", "--token", "file:x", "--suites", "DES_MD5"],
        &["export", "a", "b"],
        &["import"],
        &["peers", "x"],
        &["show", "../x"],
        &["remove"],
        &["log", "x"],
        &["completions", "tcsh"],
        &["man", "a", "b"],
    ];
    snapshot("misuse", &text.iter().map(|arguments| lab.fails(2, arguments)).collect::<String>());
}

#[test]
fn tokens() {
    let lab = Lab::new();
    let token = lab.token("cosigner");
    lab.ok(&["token", "generate", "--curve", "x25519", &token.uri_with_pin("noise")]);
    let wrong = lab.write("wrong.pin", "000000\n");
    let module = token.module().display();
    let uri = |rest: &str| format!("pkcs11:{rest}?module-path={module}&pin-source=file:{}", token.pin_file().display());
    let with_wrong_pin = format!("pkcs11:token=cosigner;object=noise?module-path={module}&pin-source=file:{wrong}");
    let generate = |code, locator: &str| lab.fails(code, &["token", "generate", "--curve", "x25519", locator]);
    let mut text = lab.fails(6, &["token", "list", "--module", "/nowhere/module.so"]);
    text += &lab.fails(6, &["token", "list", "--module", "/bin/true"]);
    text += &generate(6, &uri("token=cosigner;object=noise"));
    text += &generate(2, &uri("token=cosigner"));
    text += &generate(6, &uri("token=other;object=noise"));
    text += &generate(6, "pkcs11:token=cosigner;object=noise?module-path=/nowhere/module.so");
    text += &generate(6, "pkcs11:token=cosigner;object=noise");
    text += &generate(2, "pkcs11:slot-id=1;object=noise");
    text += &generate(2, "pkcs11:token=cosigner;object=noise?pin-value=1234");
    text += &generate(2, "/etc/key.pem");
    text += &generate(7, &format!("pkcs11:token=cosigner;object=new?module-path={module}"));
    text += &generate(7, "file:key.pem");
    snapshot("token-refused", &text);

    let init = |code, locator: &str| {
        lab.fails(code, &["init", "--name", "cosigner", "--role", "cosigner", "--token", locator])
    };
    let mut text = init(6, &uri("token=cosigner;object=other"));
    text += &init(6, &uri("token=other;object=noise"));
    text += &init(6, "pkcs11:token=cosigner;object=noise?module-path=/nowhere/module.so");
    text += &init(7, &token.uri("noise"));
    text += &init(2, "tpm:0x81000001");
    text += &init(6, "file:absent.pem");
    lab.write("key.pem", "not a key");
    text += &init(6, "file:key.pem");
    chmod(&lab.path("key.pem"), 0o644);
    text += &init(6, "file:key.pem");
    chmod(&lab.path("wrong.pin"), 0o640);
    text += &init(6, &with_wrong_pin);
    chmod(&lab.path("wrong.pin"), 0o600);
    text += &init(7, &with_wrong_pin);
    snapshot("init-refused", &text);
    // The wrong PIN was sent once, and the right one still works.
    lab.ok(&["init", "--name", "cosigner", "--role", "cosigner", "--token", &token.uri_with_pin("noise")]);
    snapshot("init-twice", &init(5, &token.uri_with_pin("noise")));
}

#[test]
fn cards() {
    let lab = Lab::new();
    for (name, curve, more) in [
        ("wallet", "x25519", &[][..]),
        ("cosigner", "x25519", &[]),
        ("spare", "x25519", &[]),
        ("curved", "p256", &[]),
        ("gcm", "x25519", &["--suites", "AESGCM_SHA256"]),
    ] {
        lab.machine(name, curve, more);
    }
    let words = lab.words("cosigner");
    let card = lab.read("cosigner.card");
    lab.ok(&["--store", "wallet", "import", "cosigner.card", "--fingerprint", &words]);
    // Another machine that took the cosigner's name.
    let token = lab.token("thief");
    lab.ok(&["token", "generate", "--curve", "x25519", &token.uri_with_pin("noise")]);
    let thief = ["--store", "thief", "init", "--name", "cosigner", "--role", "cosigner", "--token"];
    lab.ok(&[&thief[..], &[&token.uri_with_pin("noise")]].concat());
    lab.ok(&["--store", "thief", "export", "thief.card"]);

    lab.write("edited.card", card.replace("role: cosigner", "role: cosigners"));
    lab.write("newer.card", card.replace("identity card 4", "identity card 5"));
    lab.write("cut.card", &card[..card.len() / 2]);
    lab.write("crlf.card", card.replace('\n', "\r\n"));
    lab.write("binary.card", [0xff; 300]);
    lab.write("huge.card", "x".repeat(1 << 20));
    lab.write("empty.card", "");
    fs::create_dir(lab.path("directory.card")).unwrap();
    let import = |code, more: &[&str]| lab.fails(code, &[&["--store", "wallet", "import"], more].concat());
    let mut text = String::new();
    for file in ["edited", "newer", "cut", "crlf", "binary", "huge", "empty"] {
        text += &import(4, &[&format!("{file}.card")]);
    }
    text += &import(1, &["absent.card"]);
    text += &import(1, &["directory.card"]);
    text += &lab.fails_with(4, &["--store", "wallet", "import", "-"], &card.as_bytes()[1..]);
    // A bad card among good ones: nothing is recorded.
    text += &import(4, &["spare.card", "edited.card", "--fingerprint", &lab.words("spare"), "--fingerprint", &words])
        .replace(&lab.words("spare"), "WORDS")
        .replace(&words, "WORDS");
    text += &import(4, &["thief.card"]);
    text += &import(4, &["thief.card", "--json"]);
    text += &import(4, &["wallet.card"]);
    text += &import(4, &["curved.card"]);
    text += &import(4, &["gcm.card"]);
    text += &import(4, &["spare.card"]);
    text += &import(4, &["spare.card", "--fingerprint", &words]).replace(&words, "WORDS");
    text += &import(4, &["cosigner.card", "--fingerprint", &["zoo"; 8].join(" ")]);
    text += &import(2, &["spare.card", "--fingerprint", "zoo zoo zoo"]);
    text += &import(2, &["spare.card", "gcm.card", "--fingerprint", "zoo zoo zoo"]);
    snapshot("import-refused", &text);

    let mut text = lab.fails(12, &["--store", "wallet", "show", "cosinger"]);
    text += &lab.fails(12, &["--store", "wallet", "remove", "nobody", "--confirm", "nobody"]);
    text += &lab.fails(4, &["--store", "wallet", "remove", "cosigner"]);
    text += &lab.fails(1, &["--store", "wallet", "export", "absent/wallet.card"]);
    text += &lab.fails(1, &["--store", "wallet", "export", "--force", "directory.card"]);
    text += &lab.fails(1, &["--store", "wallet", "export", "--force", "/dev/null"]);
    text += &lab.fails(1, &["man", "absent"]);
    snapshot("peers-refused", &text);
}

#[test]
fn stores() {
    let lab = Lab::new();
    let token = lab.machine("wallet", "x25519", &[]);
    let commands =
        [&["export", "x.card"][..], &["import", "wallet.card"], &["peers"], &["show"], &["remove", "x"], &["log"]];
    let mut text = String::new();
    for command in commands {
        text += &lab.fails(5, command);
    }
    let all = |text: &mut String| {
        for command in commands {
            lab.fails(5, &[&["--store", "wallet"], command].concat());
        }
        let init =
            ["--store", "wallet", "init", "--name", "wallet", "--role", "x", "--token", &token.uri_with_pin("noise")];
        *text += &lab.fails(5, &["--store", "wallet", "show"]);
        lab.fails(5, &init);
    };
    let store = lab.path("wallet/store.db");
    let good = fs::read(&store).unwrap();
    set_user_version(&store, 99);
    all(&mut text);
    fs::write(&store, &good[..good.len() / 2]).unwrap();
    all(&mut text);
    fs::write(&store, &good).unwrap();
    chmod(&store, 0o644);
    all(&mut text);
    chmod(&store, 0o600);
    chmod(&lab.path("wallet"), 0o755);
    all(&mut text);
    chmod(&lab.path("wallet"), 0o700);
    lab.ok(&["--store", "wallet", "show"]);
    snapshot("store-refused", &text);
}

/// The header of an SQLite database (SQLite, "Database File Format", section 1.3), without linking SQLite here.
mod header {
    use std::fs::OpenOptions;
    use std::os::unix::fs::FileExt;
    use std::path::Path;

    /// `user_version`: 32 bits, big-endian, at offset 60.
    pub(super) fn set_user_version(path: &Path, version: u32) {
        OpenOptions::new().write(true).open(path).unwrap().write_all_at(&version.to_be_bytes(), 60).unwrap();
    }
}
