//! Proofs of possession: asked, given, verified; and everything that is none.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use claviger::ceremony::proof::{Challenge, Proof};
use claviger::identity::{Fingerprint, IdentityCard, StaticPublic};
use claviger::store::seal_point;

use crate::lab::{Lab, snapshot};

/// Three members; no edge joins the cosigner and the watchtower.
pub(crate) const PLAN: &str = "plan = 1\nname = \"trio\"\n[rules]\nproof-of-possession = true\n\
    [[member]]\nname = \"wallet\"\nrole = \"cosigner\"\n[[member]]\nname = \"cosigner\"\nrole = \"cosigner\"\n\
    [[member]]\nname = \"watchtower\"\nrole = \"cosigner\"\n\
    [[edge]]\nfrom = \"wallet\"\nto = [\"cosigner\", \"watchtower\"]\nservice = \"sign\"\n";

pub(crate) const NAMES: [&str; 3] = ["cosigner", "wallet", "watchtower"];

/// The members of a plan, the cosigner with a backup token, each with its card beside its store; no card is imported.
pub(crate) fn members(plan: &str) -> Lab {
    let lab = Lab::new();
    lab.write("plan.toml", plan);
    let curve = if plan.contains("p256") { "p256" } else { "x25519" };
    for name in NAMES {
        let (_token, locator) = lab.key(name, curve);
        let init = ["--store", name, "init", "--name", name, "--plan", "plan.toml", "--token", &locator];
        if name == "cosigner" {
            let (_spare, spare) = lab.key("spare", curve);
            lab.ok(&[&init[..], &["--backup-token", &spare]].concat());
        } else {
            lab.ok(&init);
        }
        lab.ok(&["--store", name, "export"]);
    }
    lab
}

/// `at` records the others' cards.
pub(crate) fn meet(lab: &Lab, at: &str) {
    for other in NAMES.into_iter().filter(|other| *other != at) {
        lab.ok(&["--store", at, "import", &format!("{other}.card"), "--fingerprint", &lab.words(other)]);
    }
}

pub(crate) fn room() -> Lab {
    let lab = members(PLAN);
    NAMES.into_iter().for_each(|name| meet(&lab, name));
    lab
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn card(lab: &Lab, name: &str) -> IdentityCard {
    IdentityCard::from_text(&lab.read(&format!("{name}.card"))).unwrap()
}

/// Without the identifiers of challenges: runs of 32 digits, and of 8 behind the word.
pub(crate) fn masked(text: &str) -> String {
    let (mut masked, mut rest) = (String::new(), text);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !matches!(c, '0'..='9' | 'a'..='f')).unwrap_or(rest.len());
        let (run, behind) = rest.split_at(digits.max(rest.chars().next().unwrap().len_utf8()));
        let id = (digits == 32 && !masked.ends_with("\"hex\":\"")) || (digits == 8 && masked.ends_with("challenge "));
        masked.push_str(if id { "[CHALLENGE]" } else { run });
        rest = behind;
    }
    masked
}

#[test]
fn proofs() {
    let lab = room();
    let text = lab.transcript(&[
        &["--store", "wallet", "challenge"],
        &["--store", "watchtower", "challenge", "--valid", "20min", "--json"],
        &["--store", "wallet", "challenge", "-"],
        &["--store", "cosigner", "challenge", "-q"],
        &["--store", "cosigner", "prove", "wallet.challenge", "watchtower.challenge", "cosigner.challenge"],
        &["--store", "watchtower", "prove", "wallet.challenge", "cosigner.challenge", "--json"],
        &["--store", "wallet", "verify-proof", "cosigner.proofs"],
        &["--store", "cosigner", "prove", "wallet.challenge", "--backup"],
        // The stick comes round with all there is.
        &[
            "--store",
            "wallet",
            "verify-proof",
            "cosigner.proofs",
            "cosigner.backup.proofs",
            "watchtower.proofs",
            "--json",
        ],
        &["--store", "wallet", "log"],
        &["--store", "cosigner", "log", "-q"],
    ]);
    snapshot("proofs", &masked(&text));
    // What goes to stdout is the document, and is taken from stdin.
    let challenge = lab.ok(&["--store", "wallet", "challenge", "-", "-q"]);
    let proof = lab.run_with(&["--store", "watchtower", "prove", "-", "--out", "-"], challenge.as_bytes());
    assert!(proof.status.success(), "{proof:?}");
    let verified = lab.run_with(&["--store", "wallet", "verify-proof", "-"], &proof.stdout);
    assert!(verified.status.success(), "{verified:?}");
}

