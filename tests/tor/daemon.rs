//! Whole daemons over the private Tor network: what becomes of them when Tor is taken away under them.

use crate::net::{LONG, control, network, start};
use crate::support::{Machine, pin_file};
use claviger_testkit::tornet::{Network, TorProcess};
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_claviger");

/// A daemon; ended when dropped.
struct Daemon {
    child: Child,
    store: PathBuf,
}

impl Daemon {
    /// `more`: what its file says of the transport, services and forwards.
    fn start(machine: &Machine, more: &str) -> Self {
        let store = machine.dir.path().join("store");
        std::fs::write(store.join("claviger.toml"), format!("{more}\n{}\n", pin_file(machine))).unwrap();
        Self { child: Self::spawn(&store), store }
    }

    fn spawn(store: &Path) -> Child {
        let log = std::fs::File::create(store.with_file_name("log")).unwrap();
        Command::new(PROGRAM)
            .args(["--store", store.to_str().unwrap(), "run"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    fn restart(&mut self) {
        self.kill();
        self.child = Self::spawn(&self.store);
    }

    /// As a crash would.
    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn status(&self) -> Value {
        let store = self.store.to_str().unwrap();
        let output = Command::new(PROGRAM).args(["--store", store, "--json", "status"]).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    /// Waits until its status is what `wanted` says.
    fn until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let status = self.status();
            if wanted(&status) {
                println!("{what} after {:.1?}", began.elapsed());
                return status;
            }
            if began.elapsed() > LONG {
                let log = std::fs::read_to_string(self.store.with_file_name("log")).unwrap();
                panic!("never {what}: {status:#}\n{log}");
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends back what each connection brings, until the process ends.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let (mut read, mut write) = (stream.try_clone().unwrap(), stream);
                let _ = std::io::copy(&mut read, &mut write);
                let _ = write.shutdown(Shutdown::Write);
            });
        }
    });
    address
}

fn free_port() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

/// Says something through a forward until it comes back.
fn heard(forward: SocketAddr) {
    let began = Instant::now();
    let once = || -> std::io::Result<()> {
        let mut stream = TcpStream::connect(forward)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.write_all(&[7; 5000])?;
        stream.shutdown(Shutdown::Write)?;
        let mut got = Vec::new();
        stream.read_to_end(&mut got)?;
        if got == [7; 5000] { Ok(()) } else { Err(std::io::ErrorKind::UnexpectedEof.into()) }
    };
    while let Err(error) = once() {
        assert!(began.elapsed() < LONG, "{error}");
        std::thread::sleep(Duration::from_millis(300));
    }
    println!("heard after {:.1?}", began.elapsed());
}

fn by_arti(network: &Network) -> String {
    format!("[transport.arti]\nconfig = {:?}\n", network.arti_config())
}

fn by_tor(tor: &TorProcess) -> String {
    format!(
        "[transport]\nkind = \"tor\"\n[transport.tor]\nsocks = \"{}\"\ncontrol = \"{}\"\ncookie-file = {:?}\n",
        tor.socks_addr().unwrap(),
        tor.control_addr().unwrap(),
        tor.cookie_path().unwrap()
    )
}

/// A wallet that calls a cosigner through arti and a tower through a tor daemon, itself by another daemon.
#[test]
fn tor_is_taken_away_and_comes_back() {
    let network = network();
    let (mut host, mut client) = (start(&network), start(&network));
    let [mut wallet, mut cosigner, mut tower] = ["wallet", "cosigner", "tower"].map(Machine::software);
    wallet.introduce(&mut cosigner);
    wallet.introduce(&mut tower);
    let service = format!("[service.echo]\ntarget = \"tcp:{}\"\nallow = [\"wallet\"]\n", echo());
    let mut answering = [
        Daemon::start(&cosigner, &format!("{service}{}", by_arti(&network))),
        Daemon::start(&tower, &format!("{service}{}", by_tor(&host))),
    ];
    let forwards = [free_port(), free_port()];
    let calling = Daemon::start(
        &wallet,
        &format!(
            "[[forward]]\nlisten = \"tcp:{}\"\nto = \"cosigner/echo\"\n[[forward]]\nlisten = \"tcp:{}\"\nto = \"tower/echo\"\n[peer.cosigner]\nkeep = true\n{}",
            forwards[0],
            forwards[1],
            by_tor(&client)
        ),
    );
    for daemon in &answering {
        daemon.until("reachable", |status| status["onion"]["state"] == "reachable");
        // Through a circuit of its own, from outside.
        daemon.until("probed", |status| status["onion"]["probe"]["success"].is_object());
    }
    forwards.into_iter().for_each(heard);
    calling.until("operational", |status| relation(status, "cosigner") == "operational");

    // Circuits are closed under the sessions: those that are kept are resumed without the token.
    for line in control(&client, "GETINFO circuit-status") {
        if let Some(id) = line.split(' ').next().filter(|id| id.parse::<u64>().is_ok()) {
            control(&client, &format!("CLOSECIRCUIT {id}"));
        }
    }
    forwards.into_iter().for_each(heard);

    // The caller's tor is gone, and its state with it.
    client.kill();
    calling.until("without tor", |status| relation(status, "cosigner") == "interrupted");
    for entry in std::fs::read_dir(client.dir()).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().is_some_and(|name| name == "state" || name.to_str().unwrap().starts_with("cached-")) {
            std::fs::remove_file(path).unwrap();
        }
    }
    client.restart().unwrap();
    forwards.into_iter().for_each(heard);

    // The tower's tor is gone: it says so, and is found at the same address afterwards.
    host.kill();
    answering[1].until("interrupted", |status| status["onion"]["state"] == "interrupted");
    host.restart().unwrap();
    answering[1].until("reachable again", |status| status["onion"]["state"] == "reachable");
    heard(forwards[1]);

    // arti's directory is deleted under it, and then the daemon is killed.
    std::fs::remove_dir_all(answering[0].store.join("arti")).unwrap();
    heard(forwards[0]);
    answering[0].restart();
    heard(forwards[0]);
    for daemon in &mut answering {
        let pid = rustix::process::Pid::from_child(&daemon.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert_eq!(daemon.child.wait().unwrap().code(), Some(0));
    }
}

fn relation<'a>(status: &'a Value, peer: &str) -> &'a str {
    let peers = status["peers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let peer = peers.iter().find(|known| known["name"] == peer);
    peer.and_then(|peer| peer["relation"].as_str()).unwrap_or_default()
}
