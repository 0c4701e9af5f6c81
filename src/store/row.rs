//! Rows and the identity types: everything that is read back passes the parsers that a card passes.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{AttestationPolicy, MAX_LOCATOR_LEN, MAX_ROOT_LEN, Machine, NewMachine, Peer, fail};
use crate::error::{Error, Result};
use crate::identity::{IdentityCard, IdentityError, StaticPublic, TokenKind, attestation};

/// The columns that [`Raw`] reads, of `machine` and of `peers`.
pub(super) const COLUMNS: &str =
    "identifier, role, token_kind, curve, static_public, onion_address, client_auth, suites, attestation";

/// A row as text, before it is believed.
pub(super) struct Raw {
    identifier: String,
    role: String,
    token_kind: Option<String>,
    curve: String,
    static_public: String,
    onion_address: Option<String>,
    client_auth: Option<String>,
    suites: String,
    attestation: String,
}

impl Raw {
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            identifier: row.get(0)?,
            role: row.get(1)?,
            token_kind: row.get(2)?,
            curve: row.get(3)?,
            static_public: row.get(4)?,
            onion_address: row.get(5)?,
            client_auth: row.get(6)?,
            suites: row.get(7)?,
            attestation: row.get(8)?,
        })
    }

    /// The row as a peer; [`StoreCorrupt`](crate::ErrorKind::StoreCorrupt) names the table and the row.
    pub(super) fn parse(&self, table: &str, dir: &Path) -> Result<Peer> {
        self.parts().map_err(|why| {
            let name: String = self.identifier.chars().take(64).collect();
            fail::corrupt(dir, &format!("row {name:?} of table `{table}`: {}", clause(&why)))
        })
    }

    fn parts(&self) -> std::result::Result<Peer, String> {
        let text = |error: IdentityError| error.to_string();
        if self.attestation != "none" && self.token_kind.as_deref() != Some("hardware") {
            return Err("an attestation of a key that is in no device".into());
        }
        Ok(Peer {
            identifier: self.identifier.parse().map_err(text)?,
            role: self.role.parse().map_err(text)?,
            static_public: StaticPublic::from_hex(self.curve.parse().map_err(text)?, &self.static_public)
                .map_err(text)?,
            onion_address: self.onion_address.as_deref().map(str::parse).transpose().map_err(text)?,
            client_auth: self.client_auth.as_deref().map(str::parse).transpose().map_err(text)?,
            suites: self.suites.parse().map_err(text)?,
            token: self.token_kind.as_deref().map(token_kind).transpose()?,
            attestation: attestation::from_field(&self.attestation).map_err(text)?,
            backup: None,
            former: None,
            expires: None,
        })
    }
}

fn token_kind(text: &str) -> std::result::Result<TokenKind, String> {
    [TokenKind::Hardware, TokenKind::Software]
        .into_iter()
        .find(|kind| kind.to_string() == text)
        .ok_or_else(|| "the token kind is neither hardware nor software".into())
}

/// A sentence without its full stop.
pub(super) fn clause(sentence: &str) -> &str {
    sentence.strip_suffix('.').unwrap_or(sentence)
}

/// Why a text can not be a token's locator. Its grammar is the business of whoever opens the token.
pub(super) fn check_locator(text: &str) -> std::result::Result<(), &'static str> {
    if text.is_empty() || text.len() > MAX_LOCATOR_LEN {
        Err("is empty or too long")
    } else if text.contains(char::is_control) {
        Err("holds a control character")
    } else {
        Ok(())
    }
}

pub(super) fn insert_machine(connection: &Connection, machine: &NewMachine) -> rusqlite::Result<()> {
    let card = &machine.card;
    connection.execute(
        &format!("INSERT INTO machine (one, {COLUMNS}, token, require_attestation) VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)"),
        params![
            card.identifier.as_str(),
            card.role.as_str(),
            card.token.to_string(),
            card.curve().to_string(),
            card.static_public.to_hex(),
            card.onion_address.to_string(),
            card.client_auth.to_string(),
            card.suites.to_string(),
            attestation::to_field(card.attestation.as_ref()),
            machine.token,
            machine.attestation.required,
        ],
    )?;
    for pem in &machine.attestation.roots {
        connection.execute("INSERT OR IGNORE INTO attestation_roots (pem) VALUES (?1)", params![pem])?;
    }
    let mut insert = connection.prepare("INSERT INTO secrets (name, value) VALUES (?1, ?2)")?;
    insert.execute(params!["onion", machine.onion.expose().as_slice()])?;
    insert.execute(params!["client-auth", machine.client_auth.expose().as_slice()])?;
    Ok(())
}

pub(super) fn machine(connection: &Connection, dir: &Path) -> Result<Machine> {
    let row = connection
        .query_row(&format!("SELECT {COLUMNS}, token, require_attestation FROM machine"), [], |row| {
            Ok((Raw::read(row)?, row.get::<_, String>(9)?, row.get::<_, bool>(10)?))
        })
        .optional()
        .map_err(|error| unreadable(dir, "machine", error))?;
    let (raw, token, required) = row.ok_or_else(|| fail::corrupt(dir, "table `machine` is empty"))?;
    check_locator(&token).map_err(|why| fail::corrupt(dir, &format!("table `machine`: the token's locator {why}")))?;
    let card: Option<IdentityCard> = raw.parse("machine", dir)?.card();
    let card = card.ok_or_else(|| fail::corrupt(dir, "table `machine`: the identity is not complete"))?;
    Ok(Machine {
        card,
        token,
        backup_token: None,
        active: crate::identity::KeyPlace::Primary,
        former: None,
        attestation: AttestationPolicy { required, roots: roots(connection, dir)? },
    })
}

/// The added roots. Their grammar is the business of whoever verifies with them.
fn roots(connection: &Connection, dir: &Path) -> Result<Vec<String>> {
    let read = || -> rusqlite::Result<Vec<String>> {
        connection.prepare("SELECT pem FROM attestation_roots ORDER BY pem")?.query_map([], |row| row.get(0))?.collect()
    };
    let roots = read().map_err(|error| unreadable(dir, "attestation_roots", error))?;
    if roots.iter().any(|pem| pem.len() > MAX_ROOT_LEN) {
        return Err(fail::corrupt(dir, "table `attestation_roots` holds a text that is too long"));
    }
    Ok(roots)
}

/// A column of the wrong type is a row changed by hand; anything else is SQLite's failure.
pub(super) fn unreadable(dir: &Path, table: &str, error: rusqlite::Error) -> Error {
    match &error {
        rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::Utf8Error(..)
        | rusqlite::Error::IntegralValueOutOfRange(..) => {
            fail::corrupt(dir, &format!("table `{table}` holds a value of the wrong type")).because(error)
        }
        _ => fail::sql(dir, &format!("read table `{table}`"))(error),
    }
}
