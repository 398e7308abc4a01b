-- name: read_run
SELECT bundle, home, epoch, round, model, clip FROM run;

-- name: read_outcomes
SELECT committed, accuracy, loss, seconds, result FROM rounds WHERE committed IS NOT NULL ORDER BY number;

-- name: read_newest_round
SELECT generation, epoch, number, opening, committed FROM rounds ORDER BY number DESC LIMIT 1;

-- name: read_events
SELECT time, unix, entry FROM events ORDER BY sequence;

-- name: read_decisions
SELECT frame FROM decisions ORDER BY sequence;

-- name: read_models
SELECT model FROM models ORDER BY round;

-- name: read_accounts
SELECT device, rho, rounds, last FROM accounts;

-- name: begin_run
INSERT INTO run (id, bundle, home, epoch, round, model) VALUES (1, :bundle, :home, :epoch, 0, :model);

-- name: set_epoch
UPDATE run SET epoch = :epoch, home = :home;

-- name: set_round
UPDATE run SET epoch = :epoch, round = :round;

-- name: set_model
UPDATE run SET model = :model, clip = :clip;

-- name: open_round
INSERT INTO rounds (number, generation, epoch, opening) VALUES (:number, :generation, :epoch, :opening);

-- name: close_round
UPDATE rounds SET committed = :committed, accuracy = :accuracy, loss = :loss, seconds = :seconds, result = :result
WHERE number = :number;

-- name: forget_openings
UPDATE rounds SET opening = NULL WHERE number < :number AND opening IS NOT NULL;

-- name: add_event
INSERT INTO events (time, unix, entry) VALUES (:time, :unix, :entry);

-- name: forget_events
DELETE FROM events;

-- name: add_decision
INSERT INTO decisions (frame) VALUES (:frame);

-- name: forget_decisions
DELETE FROM decisions;

-- name: add_model
INSERT INTO models VALUES (:round, :model);

-- name: forget_models
DELETE FROM models WHERE round <= :round;

-- name: charge
INSERT OR REPLACE INTO accounts VALUES (:device, :rho, :rounds, :last);
