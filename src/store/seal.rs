//! The seal: the store's content bound to this machine's tokens, and its secrets wrapped by them (design: one token, one PRF).
//!
//! A manifest has a line with a hash for every row that is protected, and a MAC over the manifest has a key that only this machine's tokens can give back. Every
//! change verifies the old manifest and writes the next one in its own transaction, so nothing that was changed outside the tool is ever sealed in; every read
//! compares what it returns with the manifest.

mod keys;
mod manifest;
mod point;
mod secrets;

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::{Event, Machine, Store, fail, log, row, schema};
use crate::error::{Error, ErrorKind, Result};
use crate::identity::{Curve, StaticPublic};
use crate::secret::SharedSecret;

pub(super) use keys::{Keys, WRAPPING};
pub(super) use manifest::Manifest;
pub use point::seal_point;
use secrets::secret_len;

/// What a token answered to its [`seal_point`].
pub struct SealKey {
    /// The token's static public key.
    pub key: StaticPublic,
    /// The agreement of its private half with `seal_point(&key)`.
    pub agreed: SharedSecret,
}

/// Whether a store is sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SealState {
    /// Not sealed: whoever can write to it can change it unseen, and its secrets are in the clear.
    Unsealed,
    /// Sealed to the tokens with these keys; any one opens it.
    Sealed(Vec<StaticPublic>),
}

/// An open seal.
pub(super) struct Unlocked {
    keys: Keys,
    /// The MAC of `verified`'s slots: another one means that another process sealed the store anew.
    slots: Vec<u8>,
    /// The last manifest whose MAC fitted and under which every row did, with that MAC.
    verified: Mutex<(Vec<u8>, Arc<Manifest>)>,
}

/// What a read sees: one state of the file, and the manifest that it must fit, if the seal is open.
pub(super) struct View<'a> {
    store: &'a Store,
    pub(super) transaction: Transaction<'a>,
    pub(super) manifest: Option<Arc<Manifest>>,
}

impl View<'_> {
    /// Refuses a row that is not as it was sealed. `hash` is `None` when it is not there.
    pub(super) fn check(&self, kind: &str, name: &str, hash: Option<&[u8; 32]>) -> Result<()> {
        match &self.manifest {
            Some(manifest) if !manifest.fits(kind, name, hash) => self.tampered(),
            _ => Ok(()),
        }
    }

    /// Refuses a log that does not end with this entry.
    pub(super) fn check_log(&self, head: log::Head) -> Result<()> {
        match &self.manifest {
            Some(manifest) if !manifest.ends(head) => self.tampered(),
            _ => Ok(()),
        }
    }

    /// Refuses a table with rows more or fewer than were sealed.
    pub(super) fn check_count(&self, kind: &str, count: usize) -> Result<()> {
        match &self.manifest {
            Some(manifest) if manifest.count(kind) != count => self.tampered(),
            _ => Ok(()),
        }
    }

    /// Everything under the seal.
    pub(super) fn check_all(&self) -> Result<()> {
        match &self.store.unlocked {
            Some(unlocked) if self.manifest.is_some() => self.store.verified(&self.transaction, unlocked).map(drop),
            _ => Ok(()),
        }
    }

    /// Refuses this machine's row and its roots.
    pub(super) fn check_machine(&self) -> Result<()> {
        let Some(manifest) = &self.manifest else { return Ok(()) };
        let now = Manifest::of_machine(&self.transaction)
            .map_err(|error| row::unreadable(&self.store.dir, "machine", error))?;
        if manifest.same_machine(&now) { Ok(()) } else { self.tampered() }
    }

    /// Names everything that differs.
    fn tampered(&self) -> Result<()> {
        self.check_all()?;
        // The manifest that a row was compared with is that of the file, so the comparison of everything finds it again.
        Err(tampered(&self.store.dir, "a row does not fit its seal"))
    }
}

/// What a change did.
pub(super) enum Step<T> {
    /// It wrote.
    Done(T),
    /// There was nothing to write.
    Nothing(T),
}

