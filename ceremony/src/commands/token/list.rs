//! `token list`.

use std::collections::BTreeSet;
use std::path::Path;

use claviger::error::Result;
use claviger::identity::TokenKind as Kind;
use claviger::program::Terminal;
use claviger::token::from_hsm;
use claviger_hsm::{Device, Error, KeepPin, Locator, TokenKind};
use serde::Serialize;

use super::shown::{self, TokenReport};
use super::{look, static_public};
use crate::cli::{Backend, List};
use crate::commands::attend::{self, attend, name};
use crate::report::Key;

/// `token list --json`: `{"tokens": […], "key_files": […], "failed_modules": […], "failed_backends": […]}`.
#[derive(Serialize)]
struct Listing {
    tokens: Vec<TokenReport>,
    key_files: Vec<Key>,
    /// PKCS#11 modules in the usual places that could not be used.
    failed_modules: Vec<FailedModule>,
    /// Families that could not be looked for.
    failed_backends: Vec<FailedBackend>,
}

#[derive(Serialize)]
struct FailedModule {
    module: String,
    why: String,
}

#[derive(Serialize)]
struct FailedBackend {
    /// As `--backend` takes it.
    backends: Vec<String>,
    why: String,
    hint: String,
}

/// What of everything is wanted.
struct Wanted<'a>(&'a List);

impl Wanted<'_> {
    fn has(&self, backend: Backend) -> bool {
        let list = self.0;
        let nothing_named = list.module.is_empty() && list.key_file.is_empty() && list.tcti.is_none();
        list.backend.contains(&backend) || (list.backend.is_empty() && nothing_named)
    }
}

pub(super) fn list(list: &List, terminal: &Terminal) -> Result<()> {
    let wanted = Wanted(list);
    let mut listing =
        Listing { tokens: Vec::new(), key_files: Vec::new(), failed_modules: Vec::new(), failed_backends: Vec::new() };
    for path in &list.key_file {
        listing.key_files.push(key_file(path, terminal)?);
    }
    for backend in [Backend::Openpgp, Backend::Piv] {
        if wanted.has(backend) {
            listing.add(backend.kind(), attend::look(terminal, || look::cards(backend.kind())));
        }
    }
    if wanted.has(Backend::Openpgp) && !wanted.has(Backend::Piv) {
        // When it fails, so did the other.
        listing.tokens.extend(attend::look(terminal, look::held).unwrap_or_default().iter().map(TokenReport::new));
    }
    listing.add_tpm(list, &wanted)?;
    for module in &list.module {
        let module = std::path::absolute(module).unwrap_or_else(|_| module.clone());
        let tokens = attend::look(terminal, || claviger_hsm::pkcs11::list(&module)).map_err(from_hsm)?;
        listing.tokens.extend(tokens.iter().map(TokenReport::new));
    }
    if list.module.is_empty() && wanted.has(Backend::Pkcs11) {
        for module in look::modules() {
            match attend::look(terminal, || claviger_hsm::pkcs11::list(&module)) {
                Ok(tokens) => listing.tokens.extend(tokens.iter().map(TokenReport::new)),
                Err(error) => {
                    let (module, why) = (module.display().to_string(), error.to_string());
                    listing.failed_modules.push(FailedModule { module, why });
                }
            }
        }
    }
    if listing.tokens.is_empty() && listing.key_files.is_empty() {
        terminal.note(
            "No token was found. Plug it in; name a PKCS#11 module that is not in a usual place with `claviger-ceremony token list --module PATH`.",
        );
    }
    terminal.result(&listing.text(), &listing)?;
    if listing.has_doubles() {
        terminal.note(
            "One device can stand here several times: as PIV card, as OpenPGP card, and behind a PKCS#11 module. `claviger-ceremony token explain` says which key is for what.",
        );
    }
    Ok(())
}

impl Listing {
    fn add(&mut self, kind: TokenKind, devices: std::result::Result<Vec<Device>, Error>) {
        match devices {
            Ok(devices) => self.tokens.extend(devices.iter().map(TokenReport::new)),
            Err(error) => {
                let (why, hint) = (error.to_string(), error.hint().to_owned());
                // Both kinds of card need one service.
                match self.failed_backends.iter_mut().find(|failed| failed.why == why) {
                    Some(failed) => failed.backends.push(kind.to_string()),
                    None => {
                        self.failed_backends.push(FailedBackend { backends: vec![kind.to_string()], why, hint });
                    }
                }
            }
        }
    }

    #[cfg(feature = "tpm")]
    fn add_tpm(&mut self, list: &List, wanted: &Wanted<'_>) -> Result<()> {
        match &list.tcti {
            Some(tcti) => {
                let devices = look::tpms(Some(tcti)).map_err(from_hsm)?;
                self.tokens.extend(devices.iter().map(TokenReport::new));
            }
            None if wanted.has(Backend::Tpm) => self.add(TokenKind::Tpm, look::tpms(None)),
            None => {}
        }
        Ok(())
    }

    #[cfg(not(feature = "tpm"))]
    fn add_tpm(&mut self, list: &List, _: &Wanted<'_>) -> Result<()> {
        if list.tcti.is_none() && !list.backend.contains(&Backend::Tpm) {
            return Ok(());
        }
        Err(claviger::Error::new(
            claviger::ErrorKind::TokenModule,
            "This build has no backend for TPMs.",
            "Build with the cargo feature `tpm`, which needs tpm2-tss.",
        ))
    }

    /// Whether several ways lead to devices, which may be the same ones.
    fn has_doubles(&self) -> bool {
        let ways: BTreeSet<_> = self.tokens.iter().filter(|token| token.hardware).map(|token| &token.backend).collect();
        ways.len() > 1
    }

    fn text(&self) -> String {
        let mut blocks: Vec<String> = self.tokens.iter().map(TokenReport::text).collect();
        blocks.extend(self.key_files.iter().map(shown::key_file_text));
        for failed in &self.failed_modules {
            blocks.push(format!("module {}\n  can not be used: {}\n", failed.module, failed.why));
        }
        for failed in &self.failed_backends {
            blocks.push(format!("{}\n  can not be looked for: {}\n  {}\n", failed.names(), failed.why, failed.hint));
        }
        blocks.join("\n")
    }
}

impl FailedBackend {
    fn names(&self) -> String {
        let name = |word: &String| match word.parse().map_or("token", look::family) {
            "TPM 2.0" => "TPMs".to_owned(),
            name => format!("{name}s"),
        };
        self.backends.iter().map(name).collect::<Vec<_>>().join(" and ")
    }
}

fn key_file(path: &Path, terminal: &Terminal) -> Result<Key> {
    let locator = Locator::File(std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).into());
    let open =
        |operation: &mut claviger_hsm::Operation<'_>| claviger_hsm::open(&locator, None, KeepPin::Never, operation);
    let token = attend(terminal, &name(&locator), open)?.answer;
    Ok(Key::new(locator.to_string(), Kind::Software, &static_public(token.public_key())?))
}
