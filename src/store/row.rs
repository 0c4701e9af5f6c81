//! Rows and the identity types: everything that is read back passes the parsers that a card passes.

use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{
    AttestationPolicy, Former, FormerIdentity, MAX_LOCATOR_LEN, MAX_ROOT_LEN, Machine, NewMachine, Peer, fail,
};
use crate::error::{Error, ErrorKind, Result};
use crate::identity::{BackupKey, Curve, IdentityCard, IdentityError, KeyPlace, StaticPublic, TokenKind, attestation};

/// The columns of a card, of `machine`, `peers` and `cards`.
pub(super) const CARD: &str = "identifier, role, token_kind, curve, static_public, onion_address, client_auth, suites, \
                               attestation, backup_kind, backup_public, backup_attestation, kem";

/// How many [`CARD`] are.
pub(super) const CARD_LEN: usize = 13;

/// The columns of `peers`.
pub(super) const PEER: &str = "identifier, role, token_kind, curve, static_public, onion_address, client_auth, suites, \
                               attestation, backup_kind, backup_public, backup_attestation, kem, former_card, \
                               former_until, expires";

/// The columns of `machine`.
pub(super) const MACHINE: &str = "identifier, role, token_kind, curve, static_public, onion_address, client_auth, \
                                  suites, attestation, backup_kind, backup_public, backup_attestation, kem, token, \
                                  require_attestation, backup_token, active, former_card, former_active, former_token, \
                                  former_until";

/// Places for the values of a card, from ?1.
pub(super) const CARD_VALUES: &str = "?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13";

/// The values of [`CARD`].
pub(super) fn card_values(peer: &Peer) -> [Option<String>; CARD_LEN] {
    let backup = peer.backup.as_ref();
    [
        Some(peer.identifier.to_string()),
        Some(peer.role.to_string()),
        peer.token.map(|kind| kind.to_string()),
        Some(peer.static_public.curve().to_string()),
        Some(peer.static_public.to_hex()),
        peer.onion_address.map(|address| address.to_string()),
        peer.client_auth.map(|key| key.to_string()),
        Some(peer.suites.to_string()),
        Some(attestation::to_field(peer.attestation.as_ref())),
        backup.map(|backup| backup.token.to_string()),
        backup.map(|backup| backup.static_public.to_hex()),
        Some(attestation::to_field(backup.and_then(|backup| backup.attestation.as_ref()))),
        peer.kem.map(|kem| kem.to_string()),
    ]
}

/// A number as SQLite takes it. Nothing here counts beyond 2^63.
pub(super) fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// `curve:hex`, the text of a key where a column is for it alone.
pub(super) fn key_text(key: &StaticPublic) -> String {
    format!("{}:{}", key.curve(), key.to_hex())
}

/// Reads what [`key_text`] writes.
pub(super) fn key_from_text(text: &str) -> Option<StaticPublic> {
    let (curve, hex) = text.split_once(':')?;
    StaticPublic::from_hex(curve.parse::<Curve>().ok()?, hex).ok()
}