impl Store {
    /// Whether it is sealed, and to which keys. Reads, and believes, what is in the file.
    ///
    /// # Errors
    /// As [`machine`](Self::machine). [`StoreTampered`](crate::ErrorKind::StoreTampered) for a seal that was removed by hand: the log or the secrets tell of it.
    pub fn seal_state(&self) -> Result<SealState> {
        if !self.is_sealed(&self.connection)? {
            return self.check_bare(&self.connection).map(|()| SealState::Unsealed);
        }
        let slots = slots(&self.connection).map_err(|error| row::unreadable(&self.dir, "seal_keys", error))?;
        let keys = slots.iter().map(|slot| {
            let curve = slot.curve.parse::<Curve>().ok();
            curve.and_then(|curve| StaticPublic::from_hex(curve, &slot.static_public).ok())
        });
        let keys: Option<Vec<_>> = keys.collect();
        let keys = keys.filter(|keys| !keys.is_empty());
        keys.map(SealState::Sealed)
            .ok_or_else(|| tampered(&self.dir, "the list of tokens that open the seal was changed"))
    }

    /// Opens the seal with a token's answer and verifies everything under it. From here on reads verify what they return, secrets can be read, and changes
    /// are sealed in the transaction that makes them. Does nothing to a store that is not sealed. When another process seals the store anew, reads and changes fail
    /// with [`StoreLocked`](crate::ErrorKind::StoreLocked) until it is unlocked again.
    ///
    /// # Errors
    /// [`StoreTampered`](crate::ErrorKind::StoreTampered) names what was changed outside the tool; [`KeyMismatch`](crate::ErrorKind::KeyMismatch) when the
    /// store is sealed to other keys. And as [`machine`](Self::machine).
    pub fn unlock(&mut self, key: &SealKey) -> Result<()> {
        let transaction = self.transaction(TransactionBehavior::Deferred, "open the seal")?;
        if !self.is_sealed(&transaction)? {
            return Ok(());
        }
        let there = slots(&transaction).map_err(|error| row::unreadable(&self.dir, "seal_keys", error))?;
        let (curve, public) = (key.key.curve().to_string(), key.key.to_hex());
        let Some(slot) = there.iter().find(|slot| slot.curve == curve && slot.static_public == public) else {
            return Err(Error::new(
                ErrorKind::KeyMismatch,
                format!("The store in {} is not sealed to the token with this key.", self.dir.display()),
                "Attach this machine's token; `claviger-ceremony show` says where it is.",
            ));
        };
        let keys = Keys::open(key, &slot.wrapped)?.ok_or_else(|| {
            let why = "the seal's slot of this token was changed, or the token answered otherwise than when the store was sealed";
            tampered(&self.dir, why)
        })?;
        let unlocked = Unlocked::new(keys, &there);
        let verified = self.verified(&transaction, &unlocked)?;
        drop(transaction);
        unlocked.remember(verified);
        self.unlocked = Some(unlocked);
        Ok(())
    }

    /// Whether changes can be made and secrets read: it was [unlocked](Self::unlock), or is not sealed.
    pub fn is_unlocked(&self) -> bool {
        self.unlocked.is_some() || !self.is_sealed(&self.connection).unwrap_or(true)
    }

    /// Verifies everything under the seal again. There is nothing to verify in a store that is not sealed.
    ///
    /// # Errors
    /// As [`unlock`](Self::unlock); [`StoreLocked`](crate::ErrorKind::StoreLocked).
    pub fn verify(&self) -> Result<()> {
        let transaction = self.transaction(TransactionBehavior::Deferred, "verify the seal")?;
        self.opened(&transaction, "verify the seal")?.map_or(Ok(()), |unlocked| {
            let verified = self.verified(&transaction, unlocked)?;
            unlocked.remember(verified);
            Ok(())
        })
    }