#[test]
fn by_qr_code_on_the_other_curve() {
    let lab = members(&PLAN.replace("[rules]", "curve = \"p256\"\n[rules]"));
    NAMES.into_iter().for_each(|name| meet(&lab, name));
    lab.ok(&["--store", "wallet", "challenge", "--png", "challenge.png"]);
    assert!(!lab.path("wallet.challenge").exists());
    lab.ok(&["--store", "cosigner", "prove", "challenge.png", "--png", "proofs.png"]);
    lab.ok(&["--store", "watchtower", "prove", "challenge.png", "--svg", "proofs.svg", "--out", "tower.proofs"]);
    let verified = lab.json(&["--store", "wallet", "verify-proof", "proofs.png", "tower.proofs"]);
    let provers: Vec<&str> =
        verified["verified"].as_array().unwrap().iter().map(|one| one["prover"].as_str().unwrap()).collect();
    assert_eq!(provers, ["cosigner", "watchtower"]);
    assert_eq!(verified["lacking"].as_array().unwrap().len(), 1, "the cosigner's backup key");
}

#[test]
fn misuse() {
    let lab = members(PLAN);
    meet(&lab, "wallet");
    lab.write("note.challenge", "buy milk");
    let mut text = String::new();
    for (code, arguments) in [
        (2, &["challenge", "--valid", "0s"][..]),
        (2, &["challenge", "--valid", "8days"]),
        (2, &["challenge", "--valid", "soon"]),
        (2, &["challenge", "-", "--qr"]),
        (2, &["prove"]),
        (2, &["prove", "a.challenge", "--out", "-", "--png", "-"]),
        (2, &["verify-proof"]),
        (1, &["challenge", "note.challenge"]),
        (1, &["challenge", "absent/wallet.challenge"]),
        (1, &["challenge", "plan.toml"]),
        (1, &["prove", "absent.challenge"]),
        (4, &["prove", "wallet.card"]),
        (4, &["prove", "plan.toml"]),
        (4, &["verify-proof", "wallet.card", "--json"]),
    ] {
        text += &lab.fails(code, &[&["--store", "wallet"], arguments].concat());
    }
    // Documents of another kind, each told where it belongs.
    lab.ok(&["--store", "wallet", "challenge"]);
    text += &lab.fails(4, &["--store", "wallet", "verify-proof", "wallet.challenge"]);
    // An older challenge of this machine is replaced without --force; another's is not.
    lab.ok(&["--store", "wallet", "challenge"]);
    text += &lab.fails(1, &["--store", "cosigner", "challenge", "wallet.challenge"]);
    snapshot("proofs-misuse", &text);
}

