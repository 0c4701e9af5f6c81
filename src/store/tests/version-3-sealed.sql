-- A store of version 3 with test keys and something in every table, sealed to the token whose answer is that of `own()` in the tests of the seal.
PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
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
, attestation TEXT NOT NULL DEFAULT 'none', require_attestation INTEGER NOT NULL DEFAULT 0 CHECK (require_attestation IN (0, 1)), backup_kind TEXT, backup_public TEXT, backup_attestation TEXT NOT NULL DEFAULT 'none', backup_token TEXT, active TEXT NOT NULL DEFAULT 'primary', former_card TEXT, former_active TEXT, former_token TEXT, former_until INTEGER) STRICT;
INSERT INTO machine VALUES(1,'wallet','cosigner','hardware','x25519','ffff090909090909090909090909090909090909090909090909090909090909','mukhrbef4f5nfwenwtasnz5cfr2hzaamrrue3moxlsgdvnhlshmvhaad.onion','descriptor:x25519:XIAVIRXX2HR3VSGKL663C6OX6IEQY7OIBQKBXSAPQOMSB3OO3MNA','ChaChaPoly_BLAKE2s','file:/next.pem','none',0,NULL,NULL,'none',NULL,'primary',replace('claviger identity card 3\nidentifier: wallet\nrole: cosigner\ntoken: hardware\nattestation: none\ncurve: x25519\nstatic-public-key: 0600090909090909090909090909090909090909090909090909090909090909\nbackup-token: hardware\nbackup-attestation: none\nbackup-public-key: 0700090909090909090909090909090909090909090909090909090909090909\nonion-address: 2gbjrixq7tqrvvtgfosgooxnf3x5h5e7vt6bv2xvzgsey7d7xc4j4fqd.onion\nclient-auth-public-key: descriptor:x25519:GCBGIYOM4ULWJ24MKD7256OCS2ZYA7MWK2Q5JTYRJM3NSW75W55A\nsuites: ChaChaPoly_BLAKE2s\nchecksum: ad18a333dea2a79c\n','\n',char(10)),'primary','file:/key.pem',1900000000);
CREATE TABLE secrets (
    name TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO secrets VALUES('client-auth',X'28de9200e17200a747b19005d1e45db5c8bf726b61a4f0e100deb2730eb9a52f478da1b3c94546199a3b3d86ddf77f456641aa6135267b9c299f1d01');
INSERT INTO secrets VALUES('former-client-auth',X'3ef5c63ae48299787ee223286c0c030bddc6ae8d591c4f3ab712bd8b95256e25b89ecb19e2ea7ae5d4c233fcf1a25d514bfa170f57f6766db73ef486');
INSERT INTO secrets VALUES('former-onion',X'ec902f54fe4b9f9df732997b596549d14a2b617115ef7d6cf33b4efad3535e6e57564bd4c2d5dbd2e076f74c67ee6afb9aea316f1512da64c0274b542d7f2bd4b1bdd5af7c72c436881e56659146bbda0b4b8c293abe150cae1c51a6');
INSERT INTO secrets VALUES('onion',X'5ff0adfb7fd46e4961c643d4fb496a7348cf22e9029c60545faff1c4c7b70a2aae40f84f879e707b3346743a4ae0050efc55d6af289f73436de229a0bfa0b0f2419cade0f47b3d22eb3cb4020397110676c32a16d034b77f2e9aa319');
CREATE TABLE peers (
    identifier TEXT PRIMARY KEY,
    role TEXT NOT NULL,
    token_kind TEXT,
    curve TEXT NOT NULL,
    static_public TEXT NOT NULL UNIQUE,
    onion_address TEXT UNIQUE,
    client_auth TEXT UNIQUE,
    suites TEXT NOT NULL
, attestation TEXT NOT NULL DEFAULT 'none', backup_kind TEXT, backup_public TEXT, backup_attestation TEXT NOT NULL DEFAULT 'none', former_card TEXT, former_until INTEGER, expires INTEGER) STRICT, WITHOUT ROWID;
INSERT INTO peers VALUES('cosigner','cosigner','hardware','x25519','0b00090909090909090909090909090909090909090909090909090909090909','r7zmu33vern6cxxcpfv6byh2xc2p4vzcf3bzlh5gu4tlaf4y6a65axad.onion','descriptor:x25519:6MLA6GKLF55264LXI3WPAG2JCBZ6YOS3OYDBFDKNWV7O2VARX4FA','ChaChaPoly_BLAKE2s','none',NULL,NULL,'none',replace('claviger identity card 3\nidentifier: cosigner\nrole: cosigner\ntoken: hardware\nattestation: none\ncurve: x25519\nstatic-public-key: 0100090909090909090909090909090909090909090909090909090909090909\nbackup-token: hardware\nbackup-attestation: none\nbackup-public-key: 6500090909090909090909090909090909090909090909090909090909090909\nonion-address: 3bvjd4xk6f4rwqpbj3krhputb7mymqq2tdqfebq2srboay23m4b25yyd.onion\nclient-auth-public-key: descriptor:x25519:MAYR3QZXZ74TZUYI2EYWS2XIDJ3HXI6UQ52HFQRNXTJC62FMKENA\nsuites: ChaChaPoly_BLAKE2s\nchecksum: 17ca4fa69ad10f84\n','\n',char(10)),1900000000,NULL);
INSERT INTO peers VALUES('watchtower','cosigner','hardware','x25519','0200090909090909090909090909090909090909090909090909090909090909','oivj7nxk5ekyeg6rp24uatiup7hyggmtobvxrevyumlykfcuxzdxalid.onion','descriptor:x25519:FQK44AFUNED3XCEPX2E6ZLPRZ4XY2TCRVMCOR54RLNSH63DUYMZA','ChaChaPoly_BLAKE2s','none','hardware','6600090909090909090909090909090909090909090909090909090909090909','none',NULL,NULL,2000000000);
CREATE TABLE attestation_roots (
    pem TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;
INSERT INTO attestation_roots VALUES(replace('root\n','\n',char(10)));
CREATE TABLE plan (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    text TEXT NOT NULL
) STRICT;
INSERT INTO "plan" VALUES(1,replace('plan = 1\nname = "vault"\n\n[rules]\nattestation = false\nbackup-token = false\nproof-of-possession = false\nwords-spoken = false\nwitnesses = 0\n\n[[member]]\nname = "cosigner"\nrole = "cosigner"\ncurve = "x25519"\n\n[[member]]\nname = "guardian"\nrole = "cosigner"\ncurve = "x25519"\n\n[[member]]\nname = "spare"\nrole = "cosigner"\ncurve = "x25519"\n\n[[member]]\nname = "wallet"\nrole = "cosigner"\ncurve = "x25519"\n\n[[member]]\nname = "watchtower"\nrole = "cosigner"\ncurve = "x25519"\n\n[[edge]]\nfrom = "guardian"\nto = "cosigner"\nservice = "cosign"\n\n[[edge]]\nfrom = "spare"\nto = "wallet"\nservice = "cosign"\n\n[[edge]]\nfrom = "wallet"\nto = "cosigner"\nservice = "cosign"\n\n[[edge]]\nfrom = "wallet"\nto = "watchtower"\nservice = "cosign"\n','\n',char(10)));
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
INSERT INTO cards VALUES('guardian','cosigner','hardware','x25519','0300090909090909090909090909090909090909090909090909090909090909','2cp5diejohaxrxsrbcoj3dkel4lvhq3zeq5xclqho7d2eemp5gbyssid.onion','descriptor:x25519:Y6K4HILE3U5PI5FYKJFEQAGKVEWS6TKS2ATFKCTPQPPPYFQ35A5Q','ChaChaPoly_BLAKE2s','none','hardware','6700090909090909090909090909090909090909090909090909090909090909','none');
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
INSERT INTO revoked VALUES(1,'spare','x25519','0400090909090909090909090909090909090909090909090909090909090909','6800090909090909090909090909090909090909090909090909090909090909','qkxh5q2dx3fbvvvkvs5knal4hwm3b3a7n7vyglypllklo657azkd3myd.onion','descriptor:x25519:FXVR3K2Z3KWXWMUIYQMZBY465C3WEXTK3IOKHNFX2D5M7GW2SFMQ',1795262085,'stolen');
CREATE TABLE challenges (
    id TEXT PRIMARY KEY,
    text TEXT NOT NULL,
    secret BLOB NOT NULL,
    expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO challenges VALUES('c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5',replace('claviger challenge 1\nchallenge: c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5\nplan: none\nverifier: wallet\ncurve: x25519\nephemeral-public-key: a00f090909090909090909090909090909090909090909090909090909090909\nissued: 1799999400\nexpires: 1800000000\nchecksum: 43e5334ee6ca5949\n','\n',char(10)),X'20ac2e928a77eb3745a26ed98d472d00b2865f575bcd2f533847fe7c91592b8c5fc86b5b2713067c86efded5ad3c7ef2cc55f9ad1e6b97fc45999f2b',1800000000);
CREATE TABLE spent (
    challenge TEXT NOT NULL,
    key TEXT NOT NULL,
    PRIMARY KEY (challenge, key)
) STRICT, WITHOUT ROWID;
INSERT INTO spent VALUES('c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5','x25519:0b00090909090909090909090909090909090909090909090909090909090909');
CREATE TABLE contacts (
    peer TEXT NOT NULL,
    own TEXT NOT NULL,
    theirs TEXT NOT NULL,
    time INTEGER NOT NULL,
    PRIMARY KEY (peer, own, theirs)
) STRICT, WITHOUT ROWID;
INSERT INTO contacts VALUES('cosigner','x25519:0600090909090909090909090909090909090909090909090909090909090909','x25519:0100090909090909090909090909090909090909090909090909090909090909',1700000000);
CREATE TABLE seal (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    mac BLOB NOT NULL,
    manifest TEXT NOT NULL
) STRICT;
INSERT INTO seal VALUES(1,X'd2b41fbe08e1a0fa4f9ca2b33b58d0bfc6a293f905f38365148a16b7a68cae57',replace('card guardian dfe9f375f12213edcecf531c2baa35a702914612a0ee90a7533ba2ed15419d7c\nchallenge c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5 dc724a09078b541b0abd005fecfc7b15960dc44fa1b1968fd2a0f6f33414bbf5\nkeys 7433d771c7e1c751f8ec606dcf5376d46025bb726a040e7c9c7a5f1469e2d846\nmachine bcb3567f1201400e70f2280035b63c10808249c66fe5d25784a03bb5cfd8d0a0\npeer cosigner 7576d732f74320da374f5c93ffa82200bfce5b5ce20e3fbea8b2fd7a5e60bbe6\npeer watchtower bafa2840ef9d4a6f3da2c9bb30d179480ee671db6743396716ae646476f34f77\nplan 88d121d89a057cbf3ecf79f3f6cdfaf56d8d28a1e64c8d94eab1cab79da01298\nrevoked spare#1 6addc5d301d5a4b6946e95ce2a578ea6df4df755907b4a04ca5f1df4de2b220e\nroots 215351ac362601cce2fc2f9231efd8f3ba7729dd6506f4077b19557369a65f84\nsecret client-auth 7979c3c87ab1842edb00e4c8fc2eeb8a3266a3522da00844e4829ac8da938d60\nsecret former-client-auth 38eb2cfe0323a8f71231a1ef7025e7049bf116f9d89b30eaa633ab3c46e6e63c\nsecret former-onion 022f0c2a64a41c675b53a35379ec6f5c91c6a4e4cb4980b87d6ea70406261277\nsecret onion 4602b1f4cb43336262b0d16a4d1491d6f4988c6097b9022d9241e6363fed39a6\nspent c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5/x25519:0b00090909090909090909090909090909090909090909090909090909090909 b8e0c07e763647dd42c36601ecaf08e956eb9381c8e347a53dfae14541672964\nlog 13 d6a8eba935252008d589761464db319e6f80c28094714e7ae5dcda13b4d014fd\n','\n',char(10)));
CREATE TABLE seal_keys (
    curve TEXT NOT NULL,
    static_public TEXT NOT NULL,
    wrapped BLOB NOT NULL,
    PRIMARY KEY (curve, static_public)
) STRICT, WITHOUT ROWID;
INSERT INTO seal_keys VALUES('x25519','ffff090909090909090909090909090909090909090909090909090909090909',X'47320dd180d770fdd33aaf3ca8a5c5fab7d83a61569b972a97eef9cc5ffbc857ac2dfbb1e18eab23284ae91462f3a65b225889c983f21a497a65dacc');
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
INSERT INTO log VALUES(1,1795262085,'created','wallet','88d34be6bd274cad568919139d3322f0','0.1.0','',X'e4dc856c4ac247caaa44cde3252ad5d86a37ac007754237f3d81daf65754fa48');
INSERT INTO log VALUES(2,1795262085,'plan-recorded','wallet','df0080d7f16874ba2ad45608ee99c025','0.1.0','',X'b4c8108c2c173a9b9b2e50fcc427158d8ec433194bb094b1e1d23d1705aee39f');
INSERT INTO log VALUES(3,1795262085,'sealed','wallet','88d34be6bd274cad568919139d3322f0','0.1.0','2 tokens',X'ecdaf308c037c5fddec4b48452af76fa6c2649e47ff78c5e93c764285df3c89a');
INSERT INTO log VALUES(4,1795262085,'peer-added','cosigner','1d7a30c247b453caa4ab68bb40c2b0ef','0.1.0','words compared',X'dba45c9180c4fb7de9f780b613c3298c4ae53484c681334f76cc2e82532b0c0e');
INSERT INTO log VALUES(5,1795262085,'peer-added','watchtower','b2d741cbc85b717a12f551e1f557c592','0.1.0','words compared',X'a919e527244d22c3f71f376a2828232176e2c468728bbb6aab9b7c3b839136b1');
INSERT INTO log VALUES(6,1795262085,'card-added','guardian','14ccebb60bb96fab9b84f1db1a3cf2f8','0.1.0','words compared',X'e3e490e42938a532426356af7a3a648a1056b54793d0fc93f5d3f065553e9304');
INSERT INTO log VALUES(7,1795262085,'peer-added','spare','59ceecdc48844b8c4b6793381e6726b3','0.1.0','words compared',X'be30f79f6d436cdcaf56afba802e7c6e92fd2c7c1134777ae73b14666b7d79d3');
INSERT INTO log VALUES(8,1795262085,'peer-revoked','spare','59ceecdc48844b8c4b6793381e6726b3','0.1.0','stolen',X'c181a1cf4909ec45823f2d67ac668362c1571abe215844678cf68e68e490acc0');
INSERT INTO log VALUES(9,1795262085,'expiry-set','watchtower','b2d741cbc85b717a12f551e1f557c592','0.1.0','until 2033-05-18T03:33:20Z',X'4ca234a40a343bf367c0a1c68e1d7778fedf7cc18fb9d1bb4538153805339966');
INSERT INTO log VALUES(10,1795262085,'card-succeeded','cosigner','e5257d409974ea926ca9461e98cc3e07','0.1.0','vouched for',X'5df3473070b23b3a97f3fd2d173d70cfa9af2a44ccc9050e8601a71bf9c338eb');
INSERT INTO log VALUES(11,1795262085,'challenge-made','wallet','88d34be6bd274cad568919139d3322f0','0.1.0','c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5',X'd75803f37b4c59381b076d47b87afc65dd8f20601ac26412f7ddf5e63c9e5971');
INSERT INTO log VALUES(12,1795262085,'proof-verified','cosigner','e2a774432706afaf47d6bd0571d88a87','0.1.0','by file',X'ae0c093fab264b6d26c7de882a2efb9264250bafa83e34998cd576c40aa95214');
INSERT INTO log VALUES(13,1795262085,'rotated','wallet','677120a4b7a2f7ec54c22ed4e6c794f0','0.1.0','the former card until 2030-03-17T17:46:40Z',X'd6a8eba935252008d589761464db319e6f80c28094714e7ae5dcda13b4d014fd');
DELETE FROM sqlite_sequence;
INSERT INTO sqlite_sequence VALUES('log',13);
CREATE UNIQUE INDEX peers_backup ON peers (backup_public);
CREATE TRIGGER log_update BEFORE UPDATE ON log
BEGIN SELECT RAISE(ABORT, 'the ceremony log is append-only'); END;
CREATE TRIGGER log_delete BEFORE DELETE ON log
BEGIN SELECT RAISE(ABORT, 'the ceremony log is append-only'); END;
CREATE TRIGGER log_replace BEFORE INSERT ON log
WHEN EXISTS (SELECT 1 FROM log WHERE sequence = NEW.sequence)
BEGIN SELECT RAISE(ABORT, 'the ceremony log is append-only'); END;
COMMIT;
PRAGMA application_id = 1129070934;
PRAGMA user_version = 3;
