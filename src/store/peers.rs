//! Peers: recorded, looked up, removed.

use std::fmt::Write as _;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::row::{COLUMNS, Raw, unreadable};
use super::{Added, Event, Machine, Peer, Store, fail, log, row};
use crate::error::{Error, ErrorKind, Result};
use crate::identity::{Identifier, StaticPublic, attestation};

/// A card without an attestation where one is required.
pub fn attestation_missing(name: &Identifier) -> Error {
    Error::new(
        ErrorKind::AttestationMissing,
        format!("\"{name}\" comes without an attestation, and one is required here; it was not recorded."),
        format!(
            "Set \"{name}\" up again with a key that a YubiKey made; `claviger-ceremony token attest` shows what a token can prove."
        ),
    )
}

impl Store {
    /// Every peer, ordered by identifier.
    ///
    /// # Errors
    /// As [`machine`](Self::machine).
    pub fn peers(&self) -> Result<Vec<Peer>> {
        let raw = || -> rusqlite::Result<Vec<Raw>> {
            self.connection
                .prepare(&format!("SELECT {COLUMNS} FROM peers ORDER BY identifier"))?
                .query_map([], Raw::read)?
                .collect()
        };
        let raw = raw().map_err(|error| unreadable(&self.dir, "peers", error))?;
        raw.iter().map(|raw| raw.parse("peers", &self.dir)).collect()
    }

    /// The peer of this name.
    ///
    /// # Errors
    /// [`PeerUnknown`](ErrorKind::PeerUnknown), with the names that are near; and as [`machine`](Self::machine).
    pub fn peer(&self, identifier: &Identifier) -> Result<Peer> {
        self.find(&self.connection, "identifier", identifier.as_str())?.ok_or_else(|| self.unknown(identifier))
    }

    /// The peer that holds this static key, if one does.
    ///
    /// # Errors
    /// As [`machine`](Self::machine).
    pub fn peer_by_key(&self, key: &StaticPublic) -> Result<Option<Peer>> {
        let peer = self.find(&self.connection, "static_public", &key.to_hex())?;
        Ok(peer.filter(|peer| peer.static_public == *key))
    }

    /// What [`add_peer`](Self::add_peer) would do, so that a person need not be asked in vain. Writes nothing.
    ///
    /// # Errors
    /// As [`add_peer`](Self::add_peer).
    pub fn check_peer(&self, peer: &Peer) -> Result<Added> {
        self.check(&self.connection, peer)
    }

