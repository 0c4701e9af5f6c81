//! OpenPGP cards: the Nitrokey's applet behind a real pcscd, and what these cards have of their own.

mod signing;

use std::cell::RefCell;
use std::ffi::CString;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use claviger_hsm::{
    Curve, Device, ErrorKind, KeepPin, Locator, NewKey, Pin, PinEntry, PinPolicy, PinRequest, PublicKey, Purpose,
    Result, Stage, TokenKind, Touch, Tries, openpgp,
};
use claviger_testkit::cards::{self, Card, Kind, Options, Pcscd};
use pcsc::{Context, Disposition, Protocols, Scope, ShareMode};
use tempfile::TempDir;

use crate::backend::{Backend, Coming, Counting, Nobody, SmartCard, agrees, agrees_asking, kind, open, peer, soon};

/// A new card in a reader.
pub(crate) struct OpenPgpCard {
    card: Card,
    pcscd: Pcscd,
}

impl Backend for OpenPgpCard {
    const KIND: TokenKind = TokenKind::OpenPgp;
    const PIN: &str = cards::PIN;

    fn alone<F: FnOnce()>(body: F) {
        cards::isolated(body);
    }

    fn new() -> Self {
        let pcscd = Pcscd::start();
        Self { card: Card::openpgp(&pcscd, 0x1234), pcscd }
    }

    fn place(&self, _: Curve) -> Locator {
        self.card.locator().parse().unwrap()
    }

    fn forget(&self) {
        self.card.reset();
    }
}

impl Counting for OpenPgpCard {
    const TRIES: u8 = 3;
}

impl Coming for OpenPgpCard {
    fn pull(&self) {
        self.card.pull();
    }

    fn insert(&self) {
        self.card.insert();
    }
}

impl SmartCard for OpenPgpCard {
    const AID: &[u8] = &[0xD2, 0x76, 0x00, 0x01, 0x24, 0x01];
    const PIN_REFERENCE: u8 = 0x82;

    fn card(&self) -> &Card {
        &self.card
    }

    fn pcscd(&self) -> &Pcscd {
        &self.pcscd
    }
}

/// The card as another program has it: raw commands, its application selected.
struct Raw(Option<pcsc::Card>);

impl Raw {
    fn to(card: &Card) -> Self {
        let reader = CString::new(card.reader()).unwrap();
        let context = Context::establish(Scope::User).unwrap();
        let raw = Self(Some(context.connect(&reader, ShareMode::Shared, Protocols::ANY).unwrap()));
        raw.done([0x00, 0xA4, 0x04, 0x00], OpenPgpCard::AID);
        raw
    }

    fn send(&self, header: [u8; 4], data: &[u8]) -> u16 {
        let mut command = header.to_vec();
        if !data.is_empty() {
            command.push(u8::try_from(data.len()).unwrap());
            command.extend(data);
        }
        let mut answer = [0; 512];
        let answer = self.0.as_ref().unwrap().transmit(&command, &mut answer).unwrap();
        u16::from_be_bytes(*answer.last_chunk().unwrap())
    }

    fn done(&self, header: [u8; 4], data: &[u8]) {
        assert_eq!(self.send(header, data), 0x9000, "{header:02x?}");
    }

    fn verify_admin(&self) {
        self.done([0x00, 0x20, 0x00, 0x83], cards::ADMIN_PIN.as_bytes());
    }

    /// Makes a decryption key of another kind, by its algorithm attributes.
    fn make(&self, attributes: &[u8]) {
        self.verify_admin();
        self.done([0x00, 0xDA, 0x00, 0xC2], attributes);
        let made = self.send([0x00, 0x47, 0x80, 0x00], &[0xB8, 0x00]);
        assert!(made == 0x9000 || made >> 8 == 0x61, "{made:04X}");
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(card) = self.0.take() {
            let _ = card.disconnect(Disposition::LeaveCard);
        }
    }
}

/// Answers with these PINs, and counts.
struct Pins {
    user: String,
    admin: String,
    asked: Vec<(Purpose, Tries)>,
}

