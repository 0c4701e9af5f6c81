//! pcscd with vpcd's readers.

use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pcsc::{Context, ReaderState, Scope, State};
use tempfile::TempDir;

use super::namespace;
use crate::{support, token};

/// Where Debian's `vsmartcard-vpcd` puts the driver.
const DRIVER: &str = "/usr/lib/pcsc/drivers/serial/libifdvpcd.so";
/// The ports of the two readers; each has a second slot at the next port.
const PORTS: [u16; 2] = [35963, 35971];
/// How long pcscd may take for what takes it half a second at most.
const LIMIT: Duration = Duration::from_secs(20);

/// A running pcscd with four reader slots. Only inside [`super::isolated`]. Cards stay when it is stopped, and are back when it
/// is. It ends when it and all its [`super::Card`]s have been dropped.
pub struct Pcscd(Arc<Readers>);

/// What cards share with their pcscd.
pub(super) struct Readers {
    process: Mutex<Option<Child>>,
    slots: [Slot; 4],
    home: TempDir,
}

struct Slot {
    port: u16,
    reader: CString,
    state: Mutex<Occupied>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Occupied {
    No,
    /// A card program has the slot, its card is out of it.
    Pulled,
    Inserted,
}

impl Pcscd {
    /// Starts pcscd and waits until it has its readers.
    ///
    /// # Panics
    /// Outside [`super::isolated`], when packages are missing, or when pcscd does not come up.
    pub fn start() -> Self {
        assert!(namespace::programs().is_some(), "Pcscd::start is for tests within cards::isolated only");
        assert!(Path::new(DRIVER).exists(), "{DRIVER} is not there: apt install pcscd vsmartcard-vpcd");
        let home = token::temporary("pcscd");
        configure(home.path());
        let slot = |port, reader: &str| {
            let reader = CString::new(reader).expect("no NUL in a literal");
            Slot { port, reader, state: Mutex::new(Occupied::No) }
        };
        let slots = [
            slot(PORTS[0], "Virtual PCD A 00 00"),
            slot(PORTS[0] + 1, "Virtual PCD A 00 01"),
            slot(PORTS[1], "Virtual PCD B 00 00"),
            slot(PORTS[1] + 1, "Virtual PCD B 00 01"),
        ];
        let pcscd = Self(Arc::new(Readers { process: Mutex::new(None), slots, home }));
        pcscd.start_again();
        pcscd
    }

    /// Ends pcscd as a service manager does, by SIGTERM.
    pub fn stop(&self) {
        if let Some(mut process) = self.0.process().take() {
            support::end(&mut process);
        }
    }

    /// Ends pcscd by SIGKILL, as a crash would.
    pub fn kill(&self) {
        if let Some(mut process) = self.0.process().take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Starts a stopped pcscd, and waits until it sees the cards that are in its readers.
    pub fn start_again(&self) {
        {
            let mut process = self.0.process();
            assert!(process.is_none(), "pcscd is running");
            let log = support::append(&self.0.log()).expect("open pcscd's log");
            let mut command = Command::new("/usr/sbin/pcscd");
            command.arg("--foreground").arg("--config").arg(self.0.home.path().join("reader.conf.d"));
            command.stdin(Stdio::null()).stdout(log.try_clone().expect("share pcscd's log")).stderr(log);
            *process = Some(command.spawn().unwrap_or_else(|e| panic!("pcscd cannot be started: {e}")));
        }
        for slot in &self.0.slots {
            let inserted = *slot.state() == Occupied::Inserted;
            self.0.wait(slot, inserted);
        }
    }

    /// [`Self::stop`] and [`Self::start_again`].
    pub fn restart(&self) {
        self.stop();
        self.start_again();
    }

    pub(super) fn readers(&self) -> Arc<Readers> {
        Arc::clone(&self.0)
    }
}

impl Readers {
    fn process(&self) -> MutexGuard<'_, Option<Child>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log(&self) -> PathBuf {
        self.home.path().join("pcscd.log")
    }

    /// Takes a free slot; its number.
    pub(super) fn take(&self) -> usize {
        let free = self.slots.iter().position(|slot| {
            let mut state = slot.state();
            let free = *state == Occupied::No;
            if free {
                *state = Occupied::Pulled;
            }
            free
        });
        let free = free.unwrap_or_else(|| panic!("all {} reader slots hold a card", self.slots.len()));
        // The card before may have gone this moment.
        self.wait_for(free, false);
        free
    }

    /// The card program of slot `number` has ended.
    pub(super) fn free(&self, number: usize) {
        *self.slots[number].state() = Occupied::No;
    }

    /// The port of slot `number`.
    pub(super) fn port(&self, number: usize) -> u16 {
        self.slots[number].port
    }

    /// The reader's name to PC/SC.
    pub(super) fn reader(&self, number: usize) -> &str {
        self.slots[number].reader.to_str().unwrap_or_default()
    }

    /// Waits until pcscd sees that slot `number` has, or has not, a card. At once when pcscd is stopped.
    pub(super) fn wait_for(&self, number: usize, inserted: bool) {
        let slot = &self.slots[number];
        *slot.state() = if inserted { Occupied::Inserted } else { Occupied::Pulled };
        if self.process().is_some() && !std::thread::panicking() {
            self.wait(slot, inserted);
        }
    }

    fn wait(&self, slot: &Slot, inserted: bool) {
        let wanted = if inserted { State::PRESENT } else { State::EMPTY };
        let seen = support::poll(LIMIT, || slot.look().filter(|state| state.contains(wanted)));
        if seen.is_none() {
            let what = if inserted { "sees no card in" } else { "still sees a card in" };
            panic!("pcscd {what} {:?} after {} s\n{}", slot.reader, LIMIT.as_secs(), support::tail(&self.log()));
        }
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        if let Some(mut process) = self.process().take() {
            support::end(&mut process);
        }
    }
}

impl Slot {
    fn state(&self) -> MutexGuard<'_, Occupied> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What pcscd says of the slot; `None` when it does not answer yet. No card is connected to, so none is reset.
    fn look(&self) -> Option<State> {
        let context = Context::establish(Scope::User).ok()?;
        let mut states = [ReaderState::new(self.reader.clone(), State::UNAWARE)];
        context.get_status_change(Duration::ZERO, &mut states).ok()?;
        let state = states[0].event_state();
        (!state.contains(State::UNKNOWN)).then_some(state)
    }
}

/// Two drivers of two slots each. The second must be a copy: vpcd keeps its slots in static variables, and one library loaded twice
/// would use the same ones for both.
fn configure(home: &Path) {
    let copy = home.join("libifdvpcd-b.so");
    fs::copy(DRIVER, &copy).expect("copy the driver");
    let directory = home.join("reader.conf.d");
    fs::create_dir(&directory).expect("create reader.conf.d");
    let entry = |name: &str, port: u16, driver: &Path| {
        format!(
            "FRIENDLYNAME \"Virtual PCD {name}\"\nDEVICENAME /dev/null:0x{port:04X}\nLIBPATH {}\nCHANNELID 0x{port:04X}\n\n",
            driver.display()
        )
    };
    let entries = entry("A", PORTS[0], Path::new(DRIVER)) + &entry("B", PORTS[1], &copy);
    fs::write(directory.join("vpcd"), entries).expect("write reader.conf.d");
}
