-- What a registrar remembers. Times are seconds since 1970 UTC; serials are hexadecimal (they have 19 bytes).

CREATE TABLE claims (
    digest BLOB PRIMARY KEY,  -- SHA-256 of the claim's certificate; neither it nor its key is kept
    expires REAL NOT NULL,
    name TEXT,  -- that the device must have; NULL lets it choose
    used_by INTEGER REFERENCES devices (id)
) STRICT;

CREATE TABLE devices (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    key BLOB NOT NULL UNIQUE,  -- raw public key: one device's for ever, also after it was revoked
    enrolled REAL NOT NULL,
    revoked REAL,
    reason TEXT NOT NULL DEFAULT '',
    listed REAL,  -- when the broker had the list that names it
    guarded REAL,  -- when the broker's guard said that the broker goes by that list
    kicked REAL  -- when its session at the broker was ended
) STRICT;

CREATE UNIQUE INDEX standing ON devices (name) WHERE revoked IS NULL;

CREATE TABLE certificates (
    serial TEXT PRIMARY KEY,
    device INTEGER NOT NULL REFERENCES devices (id),
    not_after REAL NOT NULL,
    certificate BLOB NOT NULL  -- DER
) STRICT;

CREATE INDEX certificates_of ON certificates (device, not_after);

CREATE TABLE revocations (
    serial TEXT PRIMARY KEY,
    revoked REAL NOT NULL,
    not_after REAL NOT NULL  -- of the certificate: later nobody needs to be told
) STRICT;

-- One row: the newest list that was signed.
CREATE TABLE list (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    sequence INTEGER NOT NULL,
    signed REAL NOT NULL,
    message BLOB NOT NULL  -- as it is published
) STRICT;