/// SHA-256 over the columns of a row from `first` on: for each a byte for its type, its length as 8 bytes, big-endian, and its bytes. The one column that came
/// after the first seals, `kem`, is left out where it is NULL, so that a row has the hash under which an older release sealed it. What was hashed tells how many columns
/// there were, so no row with a `kem` has the hash of one without.
pub(super) fn hash(row: &Row<'_>, first: usize) -> rusqlite::Result<[u8; 32]> {
    let mut context = Context::new(&SHA256);
    for column in first..row.as_ref().column_count() {
        let integer;
        let (kind, bytes): (u8, &[u8]) = match row.get_ref(column)? {
            ValueRef::Null if row.as_ref().column_name(column)? == "kem" => continue,
            ValueRef::Null => (b'n', &[]),
            ValueRef::Integer(value) => {
                integer = value.to_be_bytes();
                (b'i', &integer)
            }
            ValueRef::Real(value) => {
                integer = value.to_be_bytes();
                (b'r', &integer)
            }
            ValueRef::Text(text) => (b't', text),
            ValueRef::Blob(blob) => (b'b', blob),
        };
        context.update(&[kind]);
        context.update(&(bytes.len() as u64).to_be_bytes());
        context.update(bytes);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    Ok(hash)
}

/// A row as text, before it is believed.
pub(super) struct Raw {
    pub(super) identifier: String,
    role: String,
    token_kind: Option<String>,
    curve: String,
    static_public: String,
    onion_address: Option<String>,
    client_auth: Option<String>,
    suites: String,
    attestation: String,
    backup_kind: Option<String>,
    backup_public: Option<String>,
    backup_attestation: String,
    kem: Option<String>,
    former: Option<(String, i64)>,
    expires: Option<i64>,
    /// [`hash`] over the row.
    pub(super) hash: [u8; 32],
}

impl Raw {
    /// A row of [`CARD`], of [`PEER`], or of [`MACHINE`].
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let peer = row.as_ref().column_count() == CARD_LEN + 3;
        let former: Option<String> = if peer { row.get(CARD_LEN)? } else { None };
        let until: Option<i64> = if peer { row.get(CARD_LEN + 1)? } else { None };
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
            backup_kind: row.get(9)?,
            backup_public: row.get(10)?,
            backup_attestation: row.get(11)?,
            kem: row.get(12)?,
            former: former.map(|card| (card, until.unwrap_or(-1))),
            expires: if peer { row.get(CARD_LEN + 2)? } else { None },
            hash: hash(row, 0)?,
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
        let curve = self.curve.parse().map_err(text)?;
        let peer = Peer {
            identifier: self.identifier.parse().map_err(text)?,
            role: self.role.parse().map_err(text)?,
            static_public: StaticPublic::from_hex(curve, &self.static_public).map_err(text)?,
            onion_address: self.onion_address.as_deref().map(str::parse).transpose().map_err(text)?,
            client_auth: self.client_auth.as_deref().map(str::parse).transpose().map_err(text)?,
            suites: self.suites.parse().map_err(text)?,
            kem: self.kem.as_deref().map(str::parse).transpose().map_err(text)?,
            token: self.token_kind.as_deref().map(token_kind).transpose()?,
            attestation: attestation::from_field(&self.attestation).map_err(text)?,
            backup: self.backup(curve)?,
            former: self.former.as_ref().map(|(card, until)| former(card, *until)).transpose()?,
            expires: self.expires.map(|time| seconds(time, "the time of its expiry")).transpose()?,
        };
        check_backup(&peer).map_err(text)?;
        Ok(peer)
    }

    fn backup(&self, curve: Curve) -> std::result::Result<Option<BackupKey>, String> {
        match (&self.backup_kind, &self.backup_public, self.backup_attestation.as_str()) {
            (None, None, "none") => Ok(None),
            (Some(kind), Some(key), proof) => Ok(Some(BackupKey {
                static_public: StaticPublic::from_hex(curve, key).map_err(|error| error.to_string())?,
                token: token_kind(kind)?,
                attestation: attestation::from_field(proof).map_err(|error| error.to_string())?,
            })),
            _ => Err("half of a backup key".into()),
        }
    }
}

/// What a card checks between its keys, for a peer that may have no card.
pub(super) fn check_backup(peer: &Peer) -> std::result::Result<(), IdentityError> {
    let Some(backup) = &peer.backup else { return Ok(()) };
    if backup.static_public == peer.static_public {
        Err(IdentityError::PublicKey("is the backup key, too"))
    } else if backup.static_public.curve() != peer.static_public.curve() {
        Err(IdentityError::PublicKey("of the backup is on another curve"))
    } else if backup.token == TokenKind::Software && backup.attestation.is_some() {
        Err(IdentityError::Attestation("is on the card of a software key, which no device attests"))
    } else {
        Ok(())
    }
}

fn former(card: &str, until: i64) -> std::result::Result<Former, String> {
    let card = IdentityCard::from_text(card).map_err(|error| error.to_string())?;
    Ok(Former { card, until: seconds(until, "the end of its former card's time")? })
}

fn seconds(time: i64, what: &str) -> std::result::Result<u64, String> {
    u64::try_from(time).map_err(|_| format!("{what} is not a time"))
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
fn locator_flaw(text: &str) -> Option<&'static str> {
    if text.is_empty() || text.len() > MAX_LOCATOR_LEN {
        Some("is empty or too long")
    } else if text.contains(char::is_control) {
        Some("holds a control character")
    } else {
        None
    }
}

/// What must hold of a card, and the locators of its tokens, before they become this machine's.
pub(super) fn check_own(card: &IdentityCard, token: &str, backup_token: Option<&str>) -> Result<()> {
    card.check()?;
    for locator in [Some(token), backup_token].into_iter().flatten() {
        if let Some(why) = locator_flaw(locator) {
            let hint = "Give the token's locator as `pkcs11:…` or `file:…`.";
            return Err(Error::new(ErrorKind::LocatorInvalid, format!("The token's locator {why}."), hint));
        }
    }
    if card.backup.is_some() == backup_token.is_some() {
        return Ok(());
    }
    let (has, has_not) =
        if card.backup.is_some() { ("a backup key", "no backup token") } else { ("no backup key", "a backup token") };
    Err(Error::new(
        ErrorKind::IdentityInvalid,
        format!("This machine's card has {has}, but {has_not} is given."),
        "Give the backup token's locator exactly when the card has a backup key.",
    ))
}

