//! kill -9 while a process writes: whatever it reported is there, and nothing is half there.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use super::*;

/// Names the store for the writer process.
const STORE: &str = "CLAVIGER_TEST_WRITER_STORE";
/// The number of its first peer.
const FIRST: &str = "CLAVIGER_TEST_WRITER_FIRST";
/// How many times a writer is killed.
const ROUNDS: u16 = 40;

/// Not a test of its own: the process that the tests below start and kill. It records and removes peers, says on stdout what has been
/// committed, and goes on until it is killed or nobody reads that any more.
#[test]
fn writer() {
    let (Some(dir), Ok(first)) = (std::env::var_os(STORE), std::env::var(FIRST)) else { return };
    let mut store = Store::open(Path::new(&dir)).unwrap();
    println!("opened");
    for number in first.parse::<u16>().unwrap().. {
        let added = peer(&format!("peer-{number}"), number);
        store.add_peer(&added, "").unwrap();
        writeln!(std::io::stdout(), "added {}", added.identifier).unwrap();
        if number % 2 == 0 {
            store.remove_peer(&added.identifier).unwrap();
            writeln!(std::io::stdout(), "removed {}", added.identifier).unwrap();
        }
    }
}

/// As [`writer`], for the changes that give every secret another key and this machine another identity.
#[test]
fn sealer() {
    let (Some(dir), Ok(first)) = (std::env::var_os(STORE), std::env::var(FIRST)) else { return };
    let mut store = Store::open(Path::new(&dir)).unwrap();
    store.unlock(&in_use(&store)).unwrap();
    println!("opened");
    for number in first.parse::<u16>().unwrap().. {
        let (next, _) = super::life::next(card("wallet", number), 1_900_000_000);
        // A writer before may have been killed within a rotation.
        store.finish_rotation().unwrap();
        store.rotate(&next, &[super::seal::answer(number)]).unwrap();
        writeln!(std::io::stdout(), "rotated").unwrap();
        store.seal(&[in_use(&store)]).unwrap();
        store.finish_rotation().unwrap();
        store.unseal().unwrap();
        store.seal(&[in_use(&store)]).unwrap();
    }
}

/// The public half of a client-authorization secret.
fn public(secret: &ClientAuthSecret) -> [u8; 32] {
    use aws_lc_rs::agreement::{PrivateKey, X25519};
    let key = PrivateKey::from_private_key(&X25519, secret.expose()).unwrap();
    key.compute_public_key().unwrap().as_ref().try_into().unwrap()
}

/// What the token in use answers.
fn in_use(store: &Store) -> SealKey {
    let key = store.machine().unwrap().key().clone();
    super::seal::answer(u16::from_le_bytes([key.as_bytes()[0], key.as_bytes()[1]]))
}

/// A running [`writer`] or [`sealer`], and what it says from now on.
fn start(dir: &Path, first: u16) -> (Child, Lines<BufReader<ChildStdout>>) {
    start_test("writer", dir, first)
}

fn start_test(test: &str, dir: &Path, first: u16) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut writer = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("store::tests::crash::{test}"), "--nocapture"])
        .env(STORE, dir)
        .env(FIRST, first.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("opened")));
    (writer, lines)
}

/// Kills it, and applies everything that it had reported to `reported`.
fn kill((mut writer, lines): (Child, Lines<BufReader<ChildStdout>>), reported: &mut BTreeSet<String>) {
    writer.kill().unwrap();
    lines.for_each(|line| apply(&line.unwrap(), reported));
    writer.wait().unwrap();
}

fn apply(line: &str, reported: &mut BTreeSet<String>) {
    match line.split_once(' ') {
        Some(("added", name)) => drop(reported.insert(name.to_owned())),
        Some(("removed", name)) => drop(reported.remove(name)),
        _ => {}
    }
}

#[test]
fn processes_at_once_all_get_through_and_readers_too() {
    let (_home, store) = store();
    let mut reported = BTreeSet::new();
    let mut writers: Vec<_> = (1..=3).map(|writer| start(store.dir(), writer * 1000)).collect();
    for _ in 0..15 {
        for (_, lines) in &mut writers {
            apply(&lines.next().unwrap().unwrap(), &mut reported);
            store.peers().expect("a reader gets through, whatever the writers are doing");
        }
    }
    let count = writers.len();
    writers.into_iter().for_each(|writer| kill(writer, &mut reported));
    let store = Store::open(store.dir()).unwrap();
    assert_eq!(recorded(&store), replayed(&store));
    let there: BTreeSet<String> = recorded(&store).into_iter().map(|(name, _)| name.to_string()).collect();
    assert!(there.symmetric_difference(&reported).count() <= count, "each may have committed one change unreported");
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
        let mut writer = start(&dir, 1000 * round + 1);
        // However slow the machine, some changes are committed; then the kill comes at a time that differs from round to round.
        for _ in 0..round % 4 {
            apply(&writer.1.next().unwrap().unwrap(), &mut reported);
        }
        std::thread::sleep(Duration::from_micros(997 * u64::from(round) + 131 * u64::from(round % 7)));
        kill(writer, &mut reported);
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

#[test]
#[allow(clippy::disallowed_methods)] // sleep: as above.
fn a_killed_rotation_or_seal_is_made_or_not() {
    let (_home, mut store) = super::seal::sealed();
    store.add_peer(&peer("cosigner", 1), "").unwrap();
    let dir = store.dir().to_owned();
    let mut former = 0;
    for round in 0..ROUNDS {
        let mut sealer = start_test("sealer", &dir, 2000 + 1000 * round);
        if round % 2 == 1 {
            sealer.1.next().unwrap().unwrap();
        }
        std::thread::sleep(Duration::from_micros(1303 * u64::from(round) + 131 * u64::from(round % 7)));
        kill(sealer, &mut BTreeSet::new());

        let mut store = Store::open(&dir).unwrap();
        let state = store.seal_state().unwrap();
        store.unlock(&in_use(&store)).unwrap();
        assert!(store.is_unlocked());
        let machine = store.machine().unwrap();
        if let SealState::Sealed(keys) = &state {
            assert_eq!(keys, &[machine.key().clone()], "round {round}");
        }
        let secret = store.client_auth_secret().unwrap();
        assert_eq!(public(&secret), *machine.card.client_auth.as_bytes(), "round {round}: of this card");
        store.onion_secret().unwrap();
        let secrets = (store.former_onion_secret().unwrap(), store.former_client_auth_secret().unwrap());
        assert_eq!((secrets.0.is_some(), secrets.1.is_some()), (machine.former.is_some(), machine.former.is_some()));
        former += usize::from(machine.former.is_some());
        store.log().unwrap();
        assert_eq!(store.peers().unwrap().len(), 1);
        if state == SealState::Unsealed {
            store.seal(&[in_use(&store)]).unwrap();
        }
    }
    assert!(former > 0 && former < usize::from(ROUNDS), "killed within {former} of {ROUNDS} rotations");
}
