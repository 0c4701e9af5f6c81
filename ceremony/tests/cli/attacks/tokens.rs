//! Another token in the place of the machine's, and none.

use std::process::Command;

use claviger_testkit::token::TestToken;

use super::{Caught, Room};
use crate::lab::Lab;

/// Puts another key on the token, under the label and, where `id` is given, the identifier of the one that is there.
fn swap_key(lab: &Lab, token: &TestToken, id: Option<&str>) {
    let run = |arguments: &[&str]| {
        let (name, value) = lab.hsm.env();
        let output = Command::new("pkcs11-tool")
            .env(name, value)
            .arg("--module")
            .arg(token.module())
            .args(["--token-label", token.label(), "--login", "--pin", token.pin()])
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "pkcs11-tool {arguments:?}: {output:?}");
    };
    for kind in ["privkey", "pubkey"] {
        run(&["--delete-object", "--type", kind, "--label", "noise"]);
    }
    let Some(id) = id else {
        lab.ok(&["token", "generate", "--curve", "p256", &token.uri_with_pin("noise")]);
        return;
    };
    run(&["--keypairgen", "--key-type", "EC:prime256v1", "--label", "noise", "--id", id, "--usage-derive"]);
}

/// The identifier of a locator, in digits.
fn id(locator: &str) -> String {
    let (_, id) = locator.split_once("id=").unwrap();
    id.split([';', '?']).next().unwrap().replace('%', "")
}

/// Between `token generate` and `init` the locator tells, while the attacker did not give his key the same identifier; then the phrase can not tell either: it was never
/// another key to anybody. That is what *in the room* is for. After `init` the store knows its key.
#[test]
fn a_key_is_swapped_on_the_token() {
    let lab = Lab::new();
    let (token, locator) = lab.key("wallet", "p256");
    swap_key(&lab, &token, None);
    let init = ["init", "--name", "wallet", "--role", "signer", "--token", &locator];
    lab.caught("wallet", &init, Caught { code: 6, kind: "key-not-found", says: &["wallet"] });
    assert!(!lab.path("wallet").exists());

    let (token, locator) = lab.key("cosigner", "p256");
    lab.at("cosigner", &["init", "--name", "cosigner", "--role", "cosigner", "--token", &locator]);
    swap_key(&lab, &token, Some(&id(&locator)));
    for command in [&["challenge"][..], &["phrase"], &["seal", "--check"], &["unseal", "--confirm", "cosigner"]] {
        let says = &["This needs the primary token", "The store was not changed"];
        lab.caught("cosigner", command, Caught { code: 6, kind: "key-mismatch", says });
    }
}

/// What changes the store, or vouches for what is in it.
const OPENING: &[&[&str]] = &[
    &["import", "mallory.card", "--fingerprint", "WORDS"],
    &["challenge", "next.challenge"],
    &["prove", "cosigner.challenge", "--out", "next.proofs"],
    &["verify-proof", "cosigner.proofs"],
    &["phrase"],
    &["confirm", "--by", "Ada", "--witness", "Grace", "--phrase", "PHRASE"],
    &["witness", "Grace"],
    &["plan", "record", "changed.toml", "--fingerprint", "PLAN"],
    &["revoke", "cosigner", "--reason", "stolen", "--confirm", "cosigner"],
    &["expire", "cosigner", "--never"],
    &["remove", "cosigner", "--confirm", "cosigner"],
    &["seal", "--check"],
    &["reseal"],
    &["unseal", "--confirm", "wallet"],
    &["rotate", "--token", "NEXT", "--confirm", "wallet"],
    &["backup", "add", "--token", "NEXT"],
    &["transcript", "--sign", "piv:serial=1;slot=9c", "signed.transcript"],
];

/// Each of them, filled in, for a wallet that holds all cards, of which it then revokes one.
pub(super) fn opening(room: &Room, lab: &Lab) -> Vec<Vec<String>> {
    lab.write("changed.toml", super::plans::changed());
    let mut stranger = lab.card_of("mallory.card");
    // A card that can be recorded: nothing else stands in the way.
    lab.at("wallet", &["revoke", "auditor", "--reason", "lost", "--confirm", "auditor"]);
    stranger.identifier = "auditor".parse().unwrap();
    stranger.role = "auditor".parse().unwrap();
    lab.write("mallory.card", stranger.to_text());
    let plan = lab.json(&["plan", "check", "changed.toml"])["fingerprint"]["words"].as_str().unwrap().to_owned();
    let fill = |part: &&str| match *part {
        "WORDS" => stranger.fingerprint().words(),
        "PHRASE" => room.phrase.clone(),
        "PLAN" => plan.clone(),
        "NEXT" => room.spare.clone(),
        other => other.to_owned(),
    };
    OPENING.iter().map(|command| command.iter().map(fill).collect()).collect()
}

#[test]
fn a_token_is_absent() {
    let room = Room::enter();
    let lab = room.imported.copy();
    let commands = opening(&room, &lab);
    let lab = lab.without_tokens();
    for command in &commands {
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        let says = &["This needs the primary token", "was not changed", "wallet"];
        lab.caught("wallet", &command, Caught { code: 6, kind: "token-absent", says });
    }
    // The cosigner has another.
    let says = &["go on with the backup token: `claviger-ceremony switch backup`"];
    lab.caught("cosigner", &["phrase"], Caught { code: 6, kind: "token-absent", says });
    // What only reads needs none.
    for command in [&["show"][..], &["peers"], &["log"], &["plan", "show"], &["export", "-"], &["transcript"]] {
        lab.ok(&[&["--store", "wallet"], command].concat());
    }
}
