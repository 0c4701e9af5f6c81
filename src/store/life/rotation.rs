//! Rotation: the next key, address and client-authorization key of this machine, as one unit.

use rusqlite::{Connection, TransactionBehavior, params};

use crate::ceremony::log::Event;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::{IdentityCard, KeyPlace};
use crate::secret::{ClientAuthSecret, OnionSecretKey, SecretBytes};
use crate::store::cards::{Place, check_plan};
use crate::store::seal::{Keys, Step};
use crate::store::{Added, FormerIdentity, Machine, Peer, SealKey, Store, fail, row};

/// What a rotation makes of this machine.
pub struct NewIdentity {
    /// The next card, with the identifier of the present one.
    pub card: IdentityCard,
    /// The locator of its token.
    pub token: String,
    /// The locator of its backup token; exactly when the card has a backup key.
    pub backup_token: Option<String>,
    /// The secret key of the card's onion address.
    pub onion: OnionSecretKey,
    /// The secret of the card's client-authorization key.
    pub client_auth: ClientAuthSecret,
    /// Until when the present card holds too, seconds since 1970.
    pub until: u64,
}

/// The secrets of the present identity, and what they are called afterwards.
const FORMER: [(&str, &str); 2] = [("onion", "former-onion"), ("client-auth", "former-client-auth")];

impl Store {
    /// Gives this machine its next card, token and secrets; the present ones are kept as the former ones. Seals to `keys`, which must
    /// contain the new token's, under a new key; without any, a store that is not sealed stays so. The next card may keep a key or the address of the present one.
    ///
    /// # Errors
    /// [`PeerConflict`](crate::ErrorKind::PeerConflict) for an identifier that differs, a rotation under way, or a key that is recorded;
    /// [`PeerRevoked`](crate::ErrorKind::PeerRevoked) for one that was revoked; [`NoSharedCurve`](crate::ErrorKind::NoSharedCurve) for a key on another curve;
    /// [`PlanMismatch`](crate::ErrorKind::PlanMismatch); [`KeyMismatch`](crate::ErrorKind::KeyMismatch) for tokens that are not those of the next card;
    /// [`StoreLocked`](crate::ErrorKind::StoreLocked); those of [`create`](Self::create) for its card and locators; and as [`machine`](Self::machine).
    pub fn rotate(&mut self, next: &NewIdentity, keys: &[SealKey]) -> Result<()> {
        let what = "replace this machine's identity";
        row::check_own(&next.card, &next.token, next.backup_token.as_deref())?;
        let (unlocked, clear) = {
            let transaction = self.transaction(TransactionBehavior::Immediate, what)?;
            let old = self.opened_verified(&transaction, what)?;
            let (machine, _) = row::machine(&transaction, &self.dir)?;
            self.check_next(&transaction, &machine, &next.card)?;
            self.replace_secrets(&transaction, old.map(|old| old.keys()), next)?;
            let former = FormerIdentity {
                token: machine.locator().to_owned(),
                card: machine.card,
                active: machine.active,
                until: next.until,
            };
            let next_machine = Machine {
                card: next.card.clone(),
                token: next.token.clone(),
                backup_token: next.backup_token.clone(),
                active: KeyPlace::Primary,
                former: Some(former),
                attestation: machine.attestation,
            };
            row::put_machine(&transaction, &next_machine).map_err(fail::sql(&self.dir, what))?;
            let detail = format!("the former card until {}", self.utc(&transaction, next.until)?);
            self.event(&transaction, &next_machine, Event::Rotated, &detail)?;
            let new = if old.is_none() && keys.is_empty() {
                None
            } else {
                Some(self.seal_in(&transaction, &next_machine, old, keys)?)
            };
            transaction.commit().map_err(fail::sql(&self.dir, what))?;
            let clear = old.is_none() && new.is_some();
            (new, clear)
        };
        self.unlocked = unlocked;
        self.scrub_after(clear)
    }

