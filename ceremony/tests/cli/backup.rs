//! Backup tokens: in `init`, later, and when the first token is gone.

use claviger::identity::IdentityCard;
use claviger_testkit::cards::{self, ADMIN_PIN, Card, PIN, Pcscd};

use crate::lab::{Lab, snapshot};
use crate::prompts::{ended, type_at};
use crate::seal::settled;

const PLAN: &str = "plan = 1\nname = \"pair\"\n[rules]\nbackup-token = true\n\
    [[member]]\nname = \"wallet\"\nrole = \"signer\"\n[[member]]\nname = \"cosigner\"\nrole = \"cosigner\"\n\
    [[edge]]\nfrom = \"wallet\"\nto = \"cosigner\"\nservice = \"sign\"\n";

#[test]
fn a_plan_is_obeyed() {
    let lab = Lab::new();
    lab.write("plan.toml", PLAN);
    lab.write("wants.toml", PLAN.replace("backup-token", "attestation"));
    lab.write("bad.toml", PLAN.replace("wallet", "Wallet"));
    let (_first, first) = lab.key("first", "x25519");
    let (_second, second) = lab.key("second", "x25519");
    let (_curved, curved) = lab.key("curved", "p256");
    let init = |plan: &str, name: &str, more: &[&str]| -> Vec<String> {
        let arguments = ["init", "--plan", plan, "--name", name];
        arguments.iter().chain(more).map(|text| (*text).to_owned()).collect()
    };
    let both = ["--token", &*first, "--backup-token", &*second];
    let mut text = String::new();
    for (code, arguments) in [
        (4, init("plan.toml", "watchtower", &both)),
        (4, init("plan.toml", "wallet", &[&both[..], &["--role", "cosigner"]].concat())),
        (4, init("plan.toml", "wallet", &["--token", &first])),
        (4, init("plan.toml", "wallet", &["--token", &curved, "--backup-token", &second])),
        (4, init("plan.toml", "wallet", &["--token", &first, "--backup-token", &curved])),
        (6, init("plan.toml", "wallet", &["--token", &first, "--backup-token", &first])),
        (4, init("wants.toml", "wallet", &[&both[..], &["--no-attestation"]].concat())),
        (4, init("wants.toml", "wallet", &both)),
        (4, init("bad.toml", "wallet", &both)),
        (1, init("absent.toml", "wallet", &both)),
    ] {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        text += &lab.fails(code, &arguments);
    }
    text += &lab.fails(2, &["init", "--name", "wallet", "--token", &first]);
    let arguments = init("plan.toml", "wallet", &both);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    text += &lab.transcript(&[&arguments, &["show", "--json"], &["seal", "--check"], &["log"]]);
    snapshot("backup-init", &text);
    lab.ok(&["export"]);
    let card = IdentityCard::from_text(&lab.read("wallet.card")).unwrap();
    assert!(card.backup.is_some_and(|backup| backup.static_public != card.static_public));
}

#[test]
fn the_primary_token_is_lost() {
    let lab = Lab::new();
    let (first, one) = lab.key("first", "x25519");
    let (second, two) = lab.key("second", "x25519");
    lab.ok(&["init", "--name", "wallet", "--role", "signer", "--token", &one, "--backup-token", &two]);
    lab.machine("cosigner", "x25519", &[]);
    lab.ok(&["import", "cosigner.card", "--fingerprint", &lab.words("cosigner")]);

    // Both are there: nothing is lost by going there and back.
    let mut text = lab.transcript(&[&["switch", "primary"], &["switch", "backup"], &["switch", "primary", "--json"]]);
    first.pull();
    text += &lab.fails(6, &["remove", "cosigner", "--confirm", "cosigner"]);
    text += &lab.transcript(&[&["switch", "backup"], &["show"]]);
    text += &lab.fails(6, &["switch", "primary"]);
    lab.ok(&["expire", "cosigner", "--in", "90d", "--confirm", "cosigner"]);
    text += &lab.fails(4, &["reseal"]);
    text += &lab.transcript(&[&["reseal", "--confirm", "wallet"], &["seal", "--check"]]);
    // It is found again, and opens nothing.
    first.put_back();
    text += &lab.fails(6, &["switch", "primary"]);
    text += &lab.transcript(&[&["reseal", "--backup"], &["switch", "primary"], &["log"]]);
    second.pull();
    lab.ok(&["remove", "cosigner", "--confirm", "cosigner"]);
    text += &lab.fails(6, &["switch", "backup"]);
    snapshot("backup-lost", &settled(&text));
}

