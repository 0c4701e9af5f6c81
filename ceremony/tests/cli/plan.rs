//! `plan` and `add`: what is planned, printed, recorded, and what is missing.

use std::fs;

use crate::lab::{Lab, PROGRAM, snapshot};
use crate::prompts::{ended, type_at};

const VAULT: &str = include_str!("../../../docs/vault-plan.toml");

/// The machines of these names, each joined to each by the service `sign`.
pub(crate) fn mesh(names: &[&str], rules: &str) -> String {
    let members: String =
        names.iter().map(|name| format!("[[member]]\nname = \"{name}\"\nrole = \"cosigner\"\n")).collect();
    let edges = names
        .windows(2)
        .map(|pair| format!("[[edge]]\nfrom = \"{}\"\nto = \"{}\"\nservice = \"sign\"\n", pair[0], pair[1]));
    format!("plan = 1\nname = \"mesh\"\n[rules]\n{rules}\n{members}{}", edges.collect::<String>())
}

#[test]
fn plans_are_written_and_checked() {
    let lab = Lab::new();
    let mut text = lab.transcript(&[
        &["plan", "new"],
        &["plan", "new"],
        &["plan", "new", "vault.toml", "--example", "vault", "--json"],
    ]);
    assert_eq!(lab.read("vault.toml"), VAULT);
    assert_eq!(lab.ok(&["plan", "new", "-", "--example", "vault"]), VAULT);
    lab.write(
        "spare.toml",
        mesh(&["a", "b"], "witnesses = 1") + "[[member]]\nname = \"spare\"\nrole = \"x\"\ncurve = \"p256\"\n",
    );
    text += &lab.transcript(&[
        &["plan", "check", "plan.toml"],
        &["plan", "check", "vault.toml"],
        &["plan", "check", "spare.toml"],
        &["plan", "check", "spare.toml", "--json"],
    ]);
    // A failure to write, and a file of somebody else's.
    lab.write("plan.toml", "mine");
    text += &lab.fails(1, &["plan", "new"]);
    lab.ok(&["plan", "new", "--force"]);
    assert!(lab.read("plan.toml").contains("name = \"pair\""));
    snapshot("plan-check", &text);

    // The same plan in other words has the same fingerprint; it is read from stdin, too.
    let words = lab.json(&["plan", "check", "vault.toml"])["fingerprint"]["words"].clone();
    let bare: String = VAULT.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect();
    let output = lab.run_with(&["plan", "check", "-", "--json"], bare.as_bytes());
    assert!(String::from_utf8(output.stdout).unwrap().contains(words.as_str().unwrap()));
}

#[test]
fn bad_plans_are_refused_where_they_are_wrong() {
    let lab = Lab::new();
    let pair = mesh(&["wallet", "cosigner"], "");
    let mut text = String::new();
    for (name, plan) in [
        ("key", pair.replace("[rules]", "[rules]\nbackup_token = true")),
        ("member", pair.replace("from = \"wallet\"", "from = \"walet\"")),
        ("curve", pair.replacen("role = \"cosigner\"", "role = \"cosigner\"\ncurve = \"p256\"", 1)),
        ("itself", pair.replace("to = \"cosigner\"", "to = [\"cosigner\", \"wallet\"]")),
        ("alone", mesh(&["wallet"], "")),
        ("version", pair.replace("plan = 1", "plan = 2")),
        ("other", "[transport]\nkind = \"tor\"\n".to_owned()),
        ("large", "#".repeat((1 << 20) + 1)),
    ] {
        let file = format!("{name}.toml");
        lab.write(&file, plan);
        text += &lab.fails(4, &["plan", "check", &file]);
    }
    lab.write("binary.toml", [0xff; 10]);
    text += &lab.fails(4, &["plan", "check", "binary.toml"]);
    text += &lab.fails(4, &["plan", "check", "key.toml", "--json"]);
    text += &lab.fails(4, &["plan", "print", "curve.toml"]);
    text += &lab.fails(1, &["plan", "check", "absent.toml"]);
    text += &lab.fails_with(4, &["plan", "check", "-"], b"plan = 1");
    snapshot("plan-refused", &text);
}

