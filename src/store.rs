//! The store: this machine's identity, its peers, and the append-only ceremony log.
//!
//! A store is a directory of mode 0700 with one SQLite database in it, `store.db` of mode 0600. Both must belong to the user this
//! process runs as; anything looser is refused before the database is looked at. Whoever can write to the directory all the same can change
//! everything in it. A sealed store ([`Store::seal`]) finds that and names it; in one that is not sealed nothing claims to notice beyond what
//! [`open`](Store::open) checks, and that the log's chain of hashes holds.
//!
//! # The seal
//! Everything but the [contacts](Store::contacts) is under it: this machine's card and locators, the plan, peers, held cards, revocations, challenges, secrets
//! and the log. A sealed store can be read without its token, unverified. After [`unlock`](Store::unlock) every read verifies what it returns, and every
//! change verifies everything before it and seals it again.
//!
//! *What it can not find*: an older copy of the whole file, put back. That copy was sealed by this machine, and nothing outside the file remembers that there
//! was a newer one; only a process that has the store open then notices. What finds it is the log, which is shorter than it was: its last hash no longer
//! agrees with the transcript that was printed, nor the log of this machine with those of the others (`transcript verify`). A store from which the seal
//! was removed as a whole is an unsealed store, and whoever opens it for a machine that was sealed has to object; its secrets are of no use.
//!
//! # Two processes at once
//! A daemon reads while a ceremony writes. Writers take SQLite's write lock at the beginning of their transaction (`BEGIN IMMEDIATE`), and
//! everybody waits for a lock at most [`BUSY_TIMEOUT`]. The rollback journal (`journal_mode=DELETE`) was chosen over a write-ahead log:
//! writes are a handful in a machine's life and reads take microseconds, so readers lose nothing by waiting for a writer, while a store at
//! rest is exactly one file, which can be copied, backed up and opened on a read-only medium, and in which a removed peer is overwritten
//! (`secure_delete`) and does not live on in a log beside it. `synchronous=EXTRA` makes a commit durable before it is
//! reported: in this mode `FULL` alone leaves the unlinked journal's directory entry to chance, and a power cut could undo the commit.
//!
//! # Secrets
//! The onion service's secret key, the client-authorization secret, pre-shared keys and the secrets of open challenges are wrapped by the seal: in the file they are worth nothing without
//! one of the tokens. In a store that is not sealed they are in the clear, guarded by the file's mode alone. Read out, they are in types that wipe
//! themselves; but SQLite has seen those that it stored or read in the clear: its page cache and statement buffers are freed without being wiped, so a
//! copy may stay in this process's memory until it ends. Sealing rebuilds the file, so that no page keeps what was in the clear; the disk below may, in
//! blocks that were given back. A store that was sealed from its creation never held them in the clear. The static private key is never here: it is
//! on the token.

mod cards;
mod fail;
mod file;
mod life;
mod log;
mod peers;
mod row;
mod schema;
mod seal;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use crate::ceremony::plan::Plan;
use crate::error::{Error, Result};
use crate::identity::{
    Attestation, BackupKey, ClientAuthPublic, Fingerprint, Identifier, IdentityCard, Kem, KeyPlace, OnionAddress, Role,
    StaticPublic, Suites, TokenKind,
};
use crate::secret::{ClientAuthSecret, OnionSecretKey, SecretBytes};

pub use crate::ceremony::log::{Event, LogEntry, MAX_DETAIL_LEN};
pub use file::default_dir;
pub use life::{Contact, HeldKey, NewIdentity, OpenChallenge, PeerKey, Revoked};
pub use peers::attestation_missing;
pub use seal::{SealKey, SealState, seal_point};

/// How long, about, an operation waits for another process's lock before it fails with [`StoreBusy`](crate::ErrorKind::StoreBusy).
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest locator text of a token, in bytes.
pub const MAX_LOCATOR_LEN: usize = 8192;

/// Longest PEM text of an added attestation root, in bytes.
pub const MAX_ROOT_LEN: usize = 128 * 1024;

/// What this machine asks of the cards that it records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttestationPolicy {
    /// A card without an attestation that holds is not recorded.
    pub required: bool,
    /// Roots that are believed beside the makers', PEM, each at most [`MAX_ROOT_LEN`] bytes. Whoever records a card reads them.
    pub roots: Vec<String>,
}

