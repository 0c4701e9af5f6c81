//! The whole set: its phrase, read aloud, confirmed, witnessed.

use crate::lab::{Lab, snapshot};
use crate::prompts::ended;
use crate::proofs::{NAMES, PLAN, masked, meet, members, room};

fn phrase(lab: &Lab, at: &str) -> String {
    lab.json(&["--store", at, "phrase"])["phrase"].as_str().unwrap().to_owned()
}

/// Every peer of `at` proves its keys.
fn prove(lab: &Lab, at: &str) {
    lab.ok(&["--store", at, "challenge"]);
    let challenge = format!("{at}.challenge");
    let peers = lab.json(&["--store", at, "peers"])["peers"].clone();
    for peer in peers.as_array().unwrap() {
        let name = peer["identifier"].as_str().unwrap();
        lab.ok(&["--store", name, "prove", &challenge]);
        lab.ok(&["--store", at, "verify-proof", &format!("{name}.proofs")]);
        if name == "cosigner" {
            lab.ok(&["--store", name, "prove", &challenge, "--backup"]);
            lab.ok(&["--store", at, "verify-proof", "cosigner.backup.proofs"]);
        }
    }
}

/// Words of phrases, which differ from run to run.
fn hidden(text: &str, phrase: &str) -> String {
    let words: Vec<&str> = phrase.split(' ').collect();
    let mut text = text.replace(phrase, "PHRASE");
    for group in words.chunks(4) {
        let columns: String = group.iter().map(|word| format!("  {word:<8}")).collect();
        text = text.replace(columns.trim_end(), "  FOUR WORDS");
    }
    text
}

#[test]
fn the_set_is_confirmed() {
    let lab = room();
    let all: Vec<String> = NAMES.iter().map(|name| phrase(&lab, name)).collect();
    assert!(all.iter().all(|one| *one == all[0]), "{all:?}");
    prove(&lab, "wallet");
    let shown = lab.transcript(&[&["--store", "wallet", "phrase"]]);
    let output = shown.lines().filter(|line| line.starts_with("out|"));
    assert!(output.clone().count() == 9 && output.clone().all(|line| line.chars().count() <= 85), "{shown}");
    let text = lab.transcript(&[
        &["--store", "wallet", "phrase", "--json"],
        &["--store", "wallet", "confirm", "--by", "Ada Lovelace", "--witness", "Charles Babbage", "--phrase", &all[0]],
        &["--store", "wallet", "witness", "Grace Hopper"],
        &["--store", "wallet", "witness", "Grace Hopper", "--json"],
        &["--store", "wallet", "confirm", "--by", "Ada Lovelace", "--phrase", &all[0].to_uppercase(), "--json"],
    ]);
    let log = lab.json(&["--store", "wallet", "log"])["log"].clone();
    let last: Vec<(&str, &str)> = log.as_array().unwrap()[9..]
        .iter()
        .map(|entry| (entry["event"].as_str().unwrap(), entry["detail"].as_str().unwrap()))
        .collect();
    let confirmed = ("confirmed", &*format!("{}; by Ada Lovelace", all[0]));
    let witnesses = [("witnessed", "Charles Babbage"), ("witnessed", "Grace Hopper")];
    assert_eq!(last, [confirmed, witnesses[0], witnesses[1], confirmed]);
    let text = hidden(&(shown + &text), &all[0]).replace(&all[0].to_uppercase(), "PHRASE");
    snapshot("set", &masked(&text));
}

#[test]
fn what_is_missing_is_named() {
    let plan = PLAN.replace("[rules]\n", "[rules]\nattestation = false\nbackup-token = false\nwitnesses = 2\n");
    let lab = members(&plan);
    let confirm =
        |lab: &Lab, more: &[&str]| lab.fails(4, &[&["--store", "wallet", "confirm", "--by", "Ada"], more].concat());
    let mut text = lab.fails(4, &["--store", "wallet", "phrase"]);
    text += &confirm(&lab, &[]);
    lab.ok(&["--store", "wallet", "import", "cosigner.card", "--fingerprint", &lab.words("cosigner")]);
    text += &lab.fails(4, &["--store", "wallet", "phrase", "--json"]);
    text += &confirm(&lab, &["--witness", "Charles"]);
    meet(&lab, "watchtower");
    meet(&lab, "cosigner");
    lab.ok(&["--store", "wallet", "import", "watchtower.card", "--fingerprint", &lab.words("watchtower")]);
    // Who confirms is no witness, and nobody is two.
    text += &confirm(&lab, &["--witness", "Ada", "--witness", "Charles", "--witness", "Charles"]);
    prove(&lab, "wallet");
    text += &confirm(&lab, &["--json"]);
    text += &lab.fails(4, &["--store", "wallet", "witness", "Charles"]);
    let witnesses = ["--witness", "Charles", "--witness", "Grace"];
    text += &confirm(&lab, &[&witnesses[..], &["--phrase", &["zoo"; 12].join(" ")]].concat());
    let wrong = lab
        .fails(2, &[&["--store", "wallet", "confirm", "--by", "Ada", "--phrase", "zoo zoo"], &witnesses[..]].concat());
    text += &wrong;
    // Without a terminal, and without the phrase.
    text += &confirm(&lab, &witnesses);
    text += &lab.fails(2, &["--store", "wallet", "confirm", "--by", "a\u{1b}[2J"]);
    text += &lab.fails(2, &["--store", "wallet", "confirm"]);
    text += &lab.fails(2, &["--store", "wallet", "witness", ""]);
    snapshot("set-refused", &text);
}

