//! The private Tor network against real tor daemons: an onion service reached, a daemon killed and restarted, nothing
//! left behind.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail the test")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use claviger_testkit::tornet::{Auth, Network, Options, TorDaemon, TorProcess};
use data_encoding::HEXLOWER;

/// A file that holds the pids of a network whose owner is to be killed; set only by the test that does so.
const OWNER_DIR: &str = "TORNET_TEST_OWNER_DIR";

fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.starts_with(" Z"))
}

fn await_gone(pids: &[u32], limit: Duration) {
    let end = Instant::now() + limit;
    while pids.iter().any(|pid| alive(*pid)) {
        assert!(Instant::now() < end, "still running: {pids:?}");
        pause();
    }
}

#[allow(clippy::disallowed_methods, reason = "another process's end and a descriptor's upload are polled for")]
fn pause() {
    std::thread::sleep(Duration::from_millis(100));
}

/// A TCP server on loopback that sends back what it gets.
fn echo_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || {
                let mut stream = stream.unwrap();
                let _ = std::io::copy(&mut stream.try_clone().unwrap(), &mut stream);
            });
        }
    });
    address
}

/// A control connection (control-spec). Onion services added on it live as long as it does.
struct Control(BufReader<TcpStream>);

impl Control {
    fn open(tor: &TorProcess, authenticate: &str) -> Self {
        let stream = TcpStream::connect(tor.control_addr().unwrap()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut control = Self(BufReader::new(stream));
        assert_eq!(control.ask(&format!("AUTHENTICATE{authenticate}")), ["250 OK"]);
        control
    }

    fn with_cookie(tor: &TorProcess) -> Self {
        let cookie = std::fs::read(tor.cookie_path().unwrap()).unwrap();
        assert_eq!(cookie.len(), 32);
        Self::open(tor, &format!(" {}", HEXLOWER.encode(&cookie)))
    }

    fn ask(&mut self, command: &str) -> Vec<String> {
        write!(self.0.get_mut(), "{command}\r\n").unwrap();
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            assert_ne!(self.0.read_line(&mut line).unwrap(), 0, "control port closed after {command:?}");
            lines.push(line.trim_end().to_owned());
            if line.get(3..4) == Some(" ") {
                return lines;
            }
        }
    }

    /// Adds an onion service for `target` with a `key` of ADD_ONION; gives the address without `.onion`, and the key.
    fn add_onion(&mut self, key: &str, target: SocketAddr) -> (String, Option<String>) {
        let lines = self.ask(&format!("ADD_ONION {key} Port=80,{target}"));
        let field = |name: &str| lines.iter().find_map(|l| l.strip_prefix(name).map(str::to_owned));
        (field("250-ServiceID=").unwrap_or_else(|| panic!("{lines:?}")), field("250-PrivateKey="))
    }
}

/// One SOCKS5 connect (RFC 1928) to port 80 of an onion service; the reply code on refusal.
fn connect(socks: SocketAddr, onion: &str) -> Result<TcpStream, u8> {
    let host = format!("{onion}.onion");
    let mut stream = TcpStream::connect(socks).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(&[5, 1, 0]).unwrap();
    let mut method = [0; 2];
    stream.read_exact(&mut method).unwrap();
    assert_eq!(method, [5, 0]);
    let mut request = vec![5, 1, 0, 3, u8::try_from(host.len()).unwrap()];
    request.extend(host.bytes().chain([0, 80]));
    stream.write_all(&request).unwrap();
    let mut reply = [0; 10];
    stream.read_exact(&mut reply).unwrap();
    if reply[1] == 0 { Ok(stream) } else { Err(reply[1]) }
}

