//! A card that is swapped on its way.

use claviger::identity::{BackupKey, IdentityCard, TokenKind};

use super::{Caught, NAMES, Room};

/// Changes the first card, of what is on the second.
type Swap = fn(&mut IdentityCard, IdentityCard);

/// What the attacker puts in place of the cosigner's card: made of it and of his own machine's.
const SWAPS: &[(&str, Swap)] = &[
    ("the whole card", |card, his| *card = his),
    ("the key", |card, his| card.static_public = his.static_public),
    ("the backup key", |card, his| card.backup = his.backup),
    ("backup key taken away", |card, _| card.backup = None),
    ("the two keys for each other", |card, _| {
        let backup = card.backup.clone().unwrap();
        let primary = std::mem::replace(&mut card.static_public, backup.static_public);
        card.backup = Some(BackupKey { static_public: primary, ..backup });
    }),
    ("the onion address", |card, his| card.onion_address = his.onion_address),
    ("the client-authorization key", |card, his| card.client_auth = his.client_auth),
    ("the kind of token", |card, _| card.token = TokenKind::Hardware),
    ("the suites", |card, _| card.suites = "ChaChaPoly_BLAKE2s AESGCM_SHA256".parse().unwrap()),
];

/// On its way to the wallet; each check after the other is made, and when it has caught the attacker, skipped.
#[test]
fn a_card_swapped_on_its_way_to_one_machine() {
    let room = Room::enter();
    for (what, swap) in SWAPS {
        let lab = room.exported.copy();
        let honest = lab.card_of("cosigner.card");
        let mut forged = honest.clone();
        swap(&mut forged, lab.card_of("mallory.card"));
        assert_ne!(forged, honest, "{what}");
        for file in ["cosigner.proofs", "cosigner.backup.proofs"] {
            lab.write(file, room.imported.read(file));
        }
        lab.write("swapped.card", forged.to_text());

        // 4. Cards on the table.
        let words = honest.fingerprint().words();
        let says = &["fingerprint is not that of this card of \"cosigner\"", "not recorded", "exchanged on its way"];
        let by = Caught { code: 4, kind: "fingerprint-mismatch", says };
        lab.caught("wallet", &["import", "swapped.card", "--fingerprint", &words], by);
        lab.import_unread("wallet", &["swapped.card", "watchtower.card", "auditor.card"]);
        // 5. Proof of possession, by the cosigner's own tokens.
        for file in ["cosigner.proofs", "cosigner.backup.proofs"] {
            let says: &[&str] = match &forged.backup {
                None if file.contains("backup") => {
                    &["backup key of \"cosigner\"", "has none", "Import the present card"]
                }
                _ => &["key on the card of \"cosigner\"", "the card was exchanged on its way"],
            };
            lab.caught("wallet", &["verify-proof", file], Caught { code: 4, kind: "proof-invalid", says });
        }
        // 6. The phrase.
        lab.phrases_differ("wallet", &room.phrase);
        lab.confirm_alone("wallet");
        // 7. The transcripts.
        for name in NAMES {
            lab.write(&format!("{name}.transcript"), room.confirmed.read(&format!("{name}.transcript")));
        }
        lab.transcripts_differ("wallet", "card", Some("cosigner"));
    }
}

/// The wallet is joined to the watchtower by no edge, and takes its card for the phrase only: there is nothing to prove.
#[test]
fn a_card_that_is_only_held() {
    let room = Room::enter();
    let lab = room.confirmed.copy();
    let mut forged = lab.card_of("watchtower.card");
    forged.static_public = lab.card_of("mallory.card").static_public;
    lab.write("swapped.card", forged.to_text());
    let fresh = room.exported.copy();
    let words = fresh.words("watchtower");
    fresh.write("swapped.card", forged.to_text());
    let by = Caught { code: 4, kind: "fingerprint-mismatch", says: &["card of \"watchtower\""] };
    fresh.caught("wallet", &["import", "swapped.card", "--fingerprint", &words], by);
    fresh.import_unread("wallet", &["swapped.card", "cosigner.card", "auditor.card"]);
    fresh.phrases_differ("wallet", &room.phrase);
    fresh.confirm_alone("wallet");
    for name in NAMES {
        fresh.write(&format!("{name}.transcript"), room.confirmed.read(&format!("{name}.transcript")));
    }
    fresh.transcripts_differ("wallet", "card", Some("watchtower"));
}

