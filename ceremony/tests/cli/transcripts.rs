//! `transcript` and `log`: out of real stores, signed on a virtual card, and compared.

use claviger::ceremony::log::{Event, LogEntry, ROOT, chained};
use claviger::ceremony::plan::{Edge, Member, Plan, Rules};
use claviger::ceremony::transcript::Transcript;
use claviger::identity::{Curve, Fingerprint};
use claviger_testkit::cards::{self, ADMIN_PIN, Card, PIN, Pcscd};

use crate::lab::{Lab, snapshot};

const MACHINES: [&str; 3] = ["cosigner-1", "cosigner-2", "wallet-1"];

fn plan() -> Plan {
    let member = |name: &str| Member {
        identifier: name.parse().unwrap(),
        role: "cosigner".parse().unwrap(),
        curve: Curve::P256,
    };
    let edge = |to: &str| Edge {
        from: "wallet-1".parse().unwrap(),
        to: to.parse().unwrap(),
        service: "cosign".parse().unwrap(),
    };
    Plan {
        name: "vault".parse().unwrap(),
        members: MACHINES.map(member).into(),
        edges: MACHINES[..2].iter().map(|name| edge(name)).collect(),
        rules: Rules { proof_of_possession: true, witnesses: 1, ..Rules::default() },
    }
}

/// What a log could go on with.
fn logged(one: &mut Transcript, event: Event, subject: &str, fingerprint: Fingerprint, detail: &str) {
    let (before, time) = one.log.last().map_or((ROOT, 0), |last| (last.hash, last.time));
    let mut entry = LogEntry {
        sequence: one.log.len() as u64 + 1,
        time: time + 60,
        event,
        subject: subject.parse().unwrap(),
        fingerprint,
        version: one.version.clone(),
        detail: detail.into(),
        hash: [0; 32],
    };
    entry.hash = chained(&before, &entry);
    one.log.push(entry);
}

fn write(lab: &Lab, name: &str, one: &Transcript) {
    lab.write(name, one.to_json() + "\n");
}

/// Three machines hold a whole ceremony; gives what they tell, which is in `NAME.transcript`.
fn ceremony(lab: &Lab) -> Vec<Transcript> {
    lab.write("plan.toml", plan().to_toml());
    for name in MACHINES {
        lab.machine(name, "p256", &["--plan", "plan.toml"]);
    }
    let each = |work: &dyn Fn(&str)| MACHINES.into_iter().for_each(work);
    each(&|name| {
        for other in MACHINES.iter().filter(|other| **other != name) {
            let words = lab.words(other);
            lab.ok(&["--store", name, "import", "-q", &format!("{other}.card"), "--fingerprint", &words]);
        }
    });
    let files = |end: &str| MACHINES.map(|name| format!("{name}.{end}"));
    let (challenges, proofs) = (files("challenge"), files("proofs"));
    each(&|name| drop(lab.ok(&["--store", name, "challenge", "-q", &format!("{name}.challenge")])));
    let [one, two, three] = challenges.each_ref().map(String::as_str);
    each(&|name| drop(lab.ok(&["--store", name, "prove", "-q", one, two, three, "--out", &format!("{name}.proofs")])));
    let [one, two, three] = proofs.each_ref().map(String::as_str);
    each(&|name| drop(lab.ok(&["--store", name, "verify-proof", "-q", one, two, three])));
    let phrase = lab.json(&["--store", "wallet-1", "phrase"])["phrase"].as_str().unwrap().to_owned();
    MACHINES
        .map(|name| {
            lab.ok(&["--store", name, "confirm", "-q", "--by", "Alice", "--witness", "Bob", "--phrase", &phrase]);
            let file = format!("{name}.transcript");
            lab.ok(&["--store", name, "transcript", "-q", &file, "--json"]);
            let told = Transcript::from_json(lab.read(&file).trim_end()).unwrap();
            assert_eq!((told.phrase(), told.witnesses()), (phrase.clone(), vec!["Bob"]));
            told
        })
        .into()
}

const ALL: [&str; 5] =
    ["transcript", "verify", "cosigner-1.transcript", "cosigner-2.transcript", "wallet-1.transcript"];

