//! `token` with virtual cards behind a real pcscd.

use std::ffi::CString;
use std::time::Duration;

use claviger_testkit::cards::{self, ADMIN_PIN, Card, Kind, Options, PIN, Pcscd};

use crate::lab::{Lab, snapshot};
use crate::prompts::{ended, type_at};

const SERIAL: u32 = 12_345_678;

/// The locator with the PIN in a file.
fn with_pin(lab: &Lab, locator: &str) -> String {
    format!("{locator}?pin-source=file:{}", lab.write("card.pin", format!("{PIN}\n")))
}

#[test]
fn every_kind_is_listed() {
    cards::isolated(|| {
        let lab = Lab::new();
        lab.token("cosigner");
        let mut text = lab.transcript(&[&["token", "list", "--backend", "piv", "--backend", "openpgp"]]);
        for command in [&["test"][..], &["attest"], &["explain"], &["generate", "--curve", "p256"]] {
            text += &lab.fails(6, &[&["token"], command, &["piv:serial=12345678;slot=9d"]].concat());
        }
        let pcscd = Pcscd::start();
        let (yubikey, _piv) = (Card::yubikey(&pcscd, SERIAL), Card::piv(&pcscd, 9));
        let _openpgp = Card::openpgp(&pcscd, 7);
        text += &lab.transcript(&[&["token", "list"]]);
        let key = with_pin(&lab, &yubikey.locator());
        lab.ok(&["token", "generate", "--curve", "x25519", &key]);
        text += &lab
            .transcript(&[&["token", "list", "--backend", "piv"], &["token", "list", "--backend", "piv", "--json"]]);
        snapshot("devices", &text);
    });
}

#[test]
fn keys_are_made_with_policies() {
    cards::isolated(|| {
        let lab = Lab::new();
        let pcscd = Pcscd::start();
        let options = Options { touch_timeout: Some(Duration::from_secs(2)), ..Options::default() };
        let card = Card::with(&pcscd, Kind::YubiKey, SERIAL, &options);
        let key = with_pin(&lab, &card.locator());
        card.touch_after(Duration::from_secs(1));
        let text = lab.transcript(&[
            &[
                "token",
                "generate",
                "--curve",
                "p256",
                "--slot",
                "82",
                "--pin-policy",
                "always",
                "--touch-policy",
                "always",
                &key,
            ],
            &[
                "token",
                "generate",
                "--curve",
                "x25519",
                "--slot",
                "83",
                "--pin-policy",
                "never",
                "--touch-policy",
                "cached",
                &key,
            ],
            &["token", "test", &key.replace("9d", "83")],
            &["token", "explain", &card.locator()],
        ]);
        snapshot("devices-policies", &text);
    });
}

#[test]
fn a_key_is_overwritten_by_its_fingerprint_only() {
    cards::isolated(|| {
        let lab = Lab::new();
        let pcscd = Pcscd::start();
        let card = Card::yubikey(&pcscd, SERIAL);
        let key = with_pin(&lab, &card.locator());
        let generate = ["token", "generate", "--curve", "p256", &key];
        let made = lab.json(&generate);
        let hex = made["fingerprint"]["hex"].as_str().unwrap().to_owned();
        let listed = || lab.json(&["token", "list", "--backend", "piv"])["tokens"][0]["keys"][0]["key"].clone();
        let other = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";

        // Nobody to ask, another key's fingerprint, no fingerprint, and nothing there.
        let mut text = lab.fails(4, &generate);
        text += &lab.fails(4, &[&generate[..], &["--replace", other]].concat());
        text += &lab.fails(2, &[&generate[..], &["--replace", "yes"]].concat());
        text += &lab.fails(6, &[&generate[..], &["--replace", other, "--slot", "84"]].concat());
        snapshot("devices-overwrite", &text);
        assert_eq!(listed()["fingerprint"]["hex"], *hex);

        // Typed: another's, nothing, and then its own.
        for answer in [other, ""] {
            let mut session = lab.on_a_terminal(&generate);
            let shown = type_at(&mut session, "all digits: ", answer);
            // The locator, with the PIN's file, is on a line of its own where it is too long for one with the others.
            assert!(shown.contains("There is a key at") && shown.contains("piv:serial=12345678;slot=9d"), "{shown}");
            let (shown, code) = ended(session);
            assert!(code == 4 && shown.contains("was not overwritten"), "{code}: {shown}");
            assert_eq!(listed()["fingerprint"]["hex"], *hex);
        }
        let mut session = lab.on_a_terminal(&generate);
        type_at(&mut session, "all digits: ", &hex);
        let (shown, code) = ended(session);
        assert_eq!(code, 0, "{shown}");
        let second = listed()["fingerprint"].clone();
        assert_ne!(second["hex"], *hex);

        // For scripts; and the words do as well. The machine that would lose its identity is named.
        lab.ok(&["init", "--name", "cosigner", "--role", "cosigner", "--token", &key]);
        let mut session = lab.on_a_terminal(&generate);
        let shown = type_at(&mut session, "all digits: ", "");
        assert!(shown.contains("identity of this machine, \"cosigner\""), "{shown}");
        assert_eq!(ended(session).1, 4);
        lab.ok(&[&generate[..], &["--replace", second["words"].as_str().unwrap()]].concat());
        assert_ne!(listed()["fingerprint"]["hex"], second["hex"]);
    });
}

