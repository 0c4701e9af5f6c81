-- Version 1. Values are text as an identity card spells them, so that each is read by the card's own parsers.

CREATE TABLE machine (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    identifier TEXT NOT NULL,
    role TEXT NOT NULL,
    token_kind TEXT NOT NULL,
    curve TEXT NOT NULL,
    static_public TEXT NOT NULL,
    onion_address TEXT NOT NULL,
    client_auth TEXT NOT NULL,
    suites TEXT NOT NULL,
    token TEXT NOT NULL
) STRICT;

-- Apart from `machine`, so that reading the identity never touches them.
CREATE TABLE secrets (
    name TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- A peer that did not come by card has no token_kind, onion_address or client_auth.
CREATE TABLE peers (
    identifier TEXT PRIMARY KEY,
    role TEXT NOT NULL,
    token_kind TEXT,
    curve TEXT NOT NULL,
    static_public TEXT NOT NULL UNIQUE,
    onion_address TEXT UNIQUE,
    client_auth TEXT UNIQUE,
    suites TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE log (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    time INTEGER NOT NULL,
    event TEXT NOT NULL,
    subject TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    detail TEXT NOT NULL
) STRICT;

CREATE TRIGGER log_update BEFORE UPDATE ON log
BEGIN SELECT RAISE(ABORT, 'the ceremony log is append-only'); END;

CREATE TRIGGER log_delete BEFORE DELETE ON log
BEGIN SELECT RAISE(ABORT, 'the ceremony log is append-only'); END;

-- REPLACE deletes without running delete triggers, unless recursive_triggers is on.
CREATE TRIGGER log_replace BEFORE INSERT ON log
WHEN EXISTS (SELECT 1 FROM log WHERE sequence = NEW.sequence)
BEGIN SELECT RAISE(ABORT, 'the ceremony log is append-only'); END;