#[test]
fn a_machine_writes_its_own() {
    let lab = Lab::new();
    lab.machine("wallet", "x25519", &[]);
    lab.machine("cosigner", "x25519", &[]);
    lab.ok(&["--store", "wallet", "import", "-q", "cosigner.card", "--fingerprint", &lab.words("cosigner")]);
    let mut text = lab.transcript(&[
        &["--store", "wallet", "log"],
        &["--store", "wallet", "transcript"],
        &["--store", "wallet", "transcript", "wallet.txt"],
        &["--store", "wallet", "transcript", "wallet.json", "--json"],
        &["transcript", "verify", "wallet.json", "--json"],
    ]);
    let paper = lab.read("wallet.txt");
    assert!(paper.lines().all(|line| line.chars().count() <= 80), "{paper}");
    // Another moment, another transcript.
    lab.write("other.txt", "shopping list\n");
    text += &lab.fails(1, &["--store", "wallet", "transcript", "other.txt"]);
    text += &lab.fails(2, &["--store", "wallet", "transcript", "-", "--json", "--sign", "piv:serial=1;slot=9d"]);
    text += &lab.fails(5, &["--store", "nowhere", "transcript"]);
    text += &lab.fails(4, &["transcript", "verify", "wallet.txt"]);
    snapshot("transcript", &text);
    lab.ok(&["--store", "wallet", "transcript", "other.txt", "--force", "-q"]);

    // The head on paper is one that the log has passed, also later.
    let log = lab.json(&["--store", "wallet", "log"]);
    let (head, passed) = (log["head"]["words"].as_str().unwrap(), log["log"].as_array().unwrap().len());
    lab.ok(&["--store", "wallet", "remove", "cosigner", "--confirm", "cosigner"]);
    lab.ok(&["--store", "wallet", "transcript", "later.json", "--json"]);
    let found = lab.run_with(&["transcript", "verify", "later.json", "--head", head, "--json"], b"");
    let found: serde_json::Value = serde_json::from_slice(&found.stdout).unwrap();
    assert_eq!(found["heads"][0]["entry"], passed);
    let log = lab.json(&["--store", "wallet", "log"]);
    let last = log["log"].as_array().unwrap().last().unwrap();
    assert_eq!(last["version"], env!("CARGO_PKG_VERSION"));
    let (hash, digits) = (last["hash"].as_str().unwrap(), log["head"]["hex"].as_str().unwrap());
    assert!(hash.len() == 64 && hash.starts_with(digits), "{log}");
}

#[test]
fn three_machines_are_compared() {
    let lab = Lab::new();
    let told = ceremony(&lab);
    let mut text = lab.transcript(&[&ALL, &[&ALL[..], &["--json"]].concat(), &ALL[..4]]);

    // A card that was swapped on its way to one machine.
    let mut swapped = told[2].clone();
    swapped.cards[1].digest[0] ^= 1;
    write(&lab, "swapped.transcript", &swapped);
    let with = |last| [&ALL[..4], &[last]].concat();
    text += &lab.transcript(&[&with("swapped.transcript"), &[&with("swapped.transcript")[..], &["--json"]].concat()]);
    let code = |arguments: &[&str]| lab.run_with(arguments, b"").status.code();
    assert_eq!([code(&ALL), code(&with("swapped.transcript"))], [Some(0), Some(4)]);

    // A store that was restored, and went on.
    let mut later = told[2].clone();
    later.log.truncate(2);
    logged(&mut later, Event::Sealed, "wallet-1", told[2].cards[2].fingerprint, "");
    later.exported += 60;
    write(&lab, "restored.transcript", &later);
    text += &lab.transcript(&[&["transcript", "verify", "wallet-1.transcript", "restored.transcript"]]);
    let phrase = told[0].confirmation().unwrap().phrase;
    let words: Vec<&str> = phrase.split(' ').collect();
    text = text
        .replace(phrase, "[PHRASE]")
        .replace(&words[..6].join(" "), "[SIX]")
        .replace(&words[6..].join(" "), "[SIX]");
    snapshot("transcript-verify", &text);
}