impl Pins {
    fn right() -> Self {
        Self { user: cards::PIN.into(), admin: cards::ADMIN_PIN.into(), asked: Vec::new() }
    }
}

impl PinEntry for Pins {
    fn pin(&mut self, request: &PinRequest<'_>) -> Result<Pin> {
        self.asked.push((request.purpose, request.tries_left));
        Pin::new(if request.purpose == Purpose::AdminPin { &self.admin } else { &self.user }.clone())
    }

    fn confirm_last_try(&mut self, _: &PinRequest<'_>) -> bool {
        true
    }
}

fn generate(backend: &OpenPgpCard, new: &NewKey, pins: &mut Pins) -> Result<PublicKey> {
    claviger_hsm::generate(&backend.place(new.curve), new, &mut soon(pins)).map(|(_, public)| public)
}

fn only_device() -> Device {
    let mut devices = openpgp::list().unwrap();
    assert_eq!(devices.len(), 1);
    devices.remove(0)
}

#[test]
fn a_card_is_listed_with_what_it_has() {
    cards::isolated(|| {
        let backend = OpenPgpCard::new();
        let device = only_device();
        assert_eq!((device.kind, device.hardware), (TokenKind::OpenPgp, true));
        assert_eq!((device.model.as_str(), device.serial.as_str()), ("OpenPGP card 3.4", "00001234"));
        assert_eq!(device.curves, [Curve::X25519, Curve::P256]);
        assert!(device.seen_at.contains("Virtual"), "{device:?}");
        assert!(device.unusable.as_ref().unwrap().contains("no decryption key"), "{device:?}");
        let state = device.pin.unwrap();
        assert_eq!((state.tries_left, state.verified), (Tries::Left(3), Some(false)));
        let public = generate(&backend, &NewKey::new(Curve::X25519), &mut Pins::right()).unwrap();
        let device = only_device();
        assert_eq!(device.unusable, None);
        let key = &device.keys[0];
        assert_eq!((key.place.as_str(), &key.public_key, key.touch), ("decryption", &Ok(public), Touch::Never));
        assert_eq!(key.locator.as_ref().unwrap(), &backend.place(Curve::X25519));
        assert!(!key.attestable);
    });
}

#[test]
fn a_key_is_replaced_by_its_name_and_on_another_curve() {
    cards::isolated(|| {
        let backend = OpenPgpCard::new();
        let first = generate(&backend, &NewKey::new(Curve::X25519), &mut Pins::right()).unwrap();
        let mut new = NewKey::new(Curve::P256);
        new.replace = Some(first.clone());
        let second = generate(&backend, &new, &mut Pins::right()).unwrap();
        assert_eq!(second.curve(), Curve::P256);
        let locator = backend.place(Curve::P256);
        assert_eq!(kind(open(&locator, Some(&first), &mut Nobody)), ErrorKind::WrongCurve);
        agrees(open(&locator, Some(&second), &mut Pins::right()).unwrap().as_mut());
    });
}

#[test]
fn another_key_on_the_same_card_is_told_while_it_is_open() {
    cards::isolated(|| {
        let (backend, locator, public) = crate::backend::ready::<OpenPgpCard>(Curve::X25519);
        let mut token = open(&locator, Some(&public), &mut Pins::right()).unwrap();
        backend.card.pull();
        backend.card.insert();
        Raw::to(&backend.card).make(&[0x12, 0x2B, 0x06, 0x01, 0x04, 0x01, 0x97, 0x55, 0x01, 0x05, 0x01]);
        assert_eq!(kind(crate::backend::agree(token.as_mut())), ErrorKind::KeyMismatch);
        assert_eq!(kind(token.look()), ErrorKind::KeyMismatch);
    });
}

