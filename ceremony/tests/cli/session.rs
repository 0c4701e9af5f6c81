//! The good path: three machines, from tokens to recorded peers.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::lab::{Lab, PROGRAM, snapshot};

#[test]
fn tokens() {
    let lab = Lab::new();
    let token = lab.token("cosigner");
    let module = token.module().to_str().unwrap();
    let text = lab.transcript(&[
        &["token", "list", "--module", module],
        &["token", "generate", "--curve", "x25519", &token.uri_with_pin("noise")],
        &["token", "generate", "--curve", "p256", "--json", &token.uri_with_pin("old")],
        &["token", "list", "--module", module, "-q"],
        &["token", "list", "--module", module, "--json"],
    ]);
    snapshot("tokens", &text);
    // The locator that was printed, and that the listing shows, is the one to give to `init`.
    let keys = lab.json(&["token", "list", "--module", module])["tokens"][0]["keys"].clone();
    for key in keys.as_array().unwrap() {
        let locator =
            format!("{}&pin-source=file:{}", key["key"]["locator"].as_str().unwrap(), token.pin_file().display());
        let label = key["label"].as_str().unwrap();
        lab.ok(&["--store", label, "init", "--name", label, "--role", "x", "--token", &locator]);
        assert_eq!(lab.json(&["--store", label, "show"])["static_public_key"], key["key"]["static_public_key"]);
    }
    // Without options the usual places are looked at, among which is SoftHSM's.
    let tokens = lab.json(&["token", "list"])["tokens"].clone();
    assert!(tokens.as_array().unwrap().iter().any(|token| token["label"] == "cosigner"), "{tokens}");
}

#[test]
fn a_ceremony() {
    let lab = Lab::new();
    let token = lab.token("cosigner");
    let made = lab.ok(&["token", "generate", "--curve", "x25519", &token.uri_with_pin("noise")]);
    lab.machine("wallet", "x25519", &["--suites", "AESGCM_SHA256 ChaChaPoly_BLAKE2s"]);
    lab.machine("watchtower", "x25519", &[]);
    let words = lab.words("wallet");
    let hex = lab.json(&["--store", "watchtower", "show"])["fingerprint"]["hex"].as_str().unwrap().to_owned();
    let init = ["init", "--name", "cosigner", "--role", "cosigner", "--token", made.trim()];
    snapshot("init", &lab.transcript(&[&init]));
    snapshot(
        "export",
        &lab.transcript(&[&["export"], &["export"], &["export", "-"], &["export", "other.card", "--json"]]),
    );
    assert_eq!(lab.read("cosigner.card"), lab.read("other.card"));
    assert_eq!(fs::metadata(lab.path("cosigner.card")).unwrap().permissions().mode() & 0o777, 0o600);
    let given = ["import", "wallet.card", "watchtower.card", "--fingerprint", &words, "--fingerprint", &hex];
    let imported = lab.transcript(&[
        &["peers"],
        &given,
        &["import", "wallet.card"],
        &["import", "wallet.card", "--json", "--fingerprint", &words],
    ]);
    // The fingerprints that were given stand in the commands, in the clear.
    snapshot("import", &imported.replace(&words, "WORDS").replace(&hex, "HEX"));
    let from_stdin = lab.run_with(&["import", "-"], lab.read("wallet.card").as_bytes());
    assert!(from_stdin.status.success(), "a card already there needs no answer: {from_stdin:?}");
    snapshot(
        "peers",
        &lab.transcript(&[
            &["peers"],
            &["peers", "--json"],
            &["show", "wallet"],
            &["show", "--json"],
            &["show", "wallet", "--json"],
        ]),
    );
    snapshot(
        "remove",
        &lab.transcript(&[
            &["remove", "wallet", "--confirm", "wallet"],
            &["remove", "watchtower", "--confirm", "watchtower", "--json"],
            &["peers"],
            &["log"],
            &["log", "--json"],
        ]),
    );
    // The store is where the XDG specification says.
    assert!(lab.path(".local/share/claviger/store.db").exists());
}

#[test]
fn a_card_may_be_overwritten_when_told_to() {
    let lab = Lab::new();
    lab.machine("wallet", "p256", &[]);
    let card = lab.read("wallet.card");
    lab.write("wallet.card", "something else");
    snapshot("export-refused", &lab.fails(1, &["--store", "wallet", "export"]));
    lab.ok(&["--store", "wallet", "export", "--force"]);
    assert_eq!(lab.read("wallet.card"), card);
}

#[test]
fn help_completions_and_manual() {
    let lab = Lab::new();
    snapshot("help", &lab.transcript(&[&["--help"], &["import", "--help"]]));
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(lab.ok(&["completions", shell]).contains("claviger-ceremony"), "{shell}");
    }
    assert!(lab.ok(&["man"]).contains(".TH claviger-ceremony"));
    fs::create_dir(lab.path("man")).unwrap();
    lab.ok(&["man", "man"]);
    assert!(lab.read("man/claviger-ceremony-token-generate.1").contains("software key"));
}

/// What the process does before anything else, seen from outside while it waits for a card on stdin.
#[test]
#[allow(clippy::disallowed_methods)] // sleep: nothing tells when the process has come so far; a deadline bounds it.
fn the_process_closes_itself() {
    let lab = Lab::new();
    lab.machine("wallet", "x25519", &[]);
    let mut child = lab
        .command(PROGRAM, &["--store", "wallet", "import", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let proc = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", child.id())).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    let closed = || {
        let limits = proc("limits");
        let core: Vec<&str> =
            limits.lines().find(|line| line.starts_with("Max core file size")).unwrap().split_whitespace().collect();
        core[4..6] == ["0", "0"] && proc("status").contains("Umask:\t0077")
    };
    while !closed() {
        assert!(Instant::now() < deadline, "{}{}", proc("limits"), proc("status"));
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(child.stdin.take());
    assert_eq!(child.wait().unwrap().code(), Some(4), "an empty card is refused");
}