/// What a store is created from.
pub struct NewMachine {
    /// The machine's own card.
    pub card: IdentityCard,
    /// The locator of the token that holds its static private key: `pkcs11:…` or `file:…`, at most [`MAX_LOCATOR_LEN`] bytes.
    pub token: String,
    /// The locator of its backup token; exactly when the card has a backup key.
    pub backup_token: Option<String>,
    /// The plan of the ceremony, if there is one.
    pub plan: Option<Plan>,
    /// The secret key of the card's onion address.
    pub onion: OnionSecretKey,
    /// The secret of the card's client-authorization key.
    pub client_auth: ClientAuthSecret,
    /// What it asks of others' cards.
    pub attestation: AttestationPolicy,
}

/// This machine, as recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Its own card.
    pub card: IdentityCard,
    /// The locator of the token with the primary key.
    pub token: String,
    /// The locator of the token with the backup key.
    pub backup_token: Option<String>,
    /// Which of the two is in use.
    pub active: KeyPlace,
    /// What it was before a rotation whose overlap is not over.
    pub former: Option<FormerIdentity>,
    /// What it asks of others' cards.
    pub attestation: AttestationPolicy,
}

impl Machine {
    /// The static public key that is in use.
    pub fn key(&self) -> &StaticPublic {
        self.card.key(self.active).unwrap_or(&self.card.static_public)
    }

    /// The locator of the token that is in use.
    pub fn locator(&self) -> &str {
        match (self.active, &self.backup_token) {
            (KeyPlace::Backup, Some(locator)) => locator,
            _ => &self.token,
        }
    }
}

/// This machine before its last rotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormerIdentity {
    /// Its card then.
    pub card: IdentityCard,
    /// Which of that card's keys was in use.
    pub active: KeyPlace,
    /// The locator of that key's token.
    pub token: String,
    /// Until when it holds, seconds since 1970.
    pub until: u64,
}

/// A peer's card before its last one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Former {
    /// The card.
    pub card: IdentityCard,
    /// Until when its keys hold, seconds since 1970.
    pub until: u64,
}

/// An identity recorded in a store. Public data.
///
/// One that came by card is complete. One that was entered by key and name alone has no address, and can only call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its name, unique in the store.
    pub identifier: Identifier,
    /// What it is for.
    pub role: Role,
    /// Its Noise static public key, unique in the store.
    pub static_public: StaticPublic,
    /// Where its onion service is reached, unique in the store.
    pub onion_address: Option<OnionAddress>,
    /// The key by which it reads this machine's onion descriptor, unique in the store.
    pub client_auth: Option<ClientAuthPublic>,
    /// The suites it offers, most wanted first.
    pub suites: Suites,
    /// The key encapsulation mechanism that it offers. Its former card has its own.
    pub kem: Option<Kem>,
    /// Where its static private key lives, by its own word.
    pub token: Option<TokenKind>,
    /// The proof of it that came with its card; verified before the card was recorded, and again by whoever shows it.
    pub attestation: Option<Attestation>,
    /// Its second static key.
    pub backup: Option<BackupKey>,
    /// Its card before this one, while that holds too.
    pub former: Option<Former>,
    /// When it is a stranger again, seconds since 1970.
    pub expires: Option<u64>,
}

impl Peer {
    /// Everything that a card says.
    pub fn from_card(card: &IdentityCard) -> Self {
        Self {
            identifier: card.identifier.clone(),
            role: card.role.clone(),
            static_public: card.static_public.clone(),
            onion_address: Some(card.onion_address),
            client_auth: Some(card.client_auth),
            suites: card.suites.clone(),
            kem: card.kem,
            token: Some(card.token),
            attestation: card.attestation.clone(),
            backup: card.backup.clone(),
            former: None,
            expires: None,
        }
    }

    /// The card again; `None` when the peer did not come by one.
    pub fn card(&self) -> Option<IdentityCard> {
        Some(IdentityCard {
            identifier: self.identifier.clone(),
            role: self.role.clone(),
            token: self.token?,
            attestation: self.attestation.clone(),
            static_public: self.static_public.clone(),
            backup: self.backup.clone(),
            onion_address: self.onion_address?,
            client_auth: self.client_auth?,
            suites: self.suites.clone(),
            kem: self.kem,
        })
    }

    /// The fingerprint of its card, which its own machine shows too; for a peer without one, the fingerprint of its key.
    pub fn fingerprint(&self) -> Fingerprint {
        self.card().map_or_else(|| Fingerprint::of_key(&self.static_public), |card| card.fingerprint())
    }
}

/// What [`Store::add_peer`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// Recorded, and logged.
    New,
    /// It is recorded already with exactly these values. Nothing was written.
    AlreadyThere,
}

/// An open store. It may be moved between threads; threads that work at once open one each.
pub struct Store {
    connection: Connection,
    dir: PathBuf,
    /// The seal, once it was opened.
    unlocked: Option<seal::Unlocked>,
}