#[test]
fn pins_are_counted() {
    cards::isolated(|| {
        let lab = Lab::new();
        let pcscd = Pcscd::start();
        let card = Card::yubikey(&pcscd, SERIAL);
        let right = with_pin(&lab, &card.locator());
        lab.ok(&["token", "generate", "--curve", "p256", &right]);
        // The PIN is verified until the card is pulled.
        card.pull();
        card.insert();
        let mut session = lab.on_a_terminal(&["token", "test", &card.locator()]);
        type_at(&mut session, "PIN of YubiKey 12345678, PIV slot 9d (3 tries left): ", PIN);
        let (shown, code) = ended(session);
        // The serial number begins with the PIN.
        let without = shown.replace("12345678", "");
        assert!(code == 0 && shown.contains("passed") && !without.contains(PIN), "{shown}");
        card.pull();
        card.insert();
        let wrong = format!("{}?pin-source=file:{}", card.locator(), lab.write("wrong.pin", "111111\n"));
        let mut text = lab.fails(7, &["token", "test", &wrong]);
        text += &lab.fails(7, &["token", "test", &wrong]);
        // One try is left: nothing is sent without a yes, and a file is none.
        text += &lab.fails(7, &["token", "test", &wrong]);
        text += &lab.fails(7, &["token", "test", &right]);
        text += &lab.transcript(&[&["token", "list", "--backend", "piv"]]);
        snapshot("devices-pins", &text);

        let mut session = lab.on_a_terminal(&["token", "test", &wrong]);
        let asked = type_at(&mut session, "Type yes to spend the last try: ", "no");
        assert!(asked.contains("ONE try left"), "{asked}");
        assert_eq!(ended(session).1, 7);
        let mut session = lab.on_a_terminal(&["token", "test", &right]);
        type_at(&mut session, "Type yes to spend the last try: ", "yes");
        let (shown, code) = ended(session);
        assert!(code == 0 && shown.contains("passed"), "{shown}");

        card.pull();
        card.insert();
        for _ in 0..2 {
            lab.fails(7, &["token", "test", &wrong]);
        }
        let mut session = lab.on_a_terminal(&["token", "test", &wrong]);
        type_at(&mut session, "Type yes to spend the last try: ", "yes");
        assert_eq!(ended(session).1, 7);
        let mut text = lab.fails(7, &["token", "test", &right]);
        text += &lab.transcript(&[&["token", "list", "--backend", "piv"]]);
        snapshot("devices-blocked", &text);
    });
}

