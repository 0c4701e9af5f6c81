//! Challenges that are open, and the keys that answered them.

use data_encoding::HEXLOWER;
use rusqlite::{OptionalExtension, params};

use crate::ceremony::log::Event;
use crate::ceremony::proof::Challenge;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::{Fingerprint, Identifier, StaticPublic};
use crate::secret::{EphemeralSecret, SecretBytes};
use crate::store::row::{self, integer, key_text};
use crate::store::seal::{Step, WRAPPING, no_seal};
use crate::store::{Store, fail, log};

/// A challenge that is open.
pub struct OpenChallenge {
    /// Its [`id`](crate::ceremony::proof::Challenge::id).
    pub id: [u8; 16],
    /// Its text.
    pub text: String,
    /// The secret that verifies its proofs.
    pub secret: EphemeralSecret,
}

impl Store {
    /// Keeps a challenge open, and logs it. Those whose time has passed by `now` are forgotten.
    ///
    /// # Errors
    /// [`ProofInvalid`](ErrorKind::ProofInvalid) when the text is no challenge, or that of another;
    /// [`StoreLocked`](ErrorKind::StoreLocked); and as [`machine`](Self::machine).
    pub fn open_challenge(&mut self, challenge: &OpenChallenge, now: u64) -> Result<()> {
        let expires = expiry(challenge)?;
        self.change("keep the challenge", |connection| {
            let failed = fail::sql(&self.dir, "keep the challenge");
            let id = HEXLOWER.encode(&challenge.id);
            let keys = self.wrapping(connection, "keep the challenge")?;
            let secret = challenge.secret.expose();
            let secret = match keys {
                Some(keys) => SecretBytes::new(keys.wrap(&id, secret)?),
                None => SecretBytes::new(secret.to_vec()),
            };
            connection
                .execute("DELETE FROM challenges WHERE expires <= ?1", params![integer(now)])
                .and_then(|_| {
                    connection.execute(
                        "INSERT INTO challenges (id, text, secret, expires) VALUES (?1, ?2, ?3, ?4)",
                        params![id, challenge.text, secret.as_slice(), integer(expires)],
                    )
                })
                .and_then(|_| {
                    connection
                        .execute("DELETE FROM spent WHERE challenge NOT IN (SELECT id FROM challenges)", params![])
                })
                .map_err(&failed)?;
            let (machine, _) = row::machine(connection, &self.dir)?;
            self.event(connection, &machine, Event::ChallengeMade, &id)?;
            Ok(Step::Done(()))
        })
    }

    /// An open challenge; `None` for one that was never made here, or that was forgotten. Whether its time has passed is for the caller to see.
    ///
    /// # Errors
    /// As [`onion_secret`](Self::onion_secret).
    pub fn challenge(&self, id: &[u8; 16]) -> Result<Option<OpenChallenge>> {
        let name = HEXLOWER.encode(id);
        let view = self.view()?;
        let keys = self.wrapping(&view.transaction, "read the challenge's secret")?;
        let row = view
            .transaction
            .query_row("SELECT id, text, secret, expires FROM challenges WHERE id = ?1", params![name], |row| {
                Ok((row.get::<_, String>(1)?, SecretBytes::new(row.get(2)?), row::hash(row, 0)?))
            })
            .optional()
            .map_err(|error| row::unreadable(&self.dir, "challenges", error))?;
        view.check("challenge", &name, row.as_ref().map(|(.., hash)| hash))?;
        let Some((text, stored, _)) = row else { return Ok(None) };
        let secret = match keys {
            Some(keys) => keys.unwrap(&name, &stored).and_then(|plain| EphemeralSecret::from_slice(&plain)),
            None if stored.len() == EphemeralSecret::LEN + WRAPPING => return Err(no_seal(&self.dir)),
            None => EphemeralSecret::from_slice(&stored),
        };
        let secret = secret.ok_or_else(|| fail::corrupt(&self.dir, &format!("challenge {name} has no secret")))?;
        Ok(Some(OpenChallenge { id: *id, text, secret }))
    }

    /// Records that a key answered a challenge, and logs [`Event::ProofVerified`] with the key's fingerprint.
    ///
    /// # Errors
    /// [`ProofUsed`](ErrorKind::ProofUsed) when it did before; [`ProofInvalid`](ErrorKind::ProofInvalid) when no such challenge is open;
    /// [`StoreLocked`](ErrorKind::StoreLocked); and as [`machine`](Self::machine).
    pub fn spend_challenge(&mut self, id: &[u8; 16], prover: &Identifier, key: &StaticPublic, how: &str) -> Result<()> {
        let name = HEXLOWER.encode(id);
        self.change("record the proof", |connection| {
            let failed = fail::sql(&self.dir, "record the proof");
            let values = params![name, key_text(key)];
            let (open, spent): (bool, bool) = connection
                .query_row(
                    "SELECT EXISTS (SELECT 1 FROM challenges WHERE id = ?1),
                         EXISTS (SELECT 1 FROM spent WHERE challenge = ?1 AND key = ?2)",
                    values,
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )
                .map_err(&failed)?;
            let again = "Make a new challenge with `claviger-ceremony challenge`.";
            if spent {
                return Err(Error::new(
                    ErrorKind::ProofUsed,
                    format!("The token of \"{prover}\" answered this challenge before; no proof counts twice."),
                    again,
                ));
            }
            if !open {
                return Err(Error::new(ErrorKind::ProofInvalid, "No such challenge is open on this machine.", again));
            }
            connection
                .execute("INSERT INTO spent (challenge, key) VALUES (?1, ?2)", values)
                .and_then(|_| log::append(connection, Event::ProofVerified, prover, Fingerprint::of_key(key), how))
                .map_err(&failed)?;
            Ok(Step::Done(()))
        })
    }
}

/// Until when a challenge holds, by its text.
fn expiry(challenge: &OpenChallenge) -> Result<u64> {
    let text = Challenge::from_text(&challenge.text)?;
    if text.id == challenge.id {
        return Ok(text.expires);
    }
    Err(Error::new(
        ErrorKind::ProofInvalid,
        "The text of the challenge is that of another challenge.",
        "Make a new challenge with `claviger-ceremony challenge`.",
    ))
}
