//! `plan` and `add`: what is planned, printed, recorded, and what is missing.

use std::fs;

use crate::lab::{Lab, snapshot};

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
    // Every command of the runbook is one of this program's.
    for command in all.lines().filter_map(|line| line.trim().strip_prefix("$ claviger-ceremony ")) {
        let words: Vec<&str> = command
            .split(' ')
            .take_while(|word| {
                word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-') && !word.starts_with('-')
            })
            .collect();
        let known = ["rehearse", "preflight", "challenge", "prove", "verify-proof", "phrase", "confirm", "transcript"];
        if !known.contains(&words[0]) {
            lab.ok(&[&words[..], &["--help"]].concat());
        }
    }

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
