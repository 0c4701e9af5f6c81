//! Authentication at tor's control port (control-spec, sections 3.5, 3.21 and 3.24).
//!
//! Two ways: the cookie by `SAFECOOKIE`, where each end proves to know the cookie without sending it, and a password that the operator
//! gave. A control port that lets everybody in is refused: an onion service's secret key is about to be sent, and nothing would show
//! that it is tor who listens. The plain `COOKIE` way sends the cookie to whoever listens, and every tor since 0.2.3 has `SAFECOOKIE`.

use super::control::{Control, garbled};
use super::reply::{Malformed, value};
use crate::config;
use crate::error::{Error, ErrorKind, Result};
use crate::secret::{SecretBytes, SecretString};
use aws_lc_rs::hmac;
use data_encoding::{HEXLOWER, HEXUPPER_PERMISSIVE};
use std::fs::File;
use std::io::{ErrorKind as ErrorKindIo, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Length of a cookie, of a nonce and of a hash, in bytes.
const LEN: usize = 32;
/// Longest password, in bytes.
const MAX_PASSWORD: usize = 1024;
/// The first tor that takes everything that is asked here.
const OLDEST: [u32; 3] = [0, 3, 5];

// control-spec, section 3.24.
const SERVER_TO_CONTROLLER: &[u8] = b"Tor safe cookie authentication server-to-controller hash";
const CONTROLLER_TO_SERVER: &[u8] = b"Tor safe cookie authentication controller-to-server hash";

/// A part of an answer, or why it is none.
type Checked<T> = std::result::Result<T, Malformed>;

/// What tor says of itself before authentication.
struct Info {
    methods: Vec<String>,
    version: String,
}

/// Authenticates. Where the cookie is is the configuration's word, never the port's own: a program that took the port while tor was down
/// would name a file of its own, pass for tor, and be sent the onion service's key.
///
/// # Errors
/// `ControlRefused` when tor does not let us in, `TransportUnavailable` when it is not tor or its release is too old.
pub(super) async fn authenticate(control: &mut Control, config: &config::Tor) -> Result<()> {
    let info = protocol_info(control).await?;
    if !recent(&info.version) {
        return Err(Error::new(
            ErrorKind::TransportUnavailable,
            format!("tor {} is too old to publish onion services from here.", info.version),
            "Install tor 0.4.8 or later, which gets security fixes.",
        ));
    }
    if let Some(file) = &config.password_file {
        return by_password(control, &info, file).await;
    }
    if info.offers("SAFECOOKIE") {
        return by_cookie(control, &config.cookie_file).await;
    }
    Err(refused(
        format!("tor's control port at {} does not authenticate by cookie.", control.address()),
        "Add `CookieAuthentication 1` to /etc/tor/torrc and run `systemctl restart tor`; or set `password-file` in [transport.tor].",
    ))
}

impl Info {
    fn offers(&self, method: &str) -> bool {
        self.methods.iter().any(|offered| offered == method)
    }
}

/// `PROTOCOLINFO 1` and what is in its answer.
async fn protocol_info(control: &mut Control) -> Result<Info> {
    let reply = control.ask("PROTOCOLINFO 1\r\n").await?;
    let info = || -> Checked<Info> {
        if reply.status != 250 || reply.after("PROTOCOLINFO ") != Some("1") {
            return Err("it does not know PROTOCOLINFO 1");
        }
        let auth = reply.after("AUTH ").ok_or("it names no way to authenticate")?;
        let methods = value(auth, "METHODS")?.ok_or("it names no way to authenticate")?;
        let version = reply.after("VERSION ").map(|text| value(text, "Tor")).transpose()?.flatten();
        Ok(Info {
            methods: String::from_utf8_lossy(&methods).split(',').map(str::to_owned).collect(),
            version: version.map(|text| String::from_utf8_lossy(&text).into_owned()).ok_or("it names no version")?,
        })
    };
    info().map_err(|why| garbled(control.address(), why))
}

/// Whether a version like `0.4.9.11` or `0.4.9.1-alpha` is [`OLDEST`] or later. One that is not understood is taken to be.
fn recent(version: &str) -> bool {
    let mut numbers = version.split('.').map(|part| part.parse::<u32>());
    let found = [(); 3].map(|()| numbers.next().and_then(|number| number.ok()).unwrap_or(u32::MAX));
    found >= OLDEST
}

/// `AUTHCHALLENGE SAFECOOKIE`: tor proves to know the cookie, then we do.
async fn by_cookie(control: &mut Control, file: &Path) -> Result<()> {
    let cookie = read_cookie(file)?;
    let client_nonce = super::random::<LEN>()?;
    let reply = control.ask(&format!("AUTHCHALLENGE SAFECOOKIE {}\r\n", HEXLOWER.encode(&client_nonce))).await?;
    let malformed = |why| garbled(control.address(), why);
    let Some(answer) = reply.after("AUTHCHALLENGE ").filter(|_| reply.status == 250) else {
        return Err(refused(
            format!("tor refused the authentication: {}", sentence(reply.message())),
            "Restart tor with `systemctl restart tor`.",
        ));
    };
    let server_hash = hex(answer, "SERVERHASH").map_err(malformed)?;
    let server_nonce = hex(answer, "SERVERNONCE").map_err(malformed)?;
    let mut message = SecretBytes::new(Vec::with_capacity(3 * LEN));
    for part in [&cookie[..], &client_nonce, &server_nonce] {
        message.extend_from_slice(part);
    }
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, SERVER_TO_CONTROLLER), &message, &server_hash).map_err(|_| {
        refused(
            format!("What answers at {} does not know the cookie in {}.", control.address(), file.display()),
            "Check that `control` and `cookie-file` in [transport.tor] are of the same tor, and what listens on that port.",
        )
    })?;
    let proof = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, CONTROLLER_TO_SERVER), &message);
    let reply = control.ask(&format!("AUTHENTICATE {}\r\n", HEXLOWER.encode(proof.as_ref()))).await?;
    if reply.status == 250 {
        return Ok(());
    }
    Err(refused(
        format!("tor refused the cookie in {}: {}", file.display(), sentence(reply.message())),
        "Restart tor with `systemctl restart tor`, which writes a new cookie.",
    ))
}