#[test]
fn a_machine_without_a_backup_has_none_to_switch_to() {
    let lab = Lab::new();
    lab.machine("wallet", "x25519", &[]);
    let mut text = lab.fails(6, &["--store", "wallet", "switch", "backup"]);
    text += &lab.transcript(&[&["--store", "wallet", "switch", "primary"]]);
    text += &lab.fails(2, &["--store", "wallet", "switch", "spare"]);
    text += &lab.fails(5, &["switch", "backup"]);
    snapshot("switch-refused", &text);
}

#[test]
fn a_backup_token_is_added_later() {
    let lab = Lab::new();
    let first = lab.machine("wallet", "x25519", &[]);
    lab.machine("cosigner", "x25519", &[]);
    lab.meet(&["wallet", "cosigner"]);
    let before = lab.json(&["--store", "wallet", "show"]);
    let (_second, two) = lab.key("second", "x25519");
    let (_curved, curved) = lab.key("curved", "p256");
    let add = ["--store", "wallet", "backup", "add", "--token", &*two];
    let mut text = lab.fails(6, &["--store", "wallet", "backup", "add", "--token", &curved]);
    text += &lab.fails(6, &["--store", "wallet", "backup", "add", "--token", before["locator"].as_str().unwrap()]);
    lab.write("taken", "something else");
    text += &lab.fails(1, &[&add[..], &["taken"]].concat());
    text += &lab.transcript(&[&add]);
    text += &lab.fails(6, &add);
    let after = lab.json(&["--store", "wallet", "show"]);
    for same in ["static_public_key", "onion_address", "client_auth_public_key", "locator"] {
        assert_eq!(before[same], after[same], "{same}");
    }
    assert!(after["backup"]["static_public_key"].is_string() && after["former"].is_null(), "{after}");
    // Who does not import it takes the machine by its first key, as before; who does knows both.
    let words = lab.words("wallet");
    let import = ["--store", "cosigner", "import", "wallet.succession", "--fingerprint", &*words];
    text += &lab.transcript(&[&import, &["--store", "cosigner", "show", "wallet"]]).replace(&words, "WORDS");
    // The file again is as good as the file.
    lab.ok(&["--store", "wallet", "backup", "again", "again.succession"]);
    let macs = |file: &str| {
        lab.read(file)
            .lines()
            .filter(|line| !line.starts_with("until") && !line.contains("mac") && !line.starts_with("checksum"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(macs("again.succession"), macs("wallet.succession"));
    text += &lab
        .transcript(&[&["--store", "cosigner", "import", "again.succession", "--fingerprint", &words]])
        .replace(&words, "WORDS");
    lab.machine("watchtower", "x25519", &[]);
    text += &lab.fails(6, &["--store", "watchtower", "backup", "again"]);
    first.pull();
    text += &lab.transcript(&[&["--store", "wallet", "switch", "backup"]]);
    text += &lab.fails(6, &["--store", "wallet", "backup", "again"]);
    snapshot("backup-add", &text);
    lab.ok(&["--store", "wallet", "seal", "--check"]);
}

/// Who has lost the primary token needs one new token: the backup key may stay.
#[test]
fn the_backup_key_stays_where_the_primary_is_replaced() {
    let lab = Lab::new();
    let (first, one) = lab.key("first", "p256");
    let (_second, two) = lab.key("second", "p256");
    let (_next, next) = lab.key("next", "p256");
    lab.ok(&[
        "--store",
        "wallet",
        "init",
        "--name",
        "wallet",
        "--role",
        "signer",
        "--token",
        &one,
        "--backup-token",
        &two,
    ]);
    lab.machine("cosigner", "p256", &[]);
    lab.meet(&["wallet", "cosigner"]);
    let backup = || lab.json(&["--store", "wallet", "show"])["backup"]["static_public_key"].clone();
    let before = backup();
    first.pull();
    lab.ok(&["--store", "wallet", "switch", "backup"]);
    let rotate = ["--store", "wallet", "rotate", "--confirm", "wallet", "--backup-token", &*two, "--token"];
    // Nor is the backup key made the primary one, nor the lost one the backup.
    lab.fails(6, &[&rotate[..], &[&two]].concat());
    lab.ok(&[&rotate[..], &[&next]].concat());
    assert_eq!(backup(), before);
    let words = lab.words("wallet");
    lab.ok(&["--store", "cosigner", "import", "wallet.succession", "--fingerprint", &words]);
    // Each still takes the other's word.
    let (_last, last) = lab.key("last", "p256");
    lab.ok(&["--store", "cosigner", "rotate", "--token", &last, "--confirm", "cosigner"]);
    lab.ok(&["--store", "wallet", "switch", "backup"]);
    lab.ok(&["--store", "wallet", "import", "cosigner.succession", "--fingerprint", &lab.words("cosigner")]);
    lab.ok(&["--store", "wallet", "seal", "--check"]);
}

/// A store that is not sealed can be changed all the same, and says so each time.
#[test]
fn without_a_seal() {
    let lab = Lab::new();
    lab.machine("wallet", "x25519", &["--unsealed"]);
    lab.machine("cosigner", "x25519", &[]);
    lab.meet(&["wallet", "cosigner"]);
    let (_second, two) = lab.key("second", "x25519");
    let (_next, next) = lab.key("next", "x25519");
    let text = lab.transcript(&[
        &["--store", "wallet", "backup", "add", "--token", &two],
        &["--store", "wallet", "switch", "backup"],
        &["--store", "wallet", "rotate", "--token", &next, "--confirm", "wallet", "next.succession"],
        &["--store", "wallet", "seal", "--confirm", "wallet"],
        &["--store", "wallet", "seal", "--check"],
    ]);
    snapshot("backup-unsealed", &text);
    lab.ok(&["--store", "cosigner", "import", "wallet.succession", "--fingerprint", &{
        claviger::identity::IdentityCard::from_text(&card_of(&lab.read("wallet.succession")))
            .unwrap()
            .fingerprint()
            .words()
    }]);
    lab.ok(&["--store", "cosigner", "import", "next.succession", "--fingerprint", &lab.words("wallet")]);
}

/// The card in a succession.
fn card_of(succession: &str) -> String {
    succession.lines().filter_map(|line| line.strip_prefix("card: ")).map(|line| format!("{line}\n")).collect()
}

/// Primary on a YubiKey, backup on an OpenPGP card, as virtual cards.
#[test]
fn on_cards() {
    cards::isolated(|| {
        let lab = Lab::new();
        let pcscd = Pcscd::start();
        let (yubikey, openpgp) = (Card::yubikey(&pcscd, 12_345_678), Card::openpgp(&pcscd, 7));
        let pin = lab.write("card.pin", format!("{PIN}\n"));
        let with_pin = |locator: &str| format!("{locator}?pin-source=file:{pin}");
        let (one, two) = (with_pin(&yubikey.locator()), with_pin(&openpgp.locator()));
        lab.ok(&["token", "generate", "--curve", "x25519", &one]);
        let mut session = lab.on_a_terminal(&["token", "generate", "--curve", "x25519", &two]);
        type_at(&mut session, "Admin PIN of", ADMIN_PIN);
        let (shown, code) = ended(session);
        assert_eq!(code, 0, "{shown}");

        // There is one place: the second card is asked for when it is its turn.
        openpgp.pull();
        let init = ["init", "--name", "wallet", "--role", "signer", "--token", &one, "--backup-token", &two];
        let absent = lab.fails(6, &init);
        let mut session = lab.on_a_terminal(&init);
        session.exp_string("Plug in the backup token, openpgp:").unwrap();
        session.exp_string("press Enter: ").unwrap();
        yubikey.pull();
        openpgp.insert();
        session.send_line("").unwrap();
        let (shown, code) = ended(session);
        assert!(code == 0 && shown.contains("the primary token and the backup token"), "{shown}");

        // The YubiKey is lost for good.
        let mut text = absent + &lab.fails(6, &["seal", "--check"]);
        text += &lab.transcript(&[&["switch", "backup"], &["seal", "--check"]]);
        lab.machine("cosigner", "x25519", &[]);
        lab.ok(&["import", "cosigner.card", "--fingerprint", &lab.words("cosigner")]);
        let words = || lab.json(&["show"])["fingerprint"]["words"].as_str().unwrap().to_owned();
        // Rotated away from it, by the backup's word.
        let (_next, next) = lab.key("next", "x25519");
        lab.ok(&["export"]);
        lab.ok(&["--store", "cosigner", "import", "wallet.card", "--fingerprint", &words()]);
        let declined = lab.fails(4, &["rotate", "--token", &next, "--confirm", "cosigner"]);
        assert!(declined.contains("peers take the key of the primary token, too"), "{declined}");
        text += &lab.transcript(&[&["rotate", "--token", &next, "--overlap", "0s", "--confirm", "wallet"]]);
        lab.ok(&["--store", "cosigner", "import", "wallet.succession", "--fingerprint", &words()]);
        text += &lab.transcript(&[
            &["--store", "cosigner", "log"],
            &["rotate", "--finish", "--confirm", "wallet"],
            &["seal", "--check"],
        ]);
        snapshot("backup-cards", &text);
    });
}
