use super::*;
use std::os::unix::fs::PermissionsExt as _;

fn config(limit: u32) -> Config {
    let mut config = Config::default();
    config.log.connections = limit;
    config
}

fn events(count: u64) -> Vec<Dated> {
    (0..count).map(|at| (at, Event::Started { version: format!("{at}") })).collect()
}

fn all(dir: &Path) -> Vec<Entry> {
    Log::open(dir).unwrap().entries(&Filter { limit: usize::MAX, ..Filter::default() }).unwrap()
}

fn texts(dir: &Path) -> Vec<String> {
    all(dir).into_iter().map(|entry| entry.event.unwrap().to_string()).collect()
}

fn wait(written: &mut watch::Receiver<Report>, wanted: fn(&Report) -> bool) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let until = written.wait_for(wanted);
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), until).await.unwrap().unwrap().clone() })
}

fn change(dir: &Path, sql: &str) {
    rusqlite::Connection::open(dir.join(FILE_NAME)).unwrap().execute_batch(sql).unwrap();
}

#[test]
fn it_is_written_and_read() {
    let dir = tempfile::tempdir().unwrap();
    let books = Books::new(&config(10), dir.path());
    books.begin().unwrap();
    let mut written = books.0.written.subscribe();
    wait(&mut written, |report| report.last == 1);
    {
        // The thread takes all of it or nothing.
        let mut state = books.lock();
        (0..5).for_each(|_| state.queue.refused("wallet", "ssh", "not-allowed"));
    }
    wait(&mut written, |report| report.last == 2);
    books.note(Event::TokenLost { state: "absent".into(), reason: Some("token-absent".into()) });
    books.end();
    let expected = [
        concat!("the daemon started, release ", env!("CARGO_PKG_VERSION")),
        "wallet asked for ssh: 5 streams refused, not-allowed",
        "the token is lost: absent, token-absent",
        "the daemon stopped",
    ];
    assert_eq!(texts(dir.path()), expected);
    assert_eq!(books.report().last, 4);
    let mode = std::fs::metadata(dir.path().join(FILE_NAME)).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    // The next daemon goes on with the chain.
    let books = Books::new(&config(10), dir.path());
    books.begin().unwrap();
    books.end();
    let log = Log::open(dir.path()).unwrap();
    let (chain, _) = log.verify(None).unwrap();
    assert_eq!((chain.flaw, chain.head, chain.anchor.sequence), (None, log.head().unwrap(), 0));
    assert_eq!(chain.head.sequence, 6);
    let of = |filter| log.entries(&filter).unwrap().len();
    assert_eq!(of(Filter { peer: Some("wallet".into()), limit: 9, ..Filter::default() }), 1);
    assert_eq!(of(Filter { peer: Some("cosigner".into()), limit: 9, ..Filter::default() }), 0);
    assert_eq!(of(Filter { failed: true, limit: 9, ..Filter::default() }), 2);
    assert_eq!(of(Filter { after: 4, limit: 9, ..Filter::default() }), 2);
    assert_eq!(of(Filter { since: now() + 1000, limit: 9, ..Filter::default() }), 0);
    let last = log.entries(&Filter { limit: 1, ..Filter::default() }).unwrap();
    assert_eq!((last.len(), last[0].sequence), (1, 6));
}

#[test]
fn the_oldest_go_and_leave_an_anchor() {
    let dir = tempfile::tempdir().unwrap();
    let (mut file, event) = File::open(dir.path()).unwrap();
    assert!(event.is_none());
    let mut noted = Vec::new();
    for _ in 0..30 {
        file.append(&events(7), 100).unwrap();
        noted.push(file.head);
    }
    let log = Log::open(dir.path()).unwrap();
    let entries = all(dir.path());
    assert!((95..=100).contains(&entries.len()), "{}", entries.len());
    assert_eq!(entries.last().unwrap().sequence, 210);
    let of = |head: Head| log.verify(Some(head)).unwrap().1;
    assert_eq!(of(noted[29]), Some(true));
    assert_eq!(of(noted[20]), Some(true));
    assert_eq!(of(noted[0]), None, "it is gone");
    assert_eq!(of(Head { hash: [1; 32], ..noted[20] }), Some(false));
    assert_eq!(of(Head { sequence: 500, hash: [1; 32] }), None);
    // One transaction may bring more than there may be.
    file.append(&events(300), 100).unwrap();
    assert_eq!(log.verify(None).unwrap().0.head, file.head);
    file.append(&events(3), 1).unwrap();
    assert_eq!(all(dir.path()).len(), 1);
    assert_eq!(log.verify(None).unwrap().0.flaw, None);
}

