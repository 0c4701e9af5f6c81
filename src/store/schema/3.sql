-- Version 3. The ceremony: backup keys, plan, held cards, revocation, rotation, challenges, the chained log, the seal.

ALTER TABLE machine ADD COLUMN backup_kind TEXT;

ALTER TABLE machine ADD COLUMN backup_public TEXT;

ALTER TABLE machine ADD COLUMN backup_attestation TEXT NOT NULL DEFAULT 'none';

ALTER TABLE machine ADD COLUMN backup_token TEXT;

-- Which of the two keys is in use.
ALTER TABLE machine ADD COLUMN active TEXT NOT NULL DEFAULT 'primary';

-- Before the last rotation: card text, which of its keys was in use, that key's locator, until when. Its secrets are `former-onion` and
-- `former-client-auth`.
ALTER TABLE machine ADD COLUMN former_card TEXT;

ALTER TABLE machine ADD COLUMN former_active TEXT;

ALTER TABLE machine ADD COLUMN former_token TEXT;

ALTER TABLE machine ADD COLUMN former_until INTEGER;

ALTER TABLE peers ADD COLUMN backup_kind TEXT;

ALTER TABLE peers ADD COLUMN backup_public TEXT;

ALTER TABLE peers ADD COLUMN backup_attestation TEXT NOT NULL DEFAULT 'none';

ALTER TABLE peers ADD COLUMN former_card TEXT;

ALTER TABLE peers ADD COLUMN former_until INTEGER;

ALTER TABLE peers ADD COLUMN expires INTEGER;

CREATE UNIQUE INDEX peers_backup ON peers (backup_public);

-- The canonical text of the plan.
CREATE TABLE plan (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    text TEXT NOT NULL
) STRICT;

-- Members that this machine has no edge to: for the phrase.
CREATE TABLE cards (
    identifier TEXT PRIMARY KEY,
    role TEXT NOT NULL,
    token_kind TEXT NOT NULL,
    curve TEXT NOT NULL,
    static_public TEXT NOT NULL UNIQUE,
    onion_address TEXT NOT NULL UNIQUE,
    client_auth TEXT NOT NULL UNIQUE,
    suites TEXT NOT NULL,
    attestation TEXT NOT NULL,
    backup_kind TEXT,
    backup_public TEXT UNIQUE,
    backup_attestation TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- What is never recorded again. One row a card; a peer that did not come by card has no address and no client_auth.
CREATE TABLE revoked (
    number INTEGER PRIMARY KEY,
    identifier TEXT NOT NULL,
    curve TEXT NOT NULL,
    static_public TEXT NOT NULL,
    backup_public TEXT,
    onion_address TEXT,
    client_auth TEXT,
    time INTEGER NOT NULL,
    reason TEXT NOT NULL
) STRICT;

CREATE TABLE challenges (
    id TEXT PRIMARY KEY,
    text TEXT NOT NULL,
    secret BLOB NOT NULL,
    expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Which keys answered which challenge.
CREATE TABLE spent (
    challenge TEXT NOT NULL,
    key TEXT NOT NULL,
    PRIMARY KEY (challenge, key)
) STRICT, WITHOUT ROWID;

-- Not under the seal: a daemon writes it without the token.
CREATE TABLE contacts (
    peer TEXT NOT NULL,
    own TEXT NOT NULL,
    theirs TEXT NOT NULL,
    time INTEGER NOT NULL,
    PRIMARY KEY (peer, own, theirs)
) STRICT, WITHOUT ROWID;

CREATE TABLE seal (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    mac BLOB NOT NULL,
    manifest TEXT NOT NULL
) STRICT;

-- The store's key, wrapped for each token that opens the seal.
CREATE TABLE seal_keys (
    curve TEXT NOT NULL,
    static_public TEXT NOT NULL,
    wrapped BLOB NOT NULL,
    PRIMARY KEY (curve, static_public)
) STRICT, WITHOUT ROWID;

-- The log once more, with the release that wrote an entry and the chain of hashes, which SQL can not compute: the migration's second
-- half copies the entries over and drops `log_2`. Nothing is ever changed in the new table.
DROP TRIGGER log_update;

DROP TRIGGER log_delete;

DROP TRIGGER log_replace;

ALTER TABLE log RENAME TO log_2;

CREATE TABLE log (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    time INTEGER NOT NULL,
    event TEXT NOT NULL,
    subject TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    version TEXT NOT NULL,
    detail TEXT NOT NULL,
    hash BLOB NOT NULL
) STRICT;

CREATE TRIGGER log_update BEFORE UPDATE ON log
BEGIN SELECT RAISE(ABORT, 'the ceremony log is append-only'); END;

CREATE TRIGGER log_delete BEFORE DELETE ON log
BEGIN SELECT RAISE(ABORT, 'the ceremony log is append-only'); END;

-- REPLACE deletes without running delete triggers, unless recursive_triggers is on.
CREATE TRIGGER log_replace BEFORE INSERT ON log
WHEN EXISTS (SELECT 1 FROM log WHERE sequence = NEW.sequence)
BEGIN SELECT RAISE(ABORT, 'the ceremony log is append-only'); END;
