//! What may be recorded: own cards, strangers, revoked keys, and what is there already.

use rusqlite::{Connection, OptionalExtension, params};

use super::row::{CARD, CARD_VALUES, Raw, card_values, check_backup, integer, unreadable};
use super::seal::Step;
use super::{Added, Event, Machine, Peer, Store, attestation_missing, fail, log, row};
use crate::ceremony::log::plain;
use crate::ceremony::plan::Plan;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::{Identifier, IdentityCard, StaticPublic};

/// Where a card belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Among the peers.
    Peer,
    /// Among the cards that are only held.
    Held,
}

impl Store {
    /// Records a member's card: as a peer where the plan joins it to this machine, or there is no plan; else as a card that is only held, for the phrase.
    ///
    /// # Errors
    /// Those of [`add_peer`](Self::add_peer), and of [`Plan::check_card`].
    pub fn add_card(&mut self, card: &IdentityCard, how: &str) -> Result<Added> {
        self.add(&Peer::from_card(card), |connection| self.place(connection, &card.identifier), how)
    }

    /// What [`add_card`](Self::add_card) would do. Writes nothing, and needs no token.
    ///
    /// # Errors
    /// As [`add_card`](Self::add_card), without [`StoreLocked`](ErrorKind::StoreLocked).
    pub fn check_card(&self, card: &IdentityCard) -> Result<Added> {
        let view = self.view()?;
        view.check_all()?;
        let place = self.place(&view.transaction, &card.identifier)?;
        self.check(&view.transaction, &Peer::from_card(card), place, None)
    }

    /// Every card of the set, ordered by identifier: this machine's, the peers' that came by card, and those only held.
    ///
    /// # Errors
    /// As [`machine`](Self::machine).
    pub fn cards(&self) -> Result<Vec<IdentityCard>> {
        let view = self.view()?;
        view.check_all()?;
        let mut cards = vec![row::machine(&view.transaction, &self.dir)?.0.card];
        for raw in self.raw_peers(&view.transaction, "")? {
            cards.extend(raw.parse("peers", &self.dir)?.card());
        }
        for held in self.held(&view.transaction)? {
            cards.extend(held.card());
        }
        cards.sort_by(|one, other| one.identifier.cmp(&other.identifier));
        Ok(cards)
    }

    fn place(&self, connection: &Connection, name: &Identifier) -> Result<Place> {
        let Some(plan) = self.plan_in(connection)? else { return Ok(Place::Peer) };
        let (own, _) = row::machine(connection, &self.dir)?;
        // This machine's own card is refused as its own, wherever it would belong.
        let own = own.card.identifier;
        Ok(if own == *name || plan.joins(&own, name) { Place::Peer } else { Place::Held })
    }

    pub(super) fn add(
        &self,
        peer: &Peer,
        place: impl FnOnce(&Connection) -> Result<Place>,
        how: &str,
    ) -> Result<Added> {
        self.change(&format!("record \"{}\"", peer.identifier), |connection| {
            let place = place(connection)?;
            if self.check(connection, peer, place, None)? == Added::AlreadyThere {
                return Ok(Step::Nothing(Added::AlreadyThere));
            }
            let peer = Peer { former: None, expires: None, ..peer.clone() };
            self.put(connection, &peer, place)?;
            let event = if place == Place::Peer { Event::PeerAdded } else { Event::CardAdded };
            log::append(connection, event, &peer.identifier, peer.fingerprint(), how)
                .map_err(fail::sql(&self.dir, "write the ceremony log"))?;
            Ok(Step::Done(Added::New))
        })
    }

    /// Writes a peer or a held card in the place of what has its name there.
    pub(super) fn put(&self, connection: &Connection, peer: &Peer, place: Place) -> Result<()> {
        if place == Place::Peer {
            return self.put_peer(connection, peer);
        }
        connection
            .execute("DELETE FROM cards WHERE identifier = ?1", params![peer.identifier.as_str()])
            .and_then(|_| {
                connection.execute(
                    &format!("INSERT INTO cards ({CARD}) VALUES ({CARD_VALUES})"),
                    rusqlite::params_from_iter(card_values(peer)),
                )
            })
            .map(drop)
            .map_err(fail::sql(&self.dir, &format!("record the card of \"{}\"", peer.identifier)))
    }