#[test]
fn what_was_changed_is_found_and_kept() {
    let changes = [
        (
            "UPDATE entries SET entry = replace(entry, '3', '9') WHERE sequence = 4",
            "entry 4 does not fit the one before it",
        ),
        ("UPDATE entries SET time = time + 1 WHERE sequence = 4", "entry 4 does not fit the one before it"),
        ("DELETE FROM entries WHERE sequence = 4", "entry 4 is missing"),
        ("DELETE FROM entries WHERE sequence < 4", "entry 1 is missing"),
        ("UPDATE entries SET time = -1 WHERE sequence = 4", "entry 4 is malformed"),
        ("UPDATE anchor SET hash = x'00'", "entry 0 is not there"),
        (
            "UPDATE entries SET sequence = 11 - sequence + 20; UPDATE entries SET sequence = sequence - 20",
            "entry 1 does not fit the one before it",
        ),
        ("PRAGMA application_id = 7", "it is no log of connections"),
        ("PRAGMA user_version = 0", "it is no log of connections"),
        ("DROP TABLE anchor", "it is no log of connections"),
        ("CREATE TRIGGER t AFTER INSERT ON entries BEGIN DELETE FROM entries; END", "it is no log of connections"),
    ];
    for (sql, what) in changes {
        let dir = tempfile::tempdir().unwrap();
        File::open(dir.path()).unwrap().0.append(&events(10), 100).unwrap();
        change(dir.path(), sql);
        let books = Books::new(&config(100), dir.path());
        books.begin().unwrap();
        books.end();
        let said = texts(dir.path());
        assert!(
            said[0].starts_with("a new log began, the old one is kept in connections.db.damaged-"),
            "{sql}: {said:?}"
        );
        assert!(said[0].contains(what), "{sql}: {said:?}");
        assert_eq!(said.len(), 3);
    }
}

#[test]
fn a_damaged_file_is_set_aside_and_few_of_them() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..5 {
        std::fs::write(dir.path().join(FILE_NAME), "this is no database, and was never meant to be one").unwrap();
        let (mut file, event) = File::open(dir.path()).unwrap();
        assert!(matches!(event, Some(Event::NewChain { kept: Some(_), .. })));
        file.append(&events(1), 10).unwrap();
    }
    let kept = std::fs::read_dir(dir.path())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().into_string().unwrap().contains("damaged"));
    assert_eq!(kept.count(), 3);
}

#[test]
fn a_newer_one_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    File::open(dir.path()).unwrap().0.append(&events(1), 10).unwrap();
    change(dir.path(), "PRAGMA user_version = 2");
    assert_eq!(File::open(dir.path()).err().unwrap().kind(), ErrorKind::StoreNewer);
    assert_eq!(Log::open(dir.path()).err().unwrap().kind(), ErrorKind::StoreNewer);
    assert_eq!(Log::open(&dir.path().join("none")).err().unwrap().kind(), ErrorKind::StoreAbsent);
}

