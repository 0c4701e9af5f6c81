-- A store of version 2 with test keys.
BEGIN TRANSACTION;
CREATE TABLE attestation_roots (
    pem TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;
INSERT INTO "attestation_roots" VALUES('-----BEGIN CERTIFICATE-----
-----END CERTIFICATE-----
');
CREATE TABLE log (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    time INTEGER NOT NULL,
    event TEXT NOT NULL,
    subject TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    detail TEXT NOT NULL
) STRICT;
INSERT INTO "log" VALUES(1,1795229250,'created','wallet','f96d0d535332305245b48434eb51294c','');
INSERT INTO "log" VALUES(2,1795229250,'peer-added','cosigner','03e9bc9e3c4fb23cc308e2a99a53395a','words compared');
INSERT INTO "log" VALUES(3,1795229250,'peer-added','watchtower','7075d35720d3a5e536a6ddcb7fa496bd','fingerprint given');
INSERT INTO "log" VALUES(4,1795229250,'peer-added','bare','cd0e2d9dad959d11cd2d76b15bd6d921','');
INSERT INTO "log" VALUES(5,1795229250,'peer-removed','watchtower','7075d35720d3a5e536a6ddcb7fa496bd','');
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
, attestation TEXT NOT NULL DEFAULT 'none', require_attestation INTEGER NOT NULL DEFAULT 0 CHECK (require_attestation IN (0, 1))) STRICT;
INSERT INTO "machine" VALUES(1,'wallet','cosigner','hardware','x25519','ffff090909090909090909090909090909090909090909090909090909090909','fqvynx4jsgmv4b5xmczzudeg3ysnhibjx2w3rlbzo5x4ctoeret7qkid.onion','descriptor:x25519:6KHGYWDA4D5EUQNPGJGC3SGZ47GQ7AB5AIMIDQ4PNLV4HL7QQIMQ','ChaChaPoly_BLAKE2s','file:/key.pem','none',0);
CREATE TABLE peers (
    identifier TEXT PRIMARY KEY,
    role TEXT NOT NULL,
    token_kind TEXT,
    curve TEXT NOT NULL,
    static_public TEXT NOT NULL UNIQUE,
    onion_address TEXT UNIQUE,
    client_auth TEXT UNIQUE,
    suites TEXT NOT NULL
, attestation TEXT NOT NULL DEFAULT 'none') STRICT, WITHOUT ROWID;
INSERT INTO "peers" VALUES('bare','cosigner',NULL,'x25519','0300090909090909090909090909090909090909090909090909090909090909',NULL,NULL,'ChaChaPoly_BLAKE2s','none');
INSERT INTO "peers" VALUES('cosigner','cosigner','hardware','x25519','0100090909090909090909090909090909090909090909090909090909090909','g35wdjoa3ia2bbzls3gr6j3ewdeyjhnjjt5f5rpz2cvipdnvaax6hvid.onion','descriptor:x25519:5UVGUFFAV3UU7BNHAR2DDC7ZCZOWK35EDVIQDQNPDAMVCKP7U5KQ','ChaChaPoly_BLAKE2s','yubico-piv BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH');
CREATE TABLE secrets (
    name TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "secrets" VALUES('client-auth',X'CF604B7321E7B47C402243FBA427A3F1DBF722DEED49F5B7C8D4CE48C52A7894');
INSERT INTO "secrets" VALUES('onion',X'680F2CC95C99C06571EB68BE9ED959C9E4F5CB796DC283A5F3C4D26994109F7E954C859617B13E076795AA573B3CEEA648E71CDDA38765F4BCED2D556E3F0636');
CREATE TRIGGER log_update BEFORE UPDATE ON log
BEGIN SELECT RAISE(ABORT, 'the ceremony log is append-only'); END;
CREATE TRIGGER log_delete BEFORE DELETE ON log
BEGIN SELECT RAISE(ABORT, 'the ceremony log is append-only'); END;
CREATE TRIGGER log_replace BEFORE INSERT ON log
WHEN EXISTS (SELECT 1 FROM log WHERE sequence = NEW.sequence)
BEGIN SELECT RAISE(ABORT, 'the ceremony log is append-only'); END;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('log',5);
COMMIT;
PRAGMA application_id = 1129070934;
PRAGMA user_version = 2;