#[test]
fn spoken_words_are_typed() {
    let lab = members(&PLAN.replace("proof-of-possession = true", "witnesses = 1"));
    meet(&lab, "wallet");
    meet(&lab, "cosigner");
    // The rule comes after the cards, which a script can not import under it.
    lab.write("spoken.toml", PLAN.replace("proof-of-possession = true", "words-spoken = true\nwitnesses = 1"));
    let words = lab.plan_words("spoken.toml");
    for machine in ["wallet", "cosigner"] {
        lab.ok(&["--store", machine, "plan", "record", "spoken.toml", "--fingerprint", &words]);
    }
    let phrase = phrase(&lab, "cosigner");
    let words: Vec<&str> = phrase.split(' ').collect();
    let confirm = ["--store", "wallet", "confirm", "--by", "Ada", "--witness", "Grace"];
    snapshot("set-spoken", &lab.fails(4, &[&confirm[..], &["--phrase", &phrase]].concat()).replace(&phrase, "PHRASE"));

    let asked = |answers: &dyn Fn(usize, usize) -> String, times: usize| {
        let mut session = lab.on_a_terminal(&confirm);
        let mut shown = String::new();
        for time in 0..times {
            shown += &type_before(&mut session, answers, time);
        }
        let (end, code) = ended(session);
        (shown + &end, code)
    };
    // Something that is no word, then nothing; and a word of the list that is another.
    let (shown, code) = asked(&|_, time| if time == 0 { "xyzzy".into() } else { String::new() }, 2);
    assert!(code == 4 && shown.contains("not a word of the list") && shown.contains("nothing was recorded"), "{shown}");
    let (shown, code) = asked(&|word, _| if words[word] == "zoo" { "zone".into() } else { "zoo".into() }, 1);
    assert!(code == 4 && shown.contains("not that of this machine"), "{shown}");
    let before = lab.json(&["--store", "wallet", "log"]);
    assert!(!before.to_string().contains("confirmed"), "{before}");

    let (shown, code) = asked(&|word, _| words[word].to_uppercase(), 2);
    assert!(code == 0 && shown.contains("Confirmed by Ada") && shown.contains("witnessed by Grace"), "{shown}");
    let groups =
        shown.lines().filter(|line| ["  1-4 ", "  5-8 ", "  9-12"].iter().any(|group| line.starts_with(group)));
    let on_screen = groups.flat_map(str::split_whitespace).filter(|word| words.contains(word)).count();
    assert_eq!(on_screen, 10, "two are left out: {shown}");
    let log = lab.json(&["--store", "wallet", "log"])["log"].clone();
    let details: Vec<&str> = log.as_array().unwrap().iter().map(|entry| entry["detail"].as_str().unwrap()).collect();
    assert!(details.ends_with(&[&format!("{phrase}; by Ada"), "Grace"]), "{details:?}");
}

/// Answers the question for the word that is asked for.
fn type_before(
    session: &mut rexpect::session::PtySession,
    answers: &dyn Fn(usize, usize) -> String,
    time: usize,
) -> String {
    let (before, asked) = session.exp_regex("Word [0-9]+: ").unwrap();
    let word: usize = asked.trim_start_matches("Word ").trim_end_matches(": ").parse().unwrap();
    session.send_line(&answers(word - 1, time)).unwrap();
    before + &asked
}

/// One card that is not the same on one machine: its phrase is another, and the fingerprints above it name the card.
#[test]
fn an_exchanged_card_changes_the_phrase() {
    let lab = members(PLAN);
    let (_token, locator) = lab.key("thief", "x25519");
    lab.ok(&["--store", "thief", "init", "--name", "cosigner", "--role", "cosigner", "--token", &locator]);
    lab.ok(&["--store", "thief", "export", "thief.card"]);
    for name in ["cosigner", "watchtower"] {
        meet(&lab, name);
    }
    lab.ok(&["--store", "wallet", "import", "thief.card", "--fingerprint", &lab.words("thief")]);
    lab.ok(&["--store", "wallet", "import", "watchtower.card", "--fingerprint", &lab.words("watchtower")]);
    let [theirs, ours] = ["watchtower", "wallet"].map(|name| lab.json(&["--store", name, "phrase"]));
    assert_eq!(phrase(&lab, "cosigner"), theirs["phrase"].as_str().unwrap());
    assert_ne!(theirs["phrase"], ours["phrase"]);
    let differ: Vec<&str> = theirs["members"]
        .as_array()
        .unwrap()
        .iter()
        .zip(ours["members"].as_array().unwrap())
        .filter(|(theirs, ours)| theirs["fingerprint"] != ours["fingerprint"])
        .map(|(theirs, _)| theirs["identifier"].as_str().unwrap())
        .collect();
    assert_eq!(differ, ["cosigner"]);
}
