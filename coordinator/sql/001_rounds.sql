-- The run between two rounds, in one row. Hashes name files in the folder "models".
CREATE TABLE run (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    bundle BLOB NOT NULL,      -- hash of the training artifact that the weights belong to
    home INTEGER NOT NULL,     -- of the folder; a copy has another
    epoch INTEGER NOT NULL,
    round INTEGER NOT NULL,    -- the newest that was opened
    weights BLOB NOT NULL,
    first BLOB NOT NULL,       -- moments of the server optimizer
    second BLOB NOT NULL
) STRICT;

-- Every round of this state.
CREATE TABLE rounds (
    number INTEGER PRIMARY KEY,
    generation INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    opening BLOB,              -- how it began; kept for the newest two
    committed INTEGER,         -- 0 or 1; nothing while it is open
    accuracy REAL,
    loss REAL,
    seconds REAL,
    result TEXT                -- the line of results.jsonl
) STRICT;

-- The open round: all that its half was told, in order, and the signed decisions that came of it.
CREATE TABLE events (
    sequence INTEGER PRIMARY KEY,
    time REAL NOT NULL,        -- seconds of the round's own time
    unix REAL NOT NULL,
    entry BLOB NOT NULL
) STRICT;

-- The outbox: what was decided in the newest round, as the frames that leave.
CREATE TABLE decisions (
    sequence INTEGER PRIMARY KEY,
    frame BLOB NOT NULL
) STRICT;

-- Weights of the newest committed rounds, files in the folder "models".
CREATE TABLE models (
    round INTEGER PRIMARY KEY,
    weights BLOB NOT NULL
) STRICT;