    /// The cards that are only held, ordered by identifier, unverified.
    pub(super) fn held(&self, connection: &Connection) -> Result<Vec<Peer>> {
        let raw = || -> rusqlite::Result<Vec<Raw>> {
            connection
                .prepare(&format!("SELECT {CARD} FROM cards ORDER BY identifier"))?
                .query_map([], Raw::read)?
                .collect()
        };
        let raw = raw().map_err(|error| unreadable(&self.dir, "cards", error))?;
        raw.iter().map(|raw| raw.parse("cards", &self.dir)).collect()
    }

    /// A card that is only held, unverified.
    pub(super) fn find_held(&self, connection: &Connection, identifier: &Identifier) -> Result<Option<Peer>> {
        connection
            .query_row(
                &format!("SELECT {CARD} FROM cards WHERE identifier = ?1"),
                params![identifier.as_str()],
                Raw::read,
            )
            .optional()
            .map_err(|error| unreadable(&self.dir, "cards", error))?
            .map(|raw| raw.parse("cards", &self.dir))
            .transpose()
    }

    /// Takes what has that name out of the store: a peer or a held card.
    pub(super) fn take_out(&self, connection: &Connection, identifier: &Identifier) -> Result<(Peer, Place)> {
        let found = match self.find(connection, identifier)? {
            Some(peer) => Some((peer, Place::Peer)),
            None => self.find_held(connection, identifier)?.map(|held| (held, Place::Held)),
        };
        let found = found.ok_or_else(|| self.unknown(connection, identifier))?;
        let table = if found.1 == Place::Peer { "peers" } else { "cards" };
        for (table, column) in [(table, "identifier"), ("contacts", "peer")] {
            connection
                .execute(&format!("DELETE FROM {table} WHERE {column} = ?1"), params![identifier.as_str()])
                .map_err(fail::sql(&self.dir, &format!("remove \"{identifier}\"")))?;
        }
        Ok(found)
    }

    /// Whether it may be recorded there. `replaced`: what has this name may differ, and is replaced.
    pub(super) fn check(
        &self,
        connection: &Connection,
        peer: &Peer,
        place: Place,
        replaced: Option<&Identifier>,
    ) -> Result<Added> {
        let (own, _) = row::machine(connection, &self.dir)?;
        check_backup(peer)?;
        check_not_own(&own, peer)?;
        self.check_not_revoked(connection, peer)?;
        if place == Place::Peer {
            check_shared(&own.card, peer)?;
        }
        if own.attestation.required && peer.attestation.is_none() {
            return Err(attestation_missing(&peer.identifier));
        }
        if let Some(plan) = self.plan_in(connection)? {
            check_plan(&plan, &own.card.identifier, peer, place)?;
        }
        self.check_recorded(connection, peer, place, replaced)
    }