#[test]
fn challenges_that_are_not_answered() {
    let lab = members(PLAN);
    meet(&lab, "wallet");
    let (cosigner, wallet) = (card(&lab, "cosigner"), card(&lab, "wallet"));
    let words = Fingerprint::from_bytes([7; 16]);
    let plan = lab.json(&["plan", "check", "plan.toml"])["fingerprint"]["hex"].as_str().unwrap().to_owned();
    let plan: [u8; 16] = data_encoding::HEXLOWER.decode(plan.as_bytes()).unwrap().try_into().unwrap();
    let plan = Some(Fingerprint::from_bytes(plan));
    let made = |name: &str, change: &dyn Fn(&mut Challenge)| {
        let (mut challenge, _) = Challenge::new(&cosigner, plan, now(), now() + 3600).unwrap();
        change(&mut challenge);
        lab.write(&format!("{name}.challenge"), challenge.to_text());
    };
    made("good", &|_| {});
    made("other-plan", &|challenge| challenge.plan = Some(words));
    made("no-plan", &|challenge| challenge.plan = None);
    made("late", &|challenge| (challenge.issued, challenge.expires) = (now() - 3600, now()));
    made("stranger", &|challenge| challenge.verifier = "stranger".parse().unwrap());
    made("own", &|challenge| challenge.verifier = "wallet".parse().unwrap());
    made("seal", &|challenge| challenge.ephemeral = seal_point(&wallet.static_public));
    made("static", &|challenge| challenge.ephemeral = cosigner.backup.as_ref().unwrap().static_public.clone());
    let generator = "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296\
                     4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5";
    made("curve", &|challenge| {
        challenge.ephemeral = StaticPublic::from_hex("p256".parse().unwrap(), generator).unwrap()
    });
    let good = lab.read("good.challenge");
    lab.write("edited.challenge", good.replace("verifier: cosigner", "verifier: watchtower"));
    lab.write("version.challenge", good.replace("challenge 1", "challenge 2"));
    let mut text = String::new();
    for name in ["other-plan", "no-plan", "late", "own", "seal", "static", "edited", "version"] {
        text += &lab.fails(4, &["--store", "wallet", "prove", &format!("{name}.challenge")]);
    }
    text += &lab.fails(4, &["--store", "wallet", "prove", "curve.challenge"]);
    text += &lab.fails(12, &["--store", "wallet", "prove", "stranger.challenge"]);
    // Nothing is answered when one is refused.
    text += &lab.fails(4, &["--store", "wallet", "prove", "good.challenge", "late.challenge"]);
    text += &lab.fails(6, &["--store", "wallet", "prove", "good.challenge", "--backup"]);
    // No edge joins them.
    meet(&lab, "watchtower");
    text += &lab.transcript(&[&["--store", "watchtower", "prove", "good.challenge"]]);
    // A clock that is an hour behind is told, and decides nothing: it is the verifier's that counts.
    made("early", &|challenge| (challenge.issued, challenge.expires) = (now() + 3600, now() + 7200));
    text += &lab.transcript(&[&["--store", "wallet", "prove", "early.challenge"]]);
    snapshot("challenges-refused", &text.replace(&words.words(), "WORDS"));
}

#[test]
fn proofs_that_are_none() {
    let lab = room();
    for name in ["wallet", "watchtower"] {
        lab.ok(&["--store", name, "challenge"]);
    }
    lab.ok(&["--store", "cosigner", "prove", "wallet.challenge"]);
    lab.ok(&["--store", "wallet", "prove", "watchtower.challenge"]);
    let proof = Proof::from_text(&lab.read("cosigner.proofs")).unwrap();
    let made = |name: &str, change: &dyn Fn(&mut Proof)| {
        let mut proof = proof.clone();
        change(&mut proof);
        lab.write(&format!("{name}.proofs"), proof.to_text());
    };
    made("bit", &|proof| proof.mac[0] ^= 1);
    made("place", &|proof| proof.place = "backup".parse().unwrap());
    made("no-backup", &|proof| {
        (proof.prover, proof.place) = ("watchtower".parse().unwrap(), "backup".parse().unwrap())
    });
    made("member", &|proof| proof.prover = "watchtower".parse().unwrap());
    made("stranger", &|proof| proof.prover = "stranger".parse().unwrap());
    made("own", &|proof| proof.prover = "wallet".parse().unwrap());
    lab.write("edited.proofs", lab.read("cosigner.proofs").replace("key: primary", "key: backup"));
    let verify = |code: i32, files: &[&str]| lab.fails(code, &[&["--store", "wallet", "verify-proof"], files].concat());
    let mut text = String::new();
    for name in ["bit", "place", "no-backup", "member", "own", "edited"] {
        text += &verify(4, &[&format!("{name}.proofs")]);
    }
    text += &verify(12, &["stranger.proofs"]);
    // For another machine's challenge: its own answer to the watchtower.
    text += &verify(4, &["wallet.proofs"]);
    // One that does not hold among good ones: nothing is recorded.
    text += &verify(4, &["cosigner.proofs", "bit.proofs"]);
    lab.ok(&["--store", "wallet", "verify-proof", "cosigner.proofs"]);
    // Replayed.
    text += &verify(4, &["cosigner.proofs"]);
    text += &verify(4, &["cosigner.proofs", "--json"]);
    snapshot("proofs-refused", &text);
}

