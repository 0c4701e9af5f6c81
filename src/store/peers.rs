//! Peers: recorded, looked up, removed.

use std::fmt::Write as _;

use rusqlite::types::Value;
use rusqlite::{Connection, params};

use super::cards::Place;
use super::row::{CARD_VALUES, PEER, Raw, card_values, integer, unreadable};
use super::seal::Step;
use super::{Added, Event, Peer, Store, fail, log};
use crate::error::{Error, ErrorKind, Result};
use crate::identity::{Identifier, StaticPublic};

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
        let view = self.view()?;
        let raw = self.raw_peers(&view.transaction, "ORDER BY identifier")?;
        view.check_count("peer", raw.len())?;
        raw.iter()
            .map(|raw| {
                view.check("peer", &raw.identifier, Some(&raw.hash))?;
                raw.parse("peers", &self.dir)
            })
            .collect()
    }

    /// The peer of this name.
    ///
    /// # Errors
    /// [`PeerUnknown`](ErrorKind::PeerUnknown), with the names that are near; and as [`machine`](Self::machine).
    pub fn peer(&self, identifier: &Identifier) -> Result<Peer> {
        let view = self.view()?;
        let raw = self.raw_peers(&view.transaction, &named(identifier))?.pop();
        view.check("peer", identifier.as_str(), raw.as_ref().map(|raw| &raw.hash))?;
        match raw {
            Some(raw) => raw.parse("peers", &self.dir),
            None => Err(self.unknown(&view.transaction, identifier)),
        }
    }

    /// The peer that has this static key: on its card as primary or backup key, or on its former card. Whether the key holds now is told by
    /// [`Peer::keys`].
    ///
    /// # Errors
    /// As [`machine`](Self::machine).
    pub fn peer_by_key(&self, key: &StaticPublic) -> Result<Option<Peer>> {
        let view = self.view()?;
        // Digits only: the text of a key can not leave the quotes.
        let hex = key.to_hex();
        let mut raw = self.raw_peers(&view.transaction, &format!("WHERE static_public = '{hex}'"))?;
        raw.extend(self.raw_peers(&view.transaction, &format!("WHERE backup_public = '{hex}'"))?);
        raw.extend(self.raw_peers(&view.transaction, "WHERE former_card IS NOT NULL")?);
        for raw in raw {
            view.check("peer", &raw.identifier, Some(&raw.hash))?;
            let peer = raw.parse("peers", &self.dir)?;
            if peer.has(key) {
                return Ok(Some(peer));
            }
        }
        // Nobody has it: under a seal, because nobody had it.
        view.check_all()?;
        Ok(None)
    }

    /// What [`add_peer`](Self::add_peer) would do, so that a person need not be asked in vain. Writes nothing, and needs no token.
    ///
    /// # Errors
    /// As [`add_peer`](Self::add_peer), without [`StoreLocked`](ErrorKind::StoreLocked).
    pub fn check_peer(&self, peer: &Peer) -> Result<Added> {
        let view = self.view()?;
        view.check_all()?;
        self.check(&view.transaction, peer, Place::Peer, None)
    }

    /// Records a peer and logs it, in one transaction. `how` goes into the log: how the fingerprint was compared. A [former](Peer::former) card and an
    /// [expiry](Peer::expires) are not recorded: see [`succeed_card`](Self::succeed_card) and [`set_expiry`](Self::set_expiry).
    ///
    /// # Errors
    /// [`CardIsOwn`](ErrorKind::CardIsOwn): a key is this machine's. [`PeerConflict`](ErrorKind::PeerConflict): the name, a key, onion
    /// address or client-authorization key is recorded with other values; nothing is ever replaced. [`PeerRevoked`](ErrorKind::PeerRevoked): one of them was
    /// [revoked](Self::revoke). [`NoSharedCurve`](ErrorKind::NoSharedCurve),
    /// [`NoSharedSuite`](ErrorKind::NoSharedSuite): the two could never talk. [`AttestationMissing`](ErrorKind::AttestationMissing): this machine
    /// records none without; that one holds is for the caller to see. [`PlanMismatch`](ErrorKind::PlanMismatch): no member of the plan, or one that no edge joins to
    /// this machine. [`StoreLocked`](ErrorKind::StoreLocked). And as [`machine`](Self::machine).
    pub fn add_peer(&mut self, peer: &Peer, how: &str) -> Result<Added> {
        self.add(peer, |_| Ok(Place::Peer), how)
    }

    /// Removes a peer, or a card that is only held, and logs it, in one transaction. Returns what was recorded.
    ///
    /// # Errors
    /// [`PeerUnknown`](ErrorKind::PeerUnknown), [`StoreLocked`](ErrorKind::StoreLocked), and as [`machine`](Self::machine).
    pub fn remove_peer(&mut self, identifier: &Identifier) -> Result<Peer> {
        self.change(&format!("remove peer \"{identifier}\""), |connection| {
            let (peer, _) = self.take_out(connection, identifier)?;
            self.drop_preshared_key(connection, &peer)?;
            log::append(connection, Event::PeerRemoved, identifier, peer.fingerprint(), "")
                .map_err(fail::sql(&self.dir, "write the ceremony log"))?;
            Ok(Step::Done(peer))
        })
    }

    /// Rows of `peers`; `which` is SQL of this file.
    pub(super) fn raw_peers(&self, connection: &Connection, which: &str) -> Result<Vec<Raw>> {
        let raw = || -> rusqlite::Result<Vec<Raw>> {
            connection.prepare(&format!("SELECT {PEER} FROM peers {which}"))?.query_map([], Raw::read)?.collect()
        };
        raw().map_err(|error| unreadable(&self.dir, "peers", error))
    }

    /// A peer, unverified.
    pub(super) fn find(&self, connection: &Connection, identifier: &Identifier) -> Result<Option<Peer>> {
        let raw = self.raw_peers(connection, &named(identifier))?.pop();
        raw.map(|raw| raw.parse("peers", &self.dir)).transpose()
    }

    /// Writes a peer in the place of what has its name.
    pub(super) fn put_peer(&self, connection: &Connection, peer: &Peer) -> Result<()> {
        let mut values: Vec<Value> = card_values(peer).into_iter().map(Value::from).collect();
        values.push(peer.former.as_ref().map(|former| former.card.to_text()).into());
        values.push(peer.former.as_ref().map(|former| integer(former.until)).into());
        values.push(peer.expires.map(integer).into());
        connection
            .execute("DELETE FROM peers WHERE identifier = ?1", params![peer.identifier.as_str()])
            .and_then(|_| {
                connection.execute(
                    &format!("INSERT INTO peers ({PEER}) VALUES ({CARD_VALUES}, ?14, ?15, ?16)"),
                    rusqlite::params_from_iter(values),
                )
            })
            .map(drop)
            .map_err(fail::sql(&self.dir, &format!("record peer \"{}\"", peer.identifier)))
    }

    pub(super) fn unknown(&self, connection: &Connection, identifier: &Identifier) -> Error {
        let mut hint =
            "Import its card with `claviger-ceremony import`, or list the peers with `claviger-ceremony peers`."
                .to_owned();
        // The answer is the same without the names, so a store that can not be read just now does not replace it.
        let peers = self.raw_peers(connection, "ORDER BY identifier").unwrap_or_default();
        let near = near(identifier.as_str(), peers.iter().map(|raw| raw.identifier.as_str()));
        if !near.is_empty() {
            let _ = write!(hint, " Did you mean {}?", near.join(" or "));
        }
        Error::new(ErrorKind::PeerUnknown, format!("No peer \"{identifier}\" is recorded."), hint)
    }
}

/// The row of that name. The grammar of identifiers has no quotes.
fn named(identifier: &Identifier) -> String {
    format!("WHERE identifier = '{identifier}'")
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
