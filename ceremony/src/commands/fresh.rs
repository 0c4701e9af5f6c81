//! A token that becomes one of this machine's: opened, seen to answer, attested, and asked for what the seal needs.

use claviger::error::{Error, ErrorKind, Result};
use claviger::identity::{Attestation, BackupKey, Curve, IdentityCard, KeyPlace, StaticPublic, TokenKind};
use claviger::program::Terminal;
use claviger::store::SealKey;
use claviger::token::attestation::AttestationRoots;
use claviger_hsm::{CardId, Locator};

use super::attend::name;
use super::opened::OpenToken;
use super::token::{kind, static_public};
use crate::attestation::of_token;

/// How often a token that is not there is asked for.
const TRIES: usize = 3;

pub(crate) struct Fresh {
    pub(crate) token: OpenToken,
    pub(crate) locator: String,
    place: Locator,
    pub(crate) key: StaticPublic,
    pub(crate) kind: TokenKind,
    pub(crate) attestation: Option<Attestation>,
}

impl Fresh {
    /// Opens the token for the key of `place`. `roots`: it is to attest its key, and this is what it is held against.
    pub(crate) fn open(
        locator: &Locator,
        place: KeyPlace,
        roots: Option<&AttestationRoots>,
        terminal: &Terminal,
    ) -> Result<Self> {
        let mut token = OpenToken::open_in_turn(locator, None, &format!("the {place} token"), terminal)?;
        let key = static_public(token.token.public_key())?;
        let kind = kind(token.token.hints().hardware);
        if kind == TokenKind::Software {
            let which = if place == KeyPlace::Backup { "backup key" } else { "identity" };
            terminal.warn(&format!("this machine's {which} is a SOFTWARE key, which can be copied; its card says so."));
        }
        let which = if place == KeyPlace::Backup { "backup key" } else { "key" };
        terminal.note(&format!("The {which} is on the {}, and answers.", token.token.hints().label));
        let attestation = match roots {
            Some(roots) if kind == TokenKind::Hardware => of_token(&mut *token.token, locator, &key, roots, terminal)?,
            _ => None,
        };
        Ok(Self { token, locator: locator.to_string(), place: locator.clone(), key, kind, attestation })
    }

    /// What its token answers for the seal: one agree.
    pub(crate) fn seal_key(&mut self, terminal: &Terminal) -> Result<SealKey> {
        self.token.seal_key(&self.key, terminal)
    }

    /// It as the second key of a card.
    pub(crate) fn backup_key(&self) -> BackupKey {
        BackupKey { static_public: self.key.clone(), token: self.kind, attestation: self.attestation.clone() }
    }

    /// That it can be the second key beside that of `first`; one that is lost together with the first one is warned of.
    pub(crate) fn check_beside(&self, first: &Self, terminal: &Terminal) -> Result<()> {
        let same =
            |one: &Locator, other: &Locator| device(one).is_some_and(|device| Some(device) == self::device(other));
        if self.key != first.key && same(&self.place, &first.place) {
            terminal.warn("both keys are on one device: whoever loses it loses both. Put the backup key on another.");
        }
        if self.key == first.key {
            return Err(Error::new(
                ErrorKind::KeyMismatch,
                "The backup token holds the same key as the primary one: that is the same token, or a copy.",
                "Give the locator of another token with a key of its own; make one with `claviger-ceremony token generate`.",
            ));
        }
        check_curve(first.key.curve(), self.key.curve(), "the primary key")
    }
}

/// What tells the device of a locator from others; `None` where the locator does not say.
fn device(locator: &Locator) -> Option<String> {
    match locator {
        Locator::Piv(piv) => Some(match piv.card {
            CardId::Serial(serial) => format!("yubikey {serial}"),
            CardId::Guid(guid) => format!("card {:032x}", u128::from_be_bytes(guid)),
        }),
        // Yubico writes the decimal serial number into the application identifier, digit by digit.
        Locator::OpenPgp(card) if card.manufacturer == 0x0006 => Some(format!("yubikey {:x}", card.serial)),
        Locator::OpenPgp(card) => Some(format!("openpgp {:04x}:{:08x}", card.manufacturer, card.serial)),
        Locator::Pkcs11(uri) => uri.serial().map(|serial| format!("pkcs11 {serial}")),
        Locator::Tpm(_) => Some("tpm".into()),
        _ => None,
    }
}

/// A key on another curve than `whose`.
pub(crate) fn check_curve(wanted: Curve, found: Curve, whose: &str) -> Result<()> {
    if wanted == found {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::CurveUnsupported,
        format!("The token's key is on {found}, and {whose} is on {wanted}."),
        format!("Make a key with `claviger-ceremony token generate --curve {wanted}`, and give its locator."),
    ))
}

impl OpenToken {
    /// As [`open`](Self::open); where the token is not there and there is somebody to ask, it is asked for.
    pub(crate) fn open_in_turn(
        locator: &Locator,
        expected: Option<&StaticPublic>,
        what: &str,
        terminal: &Terminal,
    ) -> Result<Self> {
        let mut tries = 1;
        loop {
            match Self::at(locator.clone(), expected, terminal) {
                Err(error) if error.kind() == ErrorKind::TokenAbsent && tries < TRIES => {
                    let text = format!("{error}\nPlug in {what}, {}, and press Enter: ", name(locator));
                    // Where there is nobody to ask, it is absent and nothing else.
                    if terminal.ask(&text, "").is_err() {
                        return Err(error);
                    }
                    tries += 1;
                }
                opened => return opened,
            }
        }
    }
}

/// What a card says of its keys.
pub(crate) fn keyed(card: IdentityCard, first: &Fresh, backup: Option<&Fresh>) -> IdentityCard {
    IdentityCard {
        token: first.kind,
        attestation: first.attestation.clone(),
        static_public: first.key.clone(),
        backup: backup.map(Fresh::backup_key),
        ..card
    }
}