#[test]
fn the_admin_pin_makes_keys_and_is_forgotten() {
    cards::isolated(|| {
        let backend = OpenPgpCard::new();
        let mut wrong = Pins { admin: "31415926".into(), ..Pins::right() };
        let error = generate(&backend, &NewKey::new(Curve::X25519), &mut wrong).err().unwrap();
        assert_eq!((error.kind(), wrong.asked), (ErrorKind::WrongPin, vec![(Purpose::AdminPin, Tries::Left(3))]));
        assert!(error.to_string().contains("admin PIN") && error.to_string().contains("2 tries left"), "{error}");
        let mut pins = Pins::right();
        generate(&backend, &NewKey::new(Curve::X25519), &mut pins).unwrap();
        assert_eq!(pins.asked, [(Purpose::AdminPin, Tries::Left(2)), (Purpose::UserPin, Tries::Left(3))]);
        let raw = Raw::to(&backend.card);
        assert_eq!(raw.send([0x00, 0x20, 0x00, 0x83], &[]), 0x63C3);
        assert_eq!(raw.send([0x00, 0x20, 0x00, 0x82], &[]), 0x63C3);
        drop(raw);
        for left in [2, 1, 0] {
            let mut wrong = Pins { admin: "31415926".into(), ..Pins::right() };
            let mut new = NewKey::new(Curve::X25519);
            new.replace = only_device().keys[0].public_key.clone().ok();
            let error = generate(&backend, &new, &mut wrong).err().unwrap();
            assert!(matches!(error.kind(), ErrorKind::WrongPin | ErrorKind::PinLocked), "{left}: {error:?}");
        }
        let mut new = NewKey::new(Curve::X25519);
        new.replace = only_device().keys[0].public_key.clone().ok();
        assert_eq!(kind(generate(&backend, &new, &mut Pins::right())), ErrorKind::PinLocked);
        agrees(open(&backend.place(Curve::X25519), None, &mut Pins::right()).unwrap().as_mut());
    });
}

#[test]
fn a_key_that_waits_for_a_touch_says_so() {
    cards::isolated(|| {
        let pcscd = Pcscd::start();
        let options = Options { touch_timeout: Some(Duration::from_millis(300)), ..Options::default() };
        let card = Card::with(&pcscd, Kind::OpenPgp, 0x1234, &options);
        let backend = OpenPgpCard { card, pcscd };
        let mut new = NewKey::new(Curve::X25519);
        new.touch = Some(Touch::Always);
        generate(&backend, &new, &mut Pins::right()).unwrap();
        assert_eq!(only_device().keys[0].touch, Touch::Always);
        let locator = backend.place(Curve::X25519);
        let mut token = open(&locator, None, &mut Pins::right()).unwrap();
        assert_eq!(token.hints().touch, Touch::Always);
        let (_, public) = peer(Curve::X25519);

        let stages = RefCell::new(Vec::new());
        let (mut nobody, observer) = (Nobody, |stage| stages.borrow_mut().push(stage));
        token.agree(&public, &mut soon(&mut nobody).observed(&observer)).unwrap();
        assert_eq!(*stages.borrow(), [Stage::Access, Stage::Touch]);

        // This card, a Nitrokey 3, says 6982 when nobody touches it, as it does without a PIN.
        backend.card.touch_never();
        let state = token.pin_state().unwrap();
        for _ in 0..5 {
            let error = token.agree(&public, &mut soon(&mut Nobody)).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::NotTouched);
            assert_eq!(token.pin_state().unwrap(), state);
        }
        backend.card.touch_after(Duration::from_millis(50));
        agrees(token.as_mut());

        // Also where the PIN is sent each time: once, and never again for want of a touch.
        backend.card.touch_now();
        let mut people = Pins::right();
        let mut token = claviger_hsm::open(&locator, None, KeepPin::Always, &mut soon(&mut people)).unwrap();
        backend.card.touch_never();
        let mut people = Pins::right();
        let error = token.agree(&public, &mut soon(&mut people)).err().unwrap();
        assert_eq!((error.kind(), people.asked.len()), (ErrorKind::NotTouched, 1));
    });
}