/// Connects as soon as the service's descriptor is out, and sends 100 000 bytes to and fro.
fn echo(socks: SocketAddr, onion: &str) {
    let end = Instant::now() + Duration::from_secs(90);
    let mut stream = loop {
        match connect(socks, onion) {
            Ok(stream) => break stream,
            Err(code) => assert!(Instant::now() < end, "last SOCKS reply {code:#04x}"),
        }
        pause();
    };
    let sent: Vec<u8> = (0..100_000_u32).map(|i| i.to_le_bytes()[0]).collect();
    let mut writer = stream.try_clone().unwrap();
    let mut got = vec![0; sent.len()];
    std::thread::scope(|scope| {
        scope.spawn(|| writer.write_all(&sent).unwrap());
        stream.read_exact(&mut got).unwrap();
    });
    assert!(got == sent, "echo differs");
}

#[test]
fn an_onion_service_is_reached_before_and_after_its_tor_is_killed() {
    let net = Network::start(&Options::default()).unwrap();
    println!("network: {:?}", net.timings());
    assert!(net.torrc().is_file() && net.arti_config().is_file());

    let begin = Instant::now();
    let host = TorDaemon { socks: false, ..TorDaemon::default() };
    let dialler = TorDaemon { control: false, ..TorDaemon::default() };
    let (mut service, client) = std::thread::scope(|scope| {
        let service = scope.spawn(|| net.start_tor(&host).unwrap());
        let client = net.start_tor(&dialler).unwrap();
        (service.join().unwrap(), client)
    });
    println!("two daemons bootstrapped: {:?}", begin.elapsed());
    assert_eq!((service.socks_addr(), client.control_addr(), client.cookie_path()), (None, None, None));

    let begin = Instant::now();
    let target = echo_server();
    let mut control = Control::with_cookie(&service);
    let (onion, key) = control.add_onion("NEW:ED25519-V3", target);
    echo(client.socks_addr().unwrap(), &onion);
    println!("first echo: {:?}", begin.elapsed());

    let (port, killed) = (service.control_addr(), service.pid().unwrap());
    service.kill();
    assert!(!alive(killed) && service.pid().is_none());
    assert_eq!(control.0.read_line(&mut String::new()).unwrap_or(0), 0, "control connection outlived its tor");

    let begin = Instant::now();
    service.restart().unwrap();
    assert_eq!(service.control_addr(), port);
    assert_ne!(service.pid(), Some(killed));
    let mut control = Control::with_cookie(&service);
    assert_eq!(control.add_onion(&key.unwrap(), target).0, onion);
    echo(client.socks_addr().unwrap(), &onion);
    println!("echo after a kill and restart: {:?}", begin.elapsed());

    let mut pids = net.pids();
    assert_eq!(pids.len(), 4);
    pids.extend(service.pid().into_iter().chain(client.pid()));
    let dirs = [net.dir(), service.dir(), client.dir()].map(Path::to_owned);
    assert!(pids.iter().all(|pid| alive(*pid)) && dirs.iter().all(|dir| dir.is_dir()));
    drop((service, client, net));
    assert!(!pids.iter().any(|pid| alive(*pid)), "still running: {pids:?}");
    assert!(!dirs.iter().any(|dir| dir.exists()), "left behind: {dirs:?}");
}

#[test]
fn two_networks_run_from_one_cache_and_the_next_finds_their_keys() {
    let cache = tempfile::tempdir().unwrap();
    let options = Options { cache: cache.path().to_owned(), dir: None };
    let ports = |net: &Network| -> Vec<String> {
        let text = std::fs::read_to_string(net.torrc()).unwrap();
        text.lines().filter(|l| l.starts_with("DirAuthority")).map(str::to_owned).collect()
    };
    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(|| Network::start(&options).unwrap());
        let second = Network::start(&options).unwrap();
        (first.join().unwrap(), second)
    });
    assert!(!first.timings().cached && !second.timings().cached);
    let (of_first, of_second) = (ports(&first), ports(&second));
    assert_eq!((of_first.len(), of_second.len()), (4, 4));
    assert!(!of_first.iter().any(|line| of_second.contains(line)));

    for auth in [Auth::Password("open sesame".into()), Auth::Null] {
        let tor = first.start_tor(&TorDaemon { auth: auth.clone(), ..TorDaemon::default() }).unwrap();
        match auth {
            Auth::Password(password) => drop(Control::open(&tor, &format!(" \"{password}\""))),
            _ => drop(Control::open(&tor, "")),
        }
    }

    drop((first, second));
    let again = Network::start(&options).unwrap();
    assert!(again.timings().cached);
    assert!([of_first, of_second].contains(&ports(&again)));

    drop(again);
    let taken = cache.path().join("set-0/set.json");
    let set: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(taken).unwrap()).unwrap();
    let port = u16::try_from(set["authorities"][2]["or_port"].as_u64().unwrap()).unwrap();
    let _occupant = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let other = Network::start(&options).unwrap();
    assert!(!other.timings().cached, "a set with a taken port was used");
}