    /// Seals it to exactly these tokens, under a new key: an unsealed store, or an unlocked one whose tokens were replaced. The token in use must be among them.
    ///
    /// # Errors
    /// [`StoreLocked`](crate::ErrorKind::StoreLocked); [`KeyMismatch`](crate::ErrorKind::KeyMismatch) for a token that is not this machine's, or without the one
    /// in use; and as [`machine`](Self::machine).
    pub fn seal(&mut self, keys: &[SealKey]) -> Result<()> {
        let (unlocked, clear) = {
            let what = "seal the store";
            let transaction = self.transaction(TransactionBehavior::Immediate, what)?;
            let old = self.opened_verified(&transaction, what)?;
            let (machine, _) = row::machine(&transaction, &self.dir)?;
            self.event(&transaction, &machine, Event::Sealed, &tokens(keys))?;
            let new = self.seal_in(&transaction, &machine, old, keys)?;
            transaction.commit().map_err(fail::sql(&self.dir, what))?;
            (new, old.is_none())
        };
        self.unlocked = Some(unlocked);
        self.scrub_after(clear)
    }

    /// Takes the seal off and writes the secrets in the clear.
    ///
    /// # Errors
    /// [`StoreLocked`](crate::ErrorKind::StoreLocked); and as [`machine`](Self::machine).
    pub fn unseal(&mut self) -> Result<()> {
        {
            let what = "take the seal off";
            let transaction = self.transaction(TransactionBehavior::Immediate, what)?;
            let Some(unlocked) = self.opened_verified(&transaction, what)? else { return Ok(()) };
            let (machine, _) = row::machine(&transaction, &self.dir)?;
            self.rewrap(&transaction, Some(&unlocked.keys), None)?;
            let failed = fail::sql(&self.dir, what);
            transaction.execute_batch("DELETE FROM seal; DELETE FROM seal_keys").map_err(&failed)?;
            self.event(&transaction, &machine, Event::Unsealed, "")?;
            transaction.commit().map_err(&failed)?;
        }
        self.unlocked = None;
        self.scrub_after(false)
    }

    /// Whether the token with this key opens the store: one of those it is sealed to, or any for a store that is not sealed.
    pub(super) fn opens(&self, connection: &Connection, key: &StaticPublic) -> Result<bool> {
        let slots = slots(connection).map_err(|error| row::unreadable(&self.dir, "seal_keys", error))?;
        let (curve, public) = (key.curve().to_string(), key.to_hex());
        Ok(!self.is_sealed(connection)? || slots.iter().any(|slot| slot.curve == curve && slot.static_public == public))
    }

