//! A TPM 2.0 in software.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tempfile::TempDir;

use crate::{support, token};

/// How often other ports are tried when somebody took these between their choice and their use.
const TRIES: usize = 5;
/// How long swtpm may take to listen.
const LIMIT: Duration = Duration::from_secs(20);

/// swtpm (Debian package `swtpm`) on two ports of 127.0.0.1, with its state in a directory that goes with it. Dropping it ends it.
/// It needs no namespace.
pub struct Swtpm {
    port: u16,
    process: Mutex<Child>,
    home: TempDir,
}

impl Swtpm {
    /// Starts a TPM without keys and waits until it listens.
    pub fn start() -> Self {
        let home = token::temporary("swtpm");
        let started = (0..TRIES).find_map(|_| {
            let port = free_ports()?;
            Some((port, spawn(&home, port)?))
        });
        let (port, process) = started.unwrap_or_else(|| {
            panic!("swtpm does not listen\n{}", support::tail(&home.path().join("swtpm.log")));
        });
        Self { port, process: Mutex::new(process), home }
    }

    /// How tpm2-tss and its tools name it: for `TPM2TOOLS_TCTI`, or a configuration.
    pub fn tcti(&self) -> String {
        format!("swtpm:host=127.0.0.1,port={}", self.port)
    }

    /// Ends the TPM and starts it again, as a reboot of the machine would: what is persistent stays, sessions and transient
    /// objects are gone.
    pub fn restart(&self) {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        support::end(&mut process);
        *process = spawn(&self.home, self.port).unwrap_or_else(|| {
            panic!("swtpm does not listen again\n{}", support::tail(&self.home.path().join("swtpm.log")));
        });
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        support::end(self.process.get_mut().unwrap_or_else(PoisonError::into_inner));
    }
}

/// tpm2-tss expects the control port right after the other one.
fn free_ports() -> Option<u16> {
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
    let port = server.local_addr().ok()?.port();
    TcpListener::bind((Ipv4Addr::LOCALHOST, port.checked_add(1)?)).ok()?;
    Some(port)
}

/// `None` when it ends at once, as with a port that is taken.
fn spawn(home: &TempDir, port: u16) -> Option<Child> {
    let log = support::append(&home.path().join("swtpm.log")).expect("open swtpm's log");
    let state = format!("dir={}", home.path().display());
    let mut command = Command::new("swtpm");
    command.args(["socket", "--tpm2", "--tpmstate", &state, "--flags", "not-need-init,startup-clear"]);
    command.args(["--server", &format!("type=tcp,bindaddr=127.0.0.1,port={port}")]);
    command.args(["--ctrl", &format!("type=tcp,bindaddr=127.0.0.1,port={}", port + 1)]);
    command.stdin(Stdio::null()).stdout(log.try_clone().expect("share swtpm's log")).stderr(log);
    let mut child = command.spawn().unwrap_or_else(|e| panic!("swtpm cannot be started: {e}. apt install swtpm"));
    let ready = support::poll(LIMIT, || match child.try_wait() {
        Ok(None) => TcpStream::connect((Ipv4Addr::LOCALHOST, port + 1)).is_ok().then_some(true),
        _ => Some(false),
    });
    if ready == Some(true) {
        return Some(child);
    }
    support::end(&mut child);
    None
}
