//! What breaks around a whole `claviger run`: it goes on with what is left, says what is wrong, and is what it was when that is mended.

use crate::cli::{PROGRAM, run as program, text};
use crate::daemon_abuse::{Honest, endless, logged, said, scene, strangers};
use crate::daemon_services::{Caller, SOON};
use crate::daemon_soak::{Held, echo};
use crate::daemon_status::{Running, peer};
use crate::servers::free;
use crate::support::{Machine, run};
use claviger::identity::Curve;
use claviger::session::{Reset, error_of, reset_of};
use claviger_testkit::cards::{self, Card, Pcscd};
use rustix::mount::{MountFlags, mount};
use std::future::pending;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{sleep, timeout};

/// Says something to a forward, and hears it again. `None`: it was cut, or nobody was there. An end before everything was heard is never one.
fn asks(forward: SocketAddr) -> Option<()> {
    let mut stream = std::net::TcpStream::connect(forward).ok()?;
    stream.set_read_timeout(Some(SOON)).unwrap();
    let mut write = stream.try_clone().ok()?;
    let saying = std::thread::spawn(move || {
        let said = write.write_all(&[7; 50_000]);
        said.and_then(|()| write.shutdown(Shutdown::Write)).is_ok()
    });
    let mut heard = Vec::new();
    let ended = stream.read_to_end(&mut heard);
    let said = saying.join().unwrap();
    ended.ok()?;
    assert!(said && heard.len() == 50_000, "an end after {} bytes", heard.len());
    Some(())
}

/// Gives back what was said to it, once that has ended. Half of it is never all.
fn whole(half: &'static AtomicBool) -> SocketAddr {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut heard = Vec::new();
                if stream.read_to_end(&mut heard).is_ok() {
                    half.fetch_or(heard.len() != 50_000, Ordering::Relaxed);
                    let _ = stream.write_all(&heard);
                }
            });
        }
    });
    address
}

fn holds(store: &Path) {
    let output = program(&["--store", text(store), "log", "--verify"], b"");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn killed_under_load_it_is_what_it_was() {
    let [mut wallet, mut cosigner] = ["wallet", "cosigner"].map(Machine::software);
    wallet.introduce(&mut cosigner);
    static HALF: AtomicBool = AtomicBool::new(false);
    let service = format!(
        "[service.echo]\ntarget = \"tcp:{}\"\nallow = [\"wallet\"]\n[service.whole]\ntarget = \"tcp:{}\"\nallow = [\"wallet\"]\n",
        echo(),
        whole(&HALF)
    );
    let forward = free();
    let socket = wallet.dir.path().join("forward.sock");
    let forwards = format!(
        "[[forward]]\nlisten = \"tcp:{forward}\"\nto = \"cosigner/whole\"\n[[forward]]\nlisten = \"unix:{}\"\nto = \"cosigner/echo\"\n[peer.cosigner]\nkeep = true\n",
        text(&socket)
    );
    let mut served = Running::start(&mut cosigner, &service);
    let mut forwarded = Running::start(&mut wallet, &forwards);
    let (done, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    let until_answered = || {
        let (began, before) = (Instant::now(), answered.load(Ordering::Relaxed));
        while answered.load(Ordering::Relaxed) < before + 20 {
            assert!(began.elapsed() < SOON, "nobody answers any more");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let (served, forwarded) = std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    match asks(forward) {
                        Some(()) => drop(answered.fetch_add(1, Ordering::Relaxed)),
                        None => std::thread::sleep(Duration::from_millis(20)),
                    }
                }
            });
        }
        let _over = Over(&done);
        until_answered();
        for _ in 0..2 {
            // For the log of connections, which is written once a second.
            std::thread::sleep(Duration::from_millis(1200));
            drop(served);
            served = Running::start(&mut cosigner, &service);
            until_answered();
            drop(forwarded);
            assert!(socket.exists(), "a killed daemon can not have taken it away");
            forwarded = Running::start(&mut wallet, &forwards);
            until_answered();
        }
        (served, forwarded)
    });
    let mut stream = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    stream.write_all(b"hello").unwrap();
    stream.read_exact(&mut [0; 5]).unwrap();
    for daemon in [&served, &forwarded] {
        holds(&daemon.store);
        assert!(!daemon.process.so_far().any(|line| line.contains("set aside") || line.contains("ERROR")));
    }
    assert!(!HALF.load(Ordering::Relaxed), "half a request passed for a whole one");
    // Of all three lives; what came in the last second of one is not in it.
    let attempts = logged(&served.store, "attempt");
    assert!(attempts.len() >= 4, "{attempts:?}");
}

/// Ends what waits for it, also when a test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Twenty pieces in two seconds.
fn slow() -> SocketAddr {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                (0..20).all(|_| {
                    std::thread::sleep(Duration::from_millis(100));
                    stream.write_all(&[7; 10_000]).is_ok()
                })
            });
        }
    });
    address
}