#[test]
fn the_runbook_is_printed() {
    let lab = Lab::new();
    lab.write("vault-plan.toml", VAULT);
    let all = lab.ok(&["plan", "print", "vault-plan.toml"]);
    let pages: Vec<&str> = all.split('\u{c}').collect();
    // Who leads and each of five roles on both sides of a sheet, and the witness.
    assert_eq!(pages.len(), 13);
    for page in &pages {
        assert!(page.lines().count() <= 60 && page.lines().all(|line| line.chars().count() <= 78), "{page}");
    }
    snapshot("plan-print", &all.replace('\u{c}', "[FORM FEED]\n"));
    snapshot(
        "plan-print-member",
        &lab.ok(&["plan", "print", "vault-plan.toml", "--member", "manager-1", "--format", "markdown"]),
    );
    fs::create_dir(lab.path("pages")).unwrap();
    let written = lab.transcript(&[
        &["plan", "print", "vault-plan.toml", "--out", "pages", "-q"],
        &["plan", "print", "vault-plan.toml", "--out", "all.md", "--format", "markdown"],
        &["plan", "print", "vault-plan.toml", "--out", "one.txt", "--role", "manager"],
    ]);
    snapshot("plan-print-out", &written);
    let names = lab.json(&["plan", "print", "vault-plan.toml", "--role", "manager"])["pages"].clone();
    assert_eq!(names[0]["text"].as_str(), Some(lab.read("pages/role-manager.txt").as_str()));
    assert_eq!(lab.read("one.txt"), lab.read("pages/role-manager.txt"));
    assert_eq!(lab.read("all.md").matches("page-break-after").count(), 12);

    let mut text = lab.fails(4, &["plan", "print", "vault-plan.toml", "--role", "auditor"]);
    text += &lab.fails(4, &["plan", "print", "vault-plan.toml", "--member", "manager-9"]);
    text += &lab.fails(2, &["plan", "print", "vault-plan.toml", "--member", "manager-1", "--role", "manager"]);
    text += &lab.fails(1, &["plan", "print", "vault-plan.toml", "--out", "absent/pages.txt"]);
    lab.write("one.txt", "mine");
    text += &lab.fails(1, &["plan", "print", "vault-plan.toml", "--out", "one.txt"]);
    snapshot("plan-print-refused", &text);
}

/// What the runbook says to type is what this program takes: each command, with its options and values, up to what it would do.
#[test]
fn the_runbooks_commands_are_understood() {
    let lab = Lab::new();
    let plan = VAULT.replace("backup-token = false", "backup-token = true");
    lab.write("vault-plan.toml", plan);
    let mut tried = 0;
    for page in [&["--member", "manager-1"][..], &["--role", "coordinator"], &[]] {
        let pages = lab.ok(&[&["plan", "print", "vault-plan.toml"], page].concat()).replace("\\\n", "");
        let commands = pages.lines().filter_map(|line| line.trim().strip_prefix("$ claviger-ceremony "));
        for command in commands.filter(|command| !command.contains("NAME.") && !command.contains("--name NAME")) {
            let output = lab.command("sh", &["-c", &format!("{PROGRAM} {command} --help")]).output().unwrap();
            assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
            tried += 1;
        }
    }
    assert!(tried > 20);
}

impl Lab {
    /// The plan's words, which `plan check` shows.
    pub(crate) fn plan_words(&self, file: &str) -> String {
        self.json(&["plan", "check", file])["fingerprint"]["words"].as_str().unwrap().to_owned()
    }
}

