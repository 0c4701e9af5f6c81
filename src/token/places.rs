//! What a token needs of the machine, read from its locator.

use super::from_hsm;
use crate::error::Result;
use claviger_hsm::Locator;
use std::path::{Path, PathBuf};

/// What whoever opens a token reaches for, so that a program can give up the rest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    /// Files and directories that are read: a module and what lies beside it, a key file, a PIN.
    pub read: Vec<PathBuf>,
    /// Devices that are read, written and controlled.
    pub devices: Vec<PathBuf>,
    /// TCP ports that are connected to.
    pub connect: Vec<u16>,
    /// Whether the PIN is in a file that the locator names: nobody is asked for it.
    pub has_pin: bool,
    /// Whether the way to it is a program that is started, or nothing that is known here.
    pub starts_program: bool,
}

/// Reads them from a locator's text. Nothing is opened.
///
/// # Errors
/// [`ErrorKind::LocatorInvalid`](crate::ErrorKind::LocatorInvalid).
pub fn places(locator: &str) -> Result<Places> {
    let locator: Locator = locator.parse().map_err(from_hsm)?;
    let mut places = Places::default();
    if let Some(pin) = locator.pin_source() {
        places.read.push(pin.to_owned());
        places.has_pin = true;
    }
    match &locator {
        // Modules load libraries that lie beside them.
        Locator::Pkcs11(uri) => places.read.extend(uri.module_path().map(directory)),
        // In a directory, because a file that is replaced is another file.
        Locator::File(file) => places.read.push(directory(&file.path)),
        Locator::Tpm(tpm) => of_tpm(tpm.tcti.as_deref(), &mut places),
        // Through pcscd's socket.
        _ => {}
    }
    Ok(places)
}

fn directory(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent == Path::new("") => PathBuf::from("."),
        Some(parent) if parent != Path::new("/") => parent.to_owned(),
        _ => path.to_owned(),
    }
}

/// The way to a TPM as tpm2-tss writes it (Tss2_TctiLdr_Initialize(3)): `NAME` or `NAME:CONF`.
fn of_tpm(tcti: Option<&str>, places: &mut Places) {
    let (name, conf) = tcti.unwrap_or("device").split_once(':').unwrap_or((tcti.unwrap_or("device"), ""));
    match name {
        "device" => places.devices.push(if conf.is_empty() { "/dev/tpmrm0" } else { conf }.into()),
        "swtpm" | "mssim" => {
            let port = conf.split(',').find_map(|part| part.trim().strip_prefix("port="));
            let port = port.and_then(|port| port.parse().ok()).unwrap_or(2321u16);
            // Commands, and beside them what is no command (mssim's platform port).
            places.connect.extend([port, port.saturating_add(1)]);
        }
        "tabrmd" => {}
        _ => places.starts_program = true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_each_kind() {
        let read = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<_>>();
        let of = |text: &str| places(text).unwrap();
        let module = of("pkcs11:token=a;object=b?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=/run/pin");
        assert_eq!((module.read, module.has_pin), (read(&["/run/pin", "/usr/lib/softhsm"]), true));
        assert_eq!(of("file:/etc/claviger/key.pem").read, read(&["/etc/claviger"]));
        assert_eq!(of("file:key.pem").read, read(&["."]));
        assert_eq!(of("piv:serial=7;slot=9d"), Places::default());
        assert_eq!(of("tpm2:0x81010042").devices, read(&["/dev/tpmrm0"]));
        assert_eq!(of("tpm2:0x81010042?tcti=device:/dev/tpm0").devices, read(&["/dev/tpm0"]));
        assert_eq!(of("tpm2:owner/a?tcti=swtpm:host=127.0.0.1,port=4000").connect, [4000, 4001]);
        assert!(of("tpm2:owner/a?tcti=cmd:tpm2-send-thing").starts_program);
        assert!(places("nothing").is_err());
    }
}
