//! `claviger doctor`, and each failure made on purpose.

use crate::cli::{Listener, run, snapshot, text};
use crate::daemon_log::configured;
use crate::support::Machine;
use serde_json::Value;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// What people see.
fn page(store: &Path, more: &[&str], hide: &[(&str, &str)]) -> String {
    let output = run(&[&["--store", text(store), "doctor"], more].concat(), b"");
    let code = output.status.code().unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    assert!(out.lines().all(|line| line.chars().count() <= 80 || line.contains("/tmp/")), "{out}");
    let failed = out.lines().filter(|line| line.starts_with("FAILED")).count();
    assert_eq!(code, i32::from(failed > 0), "{out}{}", String::from_utf8_lossy(&output.stderr));
    let shown = format!("$ claviger doctor {}\n{out}exit {code}\n\n", more.join(" "));
    // Names of directories differ in length, and so do lines that were broken: words are what is compared.
    let shown = hide.iter().fold(shown, |text, (secret, name)| text.replace(secret, name));
    let lines =
        shown.lines().map(|line| if line.starts_with(' ') { format!(" {}", line.trim()) } else { format!("\n{line}") });
    lines.collect::<String>().trim_start().to_owned() + "\n\n"
}

fn steps(store: &Path, more: &[&str]) -> Vec<(String, String)> {
    let output = run(&[&["--json", "--store", text(store), "doctor"], more].concat(), b"");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let of = |step: &Value, field: &str| step[field].as_str().unwrap_or_default().to_owned();
    report["steps"].as_array().unwrap().iter().map(|step| (of(step, "about"), of(step, "outcome"))).collect()
}

fn outcome(steps: &[(String, String)], about: &str) -> String {
    let found = steps.iter().find(|(step, _)| step == about).map(|(_, outcome)| outcome.clone());
    found.unwrap_or_else(|| panic!("no {about} in {steps:?}"))
}

const SERVES: &str = "[token]\npin-file = \"../pin\"\n[daemon]\nshutdown = 2\n[service.cat]\ncommand = [\"/bin/cat\"]\nallow = [\"wallet\"]\n";

#[test]
fn each_failure_is_named() {
    let (mut wallet, mut cosigner) = (Machine::software("wallet"), Machine::software("cosigner"));
    wallet.introduce(&mut cosigner);
    let store = configured(&mut cosigner, SERVES);
    let home = text(cosigner.dir.path()).to_owned();
    let hide = [(home.as_str(), "[HOME]")];
    let mut seen = String::from("# Well, without a daemon\n");
    seen += &page(&store, &[], &hide);

    let file = store.join("claviger.toml");
    let good = std::fs::read_to_string(&file).unwrap();
    let mut with = |what: &str, config: &str| {
        std::fs::write(&file, config).unwrap();
        seen += &format!("# {what}\n{}", page(&store, &[], &hide));
        std::fs::write(&file, &good).unwrap();
    };
    with("A key that is unknown", &good.replace("shutdown", "shut-down"));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    with("A port that is taken", &format!("[metrics]\nlisten = \"tcp:{address}\"\n{good}"));
    with("A program that is not there", &good.replace("/bin/cat", "/bin/dog"));
    let nobody = { TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap() };
    let tor =
        format!("{SERVES}[transport]\nkind = \"tor\"\n[transport.tor]\nsocks = \"{nobody}\"\ncontrol = \"{nobody}\"\n");
    with("No tor", &tor);

    let key = cosigner.dir.path().join("key.pem");
    std::fs::rename(&key, cosigner.dir.path().join("away")).unwrap();
    seen += &format!("# No token\n{}", page(&store, &[], &hide));
    std::fs::rename(cosigner.dir.path().join("away"), &key).unwrap();
    std::fs::set_permissions(&store, std::fs::Permissions::from_mode(0o755)).unwrap();
    seen += &format!("# A store that is open to others\n{}", page(&store, &[], &hide));
    std::fs::set_permissions(&store, std::fs::Permissions::from_mode(0o700)).unwrap();
    seen += &format!("# No store\n{}", page(&store.join("none"), &["--config", text(&file)], &hide));
    cosigner.unseal();
    seen += &format!("# A seal that was taken off\n{}", page(&store, &[], &hide));
    let mut settings = insta::Settings::clone_current();
    settings.add_filter(r"\d+ files may be open", "[N] files may be open");
    settings.add_filter(r"sport = \d+", "sport = [PORT]");
    settings.bind(|| snapshot("doctor", &seen));
}

#[test]
fn a_daemon_is_asked_and_peers_are_dialled() {
    let (mut wallet, mut cosigner) = (Machine::software("wallet"), Machine::software("cosigner"));
    wallet.introduce(&mut cosigner);
    let (at_wallet, at_cosigner) = (configured(&mut wallet, SERVES), configured(&mut cosigner, SERVES));
    let daemon = Listener::start(&["--store", text(&at_cosigner), "run"]);
    let began = Instant::now();
    let found = loop {
        let found = steps(&at_cosigner, &[]);
        if outcome(&found, "daemon") == "ok" && found.iter().any(|(about, outcome)| about == "onion" && outcome == "ok")
        {
            break found;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{found:?}");
        std::thread::sleep(Duration::from_millis(100));
    };
    for (about, expected) in
        [("store", "ok"), ("seal", "ok"), ("token", "warning"), ("peer wallet", "ok"), ("log", "ok")]
    {
        assert_eq!(outcome(&found, about), expected, "{about}: {found:?}");
    }
    // The daemon has the token.
    assert_eq!(outcome(&steps(&at_cosigner, &["--dial"]), "handshakes"), "skipped");
    let dialled = steps(&at_wallet, &["--dial"]);
    assert_eq!((outcome(&dialled, "handshakes"), outcome(&dialled, "peer cosigner")), ("ok".into(), "ok".into()));
    assert_eq!(daemon.stop(), Some(0));
    assert_eq!(outcome(&steps(&at_wallet, &["--token"]), "handshakes"), "ok");
}
