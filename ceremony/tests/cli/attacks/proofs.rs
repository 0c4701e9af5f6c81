//! Proofs and challenges that are swapped, forged, relayed or replayed: the cards are honest.

use claviger::ceremony::proof::{Challenge, Proof};

use super::{Caught, Room};

const INVALID: Caught<'_> = Caught { code: 4, kind: "proof-invalid", says: &["\"cosigner\""] };

/// The attacker's machine stands in the cosigner's place.
#[test]
fn another_token_answers() {
    let room = Room::enter();
    let lab = room.imported.copy();
    lab.import_unread("mallory", &["wallet.card", "watchtower.card", "auditor.card"]);
    lab.at("mallory", &["prove", "wallet.challenge", "--out", "his.proofs"]);
    lab.at("mallory", &["prove", "--backup", "wallet.challenge", "--out", "his.backup.proofs"]);
    for (file, place) in [("his.proofs", "primary"), ("his.backup.proofs", "backup")] {
        let says = &[&*format!("does not hold the {place} key on the card of \"cosigner\"")];
        lab.caught("wallet", &["verify-proof", file], Caught { says, ..INVALID });
    }
    // Where the wallet took his card, and his token answers, the phrase is what is left.
    let lab = room.exported.copy();
    lab.import_unread("mallory", &["wallet.card", "watchtower.card", "auditor.card"]);
    lab.at("mallory", &["prove", "wallet.challenge"]);
    lab.import_unread("wallet", &["mallory.card", "watchtower.card", "auditor.card"]);
    lab.at("wallet", &["verify-proof", "cosigner.proofs"]);
    lab.phrases_differ("wallet", &room.phrase);
}

#[test]
fn proofs_are_forged() {
    let room = Room::enter();
    let lab = room.imported.copy();
    let all = |file: &str| -> Vec<Proof> {
        let text = lab.read(file);
        let texts = text.split_inclusive("claviger proof 1\n").skip(1);
        texts
            .map(|text| {
                Proof::from_text(&format!("claviger proof 1\n{}", text.trim_end_matches("claviger proof 1\n"))).unwrap()
            })
            .collect()
    };
    let id = |name: &str| Challenge::from_text(&lab.read(&format!("{name}.challenge"))).unwrap().id;
    let of = |file: &str, asked: &str| all(file).into_iter().find(|proof| proof.challenge == id(asked)).unwrap();
    let cosigner = || "cosigner".parse().unwrap();
    let good = of("cosigner.proofs", "wallet");
    for (what, forged) in [
        (
            "a bit",
            Proof {
                mac: {
                    let mut mac = good.mac;
                    mac[31] ^= 1;
                    mac
                },
                ..good.clone()
            },
        ),
        ("the other key's", Proof { place: "backup".parse().unwrap(), ..good.clone() }),
        ("another member's", Proof { prover: cosigner(), ..of("auditor.proofs", "wallet") }),
        ("for another machine's challenge", Proof { challenge: id("wallet"), ..of("cosigner.proofs", "watchtower") }),
    ] {
        lab.write("forged.proofs", forged.to_text());
        let said = lab.caught("wallet", &["verify-proof", "forged.proofs"], INVALID);
        assert!(said.contains("key on the card of \"cosigner\""), "{what}: {said}");
        // With a good one beside it.
        lab.caught("wallet", &["verify-proof", "auditor.proofs", "forged.proofs"], INVALID);
    }
    // Carried to a machine that did not ask.
    let by = Caught { says: &["No proof is for a challenge that is open on this machine"], ..INVALID };
    lab.caught("wallet", &["verify-proof", "watchtower.proofs"], by);
    // Once more.
    lab.at("wallet", &["verify-proof", "cosigner.proofs"]);
    let by = Caught { code: 4, kind: "proof-used", says: &["cosigner"] };
    lab.caught("wallet", &["verify-proof", "cosigner.proofs"], by);
    // On another day: the store of before the challenge was answered is not needed for that.
    let by = Caught { code: 4, kind: "proof-used", says: &["cosigner"] };
    lab.at("wallet", &["challenge", "--force"]);
    lab.caught("wallet", &["verify-proof", "cosigner.proofs"], by);
}

/// The attacker keeps the wallet's challenge and gives the cosigner one of his own making, with the same number: its token answers, and what it says fits nothing.
#[test]
fn a_challenge_is_swapped() {
    let room = Room::enter();
    let lab = room.imported.copy();
    let asked = Challenge::from_text(&lab.read("wallet.challenge")).unwrap();
    let (his, secret) = Challenge::new(&lab.card_of("wallet.card"), asked.plan, asked.issued, asked.expires).unwrap();
    let swapped = Challenge { id: asked.id, ..his };
    lab.write("swapped.challenge", swapped.to_text());
    lab.at("cosigner", &["prove", "swapped.challenge", "--out", "swapped.proofs"]);
    let answer = Proof::from_text(&lab.read("swapped.proofs")).unwrap();
    assert!(
        answer.verify(&swapped, &secret, &lab.card_of("cosigner.card")).is_ok(),
        "it proves it to him, and to nobody else"
    );
    let said = lab.caught("wallet", &["verify-proof", "swapped.proofs"], INVALID);
    assert!(said.contains("The token in the room does not hold the primary key"), "{said}");
    // In the name of the watchtower, which did not ask for it.
    let relayed = Challenge { verifier: "watchtower".parse().unwrap(), ..asked };
    lab.write("relayed.challenge", relayed.to_text());
    lab.at("cosigner", &["prove", "relayed.challenge", "--out", "relayed.proofs"]);
    lab.caught("wallet", &["verify-proof", "relayed.proofs"], INVALID);
}