#[test]
fn policies_that_the_card_has_not_are_refused_before_anything_is_made() {
    cards::isolated(|| {
        let backend = OpenPgpCard::new();
        let new = NewKey::new(Curve::X25519);
        for (pin, touch) in [
            (Some(PinPolicy::Always), None),
            (Some(PinPolicy::Never), None),
            (None, Some(Touch::Unknown)),
            // A YubiKey's alone.
            (None, Some(Touch::Cached)),
        ] {
            let mut asked = new.clone();
            (asked.pin, asked.touch) = (pin, touch);
            assert_eq!(kind(generate(&backend, &asked, &mut Pins::right())), ErrorKind::Unsupported);
            assert!(only_device().keys[0].public_key.is_err());
        }
        let mut asked = new;
        (asked.pin, asked.touch) = (Some(PinPolicy::Once), Some(Touch::Never));
        generate(&backend, &asked, &mut Pins::right()).unwrap();
    });
}

/// Somebody who does something with the card before answering.
struct Fumbler<'a>(&'a dyn Fn(), u32);

impl PinEntry for Fumbler<'_> {
    fn pin(&mut self, _: &PinRequest<'_>) -> Result<Pin> {
        self.1 += 1;
        (self.0)();
        Pin::new(cards::PIN.into())
    }
}

#[test]
fn whoever_is_asked_is_asked_once_whatever_happens_meanwhile() {
    cards::isolated(|| {
        let (backend, locator, public) = crate::backend::ready::<OpenPgpCard>(Curve::X25519);
        let card = &backend.card;
        let reinsert = || {
            card.pull();
            card.insert();
        };
        for keep in [KeepPin::Once, KeepPin::Never, KeepPin::Always] {
            let open = |people: &mut Fumbler<'_>| {
                backend.forget();
                claviger_hsm::open(&locator, Some(&public), keep, &mut soon(people))
            };
            let mut people = Fumbler(&|| card.reset(), 0);
            agrees_asking(open(&mut people).unwrap().as_mut(), &mut Pins::right());
            assert_eq!(people.1, 1, "{keep}");
            // Who kept the PIN goes on with it.
            let mut people = Fumbler(&reinsert, 0);
            match (open(&mut people), keep) {
                (token, KeepPin::Once) => agrees(token.unwrap().as_mut()),
                (token, _) => assert_eq!(kind(token), ErrorKind::TokenAbsent),
            }
            assert_eq!(people.1, 1, "{keep}");
            let mut people = Fumbler(&|| card.pull_during(), 0);
            assert_eq!(kind(open(&mut people)), ErrorKind::TokenAbsent);
            assert_eq!(people.1, 1, "{keep}");
            card.insert();
        }
    });
}

/// S2K of RFC 4880, section 3.7.1.3, with SHA-256, written down again.
fn derived(salt: &[u8], pin: &str, count: usize) -> Vec<u8> {
    let hashed: Vec<u8> = salt.iter().chain(pin.as_bytes()).copied().cycle().take(count).collect();
    digest::digest(&digest::SHA256, &hashed).as_ref().to_vec()
}

/// The PIN itself never reaches a card that has a KDF-DO.
#[test]
fn a_card_with_key_derivation_gets_derived_pins() {
    cards::isolated(|| {
        let (backend, locator, public) = crate::backend::ready::<OpenPgpCard>(Curve::X25519);
        const COUNT: usize = 100_000;
        let (user, admin) = (b"user-slt", b"admn-slt");
        let raw = Raw::to(&backend.card);
        for (reference, salt, pin) in [(0x81, user, cards::PIN), (0x83, admin, cards::ADMIN_PIN)] {
            let change = [pin.as_bytes(), &derived(salt, pin, COUNT)].concat();
            raw.done([0x00, 0x24, 0x00, reference], &change);
        }
        raw.done([0x00, 0x20, 0x00, 0x83], &derived(admin, cards::ADMIN_PIN, COUNT));
        let count = u32::try_from(COUNT).unwrap().to_be_bytes();
        let object = [&[0x81, 1, 3, 0x82, 1, 8, 0x83, 4], &count[..], &[0x84, 8], user, &[0x86, 8], admin].concat();
        raw.done([0x00, 0xDA, 0x00, 0xF9], &object);
        drop(raw);
        backend.forget();
        let mut token = open(&locator, Some(&public), &mut Pins::right()).unwrap();
        backend.card.pull();
        backend.card.insert();
        agrees(token.as_mut());
        backend.forget();
        let mut wrong = Pins { user: crate::backend::WRONG_PIN.into(), ..Pins::right() };
        assert_eq!(kind(open(&locator, None, &mut wrong)), ErrorKind::WrongPin);
        let mut new = NewKey::new(Curve::P256);
        new.replace = Some(public);
        generate(&backend, &new, &mut Pins::right()).unwrap();
    });
}

