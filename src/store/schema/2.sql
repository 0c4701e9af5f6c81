-- Version 2. Attestations, as a card spells them; what was recorded before carries none.
-- The policy of imports on this machine, and the roots, PEM, that it believes beside the makers'.

ALTER TABLE machine ADD COLUMN attestation TEXT NOT NULL DEFAULT 'none';

ALTER TABLE machine ADD COLUMN require_attestation INTEGER NOT NULL DEFAULT 0 CHECK (require_attestation IN (0, 1));

ALTER TABLE peers ADD COLUMN attestation TEXT NOT NULL DEFAULT 'none';

CREATE TABLE attestation_roots (
    pem TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;
