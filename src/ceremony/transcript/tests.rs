use super::*;
use crate::ceremony::log::MAX_DETAIL_LEN;
use crate::ceremony::plan::{Edge, Member, Rules};
use crate::identity::{ClientAuthKeys, Curve, OnionKeys, StaticPublic, Suites};

const START: u64 = 1_795_229_250;

fn name(text: &str) -> Identifier {
    text.parse().unwrap()
}

fn a_card(text: &str) -> IdentityCard {
    let key = aws_lc_rs::agreement::PrivateKey::generate(&aws_lc_rs::agreement::X25519).unwrap();
    IdentityCard {
        identifier: name(text),
        role: "cosigner".parse().unwrap(),
        token: TokenKind::Hardware,
        attestation: None,
        static_public: StaticPublic::new(Curve::X25519, key.compute_public_key().unwrap().as_ref()).unwrap(),
        backup: None,
        onion_address: OnionKeys::generate().unwrap().address,
        client_auth: ClientAuthKeys::generate().unwrap().public,
        suites: Suites::default(),
        kem: None,
    }
}

fn entry(log: &mut Vec<LogEntry>, event: Event, subject: &Identifier, fingerprint: Fingerprint, detail: &str) {
    let mut entry = LogEntry {
        sequence: log.len() as u64 + 1,
        time: START + 60 * log.len() as u64,
        event,
        subject: subject.clone(),
        fingerprint,
        version: "0.1.0".into(),
        detail: detail.into(),
        hash: [0; 32],
    };
    entry.hash = chained(&log.last().map_or(ROOT, |last| last.hash), &entry);
    log.push(entry);
}

/// Log again what a changed transcript would have logged.
fn rechain(transcript: &mut Transcript) {
    let mut before = ROOT;
    for entry in &mut transcript.log {
        entry.hash = chained(&before, entry);
        before = entry.hash;
    }
}

fn plan(witnesses: u8) -> Plan {
    let member = |text| Member { identifier: name(text), role: "cosigner".parse().unwrap(), curve: Curve::X25519 };
    let edge = |to| Edge { from: name("wallet-1"), to: name(to), service: "cosign".parse().unwrap() };
    Plan {
        name: name("vault"),
        members: ["cosigner-1", "cosigner-2", "wallet-1"].map(member).into(),
        edges: ["cosigner-1", "cosigner-2"].map(edge).into(),
        rules: Rules { proof_of_possession: true, words_spoken: true, witnesses, ..Rules::default() },
    }
}

/// What `machine` tells after a ceremony that went right.
fn told(machine: &str, cards: &[IdentityCard], plan: Option<&Plan>) -> Transcript {
    let own = cards.iter().find(|card| card.identifier.as_str() == machine).unwrap();
    let mut held: Vec<HeldCard> = cards.iter().map(|card| HeldCard::new(card, None)).collect();
    held.sort_by(|one, other| one.identifier.cmp(&other.identifier));
    let mut log = Vec::new();
    entry(&mut log, Event::Created, &own.identifier, own.fingerprint(), "");
    if let Some(plan) = plan {
        entry(&mut log, Event::PlanRecorded, &own.identifier, plan.fingerprint(), "vault");
    }
    for card in cards.iter().filter(|card| card.identifier != own.identifier) {
        let joined = plan.is_none_or(|plan| plan.joins(&own.identifier, &card.identifier));
        let event = if joined { Event::PeerAdded } else { Event::CardAdded };
        entry(&mut log, event, &card.identifier, card.fingerprint(), "words compared");
        if joined {
            let key = Fingerprint::of_key(&card.static_public);
            entry(&mut log, Event::ProofVerified, &card.identifier, key, "");
        }
    }
    let mut transcript = Transcript {
        machine: own.identifier.clone(),
        version: "0.1.0".into(),
        exported: START + 7200,
        plan: plan.cloned(),
        cards: held,
        revoked: Vec::new(),
        sealed: Some(vec![Fingerprint::of_key(&own.static_public)]),
        log,
        signature: None,
    };
    let print = plan.map_or_else(|| own.fingerprint(), Plan::fingerprint);
    let detail = format!("{}; by Alice", transcript.phrase());
    entry(&mut transcript.log, Event::Confirmed, &own.identifier, print, &detail);
    entry(&mut transcript.log, Event::Witnessed, &own.identifier, print, "Bob");
    transcript
}

