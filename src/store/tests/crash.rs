//! kill -9 while a process writes: whatever it reported is there, and nothing is half there.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::*;

/// Names the store for the writer process.
const STORE: &str = "CLAVIGER_TEST_CRASH_STORE";
/// How many times a writer is killed.
const ROUNDS: u64 = 40;

/// Not a test of its own: the process that [`killed_writers_lose_nothing`] starts and kills. It records and removes peers for ever and
/// says on stdout what has been committed.
#[test]
fn writer() {
    let Some(dir) = std::env::var_os(STORE) else { return };
    let mut store = Store::open(Path::new(&dir)).unwrap();
    println!("opened");
    let first = u16::try_from(store.changed().unwrap()).unwrap();
    for number in first.. {
        let added = peer(&format!("peer-{number}"), number);
        store.add_peer(&added, "").unwrap();
        writeln!(std::io::stdout(), "added {}", added.identifier).unwrap();
        if number % 2 == 0 {
            store.remove_peer(&added.identifier).unwrap();
            writeln!(std::io::stdout(), "removed {}", added.identifier).unwrap();
        }
    }
}

#[test]
#[allow(clippy::disallowed_methods)] // sleep: the moment of the kill is what this test draws at random.
fn killed_writers_lose_nothing() {
    let (_home, store) = store();
    let dir = store.dir().to_owned();
    drop(store);
    let mut reported = BTreeSet::new();
    let mut interrupted = 0;
    for round in 0..ROUNDS {
        let mut writer = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::tests::crash::writer", "--nocapture"])
            .env(STORE, &dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines();
        // Wait until it writes, then let it run for a time that differs from round to round.
        assert!(lines.any(|line| line.unwrap().contains("opened")));
        std::thread::sleep(Duration::from_micros(2_003 * round + 131 * (round % 7)));
        writer.kill().unwrap();
        for line in lines {
            let line = line.unwrap();
            match line.split_once(' ') {
                Some(("added", name)) => drop(reported.insert(name.to_owned())),
                Some(("removed", name)) => drop(reported.remove(name)),
                _ => {}
            }
        }
        writer.wait().unwrap();
        interrupted += usize::from(dir.join("store.db-journal").exists());

        let store = Store::open(&dir).unwrap(); // Checks the structure, after rolling back.
        assert_eq!(recorded(&store), replayed(&store), "round {round}: the log tells what is recorded");
        let there: BTreeSet<String> = recorded(&store).into_iter().map(|(name, _)| name.to_string()).collect();
        // The last change may have been committed and not reported.
        let unreported = there.symmetric_difference(&reported).count();
        assert!(unreported <= 1, "round {round}: {unreported} changes differ from what was reported");
        for name in reported.difference(&there) {
            let last = store.log().unwrap().pop().unwrap();
            assert_eq!((last.event, last.subject.as_str()), (Event::PeerRemoved, name.as_str()), "lost");
        }
        reported = there;
    }
    // A journal that was not yet valid when its writer died is left for the next writer to overwrite.
    Store::open(&dir).unwrap().add_peer(&peer("last", u16::MAX - 1), "").unwrap();
    assert_eq!(listing(&dir), ["store.db"]);
    assert!(reported.len() > 20, "the writers wrote too little to tell: {}", reported.len());
    println!("{interrupted} of {ROUNDS} writers were killed inside a transaction; {} peers recorded", reported.len());
}
