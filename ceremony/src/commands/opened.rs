//! This machine's store, with its token: what every command that changes something works on.

use claviger::error::Result;
use claviger::identity::{Curve, StaticPublic};
use claviger::program::Terminal;
use claviger::secret::SharedSecret;
use claviger::store::{SealKey, SealState, Store, seal_point};
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
}

impl OpenToken {
    /// Opens the token at `locator`, which must hold `expected` if that is given. Asks for its PIN, and for a touch where the key wants one.
    pub(crate) fn open(locator: &str, expected: Option<&StaticPublic>, terminal: &Terminal) -> Result<Self> {
        let locator = parse(locator)?;
        let expected = expected.map(hsm_key).transpose()?;
        let opened = attend(terminal, &name(&locator), |operation| {
            claviger_hsm::open(&locator, expected.as_ref(), KeepPin::Once, operation)
        });
        Ok(Self { token: opened?.answer, locator })
    }

    /// One agree, with the people at the terminal.
    pub(crate) fn agree(&mut self, point: &StaticPublic, terminal: &Terminal) -> Result<SharedSecret> {
        let point = hsm_key(point)?;
        let what = name(&self.locator);
        let agreed = attend(terminal, &what, |operation| self.token.agree(&point, operation))?.answer;
        Ok(SharedSecret::new(*agreed.as_bytes()))
    }

    /// What opens the seal of a store that is sealed to this token's `key`.
    pub(crate) fn seal_key(&mut self, key: &StaticPublic, terminal: &Terminal) -> Result<SealKey> {
        Ok(SealKey { key: key.clone(), agreed: self.agree(&seal_point(key), terminal)? })
    }
}

/// A store that can be changed, and the token that opened its seal: `None` for a store that is not sealed.
pub(crate) struct Opened {
    pub(crate) store: Store,
    pub(crate) token: Option<OpenToken>,
}

/// Opens the store and, where it is sealed, its seal, with the token in use.
pub(crate) fn opened(cli: &Cli, terminal: &Terminal) -> Result<Opened> {
    let mut store = open(cli)?;
    if store.seal_state()? == SealState::Unsealed {
        terminal.warn("the store is not sealed: whoever can write to it can change it unseen. Seal it with `claviger-ceremony seal`.");
        return Ok(Opened { store, token: None });
    }
    let machine = store.machine()?;
    let mut token = OpenToken::open(machine.locator(), Some(machine.key()), terminal)?;
    store.unlock(&token.seal_key(machine.key(), terminal)?)?;
    Ok(Opened { store, token: Some(token) })
}

impl Opened {
    /// The store, and the token in use, which is opened now if the store did not need it.
    pub(crate) fn with_token(self, terminal: &Terminal) -> Result<(Store, OpenToken)> {
        let Self { store, token } = self;
        let token = match token {
            Some(token) => token,
            None => {
                let machine = store.machine()?;
                OpenToken::open(machine.locator(), Some(machine.key()), terminal)?
            }
        };
        Ok((store, token))
    }
}

fn hsm_key(key: &StaticPublic) -> Result<PublicKey> {
    let curve = match key.curve() {
        Curve::X25519 => claviger_hsm::Curve::X25519,
        Curve::P256 => claviger_hsm::Curve::P256,
    };
    PublicKey::new(curve, key.as_bytes()).map_err(from_hsm)
}
