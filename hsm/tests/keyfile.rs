//! Software key files: read and written by OpenSSL too, closed to others, bounded, never half-written.

// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use claviger_hsm::{
    Curve, ErrorKind, KeepPin, Locator, NewKey, Operation, Pin, PinEntry, PinRequest, PublicKey, Purpose, Result,
    Token, Tries,
};
use tempfile::TempDir;

const PASSPHRASE: &str = "correct horse";

/// The passphrase, or one more letter.
struct Given {
    wrong: bool,
    asked: Vec<Purpose>,
}

impl PinEntry for Given {
    fn pin(&mut self, request: &PinRequest<'_>) -> Result<Pin> {
        assert_eq!(request.tries_left, Tries::Unlimited);
        assert!(request.what.starts_with("software key file"), "{}", request.what);
        self.asked.push(request.purpose);
        Pin::new(if self.wrong { format!("{PASSPHRASE}s") } else { PASSPHRASE.into() })
    }
}

fn right() -> Given {
    Given { wrong: false, asked: Vec::new() }
}

fn open(path: &Path, pins: &mut Given) -> Result<Box<dyn Token>> {
    let mut operation = Operation::within(Duration::from_secs(20), pins);
    claviger_hsm::open(&Locator::File(path.to_owned().into()), None, KeepPin::Once, &mut operation)
}

fn load(path: &Path) -> Result<Box<dyn Token>> {
    open(path, &mut right())
}

fn generate(path: &Path, curve: Curve, pins: &mut Given) -> Result<PublicKey> {
    let mut operation = Operation::within(Duration::from_secs(20), pins);
    let (locator, public) =
        claviger_hsm::generate(&Locator::File(path.to_owned().into()), &NewKey::new(curve), &mut operation)?;
    assert_eq!(locator, Locator::File(path.to_owned().into()));
    Ok(public)
}

fn refusal(path: &Path) -> ErrorKind {
    let error = load(path).err().unwrap();
    assert!(!error.hint().is_empty());
    error.kind()
}

fn made(curve: Curve) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key.pem");
    let mut pins = right();
    generate(&path, curve, &mut pins).unwrap();
    assert_eq!(pins.asked, [Purpose::NewPassphrase]);
    (directory, path)
}

fn write(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
}

fn openssl(arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("openssl").args(arguments).output().unwrap();
    assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn openssl_reads_what_is_written() {
    for (curve, name) in [(Curve::X25519, "X25519 Private-Key"), (Curve::P256, "prime256v1")] {
        let (_directory, path) = made(curve);
        let path_text = path.to_str().unwrap();
        let pass = format!("pass:{PASSPHRASE}");
        let text = openssl(&["pkey", "-in", path_text, "-passin", &pass, "-text", "-noout"]);
        assert!(String::from_utf8(text).unwrap().contains(name));
        let der = openssl(&["pkey", "-in", path_text, "-passin", &pass, "-pubout", "-outform", "DER"]);
        assert!(der.ends_with(load(&path).unwrap().public_key().as_bytes()));
    }
}

/// A plain key, and the same encrypted as asked.
fn from_openssl(algorithm: &[&str], encryption: &[&str]) -> (TempDir, PathBuf, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let (plain, sealed) = (directory.path().join("plain.pem"), directory.path().join("key.pem"));
    let paths = [plain.to_str().unwrap(), sealed.to_str().unwrap()];
    openssl(&[&["genpkey", "-out", paths[0]], algorithm].concat());
    let pass = format!("pass:{PASSPHRASE}");
    openssl(&[&["pkcs8", "-topk8", "-in", paths[0], "-out", paths[1], "-passout", &pass], encryption].concat());
    for path in [&plain, &sealed] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
    }
    (directory, plain, sealed)
}

const X25519: &[&str] = &["-algorithm", "X25519"];
const P256: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
const SCRYPT: &[&str] = &["-scrypt", "-v2", "aes-256-cbc"];

#[test]
fn what_openssl_writes_is_read() {
    for (algorithm, curve) in [(X25519, Curve::X25519), (P256, Curve::P256)] {
        let (_directory, plain, sealed) = from_openssl(algorithm, SCRYPT);
        let der = openssl(&["pkey", "-in", plain.to_str().unwrap(), "-pubout", "-outform", "DER"]);
        let token = load(&sealed).unwrap();
        assert_eq!(token.curve(), curve);
        assert!(der.ends_with(token.public_key().as_bytes()));
        // The plain one is refused, and the hint is the command that made the sealed one.
        let error = load(&plain).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::KeyFile);
        assert!(error.hint().contains("openssl pkcs8 -topk8 -scrypt -v2 aes-256-cbc"), "{}", error.hint());
    }
}

#[test]
fn other_keys_and_other_encryption_are_refused() {
    let p384 = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"][..];
    for algorithm in [&["-algorithm", "ed25519"][..], p384] {
        assert_eq!(refusal(&from_openssl(algorithm, SCRYPT).2), ErrorKind::WrongCurve);
    }
    for encryption in [&["-v2", "aes-256-cbc"][..], &["-scrypt", "-v2", "aes-128-cbc"], &["-v1", "PBE-SHA1-3DES"]] {
        assert_eq!(refusal(&from_openssl(X25519, encryption).2), ErrorKind::KeyFile, "{encryption:?}");
    }
}