#[test]
fn cards_are_told_apart_by_their_numbers_alone() {
    cards::isolated(|| {
        let backend = OpenPgpCard::new();
        let other = Card::openpgp(&backend.pcscd, 0x1235);
        let key = generate(&backend, &NewKey::new(Curve::X25519), &mut Pins::right()).unwrap();
        let locator = backend.place(Curve::X25519);
        let absent: Locator = "openpgp:FFFE:00001236".parse().unwrap();
        assert_eq!(kind(open(&absent, None, &mut Nobody)), ErrorKind::TokenAbsent);
        let there: Locator = other.locator().parse().unwrap();
        assert_eq!(kind(open(&there, None, &mut Nobody)), ErrorKind::KeyNotFound);
        assert_eq!(openpgp::list().unwrap().len(), 2);

        let mut token = open(&locator, Some(&key), &mut Pins::right()).unwrap();
        let twin = Card::openpgp(&backend.pcscd, 0x1234);
        assert_eq!(kind(open(&locator, Some(&key), &mut Nobody)), ErrorKind::TokenAmbiguous);
        let new = NewKey::new(Curve::X25519);
        assert_eq!(kind(generate(&backend, &new, &mut Pins::right())), ErrorKind::TokenAmbiguous);
        // Who has it open knows it by its key.
        backend.card.pull();
        assert_eq!(kind(crate::backend::agree(token.as_mut())), ErrorKind::KeyNotFound);
        backend.card.insert();
        agrees(token.as_mut());
        drop(twin);
    });
}

#[test]
fn a_touch_policy_that_is_set_meanwhile_is_seen() {
    cards::isolated(|| {
        let pcscd = Pcscd::start();
        let options = Options { touch_timeout: Some(Duration::from_millis(300)), ..Options::default() };
        let card = Card::with(&pcscd, Kind::OpenPgp, 0x1234, &options);
        let backend = OpenPgpCard { card, pcscd };
        let (locator, _) = backend.make(Curve::X25519);
        let mut token = open(&locator, None, &mut Pins::right()).unwrap();
        let raw = Raw::to(&backend.card);
        raw.verify_admin();
        raw.done([0x00, 0xDA, 0x00, 0xD7], &[0x01, 0x20]);
        drop(raw);
        backend.card.touch_never();
        assert_eq!(kind(crate::backend::agree(token.as_mut())), ErrorKind::NotTouched);
        backend.card.touch_now();
        agrees(token.as_mut());
        assert_eq!(token.hints().touch, Touch::Always);
    });
}

#[test]
fn only_yubikeys_attest() {
    cards::isolated(|| {
        let (_backend, locator, _) = crate::backend::ready::<OpenPgpCard>(Curve::X25519);
        let mut token = open(&locator, None, &mut Pins::right()).unwrap();
        assert_eq!(kind(token.attest(&mut soon(&mut Nobody))), ErrorKind::Unsupported);
        agrees(token.as_mut());
    });
}

/// GnuPG's own program for cards, spoken to as gpg-agent does.
struct Scdaemon {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    _home: TempDir,
    /// How often it asked for a PIN.
    asked: u32,
}

impl Scdaemon {
    fn start(shared: bool) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut command = Command::new("/usr/lib/gnupg/scdaemon");
        command.args(["--server", "--disable-ccid", "--homedir"]).arg(home.path());
        if shared {
            command.arg("--pcsc-shared");
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut scdaemon = Self { input: child.stdin.take(), child, output, _home: home, asked: 0 };
        scdaemon.answer();
        scdaemon.command("SERIALNO openpgp");
        scdaemon
    }

