//! Attestations at the ceremony: asked of this machine's token, and demanded of others' cards.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use claviger::error::{Error, ErrorKind, Result};
use claviger::identity::{Attestation, IdentityCard, StaticPublic, TokenKind};
use claviger::program::{Terminal, one_line, shown};
use claviger::store::{MAX_ROOT_LEN, attestation_missing};
use claviger::token::attestation::{AttestationRoots, Attested, to_card};
use claviger_hsm::{CardId, Locator, Token};
use serde::Serialize;

use crate::commands::attend::attend;
use crate::files::failed;

/// The makers' roots, those that a store keeps, and those of `files`.
pub(crate) fn roots(kept: &[String], files: &[PathBuf]) -> Result<AttestationRoots> {
    let mut roots = AttestationRoots::new(kept)?;
    for file in files {
        roots.add(read_root(file)?.as_bytes())?;
    }
    Ok(roots)
}

/// Reads a root file. What is in it is looked at by whoever adds it.
pub(crate) fn read_root(path: &Path) -> Result<String> {
    let mut text = String::new();
    let refused = |why: &str| {
        let what = format!("The attestation root {} is refused: {why}.", shown(path));
        Error::new(ErrorKind::AttestationInvalid, what, "Give a PEM file with root certificates.")
    };
    let read = File::open(path).and_then(|file| file.take(MAX_ROOT_LEN as u64 + 1).read_to_string(&mut text));
    match read {
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => Err(refused("it is not text")),
        Err(error) => Err(failed(path, "read", error)),
        Ok(length) if length > MAX_ROOT_LEN => Err(refused("it is longer than 128 KiB")),
        Ok(_) => Ok(text),
    }
}

/// What an attestation is worth under the roots at hand. JSON: `{"format", "verdict", "refused"}`, one of the last two `null`.
#[derive(Serialize)]
pub(crate) struct Proof {
    format: String,
    /// What it states: `Yubico, serial 12345678, …`.
    verdict: Option<String>,
    /// Why it proves nothing here.
    refused: Option<String>,
    #[serde(skip)]
    serial: Option<u32>,
}

impl Proof {
    pub(crate) fn of(attestation: &Attestation, key: &StaticPublic, roots: &AttestationRoots) -> Self {
        let (verdict, refused, serial) = match roots.verify(attestation, key) {
            Ok(attested) => (Some(attested.to_string()), None, attested.serial()),
            Err(error) => (None, Some(error.to_string()), None),
        };
        Self { format: attestation.format().to_string(), verdict, refused, serial }
    }

    pub(crate) fn holds(&self) -> bool {
        self.verdict.is_some()
    }

    /// For a line of `show`.
    pub(crate) fn text(&self) -> String {
        match (&self.verdict, &self.refused) {
            (Some(verdict), _) => verdict.clone(),
            (None, Some(refused)) => format!("{}, not proven here. {refused}", self.format),
            (None, None) => self.format.clone(),
        }
    }

    /// For a column of `peers`.
    pub(crate) fn short(&self) -> String {
        match (self.holds(), self.serial) {
            (true, Some(serial)) => format!("serial {serial}"),
            (true, None) => "yes".into(),
            (false, _) => "refused".into(),
        }
    }
}

/// What the attestations of a card state, that of each key.
pub(crate) struct Proven {
    /// `None`: the card carries none, and need not.
    pub(crate) primary: Option<Attested>,
    /// The same of the backup key; the outer `None` when there is no such key.
    pub(crate) backup: Option<Option<Attested>>,
}

/// Verifies what a card carries of each of its keys, before it is recorded.
pub(crate) fn demand(card: &IdentityCard, roots: &AttestationRoots, required: bool) -> Result<Proven> {
    let name = &card.identifier;
    let of = |attestation: Option<&Attestation>, key| {
        attestation.map(|attestation| roots.verify(attestation, key)).transpose().map_err(|error| {
            let what = format!("{error} The card of \"{name}\" was not recorded.");
            Error::new(error.kind(), what, error.hint().to_owned())
        })
    };
    let primary = of(card.attestation.as_ref(), &card.static_public)?;
    if required && primary.is_none() {
        return Err(attestation_missing(name));
    }
    let Some(backup) = &card.backup else { return Ok(Proven { primary, backup: None }) };
    let backup = of(backup.attestation.as_ref(), &backup.static_public)
        .map_err(|error| Error::new(error.kind(), format!("Of the backup key: {error}"), error.hint().to_owned()))?;
    if required && backup.is_none() {
        let missing = attestation_missing(name);
        return Err(Error::new(missing.kind(), format!("The backup key is not proven. {missing}"), missing.hint()));
    }
    Ok(Proven { primary, backup: Some(backup) })
}

/// What the ceremony log says of it.
pub(crate) fn logged(proven: &Proven) -> String {
    let primary = proven.primary.as_ref().map_or_else(|| "no attestation".into(), |of| format!("attested: {of}"));
    match &proven.backup {
        None => primary,
        Some(None) => format!("{primary}; backup key: no attestation"),
        Some(Some(of)) => format!("{primary}; backup key attested: {of}"),
    }
}

/// The token's attestation of its key, for this machine's card; `None` where it makes none that would hold.
pub(crate) fn of_token(
    token: &mut dyn Token,
    locator: &Locator,
    key: &StaticPublic,
    roots: &AttestationRoots,
    terminal: &Terminal,
) -> Result<Option<Attestation>> {
    let label = one_line(&token.hints().label);
    let evidence = attend(terminal, &label, |operation| match token.attest(operation) {
        Err(error) if error.kind() == claviger_hsm::ErrorKind::Unsupported => Ok(None),
        answer => answer.map(Some),
    })?;
    let Some(evidence) = evidence.answer else {
        terminal.note(
            "The token does not attest this key: that it is in a device stands on the card as this machine's own word.",
        );
        return Ok(None);
    };
    let checked = to_card(evidence).and_then(|attestation| {
        let attested = roots.verify(&attestation, key)?;
        check_serial(locator, &attested)?;
        Ok((attestation, attested))
    });
    match checked {
        Ok((attestation, attested)) => {
            terminal.note(&format!("Attested: {attested}. The card carries the proof, and with it the serial number."));
            Ok(Some(attestation))
        }
        Err(error) => {
            terminal.warn(&format!("the card goes without an attestation. {error} {}", error.hint()));
            Ok(None)
        }
    }
}

/// The device that attests is the one that the locator names.
fn check_serial(locator: &Locator, attested: &Attested) -> Result<()> {
    let named = match locator {
        Locator::Piv(piv) => match piv.card {
            CardId::Serial(serial) => Some(serial),
            CardId::Guid(_) => None,
        },
        // Yubico writes the decimal serial number into the application identifier, digit by digit.
        Locator::OpenPgp(card) if card.manufacturer == 0x0006 => format!("{:08x}", card.serial).parse().ok(),
        _ => None,
    };
    match (named, attested.serial()) {
        (Some(named), Some(stated)) if named != stated => Err(Error::new(
            ErrorKind::AttestationInvalid,
            format!("The attestation is of the device {stated}, and the locator names {named}."),
            "Do not use this token before you know why.",
        )),
        _ => Ok(()),
    }
}

/// Whether a card says of itself that its key is in a device, and does not prove it.
pub(crate) fn unproven(card: &IdentityCard) -> bool {
    card.token == TokenKind::Hardware && card.attestation.is_none()
}