#[test]
fn files_open_to_others_are_refused() {
    let (directory, path) = made(Curve::X25519);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    for mode in [0o640, 0o620, 0o610, 0o604, 0o602, 0o601] {
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        assert_eq!(refusal(&path), ErrorKind::LoosePermissions);
        assert!(load(&path).err().unwrap().hint().contains(&format!("chmod 600 '{}'", path.display())));
    }
    assert_eq!(refusal(directory.path()), ErrorKind::LoosePermissions);
    let fifo = directory.path().join("fifo");
    assert!(Command::new("mkfifo").arg("-m600").arg(&fifo).status().unwrap().success());
    assert_eq!(refusal(&fifo), ErrorKind::LoosePermissions);
    assert_eq!(refusal(&directory.path().join("none.pem")), ErrorKind::Io);
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o400)).unwrap();
    load(&path).unwrap();
}

#[test]
fn damage_is_an_error_and_never_another_key() {
    let (_directory, path) = made(Curve::P256);
    let whole = std::fs::read(&path).unwrap();
    // Before the passphrase is asked for: cut anywhere, or no key file at all.
    let mut pins = right();
    for length in 0..whole.len() - 1 {
        write(&path, &whole[..length]);
        let error = open(&path, &mut pins).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::KeyFile, "{length}");
    }
    for other in [&[0xff; 100][..], &[b'a'; 20_000], b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
    {
        write(&path, other);
        assert_eq!(open(&path, &mut pins).err().unwrap().kind(), ErrorKind::KeyFile);
    }
    assert!(pins.asked.is_empty());
    // A letter of the ciphertext: the passphrase seems wrong.
    let mut flipped = whole.clone();
    let line = flipped.len() - 60;
    flipped[line] = if flipped[line] == b'A' { b'B' } else { b'A' };
    write(&path, &flipped);
    let kind = refusal(&path);
    assert!(matches!(kind, ErrorKind::WrongPin | ErrorKind::KeyFile), "{kind:?}");
    write(&path, &whole);
    let wrong = open(&path, &mut Given { wrong: true, asked: Vec::new() });
    assert_eq!(wrong.err().unwrap().kind(), ErrorKind::WrongPin);
    load(&path).unwrap();
}

#[test]
fn generating_leaves_nothing_when_it_fails() {
    let (directory, path) = made(Curve::X25519);
    let names = || std::fs::read_dir(directory.path()).unwrap().count();
    let before = std::fs::read(&path).unwrap();
    let mut pins = right();
    let again = generate(&path, Curve::X25519, &mut pins).unwrap_err();
    assert_eq!((again.kind(), pins.asked.len()), (ErrorKind::KeyExists, 0));
    // Also where the name is a dangling link.
    let link = directory.path().join("link.pem");
    std::os::unix::fs::symlink("nowhere", &link).unwrap();
    assert_eq!(generate(&link, Curve::X25519, &mut right()).unwrap_err().kind(), ErrorKind::KeyExists);
    let lost = directory.path().join("no/such/key.pem");
    assert_eq!(generate(&lost, Curve::X25519, &mut right()).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!((names(), std::fs::read(&path).unwrap()), (2, before));
}

fn named(path: &Path, passphrase: &Path) -> Locator {
    format!("file:{}?pin-source=file:{}", path.display(), passphrase.display()).parse().unwrap()
}

/// A passphrase in a file asks nobody, for a key that is made and for one that is there.
#[test]
fn the_passphrase_may_be_in_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let (path, passphrase) = (directory.path().join("key.pem"), directory.path().join("passphrase"));
    write(&passphrase, format!("{PASSPHRASE}\n").as_bytes());
    let locator = named(&path, &passphrase);
    let mut pins = right();
    let mut operation = Operation::within(Duration::from_secs(20), &mut pins);
    let (made, public) = claviger_hsm::generate(&locator, &NewKey::new(Curve::X25519), &mut operation).unwrap();
    assert_eq!(made, locator);
    let token = claviger_hsm::open(&made, Some(&public), KeepPin::Once, &mut operation).unwrap();
    assert_eq!(*token.public_key(), public);
    assert!(pins.asked.is_empty(), "{:?}", pins.asked);
    // The same key, the same passphrase typed.
    assert_eq!(*load(&path).unwrap().public_key(), public);
}

#[test]
fn a_passphrase_file_that_can_not_be_used_is_refused() {
    let (directory, path) = made(Curve::P256);
    let passphrase = directory.path().join("passphrase");
    let locator = named(&path, &passphrase);
    let new = named(&directory.path().join("new.pem"), &passphrase);
    let kinds = || {
        let mut pins = right();
        let mut operation = Operation::within(Duration::from_secs(20), &mut pins);
        let opened = claviger_hsm::open(&locator, None, KeepPin::Once, &mut operation).err().map(|error| error.kind());
        let made =
            claviger_hsm::generate(&new, &NewKey::new(Curve::P256), &mut operation).err().map(|error| error.kind());
        assert!(pins.asked.is_empty() && !directory.path().join("new.pem").exists());
        (opened, made)
    };
    assert_eq!(kinds(), (Some(ErrorKind::Io), Some(ErrorKind::Io)));
    write(&passphrase, PASSPHRASE.as_bytes());
    std::fs::set_permissions(&passphrase, PermissionsExt::from_mode(0o640)).unwrap();
    assert_eq!(kinds(), (Some(ErrorKind::LoosePermissions), Some(ErrorKind::LoosePermissions)));
    write(&passphrase, b"\n");
    assert_eq!(kinds(), (Some(ErrorKind::PinRequired), Some(ErrorKind::PinRequired)));
    write(&passphrase, b"another");
    assert_eq!(refusal_of(&locator), ErrorKind::WrongPin);
}

fn refusal_of(locator: &Locator) -> ErrorKind {
    let mut pins = right();
    let mut operation = Operation::within(Duration::from_secs(20), &mut pins);
    claviger_hsm::open(locator, None, KeepPin::Once, &mut operation).err().unwrap().kind()
}