    /// A key, address or client-authorization key that was revoked is never recorded again, under whatever name.
    pub(super) fn check_not_revoked(&self, connection: &Connection, peer: &Peer) -> Result<()> {
        let own = [Some(&peer.static_public), peer.backup.as_ref().map(|backup| &backup.static_public)];
        for key in own.into_iter().flatten() {
            let found = connection
                .query_row(
                    "SELECT identifier, reason FROM revoked WHERE static_public = ?1 OR backup_public = ?1
                         OR onion_address = ?2 OR client_auth = ?3 ORDER BY number",
                    params![
                        key.to_hex(),
                        peer.onion_address.map(|address| address.to_string()),
                        peer.client_auth.map(|key| key.to_string()),
                    ],
                    |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)),
                )
                .optional()
                .map_err(|error| unreadable(&self.dir, "revoked", error))?;
            if let Some((name, reason)) = found {
                let name: String = name.chars().take(64).collect();
                let reason = plain(&reason);
                let reason = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
                return Err(Error::new(
                    ErrorKind::PeerRevoked,
                    format!(
                        "The card of \"{}\" has a key or address of \"{name}\" that was revoked here{reason}; it was not recorded.",
                        peer.identifier
                    ),
                    "What was revoked is never recorded again: set that machine up anew with another key, and import its new card.",
                ));
            }
        }
        Ok(())
    }

    /// No name, key, address or client-authorization key is in a store twice, wherever it stands.
    pub(super) fn check_recorded(
        &self,
        connection: &Connection,
        peer: &Peer,
        place: Place,
        replaced: Option<&Identifier>,
    ) -> Result<Added> {
        let there = self.find(connection, &peer.identifier)?.map(|peer| (peer, Place::Peer));
        let there = match there {
            None => self.find_held(connection, &peer.identifier)?.map(|peer| (peer, Place::Held)),
            found => found,
        };
        if let Some((recorded, at)) = there.filter(|_| replaced != Some(&peer.identifier)) {
            if at == place && recorded.same(peer) {
                return Ok(Added::AlreadyThere);
            }
            let clash = if recorded.static_public == peer.static_public {
                "is recorded already, with other values"
            } else {
                "is recorded already, with another key"
            };
            return Err(conflict(&recorded.identifier, at, clash));
        }
        for (clash, condition, value) in unique(peer) {
            for (table, at) in [("peers", Place::Peer), ("cards", Place::Held)] {
                let name = connection
                    .query_row(
                        &format!("SELECT identifier FROM {table} WHERE ({condition}) AND identifier IS NOT ?2"),
                        params![value, replaced.map(Identifier::as_str)],
                        |row| row.get::<_, String>(0),
                    )
                    .optional()
                    .map_err(|error| unreadable(&self.dir, table, error))?;
                if let Some(name) = name {
                    let name = name
                        .parse()
                        .map_err(|_| fail::corrupt(&self.dir, &format!("a name in table `{table}` is none")))?;
                    return Err(conflict(&name, at, clash));
                }
            }
        }
        for raw in self.raw_peers(connection, "WHERE former_card IS NOT NULL")? {
            let recorded = raw.parse("peers", &self.dir)?;
            let Some(former) = recorded.former.as_ref().filter(|_| replaced != Some(&recorded.identifier)) else {
                continue;
            };
            if let Some(clash) = clash(&former.card, peer) {
                return Err(conflict(&recorded.identifier, Place::Peer, clash));
            }
        }
        Ok(Added::New)
    }

    /// Keeps a card's keys, address and client-authorization key from ever being recorded again.
    pub(super) fn put_revoked(&self, connection: &Connection, peer: &Peer, reason: &str) -> Result<()> {
        connection
            .execute(
                "INSERT INTO revoked (number, identifier, curve, static_public, backup_public, onion_address, client_auth, time, reason)
                 VALUES ((SELECT coalesce(max(number), 0) + 1 FROM revoked), ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                params![
                    peer.identifier.as_str(),
                    peer.static_public.curve().to_string(),
                    peer.static_public.to_hex(),
                    peer.backup.as_ref().map(|backup| backup.static_public.to_hex()),
                    peer.onion_address.map(|address| address.to_string()),
                    peer.client_auth.map(|key| key.to_string()),
                    integer(log::now()),
                    plain(reason),
                ],
            )
            .map(drop)
            .map_err(fail::sql(&self.dir, "record a revocation"))
    }
}

impl Peer {
    /// Whether the two are the same card, whatever was done with it here.
    pub(super) fn same(&self, other: &Self) -> bool {
        let card = |peer: &Self| Self { former: None, expires: None, ..peer.clone() };
        card(self) == card(other)
    }

    /// Whether it has this key, on its card or on its former one.
    pub(super) fn has(&self, key: &StaticPublic) -> bool {
        let former = self.former.as_ref().map(|former| &former.card);
        keys(self).any(|own| own == key) || former.is_some_and(|card| card_keys(card).any(|own| own == key))
    }
}

fn keys(peer: &Peer) -> impl Iterator<Item = &StaticPublic> {
    std::iter::once(&peer.static_public).chain(peer.backup.as_ref().map(|backup| &backup.static_public))
}

pub(super) fn card_keys(card: &IdentityCard) -> impl Iterator<Item = &StaticPublic> {
    std::iter::once(&card.static_public).chain(card.backup.as_ref().map(|backup| &backup.static_public))
}

