//! Loading a module, once per process, and finding a token behind it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error as Cryptoki, RvError};
use cryptoki::slot::TokenInfo;

use super::fail::described;
use super::{Found, shown};
use crate::error::{Error, ErrorKind, Result};
use crate::uri::Pkcs11Uri;

/// Modules that are loaded and initialized, by canonical path. `C_Initialize` is for the process, so nobody finalizes.
static LOADED: Mutex<BTreeMap<PathBuf, Pkcs11>> = Mutex::new(BTreeMap::new());

/// Where distributions put modules. Only looked at to say what is there.
const USUAL_PLACES: [&str; 6] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/opensc-pkcs11.so",
    "/usr/lib/aarch64-linux-gnu/opensc-pkcs11.so",
    "/usr/lib/x86_64-linux-gnu/libykcs11.so.2",
    "/usr/lib/aarch64-linux-gnu/libykcs11.so.2",
    "/usr/lib64/pkcs11/opensc-pkcs11.so",
];

#[derive(Clone)]
pub(super) struct Module {
    pub(super) context: Pkcs11,
    path: PathBuf,
}

impl Module {
    pub(super) fn load(uri: &Pkcs11Uri) -> Result<Self> {
        let Some(path) = uri.module_path() else {
            return Err(Error::new(
                ErrorKind::ModuleMissing,
                "The PKCS#11 URI does not say which module to load.",
                format!("Add `?module-path=/path/to/module.so`. {}", installed()),
            ));
        };
        Self::at(path)
    }

    pub(super) fn at(path: &Path) -> Result<Self> {
        let canonical = path.canonicalize().map_err(|error| {
            Error::new(
                ErrorKind::ModuleMissing,
                format!("The PKCS#11 module \"{}\" cannot be found: {error}.", shown(path)),
                format!("Install it or correct `module-path`. {}", installed()),
            )
        })?;
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        let context = match loaded.get(&canonical) {
            Some(context) => context.clone(),
            None => {
                let context = load(&canonical)?;
                initialize(&context, &canonical)?;
                loaded.insert(canonical.clone(), context.clone());
                context
            }
        };
        Ok(Self { context, path: canonical })
    }

    /// The slots that hold a token, with what each says of itself. A slot that fails is left out: its token is being pulled.
    pub(super) fn tokens(&self) -> Result<Vec<Found>> {
        let slots = match self.context.get_slots_with_token() {
            // Somebody else in this process finalized the module.
            Err(Cryptoki::Pkcs11(RvError::CryptokiNotInitialized, _)) => {
                initialize(&self.context, &self.path)?;
                self.context.get_slots_with_token()
            }
            slots => slots,
        };
        let slots = slots.map_err(|error| failed(&self.path, &error))?;
        let found = |slot| {
            let info = self.context.get_token_info(slot).ok()?;
            let name = format!("{} token \"{}\"", printable(info.model()), printable(info.label()));
            let hardware = self.context.get_slot_info(slot).ok()?.hardware_slot();
            Some(Found { slot, info, name, hardware })
        };
        Ok(slots.into_iter().filter_map(found).collect())
    }

    /// The one token that `uri` describes.
    pub(super) fn find_token(&self, uri: &Pkcs11Uri) -> Result<Found> {
        let present = self.tokens()?;
        let names: Vec<String> = present.iter().map(|found| found.name.clone()).collect();
        let mut matching = present.into_iter().filter(|found| matches(uri, &found.info));
        match (matching.next(), matching.next()) {
            (Some(found), None) => Ok(found),
            (None, _) => Err(Error::new(
                ErrorKind::TokenAbsent,
                format!(
                    "No token behind the module \"{}\" answers to the locator; {}.",
                    shown(&self.path),
                    if names.is_empty() { "none is there".into() } else { format!("there is {}", names.join(", ")) }
                ),
                "Plug the right token in, or correct `token=` or `serial=`; `claviger-ceremony token list` shows which are there.",
            )),
            (Some(_), Some(_)) => Err(Error::new(
                ErrorKind::TokenAmbiguous,
                format!("Several tokens answer to the locator; there is {}.", names.join(", ")),
                "Add `serial=` to the locator; `claviger-ceremony token list` shows the serial numbers.",
            )),
        }
    }

    /// What the token says of itself now; its PIN flags change with every try.
    pub(super) fn token_info(&self, found: &Found) -> Result<TokenInfo> {
        self.context.get_token_info(found.slot).map_err(|error| found.failed(error))
    }

    /// SoftHSM 2 makes X25519 keys under the mechanism and key type of Edwards curves.
    pub(super) fn is_softhsm(&self) -> bool {
        self.context.get_library_info().is_ok_and(|info| trimmed(info.manufacturer_id()) == "SoftHSM")
    }
}

fn load(path: &Path) -> Result<Pkcs11> {
    Pkcs11::new(path).map_err(|error| match error {
        Cryptoki::LibraryLoading(cause) => Error::new(
            ErrorKind::ModuleMissing,
            format!("The PKCS#11 module \"{}\" cannot be loaded: dlopen: {cause}.", shown(path)),
            format!("Name the module's shared object, built for this machine. {}", installed()),
        ),
        Cryptoki::MissingSymbol(symbol) => Error::new(
            ErrorKind::ModuleMissing,
            format!("\"{}\" is no PKCS#11 module: it has no {symbol}.", shown(path)),
            installed(),
        ),
        error => failed(path, &error),
    })
}

fn initialize(context: &Pkcs11, path: &Path) -> Result<()> {
    match context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Ok(()) | Err(Cryptoki::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(()),
        Err(error) => Err(failed(path, &error)),
    }
}

fn failed(path: &Path, error: &Cryptoki) -> Error {
    let (call, cause) = described(error);
    Error::new(
        ErrorKind::ModuleFailed,
        format!("The PKCS#11 module \"{}\" failed: {call}: {cause}.", shown(path)),
        "Check the module's own configuration (for SoftHSM: SOFTHSM2_CONF and the token directory's permissions).",
    )
}

fn installed() -> String {
    let there: Vec<&str> = USUAL_PLACES.into_iter().filter(|path| Path::new(path).exists()).collect();
    if there.is_empty() {
        "No module is in the usual places.".into()
    } else {
        format!("Here are: {}.", there.join(", "))
    }
}

fn matches(uri: &Pkcs11Uri, info: &TokenInfo) -> bool {
    let same = |wanted: Option<&str>, found: &str| wanted.is_none_or(|wanted| trimmed(wanted) == trimmed(found));
    same(uri.token(), info.label())
        && same(uri.manufacturer(), info.manufacturer_id())
        && same(uri.model(), info.model())
        && same(uri.serial(), info.serial_number())
        // An empty slot of a software module is no token that anybody meant, unless it is the only thing asked for.
        && (info.token_initialized() || uri.serial().is_some())
}

/// Fields of `CK_TOKEN_INFO` are padded with blanks; some modules pad with NUL.
pub(super) fn trimmed(field: &str) -> &str {
    field.trim_end_matches([' ', '\0'])
}

/// Text from a device as a terminal may see it: trimmed, control characters escaped.
pub(super) fn printable(text: &str) -> String {
    trimmed(text).escape_debug().to_string()
}
