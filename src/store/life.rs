//! Life after the ceremony: the plan, cards, revocation, expiry, rotation, the other token.

mod contact;
mod plan;
mod preshared;
mod proof;
mod rotation;

use rusqlite::{Connection, params};

use super::cards::{Place, card_keys};
use super::seal::Step;
use super::{Peer, Store, fail, log, row};
use crate::ceremony::log::{Event, plain};
use crate::ceremony::succession::Succession;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::{Curve, Fingerprint, Identifier, KeyPlace, OnionAddress, StaticPublic};

pub use contact::Contact;
pub use preshared::HeldKey;
pub use proof::OpenChallenge;
pub use rotation::NewIdentity;

/// A key that is never recorded again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// Whose it was.
    pub identifier: Identifier,
    /// The key.
    pub static_public: StaticPublic,
    /// Seconds since 1970.
    pub time: u64,
    /// Why, as the log has it.
    pub reason: String,
}

impl Store {
    /// Removes a peer or a card that is held, and never records its keys, address and client-authorization key again, nor those of its former card. Returns what
    /// was recorded.
    ///
    /// # Errors
    /// [`PeerUnknown`](crate::ErrorKind::PeerUnknown), [`StoreLocked`](crate::ErrorKind::StoreLocked); and as [`machine`](Self::machine).
    pub fn revoke(&mut self, identifier: &Identifier, reason: &str) -> Result<Peer> {
        self.change(&format!("revoke \"{identifier}\""), |connection| {
            let (peer, _) = self.take_out(connection, identifier)?;
            self.drop_preshared_key(connection, &peer)?;
            self.put_revoked(connection, &peer, reason)?;
            if let Some(former) = &peer.former {
                self.put_revoked(connection, &Peer::from_card(&former.card), reason)?;
            }
            self.log_peer(connection, Event::PeerRevoked, &peer, reason)?;
            Ok(Step::Done(peer))
        })
    }

    /// What was revoked, oldest first.
    ///
    /// # Errors
    /// As [`machine`](Self::machine).
    pub fn revoked(&self) -> Result<Vec<Revoked>> {
        let view = self.view()?;
        view.check_all()?;
        let rows = || -> rusqlite::Result<Vec<Option<Revoked>>> {
            view.transaction
                .prepare("SELECT identifier, curve, static_public, time, reason FROM revoked ORDER BY number")?
                .query_map([], |row| {
                    let text = |column| row.get::<_, String>(column);
                    Ok(revoked(&text(0)?, &text(1)?, &text(2)?, row.get(3)?, text(4)?))
                })?
                .collect()
        };
        let rows = rows().map_err(|error| row::unreadable(&self.dir, "revoked", error))?;
        rows.into_iter()
            .map(|row| row.ok_or_else(|| fail::corrupt(&self.dir, "a row of table `revoked` is malformed")))
            .collect()
    }

    /// Limits a peer's time, or takes the limit away.
    ///
    /// # Errors
    /// [`PeerUnknown`](crate::ErrorKind::PeerUnknown), [`StoreLocked`](crate::ErrorKind::StoreLocked); and as [`machine`](Self::machine).
    pub fn set_expiry(&mut self, identifier: &Identifier, expires: Option<u64>) -> Result<Peer> {
        self.change(&format!("limit the time of peer \"{identifier}\""), |connection| {
            let peer = self.find(connection, identifier)?.ok_or_else(|| self.unknown(connection, identifier))?;
            if peer.expires == expires {
                return Ok(Step::Nothing(peer));
            }
            let peer = Peer { expires, ..peer };
            self.put_peer(connection, &peer)?;
            let detail = match expires {
                Some(time) => format!("until {}", self.utc(connection, time)?),
                None => "without limit".to_owned(),
            };
            self.log_peer(connection, Event::ExpirySet, &peer, &detail)?;
            Ok(Step::Done(peer))
        })
    }

    /// Replaces the card of a peer, or of a member that is only held, by its next one; of a peer the former holds too as long as the succession says. The caller
    /// has verified its MAC. That it follows upon the card that is recorded is seen to here, once more: somebody else may have recorded another one meanwhile.
    ///
    /// # Errors
    /// Those of [`add_card`](Self::add_card) but for the name's conflict; [`PeerUnknown`](crate::ErrorKind::PeerUnknown);
    /// [`SuccessionInvalid`](crate::ErrorKind::SuccessionInvalid) when it follows upon another card.
    pub fn succeed_card(&mut self, succession: &Succession, how: &str) -> Result<()> {
        let Succession { card, until, .. } = succession;
        let (identifier, until) = (&card.identifier, *until);
        self.change(&format!("record the next card of \"{identifier}\""), |connection| {
            let (former, place) = match self.find(connection, identifier)? {
                Some(peer) => (peer, Place::Peer),
                None => match self.find_held(connection, identifier)? {
                    Some(held) => (held, Place::Held),
                    None => return Err(self.unknown(connection, identifier)),
                },
            };
            let Some(was) = former.card() else {
                return Err(Error::new(
                    ErrorKind::PeerConflict,
                    format!(
                        "Peer \"{identifier}\" did not come by card, so no card can succeed it; nothing was changed."
                    ),
                    format!("Remove it with `claviger-ceremony remove {identifier}` and import its card."),
                ));
            };
            if was == *card {
                return Ok(Step::Nothing(()));
            }
            if was.digest() != succession.former {
                return Err(Error::new(
                    ErrorKind::SuccessionInvalid,
                    format!("The succession does not follow upon the card of \"{identifier}\" that is recorded now; nothing was changed."),
                    format!("See which card that is with `claviger-ceremony show {identifier}`; another command recorded it meanwhile, or one before this is missing."),
                ));
            }
            let mut next = Peer::from_card(card);
            self.check(connection, &next, place, Some(identifier))?;
            if place == Place::Peer {
                next.former = Some(super::Former { card: was, until });
                next.expires = former.expires;
            }
            self.put(connection, &next, place)?;
            self.log_peer(connection, Event::CardSucceeded, &next, how)?;
            Ok(Step::Done(()))
        })
    }