    /// Begins a transaction; dropped before its commit, it is rolled back.
    pub(super) fn transaction(&self, behavior: TransactionBehavior, what: &str) -> Result<Transaction<'_>> {
        Transaction::new_unchecked(&self.connection, behavior).map_err(fail::sql(&self.dir, what))
    }

    /// One state of the file for a read.
    pub(super) fn view(&self) -> Result<View<'_>> {
        let transaction = self.transaction(TransactionBehavior::Deferred, "read the store")?;
        let manifest = match &self.unlocked {
            None => None,
            Some(unlocked) => Some(self.current(&transaction, unlocked)?),
        };
        Ok(View { store: self, transaction, manifest })
    }

    /// One change: what is under the seal is verified before it, and sealed again after it. `what` is a verb phrase.
    pub(super) fn change<T>(&self, what: &str, work: impl FnOnce(&Connection) -> Result<Step<T>>) -> Result<T> {
        let transaction = self.transaction(TransactionBehavior::Immediate, what)?;
        let unlocked = self.opened_verified(&transaction, what)?;
        let value = match work(&transaction)? {
            Step::Nothing(value) => return Ok(value),
            Step::Done(value) => value,
        };
        let verified = unlocked.map(|unlocked| self.write(&transaction, &unlocked.keys)).transpose()?;
        transaction.commit().map_err(fail::sql(&self.dir, what))?;
        if let (Some(unlocked), Some(verified)) = (unlocked, verified) {
            unlocked.remember(verified);
        }
        Ok(value)
    }

    /// The open seal for a change or a secret; `None` in a store that is not sealed.
    pub(super) fn opened(&self, connection: &Connection, what: &str) -> Result<Option<&Unlocked>> {
        match (&self.unlocked, self.is_sealed(connection)?) {
            (None, false) => self.check_bare(connection).map(|()| None),
            (Some(unlocked), true) => Ok(Some(unlocked)),
            (Some(_), false) => Err(self.stripped()),
            (None, true) => Err(Error::new(
                ErrorKind::StoreLocked,
                format!(
                    "Could not {what} in {}: the store is sealed, and its token was not asked.",
                    self.dir.display()
                ),
                "Attach this machine's token and run a command that asks it: `claviger-ceremony preflight` says which token it is.",
            )),
        }
    }

    /// As [`opened`](Self::opened), after everything was verified.
    pub(super) fn opened_verified(&self, connection: &Connection, what: &str) -> Result<Option<&Unlocked>> {
        let unlocked = self.opened(connection, what)?;
        if let Some(unlocked) = unlocked {
            self.verified(connection, unlocked)?;
        }
        Ok(unlocked)
    }

    /// The key of the open seal that wraps secrets; `None` in a store that is not sealed.
    pub(super) fn wrapping(&self, connection: &Connection, what: &str) -> Result<Option<&Keys>> {
        Ok(self.opened(connection, what)?.map(|unlocked| &unlocked.keys))
    }

    fn is_sealed(&self, connection: &Connection) -> Result<bool> {
        connection
            .query_row("SELECT EXISTS (SELECT 1 FROM seal) OR EXISTS (SELECT 1 FROM seal_keys)", [], |row| row.get(0))
            .map_err(fail::sql(&self.dir, "look at the seal"))
    }

    /// Refuses a store without a seal that never lost it through this tool: its log ends sealed, or its secrets are wrapped. Whoever writes the log and the
    /// secrets anew as well makes an unsealed store of it, with other secrets.
    fn check_bare(&self, connection: &Connection) -> Result<()> {
        let failed = fail::sql(&self.dir, "look at the seal");
        let last: Option<String> = connection
            .query_row(
                "SELECT event FROM log WHERE event IN (?1, ?2) ORDER BY sequence DESC LIMIT 1",
                params![Event::Sealed.as_str(), Event::Unsealed.as_str()],
                |row| row.get(0),
            )
            .optional()
            .map_err(&failed)?;
        let mut secrets = connection.prepare_cached(
                "SELECT name, length(value) FROM secrets UNION ALL SELECT 'psk:' || peer, length(value) FROM preshared_keys",
            )
            .map_err(&failed)?;
        let wrapped = secrets
            .query_map([], |row| Ok(row.get::<_, i64>(1)? == (secret_len(&row.get::<_, String>(0)?) + WRAPPING) as i64))
            .and_then(|lengths| lengths.collect::<rusqlite::Result<Vec<bool>>>())
            .map_err(|error| row::unreadable(&self.dir, "secrets", error))?;
        if last.as_deref() == Some(Event::Sealed.as_str()) || wrapped.contains(&true) {
            return Err(no_seal(&self.dir));
        }
        Ok(())
    }

    /// The manifest of the file: the one that was verified last, if it is still that one, or the present one after it was verified.
    fn current(&self, connection: &Connection, unlocked: &Unlocked) -> Result<Arc<Manifest>> {
        let mac = connection
            .prepare_cached("SELECT mac FROM seal")
            .and_then(|mut statement| statement.query_row([], |row| row.get::<_, Vec<u8>>(0)).optional())
            .map_err(|error| row::unreadable(&self.dir, "seal", error))?;
        {
            let last = unlocked.verified.lock().unwrap_or_else(PoisonError::into_inner);
            if mac.as_ref() == Some(&last.0) {
                return Ok(Arc::clone(&last.1));
            }
        }
        let verified = self.verified(connection, unlocked)?;
        Ok(unlocked.remember(verified))
    }

    /// Verifies the MAC, then every row.
    fn verified(&self, connection: &Connection, unlocked: &Unlocked) -> Result<(Vec<u8>, Manifest)> {
        if !self.is_sealed(connection)? {
            return Err(self.stripped());
        }
        let failed = |error| row::unreadable(&self.dir, "seal", error);
        let there = slots(connection).map_err(failed)?;
        if unlocked.slots != digest(&there) {
            return Err(Error::new(
                ErrorKind::StoreLocked,
                format!("The store in {} was sealed anew since this program opened its seal.", self.dir.display()),
                "Run the command again; a daemon asks its token again.",
            ));
        }
        let other = || tampered(&self.dir, "the seal itself was changed or is of another store");
        let (mac, text) = connection
            .query_row("SELECT mac, manifest FROM seal", [], |row| {
                Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, String>(1)?))
            })
            .optional()
            .map_err(failed)?
            .ok_or_else(other)?;
        if !unlocked.keys.fits(&text, &mac) {
            return Err(other());
        }
        if !schema::is_expected(connection, &self.dir)? {
            return Err(tampered(&self.dir, "its tables or triggers were changed"));
        }
        let now = Manifest::of(connection).map_err(failed)?;
        let (entries, flaw) = log::entries(connection).map_err(failed)?;
        if flaw.is_some() || now.to_text() != text {
            let sealed = Manifest::from_text(&text).ok_or_else(other)?;
            return Err(tampered(&self.dir, &manifest::listed(&sealed.differences(&now, flaw))));
        }
        // The log only ever goes on: an older copy that was changed since is as long, and has another entry there.
        let last = unlocked.head();
        let at = last.sequence.checked_sub(1).map(|at| usize::try_from(at).unwrap_or(usize::MAX));
        if at.is_some_and(|at| entries.get(at).is_none_or(|entry| entry.hash != last.hash)) {
            return Err(tampered(&self.dir, "an older copy was put in its place while this program had it open"));
        }
        Ok((mac, now))
    }

    /// Writes the manifest of what is there now.
    fn write(&self, connection: &Connection, keys: &Keys) -> Result<(Vec<u8>, Manifest)> {
        let failed = fail::sql(&self.dir, "write the seal");
        let manifest = Manifest::of(connection).map_err(&failed)?;
        let text = manifest.to_text();
        let mac = keys.mac(&text);
        connection
            .execute("INSERT OR REPLACE INTO seal (one, mac, manifest) VALUES (1, ?1, ?2)", params![mac, text])
            .map_err(&failed)?;
        Ok((mac, manifest))
    }

    /// Seals what is in the transaction, under a new key, to `keys`.
    pub(super) fn seal_in(
        &self,
        connection: &Connection,
        machine: &Machine,
        old: Option<&Unlocked>,
        keys: &[SealKey],
    ) -> Result<Unlocked> {
        let new = Keys::generate()?;
        self.rewrap(connection, old.map(|old| &old.keys), Some(&new))?;
        self.seal_under(connection, machine, new, keys)
    }

    /// As [`seal_in`](Self::seal_in), for secrets that are wrapped by `new` already.
    pub(super) fn seal_under(
        &self,
        connection: &Connection,
        machine: &Machine,
        new: Keys,
        keys: &[SealKey],
    ) -> Result<Unlocked> {
        check_keys(machine, keys)?;
        let failed = fail::sql(&self.dir, "write the seal");
        connection.execute("DELETE FROM seal_keys", []).map_err(&failed)?;
        for key in keys {
            connection
                .execute(
                    "INSERT INTO seal_keys (curve, static_public, wrapped) VALUES (?1, ?2, ?3)",
                    params![key.key.curve().to_string(), key.key.to_hex(), new.slot(key)?],
                )
                .map_err(&failed)?;
        }
        let verified = self.write(connection, &new)?;
        let unlocked = Unlocked::new(new, &slots(connection).map_err(&failed)?);
        unlocked.remember(verified);
        Ok(unlocked)
    }

    /// Logs what happened to this machine.
    pub(super) fn event(&self, connection: &Connection, machine: &Machine, event: Event, detail: &str) -> Result<()> {
        log::append(connection, event, &machine.card.identifier, machine.card.fingerprint(), detail)
            .map_err(fail::sql(&self.dir, "write the ceremony log"))
    }

    /// Builds the file anew, so that no page of it keeps what was overwritten: `secure_delete` wipes the cells that are freed, not the copies that moving
    /// cells about may leave behind.
    pub(super) fn scrub(&self) -> rusqlite::Result<()> {
        self.connection.execute_batch("VACUUM")
    }

    /// After a change that is made: where secrets were in the clear before it, it matters that nothing of them is left.
    pub(super) fn scrub_after(&self, clear: bool) -> Result<()> {
        match self.scrub() {
            Err(error) if clear => {
                let failed = fail::sql(&self.dir, "build the file anew")(error);
                let what = format!(
                    "The store in {} is sealed, but its file may still hold traces of the secrets that were in the clear: {}",
                    self.dir.display(),
                    failed
                );
                let hint =
                    "Run `claviger-ceremony reseal` when no other program has the store open and the disk has room.";
                Err(Error::new(failed.kind(), what, hint).because(failed))
            }
            // What is left is wrapped by a key that is gone.
            _ => Ok(()),
        }
    }

    fn stripped(&self) -> Error {
        Error::new(
            ErrorKind::StoreUnsealed,
            format!("The seal of the store in {} was taken off while this program had it open.", self.dir.display()),
            "If you did that, run the command again. If not, restore `store.db` from a backup.",
        )
    }
}