/// All others hold the attacker's card, and agree; the machine whose card it was does not.
#[test]
fn a_card_swapped_on_its_way_to_all() {
    let room = Room::enter();
    let lab = room.exported.copy();
    lab.import_unread("cosigner", &["wallet.card", "watchtower.card", "auditor.card"]);
    let others = ["wallet", "watchtower", "auditor"];
    for at in others {
        let by = Caught { code: 4, kind: "fingerprint-mismatch", says: &["\"cosigner\""] };
        lab.caught(at, &["import", "mallory.card", "--fingerprint", &lab.words("cosigner")], by);
        let cards = others.into_iter().filter(|name| *name != at).map(|name| format!("{name}.card"));
        let cards: Vec<String> = cards.chain(["mallory.card".to_owned()]).collect();
        lab.import_unread(at, &cards.iter().map(String::as_str).collect::<Vec<_>>());
    }
    lab.at("cosigner", &["prove", "wallet.challenge", "watchtower.challenge"]);
    for at in ["wallet", "watchtower"] {
        let says = &["The token in the room does not hold the primary key on the card of \"cosigner\""];
        lab.caught(at, &["verify-proof", "cosigner.proofs"], Caught { code: 4, kind: "proof-invalid", says });
    }
    let phrase = lab.phrase("wallet");
    assert_eq!(phrase, lab.phrase("auditor"), "they hold the same");
    lab.phrases_differ("cosigner", &phrase);
    for at in NAMES {
        lab.confirm_alone(at);
        lab.at(at, &["transcript", &format!("{at}.transcript")]);
    }
    lab.differ("card", "cosigner", Some("cosigner"));
    lab.differ("phrase", "cosigner", None);
}

/// The plan knows who takes part, as what, and on which curve: before anybody is asked.
#[test]
fn cards_that_the_plan_does_not_know() {
    let room = Room::enter();
    let lab = room.exported.copy();
    let his = lab.card_of("mallory.card");
    let curved = crate::lab::Lab::new();
    curved.machine("cosigner", "p256", &[]);
    lab.write("curved.card", curved.read("cosigner.card"));
    let made = |file: &str, change: fn(&mut IdentityCard)| {
        let mut card = his.clone();
        change(&mut card);
        lab.write(file, card.to_text());
    };
    made("role.card", |card| card.role = "watchtower".parse().unwrap());
    made("stranger.card", |card| card.identifier = "mallory".parse().unwrap());
    made("own.card", |card| card.identifier = "wallet".parse().unwrap());
    for (file, kind, says) in [
        ("role.card", "plan-mismatch", &["\"cosigner\"", "watchtower"][..]),
        ("stranger.card", "plan-mismatch", &["\"mallory\"", "not a member of the plan"]),
        ("curved.card", "no-shared-curve", &["\"cosigner\"", "p256"]),
        ("own.card", "peer-conflict", &["wallet"]),
    ] {
        let words = lab.card_of(file).fingerprint().words();
        lab.caught("wallet", &["import", file, "--fingerprint", &words], Caught { code: 4, kind, says });
    }
}

#[test]
fn two_machines_of_one_name() {
    let room = Room::enter();
    let two = &["Two different cards are of \"cosigner\"", "nothing was recorded"];
    let by = |says| Caught { code: 4, kind: "peer-conflict", says };
    let before = room.exported.copy();
    before.caught("wallet", &["import", "cosigner.card", "mallory.card"], by(two));
    let after = room.imported.copy();
    let words = after.words("mallory");
    after.caught("wallet", &["import", "mallory.card", "--fingerprint", &words], by(&["\"cosigner\""]));
    // And when each has a transcript.
    let lab = room.confirmed.copy();
    lab.at("mallory", &["transcript", "mallory.transcript"]);
    let (output, report) = lab.compared(&["mallory.transcript"]);
    let found = report["differences"].as_array().unwrap();
    assert!(found.iter().any(|one| one["kind"] == "same-name" && one["machine"] == "cosigner"), "{report}");
    assert_eq!(output.status.code(), Some(4));
}
