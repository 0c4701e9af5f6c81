//! The roll call of four machines, one of which is absent, by the program.

use crate::cli::{Listener, command, shown, text};
use crate::support::{Machine, pin_file};
use claviger::ceremony::log::Event;
use claviger::ceremony::plan::Plan;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

const PLAN: &str = r#"
plan = 1
name = "four"
[[member]]
name = "coordinator"
role = "coordinator"
[[member]]
name = "cosigner"
role = "cosigner"
[[member]]
name = "tower"
role = "tower"
[[member]]
name = "wallet"
role = "wallet"
[[edge]]
from = "wallet"
to = ["cosigner", "coordinator"]
service = "sign"
[[edge]]
from = "wallet"
to = "cosigner"
service = "status"
[[edge]]
from = "cosigner"
to = "coordinator"
service = "report"
[[edge]]
from = "coordinator"
to = ["tower", "wallet"]
service = "watch"
"#;

/// The four, each with the cards of the others and the plan.
fn four() -> (BTreeMap<&'static str, Machine>, BTreeMap<&'static str, PathBuf>) {
    let plan = Plan::from_toml(PLAN).unwrap();
    let names = ["coordinator", "cosigner", "tower", "wallet"];
    let mut machines: BTreeMap<_, _> = names.into_iter().map(|name| (name, Machine::planned(name, &plan))).collect();
    for name in names {
        let mut machine = machines.remove(name).unwrap();
        for (other, their) in &machines {
            machine.store().add_card(&their.card, "test").unwrap();
            if plan.joins(&name.parse().unwrap(), &other.parse().unwrap()) {
                machine.config.transport.tcp.peers.insert(their.card.identifier.clone(), their.address());
            }
        }
        machines.insert(name, machine);
    }
    let dirs = machines.iter_mut().map(|(name, machine)| (*name, machine.configure(&pin_file(machine)))).collect();
    (machines, dirs)
}

fn start(dir: &Path, more: &[&str]) -> Child {
    let mut command = command(&[&["--store", text(dir), "rollcall"], more].concat());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn along_every_edge() {
    let (machines, dirs) = four();
    let running: Vec<_> = ["coordinator", "cosigner", "wallet"]
        .into_iter()
        .map(|name| (name, start(&dirs[name], &["--json", "--timeout", "25s"])))
        .collect();
    let mut lines: BTreeMap<(&str, String, String, String), Value> = BTreeMap::new();
    for (name, child) in running {
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        // Only the edge to the machine that is absent fails.
        let code = if name == "coordinator" { 11 } else { 0 };
        assert_eq!(output.status.code(), Some(code), "{name}: {said}");
        for line in String::from_utf8(output.stdout).unwrap().lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let field = |field: &str| line[field].as_str().unwrap().to_owned();
            let key = (name, field("direction"), field("peer"), field("service"));
            assert!(lines.insert(key, line).is_none(), "an edge twice");
        }
    }
    assert_eq!(lines.len(), 11, "five edges between those who came, at both ends, and one to who did not");
    let mut words = Vec::new();
    for ((name, direction, peer, service), line) in &lines {
        if peer == "tower" {
            assert_eq!([&line["outcome"], &line["reason"]], ["failed", "unreachable"]);
            assert_eq!([&line["reached"], &line["authenticated"]], [false, false]);
            continue;
        }
        assert_eq!(line["outcome"], "present", "{name} {direction} {peer}: {line}");
        assert_eq!([&line["pattern"], &line["token_operations"]], [&Value::from("KK"), &Value::from(2)]);
        let other = if direction == "outgoing" { "incoming" } else { "outgoing" };
        let there = machines.keys().find(|other| *other == peer).unwrap();
        let there = &lines[&(*there, other.to_owned(), (*name).to_owned(), service.clone())];
        assert_eq!(line["words"], there["words"]);
        words.push(line["words"].as_str().unwrap().to_owned());
    }
    assert!(words.iter().all(|words| words.split(' ').count() == 4));
    words.sort();
    words.dedup();
    assert_eq!(words.len(), 5, "words of its own for each edge");

    // What came of it stands in each machine's log.
    for (name, edges) in [("coordinator", 4), ("cosigner", 3), ("wallet", 4)] {
        let log = machines[name].store().log().unwrap();
        let called: Vec<_> = log.iter().filter(|entry| entry.event == Event::RollCalled).collect();
        assert_eq!(called.len(), edges, "{name}");
        assert!(called.iter().all(|entry| entry.detail.contains("; ")), "{called:?}");
    }
}

