//! A transcript that is edited on its way to who compares them.

use claviger::ceremony::log::{Event, ROOT, chained};
use claviger::ceremony::transcript::Transcript;
use serde_json::{Value, json};

use super::{Room, Said};

/// Every value of it, by its path.
fn leaves(value: &Value, path: String, all: &mut Vec<String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(name, value)| leaves(value, format!("{path}/{name}"), all)),
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(at, value)| leaves(value, format!("{path}/{at}"), all));
        }
        _ => all.push(path),
    }
}

/// Another value of the same form, where that is possible.
fn other(value: &Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_u64().unwrap() + 1),
        Value::Null => json!("0".repeat(32)),
        Value::String(text) => {
            let mut bytes = text.clone().into_bytes();
            let last = bytes.iter_mut().rev().find(|byte| byte.is_ascii_alphanumeric());
            match last {
                Some(last) => {
                    *last = if *last == b'0' {
                        b'1'
                    } else if last.is_ascii_digit() {
                        b'0'
                    } else if *last == b'a' {
                        b'b'
                    } else {
                        b'a'
                    }
                }
                None => bytes.push(b'a'),
            }
            json!(String::from_utf8(bytes).unwrap())
        }
        other => panic!("{other}"),
    }
}

/// What may be changed in a transcript without anybody seeing it, unless it is signed.
const UNSEEN: &[&str] = &["/exported", "/sealed/0"];

#[test]
fn every_field_is_compared() {
    let room = Room::enter();
    let lab = room.confirmed.copy();
    let good: Value = serde_json::from_str(&lab.read("wallet.transcript")).unwrap();
    let mut all = Vec::new();
    leaves(&good, String::new(), &mut all);
    // Of the log one entry of each event.
    let mut events = Vec::new();
    let log = good["log"].as_array().unwrap();
    let told = |at: usize| log[at]["event"].as_str().unwrap().to_owned();
    let firsts: Vec<usize> = (0..log.len())
        .filter(|at| {
            !events.contains(&told(*at)) && {
                events.push(told(*at));
                true
            }
        })
        .collect();
    let entry =
        |path: &str| path.strip_prefix("/log/").map(|rest| rest.split('/').next().unwrap().parse::<usize>().unwrap());
    all.retain(|path| entry(path).is_none_or(|at| firsts.contains(&at)));
    assert!(all.len() > 60, "{all:?}");
    let mut unseen = Vec::new();
    for path in &all {
        let mut edited = good.clone();
        let value = edited.pointer_mut(path).unwrap();
        *value = other(value);
        lab.write("wallet.transcript", edited.to_string());
        let (output, _) = lab.compared(&[]);
        if output.status.success() {
            unseen.push(path.as_str());
            continue;
        }
        let said = Said::of(&output);
        assert!(["transcript-invalid", "transcripts-differ"].contains(&said.kind.as_str()), "{path}: {}", said.text);
        assert!(said.text.contains("wallet"), "{path}: {}", said.text);
    }
    assert_eq!(unseen, UNSEEN);
}

/// Whoever writes the log anew, with all its hashes, has a transcript that holds: the head on paper is not his to write, nor a signature.
#[test]
fn the_log_is_written_anew() {
    let room = Room::enter();
    let lab = room.confirmed.copy();
    let good = Transcript::from_json(lab.read("wallet.transcript").trim_end()).unwrap();
    let mut forged = good.clone();
    let mut before = ROOT;
    for entry in &mut forged.log {
        if entry.event == Event::Witnessed {
            entry.detail = "Mallory".into();
        }
        entry.hash = chained(&before, entry);
        before = entry.hash;
    }
    lab.write("wallet.transcript", forged.to_json());
    let (output, report) = lab.compared(&[]);
    assert!(output.status.success() && report["same"] == true, "{report}");
    let (output, _) = lab.compared(&["--head", &good.head_print().words()]);
    let said = Said::of(&output);
    assert_eq!((output.status.code(), said.kind.as_str()), (Some(4), "transcripts-differ"));
    assert!(said.text.contains("the log was written anew"), "{}", said.text);
    // Beside the one that was there.
    lab.write("good.transcript", good.to_json());
    let (output, _) = lab.compared(&["good.transcript"]);
    assert_eq!(Said::of(&output).kind, "transcripts-differ");
}
