//! Questions, on a pseudo-terminal.

use rexpect::process::WaitStatus;
use rexpect::session::{PtySession, spawn_command};

use crate::lab::{Lab, PROGRAM};

const TIMEOUT_MS: u64 = 60_000;

impl Lab {
    /// On a terminal that shows what is typed, as people's do; rexpect's does not by itself.
    pub(crate) fn on_a_terminal(&self, arguments: &[&str]) -> PtySession {
        self.shell(r#"stty echo; exec "$0" "$@""#, arguments)
    }

    /// `script` finds the program and its arguments in `$0` and `$@`.
    fn shell(&self, script: &str, arguments: &[&str]) -> PtySession {
        let command = self.command("sh", &[&["-c", script, PROGRAM], arguments].concat());
        spawn_command(command, Some(TIMEOUT_MS)).unwrap()
    }
}

/// Reads to the end, and gives what was shown and the exit code.
pub(crate) fn ended(mut session: PtySession) -> (String, i32) {
    let shown = session.exp_eof().unwrap();
    match session.process().wait().unwrap() {
        WaitStatus::Exited(_, code) => (shown, code),
        other => panic!("{other:?}: {shown}"),
    }
}

pub(crate) fn type_at(session: &mut PtySession, prompt: &str, answer: &str) -> String {
    let before = session.exp_string(prompt).unwrap();
    session.send_line(answer).unwrap();
    before
}

#[test]
fn a_software_machine() {
    let lab = Lab::new();
    let mut session = lab.on_a_terminal(&["token", "generate", "--curve", "p256", "file:key.pem"]);
    let warned = type_at(&mut session, "New passphrase of", "correct horse");
    assert!(warned.contains("SOFTWARE key"), "{warned}");
    type_at(&mut session, "The same again: ", "correct house");
    type_at(&mut session, "New passphrase of", "correct horse");
    type_at(&mut session, "The same again: ", "correct horse");
    let (shown, code) = ended(session);
    assert!(code == 0 && shown.contains("Made a software key on p256"), "{shown}");
    assert!(!shown.contains("horse"), "the passphrase was echoed: {shown}");
    assert!(shown.contains(&format!("file:{}", lab.path("key.pem").display())), "the path is absolute: {shown}");

    let init = ["init", "--name", "wallet", "--role", "wallet", "--token", "file:key.pem"];
    let mut session = lab.on_a_terminal(&init);
    type_at(&mut session, "Passphrase of", "wrong");
    let (shown, code) = ended(session);
    assert!(code == 7 && !lab.path(".local").exists(), "{shown}");
    let mut session = lab.on_a_terminal(&init);
    type_at(&mut session, "Passphrase of", "correct horse");
    let (shown, code) = ended(session);
    assert!(code == 0 && shown.contains("  token          software") && shown.contains("      file:/"), "{shown}");
    lab.ok(&["export"]);
    assert!(lab.read("wallet.card").contains("token: software\n"));

    let mut session = lab.on_a_terminal(&["token", "list", "--key-file", "key.pem"]);
    type_at(&mut session, "Passphrase of", "correct horse");
    let (shown, code) = ended(session);
    assert!(code == 0 && shown.contains("software key on p256"), "{shown}");
}

#[test]
fn a_pin_is_asked_for() {
    let lab = Lab::new();
    let token = lab.token("cosigner");
    lab.ok(&["token", "generate", "--curve", "x25519", &token.uri_with_pin("noise")]);
    let init = ["init", "--name", "cosigner", "--role", "cosigner", "--token", &token.uri("noise")];
    let mut session = lab.on_a_terminal(&init);
    type_at(&mut session, "PIN of", "000000");
    let (shown, code) = ended(session);
    assert!(code == 7 && !lab.path(".local").exists(), "{shown}");
    let mut session = lab.on_a_terminal(&init);
    type_at(&mut session, "PIN of", token.pin());
    let (shown, code) = ended(session);
    assert!(code == 0 && !shown.contains(token.pin()), "{shown}");
}

#[test]
fn an_interrupted_prompt_gives_the_terminal_back() {
    let lab = Lab::new();
    // The shell, which the terminal interrupts as well, tells after the program whether the terminal shows again what is typed.
    let script = r#"trap : INT; stty echo; "$0" "$@"; echo "code=$?"; stty -a"#;
    let mut session = lab.shell(script, &["token", "generate", "--curve", "x25519", "file:key.pem"]);
    session.exp_string("New passphrase of").unwrap();
    session.send_control('c').unwrap();
    let (shown, _) = ended(session);
    assert!(shown.contains("code=130"), "{shown}");
    assert!(shown.contains(" echo ") && shown.contains(" icanon "), "{shown}");
    assert!(!lab.path("key.pem").exists());
}

/// Reads the question and gives the numbers of the two words that are left out, from 1.
fn asked(session: &mut PtySession, words: &str) -> [usize; 2] {
    let shown = session.exp_string("left out here.").unwrap();
    // Two rows of four.
    let rows = shown.lines().skip_while(|line| !line.trim_start().starts_with("words ")).take(2);
    let left: Vec<&str> = rows.flat_map(str::split_whitespace).skip(1).collect();
    let real: Vec<&str> = words.split(' ').collect();
    let hidden: Vec<usize> = (0..8).filter(|&at| left[at] != real[at]).map(|at| at + 1).collect();
    assert!(!shown.contains(words), "all words are shown: {shown}");
    hidden.try_into().unwrap()
}

#[test]
fn words_are_compared() {
    let lab = Lab::new();
    lab.machine("wallet", "x25519", &[]);
    lab.machine("cosigner", "x25519", &[]);
    let words = lab.words("cosigner");
    let word = |number: usize| words.split(' ').nth(number - 1).unwrap();
    let import = ["--store", "wallet", "import", "cosigner.card"];

    // Another word of the list: refused at once.
    let mut session = lab.on_a_terminal(&import);
    let [first, _] = asked(&mut session, &words);
    type_at(&mut session, &format!("Word {first}: "), if word(first) == "zoo" { "abandon" } else { "zoo" });
    let (shown, code) = ended(session);
    assert!(code == 4 && shown.contains("was not recorded"), "{shown}");

    // Nothing typed: declined. The second word wrong: refused, too.
    let mut session = lab.on_a_terminal(&import);
    let [first, _] = asked(&mut session, &words);
    type_at(&mut session, &format!("Word {first}: "), "");
    assert_eq!(ended(session).1, 4);
    let mut session = lab.on_a_terminal(&import);
    let [first, second] = asked(&mut session, &words);
    type_at(&mut session, &format!("Word {first}: "), word(first));
    type_at(&mut session, &format!("Word {second}: "), if word(second) == "zoo" { "abandon" } else { "zoo" });
    assert_eq!(ended(session).1, 4);
    // "yes" is not a word of the list, and no answer.
    let mut session = lab.on_a_terminal(&import);
    let [first, _] = asked(&mut session, &words);
    for _ in 0..3 {
        type_at(&mut session, &format!("Word {first}: "), "yes");
    }
    assert_eq!(ended(session).1, 4);
    assert_eq!(lab.json(&["--store", "wallet", "peers"])["peers"].as_array().unwrap().len(), 0);

    // A slip of the pen, then both words, one in capitals.
    let mut session = lab.on_a_terminal(&import);
    let [first, second] = asked(&mut session, &words);
    type_at(&mut session, &format!("Word {first}: "), "zooo");
    type_at(&mut session, &format!("Word {first}: "), &word(first).to_uppercase());
    type_at(&mut session, &format!("Word {second}: "), word(second));
    let (shown, code) = ended(session);
    assert!(code == 0 && shown.contains("Peer \"cosigner\" is recorded."), "{shown}");
    assert_eq!(lab.json(&["--store", "wallet", "log"])["log"][2]["detail"], "words compared; no attestation");

    let remove = ["--store", "wallet", "remove", "cosigner"];
    let mut session = lab.on_a_terminal(&remove);
    type_at(&mut session, "Type cosigner to remove it: ", "yes");
    assert_eq!(ended(session).1, 4);
    let mut session = lab.on_a_terminal(&remove);
    type_at(&mut session, "Type cosigner to remove it: ", "cosigner");
    let (shown, code) = ended(session);
    assert!(code == 0 && shown.contains("is removed"), "{shown}");
}