#[test]
fn a_network_ends_when_its_owner_is_killed() {
    if let Some(dir) = std::env::var_os(OWNER_DIR) {
        let net = Network::start(&Options { cache: Path::new(&dir).join("cache"), dir: Some(dir.clone().into()) });
        let net = net.unwrap();
        let tor = net.start_tor(&TorDaemon { dir: Some(Path::new(&dir).join("tor")), ..TorDaemon::default() }).unwrap();
        let pids: Vec<String> = net.pids().into_iter().chain(tor.pid()).map(|pid| pid.to_string()).collect();
        std::fs::write(Path::new(&dir).join("part"), pids.join(" ")).unwrap();
        std::fs::rename(Path::new(&dir).join("part"), Path::new(&dir).join("pids")).unwrap();
        loop {
            std::thread::park();
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_network_ends_when_its_owner_is_killed"])
        .env(OWNER_DIR, dir.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let end = Instant::now() + Duration::from_secs(120);
    let pids = loop {
        match std::fs::read_to_string(dir.path().join("pids")) {
            Ok(text) => break text.split(' ').map(|pid| pid.parse().unwrap()).collect::<Vec<u32>>(),
            Err(_) => {
                assert!(Instant::now() < end && owner.try_wait().unwrap().is_none(), "the owner started no network")
            }
        }
        pause();
    };
    assert!(pids.len() == 5 && pids.iter().all(|pid| alive(*pid)));
    owner.kill().unwrap();
    owner.wait().unwrap();
    // tor looks for its owner every 15 s.
    await_gone(&pids, Duration::from_secs(30));
}

#[test]
fn the_command_brings_a_detached_network_up_and_down() {
    let dir = tempfile::tempdir().unwrap();
    let tornet = |command: &str| {
        let mut tornet = Command::new(env!("CARGO_BIN_EXE_tornet"));
        let output = tornet.args([command, "--json"]).arg(dir.path()).stdin(Stdio::null()).output().unwrap();
        let object = serde_json::from_slice(&output.stdout).unwrap_or(serde_json::Value::Null);
        (output.status.code().unwrap(), object, String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(tornet("status").0, 3);

    let (code, object, log) = tornet("up");
    assert_eq!(code, 0, "{log}");
    let pids: Vec<u32> = serde_json::from_value(object["pids"].clone()).unwrap();
    assert!(pids.len() == 4 && pids.iter().all(|pid| alive(*pid)));
    assert!(Path::new(object["arti_config"].as_str().unwrap()).is_file());
    assert_eq!(tornet("status").0, 0);

    let (code, _, log) = tornet("up");
    assert_eq!(code, 1);
    assert!(log.contains("already holds a network. End that one first: `scripts/tornet down "), "{log}");

    let (code, object, log) = tornet("down");
    assert_eq!((code, object["ended"].as_u64()), (0, Some(4)), "{log}");
    await_gone(&pids, Duration::ZERO);
    assert_eq!(tornet("status").0, 3);
    assert_eq!(tornet("down").1["ended"].as_u64(), Some(0));
}
