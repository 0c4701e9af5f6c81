//! The secrets of the file, from one key to another.

use rusqlite::{Connection, params};

use super::{Keys, no_seal, tampered};
use crate::error::Result;
use crate::secret::{ClientAuthSecret, OnionSecretKey, SecretBytes};
use crate::store::{Store, fail};

impl Store {
    /// Every secret from one key to another; `None` is in the clear.
    pub(super) fn rewrap(&self, connection: &Connection, from: Option<&Keys>, to: Option<&Keys>) -> Result<()> {
        for (read, write) in [
            ("SELECT name, value FROM secrets", "UPDATE secrets SET value = ?2 WHERE name = ?1"),
            ("SELECT id, secret FROM challenges", "UPDATE challenges SET secret = ?2 WHERE id = ?1"),
            // By another name than any secret's or challenge's: a peer may be called as it likes.
            (
                "SELECT 'psk:' || peer, value FROM preshared_keys",
                "UPDATE preshared_keys SET value = ?2 WHERE 'psk:' || peer = ?1",
            ),
        ] {
            let failed = fail::sql(&self.dir, "wrap the secrets");
            let rows = || -> rusqlite::Result<Vec<(String, Vec<u8>)>> {
                connection.prepare(read)?.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
            };
            for (name, value) in rows().map_err(&failed)? {
                let value = SecretBytes::new(value);
                let plain = match from {
                    None if value.len() != secret_len(&name) => return Err(no_seal(&self.dir)),
                    None => value,
                    Some(keys) => keys.unwrap(&name, &value).ok_or_else(|| {
                        tampered(
                            &self.dir,
                            &format!("secret {:?} was changed", name.chars().take(64).collect::<String>()),
                        )
                    })?,
                };
                let changed = match to {
                    None => connection.execute(write, params![name, plain.as_slice()]),
                    Some(keys) => connection.execute(write, params![name, keys.wrap(&name, &plain)?]),
                };
                changed.map_err(&failed)?;
            }
        }
        Ok(())
    }
}

/// How long a secret of that name is in the clear, in bytes.
pub(super) fn secret_len(name: &str) -> usize {
    if ["onion", "former-onion"].contains(&name) { OnionSecretKey::LEN } else { ClientAuthSecret::LEN }
}
