//! Pre-shared keys: what two machines hold beside their static keys.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, params};

use crate::ceremony::log::Event;
use crate::ceremony::preshared::check_value;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::Identifier;
use crate::secret::{PresharedKey, SecretBytes};
use crate::store::row::{self, integer};
use crate::store::seal::{Step, WRAPPING, no_seal};
use crate::store::{Added, Peer, Store, fail, log};

/// A pre-shared key that is held, without the key. Public data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldKey {
    /// With whom.
    pub peer: Identifier,
    /// Its [check value](check_value).
    pub check: String,
    /// When it was recorded, seconds since 1970.
    pub time: u64,
}

/// The name under which a peer's key is wrapped. No other secret has a colon in its name.
fn wrapped_as(peer: &str) -> String {
    format!("psk:{peer}")
}

impl Store {
    /// Records the pre-shared key of this machine and a peer, and logs its check value, in one transaction. From now on every handshake of the two needs it, so the
    /// peer must record the same. It stays when either machine is rotated, and when a new plan makes the peer a card that is only held; it goes with the peer. `how` goes into the log.
    ///
    /// # Errors
    /// [`PeerUnknown`](ErrorKind::PeerUnknown); [`PeerConflict`](ErrorKind::PeerConflict) when another key is recorded, which is never replaced;
    /// [`PresharedKeyInvalid`](ErrorKind::PresharedKeyInvalid) for a key of zeros; [`StoreLocked`](ErrorKind::StoreLocked); and as [`machine`](Self::machine).
    pub fn set_preshared_key(&mut self, peer: &Identifier, key: &PresharedKey, how: &str) -> Result<Added> {
        if key.expose() == &[0; PresharedKey::LEN] {
            return Err(Error::new(
                ErrorKind::PresharedKeyInvalid,
                "The pre-shared key is all zeros, which is none.",
                "Make one with `claviger-ceremony psk new FILE`.",
            ));
        }
        let what = format!("record the pre-shared key with \"{peer}\"");
        self.change(&what, |connection| {
            let recorded = self.find(connection, peer)?.ok_or_else(|| self.unknown(connection, peer))?;
            let check = check_value(key);
            if let Some(there) = self.held_keys(connection)?.into_iter().find(|held| held.peer == *peer) {
                // 64 bits tell any two keys apart that were not made to collide, and whoever makes both knows both.
                return if there.check == check { Ok(Step::Nothing(Added::AlreadyThere)) } else { Err(other(&there)) };
            }
            let value = match self.wrapping(connection, &what)? {
                Some(keys) => SecretBytes::new(keys.wrap(&wrapped_as(peer.as_str()), key.expose())?),
                None => SecretBytes::new(key.expose().to_vec()),
            };
            connection
                .execute(
                    "INSERT INTO preshared_keys (peer, check_value, time, value) VALUES (?1, ?2, ?3, ?4)",
                    params![peer.as_str(), check, integer(log::now()), value.as_slice()],
                )
                .map_err(fail::sql(&self.dir, &what))?;
            let detail = if how.is_empty() { format!("check {check}") } else { format!("check {check}; {how}") };
            self.log_peer(connection, Event::PskRecorded, &recorded, &detail)?;
            Ok(Step::Done(Added::New))
        })
    }

    /// Forgets the pre-shared key of this machine and a peer, and logs it. `false`: there was none.
    ///
    /// # Errors
    /// [`PeerUnknown`](ErrorKind::PeerUnknown), [`StoreLocked`](ErrorKind::StoreLocked); and as [`machine`](Self::machine).
    pub fn remove_preshared_key(&mut self, peer: &Identifier) -> Result<bool> {
        self.change(&format!("remove the pre-shared key with \"{peer}\""), |connection| {
            let recorded = match self.find(connection, peer)? {
                Some(peer) => Some(peer),
                None => self.find_held(connection, peer)?,
            };
            let recorded = recorded.ok_or_else(|| self.unknown(connection, peer))?;
            let removed = self.drop_preshared_key(connection, &recorded)?;
            Ok(if removed { Step::Done(true) } else { Step::Nothing(false) })
        })
    }

