//! `init`: a machine gets its identity.

use std::path::Path;

use claviger::error::{Error, ErrorKind, Result};
use claviger::identity::{ClientAuthKeys, IdentityCard, OnionKeys, TokenKind};
use claviger::store::{AttestationPolicy, NewMachine, Store};

use super::attend::{attend, name};
use super::token::{kind, parse, static_public};
use crate::attestation::{of_token, read_root, roots};
use crate::cli::Init;
use crate::report::Identity;
use claviger::program::Terminal;
use claviger_hsm::{KeepPin, Operation};

pub(super) fn init(dir: &Path, init: &Init, terminal: &Terminal) -> Result<()> {
    let locator = parse(&init.token)?;
    // Before the token costs anybody a PIN or a touch.
    refuse_existing(dir)?;
    let kept = init.attestation_root.iter().map(|file| read_root(file)).collect::<Result<Vec<_>>>()?;
    let roots = roots(&kept, &[])?;
    let open = |operation: &mut Operation<'_>| claviger_hsm::open(&locator, None, KeepPin::Once, operation);
    let mut token = attend(terminal, &name(&locator), open)?.answer;
    let static_public = static_public(token.public_key())?;
    let kind = kind(token.hints().hardware);
    if kind == TokenKind::Software {
        terminal.warn("this machine's identity is a SOFTWARE key, which can be copied; its card says so.");
    }
    terminal.note(&format!("The key is on the {}, and answers.", token.hints().label));

    let attestation = if init.no_attestation || kind == TokenKind::Software {
        None
    } else {
        of_token(&mut *token, &locator, &static_public, &roots, terminal)?
    };

    let (onion, client_auth) = (OnionKeys::generate()?, ClientAuthKeys::generate()?);
    let card = IdentityCard {
        identifier: init.name.clone(),
        role: init.role.clone(),
        token: kind,
        attestation,
        static_public,
        backup: None,
        onion_address: onion.address,
        client_auth: client_auth.public,
        suites: init.suites.clone(),
    };
    let machine = NewMachine {
        card,
        token: locator.to_string(),
        backup_token: None,
        plan: None,
        onion: onion.secret,
        client_auth: client_auth.secret,
        attestation: AttestationPolicy { required: init.require_attestation, roots: kept },
    };
    let store = Store::create(dir, &machine, &[])?;
    terminal.note(&format!(
        "The store is in {}. Write this machine's card with `claviger-ceremony export`.",
        store.dir().display()
    ));
    let identity = Identity::of_machine(&store.machine()?, &roots);
    terminal.result(&identity.text(), &identity)
}

fn refuse_existing(dir: &Path) -> Result<()> {
    match Store::open(dir) {
        Err(error) if error.kind() == ErrorKind::StoreAbsent => Ok(()),
        Err(error) => Err(error),
        Ok(store) => Err(Error::new(
            ErrorKind::StoreExists,
            format!("There is a store in {} already.", store.dir().display()),
            "See it with `claviger-ceremony show`, or name another directory with `--store`.",
        )),
    }
}
