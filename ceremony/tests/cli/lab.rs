//! A place to run the program in: a home directory of its own, SoftHSM, and no terminal.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use claviger_testkit::token::{PIN, SO_PIN, SoftHsm, TestToken};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_claviger-ceremony");

/// What differs from run to run, and its name in snapshots.
const FILTERS: [(&str, &str); 18] = [
    // A block of an identity, in JSON, too.
    (r"words          [a-z ]+", "words          [WORDS]"),
    // Times of operations, for people and in JSON.
    (r"\b[0-9]+\.[0-9]+ m?s\b", "[MS]"),
    (r#"("[a-z]+_ms":)(\[[0-9.,e-]+\]|[0-9.e-]+)"#, "$1[MS]"),
    (r"port=[0-9]+", "port=[PORT]"),
    // Of the emulated TPM.
    (r"\b8217(\.[0-9]+){3}\b", "[FIRMWARE]"),
    (r"Here are: .*\.so[0-9.]*\.", "Here are: [MODULES]."),
    (r"/usr/lib/[a-z0-9_-]+/softhsm/", "/usr/lib/softhsm/"),
    (r"[a-z2-7]{56}\.onion", "[ONION]"),
    (r"descriptor:x25519:[A-Z2-7]{52}", "[CLIENT-AUTH]"),
    (r"\b([0-9a-f]{4} ){7}[0-9a-f]{4}\b", "[HEX]"),
    // Of a pre-shared key.
    (r"\b([0-9a-f]{4} ){3}[0-9a-f]{4}\b", "[CHECK]"),
    (r#""hex":"[0-9a-f]{32}""#, r#""hex":"[HEX]""#),
    (r"\b([0-9a-f]{64}|04[0-9a-f]{128})\b", "[KEY]"),
    (r"id=(%[0-9A-F]{2})+", "id=[ID]"),
    (r#""id":"[0-9a-f]+""#, r#""id":"[ID]""#),
    (r"\b[0-9a-f]{16}\b", "[SERIAL]"),
    (r"(?m)\b([a-z]{3,8} ){7}[a-z]{3,8}$", "[WORDS]"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ|1[0-9]{9}\b", "[TIME]"),
];

pub(crate) struct Lab {
    home: TempDir,
    pub(crate) hsm: SoftHsm,
}

impl Lab {
    pub(crate) fn new() -> Self {
        Self { home: TempDir::new().unwrap(), hsm: SoftHsm::new() }
    }

    /// Another place in which everything is as it is here, with the same tokens; the PINs' files stay those of this one.
    pub(crate) fn copy(&self) -> Self {
        let copy = Self { home: TempDir::new().unwrap(), hsm: self.hsm.copy() };
        for (path, (mode, content)) in self.contents() {
            let path = copy.path(path.strip_prefix(self.home.path()).unwrap().to_str().unwrap());
            match content {
                Some(content) => fs::write(&path, content).unwrap(),
                None => fs::create_dir(&path).unwrap(),
            }
            chmod(&path, mode);
        }
        copy
    }

    /// The same place when every token was taken away.
    pub(crate) fn without_tokens(self) -> Self {
        Self { hsm: SoftHsm::new(), ..self }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub(crate) fn token(&self, label: &str) -> TestToken {
        self.hsm.init_token(label, SO_PIN, PIN)
    }

    /// The program in this place. `setsid` leaves the terminal of whoever runs the tests behind.
    pub(crate) fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        let (name, value) = self.hsm.env();
        command.args(arguments).current_dir(self.home.path());
        // tpm2-tss tells of each failure, in words that differ from version to version.
        command.env("TSS2_LOG", "all+none");
        command.env("HOME", self.home.path()).env_remove("XDG_DATA_HOME").env_remove("COLUMNS").env(name, value);
        command
    }

    pub(crate) fn run_with(&self, arguments: &[&str], stdin: &[u8]) -> Output {
        let mut child = self
            .command("setsid", &[&["--wait", PROGRAM], arguments].concat())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A program that does not read its stdin closes it.
        let _ = child.stdin.take().unwrap().write_all(stdin);
        child.wait_with_output().unwrap()
    }

    /// Runs a command that succeeds; gives its stdout.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run_with(arguments, b"");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The same with `--json`, parsed.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.ok(&[arguments, &["--json"]].concat())).unwrap()
    }

    /// Runs commands and gives all that a person sees, for a snapshot.
    pub(crate) fn transcript(&self, commands: &[&[&str]]) -> String {
        commands
            .iter()
            .fold(String::new(), |text, arguments| text + &self.shown(arguments, &self.run_with(arguments, b"")))
    }

    /// Runs a command that fails with `code`, checks that it changed nothing, and gives what a person sees.
    pub(crate) fn fails(&self, code: i32, arguments: &[&str]) -> String {
        self.fails_with(code, arguments, b"")
    }

    pub(crate) fn fails_with(&self, code: i32, arguments: &[&str], stdin: &[u8]) -> String {
        let before = self.contents();
        let output = self.run_with(arguments, stdin);
        let shown = self.shown(arguments, &output);
        assert_eq!(output.status.code(), Some(code), "{shown}");
        assert_eq!(output.stdout, b"", "{shown}");
        assert!(self.contents() == before, "a failure changed something: {shown}");
        shown
    }

    fn shown(&self, arguments: &[&str], output: &Output) -> String {
        let quoted = arguments.iter().fold(String::new(), |text, argument| {
            let plain = argument.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./:=".contains(&byte));
            if plain && !argument.is_empty() { format!("{text} {argument}") } else { format!("{text} '{argument}'") }
        });
        let mut text = format!("$ claviger-ceremony{quoted}\n");
        for (stream, bytes) in [("out", &output.stdout), ("err", &output.stderr)] {
            for line in String::from_utf8_lossy(bytes).lines() {
                text += &format!("{stream}| {line}\n");
            }
        }
        text += &format!("exit {}\n\n", output.status.code().map_or("by signal".to_owned(), |code| code.to_string()));
        let (_, conf) = self.hsm.env();
        text.replace(conf.parent().unwrap().to_str().unwrap(), "[SOFTHSM]")
            .replace(self.home.path().to_str().unwrap(), "[HOME]")
    }

    /// Every file and directory in this place, with its mode and content.
    pub(crate) fn contents(&self) -> BTreeMap<PathBuf, (u32, Option<Vec<u8>>)> {
        let mut all = BTreeMap::new();
        let mut directories = vec![self.home.path().to_owned()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(&directory).unwrap() {
                let path = entry.unwrap().path();
                let meta = fs::symlink_metadata(&path).unwrap();
                let content = meta.is_file().then(|| fs::read(&path).unwrap());
                if meta.is_dir() {
                    directories.push(path.clone());
                }
                all.insert(path, (meta.permissions().mode(), content));
            }
        }
        all
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        chmod(&path, 0o600);
        path.to_str().unwrap().to_owned()
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// A machine with a key of its own on a token of its own; its store is in the directory of its name, its card beside it.
    pub(crate) fn machine(&self, name: &str, curve: &str, more: &[&str]) -> TestToken {
        let token = self.token(name);
        let made = self.ok(&["token", "generate", "--curve", curve, &token.uri_with_pin("noise")]);
        self.ok(
            &[&["--store", name, "init", "--name", name, "--role", "cosigner", "--token", made.trim()], more].concat()
        );
        self.ok(&["--store", name, "export"]);
        token
    }

    pub(crate) fn words(&self, machine: &str) -> String {
        self.json(&["--store", machine, "show"])["fingerprint"]["words"].as_str().unwrap().to_owned()
    }
}

pub(crate) fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Compares with the snapshot of this name.
pub(crate) fn snapshot(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    for (expression, replacement) in FILTERS {
        settings.add_filter(expression, replacement);
    }
    // A JSON line's words, which end with a quotation mark.
    settings.add_filter(r#""words":"[a-z ]+""#, r#""words":"[WORDS]""#);
    settings.bind(|| insta::assert_snapshot!(name, text));
}