impl Unlocked {
    /// What wraps its secrets.
    pub(super) fn keys(&self) -> &Keys {
        &self.keys
    }

    fn new(keys: Keys, slots: &[Slot]) -> Self {
        Self { keys, slots: digest(slots), verified: Mutex::default() }
    }

    /// Keeps what was verified, for the reads to come.
    fn remember(&self, (mac, manifest): (Vec<u8>, Manifest)) -> Arc<Manifest> {
        let manifest = Arc::new(manifest);
        *self.verified.lock().unwrap_or_else(PoisonError::into_inner) = (mac, Arc::clone(&manifest));
        manifest
    }

    /// Where the log ended when the store was last verified.
    fn head(&self) -> log::Head {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner).1.head()
    }
}

/// A row of `seal_keys`.
struct Slot {
    curve: String,
    static_public: String,
    wrapped: Vec<u8>,
}

fn slots(connection: &Connection) -> rusqlite::Result<Vec<Slot>> {
    connection
        .prepare_cached("SELECT curve, static_public, wrapped FROM seal_keys ORDER BY curve, static_public")?
        .query_map([], |row| Ok(Slot { curve: row.get(0)?, static_public: row.get(1)?, wrapped: row.get(2)? }))?
        .collect()
}

/// Tells one set of slots from another; a seal made anew has other ones, for their nonces are random.
fn digest(slots: &[Slot]) -> Vec<u8> {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for slot in slots {
        for part in [slot.curve.as_bytes(), slot.static_public.as_bytes(), &slot.wrapped] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
    }
    context.finish().as_ref().to_vec()
}

