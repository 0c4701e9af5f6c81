//! The programs, between two machines that `claviger-ceremony` has set up with software keys, over TCP on loopback.

use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use tempfile::TempDir;

/// The program of the ceremony, beside this crate's.
fn ceremony() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_http")).with_file_name("claviger-ceremony");
    assert!(program.exists(), "{} is not there: `cargo build -p claviger-ceremony` makes it", program.display());
    program
}

struct Machine {
    name: &'static str,
    dir: TempDir,
    address: SocketAddr,
}

impl Machine {
    /// Token, key, identity, card.
    fn new(name: &'static str) -> Self {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let machine = Self { name, dir: tempfile::tempdir().unwrap(), address: free.local_addr().unwrap() };
        let pin = machine.path("pin");
        std::fs::write(&pin, "correct horse battery staple").unwrap();
        std::fs::set_permissions(&pin, PermissionsExt::from_mode(0o600)).unwrap();
        let place = format!("file:{}?pin-source=file:{}", machine.path("key.pem").display(), pin.display());
        let locator = machine.ceremony(&["token", "generate", "--curve", "x25519", &place]);
        machine.ceremony(&["init", "--name", name, "--role", name, "--token", locator.trim()]);
        machine.ceremony(&["export", machine.path("card").to_str().unwrap()]);
        machine
    }

    fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    fn store(&self) -> PathBuf {
        self.path("store")
    }

    fn ceremony(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(ceremony());
        command.args(["--quiet", "--store"]).arg(self.store()).args(arguments).stdin(Stdio::null());
        said(command.output().unwrap())
    }

    /// Records the other's card, as its people read it aloud, and where it listens.
    fn meet(&self, other: &Self) {
        let shown: serde_json::Value = serde_json::from_str(&other.ceremony(&["--json", "show"])).unwrap();
        let words = shown["fingerprint"]["words"].as_str().unwrap();
        self.ceremony(&["import", other.path("card").to_str().unwrap(), "--fingerprint", words]);
        let config = format!(
            "[transport]\nkind = \"tcp\"\n[transport.tcp]\nlisten = \"{}\"\n[transport.tcp.peers]\n{} = \"{}\"\n",
            self.address, other.name, other.address
        );
        std::fs::write(self.store().join("claviger.toml"), config).unwrap();
    }

    fn program(&self, program: &str) -> Command {
        let mut command = Command::new("timeout");
        command.arg("60").arg(Path::new(env!("CARGO_BIN_EXE_http")).with_file_name(program));
        command.arg("--store").arg(self.store()).stdin(Stdio::null());
        command
    }
}

fn said(output: Output) -> String {
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {complaint}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// A server; ended when dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // `timeout` hands SIGTERM on to what it runs.
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let _ = self.0.wait();
    }
}

#[test]
fn the_programs_between_two_machines() {
    let (wallet, cosigner) = (Machine::new("wallet"), Machine::new("cosigner"));
    wallet.meet(&cosigner);
    cosigner.meet(&wallet);
    let expected = [
        ("http", "wallet asks for /status by HTTP/1.1\nwallet asks for /status by HTTP/2.0\n"),
        ("grpc", "cosigner is SERVING\n"),
        ("jsonrpc", "cosigner knows this machine as wallet, and adds 40 and 2 to 42\n1\n2\n3\n"),
    ];
    for (program, answer) in expected {
        let mut server = Server(cosigner.program(program).arg("serve").stdout(Stdio::piped()).spawn().unwrap());
        let mut line = String::new();
        BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, format!("serving {program}\n"));
        for _ in 0..2 {
            assert_eq!(said(wallet.program(program).args(["call", "cosigner"]).output().unwrap()), answer);
        }
        // What is not served is refused.
        let other = if program == "http" { "grpc" } else { "http" };
        let refused = wallet.program(other).args(["call", "cosigner"]).output().unwrap();
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    }
}