/// Three machines of four that a plan joins in a row; the plan is in `plan.toml`, one that grew in `grown.toml`.
fn in_a_row() -> Lab {
    let lab = Lab::new();
    for name in ["wallet", "cosigner", "tower", "spare"] {
        lab.machine(name, "x25519", &[]);
    }
    lab.write("plan.toml", mesh(&["wallet", "cosigner", "tower"], "proof-of-possession = true\n"));
    lab.write("grown.toml", mesh(&["spare", "wallet", "cosigner", "tower"], "proof-of-possession = true\n"));
    lab
}

#[test]
fn a_plan_is_recorded_and_grows() {
    let lab = in_a_row();
    let [plan, grown] = ["plan.toml", "grown.toml"].map(|file| lab.plan_words(file));
    let [cosigner, tower, spare] = ["cosigner", "tower", "spare"].map(|name| lab.words(name));
    let wallet = |more: &[&str]| lab.transcript(&[&[&["--store", "wallet"], more].concat()]);
    let hidden = |text: String| {
        [&plan, &grown, &cosigner, &tower, &spare]
            .into_iter()
            .fold(text, |text, words| text.replace(words.as_str(), "WORDS"))
    };
    let mut text = wallet(&["plan", "record", "plan.toml", "--fingerprint", &plan]);
    text += &wallet(&["plan", "record", "plan.toml"]);
    text += &wallet(&["plan", "show"]);
    text += &wallet(&[
        "import",
        "wallet.card",
        "cosigner.card",
        "tower.card",
        "--fingerprint",
        &cosigner,
        "--fingerprint",
        &tower,
    ]);
    text += &wallet(&["plan", "show"]);
    text += &wallet(&["plan", "show", "--toml"]);
    text +=
        &wallet(&["add", "spare.card", "--plan", "grown.toml", "--plan-fingerprint", &grown, "--fingerprint", &spare]);
    text += &wallet(&["plan", "show", "--json"]);
    // Once more, all of it is there.
    text += &wallet(&["add", "spare.card", "--plan", "grown.toml", "--json"]);
    text += &wallet(&["log"]);
    snapshot("plan-record", &hidden(text));
    let shown = lab.json(&["--store", "wallet", "plan", "show"]);
    assert_eq!((shown["missing"].as_u64(), shown["members"].as_array().unwrap().len()), (Some(0), 4));
    let toml = lab.ok(&["--store", "wallet", "plan", "show", "--toml"]);
    lab.write("again.toml", toml);
    assert_eq!(lab.plan_words("again.toml"), grown);

    // Back to the smaller plan, when the member has left.
    let smaller = lab.plan_words("plan.toml");
    let back = ["plan", "record", "plan.toml", "--fingerprint", &smaller];
    let text = lab.fails(4, &[&["--store", "wallet"], &back[..]].concat());
    lab.ok(&["--store", "wallet", "remove", "spare", "--confirm", "spare"]);
    // It takes away only, and its words are wanted all the same.
    let text = text + &lab.fails(4, &["--store", "wallet", "plan", "record", "plan.toml"]) + &wallet(&back);
    lab.write("fewer.toml", lab.read("plan.toml").replace("from = \"wallet\"", "from = \"tower\""));
    let fewer = lab.plan_words("fewer.toml");
    let text =
        text + &wallet(&["plan", "record", "fewer.toml", "--json", "--fingerprint", &fewer]).replace(&fewer, "WORDS");
    let text = text.replace(&smaller, "WORDS");
    snapshot("plan-record-smaller", &hidden(text));
}