    /// Records a peer and logs it, in one transaction. `how` goes into the log: how the fingerprint was compared.
    ///
    /// # Errors
    /// [`CardIsOwn`](ErrorKind::CardIsOwn): the key is this machine's. [`PeerConflict`](ErrorKind::PeerConflict): the name, key, onion
    /// address or client-authorization key is recorded with other values; nothing is ever replaced. [`NoSharedCurve`](ErrorKind::NoSharedCurve),
    /// [`NoSharedSuite`](ErrorKind::NoSharedSuite): the two could never talk. [`AttestationMissing`](ErrorKind::AttestationMissing): this machine
    /// records none without; that one holds is for the caller to see. And as [`machine`](Self::machine).
    pub fn add_peer(&mut self, peer: &Peer, how: &str) -> Result<Added> {
        let what = format!("record peer \"{}\"", peer.identifier);
        let failed = fail::sql(&self.dir, &what);
        // A transaction that is dropped before its commit is rolled back.
        let transaction =
            rusqlite::Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate).map_err(&failed)?;
        if self.check(&transaction, peer)? == Added::AlreadyThere {
            return Ok(Added::AlreadyThere);
        }
        transaction
            .execute(
                &format!("INSERT INTO peers ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"),
                params![
                    peer.identifier.as_str(),
                    peer.role.as_str(),
                    peer.token.map(|kind| kind.to_string()),
                    peer.static_public.curve().to_string(),
                    peer.static_public.to_hex(),
                    peer.onion_address.map(|address| address.to_string()),
                    peer.client_auth.map(|key| key.to_string()),
                    peer.suites.to_string(),
                    attestation::to_field(peer.attestation.as_ref()),
                ],
            )
            .map_err(&failed)?;
        log::append(&transaction, Event::PeerAdded, &peer.identifier, peer.fingerprint(), how).map_err(&failed)?;
        transaction.commit().map_err(&failed)?;
        Ok(Added::New)
    }

    /// Removes a peer and logs it, in one transaction. Returns what was recorded.
    ///
    /// # Errors
    /// [`PeerUnknown`](ErrorKind::PeerUnknown), and as [`machine`](Self::machine).
    pub fn remove_peer(&mut self, identifier: &Identifier) -> Result<Peer> {
        let what = format!("remove peer \"{identifier}\"");
        let failed = fail::sql(&self.dir, &what);
        let transaction =
            rusqlite::Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate).map_err(&failed)?;
        let peer =
            self.find(&transaction, "identifier", identifier.as_str())?.ok_or_else(|| self.unknown(identifier))?;
        transaction
            .execute("DELETE FROM peers WHERE identifier = ?1", params![identifier.as_str()])
            .map_err(&failed)?;
        log::append(&transaction, Event::PeerRemoved, identifier, peer.fingerprint(), "").map_err(&failed)?;
        transaction.commit().map_err(&failed)?;
        Ok(peer)
    }

    /// `column` is one of the unique ones, and a constant of this file.
    fn find(&self, connection: &Connection, column: &str, value: &str) -> Result<Option<Peer>> {
        connection
            .query_row(&format!("SELECT {COLUMNS} FROM peers WHERE {column} = ?1"), params![value], Raw::read)
            .optional()
            .map_err(|error| unreadable(&self.dir, "peers", error))?
            .map(|raw| raw.parse("peers", &self.dir))
            .transpose()
    }

    fn check(&self, connection: &Connection, peer: &Peer) -> Result<Added> {
        let Machine { card: own, attestation: policy, .. } = row::machine(connection, &self.dir)?;
        let name = &peer.identifier;
        if peer.static_public == own.static_public {
            return Err(Error::new(
                ErrorKind::CardIsOwn,
                "The card is this machine's own.",
                "Import the other machine's card here, and this machine's card there.",
            ));
        }
        let clash = if *name == own.identifier {
            Some("name")
        } else if peer.onion_address == Some(own.onion_address) {
            Some("onion address")
        } else {
            (peer.client_auth == Some(own.client_auth)).then_some("client-authorization key")
        };
        if let Some(clash) = clash {
            return Err(Error::new(
                ErrorKind::PeerConflict,
                format!("The card of \"{name}\" has this machine's own {clash}, but another key."),
                "Set the other machine up again with `claviger-ceremony init`, under a name of its own.",
            ));
        }
        if peer.static_public.curve() != own.curve() {
            return Err(Error::new(
                ErrorKind::NoSharedCurve,
                format!(
                    "\"{name}\" has a key on {}, and this machine has one on {}.",
                    peer.static_public.curve(),
                    own.curve()
                ),
                format!(
                    "Set \"{name}\" up again with a key on {}: `claviger-ceremony token generate --curve {0}`.",
                    own.curve()
                ),
            ));
        }
        if own.suites.with_initiator(&peer.suites).is_none() {
            return Err(Error::new(
                ErrorKind::NoSharedSuite,
                format!("\"{name}\" offers {}, and this machine offers {}.", peer.suites, own.suites),
                "Set one of the two up again with `claviger-ceremony init --suites`, so that they share one.",
            ));
        }
        if policy.required && peer.attestation.is_none() {
            return Err(attestation_missing(name));
        }
        self.check_recorded(connection, peer)
    }

    fn check_recorded(&self, connection: &Connection, peer: &Peer) -> Result<Added> {
        let onion_address = peer.onion_address.map(|address| address.to_string());
        let client_auth = peer.client_auth.map(|key| key.to_string());
        let unique = [
            ("identifier", Some(peer.identifier.to_string()), "is recorded already, with other values"),
            ("static_public", Some(peer.static_public.to_hex()), "has the key of this card already"),
            ("onion_address", onion_address, "has the onion address of this card already"),
            ("client_auth", client_auth, "has the client-authorization key of this card already"),
        ];
        for (column, value, clash) in unique {
            let Some(value) = value else { continue };
            match self.find(connection, column, &value)? {
                None => {}
                Some(recorded) if recorded == *peer => return Ok(Added::AlreadyThere),
                Some(recorded) => {
                    let (name, key) = (&recorded.identifier, recorded.static_public != peer.static_public);
                    let clash =
                        if column == "identifier" && key { "is recorded already, with another key" } else { clash };
                    return Err(Error::new(
                        ErrorKind::PeerConflict,
                        format!("Peer \"{name}\" {clash}; nothing was changed."),
                        format!(
                            "If that machine really changed, remove it with `claviger-ceremony remove {name}` and import its card again."
                        ),
                    ));
                }
            }
        }
        Ok(Added::New)
    }

    fn unknown(&self, identifier: &Identifier) -> Error {
        let mut hint =
            "Import its card with `claviger-ceremony import`, or list the peers with `claviger-ceremony peers`."
                .to_owned();
        // The answer is the same without the names, so a store that can not be read just now does not replace it.
        let near =
            near(identifier.as_str(), self.peers().unwrap_or_default().iter().map(|peer| peer.identifier.as_str()));
        if !near.is_empty() {
            let _ = write!(hint, " Did you mean {}?", near.join(" or "));
        }
        Error::new(ErrorKind::PeerUnknown, format!("No peer \"{identifier}\" is recorded."), hint)
    }
}

/// The names that are one or two edits away, or begin alike: nearest first, at most three.
fn near<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut near: Vec<(usize, &str)> = names
        .map(|name| (if name.starts_with(wanted) { 1 } else { distance(wanted, name) }, name))
        .filter(|(distance, name)| *distance <= 2 && *distance < name.len())
        .collect();
    near.sort_unstable();
    near.into_iter().take(3).map(|(_, name)| format!("\"{name}\"")).collect()
}

/// Levenshtein's distance between ASCII names.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        let names = ["cosigner", "cosigner-2", "wallet", "watchtower", "a"];
        assert_eq!(near("cosinger", names.into_iter()), ["\"cosigner\""]);
        assert_eq!(near("watch", names.into_iter()), ["\"watchtower\""]);
        assert!(near("b", names.into_iter()).is_empty());
    }
}