/// Writes the row of `machine`, in the place of what was there.
pub(super) fn put_machine(connection: &Connection, machine: &Machine) -> rusqlite::Result<()> {
    let card = card_values(&Peer::from_card(&machine.card));
    let former = machine.former.as_ref();
    connection.execute("DELETE FROM machine", [])?;
    connection.execute(
        &format!("INSERT INTO machine (one, {CARD}, token, require_attestation) VALUES (1, {CARD_VALUES}, '', 0)"),
        rusqlite::params_from_iter(card),
    )?;
    connection.execute(
        "UPDATE machine SET token = ?1, require_attestation = ?2, backup_token = ?3, active = ?4, former_card = ?5,
             former_active = ?6, former_token = ?7, former_until = ?8",
        params![
            machine.token,
            machine.attestation.required,
            machine.backup_token,
            machine.active.to_string(),
            former.map(|former| former.card.to_text()),
            former.map(|former| former.active.to_string()),
            former.map(|former| former.token.as_str()),
            former.map(|former| integer(former.until)),
        ],
    )?;
    Ok(())
}

pub(super) fn insert_machine(connection: &Connection, new: &NewMachine) -> rusqlite::Result<()> {
    put_machine(
        connection,
        &Machine {
            card: new.card.clone(),
            token: new.token.clone(),
            backup_token: new.backup_token.clone(),
            active: KeyPlace::Primary,
            former: None,
            attestation: new.attestation.clone(),
        },
    )?;
    for pem in &new.attestation.roots {
        connection.execute("INSERT OR IGNORE INTO attestation_roots (pem) VALUES (?1)", params![pem])?;
    }
    Ok(())
}

/// This machine, and the [`hash`] of its row.
pub(super) fn machine(connection: &Connection, dir: &Path) -> Result<(Machine, [u8; 32])> {
    let row = connection
        .prepare_cached(&format!("SELECT {MACHINE} FROM machine"))
        .and_then(|mut statement| {
            statement
                .query_row([], |row| {
                    let token: String = row.get(CARD_LEN)?;
                    let backup_token: Option<String> = row.get(CARD_LEN + 2)?;
                    let active: String = row.get(CARD_LEN + 3)?;
                    let former: [Option<String>; 3] =
                        [row.get(CARD_LEN + 4)?, row.get(CARD_LEN + 5)?, row.get(CARD_LEN + 6)?];
                    let until: Option<i64> = row.get(CARD_LEN + 7)?;
                    Ok((Raw::read(row)?, token, row.get::<_, bool>(CARD_LEN + 1)?, backup_token, active, former, until))
                })
                .optional()
        })
        .map_err(|error| unreadable(dir, "machine", error))?;
    let corrupt = |why: &str| fail::corrupt(dir, &format!("table `machine`: {why}"));
    let (raw, token, required, backup_token, active, former, until) =
        row.ok_or_else(|| fail::corrupt(dir, "table `machine` is empty"))?;
    for locator in [Some(&token), backup_token.as_ref(), former[2].as_ref()].into_iter().flatten() {
        locator_flaw(locator).map_or(Ok(()), |why| Err(corrupt(&format!("the token's locator {why}"))))?;
    }
    let card: Option<IdentityCard> = raw.parse("machine", dir)?.card();
    let card = card.ok_or_else(|| corrupt("the identity is not complete"))?;
    let active: KeyPlace = active.parse().map_err(|_| corrupt("which key is in use is neither primary nor backup"))?;
    if card.backup.is_some() != backup_token.is_some() || card.key(active).is_none() {
        return Err(corrupt("the tokens are not those of the card"));
    }
    let former = match (former, until) {
        ([None, None, None], None) => None,
        ([Some(text), Some(active), Some(token)], Some(until)) => {
            let Former { card, until } = self::former(&text, until).map_err(|why| corrupt(clause(&why)))?;
            let active = active.parse().ok().filter(|active| card.key(*active).is_some());
            let active = active.ok_or_else(|| corrupt("the former card has no such key"))?;
            Some(FormerIdentity { card, active, token, until })
        }
        _ => return Err(corrupt("half of a former identity")),
    };
    let attestation = AttestationPolicy { required, roots: roots(connection, dir)? };
    Ok((Machine { card, token, backup_token, active, former, attestation }, raw.hash))
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