#[test]
fn a_plan_is_not_recorded_unseen() {
    let lab = in_a_row();
    let words = lab.plan_words("plan.toml");
    let wallet = |code, more: &[&str]| lab.fails(code, &[&["--store", "wallet"], more].concat());
    let mut text = wallet(4, &["plan", "show"]);
    text += &wallet(4, &["plan", "record", "plan.toml"]);
    text += &wallet(2, &["plan", "record", "plan.toml", "--yes"]);
    text += &wallet(4, &["plan", "record", "plan.toml", "--fingerprint", &["zoo"; 8].join(" ")]);
    text += &wallet(2, &["plan", "record", "plan.toml", "--fingerprint", "zoo"]);
    text += &wallet(4, &["add", "spare.card", "--plan", "grown.toml"]);
    lab.write("stranger.toml", mesh(&["cosigner", "tower"], ""));
    text += &wallet(4, &["plan", "record", "stranger.toml", "--fingerprint", &lab.plan_words("stranger.toml")]);
    lab.write("role.toml", lab.read("plan.toml").replacen("role = \"cosigner\"", "role = \"wallet\"", 1));
    text += &wallet(4, &["plan", "record", "role.toml"]);
    text += &lab.fails(5, &["--store", "absent", "plan", "record", "plan.toml"]);
    lab.ok(&["--store", "wallet", "plan", "record", "plan.toml", "--fingerprint", &words]);

    // Not according to the plan.
    text += &wallet(4, &["import", "spare.card", "--fingerprint", &lab.words("spare")])
        .replace(&lab.words("spare"), "WORDS");
    text += &wallet(4, &["add", "spare.card", "--plan", "plan.toml"]);
    text += &wallet(4, &["add", "spare.card", "--plan", "grown.toml"]);
    text += &wallet(4, &["add", "spare.card", "--plan", "grown.toml", "--plan-fingerprint", &words])
        .replace(&words, "WORDS");
    let grown = lab.plan_words("grown.toml");
    let both = ["add", "spare.card", "--plan", "grown.toml", "--plan-fingerprint", &grown, "--fingerprint", &words];
    text += &wallet(4, &both).replace(&words, "WORDS").replace(&grown, "WORDS");
    text += &wallet(4, &["add", "spare.card", "--plan", "-"]);
    lab.write(
        "changed.toml",
        lab.read("grown.toml")
            .replace("possession = true", "possession = false")
            .replace("to = \"tower\"", "to = \"wallet\""),
    );
    text += &wallet(4, &["add", "spare.card", "--plan", "changed.toml"]);
    text += &wallet(4, &["plan", "record", "changed.toml"]);
    text += &wallet(2, &["add", "spare.card"]);
    snapshot("plan-record-refused", &text);
}

/// A question without the plan's words, of which others are left out on each machine. rexpect reads the terminal's bytes as Latin-1.
fn without_words(screen: &str) -> String {
    let lines: Vec<&str> = screen.lines().map(|line| line.trim_end_matches('\r')).collect();
    let first = lines.iter().position(|line| line.starts_with("  words ")).unwrap();
    [&lines[..first], &["[WORDS]"], &lines[first + 2..]].concat().join("\n")
}