#[test]
fn what_can_not_be_written_waits_for_room() {
    let dir = tempfile::tempdir().unwrap();
    // Nothing can be made where a directory is.
    std::fs::create_dir(dir.path().join(FILE_NAME)).unwrap();
    let books = Books::new(&config(10_000), dir.path());
    books.begin().unwrap();
    let mut written = books.0.written.subscribe();
    let report = wait(&mut written, |report| report.trouble.is_some());
    assert_eq!(report.trouble.unwrap().reason, "store-permissions");
    (0..QUEUE).for_each(|_| books.note(Event::TokenBack {}));
    wait(&mut written, |report| report.dropped == 1);
    (0..1000).for_each(|_| books.note(Event::TokenBack {}));
    wait(&mut written, |report| report.dropped == 1001);
    (0..1000).for_each(|_| books.note(Event::TokenBack {}));
    wait(&mut written, |report| report.dropped == 2001);
    std::fs::remove_dir(dir.path().join(FILE_NAME)).unwrap();
    wait(&mut written, |report| report.last == QUEUE as u64);
    books.end();
    let said = texts(dir.path());
    let [kept @ .., end, lacks] = said.as_slice() else { panic!("{said:?}") };
    assert_eq!(kept.len(), QUEUE, "{:?}", &kept[..2]);
    assert!(kept[0].starts_with("the daemon started") && kept[1..].iter().all(|said| said == "the token is back"));
    assert_eq!([end, lacks], ["the daemon stopped", "2001 entries found no room and are missing here"]);
    assert_eq!((books.report().trouble, books.report().dropped), (None, 2001));
}

#[test]
fn a_file_that_is_taken_away_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let books = Books::new(&config(10), dir.path());
    books.begin().unwrap();
    wait(&mut books.0.written.subscribe(), |report| report.last == 1);
    for suffix in ["", "-wal", "-shm"] {
        std::fs::remove_file(dir.path().join(format!("{FILE_NAME}{suffix}"))).unwrap();
    }
    books.end();
    assert_eq!(
        texts(dir.path()),
        ["a new log began: the file was taken away while the daemon ran", "the daemon stopped"]
    );
}

/// Whoever reads is another process, as `claviger log` is: locks of one process do not keep it from itself, and SQLite in it would truncate what is mapped.
#[test]
fn whoever_reads_is_in_nobodys_way_when_it_is_begun_anew() {
    const READER: &str = "CLAVIGER_TEST_READER";
    if let Some(dir) = std::env::var_os(READER) {
        let dir = PathBuf::from(dir);
        while dir.exists() && !dir.join("over").exists() {
            std::thread::yield_now();
            let _ = Log::open(&dir).and_then(|log| log.entries(&Filter { limit: 9, ..Filter::default() }));
        }
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut reader = std::process::Command::new(std::env::current_exe().unwrap());
    reader.args(["--exact", "daemon::connections::tests::whoever_reads_is_in_nobodys_way_when_it_is_begun_anew"]);
    let mut reader = reader.env(READER, dir.path()).stdout(std::process::Stdio::null()).spawn().unwrap();
    let (mut file, _) = File::open(dir.path()).unwrap();
    let mut outcome = Ok(());
    let until = Instant::now() + Duration::from_secs(10);
    for round in 0..200 {
        if Instant::now() > until {
            break;
        }
        let began = file.append(&events(1), 10).and_then(|()| {
            std::fs::remove_file(dir.path().join(FILE_NAME)).unwrap();
            File::open(dir.path())
        });
        match began {
            Ok((anew, _)) => file = anew,
            Err(error) => {
                outcome = Err(format!("{round}: {error} {:?}", error.cause()));
                break;
            }
        }
    }
    std::fs::write(dir.path().join("over"), "").unwrap();
    assert!(reader.wait().unwrap().success());
    assert_eq!(outcome, Ok(()));
}

/// As it is left on a medium that can not be written.
#[test]
fn it_is_read_where_nothing_can_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let books = Books::new(&config(10), dir.path());
    books.begin().unwrap();
    books.end();
    drop(books);
    let set = |mode| std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(mode)).unwrap();
    set(0o500);
    let read = Log::open(dir.path()).and_then(|log| log.entries(&Filter { limit: 9, ..Filter::default() }));
    set(0o700);
    assert_eq!(read.unwrap().len(), 2);
}

#[test]
fn none_is_kept_when_none_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let books = Books::new(&config(0), dir.path());
    books.begin().unwrap();
    books.end();
    assert!(!dir.path().join(FILE_NAME).exists());
}
