//! Who still uses which key: outside the seal and the log, for a daemon writes it without the token.

use rusqlite::params;

use crate::error::Result;
use crate::identity::{Identifier, StaticPublic};
use crate::store::row::{integer, key_from_text, key_text, unreadable};
use crate::store::{Store, fail};

/// When, and by which keys, this machine and a peer last had a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    /// The peer.
    pub peer: Identifier,
    /// This machine's key then.
    pub own: StaticPublic,
    /// The peer's key then.
    pub theirs: StaticPublic,
    /// Seconds since 1970: the last one.
    pub time: u64,
}

impl Store {
    /// Notes a session: who still uses which key. Not under the seal, not in the log; needs no token. Whoever can write to the file can write contacts: they are
    /// for people to look at, and nothing may be decided by them alone.
    ///
    /// # Errors
    /// As [`machine`](Self::machine).
    pub fn note_contact(&mut self, contact: &Contact) -> Result<()> {
        self.connection
            .execute(
                "INSERT INTO contacts (peer, own, theirs, time) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT DO UPDATE SET time = max(time, excluded.time)",
                params![
                    contact.peer.as_str(),
                    key_text(&contact.own),
                    key_text(&contact.theirs),
                    integer(contact.time)
                ],
            )
            .map(drop)
            .map_err(fail::sql(&self.dir, "note a contact"))
    }

    /// The last contact by each pair of keys, ordered by peer and time.
    ///
    /// # Errors
    /// As [`machine`](Self::machine).
    pub fn contacts(&self) -> Result<Vec<Contact>> {
        let rows = || -> rusqlite::Result<Vec<Option<Contact>>> {
            self.connection
                .prepare("SELECT peer, own, theirs, time FROM contacts ORDER BY peer, time, own, theirs")?
                .query_map([], |row| {
                    let text = |column| row.get::<_, String>(column);
                    Ok(contact(&text(0)?, &text(1)?, &text(2)?, row.get(3)?))
                })?
                .collect()
        };
        let rows = rows().map_err(|error| unreadable(&self.dir, "contacts", error))?;
        rows.into_iter()
            .map(|row| row.ok_or_else(|| fail::corrupt(&self.dir, "a row of table `contacts` is malformed")))
            .collect()
    }
}

fn contact(peer: &str, own: &str, theirs: &str, time: i64) -> Option<Contact> {
    let (own, theirs) = (key_from_text(own)?, key_from_text(theirs)?);
    Some(Contact { peer: peer.parse().ok()?, own, theirs, time: time.try_into().ok()? })
}