/// Without a plan every peer is dialled and expected. One that listens for something else is told apart from one that is absent.
#[test]
fn without_a_plan() {
    let (mut wallet, mut cosigner) = (Machine::software("wallet"), Machine::software("cosigner"));
    wallet.introduce(&mut cosigner);
    let dirs = [&mut wallet, &mut cosigner].map(|machine| machine.configure(&pin_file(machine)));
    let [here, there] = [0, 1].map(|at| start(&dirs[at], &["--timeout", "30s", "--json"]));
    let lines = [here, there].map(|child| {
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        let lines = String::from_utf8(output.stdout).unwrap();
        let mut words: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        words.sort_by_key(|line: &Value| line["words"].to_string());
        words.into_iter().map(|line| line["words"].clone()).collect::<Vec<_>>()
    });
    assert_eq!((lines[0].len(), &lines[0]), (2, &lines[1]));

    let listener = Listener::start(&["--store", text(&dirs[1]), "listen", "--echo"]);
    listener.says("cosigner is reachable.");
    let output = start(&dirs[0], &["--timeout", "4s", "--json"]).wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(11));
    let lines = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let outgoing = lines.iter().find(|line| line["direction"] == "outgoing").unwrap();
    assert_eq!([&outgoing["reached"], &outgoing["authenticated"]], [true, true], "{outgoing}");
    assert_eq!(outgoing["reason"], "roll-call-failed");
}

/// What people see: of one edge that works and of one that does not, and when they have enough of waiting.
#[test]
fn for_people() {
    let (machines, dirs) = four();
    let wallet = start(&dirs["wallet"], &["--timeout", "30s", "--only", "coordinator"]);
    let coordinator = start(&dirs["coordinator"], &["--timeout", "6s"]);
    let mut seen = String::new();
    for child in [wallet, coordinator] {
        let output = child.wait_with_output().unwrap();
        let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert!(out.lines().all(|line| line.chars().count() <= 80), "{out}");
        // Edge by edge, as it happened.
        for told in ["Roll call of", "coordinator (sign): |wallet (sign): ", " edges done; waiting for "] {
            assert!(told.split('|').any(|told| err.contains(told)), "{told}: {err}");
        }
        seen += &format!("{out}exit {}\n\n", output.status.code().unwrap());
    }
    snapshot("rollcall", &seen);

    let children = [start(&dirs["cosigner"], &[]), start(&dirs["tower"], &["--json"])];
    std::thread::sleep(Duration::from_secs(4));
    let [people, program] = children.map(|child| {
        let leader = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process_group(leader, rustix::process::Signal::INT).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    });
    assert!(people.contains("not yet") && people.contains("coordinator"), "{people}");
    let line: Value = serde_json::from_str(program.trim_end()).unwrap();
    assert_eq!([&line["peer"], &line["outcome"]], ["coordinator", "unfinished"]);
    drop(machines);
}

/// A machine that calls some edges only has no word for the others: who dials one of those tries again, and is not told that the plans differ.
#[test]
fn others_are_left_for_later() {
    let (machines, dirs) = four();
    let cosigner = start(&dirs["cosigner"], &["--only", "coordinator", "--timeout", "50s", "--json"]);
    for (only, patience, code) in [("wallet", "8s", 11), ("cosigner", "40s", 0)] {
        let coordinator = start(&dirs["coordinator"], &["--only", only, "--timeout", patience, "--json"]);
        let output = coordinator.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let output = cosigner.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
    drop(machines);
}

#[test]
fn misuse() {
    let (machines, dirs) = four();
    let home = machines["tower"].dir.path().to_str().unwrap().to_owned();
    let hide = [(home.as_str(), "[HOME]")];
    let store = text(&dirs["tower"]);
    let seen = shown(2, &["rollcall", "--timeout", "1d"], &hide)
        + &shown(4, &["--store", store, "rollcall", "--only", "wallet"], &hide)
        + &shown(4, &["--store", store, "--json", "rollcall", "--only", "nobody"], &hide);
    snapshot("rollcall-misuse", &seen);
}

fn snapshot(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    // Words, and what takes longer or shorter; edges end in any order.
    settings.add_filter(r"\b([a-z]{3,8} ){3}[a-z]{3,8}(\n|$)", "[WORDS]$2");
    settings.add_filter(r" +([0-9]+\.[0-9] s|[0-9]+ ms)", " [TIME]");
    settings.add_filter(r" +TIME", " TIME");
    settings.bind(|| crate::cli::snapshot(name, text));
}