    /// Goes on with the token of that place.
    ///
    /// # Errors
    /// [`KeyNotFound`](crate::ErrorKind::KeyNotFound) when there is no backup; [`StoreLocked`](crate::ErrorKind::StoreLocked); and as [`machine`](Self::machine).
    pub fn activate(&mut self, place: KeyPlace) -> Result<()> {
        self.change(&format!("go on with the {place} token"), |connection| {
            let (mut machine, _) = row::machine(connection, &self.dir)?;
            if machine.active == place {
                return Ok(Step::Nothing(()));
            }
            let Some(key) = machine.card.key(place) else {
                return Err(Error::new(
                    ErrorKind::KeyNotFound,
                    format!("This machine has no {place} key."),
                    "Set a backup token up with `claviger-ceremony rotate`; every peer then imports the succession.",
                ));
            };
            if !self.opens(connection, key)? {
                return Err(Error::new(
                    ErrorKind::KeyMismatch,
                    format!("The store is not sealed to the {place} token, which could then not open it; nothing was changed."),
                    "Seal it to both tokens first with `claviger-ceremony reseal`.",
                ));
            }
            machine.active = place;
            row::put_machine(connection, &machine).map_err(fail::sql(&self.dir, "record the token"))?;
            self.event(connection, &machine, Event::TokenSwitched, &place.to_string())?;
            Ok(Step::Done(()))
        })
    }

    /// Logs a step of the ceremony that changes nothing else.
    ///
    /// # Errors
    /// [`StoreLocked`](crate::ErrorKind::StoreLocked); and as [`machine`](Self::machine).
    pub fn note(&mut self, event: Event, subject: &Identifier, fingerprint: Fingerprint, detail: &str) -> Result<()> {
        self.change("write the ceremony log", |connection| {
            log::append(connection, event, subject, fingerprint, detail)
                .map_err(fail::sql(&self.dir, "write the ceremony log"))?;
            Ok(Step::Done(()))
        })
    }

    /// Logs what happened to a peer.
    pub(in crate::store) fn log_peer(
        &self,
        connection: &Connection,
        event: Event,
        peer: &Peer,
        detail: &str,
    ) -> Result<()> {
        log::append(connection, event, &peer.identifier, peer.fingerprint(), detail)
            .map_err(fail::sql(&self.dir, "write the ceremony log"))
    }

    /// `2026-01-31T12:00:00Z` (RFC 3339), for the log.
    fn utc(&self, connection: &Connection, time: u64) -> Result<String> {
        // SQLite knows no year beyond 9999.
        let time = row::integer(time.min(253_402_300_799));
        connection
            .query_row("SELECT strftime('%Y-%m-%dT%H:%M:%SZ', ?1, 'unixepoch')", params![time], |row| row.get(0))
            .map_err(fail::sql(&self.dir, "write a time"))
    }
}

fn revoked(identifier: &str, curve: &str, key: &str, time: i64, reason: String) -> Option<Revoked> {
    let static_public = StaticPublic::from_hex(curve.parse::<Curve>().ok()?, key).ok()?;
    let (identifier, time) = (identifier.parse().ok()?, time.try_into().ok()?);
    (plain(&reason) == reason).then_some(Revoked { identifier, static_public, time, reason })
}

/// A way to reach a peer, or to be called by it: one of its keys, and where that key listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerKey {
    /// The key.
    pub static_public: StaticPublic,
    /// Where the machine of that key listens.
    pub onion_address: Option<OnionAddress>,
    /// Which of the card's keys.
    pub place: KeyPlace,
    /// It is the former card's.
    pub former: bool,
}

impl Peer {
    /// Its keys that hold at `now` (seconds since 1970), most wanted first: primary and backup of its card, then those of its former card while that holds.
    /// Empty when the peer has expired.
    pub fn keys(&self, now: u64) -> Vec<PeerKey> {
        if self.expires.is_some_and(|expires| now >= expires) {
            return Vec::new();
        }
        let key = |key: &StaticPublic, onion_address, place, former| PeerKey {
            static_public: key.clone(),
            onion_address,
            place,
            former,
        };
        let mut keys = vec![key(&self.static_public, self.onion_address, KeyPlace::Primary, false)];
        keys.extend(
            self.backup.as_ref().map(|own| key(&own.static_public, self.onion_address, KeyPlace::Backup, false)),
        );
        if let Some(former) = self.former.as_ref().filter(|former| now < former.until) {
            let card = &former.card;
            for (place, public) in [KeyPlace::Primary, KeyPlace::Backup].into_iter().zip(card_keys(card)) {
                // A next card may keep a key, at the same address: that is one way, not two.
                let address = Some(card.onion_address);
                if !keys.iter().any(|other| other.static_public == *public && other.onion_address == address) {
                    keys.push(key(public, address, place, true));
                }
            }
        }
        keys
    }
}
