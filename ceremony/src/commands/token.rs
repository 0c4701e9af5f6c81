//! `token`: what is on tokens, and keys for machines.

mod attest;
mod explain;
mod generate;
mod list;
mod look;
mod shown;
mod test;

use claviger::error::{ErrorKind, Result};
use claviger::identity::{Curve, StaticPublic, TokenKind};
use claviger::program::Terminal;
use claviger::token::from_hsm;
use claviger_hsm::{FileLocator, Locator, PublicKey};

use crate::cli::Token;

pub(super) fn run(store: Option<&std::path::Path>, token: &Token, terminal: &Terminal) -> Result<()> {
    match token {
        Token::List(list) => list::list(list, terminal),
        Token::Generate(generate) => generate::generate(store, generate, terminal),
        Token::Attest(attest) => attest::attest(attest, terminal),
        Token::Test(test) => test::test(test, terminal),
        Token::Explain(explain) => explain::explain(store, explain, terminal),
    }
}

/// What a card says of a key that is, or is not, in a device.
pub(super) fn kind(hardware: bool) -> TokenKind {
    if hardware { TokenKind::Hardware } else { TokenKind::Software }
}

/// A locator as it is stored and used: a key file's path is absolute, so that it holds from every directory.
pub(super) fn parse(text: &str) -> Result<Locator> {
    match text.parse().map_err(from_hsm)? {
        Locator::File(file) => {
            let path =
                std::path::absolute(&file.path).map_err(|error| crate::files::failed(&file.path, "find", error))?;
            Ok(Locator::File(FileLocator { path, ..file }))
        }
        locator => Ok(locator),
    }
}

/// The token's public key as an identity holds it.
pub(super) fn static_public(key: &PublicKey) -> Result<StaticPublic> {
    let curve = match key.curve() {
        claviger_hsm::Curve::X25519 => Curve::X25519,
        claviger_hsm::Curve::P256 => Curve::P256,
        #[allow(unreachable_patterns)] // Reached when that crate learns a curve first.
        other => {
            let what = format!("The key is on {other}, which identities do not have.");
            return Err(claviger::Error::new(ErrorKind::CurveUnsupported, what, "Use a key on x25519 or p256."));
        }
    };
    Ok(StaticPublic::new(curve, key.as_bytes())?)
}

/// The curve of the key at `locator`, as its device shows it to whoever asks, without a PIN. `None` where it shows none, or is not there.
pub(super) fn curve_at(locator: &Locator) -> Option<Curve> {
    let (_, key) = look::key_at(locator).ok()??;
    static_public(key.public_key.as_ref().ok()?).ok().map(|key| key.curve())
}