#[test]
fn told_to_end_under_load() {
    run(async {
        let (daemon, [mut wallet, ..]) = scene(&format!(
            "[service.slow]\ntarget = \"tcp:{}\"\nallow = [\"wallet\"]\n[service.endless]\ntarget = \"tcp:{}\"\nallow = [\"wallet\"]\n[daemon]\nshutdown = 6\n",
            slow(),
            endless(),
        ));
        let caller = Caller::new(&mut wallet).await;
        let mut reading = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let mut stream = caller.open("slow").await;
            stream.shutdown().await.unwrap();
            reading.spawn(async move {
                let mut heard = Vec::new();
                stream.read_to_end(&mut heard).await.expect("it ends well");
                assert_eq!(heard.len(), 200_000);
            });
        }
        let mut stream = caller.open("endless").await;
        let cut =
            tokio::spawn(async move { tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.map_err(error_of) });
        sleep(Duration::from_millis(500)).await;
        let began = Instant::now();
        let ending = tokio::task::spawn_blocking(move || daemon.process.stop());
        reading.join_all().await;
        assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
        assert!(cut.await.unwrap().is_err(), "half of it passes for all");
        assert_eq!(ending.await.unwrap(), Some(0));
        assert!((6..12).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    });
}

#[test]
fn as_many_files_as_there_may_be() {
    run(async {
        let [mut wallet, mut cosigner] = ["wallet", "cosigner"].map(Machine::software);
        wallet.introduce(&mut cosigner);
        let service = format!("[service.echo]\ntarget = \"tcp:{}\"\nallow = [\"wallet\"]\n", echo());
        let store = cosigner.configure(&format!("{}\n{service}", crate::support::pin_file(&cosigner)));
        let daemon = Running::of(Command::new(PROGRAM), store);
        let honest = Caller::new(&mut wallet).await;
        let mut stream = honest.open("echo").await;
        let mut goes_on = async || {
            stream.write_all(b"hello").await.unwrap();
            let mut heard = [0; 5];
            timeout(SOON, stream.read_exact(&mut heard)).await.expect("an answer").unwrap();
        };
        goes_on().await;
        said(&daemon, 20);
        let pid = rustix::process::Pid::from_raw(daemon.process.pid() as i32);
        let set = |files| {
            let limit = rustix::process::Rlimit { current: Some(files), maximum: Some(20_000) };
            rustix::process::prlimit(pid, rustix::process::Resource::Nofile, limit).unwrap()
        };
        let former = set(Held::by(daemon.process.pid()).files + 10);
        let crowd = strangers(cosigner.address(), 100, |stream| async move {
            let _stream = stream;
            pending().await
        })
        .await;
        // A second and a half of tries to accept.
        sleep(Duration::from_millis(1500)).await;
        goes_on().await;
        let told = said(&daemon, 12);
        assert_eq!(told.matches("nothing can be accepted for now").count(), 1, "{told}");
        assert!(told.contains("LimitNOFILE"), "{told}");
        // A stream for which there is no file is refused, and nothing else comes of it.
        let mut refused = honest.open("echo").await;
        let error = timeout(SOON, refused.read(&mut [0])).await.expect("an answer").unwrap_err();
        assert_eq!(reset_of(&error_of(error)), Some(Reset::Internal));
        drop(crowd);
        set(former.current.unwrap());
        daemon.until("it answers again", |status| status["phase"] == "running");
        assert_eq!(honest.ask("echo", b"again").await, b"again");
        goes_on().await;
        drop(honest);
        let honest = Honest::new(&mut wallet).await;
        sleep(Duration::from_millis(600)).await;
        honest.noticed_nothing().await;
        assert_eq!(daemon.process.stop(), Some(0));
    });
}

