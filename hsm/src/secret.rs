//! The two secrets that cross this crate's border: what a token agreed, and what opens it.

use std::path::Path;

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::error::{Error, ErrorKind, Result};
use crate::files::{Owner, read_secret};

/// What an agree gives: 32 bytes, the X25519 output or the X coordinate of the P-256 point. Wiped on drop, never printed.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct SharedSecret([u8; 32]);

impl SharedSecret {
    /// Takes the 32 bytes of a Diffie-Hellman result.
    ///
    /// # Errors
    /// `ZeroSecret`: all bytes are zero (RFC 7748, section 6.1), which no honest pair of keys gives.
    pub fn new(bytes: [u8; 32]) -> Result<Self> {
        let secret = Self(bytes);
        if secret.0.iter().fold(0, |any, byte| any | byte) == 0 {
            return Err(Error::new(
                ErrorKind::ZeroSecret,
                "The Diffie-Hellman result is all zero.",
                "The peer's key or the token is broken; do not use this pair, and repeat the ceremony with a new key.",
            ));
        }
        Ok(secret)
    }

    /// The 32 bytes, for a key derivation and nothing else.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// A PIN, or the passphrase of a key file: 1 to 255 bytes of UTF-8 without NUL. Wiped on drop, never printed.
pub struct Pin(Zeroizing<String>);

impl Pin {
    /// The most bytes a PIN may have.
    pub const MAX_LEN: usize = 255;

    /// Takes what a person or a file gave.
    ///
    /// # Errors
    /// `PinRequired`: it is empty, longer than [`Pin::MAX_LEN`] bytes, or holds a NUL.
    pub fn new(text: String) -> Result<Self> {
        let pin = Self(Zeroizing::new(text));
        if pin.0.is_empty() || pin.0.len() > Self::MAX_LEN || pin.0.contains('\0') {
            return Err(Error::new(
                ErrorKind::PinRequired,
                "What was given cannot be a PIN or passphrase: it is empty, longer than 255 bytes, or holds a NUL.",
                "Give 1 to 255 bytes of text.",
            ));
        }
        Ok(pin)
    }

    /// The PIN in a file: its text, less one line end. The file belongs to this process's user or to root and is closed to everybody else.
    ///
    /// # Errors
    /// `LoosePermissions`, `KeyFile` for one that is too long, `Io`, `PinRequired`.
    pub fn from_file(path: &Path) -> Result<Self> {
        Self::read(path, "PIN file", Owner::Root)
    }

    /// The PIN in a credential of the service manager: a file as for [`from_file`](Self::from_file), with the permissions that systemd gives it.
    ///
    /// # Errors
    /// As [`from_file`](Self::from_file).
    pub fn from_credential(path: &Path) -> Result<Self> {
        Self::read(path, "credential", Owner::ServiceManager)
    }

    fn read(path: &Path, what: &str, owner: Owner) -> Result<Self> {
        let bytes = read_secret(path, what, owner, Self::MAX_LEN + 2)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| {
            Error::new(
                ErrorKind::PinRequired,
                format!("The {what} \"{}\" is not UTF-8 text.", path.display()),
                "Write the PIN into it, with or without a newline at the end.",
            )
        })?;
        let text = text.strip_suffix('\n').unwrap_or(text);
        Self::new(text.strip_suffix('\r').unwrap_or(text).to_owned())
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// Whether the two are the same. Both belong to the one who asks, so the time it takes tells nobody anything.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl zeroize::ZeroizeOnDrop for Pin {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_no_secret() {
        assert_eq!(SharedSecret::new([0; 32]).err().unwrap().kind(), ErrorKind::ZeroSecret);
        let mut one_bit = [0; 32];
        one_bit[31] = 0x80;
        assert_eq!(SharedSecret::new(one_bit).unwrap().as_bytes(), &one_bit);
    }

    #[test]
    fn pins_have_bounds() {
        assert_eq!(Pin::new("x".repeat(255)).unwrap().expose().len(), 255);
        for bad in [String::new(), "x".repeat(256), "12\x0034".into()] {
            assert_eq!(Pin::new(bad).err().unwrap().kind(), ErrorKind::PinRequired);
        }
    }

    #[test]
    fn a_credential_may_have_an_access_list() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pin");
        std::fs::write(&path, "271828\r\n").unwrap();
        let root = rustix::process::geteuid().is_root();
        for (mode, file, credential) in [
            (0o600, true, true),
            (0o400, true, true),
            (0o440, false, root),
            (0o460, false, false),
            (0o404, false, false),
        ] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(Pin::from_file(&path).is_ok(), file, "{mode:o}");
            assert_eq!(Pin::from_credential(&path).is_ok(), credential, "{mode:o}");
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(Pin::from_file(&path).ok().unwrap().expose(), "271828");
    }
}