    /// Forgets the former identity and its secrets. `false`: there was none.
    ///
    /// # Errors
    /// [`StoreLocked`](crate::ErrorKind::StoreLocked); and as [`machine`](Self::machine).
    pub fn finish_rotation(&mut self) -> Result<bool> {
        let what = "forget the former identity";
        let finished = self.change(what, |connection| {
            let (machine, _) = row::machine(connection, &self.dir)?;
            if machine.former.is_none() {
                return Ok(Step::Nothing(false));
            }
            let machine = Machine { former: None, ..machine };
            row::put_machine(connection, &machine).map_err(fail::sql(&self.dir, what))?;
            for (_, former) in FORMER {
                connection
                    .execute("DELETE FROM secrets WHERE name = ?1", params![former])
                    .map_err(fail::sql(&self.dir, what))?;
            }
            self.event(connection, &machine, Event::RotationFinished, "")?;
            Ok(Step::Done(true))
        })?;
        if finished {
            self.scrub_after(false)?;
        }
        Ok(finished)
    }

    /// The secret key of the former onion address; `None` without a rotation under way.
    ///
    /// # Errors
    /// As [`onion_secret`](Self::onion_secret).
    pub fn former_onion_secret(&self) -> Result<Option<OnionSecretKey>> {
        self.secret("former-onion", OnionSecretKey::LEN, OnionSecretKey::from_slice)
    }

    /// The former client-authorization secret; `None` without a rotation under way.
    ///
    /// # Errors
    /// As [`onion_secret`](Self::onion_secret).
    pub fn former_client_auth_secret(&self) -> Result<Option<ClientAuthSecret>> {
        self.secret("former-client-auth", ClientAuthSecret::LEN, ClientAuthSecret::from_slice)
    }

    fn check_next(&self, connection: &Connection, machine: &Machine, next: &IdentityCard) -> Result<()> {
        let own = &machine.card;
        let refused = |why: String, hint: &str| Err(Error::new(ErrorKind::PeerConflict, why, hint));
        if next.identifier != own.identifier {
            return refused(
                format!("The next card is of \"{}\", and this machine is \"{}\".", next.identifier, own.identifier),
                "A machine keeps its name when it is rotated; under another name it is another machine: `claviger-ceremony init`.",
            );
        }
        if machine.former.is_some() {
            return refused(
                "A rotation of this machine is under way: its former card still holds.".into(),
                "End the overlap first with `claviger-ceremony rotate --finish`.",
            );
        }
        if next == own {
            return refused("The next card is the present one.".into(), "Rotate to a new token or a new key.");
        }
        if next.curve() != own.curve() {
            return Err(Error::new(
                ErrorKind::NoSharedCurve,
                format!(
                    "The next key is on {}, and this machine's peers have theirs on {}.",
                    next.curve(),
                    own.curve()
                ),
                format!("Generate it on {}: `claviger-ceremony token generate --curve {0}`.", own.curve()),
            ));
        }
        let next = Peer::from_card(next);
        if let Some(plan) = self.plan_in(connection)? {
            check_plan(&plan, &own.identifier, &next, Place::Held)?;
        }
        self.check_not_revoked(connection, &next)?;
        // The own name is never recorded, so only keys and addresses can be there.
        match self.check_recorded(connection, &next, Place::Peer, None)? {
            Added::New | Added::AlreadyThere => Ok(()),
        }
    }

    fn replace_secrets(&self, connection: &Connection, keys: Option<&Keys>, next: &NewIdentity) -> Result<()> {
        let failed = fail::sql(&self.dir, "replace the secrets");
        for (name, former) in FORMER {
            let stored: Vec<u8> = connection
                .query_row("SELECT value FROM secrets WHERE name = ?1", params![name], |row| row.get(0))
                .map_err(|error| row::unreadable(&self.dir, "secrets", error))?;
            let stored = SecretBytes::new(stored);
            let plain = match keys {
                Some(keys) => keys.unwrap(name, &stored).ok_or_else(|| self.no_secret(name))?,
                None => stored,
            };
            self.put_secret(connection, keys, former, &plain)?;
        }
        connection.execute("DELETE FROM secrets WHERE name NOT LIKE 'former-%'", []).map_err(failed)?;
        self.put_secret(connection, keys, "onion", next.onion.expose())?;
        self.put_secret(connection, keys, "client-auth", next.client_auth.expose())
    }
}
