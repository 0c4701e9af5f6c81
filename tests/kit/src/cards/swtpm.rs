//! A TPM 2.0 in software.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tempfile::TempDir;

use crate::{support, token};

/// How often other ports are tried when somebody took these between their choice and their use.
const TRIES: usize = 50;
/// How long swtpm may take to listen.
const LIMIT: Duration = Duration::from_secs(20);

/// `TPM2_Shutdown` with `TPM_SU_CLEAR`: tag, size, command code, type.
const SHUTDOWN: [u8; 12] = [0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x45, 0, 0];

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
        let started = (0..TRIES).find_map(|attempt| {
            let port = free_ports(attempt)?;
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

    /// Ends the TPM as a machine's shutdown does. What is persistent stays, sessions and transient objects are gone.
    pub fn stop(&self) {
        let shut_down = || -> std::io::Result<()> {
            let mut tpm = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
            tpm.set_read_timeout(Some(LIMIT))?;
            tpm.write_all(&SHUTDOWN)?;
            tpm.read_exact(&mut [0; 10])
        };
        shut_down().expect("TPM2_Shutdown");
        self.cut();
    }

    /// Ends the TPM as a power failure does: it has not been told. It then takes one wrong PIN for given if there were PINs at all since
    /// it started, so that a power switch is no way around its counter.
    pub fn cut(&self) {
        support::end(&mut self.process());
    }

    /// Starts a stopped TPM, at the same ports.
    pub fn start_again(&self) {
        *self.process() = spawn(&self.home, self.port).unwrap_or_else(|| {
            panic!("swtpm does not listen again\n{}", support::tail(&self.home.path().join("swtpm.log")));
        });
    }

    /// [`Self::stop`] and [`Self::start_again`], as a reboot of the machine would.
    pub fn restart(&self) {
        self.stop();
        self.start_again();
    }

    fn process(&self) -> MutexGuard<'_, Child> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        support::end(self.process.get_mut().unwrap_or_else(PoisonError::into_inner));
    }
}

/// tpm2-tss expects the control port right after the other one. Below the ports that the system gives to clients (from 32768 on Linux), one of
/// which might take those of a TPM that is stopped; no two tests begin to look at the same place, as each is a process of its own.
fn free_ports(attempt: usize) -> Option<u16> {
    let place = std::process::id().wrapping_mul(2).wrapping_add(u32::try_from(attempt).ok()? * 7918) % 20_000;
    let port = 12_000 + u16::try_from(place & !1).ok()?;
    for port in [port, port + 1] {
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?;
    }
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
        Ok(None) => {
            [port + 1, port].iter().all(|port| TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).is_ok()).then_some(true)
        }
        _ => Some(false),
    });
    if ready == Some(true) {
        return Some(child);
    }
    support::end(&mut child);
    None
}