/// Puts a file system of its own, of so many bytes, in the place of a store's directory.
fn on_a_small_disk(store: &Path, bytes: usize) {
    let files: Vec<_> = std::fs::read_dir(store).unwrap().map(|entry| entry.unwrap().path()).collect();
    let kept: Vec<_> = files.iter().map(|path| (path, std::fs::read(path).unwrap())).collect();
    let options = std::ffi::CString::new(format!("size={bytes},mode=700")).unwrap();
    mount("tmpfs", store, "tmpfs", MountFlags::empty(), Some(options.as_c_str())).unwrap();
    for (path, bytes) in kept {
        std::fs::write(path, bytes).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
}

#[test]
fn a_full_disk() {
    cards::isolated(|| {
        run(async {
            let [mut wallet, mut cosigner] = ["wallet", "cosigner"].map(Machine::software);
            wallet.introduce(&mut cosigner);
            let service = format!("[service.echo]\ntarget = \"tcp:{}\"\nallow = [\"wallet\"]\n", echo());
            on_a_small_disk(&cosigner.dir.path().join("store"), 4 << 20);
            let daemon = Running::start(&mut cosigner, &service);
            let honest = Honest::new(&mut wallet).await;
            sleep(Duration::from_millis(1500)).await;
            said(&daemon, 20);
            let filler = daemon.store.join("filler");
            let mut file = std::fs::File::create(&filler).unwrap();
            while file.write_all(&[7; 4096]).is_ok() {}
            drop(file);
            daemon.process.says("fails: the disk is full");
            sleep(Duration::from_millis(2500)).await;
            let told = said(&daemon, 40);
            assert!(!told.contains("the disk is full"), "told more than once: {told}");
            let status = daemon.status();
            assert_eq!(status["phase"], "running", "{status:#}");
            std::fs::remove_file(&filler).unwrap();
            daemon.process.says("the log of connections is written again");
            honest.noticed_nothing().await;
            let store = daemon.store.clone();
            assert_eq!(daemon.process.stop(), Some(0));
            holds(&store);
        });
    });
}

#[test]
fn a_token_that_is_pulled_while_streams_run() {
    cards::isolated(|| {
        let pcscd = Pcscd::start();
        let card = Card::yubikey(&pcscd, 7_000_021);
        let mut wallet = Machine::software("wallet");
        let mut cosigner = Machine::new("cosigner", Some(card.locator()), Curve::X25519, "ChaChaPoly_BLAKE2s");
        wallet.introduce(&mut cosigner);
        run(async {
            let service = format!("[service.echo]\ntarget = \"tcp:{}\"\nallow = [\"wallet\"]\n", echo());
            let daemon = Running::start(&mut cosigner, &service);
            let caller = Caller::new(&mut wallet).await;
            assert_eq!(caller.ask("echo", b"before").await, b"before");
            card.pull();
            daemon.until("it says so", |status| status["token"]["state"] == "absent" && status["well"] == false);
            assert_eq!(caller.ask("echo", b"meanwhile").await, b"meanwhile");
            let cosigner = crate::lab::name("cosigner");
            let never = crate::lab::ANY.resume(claviger::endpoint::Resume::Never);
            caller.endpoint.connect_peer_with(&cosigner, never).await.expect_err("no handshake without it");
            card.insert();
            daemon.until("it is back", |status| status["token"]["state"] != "absent" && status["well"] == true);
            caller.endpoint.connect_peer_with(&cosigner, never).await.expect("a handshake");
            daemon.until("it was asked", |status| status["token"]["state"] == "ready");
            assert_eq!(caller.ask("echo", b"after").await, b"after");
            assert_eq!(peer(&daemon.status(), "wallet")["relation"], "operational");
            assert_eq!(daemon.process.stop(), Some(0));
        });
    });
}

/// By libfaketime: the daemon's wall clock is another one, those that only go on are not.
#[test]
fn a_clock_that_jumps() {
    run(async {
        let [mut wallet, mut cosigner] = ["wallet", "cosigner"].map(Machine::software);
        wallet.introduce(&mut cosigner);
        let service = format!("[service.echo]\ntarget = \"tcp:{}\"\nallow = [\"wallet\"]\n", echo());
        let store = cosigner.configure(&format!("{}\n{service}", crate::support::pin_file(&cosigner)));
        // In a directory that the daemon may read.
        let clock = store.join("clock");
        let set = |offset: &str| {
            std::fs::write(store.join("clock.new"), offset).unwrap();
            std::fs::rename(store.join("clock.new"), &clock).unwrap();
        };
        set("+0");
        let library =
            Path::new("/usr/lib").join(format!("{}-linux-gnu/faketime/libfaketimeMT.so.1", std::env::consts::ARCH));
        assert!(library.exists(), "{} is not there: run scripts/setup", library.display());
        let mut command = Command::new(PROGRAM);
        command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", &clock);
        command.envs([
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("FAKETIME_DISABLE_SHM", "1"),
        ]);
        let daemon = Running::of(command, store.clone());
        let caller = Caller::new(&mut wallet).await;
        let mut stream = caller.open("echo").await;
        let name = crate::lab::name("cosigner");
        let never = crate::lab::ANY.resume(claviger::endpoint::Resume::Never);
        for (offset, seconds) in [("+1d", 86_400_i64), ("-3h", -10_800), ("+0", 0)] {
            set(offset);
            let status = daemon.until("its clock is another", |status| {
                (status["at"].as_i64().unwrap() - crate::support::now() as i64 - seconds).abs() < 5
            });
            assert_eq!(status["phase"], "running", "{status:#}");
            // What runs goes on, and so does what is begun in it.
            stream.write_all(b"hello").await.unwrap();
            timeout(SOON, stream.read_exact(&mut [0; 5])).await.expect("an answer").unwrap();
            assert_eq!(caller.ask("echo", b"more").await, b"more");
            let handshake = caller.endpoint.connect_peer_with(&name, never).await;
            assert_eq!(handshake.is_ok(), seconds == 0, "{offset}: {:?}", handshake.err());
        }
        assert_eq!(daemon.process.stop(), Some(0));
        holds(&store);
        let attempts = logged(&store, "attempt");
        assert_eq!(attempts.iter().filter(|attempt| attempt["reason"] == "knock-stale").count(), 2, "{attempts:?}");
    });
}