#[test]
fn a_plans_words_are_asked_for() {
    let lab = in_a_row();
    let words = lab.plan_words("plan.toml");
    let words: Vec<&str> = words.split(' ').collect();
    let record = ["--store", "wallet", "plan", "record", "plan.toml"];
    let word = |session: &mut rexpect::session::PtySession| {
        let shown = session.exp_string("Word ").unwrap();
        let number: usize = session.exp_string(": ").unwrap().parse().unwrap();
        (shown, words[number - 1])
    };
    let mut session = lab.on_a_terminal(&record);
    let (screen, right) = word(&mut session);
    snapshot("plan-question", &without_words(&screen));
    assert!(!screen.contains(&format!(" {right} ")), "{screen}");
    assert!(screen.lines().count() < 24 && screen.lines().all(|line| line.chars().count() <= 80), "{screen}");
    session.send_line("zoo").unwrap();
    let (shown, code) = ended(session);
    assert!(code == 4 && shown.contains("are not those of this plan"), "{shown}");

    let mut session = lab.on_a_terminal(&record);
    for _ in 0..2 {
        let (_, right) = word(&mut session);
        session.send_line(right).unwrap();
    }
    let (shown, code) = ended(session);
    assert!(code == 0 && shown.contains("is recorded"), "{shown}");
    let fewer = lab.read("plan.toml").replace("from = \"wallet\"", "from = \"tower\"")
        + "[[member]]\nname = \"new\"\nrole = \"x\"\n";
    lab.write("fewer.toml", fewer);
    let mut session = lab.on_a_terminal(&["--store", "wallet", "plan", "record", "fewer.toml"]);
    let screen = session.exp_string("Word ").unwrap();
    snapshot("plan-question-changed", &without_words(&screen));
    assert!(screen.lines().count() < 24 && screen.lines().all(|line| line.chars().count() <= 80), "{screen}");
    session.send_line("").unwrap();
    let (shown, code) = ended(session);
    assert!(code == 4 && shown.contains("were not confirmed"), "{shown}");

    let log = lab.json(&["--store", "wallet", "log"]);
    let last = log["log"].as_array().unwrap().last().unwrap();
    assert_eq!((last["event"].as_str(), last["detail"].as_str()), (Some("plan-recorded"), Some("words compared")));
}

/// Types the words of a plan that a machine asks for.
fn type_words_of(session: &mut rexpect::session::PtySession, words: &str) {
    let words: Vec<&str> = words.split(' ').collect();
    for _ in 0..2 {
        session.exp_string("Word ").unwrap();
        let number: usize = session.exp_string(": ").unwrap().parse().unwrap();
        session.send_line(words[number - 1]).unwrap();
    }
}

/// What is shown and decided before the token is asked is what is recorded when it was.
#[test]
fn a_plan_that_changes_during_the_question_is_found() {
    let lab = in_a_row();
    let [plan, grown] = ["plan.toml", "grown.toml"].map(|file| lab.plan_words(file));
    lab.write("looser.toml", mesh(&["wallet", "cosigner", "tower"], ""));
    let looser = lab.plan_words("looser.toml");
    let recorded =
        || lab.json(&["--store", "wallet", "plan", "show"])["fingerprint"]["words"].as_str().unwrap().to_owned();
    for (meanwhile, words, command, typed) in [
        ("plan.toml", &plan, &["plan", "record", "grown.toml"][..], &grown),
        // Of the plan that is recorded then, `grown` changes a rule.
        ("looser.toml", &looser, &["add", "spare.card", "--plan", "grown.toml"], &grown),
    ] {
        let mut session = lab.on_a_terminal(&[&["--store", "wallet"], command].concat());
        session.exp_string("Compare;").unwrap();
        lab.ok(&["--store", "wallet", "plan", "record", meanwhile, "--fingerprint", words]);
        type_words_of(&mut session, typed);
        let (shown, code) = ended(session);
        assert!(code == 5 && shown.contains("was not recorded"), "{shown}");
        assert_eq!(recorded(), *words);
        assert_eq!(lab.json(&["--store", "wallet", "peers"])["peers"].as_array().unwrap().len(), 0);
    }
}

