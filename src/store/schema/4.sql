-- Version 4. The key encapsulation mechanism that a card offers, NULL for none.

ALTER TABLE machine ADD COLUMN kem TEXT;

ALTER TABLE peers ADD COLUMN kem TEXT;

ALTER TABLE cards ADD COLUMN kem TEXT;