fn hex(answer: &str, key: &str) -> Checked<[u8; LEN]> {
    let text = value(answer, key)?.ok_or("its challenge is incomplete")?;
    let bytes = HEXUPPER_PERMISSIVE.decode(&text).map_err(|_| "its challenge is not hexadecimal")?;
    bytes.try_into().map_err(|_| "its challenge has a wrong length")
}

/// Opens a regular file; whatever else is there is refused, and not waited for.
fn open(file: &Path) -> std::io::Result<File> {
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let opened = File::options().read(true).custom_flags(nonblocking).open(file)?;
    if opened.metadata()?.is_file() { Ok(opened) } else { Err(std::io::Error::other("not a regular file")) }
}

fn read_cookie(file: &Path) -> Result<SecretBytes> {
    let mut cookie = SecretBytes::new(Vec::with_capacity(LEN + 1));
    let read = open(file).and_then(|opened| opened.take(LEN as u64 + 1).read_to_end(&mut cookie));
    read.map_err(|error| {
        let hint = match error.kind() {
            ErrorKindIo::PermissionDenied => {
                "Set `CookieAuthFileGroupReadable 1` in /etc/tor/torrc, join tor's group with `adduser USER debian-tor`, and log in again."
            }
            _ => "Set `cookie-file` in [transport.tor] to what `CookieAuthFile` says in /etc/tor/torrc, or to `control_auth_cookie` in its DataDirectory.",
        };
        refused(format!("tor's cookie in {} can not be read.", file.display()), hint).because(error)
    })?;
    if cookie.len() == LEN {
        return Ok(cookie);
    }
    Err(refused(
        format!("{} is not a cookie of tor: it is not {LEN} bytes long.", file.display()),
        "Set `cookie-file` in [transport.tor] to what `CookieAuthFile` says in /etc/tor/torrc.",
    ))
}

