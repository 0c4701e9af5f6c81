//! *Software* keys: a file that holds the private key, encrypted under a passphrase.
//!
//! The weakest kind of token: the key is in this process's memory while it is open (held by aws-lc, wiped on drop), and the file
//! and its passphrase are all that a thief needs. It is called *software* wherever it is shown.

mod keyfile;

use std::path::Path;

use aws_lc_rs::rand;
use zeroize::Zeroizing;

use crate::curve::{Curve, PublicKey, SoftKey, library_failed};
use crate::device::PinState;
use crate::error::{Error, ErrorKind, Result};
use crate::files::{Owner, read_secret, write_new};
use crate::locator::FileLocator;
use crate::operation::Operation;
use crate::pin::{PinRequest, Purpose, Tries};
use crate::secret::{Pin, SharedSecret};
use crate::token::{Hints, NewKey, PinPolicy, Presence, Token, TokenKind, Touch, check_expected, no_policies, prove};

/// The largest key file that is read, in bytes; ours have about 400.
const MAX_FILE: usize = 16 * 1024;

fn named(path: &Path) -> String {
    format!("software key file \"{}\"", path.display())
}

/// Reads, finds the passphrase (a credential, the locator's file, somebody, in this order), decrypts: see [`crate::open`].
pub(crate) fn open(
    locator: &FileLocator,
    expected: Option<&PublicKey>,
    operation: &mut Operation<'_>,
) -> Result<Box<dyn Token>> {
    let path = locator.path.as_path();
    let name = named(path);
    let text = read_secret(path, "software key file", Owner::User, MAX_FILE)?;
    // What can be refused without the passphrase is refused before anybody is asked for it.
    let sealed = keyfile::Sealed::parse(&text, &name, path)?;
    let source = locator.pin_source.as_deref();
    let request = PinRequest::new(&name, Purpose::Passphrase, Tries::Unlimited).with_source(source);
    let passphrase = match operation.ask(|pins| pins.credential(&request))? {
        Some(passphrase) => passphrase,
        None => given(&request, operation)?,
    };
    let key = sealed.open(&passphrase)?;
    check_expected(key.public(), expected, &name)?;
    let latency = prove(key.public(), &name, |peer| key.agree(peer))?;
    let hints = Hints {
        kind: TokenKind::Software,
        label: name,
        hardware: false,
        touch: Touch::Never,
        pin: PinPolicy::Never,
        latency,
    };
    Ok(Box::new(SoftwareToken { key, hints }))
}

/// By the file that the locator names, or by somebody.
fn given(request: &PinRequest<'_>, operation: &mut Operation<'_>) -> Result<Pin> {
    match request.source {
        Some(path) => Pin::from_file(path),
        None => operation.ask(|pins| pins.pin(request)),
    }
}

/// Makes a key on `curve` and writes it to the locator's path: mode 0600, whole or not at all, never over an existing file.
/// The new passphrase is the one in the locator's `pin-source`; without that, somebody is asked once. Returns the public key.
///
/// The file is PKCS#8 `EncryptedPrivateKeyInfo` (RFC 5958) in PEM, PBES2 with scrypt (RFC 7914; N = 2^14, r = 8, p = 8: 16 MiB, the
/// most memory that `openssl pkey` accepts) and AES-256-CBC; inside, X25519 as RFC 8410 and P-256 as RFC 5915 say.
///
/// # Errors
/// `KeyExists`, `PinRequired`, `Io`; `LoosePermissions` and `KeyFile` for the passphrase's file.
pub(crate) fn generate(locator: &FileLocator, new: &NewKey, operation: &mut Operation<'_>) -> Result<PublicKey> {
    no_policies(new, "A key file")?;
    let path = locator.path.as_path();
    let name = named(path);
    if path.symlink_metadata().is_ok() {
        return Err(Error::new(
            ErrorKind::KeyExists,
            format!("The {name} is there already; nothing was written."),
            "Choose another path.",
        ));
    }
    let source = locator.pin_source.as_deref();
    let request = PinRequest::new(&name, Purpose::NewPassphrase, Tries::Unlimited).with_source(source);
    let passphrase = given(&request, operation)?;
    let (key, scalar) = fresh(new.curve)?;
    let text = keyfile::seal(&key, &scalar, &passphrase)?;
    write_new(path, "software key file", text.as_bytes())?;
    Ok(key.public().clone())
}

/// A uniformly random scalar, by rejection (FIPS 186-5, appendix A.2.2): P-256 refuses one in 2^32.
fn fresh(curve: Curve) -> Result<(SoftKey, Zeroizing<[u8; 32]>)> {
    let mut last = library_failed("rand::fill");
    for _ in 0..8 {
        let mut scalar = Zeroizing::new([0; 32]);
        rand::fill(&mut *scalar).map_err(|_| library_failed("rand::fill"))?;
        match SoftKey::from_scalar(curve, &scalar) {
            Ok(key) => return Ok((key, scalar)),
            Err(error) => last = error,
        }
    }
    Err(last)
}

struct SoftwareToken {
    key: SoftKey,
    hints: Hints,
}

impl Token for SoftwareToken {
    fn public_key(&self) -> &PublicKey {
        self.key.public()
    }

    fn hints(&self) -> &Hints {
        &self.hints
    }

    fn agree(&mut self, peer: &PublicKey, operation: &mut Operation<'_>) -> Result<SharedSecret> {
        operation.before_deadline(&self.hints.label)?;
        let secret = self.key.agree(peer)?;
        operation.before_deadline(&self.hints.label)?;
        Ok(secret)
    }

    fn look(&mut self) -> Result<Presence> {
        Ok(Presence::Ready)
    }

    fn pin_state(&mut self) -> Result<PinState> {
        Ok(PinState::new(Tries::Unlimited))
    }
}