#[test]
fn a_token_goes_while_it_is_tried() {
    cards::isolated(|| {
        let lab = Lab::new();
        let pcscd = Pcscd::start();
        let options = Options { touch_timeout: Some(Duration::from_secs(1)), ..Options::default() };
        let card = Card::with(&pcscd, Kind::YubiKey, SERIAL, &options);
        let key = with_pin(&lab, &card.locator());
        lab.ok(&["token", "generate", "--curve", "p256", "--touch-policy", "always", &key]);

        // Nobody touches it: told apart from a wrong PIN, and no try is lost.
        card.touch_never();
        let mut text = lab.fails(6, &["token", "test", &key]);
        text += &lab.fails(6, &["token", "test", "--json", &key]);
        snapshot("devices-untouched", &text);
        let state = lab.json(&["token", "list", "--backend", "piv"])["tokens"][0]["pin_state"].clone();
        assert_eq!(state["tries_left"], 3);

        // Each operation waits for a finger; the card is pulled instead.
        card.touch_after(Duration::from_millis(600));
        let mut session = lab.on_a_terminal(&["token", "test", &key]);
        session.exp_string("operation  2 of 10: ").unwrap();
        session.exp_string("operation 3 of 10 (20 s)").unwrap();
        card.pull();
        let (shown, code) = ended(session);
        assert!(code == 6 && shown.contains("claviger-ceremony: "), "{code}: {shown}");
        assert!(!shown.contains("passed"), "{shown}");
        card.insert();
        card.touch_now();
        lab.ok(&["token", "test", &key]);
    });
}

#[test]
fn keys_are_made_by_whoever_has_the_admin_pin() {
    cards::isolated(|| {
        let lab = Lab::new();
        let pcscd = Pcscd::start();
        let (openpgp, piv) = (Card::openpgp(&pcscd, 7), Card::piv(&pcscd, 9));
        let key = with_pin(&lab, &openpgp.locator());
        let generate = ["token", "generate", "--curve", "x25519", &key];
        let mut text = lab.fails(7, &generate);
        text += &lab.fails(6, &[&generate[..], &["--pin-policy", "always"]].concat());
        let mut session = lab.on_a_terminal(&generate);
        let asked = type_at(&mut session, "Admin PIN of", ADMIN_PIN);
        let (shown, code) = ended(session);
        assert!(code == 0 && shown.contains("Made a key on x25519"), "{asked}{shown}");
        assert!(!shown.contains(ADMIN_PIN) && !shown.contains(PIN), "a PIN was shown: {shown}");

        let key = with_pin(&lab, &piv.locator());
        let mut session = lab.on_a_terminal(&["token", "generate", "--curve", "p256", &key]);
        type_at(&mut session, "Management key of", &"0102030405060708".repeat(3));
        let (shown, code) = ended(session);
        assert!(code == 0 && shown.contains("Made a key on p256"), "{shown}");
        text += &lab.fails(6, &["token", "generate", "--curve", "x25519", "--slot", "82", &key]);

        text += &lab.transcript(&[
            &["token", "list", "--backend", "openpgp"],
            &["token", "list", "--backend", "piv"],
            &["token", "test", "-q", &with_pin(&lab, &openpgp.locator())],
            &["token", "test", "-q", &key],
        ]);
        text += &lab.fails(6, &["token", "attest", &with_pin(&lab, &openpgp.locator())]);
        snapshot("devices-admin", &text);
    });
}

/// scdaemon takes a card for itself unless it is told otherwise.
#[test]
fn another_program_holds_the_card() {
    cards::isolated(|| {
        let lab = Lab::new();
        let pcscd = Pcscd::start();
        let card = Card::openpgp(&pcscd, 7);
        let gnupg = |program: &str, arguments: &[&str]| {
            let output = lab.command(program, arguments).output().unwrap();
            assert!(output.status.success(), "{program}: {output:?}");
        };
        gnupg("gpg", &["--card-status"]);
        let mut text =
            lab.transcript(&[&["token", "list", "--backend", "openpgp"], &["token", "list", "--backend", "piv"]]);
        for arguments in [
            &["token", "explain", &card.locator()][..],
            &["token", "test", &card.locator()],
            &["token", "generate", "--curve", "x25519", &card.locator()],
        ] {
            text += &lab.fails(6, arguments);
        }
        snapshot("devices-held", &text);
        gnupg("gpgconf", &["--kill", "all"]);
        lab.ok(&["token", "explain", &card.locator()]);
    });
}