fn ceremony(plan: Option<&Plan>) -> (Vec<IdentityCard>, Vec<Transcript>) {
    let cards: Vec<IdentityCard> = ["wallet-1", "cosigner-1", "cosigner-2"].map(a_card).into();
    let told = ["wallet-1", "cosigner-1", "cosigner-2"].map(|machine| told(machine, &cards, plan)).into();
    (cards, told)
}

fn differences(transcripts: &[Transcript]) -> Vec<(DifferenceKind, String)> {
    compare(transcripts).differences.into_iter().map(|one| (one.kind, one.text)).collect()
}

#[test]
fn what_is_written_is_read() {
    let (_, mut told) = ceremony(Some(&plan(1)));
    let one = &mut told[0];
    one.cards[0].attestation = Some(Attested { holds: false, verdict: "It leads to \"no\" root. ä".into() });
    one.revoked.push(RevokedKey { identifier: name("old"), key: one.cards[0].primary, time: 7, reason: "lost".into() });
    let unsigned = one.signed_bytes();
    one.signature = Some(Signature {
        algorithm: "ed25519-of-sha256".into(),
        public_key: vec![1; 32],
        signature: vec![2; 64],
        device: "It".into(),
    });
    assert_eq!(one.signed_bytes(), unsigned, "a signature is not over itself");
    assert_eq!(Transcript::from_json(&one.to_json()).unwrap(), *one);
    // White space is nobody's.
    let pretty: serde_json::Value = serde_json::from_str(&one.to_json()).unwrap();
    let read = Transcript::from_json(&serde_json::to_string_pretty(&pretty).unwrap());
    // The order of names is this library's, whatever the file's.
    assert_eq!(read.unwrap().signed_bytes(), unsigned);
}

/// A change that reads as a transcript breaks the chain, or changes what is signed.
#[test]
fn every_changed_byte_is_found() {
    let (_, told) = ceremony(None);
    let text = told[0].to_json();
    let signed = told[0].signed_bytes();
    for at in 0..text.len() {
        for flip in [1, 0x20] {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= flip;
            let Ok(changed) = String::from_utf8(bytes) else { continue };
            match Transcript::from_json(&changed) {
                Err(_) => {}
                Ok(read) => assert_ne!(read.signed_bytes(), signed, "byte {at}"),
            }
        }
    }
}

#[test]
fn the_first_entry_that_does_not_fit_is_named() {
    let (_, told) = ceremony(None);
    let refused = |change: &dyn Fn(&mut Transcript)| {
        let mut changed = told[0].clone();
        change(&mut changed);
        let error = Transcript::from_json(&changed.to_json()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TranscriptInvalid);
        error.to_string()
    };
    assert!(refused(&|one| one.log[2].detail = "nothing".into()).contains("entry 3 does not fit"));
    assert!(refused(&|one| one.log[2].time += 1).contains("entry 3 does not fit"));
    assert!(refused(&|one| drop(one.log.remove(3))).contains("entry 5 stands where entry 4 should"));
    assert!(refused(&|one| drop(one.log.remove(0))).contains("entry 2 stands where entry 1 should"));
    assert!(refused(&|one| one.log.swap(1, 2)).contains("entry 3 stands where entry 2 should"));
    assert!(refused(&|one| one.log.clear()).contains("does not begin"));
    assert!(refused(&|one| one.machine = name("wallet-2")).contains("does not begin"));
    assert!(refused(&|one| one.cards.retain(|card| card.identifier != one.machine)).contains("own card"));
    assert!(refused(&|one| one.cards.push(one.cards[0].clone())).contains("there twice"));
}