#[test]
fn what_does_not_hold_is_refused() {
    let lab = Lab::new();
    let told = ceremony(&lab);
    let good = told[0].to_json();
    lab.write("edited.transcript", good.replacen("fingerprint given", "fingerprint taken", 1));
    lab.write("shorter.transcript", good.replacen("\"sequence\":2,", "\"sequence\":3,", 1));
    lab.write("newer.transcript", good.replacen("\"claviger_transcript\":1", "\"claviger_transcript\":2", 1));
    let words = ["zoo"; 8].join(" ");
    let text = [
        lab.fails(4, &["transcript", "verify", "wallet-1.transcript", "edited.transcript"]),
        lab.fails(4, &["transcript", "verify", "shorter.transcript"]),
        lab.fails(4, &["transcript", "verify", "newer.transcript", "--json"]),
        lab.fails(4, &["transcript", "verify", "wallet-1.card"]),
        lab.fails(1, &["transcript", "verify", "absent.transcript"]),
        lab.fails(4, &["transcript", "verify", "wallet-1.transcript", "--head", &words]),
        lab.fails(2, &["transcript", "verify", "wallet-1.transcript", "--head", "zoo"]),
        lab.fails(2, &["transcript", "verify"]),
        lab.fails_with(4, &["transcript", "verify", "-"], &good.as_bytes()[1..]),
    ];
    snapshot("transcript-refused", &text.concat());
    let alone = lab.run_with(&["transcript", "verify", "-"], good.as_bytes());
    assert_eq!(alone.status.code(), Some(0));
}

/// A signature key on P-256, as GnuPG makes it: the admin PIN, the algorithm, the key.
fn make_signature_key(card: &Card) {
    let reader = std::ffi::CString::new(card.reader()).unwrap();
    let context = pcsc::Context::establish(pcsc::Scope::User).unwrap();
    let pcsc = context.connect(&reader, pcsc::ShareMode::Shared, pcsc::Protocols::ANY).unwrap();
    let done = |header: [u8; 4], data: &[u8]| {
        let command = [&header[..], &[u8::try_from(data.len()).unwrap()], data].concat();
        let mut answer = [0; 512];
        let answer = pcsc.transmit(&command, &mut answer).unwrap();
        let status = u16::from_be_bytes(*answer.last_chunk().unwrap());
        assert!(status == 0x9000 || status >> 8 == 0x61, "{header:02x?}: {status:04X}");
    };
    done([0x00, 0xA4, 0x04, 0x00], &[0xD2, 0x76, 0x00, 0x01, 0x24, 0x01]);
    done([0x00, 0x20, 0x00, 0x83], ADMIN_PIN.as_bytes());
    done([0x00, 0xDA, 0x00, 0xC1], &[19, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x03, 0x01, 0x07]);
    done([0x00, 0x47, 0x80, 0x00], &[0xB6, 0x00]);
    pcsc.disconnect(pcsc::Disposition::ResetCard).map_err(|(_, error)| error).unwrap();
}

#[test]
fn a_card_signs() {
    cards::isolated(|| {
        let lab = Lab::new();
        lab.machine("wallet", "p256", &[]);
        let pcscd = Pcscd::start();
        let card = Card::openpgp(&pcscd, 7);
        let key = format!("{}?pin-source=file:{}", card.locator(), lab.write("card.pin", format!("{PIN}\n")));
        let sign = ["--store", "wallet", "transcript", "wallet.json", "--json", "--sign", &key];
        let mut text = lab.fails(6, &sign);
        make_signature_key(&card);
        let wrong = format!("{}?pin-source=file:{}", card.locator(), lab.write("wrong.pin", "111111\n"));
        text += &lab.fails(7, &["--store", "wallet", "transcript", "--json", "--sign", &wrong]);
        text += &lab.fails(2, &["--store", "wallet", "transcript", "wallet.txt", "--sign", &key]);
        text += &lab.transcript(&[
            &sign,
            &["--store", "wallet", "log"],
            &["transcript", "verify", "wallet.json"],
            &["transcript", "verify", "wallet.json", "--json"],
            &["--store", "wallet", "transcript", "wallet.json", "--json", "--sign", &key],
        ]);
        // Whoever changes what was signed, and makes the chain anew, has not the key.
        let mut forged = Transcript::from_json(lab.read("wallet.json").trim_end()).unwrap();
        let own = forged.cards[0].fingerprint;
        logged(&mut forged, Event::Witnessed, "wallet", own, "Mallory");
        write(&lab, "forged.json", &forged);
        text += &lab.fails(4, &["transcript", "verify", "forged.json"]);
        snapshot("transcript-signed", &text);
        assert_eq!(card.operations(), 1, "a file that is there is not signed for");

        // Without this program: the public key, the signature and jq.
        let bytes = Transcript::from_json(lab.read("wallet.json").trim_end()).unwrap().signed_bytes();
        assert!(bytes.starts_with(b"claviger transcript 1\n{\"claviger_transcript\":1,"));
    });
}
