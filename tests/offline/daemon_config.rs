//! `claviger config` and `claviger policy`: from the file and the store alone.

use crate::cli::{run, text};
use crate::support::Machine;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

/// Arguments and their outcome, as a person sees it.
fn shown(store: &Path, arguments: &[&str], stdin: &str) -> (Option<i32>, String) {
    let output = run(&[&["--store", text(store)], arguments].concat(), stdin.as_bytes());
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    let page = format!("$ claviger {}\n{out}{err}exit {}\n\n", arguments.join(" "), output.status.code().unwrap());
    (output.status.code(), page.replace(text(store), "STORE"))
}

fn snapshot(name: &str, page: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.set_snapshot_path("snapshots");
    settings.bind(|| insta::assert_snapshot!(name, page));
}

const FILE: &str = "\
[service.cosign]
target = \"tcp:127.0.0.1:9000\"
allow = [\"role:wallet\"]
deny = [
    \"mallory\",
]

[service.ssh]
target = \"unix:ssh.sock\"
allow = [\"tower\", \"role:nobody\"]

[service.shut]
command = [\"/nonexistent/program\"]

[[forward]]
listen = \"tcp:127.0.0.1:2222\"
to = \"nobody/ssh\"
";

#[test]
fn who_may_open_what() {
    let [mut machine, wallet, tower] = ["cosigner", "wallet", "tower"].map(Machine::software);
    machine.meet(&wallet);
    machine.meet(&tower);
    let store = machine.configure("");
    std::fs::write(store.join("claviger.toml"), FILE).unwrap();
    let mut pages = String::new();
    for (code, arguments) in [
        (0, &["policy", "list"][..]),
        (0, &["policy", "test", "wallet", "cosign"]),
        (0, &["policy", "test", "tower/ssh"]),
        (1, &["policy", "test", "tower", "cosign"]),
        (1, &["policy", "test", "wallet", "echo"]),
        (12, &["policy", "test", "mallory", "cosign"]),
        (4, &["policy", "test", "wallet"]),
        (2, &["policy", "test"]),
        (0, &["policy", "test", "wallet", "cosign", "--json"]),
        (1, &["policy", "test", "tower", "cosign", "--json"]),
        (0, &["config", "check"]),
    ] {
        let (exit, page) = shown(&store, arguments, "");
        assert_eq!(exit, Some(code), "{page}");
        pages += &page;
    }
    snapshot("policy", &pages);
}

#[test]
fn the_file_is_checked() {
    let mut machine = Machine::software("cosigner");
    let store = machine.configure("");
    let mut pages = String::new();
    let wrong = "[transport]\nkidn = \"tor\"\nport = 0\n[handshake]\nallow = [\n  \"kk\",\n  \"nn\",\n]\n[service.a]\ntarget = \"tcp:10.0.0.1:22\"\n";
    std::fs::write(store.join("secret"), "1").unwrap();
    std::fs::set_permissions(store.join("secret"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let careless = format!(
        "[token]\npin-file = \"{0}/secret\"\n[transport.tor]\npassword-file = \"{0}/absent\"\n[daemon]\noperators = [1]\n[store]\nallow-unsealed = true\n",
        text(&store)
    );
    for (code, text) in [(0, ""), (3, wrong), (3, "[transport\n"), (0, careless.as_str())] {
        let (exit, page) = shown(&store, &["config", "check", "-"], text);
        assert_eq!(exit, Some(code), "{page}");
        pages += &page;
    }
    let (exit, page) = shown(&store, &["config", "check", "-", "--json"], wrong);
    assert_eq!(exit, Some(3));
    pages += &page;
    let (exit, page) = shown(&store, &["config", "check", "/nonexistent/claviger.toml"], "");
    assert_eq!(exit, Some(3));
    pages += &page;
    std::fs::remove_file(store.join("claviger.toml")).unwrap();
    let (exit, page) = shown(&store, &["config", "check"], "");
    assert_eq!(exit, Some(3));
    snapshot("config-check", &(pages + &page));
    // What it prints is a file that it takes.
    let example = String::from_utf8(run(&["config", "example"], b"").stdout).unwrap();
    assert_eq!(example, claviger::config::EXAMPLE);
    assert_eq!(shown(&store, &["config", "check", "-"], &example).0, Some(0));
}

/// By somebody else's validator: the example is valid, also with all that is commented out; what the program refuses by its form is not.
#[test]
fn the_schema_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let schema = dir.path().join("schema.json");
    std::fs::write(&schema, run(&["config", "schema"], b"").stdout).unwrap();
    let script = "import json, sys, tomllib, jsonschema\n\
        schema = json.load(open(sys.argv[1]))\n\
        jsonschema.Draft202012Validator.check_schema(schema)\n\
        errors = list(jsonschema.Draft202012Validator(schema).iter_errors(tomllib.loads(sys.stdin.read())))\n\
        print(json.dumps([e.message for e in errors]))";
    let valid = |toml: &str| -> Vec<String> {
        let file = dir.path().join("file.toml");
        std::fs::write(&file, toml).unwrap();
        let output = Command::new("/usr/bin/python3")
            .args(["-c", script, text(&schema)])
            .stdin(std::fs::File::open(&file).unwrap())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let example = claviger::config::EXAMPLE;
    assert_eq!(valid(example), Vec::<String>::new());
    let option = |line: &&str| {
        line.starts_with("#[") || (line.starts_with('#') && !line.starts_with("# ") && line.contains(" = "))
    };
    let all: Vec<&str> = example.lines().map(|line| if option(&line) { &line[1..] } else { line }).collect();
    assert_eq!(valid(&all.join("\n")), Vec::<String>::new());
    for wrong in [
        "knd = 1",
        "[transport]\nkind = \"artie\"",
        "[transport]\nport = 0",
        "[transport]\ndial_timeout = 1",
        "[session]\nmax-age = 59",
        "[daemon]\nprobe = 59",
        "[service.ssh]",
        "[service.SSH]\ntarget = \"tcp:127.0.0.1:22\"",
        "[service.ssh]\ntarget = \"127.0.0.1:22\"",
        "[service.ssh]\ntarget = \"tcp:127.0.0.1:22\"\ncommand = [\"/bin/x\"]",
        "[service.ssh]\ntarget = \"tcp:127.0.0.1:22\"\nallow = [\"Alice\"]",
        "[[forward]]\nlisten = \"tcp:127.0.0.1:22\"",
        "[[forward]]\nlisten = \"tcp:127.0.0.1:22\"\nto = \"a\"",
        "[socks]\nlisten = \"udp:127.0.0.1:1080\"",
        "[peer.a]\nkept = true",
    ] {
        assert!(!valid(wrong).is_empty(), "{wrong}");
        assert!(claviger::config::Config::parse(wrong, Path::new("claviger.toml")).is_err(), "{wrong}");
    }
    let read: Value = serde_json::from_slice(&std::fs::read(&schema).unwrap()).unwrap();
    assert_eq!(read["$schema"], "https://json-schema.org/draft/2020-12/schema");
}