#[test]
fn what_is_no_transcript_is_named() {
    let (_, told) = ceremony(None);
    let good = told[0].to_json();
    for (text, why) in [
        (String::new(), "not a transcript in JSON"),
        ("CLAVIGER CEREMONY TRANSCRIPT".into(), "not a transcript in JSON"),
        (good[..good.len() - 1].to_owned(), "not a transcript in JSON"),
        (good.replace("\"claviger_transcript\":1", "\"claviger_transcript\":2"), "format version 2"),
        (good.replace("\"created\"", "\"dreamt\""), "entry 1 tells of an event"),
        (good.replacen("\"machine\"", "\"more\":1,\"machine\"", 1), "unknown field"),
        (good.replace("\"hardware\"", "\"wood\""), "neither hardware nor software"),
        (good.replacen("words compared", &"a".repeat(MAX_DETAIL_LEN + 1), 1), "too long"),
        (" ".repeat(MAX_TRANSCRIPT_LEN + 1), "longer than 8 MiB"),
    ] {
        let error = Transcript::from_json(&text).unwrap_err();
        assert!(error.kind() == ErrorKind::TranscriptInvalid && error.to_string().contains(why), "{error}");
    }
}

#[test]
fn a_ceremony_that_went_right_differs_in_nothing() {
    for plan in [None, Some(plan(1))] {
        let (_, told) = ceremony(plan.as_ref());
        let compared = compare(&told);
        assert_eq!((&compared.differences, &compared.warnings), (&vec![], &vec![]));
        let names: Vec<&str> = compared.rows.iter().map(|row| row.machine.as_str()).collect();
        assert_eq!(names, ["cosigner-1", "cosigner-2", "wallet-1"]);
        let peers = if plan.is_some() { [1, 1, 2] } else { [2, 2, 2] };
        assert_eq!([0, 1, 2].map(|at| compared.rows[at].proven), peers.map(|peers| (peers, peers)));
        assert!(
            compared.rows.iter().all(|row| row.cards == 3 && row.sealed && row.confirmed.is_some() && !row.differs)
        );
    }
}

#[test]
fn a_swapped_card_is_named_with_machine_and_member() {
    let plan = plan(0);
    let (cards, told_right) = ceremony(Some(&plan));
    let mut swapped = cards.clone();
    swapped[2] = a_card("cosigner-2");
    let on = |machine: &str, cards: &[IdentityCard]| told(machine, cards, Some(&plan));
    // On one of three.
    let all = [on("wallet-1", &swapped), told_right[1].clone(), told_right[2].clone()];
    let found = compare(&all);
    assert_eq!(found.differences[0].text, "wallet-1 holds another card of cosigner-2 than the others do.");
    assert_eq!(found.differences[0].member, Some(name("cosigner-2")));
    assert_eq!(found.differences[1].text, "wallet-1 confirmed another phrase than most machines did.");
    assert_eq!(found.differences.len(), 2);
    assert!(found.rows.iter().all(|row| row.differs == (row.machine.as_str() == "wallet-1")));
    // On all but its own machine; and of two, where its own word counts.
    let all = [on("wallet-1", &swapped), on("cosigner-1", &swapped), told_right[2].clone()];
    assert_eq!(differences(&all)[0].1, "cosigner-2 shows another card of itself than the others hold.");
    let texts: Vec<String> =
        differences(&[on("wallet-1", &swapped), told_right[2].clone()]).into_iter().map(|one| one.1).collect();
    assert!(texts.contains(&"wallet-1 holds another card of cosigner-2 than cosigner-2 does.".into()), "{texts:?}");
}

