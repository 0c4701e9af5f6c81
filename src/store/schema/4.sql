-- Version 4. The key encapsulation mechanism that a card offers, NULL for none, and pre-shared keys.

ALTER TABLE machine ADD COLUMN kem TEXT;

ALTER TABLE peers ADD COLUMN kem TEXT;

ALTER TABLE cards ADD COLUMN kem TEXT;

-- Values are wrapped when the store is sealed, like those of `secrets`; check values are public. A peer's row is written anew at times, so nothing refers to it.
CREATE TABLE preshared_keys (
    peer TEXT PRIMARY KEY,
    check_value TEXT NOT NULL,
    time INTEGER NOT NULL,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;