    fn say(&mut self, line: &str) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    fn command(&mut self, line: &str) -> Vec<String> {
        self.say(line);
        self.answer()
    }

    /// Reads up to OK, and gives the PIN where it is asked for. The other lines.
    fn answer(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let mut line = Vec::new();
            assert!(self.output.read_until(b'\n', &mut line).unwrap() > 0, "scdaemon ended");
            let line = String::from_utf8_lossy(&line).into_owned();
            match line.split_whitespace().next() {
                Some("OK") => return lines,
                Some("ERR") => panic!("{line}"),
                Some("INQUIRE") if line.contains("NEEDPIN") => {
                    self.asked += 1;
                    // It wants the PIN with its NUL.
                    self.say(&format!("D {}%00", cards::PIN));
                    self.say("END");
                }
                Some("INQUIRE") => self.say("END"),
                _ => lines.push(line),
            }
        }
    }

    /// What `gpg --decrypt` has it do.
    fn decrypt(&mut self) {
        let (_, public) = peer(Curve::X25519);
        let point: String = public.as_bytes().iter().map(|byte| format!("{byte:02X}")).collect();
        self.command(&format!("SETDATA {point}"));
        self.command("PKDECRYPT OPENPGP.2");
    }
}

impl Drop for Scdaemon {
    fn drop(&mut self) {
        // It ends with its input, and lets the card go.
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

#[test]
fn gnupg_beside_us_keeps_its_pin() {
    cards::isolated(|| {
        let (_backend, locator, _) = crate::backend::ready::<OpenPgpCard>(Curve::X25519);
        let mut scdaemon = Scdaemon::start(true);
        scdaemon.decrypt();
        assert_eq!(scdaemon.asked, 1);
        for keep in [KeepPin::Once, KeepPin::Never, KeepPin::Always] {
            let mut people = Pins::right();
            let mut token = claviger_hsm::open(&locator, None, keep, &mut soon(&mut people)).unwrap();
            for _ in 0..10 {
                agrees_asking(token.as_mut(), &mut people);
                scdaemon.decrypt();
            }
            // Whose PIN is verified, is not asked for again.
            assert_eq!(people.asked.is_empty(), keep != KeepPin::Always);
            drop(token);
            openpgp::list().unwrap();
            scdaemon.decrypt();
        }
        assert_eq!(scdaemon.asked, 1);
    });
}

#[test]
fn gnupg_that_holds_the_card_alone_is_named() {
    cards::isolated(|| {
        let (_backend, locator, _) = crate::backend::ready::<OpenPgpCard>(Curve::X25519);
        let scdaemon = Scdaemon::start(false);
        let error = open(&locator, None, &mut Nobody).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert!(error.hint().contains("pcsc-shared"), "{}", error.hint());
        assert!(openpgp::list().unwrap().is_empty());
        drop(scdaemon);
        // pcscd notices a moment after its end that it is gone.
        let freed = Instant::now() + Duration::from_secs(5);
        let mut token = loop {
            match open(&locator, None, &mut Pins::right()) {
                Err(error) if error.kind() == ErrorKind::Busy && Instant::now() < freed => std::thread::yield_now(),
                token => break token.unwrap(),
            }
        };
        agrees(token.as_mut());
    });
}

/// GnuPG shows the key by the fingerprint of what it would be in a certificate.
#[test]
fn gnupg_shows_the_new_key() {
    cards::isolated(|| {
        let (_backend, _, _) = crate::backend::ready::<OpenPgpCard>(Curve::P256);
        let mut scdaemon = Scdaemon::start(true);
        let mut lines = scdaemon.command("LEARN --force");
        lines.extend(scdaemon.command("GETATTR KEY-ATTR"));
        let shown =
            |start: &str| lines.iter().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{lines:?}"));
        assert!(!shown("S KEY-FPR 2 ").contains("00000000"));
        assert!(shown("S KEY-ATTR 2 ").contains("NIST P-256"));
        assert!(shown("S KEY-TIME 2 ").trim().len() > "S KEY-TIME 2 0".len());
    });
}
