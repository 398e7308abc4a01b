-- The run between two rounds, in one row. A model is the hash of a file in the folder "models".
CREATE TABLE run (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    bundle BLOB NOT NULL,      -- hash of the training artifact that the weights belong to
    home INTEGER NOT NULL,     -- of the folder; a copy has another
    epoch INTEGER NOT NULL,
    round INTEGER NOT NULL,    -- the newest that was opened
    model BLOB NOT NULL        -- weights, and moments of the server optimizer
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

-- The models of the newest committed rounds.
CREATE TABLE models (
    round INTEGER PRIMARY KEY,
    model BLOB NOT NULL
) STRICT;
