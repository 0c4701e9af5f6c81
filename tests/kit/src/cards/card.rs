//! A card program in a reader slot, and the hand that holds the card.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tempfile::TempDir;

use super::Pcscd;
use super::namespace;
use super::pcscd::Readers;
use crate::{support, token};

/// How long a card program may take to start or to obey.
const LIMIT: Duration = Duration::from_secs(20);
/// The manufacturer of the OpenPGP card: FFFE, random serial numbers, of the OpenPGP card specification 3.4 section 4.2.1.
const MANUFACTURER: u16 = 0xFFFE;

/// What card it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// opcard: OpenPGP 3.4 with X25519, P-256, touch (UIF) and KDF-DO.
    OpenPgp,
    /// piv-authenticator: PIV with P-256, no serial number of its own; named by its GUID.
    Piv,
    /// Our own: PIV of a YubiKey 5.7 with P-256, X25519, touch and attestation.
    YubiKey,
}

/// What a card can be started with besides its serial number.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// How long the card waits for a touch; 15 s if not given.
    pub touch_timeout: Option<Duration>,
    /// Where the nonsense of [`Card::garbage`] starts; the serial number if not given.
    pub garbage_seed: Option<u64>,
    /// OpenPGP and PIV: a directory that keeps the card's storage, also when its program has ended. In memory if not given.
    pub storage: Option<PathBuf>,
    /// The YubiKey's firmware, such as `5.4.3`; 5.7.1 if not given.
    pub firmware: Option<String>,
    /// A YubiKey FIPS: no X25519.
    pub fips: bool,
    /// The YubiKey's management key is a 3DES key whatever the firmware.
    pub management_tdes: bool,
}

/// A card in a reader slot. Dropping it ends its program and frees the slot.
pub struct Card {
    kind: Kind,
    serial: u32,
    readers: Arc<Readers>,
    slot: usize,
    program: Mutex<Program>,
    home: TempDir,
}

struct Program {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Card {
    /// An OpenPGP card.
    pub fn openpgp(pcscd: &Pcscd, serial: u32) -> Self {
        Self::with(pcscd, Kind::OpenPgp, serial, &Options::default())
    }

    /// A PIV card that is no YubiKey.
    pub fn piv(pcscd: &Pcscd, serial: u32) -> Self {
        Self::with(pcscd, Kind::Piv, serial, &Options::default())
    }

    /// A YubiKey 5.7.
    pub fn yubikey(pcscd: &Pcscd, serial: u32) -> Self {
        Self::with(pcscd, Kind::YubiKey, serial, &Options::default())
    }

    /// Starts a card in the next free slot and waits until pcscd sees it.
    pub fn with(pcscd: &Pcscd, kind: Kind, serial: u32, options: &Options) -> Self {
        let readers = pcscd.readers();
        let slot = readers.take();
        let home = token::temporary("card");
        let program = Program::start(&command(kind, serial, readers.port(slot), home.path(), options));
        let card = Self { kind, serial, readers, slot, program: Mutex::new(program), home };
        card.readers.wait_for(slot, true);
        card
    }

    /// Pulls the card out of the reader, also in the middle of an operation, and waits until pcscd sees it.
    pub fn pull(&self) {
        self.command("pull");
        self.readers.wait_for(self.slot, false);
    }

    /// Puts the card back (after [`Self::pull`] or [`Self::pull_during`]) and waits until pcscd sees it. It has forgotten PINs
    /// and whatever else is in its RAM.
    pub fn insert(&self) {
        // Else pcscd might never learn that the card was away.
        self.readers.wait_for(self.slot, false);
        self.command("insert");
        self.readers.wait_for(self.slot, true);
    }

    /// The card forgets what is in its RAM, and neither reader nor pcscd notice. (A reset that they notice is made by any other
    /// program: `opensc-tool --reset`, or a PC/SC client that disconnects so.)
    pub fn reset(&self) {
        self.command("reset");
    }

    /// From now on the finger touches at once when the card asks, also if it is asking already. So it begins.
    pub fn touch_now(&self) {
        self.command("touch now");
    }

    /// From now on the finger touches `delay` after the card has asked.
    pub fn touch_after(&self, delay: Duration) {
        self.command(&format!("touch after {}", delay.as_millis()));
    }

    /// From now on nobody touches the card.
    pub fn touch_never(&self) {
        self.command("touch never");
    }

    /// Whether the card waits for a touch.
    pub fn is_asking(&self) -> bool {
        self.command("asking") == "true"
    }

    /// Waits until the card asks for a touch.
    pub fn wait_asking(&self) {
        let asking = support::poll(LIMIT, || self.is_asking().then_some(()));
        assert!(asking.is_some(), "the card asks for no touch");
    }

    /// Whether the card answers with pseudo-random bytes from now on.
    pub fn garbage(&self, on: bool) {
        self.command(if on { "garbage on" } else { "garbage off" });
    }