impl Store {
    /// Creates the store of `machine` in `dir`, and `dir` where it is missing. The database is built under another name and takes its
    /// own at the end, without replacing anything: there is a whole store or none. `seal`: the tokens that it is sealed to, this machine's and its backup; without
    /// any it is not sealed. The store that is returned is unlocked.
    ///
    /// # Errors
    /// [`StoreExists`](crate::ErrorKind::StoreExists); [`StorePermissions`](crate::ErrorKind::StorePermissions) when `dir` is there and open to others;
    /// [`LocatorInvalid`](crate::ErrorKind::LocatorInvalid); [`IdentityInvalid`](crate::ErrorKind::IdentityInvalid) for a backup token without a backup key on the card, or the
    /// other way round; [`PlanMismatch`](crate::ErrorKind::PlanMismatch) when the card is not according to the plan; [`KeyMismatch`](crate::ErrorKind::KeyMismatch) when `seal`
    /// has tokens of others; [`StoreIo`](crate::ErrorKind::StoreIo).
    pub fn create(dir: &Path, machine: &NewMachine, seal: &[SealKey]) -> Result<Self> {
        row::check_own(&machine.card, &machine.token, machine.backup_token.as_deref())?;
        if let Some(plan) = &machine.plan {
            plan.check_card(&machine.card)?;
        }
        let dir = file::absolute(dir)?;
        file::create(&dir, |path| {
            let failed = fail::sql(&dir, "create the store");
            let connection = schema::connect(path, &dir)?;
            let new = Self { connection, dir: dir.clone(), unlocked: None };
            let transaction = new.transaction(TransactionBehavior::Immediate, "create the store")?;
            schema::migrate(&transaction, schema::MIGRATIONS, &dir)?;
            row::insert_machine(&transaction, machine).map_err(&failed)?;
            let (own, _) = row::machine(&transaction, &dir)?;
            new.event(&transaction, &own, Event::Created, "")?;
            if let Some(plan) = &machine.plan {
                new.put_plan(&transaction, plan, &own, "")?;
            }
            // In one transaction with the seal, and wrapped before the file sees them.
            let unlocked = if seal.is_empty() {
                None
            } else {
                new.event(&transaction, &own, Event::Sealed, &seal::tokens(seal))?;
                Some(seal::Keys::generate()?)
            };
            new.put_secret(&transaction, unlocked.as_ref(), "onion", machine.onion.expose())?;
            new.put_secret(&transaction, unlocked.as_ref(), "client-auth", machine.client_auth.expose())?;
            if let Some(keys) = unlocked {
                new.seal_under(&transaction, &own, keys, seal)?;
            }
            transaction.commit().map_err(&failed)?;
            new.connection.close().map_err(|(_, error)| failed(error))
        })?;
        let mut store = Self::open(&dir)?;
        seal.first().map_or(Ok(()), |key| store.unlock(key))?;
        Ok(store)
    }

    /// Opens the store in `dir`: checks owner and modes, migrates a store of an older release, and checks the database's structure
    /// (`integrity_check`, and the schema word for word).
    ///
    /// # Errors
    /// [`StoreAbsent`](crate::ErrorKind::StoreAbsent), [`StorePermissions`](crate::ErrorKind::StorePermissions), [`StoreNewer`](crate::ErrorKind::StoreNewer),
    /// [`StoreCorrupt`](crate::ErrorKind::StoreCorrupt), [`StoreBusy`](crate::ErrorKind::StoreBusy), [`StoreIo`](crate::ErrorKind::StoreIo).
    pub fn open(dir: &Path) -> Result<Self> {
        let dir = file::absolute(dir)?;
        let path = file::existing(&dir)?;
        let mut connection = schema::connect(&path, &dir)?;
        schema::check_identity(&connection, &dir)?;
        schema::upgrade(&mut connection, schema::MIGRATIONS, &dir)?;
        schema::check_structure(&connection, &dir)?;
        Ok(Self { connection, dir, unlocked: None })
    }

    /// The store's directory, absolute.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// This machine's identity and token.
    ///
    /// # Errors
    /// [`StoreCorrupt`](crate::ErrorKind::StoreCorrupt), [`StoreBusy`](crate::ErrorKind::StoreBusy), [`StoreIo`](crate::ErrorKind::StoreIo); when it was
    /// [unlocked](Self::unlock) also [`StoreTampered`](crate::ErrorKind::StoreTampered), [`StoreUnsealed`](crate::ErrorKind::StoreUnsealed) when the seal was taken off since, and
    /// [`StoreLocked`](crate::ErrorKind::StoreLocked) when it was made anew.
    pub fn machine(&self) -> Result<Machine> {
        let view = self.view()?;
        view.check_machine()?;
        Ok(row::machine(&view.transaction, &self.dir)?.0)
    }

