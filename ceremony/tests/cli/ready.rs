//! `preflight`: a machine before and after `init`, and beside others.

use std::fs;

use serde_json::{Value, json};

use crate::lab::{Lab, chmod, snapshot};

const PLAN: &str = "\
plan = 1
name = \"pair\"
curve = \"p256\"

[[member]]
name = \"wallet\"
role = \"wallet\"

[[member]]
name = \"cosigner\"
role = \"cosigner\"

[[edge]]
from = \"wallet\"
to = \"cosigner\"
service = \"sign\"
";

impl Lab {
    /// A key file and its passphrase beside it; its locator.
    pub(crate) fn key_file(&self, name: &str, curve: &str) -> String {
        let passphrase = self.write(&format!("{name}.passphrase"), "correct horse\n");
        let locator = format!("file:{name}.pem?pin-source=file:{passphrase}");
        self.ok(&["token", "generate", "--curve", curve, &locator]).trim().to_owned()
    }

    /// What a person sees of commands that look at the machine around them, less what that machine is like today. Lines that were broken, at places that
    /// depend on how long paths are, are whole again.
    fn looked(&self, commands: &[&[&str]]) -> String {
        let mut steady = String::new();
        let mut swap = false;
        for line in self.transcript(commands).lines() {
            swap = line.contains("  swap  ") || (swap && line.starts_with("out|                     "));
            if swap {
                continue;
            }
            if let Some(rest) = line.strip_prefix("out|                     ") {
                steady.truncate(steady.trim_end().len());
                steady += &format!(" {rest}\n");
                continue;
            }
            let disk = line.find(" MiB free").and_then(|end| Some((line[..end].rfind(' ')? + 1, end)));
            match disk {
                Some((begin, end)) => steady += &format!("{}[FREE]{}\n", &line[..begin], &line[end..]),
                None => steady += &format!("{line}\n"),
            }
        }
        steady
    }

    /// The JSON of a preflight, whatever it came to.
    fn preflight(&self, arguments: &[&str]) -> Value {
        let output = self.run_with(&[&["preflight", "--json"], arguments].concat(), b"");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
    }
}

