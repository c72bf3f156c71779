-- +goose Up

-- What gateways are told. A row is written by the unit of work that caused it.
-- gateways: whom it concerns, ids with spaces between them; NULL: all.
CREATE TABLE events (
    version         INTEGER NOT NULL PRIMARY KEY,
    kind            TEXT NOT NULL,
    gateways        TEXT,
    reason          TEXT NOT NULL,
    user_id         TEXT NOT NULL,
    device_id       TEXT NOT NULL,
    subscription_id TEXT NOT NULL,
    plan_id         TEXT NOT NULL,
    session_id      TEXT NOT NULL,
    keys            TEXT NOT NULL,
    created_at      INTEGER NOT NULL
) STRICT;

-- One row: the newest version that was given out, and the newest that is not kept
-- any more. Who takes a version holds the row until the end of its unit of work,
-- so that versions become visible in their order and none is ever missing.
CREATE TABLE event_log (
    id     INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    latest INTEGER NOT NULL,
    low    INTEGER NOT NULL CHECK (low <= latest)
) STRICT;
INSERT INTO event_log (id, latest, low) VALUES (1, 0, 0);

-- Which gateways know a user: those that had a session of his.
CREATE INDEX sessions_user_gateway ON sessions (user_id, gateway_id);

-- Why the service wants a session to be closed; empty: it does not.
ALTER TABLE sessions ADD COLUMN close_reason TEXT NOT NULL DEFAULT '';
CREATE INDEX sessions_to_close ON sessions (gateway_id) WHERE close_reason <> '' AND ended_at IS NULL;
