//! A plan that is swapped on one machine, and cards, challenges and files that are of something else.

use std::fs;

use super::room::PLAN;
use super::{Caught, NAMES, Room};
use crate::lab::Lab;

/// With one edge more: the wallet may be called by the watchtower.
pub(super) fn changed() -> String {
    format!("{PLAN}[[edge]]\nfrom = \"watchtower\"\nto = \"wallet\"\nservice = \"sign\"\n")
}

fn words(lab: &Lab, plan: &str) -> String {
    lab.json(&["plan", "check", plan])["fingerprint"]["words"].as_str().unwrap().to_owned()
}

/// Every check but the plan's words, on a machine that goes by another plan.
fn found(room: &Room, lab: &Lab) {
    lab.phrases_differ("wallet", &room.phrase);
    lab.confirm_alone("wallet");
    for name in NAMES {
        lab.write(&format!("{name}.transcript"), room.confirmed.read(&format!("{name}.transcript")));
    }
    lab.transcripts_differ("wallet", "plan", None);
}

#[test]
fn swapped_before_init() {
    let room = Room::enter();
    let lab = room.exported.copy();
    lab.write("changed.toml", changed());
    assert_ne!(words(&lab, "changed.toml"), words(&lab, "plan.toml"));
    let theirs = lab.at("cosigner", &["preflight"]);
    // The same token, set up with the wrong plan.
    let locator = lab.at("wallet", &["show"])["locator"].as_str().unwrap().to_owned();
    fs::remove_dir_all(lab.path("wallet")).unwrap();
    lab.at("wallet", &["init", "--name", "wallet", "--plan", "changed.toml", "--token", &locator]);
    for file in ["wallet.card", "wallet.challenge"] {
        fs::remove_file(lab.path(file)).unwrap();
    }
    // Where the machines are compared beforehand.
    lab.write("cosigner.preflight", theirs.to_string());
    let output = lab.run_with(&["--store", "wallet", "preflight", "cosigner.preflight", "--json"], b"");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let plans = report["checks"].as_array().unwrap().iter().find(|check| check["check"] == "plans").unwrap();
    assert!(plans["verdict"] == "fail" && plans["message"].as_str().unwrap().contains("cosigner"), "{report}");

    lab.at("wallet", &["export"]);
    lab.at("wallet", &["challenge"]);
    lab.import_unread("wallet", &["cosigner.card", "watchtower.card", "auditor.card"]);
    lab.import_unread("cosigner", &["wallet.card", "watchtower.card", "auditor.card"]);
    let says = &["\"wallet\" is from another ceremony", "No token was asked", "plan show"];
    lab.caught("cosigner", &["prove", "wallet.challenge"], Caught { code: 4, kind: "proof-invalid", says });
    found(&room, &lab);
}

#[test]
fn swapped_midway() {
    let room = Room::enter();
    let lab = room.imported.copy();
    lab.write("changed.toml", changed());
    let honest = words(&lab, "plan.toml");
    let says = &["not those of this plan", "it was not recorded"];
    let record = ["plan", "record", "changed.toml"];
    lab.caught(
        "wallet",
        &[&record[..], &["--fingerprint", &honest]].concat(),
        Caught { code: 4, kind: "fingerprint-mismatch", says },
    );
    let says = &["no terminal to ask on", "--fingerprint"];
    lab.caught("wallet", &record, Caught { code: 4, kind: "declined", says });
    lab.at("wallet", &[&record[..], &["--fingerprint", &words(&lab, "changed.toml")]].concat());
    let says = &["The plan was changed after the challenge that \"cosigner\" answered"];
    lab.caught("wallet", &["verify-proof", "cosigner.proofs"], Caught { code: 4, kind: "proof-invalid", says });
    found(&room, &lab);
}

/// A confirmation is of one plan: after another is recorded it does not stand.
#[test]
fn swapped_after_the_phrase() {
    let room = Room::enter();
    let lab = room.confirmed.copy();
    lab.write("changed.toml", changed());
    lab.at("wallet", &["plan", "record", "changed.toml", "--fingerprint", &words(&lab, "changed.toml")]);
    lab.transcripts_differ("wallet", "plan", None);
    lab.differ("unconfirmed", "wallet", None);
}

/// A machine of the same name that was set up another year.
#[test]
fn from_another_ceremony() {
    let room = Room::enter();
    let lab = room.imported.copy();
    lab.write("before.toml", PLAN.replace("quartet", "quartet-before"));
    let init = ["init", "--name", "cosigner", "--plan", "before.toml", "--token", &room.spare];
    lab.at("before", &init);
    lab.at("before", &["export", "before.card"]);
    lab.at("before", &["challenge", "before.challenge"]);
    let words = lab.words("before");
    let by = Caught { code: 4, kind: "peer-conflict", says: &["\"cosigner\""] };
    lab.caught("wallet", &["import", "before.card", "--fingerprint", &words], by);
    let says = &["\"cosigner\" is from another ceremony", "No token was asked"];
    lab.caught("wallet", &["prove", "before.challenge"], Caught { code: 4, kind: "proof-invalid", says });
    // Before the right card is there, the words are what tells them apart.
    let fresh = room.exported.copy();
    fresh.write("before.card", lab.read("before.card"));
    let by = Caught { code: 4, kind: "fingerprint-mismatch", says: &["\"cosigner\""] };
    fresh.caught("wallet", &["import", "before.card", "--fingerprint", &fresh.words("cosigner")], by);
    // A card as an older release wrote it.
    fresh.write("older.card", fresh.read("cosigner.card").replace("card 4\n", "card 2\n"));
    let by = Caught { code: 4, kind: "card-version", says: &["older.card", "format version \"2\""] };
    fresh.caught("wallet", &["import", "older.card"], by);
}

/// What lies on the table besides.
#[test]
fn something_else() {
    let room = Room::enter();
    let lab = room.imported.copy();
    lab.qrencode("url.png", "https://example.org/a/ticket?number=1234567890");
    let white = image::GrayImage::from_pixel(300, 200, image::Luma([255]));
    lab.save("white.png", &white);
    lab.at("cosigner", &["export", "--png", "cosigner.png"]);
    let commands: &[(&[&str], &str, &str)] = &[
        (&["import", "url.png"], "qr-unreadable", "a QR code of something else"),
        (&["prove", "url.png"], "qr-unreadable", "url.png"),
        (&["import", "white.png"], "qr-unreadable", "white.png"),
        (&["verify-proof", "white.png"], "qr-unreadable", "white.png"),
        (&["import", "wallet.challenge"], "card-invalid", "challenge"),
        (&["import", "cosigner.proofs"], "card-invalid", "proof"),
        (&["prove", "cosigner.png"], "proof-invalid", "identity card"),
        (&["verify-proof", "wallet.challenge"], "proof-invalid", "challenge"),
        (&["import", "plan.toml"], "card-invalid", "plan.toml"),
        (&["plan", "record", "cosigner.card"], "plan-invalid", "cosigner.card"),
    ];
    for (command, kind, says) in commands {
        lab.caught("wallet", command, Caught { code: 4, kind, says: &[says] });
    }
    let output = lab.run_with(&["transcript", "verify", "plan.toml", "--json"], b"");
    assert!(output.status.code() == Some(4) && super::Said::of(&output).kind == "transcript-invalid");
}