/// What must be nobody else's: the words for a clash, the condition on ?1, the value.
fn unique(peer: &Peer) -> Vec<(&'static str, &'static str, String)> {
    const KEY: &str = "static_public = ?1 OR backup_public = ?1";
    let mut unique: Vec<_> = keys(peer).map(|key| ("has the key of this card already", KEY, key.to_hex())).collect();
    if let Some(address) = peer.onion_address {
        unique.push(("has the onion address of this card already", "onion_address = ?1", address.to_string()));
    }
    if let Some(key) = peer.client_auth {
        unique.push(("has the client-authorization key of this card already", "client_auth = ?1", key.to_string()));
    }
    unique
}

/// What of a card the peer has, too.
fn clash(card: &IdentityCard, peer: &Peer) -> Option<&'static str> {
    if keys(peer).any(|key| card_keys(card).any(|other| other == key)) {
        Some("had a key of this card")
    } else if peer.onion_address == Some(card.onion_address) {
        Some("had the onion address of this card")
    } else {
        (peer.client_auth == Some(card.client_auth)).then_some("had the client-authorization key of this card")
    }
}

fn conflict(name: &Identifier, at: Place, clash: &str) -> Error {
    let who = if at == Place::Peer { "Peer" } else { "Member" };
    Error::new(
        ErrorKind::PeerConflict,
        format!("{who} \"{name}\" {clash}; nothing was changed."),
        format!(
            "One of the two cards may be an attacker's: have the eight words of `claviger-ceremony show` read aloud at that machine, and compare them with \
             `claviger-ceremony show {name}` here. Only if it was set up anew, remove it with `claviger-ceremony remove {name}` and import its card again."
        ),
    )
}

fn check_not_own(own: &Machine, peer: &Peer) -> Result<()> {
    let name = &peer.identifier;
    let cards = || std::iter::once(&own.card).chain(own.former.as_ref().map(|former| &former.card));
    if cards().flat_map(card_keys).any(|key| keys(peer).any(|theirs| theirs == key)) {
        return Err(Error::new(
            ErrorKind::CardIsOwn,
            "The card is this machine's own.",
            "Import the other machine's card here, and this machine's card there.",
        ));
    }
    let clash = if *name == own.card.identifier {
        Some("name")
    } else if cards().any(|card| peer.onion_address == Some(card.onion_address)) {
        Some("onion address")
    } else {
        cards().any(|card| peer.client_auth == Some(card.client_auth)).then_some("client-authorization key")
    };
    clash.map_or(Ok(()), |clash| {
        Err(Error::new(
            ErrorKind::PeerConflict,
            format!("The card of \"{name}\" has this machine's own {clash}, but another key."),
            "Set the other machine up again with `claviger-ceremony init`, under a name of its own.",
        ))
    })
}

/// What two machines need to talk.
pub(super) fn check_shared(own: &IdentityCard, peer: &Peer) -> Result<()> {
    let name = &peer.identifier;
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
    Ok(())
}

/// Whether a member is according to the plan, and belongs there.
pub(super) fn check_plan(plan: &Plan, own: &Identifier, peer: &Peer, place: Place) -> Result<()> {
    let name = &peer.identifier;
    let mismatch = |why: String| {
        Err(Error::new(
            ErrorKind::PlanMismatch,
            why,
            "Compare the plans of both machines with `claviger-ceremony plan check`; a change of the plan is a new plan file on every machine.",
        ))
    };
    if let Some(card) = peer.card() {
        plan.check_card(&card)?;
    } else {
        let Some(member) = plan.member(name) else {
            return mismatch(format!("\"{name}\" is no member of the plan \"{}\".", plan.name));
        };
        if member.role != peer.role {
            return mismatch(format!("\"{name}\" has the role {}, and {} in the plan.", peer.role, member.role));
        }
        if member.curve != peer.static_public.curve() {
            return mismatch(format!(
                "\"{name}\" has a key on {}, and one on {} in the plan.",
                peer.static_public.curve(),
                member.curve
            ));
        }
    }
    if place == Place::Peer && !plan.joins(own, name) {
        return mismatch(format!("No edge of the plan \"{}\" joins \"{name}\" to this machine.", plan.name));
    }
    Ok(())
}