    /// The onion service's secret key.
    ///
    /// # Errors
    /// As [`machine`](Self::machine); [`StoreLocked`](crate::ErrorKind::StoreLocked) when it is sealed and was not unlocked.
    pub fn onion_secret(&self) -> Result<OnionSecretKey> {
        self.secret("onion", OnionSecretKey::LEN, OnionSecretKey::from_slice)?.ok_or_else(|| self.no_secret("onion"))
    }

    /// The secret of the onion client-authorization key.
    ///
    /// # Errors
    /// As [`onion_secret`](Self::onion_secret).
    pub fn client_auth_secret(&self) -> Result<ClientAuthSecret> {
        let secret = self.secret("client-auth", ClientAuthSecret::LEN, ClientAuthSecret::from_slice)?;
        secret.ok_or_else(|| self.no_secret("client-auth"))
    }

    /// `None` when no secret has that name.
    fn secret<T>(&self, name: &str, len: usize, take: fn(&[u8]) -> Option<T>) -> Result<Option<T>> {
        let view = self.view()?;
        let keys = self.wrapping(&view.transaction, "read a secret")?;
        let row = view
            .transaction
            .query_row("SELECT value FROM secrets WHERE name = ?1", params![name], |row| {
                Ok((SecretBytes::new(row.get(0)?), row::hash(row, 0)?))
            })
            .optional()
            .map_err(|error| row::unreadable(&self.dir, "secrets", error))?;
        view.check("secret", name, row.as_ref().map(|(_, hash)| hash))?;
        let Some((value, _)) = row else { return Ok(None) };
        let secret = match keys {
            Some(keys) => keys.unwrap(name, &value).and_then(|plain| take(&plain)),
            None if value.len() == len + seal::WRAPPING => {
                return Err(seal::tampered(
                    &self.dir,
                    "its seal was removed, and its secrets can not be read without it",
                ));
            }
            None => take(&value),
        };
        secret.map(Some).ok_or_else(|| self.no_secret(name))
    }

    fn put_secret(&self, connection: &Connection, keys: Option<&seal::Keys>, name: &str, secret: &[u8]) -> Result<()> {
        let failed = fail::sql(&self.dir, "write a secret");
        let sql = "INSERT OR REPLACE INTO secrets (name, value) VALUES (?1, ?2)";
        match keys {
            None => connection.execute(sql, params![name, secret]),
            Some(keys) => connection.execute(sql, params![name, keys.wrap(name, secret)?]),
        }
        .map(drop)
        .map_err(failed)
    }

    fn no_secret(&self, name: &str) -> Error {
        fail::corrupt(&self.dir, &format!("row {name:?} of table `secrets` is missing or malformed"))
    }

    /// A number that grows with every change that any process commits, and costs one indexed read: a daemon that sees it unchanged need
    /// not read its peers again. [Contacts](Self::note_contact) are no change.
    ///
    /// # Errors
    /// As [`machine`](Self::machine).
    pub fn changed(&self) -> Result<u64> {
        log::last(&self.connection).map_err(fail::sql(&self.dir, "read the ceremony log"))
    }

    /// A number that changes when another connection commits, and not when this one does (`PRAGMA data_version`).
    #[cfg(feature = "net")]
    pub(crate) fn data_version(&self) -> Result<i64> {
        let version = self.connection.pragma_query_value(None, "data_version", |row| row.get(0));
        version.map_err(fail::sql(&self.dir, "look at the store"))
    }

    /// The ceremony log, oldest entry first. Its chain is verified.
    ///
    /// # Errors
    /// As [`machine`](Self::machine); a log with a gap, or with an entry that does not fit its hash, is [`StoreCorrupt`](crate::ErrorKind::StoreCorrupt), which
    /// names the first one.
    pub fn log(&self) -> Result<Vec<LogEntry>> {
        let view = self.view()?;
        let entries = log::read(&view.transaction, &self.dir);
        match &entries {
            Ok(entries) => {
                let start = log::Head { sequence: 0, hash: crate::ceremony::log::ROOT };
                let head =
                    entries.last().map_or(start, |entry| log::Head { sequence: entry.sequence, hash: entry.hash });
                view.check_log(head)?;
            }
            // Under a seal, everything that was changed is named.
            Err(_) => view.check_all()?,
        }
        entries
    }
}