#[test]
fn another_program_is_in_the_middle_of_something() {
    cards::isolated(|| {
        let lab = Lab::new();
        let pcscd = Pcscd::start();
        let card = Card::yubikey(&pcscd, SERIAL);
        lab.ok(&["token", "generate", "--curve", "p256", &with_pin(&lab, &card.locator())]);
        // The PIN is verified until then.
        card.pull();
        card.insert();
        let context = pcsc::Context::establish(pcsc::Scope::User).unwrap();
        let reader = CString::new(card.reader()).unwrap();
        let mut other = context.connect(&reader, pcsc::ShareMode::Shared, pcsc::Protocols::ANY).unwrap();

        let transaction = other.transaction().unwrap();
        let mut session = lab.on_a_terminal(&["token", "test", &card.locator()]);
        session.exp_string("another program may be using one").unwrap();
        transaction.end(pcsc::Disposition::LeaveCard).map_err(|(_, error)| error).unwrap();
        // While somebody types, it begins again.
        session.exp_string("PIN of YubiKey").unwrap();
        let transaction = other.transaction().unwrap();
        session.send_line(PIN).unwrap();
        session.exp_string("Waiting for another program that uses the token: piv:serial=12345678;slot=9d").unwrap();
        transaction.end(pcsc::Disposition::LeaveCard).map_err(|(_, error)| error).unwrap();
        let (shown, code) = ended(session);
        assert!(code == 0 && shown.contains("passed"), "{shown}");
        // A PC/SC client that ends without this resets the card.
        other.disconnect(pcsc::Disposition::LeaveCard).map_err(|(_, error)| error).unwrap();
    });
}

#[test]
fn keys_are_attested() {
    cards::isolated(|| {
        let lab = Lab::new();
        let pcscd = Pcscd::start();
        let card = Card::yubikey(&pcscd, SERIAL);
        let key = with_pin(&lab, &card.locator());
        lab.ok(&["token", "generate", "--curve", "x25519", &key]);
        let root = lab.write("root.pem", std::fs::read(card.attestation_root()).unwrap());
        let attest = ["token", "attest", &key];
        let rooted = [&attest[..], &["--attestation-root", "root.pem"]].concat();
        let mut text = lab.transcript(&[&rooted]);
        // The virtual card's maker is none, a root that is none, and a file that is taken: no certificate is written.
        text += &lab.fails(4, &[&attest[..], &["--out", "chain.pem"]].concat());
        text += &lab.fails(4, &[&attest[..], &["--attestation-root", "card.pin"]].concat());
        text += &lab.fails(1, &[&attest[..], &["--attestation-root", "absent.pem"]].concat());
        lab.write("taken.pem", "something else");
        text += &lab.fails(1, &[&rooted[..], &["--out", "taken.pem"]].concat());
        snapshot("devices-attest", &text);
        // Each time the device signs anew.
        let begins = |text: &str| text.matches("-----BEGIN CERTIFICATE-----").count();
        lab.ok(&[&rooted[..], &["--out", "taken.pem", "--force"]].concat());
        assert_eq!(begins(&lab.read("taken.pem")), 2);
        assert_eq!(begins(&lab.ok(&[&rooted[..], &["--out", "-"]].concat())), 2);
        let report = lab.json(&[&rooted[..], &["--out", "chain.pem"]].concat());
        assert_eq!((&report["pem"], &report["serial"]), (&lab.read("chain.pem").into(), &SERIAL.into()));
        // Somebody else's reader of certificates agrees.
        let verified = std::process::Command::new("openssl")
            .args([
                "verify",
                "-partial_chain",
                "-trusted",
                &root,
                "-untrusted",
                lab.path("chain.pem").to_str().unwrap(),
            ])
            .arg(lab.path("chain.pem"))
            .output()
            .unwrap();
        assert!(verified.status.success(), "{verified:?}");
    });
}

#[cfg(feature = "tpm")]
#[test]
fn a_tpm_has_keys() {
    cards::isolated(|| {
        let lab = Lab::new();
        let tpm = cards::Swtpm::start();
        let (tcti, pin) = (tpm.tcti(), lab.write("tpm.pin", "correct horse\n"));
        let key = format!("tpm2:0x81010042?tcti={tcti}&pin-source=file:{pin}");
        let list = ["token", "list", "--tcti", &tcti];
        let generate = ["token", "generate", "--curve", "p256", &key];
        let mut text = lab.transcript(&[&list, &generate, &["token", "test", "-q", &key], &list]);
        text += &lab.fails(6, &["token", "generate", "--curve", "x25519", &key.replace("0042", "0043")]);
        text += &lab.fails(4, &generate);
        text += &lab.fails(6, &["token", "attest", &key]);
        snapshot("devices-tpm", &text);
        lab.ok(&["token", "explain", &key]);
    });
}
