-- What the sums that were unmasked have cost each device in them, and when each device took part last.
CREATE TABLE accounts (
    device TEXT NOT NULL PRIMARY KEY,
    rho REAL NOT NULL,         -- zCDP, rounded up
    rounds INTEGER NOT NULL,
    last INTEGER NOT NULL      -- the newest round it took part in
) STRICT;

-- The clip of the next round, where it follows the updates.
ALTER TABLE run ADD COLUMN clip REAL;