/// An older copy of the store fits the seal, and what differs from its plan is not what differs from the present one: put there until the token is asked, it must
/// not decide what is shown.
#[test]
fn an_older_plan_does_not_decide() {
    let lab = Lab::new();
    let member = |name| format!("[[member]]\nname = \"{name}\"\nrole = \"cosigner\"\n");
    let edge = |from, to| format!("[[edge]]\nfrom = \"{from}\"\nto = \"{to}\"\nservice = \"sign\"\n");
    let members = ["wallet", "cosigner", "tower"].map(member).concat();
    let small = format!("plan = 1\nname = \"three\"\n{members}{}", edge("wallet", "cosigner"));
    let medium = format!("{small}{}", edge("wallet", "tower"));
    lab.write("small.toml", &small);
    lab.write("medium.toml", &medium);
    lab.write("big.toml", format!("{medium}{}", edge("cosigner", "tower")));
    let token = lab.token("wallet");
    lab.ok(&["token", "generate", "--curve", "x25519", &token.uri_with_pin("noise")]);
    let at_the_pin = |arguments: &[&str], then: &dyn Fn()| {
        let mut session = lab.on_a_terminal(&[&["--store", "wallet"], arguments].concat());
        session.exp_string("PIN of").unwrap();
        then();
        type_at(&mut session, ": ", token.pin());
        ended(session)
    };
    let locator = token.uri("noise");
    let record = |file| ["plan", "record", file, "--fingerprint"];
    let done = |(shown, code): (String, i32)| assert_eq!(code, 0, "{shown}");
    done(at_the_pin(&["init", "--name", "wallet", "--role", "cosigner", "--token", &locator], &|| {}));
    done(at_the_pin(&[&record("big.toml")[..], &[&lab.plan_words("big.toml")]].concat(), &|| {}));
    let store = lab.path("wallet/store.db");
    let older = fs::read(&store).unwrap();
    done(at_the_pin(&[&record("small.toml")[..], &[&lab.plan_words("small.toml")]].concat(), &|| {}));
    let present = fs::read(&store).unwrap();
    let words = lab.plan_words("medium.toml");
    let medium = [&record("medium.toml")[..], &[&words]].concat();

    fs::write(&store, older).unwrap();
    let (shown, code) = at_the_pin(&medium, &|| fs::write(&store, &present).unwrap());
    assert!(code == 5 && shown.contains("was changed between the question"), "{shown}");
    assert!(fs::read(&store).unwrap() == present, "something was changed");
}

#[test]
fn how_far_a_ceremony_is_is_shown() {
    let lab = Lab::new();
    lab.write("plan.toml", mesh(&["wallet", "cosigner"], "proof-of-possession = true\nwitnesses = 1\n"));
    let words = lab.plan_words("plan.toml");
    for name in ["wallet", "cosigner"] {
        lab.machine(name, "x25519", &[]);
        lab.ok(&["--store", name, "plan", "record", "plan.toml", "--fingerprint", &words]);
    }
    for (name, other) in [("wallet", "cosigner"), ("cosigner", "wallet")] {
        lab.ok(&["--store", name, "import", &format!("{other}.card"), "--fingerprint", &lab.words(other)]);
    }
    lab.ok(&["--store", "wallet", "challenge"]);
    lab.ok(&["--store", "cosigner", "prove", "wallet.challenge", "--out", "cosigner.proofs"]);
    lab.ok(&["--store", "wallet", "verify-proof", "cosigner.proofs"]);
    let show = ["--store", "wallet", "plan", "show"];
    let proven = lab.json(&show);
    let cosigner =
        proven["members"].as_array().unwrap().iter().find(|member| member["identifier"] == "cosigner").unwrap().clone();
    assert_eq!((cosigner["proven"].as_bool(), proven["confirmed"].is_null()), (Some(true), true));

    let phrase = lab.json(&["--store", "cosigner", "phrase"])["phrase"].as_str().unwrap().to_owned();
    lab.ok(&[
        "--store",
        "wallet",
        "confirm",
        "--by",
        "Ada Lovelace",
        "--witness",
        "Charles Babbage",
        "--phrase",
        &phrase,
    ]);
    snapshot("plan-show-confirmed", &lab.transcript(&[&show, &[&show[..], &["--json"]].concat()]));

    // Another set has another phrase, which nobody has confirmed.
    lab.write("stricter.toml", lab.read("plan.toml").replace("witnesses = 1", "witnesses = 2"));
    lab.ok(&[
        "--store",
        "wallet",
        "plan",
        "record",
        "stricter.toml",
        "--fingerprint",
        &lab.plan_words("stricter.toml"),
    ]);
    assert!(lab.json(&show)["confirmed"].is_null());
}