#[test]
fn each_difference_is_named() {
    use DifferenceKind as Kind;
    let demands = plan(1);
    let (_, right) = ceremony(Some(&demands));
    type Change<'a> = &'a dyn Fn(&mut Vec<Transcript>);
    let cases: [(Change<'_>, Kind, &str); 12] = [
        (&|all| drop(all.remove(1)), Kind::TranscriptMissing, "There is no transcript of cosigner-1."),
        (&|all| all[0].plan = None, Kind::Plan, "wallet-1 goes by no plan; the others do."),
        (&|all| all[0].plan = Some(plan(0)), Kind::Plan, "wallet-1 goes by another plan than the others do."),
        (
            &|all| all[0].cards.retain(|card| card.identifier.as_str() != "cosigner-2"),
            Kind::CardMissing,
            "wallet-1 holds no card of cosigner-2.",
        ),
        (
            &|all| {
                let card = all[0].cards.remove(1);
                let (identifier, key) = (card.identifier, card.primary);
                all[0].revoked.push(RevokedKey { identifier, key, time: START, reason: "It was lost.".into() });
            },
            Kind::CardMissing,
            "wallet-1 has revoked cosigner-2: It was lost.",
        ),
        (
            &|all| all[1].log.retain(|entry| entry.event != Event::Confirmed),
            Kind::Unconfirmed,
            "cosigner-1 has not confirmed the phrase.",
        ),
        (
            &|all| all[1].log.retain(|entry| entry.event != Event::ProofVerified),
            Kind::ProofMissing,
            "cosigner-1 has no proof that a token holds the key of wallet-1.",
        ),
        (
            &|all| all[1].log.retain(|entry| entry.event != Event::Witnessed),
            Kind::Witnesses,
            "cosigner-1 names 0 of 1 witnesses.",
        ),
        (
            &|all| all[2].log[2].detail = "fingerprint given".into(),
            Kind::NotSpoken,
            "cosigner-2 took the card of wallet-1 by a fingerprint that nobody spoke.",
        ),
        (&|all| all[2].version = "0.2.0".into(), Kind::Version, "cosigner-2 runs claviger 0.2.0, and others 0.1.0."),
        (
            &|all| all.push(told("stranger", &[a_card("stranger")], None)),
            Kind::Stranger,
            "stranger is not a member of the plan vault.",
        ),
        (
            &|all| {
                let print = demands.fingerprint();
                let machine = all[0].machine.clone();
                entry(&mut all[0].log, Event::Confirmed, &machine, print, &["zoo"; 12].join(" "));
            },
            Kind::Phrase,
            "wallet-1 confirmed another phrase than most machines did.",
        ),
    ];
    for (change, kind, text) in cases {
        let mut all = right.clone();
        change(&mut all);
        all.iter_mut().for_each(rechain);
        let found = differences(&all);
        assert!(found.contains(&(kind, text.to_owned())), "{text}: {found:?}");
    }
}

#[test]
fn rules_on_cards_are_checked() {
    let rules = Rules { attestation: true, backup_token: true, ..Rules::default() };
    let strict = Plan { rules, ..plan(0) };
    let (_, mut all) = ceremony(Some(&strict));
    for one in &mut all {
        for card in &mut one.cards {
            card.attestation = Some(Attested { holds: true, verdict: "Yubico, serial 1".into() });
            card.backup = Some(card.primary);
        }
    }
    assert_eq!(differences(&all), []);
    all[0].cards[0].attestation = Some(Attested { holds: false, verdict: "No root.".into() });
    all[0].cards[1].attestation = None;
    all.iter_mut().for_each(|one| one.cards[2].backup = None);
    let texts: Vec<String> = differences(&all).into_iter().map(|one| one.1).collect();
    assert_eq!(
        texts,
        [
            "The card of wallet-1 on cosigner-1 has no backup key.",
            "The card of wallet-1 on cosigner-2 has no backup key.",
            "The attestation of cosigner-1 does not hold on wallet-1: No root.",
            "The card of cosigner-2 on wallet-1 carries no attestation.",
            "The card of wallet-1 on wallet-1 has no backup key.",
        ]
    );
}

/// The log is bound by its hashes to the head on paper; the cards are not, and must be those that it tells of.
#[test]
fn what_is_said_beside_the_log_is_held_against_it() {
    let demands = plan(1);
    let (_, right) = ceremony(Some(&demands));
    let found = |change: &dyn Fn(&mut Vec<Transcript>)| {
        let mut all = right.clone();
        change(&mut all);
        let found = differences(&all);
        assert!(!found.is_empty());
        found
    };
    let (other, stranger) = (a_card("cosigner-1"), a_card("mallory"));
    let print = Fingerprint::of_key(&other.static_public);
    let text = "wallet-1 holds another card of cosigner-1 than the others do.";
    let changes: [&dyn Fn(&mut HeldCard); 5] = [
        &|card| card.primary = print,
        &|card| card.backup = Some(print),
        &|card| card.fingerprint = other.fingerprint(),
        &|card| card.token = TokenKind::Software,
        &|card| card.role = "spare".parse().unwrap(),
    ];
    for change in changes {
        let found = found(&|all| change(&mut all[0].cards[0]));
        assert_eq!(found[0], (DifferenceKind::Card, text.to_owned()));
    }
    let everywhere = found(&|all| all.iter_mut().for_each(|one| one.cards[0] = HeldCard::new(&other, None)));
    let text = "wallet-1 holds a card of cosigner-1 that its log does not tell of.";
    assert!(everywhere.contains(&(DifferenceKind::Card, text.into())), "{everywhere:?}");
    let more = found(&|all| all[2].cards.insert(2, HeldCard::new(&stranger, None)));
    let text = "cosigner-2 holds a card of mallory, who is not a member of the plan vault.";
    assert_eq!(more[0], (DifferenceKind::Stranger, text.into()));
    // A backup key is proven, too.
    let backup = found(&|all| all.iter_mut().for_each(|one| one.cards[2].backup = Some(print)));
    let text = "cosigner-1 has no proof that a token holds the backup key of wallet-1.";
    assert!(backup.contains(&(DifferenceKind::ProofMissing, text.into())), "{backup:?}");
}

/// That a new plan moved a card tells nothing of how it came.
#[test]
fn a_card_that_was_moved_came_as_it_came() {
    let (_, mut all) = ceremony(Some(&plan(1)));
    let card = all[2].cards[2].clone();
    all[2].log[2].detail = "fingerprint given".into();
    entry(&mut all[2].log, Event::CardAdded, &card.identifier, card.fingerprint, crate::ceremony::log::MOVED);
    all.iter_mut().for_each(rechain);
    let kinds: Vec<DifferenceKind> = differences(&all).into_iter().map(|one| one.0).collect();
    assert_eq!(kinds, [DifferenceKind::NotSpoken]);
}

#[test]
fn a_card_that_came_after_the_phrase_is_named() {
    let (_, mut all) = ceremony(None);
    let more = HeldCard::new(&a_card("zebra"), None);
    for one in &mut all {
        one.cards.push(more.clone());
        entry(&mut one.log, Event::PeerAdded, &more.identifier, more.fingerprint, "words compared");
    }
    let found = differences(&all);
    assert!(found.len() == 3 && found.iter().all(|one| one.0 == DifferenceKind::ChangedSince), "{found:?}");
}

#[test]
fn a_restored_store_is_found() {
    let (cards, all) = ceremony(None);
    let (now, own) = (&all[0], cards[0].fingerprint());
    let later = |keep: usize, detail: &str| {
        let mut later = now.clone();
        later.log.truncate(keep);
        entry(&mut later.log, Event::Sealed, &now.machine, own, detail);
        later.exported += 60;
        later
    };
    // It goes on; in whatever order they are given.
    let on = later(now.log.len(), "");
    assert_eq!(differences(&[on.clone(), now.clone(), all[1].clone(), all[2].clone()]), []);
    // It goes back, and goes on from there; or only goes back.
    let back = later(3, "");
    let found = differences(&[now.clone(), back]);
    assert_eq!(found[0].1, "The later transcript of wallet-1 goes back behind entry 4: an older store was restored.");
    let mut cut = now.clone();
    cut.log.truncate(5);
    cut.exported += 1;
    assert_eq!(differences(&[cut, now.clone()])[0].0, DifferenceKind::RolledBack);
    // Another machine of the same name.
    let other = told("wallet-1", &[a_card("wallet-1")], None);
    assert_eq!(differences(&[other, now.clone()])[0].0, DifferenceKind::SameName);
}

#[test]
fn clocks_are_told_of() {
    let (_, mut all) = ceremony(None);
    for entry in &mut all[1].log {
        entry.time += 2 * 3600 + 120;
    }
    all[2].log[3].time -= 3600;
    all[0].sealed = None;
    all.iter_mut().for_each(rechain);
    let warnings = compare(&all).warnings;
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    assert!(warnings[0].contains("cosigner-1 confirmed 2 h 2 min after"), "{}", warnings[0]);
    assert_eq!(warnings[1], "The clock of cosigner-2 was set back before entry 4.");
    assert!(warnings[2].contains("the store of wallet-1"), "{}", warnings[2]);
}