/// Refuses tokens that are not the machine's, and a set without the one in use: the next command could not open the store.
fn check_keys(machine: &Machine, keys: &[SealKey]) -> Result<()> {
    let refused = |why: &str| {
        Err(Error::new(
            ErrorKind::KeyMismatch,
            format!("The store can not be sealed to these tokens: {why}."),
            "Seal it to the token in use and, if there is one, to the backup token: `claviger-ceremony seal`.",
        ))
    };
    if !keys.iter().any(|key| key.key == *machine.key()) {
        return refused("the token in use is not among them");
    }
    let own = [Some(&machine.card.static_public), machine.card.backup.as_ref().map(|backup| &backup.static_public)];
    for (at, key) in keys.iter().enumerate() {
        if !own.contains(&Some(&key.key)) {
            return refused("one of them holds a key that is not on this machine's card");
        }
        if keys[..at].iter().any(|other| other.key == key.key) {
            return refused("one of them is given twice");
        }
    }
    Ok(())
}

/// A store that says that it is not sealed, and has secrets that are wrapped.
pub(super) fn no_seal(dir: &std::path::Path) -> Error {
    tampered(dir, "its seal was removed, and its secrets can not be read without it")
}

/// How many tokens, for the log.
pub(super) fn tokens(keys: &[SealKey]) -> String {
    format!("{} token{}", keys.len(), if keys.len() == 1 { "" } else { "s" })
}

/// What was found is a clause, or some.
pub(super) fn tampered(dir: &std::path::Path, found: &str) -> Error {
    Error::new(
        ErrorKind::StoreTampered,
        format!("The store in {} was changed outside this tool: {found}.", dir.display()),
        "Restore `store.db` from a backup, or move the directory away and hold the ceremony again with `claviger-ceremony init`. \
         What is in it now must not be trusted, whoever says that the change was meant.",
    )
}