/// `AUTHENTICATE` with the password in `file`.
async fn by_password(control: &mut Control, info: &Info, file: &Path) -> Result<()> {
    let hint = "Put the output of `tor --hash-password PASSWORD` behind `HashedControlPassword` in /etc/tor/torrc, \
        and run `systemctl reload tor`.";
    if !info.offers("HASHEDPASSWORD") {
        return Err(refused(format!("tor's control port at {} takes no password.", control.address()), hint));
    }
    let password = read_password(file)?;
    // Reserved whole: a buffer that grows would leave a copy behind.
    let mut command = SecretString::new(String::with_capacity(2 * password.len() + 20));
    command.push_str("AUTHENTICATE \"");
    for character in password.chars() {
        if matches!(character, '"' | '\\') {
            command.push('\\');
        }
        command.push(character);
    }
    command.push_str("\"\r\n");
    match control.ask(&command).await?.status {
        250 => Ok(()),
        _ => Err(refused(format!("tor refused the password in {}.", file.display()), hint)),
    }
}

fn read_password(file: &Path) -> Result<SecretString> {
    let unreadable = |error| {
        refused(
            format!("The control port's password in {} can not be read.", file.display()),
            "Write the password to that file, with mode 0600, or remove `password-file` to use tor's cookie.",
        )
        .because(error)
    };
    let opened = open(file).map_err(unreadable)?;
    if opened.metadata().map_err(unreadable)?.permissions().mode() & 0o077 != 0 {
        return Err(refused(
            format!("The control port's password in {} can be read or changed by other users.", file.display()),
            &format!("Run `chmod 600 {}`.", file.display()),
        ));
    }
    let mut bytes = SecretBytes::new(Vec::with_capacity(MAX_PASSWORD + 2));
    opened.take(MAX_PASSWORD as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match std::str::from_utf8(line) {
        Ok(password) if !password.is_empty() && bytes.len() <= MAX_PASSWORD && !password.contains(['\0', '\r']) => {
            Ok(SecretString::new(password.to_owned()))
        }
        _ => Err(refused(
            format!("The first line of {} is not a password of 1 to {MAX_PASSWORD} bytes.", file.display()),
            "Write the password to the file's first line.",
        )),
    }
}

fn refused(what: String, hint: &str) -> Error {
    Error::new(ErrorKind::ControlRefused, what, hint)
}

/// A message of tor as the end of a sentence: printable, not too long, with a full stop.
pub(super) fn sentence(message: &str) -> String {
    let text: String = message.chars().filter(|c| !c.is_control()).take(200).collect();
    format!("{}.", text.trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for good in ["0.4.9.11", "0.3.5.1-alpha", "0.4.9.1-alpha-dev", "1.0", "0.10.0.1", "next"] {
            assert!(recent(good), "{good}");
        }
        for bad in ["0.3.4.12", "0.2.9.17", "0.1"] {
            assert!(!recent(bad), "{bad}");
        }
    }

    #[test]
    fn password_files() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        let write = |bytes: &[u8], mode| {
            std::fs::write(&file, bytes).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            read_password(&file)
        };
        assert_eq!(write(b"open \"sesame\"\nnote\n", 0o600).unwrap().as_str(), "open \"sesame\"");
        assert_eq!(write(b"x\r\n", 0o400).unwrap().as_str(), "x");
        for (bytes, mode) in
            [(&b"x"[..], 0o640), (b"x", 0o602), (b"", 0o600), (b"\nx", 0o600), (b"\xff", 0o600), (&[b'x'; 1025], 0o600)]
        {
            assert_eq!(write(bytes, mode).err().unwrap().kind(), ErrorKind::ControlRefused, "{bytes:?} {mode:o}");
        }
        assert_eq!(read_password(dir.path()).err().unwrap().kind(), ErrorKind::ControlRefused);
        assert_eq!(read_password(&dir.path().join("none")).err().unwrap().kind(), ErrorKind::ControlRefused);
    }

    #[test]
    fn cookie_files() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cookie");
        for (len, good) in [(0, false), (31, false), (32, true), (33, false), (100_000, false)] {
            std::fs::write(&file, vec![7; len]).unwrap();
            assert_eq!(read_cookie(&file).is_ok(), good, "{len} bytes");
        }
    }
}