/// The verdicts of a check, in order.
fn verdicts(report: &Value, check: &str) -> Vec<String> {
    let checks = report["checks"].as_array().unwrap();
    checks.iter().filter(|one| one["check"] == check).map(|one| one["verdict"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn before_init() {
    let lab = Lab::new();
    lab.write("plan.toml", PLAN);
    let token = lab.key_file("key", "p256");
    let ready = ["preflight", "--plan", "plan.toml", "--name", "wallet", "--token", &token];
    snapshot("preflight", &lab.looked(&[&ready, &["preflight", "--no-token"]]));
    assert!(!lab.path(".local").exists(), "it makes nothing");
}

#[test]
fn what_is_not_ready() {
    let lab = Lab::new();
    lab.write("plan.toml", PLAN);
    lab.write(
        "strict.toml",
        PLAN.replace(
            "[[member]]\nname = \"wallet\"",
            "[rules]\nattestation = true\nbackup-token = true\n\n[[member]]\nname = \"wallet\"",
        ),
    );
    lab.write("bad.toml", "plan = 1\n");
    let token = lab.key_file("key", "x25519");
    let text = lab.looked(&[
        &["preflight", "--plan", "plan.toml", "--name", "wallet", "--token", &token],
        &["preflight", "--plan", "strict.toml", "--name", "mallory", "--token", &token],
        &["preflight", "--plan", "bad.toml", "--token", "file:none.pem", "-q"],
        &["preflight", "--plan", "plan.toml", "--name", "wallet"],
    ]);
    snapshot("preflight-refused", &text);
    let both = lab.preflight(&["--name", "wallet", "--token", &token, "--backup-token", &token]);
    assert_eq!(
        (&both["ready"], verdicts(&both, "backup").as_slice()),
        (&json!(false), &["ok", "warn", "fail"].map(str::to_owned)[..])
    );
    snapshot(
        "preflight-misused",
        &[
            lab.fails(2, &["preflight", "--no-token", "--token", "file:key.pem"]),
            lab.fails(2, &["preflight", "--name", "Wallet"]),
            lab.fails(1, &["preflight", "none.json"]),
            lab.fails(4, &["preflight", "plan.toml"]),
        ]
        .concat(),
    );
}

#[test]
fn help_has_examples() {
    let lab = Lab::new();
    for command in ["preflight", "rehearse"] {
        let help = lab.ok(&[command, "--help"]);
        assert!(help.contains("Example") && help.contains(&format!("claviger-ceremony {command}")), "{help}");
        assert!(!help.contains("in-rehearsal"), "{help}");
    }
}

#[test]
fn after_init() {
    let lab = Lab::new();
    lab.write("plan.toml", PLAN);
    lab.write("other.toml", PLAN.replace("sign", "watch"));
    let (token, backup) = (lab.key_file("key", "p256"), lab.key_file("backup", "p256"));
    let named = ["--plan", "plan.toml", "--name", "wallet", "--token", &token, "--backup-token", &backup];
    lab.ok(&[&["init"][..], &named].concat());
    snapshot("preflight-after", &lab.looked(&[&["preflight"]]));
    let again = lab.preflight(&named);
    assert_eq!(again["ready"], true, "what was given to init may be given again: {again}");
    let locked = lab.preflight(&["--no-token"]);
    assert_eq!((verdicts(&locked, "seal"), &locked["ready"]), (vec!["warn".to_owned()], &json!(true)));
    for (wrong, check) in [
        (["--plan", "other.toml"], "plan"),
        (["--name", "cosigner"], "store"),
        (["--token", &backup], "token"),
        (["--backup-token", &token], "backup"),
    ] {
        let report = lab.preflight(&wrong);
        assert!(verdicts(&report, check).contains(&"fail".to_owned()), "{check}: {report}");
    }
    // A key in the place of another.
    fs::remove_file(lab.path("key.pem")).unwrap();
    let other = lab.key_file("key", "p256");
    assert_eq!(other, token);
    assert_eq!(verdicts(&lab.preflight(&[]), "token"), ["fail"]);
    fs::remove_file(lab.path("backup.pem")).unwrap();
    let gone = lab.preflight(&[]);
    assert_eq!((verdicts(&gone, "backup"), verdicts(&gone, "seal")), (vec!["fail".into()], vec!["warn".to_owned()]));
}

#[test]
fn a_store_without_a_seal_is_not_ready() {
    let lab = Lab::new();
    let token = lab.key_file("key", "p256");
    lab.ok(&["init", "--unsealed", "--name", "wallet", "--role", "wallet", "--token", &token]);
    let report = lab.preflight(&[]);
    assert_eq!((verdicts(&report, "seal"), &report["ready"]), (vec!["fail".to_owned()], &json!(false)));
}

#[test]
fn a_directory_that_is_open_is_told() {
    let lab = Lab::new();
    fs::create_dir(lab.path("open")).unwrap();
    chmod(&lab.path("open"), 0o777);
    let above = lab.preflight(&["--store", "open/store", "--no-token"]);
    assert_eq!(verdicts(&above, "store"), ["ok", "warn"]);
    let itself = lab.preflight(&["--store", "open", "--no-token"]);
    assert_eq!(verdicts(&itself, "store"), ["fail"]);
}

/// Every way in which machines can differ.
#[test]
fn beside_others() {
    let lab = Lab::new();
    lab.write("plan.toml", PLAN);
    let (ours, theirs) = (lab.key_file("ours", "p256"), lab.key_file("theirs", "p256"));
    let this = ["--plan", "plan.toml", "--name", "wallet", "--token", &ours];
    let good = lab.preflight(&["--plan", "plan.toml", "--name", "cosigner", "--token", &theirs]);
    assert_eq!(good["ready"], true, "{good}");
    let own = lab.preflight(&this);
    let with = |others: &[&Value]| {
        let names: Vec<String> = (0..others.len()).map(|at| format!("{at}.json")).collect();
        for (name, other) in names.iter().zip(others) {
            lab.write(name, other.to_string());
        }
        lab.preflight(&[&this[..], &names.iter().map(String::as_str).collect::<Vec<_>>()].concat())
    };
    let failed = |report: &Value| -> Vec<String> {
        let checks = report["checks"].as_array().unwrap().iter().filter(|check| check["verdict"] == "fail");
        checks.map(|check| check["check"].as_str().unwrap().to_owned()).collect()
    };
    let changed = |name: &str, value: Value| {
        let mut other = good.clone();
        other[name] = value;
        other
    };
    let time = good["time"].as_u64().unwrap();
    assert_eq!(failed(&with(&[&good])), [""; 0]);
    for (other, check) in [
        (changed("ready", json!(false)), "others"),
        (changed("version", json!("9.9.9")), "versions"),
        (changed("plan", Value::Null), "plans"),
        (changed("plan", json!({"fingerprint": {"hex": "00"}})), "plans"),
        (changed("time", json!(time + 600)), "clocks"),
        (changed("time", json!(time - 7200)), "clocks"),
        (changed("key", own["key"].clone()), "keys"),
    ] {
        assert_eq!(failed(&with(&[&other])), [check], "{other}");
    }
    assert_eq!(failed(&with(&[&changed("identifier", json!("wallet"))])), ["names", "members"]);
    assert_eq!(failed(&with(&[&changed("identifier", Value::Null)])), ["names", "members"]);
    assert_eq!(failed(&with(&[&good, &changed("identifier", json!("mallory"))])), ["keys", "members"]);
    assert_eq!(failed(&with(&[&good, &good])), ["names"]);
    // Carried for ten minutes: told, and no failure.
    let carried = with(&[&changed("time", json!(time - 600))]);
    assert_eq!((failed(&carried).len(), verdicts(&carried, "clocks")), (0, vec!["warn".to_owned()]));
    for bad in [
        json!([]),
        changed("preflight", json!(2)),
        changed("identifier", json!("a\u{1b}[2J")),
        changed("version", json!("1\n2")),
        changed("plan", json!({"fingerprint": {"hex": "a".repeat(33)}})),
        json!({"preflight": 1}),
    ] {
        lab.write("bad.json", bad.to_string());
        lab.fails(4, &["preflight", "bad.json", "--no-token"]);
    }
    lab.write("long.json", " ".repeat(70_000));
    assert!(lab.fails(4, &["preflight", "long.json"]).contains("64 KiB"));
}