/// A thief's card was recorded in the cosigner's name: the cosigner's token does not hold its key. That the thief's own does is for the words to find.
#[test]
fn an_exchanged_card_is_found() {
    let lab = members(PLAN);
    let (_token, locator) = lab.key("thief", "x25519");
    lab.ok(&["--store", "thief", "init", "--name", "cosigner", "--role", "cosigner", "--token", &locator]);
    lab.ok(&["--store", "thief", "export", "thief.card"]);
    lab.ok(&["--store", "wallet", "import", "thief.card", "--fingerprint", &lab.words("thief")]);
    meet(&lab, "cosigner");
    lab.ok(&["--store", "wallet", "challenge"]);
    lab.ok(&["--store", "cosigner", "prove", "wallet.challenge"]);
    let text = lab.fails(4, &["--store", "wallet", "verify-proof", "cosigner.proofs"]);
    snapshot("proofs-exchanged", &text);
}

#[test]
#[allow(clippy::disallowed_methods)] // sleep: only time makes a challenge expire.
fn a_challenge_expires() {
    let lab = room();
    lab.ok(&["--store", "wallet", "challenge", "--valid", "15s"]);
    lab.ok(&["--store", "cosigner", "prove", "wallet.challenge"]);
    let challenge = Challenge::from_text(&lab.read("wallet.challenge")).unwrap();
    while now() < challenge.expires {
        std::thread::sleep(Duration::from_millis(100));
    }
    let text = lab.fails(4, &["--store", "wallet", "verify-proof", "cosigner.proofs"]);
    let text = text + &lab.fails(4, &["--store", "watchtower", "prove", "wallet.challenge"]);
    snapshot("proofs-expired", &text);
    assert!(!fs::exists(lab.path("watchtower.proofs")).unwrap());
}

/// A member whom no edge joins to anybody takes every step with the others, and can let go of a card.
#[test]
fn a_member_without_an_edge() {
    let lab = members(&PLAN.replace("to = [\"cosigner\", \"watchtower\"]", "to = \"cosigner\""));
    NAMES.into_iter().for_each(|name| meet(&lab, name));
    NAMES.into_iter().for_each(|name| drop(lab.ok(&["--store", name, "challenge"])));
    let challenges = NAMES.map(|name| format!("{name}.challenge"));
    let [one, two, three] = challenges.each_ref().map(String::as_str);
    lab.ok(&["--store", "wallet", "prove", one, two, three]);
    let mut text = lab.transcript(&[
        &["--store", "watchtower", "prove", one, two, three],
        &["--store", "watchtower", "prove", one, two, three, "--json"],
        &["--store", "watchtower", "prove", one, two, three, "--json", "--out", "-"],
        &["--store", "watchtower", "verify-proof", "wallet.proofs"],
        &["--store", "watchtower", "verify-proof", "wallet.proofs", "--json"],
    ]);
    assert!(!lab.path("watchtower.proofs").exists());
    // Again, after the only peer's keys were all proven.
    lab.ok(&["--store", "cosigner", "verify-proof", "wallet.proofs"]);
    text += &lab.fails(4, &["--store", "cosigner", "verify-proof", "wallet.proofs"]);
    text += &lab.fails(12, &["--store", "watchtower", "remove", "watchtower", "--confirm", "watchtower"]);
    text += &lab.fails(4, &["--store", "watchtower", "remove", "wallet"]);
    text += &lab.transcript(&[
        &["--store", "watchtower", "remove", "wallet", "--confirm", "wallet"],
        &["--store", "watchtower", "seal", "--check", "-q"],
    ]);
    text += &lab.fails(4, &["--store", "watchtower", "phrase"]);
    text += &lab.fails(12, &["--store", "watchtower", "expire", "cosigner", "--in", "3d", "--confirm", "cosigner"]);
    lab.ok(&["--store", "watchtower", "revoke", "cosigner", "--reason", "lost", "--confirm", "cosigner"]);
    text += &lab.fails(4, &["--store", "watchtower", "phrase"]);
    snapshot("no-edge", &masked(&text));
}