    /// Every pre-shared key, by the peer it is held with: of peers, and of cards that are only held.
    ///
    /// # Errors
    /// As [`onion_secret`](Self::onion_secret).
    pub fn preshared_keys(&self) -> Result<HashMap<Identifier, PresharedKey>> {
        let view = self.view()?;
        let keys = self.wrapping(&view.transaction, "read the pre-shared keys")?;
        let rows = || -> rusqlite::Result<Vec<(String, SecretBytes, [u8; 32])>> {
            view.transaction
                .prepare_cached("SELECT peer, check_value, time, value FROM preshared_keys")?
                .query_map([], |row| Ok((row.get(0)?, SecretBytes::new(row.get(3)?), row::hash(row, 0)?)))?
                .collect()
        };
        let rows = rows().map_err(|error| row::unreadable(&self.dir, "preshared_keys", error))?;
        view.check_count("psk", rows.len())?;
        let read = |(peer, stored, hash): (String, SecretBytes, [u8; 32])| {
            view.check("psk", &peer, Some(&hash))?;
            let key = match keys {
                Some(keys) => {
                    keys.unwrap(&wrapped_as(&peer), &stored).and_then(|plain| PresharedKey::from_slice(&plain))
                }
                None if stored.len() == PresharedKey::LEN + WRAPPING => return Err(no_seal(&self.dir)),
                None => PresharedKey::from_slice(&stored),
            };
            let (name, key) = peer.parse().ok().zip(key).ok_or_else(|| self.malformed(&peer))?;
            Ok((name, key))
        };
        rows.into_iter().map(read).collect()
    }

    /// The pre-shared keys that are held, without the keys, ordered by peer. Needs no token.
    ///
    /// # Errors
    /// As [`machine`](Self::machine).
    pub fn held_preshared_keys(&self) -> Result<Vec<HeldKey>> {
        let view = self.view()?;
        view.check_all()?;
        self.held_keys(&view.transaction)
    }

    fn held_keys(&self, connection: &Connection) -> Result<Vec<HeldKey>> {
        let rows = || -> rusqlite::Result<Vec<(String, String, i64)>> {
            connection
                .prepare_cached("SELECT peer, check_value, time FROM preshared_keys ORDER BY peer")?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                .collect()
        };
        let rows = rows().map_err(|error| row::unreadable(&self.dir, "preshared_keys", error))?;
        let read = |(peer, check, time): (String, String, i64)| {
            let held = || {
                let digits = |c: char| matches!(c, '0'..='9' | 'a'..='f' | ' ');
                let check = (check.len() == 19 && check.chars().all(digits)).then_some(check)?;
                Some(HeldKey { peer: peer.parse().ok()?, check, time: time.try_into().ok()? })
            };
            held().ok_or_else(|| self.malformed(&peer))
        };
        rows.into_iter().map(read).collect()
    }

    /// Forgets a peer's key and logs it. `false`: there was none.
    pub(in crate::store) fn drop_preshared_key(&self, connection: &Connection, peer: &Peer) -> Result<bool> {
        let failed = fail::sql(&self.dir, "remove a pre-shared key");
        let check: Option<String> = connection
            .query_row(
                "DELETE FROM preshared_keys WHERE peer = ?1 RETURNING check_value",
                params![peer.identifier.as_str()],
                |row| row.get(0),
            )
            .optional()
            .map_err(failed)?;
        let Some(check) = check else { return Ok(false) };
        self.log_peer(connection, Event::PskRemoved, peer, &format!("check {check}"))?;
        Ok(true)
    }

    fn malformed(&self, peer: &str) -> Error {
        let peer: String = peer.chars().take(64).collect();
        fail::corrupt(&self.dir, &format!("row {peer:?} of table `preshared_keys` is malformed"))
    }
}

fn other(there: &HeldKey) -> Error {
    let HeldKey { peer, check, .. } = there;
    Error::new(
        ErrorKind::PeerConflict,
        format!(
            "Another pre-shared key with \"{peer}\" is recorded, with the check value {check}; nothing was changed."
        ),
        format!("Remove it first, on both machines: `claviger-ceremony psk remove {peer}`."),
    )
}