    /// The next APDU takes this long.
    pub fn hang(&self, time: Duration) {
        self.command(&format!("hang {}", time.as_millis()));
    }

    /// The next APDU that is no SELECT is not answered: the card is pulled in the middle of it.
    pub fn pull_during(&self) {
        self.command("pull-during");
    }

    /// The operations with a private key that succeeded so far. The answer waits for no operation that runs.
    pub fn operations(&self) -> u64 {
        self.command("operations").parse().expect("a number of operations")
    }

    /// The card's name for configurations and command lines; of a PIV card, with slot 9D.
    pub fn locator(&self) -> String {
        self.locator_at(0x9D)
    }

    /// The same with another slot of a PIV card, 0x9D or 0x82 to 0x95.
    pub fn locator_at(&self, slot: u8) -> String {
        match self.kind {
            Kind::OpenPgp => format!("openpgp:{MANUFACTURER:04X}:{:08X}", self.serial),
            Kind::Piv => format!("piv:guid={};slot={slot:02x}", guid(self.serial)),
            Kind::YubiKey => format!("piv:serial={};slot={slot:02x}", self.serial),
        }
    }

    /// The name of the card's reader to PC/SC. No configuration has it, but `opensc-tool --reader` takes it.
    pub fn reader(&self) -> &str {
        self.readers.reader(self.slot)
    }

    /// The root certificate of the YubiKey's attestations, a PEM file.
    pub fn attestation_root(&self) -> PathBuf {
        root_file(self.home.path())
    }

    fn command(&self, line: &str) -> String {
        self.program.lock().unwrap_or_else(PoisonError::into_inner).command(line)
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        self.program.get_mut().unwrap_or_else(PoisonError::into_inner).end();
        self.readers.free(self.slot);
    }
}

impl Program {
    fn start(command: &[std::ffi::OsString]) -> Self {
        let mut child = Command::new(&command[0])
            .args(&command[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{:?} cannot be started: {e}", command[0]));
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let program = Self { stdin: child.stdin.take(), child, lines };
        assert_eq!(program.line("to start"), "ready");
        program
    }

    /// Sends a command; what follows `ok`.
    fn command(&mut self, line: &str) -> String {
        let sent = self.stdin.as_mut().map(|stdin| writeln!(stdin, "{line}"));
        assert!(matches!(sent, Some(Ok(()))), "the card program has ended before: {line}");
        let answer = self.line(line);
        let result = answer.strip_prefix("ok").unwrap_or_else(|| panic!("{line}: {answer}"));
        result.trim().to_owned()
    }

    fn line(&self, what: &str) -> String {
        self.lines.recv_timeout(LIMIT).unwrap_or_else(|e| panic!("the card program was told {what}: {e}"))
    }

    fn end(&mut self) {
        // It ends by itself at the end of its input.
        drop(self.stdin.take());
        if !matches!(support::wait(&mut self.child, Duration::from_secs(1)), Ok(Some(_))) {
            support::end(&mut self.child);
        }
    }
}

fn command(kind: Kind, serial: u32, port: u16, home: &Path, options: &Options) -> Vec<std::ffi::OsString> {
    let programs = namespace::programs().unwrap_or_default();
    let program = match kind {
        Kind::OpenPgp => "card-openpgp",
        Kind::Piv => "card-piv",
        Kind::YubiKey => "card-yubikey",
    };
    let mut command = vec![programs.join(program).into()];
    let mut option = |name: &str, value: &dyn AsRef<std::ffi::OsStr>| {
        command.extend([name.into(), value.as_ref().to_owned()]);
    };
    option("--port", &port.to_string());
    option("--serial", &serial.to_string());
    if let Some(timeout) = options.touch_timeout {
        option("--touch-timeout-ms", &timeout.as_millis().to_string());
    }
    if let Some(seed) = options.garbage_seed {
        option("--garbage-seed", &seed.to_string());
    }
    match kind {
        Kind::OpenPgp => option("--manufacturer", &format!("{MANUFACTURER:04X}")),
        Kind::Piv => option("--guid", &guid(serial)),
        Kind::YubiKey => {
            option("--attestation-root-out", &root_file(home));
            if let Some(firmware) = &options.firmware {
                option("--firmware", firmware);
            }
            if options.management_tdes {
                option("--management-key", &"tdes");
            }
        }
    }
    if let (Kind::OpenPgp | Kind::Piv, Some(storage)) = (kind, &options.storage) {
        option("--storage", storage);
    }
    if options.fips && kind == Kind::YubiKey {
        command.push("--fips".into());
    }
    command
}

/// The GUID of the PIV card: a UUID of version 4 in form, whose last bytes are the serial number.
fn guid(serial: u32) -> String {
    format!("C1A716E50000400080000001{serial:08X}")
}

fn root_file(home: &Path) -> PathBuf {
    home.join("attestation-root.pem")
}
