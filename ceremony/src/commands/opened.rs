//! This machine's store, with its token: what every command that changes something works on.

use claviger::error::{Error, ErrorKind, Result};
use claviger::identity::{Curve, KeyPlace, StaticPublic};
use claviger::program::Terminal;
use claviger::secret::SharedSecret;
use claviger::store::{Machine, SealKey, SealState, Store, seal_point};
use claviger::token::from_hsm;
use claviger_hsm::{KeepPin, Locator, PublicKey, Token};

use super::attend::{attend, name};
use super::open;
use super::token::parse;
use crate::cli::Cli;

/// An open token, and what people call it.
pub(crate) struct OpenToken {
    pub(crate) token: Box<dyn Token>,
    locator: Locator,
    /// What it answered to its seal point, so that it is asked, and touched, once.
    sealed: Option<SealKey>,
}

impl OpenToken {
    /// Opens the token at `locator`, which must hold `expected` if that is given. Asks for its PIN, and for a touch where the key wants one.
    pub(crate) fn open(locator: &str, expected: Option<&StaticPublic>, terminal: &Terminal) -> Result<Self> {
        Self::at(parse(locator)?, expected, terminal)
    }

    /// The same for a locator that was read.
    pub(crate) fn at(locator: Locator, expected: Option<&StaticPublic>, terminal: &Terminal) -> Result<Self> {
        let expected = expected.map(hsm_key).transpose()?;
        let opened = attend(terminal, &name(&locator), |operation| {
            claviger_hsm::open(&locator, expected.as_ref(), KeepPin::Once, operation)
        });
        Ok(Self { token: opened?.answer, locator, sealed: None })
    }

    /// One agree, with the people at the terminal.
    pub(crate) fn agree(&mut self, point: &StaticPublic, terminal: &Terminal) -> Result<SharedSecret> {
        let point = hsm_key(point)?;
        let what = name(&self.locator);
        let agreed = attend(terminal, &what, |operation| self.token.agree(&point, operation))?.answer;
        Ok(SharedSecret::new(*agreed.as_bytes()))
    }

    /// What opens the seal of a store that is sealed to this token's `key`: one agree, the first time.
    pub(crate) fn seal_key(&mut self, key: &StaticPublic, terminal: &Terminal) -> Result<SealKey> {
        if self.sealed.as_ref().is_none_or(|sealed| sealed.key != *key) {
            let agreed = self.agree(&seal_point(key), terminal)?;
            self.sealed = Some(SealKey { key: key.clone(), agreed });
        }
        let agreed = self.sealed.as_ref().map(|sealed| SharedSecret::new(*sealed.agreed.expose()));
        let lost =
            || Error::new(ErrorKind::Internal, "The token's answer was lost.", "Report this as a bug of claviger.");
        Ok(SealKey { key: key.clone(), agreed: agreed.ok_or_else(lost)? })
    }
}

/// A store that can be changed, and the token that opened its seal: `None` for a store that is not sealed.
pub(crate) struct Opened {
    pub(crate) store: Store,
    pub(crate) token: Option<OpenToken>,
}

/// Opens the store and, where it is sealed, its seal, with the token in use. For what changes the store, and for nothing else.
pub(crate) fn opened(cli: &Cli, terminal: &Terminal) -> Result<Opened> {
    let mut store = open(cli)?;
    if store.seal_state()? == SealState::Unsealed {
        terminal.warn("the store is not sealed: whoever can write to it can change it unseen. Look at `claviger-ceremony peers` first; then seal it with `claviger-ceremony seal`.");
        return Ok(Opened { store, token: None });
    }
    let machine = store.machine()?;
    let mut token = in_use(&machine, terminal)?;
    store.unlock(&token.seal_key(machine.key(), terminal).map_err(|error| unchanged(error, &machine))?)?;
    Ok(Opened { store, token: Some(token) })
}

impl Opened {
    /// The store, and the token in use, which is opened now if the store did not need it.
    pub(crate) fn with_token(self, terminal: &Terminal) -> Result<(Store, OpenToken)> {
        let Self { store, token } = self;
        let token = match token {
            Some(token) => token,
            None => in_use(&store.machine()?, terminal)?,
        };
        Ok((store, token))
    }
}

/// Opens the token that is in use.
fn in_use(machine: &Machine, terminal: &Terminal) -> Result<OpenToken> {
    OpenToken::open(machine.locator(), Some(machine.key()), terminal).map_err(|error| unchanged(error, machine))
}

/// A failure of the token in use, with what it means for the store, and the way round where there is one.
fn unchanged(error: Error, machine: &Machine) -> Error {
    let needed = match error.kind() {
        ErrorKind::TokenAbsent | ErrorKind::TokenModule | ErrorKind::KeyNotFound | ErrorKind::KeyMismatch => {
            let token = parse(machine.locator()).map_or_else(|_| "of this machine".into(), |locator| name(&locator));
            format!("This needs the {} token, {token}. ", machine.active)
        }
        _ => String::new(),
    };
    let what = format!("{needed}{error} The store was not changed.");
    let hint = match (error.kind(), machine.active, &machine.backup_token) {
        (ErrorKind::TokenAbsent, KeyPlace::Primary, Some(_)) => {
            format!("{} If it is lost, go on with the backup token: `claviger-ceremony switch backup`.", error.hint())
        }
        (ErrorKind::KeyMismatch, KeyPlace::Primary, Some(_)) => {
            format!("{} If this is the backup token, go on with it by `claviger-ceremony switch backup`.", error.hint())
        }
        (ErrorKind::TokenAbsent | ErrorKind::KeyMismatch, KeyPlace::Backup, _) => {
            format!("{} The backup token is in use here; go back by `claviger-ceremony switch primary`.", error.hint())
        }
        _ => error.hint().to_owned(),
    };
    let kind = error.kind();
    match error.cause() {
        Some(cause) => Error::new(kind, what, hint).because(cause),
        None => Error::new(kind, what, hint),
    }
}

fn hsm_key(key: &StaticPublic) -> Result<PublicKey> {
    let curve = match key.curve() {
        Curve::X25519 => claviger_hsm::Curve::X25519,
        Curve::P256 => claviger_hsm::Curve::P256,
    };
    PublicKey::new(curve, key.as_bytes()).map_err(from_hsm)
}
