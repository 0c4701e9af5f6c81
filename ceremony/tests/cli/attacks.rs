//! An attacker at each step of a ceremony of four machines. Every check is shown to catch him by itself: the people skip those before it, which is to say that they
//! compare with the words that he brought. What is not caught is asserted, too.

mod cards;
mod plans;
mod proofs;
mod room;
mod stores;
mod successions;
mod tokens;
mod transcripts;

use std::process::Output;

use claviger::identity::IdentityCard;
use serde_json::Value;

use crate::lab::Lab;
use room::{NAMES, Room};

/// A refusal: the two sentences of `--json`.
struct Said {
    kind: String,
    text: String,
}

impl Said {
    fn of(output: &Output) -> Self {
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let line =
            stderr.lines().rev().find(|line| line.starts_with("{\"error\"")).unwrap_or_else(|| panic!("{stderr}"));
        let error = serde_json::from_str::<Value>(line).unwrap()["error"].clone();
        let text = |name: &str| error[name].as_str().unwrap().to_owned();
        Self { kind: text("kind"), text: format!("{} {}", text("message"), text("hint")) }
    }
}

/// What an attacker is caught by.
#[derive(Clone, Copy)]
struct Caught<'a> {
    code: i32,
    kind: &'a str,
    /// What the two sentences say: the machine, and what is wrong.
    says: &'a [&'a str],
}

impl Lab {
    /// A command at a machine is refused for what it is, and changes nothing. Gives the two sentences.
    fn caught(&self, at: &str, command: &[&str], by: Caught<'_>) -> String {
        let arguments = [&["--store", at], command, &["--json"]].concat();
        let before = self.contents();
        let output = self.run_with(&arguments, b"");
        let shown = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(by.code), "{arguments:?}: {shown}");
        let said = Said::of(&output);
        assert_eq!(said.kind, by.kind, "{arguments:?}: {}", said.text);
        for part in by.says {
            assert!(said.text.contains(part), "{arguments:?} does not say {part:?}: {}", said.text);
        }
        assert!(self.contents() == before, "{arguments:?} changed something: {}", said.text);
        said.text
    }

    /// A command at a machine.
    fn at(&self, at: &str, command: &[&str]) -> Value {
        let arguments = [&["--store", at], command, &["--json"]].concat();
        let output = self.run_with(&arguments, b"");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    fn card_of(&self, file: &str) -> IdentityCard {
        IdentityCard::from_text(&self.read(file)).unwrap()
    }

    /// `at` records cards, each with the words that stand on the card itself: nobody compares.
    fn import_unread(&self, at: &str, files: &[&str]) {
        let words: Vec<String> = files.iter().map(|file| self.card_of(file).fingerprint().words()).collect();
        let mut command = [&["import"], files].concat();
        words.iter().for_each(|words| command.extend(["--fingerprint", words]));
        self.at(at, &command);
    }

    fn phrase(&self, at: &str) -> String {
        self.at(at, &["phrase"])["phrase"].as_str().unwrap().to_owned()
    }

    /// `at` confirms what its own screen shows, without a word to anybody.
    fn confirm_alone(&self, at: &str) {
        self.at(at, &["confirm", "--by", "Ada", "--witness", "Grace", "--phrase", &self.phrase(at)]);
    }

    /// The phrase that `honest` reads out is not that of `at`.
    fn phrases_differ(&self, at: &str, honest: &str) {
        let by = Caught { code: 4, kind: "fingerprint-mismatch", says: &["The phrase is not that of this machine"] };
        self.caught(at, &["confirm", "--by", "Ada", "--witness", "Grace", "--phrase", honest], by);
    }

    /// `at` writes its transcript anew, and all are compared: the first difference is of this kind, on this machine, concerning this member.
    fn transcripts_differ(&self, at: &str, kind: &str, member: Option<&str>) {
        self.at(at, &["transcript", &format!("{at}.transcript"), "--force"]);
        self.differ(kind, at, member);
    }

    fn differ(&self, kind: &str, machine: &str, member: Option<&str>) {
        let (output, report) = self.compared(&[]);
        let found = report["differences"].as_array().unwrap();
        let same = |one: &&Value| one["kind"] == kind && one["machine"] == machine && one["member"].as_str() == member;
        let one = found.iter().find(same).unwrap_or_else(|| panic!("{report}"));
        assert!(one["message"].as_str().unwrap().contains(machine), "{one}");
        let said = Said::of(&output);
        assert_eq!((output.status.code(), said.kind.as_str()), (Some(4), "transcripts-differ"), "{}", said.text);
        assert!(said.text.contains(machine), "{}", said.text);
    }

    /// `transcript verify` of every machine's, and more.
    fn compared(&self, more: &[&str]) -> (Output, Value) {
        let files = NAMES.map(|name| format!("{name}.transcript"));
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        let output = self.run_with(&[&["transcript", "verify", "--json"], &files[..], more].concat(), b"");
        let report = serde_json::from_slice(&output.stdout).unwrap_or_default();
        (output, report)
    }
}
